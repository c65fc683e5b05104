// Names and attributes: one request to the starter of the directory or of the object, and a second one where a name leads to an object
// that another IOM is starter of.
#include "mx/inside.h"
#include "wire/format.h"

#include <limits.h>

static struct mx_target at_starter(struct handle h, bool once) { return (struct mx_target){.iom = {h.starter}, .once = once}; }

static err name_check(const char *name, uint16_t *len) {
    size_t n = strnlen(name, 256);
    if (n > 255) return ERR_NAMETOOLONG;
    if (n == 0) return ERR_NOENT;
    *len = (uint16_t)n;
    return OK;
}

static void put_handle(struct wire_handle *w, struct handle h) { handle_put(w->b, h); }

// Sends, decodes the attributes in the reply, fetches them from the object's own starter where the reply has none.
static err co_attr_request(struct mx *m, struct mx_op *op, struct mx_target t, struct msg *q, struct attr *out) {
    struct msg *reply;
    bool has_attr;
    err e = co_mx_request(m, op, t, q, &reply);
    if (e) return e;
    e = mx_reply_attr(m, reply, out, &has_attr);
    if (e || has_attr) return e;
    return co_mx_getattr(m, op, out->handle, out);
}

static err co_name_request(struct mx *m, struct mx_op *op, uint16_t type, struct handle dir, const char *name, bool once, struct msg **reply) {
    uint16_t len;
    err e = name_check(name, &len);
    if (e) return e;
    struct msg *q = mx_msg(m, op, type, (uint32_t)sizeof(struct req_name) + len);
    struct req_name *r = (struct req_name *)q->body;
    put_handle(&r->dir, dir);
    r->name_len = le16_of(len);
    memcpy(r->name, name, len);
    return co_mx_request(m, op, at_starter(dir, once), q, reply);
}

err co_mx_lookup(struct mx *m, struct mx_op *op, struct handle dir, const char *name, struct attr *out) {
    struct msg *reply;
    bool has_attr;
    mx_op_begin(m, op);
    for (;;) {
        err e = co_name_request(m, op, MSG_LOOKUP, dir, name, false, &reply);
        if (!e) e = mx_reply_attr(m, reply, out, &has_attr);
        if (e || has_attr) return e;
        e = co_mx_getattr(m, op, out->handle, out);
        if (e != ERR_STALE) return e; // else it was removed or renamed over in between: look again
    }
}

err co_mx_getattr(struct mx *m, struct mx_op *op, struct handle h, struct attr *out) {
    mx_op_begin(m, op);
    struct msg *q = mx_msg(m, op, MSG_GETATTR, sizeof(struct req_handle)), *reply;
    bool has_attr;
    put_handle(&((struct req_handle *)q->body)->handle, h);
    err e = co_mx_request(m, op, at_starter(h, false), q, &reply);
    if (e) return e;
    e = mx_reply_attr(m, reply, out, &has_attr);
    return !e && !has_attr ? ERR_FORMAT : e;
}

// A truncate must not overtake what this MX says of the size; afterwards the object's size here is the starter's.
err co_mx_setattr(struct mx *m, struct mx_op *op, struct handle h, const struct mx_setattr *s, struct attr *out) {
    mx_op_begin(m, op);
    struct mx_object *o = mx_object_find(m, h);
    struct msg *q = mx_msg(m, op, MSG_SETATTR, sizeof(struct req_setattr));
    struct req_setattr *r = (struct req_setattr *)q->body;
    put_handle(&r->handle, h);
    r->valid = le32_of(s->valid);
    r->mode = le32_of(s->mode);
    r->uid = le32_of(s->uid);
    r->gid = le32_of(s->gid);
    r->size = le64_of(s->size);
    r->atime_ns = le64_of(s->atime_ns);
    r->mtime_ns = le64_of(s->mtime_ns);
    if (o && (s->valid & (SETATTR_SIZE | SETATTR_MTIME)) && o->unflushed) o->unflushed = false; // the starter's word counts from now on
    return co_attr_request(m, op, at_starter(h, true), q, out);
}

static struct msg *create_msg(struct mx *m, struct mx_op *op, uint16_t type, struct handle dir, const char *name, uint16_t len, uint32_t mode, uint64_t rdev, bool open) {
    struct msg *q = mx_msg(m, op, type, (uint32_t)sizeof(struct req_create) + len);
    struct req_create *r = (struct req_create *)q->body;
    put_handle(&r->dir, dir);
    r->mode = le32_of(mode);
    r->rdev = le64_of(rdev);
    r->open = open;
    r->name_len = le16_of(len);
    memcpy(r->name, name, len);
    return q;
}

static err co_make(struct mx *m, struct mx_op *op, uint16_t type, struct handle dir, const char *name, uint32_t mode, uint64_t rdev, bool open, struct attr *out) {
    uint16_t len;
    err e = name_check(name, &len);
    if (e) return e;
    return co_attr_request(m, op, at_starter(dir, true), create_msg(m, op, type, dir, name, len, mode, rdev, open), out);
}

err co_mx_mknod(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, uint64_t rdev, struct attr *out) {
    mx_op_begin(m, op);
    return co_make(m, op, MSG_CREATE, dir, name, mode, rdev, false, out);
}

err co_mx_mkdir(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, struct attr *out) {
    mx_op_begin(m, op);
    return co_make(m, op, MSG_MKDIR, dir, name, mode, 0, false, out);
}

err co_mx_symlink(struct mx *m, struct mx_op *op, struct handle dir, const char *name, const char *target, struct attr *out) {
    mx_op_begin(m, op);
    uint16_t len;
    err e = name_check(name, &len);
    size_t target_len = strnlen(target, PATH_MAX);
    if (!e && target_len >= PATH_MAX) e = ERR_NAMETOOLONG;
    if (!e && !target_len) e = ERR_NOENT;
    if (e) return e;
    struct msg *q = create_msg(m, op, MSG_SYMLINK, dir, name, len, 0777, 0, false);
    struct buf *b = buf_new(m->env->mem, (uint32_t)target_len);
    memcpy(b->data, target, target_len);
    msg_set_payload(q, (struct slice){b, 0, (uint32_t)target_len});
    buf_unref(b);
    return co_attr_request(m, op, at_starter(dir, true), q, out);
}

err co_mx_readlink(struct mx *m, struct mx_op *op, struct handle h, char *out, uint32_t cap) {
    mx_op_begin(m, op);
    struct msg *q = mx_msg(m, op, MSG_READLINK, sizeof(struct req_handle)), *reply;
    put_handle(&((struct req_handle *)q->body)->handle, h);
    err e = co_mx_request(m, op, at_starter(h, false), q, &reply);
    if (e) return e;
    uint32_t len = reply->payload.len_bytes;
    if (!len || len >= cap) e = len ? ERR_RANGE : ERR_FORMAT;
    else {
        memcpy(out, slice_data(reply->payload), len);
        out[len] = 0;
    }
    msg_free(reply);
    return e;
}

err co_mx_link(struct mx *m, struct mx_op *op, struct handle h, struct handle dir, const char *name, struct attr *out) {
    mx_op_begin(m, op);
    uint16_t len;
    err e = name_check(name, &len);
    if (e) return e;
    struct msg *q = mx_msg(m, op, MSG_LINK, (uint32_t)sizeof(struct req_link) + len);
    struct req_link *r = (struct req_link *)q->body;
    put_handle(&r->handle, h);
    put_handle(&r->dir, dir);
    r->name_len = le16_of(len);
    memcpy(r->name, name, len);
    return co_attr_request(m, op, at_starter(dir, true), q, out);
}

static err co_remove(struct mx *m, struct mx_op *op, uint16_t type, struct handle dir, const char *name) {
    struct msg *reply = NULL;
    mx_op_begin(m, op);
    co_mx_partings_first(m, (iom_id){dir.starter}); // lest what was closed just now is kept as a deleted object that is open
    err e = co_name_request(m, op, type, dir, name, true, &reply);
    msg_free(reply);
    return e;
}

err co_mx_unlink(struct mx *m, struct mx_op *op, struct handle dir, const char *name) { return co_remove(m, op, MSG_UNLINK, dir, name); }
err co_mx_rmdir(struct mx *m, struct mx_op *op, struct handle dir, const char *name) { return co_remove(m, op, MSG_RMDIR, dir, name); }

err co_mx_rename(struct mx *m, struct mx_op *op, struct handle dir, const char *name, struct handle to_dir, const char *to, uint32_t flags) {
    mx_op_begin(m, op);
    uint16_t len, to_len;
    err e = name_check(name, &len);
    if (!e) e = name_check(to, &to_len);
    if (e) return e;
    struct msg *q = mx_msg(m, op, MSG_RENAME, (uint32_t)sizeof(struct req_rename) + len + to_len);
    struct req_rename *r = (struct req_rename *)q->body;
    put_handle(&r->dir, dir);
    put_handle(&r->to_dir, to_dir);
    r->flags = le32_of(flags);
    r->name_len = le16_of(len);
    r->to_len = le16_of(to_len);
    memcpy(r->names, name, len);
    memcpy(r->names + len, to, to_len);
    co_mx_partings_first(m, (iom_id){dir.starter});
    return co_mx_order(m, op, at_starter(dir, true), q);
}

err co_mx_statfs(struct mx *m, struct mx_op *op, struct mx_statfs *out) {
    mx_op_begin(m, op);
    *out = (struct mx_statfs){0};
    uint64_t least = UINT64_MAX;
    uint8_t n = m->config.array_ioms;
    for (uint8_t i = 0; i < n; i++) {
        struct msg *q = mx_msg(m, op, MSG_STATFS, sizeof(struct req_head)), *reply;
        err e = co_mx_request(m, op, (struct mx_target){.iom = {i}}, q, &reply);
        if (e) return e;
        const struct rep_statfs *r = (const struct rep_statfs *)reply->body;
        if (reply->body_len < sizeof *r) e = ERR_FORMAT;
        else {
            out->blocks += le64_get(r->blocks);
            out->free_blocks += le64_get(r->blocks) - le64_get(r->blocks_used);
            out->objects += le64_get(r->objects);
            least = MIN(least, le64_get(r->blocks_free));
        }
        msg_free(reply);
        if (e) return e;
    }
    uint64_t parts = n >= 2 ? n : 1, usable = n >= 3 ? n - 1u : 1; // one of n is parity, of two a copy
    out->blocks = out->blocks / parts * usable;
    out->free_blocks = out->free_blocks / parts * usable;
    out->avail_blocks = least * usable;
    return OK;
}

// ---- directories
static err dirent_decode(struct mx *m, const uint8_t *p, uint32_t room, struct mx_dirent *d, uint32_t *entry_len) {
    const struct wire_dirent *w = (const struct wire_dirent *)p;
    if (room < sizeof *w) return ERR_FORMAT;
    *entry_len = le16_get(w->entry_len);
    d->name_len = le16_get(w->name_len);
    if (*entry_len > room || *entry_len < sizeof *w + d->name_len || !d->name_len || d->name_len > 255) return ERR_FORMAT;
    d->cookie = le64_get(w->cookie);
    d->handle = handle_at(w->handle.b);
    d->type = w->type;
    d->has_attr = w->has_attr;
    d->name = (const char *)w->name;
    err bad = OK;
    if (d->has_attr) mx_attr_decode(&d->attr, &w->attr, &bad);
    struct mx_object *o = d->has_attr && !bad ? mx_object_find(m, d->handle) : NULL;
    if (o && o->unflushed) d->has_attr = false; // our own writes are newer: let it be asked
    return bad;
}

// Gives the entries of one reply to the caller. *go_on is false when it has enough.
static err entries_out(struct mx *m, const struct slice *s, bool (*entry)(void *arg, const struct mx_dirent *d), void *arg, uint64_t *cookie, bool *go_on) {
    uint32_t at = 0, entry_len;
    while (at < s->len_bytes && *go_on) {
        struct mx_dirent d;
        err e = dirent_decode(m, slice_data(*s) + at, s->len_bytes - at, &d, &entry_len);
        if (e) return e;
        *go_on = entry(arg, &d);
        if (*go_on) *cookie = d.cookie;
        at += entry_len;
    }
    return OK;
}

static bool dots(struct handle dir, uint64_t *cookie, bool (*entry)(void *arg, const struct mx_dirent *d), void *arg) {
    static const char *const name[] = {".", ".."};
    while (*cookie < 2) {
        struct mx_dirent d = {.cookie = *cookie + 1, .handle = dir, .type = OBJ_DIR, .name = name[*cookie], .name_len = (uint32_t)*cookie + 1};
        if (!entry(arg, &d)) return false;
        ++*cookie;
    }
    return true;
}

err co_mx_readdir(struct mx *m, struct mx_op *op, struct handle dir, uint64_t cookie, bool plus, bool (*entry)(void *arg, const struct mx_dirent *d), void *arg,
                  bool *eof) {
    mx_op_begin(m, op);
    *eof = false;
    bool go_on = dots(dir, &cookie, entry, arg);
    while (go_on) {
        struct msg *q = mx_msg(m, op, MSG_READDIR, sizeof(struct req_readdir)), *reply;
        struct req_readdir *r = (struct req_readdir *)q->body;
        put_handle(&r->dir, dir);
        r->cookie = le64_of(cookie);
        r->max_bytes = le32_of(64u << 10);
        r->plus = plus;
        err e = co_mx_request(m, op, at_starter(dir, false), q, &reply);
        if (e) return e;
        bool end = reply->body_len >= sizeof(struct rep_readdir) && ((const struct rep_readdir *)reply->body)->eof;
        if (!end && !reply->payload.len_bytes) e = ERR_FORMAT;
        else if (reply->payload.len_bytes) e = entries_out(m, &reply->payload, entry, arg, &cookie, &go_on);
        msg_free(reply);
        if (e) return e;
        if (end) {
            *eof = go_on;
            return OK;
        }
    }
    return OK;
}

// ---- extended attributes
static err xattr_msg(struct mx *m, struct mx_op *op, uint16_t type, struct handle h, const char *name, int flags, struct msg **out) {
    uint16_t len;
    err e = name_check(name, &len);
    if (e) return e == ERR_NAMETOOLONG ? ERR_RANGE : ERR_INVAL;
    struct msg *q = mx_msg(m, op, type, (uint32_t)sizeof(struct req_xattr) + len);
    struct req_xattr *r = (struct req_xattr *)q->body;
    put_handle(&r->handle, h);
    r->flags = le32_of((uint32_t)flags);
    r->name_len = le16_of(len);
    memcpy(r->name, name, len);
    *out = q;
    return OK;
}

err co_mx_setxattr(struct mx *m, struct mx_op *op, struct handle h, const char *name, const void *val, uint32_t len, int flags) {
    struct msg *q;
    mx_op_begin(m, op);
    if (len > 65536) return ERR_2BIG;
    err e = xattr_msg(m, op, MSG_SETXATTR, h, name, flags, &q);
    if (e) return e;
    if (len) {
        struct buf *b = buf_new(m->env->mem, len);
        memcpy(b->data, val, len);
        msg_set_payload(q, (struct slice){b, 0, len});
        buf_unref(b);
    }
    e = co_mx_order(m, op, at_starter(h, true), q);
    struct mx_object *o = mx_object_find(m, h);
    struct attr a;
    if (!e && o && !strncmp(name, "user.mendfs.", 12)) e = co_mx_getattr(m, op, h, &a); // the toughness of what is open changes at once
    return e;
}

// A reply's payload into the caller's buffer; cap 0 asks for the length alone.
static err payload_out(struct msg *reply, void *out, uint32_t cap, uint32_t *len) {
    *len = reply->payload.len_bytes;
    err e = cap && *len > cap ? ERR_RANGE : OK;
    if (!e && cap && *len) memcpy(out, slice_data(reply->payload), *len);
    msg_free(reply);
    return e;
}

err co_mx_getxattr(struct mx *m, struct mx_op *op, struct handle h, const char *name, void *val, uint32_t cap, uint32_t *len) {
    struct msg *q, *reply;
    mx_op_begin(m, op);
    err e = xattr_msg(m, op, MSG_GETXATTR, h, name, 0, &q);
    if (!e) e = co_mx_request(m, op, at_starter(h, false), q, &reply);
    return e ? e : payload_out(reply, val, cap, len);
}

err co_mx_listxattr(struct mx *m, struct mx_op *op, struct handle h, char *out, uint32_t cap, uint32_t *len) {
    mx_op_begin(m, op);
    struct msg *q = mx_msg(m, op, MSG_LISTXATTR, sizeof(struct req_handle)), *reply;
    put_handle(&((struct req_handle *)q->body)->handle, h);
    err e = co_mx_request(m, op, at_starter(h, false), q, &reply);
    return e ? e : payload_out(reply, out, cap, len);
}

err co_mx_removexattr(struct mx *m, struct mx_op *op, struct handle h, const char *name) {
    struct msg *q;
    mx_op_begin(m, op);
    err e = xattr_msg(m, op, MSG_REMOVEXATTR, h, name, 0, &q);
    return e ? e : co_mx_order(m, op, at_starter(h, true), q);
}
