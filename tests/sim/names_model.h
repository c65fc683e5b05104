// A plain file system tree in memory and a client that does random operations on it and on the IOMs alike.
//
// Against losses it keeps, for every (directory, name), what it was at any time since the last sync: after an all-crash
// the name must be one of these.
#pragma once
#include "sim/world.h"
#include "tests/sim/names_bed.h"

#define MODEL_NODES 400
#define MODEL_NAMES 10 // names a directory can have

struct mnode {
    bool used, dir;
    struct handle h;
    uint32_t nlink, mode, truncates;
    uint64_t size;
    int parent;             // of directories
    int child[MODEL_NAMES]; // -1: none
};
struct was {
    struct handle h[64];
    uint32_t len;
    bool any;
}; // values of a name since the last sync
struct model {
    struct bed *b;
    struct mnode node[MODEL_NODES];
    struct was was[MODEL_NODES][MODEL_NAMES];
    uint64_t rng, ops, oks;
    int slot;
    const char *doing;
    bool looking;       // m_after_loss runs
    volatile bool lost; // an all-crash came since the last m_after_loss
    struct {
        int d, k;
    } flight[2]; // names that the operation under way may change
    uint64_t losses;
};

static inline uint64_t m_random(struct model *m, uint64_t n) {
    m->rng = m->rng * 6364136223846793005u + 1442695040888963407u;
    return (m->rng >> 33) % n;
}
static inline struct name_text { char s[8]; } m_name(int k) {
    struct name_text t;
    snprintf(t.s, sizeof t.s, "n%d", k);
    return t;
}
static inline int m_new(struct model *m, bool dir, struct handle h) {
    for (int i = 1; i < MODEL_NODES; i++) {
        if (m->node[i].used) continue;
        m->node[i] = (struct mnode){.used = true, .dir = dir, .h = h, .nlink = dir ? 2 : 1};
        for (int k = 0; k < MODEL_NAMES; k++) m->node[i].child[k] = -1;
        for (int k = 0; k < MODEL_NAMES; k++) m->was[i][k].len = 0;
        return i;
    }
    abort();
}
static inline void m_init(struct model *m, struct bed *b, uint64_t seed) {
    memset(m, 0, sizeof *m); // too large for a task's stack
    m->b = b;
    m->rng = seed;
    m->node[0] = (struct mnode){.used = true, .dir = true, .h = handle_root(), .nlink = 2};
    for (int k = 0; k < MODEL_NAMES; k++) m->node[0].child[k] = -1;
}
static inline int m_find(struct model *m, struct handle h) {
    for (int i = 0; i < MODEL_NODES; i++)
        if (m->node[i].used && handle_eq(m->node[i].h, h)) return i;
    return -1;
}
static inline int m_pick(struct model *m, bool dir) {
    int n = 0, found = -1;
    for (int i = 0; i < MODEL_NODES; i++)
        if (m->node[i].used && m->node[i].dir == dir && m->node[i].nlink > 0 && m_random(m, (uint64_t)++n) == 0)
            found = i;
    return found;
}
static inline int m_count(struct model *m) {
    int n = 0;
    for (int i = 0; i < MODEL_NODES; i++) n += m->node[i].used;
    return n;
}
static inline bool m_empty(struct model *m, int d) {
    for (int k = 0; k < MODEL_NAMES; k++)
        if (m->node[d].child[k] >= 0) return false;
    return true;
}
static inline bool m_inside(struct model *m, int d, int top) { // is d top or below it?
    for (;; d = m->node[d].parent) {
        if (d == top) return true;
        if (d == 0) return false;
    }
}
static inline void m_was(struct model *m, int d, int k, struct handle h) {
    struct was *w = &m->was[d][k];
    ASSERT(w->len < ARRAY_LEN(w->h));
    w->h[w->len++] = h;
}
static inline struct handle m_value(struct model *m, int d, int k) {
    int c = m->node[d].child[k];
    return c < 0 ? (struct handle){0} : m->node[c].h;
}
static inline void m_remember(struct model *m, int d, int k) {
    m_was(m, d, k, m_value(m, d, k));
}
static inline void m_flies(struct model *m, int which, int d, int k) {
    m->flight[which].d = d;
    m->flight[which].k = k;
}
static inline bool m_history_full(struct model *m) {
    for (int i = 0; i < MODEL_NODES; i++)
        for (int k = 0; k < MODEL_NAMES; k++)
            if (m->was[i][k].len > ARRAY_LEN(m->was[i][k].h) - 6) return true;
    return false;
}

_Noreturn static inline void m_fail(struct model *m, const char *what, err got, err want) {
    fprintf(stderr, "operation %llu (%s): %s: got %s, expected %s\n", (unsigned long long)m->ops, m->doing, what,
            err_name(got), err_name(want));
    abort();
}
// False: all IOMs were lost meanwhile, and what the answer tells is for m_after_loss to find out.
static inline bool m_result(struct model *m, err got, err want) {
    if (m->lost && !m->looking) return false;
    if (got != want) m_fail(m, "result", got, want);
    m->oks += got == OK;
    return true;
}
#define M_WANT(m, got, want)                                                                                           \
    do {                                                                                                               \
        if (!m_result(m, got, want)) return;                                                                           \
    } while (0)

// ---- requests
static inline err co_m_name_req(struct model *m, uint16_t type, struct handle dir, const char *name, int slot,
                                struct wire_attr *attr, bool *has) {
    uint32_t len = (uint32_t)strlen(name);
    struct msg *q = mx_msg(m->b, type, (uint32_t)sizeof(struct req_name) + len), *reply;
    struct req_name *r = (void *)q->body;
    handle_put(r->dir.b, dir);
    r->name_len = le16_of((uint16_t)len);
    memcpy(r->name, name, len);
    err e = co_mx_call(m->b, dir.starter, slot, q, &reply);
    if (e == OK && attr != NULL) {
        const struct rep_attr *a = (const void *)reply->body;
        ASSERT(reply->body_len >= sizeof *a);
        *attr = a->attr;
        if (has != NULL) *has = a->has_attr;
    }
    msg_free(reply);
    return e;
}
static inline err co_m_create(struct model *m, uint16_t type, struct handle dir, const char *name, uint32_t mode,
                              struct wire_attr *attr) {
    uint32_t len = (uint32_t)strlen(name);
    struct msg *q = mx_msg(m->b, type, (uint32_t)sizeof(struct req_create) + len), *reply;
    struct req_create *r = (void *)q->body;
    handle_put(r->dir.b, dir);
    r->mode = le32_of(mode);
    r->name_len = le16_of((uint16_t)len);
    memcpy(r->name, name, len);
    if (type == MSG_SYMLINK) {
        struct buf *buf = buf_new(mx_env(m->b)->mem, 2000);
        memset(buf->data, 't', 2000);
        msg_set_payload(q, (struct slice){buf, 0, 2000});
        buf_unref(buf);
    }
    err e = co_mx_call(m->b, dir.starter, m->slot, q, &reply);
    if (e == OK) {
        ASSERT(reply->body_len >= sizeof(struct rep_attr));
        *attr = ((struct rep_attr *)(void *)reply->body)->attr;
    }
    msg_free(reply);
    return e;
}
static inline err co_m_getattr(struct model *m, struct handle h, struct wire_attr *attr) {
    struct msg *q = mx_msg(m->b, MSG_GETATTR, sizeof(struct req_handle)), *reply;
    handle_put(((struct req_handle *)(void *)q->body)->handle.b, h);
    err e = co_mx_call(m->b, h.starter, -1, q, &reply);
    if (e == OK) *attr = ((struct rep_attr *)(void *)reply->body)->attr;
    msg_free(reply);
    return e;
}
static inline err co_m_handle_req(struct model *m, uint16_t type, struct handle h) {
    struct msg *q = mx_msg(m->b, type, sizeof(struct req_handle)), *reply;
    handle_put(((struct req_handle *)(void *)q->body)->handle.b, h);
    err e = co_mx_call(m->b, h.starter, -1, q, &reply);
    msg_free(reply);
    return e;
}
static inline err co_m_link(struct model *m, struct handle h, struct handle dir, const char *name,
                            struct wire_attr *attr) {
    uint32_t len = (uint32_t)strlen(name);
    struct msg *q = mx_msg(m->b, MSG_LINK, (uint32_t)sizeof(struct req_link) + len), *reply;
    struct req_link *r = (void *)q->body;
    handle_put(r->dir.b, dir);
    handle_put(r->handle.b, h);
    r->name_len = le16_of((uint16_t)len);
    memcpy(r->name, name, len);
    err e = co_mx_call(m->b, dir.starter, m->slot, q, &reply);
    if (e == OK) *attr = ((struct rep_attr *)(void *)reply->body)->attr;
    msg_free(reply);
    return e;
}
static inline err co_m_rename(struct model *m, struct handle dir, const char *name, struct handle to_dir,
                              const char *to, uint32_t flags) {
    uint32_t len = (uint32_t)strlen(name), to_len = (uint32_t)strlen(to);
    struct msg *q = mx_msg(m->b, MSG_RENAME, (uint32_t)sizeof(struct req_rename) + len + to_len), *reply;
    struct req_rename *r = (void *)q->body;
    handle_put(r->dir.b, dir);
    handle_put(r->to_dir.b, to_dir);
    r->flags = le32_of(flags);
    r->name_len = le16_of((uint16_t)len);
    r->to_len = le16_of((uint16_t)to_len);
    memcpy(r->names, name, len);
    memcpy(r->names + len, to, to_len);
    err e = co_mx_call(m->b, dir.starter, m->slot, q, &reply);
    msg_free(reply);
    return e;
}
static inline err co_m_setsize(struct model *m, struct handle h, uint64_t size, struct wire_attr *attr) {
    struct msg *q = mx_msg(m->b, MSG_SETATTR, sizeof(struct req_setattr)), *reply;
    struct req_setattr *r = (void *)q->body;
    handle_put(r->handle.b, h);
    r->valid = le32_of(SETATTR_SIZE | SETATTR_MODE);
    r->mode = le32_of(0640);
    r->size = le64_of(size);
    err e = co_mx_call(m->b, h.starter, m->slot, q, &reply);
    if (e == OK) *attr = ((struct rep_attr *)(void *)reply->body)->attr;
    msg_free(reply);
    return e;
}
static inline err co_m_raise(struct model *m, struct handle h, uint64_t end, uint32_t truncates, bool durable,
                             uint64_t *size) {
    struct msg *q = mx_msg(m->b, MSG_RAISE, sizeof(struct req_raise)), *reply;
    struct req_raise *r = (void *)q->body;
    handle_put(r->handle.b, h);
    r->end = le64_of(end);
    r->mtime_ns = le64_of(1);
    r->truncates = le32_of(truncates);
    r->durable = durable;
    err e = co_mx_call(m->b, h.starter, -1, q, &reply);
    if (e == OK) *size = le64_get(((struct rep_size *)(void *)reply->body)->size);
    if (e == OK && durable) ASSERT(le64_get(((struct rep_size *)(void *)reply->body)->durable_size) >= end);
    msg_free(reply);
    return e;
}

// ---- operations
static inline void m_drop_name(struct model *m, int d, int k) {
    int c = m->node[d].child[k];
    m->node[d].child[k] = -1;
    if (m->node[c].dir) {
        m->node[d].nlink--;
        m->node[c].used = false;
    } else if (--m->node[c].nlink == 0) {
        m->node[c].used = false;
    }
}
static inline void co_op_make(struct model *m, bool dir, bool symlink) {
    int d = m_pick(m, true), k = (int)m_random(m, MODEL_NAMES);
    struct wire_attr a;
    if (m_count(m) > MODEL_NODES - 10) return;
    m->doing = dir ? "mkdir" : symlink ? "symlink" : "create";
    m_flies(m, 0, d, k);
    m_remember(m, d, k);
    err e = co_m_create(m, dir ? MSG_MKDIR : symlink ? MSG_SYMLINK : MSG_CREATE, m->node[d].h, m_name(k).s, 0644, &a);
    M_WANT(m, e, m->node[d].child[k] >= 0 ? ERR_EXIST : OK);
    if (e != OK) return;
    struct handle h = handle_at(a.handle.b);
    if (m_find(m, h) >= 0) m_fail(m, "a handle was given twice", OK, OK);
    int c = m_new(m, dir, h);
    m->node[c].mode = le32_get(a.mode);
    if (symlink) m->node[c].size = 2000;
    m->node[c].parent = d;
    m->node[d].child[k] = c;
    m->node[d].nlink += dir;
    m_was(m, d, k, h);
    ASSERT(le32_get(a.nlink) == m->node[c].nlink);
}
static inline void co_op_gone(struct model *m, bool dir) {
    int d = m_pick(m, true), k = (int)m_random(m, MODEL_NAMES), c = m->node[d].child[k];
    m->doing = dir ? "rmdir" : "unlink";
    m_flies(m, 0, d, k);
    m_remember(m, d, k);
    err want = c < 0                    ? ERR_NOENT
               : dir && !m->node[c].dir ? ERR_NOTDIR
               : !dir && m->node[c].dir ? ERR_ISDIR
               : dir && !m_empty(m, c)  ? ERR_NOTEMPTY
                                        : OK;
    err e = co_m_name_req(m, dir ? MSG_RMDIR : MSG_UNLINK, m->node[d].h, m_name(k).s, m->slot, NULL, NULL);
    M_WANT(m, e, want);
    if (e != OK) return;
    m_was(m, d, k, (struct handle){0});
    m_drop_name(m, d, k);
}
static inline void co_op_link(struct model *m) {
    int c = m_pick(m, m_random(m, 8) == 0), d = m_pick(m, true), k = (int)m_random(m, MODEL_NAMES);
    if (c < 0) return;
    struct wire_attr a;
    m->doing = "link";
    m_flies(m, 0, d, k);
    m_remember(m, d, k);
    err e = co_m_link(m, m->node[c].h, m->node[d].h, m_name(k).s, &a);
    M_WANT(m, e, m->node[c].dir ? ERR_PERM : m->node[d].child[k] >= 0 ? ERR_EXIST : OK);
    if (e != OK) return;
    m->node[d].child[k] = c;
    m->node[c].nlink++;
    m_was(m, d, k, m->node[c].h);
    ASSERT(le32_get(a.nlink) == m->node[c].nlink);
}
static inline err m_rename_want(struct model *m, int d, int k, int t, int l, uint32_t flags) {
    int o = m->node[d].child[k], x = m->node[t].child[l];
    if (o < 0) return ERR_NOENT;
    bool exchange = flags & RENAME_FLAG_EXCHANGE;
    if (exchange && x < 0) return ERR_NOENT;
    if (!exchange && x >= 0 && (flags & RENAME_FLAG_NOREPLACE)) return ERR_EXIST;
    if (!exchange && x >= 0 && m->node[o].dir != m->node[x].dir) return m->node[o].dir ? ERR_NOTDIR : ERR_ISDIR;
    if (o == x) return OK;
    if (m->node[o].dir && d != t && m_inside(m, t, o)) return ERR_INVAL;
    if (exchange && m->node[x].dir && d != t && m_inside(m, d, x)) return ERR_INVAL;
    if (!exchange && x >= 0 && m->node[x].dir && !m_empty(m, x)) return ERR_NOTEMPTY;
    return OK;
}
static inline void m_move_count(struct model *m, int c, int from, int to) {
    if (!m->node[c].dir) return;
    m->node[from].nlink--;
    m->node[to].nlink++;
    m->node[c].parent = to;
}
static inline void co_op_rename(struct model *m) {
    int d = m_pick(m, true), k = (int)m_random(m, MODEL_NAMES), t = m_random(m, 3) ? m_pick(m, true) : d,
        l = (int)m_random(m, MODEL_NAMES);
    uint32_t flags = m_random(m, 6) == 0 ? RENAME_FLAG_NOREPLACE : m_random(m, 5) == 0 ? RENAME_FLAG_EXCHANGE : 0;
    err want = m_rename_want(m, d, k, t, l, flags);
    int o = m->node[d].child[k], x = m->node[t].child[l];
    m->doing = "rename";
    m_flies(m, 0, d, k);
    m_flies(m, 1, t, l);
    m_remember(m, d, k);
    m_remember(m, t, l);
    err e = co_m_rename(m, m->node[d].h, m_name(k).s, m->node[t].h, m_name(l).s, flags);
    M_WANT(m, e, want);
    if (e != OK || o == x) return;
    if (flags & RENAME_FLAG_EXCHANGE) {
        m->node[t].child[l] = o;
        m->node[d].child[k] = x;
        m_move_count(m, o, d, t);
        m_move_count(m, x, t, d);
    } else {
        if (x >= 0) m_drop_name(m, t, l);
        m->node[t].child[l] = o;
        m->node[d].child[k] = -1;
        m_move_count(m, o, d, t);
    }
    m_remember(m, d, k);
    m_remember(m, t, l);
}
static inline void co_op_size(struct model *m) {
    int c = m_pick(m, false);
    if (c < 0 || (m->node[c].mode & 0170000) == 0120000) return;
    struct mnode *f = &m->node[c];
    struct wire_attr a;
    if (m_random(m, 2) == 0) {
        uint64_t size = m_random(m, 3) ? m_random(m, 1000000) : 0;
        m->doing = "truncate";
        err e = co_m_setsize(m, f->h, size, &a);
        M_WANT(m, e, OK);
        f->truncates += size < f->size;
        f->size = size;
        ASSERT(le64_get(a.size) == size && le32_get(a.truncates) == f->truncates && (le32_get(a.mode) & 0777) == 0640);
    } else {
        uint64_t end = m_random(m, 2000000), got = 0;
        bool old = f->truncates > 0 && m_random(m, 4) == 0;
        m->doing = "raise";
        err e = co_m_raise(m, f->h, end, f->truncates - old, m_random(m, 3) == 0, &got);
        M_WANT(m, e, old ? ERR_TRUNCATED : OK);
        if (e == OK) f->size = MAX(f->size, end);
        if (e == OK) ASSERT(got == f->size);
    }
}
static inline void co_op_look(struct model *m) {
    int d = m_pick(m, true), k = (int)m_random(m, MODEL_NAMES), c = m->node[d].child[k];
    struct wire_attr a;
    bool has = false;
    m->doing = "lookup";
    err e = co_m_name_req(m, MSG_LOOKUP, m->node[d].h, m_name(k).s, -1, &a, &has);
    M_WANT(m, e, c < 0 ? ERR_NOENT : OK);
    if (e != OK) return;
    ASSERT(handle_eq(handle_at(a.handle.b), m->node[c].h));
    if (!has) {
        m->doing = "getattr";
        M_WANT(m, co_m_getattr(m, m->node[c].h, &a), OK);
    }
    if (le32_get(a.nlink) != m->node[c].nlink) {
        fprintf(stderr, "nlink %u, expected %u\n", le32_get(a.nlink), m->node[c].nlink);
        m_fail(m, "link count", OK, OK);
    }
    if (!m->node[c].dir) ASSERT(le64_get(a.size) == m->node[c].size && le32_get(a.truncates) == m->node[c].truncates);
}

// Reads a directory in small pieces; calls `entry` for each.
static inline void co_m_list(struct model *m, struct handle dir, bool plus,
                             void (*entry)(struct model *m, const struct wire_dirent *w, void *arg), void *arg) {
    uint64_t cookie = 0;
    for (bool eof = false; !eof;) {
        struct msg *q = mx_msg(m->b, MSG_READDIR, sizeof(struct req_readdir)), *reply;
        struct req_readdir *r = (void *)q->body;
        handle_put(r->dir.b, dir);
        r->cookie = le64_of(cookie);
        r->max_bytes = le32_of(1100);
        r->plus = plus;
        err e = co_mx_call(m->b, dir.starter, -1, q, &reply);
        m->doing = "readdir";
        M_WANT(m, e, OK);
        eof = ((struct rep_readdir *)(void *)reply->body)->eof;
        for (uint32_t off = 0; off < reply->payload.len_bytes;) {
            const struct wire_dirent *w = (const void *)(slice_data(reply->payload) + off);
            ASSERT(le64_get(w->cookie) > cookie);
            cookie = le64_get(w->cookie);
            entry(m, w, arg);
            off += le16_get(w->entry_len);
        }
        msg_free(reply);
    }
}
struct m_seen {
    int d;
    uint32_t seen;
};
static inline void m_see(struct model *m, const struct wire_dirent *w, void *arg) {
    struct m_seen *s = arg;
    int k = w->name[1] - '0';
    int c = m->node[s->d].child[k];
    ASSERT(c >= 0 && !(s->seen >> k & 1) && handle_eq(handle_at(w->handle.b), m->node[c].h));
    if (w->has_attr) ASSERT(le32_get(w->attr.nlink) == m->node[c].nlink);
    s->seen |= 1u << k;
}
static inline void co_op_list(struct model *m) {
    struct m_seen s = {.d = m_pick(m, true)};
    co_m_list(m, m->node[s.d].h, m_random(m, 2), m_see, &s);
    for (int k = 0; k < MODEL_NAMES && !m->lost; k++) {
        if ((s.seen >> k & 1) == (m->node[s.d].child[k] >= 0)) continue;
        fprintf(stderr, "name n%d of node %d: listed %u, child %d\n", k, s.d, s.seen >> k & 1, m->node[s.d].child[k]);
        m_fail(m, "listing", OK, OK);
    }
}
static inline void co_op_sync(struct model *m) {
    m->doing = "sync";
    for (uint8_t i = 0; i < m->b->ioms; i++) {
        // any living object of that IOM will do; one sync covers the whole IOM
        for (int c = 0; c < MODEL_NODES; c++) {
            if (!m->node[c].used || m->node[c].h.starter != i) continue;
            M_WANT(m, co_m_handle_req(m, MSG_SYNC_META, m->node[c].h), OK);
            break;
        }
    }
    memset(m->was, 0, sizeof m->was);
}
static inline void co_op_any(struct model *m) {
    if (m_history_full(m)) co_op_sync(m);
    m->flight[0].d = m->flight[1].d = -1;
    m->ops++;
    m->slot = (int)m_random(m, BED_SLOTS);
    switch (m_random(m, 16)) {
    case 0:
    case 1:
    case 2: co_op_make(m, false, false); break;
    case 3:
    case 4: co_op_make(m, true, false); break;
    case 5: co_op_make(m, false, true); break;
    case 6:
    case 7: co_op_gone(m, false); break;
    case 8: co_op_gone(m, true); break;
    case 9: co_op_link(m); break;
    case 10:
    case 11: co_op_rename(m); break;
    case 12: co_op_size(m); break;
    case 13:
    case 14: co_op_look(m); break;
    case 15: co_op_list(m); break;
    }
}

// ---- after an all-crash: what is there must be what was there at some time since the last sync, and becomes the model
struct m_walk {
    struct model *old;
    int d;
    int dirs[MODEL_NODES];
    uint32_t dirs_len;
};
static inline bool m_may_be(struct model *old, int d, int k, struct handle h) {
    for (int i = 0; i < 2; i++)
        if (old->flight[i].d == d && old->flight[i].k == k)
            return true; // it was under way: the check of the stores tells whether it is whole
    if (handle_eq(m_value(old, d, k), h)) return true;
    for (uint32_t i = 0; i < old->was[d][k].len; i++)
        if (handle_eq(old->was[d][k].h[i], h)) return true;
    return false;
}
static inline void m_found(struct model *m, const struct wire_dirent *w, void *arg) {
    struct m_walk *x = arg;
    struct handle h = handle_at(w->handle.b);
    int k = w->name[1] - '0', c = m_find(m, h);
    if (c < 0) {
        c = m_new(m, w->type == OBJ_DIR, h);
        m->node[c].nlink = w->type == OBJ_DIR ? 2 : 0;
        if (w->type == OBJ_DIR) x->dirs[x->dirs_len++] = c;
    } else {
        ASSERT(w->type != OBJ_DIR); // in two places
    }
    if (w->type == OBJ_DIR) {
        m->node[x->d].nlink++;
        m->node[c].parent = x->d;
    } else {
        m->node[c].nlink++;
    }
    m->node[x->d].child[k] = c;
}
static inline void co_m_after_loss(struct model *m) {
    static struct model old; // large
    old = *m;
    struct bed *b = m->b;
    while (b->recovering) co_pause(b, MSEC(1));
    m->losses++;
    m->looking = true;
    memset(m->node, 0, sizeof m->node);
    memset(m->was, 0, sizeof m->was);
    m->node[0] = (struct mnode){.used = true, .dir = true, .h = handle_root(), .nlink = 2};
    for (int k = 0; k < MODEL_NAMES; k++) m->node[0].child[k] = -1;
    struct m_walk x = {.old = &old, .dirs = {0}, .dirs_len = 1};
    for (uint32_t i = 0; i < x.dirs_len; i++) {
        x.d = x.dirs[i];
        co_m_list(m, m->node[x.d].h, true, m_found, &x);
        int d = m_find(&old, m->node[x.d].h);
        for (int k = 0; k < MODEL_NAMES && d >= 0; k++) {
            if (m_may_be(&old, d, k, m_value(m, x.d, k))) continue;
            struct handle is = m_value(m, x.d, k), had = m_value(&old, d, k);
            fprintf(stderr,
                    "name n%d of node %d (%u.%llu) is %u.%llu, what it never was since the last sync; it was %u.%llu",
                    k, d, m->node[x.d].h.starter, (unsigned long long)m->node[x.d].h.index, is.starter,
                    (unsigned long long)is.index, had.starter, (unsigned long long)had.index);
            for (uint32_t j = 0; j < old.was[d][k].len; j++)
                fprintf(stderr, ", %u.%llu", old.was[d][k].h[j].starter, (unsigned long long)old.was[d][k].h[j].index);
            fprintf(stderr, "; under way: %s n%d of %d, n%d of %d\n", old.doing, old.flight[0].k, old.flight[0].d,
                    old.flight[1].k, old.flight[1].d);
            m_fail(m, "after a loss", OK, OK);
        }
    }
    for (int c = 0; c < MODEL_NODES; c++) {
        struct wire_attr a;
        if (!m->node[c].used) continue;
        m->doing = "getattr after a loss";
        M_WANT(m, co_m_getattr(m, m->node[c].h, &a), OK);
        if (le32_get(a.nlink) != m->node[c].nlink) m_fail(m, "link count after a loss", OK, OK);
        m->node[c].mode = le32_get(a.mode);
        m->node[c].size = le64_get(a.size);
        m->node[c].truncates = le32_get(a.truncates);
    }
    co_op_sync(m); // what was under way may have been done after the recovery
    m->lost = m->looking = false;
}
