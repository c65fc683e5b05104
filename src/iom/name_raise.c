// RAISE, END_DURABLE, SYNC_META, TOUCH: what writes do to the attributes of their file.
//
// A size only grows here. The count of truncates that a write carries must be the object's: a lower one is refused, its
// writer asks again. A touch tells late (up to a second) that data changed: it always moves the change counter, but the
// times only if nobody has set attributes since the data changed, or the times that cp -p and tar set would be lost.
#include "iom/name_inside.h"

static void reply_size(struct request *r, uint64_t size, uint64_t durable, uint32_t truncates, uint64_t change) {
    struct rep_size rep = {.size = le64_of(size),
                           .durable_size = le64_of(durable),
                           .truncates = le32_of(truncates),
                           .change = le64_of(change)};
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
}

// What a raise does under the object's lock. append: `end` is a length, to be added to the size as it is; afterwards it is
// where the append ends. again: it may have been done before, and what came after it stays; of an append: it was, and
// what it was told (`place`) went with the memory of more than one IOM.
struct raise {
    uint64_t end, mtime_ns;
    uint32_t truncates;
    bool append, again;
    uint64_t place;
};

// An append that comes again, forgotten here, may lie on disk at its members: then recovery has found it beyond the size,
// in the tail. What a recovery has found was given to nobody since, for what is given begins behind it; so the place is
// still its own, and its neighbours in the tail keep theirs. Where only the beginning was found, it goes on behind that
// as long as nobody else does. (A place of two such losses ago may have been given to another in between: the MX has
// forgotten that one.)
static bool place_is_kept(const struct cnode *c, const struct raise *w) {
    if (!w->again || w->place < c->tail_from || w->place >= c->tail_to) return false;
    return w->end <= c->tail_to - w->place || c->size == c->tail_to;
}

static void tail_found(struct cnode *c, uint64_t end) {
    if (c->tail_to != c->size) c->tail_from = c->size;
    c->tail_to = end;
}

static err co_raise_locked(struct request *r, struct raise *w, struct cnode *c) {
    if (c->type != OBJ_FILE) return ERR_INVAL;
    if (w->truncates < c->truncates) return ERR_TRUNCATED;
    if (w->end > OBJECT_BYTES_MAX || (w->append && w->end > OBJECT_BYTES_MAX - c->size)) return ERR_FBIG;
    if (w->append) w->end += place_is_kept(c, w) ? w->place : c->size;
    bool grows = w->end > c->size;
    if (!grows && (w->mtime_ns == 0 || (w->again && !w->append))) return OK;
    if (grows && r->n->rows_resolve) tail_found(c, w->end);
    c->size = MAX(c->size, w->end);
    c->flags |= CNODE_RAISED;
    if (w->mtime_ns != 0) c->mtime_ns = w->mtime_ns;
    c->ctime_ns = MAX(c->ctime_ns, env_wall_ns(r->n->env));
    c->change++;
    if (w->append) reply_size(r, w->end, 0, c->truncates, c->change); // it goes into the slot with the batch
    err e = co_object_put(r, c);
    if (e == OK && grows) object_changed(r->n, c->h, r->shows);
    return e;
}

// *c: as it is afterwards.
static err co_raise(struct request *r, struct handle h, struct raise *w, struct cnode *c) {
    struct lockset locks;
    err e = co_object_lock(r->n, h, &locks, c);
    if (e != OK) return e;
    e = co_raise_locked(r, w, c);
    lockset_release(r->n, &locks);
    return e;
}

err co_name_raise(struct request *r) {
    const struct req_raise *q = (const void *)r->m->body;
    struct handle h = wire_handle_at(&q->handle);
    struct cnode c;
    struct raise w = {
        .end = le64_get(q->end),
        .mtime_ns = le64_get(q->mtime_ns),
        .truncates = le32_get(q->truncates),
        .append = q->append,
        .again = q->append && q->again,
        .place = le64_get(q->place),
    };
    err e = co_raise(r, h, &w, &c);
    if (e != OK) return e;
    uint64_t number = q->durable ? r->n->mirror.number : object_number(r->n, h); // durable: as fsync means it, with all attributes
    if (q->durable) e = co_mirror_durable(r->n, number);
    reply_size(r, w.append ? w.end : c.size, mirror_is_durable(r->n, number) ? c.size : 0, c.truncates, c.change);
    return e;
}

// ---- with a write
static err co_raise_beside(struct names *n, struct names_raise *x, bool again) {
    struct request *r = mem_alloc(n->mem, sizeof *r);
    struct raise w = {.end = x->end, .mtime_ns = x->mtime_ns, .truncates = x->truncates, .again = again};
    struct cnode c;
    r->n = n;
    err e = n->stopping ? ERR_STOPPED : co_raise(r, x->h, &w, &c);
    uint64_t number = object_number(n, x->h);
    if (e == OK) e = co_mirror_wait(n, r->shows != 0 ? r->shows : n->mirror.number);
    if (e == OK) {
        x->size.size = le64_of(c.size);
        x->size.durable_size = le64_of(mirror_is_durable(n, number) ? c.size : 0);
        x->size.truncates = le32_of(c.truncates);
        x->size.change = le64_of(c.change);
    }
    mem_free(n->mem, r);
    return e;
}

static void co_raise_task(struct names *n, void *arg) {
    struct names_raise *x = arg;
    group_done(n->env, &x->ended, co_raise_beside(n, x, false));
}

void names_raise_begin(struct names_raise *x) {
    x->begun = true;
    group_init(&x->ended);
    group_add(&x->ended);
    names_task(x->n, "raise of a write", co_raise_task, x);
}

err co_names_raise_end(struct names_raise *x) {
    struct names *n = x->n;
    if (x->begun) return co_group_wait(n->env, &x->ended, "raise of a write");
    n->tasks++;
    err e = co_raise_beside(n, x, true);
    if (--n->tasks == 0) waitq_wake_all(n->env, &n->idle);
    return e;
}

// While a truncate holds the object its new size is the durable end, for it is the truncate that waits for who asks. What is deleted and not cleared away has its end
// too, who may have it open or not: what was written of it must not hold up others.
static err co_end_durable(struct request *r, struct handle h, struct raise *w, uint64_t *durable_end) {
    struct names *n = r->n;
    struct lockset locks;
    struct cnode c;
    for (;;) {
        struct hold *held;
        err e = co_object_try_lock(n, h, &locks, &c, &held, co_cnode_kept);
        if (e == OK && held == NULL) break;
        if (e == OK && truncate_durable_end(n, h, w->truncates, durable_end, &e)) return e;
        if (e == OK) e = co_hold_wait(n, held);
        if (e != OK) return e;
    }
    err e = co_raise_locked(r, w, &c);
    lockset_release(n, &locks);
    if (e == OK) e = co_mirror_durable(n, object_number(n, h));
    if (e == OK) *durable_end = c.size;
    return e;
}

err co_names_end_durable(struct names *n, struct handle h, uint64_t end, uint32_t truncates, uint64_t *durable_end) {
    struct request *r = mem_alloc(n->mem, sizeof *r);
    struct raise w = {.end = end, .truncates = truncates};
    r->n = n;
    n->tasks++;
    err e = n->stopping ? ERR_STOPPED : co_end_durable(r, h, &w, durable_end);
    if (--n->tasks == 0) waitq_wake_all(n->env, &n->idle);
    mem_free(n->mem, r);
    return e;
}

err co_name_end_durable(struct request *r) {
    const struct req_end_durable *q = (const void *)r->m->body;
    uint64_t durable = 0;
    err e = co_names_end_durable(r->n, wire_handle_at(&q->handle), le64_get(q->end), le32_get(q->truncates), &durable);
    reply_size(r, durable, durable, le32_get(q->truncates), 0);
    return e;
}

// fsync of a directory means its entries, of a file its attributes: all that was applied here until now.
err co_name_sync_meta(struct request *r) {
    struct cnode c;
    err e = co_look_object(r->n, wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle));
    if (e == OK)
        e = co_cnode_live(r->n, wire_handle_at(&((const struct req_handle *)(const void *)r->m->body)->handle), &c);
    if (e == OK) e = co_mirror_durable(r->n, r->n->mirror.number);
    if (e == OK) reply_size(r, c.size, c.size, c.truncates, c.change);
    return e;
}

// ---- touches: gathered, an object once
struct touch {
    struct handle h;
    uint64_t mtime_ns;
};

void touches_init(struct names *n) {
    map_init(&n->touches, n->mem);
}

void touches_fini(struct names *n) {
    MAP_FOR(&n->touches, it) mem_free(n->mem, it.value);
    map_fini(&n->touches);
}

void names_touch(struct names *n, struct handle h, uint64_t mtime_ns) {
    if (n->stopping || h.starter != n->c.self.n) return;
    struct touch *t = map_get(&n->touches, handle_hash(h));
    if (t == NULL) {
        t = mem_alloc(n->mem, sizeof *t);
        t->h = h;
        map_put(&n->touches, handle_hash(h), t);
    }
    t->mtime_ns = MAX(t->mtime_ns, mtime_ns);
    waitq_wake_all(n->env, &n->touch_work);
}

static err co_touch_one(struct names *n, struct handle h, uint64_t mtime_ns) {
    struct lockset locks;
    struct cnode c;
    err e = co_object_lock(n, h, &locks, &c);
    if (e != OK) return e;
    if (mtime_ns > c.ctime_ns) c.mtime_ns = c.ctime_ns = mtime_ns;
    c.change++;
    c.flags |= CNODE_RAISED;
    struct rec_cnode rec;
    struct key k = cnode_key(h);
    struct batch *b = batch_new(n->store);
    batch_put(b, n->tree, &k, &rec, cnode_encode(&c, &rec));
    uint64_t number;
    e = co_mirror_commit(n, b, &number);
    lockset_release(n, &locks);
    return e;
}

static struct touch *touch_any(struct names *n) {
    MAP_FOR(&n->touches, it) return map_del(&n->touches, it.key);
    return NULL;
}

void co_touches_apply(struct names *n) {
    struct touch *t;
    while (!n->stopping && (t = touch_any(n)) != NULL) {
        err e = co_touch_one(n, t->h, t->mtime_ns);
        if (e != OK && e != ERR_STALE && e != ERR_STOPPED)
            LOG(n->env, TRACE_WARN, "names: times of a written file could not be kept: %s", err_name(e));
        mem_free(n->mem, t);
    }
}

// From another IOM's rows; answered when it is done: its fsync hangs on it.
err co_name_touch(struct request *r) {
    const struct req_touch *q = (const void *)r->m->body;
    struct handle h = wire_handle_at(&q->handle);
    if (h.starter != r->n->c.self.n) return ERR_STALE;
    err e = co_touch_one(r->n, h, le64_get(q->mtime_ns));
    return e == ERR_STALE ? OK : e;
}
