// Resolution, P's decisions: steps (b) and (c) for one segment. Everything from what is durable; one segment at a time under its lock.
#include "iom/resolve.h"
#include "base/sum.h"

iom_id resolve_member(const struct object *o, uint64_t seg, uint8_t k) {
    return refmap_member(&o->map, geo_data_pos(&o->map, geo_seg_stripe(&o->map, seg), k));
}

static void p_clean_forget(struct pseg *p, row_mask rows) {
    unsigned had = row_count(p->s.clean.mask);
    row_layer_drop(&p->s.clean, rows);
    p->s.r->clean_bytes -= (had - row_count(p->s.clean.mask)) * BLOCK_BYTES;
}

// P's UPDATE ends: these rows are settled, the others stay as they were. Durable on return.
// model: R_CONCLUDE
static err co_conclude(struct pseg *p, const struct update *u, row_mask forward) {
    struct rows *r = p->s.r;
    struct batch *batch = batch_new(r->store);
    row_batch_free(batch, p->s.spot, forward);
    row_batch_free(batch, u->spot, u->rows & (row_mask)~forward);
    ROW_FOR(forward, b) p->s.spot[b] = u->spot[b];
    for (uint8_t i = 0; i < u->parts; i++)
        ROW_FOR(u->part[i].rows & forward, b) p->versions[b * p->n + u->part[i].k] = u->part[i].version;
    p_clean_forget(p, forward);
    row_batch_chunk(batch, &p->s);
    struct key k = row_key(KIND_UPDATE, p->s.o->h, p->s.n);
    batch_del(batch, p->s.r->tree, &k);
    batch_urgent(batch);
    lsn at;
    r->stats.rolled_forward += row_count(forward);
    r->stats.undone += row_count(u->rows & (row_mask)~forward);
    err e = co_batch_commit(batch, &at);
    return e == OK ? co_store_sync(r->store, store_now(r->store)) : e;
}

// ---- (b) ------------------------------------------------------------------------------------------------------------

static bool part_completed(const struct update *u, unsigned i, const struct asked *a, unsigned b) {
    return le64_get(a->st.version[b]) == u->part[i].version && !mutant(MUTANT_B_CHUNK);
}

static bool part_has(const struct update *u, unsigned i, const struct asked *a, unsigned b) {
    uint64_t v = u->part[i].version;
    bool in_update = a->st.has_update && le64_get(a->st.update_version) == v && (le16_get(a->st.good_rows) >> b & 1);
    bool trusted = mutant(MUTANT_B_TRUST) && a->st.has_update && le64_get(a->st.update_version) == v;
    return part_completed(u, i, a, b) || in_update || trusted;
}

// A row of which a participant has completed *is* settled, whatever rotted since: it goes forward.
struct verdict {
    row_mask forward, settled;
    row_mask reform;                 // of these P's own block is not on disk
    row_mask without[ROW_PARTS_MAX]; // rows that participant i lacks
};

static void judge_row(const struct update *u, bool own, const struct asked *v, unsigned b, struct verdict *x) {
    row_mask bit = (row_mask)(1u << b);
    unsigned lacking = 0;
    bool completed = false;
    for (unsigned i = 0; i < u->parts; i++) {
        const struct asked *a = &v[u->part[i].k];
        if (!(u->part[i].rows & bit)) continue;
        lacking += !part_has(u, i, a, b);
        completed = completed || part_completed(u, i, a, b);
    }
    if (!completed && (!own || (lacking > 1 && !mutant(MUTANT_B_TWO)))) return;
    x->forward |= bit;
    if (completed) x->settled |= bit;
    if (!own) x->reform |= bit;
    for (unsigned i = 0; i < u->parts; i++)
        if ((u->part[i].rows & bit) && !part_has(u, i, &v[u->part[i].k], b)) x->without[i] |= bit;
}

// model: R_DECIDE
static struct verdict judge(const struct update *u, row_mask durable, const struct asked *v) {
    struct verdict x = {0};
    if (!mutant(MUTANT_B)) ROW_FOR(u->rows, b) judge_row(u, durable >> b & 1, v, b, &x);
    return x;
}

// The participant has told that it hardened these rows, bad as they are now: fsync may have been answered.
static row_mask was_hardened(const struct update *u, unsigned i, const struct asked *a) {
    return a->st.has_update && le64_get(a->st.update_version) == u->part[i].version ? le16_get(a->st.update_rows) : 0;
}

static err co_take(struct pseg *p, const struct update *u, unsigned i, row_mask rows, row_mask lost, const struct buf *by_row) {
    struct contents c = {buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES), rows};
    ROW_FOR(rows, b) memcpy(resolve_row(&c, b), by_row->data + b * BLOCK_BYTES, BLOCK_BYTES);
    struct req_resolve q = {.op = RESOLVE_TAKE, .k = u->part[i].k, .rows = le16_of(rows), .lost = le16_of(lost), .seg = le64_of(p->s.n),
                            .version = le64_of(u->part[i].version)};
    struct msg *reply = NULL;
    err e = co_resolve_call(p->s.r, resolve_member(p->s.o, p->s.n, q.k), p->s.o, &q, &c, &reply);
    if (e == OK) msg_free(reply);
    buf_unref(c.buf);
    return e;
}

// The one without gets its block. If that is not to be had: where nobody can have been promised this version, the row is kept as it was; else the block is lost.
static err co_give(struct pseg *p, const struct update *u, unsigned i, const struct asked *v, struct verdict *x) {
    struct buf *by_row = buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    row_mask rows = x->without[i], lost;
    err e = co_gather_block(p, u, u->part[i].k, rows, by_row, &lost);
    row_mask keep = lost & (row_mask)~(x->settled | was_hardened(u, i, &v[u->part[i].k]));
    rows &= (row_mask)~keep;
    lost &= rows;
    x->forward &= (row_mask)~keep;
    if (e == OK && rows) e = co_take(p, u, i, rows & (row_mask)~lost, lost, by_row);
    buf_unref(by_row);
    return e;
}

// New blocks of rows of the UPDATE, and the UPDATE with their places, with one flush; the places in `was` (if any) are released.
static err co_put_parity(struct pseg *p, struct update *u, row_mask rows, struct buf *parity, row_mask lost, row_mask was) {
    struct rows *r = p->s.r;
    struct runs runs;
    struct block_io io[ROWS_MAX];
    uint32_t n = 0;
    err e = co_row_alloc(r, row_count(rows), &runs);
    if (e != OK) return e;
    struct batch *batch = batch_new(r->store);
    row_runs_name(batch, &runs);
    row_batch_free(batch, u->spot, was);
    ROW_FOR(rows, b) {
        uint8_t *data = parity->data + b * BLOCK_BYTES;
        io[n] = (struct block_io){row_runs_take(&runs), data, lost >> b & 1 ? resolve_crc_lost(data) : store_crc_block(data)};
        u->spot[b] = (struct spot){io[n].at.n, io[n].crc};
        n++;
    }
    row_runs_free(r, &runs);
    if (!mutant(MUTANT_C_BARE)) row_batch_update(p->s.r, batch, p->s.o->h, p->s.n, u);
    row_batch_cnode2(batch, p->s.o);
    batch_urgent(batch);
    lsn at;
    e = co_batch_commit(batch, &at);
    if (e == OK) e = co_store_write_blocks(r->store, io, n);
    return e == OK && !mutant(MUTANT_C_BARE) ? co_store_sync(r->store, store_now(r->store)) : e;
}

// P's own block rotted in a row that is settled: the blocks of all members make it again.
static err co_reform(struct pseg *p, struct update *u, row_mask rows) {
    struct buf *parity = buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    row_mask lost;
    err e = co_gather_members(p, u, rows, parity, &lost);
    if (e == OK) resolve_tell_lost(&p->s, lost, "the parity");
    if (e == OK) e = co_put_parity(p, u, rows, parity, lost, rows);
    buf_unref(parity);
    return e;
}

static err co_decide(struct pseg *p, struct update *u, struct asked *v) {
    row_mask durable;
    err e = co_resolve_good(p->s.r, u, &durable);
    if (mutant(MUTANT_B_BLIND)) durable = u->rows;
    uint16_t members = 0;
    for (unsigned i = 0; i < u->parts; i++) members |= (uint16_t)(1u << u->part[i].k);
    if (e == OK) e = co_resolve_ask(p, members, v);
    if (e != OK) return e;
    struct verdict x = judge(u, durable, v);
    for (unsigned i = 0; i < u->parts && e == OK; i++)
        if (x.without[i] && !mutant(MUTANT_B_LACK)) e = co_give(p, u, i, v, &x);
    if (e == OK && x.reform) e = co_reform(p, u, x.reform);
    return e == OK ? co_conclude(p, u, x.forward) : e;
}

err co_resolve_decide(struct rows *r, struct object *o, uint64_t seg) {
    struct pseg *p = row_pseg(o, seg);
    struct asked *v = mem_alloc(r->env->mem, ARRAY_IOMS_MAX * sizeof v[0]);
    struct update u;
    co_lock(r->env, &p->s.lock, "resolve: segment");
    err e = co_row_seg_load(&p->s);
    if (e == OK) e = co_row_update_get(r, o->h, seg, &u);
    if (e == OK && u.role == ROW_PARITY) e = co_decide(p, &u, v);
    if (e == ERR_NOENT) e = OK;
    co_unlock(r->env, &p->s.lock);
    mem_free(r->env->mem, v);
    row_seg_unpin(&p->s);
    return e;
}

// ---- (c) ------------------------------------------------------------------------------------------------------------

// Rows of D's durable UPDATE that the parity does not include yet.
static row_mask entering(const struct pseg *p, uint8_t k, const struct asked *a) {
    row_mask rows = 0;
    if (!a->st.has_update || mutant(MUTANT_C)) return 0;
    ROW_FOR(le16_get(a->st.good_rows), b) if (p->versions[b * p->n + k] != le64_get(a->st.update_version)) rows |= (row_mask)(1u << b);
    return rows;
}

// An ordinary version: its UPDATE and blocks with one flush, the participants' are on disk already.
// model: R_ENTER
static err co_enter_seg(struct pseg *p, struct asked *v) {
    struct update u = {.role = ROW_PARITY, .k = 0xff, .truncates = p->s.o->truncates};
    err e = co_resolve_ask(p, resolve_all(p), v);
    if (e != OK) return e;
    for (uint8_t k = 0; k < p->n; k++) {
        row_mask rows = entering(p, k, &v[k]);
        if (!rows) continue;
        u.part[u.parts].k = k;
        u.part[u.parts].rows = rows;
        u.part[u.parts++].version = le64_get(v[k].st.update_version);
        u.rows |= rows;
    }
    if (!u.rows) return OK;
    struct buf *parity = buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    row_mask lost = 0;
    e = co_gather_parity(p, &u, u.rows, parity, &lost);
    if (e == OK) resolve_tell_lost(&p->s, lost, "the parity");
    if (e == OK) e = co_put_parity(p, &u, u.rows, parity, lost, 0);
    buf_unref(parity);
    return e == OK ? co_conclude(p, &u, u.rows) : e;
}

// Each of its members asks for it, and until all of them have done so nobody hardens anything: once is enough.
err co_resolve_enter(struct rows *r, struct object *o, uint64_t seg) {
    struct pseg *p = row_pseg(o, seg);
    struct asked *v = mem_alloc(r->env->mem, ARRAY_IOMS_MAX * sizeof v[0]);
    co_lock(r->env, &p->s.lock, "resolve: segment");
    err e = co_row_seg_load(&p->s);
    if (e == OK && !p->entered) e = co_enter_seg(p, v);
    if (e == OK) p->entered = true;
    co_unlock(r->env, &p->s.lock);
    mem_free(r->env->mem, v);
    row_seg_unpin(&p->s);
    return e;
}

err co_resolve_decided(struct rows *r, struct object *o, uint64_t seg, struct resolve_decided *out) {
    struct update u;
    err e = co_row_update_get(r, o->h, seg, &u);
    out->decided = e == ERR_NOENT;
    return e == ERR_NOENT ? OK : e;
}

err co_resolve_versions(struct rows *r, struct object *o, uint64_t seg, uint8_t k, struct resolve_decided *out) {
    struct pseg *p = row_pseg(o, seg);
    err e = k < p->n ? OK : ERR_INVAL;
    if (e == OK) e = co_row_seg_load(&p->s);
    out->truncates = le32_of(o->truncates);
    for (unsigned b = 0; b < p->s.blocks && e == OK; b++) out->version[b] = le64_of(p->versions[b * p->n + k]);
    row_seg_unpin(&p->s);
    return e;
}
