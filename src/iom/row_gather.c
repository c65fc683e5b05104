// Gather: the settled block of one member of a row, put together by the row's P from all the others. Who asks is that
// member, whose block does not read (row_mend.c); the stand-in of a member that is missing will ask the same.
//
//        D0          D1 = k        D2            P
//      [ b0 ]        [ ?? ]      [ b2 ]      [ parity ]       one row
//        │             │           │             │
//        │             │── GATHER, k ───────────>│  1  at one instant: the settled parity, and V, the versions of all
//        │             │           │             │     members that it includes
//        │<──────── your block at V[0]? ─────────│  2  each other member, from memory or disk: the one it has settled, or
//        │             │           │<─ at V[2]? ─│     the one in flight that P has settled already
//        │             │<──── parity ^ b0 ^ b2 ──│  3  = k's block at V[k]
//
// P of the row is the one that puts its versions in an order, so P's V is what everything is measured by: blocks of V
// and a parity of V make k's block of V, whatever is written, frozen or settled meanwhile. What is asked for is settled,
// not what is newest: what is not settled its D has itself, or it comes back as deltas.
//
// True before each wait, and what may be false after it:
//
//   1  reading the parity    its place and V may have changed: compared afterwards, and read again
//   2  asking a member       P may settle another version, and the member then gives up the block at V. P settles before
//                            any member does: so a member that has it not while P's V of that row still stands has a bad
//                            block, and the row is lost to us; if V has changed the row is gathered again from 1
//
// A row that changes each time would be gathered for ever: after HOLD_AFTER attempts P begins no new version of the
// segment until the gather is done (`holds`).
//
// I8: nothing here waits for what waits for it. Members answer without the segment's lock, which a write may hold that
// waits for this very P; P takes no lock either. A gather needs no credit, no place and no journal. A held version waits
// for reads and messages alone. The gathers under way at P are bounded, and none that waits for its turn holds anything.
#include "base/sum.h"
#include "iom/resolve.h"

#define GATHERS_MAX 16u // of 64 KiB and an answer each
#define HOLD_AFTER 3u
#define PAUSE_NS MSEC(1)

void gathered_free(struct gathered *g) {
    buf_unref(g->buf);
    *g = (struct gathered){0};
}

static uint8_t *row_at(const struct gathered *g, unsigned b) {
    return g->buf->data + b * BLOCK_BYTES;
}

// ---- P: its own part ------------------------------------------------------------------------------------------------

static size_t versions_bytes(const struct pseg *p) {
    return (size_t)p->n * p->s.blocks * sizeof p->versions[0];
}

// What is in memory counts if it is what CHUNK names: while a version settles it may be the older one.
static row_mask take_memory(struct pseg *p, row_mask rows, struct gathered *g) {
    row_mask done = 0;
    ROW_FOR(rows & p->s.clean.mask, b) {
        const uint8_t *data = row_content_data(&p->s.clean.c[b]);
        if (!data || store_crc_block(data) != p->s.spot[b].crc) continue;
        memcpy(row_at(g, b), data, BLOCK_BYTES);
        done |= (row_mask)(1u << b);
    }
    return done;
}

static bool unchanged(const struct pseg *p, const struct spot *was, const uint64_t *versions) {
    for (unsigned b = 0; b < p->s.blocks; b++)
        if (!row_spot_same(&was[b], &p->s.spot[b])) return false;
    return !memcmp(versions, p->versions, versions_bytes(p));
}

err co_row_own_parity(struct pseg *p, row_mask rows, struct gathered *g, uint64_t *versions, row_mask *bad) {
    struct contents c = {buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES), 0};
    struct spot was[ROWS_MAX];
    err e;
    do {
        memcpy(was, p->s.spot, sizeof was);
        memcpy(versions, p->versions, versions_bytes(p));
        c.rows = rows & (row_mask)~take_memory(p, rows, g);
        *bad = 0;
        e = co_resolve_read(p->s.r, was, c.rows, c.buf->data, bad);
        if (e == OK && p->s.dead) e = ERR_TRUNCATED;
    } while (e == OK && !unchanged(p, was, versions));
    if (e == OK) ROW_FOR(c.rows, b) memcpy(row_at(g, b), resolve_row(&c, b), BLOCK_BYTES);
    buf_unref(c.buf);
    return e;
}

// ---- P: all others' -------------------------------------------------------------------------------------------------

static bool moved_on(const struct pseg *p, const uint64_t *versions, unsigned b) {
    return memcmp(&versions[b * p->n], &p->versions[b * p->n], p->n * sizeof versions[0]) != 0;
}

// One attempt at the rows that are left.
static err co_attempt(struct pseg *p, uint8_t but, row_mask *left, uint64_t *versions, struct gathered *g) {
    row_mask rows = *left, lost = 0, bad = 0;
    err e = OK;
    ROW_FOR(rows, b) memset(row_at(g, b), 0, BLOCK_BYTES);
    if (but == GATHER_PARITY) memcpy(versions, p->versions, versions_bytes(p));
    else e = co_row_own_parity(p, rows, g, versions, &lost);
    for (uint8_t k = 0; k < p->n && e == OK; k++) {
        struct req_resolve q = {.what = WHAT_AT};
        const uint64_t *v = mutant(MUTANT_GATHER) ? p->versions : versions;
        ROW_FOR(rows, b) q.want[b] = le64_of(v[b * p->n + k]);
        if (k != but) e = co_resolve_add(p, k, &q, rows & (row_mask)~lost, g->buf, &bad);
    }
    if (e != OK) return e;
    ROW_FOR(bad, b) if (!moved_on(p, versions, b)) lost |= (row_mask)(1u << b);
    row_mask have = rows & (row_mask)~(bad | lost);
    ROW_FOR(have, b) g->version[b] = but == GATHER_PARITY ? 0 : versions[b * p->n + but];
    g->have |= have;
    g->lost |= lost;
    *left &= (row_mask)~(have | lost);
    return OK;
}

err co_row_gather_here(struct pseg *p, uint8_t but, row_mask rows, struct gathered *g) {
    struct rows *r = p->s.r;
    uint64_t *versions = mem_alloc(r->env->mem, versions_bytes(p));
    row_mask left = rows;
    err e = OK;
    *g = (struct gathered){.buf = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES)};
    for (unsigned attempt = 0; left && e == OK; attempt++) {
        if (attempt) co_wait_until(r->env, &p->s.q, env_now_ns(r->env) + PAUSE_NS, "row gather: the row goes on");
        if (attempt == HOLD_AFTER && !mutant(MUTANT_HOLD)) p->holds++;
        if (r->stopping) e = ERR_STOPPED;
        else if (p->s.dead) e = ERR_TRUNCATED;
        else e = co_attempt(p, but, &left, versions, g);
        if (attempt >= HOLD_AFTER && (!left || e != OK) && !mutant(MUTANT_HOLD)) row_p_release(p);
    }
    mem_free(r->env->mem, versions);
    if (e != OK) gathered_free(g);
    return e;
}

// ---- P answers ------------------------------------------------------------------------------------------------------

static struct msg *answer(struct inbound *in, const struct gathered *g) {
    struct msg *m = inbound_reply(in, sizeof(struct rep_gather));
    struct rep_gather *b = (void *)m->body;
    uint32_t n = row_count(g->have), i = 0;
    struct slice data = {buf_new(in->m->mem, MAX(n, 1) * BLOCK_BYTES), 0, n * BLOCK_BYTES};
    ROW_FOR(g->have, x) memcpy(slice_data(data) + i++ * BLOCK_BYTES, row_at(g, x), BLOCK_BYTES);
    b->rows = le16_of(g->have);
    b->lost = le16_of(g->lost);
    for (unsigned x = 0; x < ROWS_MAX; x++) b->version[x] = le64_of(g->version[x]);
    msg_set_payload(m, data);
    buf_unref(data.buf);
    return m;
}

static err co_answer_of(struct rows *r, struct object *o, const struct req_gather *q, struct inbound *in, struct msg **reply) {
    uint64_t seg = le64_get(q->seg);
    struct gathered g;
    if (row_cut(o, le32_get(q->truncates), seg)) return ERR_TRUNCATED;
    struct pseg *p = row_pseg(o, seg);
    err e = co_row_seg_load(&p->s);
    if (e == OK) e = co_row_gather_here(p, q->k, le16_get(q->rows), &g);
    if (e == OK) {
        *reply = answer(in, &g);
        gathered_free(&g);
    }
    row_seg_unpin(&p->s);
    return e;
}

// All that is in a request is looked at before anything is done with it.
static bool sound(const struct rows *r, const struct req_gather *q, const struct refmap *map) {
    uint8_t pos = refmap_position(map, r->self);
    row_mask rows = le16_get(q->rows);
    uint64_t seg = le64_get(q->seg);
    if (!geo_has_parity(map) || q->k >= geo_data(map) || !rows || seg > ROW_KEY_SEG || pos == NO_IOM) return false;
    return !(rows >> geo_seg_blocks(map)) && geo_role(map, geo_seg_stripe(map, seg), pos) == GEO_PARITY;
}

err co_row_gather_answer(struct rows *r, struct inbound *in, struct msg **reply) {
    const struct req_gather *q = (const void *)in->m->body;
    struct refmap map;
    if (in->m->body_len != sizeof *q || refmap_at(&map, q->map.b) != OK) return ERR_INVAL;
    struct handle h = handle_at(q->handle.b);
    if (!handle_valid(h) || !sound(r, q, &map)) return ERR_INVAL;
    while (r->gathers >= GATHERS_MAX && !r->stopping) co_wait(r->env, &r->gather_q, "row gather: its turn");
    if (r->stopping) return ERR_STOPPED;
    r->gathers++;
    struct object *o = row_object(r, h, &map);
    err e = co_row_object_load(o);
    if (e == OK) e = co_answer_of(r, o, q, in, reply);
    row_object_unpin(o);
    r->gathers--;
    waitq_wake_one(r->env, &r->gather_q);
    return e;
}

// ---- D asks ---------------------------------------------------------------------------------------------------------

static err take_answer(struct rows *r, row_mask rows, const struct msg *m, struct gathered *g) {
    const struct rep_gather *b = (const void *)m->body;
    if (m->body_len != sizeof *b) return ERR_FORMAT;
    struct contents c = {m->payload.buf, le16_get(b->rows)};
    row_mask lost = le16_get(b->lost);
    if ((c.rows & lost) || (c.rows | lost) != rows || m->payload.len_bytes != row_count(c.rows) * BLOCK_BYTES) return ERR_FORMAT;
    *g = (struct gathered){.buf = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES), .have = c.rows, .lost = lost};
    ROW_FOR(c.rows, x) {
        memcpy(row_at(g, x), slice_data(m->payload) + row_count(c.rows & ((1u << x) - 1)) * BLOCK_BYTES, BLOCK_BYTES);
        g->version[x] = le64_get(b->version[x]);
    }
    return OK;
}

err co_row_gather(struct dseg *d, row_mask rows, struct gathered *g) {
    struct rows *r = d->s.r;
    struct object *o = d->s.o;
    struct msg *m = r->port.msg(r->port.ctx, MSG_GATHER, sizeof(struct req_gather)), *reply;
    struct req_gather *q = (void *)m->body;
    *g = (struct gathered){0};
    handle_put(q->handle.b, o->h);
    refmap_put(q->map.b, &o->map);
    q->seg = le64_of(d->s.n);
    q->truncates = le32_of(o->truncates);
    q->rows = le16_of(rows);
    q->k = d->k;
    err e = r->port.co_call(r->port.ctx, d->p, m, &reply);
    if (e != OK) return e;
    e = take_answer(r, rows, reply, g);
    msg_free(reply);
    return e;
}
