// Batches: entries are encoded once, as the journal holds them, when they are added; committing waits until nothing can
// stand in the way any more, and then appends and applies in one go.
//
//     building --co_batch_commit--> waiting for: journal room, dirty pages, the pages themselves, places for pages
//              --no wait from here--> on_apply, journal_begin/_entries/_end, trees, blocks --> recycled
#include "store/inside.h"

#define POOL_MAX 64u
#define POOL_KEEP_BYTES 8192u
#define PENDING_SECTORS 1024u // of journal in memory: more is written out although nobody asks for a sync

// ---- building
static uint8_t *grow(struct batch *b, struct opvec *v, uint32_t len) {
    if (v->len + len > v->cap) {
        v->cap = MAX(2 * v->cap, MAX(256u, v->len + len));
        v->p = mem_realloc(b->s->mem, v->p, v->cap);
    }
    v->len += len;
    return v->p + v->len - len;
}
struct batch *batch_new(struct store *s) {
    struct list *n = list_pop_front(&s->batch_pool);
    struct batch *b;
    if (n == NULL) {
        b = mem_alloc(s->mem, sizeof *b);
        b->s = s;
        list_init(&b->node);
        return b;
    }
    s->batch_pool_len--;
    return LIST_ENTRY(n, struct batch, node);
}
static void vec_reset(struct batch *b, struct opvec *v) {
    v->len = 0;
    if (v->cap <= POOL_KEEP_BYTES) return;
    mem_free(b->s->mem, v->p);
    *v = (struct opvec){0};
}
void batch_destroy(struct batch *b) {
    struct mem *m = b->s->mem;
    for (int t = 0; t < TREE_COUNT; t++) mem_free(m, b->ops[t].p);
    mem_free(m, b->blocks.p);
    mem_free(m, b->pins);
    mem_free(m, b);
}
void batch_drop(struct batch *b) {
    struct store *s = b->s;
    for (uint32_t i = 0; i < b->pins_len; i++) tcache_unpin(s, b->pins[i]);
    if (s->batch_pool_len == POOL_MAX) {
        batch_destroy(b);
        return;
    }
    for (int t = 0; t < TREE_COUNT; t++) {
        vec_reset(b, &b->ops[t]);
        b->note[t].set = false;
    }
    vec_reset(b, &b->blocks);
    b->pins_len = b->puts = b->dels = 0;
    b->urgent = false;
    b->on_apply = NULL;
    list_push_front(&s->batch_pool, &b->node);
    s->batch_pool_len++;
}
void batch_put(struct batch *b, enum tree_id t, const struct key *k, const void *val, uint32_t len) {
    ASSERT(len <= RECORD_BYTES_MAX && t < TREE_COUNT);
    uint8_t *p = grow(b, &b->ops[t], ENTRY_PUT_BYTES + len);
    p[0] = ENTRY_PUT;
    memcpy(p + 1, k->b, KEY_BYTES);
    p[1 + KEY_BYTES] = (uint8_t)len;
    p[2 + KEY_BYTES] = (uint8_t)(len >> 8);
    if (len > 0) memcpy(p + ENTRY_PUT_BYTES, val, len);
    b->puts++;
}
void batch_del(struct batch *b, enum tree_id t, const struct key *k) {
    ASSERT(t < TREE_COUNT);
    uint8_t *p = grow(b, &b->ops[t], ENTRY_DEL_BYTES);
    p[0] = ENTRY_DEL;
    memcpy(p + 1, k->b, KEY_BYTES);
    b->dels++;
}
static void add_blocks(struct batch *b, enum entry what, block_addr at, uint32_t blocks) {
    le48 addr = le48_of(at.n);
    le32 n = le32_of(blocks);
    uint8_t *p = grow(b, &b->blocks, ENTRY_BLOCKS_BYTES);
    p[0] = (uint8_t)what;
    memcpy(p + 1, addr.b, 6);
    memcpy(p + 7, n.b, 4);
}
void batch_alloc(struct batch *b, block_addr at, uint32_t blocks) {
    add_blocks(b, ENTRY_ALLOC, at, blocks);
}
void batch_free(struct batch *b, block_addr at, uint32_t blocks) {
    add_blocks(b, ENTRY_FREE, at, blocks);
}
void batch_note(struct batch *b, enum tree_id t, uint64_t epoch, uint64_t number) {
    b->note[t] = (struct batch_note){epoch, number, true};
}
void batch_on_apply(struct batch *b, void (*fn)(void *arg, struct batch *b), void *arg) {
    b->on_apply = fn;
    b->on_apply_arg = arg;
}
void batch_urgent(struct batch *b) {
    b->urgent = true;
}
bool batch_empty(const struct batch *b) {
    for (int t = 0; t < TREE_COUNT; t++)
        if (b->ops[t].len > 0 || b->note[t].set) return false;
    return b->blocks.len == 0;
}
const uint8_t *batch_ops(const struct batch *b, enum tree_id t, uint32_t *len_bytes) {
    *len_bytes = b->ops[t].len;
    return b->ops[t].p;
}
err batch_add_ops(struct batch *b, enum tree_id t, const uint8_t *ops, uint32_t len_bytes) {
    uint32_t puts = 0, dels = 0;
    for (uint32_t at = 0, n; at < len_bytes; at += n) {
        n = entry_bytes(ops + at, len_bytes - at);
        if (n == 0 || (ops[at] != ENTRY_PUT && ops[at] != ENTRY_DEL)) return ERR_FORMAT;
        ops[at] == ENTRY_PUT ? puts++ : dels++;
    }
    if (len_bytes > 0) memcpy(grow(b, &b->ops[t], len_bytes), ops, len_bytes);
    b->puts += puts;
    b->dels += dels;
    return OK;
}

// ---- the pages a batch needs
// Are all of them in memory? Counts those that will need a place. The keys of a batch often follow each other: what
// lies in the leaf of the key before needs no look.
static bool pages_there(struct batch *b, uint64_t *need, struct miss *m) {
    struct store *s = b->s;
    uint32_t mark = ++s->cache.mark;
    *need = 0;
    for (int t = 0; t < TREE_COUNT; t++) {
        struct path p = {0};
        const uint8_t *before = NULL;
        for (uint32_t at = 0; at < b->ops[t].len;) {
            const uint8_t *op = b->ops[t].p + at, *key = op + 1;
            at += entry_bytes(op, b->ops[t].len - at);
            if (before && key_cmp(before, key) <= 0 && (p.above == NULL || key_cmp(key, p.above) < 0)) continue;
            if (!tree_descend(s, (enum tree_id)t, key, &p, m)) return false;
            before = key;
            for (uint32_t d = 0; d < p.depth; d++) {
                struct tframe *f = p.step[d].f;
                if (f->state == TFRAME_DIRTY || f->mark == mark) continue;
                f->mark = mark;
                ++*need;
            }
        }
    }
    *need += b->puts + b->puts / 16 + (b->puts ? TREE_LEVELS_MAX : 0); // splits
    return true;
}
static void pin_path(struct batch *b, const struct path *p) {
    for (uint32_t d = 0; d < p->depth; d++) {
        if (b->pins_len == b->pins_cap) {
            b->pins_cap = MAX(64u, 2 * b->pins_cap);
            b->pins = mem_realloc(b->s->mem, b->pins, b->pins_cap * sizeof *b->pins);
        }
        tcache_pin(p->step[d].f);
        b->pins[b->pins_len++] = p->step[d].f;
    }
}
// Brings in what each key needs, and keeps it; what others change meanwhile stays in memory because it is dirty.
static err co_pages_load(struct batch *b) {
    for (int t = 0; t < TREE_COUNT; t++) {
        for (uint32_t at = 0; at < b->ops[t].len;) {
            const uint8_t *op = b->ops[t].p + at;
            struct path p;
            struct miss m;
            while (!tree_descend(b->s, (enum tree_id)t, op + 1, &p, &m)) {
                err e = co_tcache_load(b->s, &m);
                if (e != OK) return e;
            }
            pin_path(b, &p);
            at += entry_bytes(op, b->ops[t].len - at);
        }
    }
    return OK;
}
err co_batch_pages(struct batch *b, uint64_t *need) {
    struct miss m;
    while (!pages_there(b, need, &m)) {
        err e = co_pages_load(b);
        if (e != OK) return e;
    }
    return OK;
}

// ---- applying
void batch_apply_trees(struct batch *b) {
    struct store *s = b->s;
    tcache_applying(s, true);
    for (int t = 0; t < TREE_COUNT; t++) {
        bool small = false;
        const uint8_t *ops = b->ops[t].p;
        for (uint32_t at = 0, n; at < b->ops[t].len; at += n) {
            n = entry_bytes(ops + at, b->ops[t].len - at);
            if (ops[at] == ENTRY_PUT)
                tree_put(s, (enum tree_id)t, ops + at + 1, ops + at + ENTRY_PUT_BYTES, n - ENTRY_PUT_BYTES);
            else
                small |= tree_del(s, (enum tree_id)t, ops + at + 1);
        }
        for (uint32_t at = 0, n; small && at < b->ops[t].len; at += n) {
            n = entry_bytes(ops + at, b->ops[t].len - at);
            if (ops[at] == ENTRY_DEL) tree_shrink(s, (enum tree_id)t, ops + at + 1);
        }
        if (!b->note[t].set) continue;
        s->trees[t].note_epoch = b->note[t].epoch;
        s->trees[t].note_number = b->note[t].number;
    }
    tcache_applying(s, false);
}
bool batch_apply_blocks(struct batch *b, lsn at) {
    struct store *s = b->s;
    for (uint32_t i = 0; i < b->blocks.len; i += ENTRY_BLOCKS_BYTES) {
        const uint8_t *p = b->blocks.p + i;
        le48 addr;
        le32 n;
        memcpy(addr.b, p + 1, 6);
        memcpy(n.b, p + 7, 4);
        bool done = p[0] == ENTRY_ALLOC ? space_name(&s->space, le48_get(addr), le32_get(n))
                                        : space_release(&s->space, s->mem, le48_get(addr), le32_get(n), at);
        if (!done) return false;
    }
    return true;
}
static uint32_t batch_bytes(const struct batch *b) { // without the begin
    uint32_t n = b->blocks.len;
    for (int t = 0; t < TREE_COUNT; t++)
        n += (b->ops[t].len ? ENTRY_TREE_BYTES + b->ops[t].len : 0) + (b->note[t].set ? ENTRY_NOTE_BYTES : 0);
    return n;
}
static void journal_note(struct store *s, uint8_t tree, const struct batch_note *n) {
    le64 v[2] = {le64_of(n->epoch), le64_of(n->number)};
    uint8_t e[ENTRY_NOTE_BYTES] = {ENTRY_NOTE, tree};
    memcpy(e + 2, v, sizeof v);
    journal_entries(s, e, sizeof e);
}
static lsn batch_append(struct batch *b) {
    struct store *s = b->s;
    journal_begin(s, batch_bytes(b));
    for (uint8_t t = 0; t < TREE_COUNT; t++)
        if (b->note[t].set) journal_note(s, t, &b->note[t]);
    for (uint8_t t = 0; t < TREE_COUNT; t++) {
        if (b->ops[t].len == 0) continue;
        journal_entries(s, (uint8_t[]){ENTRY_TREE, t}, ENTRY_TREE_BYTES);
        journal_entries(s, b->ops[t].p, b->ops[t].len);
    }
    journal_entries(s, b->blocks.p, b->blocks.len);
    return journal_end(s);
}

// ---- committing
static void journal_task(void *arg) {
    struct store *s = arg;
    (void)!co_journal_write(s); // an error has failed the store, and that is told to all who ask
    s->j.spawned = false;
    if (--s->tasks == 0) waitq_wake_all(s->e, &s->idle);
}
// What should happen soon, but nobody waits for.
static void look_after(struct store *s) {
    struct journal *j = &s->j;
    uint64_t pending = space_pending(&s->space);
    if (s->cache.dirty >= s->cache.dirty_max * 3 / 4 || j->head_seq - j->replay_seq > j->sectors / 2 ||
        (pending > 256 && pending > space_avail(&s->space) / 2))
        ckpt_request(s);
    if (j->head_seq - j->written_seq > PENDING_SECTORS && !j->spawned) {
        j->spawned = true;
        s->tasks++;
        env_spawn(s->e, "store journal", journal_task, s);
    }
}
static err co_wait_journal(struct store *s, bool ring_full) {
    if (!ring_full) return co_journal_write(s);
    ckpt_request(s);
    co_wait(s->e, &s->ckpt.q, "store: the journal is full");
    return s->failed;
}
// Room for pages; a full store says no only to what makes it fuller.
static err co_places(struct batch *b, uint64_t need, bool *waited) {
    struct store *s = b->s;
    *waited = false;
    if (b->puts > 0 && !b->urgent && store_free_raw(s) <= s->reserve_pages + s->reserve_urgent) return ERR_NOSPC;
    if (space_avail(&s->space) >= s->cache.dirty + need) return OK;
    if (space_pending(&s->space) == 0) return ERR_NOSPC;
    *waited = true;
    return co_ckpt_await(s);
}
// Returns OK when nothing is in the way, and has not waited since it found that.
static err co_admit(struct batch *b) {
    struct store *s = b->s;
    uint32_t bytes = batch_bytes(b) + ENTRY_BEGIN_BYTES + TREE_COUNT * ENTRY_NOTE_BYTES;
    if (bytes > BATCH_BYTES_MAX) return ERR_2BIG;
    for (uint32_t checkpoints = 0;;) {
        struct miss m;
        uint64_t need;
        bool ring_full, waited = true;
        err e = s->failed;
        if (e == OK && !journal_room(s, bytes, &ring_full)) {
            e = co_wait_journal(s, ring_full);
        } else if (e == OK && s->cache.dirty >= s->cache.dirty_max) {
            ckpt_request(s);
            co_wait(s->e, &s->ckpt.q, "store: too many dirty pages");
        } else if (e == OK && !pages_there(b, &need, &m)) {
            e = co_pages_load(b);
        } else if (e == OK) {
            e = co_places(b, need, &waited);
            if (e == OK && waited && ++checkpoints == 4) return ERR_NOSPC;
        }
        if (e != OK || !waited) return e;
    }
}
err co_batch_commit(struct batch *b, lsn *at) {
    struct store *s = b->s;
    err e = co_admit(b);
    if (e == OK) {
        if (b->on_apply) b->on_apply(b->on_apply_arg, b);
        *at = batch_empty(b) ? s->j.end : batch_append(b);
        batch_apply_trees(b);
        bool done = batch_apply_blocks(b, *at);
        ASSERT(done); // the caller names what it has and frees what is named
        look_after(s);
    }
    batch_drop(b);
    return e;
}
