// Resolution: after a stop or a power cut, every update that is not settled is decided. (The seed's cases 1 to 4 are instances; FIG. 16)
// It works on what is durable, and each version of a row is durable on all members before the next begins. Nobody serves meanwhile. Six phases, each
// begun when all members have ended the one before:
//
//   0  (a) what the settled parity includes is settled: a D whose UPDATE is at the version in P's CHUNK completes it. Before (b), because the version that P
//          has in flight lies over that one: a block that is reconstructed is reconstructed from it.
//   1  (b) every P decides its UPDATEs: a participant *has* its block of a row if its CHUNK is at the version named, or its UPDATE is and the block's checksum
//          matches. P's own block there and at most one participant without: the row rolls forward; the one without gets its block reconstructed:
//          parity new xor parity old xor the other participants' deltas. Else P keeps the old parity for that row. Then (a) again, for what went forward.
//   2  what was put aside at a stop comes back: deltas that P held of a D become that D's UPDATE, if it has not got them. What was held open lies over what was
//      held frozen: where that is lost on both sides, it goes as well.
//   3  D's second layer over its first, now that this has what P held: a row whose second block is lost keeps what P knew of it. Then what was hardened at
//      a stop and reaches beyond the durable end: the starter makes that end durable, or says it was cut; then it is dropped
//   4  (c) the UPDATEs that the parity still does not include enter it together, as an ordinary next version with an UPDATE of its own at P. Blocks that
//          never came to disk are dropped.
//   5  what P held is dropped: all of it is in the parity now, so that a D that fails meanwhile, even for good, takes nothing with it. No UPDATE is left anywhere
//
// Seed case 1 (no entry): nothing is found, nothing done. Case 2 (an entry at D alone): (c), or dropped if D's block is not on disk. Case 3a, 4a (nothing old):
// old blocks are holes, the same rules. 3b: neither block is on disk: (b) keeps, (c) drops. 3c: D's alone: (b) keeps, (c) enters. 3d: both: (b) forward, (a).
// 3e, 4c: the parity alone: (b) forward with D's block reconstructed. 4b: an entry at P whose block is not on disk: (b) keeps.
//
// Bad blocks (bit rot) beside all that: a row of which a participant has completed is settled, and goes forward whatever rotted; what deltas do not give, the
// blocks of the whole row do; what is lost after all is recorded so that it does not read (resolve_gather.c). No phase fails for it.
//
// A second power cut anywhere finds a state that the same rules decide the same way: a row that went forward has all its blocks, or still lacks
// at most the one; a row that was kept has no UPDATE at P.
#include "iom/resolve.h"

#define WORKERS 32u // 64 KiB for each member of the row at most, here and at those that are asked; flushes are shared

uint8_t *resolve_row(const struct contents *c, unsigned b) {
    return c->buf->data + row_count(c->rows & ((1u << b) - 1)) * BLOCK_BYTES;
}

err co_resolve_object(struct rows *r, struct handle h, struct object **o) {
    struct row_cnode2 v;
    uint32_t len;
    struct refmap map;
    struct key k = row_key(KIND_CNODE2, h, 0);
    err e = co_tree_get(r->store, r->tree, &k, &v, sizeof v, &len);
    if (e == OK) e = len == sizeof v ? refmap_at(&map, v.map.b) : ERR_FORMAT;
    if (e != OK) return e == ERR_NOENT ? ERR_FORMAT : e;
    *o = row_object(r, h, &map);
    e = co_row_object_load(*o);
    if (e != OK) row_object_unpin(*o);
    return e;
}

err co_resolve_call(struct rows *r, iom_id to, const struct object *o, const struct req_resolve *q, const struct contents *c, struct msg **reply) {
    struct msg *m = r->port.msg(r->port.ctx, MSG_RESOLVE, sizeof *q);
    struct req_resolve *b = (void *)m->body;
    struct envelope env = b->env;
    *b = *q;
    b->env = env;
    handle_put(b->handle.b, o->h);
    refmap_put(b->map.b, &o->map);
    b->truncates = le32_of(o->truncates);
    if (c) msg_set_payload(m, (struct slice){c->buf, 0, row_count(c->rows) * BLOCK_BYTES});
    return r->port.co_call(r->port.ctx, to, m, reply);
}

// ---- all UPDATEs of this store --------------------------------------------------------------------------------------

struct work {
    struct rows *r;
    struct todo *v;
    uint32_t len, cap, next;
    struct group g;
    err (*co_one)(struct rows *r, const struct todo *t);
};

static err co_find(struct work *w) {
    struct rows *r = w->r;
    struct key k = {{KIND_UPDATE}};
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (;;) {
        err e = co_tree_seek(r->store, r->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_UPDATE)) return OK;
        struct todo t = {.h = handle_at(key_id(&k)), .number = key_number(&k)};
        if (e == OK) e = row_update_decode(&t.u, val, len);
        if (e != OK) return e;
        if (w->len == w->cap) {
            w->cap = w->cap ? 2 * w->cap : 64;
            w->v = mem_realloc(r->env->mem, w->v, w->cap * sizeof w->v[0]);
        }
        w->v[w->len++] = t;
        k = key_next(k);
    }
}

static void co_worker(void *arg) {
    struct work *w = arg;
    struct rows *r = w->r;
    err e = OK;
    while (e == OK && w->next < w->len && !r->stopping && w->g.first_error == OK) e = w->co_one(r, &w->v[w->next++]);
    group_done(r->env, &w->g, e);
    row_task_end(r);
}

// co_one for every UPDATE that there is now, several at a time.
static err co_each(struct rows *r, err (*co_one)(struct rows *r, const struct todo *t)) {
    struct work *w = mem_alloc(r->env->mem, sizeof *w);
    w->r = r;
    w->co_one = co_one;
    err e = co_find(w);
    group_init(&w->g);
    for (uint32_t i = 0; i < MIN(w->len, WORKERS) && e == OK; i++) {
        group_add(&w->g);
        row_spawn(r, "resolve", co_worker, w);
    }
    err done = co_group_wait(r->env, &w->g, "resolve: workers");
    mem_free(r->env->mem, w->v);
    mem_free(r->env->mem, w);
    if (r->stopping) return ERR_STOPPED;
    return e == OK ? done : e;
}

static bool is_held(const struct todo *t) { return t->number & ROW_KEY_HELD; }
static bool is_second(const struct todo *t) { return t->number & ROW_KEY_SECOND; }
static bool is_first_of_data(const struct todo *t) { return t->u.role == ROW_DATA && !is_held(t) && !is_second(t); }

// ---- phases 0, 1 --------------------------------------------------------------------------------------------------------

static err co_decide_own(struct rows *r, const struct todo *t) {
    struct object *o;
    if (t->u.role != ROW_PARITY) return OK;
    err e = co_resolve_object(r, t->h, &o);
    if (e != OK) return e;
    e = co_resolve_decide(r, o, t->number);
    row_object_unpin(o);
    return e;
}

static err co_ask_p(struct dseg *d, enum resolve_op op, struct resolve_decided *out) {
    struct req_resolve q = {.op = (uint8_t)op, .k = d->k, .seg = le64_of(d->s.n)};
    struct msg *reply;
    err e = co_resolve_call(d->s.r, d->p, d->s.o, &q, NULL, &reply);
    if (e != OK) return e;
    if (reply->body_len == sizeof *out) memcpy(out, reply->body, sizeof *out);
    else e = ERR_FORMAT;
    msg_free(reply);
    return e;
}

static row_mask included(const struct update *u, const struct resolve_decided *x) {
    row_mask rows = 0;
    ROW_FOR(u->rows, b) if (le64_get(x->version[b]) == u->version && !mutant(MUTANT_A_NEVER)) rows |= (row_mask)(1u << b);
    return rows;
}

// What P includes is completed; with `last`, the rest is dropped. Without protection what is on disk is completed, at last.
static err co_finish(struct dseg *d, enum resolve_op op, bool last) {
    struct rows *r = d->s.r;
    struct resolve_decided x = {0};
    struct update u;
    row_mask settled;
    err e = OK;
    if (row_has_parity(d)) e = co_ask_p(d, op, &x); // before the lock: P asks us in turn
    if (e != OK) return e;
    d->decided = op == RESOLVE_SETTLED && x.decided;
    co_lock(r->env, &d->s.lock, "resolve: segment");
    e = co_row_seg_load(&d->s);
    if (e == OK) e = co_row_update_get(r, d->s.o->h, d->s.n, &u);
    if (e == OK) {
        if (row_has_parity(d)) settled = included(&u, &x);
        else e = co_resolve_good(r, &u, &settled);
        if (e == OK && (settled || last)) e = co_resolve_complete(d, &u, settled, last ? u.rows & (row_mask)~settled : 0);
    }
    co_unlock(r->env, &d->s.lock);
    return e == ERR_NOENT ? OK : e;
}

static err co_with_dseg(struct rows *r, const struct todo *t, err (*co_fn)(struct dseg *d, const struct todo *t)) {
    struct object *o;
    err e = co_resolve_object(r, t->h, &o);
    if (e != OK) return e;
    struct dseg *d = resolve_dseg(r, o, t->number & ROW_KEY_SEG);
    e = d ? co_fn(d, t) : ERR_FORMAT;
    if (d) row_seg_unpin(&d->s);
    row_object_unpin(o);
    return e;
}

static err co_settled_fn(struct dseg *d, const struct todo *t) { return row_has_parity(d) ? co_finish(d, RESOLVE_SETTLED, false) : OK; }
// model: R_SETTLED
static err co_settled_own(struct rows *r, const struct todo *t) { return is_first_of_data(t) ? co_with_dseg(r, t, co_settled_fn) : OK; }
static err co_complete_fn(struct dseg *d, const struct todo *t) { return row_has_parity(d) && !d->decided ? co_finish(d, RESOLVE_DECIDE, false) : OK; }
// model: R_COMPLETE
static err co_complete_own(struct rows *r, const struct todo *t) { return is_first_of_data(t) ? co_with_dseg(r, t, co_complete_fn) : OK; }

// ---- phase 2 --------------------------------------------------------------------------------------------------------

static uint8_t held_k(const struct todo *t) { return (t->number >> ROW_KEY_HELD_K_SHIFT) & 15; }
static uint64_t held_seg(const struct todo *t) { return t->number & ROW_KEY_SEG; }

// Of `rows` those that D has neither settled nor on disk at that version. A D that was stopped like us has them all.
static err co_lacking(struct rows *r, const struct todo *t, struct object *o, row_mask *lacking) {
    struct req_resolve q = {.op = RESOLVE_STATE, .k = held_k(t), .seg = le64_of(held_seg(t))};
    struct resolve_state st;
    struct msg *reply;
    err e = co_resolve_call(r, resolve_member(o, held_seg(t), held_k(t)), o, &q, NULL, &reply);
    if (e != OK) return e;
    if (reply->body_len == sizeof st) memcpy(&st, reply->body, sizeof st);
    else e = ERR_FORMAT;
    msg_free(reply);
    if (e != OK) return e;
    row_mask good = le64_get(st.update_version) >= t->u.version ? le16_get(st.good_rows) : 0;
    *lacking = t->u.rows & (row_mask)~good;
    ROW_FOR(*lacking, b) if (le64_get(st.version[b]) >= t->u.version) *lacking &= (row_mask)~(1u << b);
    return OK;
}

// Those of `rows` that are on disk here. *bad: the others.
static err co_send_held(struct rows *r, const struct todo *t, struct object *o, row_mask rows, row_mask *bad) {
    struct contents c = {buf_new(r->env->mem, row_count(rows) * BLOCK_BYTES), 0};
    struct buf *packed = buf_new(r->env->mem, row_count(rows) * BLOCK_BYTES);
    struct msg *reply = NULL;
    uint32_t n = 0, i = 0;
    *bad = 0;
    err e = co_resolve_read(r, t->u.spot, rows, packed->data, bad);
    c.rows = rows & (row_mask)~*bad;
    ROW_FOR(rows, b) {
        const uint8_t *from = packed->data + i++ * BLOCK_BYTES;
        if (c.rows >> b & 1) memcpy(c.buf->data + n++ * BLOCK_BYTES, from, BLOCK_BYTES);
    }
    struct req_resolve q = {.op = RESOLVE_HELD, .k = held_k(t), .rows = le16_of(c.rows), .seg = le64_of(held_seg(t)), .version = le64_of(t->u.version),
                            .end = le64_of(t->u.end)};
    if (e == OK && c.rows) e = co_resolve_call(r, resolve_member(o, held_seg(t), held_k(t)), o, &q, &c, &reply);
    msg_free(reply);
    buf_unref(packed);
    buf_unref(c.buf);
    return e;
}

// Rows that were held frozen and are lost here and at D: what was held open over them has lost its base.
static err co_trim(struct rows *r, const struct todo *t, row_mask lost) {
    struct update open;
    uint64_t number = t->number | ROW_KEY_HELD_OPEN;
    struct key k = row_key(KIND_UPDATE, t->h, number);
    err e = co_row_update_get(r, t->h, number, &open);
    if (e != OK || !(lost & open.rows)) return e == ERR_NOENT ? OK : e;
    struct batch *batch = batch_new(r->store);
    row_batch_free(batch, open.spot, lost & open.rows);
    open.rows &= (row_mask)~lost;
    if (open.rows) row_batch_update(r, batch, t->h, number, &open);
    else batch_del(batch, r->tree, &k);
    batch_urgent(batch);
    lsn at;
    return co_batch_commit(batch, &at);
}

static err co_held_one(struct rows *r, const struct todo *t) {
    struct object *o;
    row_mask lacking = 0, lost = 0;
    err e = co_resolve_object(r, t->h, &o);
    if (e != OK) return e;
    e = co_lacking(r, t, o, &lacking);
    if (e == OK && lacking) e = co_send_held(r, t, o, lacking, &lost);
    if (e == OK && lost && !(t->number & ROW_KEY_HELD_OPEN)) e = co_trim(r, t, lost);
    row_object_unpin(o);
    return e;
}

static err co_held_frozen(struct rows *r, const struct todo *t) { return is_held(t) && !(t->number & ROW_KEY_HELD_OPEN) ? co_held_one(r, t) : OK; }
static err co_held_open(struct rows *r, const struct todo *t) { return is_held(t) && (t->number & ROW_KEY_HELD_OPEN) ? co_held_one(r, t) : OK; }

// ---- phase 3 --------------------------------------------------------------------------------------------------------

static err co_layers_fn(struct dseg *d, const struct todo *t) {
    co_lock(d->s.r->env, &d->s.lock, "resolve: segment");
    err e = co_row_seg_load(&d->s);
    if (e == OK) e = co_resolve_layers(d);
    co_unlock(d->s.r->env, &d->s.lock);
    return e;
}
static err co_layers_own(struct rows *r, const struct todo *t) { return is_second(t) ? co_with_dseg(r, t, co_layers_fn) : OK; }

static err co_end_fn(struct dseg *d, const struct todo *t) {
    struct rows *r = d->s.r;
    uint64_t end = 0;
    err e = r->port.co_end_durable(r->port.ctx, d->s.o->h, t->u.end, d->s.o->truncates, &end);
    if (e != ERR_TRUNCATED && e != ERR_STALE && e != ERR_BUSY) return e;
    co_lock(r->env, &d->s.lock, "resolve: segment");
    e = co_row_seg_load(&d->s);
    if (e == OK) e = co_resolve_complete(d, &t->u, 0, t->u.rows);
    co_unlock(r->env, &d->s.lock);
    return e;
}
static err co_end_own(struct rows *r, const struct todo *t) { return is_first_of_data(t) && t->u.end ? co_with_dseg(r, t, co_end_fn) : OK; }

// ---- phase 4 --------------------------------------------------------------------------------------------------------

static err co_enter_fn(struct dseg *d, const struct todo *t) { return co_finish(d, RESOLVE_ENTER, true); }
err co_resolve_finish_alone(struct rows *r, struct handle h, uint64_t number, const struct update *u) {
    struct todo t = {.h = h, .number = number, .u = *u};
    err e = is_second(&t) ? co_with_dseg(r, &t, co_layers_fn) : OK;
    bool ours = h.starter == r->self.n; // then nobody knows its end before our names are back, with the size that its stand-in had; if an answer was given, that covers it
    if (e == OK && u->end && !ours) e = co_with_dseg(r, &t, co_end_fn);
    return e == OK ? co_with_dseg(r, &t, co_enter_fn) : e;
}

// model: R_FINISH
static err co_enter_own(struct rows *r, const struct todo *t) { return is_first_of_data(t) ? co_with_dseg(r, t, co_enter_fn) : OK; }

// ---- phase 5 --------------------------------------------------------------------------------------------------------

// Not before D's update has entered the parity: until then D may be lost, for the first time, and this is all there is of it.
// model: R_DROP_HELD
static err co_drop_held(struct rows *r, const struct todo *t) {
    if (!is_held(t)) return OK;
    struct batch *batch = batch_new(r->store);
    struct key k = row_key(KIND_UPDATE, t->h, t->number);
    row_batch_free(batch, t->u.spot, t->u.rows);
    batch_del(batch, r->tree, &k);
    batch_urgent(batch);
    lsn at;
    return co_batch_commit(batch, &at);
}

// model: R_SERVE
static err co_none_left(struct rows *r, const struct todo *t) {
    LOG(r->env, TRACE_ERROR, "resolve: an update of segment %llx of object %u/%llx is left", (unsigned long long)t->number, t->h.starter, (unsigned long long)t->h.index);
    return ERR_FORMAT;
}

static err co_phase(struct rows *r, uint32_t phase) {
    err e = OK;
    switch (phase) {
        case 0: return mutant(MUTANT_A) ? OK : co_each(r, co_settled_own);
        case 1:
            e = co_each(r, co_decide_own);
            return e == OK ? co_each(r, co_complete_own) : e;
        case 2: // what was open lies over what was frozen, and may be trimmed for it
            e = co_each(r, co_held_frozen);
            return e == OK ? co_each(r, co_held_open) : e;
        case 3:
            e = co_each(r, co_layers_own);
            return e == OK ? co_each(r, co_end_own) : e;
        case 4: return co_each(r, co_enter_own);
        case 5:
            e = co_each(r, co_drop_held);
            return e == OK ? co_each(r, co_none_left) : e;
        default: return ERR_INVAL;
    }
}

// model: R_PHASE
err co_rows_recover(struct rows *r, uint32_t phase) {
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    err e = co_phase(r, phase);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store));
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
