// A block of D put together from its row, by the P of that row, which alone knows what is accounted for:
//
//   D (has not got the block)          P                                   the other members
//        ── RESOLVE_GATHER, rows ──>   its versions and places, noted
//                                      settled parity                 ──>  WHAT_AT: your blocks at the versions that I include
//                                      xor of all                     <──
//                                      still the same versions? else again
//        <── blocks, versions ──
//   still my versions? taken
//
// Nothing is locked at P or at the others: whoever holds a segment may be waiting for that very P. What P includes changes only when it settles, in one instant, so
// what is unchanged afterwards was one state all along. A member that has moved on says so (bad), and then P has too, or will not: only then is a block bad.
#include "base/sum.h"
#include "iom/resolve.h"

#define TRIES 100u

// ---- P --------------------------------------------------------------------------------------------------------------
struct snapshot { struct spot spot[ROWS_MAX]; uint64_t versions[ROWS_MAX * ARRAY_IOMS_MAX]; };

static void note(const struct pseg *p, struct snapshot *x) {
    memcpy(x->spot, p->s.spot, sizeof x->spot);
    memcpy(x->versions, p->versions, sizeof x->versions[0] * p->n * p->s.blocks);
}

static bool changed(const struct pseg *p, const struct snapshot *x, row_mask rows) {
    ROW_FOR(rows, b) {
        if (p->s.spot[b].at != x->spot[b].at || p->s.spot[b].crc != x->spot[b].crc) return true;
        if (memcmp(p->versions + b * p->n, x->versions + b * p->n, sizeof x->versions[0] * p->n)) return true;
    }
    return false;
}

static err co_own_parity(struct pseg *p, row_mask rows, struct buf *sum, row_mask *bad) {
    err e = co_row_read_contents(&p->s, rows, bad);
    if (e == ERR_IO && *bad) e = OK;
    ROW_FOR(rows & ~*bad, b) {
        uint8_t *to = sum->data + b * BLOCK_BYTES;
        const uint8_t *from = p->s.clean.mask >> b & 1 ? row_content_data(&p->s.clean.c[b]) : NULL;
        if (from) memcpy(to, from, BLOCK_BYTES);
        else if (p->s.spot[b].at) *bad |= (row_mask)(1u << b); // it changed, or was trimmed: found out below, or tried again
        else memset(to, 0, BLOCK_BYTES);
    }
    return e;
}

static err co_gather(struct pseg *p, uint8_t k, row_mask rows, struct buf *sum, row_mask *bad, struct snapshot *x) {
    struct rows *r = p->s.r;
    err e = co_row_seg_load(&p->s);
    for (uint32_t n = 0; e == OK && n < TRIES; n++) {
        row_mask own = 0, others = 0;
        if (r->stopping) return ERR_STOPPED;
        if (p->s.dead) return ERR_TRUNCATED;
        note(p, x);
        e = co_own_parity(p, rows, sum, &own);
        if (e == OK) e = co_gather_others(p, k, rows & (row_mask)~own, sum, &others);
        *bad = own | others;
        if (e != OK || (!changed(p, x, rows) && !*bad)) return e;
        if (!changed(p, x, rows) && n >= 2) return OK; // twice the same: it is so
        co_sleep_until(r->env, env_now_ns(r->env) + MSEC(n < 10 ? 1 : 10), "row gather: a version settles");
    }
    return e == OK ? ERR_BUSY : e;
}

err co_row_gather_answer(struct rows *r, struct object *o, const struct req_resolve *q, struct inbound *in, struct msg **reply) {
    uint64_t seg = le64_get(q->seg);
    row_mask rows = le16_get(q->rows), bad = 0;
    uint8_t pos = refmap_position(&o->map, r->self);
    if (pos == NO_IOM || geo_role(&o->map, geo_seg_stripe(&o->map, seg), pos) != GEO_PARITY) return ERR_INVAL;
    if (row_cut(o, le32_get(q->truncates), seg)) return ERR_TRUNCATED;
    struct pseg *p = row_pseg(o, seg);
    struct buf *sum = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    struct snapshot *x = mem_alloc(r->env->mem, sizeof *x);
    err e = q->k < p->n && rows && !(rows >> p->s.blocks) ? co_gather(p, q->k, rows, sum, &bad, x) : ERR_INVAL;
    if (e == OK) {
        struct msg *m = *reply = inbound_reply(in, sizeof(struct resolve_state));
        struct resolve_state *st = (void *)m->body;
        struct contents c = {buf_new(r->env->mem, row_count(rows) * BLOCK_BYTES), rows};
        ROW_FOR(rows, b) {
            memcpy(resolve_row(&c, b), sum->data + b * BLOCK_BYTES, BLOCK_BYTES);
            st->version[b] = le64_of(x->versions[b * p->n + q->k]);
        }
        st->bad_rows = le16_of(bad);
        msg_set_payload(m, (struct slice){c.buf, 0, row_count(rows) * BLOCK_BYTES});
        buf_unref(c.buf);
    }
    mem_free(r->env->mem, x);
    buf_unref(sum);
    row_seg_unpin(&p->s);
    return e;
}

// ---- D --------------------------------------------------------------------------------------------------------------
// Only P's settling is ahead of us: its word is on the way, and then the row has a place.
static void co_wait_settled(struct dseg *d) {
    struct rows *r = d->s.r;
    co_wait_until(r->env, &d->s.q, env_now_ns(r->env) + MSEC(10), "row gather: P's word that it is settled");
}

static row_mask take(struct dseg *d, const struct msg *m, row_mask rows) {
    const struct resolve_state *st = (const void *)m->body;
    struct contents c = {m->payload.buf, rows};
    row_mask bad = le16_get(st->bad_rows) & rows, taken = 0;
    ROW_FOR(rows & ~bad, b) {
        if (d->row_version[b] != le64_get(st->version[b]) || d->s.spot[b].at != ROW_AT_MISSING) continue;
        taken |= (row_mask)(1u << b);
        if (d->s.clean.mask >> b & 1) continue;
        struct content own = row_own_block(d->s.r);
        memcpy(row_content_data(&own), resolve_row(&c, b), BLOCK_BYTES);
        row_layer_set(&d->s.clean, b, own);
        d->s.r->clean_bytes += BLOCK_BYTES;
    }
    return taken;
}

err co_row_gather(struct dseg *d, row_mask rows, row_mask *bad) {
    struct req_resolve q = {.op = RESOLVE_GATHER, .k = d->k, .rows = le16_of(rows), .seg = le64_of(d->s.n)};
    struct msg *m;
    *bad = 0;
    if (!row_has_parity(d)) return *bad = rows, OK; // nobody else has it
    err e = co_resolve_call(d->s.r, d->p, d->s.o, &q, NULL, &m);
    if (e == ERR_TRUNCATED || e == ERR_BUSY) { // cut at P, here in a moment; or the row is busy
        co_wait_settled(d);
        return d->s.r->stopping ? ERR_STOPPED : OK;
    }
    if (e != OK) return e;
    if (m->body_len != sizeof(struct resolve_state) || m->payload.len_bytes != row_count(rows) * BLOCK_BYTES) {
        msg_free(m);
        return ERR_FORMAT;
    }
    row_mask taken = d->s.dead ? 0 : take(d, m, rows);
    *bad = le16_get(((const struct resolve_state *)(void *)m->body)->bad_rows) & rows & row_missing(d->s.spot, rows);
    msg_free(m);
    if (!taken && !*bad && !d->s.dead) co_wait_settled(d);
    return d->s.r->stopping ? ERR_STOPPED : OK;
}

err co_row_missing_here(struct dseg *d, const struct spot *base, row_mask rows) {
    row_mask bad = 0;
    for (;;) {
        row_mask missing = row_missing(base, rows) & (row_mask)~(d->s.clean.mask | bad);
        if (!missing || d->s.dead) return OK;
        row_mask worse;
        err e = co_row_gather(d, missing, &worse);
        if (e != OK) return e;
        bad |= worse;
    }
}
