// Resolution, D's part: which blocks of an update are on disk, completing rows, and taking rows that P has reconstructed or held.
// A block that replaces something is written and flushed before the batch that names it: here, unlike in service, nothing else could give it back.
#include "iom/resolve.h"
#include "base/sum.h"

struct dseg *resolve_dseg(struct rows *r, struct object *o, uint64_t seg) {
    uint8_t pos = refmap_position(&o->map, r->self);
    uint64_t stripe = geo_seg_stripe(&o->map, seg);
    uint8_t k = pos == NO_IOM ? GEO_NOTHING : geo_role(&o->map, stripe, pos);
    if (k >= GEO_PARITY) return NULL;
    iom_id p = {geo_has_parity(&o->map) ? refmap_member(&o->map, geo_parity_pos(&o->map, stripe)).n : NO_IOM};
    return row_dseg(o, seg, k, p);
}

err co_resolve_good(struct rows *r, const struct update *u, row_mask *good) {
    struct block_io io[ROWS_MAX];
    uint32_t n = 0, bad = 0;
    struct buf *buf = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    ROW_FOR(u->rows, b) {
        io[n] = (struct block_io){{u->spot[b].at}, buf->data + n * BLOCK_BYTES, u->spot[b].crc};
        n++;
    }
    err e = n ? co_store_read_blocks(r->store, io, n, &bad) : OK;
    buf_unref(buf);
    *good = u->rows;
    uint32_t i = 0;
    ROW_FOR(u->rows, b) if ((bad >> i++ & 1) && !mutant(MUTANT_C_BAD)) *good &= (row_mask)~(1u << b);
    return bad ? OK : e; // what is bad is not there
}

// The same of D's UPDATE, under the segment's lock. Each block is read once: what was good is remembered by its place and checksum. Nothing else can come to
// lie there while UPDATE names it (I1), and what names it later here was on disk before (co_write_new).
static err co_good(struct dseg *d, const struct update *u, row_mask *good) {
    struct update unknown = *u;
    row_mask known = 0;
    ROW_FOR(u->rows, b) if (d->on_disk && u->spot[b].at && row_spot_same(&u->spot[b], &d->on_disk[b])) known |= (row_mask)(1u << b);
    unknown.rows &= (row_mask)~known;
    err e = co_resolve_good(d->s.r, &unknown, good);
    if (e != OK) return e;
    if (!d->on_disk) d->on_disk = mem_alloc(d->s.r->env->mem, ROWS_MAX * sizeof d->on_disk[0]);
    ROW_FOR(*good, b) d->on_disk[b] = u->spot[b];
    *good |= known;
    return OK;
}

static void forget_good(struct dseg *d) {
    mem_free(d->s.r->env->mem, d->on_disk);
    d->on_disk = NULL;
}

// CHUNK with the settled rows of u, UPDATE without the settled and the dropped ones. Not synced.
err co_resolve_complete(struct dseg *d, const struct update *u, row_mask settled, row_mask drop) {
    struct rows *r = d->s.r;
    struct batch *batch = batch_new(r->store);
    struct update rest = *u;
    rest.rows &= (row_mask)~(settled | drop);
    row_batch_free(batch, d->s.spot, settled);
    row_batch_free(batch, u->spot, drop);
    ROW_FOR(settled, b) {
        d->s.spot[b] = u->spot[b];
        d->row_version[b] = u->version;
    }
    unsigned had = row_count(d->s.clean.mask);
    row_layer_drop(&d->s.clean, settled);
    r->clean_bytes -= (had - row_count(d->s.clean.mask)) * BLOCK_BYTES;
    row_batch_chunk(batch, &d->s);
    struct key k = row_key(KIND_UPDATE, d->s.o->h, d->s.n);
    if (rest.rows) row_batch_update(d->s.r, batch, d->s.o->h, d->s.n, &rest);
    else batch_del(batch, r->tree, &k);
    if (!rest.rows) forget_good(d);
    d->version = MAX(d->version, (u->version + 1) & ~1ull);
    d->settled = d->version;
    r->stats.rolled_forward += row_count(settled);
    r->stats.undone += row_count(drop);
    batch_urgent(batch);
    lsn at;
    return co_batch_commit(batch, &at);
}

// ---- rows from P ----------------------------------------------------------------------------------------------------

// Blocks to new places, on disk before this returns. Packed.
static err co_write_new(struct rows *r, row_mask rows, uint8_t *packed, struct spot *out, struct runs *runs) {
    struct block_io io[ROWS_MAX];
    uint32_t n = 0;
    err e = co_row_alloc(r, row_count(rows), runs);
    if (e != OK) return e;
    ROW_FOR(rows, b) {
        uint8_t *data = packed + n * BLOCK_BYTES;
        io[n] = (struct block_io){row_runs_take(runs), data, store_crc_block(data)};
        out[b] = (struct spot){io[n].at.n, io[n].crc};
        n++;
    }
    e = n ? co_store_write_blocks(r->store, io, n) : OK;
    return e == OK && !mutant(MUTANT_TAKE) ? co_store_sync(r->store, store_now(r->store)) : e;
}

static err co_commit_sync(struct rows *r, struct batch *batch) {
    lsn at;
    batch_urgent(batch);
    err e = co_batch_commit(batch, &at);
    return e == OK ? co_store_sync(r->store, store_now(r->store)) : e;
}

// Places for what is lost: that of the UPDATE, whose block is bad already, or a new one with a checksum that does not match.
static err co_places_lost(struct rows *r, row_mask rows, struct spot *out, struct runs *runs) {
    uint8_t *zeros = mem_alloc(r->env->mem, BLOCK_BYTES);
    err e = co_row_alloc(r, row_count(rows), runs);
    ROW_FOR(rows, b) if (e == OK) out[b] = (struct spot){row_runs_take(runs).n, resolve_crc_lost(zeros)};
    mem_free(r->env->mem, zeros);
    return e;
}

// (b), the one without gets its blocks. An UPDATE of a later version stays; of this one it ends here.
// model: R_TAKE
err co_resolve_take(struct dseg *d, const struct req_resolve *q, const struct contents *c) {
    struct rows *r = d->s.r;
    row_mask todo = 0, lost = 0, keep;
    uint64_t version = le64_get(q->version);
    ROW_FOR(le16_get(q->rows), b) if (d->row_version[b] != version) todo |= (row_mask)(1u << b);
    ROW_FOR(le16_get(q->lost), b) if (d->row_version[b] != version) lost |= (row_mask)(1u << b);
    if (!todo && !lost) return OK; // repeated
    struct update u;
    struct spot new[ROWS_MAX];
    struct runs runs = {0}, runs_lost = {0};
    err e = co_row_update_get(r, d->s.o->h, d->s.n, &u);
    if (e != OK && e != ERR_NOENT) return e;
    bool ends = e == OK && u.version == version;
    resolve_tell_lost(&d->s, lost, "the block");
    keep = ends ? u.rows & lost : 0;
    ROW_FOR(keep, b) new[b] = u.spot[b];
    struct contents mine = {buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES), todo};
    ROW_FOR(todo, b) memcpy(resolve_row(&mine, b), resolve_row(c, b), BLOCK_BYTES);
    e = co_write_new(r, todo, mine.buf->data, new, &runs);
    if (e == OK) e = co_places_lost(r, lost & (row_mask)~keep, new, &runs_lost);
    buf_unref(mine.buf);
    if (e != OK) return e;
    todo |= lost;
    struct batch *batch = batch_new(r->store);
    row_runs_name(batch, &runs);
    row_runs_name(batch, &runs_lost);
    row_runs_free(r, &runs);
    row_runs_free(r, &runs_lost);
    row_batch_free(batch, d->s.spot, todo);
    ROW_FOR(todo, b) {
        d->s.spot[b] = new[b];
        d->row_version[b] = version;
    }
    d->version = MAX(d->version, (version + 1) & ~1ull); // the next freeze counts on from here, or a version would mean two contents
    d->settled = d->version;
    row_batch_chunk(batch, &d->s);
    row_batch_cnode2(batch, d->s.o);
    if (ends) {
        row_batch_free(batch, u.spot, u.rows & todo & (row_mask)~keep);
        u.rows &= (row_mask)~todo;
        struct key k = row_key(KIND_UPDATE, d->s.o->h, d->s.n);
        if (u.rows) row_batch_update(d->s.r, batch, d->s.o->h, d->s.n, &u);
        else batch_del(batch, r->tree, &k);
    }
    r->stats.rolled_forward += row_count(todo);
    return co_commit_sync(r, batch);
}

static bool has_held(const struct dseg *d, const struct update *u, row_mask good, unsigned b, uint64_t version) {
    return d->row_version[b] >= version || ((good >> b & 1) && u->version >= version);
}

// Reads the blocks at `base`; of those that are bad the settled ones are rebuilt from their row first: what P includes of it is decided by now.
static err co_read_base(struct dseg *d, struct spot *base, row_mask rows, uint8_t *packed, row_mask *bad) {
    row_mask settled = 0;
    *bad = 0;
    err e = co_resolve_read(d->s.r, base, rows, packed, bad);
    ROW_FOR(*bad, b) if (row_spot_same(&base[b], &d->s.spot[b])) settled |= (row_mask)(1u << b);
    if (e != OK || !settled) return e;
    e = co_row_mend(&d->s, settled);
    if (e != OK && e != ERR_IO) return e;
    ROW_FOR(settled, b) base[b] = d->s.spot[b];
    *bad = 0;
    e = co_resolve_read(d->s.r, base, rows, packed, bad);
    ROW_FOR(*bad & row_missing(base, *bad), b) if (d->s.clean.mask >> b & 1) { // a stand-in's are rebuilt in memory alone
        memcpy(packed + row_count(rows & (row_mask)((1u << b) - 1)) * BLOCK_BYTES, row_content_data(&d->s.clean.c[b]), BLOCK_BYTES);
        *bad &= (row_mask)~(1u << b);
    }
    return e;
}

// New blocks = the blocks at `base` xor the deltas. Where the base is bad the row is left out: its block stays bad, and the delta is of no use.
static err co_write_over(struct dseg *d, struct spot *base, row_mask *rows, const struct contents *delta, struct spot *out, struct runs *runs) {
    struct buf *packed = buf_new(d->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    row_mask bad = 0;
    uint32_t n = 0, i = 0;
    err e = co_read_base(d, base, *rows, packed->data, &bad);
    resolve_tell_lost(&d->s, bad, "what was written to the block");
    ROW_FOR(*rows, b) {
        uint8_t *from = packed->data + i++ * BLOCK_BYTES;
        if (bad >> b & 1) continue;
        uint8_t *to = packed->data + n++ * BLOCK_BYTES;
        if (to != from) memcpy(to, from, BLOCK_BYTES);
        xor_into(to, resolve_row(delta, b), BLOCK_BYTES);
    }
    *rows &= (row_mask)~bad;
    if (e == OK && *rows) e = co_write_new(d->s.r, *rows, packed->data, out, runs);
    buf_unref(packed);
    return e;
}

// What P held of this D at the stop becomes D's UPDATE again, over its newest block. Versions before it are named by nobody any more (phase 0 has
// decided them), so one version serves all rows.
// model: R_HELD
err co_resolve_held(struct dseg *d, const struct req_resolve *q, const struct contents *delta) {
    struct rows *r = d->s.r;
    row_mask rows = le16_get(q->rows), good = 0, todo = 0;
    uint64_t version = le64_get(q->version);
    struct update u = {.role = ROW_DATA, .k = d->k};
    struct spot base[ROWS_MAX], new[ROWS_MAX];
    struct runs runs = {0};
    err e = co_row_update_get(r, d->s.o->h, d->s.n, &u);
    if (e == OK) e = co_good(d, &u, &good);
    if (e != OK && e != ERR_NOENT) return e;
    memcpy(base, d->s.spot, sizeof base);
    ROW_FOR(good, b) if (u.version > d->row_version[b]) base[b] = u.spot[b];
    ROW_FOR(rows, b) if (!has_held(d, &u, good, b, version)) todo |= (row_mask)(1u << b);
    if (!todo) return OK;
    e = co_write_over(d, base, &todo, delta, new, &runs);
    if (e != OK || !todo) return e;
    struct batch *batch = batch_new(r->store);
    row_runs_name(batch, &runs);
    row_runs_free(r, &runs);
    row_batch_free(batch, u.spot, u.rows & (row_mask)(todo | ~good)); // replaced, and what never came to disk
    u.rows = (u.rows & good) | todo;
    ROW_FOR(todo, b) u.spot[b] = new[b];
    u.version = MAX(u.version, version);
    u.truncates = d->s.o->truncates;
    u.end = MAX(u.end, le64_get(q->end));
    row_batch_update(d->s.r, batch, d->s.o->h, d->s.n, &u);
    if (!d->s.o->stored) row_batch_doubt(batch, d->s.o);
    row_batch_cnode2(batch, d->s.o);
    return co_commit_sync(r, batch);
}

// The second layer (what lay over the version in flight at the stop) over the first, as one UPDATE at its version. Synced by the phase.
// model: R_LAYERS
err co_resolve_layers(struct dseg *d) {
    struct rows *r = d->s.r;
    struct update low = {.role = ROW_DATA, .k = d->k}, high;
    row_mask good_low = 0, good_high;
    err e = co_row_update_get(r, d->s.o->h, d->s.n | ROW_KEY_SECOND, &high);
    if (e != OK) return e == ERR_NOENT ? OK : e;
    e = co_resolve_good(r, &high, &good_high);
    if (e != OK) return e;
    e = co_row_update_get(r, d->s.o->h, d->s.n, &low);
    if (e == OK) e = co_good(d, &low, &good_low);
    if (e != OK && e != ERR_NOENT) return e;
    struct batch *batch = batch_new(r->store);
    row_batch_free(batch, low.spot, low.rows & (row_mask)(good_high | ~good_low));
    row_batch_free(batch, high.spot, high.rows & (row_mask)~good_high);
    ROW_FOR(good_low & (row_mask)~good_high, b) high.spot[b] = low.spot[b];
    high.rows = good_high | good_low;
    high.end = MAX(high.end, low.end);
    struct key second = row_key(KIND_UPDATE, d->s.o->h, d->s.n | ROW_KEY_SECOND), first = row_key(KIND_UPDATE, d->s.o->h, d->s.n);
    batch_del(batch, r->tree, &second);
    if (high.rows) row_batch_update(d->s.r, batch, d->s.o->h, d->s.n, &high);
    else batch_del(batch, r->tree, &first);
    batch_urgent(batch);
    lsn at;
    return co_batch_commit(batch, &at);
}

// ---- what P asks ----------------------------------------------------------------------------------------------------

// The blocks at the versions wanted. In service too, where a version in flight may be the one that P has settled already; there nothing is locked: a write that
// holds the segment may wait for that very P. So what was read is looked at again.
static row_mask read_memory(const struct dseg *d, const struct req_resolve *q, row_mask rows, const struct contents *c) {
    row_mask done = 0;
    ROW_FOR(rows, b) {
        uint64_t want = le64_get(q->want[b]);
        bool in_flight = d->state != D_IDLE && d->version == want && (d->frozen.mask >> b & 1); // settled perhaps: then `clean` is older until d_done
        const struct layer *l = in_flight ? &d->frozen : d->row_version[b] == want ? &d->s.clean : NULL;
        if (!l || !(l->mask >> b & 1)) continue;
        const uint8_t *data = row_content_data(&l->c[b]);
        if (data) memcpy(resolve_row(c, b), data, BLOCK_BYTES);
        else memset(resolve_row(c, b), 0, BLOCK_BYTES);
        done |= (row_mask)(1u << b);
    }
    return done;
}

static err co_contents_at(struct dseg *d, const struct req_resolve *q, const struct update *u, row_mask good, const struct contents *c, row_mask *bad) {
    row_mask left = c->rows & (row_mask)~read_memory(d, q, c->rows, c);
    *bad = 0;
    ROW_FOR(left, b) {
        bool settled = d->row_version[b] == le64_get(q->want[b]), hardened = u->version == le64_get(q->want[b]) && (good >> b & 1);
        struct spot spot[ROWS_MAX] = {0};
        row_mask bit = (row_mask)(1u << b);
        if (!settled && !hardened) {
            *bad |= bit;
            continue;
        }
        do { // a mender may give it another place meanwhile
            spot[b] = settled ? d->s.spot[b] : u->spot[b];
            *bad &= (row_mask)~bit;
            err e = co_resolve_read(d->s.r, spot, bit, resolve_row(c, b), bad);
            if (e != OK) return e;
        } while ((*bad & bit) && settled && d->row_version[b] == le64_get(q->want[b]) && !row_spot_same(&spot[b], &d->s.spot[b]));
        if (settled && d->row_version[b] != le64_get(q->want[b])) *bad |= bit; // its place is another's by now
    }
    return OK;
}

// UPDATE's xor settled.
static err co_deltas(struct dseg *d, const struct req_resolve *q, const struct update *u, row_mask good, const struct contents *c, row_mask *bad) {
    struct rows *r = d->s.r;
    row_mask have = good & c->rows;
    struct contents old = {buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES), have}, new = {buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES), have};
    ROW_FOR(have, b) if (u->version != le64_get(q->want[b])) *bad |= (row_mask)(1u << b);
    *bad |= c->rows & (row_mask)~good;
    err e = co_resolve_read(r, u->spot, have, new.buf->data, bad);
    if (e == OK) e = co_resolve_read(r, d->s.spot, have, old.buf->data, bad);
    ROW_FOR(have, b) if (e == OK) xor_of(resolve_row(c, b), resolve_row(&new, b), resolve_row(&old, b), BLOCK_BYTES);
    buf_unref(old.buf);
    buf_unref(new.buf);
    return e;
}

err co_resolve_state(struct dseg *d, const struct req_resolve *q, struct resolve_state *out, struct contents *c) {
    struct rows *r = d->s.r;
    struct update u = {0};
    row_mask good = 0, want = le16_get(q->rows), bad = 0;
    err e = co_row_update_get(r, d->s.o->h, d->s.n, &u);
    bool at = q->what == WHAT_AT; // without the lock, perhaps in service; versions alone need no look at the blocks
    if (e == OK && !(at && !want)) e = at ? co_resolve_good(r, &u, &good) : co_good(d, &u, &good);
    if (e != OK && e != ERR_NOENT) return e;
    out->truncates = le32_of(d->s.o->truncates);
    out->has_update = u.rows != 0;
    out->update_rows = le16_of(u.rows);
    out->good_rows = le16_of(good);
    out->update_version = le64_of(u.version);
    for (unsigned b = 0; b < d->s.blocks; b++) out->version[b] = le64_of(d->row_version[b]);
    if (q->what == WHAT_NOTHING || !want) return OK;
    *c = (struct contents){buf_new(r->env->mem, row_count(want) * BLOCK_BYTES), want};
    memset(c->buf->data, 0, row_count(want) * BLOCK_BYTES);
    e = q->what == WHAT_DELTA ? co_deltas(d, q, &u, good, c, &bad) : co_contents_at(d, q, &u, good, c, &bad);
    out->bad_rows = le16_of(bad);
    return e;
}
