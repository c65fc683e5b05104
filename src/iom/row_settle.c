// Settling, both sides: a version whose parts are all on disk becomes the segment's CHUNK, its UPDATE goes, the old places are released: one batch for
// all that wait. Nothing waits for that batch to be durable: until it is, recovery settles the same again from the UPDATEs.
// P tells the participants when its own batch is in the journal; they do the same after it.
#include "iom/row_state.h"

#define SETTLE_SEGS 64u

// ---- marks: arrays of FREEZE, HARDENED, SETTLED, one message a peer -------------------------------------------------

void row_marks_init(struct marks *v, struct rows *r, uint16_t type) { *v = (struct marks){.r = r, .type = type}; }

static struct msg *marks_msg(struct marks *v, iom_id to) {
    struct msg *m = v->m[to.n];
    if (m && le32_get(((struct row_marks *)(void *)m->body)->count) == ROW_MARKS_MAX) {
        v->r->port.post(v->r->port.ctx, to, m);
        m = NULL;
    }
    if (!m) m = v->m[to.n] = v->r->port.msg(v->r->port.ctx, v->type, MSG_BODY_MAX);
    return m;
}

void row_marks_add(struct marks *v, iom_id to, const struct seg *s, uint8_t k, uint64_t version, row_mask rows, uint8_t flags) {
    struct row_marks *b = (void *)marks_msg(v, to)->body;
    uint32_t n = le32_get(b->count);
    struct row_mark *mark = &b->mark[n];
    handle_put(mark->handle.b, s->o->h);
    mark->seg = le64_of(s->n);
    mark->version = le48_of(version);
    mark->rows = le16_of(rows);
    mark->truncates = le32_of(s->o->truncates);
    mark->k = k;
    mark->flags = flags;
    b->count = le32_of(n + 1);
}

void row_marks_post(struct marks *v) {
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) {
        struct msg *m = v->m[i];
        if (!m) continue;
        struct row_marks *b = (void *)m->body;
        m->body_len = (uint32_t)(sizeof *b + le32_get(b->count) * sizeof b->mark[0]);
        v->m[i] = NULL;
        v->r->port.post(v->r->port.ctx, (iom_id){i}, m);
    }
}

void row_marks_drop(struct marks *v) {
    for (unsigned i = 0; i < ARRAY_IOMS_MAX; i++) {
        msg_free(v->m[i]);
        v->m[i] = NULL;
    }
}

// ---- in ------------------------------------------------------------------------------------------------------------

void row_settle(struct seg *s) {
    struct rows *r = s->r;
    if (s->role == ROW_DATA) row_d(s)->state = D_SETTLING;
    else row_p(s)->state = P_SETTLING;
    list_push_back(&r->settle, &s->settling);
    waitq_wake_all(r->env, &r->settle_wake);
}

// model: D_TOLD_SETTLED
void row_d_settled(struct rows *r, const struct row_mark *k) {
    struct seg *s = row_seg_find(r, handle_at(k->handle.b), le64_get(k->seg));
    if (!s || s->role != ROW_DATA || row_cut(s->o, le32_get(k->truncates), s->n)) return;
    struct dseg *d = row_d(s);
    if (mutant(MUTANT_I4) && d->state == D_HARDENING) d->early = true;
    if (mutant(MUTANT_I3) && k->flags) {
        d->settled = MAX(d->settled, le48_get(k->version));
        waitq_wake_all(r->env, &s->q);
        return;
    }
    if (d->early) return;
    if (d->state == D_HARDENED && d->version == le48_get(k->version)) row_settle(s);
    else LOG(r->env, TRACE_ERROR, "rows: settled out of turn: version %llu, here %llu", (unsigned long long)le48_get(k->version), (unsigned long long)d->version);
}

// ---- D --------------------------------------------------------------------------------------------------------------

static void clean_of(struct seg *s, struct layer *from) {
    struct rows *r = s->r;
    unsigned had = row_count(s->clean.mask);
    row_layer_move(&s->clean, from);
    ROW_FOR(s->clean.mask, b) if (!s->clean.c[b].buf) s->clean.mask &= (row_mask)~(1u << b); // holes need no memory
    r->clean_bytes += row_count(s->clean.mask) * BLOCK_BYTES;
    r->clean_bytes -= had * BLOCK_BYTES;
}

// model: D_SETTLE
static void d_record(struct dseg *d, struct batch *batch) {
    struct key k = row_key(KIND_UPDATE, d->s.o->h, d->s.n);
    if (!mutant(MUTANT_I2)) row_batch_free(batch, d->s.spot, d->frozen.mask);
    ROW_FOR(d->frozen.mask, b) {
        d->s.spot[b] = d->s.next[b];
        d->row_version[b] = d->version;
    }
    row_batch_chunk(batch, &d->s);
    batch_del(batch, d->s.r->tree, &k);
}

static void d_done(struct dseg *d) {
    struct rows *r = d->s.r;
    uint64_t bytes = row_count(d->frozen.mask) * BLOCK_BYTES;
    r->dirty_bytes -= bytes;
    if (row_has_parity(d)) {
        r->peer[d->p.n].credit_used -= bytes;
        waitq_wake_all(r->env, &r->peer[d->p.n].credit_q);
    }
    waitq_wake_all(r->env, &r->room_q);
    clean_of(&d->s, &d->frozen);
    d->settled = d->version;
    d->state = D_IDLE;
    r->stats.settled++;
    row_d_idle(d);
}

// ---- P --------------------------------------------------------------------------------------------------------------

// model: P_SETTLE
static void p_record(struct pseg *p, struct batch *batch) {
    struct key k = row_key(KIND_UPDATE, p->s.o->h, p->s.n);
    if (!mutant(MUTANT_I2)) row_batch_free(batch, p->s.spot, p->forming.mask);
    ROW_FOR(p->forming.mask, b) p->s.spot[b] = p->s.next[b];
    for (uint8_t i = 0; i < p->n; i++) {
        struct acc *a = p->frozen[i];
        if (!a || !a->taken) continue;
        ROW_FOR(a->l.mask, b) p->versions[b * p->n + i] = a->version;
    }
    row_batch_chunk(batch, &p->s);
    batch_del(batch, p->s.r->tree, &k);
}

static void p_done(struct pseg *p, struct marks *v) {
    struct rows *r = p->s.r;
    for (uint8_t i = 0; i < p->n; i++) {
        struct acc *a = p->frozen[i];
        if (!a || !a->taken) continue;
        iom_id d = refmap_member(&p->s.o->map, geo_data_pos(&p->s.o->map, geo_seg_stripe(&p->s.o->map, p->s.n), i));
        row_marks_add(v, d, &p->s, i, a->version, a->l.mask, 0);
        row_acc_free(r, &p->frozen[i]);
    }
    row_layer_drop(&p->forming, p->unknown);
    row_clean_drop(&p->s, p->unknown);
    p->unknown = 0;
    clean_of(&p->s, &p->forming);
    p->state = P_IDLE;
    r->stats.settled++;
    row_p_idle(p);
}

// ---- the settler ----------------------------------------------------------------------------------------------------

static uint32_t take(struct rows *r, struct seg **v) {
    uint32_t n = 0;
    LIST_FOR_SAFE(&r->settle, l) {
        struct seg *s = LIST_ENTRY(l, struct seg, settling);
        if (n == SETTLE_SEGS) break;
        if (s->putting && !mutant(MUTANT_PUTTING)) continue; // a mender; it wakes us
        list_remove(&s->settling);
        s->busy = s->putting = true;
        s->pins++;
        v[n++] = s;
    }
    return n;
}

static void finish(struct rows *r, struct seg **v, uint32_t n) {
    struct marks marks;
    row_marks_init(&marks, r, MSG_SETTLED);
    for (uint32_t i = 0; i < n; i++) {
        struct seg *s = v[i];
        s->busy = s->putting = false;
        if (s->role == ROW_DATA) d_done(row_d(s));
        else p_done(row_p(s), &marks);
        waitq_wake_all(r->env, &s->q);
    }
    if (r->stopping) row_marks_drop(&marks);
    else row_marks_post(&marks);
}

static bool co_settle(struct rows *r) {
    struct seg *v[SETTLE_SEGS];
    uint32_t n = r->broken == OK ? take(r, v) : 0;
    if (!n) return false;
    struct batch *batch = batch_new(r->store);
    for (uint32_t i = 0; i < n; i++)
        if (v[i]->role == ROW_DATA) d_record(row_d(v[i]), batch);
        else p_record(row_p(v[i]), batch);
    batch_urgent(batch);
    lsn at;
    err e = co_batch_commit(batch, &at);
    if (e == OK) finish(r, v, n);
    else row_break(r, e, "settling");
    for (uint32_t i = 0; i < n; i++) {
        v[i]->busy = v[i]->putting = false;
        row_seg_unpin(v[i]);
    }
    row_cache_trim(r);
    return true;
}

void row_settler(void *arg) {
    struct rows *r = arg;
    while (!r->stopping) {
        if (!co_settle(r)) co_wait(r->env, &r->settle_wake, "row settler: nothing to settle");
    }
    row_task_end(r);
}
