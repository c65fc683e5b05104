// Resolution, what P puts together from its row: the block of a member that is without, or its own next parity. Two
// ways:
//
//   by deltas     parity old xor the deltas of the participants (for a member's block: parity new and its own old one
//   too). Needs nobody else (I6), but the
//                 old blocks of all participants: of one that has completed there is no delta any more, of one whose
//                 old block is bad neither
//   by the row    the blocks of all members at the versions that the parity includes. Needs no old block, but every
//   member
//
// The first is tried first, the second for the rows where it fails. What neither gives is lost: two blocks of the row
// are bad. Such a block is recorded with a checksum that does not match, so that reads, writes and `check` tell of it,
// and nobody takes other bytes for it; everything else goes on.
#include "base/sum.h"
#include "iom/resolve.h"

void resolve_tell_lost(const struct seg *s, row_mask rows, const char *what) {
    if (!rows) return;
    s->r->stats.bad_blocks += row_count(rows);
    LOG(s->r->env, TRACE_ERROR,
        "resolve: segment %llu of object %u/%llx: %s of rows %04x is lost: two blocks of such a row are bad",
        (unsigned long long)s->n, s->o->h.starter, (unsigned long long)s->o->h.index, what, rows);
}

uint32_t resolve_crc_lost(const uint8_t *data) {
    return ~store_crc_block(data);
}

// ---- reading and asking ---------------------------------------------------------------------------------------------

err co_resolve_read(struct rows *r, const struct spot *spot, row_mask rows, uint8_t *packed, row_mask *bad) {
    struct block_io io[ROWS_MAX];
    uint32_t n = 0, bits = 0, i = 0;
    ROW_FOR(rows, b) {
        io[n] = (struct block_io){{spot[b].at}, packed + n * BLOCK_BYTES, spot[b].crc};
        n++;
    }
    err e = n ? co_row_read_places(r, io, n, &bits) : OK;
    ROW_FOR(rows, b) if (bits >> i++ & 1) *bad |= (row_mask)(1u << b);
    return bits ? OK : e; // what is bad is told by the mask
}

static void add_rows(struct buf *sum, const struct contents *c) {
    ROW_FOR(c->rows, b) xor_into(sum->data + b * BLOCK_BYTES, resolve_row(c, b), BLOCK_BYTES);
}

static err co_add_own(struct rows *r, const struct spot *spot, row_mask rows, struct buf *sum, row_mask *bad) {
    struct contents c = {buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES), rows};
    err e = co_resolve_read(r, spot, rows, c.buf->data, bad);
    if (e == OK) add_rows(sum, &c);
    buf_unref(c.buf);
    return e;
}

static err co_ask(struct pseg *p, uint8_t k, struct req_resolve *q, row_mask rows, struct msg **reply) {
    q->op = RESOLVE_STATE;
    q->k = k;
    q->rows = le16_of(rows);
    q->seg = le64_of(p->s.n);
    err e = co_resolve_call(p->s.r, resolve_member(p->s.o, p->s.n, k), p->s.o, q, NULL, reply);
    if (e != OK) return e;
    struct msg *m = *reply;
    if (m->body_len == sizeof(struct resolve_state) &&
        m->payload.len_bytes == (q->what ? row_count(rows) : 0) * BLOCK_BYTES)
        return OK;
    msg_free(m);
    return ERR_FORMAT;
}

static err co_ask_state(struct pseg *p, uint8_t k, void *arg) {
    struct asked *a = (struct asked *)arg + k;
    struct req_resolve q = {.what = WHAT_NOTHING};
    struct msg *m;
    err e = co_ask(p, k, &q, 0, &m);
    if (e != OK) return e;
    memcpy(&a->st, m->body, sizeof a->st);
    msg_free(m);
    return OK;
}

err co_resolve_ask(struct pseg *p, uint16_t members, struct asked *v) {
    return co_resolve_members(p, members, co_ask_state, v);
}

err co_resolve_add(struct pseg *p, uint8_t k, struct req_resolve *q, row_mask rows, struct buf *sum, row_mask *bad) {
    struct msg *m;
    if (!rows) return OK;
    err e = co_ask(p, k, q, rows, &m);
    if (e != OK) return e;
    *bad |= le16_get(((const struct resolve_state *)(void *)m->body)->bad_rows) & rows;
    add_rows(sum, &(struct contents){m->payload.buf, rows});
    msg_free(m);
    return OK;
}

// ---- the two ways ---------------------------------------------------------------------------------------------------

static row_mask rows_of(const struct update *u, uint8_t k) { // in which k is a participant
    for (uint8_t i = 0; i < u->parts; i++)
        if (u->part[i].k == k) return u->part[i].rows & u->rows;
    return 0;
}

static uint64_t version_of(const struct pseg *p, const struct update *u, uint8_t k,
                           unsigned b) { // of k, as u's parity includes it
    for (uint8_t i = 0; i < u->parts; i++)
        if (u->part[i].k == k && (u->part[i].rows >> b & 1)) return u->part[i].version;
    return p->versions[b * p->n + k];
}

// What members put into the rows: their changes (WHAT_DELTA), or their whole blocks (WHAT_AT).
struct addition {
    const struct update *u;
    enum resolve_what what;
    row_mask rows;
    struct buf *sum;
    row_mask *bad;
};

static err co_add_one(struct pseg *p, uint8_t k, void *arg) {
    const struct addition *a = arg;
    struct req_resolve q = {.what = (uint8_t)a->what};
    row_mask rows = a->what == WHAT_DELTA ? rows_of(a->u, k) & a->rows : a->rows;
    ROW_FOR(rows, b) q.want[b] = le64_of(version_of(p, a->u, k, b));
    return co_resolve_add(p, k, &q, rows, a->sum, a->bad);
}

// All but one.
static err co_add_members(struct pseg *p, const struct update *u, enum resolve_what what, unsigned but, row_mask rows,
                          struct buf *sum, row_mask *bad) {
    struct addition a = {u, what, rows, sum, bad};
    return co_resolve_members(p, resolve_all(p) & (uint16_t)~(1u << but), co_add_one, &a);
}

static err co_add_settled(struct pseg *p, uint8_t k, row_mask rows, struct buf *sum, row_mask *bad) {
    struct req_resolve q = {.what = WHAT_AT};
    ROW_FOR(rows, b) q.want[b] = le64_of(p->versions[b * p->n + k]);
    return co_resolve_add(p, k, &q, rows, sum, bad);
}

static void clear(struct buf *sum, row_mask rows) {
    ROW_FOR(rows, b) memset(sum->data + b * BLOCK_BYTES, 0, BLOCK_BYTES);
}

err co_gather_block(struct pseg *p, const struct update *u, uint8_t k, row_mask rows, struct buf *sum, row_mask *lost) {
    struct rows *r = p->s.r;
    row_mask bad = 0;
    *lost = 0;
    clear(sum, rows);
    err e = co_add_own(r, u->spot, rows, sum, &bad);
    if (e == OK) e = co_add_own(r, p->s.spot, rows, sum, &bad);
    if (e == OK) e = co_add_members(p, u, WHAT_DELTA, k, rows, sum, &bad);
    if (e == OK) e = co_add_settled(p, k, rows, sum, &bad);
    if (mutant(MUTANT_I6)) bad = rows;
    if (e != OK || !bad) return e;
    clear(sum, bad);
    e = co_add_own(r, u->spot, bad, sum, lost);
    return e == OK ? co_add_members(p, u, WHAT_AT, k, bad, sum, lost) : e;
}

err co_gather_members(struct pseg *p, const struct update *u, row_mask rows, struct buf *sum, row_mask *lost) {
    *lost = 0;
    clear(sum, rows);
    return co_add_members(p, u, WHAT_AT, ARRAY_IOMS_MAX, rows, sum, lost);
}

err co_gather_parity(struct pseg *p, const struct update *u, row_mask rows, struct buf *sum, row_mask *lost) {
    row_mask bad = 0;
    *lost = 0;
    clear(sum, rows);
    err e = co_add_own(p->s.r, p->s.spot, rows, sum, &bad);
    if (e == OK) e = co_add_members(p, u, WHAT_DELTA, ARRAY_IOMS_MAX, rows, sum, &bad);
    return e == OK && bad ? co_gather_members(p, u, bad, sum, lost) : e;
}
