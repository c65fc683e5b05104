// Truncates: a file gets shorter.
//
//   INTENT (new size, count + 1), durable ── DISCARD to all members from the first segment wholly beyond ── ZERO for the rest of the last
//   stripe ── one batch: size, count, INTENT gone, the reply
//
// While the INTENT stands the object is held: nobody learns a count, raises the size or starts another truncate.
// Members keep the new count with the discard, so a write that carries the old one is refused there, and a discard that
// comes twice is done once. A restart finds the INTENT and does it again (recovery phase 2). What a write that was
// never answered left beyond the size lies in the same places and goes too.
#include "iom/name_inside.h"

static struct intent_id truncate_id(struct handle h) {
    struct intent_id id;
    handle_put(id.b, h);
    return id;
}

static uint64_t truncate_key(struct handle h) {
    return hold_key(HOLD_TRUNCATE, h, (struct name){0});
}

struct hold *truncate_open(struct names *n, struct handle h) {
    return map_count(&n->holds) == 0 ? NULL : hold_find(n, truncate_key(h), NULL);
}

// Members that zero the rest of the last stripe ask for a durable end while the truncate holds the object: they are not
// to wait for each other.
bool truncate_durable_end(struct names *n, struct handle h, uint32_t truncates, uint64_t *size, err *result) {
    struct hold *t = truncate_open(n, h);
    if (t == NULL || t->truncates == 0) return false;
    *result = truncates < t->truncates ? ERR_TRUNCATED : OK;
    *size = t->size;
    return true;
}

static void truncate_is_durable(struct names *n, struct handle h, uint64_t size, uint32_t truncates) {
    struct hold *t = truncate_open(n, h);
    ASSERT(t != NULL);
    t->size = size;
    t->truncates = truncates;
    waitq_wake_all(n->env, &t->freed); // who waits for a durable end has it now
}

// ---- the members
struct fan { // one message to all members at once
    struct names *n;
    struct group done;
    struct handle h;
    struct refmap map;
    uint64_t from, len; // len: zero this range. Else discard from this segment
    uint32_t truncates;
    bool gone, zero;
    bool once; // a block that cannot be read ends it, with ERR_IO
};
struct fan_one {
    struct fan *f;
    iom_id to;
};

static struct msg *fan_msg(const struct fan *f) {
    const struct names_port *port = &f->n->port;
    struct msg *m;
    if (f->zero) {
        m = port->msg(port->ctx, MSG_ZERO, sizeof(struct req_zero));
        struct req_zero *q = (void *)m->body;
        wire_handle_put(&q->handle, f->h);
        refmap_put(q->map.b, &f->map);
        q->off = le64_of(f->from);
        q->len = le64_of(f->len);
        q->truncates = le32_of(f->truncates);
    } else {
        m = port->msg(port->ctx, MSG_DISCARD, sizeof(struct req_discard));
        struct req_discard *q = (void *)m->body;
        wire_handle_put(&q->handle, f->h);
        refmap_put(q->map.b, &f->map);
        q->from_seg = le64_of(f->from);
        q->truncates = le32_of(f->truncates);
        q->gone = f->gone;
    }
    return m;
}

static err co_fan_here(struct fan *f) {
    const struct names_port *port = &f->n->port;
    return f->zero ? port->co_zero(port->ctx, f->h, &f->map, f->from, f->len, f->truncates)
                   : port->co_discard(port->ctx, f->h, &f->map, f->from, f->truncates, f->gone);
}

static err co_fan_there(struct fan *f, iom_id to) {
    struct msg *m = fan_msg(f), *reply = NULL;
    err e = co_call_iom(f->n, to, m, &reply);
    msg_free(m);
    if (e == OK) msg_free(reply);
    return e;
}

// Nothing here is optional: a member that refuses is asked again until this IOM stops.
static err co_fan_to(struct fan *f, iom_id to) {
    for (;;) {
        err e = iom_eq(to, f->n->c.self) ? co_fan_here(f) : co_fan_there(f, to);
        if (e == OK) return OK;
        if (f->n->stopping || e == ERR_STOPPED) return ERR_STOPPED;
        if (f->once && e == ERR_IO) return e;
        LOG(f->n->env, TRACE_WARN, "names: IOM %u does not discard: %s", to.n, err_name(e));
        co_sleep_until(f->n->env, env_now_ns(f->n->env) + MSEC(100), "discard again");
    }
}

static void co_fan_task(struct names *n, void *arg) {
    struct fan_one o = *(struct fan_one *)arg;
    mem_free(n->mem, arg);
    group_done(n->env, &o.f->done, co_fan_to(o.f, o.to));
}

static err co_fan_out(struct fan *f) {
    group_init(&f->done);
    for (uint8_t i = 0; i < f->map.span; i++) {
        struct fan_one *o = mem_alloc(f->n->mem, sizeof *o);
        *o = (struct fan_one){f, refmap_member(&f->map, i)};
        group_add(&f->done);
        names_task(f->n, f->zero ? "zero" : "discard", co_fan_task, o);
    }
    return co_group_wait(f->n->env, &f->done, "members discard");
}

err co_members_discard(struct names *n, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates,
                       bool gone) {
    struct fan f = {.n = n, .h = h, .map = *m, .from = from_seg, .truncates = truncates, .gone = gone};
    return co_fan_out(&f);
}

static err co_members_zero(struct names *n, struct handle h, const struct refmap *m, uint64_t off, uint64_t len,
                           uint32_t truncates, bool once) {
    struct fan f = {.n = n, .h = h, .map = *m, .from = off, .len = len, .truncates = truncates, .zero = true, .once = once};
    return co_fan_out(&f); // also if there is nothing to zero: members wait for it
}

// ---- a truncate
static err co_truncate_members(struct names *n, struct handle h, const struct refmap *m, uint64_t size,
                               uint32_t truncates, bool once) {
    uint64_t stripe = geo_data(m) * refmap_quantum(m);
    err e = co_members_discard(n, h, m, geo_segs_of_size(m, size), truncates, false);
    return e == OK && size > 0 ? co_members_zero(n, h, m, size, ROUND_UP(size, stripe) - size, truncates, once) : e;
}

static struct key truncate_record_key(struct handle h) {
    return key_make(KIND_INTENT, truncate_id(h).b, ROLE_TRUNCATE);
}

static err co_truncate_begin(struct names *n, struct cnode *c, const struct req_setattr *q, uint64_t now_ns) { // ERR_CONFLICT: nothing to cut any more
    struct lockset locks;
    uint64_t size = le64_get(q->size);
    err e = co_object_lock(n, c->h, &locks, c);
    if (e != OK) return e;
    if (size >= c->size) e = ERR_CONFLICT;
    uint64_t number = 0;
    if (e == OK) {
        struct rec_truncate rec = {.size = q->size, .truncates = le32_of(c->truncates + 1), .now_ns = le64_of(now_ns), .asked = *q};
        wire_handle_put(&rec.handle, c->h);
        refmap_put(rec.map.b, &c->map);
        struct intent_id id = truncate_id(c->h);
        struct key k = truncate_record_key(c->h);
        struct batch *b = batch_new(n->store);
        batch_urgent(b); // space is about to be freed
        batch_put(b, n->tree, &k, &rec, sizeof rec);
        hold_take(n, truncate_key(c->h), HOLD_TRUNCATE, &id, false);
        e = co_mirror_commit(n, b, &number);
        if (e != OK) hold_free(n, truncate_key(c->h), false);
    }
    lockset_release(n, &locks);
    if (e == OK) e = co_mirror_durable(n, number);
    if (e == OK) truncate_is_durable(n, c->h, size, c->truncates + 1);
    return e;
}

// The last batch: size, count, what else was asked for, and the reply in its slot.
static err co_truncate_end(struct request *r, struct handle h, const struct req_setattr *q, uint64_t now_ns, uint32_t truncates) {
    struct names *n = r->n;
    struct lockset locks = {.len = 0};
    struct cnode c;
    lockset_add(&locks, h);
    co_lockset_take(n, &locks);
    err e = co_cnode_get(n, h, &c);
    if (e == OK) {
        struct rec_cnode rec;
        struct key k = cnode_key(h), intent = truncate_record_key(h);
        struct batch *b = batch_new(n->store);
        batch_urgent(b);
        c.size = le64_get(q->size);
        c.tail_from = c.tail_to = 0;
        c.truncates = truncates;
        setattr_alter(q, now_ns, &c);
        batch_put(b, n->tree, &k, &rec, cnode_encode(&c, &rec));
        batch_del(b, n->tree, &intent);
        request_attr(r, &c);
        e = co_request_commit(r, b);
        if (e == OK) object_changed(n, h, n->mirror.number);
    }
    if (e == OK) hold_free(n, truncate_key(h), false);
    lockset_release(n, &locks);
    return e;
}

err co_truncate(struct request *r, struct cnode *c, const struct req_setattr *q, uint64_t now_ns) {
    struct names *n = r->n;
    err e = co_truncate_begin(n, c, q, now_ns);
    if (e == OK) e = co_truncate_members(n, c->h, &c->map, le64_get(q->size), c->truncates + 1, false);
    return e == OK ? co_truncate_end(r, c->h, q, now_ns, c->truncates + 1) : e;
}

// ---- after a restart
static err co_truncate_next(struct names *n, struct key *k, struct rec_truncate *rec) { // ERR_NOENT at the end
    for (;; *k = key_next(*k)) {
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len;
        err e = co_tree_seek(n->store, n->tree, k, val, sizeof val, &len);
        if (e == OK && key_kind(k) != KIND_INTENT) e = ERR_NOENT;
        if (e == OK && key_number(k) != ROLE_TRUNCATE) continue;
        if (e == OK && len != sizeof *rec) e = ERR_FORMAT;
        if (e == OK) memcpy(rec, val, sizeof *rec);
        return e;
    }
}

static struct key intents_first(void) {
    static const uint8_t zero[16];
    return key_make(KIND_INTENT, zero, 0);
}

err co_truncates_load(struct names *n) {
    struct rec_truncate rec;
    struct key k = intents_first();
    err e;
    for (; (e = co_truncate_next(n, &k, &rec)) == OK; k = key_next(k)) {
        struct handle h = wire_handle_at(&rec.handle);
        struct intent_id id = truncate_id(h);
        hold_take(n, truncate_key(h), HOLD_TRUNCATE, &id, false);
        truncate_is_durable(n, h, le64_get(rec.size), le32_get(rec.truncates));
    }
    return e == ERR_NOENT ? OK : e;
}

// The request again, as its record has it; its session may be over.
static err co_truncate_end_again(struct names *n, struct handle h, const struct rec_truncate *rec) {
    struct request *r = mem_alloc(n->mem, sizeof *r);
    r->n = n;
    r->head = &rec->asked.h;
    r->session = session_find(n, r->head->session);
    r->slot = le32_get(r->head->slot);
    r->seq = r->session != NULL ? le64_get(r->head->seq) : 0;
    err e = co_truncate_end(r, h, &rec->asked, le64_get(rec->now_ns), le32_get(rec->truncates));
    mem_free(n->mem, r);
    return e;
}

static err co_truncate_discard(struct names *n, struct handle h, const struct rec_truncate *rec) {
    struct refmap m;
    err e = refmap_at(&m, rec->map.b);
    return e == OK ? co_members_discard(n, h, &m, geo_segs_of_size(&m, le64_get(rec->size)), le32_get(rec->truncates), false) : e;
}

// What cannot be zeroed, for it is at one that is missing and its row does not give it, is left, held as it is: nobody is to wait for that one but who uses the object.
static err co_truncate_finish(struct names *n, struct handle h, const struct rec_truncate *rec) {
    struct refmap m;
    err e = refmap_at(&m, rec->map.b);
    if (e == OK) e = co_truncate_members(n, h, &m, le64_get(rec->size), le32_get(rec->truncates), true);
    if (e != ERR_IO) return e == OK ? co_truncate_end_again(n, h, rec) : e;
    struct hold *t = truncate_open(n, h);
    if (!t->left) LOG(n->env, TRACE_WARN, "names: the truncate of object %u/%llx is not finished: a block cannot be read", h.starter, (unsigned long long)h.index);
    t->left = n->truncates_left = true;
    return OK;
}

// `finish` false: discards alone, before rows are resolved, for what is cut is not to be resolved. True: zeroes the
// rest of the last stripe, through the update protocol and so after resolution, and ends the truncate.
err co_truncates_recover(struct names *n, bool finish) {
    struct rec_truncate rec;
    struct key k = intents_first();
    err e;
    for (; (e = co_truncate_next(n, &k, &rec)) == OK; k = key_next(k)) {
        struct handle h = wire_handle_at(&rec.handle);
        e = finish ? co_truncate_finish(n, h, &rec) : co_truncate_discard(n, h, &rec);
        if (e != OK) return e;
    }
    return e == ERR_NOENT ? OK : e;
}

void co_truncates_again(struct names *n) {
    struct rec_truncate rec;
    struct key k = intents_first();
    err e;
    n->truncates_left = false;
    for (; (e = co_truncate_next(n, &k, &rec)) == OK; k = key_next(k)) {
        struct handle h = wire_handle_at(&rec.handle);
        struct hold *t = truncate_open(n, h);
        if (t && t->left) e = co_truncate_finish(n, h, &rec);
        if (e != OK) break;
    }
    if (e != ERR_NOENT) n->truncates_left = true; // next second
}
