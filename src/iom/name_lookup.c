// LOOKUP, GETATTR, OPEN, RELEASE, READLINK, STATFS: what only looks.
#include "iom/name_inside.h"

#include <sys/stat.h>

uint8_t type_of_mode(uint32_t mode) {
    switch (mode & S_IFMT) {
    case 0:
    case S_IFREG: return OBJ_FILE;
    case S_IFDIR: return OBJ_DIR;
    case S_IFLNK: return OBJ_SYMLINK;
    case S_IFIFO: return OBJ_FIFO;
    case S_IFSOCK: return OBJ_SOCKET;
    case S_IFCHR: return OBJ_CHARDEV;
    case S_IFBLK: return OBJ_BLOCKDEV;
    }
    return 0;
}

// One that is being made is waited for: its handle may be known before it is here.
err co_cnode_made(struct names *n, struct handle h, struct cnode *c) {
    err e = co_cnode_get(n, h, c);
    while (e == ERR_STALE && !object_looked_at(n, h)) {
        e = co_look_object(n, h);
        if (e == OK) e = co_cnode_get(n, h, c);
    }
    return e;
}

// The entry, after waiting for whoever changes that name. ERR_NOENT: as co_dirent_find; ERR_STALE, ERR_NOTDIR: no such
// directory.
err co_dir_find(struct names *n, struct handle dir, struct name nm, struct dirent *d) {
    if (!handle_valid(dir) || dir.starter != n->c.self.n) return ERR_STALE;
    err e = co_look_name(n, dir, nm);
    if (e == OK) e = co_dirent_find(n, dir, nm, d);
    if (e != ERR_NOENT) return e;
    struct cnode c;
    e = co_cnode_made(n, dir, &c);
    if (e == OK && c.type != OBJ_DIR) e = ERR_NOTDIR;
    return e == OK ? ERR_NOENT : e;
}

static void request_attr_bare(struct request *r, const struct dirent *d) {
    struct rep_attr rep = {.has_attr = 0};
    wire_handle_put(&rep.attr.handle, d->h);
    refmap_put(rep.attr.map.b, &d->map);
    struct cnode c = {.type = d->type, .h = d->h, .map = d->map};
    struct wire_attr a;
    attr_fill(&a, &c);
    rep.attr.mode = a.mode;
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
}

static err co_attr_of(struct request *r, struct handle h) {
    struct cnode c;
    err e = co_look_object(r->n, h);
    if (e == OK) e = co_cnode_live(r->n, h, &c);
    if (e == OK) request_attr(r, &c);
    return e;
}

static err co_lookup_dots(struct request *r, struct handle dir, struct name nm) {
    struct cnode c;
    err e = co_look_object(r->n, dir);
    if (e == OK) e = co_cnode_live(r->n, dir, &c);
    if (e == OK && c.type != OBJ_DIR) e = ERR_NOTDIR;
    if (e == OK && c.nlink == 0) e = ERR_NOENT;
    if (e != OK) return e;
    struct handle h = nm.len == 1 ? dir : c.parent;
    if (h.starter == r->n->c.self.n) return co_attr_of(r, h);
    request_attr_bare(r, &(struct dirent){.h = h, .map = dir_map(r->n, (iom_id){h.starter}), .type = OBJ_DIR});
    return OK;
}

err co_name_lookup(struct request *r) {
    const struct req_name *q = (const void *)r->m->body;
    struct name nm = {q->name, le16_get(q->name_len)};
    struct handle dir = wire_handle_at(&q->dir);
    if (r->m->body_len < sizeof *q + nm.len) return ERR_FORMAT;
    if (nm.len > 0 && nm.len <= 2 && nm.s[0] == '.' && nm.s[nm.len - 1] == '.') return co_lookup_dots(r, dir, nm);
    err e = name_check(nm);
    while (e == OK) {
        struct dirent d;
        e = co_dir_find(r->n, dir, nm, &d);
        if (e != OK) return e;
        if (d.h.starter != r->n->c.self.n) {
            request_attr_bare(r, &d);
            return OK;
        }
        struct handle h = d.h;
        e = co_attr_of(r, h);
        if (e != ERR_STALE) return e;
        e = co_dir_find(r->n, dir, nm, &d); // gone since: look again; still there: its record is missing
        if (e == OK && handle_eq(d.h, h)) return ERR_STALE;
    }
    return e;
}

err co_name_getattr(struct request *r) {
    return co_attr_of(r, wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle));
}

err co_name_open(struct request *r) {
    struct handle h = wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle);
    err e = co_attr_of(r, h);
    if (e == OK) session_open_object(r->n, r->session, h); // nothing was waited for since the look
    return e;
}

static void release_one(struct request *r, struct handle h) {
    if (session_release_object(r->n, r->session, h)) orphan_note(r->n, h);
}

err co_name_release(struct request *r) {
    const struct slice *more = &r->m->payload;
    if (more->len_bytes % HANDLE_BYTES != 0) return ERR_INVAL;
    release_one(r, wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle));
    for (uint32_t i = 0; i < more->len_bytes; i += HANDLE_BYTES) release_one(r, handle_at(slice_data(*more) + i));
    return OK;
}

err co_name_readlink(struct request *r) {
    struct names *n = r->n;
    struct handle h = wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle);
    struct cnode c;
    err e = co_cnode_live(n, h, &c);
    if (e != OK) return e;
    if (c.type != OBJ_SYMLINK || c.size > SYMLINK_BYTES_MAX) return ERR_INVAL;
    uint8_t id[HANDLE_BYTES];
    handle_put(id, h);
    struct buf *b = buf_new(n->mem, (uint32_t)c.size);
    uint32_t got = 0;
    for (uint32_t part = 0; got < c.size && e == OK; part++) {
        struct key k = key_make(KIND_SYMLINK, id, part);
        uint32_t len = 0;
        e = co_tree_get(n->store, n->tree, &k, b->data + got, (uint32_t)c.size - got, &len);
        got += len;
    }
    if (e == OK) {
        r->big = msg_new(n->mem, MSG_READLINK | MSG_REPLY, sizeof(struct envelope));
        msg_set_payload(r->big, (struct slice){b, 0, got});
    }
    buf_unref(b);
    return e == ERR_NOENT ? ERR_STALE : e;
}

err co_name_statfs(struct request *r) {
    struct names_stats st;
    names_stats(r->n, &st);
    struct rep_statfs rep = {
        .blocks = le64_of(store_blocks_total(r->n->store)),
        .blocks_free = le64_of(store_blocks_free(r->n->store)),
        .objects = le64_of(st.objects),
        .blocks_used = le64_of(store_blocks_used(r->n->store)),
    };
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
    return OK;
}
