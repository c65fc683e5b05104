// Building: a missing block gets a place again. (FIG. 14; design R5, R6)
//
//   segment at rest ──> D_BUILDING / P_BUILDING ──> blocks gathered, written, flushed ──> CHUNK with the places ──> at rest
//
// Meanwhile nothing of the segment is frozen or formed (writes go on into its open layers), so its record is nobody else's. The versions stay: they are
// those of the contents. The blocks are on disk before the record names them: until then they are missing, whatever happens.
// In the background a task walks the records, some segments at a time; a segment that is read or written first is put together on demand, from memory then,
// and built when its turn comes or when it is written.
#include "base/sum.h"
#include "iom/resolve.h"

#define WORKERS 4u
#define RETRY_NS MSEC(100)

static bool at_rest(const struct seg *s) {
    if (s->busy || s->dead) return false;
    if (s->role == ROW_DATA) return ((const struct dseg *)s)->state == D_IDLE;
    const struct pseg *p = (const struct pseg *)s;
    for (uint8_t k = 0; k < p->n; k++)
        if (p->frozen[k]) return false;
    return p->state == P_IDLE;
}

static void hold(struct seg *s) {
    s->busy = true;
    if (s->role == ROW_DATA) row_d(s)->state = D_BUILDING;
    else row_p(s)->state = P_BUILDING;
}

static void release(struct seg *s) {
    s->busy = false;
    if (s->role == ROW_DATA) row_d(s)->state = D_IDLE;
    else row_p(s)->state = P_IDLE;
    waitq_wake_all(s->r->env, &s->q);
    if (s->dead) return;
    if (s->role == ROW_DATA) row_d_idle(row_d(s));
    else row_p_idle(row_p(s));
}

static err co_parity_here(struct pseg *p, row_mask rows, row_mask *bad) {
    struct buf *sum = buf_new(p->s.r->env->mem, ROWS_MAX * BLOCK_BYTES);
    struct update settled = {.rows = rows}; // no participants
    err e = co_gather_members(p, &settled, rows, sum, bad);
    ROW_FOR(rows & ~*bad & ~p->s.clean.mask, b) {
        if (e != OK || p->s.dead) break;
        struct content own = row_own_block(p->s.r);
        memcpy(row_content_data(&own), sum->data + b * BLOCK_BYTES, BLOCK_BYTES);
        row_layer_set(&p->s.clean, b, own);
        p->s.r->clean_bytes += BLOCK_BYTES;
    }
    buf_unref(sum);
    return e == ERR_TRUNCATED ? OK : e; // cut there, here in a moment: tried again and found dead
}

static err co_contents_here(struct seg *s, row_mask rows, row_mask *bad) {
    *bad = 0;
    rows &= (row_mask)~s->clean.mask;
    if (s->role == ROW_PARITY) return rows ? co_parity_here(row_p(s), rows, bad) : OK;
    return rows ? co_row_gather(row_d(s), rows, bad) : OK;
}

static err co_place(struct seg *s, row_mask rows) {
    struct rows *r = s->r;
    struct block_io io[ROWS_MAX];
    struct runs runs;
    uint32_t n = 0;
    err e = co_row_alloc(r, row_count(rows), &runs);
    if (e != OK) return e;
    ROW_FOR(rows, b) {
        uint8_t *data = row_content_data(&s->clean.c[b]);
        io[n++] = (struct block_io){row_runs_take(&runs), data, store_crc_block(data)};
    }
    e = co_store_write_blocks(r->store, io, n);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store));
    if (e != OK || s->dead) {
        row_runs_unalloc(r, &runs);
        row_runs_free(r, &runs);
        return e;
    }
    struct batch *batch = batch_new(r->store);
    row_runs_name(batch, &runs);
    row_runs_free(r, &runs);
    n = 0;
    ROW_FOR(rows, b) {
        s->spot[b] = (struct spot){io[n].at.n, io[n].crc};
        n++;
    }
    row_batch_chunk(batch, s);
    batch_urgent(batch);
    lsn at;
    r->stats.built += row_count(rows);
    return co_batch_commit(batch, &at);
}

// Under the segment's lock. *left: what is missing still, to be tried again; *bad: what is not to be had.
static err co_build(struct seg *s, row_mask *left, row_mask *bad) {
    row_mask all = (row_mask)((1u << s->blocks) - 1);
    err e = co_row_seg_load(s);
    *bad = 0;
    *left = e == OK && !s->dead ? row_missing(s->spot, all) : 0;
    if (e != OK || !*left || !at_rest(s)) return e;
    hold(s);
    e = co_contents_here(s, *left, bad);
    row_mask ready = *left & s->clean.mask;
    if (e == OK && ready && !s->dead) e = co_place(s, ready);
    release(s);
    *left = s->dead ? 0 : row_missing(s->spot, all) & (row_mask)~*bad;
    return e;
}

// ---- the walk -------------------------------------------------------------------------------------------------------
struct builder {
    struct rows *r;
    struct key next; // of the records
    bool end;
    struct group g;
};

static bool has_missing(const uint8_t *val, uint32_t len, uint32_t *blocks) {
    struct row_chunk head;
    if (len < sizeof head) return false;
    memcpy(&head, val, sizeof head);
    uint32_t stride = (uint32_t)sizeof(struct row_place) + 6u * head.n, count = row_count(le16_get(head.rows));
    if (len != sizeof head + count * stride) return false;
    *blocks = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct row_place place;
        memcpy(&place, val + sizeof head + i * stride, sizeof place);
        *blocks += le48_get(place.at) == ROW_AT_MISSING;
    }
    return *blocks > 0;
}

// The next segment with something missing; ERR_NOENT: there is none.
static err co_next(struct builder *b, struct key *k, uint32_t *blocks) {
    struct rows *r = b->r;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    while (!b->end) {
        struct key at = b->next;
        err e = co_tree_seek(r->store, r->tree, &at, val, sizeof val, &len);
        if (e != OK && e != ERR_NOENT) return e;
        if (memcmp(at.b, b->next.b, KEY_BYTES) < 0) continue; // another worker went on meanwhile
        if (e == ERR_NOENT || key_kind(&at) != KIND_CHUNK) {
            b->end = true;
            break;
        }
        b->next = key_next(at);
        if (!has_missing(val, len, blocks)) continue;
        *k = at;
        return OK;
    }
    return ERR_NOENT;
}

static err co_build_seg(struct rows *r, const struct key *k) {
    struct object *o;
    err e = co_resolve_object(r, handle_at(key_id(k)), &o);
    if (e != OK) return e == ERR_FORMAT ? OK : e; // deleted meanwhile
    struct seg *s = row_seg_of(o, key_number(k));
    row_mask left = s != NULL, bad = 0;
    while (s && left && e == OK && !r->stopping) {
        co_lock(r->env, &s->lock, "row build: segment");
        e = co_build(s, &left, &bad);
        co_unlock(r->env, &s->lock);
        if (left && e == OK) co_wait_until(r->env, &s->q, env_now_ns(r->env) + RETRY_NS, "row build: the segment comes to rest");
    }
    if (bad) resolve_tell_lost(s, bad, "what is to be built");
    if (s) row_seg_unpin(s);
    row_object_unpin(o);
    return e;
}

static void co_worker(void *arg) {
    struct builder *b = arg;
    struct rows *r = b->r;
    struct key k;
    uint32_t blocks;
    err e = OK;
    while (e == OK && !r->stopping && (e = co_next(b, &k, &blocks)) == OK) {
        e = co_build_seg(r, &k);
        r->missing_done += blocks;
    }
    group_done(r->env, &b->g, e == ERR_NOENT ? OK : e);
    row_task_end(r);
}

err co_rows_missing_count(struct rows *r) {
    struct builder b = {.r = r, .next = {{KIND_CHUNK}}};
    struct key k;
    uint32_t blocks;
    err e;
    r->missing_total = r->missing_done = 0;
    while ((e = co_next(&b, &k, &blocks)) == OK) r->missing_total += blocks;
    return e == ERR_NOENT ? OK : e;
}

err co_rows_build(struct rows *r) {
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    struct builder *b = mem_alloc(r->env->mem, sizeof *b);
    *b = (struct builder){.r = r, .next = {{KIND_CHUNK}}};
    group_init(&b->g);
    for (uint32_t i = 0; i < WORKERS; i++) {
        group_add(&b->g);
        row_spawn(r, "row build", co_worker, b);
    }
    err e = co_group_wait(r->env, &b->g, "row build: workers");
    mem_free(r->env->mem, b);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store)); // only then it counts (R6)
    if (r->stopping) e = ERR_STOPPED;
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
