// The stop: tasks end, who waits is told, and what only memory holds is put on disk without completing anything: the one that failed may have held
// the other copy, and resolution (resolve.c) brings it all together again.
//
//   D  what is dirty: UPDATE at the next version; over a version in flight: the same as a second layer
//   P  what it holds of each D, frozen or open: HELD records, raw deltas. Of a D that lives they are superfluous and found to be so by their version: the frozen
//      ones are at D's version, the open ones one below the version at which D has hardened all that it had sent and more.
//
// The end of the object is not asked for here: recovery does it before such an update enters the parity.
#include "iom/row_state.h"

#define HOLD_RECORDS 128u

struct hold { uint64_t number; struct seg *s; struct layer *l; struct update u; };
struct holds { struct rows *r; struct hold *v; uint32_t len, cap; };

static void add(struct holds *h, struct seg *s, uint64_t number, struct layer *l, uint64_t version, uint64_t end, uint8_t k) {
    struct rows *r = h->r;
    if (!l->mask || s->dead) return;
    if (h->len == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 64;
        h->v = mem_realloc(r->env->mem, h->v, h->cap * sizeof h->v[0]);
    }
    h->v[h->len++] = (struct hold){number, s, l, {.role = ROW_DATA, .k = k, .rows = l->mask, .version = version, .end = end, .truncates = s->o->truncates}};
}

static void add_data(struct holds *h, struct dseg *d) {
    if (mutant(MUTANT_SECOND) && d->state != D_IDLE) return;
    uint64_t end = d->dirty_end > d->s.o->durable_end ? d->dirty_end : 0;
    add(h, &d->s, d->s.n | (d->state == D_IDLE ? 0 : ROW_KEY_SECOND), &d->dirty, d->version + 2, end, d->k);
}

static void add_parity(struct holds *h, struct pseg *p, bool open_ones) {
    for (uint8_t k = 0; k < p->n; k++) {
        uint64_t number = p->s.n | ROW_KEY_HELD | (uint64_t)k << ROW_KEY_HELD_K_SHIFT;
        struct acc *frozen = p->frozen[k], *open = p->open[k];
        bool on_disk = frozen && frozen->taken && p->state == P_SETTLING; // at all participants
        if (!open_ones && frozen && !on_disk) add(h, &p->s, number, &frozen->l, frozen->version, 0, k);
        if (open_ones && open) add(h, &p->s, number | ROW_KEY_HELD_OPEN, &open->l, open->version - 1, open->end, k);
    }
}

// Whose end was never told durable: nobody can be asked now, and whether its creation is known when all is over is not sure.
static void put_object(struct batch *b, struct object *o) {
    if (o->stored) return;
    row_batch_cnode2(b, o);
    if (!o->durable_end) row_batch_doubt(b, o);
    o->stored = true;
}

static err co_put(struct holds *h, uint32_t from, uint32_t to) {
    struct rows *r = h->r;
    struct runs runs;
    struct writes w = {0};
    uint32_t blocks = 0;
    for (uint32_t i = from; i < to; i++) ROW_FOR(h->v[i].l->mask, b) blocks += h->v[i].l->c[b].buf != NULL;
    err e = co_row_alloc(r, blocks, &runs);
    if (e != OK) return e;
    struct batch *batch = batch_new(r->store);
    for (uint32_t i = from; i < to; i++) {
        struct hold *x = &h->v[i];
        ROW_FOR(x->l->mask, b) {
            uint8_t *data = row_content_data(&x->l->c[b]);
            if (!data) continue;
            x->u.spot[b] = (struct spot){row_runs_take(&runs).n, store_crc_block(data)};
            row_writes_add(r, &w, (block_addr){x->u.spot[b].at}, data, x->u.spot[b].crc);
        }
        row_batch_update(r, batch, x->s->o->h, x->number, &x->u);
        put_object(batch, x->s->o);
    }
    row_runs_name(batch, &runs);
    row_runs_free(r, &runs);
    batch_urgent(batch);
    lsn at;
    e = co_batch_commit(batch, &at);
    if (e == OK && w.len) e = co_store_write_blocks(r->store, w.io, w.len);
    row_writes_free(r, &w);
    return e;
}

// What was open at P lies over what was frozen, so that is on disk first.
// model: STOP_HOLD
static err co_hold(struct rows *r, bool open_ones) {
    struct holds h = {.r = r};
    MAP_FOR(&r->segs, it) {
        struct seg *s = it.value;
        if (s->role == ROW_PARITY && !mutant(MUTANT_HELD)) add_parity(&h, row_p(s), open_ones);
        if (s->role == ROW_DATA && !open_ones) add_data(&h, row_d(s));
    }
    err e = OK;
    for (uint32_t i = 0; i < h.len && e == OK; i++) {
        e = co_row_object_load(h.v[i].s->o);
        h.v[i].u.truncates = h.v[i].s->o->truncates;
    }
    for (uint32_t i = 0; i < h.len && e == OK; i += HOLD_RECORDS) e = co_put(&h, i, MIN(i + HOLD_RECORDS, h.len));
    if (e == OK && (h.len || !open_ones)) e = co_store_sync(r->store, store_now(r->store));
    mem_free(r->env->mem, h.v);
    return e;
}

static void wake_everybody(struct rows *r) {
    struct waitq *queues[] = {&r->d_wake, &r->p_wake, &r->settle_wake, &r->ack_wake, &r->room_q, &r->stop_q, &r->mend_q, &r->gather_q, &r->build_q};
    for (unsigned i = 0; i < ARRAY_LEN(queues); i++) waitq_wake_all(r->env, queues[i]);
    for (unsigned i = 0; i < ARRAY_IOMS_MAX; i++) waitq_wake_all(r->env, &r->peer[i].credit_q);
    MAP_FOR(&r->segs, it) waitq_wake_all(r->env, &((struct seg *)it.value)->q);
    row_slots_wake(r);
}

void rows_cancel(struct rows *r) {
    r->stopping = true;
    row_deltas_abandon(r);
    wake_everybody(r);
}

// model: STOP_DOWN
err co_rows_stop(struct rows *r, bool harden) {
    rows_cancel(r);
    while (r->tasks > 0 || r->inside > 0) co_wait(r->env, &r->stop_q, "rows: stopping");
    if (!harden || r->broken != OK) return r->broken;
    err e = co_hold(r, false);
    if (e == OK) e = co_hold(r, true);
    if (e != OK) LOG(r->env, TRACE_ERROR, "rows: what memory held could not be hardened: %s", err_text(e));
    return e;
}
