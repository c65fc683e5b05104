// Resolution, P's decisions: steps (b) and (c) for one segment. Everything from what is durable; one segment at a time under its lock.
#include "iom/resolve.h"
#include "base/sum.h"

iom_id resolve_member(const struct object *o, uint64_t seg, uint8_t k) {
    return refmap_member(&o->map, geo_data_pos(&o->map, geo_seg_stripe(&o->map, seg), k));
}

struct asked { bool yes; struct resolve_state st; struct contents c; struct msg *reply; }; // of one data member

static err co_ask(struct pseg *p, uint8_t k, enum resolve_what what, row_mask rows, struct asked *a) {
    struct req_resolve q = {.op = RESOLVE_STATE, .k = k, .what = (uint8_t)what, .rows = le16_of(rows), .seg = le64_of(p->s.n)};
    struct msg *m;
    err e = co_resolve_call(p->s.r, resolve_member(p->s.o, p->s.n, k), p->s.o, &q, NULL, &m);
    if (e != OK) return e;
    bool whole = m->body_len == sizeof a->st && m->payload.len_bytes == (what == WHAT_DELTA ? row_count(rows) : 0) * BLOCK_BYTES;
    if (!whole) {
        msg_free(m);
        return ERR_FORMAT;
    }
    msg_free(a->reply);
    memcpy(&a->st, m->body, sizeof a->st);
    a->yes = true;
    a->reply = m;
    a->c = (struct contents){m->payload.buf, what == WHAT_DELTA ? rows : 0};
    return OK;
}

static void forget(struct asked *v) {
    for (unsigned k = 0; k < ARRAY_IOMS_MAX; k++) {
        msg_free(v[k].reply);
        v[k] = (struct asked){0};
    }
}

static err co_read_blocks_of(struct rows *r, const struct spot *spot, row_mask rows, uint8_t *by_row) { // at their rows
    struct block_io io[ROWS_MAX];
    uint32_t n = 0;
    ROW_FOR(rows, b) io[n++] = (struct block_io){{spot[b].at}, by_row + b * BLOCK_BYTES, spot[b].crc};
    return n ? co_store_read_blocks(r->store, io, n, NULL) : OK;
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
    batch_del(batch, TREE_LOCAL, &k);
    batch_urgent(batch);
    lsn at;
    r->stats.rolled_forward += row_count(forward);
    r->stats.undone += row_count(u->rows & (row_mask)~forward);
    err e = co_batch_commit(batch, &at);
    return e == OK ? co_store_sync(r->store, store_now(r->store)) : e;
}

// ---- (b) ------------------------------------------------------------------------------------------------------------

static bool part_has(const struct update *u, unsigned i, const struct asked *a, unsigned b) {
    uint64_t v = u->part[i].version;
    bool in_update = a->st.has_update && le64_get(a->st.update_version) == v && (le16_get(a->st.good_rows) >> b & 1);
    return le64_get(a->st.version[b]) == v || in_update;
}

struct verdict { row_mask forward; row_mask without[ROW_PARTS_MAX]; }; // without[i]: rows that only participant i lacks

// model: R_DECIDE
static struct verdict judge(const struct update *u, row_mask durable, const struct asked *v) {
    struct verdict x = {0};
    if (mutant(MUTANT_B)) return x;
    ROW_FOR(u->rows & durable, b) {
        unsigned lacking = 0, who = 0;
        for (unsigned i = 0; i < u->parts; i++) {
            if (!(u->part[i].rows >> b & 1) || part_has(u, i, &v[u->part[i].k], b)) continue;
            lacking++;
            who = i;
        }
        if (lacking > 1 && !mutant(MUTANT_B_TWO)) continue;
        x.forward |= (row_mask)(1u << b);
        if (lacking) x.without[who] |= (row_mask)(1u << b);
    }
    return x;
}

// The delta of the one without: parity new xor old, less the deltas of the other participants.
static err co_reconstruct(struct pseg *p, const struct update *u, unsigned who, row_mask rows, struct asked *v, struct buf *delta) {
    struct rows *r = p->s.r;
    struct buf *old = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    err e = co_read_blocks_of(r, u->spot, rows, delta->data);
    if (e == OK) e = co_read_blocks_of(r, p->s.spot, rows, old->data);
    ROW_FOR(rows, b) if (e == OK) xor_into(delta->data + b * BLOCK_BYTES, old->data + b * BLOCK_BYTES, BLOCK_BYTES);
    buf_unref(old);
    for (unsigned i = 0; i < u->parts && e == OK; i++) {
        row_mask theirs = u->part[i].rows & rows;
        if (i == who || !theirs) continue;
        struct asked *a = &v[u->part[i].k];
        e = co_ask(p, u->part[i].k, WHAT_DELTA, theirs, a);
        ROW_FOR(theirs, b) if (e == OK) xor_into(delta->data + b * BLOCK_BYTES, resolve_row(&a->c, b), BLOCK_BYTES);
    }
    return e;
}

static err co_give(struct pseg *p, const struct update *u, unsigned who, row_mask rows, struct asked *v) {
    struct buf *by_row = buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    err e = co_reconstruct(p, u, who, rows, v, by_row);
    struct contents c = {buf_new(p->s.r->env->mem, row_count(rows) * BLOCK_BYTES), rows};
    ROW_FOR(rows, b) memcpy(resolve_row(&c, b), by_row->data + b * BLOCK_BYTES, BLOCK_BYTES);
    buf_unref(by_row);
    struct req_resolve q = {.op = RESOLVE_TAKE, .k = u->part[who].k, .rows = le16_of(rows), .seg = le64_of(p->s.n), .version = le64_of(u->part[who].version)};
    struct msg *reply = NULL;
    if (e == OK) e = co_resolve_call(p->s.r, resolve_member(p->s.o, p->s.n, q.k), p->s.o, &q, &c, &reply);
    msg_free(reply);
    buf_unref(c.buf);
    return e;
}

static err co_decide(struct pseg *p, const struct update *u, struct asked *v) {
    row_mask durable;
    err e = co_resolve_good(p->s.r, u, &durable);
    if (mutant(MUTANT_B_BLIND)) durable = u->rows;
    for (unsigned i = 0; i < u->parts && e == OK; i++)
        if (!v[u->part[i].k].yes) e = co_ask(p, u->part[i].k, WHAT_NOTHING, 0, &v[u->part[i].k]);
    if (e != OK) return e;
    struct verdict x = judge(u, durable, v);
    for (unsigned i = 0; i < u->parts && e == OK; i++)
        if (x.without[i]) e = co_give(p, u, i, x.without[i], v);
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
    forget(v);
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

static err co_form_next(struct pseg *p, struct update *u, struct asked *v, struct buf *parity) {
    err e = co_read_blocks_of(p->s.r, p->s.spot, u->rows, parity->data);
    for (unsigned i = 0; i < u->parts && e == OK; i++) {
        struct asked *a = &v[u->part[i].k];
        e = co_ask(p, u->part[i].k, WHAT_DELTA, u->part[i].rows, a);
        ROW_FOR(u->part[i].rows, b) if (e == OK) xor_into(parity->data + b * BLOCK_BYTES, resolve_row(&a->c, b), BLOCK_BYTES);
    }
    return e;
}

// An ordinary version: its UPDATE and blocks with one flush, the participants' are on disk already.
// model: R_ENTER
static err co_harden_next(struct pseg *p, struct update *u, struct buf *parity) {
    struct rows *r = p->s.r;
    struct runs runs;
    struct block_io io[ROWS_MAX];
    uint32_t n = 0;
    err e = co_row_alloc(r, row_count(u->rows), &runs);
    if (e != OK) return e;
    ROW_FOR(u->rows, b) {
        uint8_t *data = parity->data + b * BLOCK_BYTES;
        io[n] = (struct block_io){row_runs_take(&runs), data, store_crc_block(data)};
        u->spot[b] = (struct spot){io[n].at.n, io[n].crc};
        n++;
    }
    struct batch *batch = batch_new(r->store);
    row_runs_name(batch, &runs);
    row_runs_free(r, &runs);
    if (!mutant(MUTANT_C_BARE)) row_batch_update(batch, p->s.o->h, p->s.n, u);
    row_batch_cnode2(batch, p->s.o);
    batch_urgent(batch);
    lsn at;
    e = co_batch_commit(batch, &at);
    if (e == OK) e = co_store_write_blocks(r->store, io, n);
    return e == OK && !mutant(MUTANT_C_BARE) ? co_store_sync(r->store, store_now(r->store)) : e;
}

static err co_enter_seg(struct pseg *p, struct asked *v) {
    struct update u = {.role = ROW_PARITY, .k = 0xff, .truncates = p->s.o->truncates};
    for (uint8_t k = 0; k < p->n; k++) {
        err e = co_ask(p, k, WHAT_NOTHING, 0, &v[k]);
        if (e != OK) return e;
        row_mask rows = entering(p, k, &v[k]);
        if (!rows) continue;
        u.part[u.parts].k = k;
        u.part[u.parts].rows = rows;
        u.part[u.parts++].version = le64_get(v[k].st.update_version);
        u.rows |= rows;
    }
    if (!u.rows) return OK;
    struct buf *parity = buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    err e = co_form_next(p, &u, v, parity);
    if (e == OK) e = co_harden_next(p, &u, parity);
    buf_unref(parity);
    return e == OK ? co_conclude(p, &u, u.rows) : e;
}

err co_resolve_enter(struct rows *r, struct object *o, uint64_t seg) {
    struct pseg *p = row_pseg(o, seg);
    struct asked *v = mem_alloc(r->env->mem, ARRAY_IOMS_MAX * sizeof v[0]);
    co_lock(r->env, &p->s.lock, "resolve: segment");
    err e = co_row_seg_load(&p->s);
    if (e == OK) e = co_enter_seg(p, v);
    co_unlock(r->env, &p->s.lock);
    forget(v);
    mem_free(r->env->mem, v);
    row_seg_unpin(&p->s);
    return e;
}

err co_resolve_versions(struct rows *r, struct object *o, uint64_t seg, uint8_t k, struct resolve_decided *out) {
    struct pseg *p = row_pseg(o, seg);
    err e = k < p->n ? OK : ERR_INVAL;
    co_lock(r->env, &p->s.lock, "resolve: segment");
    if (e == OK) e = co_row_seg_load(&p->s);
    for (unsigned b = 0; b < p->s.blocks && e == OK; b++) out->version[b] = le64_of(p->versions[b * p->n + k]);
    co_unlock(r->env, &p->s.lock);
    row_seg_unpin(&p->s);
    return e;
}
