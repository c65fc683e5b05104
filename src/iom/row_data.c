// D's side of the update protocol, in memory: writes, deltas and their acknowledgements, reads.
//
// A write to a segment holds its lock while it prepares (old contents, credit, places), then changes the dirty layer and posts the delta in one breath:
// so deltas leave in the order in which they were applied. It waits for the acknowledgement without the lock.
//
// P may refuse the first delta of a row in the open version (no place for the parity block); then D takes it back. Until P has answered such a
// delta, its rows are *pending*: they take no second write and are not frozen, so that taking back is exact.
#include "iom/row_state.h"
#include "base/sum.h"

static const struct content *newest(const struct dseg *d, unsigned b) { // NULL: on disk, or never written
    if (d->dirty.mask >> b & 1) return &d->dirty.c[b];
    if (d->frozen.mask >> b & 1) return &d->frozen.c[b];
    if (d->s.clean.mask >> b & 1) return &d->s.clean.c[b];
    return NULL;
}

static bool is_hole(const struct dseg *d, unsigned b) {
    const struct content *c = newest(d, b);
    return c ? !c->buf : !d->s.spot[b].at;
}

static const uint8_t *bytes_of(const struct dseg *d, unsigned b) { // NULL: zeros; must be in memory
    const struct content *c = newest(d, b);
    ASSERT(c || !d->s.spot[b].at);
    return c ? row_content_data(c) : NULL;
}

struct part { uint32_t at, len; }; // of one block, in bytes
static struct part part_of(unsigned b, uint32_t off, uint32_t len) {
    uint32_t first = MAX(off, b * BLOCK_BYTES), end = MIN(off + len, (b + 1) * BLOCK_BYTES);
    return (struct part){first - b * BLOCK_BYTES, end - first};
}

// ---- taking back, giving up -----------------------------------------------------------------------------------------

void row_d_forget_dirty(struct dseg *d, row_mask rows) {
    struct rows *r = d->s.r;
    unsigned count = 0, places = 0;
    ROW_FOR(rows & d->dirty.mask, b) {
        count++;
        if (d->dirty.c[b].buf) places++;
    }
    row_layer_drop(&d->dirty, rows);
    store_unreserve(r->store, places);
    r->dirty_bytes -= count * BLOCK_BYTES;
    if (row_has_parity(d)) {
        r->peer[d->p.n].credit_used -= count * BLOCK_BYTES;
        waitq_wake_all(r->env, &r->peer[d->p.n].credit_q);
    }
    waitq_wake_all(r->env, &r->room_q);
    if (d->dirty.mask) return;
    d->dirty_end = d->dirty_since_ns = 0;
    d->due = d->urgent = false;
    list_remove(&d->s.work);
    if (d->state == D_IDLE) list_remove(&d->unsettled);
}

// model: D_TAKE_BACK
static void take_back(struct delta_out *x) {
    struct dseg *d = x->d;
    d->refused++;
    row_d_forget_dirty(d, x->fresh);
    uint32_t len = x->payload.len_bytes;
    ROW_FOR(row_span(x->off, len) & ~x->fresh & d->dirty.mask, b) {
        struct part p = part_of(b, x->off, len);
        struct content c = row_own_block(d->s.r);
        const uint8_t *was = row_content_data(&d->dirty.c[b]);
        if (was) memcpy(row_content_data(&c), was, BLOCK_BYTES);
        else memset(row_content_data(&c), 0, BLOCK_BYTES);
        xor_into(row_content_data(&c) + p.at, slice_data(x->payload) + (b * BLOCK_BYTES + p.at - x->off), p.len);
        row_layer_set(&d->dirty, b, c);
    }
}

// ---- acknowledgements -----------------------------------------------------------------------------------------------

static void delta_end(struct rows *r, struct delta_out *x, err result) {
    struct dseg *d = x->d;
    list_remove(&x->node);
    d->posted--;
    d->pending &= (row_mask)~x->fresh;
    if (result != OK && !d->s.dead) {
        LOG(r->env, TRACE_INFO, "rows: a delta was refused: %s", err_text(result));
        if (result != ERR_STOPPED) take_back(x);
        if (!x->group) d->s.o->lost = result;
    }
    if (x->group) group_done(r->env, x->group, result);
    waitq_wake_all(r->env, &d->s.q);
    row_d_unblocked(d);
    row_seg_unpin(&d->s);
    buf_unref(x->payload.buf);
    mem_free(r->env->mem, x);
}

static err refusal_of(const struct row_delta_ack *a, uint32_t n, uint64_t no) {
    for (uint32_t i = 0; i < n; i++)
        if (le64_get(a->refusal[i].no) == no) {
            uint32_t e = le32_get(a->refusal[i].result);
            return e > OK && e < ERR_COUNT ? (err)e : ERR_IO;
        }
    return OK;
}

// model: D_ANSWERED
void row_delta_ack(struct rows *r, iom_id from, const struct msg *m) {
    if (m->body_len < sizeof(struct row_delta_ack)) return;
    const struct row_delta_ack *a = (const void *)m->body;
    uint32_t n = MIN(le32_get(a->refused), (m->body_len - (uint32_t)sizeof *a) / (uint32_t)sizeof a->refusal[0]);
    struct rpeer *p = &r->peer[from.n];
    while (!list_empty(&p->out)) {
        struct delta_out *x = LIST_ENTRY(p->out.next, struct delta_out, node);
        if (x->no > le64_get(a->upto)) break;
        delta_end(r, x, n ? refusal_of(a, n, x->no) : OK);
    }
}

void row_deltas_abandon(struct rows *r) {
    for (unsigned i = 0; i < ARRAY_IOMS_MAX; i++)
        while (!list_empty(&r->peer[i].out)) delta_end(r, LIST_ENTRY(r->peer[i].out.next, struct delta_out, node), ERR_STOPPED);
}

// ---- one segment's part of a write ----------------------------------------------------------------------------------

// What a write to one segment is made of. `data` without a buf: zeros, and whole blocks become holes.
struct change {
    uint32_t off, len;
    struct slice data;
    uint32_t truncates, slot;
    const uint8_t *session;
    uint64_t seq, end; // end: the highest byte of the object that it reaches
    struct group *group;
};

// The zeros of a cut need none: what holds the credit may itself wait for the cut to end (cut_open).
static bool has_credit(struct dseg *d, row_mask rows, const struct change *c) {
    struct rows *r = d->s.r;
    if (!row_has_parity(d) || !c->data.buf) return true;
    uint64_t used = r->peer[d->p.n].credit_used, more = row_count(rows & (row_mask)~d->dirty.mask) * BLOCK_BYTES;
    return !more || !used || used + more <= r->cfg.credit_bytes;
}

// What is dirty for that P is frozen, oldest first, until it holds `bytes` (I8).
static void freeze_oldest(struct rows *r, iom_id p, uint64_t bytes) {
    uint64_t found = 0;
    LIST_FOR_SAFE(&r->d_aged, n) {
        if (found >= bytes) return;
        struct dseg *d = row_d(LIST_ENTRY(n, struct seg, work));
        if (!iom_eq(d->p, p)) continue;
        found += row_count(d->dirty.mask) * BLOCK_BYTES;
        row_d_due(d);
    }
}

// Without credit nothing but hardening helps, of all there is.
static void freeze_for_credit(struct rows *r, iom_id p) { freeze_oldest(r, p, UINT64_MAX); }

// Long before credit runs out the oldest quarter goes, and again with every eighth more: a stream of writes meets no wall.
static void freeze_in_time(struct rows *r, iom_id p) {
    struct rpeer *peer = &r->peer[p.n];
    uint64_t half = r->cfg.credit_bytes / 2;
    if (peer->credit_used < half) peer->freeze_at = half;
    if (peer->credit_used < peer->freeze_at || !half) return;
    peer->freeze_at = peer->credit_used + r->cfg.credit_bytes / 8;
    freeze_oldest(r, p, r->cfg.credit_bytes / 4);
}

// Rows whose old content is needed: for the delta, or because only a part of the block is new.
static row_mask rows_needed(const struct dseg *d, const struct change *c) {
    row_mask rows = row_span(c->off, c->len);
    if (row_has_parity(d)) return rows;
    row_mask need = 0;
    ROW_FOR(rows, b) if (part_of(b, c->off, c->len).len < BLOCK_BYTES) need |= (row_mask)(1u << b);
    return need;
}

static row_mask not_in_memory(const struct dseg *d, row_mask rows) {
    row_mask missing = 0;
    ROW_FOR(rows, b) if (!newest(d, b) && d->s.spot[b].at) missing |= (row_mask)(1u << b);
    return missing;
}

// From disk into memory; what is bad there from its row. OK: look again.
static err co_read_settled(struct dseg *d, row_mask rows) {
    row_mask bad;
    err e = co_row_read_contents(&d->s, rows, &bad);
    return e == ERR_IO && bad ? co_row_mend(&d->s, bad) : e;
}

// On OK, since the last wait: nothing of this is pending, there is credit, and the old contents are in memory.
static err co_prepare(struct dseg *d, const struct change *c) {
    struct rows *r = d->s.r;
    row_mask rows = row_span(c->off, c->len);
    for (;;) {
        if (r->stopping) return ERR_STOPPED;
        if (r->broken != OK) return r->broken;
        if (d->s.dead || c->truncates < d->s.o->truncates) return ERR_TRUNCATED;
        if (d->s.o->gone) return ERR_STALE;
        if (d->pending & rows) {
            co_wait(r->env, &d->s.q, "row: first delta unanswered");
            continue;
        }
        if (!has_credit(d, rows, c)) {
            freeze_for_credit(r, d->p);
            co_wait(r->env, &r->peer[d->p.n].credit_q, "row: credit");
            continue;
        }
        row_mask missing = not_in_memory(d, rows_needed(d, c));
        if (!missing) return OK;
        err e = co_read_settled(d, missing);
        if (e != OK) return e;
    }
}

// Where all that is replaced is holes, the delta is the new bytes themselves, the same buffer.
static struct slice make_delta(struct dseg *d, const struct change *c) {
    bool holes = true;
    row_mask rows = row_span(c->off, c->len);
    ROW_FOR(rows, b) holes = holes && is_hole(d, b);
    if (holes && c->data.buf) {
        buf_ref(c->data.buf);
        return c->data;
    }
    struct slice delta = {buf_new(d->s.r->env->mem, c->len), 0, c->len};
    ROW_FOR(rows, b) {
        struct part p = part_of(b, c->off, c->len);
        uint32_t at = b * BLOCK_BYTES + p.at - c->off;
        const uint8_t *old = bytes_of(d, b), *new = c->data.buf ? slice_data(c->data) + at : NULL;
        if (old && new) xor_of(slice_data(delta) + at, old + p.at, new, p.len);
        else if (old || new) memcpy(slice_data(delta) + at, old ? old + p.at : new, p.len);
        else memset(slice_data(delta) + at, 0, p.len);
    }
    return delta;
}

static void post_delta(struct dseg *d, const struct change *c, struct slice delta, row_mask fresh) {
    struct rows *r = d->s.r;
    struct rpeer *p = &r->peer[d->p.n];
    struct msg *m = r->port.msg(r->port.ctx, MSG_DELTA, sizeof(struct row_delta));
    struct row_delta *b = (void *)m->body;
    struct delta_out *x = mem_alloc(r->env->mem, sizeof *x);
    *x = (struct delta_out){.no = ++p->sent_no, .d = d, .payload = delta, .off = c->off, .fresh = fresh, .truncates = c->truncates, .group = c->group};
    list_push_back(&p->out, &x->node);
    b->no = le64_of(x->no);
    handle_put(b->handle.b, d->s.o->h);
    refmap_put(b->map.b, &d->s.o->map);
    b->seg = le64_of(d->s.n);
    b->version = le64_of(d->version + 2);
    b->truncates = le32_of(d->s.o->truncates);
    b->off = le32_of(c->off);
    b->k = d->k;
    if (c->session) memcpy(b->session, c->session, sizeof b->session);
    b->slot = le32_of(c->slot);
    b->seq = le64_of(c->seq);
    b->end = le64_of(c->end);
    msg_set_payload(m, delta);
    d->posted++;
    d->pending |= fresh;
    d->last_delta = x->no;
    d->s.pins++;
    if (c->group) group_add(c->group);
    r->stats.deltas_sent++;
    r->port.post(r->port.ctx, d->p, m);
}

// The new content of one block. Where it covers the block and lies aligned in the caller's buffer, that memory becomes the content.
static void put_block(struct dseg *d, unsigned b, const struct change *c) {
    struct part p = part_of(b, c->off, c->len);
    uint32_t at = b * BLOCK_BYTES + p.at - c->off;
    const uint8_t *new = c->data.buf ? slice_data(c->data) + at : NULL;
    bool whole = p.len == BLOCK_BYTES;
    if (whole && (!new || (uintptr_t)new % BLOCK_BYTES == 0)) {
        row_layer_set(&d->dirty, b, new ? (struct content){buf_ref(c->data.buf), c->data.off_bytes + at, false} : (struct content){0});
        return;
    }
    bool in_place = (d->dirty.mask >> b & 1) && d->dirty.c[b].own;
    struct content own = in_place ? d->dirty.c[b] : row_own_block(d->s.r);
    uint8_t *to = row_content_data(&own);
    const uint8_t *old = whole || in_place ? NULL : bytes_of(d, b);
    if (old) memcpy(to, old, BLOCK_BYTES);
    else if (!whole && !in_place) memset(to, 0, BLOCK_BYTES);
    if (new) memcpy(to + p.at, new, p.len);
    else memset(to + p.at, 0, p.len);
    if (!in_place) row_layer_set(&d->dirty, b, own);
}

static unsigned places_of(const struct dseg *d, row_mask rows) {
    unsigned n = 0;
    ROW_FOR(rows & d->dirty.mask, b) n += d->dirty.c[b].buf != NULL;
    return n;
}

static unsigned places_more(const struct dseg *d, const struct change *c) {
    unsigned n = 0;
    ROW_FOR(row_span(c->off, c->len), b) {
        bool has = (d->dirty.mask >> b & 1) && d->dirty.c[b].buf;
        bool hole = !c->data.buf && part_of(b, c->off, c->len).len == BLOCK_BYTES;
        if (!has && !hole) n++;
    }
    return n;
}

static void became_dirty(struct dseg *d, const struct change *c) {
    struct rows *r = d->s.r;
    if (list_empty(&d->unsettled)) list_push_back(&d->s.o->unsettled, &d->unsettled);
    d->dirty_end = MAX(d->dirty_end, c->end);
    if (!list_empty(&d->s.work) || d->dirty_since_ns) return;
    d->dirty_since_ns = env_now_ns(r->env);
    row_queue(&r->d_aged, &d->s);
    if (r->d_aged.next == &d->s.work) waitq_wake_all(r->env, &r->d_wake);
}

// One instant: no wait from here to the end.
// model: D_WRITE
static err apply(struct dseg *d, const struct change *c) {
    struct rows *r = d->s.r;
    row_mask rows = row_span(c->off, c->len), fresh = rows & (row_mask)~d->dirty.mask;
    unsigned had = places_of(d, rows), promised = places_more(d, c);
    bool zeros = !c->data.buf; // of a cut: they find room where nothing else does, or the truncate, and who waits for it, would wait for other deletes
    if (promised && !(zeros ? store_reserve_urgent : store_reserve)(r->store, promised)) return ERR_NOSPC;
    struct slice delta = row_has_parity(d) ? make_delta(d, c) : (struct slice){0};
    ROW_FOR(rows, b) put_block(d, b, c);
    unsigned have = places_of(d, rows);
    if (had + promised > have) store_unreserve(r->store, had + promised - have);
    r->dirty_bytes += row_count(fresh) * BLOCK_BYTES;
    became_dirty(d, c);
    if (!row_has_parity(d)) return OK;
    r->peer[d->p.n].credit_used += row_count(fresh) * BLOCK_BYTES;
    post_delta(d, c, delta, fresh);
    return OK;
}

static err co_change(struct dseg *d, const struct change *c) {
    co_lock(d->s.r->env, &d->s.lock, "row: segment");
    err e = co_row_seg_load(&d->s);
    if (e == OK) e = co_prepare(d, c);
    if (e == OK) e = apply(d, c);
    co_unlock(d->s.r->env, &d->s.lock);
    if (e == OK && row_has_parity(d)) freeze_in_time(d->s.r, d->p);
    return e;
}

// ---- write ----------------------------------------------------------------------------------------------------------

// Both copies would be this one process's: what is acknowledged is on disk (I7).
static bool one_memory(const struct dseg *d) { return row_has_parity(d) && iom_eq(d->p, d->s.r->beside); }

static err co_write_pieces(struct rows *r, struct object *o, const struct row_write *w, struct group *g, struct waitlist *settle) {
    uint64_t at = w->off, end = w->off + w->len;
    struct slice data = w->data;
    while (at < end) {
        struct place p = geo_locate(&o->map, at);
        uint32_t len = (uint32_t)MIN(p.run_bytes, end - at);
        at += len;
        if (!iom_eq(p.data, r->self)) continue;
        if (data.len_bytes < len) return ERR_INVAL;
        struct change c = {.off = p.seg_off_bytes, .len = len, .data = {data.buf, data.off_bytes, len}, .truncates = w->truncates,
                           .slot = w->slot, .session = w->session, .seq = w->seq, .end = at, .group = g};
        struct dseg *d = row_dseg(o, p.seg, p.k, p.parity);
        err e = co_change(d, &c);
        if (e == OK && (w->toughness == 2 || (w->toughness && one_memory(d)))) row_wait_add(r, settle, d);
        row_seg_unpin(&d->s);
        if (e != OK) return e;
        data.off_bytes += len;
        data.len_bytes -= len;
    }
    return OK;
}

// Writers wait here, before they hold anything, while too much is dirty.
static err co_room(struct rows *r) {
    while (r->dirty_bytes >= r->cfg.dirty_bytes && !r->stopping && r->broken == OK) {
        r->hurry = true;
        waitq_wake_all(r->env, &r->d_wake);
        co_wait(r->env, &r->room_q, "row: too much is dirty");
    }
    return r->stopping ? ERR_STOPPED : r->broken;
}

static err co_object_check(struct object *o, uint32_t truncates, uint64_t durable_end) {
    err e = co_row_object_load(o);
    if (e != OK) return e;
    if (o->gone) return ERR_STALE;
    if (truncates < o->truncates) return ERR_TRUNCATED;
    if (truncates > o->truncates) o->durable_end = 0;
    if (truncates > o->swept) o->stored = false; // who writes was told this count when all had discarded
    o->truncates = truncates;
    o->swept = MAX(o->swept, truncates);
    o->durable_end = MAX(o->durable_end, durable_end);
    return OK;
}

static err co_write(struct rows *r, struct object *o, const struct row_write *w) {
    err e = co_room(r);
    if (e == OK) e = co_object_check(o, w->truncates, w->durable_end);
    if (e != OK) return e;
    struct group g;
    struct waitlist settle = {0};
    group_init(&g);
    e = co_write_pieces(r, o, w, w->toughness ? &g : NULL, &settle);
    if (e == OK && w->applied) w->applied(w->arg);
    err acked = co_group_wait(r->env, &g, "row: acknowledgement of P");
    if (e == OK) e = acked;
    err settled = co_row_wait(r, &settle);
    return e == OK ? settled : e;
}

err co_rows_write(struct rows *r, const struct row_write *w) {
    if (!w->len) return OK;
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    r->client_ns = env_now_ns(r->env);
    struct row_claim claim;
    bool done = false;
    err e = co_row_slot_begin(r, w->session, w->slot, w->seq, &claim, &done);
    if (e == OK && !done) {
        struct object *o = row_object(r, w->h, &w->map);
        e = co_write(r, o, w);
        if (e == OK && !w->told) row_touch(o, w->mtime_ns);
        row_object_unpin(o);
        row_slot_end(r, &claim, e);
        r->stats.writes++;
    }
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}

// ---- zero -----------------------------------------------------------------------------------------------------------

// The parts that are not holes already, one block at a time: punching is rare and mostly meets one or two blocks.
// What a stand-in lacks the IOM that returns may have.
static bool is_lost(struct dseg *d, unsigned b) {
    row_mask row = (row_mask)(1u << b);
    return d->s.r->broken == OK && not_in_memory(d, row) && !(d->s.r->cfg.stand_in && row_missing(d->s.spot, row));
}

static err co_zero_seg(struct dseg *d, uint32_t off, uint32_t len, uint64_t end, struct group *g) {
    err e = OK;
    co_lock(d->s.r->env, &d->s.lock, "row: segment");
    e = co_row_seg_load(&d->s);
    ROW_FOR(row_span(off, len), b) {
        if (e != OK) break;
        if (is_hole(d, b)) continue;
        struct part p = part_of(b, off, len);
        struct change c = {.off = b * BLOCK_BYTES + p.at, .len = p.len, .truncates = d->s.o->truncates, .end = 0, .group = g};
        e = co_prepare(d, &c);
        if (e == OK && !is_hole(d, b)) e = apply(d, &c);
        if (e == ERR_IO && is_lost(d, b)) e = co_row_give_up(&d->s, b); // what is left of it stays lost, and what was cut does not come back
    }
    co_unlock(d->s.r->env, &d->s.lock);
    return e;
}

// Of one segment, the part within [off, off+len) of the object.
err co_row_zero(struct object *o, uint64_t seg, uint64_t off, uint64_t len, struct waitlist *settle) {
    struct rows *r = o->r;
    uint8_t pos = refmap_position(&o->map, r->self), k = pos == NO_IOM ? GEO_NOTHING : geo_role(&o->map, geo_seg_stripe(&o->map, seg), pos);
    if (k >= GEO_PARITY) return OK;
    uint64_t first = geo_offset(&o->map, seg, k, 0), seg_bytes = geo_seg_blocks(&o->map) * BLOCK_BYTES, end = off + len;
    uint64_t from = MAX(first, off), to = MIN(first + seg_bytes, end);
    if (from >= to) return OK;
    struct place p = geo_locate(&o->map, from);
    struct dseg *d = row_dseg(o, seg, k, p.parity);
    struct group g;
    group_init(&g);
    err e = co_zero_seg(d, (uint32_t)(from - first), (uint32_t)(to - from), to, &g);
    err acked = co_group_wait(r->env, &g, "row: acknowledgement of P");
    // What was dirty beyond is zeros now, and zeros need no durable end. (Zeroing goes to the end of the stripe: see name_truncate.c.)
    if (e == OK && acked == OK && to == first + seg_bytes && d->dirty_end > off) {
        d->dirty_end = off;
        d->due = false; // what kept it from being frozen may be over: row_d_want looks again
    }
    row_wait_add(r, settle, d);
    row_seg_unpin(&d->s);
    return e == OK ? acked : e;
}

// ---- read -----------------------------------------------------------------------------------------------------------

// Blocks from disk: whole ones straight to where they are wanted. Then looks again, for what was true may have changed.
static err co_copy_rows(struct dseg *d, uint32_t off, uint32_t len, uint8_t *dst) {
    struct rows *r = d->s.r;
    row_mask rows = row_span(off, len), bad, direct;
    bool aligned = (uintptr_t)(dst + (ROUND_UP(off, BLOCK_BYTES) - off)) % BLOCK_BYTES == 0;
    for (;;) {
        row_mask missing = not_in_memory(d, rows);
        direct = 0;
        if (!missing || d->s.dead) break;
        ROW_FOR(missing, b) if (aligned && part_of(b, off, len).len == BLOCK_BYTES) direct |= (row_mask)(1u << b);
        direct &= (row_mask)~row_missing(d->s.spot, direct);
        if (direct != missing) {
            err e = co_read_settled(d, missing & (row_mask)~direct);
            if (e != OK) return e;
            continue;
        }
        struct block_io io[ROWS_MAX];
        struct spot was[ROWS_MAX];
        uint32_t n = 0, bits = 0, i = 0;
        memcpy(was, d->s.spot, sizeof was);
        ROW_FOR(direct, b) io[n++] = (struct block_io){{was[b].at}, dst + (b * BLOCK_BYTES - off), was[b].crc};
        err e = co_store_read_blocks(r->store, io, n, &bits);
        bool same = true;
        ROW_FOR(direct, b) same = same && !newest(d, b) && row_spot_same(&d->s.spot[b], &was[b]);
        if (!same) continue; // written or settled meanwhile: what was read may be anything
        if (e == OK) break;
        bad = 0;
        ROW_FOR(direct, b) if (bits >> i++ & 1) bad |= (row_mask)(1u << b);
        r->stats.bad_blocks += row_count(bad);
        e = bad ? co_row_mend(&d->s, bad) : e;
        if (e != OK) return e;
    }
    ROW_FOR(rows & (row_mask)~direct, b) {
        struct part p = part_of(b, off, len);
        const uint8_t *from = d->s.dead ? NULL : bytes_of(d, b);
        if (from) memcpy(dst + (b * BLOCK_BYTES + p.at - off), from + p.at, p.len);
        else memset(dst + (b * BLOCK_BYTES + p.at - off), 0, p.len);
    }
    return OK;
}

static bool unanswered(struct dseg *d, uint64_t upto) {
    struct list *out = &d->s.r->peer[d->p.n].out;
    return d->posted && !list_empty(out) && LIST_ENTRY(out->next, struct delta_out, node)->no <= upto;
}

static err co_read_piece(struct dseg *d, uint32_t off, uint32_t len, uint8_t *dst) {
    struct rows *r = d->s.r;
    if (!d->s.loaded) {
        co_lock(r->env, &d->s.lock, "row: segment");
        err e = co_row_seg_load(&d->s);
        co_unlock(r->env, &d->s.lock);
        if (e != OK) return e;
    }
    for (;;) {
        err e = co_copy_rows(d, off, len, dst);
        if (e != OK || !row_has_parity(d) || !d->posted || mutant(MUTANT_I10)) return e;
        uint32_t refused = d->refused;
        for (uint64_t upto = d->last_delta; unanswered(d, upto);) { // I10
            if (r->stopping) return ERR_STOPPED;
            co_wait(r->env, &d->s.q, "row: read of what P has not answered");
        }
        if (refused == d->refused) return OK;
    }
}

static err co_read_pieces(struct rows *r, struct object *o, uint64_t off, uint64_t end, uint8_t *dst, uint32_t cap, uint32_t *got) {
    for (uint64_t at = off; at < end;) {
        struct place p = geo_locate(&o->map, at);
        uint32_t len = (uint32_t)MIN(p.run_bytes, end - at);
        at += len;
        if (!iom_eq(p.data, r->self)) continue;
        if (len > cap - *got) return ERR_INVAL;
        struct dseg *d = row_dseg(o, p.seg, p.k, p.parity);
        err e = co_read_piece(d, p.seg_off_bytes, len, dst + *got);
        row_seg_unpin(&d->s);
        if (e != OK) return e;
        *got += len;
    }
    return OK;
}

err co_rows_read(struct rows *r, struct handle h, const struct refmap *m, uint64_t off, uint32_t len, uint8_t *dst, uint32_t dst_cap, uint32_t *got) {
    *got = 0;
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    r->client_ns = env_now_ns(r->env);
    struct object *o = row_object(r, h, m);
    err e = co_read_pieces(r, o, off, off + len, dst, dst_cap, got);
    row_object_unpin(o);
    r->stats.reads++;
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
