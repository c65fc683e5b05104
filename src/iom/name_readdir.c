// READDIR: entries in order of their hash, each at most once, from any cookie ever given.
#include "iom/name_inside.h"

#define READDIR_BYTES_MIN 1024u

struct listing {
    struct names *n;
    struct handle dir;
    uint8_t *out;
    uint32_t len, cap;
    bool plus;
};

static err co_entry_attr(struct listing *l, struct wire_dirent *w, struct handle h) {
    struct cnode c;
    if (!l->plus || h.starter != l->n->c.self.n || !object_looked_at(l->n, h)) return OK; // the MX asks, if it wants
    err e = co_cnode_get(l->n, h, &c);
    if (e == ERR_STALE) return OK;
    if (e != OK) return e;
    attr_fill(&w->attr, &c);
    w->has_attr = 1;
    return OK;
}

static err co_entry_add(struct listing *l, const struct dirent *d, bool *full) {
    uint32_t size = ROUND_UP((uint32_t)sizeof(struct wire_dirent) + d->name_len, 8u);
    *full = l->len + size > l->cap;
    if (*full) return OK;
    struct wire_dirent *w = (void *)(l->out + l->len);
    memset(w, 0, size);
    w->cookie = le64_of(d->number);
    wire_handle_put(&w->handle, d->h);
    refmap_put(w->map.b, &d->map);
    w->type = d->type;
    w->name_len = le16_of(d->name_len);
    w->entry_len = le16_of((uint16_t)size);
    memcpy(w->name, d->name, d->name_len);
    l->len += size;
    return co_entry_attr(l, w, d->h);
}

static err co_entries(struct listing *l, uint64_t cookie, bool *eof) {
    struct key first = dirent_key(l->dir, 0), k = dirent_key(l->dir, cookie < 4 ? 0 : cookie + 1);
    for (bool full = false;; k = key_next(k)) {
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len;
        struct dirent d;
        err e = co_tree_seek(l->n->store, l->n->tree, &k, val, sizeof val, &len);
        *eof = e == ERR_NOENT || (e == OK && memcmp(k.b, first.b, 17) != 0);
        if (*eof) return OK;
        if (e == OK) e = dirent_decode(&d, &k, val, len);
        if (e == OK) e = co_entry_add(l, &d, &full);
        if (e != OK || full) return e;
    }
}

err co_name_readdir(struct request *r) {
    const struct req_readdir *q = (const void *)r->m->body;
    struct names *n = r->n;
    struct handle dir = wire_handle_at(&q->dir);
    struct cnode c;
    err e = co_look_object(n, dir);
    if (e == OK) e = co_cnode_live(n, dir, &c);
    if (e == OK && c.type != OBJ_DIR) e = ERR_NOTDIR;
    if (e != OK) return e;
    uint32_t cap = MAX(MIN(le32_get(q->max_bytes), (uint32_t)MIB(1)), READDIR_BYTES_MIN);
    struct buf *b = buf_new(n->mem, cap);
    struct listing l = {.n = n, .dir = dir, .out = b->data, .cap = cap, .plus = q->plus};
    bool eof = false;
    e = co_entries(&l, le64_get(q->cookie), &eof);
    if (e == OK) {
        r->big = msg_new(n->mem, MSG_READDIR | MSG_REPLY, sizeof(struct rep_readdir));
        ((struct rep_readdir *)(void *)r->big->body)->eof = eof;
        if (l.len > 0) msg_set_payload(r->big, (struct slice){b, 0, l.len});
    }
    buf_unref(b);
    return e;
}
