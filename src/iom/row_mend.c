// Mending: a settled block that does not read, or not as its checksum says, is rebuilt from its row, written to a new
// place and named by CHUNK in place of the old one. In service, beside everything else that goes on with the row.
//
//   found by     a read or a write at D (row_data.c), a scrub (row_scrub.c). P, which needs the old parity for the next,
//                makes it again for that alone (row_parity.c): the next one has a place of its own anyway
//   rebuilt      data: from P (row_gather.c). Parity: here, from the blocks of all members at the versions it includes
//   missing      what is not here (row_missing.c) is rebuilt likewise, and believed by its version. A stand-in keeps it in memory alone: the store is
//                its host's, and the block is needed where it is missing
//   believed     data: if its checksum is the one CHUNK has, which nobody else than who wrote the block has made. So
//                nothing is invented: not of a row with two bad blocks, nor of a block that recovery recorded as lost
//                (resolve_gather.c), nor from a P that includes another version
//   put          new block written, flushed, then one batch: the new place taken, CHUNK, the old place released; flushed
//
// A power cut before the batch is durable finds CHUNK as it was, and the block as bad as it was; after it, the new one.
//
// Beside a version in flight: CHUNK names the settled places and only the batch that settles changes them, so either
// batch may go first, but never both at once (`putting`): each holds all places of the segment. Who comes second sees
// what the first has made of them. If the place of a block has changed since it was found bad nothing is done.
//
// I8: a task here may hold the segment's lock (a write) and one of MENDS_MAX turns; for the gather it waits for P, which
// waits for neither; for a place and for the journal, which wait for no row. `putting` is held over one commit.
#include "base/sum.h"
#include "iom/resolve.h"

#define MENDS_MAX (ROW_BUILDERS + 8u) // who builds takes turn after turn, and would leave no other any
#define CUT_NS MSEC(20)

// ---- telling --------------------------------------------------------------------------------------------------------

static void tell_one(const struct seg *s, unsigned b, uint64_t at, uint64_t now_at) {
    const char *what = s->role == ROW_DATA ? "block" : "parity block";
    unsigned long long index = (unsigned long long)s->o->h.index, n = (unsigned long long)s->n;
    if (now_at)
        LOG(s->r->env, TRACE_WARN, "rows: object %u/%llx segment %llu row %u: %s %llu of IOM %u was bad; rebuilt from its row, now %llu",
            s->o->h.starter, index, n, b, what, (unsigned long long)at, s->r->self.n, (unsigned long long)now_at);
    else
        LOG(s->r->env, TRACE_ERROR, "rows: object %u/%llx segment %llu row %u: %s %llu of IOM %u is bad, and its row does not give it back",
            s->o->h.starter, index, n, b, what, (unsigned long long)at, s->r->self.n);
}

static void tell_lost(const struct seg *s, row_mask rows, const struct spot *was) {
    ROW_FOR(rows, b) tell_one(s, b, was[b].at, 0);
    s->r->stats.lost_blocks += row_count(rows);
}

// ---- rebuilding -----------------------------------------------------------------------------------------------------

static uint8_t *row_at(const struct gathered *g, unsigned b) {
    return g->buf->data + b * BLOCK_BYTES;
}

// Of `rows` those whose place is still the one that was found bad.
static row_mask still(const struct seg *s, row_mask rows, const struct spot *was) {
    row_mask same = 0;
    if (s->dead) return 0;
    ROW_FOR(rows, b) if (row_spot_same(&s->spot[b], &was[b])) same |= (row_mask)(1u << b);
    return same;
}

// A block that is in memory, and is what CHUNK says, needs no other.
static row_mask in_memory(const struct seg *s, row_mask rows) {
    row_mask here = 0;
    ROW_FOR(rows & s->clean.mask, b) {
        const uint8_t *data = row_content_data(&s->clean.c[b]);
        if (data && store_crc_block(data) == s->spot[b].crc) here |= (row_mask)(1u << b);
    }
    return here;
}

static err co_rebuild(struct seg *s, row_mask rows, struct gathered *g) {
    struct rows *r = s->r;
    row_mask here = in_memory(s, rows);
    struct buf *memory = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES); // what is there now, before anything is waited for
    ROW_FOR(here, b) memcpy(memory->data + b * BLOCK_BYTES, row_content_data(&s->clean.c[b]), BLOCK_BYTES);
    err e = OK;
    rows &= (row_mask)~here;
    if (!rows) *g = (struct gathered){.buf = buf_ref(memory)};
    else if (s->role == ROW_DATA) e = co_row_gather(row_d(s), rows, g);
    else e = co_row_gather_here(row_p(s), GATHER_PARITY, rows, g);
    if (e == OK) {
        ROW_FOR(here, b) if (g->buf != memory) memcpy(row_at(g, b), memory->data + b * BLOCK_BYTES, BLOCK_BYTES);
        g->have |= here;
    }
    buf_unref(memory);
    return e;
}

static row_mask believed(const struct seg *s, const struct gathered *g, const struct spot *was) {
    row_mask good = g->have;
    if (s->role == ROW_PARITY || mutant(MUTANT_BELIEVE)) return good;
    ROW_FOR(g->have, b) {
        bool same = was[b].at == ROW_AT_MISSING ? g->version[b] == ((const struct dseg *)s)->row_version[b] : store_crc_block(row_at(g, b)) == was[b].crc;
        if (!same) good &= (row_mask)~(1u << b);
    }
    return good;
}

static void keep(struct seg *s, row_mask rows, const struct gathered *g) {
    ROW_FOR(rows & ~s->clean.mask, b) {
        struct content c = row_own_block(s->r);
        memcpy(row_content_data(&c), row_at(g, b), BLOCK_BYTES);
        row_layer_set(&s->clean, b, c);
        s->r->clean_bytes += BLOCK_BYTES;
    }
}

// ---- putting --------------------------------------------------------------------------------------------------------

static err co_write_new(struct rows *r, row_mask rows, const struct gathered *g, struct runs *runs, struct spot *next) {
    struct block_io io[ROWS_MAX];
    uint32_t n = 0;
    err e = co_row_alloc(r, row_count(rows), runs);
    if (e != OK) return e;
    ROW_FOR(rows, b) {
        io[n] = (struct block_io){row_runs_take(runs), row_at(g, b), store_crc_block(row_at(g, b))};
        next[b] = (struct spot){io[n].at.n, io[n].crc};
        n++;
    }
    e = co_store_write_blocks(r->store, io, n);
    return e == OK ? co_store_sync(r->store, store_now(r->store)) : e;
}

// From here to the commit nothing waits.
static err co_commit(struct seg *s, row_mask rows, const struct runs *runs, const struct spot *next) {
    struct rows *r = s->r;
    struct batch *batch = batch_new(r->store);
    lsn at;
    s->putting = true;
    row_runs_name(batch, runs);
    row_batch_free(batch, s->spot, rows);
    ROW_FOR(rows, b) s->spot[b] = next[b];
    row_batch_chunk(batch, s);
    batch_urgent(batch);
    err e = co_batch_commit(batch, &at);
    s->putting = false;
    waitq_wake_all(r->env, &s->q);
    waitq_wake_all(r->env, &r->settle_wake);
    if (e != OK) row_break(r, e, "a rebuilt block");
    return e == OK ? co_store_sync(r->store, store_now(r->store)) : e;
}

// What is rebuilt is in memory already: that it gets no place is told, and read again it will be rebuilt again.
static void co_put(struct seg *s, row_mask rows, const struct gathered *g, const struct spot *was) {
    struct rows *r = s->r;
    struct runs runs = {0};
    struct spot next[ROWS_MAX];
    err e = co_write_new(r, rows, g, &runs, next);
    while (s->putting && !mutant(MUTANT_PUTTING)) co_wait(r->env, &s->q, "row mend: another puts the CHUNK");
    bool same = still(s, rows, was) == rows;
    if (e == OK && same) e = co_commit(s, rows, &runs, next);
    else row_runs_unalloc(r, &runs);
    row_runs_free(r, &runs);
    if (e != OK) LOG(r->env, TRACE_WARN, "rows: what was rebuilt of segment %llu of object %u/%llx is not on disk: %s", (unsigned long long)s->n,
                     s->o->h.starter, (unsigned long long)s->o->h.index, err_text(e));
    if (e != OK || !same) return;
    row_mask missing = row_missing(was, rows);
    ROW_FOR(rows & ~missing, b) tell_one(s, b, was[b].at, next[b].at);
    r->stats.mended_blocks += row_count(rows & (row_mask)~missing);
    r->stats.built += row_count(missing);
}

// ---- mending --------------------------------------------------------------------------------------------------------

static err co_mend(struct seg *s, row_mask bad) {
    struct rows *r = s->r;
    struct spot was[ROWS_MAX];
    struct gathered g;
    memcpy(was, s->spot, sizeof was);
    err e = co_rebuild(s, bad, &g);
    if (e == ERR_TRUNCATED) { // cut elsewhere; here in a moment
        if (!s->dead) co_wait_until(r->env, &s->q, env_now_ns(r->env) + CUT_NS, "row mend: to be discarded");
        return r->stopping ? ERR_STOPPED : OK;
    }
    if (e != OK) return e;
    row_mask same = still(s, bad, was), good = believed(s, &g, was) & same, lost = same & (row_mask)~good;
    if (s->role == ROW_DATA && row_d(s)->state != D_IDLE) lost &= (row_mask)~row_d(s)->frozen.mask; // P has settled what replaces it
    keep(s, good, &g);
    tell_lost(s, lost, was);
    if (good && r->cfg.stand_in) good &= (row_mask)~row_missing(was, good);
    if (good) co_put(s, good, &g, was);
    gathered_free(&g);
    return lost ? ERR_IO : OK;
}

#define CRC_LOST 0x6c6f7374u // of what lies in such a place, by one chance in 2^32

// It gets a new place, in which nothing is written: should the device give the old one back after all, nobody looks there.
err co_row_give_up(struct seg *s, unsigned b) {
    struct rows *r = s->r;
    struct runs runs;
    struct spot was[ROWS_MAX], next[ROWS_MAX];
    row_mask row = (row_mask)(1u << b);
    memcpy(was, s->spot, sizeof was);
    if (was[b].crc == CRC_LOST) return OK;
    err e = co_row_alloc(r, 1, &runs);
    if (e != OK) return e;
    while (s->putting) co_wait(r->env, &s->q, "row mend: another puts the CHUNK");
    if (still(s, row, was)) {
        next[b] = (struct spot){row_runs_take(&runs).n, CRC_LOST};
        e = co_commit(s, row, &runs, next);
        LOG(r->env, TRACE_ERROR, "rows: object %u/%llx segment %llu row %u: the block is given up: the file was cut in it, and its row does not give it back",
            s->o->h.starter, (unsigned long long)s->o->h.index, (unsigned long long)s->n, b);
    } else {
        row_runs_unalloc(r, &runs);
    }
    row_runs_free(r, &runs);
    return e;
}

err co_row_mend(struct seg *s, row_mask bad) {
    struct rows *r = s->r;
    if (s->role == ROW_DATA && !row_has_parity(row_d(s))) {
        tell_lost(s, bad, s->spot);
        return ERR_IO;
    }
    if (s->mending) {
        while (s->mending && !s->dead && !r->stopping) co_wait(r->env, &s->q, "row mend: another is at it");
        return r->stopping ? ERR_STOPPED : OK;
    }
    s->mending = true;
    row_seg_pin(s);
    while (r->mends >= MENDS_MAX && !r->stopping) co_wait(r->env, &r->mend_q, "row mend: its turn");
    r->mends++;
    err e = r->stopping ? ERR_STOPPED : co_mend(s, bad);
    r->mends--;
    waitq_wake_one(r->env, &r->mend_q);
    s->mending = false;
    waitq_wake_all(r->env, &s->q);
    row_seg_unpin(s);
    return e;
}
