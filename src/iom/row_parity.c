// P's side of the update protocol: accumulators, versions of the parity, and when they are settled.
//
//   one accumulator per data member, never one sum: a version takes those that have been frozen, the others wait for the next one
//
//   open[k] ──FREEZE──> frozen[k] ──round──> taken: P_FORMING ──flush──> P_HARDENED ──HARDENED of all taken──> P_SETTLING ──> P_IDLE
//                          └── a version is in flight: waits for the next (I4); never merged into the one in flight
//
// A freeze that nobody waits for gives the other members that hold something open in this segment GATHER_NS to join (they are asked by a hint), so that
// a stream costs one parity block per row; never longer, and an urgent one nothing.
#include "iom/resolve.h"
#include "base/sum.h"

#define ROUND_SEGS 128u
#define ROUNDS_MAX 4u
#define GATHER_NS MSEC(4)

// ---- accumulators ---------------------------------------------------------------------------------------------------

void row_acc_free(struct rows *r, struct acc **ap) {
    struct acc *a = *ap;
    if (!a) return;
    r->acc_bytes -= row_count(a->l.mask) * BLOCK_BYTES;
    store_unreserve(r->store, a->reserved);
    row_layer_drop(&a->l, a->l.mask);
    mem_free(r->env->mem, a);
    *ap = NULL;
}

// The first delta of a whole block, lying aligned in the message, becomes the accumulator where it is.
static void add_block(struct rows *r, struct acc *a, unsigned b, struct buf *buf, uint32_t buf_off, uint32_t at, uint32_t len) {
    const uint8_t *delta = buf->data + buf_off;
    if (a->l.mask >> b & 1) {
        xor_into(row_content_data(&a->l.c[b]) + at, delta, len);
        return;
    }
    if (len == BLOCK_BYTES && (uintptr_t)delta % BLOCK_BYTES == 0) {
        row_layer_set(&a->l, b, (struct content){buf_ref(buf), buf_off, false});
        return;
    }
    struct content c = row_own_block(r);
    uint8_t *to = row_content_data(&c);
    memset(to, 0, at);
    memcpy(to + at, delta, len);
    memset(to + at + len, 0, BLOCK_BYTES - at - len);
    row_layer_set(&a->l, b, c);
}

// For each block that P holds, until the new parity has its own place: one in which it is kept if the array stops, one for the parity that recovery makes of it.
#define PLACES_HELD 2u

// model: P_DELTA
static err accumulate(struct pseg *p, uint8_t k, uint64_t version, uint64_t end, uint32_t off, struct slice delta) {
    struct rows *r = p->s.r;
    struct acc *a = p->open[k];
    if (a && a->version != version) return ERR_INVAL;
    row_mask rows = row_span(off, delta.len_bytes), fresh = rows & (row_mask)~(a ? a->l.mask : 0);
    uint32_t places = PLACES_HELD * row_count(fresh);
    if (fresh && !(end ? store_reserve : store_reserve_urgent)(r->store, places)) return ERR_NOSPC; // no end: zeros of a cut (row_data.c)
    if (!a) a = p->open[k] = mem_alloc(r->env->mem, sizeof *a);
    a->version = version;
    a->end = MAX(a->end, end);
    a->reserved += places;
    r->acc_bytes += row_count(fresh) * BLOCK_BYTES;
    ROW_FOR(rows, b) {
        uint32_t first = MAX(off, b * BLOCK_BYTES), last = MIN(off + delta.len_bytes, (b + 1) * BLOCK_BYTES);
        add_block(r, a, b, delta.buf, delta.off_bytes + first - off, first - b * BLOCK_BYTES, last - first);
    }
    return OK;
}

// ---- deltas and their acknowledgement -------------------------------------------------------------------------------

static err delta_take(struct rows *r, const struct row_delta *b, struct slice delta) {
    struct refmap map;
    struct handle h = handle_at(b->handle.b);
    uint64_t seg = le64_get(b->seg);
    uint32_t off = le32_get(b->off), count = le32_get(b->truncates);
    if (refmap_at(&map, b->map.b) != OK || !handle_valid(h) || !geo_has_parity(&map) || b->k >= geo_data(&map)) return ERR_INVAL;
    uint8_t pos = refmap_position(&map, r->self);
    if (pos == NO_IOM || geo_role(&map, geo_seg_stripe(&map, seg), pos) != GEO_PARITY) return ERR_INVAL;
    uint32_t seg_bytes = geo_seg_blocks(&map) * BLOCK_BYTES;
    if (!delta.len_bytes || off >= seg_bytes || delta.len_bytes > seg_bytes - off) return ERR_INVAL;
    struct object *o = row_object(r, h, &map);
    err e = ERR_TRUNCATED;
    if (r->blank_since && !o->stored) o->truncates = MAX(o->truncates, count); // cuts from before the store was replaced: nobody tells of them any more
    if (!row_cut(o, count, seg)) {
        struct pseg *p = row_pseg(o, seg);
        e = p->s.dead ? ERR_TRUNCATED : accumulate(p, b->k, le64_get(b->version), le64_get(b->end), off, delta);
        row_seg_unpin(&p->s);
    }
    row_object_unpin(o);
    return e;
}

// model: P_REFUSE
static void refuse(struct rows *r, struct rpeer *p, uint64_t no, err e) {
    if (p->refusals == p->refusal_cap) {
        p->refusal_cap = p->refusal_cap ? 2 * p->refusal_cap : 8;
        p->refusal = mem_realloc(r->env->mem, p->refusal, p->refusal_cap * sizeof p->refusal[0]);
    }
    p->refusal[p->refusals++] = (struct row_refusal){le64_of(no), le32_of(e)};
}

void row_delta_receive(struct rows *r, iom_id from, struct msg *m) {
    struct rpeer *p = &r->peer[from.n];
    if (m->body_len < sizeof(struct row_delta)) return;
    const struct row_delta *b = (const void *)m->body;
    err e = delta_take(r, b, m->payload);
    if (e != OK) refuse(r, p, le64_get(b->no), e);
    p->got_no = le64_get(b->no);
    p->ack_due = true;
    r->stats.deltas_received++;
    r->client_ns = env_now_ns(r->env);
    waitq_wake_all(r->env, &r->ack_wake);
}

#define REFUSALS_A_MSG ((MSG_BODY_MAX - (uint32_t)sizeof(struct row_delta_ack)) / (uint32_t)sizeof(struct row_refusal))

static void send_ack(struct rows *r, iom_id to) {
    struct rpeer *p = &r->peer[to.n];
    uint32_t sent = 0;
    do { // what does not fit goes first, acknowledging no more than it tells about
        uint32_t n = MIN(p->refusals - sent, REFUSALS_A_MSG);
        struct msg *m = r->port.msg(r->port.ctx, MSG_DELTA_ACK, (uint32_t)(sizeof(struct row_delta_ack) + n * sizeof(struct row_refusal)));
        struct row_delta_ack *b = (void *)m->body;
        b->refused = le32_of(n);
        if (n) memcpy(b->refusal, p->refusal + sent, n * sizeof b->refusal[0]);
        sent += n;
        b->upto = sent == p->refusals ? le64_of(p->got_no) : p->refusal[sent - 1].no;
        r->port.post(r->port.ctx, to, m);
    } while (sent < p->refusals);
    p->refusals = 0;
    p->ack_due = false;
}

// Runs after all messages of this turn have been received: one acknowledgement for all of a peer's deltas.
void row_p_acker(void *arg) {
    struct rows *r = arg;
    while (!r->stopping) {
        for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++)
            if (r->peer[i].ack_due) send_ack(r, (iom_id){i});
        co_wait(r->env, &r->ack_wake, "row acks: none due");
    }
    row_task_end(r);
}

// ---- freezing -------------------------------------------------------------------------------------------------------

static iom_id member_of(const struct pseg *p, uint8_t k) {
    const struct refmap *m = &p->s.o->map;
    return refmap_member(m, geo_data_pos(m, geo_seg_stripe(m, p->s.n), k));
}

static bool others_open(const struct pseg *p) {
    for (uint8_t k = 0; k < p->n; k++)
        if (p->open[k] && !p->frozen[k]) return true;
    return false;
}

static void hint_others(struct pseg *p) {
    struct marks v;
    row_marks_init(&v, p->s.r, MSG_FREEZE);
    for (uint8_t k = 0; k < p->n; k++)
        if (p->open[k] && !p->frozen[k]) row_marks_add(&v, member_of(p, k), &p->s, k, p->open[k]->version, p->open[k]->l.mask, MARK_HINT);
    row_marks_post(&v);
}

static void queue_ready(struct pseg *p) {
    row_queue(&p->s.r->p_ready, &p->s);
    waitq_wake_all(p->s.r->env, &p->s.r->p_wake);
}

// Called when freezes wait and nothing is in flight.
static void plan(struct pseg *p) {
    struct rows *r = p->s.r;
    if (p->holds) return; // row_p_release
    if (p->urgent || !others_open(p)) {
        queue_ready(p);
    } else if (list_empty(&p->s.work)) {
        hint_others(p);
        p->gather_until_ns = env_now_ns(r->env) + GATHER_NS;
        row_queue(&r->p_gather, &p->s);
        if (r->p_gather.next == &p->s.work) waitq_wake_all(r->env, &r->p_wake);
    }
}

// model: P_FREEZE
void row_p_freeze(struct rows *r, iom_id from, const struct row_mark *k) {
    struct seg *s = row_seg_find(r, handle_at(k->handle.b), le64_get(k->seg));
    if (!s || s->role != ROW_PARITY || s->dead || row_cut(s->o, le32_get(k->truncates), s->n)) return;
    struct pseg *p = row_p(s);
    struct acc *a = k->k < p->n ? p->open[k->k] : NULL;
    if (!a || p->frozen[k->k] || a->version != le48_get(k->version) || a->l.mask != le16_get(k->rows)) {
        LOG(r->env, TRACE_ERROR, "rows: IOM %u freezes what it has not sent: segment %llu", from.n, (unsigned long long)s->n);
        return;
    }
    p->frozen[k->k] = a;
    p->open[k->k] = NULL;
    if (k->flags & MARK_URGENT) p->urgent = true;
    if (mutant(MUTANT_MERGE) && p->state == P_HARDENED) a->taken = true;
    if (p->state == P_IDLE) plan(p);
}

void row_p_idle(struct pseg *p) {
    for (uint8_t k = 0; k < p->n; k++)
        if (p->frozen[k] && !p->s.dead) {
            plan(p);
            return;
        }
}

void row_p_release(struct pseg *p) {
    if (--p->holds == 0 && p->state == P_IDLE && list_empty(&p->s.work)) row_p_idle(p);
}

static void check_settled(struct pseg *p) {
    if (p->state != P_HARDENED || p->s.dead) return;
    for (uint8_t k = 0; k < p->n; k++)
        if (p->frozen[k] && p->frozen[k]->taken && !p->frozen[k]->hardened && !mutant(MUTANT_I4)) return;
    row_settle(&p->s);
}

// model: P_TOLD_HARDENED
void row_p_hardened(struct rows *r, const struct row_mark *k) {
    struct seg *s = row_seg_find(r, handle_at(k->handle.b), le64_get(k->seg));
    if (!s || s->role != ROW_PARITY || row_cut(s->o, le32_get(k->truncates), s->n)) return;
    struct pseg *p = row_p(s);
    struct acc *a = k->k < p->n ? p->frozen[k->k] : NULL;
    if (!a || a->version != le48_get(k->version)) return;
    a->hardened = true;
    check_settled(p);
}

// ---- a round: versions formed and hardened together -----------------------------------------------------------------

struct round {
    struct rows *r;
    uint32_t len;
    struct pseg *p[ROUND_SEGS];
};

static struct round *take_ready(struct rows *r) {
    struct round *v = mem_alloc(r->env->mem, sizeof *v);
    v->r = r;
    while (v->len < ROUND_SEGS && !list_empty(&r->p_ready)) {
        struct pseg *p = row_p(LIST_ENTRY(list_pop_front(&r->p_ready), struct seg, work));
        p->state = P_FORMING;
        p->urgent = false;
        p->s.busy = true;
        p->s.pins++;
        v->p[v->len++] = p;
    }
    return v;
}

static row_mask rows_taken(struct pseg *p) {
    row_mask rows = 0;
    for (uint8_t k = 0; k < p->n && !p->s.dead; k++) // cut off meanwhile: nothing is formed
        if (p->frozen[k]) rows |= p->frozen[k]->l.mask;
    return rows;
}

// The blocks of all members, at the versions that it includes, make a bad old parity again. Where one of them is bad too the row stays without parity, as
// after a recovery (resolve_gather.c): what is good in it stays readable and can be written.
static err co_make_again(struct pseg *p, row_mask bad) {
    struct rows *r = p->s.r;
    struct update settled = {.rows = bad}; // no participants
    struct buf *sum = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    row_mask lost;
    err e = co_gather_members(p, &settled, bad, sum, &lost);
    if (e == ERR_TRUNCATED) { // cut at a member; here in a moment
        while (!p->s.dead && !r->stopping) co_wait(r->env, &p->s.q, "row parity: to be discarded");
        e = r->stopping ? ERR_STOPPED : OK;
    } else if (e == OK && !p->s.dead) {
        resolve_tell_lost(&p->s, lost, "the parity");
        p->unknown |= lost;
        r->stats.mended_blocks += row_count(bad & (row_mask)~lost); // by what is formed now
    }
    ROW_FOR(bad & ~p->s.clean.mask, b) {
        if (e != OK || p->s.dead) break;
        struct content c = row_own_block(r);
        memcpy(row_content_data(&c), sum->data + b * BLOCK_BYTES, BLOCK_BYTES);
        row_layer_set(&p->s.clean, b, c);
        r->clean_bytes += BLOCK_BYTES;
    }
    buf_unref(sum);
    return e;
}

static err co_old_parity(struct round *v) {
    for (uint32_t i = 0; i < v->len; i++) {
        struct pseg *p = v->p[i];
        row_mask bad = 0;
        err e = co_row_object_load(p->s.o);
        if (e == OK) e = co_row_seg_load(&p->s);
        if (e == OK) e = co_row_read_contents(&p->s, rows_taken(p), &bad);
        if (e == ERR_IO && bad) e = co_make_again(p, bad);
        if (e != OK) return e;
    }
    return OK;
}

static struct content next_parity(struct pseg *p, unsigned b) {
    struct content c = {0};
    const uint8_t *sum = p->s.spot[b].at ? row_content_data(&p->s.clean.c[b]) : NULL;
    ASSERT(!p->s.spot[b].at || (p->s.clean.mask >> b & 1));
    unsigned terms = sum != NULL;
    for (uint8_t k = 0; k < p->n; k++) {
        struct acc *a = p->frozen[k];
        if (!a || !a->taken || !(a->l.mask >> b & 1)) continue;
        const uint8_t *delta = row_content_data(&a->l.c[b]);
        if (terms == 0) {
            c = a->l.c[b]; // perhaps the whole of it: shared, not copied
            buf_ref(c.buf);
            sum = delta;
        } else if (terms == 1) {
            struct content own = row_own_block(p->s.r);
            xor_of(row_content_data(&own), sum, delta, BLOCK_BYTES);
            buf_unref(c.buf);
            c = own;
        } else {
            xor_into(row_content_data(&c), delta, BLOCK_BYTES);
        }
        terms++;
    }
    return c;
}

// All that is frozen by now is taken. From here to the commit nothing waits.
// model: P_FORM
static void form(struct pseg *p, struct update *u) {
    *u = (struct update){.role = ROW_PARITY, .k = 0xff, .rows = rows_taken(p), .truncates = p->s.o->truncates};
    for (uint8_t k = 0; k < p->n; k++) {
        struct acc *a = p->frozen[k];
        if (!a) continue;
        a->taken = true;
        u->part[u->parts].k = k;
        u->part[u->parts].rows = a->l.mask;
        u->part[u->parts++].version = a->version;
    }
    ROW_FOR(u->rows, b) row_layer_set(&p->forming, b, next_parity(p, b));
}

static void unreserve_taken(struct pseg *p) {
    for (uint8_t k = 0; k < p->n; k++) {
        if (!p->frozen[k]) continue;
        store_unreserve(p->s.r->store, p->frozen[k]->reserved);
        p->frozen[k]->reserved = 0;
    }
}

static void place_formed(struct pseg *p, struct update *u, struct runs *runs, struct writes *w, struct batch *batch) {
    ROW_FOR(u->rows, b) {
        uint8_t *data = row_content_data(&p->forming.c[b]);
        block_addr at = row_runs_take(runs);
        p->s.next[b] = u->spot[b] = (struct spot){at.n, p->unknown >> b & 1 ? resolve_crc_lost(data) : store_crc_block(data)};
        row_writes_add(p->s.r, w, at, data, u->spot[b].crc);
    }
    row_batch_update(p->s.r, batch, p->s.o->h, p->s.n, u);
    if (mutant(MUTANT_I2)) row_batch_free(batch, p->s.spot, u->rows);
    row_batch_stored(batch, &p->s);
}

static bool old_parity_is_here(const struct pseg *p, row_mask rows) {
    ROW_FOR(rows & ~p->s.clean.mask, b) if (p->s.spot[b].at) return false;
    return true;
}

// What is frozen may grow, and segments may die, while old parity is read or places are looked for; then both are done again for the rest.
static err co_form(struct round *v, struct runs *runs) {
    uint32_t blocks = 0;
    for (;;) {
        err e = co_old_parity(v);
        if (e != OK) return e;
        uint32_t need = 0;
        bool here = true;
        for (uint32_t i = 0; i < v->len; i++) {
            row_mask rows = rows_taken(v->p[i]);
            need += row_count(rows);
            here = here && old_parity_is_here(v->p[i], rows);
        }
        if (here && need == blocks) return OK;
        if (need == blocks) continue;
        row_runs_unalloc(v->r, runs);
        row_runs_free(v->r, runs);
        e = co_row_alloc(v->r, blocks = need, runs);
        if (e != OK) return e;
    }
}

static err co_harden(struct round *v) {
    struct rows *r = v->r;
    struct runs runs = {0};
    struct writes w = {0};
    err e = co_form(v, &runs);
    if (e != OK) return e;
    struct batch *batch = batch_new(r->store);
    for (uint32_t i = 0; i < v->len; i++) {
        struct update u;
        if (v->p[i]->s.dead) continue;
        form(v->p[i], &u);
        unreserve_taken(v->p[i]);
        place_formed(v->p[i], &u, &runs, &w, batch);
    }
    row_runs_name(batch, &runs);
    row_runs_free(r, &runs);
    batch_urgent(batch);
    lsn at;
    e = co_batch_commit(batch, &at);
    for (uint32_t i = 0; i < v->len && e == OK; i++) e = co_row_stored(&v->p[i]->s);
    if (e == OK) e = co_store_write_blocks(r->store, w.io, w.len);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store));
    row_writes_free(r, &w);
    return e;
}

static void tell_early(struct pseg *p) { // MUTANT_I3
    struct marks v;
    row_marks_init(&v, p->s.r, MSG_SETTLED);
    for (uint8_t k = 0; k < p->n; k++)
        if (p->frozen[k] && p->frozen[k]->taken) row_marks_add(&v, member_of(p, k), &p->s, k, p->frozen[k]->version, p->frozen[k]->l.mask, 1);
    row_marks_post(&v);
}

// model: P_HARDENED
static void co_round(void *arg) {
    struct round *v = arg;
    struct rows *r = v->r;
    err e = co_harden(v);
    if (e != OK && e != ERR_STOPPED) row_break(r, e, "hardening parity");
    for (uint32_t i = 0; i < v->len; i++) {
        struct pseg *p = v->p[i];
        p->s.busy = false;
        if (e == OK) p->state = P_HARDENED;
        if (e == OK && mutant(MUTANT_I3)) tell_early(p);
        if (e == OK) check_settled(p);
        waitq_wake_all(r->env, &p->s.q);
        row_seg_unpin(&p->s);
    }
    mem_free(r->env->mem, v);
    r->p_rounds--;
    waitq_wake_all(r->env, &r->p_wake);
    row_task_end(r);
}

static uint64_t gathered(struct rows *r) { // when to look again
    uint64_t now = env_now_ns(r->env);
    LIST_FOR_SAFE(&r->p_gather, n) {
        struct seg *s = LIST_ENTRY(n, struct seg, work);
        if (row_p(s)->gather_until_ns > now) return row_p(s)->gather_until_ns;
        row_queue(&r->p_ready, s);
    }
    return UINT64_MAX;
}

void row_p_flusher(void *arg) {
    struct rows *r = arg;
    while (!r->stopping) {
        uint64_t look = gathered(r);
        if (list_empty(&r->p_ready) || r->p_rounds >= ROUNDS_MAX || r->broken != OK) {
            co_wait_until(r->env, &r->p_wake, look, "row parity: nothing is ready");
            continue;
        }
        struct round *v = take_ready(r);
        r->p_rounds++;
        row_spawn(r, "row parity round", co_round, v);
    }
    row_task_end(r);
}

// ---- discard --------------------------------------------------------------------------------------------------------

void row_p_forget(struct pseg *p) {
    struct rows *r = p->s.r;
    for (uint8_t k = 0; k < p->n; k++) {
        row_acc_free(r, &p->open[k]);
        row_acc_free(r, &p->frozen[k]);
    }
    row_layer_drop(&p->forming, p->forming.mask);
    p->unknown = 0;
    p->state = P_IDLE;
    list_remove(&p->s.work);
    list_remove(&p->s.settling);
}
