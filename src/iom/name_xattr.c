// Extended attributes: user., trusted., security.; values up to 64 KiB, in parts. POSIX ACLs are not supported.
//
// user.mendfs.toughness, protection, quantum and span are no records: they show and set the policies. A directory
// passes them to what is made in it; of a file only the toughness can change, for its map is made once. user.mendfs.hosts
// tells how many hosts the IOMs are on, which bounds the span of new files (refmap_span); it cannot be set.
#include "iom/name_inside.h"

#include "base/sum.h"

#include <stdio.h>

#define XATTR_CREATE_ONLY 1u
#define XATTR_REPLACE_ONLY 2u
#define POLICY_PREFIX "user.mendfs."

struct xattr {       // where one stands
    uint64_t number; // of part 0; 0 = nowhere, and none free
    uint32_t value_len;
    bool found;
};

static uint64_t xattr_hash(struct name nm) {
    return (hash64(nm.s, nm.len, 4) >> 16 | 1) << 16;
}
static uint32_t xattr_parts(struct name nm, uint32_t value_len) {
    uint32_t first = XATTR_PART_BYTES - nm.len;
    return value_len <= first ? 1 : 1 + ROUND_UP(value_len - first, XATTR_PART_BYTES) / XATTR_PART_BYTES;
}

static struct key xattr_key(struct handle h, uint64_t number) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, h);
    return key_make(KIND_XATTR, id, number);
}

// Names of one hash stand next to each other, their parts between: one seek a name.
static err co_xattr_find(struct names *n, struct handle h, struct name nm, struct xattr *x) {
    uint64_t hash = xattr_hash(nm), next = hash;
    struct key first = xattr_key(h, hash);
    *x = (struct xattr){0};
    for (;;) {
        union {
            struct rec_xattr r;
            uint8_t room[RECORD_BYTES_MAX];
        } val;
        struct key k = xattr_key(h, next);
        uint32_t len;
        err e = co_tree_seek(n->store, n->tree, &k, &val, RECORD_BYTES_MAX, &len);
        if (e != OK && e != ERR_NOENT) return e;
        bool same = e == OK && memcmp(k.b, first.b, 17) == 0 && key_number(&k) >> 16 == hash >> 16;
        uint64_t at = same ? key_number(&k) & ~0xfffull : hash + 0x10000;
        if (x->number == 0 && at > next) x->number = next;
        if (!same) return OK;
        if (len < sizeof val.r + val.r.name_len) return ERR_FORMAT;
        if (val.r.name_len == nm.len && memcmp(val.r.bytes, nm.s, nm.len) == 0) {
            *x = (struct xattr){at, le32_get(val.r.value_len), true};
            return OK;
        }
        next = at + 0x1000;
        if (next == hash + 0x10000) return OK;
    }
}

static bool name_begins(struct name nm, const char *with) {
    size_t len = strlen(with);
    return nm.len >= len && memcmp(nm.s, with, len) == 0;
}

static err xattr_allowed(struct name nm) {
    if (nm.len == 0) return ERR_INVAL;
    if (nm.len > NAME_BYTES_MAX) return ERR_NAMETOOLONG;
    if (memchr(nm.s, 0, nm.len) != NULL) return ERR_INVAL;
    return name_begins(nm, "user.") || name_begins(nm, "trusted.") || name_begins(nm, "security.") ? OK : ERR_NOTSUP;
}

// ---- policies
static const char *const protection_names[] = {"none", "mirror", [PROT_PARITY3] = "parity3", [PROT_PARITY] = "parity"};

static bool policy_name(struct name nm, const char *what) {
    size_t prefix = strlen(POLICY_PREFIX);
    return name_begins(nm, POLICY_PREFIX) && nm.len - prefix == strlen(what) &&
           memcmp(nm.s + prefix, what, nm.len - prefix) == 0;
}

static err policy_show(const struct names *n, const struct cnode *c, struct name nm, char *out, size_t cap) {
    bool file = c->type == OBJ_FILE;
    uint8_t toughness = file ? c->toughness : c->policy.toughness,
            protection = file ? c->map.protection : c->policy.protection;
    uint8_t quantum = file ? c->map.quantum_shift : c->policy.quantum_shift, span = file ? c->map.span : c->policy.span;
    int len = -1;
    out[0] = 0;
    if (policy_name(nm, "toughness") && toughness != POLICY_UNSET) len = snprintf(out, cap, "%u", toughness);
    if (policy_name(nm, "protection") && protection != POLICY_UNSET)
        len = snprintf(out, cap, "%s", protection_names[protection]);
    if (policy_name(nm, "quantum") && quantum != POLICY_UNSET) len = snprintf(out, cap, "%uK", 1u << (quantum - 10));
    if (policy_name(nm, "span") && span != POLICY_UNSET) len = snprintf(out, cap, "%u", span);
    if (policy_name(nm, "hosts")) len = snprintf(out, cap, "%u", array_hosts(&n->c.array));
    return len >= 0 ? OK : ERR_NODATA;
}

static bool number_at(const char *s, uint32_t *out, const char **rest) {
    uint32_t v = 0;
    const char *p = s;
    while (*p >= '0' && *p <= '9' && v < 100000000u) v = v * 10 + (uint32_t)(*p++ - '0');
    *out = v;
    *rest = p;
    return p > s;
}

static err quantum_at(const char *s, uint8_t *shift) {
    uint32_t v;
    const char *rest;
    if (!number_at(s, &v, &rest)) return ERR_INVAL;
    uint64_t bytes = v;
    if (*rest == 'k' || *rest == 'K')
        bytes <<= 10, rest++;
    else if (*rest == 'm' || *rest == 'M')
        bytes <<= 20, rest++;
    if (*rest != 0) return ERR_INVAL;
    for (uint8_t i = 12; i <= 22; i++)
        if (bytes == 1ull << i) return *shift = i, OK;
    return ERR_INVAL;
}

static err policy_parse(struct rec_policy *p, struct name nm, const char *s, uint8_t array_ioms) {
    uint32_t v;
    const char *rest;
    if (policy_name(nm, "quantum")) return quantum_at(s, &p->quantum_shift);
    if (policy_name(nm, "protection")) {
        for (size_t i = 0; i < ARRAY_LEN(protection_names); i++)
            if (protection_names[i] != NULL && strcmp(protection_names[i], s) == 0)
                return p->protection = (uint8_t)i, OK;
        return ERR_INVAL;
    }
    if (!number_at(s, &v, &rest) || *rest != 0) return ERR_INVAL;
    if (policy_name(nm, "toughness") && v <= 2) return p->toughness = (uint8_t)v, OK;
    if (policy_name(nm, "span") && v <= array_ioms) return p->span = (uint8_t)v, OK;
    return ERR_INVAL;
}

// The policies must make a map: what no file could be created with is refused here.
static err policy_usable(const struct names *n, const struct rec_policy *p) {
    struct refmap m;
    return refmap_make(&m, &n->c.array, n->c.self,
                       p->protection == POLICY_UNSET ? PROT_PARITY : (enum protection)p->protection,
                       p->span == POLICY_UNSET ? 0 : p->span, p->quantum_shift == POLICY_UNSET ? 16 : p->quantum_shift, 0);
}

static err policy_set(const struct names *n, struct cnode *c, struct name nm, const struct slice *value) {
    char s[32] = "";
    if (value->len_bytes == 0 || value->len_bytes >= sizeof s) return ERR_INVAL;
    memcpy(s, slice_data(*value), value->len_bytes);
    struct rec_policy p = c->policy;
    err e = policy_parse(&p, nm, s, n->c.array.ioms);
    if (e == OK) e = policy_usable(n, &p);
    if (e != OK) return e;
    if (c->type == OBJ_DIR)
        c->policy = p;
    else if (c->type == OBJ_FILE && policy_name(nm, "toughness"))
        c->toughness = p.toughness;
    else
        return ERR_INVAL; // a map is made once
    return OK;
}

static err policy_unset(struct cnode *c, struct name nm) {
    if (c->type != OBJ_DIR) return ERR_INVAL;
    if (policy_name(nm, "toughness"))
        c->policy.toughness = POLICY_UNSET;
    else if (policy_name(nm, "protection"))
        c->policy.protection = POLICY_UNSET;
    else if (policy_name(nm, "quantum"))
        c->policy.quantum_shift = POLICY_UNSET;
    else if (policy_name(nm, "span"))
        c->policy.span = POLICY_UNSET;
    else
        return ERR_NODATA;
    return OK;
}

// ---- records
static void xattr_put(const struct names *n, struct batch *b, struct handle h, const struct xattr *x, struct name nm,
                      const struct slice *value) {
    uint32_t len = value->len_bytes, at = 0, parts = xattr_parts(nm, len),
             old = x->found ? xattr_parts(nm, x->value_len) : 0;
    for (uint32_t part = 0; part < MAX(parts, old); part++) {
        struct key k = xattr_key(h, x->number | part);
        if (part >= parts) {
            batch_del(b, n->tree, &k);
            continue;
        }
        union {
            struct rec_xattr r;
            uint8_t room[sizeof(struct rec_xattr) + XATTR_PART_BYTES];
        } val = {.r = {.value_len = le32_of(len)}};
        uint32_t name_len = part == 0 ? nm.len : 0, take = MIN(len - at, XATTR_PART_BYTES - name_len);
        val.r.name_len = (uint8_t)name_len;
        memcpy(val.r.bytes, nm.s, name_len);
        if (take > 0) memcpy(val.r.bytes + name_len, slice_data(*value) + at, take);
        batch_put(b, n->tree, &k, &val, (uint32_t)sizeof val.r + name_len + take);
        at += take;
    }
}

static void cnode_put(const struct names *n, struct batch *b, struct cnode *c, uint64_t now) {
    struct rec_cnode rec;
    struct key k = cnode_key(c->h);
    c->ctime_ns = now;
    c->change++;
    batch_put(b, n->tree, &k, &rec, cnode_encode(c, &rec));
}

struct xattr_request {
    struct handle h;
    struct name nm;
    uint32_t flags;
    bool policy;
};

static err xattr_begin(struct request *r, struct xattr_request *x) {
    const struct req_xattr *q = (const void *)r->m->body;
    *x =
        (struct xattr_request){wire_handle_at(&q->handle), {q->name, le16_get(q->name_len)}, le32_get(q->flags), false};
    if (r->m->body_len < sizeof *q + x->nm.len) return ERR_FORMAT;
    x->policy = name_begins(x->nm, POLICY_PREFIX);
    return xattr_allowed(x->nm);
}

static err co_setxattr_locked(struct request *r, const struct xattr_request *x, struct cnode *c) {
    const struct slice *value = &r->m->payload;
    struct xattr at = {0};
    err e = x->policy ? policy_set(r->n, c, x->nm, value) : co_xattr_find(r->n, x->h, x->nm, &at);
    if (e != OK) return e;
    if (!x->policy && (x->flags & XATTR_CREATE_ONLY) && at.found) return ERR_EXIST;
    if (!x->policy && (x->flags & XATTR_REPLACE_ONLY) && !at.found) return ERR_NODATA;
    if (!x->policy && at.number == 0) return ERR_NOSPC;
    struct batch *b = batch_new(r->n->store);
    if (!x->policy) xattr_put(r->n, b, x->h, &at, x->nm, value);
    if (!x->policy) c->flags |= CNODE_HAS_XATTR;
    cnode_put(r->n, b, c, env_wall_ns(r->n->env));
    return co_request_commit(r, b);
}

err co_name_setxattr(struct request *r) {
    struct xattr_request x;
    err e = xattr_begin(r, &x);
    if (e == OK && r->m->payload.len_bytes > XATTR_BYTES_MAX) e = ERR_2BIG;
    if (e == OK) e = co_look_object(r->n, x.h);
    if (e != OK) return e;
    struct lockset locks;
    struct cnode c;
    e = co_object_lock(r->n, x.h, &locks, &c);
    if (e != OK) return e;
    e = co_setxattr_locked(r, &x, &c);
    lockset_release(r->n, &locks);
    return e;
}

static err co_removexattr_locked(struct request *r, const struct xattr_request *x, struct cnode *c) {
    struct xattr at = {0};
    err e = x->policy ? policy_unset(c, x->nm) : co_xattr_find(r->n, x->h, x->nm, &at);
    if (e != OK) return e;
    if (!x->policy && !at.found) return ERR_NODATA;
    struct batch *b = batch_new(r->n->store);
    for (uint32_t part = 0; at.found && part < xattr_parts(x->nm, at.value_len); part++) {
        struct key k = xattr_key(x->h, at.number | part);
        batch_del(b, r->n->tree, &k);
    }
    cnode_put(r->n, b, c, env_wall_ns(r->n->env));
    return co_request_commit(r, b);
}

err co_name_removexattr(struct request *r) {
    struct xattr_request x;
    err e = xattr_begin(r, &x);
    if (e == OK) e = co_look_object(r->n, x.h);
    if (e != OK) return e;
    struct lockset locks;
    struct cnode c;
    e = co_object_lock(r->n, x.h, &locks, &c);
    if (e != OK) return e;
    e = co_removexattr_locked(r, &x, &c);
    lockset_release(r->n, &locks);
    return e;
}

// ---- reading
static void reply_payload(struct request *r, uint16_t type, struct buf *b, uint32_t len) {
    r->big = msg_new(r->n->mem, type | MSG_REPLY, sizeof(struct envelope));
    if (len > 0) msg_set_payload(r->big, (struct slice){b, 0, len});
}

static err co_xattr_value(struct names *n, struct handle h, struct name nm, const struct xattr *x, uint8_t *out) {
    uint32_t got = 0;
    for (uint32_t part = 0; part < xattr_parts(nm, x->value_len); part++) {
        union {
            struct rec_xattr r;
            uint8_t room[RECORD_BYTES_MAX];
        } val;
        struct key k = xattr_key(h, x->number | part);
        uint32_t len;
        err e = co_tree_get(n->store, n->tree, &k, &val, RECORD_BYTES_MAX, &len);
        if (e != OK) return e == ERR_NOENT ? ERR_FORMAT : e;
        uint32_t head = (uint32_t)sizeof val.r + val.r.name_len;
        if (len < head || len - head > x->value_len - got) return ERR_FORMAT;
        memcpy(out + got, (uint8_t *)&val + head, len - head);
        got += len - head;
    }
    return got == x->value_len ? OK : ERR_FORMAT;
}

static err co_policy_read(struct request *r, const struct xattr_request *x, const struct cnode *c) {
    char text[32];
    err e = policy_show(r->n, c, x->nm, text, sizeof text);
    if (e != OK) return e;
    struct buf *b = buf_new(r->n->mem, sizeof text);
    memcpy(b->data, text, sizeof text);
    reply_payload(r, MSG_GETXATTR, b, (uint32_t)strlen(text));
    buf_unref(b);
    return OK;
}

err co_name_getxattr(struct request *r) {
    struct names *n = r->n;
    struct xattr_request x;
    struct cnode c;
    err e = xattr_begin(r, &x);
    if (e == OK) e = co_look_object(n, x.h);
    if (e != OK) return e;
    struct lockset locks; // the parts of one value belong together
    e = co_object_lock(n, x.h, &locks, &c);
    if (e != OK) return e;
    struct xattr at = {0};
    if (x.policy)
        e = co_policy_read(r, &x, &c);
    else
        e = c.flags & CNODE_HAS_XATTR ? co_xattr_find(n, x.h, x.nm, &at) : ERR_NODATA;
    if (e == OK && !x.policy && !at.found) e = ERR_NODATA;
    if (e == OK && !x.policy) {
        struct buf *b = buf_new(n->mem, MAX(at.value_len, 1u));
        e = at.value_len <= XATTR_BYTES_MAX ? co_xattr_value(n, x.h, x.nm, &at, b->data) : ERR_FORMAT;
        if (e == OK) reply_payload(r, MSG_GETXATTR, b, at.value_len);
        buf_unref(b);
    }
    lockset_release(n, &locks);
    return e;
}

err co_name_listxattr(struct request *r) {
    struct names *n = r->n;
    struct handle h = wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle);
    struct cnode c;
    err e = co_look_object(n, h);
    if (e == OK) e = co_cnode_live(n, h, &c);
    if (e != OK) return e;
    struct buf *b = buf_new(n->mem, XATTR_BYTES_MAX);
    uint32_t len = 0;
    struct key first = xattr_key(h, 0), k = first;
    while (c.flags & CNODE_HAS_XATTR) {
        union {
            struct rec_xattr r;
            uint8_t room[RECORD_BYTES_MAX];
        } val;
        uint32_t val_len;
        e = co_tree_seek(n->store, n->tree, &k, &val, RECORD_BYTES_MAX, &val_len);
        if (e != OK || memcmp(k.b, first.b, 17) != 0) break;
        uint32_t name_len = (key_number(&k) & 0xfff) == 0 ? val.r.name_len : 0;
        if (name_len > 0 && len + name_len + 1 > XATTR_BYTES_MAX) break; // Linux lists no more
        if (name_len > 0) {
            memcpy(b->data + len, val.r.bytes, name_len);
            b->data[len + name_len] = 0;
            len += name_len + 1;
        }
        k = xattr_key(h, (key_number(&k) | 0xfff) + 1);
    }
    if (e == OK || e == ERR_NOENT) reply_payload(r, MSG_LISTXATTR, b, len);
    buf_unref(b);
    return e == ERR_NOENT ? OK : e;
}
