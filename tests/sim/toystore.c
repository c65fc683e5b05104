// The toy store: see toystore.h.
#include "tests/sim/toystore.h"
#include "base/sum.h"
#include <stdlib.h>
#include <string.h>

enum op_kind { OP_PUT, OP_DEL, OP_ALLOC, OP_FREE };
struct op {
    enum op_kind kind;
    enum tree_id tree;
    struct key key;
    uint64_t at;
    uint32_t n, len;
    uint8_t *val;
};
struct log_batch { // committed, not covered by a sync
    struct op *op;
    uint32_t len;
    uint64_t lsn;
};
struct record { struct key key; uint32_t len; uint8_t *val; };
struct tree { struct record *v; uint32_t len, cap; };
struct block {
    uint8_t *now, *durable; // NULL: never written
    uint64_t written;       // number of its last write; 0 = covered by a sync
    bool in_flight;
};
enum use { FREE, HELD, NAMED, RELEASED }; // held: in memory only; released: by a batch not yet durable

struct toy {
    struct toy_options o;
    uint64_t rng;
    struct tree now[TREE_COUNT], durable[TREE_COUNT];
    struct log_batch *log;
    uint32_t log_len, log_cap;
    uint64_t lsn, durable_lsn, writes, incarnation;
    struct block *block;
    uint8_t *use;         // as of now
    uint8_t *use_durable; // FREE or NAMED
    struct toy_counts counts;
    bool stopped;
};

static void *zalloc(size_t n) {
    void *p = calloc(1, n ? n : 1);
    ASSERT(p);
    return p;
}
static uint64_t rnd(struct toy *t) {
    uint64_t z = t->rng += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// ---- trees ----------------------------------------------------------------------------------------------------------

static uint32_t lower(const struct tree *t, const struct key *k) {
    uint32_t lo = 0, hi = t->len;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (memcmp(t->v[mid].key.b, k->b, KEY_BYTES) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}
static bool at_key(const struct tree *t, uint32_t i, const struct key *k) { return i < t->len && !memcmp(t->v[i].key.b, k->b, KEY_BYTES); }

static void tree_put(struct tree *t, const struct key *k, const void *val, uint32_t len) {
    uint32_t i = lower(t, k);
    if (at_key(t, i, k)) {
        free(t->v[i].val);
    } else {
        if (t->len == t->cap) t->v = realloc(t->v, (t->cap = t->cap ? 2 * t->cap : 16) * sizeof t->v[0]);
        memmove(t->v + i + 1, t->v + i, (t->len - i) * sizeof t->v[0]);
        t->len++;
        t->v[i].key = *k;
    }
    t->v[i].len = len;
    t->v[i].val = zalloc(len);
    memcpy(t->v[i].val, val, len);
}
static void tree_del(struct tree *t, const struct key *k) {
    uint32_t i = lower(t, k);
    if (!at_key(t, i, k)) return;
    free(t->v[i].val);
    memmove(t->v + i, t->v + i + 1, (t->len - i - 1) * sizeof t->v[0]);
    t->len--;
}
static void tree_clear(struct tree *t) {
    for (uint32_t i = 0; i < t->len; i++) free(t->v[i].val);
    t->len = 0;
}
static void tree_copy(struct tree *to, const struct tree *from) {
    tree_clear(to);
    for (uint32_t i = 0; i < from->len; i++) tree_put(to, &from->v[i].key, from->v[i].val, from->v[i].len);
}

// ---- the disk -------------------------------------------------------------------------------------------------------

struct toy *toy_new(const struct toy_options *o) {
    struct toy *t = zalloc(sizeof *t);
    t->o = *o;
    t->rng = o->seed;
    t->block = zalloc(o->blocks * sizeof t->block[0]);
    t->use = zalloc(o->blocks);
    t->use_durable = zalloc(o->blocks);
    t->use[0] = t->use_durable[0] = NAMED; // 0 is no address
    return t;
}
static void log_free(struct log_batch *b) {
    for (uint32_t i = 0; i < b->len; i++) free(b->op[i].val);
    free(b->op);
}
void toy_free(struct toy *t) {
    for (int i = 0; i < TREE_COUNT; i++) {
        tree_clear(&t->now[i]), tree_clear(&t->durable[i]);
        free(t->now[i].v), free(t->durable[i].v);
    }
    for (uint32_t i = 0; i < t->log_len; i++) log_free(&t->log[i]);
    for (uint32_t i = 0; i < t->o.blocks; i++) free(t->block[i].now), free(t->block[i].durable);
    free(t->log), free(t->block), free(t->use), free(t->use_durable), free(t);
}
static void op_apply(struct tree *trees, const struct op *op) {
    if (op->kind == OP_PUT) tree_put(&trees[op->tree], &op->key, op->val, op->len);
    if (op->kind == OP_DEL) tree_del(&trees[op->tree], &op->key);
}
static void make_durable(struct toy *t, const struct log_batch *b) {
    for (uint32_t i = 0; i < b->len; i++) {
        const struct op *op = &b->op[i];
        op_apply(t->durable, op);
        for (uint32_t n = 0; n < op->n; n++) {
            if (op->kind == OP_ALLOC) t->use_durable[op->at + n] = NAMED;
            if (op->kind != OP_FREE) continue;
            t->use_durable[op->at + n] = FREE;
            ASSERT(t->use[op->at + n] == RELEASED);
            t->use[op->at + n] = FREE;
        }
    }
    t->durable_lsn = b->lsn;
}
static void log_durable_to(struct toy *t, uint64_t upto) {
    uint32_t n = 0;
    while (n < t->log_len && t->log[n].lsn <= upto) {
        make_durable(t, &t->log[n]);
        log_free(&t->log[n++]);
    }
    if (n) memmove(t->log, t->log + n, (t->log_len - n) * sizeof t->log[0]);
    t->log_len -= n;
}
static void set_block(uint8_t **to, const uint8_t *from) {
    if (!from) {
        free(*to);
        *to = NULL;
        return;
    }
    if (!*to) *to = zalloc(BLOCK_BYTES);
    memcpy(*to, from, BLOCK_BYTES);
}
static void cut_block(struct toy *t, struct block *b, enum toy_cut how) {
    if (!b->written) return;
    uint64_t x = rnd(t) % 4;
    if (how == TOY_CUT_NOTHING) x = 0;
    if (how == TOY_CUT_ALL) x = 1;
    uint8_t torn[BLOCK_BYTES] = {0};
    if (b->durable) memcpy(torn, b->durable, BLOCK_BYTES);
    for (uint32_t i = 0; i < 8; i++)
        if (x == 1 || x == 2 || (x == 3 && rnd(t) % 2)) memcpy(torn + i * 512, b->now + i * 512, 512);
    set_block(&b->durable, torn);
    set_block(&b->now, torn);
    b->written = 0;
    b->in_flight = false;
}
void toy_stop(struct toy *t) { t->stopped = true; }
void toy_power_cut(struct toy *t, enum toy_cut how) {
    t->stopped = false;
    uint32_t keep = how == TOY_CUT_NOTHING ? 0 : how == TOY_CUT_ALL ? t->log_len : (uint32_t)(rnd(t) % (t->log_len + 1));
    for (uint32_t i = 0; i < keep; i++) make_durable(t, &t->log[i]);
    for (uint32_t i = 0; i < t->log_len; i++) log_free(&t->log[i]);
    t->log_len = 0;
    t->durable_lsn = t->lsn;
    for (int i = 0; i < TREE_COUNT; i++) tree_copy(&t->now[i], &t->durable[i]);
    memcpy(t->use, t->use_durable, t->o.blocks);
    for (uint32_t i = 0; i < t->o.blocks; i++) cut_block(t, &t->block[i], how);
}
struct toy_counts toy_counts(const struct toy *t) { return t->counts; }
bool toy_seek(const struct toy *t, enum tree_id tree, struct key *k, const uint8_t **val, uint32_t *len) {
    uint32_t i = lower(&t->now[tree], k);
    if (i == t->now[tree].len) return false;
    *k = t->now[tree].v[i].key;
    *val = t->now[tree].v[i].val;
    *len = t->now[tree].v[i].len;
    return true;
}
const uint8_t *toy_block(const struct toy *t, uint64_t at) { return t->block[at].now; }
bool toy_allocated(const struct toy *t, uint64_t at) { return t->use[at] != FREE && t->use[at] != RELEASED; }
uint32_t toy_blocks(const struct toy *t) { return t->o.blocks; }
void toy_rot(struct toy *t, uint64_t at) {
    t->block[at].now[17] ^= 4;
    if (t->block[at].durable) t->block[at].durable[17] ^= 4;
}
bool toy_settled(const struct toy *t, uint64_t at) {
    const struct block *b = &t->block[at];
    return b->now && b->durable && !b->in_flight && !memcmp(b->now, b->durable, BLOCK_BYTES);
}

// ---- store.h: opening, keys, records --------------------------------------------------------------------------------

struct store {
    struct env *env;
    struct toy *t;
    uint64_t reserved;
    uint64_t delay_ns;
};
struct store *toy_open(struct env *e, struct toy *t) {
    struct store *s = mem_alloc(e->mem, sizeof *s);
    *s = (struct store){.env = e, .t = t, .delay_ns = USEC(20)};
    t->incarnation++;
    return s;
}
uint64_t store_incarnation(const struct store *s) { return s->t->incarnation; }
struct key key_make(uint8_t kind, const uint8_t id[16], uint64_t number) {
    struct key k;
    k.b[0] = kind;
    memcpy(k.b + 1, id, 16);
    be64_put(k.b + 17, number);
    return k;
}
struct key key_next(struct key k) {
    for (int i = KEY_BYTES - 1; i >= 0 && ++k.b[i] == 0; i--) {}
    return k;
}
err co_tree_seek(struct store *s, enum tree_id t, struct key *k, void *val, uint32_t cap, uint32_t *len) {
    const uint8_t *v;
    co_yield(s->env);
    if (!toy_seek(s->t, t, k, &v, len)) return ERR_NOENT;
    if (*len > cap) return ERR_RANGE;
    memcpy(val, v, *len);
    return OK;
}
err co_tree_get(struct store *s, enum tree_id t, const struct key *k, void *val, uint32_t cap, uint32_t *len) {
    struct key at = *k;
    err e = co_tree_seek(s, t, &at, val, cap, len);
    return e == OK && memcmp(at.b, k->b, KEY_BYTES) != 0 ? ERR_NOENT : e;
}

// None is replaced, and none is mirrored.
void tree_note(const struct store *s, enum tree_id t, uint64_t *epoch, uint64_t *number) { *epoch = *number = 0; }
void batch_note(struct batch *b, enum tree_id t, uint64_t epoch, uint64_t number) { ASSERT(!b); }

static void co_hang(struct store *s) {
    while (s->t->stopped) co_sleep_until(s->env, env_now_ns(s->env) + SEC(1000), "toy: no power");
}
static void co_io(struct store *s, uint64_t max_ns) {
    max_ns *= MAX(1, s->t->o.slow);
    co_hang(s);
    if (s->t->o.on_io) s->t->o.on_io(s->t->o.ctx);
    co_hang(s);
    co_sleep_until(s->env, env_now_ns(s->env) + max_ns / 8 + rnd(s->t) % max_ns, "toy I/O");
    if (s->t->o.on_io) s->t->o.on_io(s->t->o.ctx);
    co_hang(s);
}
// ---- batches --------------------------------------------------------------------------------------------------------

struct batch {
    struct store *s;
    struct op *op;
    uint32_t len, cap;
};
struct batch *batch_new(struct store *s) {
    struct batch *b = mem_alloc(s->env->mem, sizeof *b);
    b->s = s;
    return b;
}
static struct op *add(struct batch *b, enum op_kind kind) {
    if (b->len == b->cap) b->op = mem_realloc(b->s->env->mem, b->op, (b->cap = b->cap ? 2 * b->cap : 8) * sizeof b->op[0]);
    b->op[b->len] = (struct op){.kind = kind};
    return &b->op[b->len++];
}
void batch_put(struct batch *b, enum tree_id t, const struct key *k, const void *val, uint32_t len) {
    struct op *op = add(b, OP_PUT);
    op->tree = t;
    op->key = *k;
    op->len = len;
    op->val = mem_alloc(b->s->env->mem, len); // the node's until it is committed
    memcpy(op->val, val, len);
}
void batch_del(struct batch *b, enum tree_id t, const struct key *k) {
    struct op *op = add(b, OP_DEL);
    op->tree = t;
    op->key = *k;
}
void batch_alloc(struct batch *b, block_addr at, uint32_t blocks) {
    struct op *op = add(b, OP_ALLOC);
    op->at = at.n;
    op->n = blocks;
}
void batch_free(struct batch *b, block_addr at, uint32_t blocks) {
    struct op *op = add(b, OP_FREE);
    op->at = at.n;
    op->n = blocks;
}
bool batch_empty(const struct batch *b) { return b->len == 0; }
void batch_urgent(struct batch *b) { (void)b; }
void batch_drop(struct batch *b) {
    for (uint32_t i = 0; i < b->len; i++) mem_free(b->s->env->mem, b->op[i].val);
    mem_free(b->s->env->mem, b->op);
    mem_free(b->s->env->mem, b);
}
static void apply_now(struct toy *t, const struct op *op) {
    op_apply(t->now, op);
    for (uint32_t n = 0; n < op->n; n++) {
        uint8_t *use = &t->use[op->at + n];
        ASSERT(*use == (op->kind == OP_ALLOC ? HELD : NAMED)); // named twice, or freed twice
        *use = op->kind == OP_ALLOC ? NAMED : RELEASED;
    }
}
err co_batch_commit(struct batch *b, lsn *at) {
    struct store *s = b->s;
    struct toy *t = s->t;
    co_hang(s);
    if (rnd(t) % 8 == 0) co_yield(s->env);
    if (rnd(t) % (t->o.slow > 1 ? 4 : 32) == 0) co_sleep_until(s->env, env_now_ns(s->env) + rnd(t) % USEC(500), "toy commit"); // as the real one for pages or journal
    co_hang(s);
    if (t->log_len == t->log_cap) t->log = realloc(t->log, (t->log_cap = t->log_cap ? 2 * t->log_cap : 16) * sizeof t->log[0]);
    struct log_batch *l = &t->log[t->log_len++];
    *l = (struct log_batch){zalloc(b->len * sizeof b->op[0]), b->len, ++t->lsn};
    t->counts.batches++;
    for (uint32_t i = 0; i < b->len; i++) {
        l->op[i] = b->op[i];
        if (b->op[i].len) l->op[i].val = memcpy(zalloc(b->op[i].len), b->op[i].val, b->op[i].len);
        t->counts.batch_bytes += KEY_BYTES + 8 + b->op[i].len;
        apply_now(t, &l->op[i]);
    }
    *at = (lsn){t->lsn};
    batch_drop(b);
    return OK;
}

// ---- durability -----------------------------------------------------------------------------------------------------

struct sync_point store_now(const struct store *s) { return (struct sync_point){{s->t->lsn}, s->t->writes}; }
bool store_synced(const struct store *s, struct sync_point p) { return s->t->durable_lsn >= p.journal.n; }
lsn store_durable(const struct store *s) { return (lsn){s->t->durable_lsn}; }
err co_store_sync(struct store *s, struct sync_point p) {
    struct toy *t = s->t;
    uint64_t upto = MAX(p.journal.n, t->lsn), writes = t->writes;
    uint32_t n = 0, *covered = mem_alloc(s->env->mem, t->o.blocks * sizeof covered[0]);
    for (uint32_t i = 0; i < t->o.blocks; i++)
        if (t->block[i].written && t->block[i].written <= writes && !t->block[i].in_flight) covered[n++] = i;
    t->counts.syncs++;
    co_io(s, USEC(50));
    for (uint32_t i = 0; i < n; i++) {
        struct block *b = &t->block[covered[i]];
        if (b->written > writes || !b->written) continue;
        set_block(&b->durable, b->now);
        b->written = 0;
    }
    mem_free(s->env->mem, covered);
    log_durable_to(t, upto);
    return OK;
}

// ---- blocks ---------------------------------------------------------------------------------------------------------

uint64_t store_blocks_total(const struct store *s) { return s->t->o.blocks; }
static uint64_t count_free(const struct store *s) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < s->t->o.blocks; i++) n += s->t->use[i] == FREE || s->t->use[i] == RELEASED;
    return n;
}
static uint64_t for_recovery(const struct store *s) { return MAX(32, s->t->o.blocks / 8); } // a half of it: what makes room
uint64_t store_blocks_used(const struct store *s) { return s->t->o.blocks - count_free(s); }
uint64_t store_blocks_free(const struct store *s) {
    uint64_t n = count_free(s), kept = s->reserved + for_recovery(s);
    return n > kept ? n - kept : 0;
}
bool store_reserve(struct store *s, uint64_t blocks) {
    if (store_blocks_free(s) < blocks) return false;
    s->reserved += blocks;
    return true;
}
bool store_reserve_urgent(struct store *s, uint64_t blocks) {
    if (count_free(s) < s->reserved + for_recovery(s) / 2 + blocks) return false;
    s->reserved += blocks;
    return true;
}
void store_unreserve(struct store *s, uint64_t blocks) {
    ASSERT(s->reserved >= blocks);
    s->reserved -= blocks;
}
err co_store_alloc(struct store *s, uint32_t want, bool use_reserve, block_addr *at, uint32_t *got) {
    struct toy *t = s->t;
    for (int tries = 0; tries < 2; tries++) {
        for (uint32_t i = 1; i < t->o.blocks; i++) {
            if (t->use[i] != FREE) continue;
            uint32_t n = 0, most = 1 + (uint32_t)(rnd(t) % want);
            while (n < most && i + n < t->o.blocks && t->use[i + n] == FREE) t->use[i + n++] = HELD;
            *at = (block_addr){i};
            *got = n;
            return OK;
        }
        err e = co_store_sync(s, store_now(s)); // released ones become free
        if (e != OK) return e;
    }
    (void)use_reserve;
    return ERR_NOSPC;
}
void store_unalloc(struct store *s, block_addr at, uint32_t blocks) {
    for (uint32_t i = 0; i < blocks; i++) {
        ASSERT(s->t->use[at.n + i] == HELD);
        s->t->use[at.n + i] = FREE;
    }
}
uint32_t store_crc_block(const void *block4096) { return crc32c(0, block4096, BLOCK_BYTES); }
err co_store_write_blocks(struct store *s, const struct block_io *v, uint32_t n) {
    struct toy *t = s->t;
    for (uint32_t i = 0; i < n; i++) {
        struct block *b = &t->block[v[i].at.n];
        ASSERT(v[i].at.n && v[i].at.n < t->o.blocks && (uintptr_t)v[i].data % BLOCK_BYTES == 0);
        ASSERT(t->use[v[i].at.n] == HELD || t->use[v[i].at.n] == NAMED);
        set_block(&b->now, v[i].data);
        b->written = ++t->writes;
        b->in_flight = true;
    }
    co_io(s, USEC(30));
    for (uint32_t i = 0; i < n; i++) {
        t->block[v[i].at.n].in_flight = false;
        t->block[v[i].at.n].written = ++t->writes;
        ASSERT(!memcmp(t->block[v[i].at.n].now, v[i].data, BLOCK_BYTES)); // what is being written does not change
    }
    t->counts.blocks_written += n;
    return OK;
}
err co_store_read_blocks(struct store *s, struct block_io *v, uint32_t n, uint32_t *bad_mask) {
    struct toy *t = s->t;
    uint32_t bad = 0;
    co_sleep_until(s->env, env_now_ns(s->env) + rnd(t) % USEC(20), "toy read");
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *from = v[i].at.n ? t->block[v[i].at.n].now : NULL;
        if (from) memcpy(v[i].data, from, BLOCK_BYTES);
        else memset(v[i].data, 0, BLOCK_BYTES);
        if (v[i].at.n && store_crc_block(v[i].data) != v[i].crc) bad |= 1u << i;
        t->counts.blocks_read += v[i].at.n != 0;
    }
    if (bad_mask) *bad_mask = bad;
    return bad ? ERR_CHECKSUM : OK;
}
