// Discard: every segment from some number on is dropped, updates under way included, durably, with the object's new count of truncates; and zero.
//
// What is in memory is first marked dead, so that nothing new begins; what works on it (a round, the settler) is waited for; then its memory is given
// back. Then the records go, in batches of bounded size, the count with the last: a discard cut short by a crash is repeated by the starter's recovery. Who looks
// at these segments meanwhile finds nothing (row.c, swept).
#include "iom/row_state.h"

#define RECORDS_A_BATCH 200u

// ---- memory ---------------------------------------------------------------------------------------------------------

static void forget_frozen(struct dseg *d) {
    struct rows *r = d->s.r;
    uint64_t bytes = row_count(d->frozen.mask) * BLOCK_BYTES;
    r->dirty_bytes -= bytes;
    if (row_has_parity(d)) {
        r->peer[d->p.n].credit_used -= bytes;
        waitq_wake_all(r->env, &r->peer[d->p.n].credit_q);
    }
    waitq_wake_all(r->env, &r->room_q);
    row_layer_drop(&d->frozen, d->frozen.mask);
    d->state = D_IDLE;
    list_remove(&d->s.settling);
    list_remove(&d->unsettled);
}

static void co_drop(struct seg *s) {
    struct rows *r = s->r;
    s->dead = true;
    waitq_wake_all(r->env, &s->q);
    while (s->busy || s->putting) co_wait(r->env, &s->q, "row discard: a round under way");
    if (s->role == ROW_PARITY) {
        row_p_forget(row_p(s));
    } else {
        row_d_forget_dirty(row_d(s), row_d(s)->dirty.mask);
        forget_frozen(row_d(s));
    }
    row_seg_drop(s);
}

static void co_drop_all(struct object *o, uint64_t from_seg) {
    struct rows *r = o->r;
    uint32_t n = 0, cap = 0;
    LIST_FOR(&o->segs, l) cap++;
    struct seg **v = mem_alloc(r->env->mem, (cap + 1) * sizeof v[0]);
    LIST_FOR(&o->segs, l) {
        struct seg *s = LIST_ENTRY(l, struct seg, of_object);
        if (s->n < from_seg || s->dead) continue;
        s->dead = true;
        row_seg_pin(s);
        v[n++] = s;
    }
    for (uint32_t i = 0; i < n; i++) {
        co_drop(v[i]);
        row_seg_unpin(v[i]);
    }
    mem_free(r->env->mem, v);
}

// ---- records --------------------------------------------------------------------------------------------------------

static void batch_free_one(void *arg, block_addr at, uint32_t n) { batch_free(arg, at, n); }

struct sweep {
    struct rows *r;
    struct batch *batch;
    uint32_t records;
};

static err co_sweep_commit(struct sweep *w) {
    if (!w->batch) return OK;
    batch_urgent(w->batch);
    lsn at;
    err e = co_batch_commit(w->batch, &at);
    w->batch = NULL;
    w->records = 0;
    return e;
}

static err co_sweep_kind(struct sweep *w, struct object *o, uint8_t kind, uint64_t from_seg) {
    struct key k = row_key(kind, o->h, kind == KIND_CHUNK ? from_seg : 0), first = k;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (;;) {
        err e = co_tree_seek(w->r->store, w->r->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && memcmp(k.b, first.b, 1 + HANDLE_BYTES) != 0)) return OK;
        if (e != OK) return e;
        if ((key_number(&k) & ROW_KEY_SEG) >= from_seg) {
            if (!w->batch) w->batch = batch_new(w->r->store);
            row_record_refs(&k, val, len, batch_free_one, w->batch);
            batch_del(w->batch, w->r->tree, &k);
            if (++w->records >= RECORDS_A_BATCH) e = co_sweep_commit(w);
            if (e != OK) return e;
        }
        k = key_next(k);
    }
}

static err co_sweep(struct object *o, uint64_t from_seg, uint32_t truncates) {
    struct sweep w = {.r = o->r};
    err e = co_sweep_kind(&w, o, KIND_UPDATE, from_seg);
    if (e == OK) e = co_sweep_kind(&w, o, KIND_CHUNK, from_seg);
    if (e != OK) {
        if (w.batch) batch_drop(w.batch);
        return e;
    }
    if (!w.batch) w.batch = batch_new(o->r->store);
    struct key k = row_key(KIND_CNODE2, o->h, 0);
    if (o->gone && !o->r->cfg.stand_in) batch_del(w.batch, o->r->tree, &k); // a stand-in tells it the one that returns
    else row_batch_cnode2_swept(w.batch, o, truncates);
    e = co_sweep_commit(&w);
    if (e == OK) o->swept = truncates;
    o->stored = e == OK && !o->gone;
    return e == OK ? co_store_sync(o->r->store, store_now(o->r->store)) : e;
}

// ---- discard --------------------------------------------------------------------------------------------------------

// A stand-in of a member of an object without protection.
static bool nothing_here(const struct object *o) { return o->r->cfg.stand_in && !geo_has_parity(&o->map); }

static err co_discard(struct object *o, uint64_t from_seg, uint32_t truncates, bool gone) {
    err e = co_row_object_load(o);
    if (e != OK) return e;
    bool known = gone ? o->gone : o->stored && truncates <= o->swept;
    if (known && !o->sweeping) return OK; // sweeping: the last one failed
    if (gone) from_seg = 0;
    o->gone = gone || o->gone;
    o->truncates = MAX(o->truncates, truncates);
    o->anew = o->anew || (o->r->blank_since && from_seg == 0);
    o->durable_end = o->end_wanted = 0;
    o->cut_open = !gone && from_seg > 0; // until the zeroing that follows (name_truncate.c)
    row_cut_add(o, truncates, from_seg);
    o->sweeping = true;
    o->sweep_from = from_seg;
    co_drop_all(o, from_seg);
    e = !gone && nothing_here(o) ? co_row_note_cut(o, from_seg, UINT64_MAX) : OK; // before CNODE2 tells that it is done
    if (e == OK) e = co_sweep(o, from_seg, MAX(o->swept, truncates));
    o->sweeping = e != OK;
    return e;
}

err co_rows_discard(struct rows *r, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates, bool gone) {
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    struct object *o = row_object(r, h, m);
    co_lock(r->env, &o->cutting, "row discard: another of this object");
    err e = co_discard(o, from_seg, truncates, gone);
    co_unlock(r->env, &o->cutting);
    row_object_unpin(o);
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}

// ---- zero -----------------------------------------------------------------------------------------------------------

// Segments that are in memory as it begins, then those that are in the tree: what is in neither is a hole already. In this order, for what is only in memory
// may come into the tree and be forgotten here while another segment is worked on, but what is in the tree stays there.
static err co_zero_in_tree(struct object *o, uint64_t off, uint64_t len, uint64_t first_seg, uint64_t last_seg, struct waitlist *w) {
    struct key k = row_key(KIND_CHUNK, o->h, first_seg), first = k;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t vlen;
    for (;;) {
        err e = co_tree_seek(o->r->store, o->r->tree, &k, val, sizeof val, &vlen);
        if (e == ERR_NOENT || (e == OK && (memcmp(k.b, first.b, 1 + HANDLE_BYTES) != 0 || key_number(&k) > last_seg))) return OK;
        if (e == OK) e = co_row_zero(o, key_number(&k), off, len, w);
        if (e != OK) return e;
        k = key_next(k);
    }
}

static err co_zero_in_memory(struct object *o, uint64_t off, uint64_t len, uint64_t first_seg, uint64_t last_seg, struct waitlist *w) {
    struct rows *r = o->r;
    uint32_t n = 0, cap = 0;
    LIST_FOR(&o->segs, l) cap++;
    uint64_t *v = mem_alloc(r->env->mem, (cap + 1) * sizeof v[0]);
    LIST_FOR(&o->segs, l) {
        struct seg *s = LIST_ENTRY(l, struct seg, of_object);
        if (s->n >= first_seg && s->n <= last_seg && s->role == ROW_DATA && !s->dead) v[n++] = s->n;
    }
    err e = OK;
    for (uint32_t i = 0; i < n && e == OK; i++) e = co_row_zero(o, v[i], off, len, w);
    mem_free(r->env->mem, v);
    return e;
}

// Who asks does not know what there is.
static err co_zero_all(struct object *o, uint64_t off, uint64_t len, uint64_t first_seg, uint64_t last_seg, struct waitlist *w) {
    err e = OK;
    for (uint64_t n = first_seg; n <= last_seg && e == OK; n++) e = co_row_zero(o, n, off, len, w);
    return e;
}

// Nothing that is dirty reaches beyond the cut any more.
static void cut_closed(struct object *o) {
    o->cut_open = false;
    LIST_FOR(&o->unsettled, n) row_d_unblocked(LIST_ENTRY(n, struct dseg, unsettled));
}

static err co_zero(struct object *o, uint64_t off, uint64_t len, uint32_t truncates) {
    err e = co_row_object_load(o);
    if (e != OK) return e;
    if (o->gone) return ERR_STALE;
    if (truncates < o->truncates) return ERR_TRUNCATED;
    if (!len) return cut_closed(o), OK;
    if (nothing_here(o)) {
        cut_closed(o);
        return co_row_note_cut(o, UINT64_MAX, off);
    }
    struct waitlist w = {0};
    uint32_t per_chunk = geo_segs_per_chunk(&o->map);
    uint64_t first = geo_locate(&o->map, off).stripe * per_chunk, last = (geo_locate(&o->map, off + len - 1).stripe + 1) * per_chunk - 1;
    e = rows_ask(o->r) || row_lost_with_store(o) ? co_zero_all(o, off, len, first, last, &w) : co_zero_in_memory(o, off, len, first, last, &w);
    if (e == OK) e = co_zero_in_tree(o, off, len, first, last, &w);
    if (e != OK) { // the cut stays open, and what is dirty beyond it waits for its end: not for us, who are to be asked again
        row_wait_drop(o->r, &w);
        return e;
    }
    cut_closed(o);
    return co_row_wait(o->r, &w);
}

err co_rows_zero(struct rows *r, struct handle h, const struct refmap *m, uint64_t off, uint64_t len, uint32_t truncates) {
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    struct object *o = row_object(r, h, m);
    err e = co_zero(o, off, MIN(len, OBJECT_BYTES_MAX - off), truncates);
    row_object_unpin(o);
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
