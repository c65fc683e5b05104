// D's side of the update protocol, to disk: when dirty segments are frozen, how rounds harden them, and what fsync waits for.
//
//   d_aged ──age, pressure, hint──> d_due ──round──> D_HARDENING ──flush──> D_HARDENED ──SETTLED──> D_SETTLING ──> D_IDLE
//                 row_d_want ────────^   │
//                                        └─ cannot be frozen yet: in no queue; row_d_unblocked brings it back when
//                                           · the version in flight is settled (I4)   · P has answered its first deltas   · the end is durable
//
// A round freezes all that is due in one breath and hardens it with one write, one batch and one flush; rounds overlap. UPDATE is committed before its
// blocks are written, so that a flush already under way for others may carry it: a checksum tells recovery whether a block has come with it.
#include "iom/row_state.h"

#define ROUND_SEGS 128u
#define ROUNDS_MAX 4u
#define TOUCH_NS SEC(1)
#define END_RETRY_NS MSEC(50)

// ---- queues ---------------------------------------------------------------------------------------------------------

static void queue_due(struct dseg *d) {
    struct rows *r = d->s.r;
    d->due = true;
    row_queue(&r->d_due, &d->s);
    waitq_wake_all(r->env, &r->d_wake);
}

void row_d_unblocked(struct dseg *d) {
    if (!d->due || !d->dirty.mask || d->s.dead || d->state != D_IDLE || d->pending || d->s.o->asking_end) return;
    if (list_empty(&d->s.work)) queue_due(d);
}

void row_d_due(struct dseg *d) {
    if (d->dirty.mask && !d->due) queue_due(d);
}

void row_d_want(struct dseg *d) {
    if (!d->dirty.mask) return;
    d->urgent = true;
    if (!d->due) queue_due(d);
}

void row_d_hint(struct rows *r, const struct row_mark *k) {
    struct seg *s = row_seg_find(r, handle_at(k->handle.b), le64_get(k->seg));
    if (s && s->role == ROW_DATA && row_d(s)->dirty.mask && !row_d(s)->due) queue_due(row_d(s));
}

void row_d_idle(struct dseg *d) {
    if (d->dirty.mask) {
        row_d_unblocked(d);
    } else {
        list_remove(&d->unsettled);
    }
}

static void age(struct rows *r) {
    uint64_t now = env_now_ns(r->env);
    if (list_empty(&r->d_aged)) return;
    bool due = r->hurry || row_d(LIST_ENTRY(r->d_aged.next, struct seg, work))->dirty_since_ns + r->cfg.flush_age_ns <= now;
    LIST_FOR_SAFE(&r->d_aged, n) { // with the first that is due goes what is half as old
        struct dseg *d = row_d(LIST_ENTRY(n, struct seg, work));
        if (!due || (!r->hurry && d->dirty_since_ns + r->cfg.flush_age_ns / 2 > now)) break;
        d->due = true;
        row_queue(&r->d_due, &d->s);
    }
    r->hurry = false;
}

// ---- the durable end ------------------------------------------------------------------------------------------------

static void co_end_task(void *arg) {
    struct object *o = arg;
    struct rows *r = o->r;
    uint64_t end = 0, wanted = o->end_wanted;
    uint32_t count = o->truncates;
    o->end_wanted = 0; // who is still blocked asks again, with what is then dirty
    err e = r->port.co_end_durable(r->port.ctx, o->h, wanted, count, &end);
    if (e == OK && count == o->truncates) o->durable_end = MAX(o->durable_end, end);
    if (e == ERR_STALE) {
        e = co_row_discard_unknown(o); // told there
    } else if (e != OK || end < wanted) { // less than asked for: a truncate is under way, which zeroes what lies beyond
        LOG(r->env, TRACE_DEBUG, "rows: no durable end for object %u/%llx: %s", o->h.starter, (unsigned long long)o->h.index, err_text(e));
        co_wait_until(r->env, &r->stop_q, env_now_ns(r->env) + END_RETRY_NS, "row: asks for the end again");
    }
    o->asking_end = false;
    LIST_FOR(&o->unsettled, n) {
        struct dseg *d = LIST_ENTRY(n, struct dseg, unsettled);
        row_d_unblocked(d);
    }
    row_object_unpin(o);
    row_task_end(r);
}

static void ask_end(struct object *o, uint64_t end) {
    o->end_wanted = MAX(o->end_wanted, end);
    if (o->asking_end) return;
    o->asking_end = true;
    row_object_pin(o);
    row_spawn(o->r, "row end", co_end_task, o);
}

// ---- a round --------------------------------------------------------------------------------------------------------

struct round {
    struct rows *r;
    uint32_t len;
    struct dseg *d[ROUND_SEGS];
};

static bool can_freeze(struct dseg *d) {
    if (d->s.dead || !d->dirty.mask || d->state != D_IDLE || d->pending) return false;
    if (mutant(MUTANT_I8) && row_has_parity(d) &&
        d->s.r->peer[d->p.n].credit_used + BLOCK_BYTES > d->s.r->cfg.credit_bytes)
        return false;
    if (d->dirty_end <= d->s.o->durable_end || mutant(MUTANT_END)) return true;
    if (!d->s.o->cut_open) ask_end(d->s.o, d->dirty_end);
    return false;
}

// model: D_FREEZE
static void freeze(struct dseg *d, struct marks *v) {
    d->state = D_HARDENING;
    d->version += 2;
    row_layer_move(&d->frozen, &d->dirty);
    d->frozen_end = d->dirty_end;
    d->dirty_end = d->dirty_since_ns = 0;
    d->s.busy = true;
    d->s.pins++;
    d->s.r->stats.freezes++;
    if (row_has_parity(d)) row_marks_add(v, d->p, &d->s, d->k, d->version, d->frozen.mask, d->urgent ? MARK_URGENT : 0);
    d->urgent = d->due = false;
}

// No wait between the freezing and the posting: what is written from here on goes to the next version.
static struct round *freeze_due(struct rows *r) {
    struct round *v = mem_alloc(r->env->mem, sizeof *v);
    struct marks marks;
    row_marks_init(&marks, r, MSG_FREEZE);
    v->r = r;
    while (v->len < ROUND_SEGS && !list_empty(&r->d_due)) {
        struct dseg *d = row_d(LIST_ENTRY(list_pop_front(&r->d_due), struct seg, work));
        if (!can_freeze(d)) continue;
        freeze(d, &marks);
        v->d[v->len++] = d;
    }
    row_marks_post(&marks);
    return v;
}

static uint32_t blocks_frozen(const struct round *v) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->len; i++) ROW_FOR(v->d[i]->frozen.mask, b) n += v->d[i]->frozen.c[b].buf != NULL;
    return n;
}

static void place_frozen(struct dseg *d, struct runs *runs, struct writes *w, struct batch *batch) {
    struct update u = {.role = ROW_DATA, .k = d->k, .rows = d->frozen.mask, .version = d->version, .truncates = d->s.o->truncates};
    ROW_FOR(d->frozen.mask, b) {
        uint8_t *data = row_content_data(&d->frozen.c[b]);
        d->s.next[b] = (struct spot){0};
        if (data) {
            block_addr at = row_runs_take(runs);
            d->s.next[b] = (struct spot){at.n, store_crc_block(data)};
            row_writes_add(d->s.r, w, at, data, d->s.next[b].crc);
        }
        u.spot[b] = d->s.next[b];
    }
    row_batch_update(d->s.r, batch, d->s.o->h, d->s.n, &u);
    if (mutant(MUTANT_I2)) row_batch_free(batch, d->s.spot, d->frozen.mask);
    row_batch_stored(batch, &d->s);
}

static err co_harden(struct round *v) {
    struct rows *r = v->r;
    struct runs runs;
    struct writes w = {0};
    uint32_t blocks = blocks_frozen(v);
    err e = co_row_alloc(r, blocks, &runs);
    if (e != OK) return e;
    store_unreserve(r->store, blocks);
    struct batch *batch = batch_new(r->store);
    for (uint32_t i = 0; i < v->len; i++) place_frozen(v->d[i], &runs, &w, batch);
    row_runs_name(batch, &runs);
    row_runs_free(r, &runs);
    batch_urgent(batch);
    lsn at;
    e = co_batch_commit(batch, &at);
    for (uint32_t i = 0; i < v->len && e == OK; i++) e = co_row_stored(&v->d[i]->s);
    if (e == OK && w.len) e = co_store_write_blocks(r->store, w.io, w.len);
    if (e == OK && w.len && mutant(MUTANT_I5)) e = co_store_write_blocks(r->store, w.io, w.len);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store));
    row_writes_free(r, &w);
    return e;
}

// model: D_HARDENED
static void tell_hardened(struct round *v) {
    struct rows *r = v->r;
    struct marks marks;
    row_marks_init(&marks, r, MSG_HARDENED);
    for (uint32_t i = 0; i < v->len; i++) {
        struct dseg *d = v->d[i];
        d->state = D_HARDENED;
        d->s.busy = false;
        waitq_wake_all(r->env, &d->s.q);
        if (d->s.dead) continue;
        if (row_has_parity(d) && !d->early) row_marks_add(&marks, d->p, &d->s, d->k, d->version, d->frozen.mask, 0);
        else row_settle(&d->s);
        d->early = false;
    }
    if (!r->stopping) row_marks_post(&marks);
    else row_marks_drop(&marks);
}

static void co_round(void *arg) {
    struct round *v = arg;
    struct rows *r = v->r;
    err e = co_harden(v);
    if (e == OK) tell_hardened(v);
    else row_break(r, e, "hardening");
    for (uint32_t i = 0; i < v->len; i++) {
        v->d[i]->s.busy = false;
        row_seg_unpin(&v->d[i]->s);
    }
    mem_free(r->env->mem, v);
    r->d_rounds--;
    waitq_wake_all(r->env, &r->d_wake);
    row_task_end(r);
}

// ---- times and change counters reach the starter --------------------------------------------------------------------

void row_touch(struct object *o, uint64_t mtime_ns) {
    struct rows *r = o->r;
    o->mtime_ns = MAX(o->mtime_ns, mtime_ns);
    if (!list_empty(&o->touched)) return;
    o->touched_since_ns = env_now_ns(r->env);
    row_object_pin(o);
    list_push_back(&r->touched, &o->touched);
    if (r->touched.next == &o->touched) waitq_wake_all(r->env, &r->d_wake);
}

static void tell_touch(struct object *o) {
    if (list_empty(&o->touched)) return;
    list_remove(&o->touched);
    o->r->port.touch(o->r->port.ctx, o->h, o->mtime_ns);
    row_object_unpin(o);
}

void row_tell_touches(struct rows *r) {
    while (!list_empty(&r->touched)) tell_touch(LIST_ENTRY(r->touched.next, struct object, touched));
}

static void tell_touches(struct rows *r) {
    uint64_t now = env_now_ns(r->env);
    while (!list_empty(&r->touched)) {
        struct object *o = LIST_ENTRY(r->touched.next, struct object, touched);
        if (o->touched_since_ns + TOUCH_NS > now) return;
        tell_touch(o);
    }
}

// ---- the flusher ----------------------------------------------------------------------------------------------------

static uint64_t next_work_ns(struct rows *r) {
    uint64_t at = UINT64_MAX;
    if (!list_empty(&r->d_aged)) at = row_d(LIST_ENTRY(r->d_aged.next, struct seg, work))->dirty_since_ns + r->cfg.flush_age_ns;
    if (!list_empty(&r->touched)) at = MIN(at, LIST_ENTRY(r->touched.next, struct object, touched)->touched_since_ns + TOUCH_NS);
    return at;
}

void row_d_flusher(void *arg) {
    struct rows *r = arg;
    while (!r->stopping) {
        age(r);
        tell_touches(r);
        bool busy = r->d_rounds >= ROUNDS_MAX || r->broken != OK;
        if (busy || list_empty(&r->d_due)) {
            co_wait_until(r->env, &r->d_wake, next_work_ns(r), "row flusher: nothing is due");
            continue;
        }
        struct round *v = freeze_due(r);
        if (v->len) {
            r->d_rounds++;
            row_spawn(r, "row round", co_round, v);
        } else {
            mem_free(r->env->mem, v);
        }
    }
    row_task_end(r);
}

// ---- waiting for what is dirty to be settled (I3) -------------------------------------------------------------------

void row_wait_add(struct rows *r, struct waitlist *w, struct dseg *d) {
    uint64_t target = d->dirty.mask ? d->version + 2 : d->version;
    if (target <= d->settled || d->s.dead) return;
    if (w->len == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 8;
        w->d = mem_realloc(r->env->mem, w->d, w->cap * sizeof w->d[0]);
        w->target = mem_realloc(r->env->mem, w->target, w->cap * sizeof w->target[0]);
    }
    d->s.pins++;
    w->d[w->len] = d;
    w->target[w->len++] = target;
}

static err co_settled(struct dseg *d, uint64_t target) {
    struct rows *r = d->s.r;
    while (!d->s.dead && d->settled < target && (d->dirty.mask || d->state != D_IDLE)) { // at rest below it: what was dirty was taken back
        if (r->broken != OK) return r->broken;
        if (r->stopping) return ERR_STOPPED;
        co_wait(r->env, &d->s.q, "row: not settled yet");
    }
    return OK;
}

void row_wait_drop(struct rows *r, struct waitlist *w) {
    for (uint32_t i = 0; i < w->len; i++) row_seg_unpin(&w->d[i]->s);
    mem_free(r->env->mem, w->d);
    mem_free(r->env->mem, w->target);
    *w = (struct waitlist){0};
}

err co_row_wait(struct rows *r, struct waitlist *w) {
    err e = OK;
    for (uint32_t i = 0; i < w->len; i++) row_d_want(w->d[i]);
    for (uint32_t i = 0; i < w->len; i++) {
        err one = co_settled(w->d[i], w->target[i]);
        if (e == OK) e = one;
    }
    row_wait_drop(r, w);
    return e;
}

static err co_fsync(struct object *o) {
    struct rows *r = o->r;
    struct waitlist w = {0};
    LIST_FOR(&o->unsettled, n) row_wait_add(r, &w, LIST_ENTRY(n, struct dseg, unsettled));
    err e = co_row_wait(r, &w), lost = o->lost;
    o->lost = OK;
    tell_touch(o);
    return e == OK ? lost : e;
}

err co_rows_fsync(struct rows *r, struct handle h, uint64_t durable_end, uint32_t truncates) {
    if (r->stopping) return ERR_STOPPED;
    struct object *o = row_object_find(r, h);
    if (!o) return r->broken;
    r->inside++;
    row_object_pin(o);
    if (truncates == o->truncates) o->durable_end = MAX(o->durable_end, durable_end);
    err e = co_fsync(o);
    row_object_unpin(o);
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
