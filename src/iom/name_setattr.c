// SETATTR: mode, owner, times, size. ctime moves with every change; atime only here (reads do not move it: relatime is
// the MX's). Growing changes the size alone; shrinking is a truncate (name_truncate.c).
#include "iom/name_inside.h"

// Under the object's lock, or else *held is the truncate that is under way and nothing is locked. co_get: co_cnode_live, or who asks for more.
err co_object_try_lock(struct names *n, struct handle h, struct lockset *locks, struct cnode *c, struct hold **held,
                       err (*co_get)(struct names *n, struct handle h, struct cnode *c)) {
    locks->len = 0;
    lockset_add(locks, h);
    co_lockset_take(n, locks);
    *held = truncate_open(n, h);
    err e = n->stopping ? ERR_STOPPED : OK;
    if (e == OK && *held == NULL) e = co_get(n, h, c);
    if (e != OK || *held != NULL) lockset_release(n, locks);
    return e;
}

// Under the object's lock, with no truncate of it under way. ERR_STALE and others: not locked.
err co_object_lock(struct names *n, struct handle h, struct lockset *locks, struct cnode *c) {
    for (;;) {
        struct hold *held;
        err e = co_object_try_lock(n, h, locks, c, &held, co_cnode_live);
        if (e != OK || held == NULL) return e;
        e = co_hold_wait(n, held);
        if (e != OK) return e;
    }
}

err co_object_put(struct request *r, struct cnode *c) {
    struct rec_cnode rec;
    struct key k = cnode_key(c->h);
    struct batch *b = batch_new(r->n->store);
    batch_urgent(b); // it replaces a record
    batch_put(b, r->n->tree, &k, &rec, cnode_encode(c, &rec));
    return co_request_commit(r, b);
}

void object_changed(struct names *n, struct handle h, uint64_t number) {
    uint64_t *at = &n->recent[handle_hash(h) % ARRAY_LEN(n->recent)];
    *at = MAX(*at, number);
}

uint64_t object_number(const struct names *n, struct handle h) {
    return n->recent[handle_hash(h) % ARRAY_LEN(n->recent)];
}

void setattr_alter(const struct req_setattr *q, uint64_t now_ns, struct cnode *c) {
    uint32_t valid = le32_get(q->valid);
    if (valid & SETATTR_MODE) c->mode = le32_get(q->mode) & 07777;
    if (valid & SETATTR_UID) c->uid = le32_get(q->uid);
    if (valid & SETATTR_GID) c->gid = le32_get(q->gid);
    if (valid & SETATTR_SIZE) c->mtime_ns = now_ns;
    if (valid & SETATTR_ATIME) c->atime_ns = le64_get(q->atime_ns);
    if (valid & SETATTR_MTIME) c->mtime_ns = le64_get(q->mtime_ns);
    c->ctime_ns = now_ns;
    c->change++;
}

static err size_allowed(const struct cnode *c, uint64_t size) {
    if (c->type == OBJ_DIR) return ERR_ISDIR;
    if (c->type != OBJ_FILE) return ERR_INVAL;
    return size > OBJECT_BYTES_MAX ? ERR_FBIG : OK;
}

static err co_setattr_once(struct request *r, struct handle h, const struct req_setattr *q, uint64_t now_ns) { // ERR_CONFLICT: once more
    struct names *n = r->n;
    struct lockset locks;
    struct cnode c;
    bool sized = le32_get(q->valid) & SETATTR_SIZE;
    uint64_t size = le64_get(q->size);
    err e = co_look_object(n, h);
    if (e == OK) e = co_object_lock(n, h, &locks, &c);
    if (e != OK) return e;
    if (sized) e = size_allowed(&c, size);
    if (e == OK && sized && size < c.size) {
        lockset_release(n, &locks);
        return co_truncate(r, &c, q, now_ns);
    }
    if (e == OK) {
        if (sized) c.size = size;
        setattr_alter(q, now_ns, &c);
        request_attr(r, &c);
        e = co_object_put(r, &c);
    }
    if (e == OK && sized) object_changed(n, h, r->shows);
    lockset_release(n, &locks);
    return e;
}

err co_name_setattr(struct request *r) {
    const struct req_setattr *q = (const void *)r->m->body;
    uint64_t now_ns = env_wall_ns(r->n->env);
    err e;
    do e = co_setattr_once(r, wire_handle_at(&q->handle), q, now_ns);
    while (e == ERR_CONFLICT);
    return e;
}
