// A story of a store: random batches, block writes, syncs and checkpoints of several tasks, over several lives of a
// node, each ended by a crash at some I/O. After each crash the store must be the state after some prefix of the
// batches, at least of those synced.
#pragma once
#include "tests/crash/store_bed.h"

#define STORY_KEYS 300u
#define STORY_OPS 12u
#define STORY_BATCHES 6000u
#define STORY_TREES 2
#define STORY_WORKERS 3u

enum story_what { STORY_NONE, STORY_BYTES, STORY_BLOCK };
struct story_value {
    enum story_what what;
    uint64_t seed;  // of the bytes, or of the block's content
    uint32_t len;   // of the bytes
    uint64_t addr;  // of the block
    uint32_t batch; // that put it
    bool torn;      // the block was found not written after a crash: its batch had not been synced
};
struct story_op {
    uint8_t tree;
    uint16_t key;
    struct story_value v;
};
struct story_batch {
    uint32_t ops_len;
    struct story_op ops[STORY_OPS];
};

struct story {
    struct bed bed;
    uint64_t rng;
    struct story_batch *history; // [1..committed]
    uint32_t committed, synced;
    struct story_value now[STORY_TREES][STORY_KEYS];
    uint32_t turns;      // of the life to come
    uint32_t sync_every; // batches, about; chosen for each life: long unflushed stretches leave long torn tails
    bool heavy;          // long values in few pages: it is the ring that runs full
    bool dense;          // hardly any free blocks: they are reused soon
    uint32_t working;    // tasks
    struct story_end {
        uint64_t k;
        enum world_io_moment at;
        enum world_crash how;
        bool early;
    } end; // of the life to come
    uint64_t filler_at, filler_blocks;
};

static inline uint64_t story_random(struct story *y, uint64_t n) {
    uint64_t z = y->rng += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (z ^ z >> 31) % n;
}
static inline struct key story_key(uint64_t n) {
    return key_make(3, (const uint8_t *)"story-story-stor", n * 977);
}
static inline void story_bytes(uint8_t *p, uint32_t len, uint64_t seed) {
    for (uint32_t i = 0; i < len; i++) p[i] = (uint8_t)(seed >> (i % 7 * 8)) ^ (uint8_t)(i * 31);
}
struct story_record {
    le64 what, seed, addr;
    le32 crc;
}; // of a block

static inline uint32_t story_encode(const struct story_value *v, uint8_t *p, uint8_t *block) {
    if (v->what == STORY_BYTES) {
        story_bytes(p, v->len, v->seed);
        return v->len;
    }
    story_bytes(block, BLOCK_BYTES, v->seed);
    struct story_record r = {le64_of(STORY_BLOCK), le64_of(v->seed), le64_of(v->addr), le32_of(store_crc_block(block))};
    memcpy(p, &r, sizeof r);
    return sizeof r;
}

// ---- after a crash
static inline void story_refs(void *ctx, enum tree_id t, const struct key *k, const void *val, uint32_t len,
                              void (*emit)(void *arg, block_addr at, uint32_t n), void *arg) {
    struct story *y = ctx;
    if (t == TREE_WARD) {
        emit(arg, (block_addr){y->filler_at}, (uint32_t)y->filler_blocks);
        return;
    }
    uint64_t n = key_number(k) / 977;
    if (t >= STORY_TREES || key_kind(k) != 3 || n >= STORY_KEYS || y->now[t][n].what != STORY_BLOCK) return;
    struct story_record r;
    memcpy(&r, val, sizeof r);
    emit(arg, (block_addr){le64_get(r.addr)}, 1);
}
static inline void story_fault(void *ctx, const char *sentence) {
    fprintf(stderr, "fault: %s\n", sentence);
}

static inline void story_rebuild(struct story *y, uint32_t upto) {
    memset(y->now, 0, sizeof y->now);
    for (uint32_t n = 1; n <= upto; n++)
        for (uint32_t i = 0; i < y->history[n].ops_len; i++) {
            struct story_op *op = &y->history[n].ops[i];
            y->now[op->tree][op->key] = op->v;
        }
}
static inline void co_story_check_block(struct story *y, struct story_value *v, struct story_batch *h, uint8_t *block) {
    uint8_t want[BLOCK_BYTES];
    story_bytes(want, BLOCK_BYTES, v->seed);
    struct block_io io = {{v->addr}, block, store_crc_block(want)};
    uint32_t bad;
    err e = co_store_read_blocks(y->bed.s, &io, 1, &bad);
    if (e == OK || v->torn) return;
    if (v->batch <= y->synced)
        fprintf(stderr, "block %llu of batch %u (synced %u) is not what was written\n", (unsigned long long)v->addr,
                v->batch, y->synced);
    ASSERT(v->batch > y->synced);
    v->torn = true; // in the history too, for later lives
    for (uint32_t i = 0; i < h->ops_len; i++)
        if (h->ops[i].v.what == STORY_BLOCK && h->ops[i].v.addr == v->addr) h->ops[i].v.torn = true;
}
static inline void co_story_compare(struct story *y, struct buf *buf) {
    for (int t = 0; t < STORY_TREES; t++) {
        uint64_t records = 0;
        for (uint32_t n = 0; n < STORY_KEYS; n++) {
            uint8_t want[RECORD_BYTES_MAX], got[RECORD_BYTES_MAX];
            struct story_value *v = &y->now[t][n];
            struct key k = story_key(n);
            uint32_t len;
            err e = co_tree_get(y->bed.s, (enum tree_id)t, &k, got, sizeof got, &len);
            ASSERT(e == (v->what == STORY_NONE ? ERR_NOENT : OK));
            if (v->what == STORY_NONE) continue;
            records++;
            uint32_t want_len = story_encode(v, want, buf->data);
            ASSERT(len == want_len && memcmp(want, got, len) == 0);
            if (v->what == STORY_BLOCK) co_story_check_block(y, v, &y->history[v->batch], buf->data);
        }
        ASSERT(tree_records(y->bed.s, (enum tree_id)t) == records);
    }
}
static inline uint32_t story_last(struct story *y) { // the number of the last batch that is there
    uint64_t epoch, number;
    tree_note(y->bed.s, TREE_META, &epoch, &number);
    return (uint32_t)number;
}
static inline void co_story_recover(struct story *y) {
    struct buf *buf = buf_new(bed_env(&y->bed)->mem, BLOCK_BYTES);
    uint32_t last = story_last(y);
    if (last < y->synced || last > y->committed)
        fprintf(stderr, "found batch %u, synced %u, committed %u\n", last, y->synced, y->committed);
    ASSERT(last >= y->synced && last <= y->committed);
    story_rebuild(y, last);
    co_story_compare(y, buf);
    y->committed = y->synced = last;
    uint64_t faults, reached;
    if (y->turns > 0 && story_random(y, 2)) { // half of the lives go on without the checkpoint that a check begins with
        buf_unref(buf);
        return;
    }
    struct store_verify v = {story_refs, story_fault, y};
    err e = co_store_verify(y->bed.s, &v, &faults, &reached);
    ASSERT(e == OK && faults == 0);
    buf_unref(buf);
}

// ---- a life
static inline void co_story_write(struct story *y, struct story_op *op) {
    struct buf *buf = buf_new(bed_env(&y->bed)->mem, BLOCK_BYTES);
    block_addr at;
    uint32_t got;
    err e = co_store_alloc(y->bed.s, 1, true, &at, &got);
    ASSERT(e == OK && got == 1);
    op->v.addr = at.n;
    story_bytes(buf->data, BLOCK_BYTES, op->v.seed);
    struct block_io io = {at, buf->data, 0};
    e = co_store_write_blocks(y->bed.s, &io, 1);
    ASSERT(e == OK);
    buf_unref(buf);
}
static inline struct story_op story_random_op(struct story *y) {
    uint32_t bytes =
        (uint32_t)story_random(y, 4) ? (uint32_t)story_random(y, 120) : (uint32_t)story_random(y, RECORD_BYTES_MAX + 1);
    uint64_t r = story_random(y, 10);
    struct story_op op = {(uint8_t)story_random(y, STORY_TREES),
                          (uint16_t)story_random(y, y->heavy   ? 24
                                                    : y->dense ? 60
                                                               : STORY_KEYS),
                          {0}};
    op.v.what = r < 3 ? STORY_NONE : r < 7 || y->heavy ? STORY_BYTES : STORY_BLOCK;
    op.v.seed = story_random(y, UINT64_MAX);
    op.v.len = y->heavy ? RECORD_BYTES_MAX - bytes / 4 : bytes;
    return op;
}
static inline bool story_has(const struct story_batch *h, const struct story_op *op) {
    for (uint32_t i = 0; i < h->ops_len; i++)
        if (h->ops[i].tree == op->tree && h->ops[i].key == op->key) return true;
    return false;
}
// At the instant of application: the batch gets its number and its place in the history.
struct story_building {
    struct story *y;
    struct story_batch h;
};
static inline void story_applied(void *arg, struct batch *b) {
    struct story_building *g = arg;
    struct story *y = g->y;
    uint32_t n = ++y->committed;
    ASSERT(n < STORY_BATCHES);
    batch_note(b, TREE_META, 1, n);
    y->history[n] = g->h;
    for (uint32_t i = 0; i < g->h.ops_len; i++) {
        struct story_op *op = &y->history[n].ops[i];
        op->v.batch = n;
        y->now[op->tree][op->key] = op->v;
    }
}
static inline void co_story_batch(struct story *y, uint32_t worker) {
    struct story_building g = {.y = y};
    uint32_t ops = 1 + (uint32_t)story_random(y, STORY_OPS);
    struct batch *b = batch_new(y->bed.s);
    uint8_t val[RECORD_BYTES_MAX], block[BLOCK_BYTES];
    for (uint32_t i = 0; i < ops; i++) {
        struct story_op op = story_random_op(y);
        op.key = (uint16_t)(op.key / STORY_WORKERS * STORY_WORKERS + worker); // each worker has its own
        if (story_has(&g.h, &op)) continue;
        if (op.v.what == STORY_BLOCK) co_story_write(y, &op);
        struct key k = story_key(op.key);
        struct story_value *old = &y->now[op.tree][op.key];
        if (op.v.what == STORY_NONE)
            batch_del(b, (enum tree_id)op.tree, &k);
        else
            batch_put(b, (enum tree_id)op.tree, &k, val, story_encode(&op.v, val, block));
        if (op.v.what == STORY_BLOCK) batch_alloc(b, (block_addr){op.v.addr}, 1);
        if (old->what == STORY_BLOCK) batch_free(b, (block_addr){old->addr}, 1);
        g.h.ops[g.h.ops_len++] = op;
    }
    batch_urgent(b);
    batch_on_apply(b, story_applied, &g);
    lsn at;
    err e = co_batch_commit(b, &at);
    ASSERT(e == OK);
}
static inline void co_story_sync(struct story *y) {
    uint32_t n = y->committed;
    err e = co_store_sync(y->bed.s, store_now(y->bed.s));
    ASSERT(e == OK);
    y->synced = MAX(y->synced, n);
}
struct story_worker {
    struct story *y;
    uint32_t number;
};
static inline void story_work(void *arg) {
    struct story_worker *k = arg;
    struct story *y = k->y;
    for (uint32_t i = 0; i < y->turns; i++) {
        co_story_batch(y, k->number);
        if (story_random(y, y->sync_every) == 0) co_story_sync(y);
        if (story_random(y, 100) == 0) {
            err e = co_store_checkpoint(y->bed.s);
            ASSERT(e == OK);
        }
        if (story_random(y, 3) == 0)
            co_sleep_until(bed_env(&y->bed), env_now_ns(bed_env(&y->bed)) + story_random(y, USEC(100)), "work");
    }
    y->working--;
}
static inline void co_story_live(struct bed *b) {
    struct story *y = b->user;
    err e = co_bed_open(b);
    ASSERT(e == OK);
    co_story_recover(y);
    if (!y->end.early) world_crash_at_io(b->w, b->n, y->end.k, y->end.at, y->end.how);
    y->sync_every = 1u << story_random(y, 8);
    y->working = STORY_WORKERS;
    struct story_worker workers[STORY_WORKERS];
    for (uint32_t i = 0; i < STORY_WORKERS; i++) {
        workers[i] = (struct story_worker){y, i};
        env_spawn(bed_env(b), "worker", story_work, &workers[i]);
    }
    while (y->working > 0) co_sleep_until(bed_env(b), env_now_ns(bed_env(b)) + USEC(50), "workers");
    if (story_random(y, 4) == 0) {
        co_bed_close(b);
        y->synced = y->committed;
    }
}
// A store in which few blocks are free, if wanted.
static inline void co_story_begin(struct bed *b) {
    struct story *y = b->user;
    co_bed_format(b);
    err e = co_bed_open(b);
    ASSERT(e == OK);
    block_addr at;
    uint32_t got = 0;
    if (y->dense) {
        uint64_t free = store_blocks_free(b->s);
        e = co_store_alloc(b->s, (uint32_t)free - 10, false, &at, &got); // the reserve serves the records
        ASSERT(e == OK && got > free / 2);
        y->filler_at = at.n;
        y->filler_blocks = got;
        struct batch *ba = batch_new(b->s);
        struct key k = story_key(0);
        batch_put(ba, TREE_WARD, &k, "filler", 6);
        batch_alloc(ba, at, got);
        batch_urgent(ba);
        lsn l;
        e = co_batch_commit(ba, &l);
        ASSERT(e == OK);
    }
    for (uint32_t i = 0; i < 200; i++) { // the ring comes round
        co_story_batch(y, i % STORY_WORKERS);
        co_story_sync(y);
    }
    co_bed_close(b);
}
static inline void story_init(struct story *y, uint64_t seed, bool dense, bool journal_apart) {
    memset(y, 0, sizeof *y);
    bed_init(&y->bed, seed, MIB(16));
    y->bed.user = y;
    y->bed.config = (struct store_config){.journal_bytes = MIB(1), .cache_bytes = MIB(1)};
    y->bed.journal_apart = journal_apart;
    y->rng = seed * 77 + 5;
    y->dense = dense;
    y->history = calloc(STORY_BATCHES, sizeof *y->history);
    bool survived = bed_run(&y->bed, co_story_begin);
    ASSERT(survived);
}
static inline void story_fini(struct story *y) {
    free(y->history);
    bed_fini(&y->bed);
}
// One life, ended at the k-th I/O (0: at its end) after recovery or, if `early`, from its beginning; true if that came
// before its end.
static inline bool story_live(struct story *y, uint32_t turns, struct story_end end) {
    y->turns = turns;
    y->end = end;
    if (end.early) world_crash_at_io(y->bed.w, y->bed.n, end.k, end.at, end.how);
    bool survived = bed_run(&y->bed, co_story_live);
    world_crash_at_io(y->bed.w, y->bed.n, 0, end.at, end.how);
    if (survived && end.how == WORLD_CRASH_POWER) node_power_cut(y->bed.n);
    return !survived;
}
