// The allocator: for every block of the data area, what it is to the state in memory and to the checkpoints.
//
//   cur    named by the state in memory: a record's block (batch_alloc) or a clean tree page
//   ckpt   named by the checkpoint that a crash now would start from
//   next   named by the checkpoint under way; equal to ckpt when none is
//   busy   may not be taken: cur or ckpt or next, or held (taken, not named yet), or in the queue (released by a batch
//          that is not durable yet)
//
// I1: a released block leaves `busy` when the batch that released it is durable and neither ckpt nor next names it. A
// checkpoint that does not name it any more began after that batch and made it durable, so only blocks taken *and*
// released since the last checkpoint stand in the queue.
//
// On disk: two copies of `cur` as it was at a checkpoint's begin. A checkpoint writes to the copy that is not current
// the map blocks that changed since that copy was: those of this checkpoint (dirty) and of the one before (stale).
#include "base/mutant.h"
#include "store/inside.h"

void space_init(struct space *sp, struct mem *m, uint64_t first_block, uint64_t blocks) {
    *sp =
        (struct space){.first = first_block, .total = blocks, .groups = (uint32_t)((blocks + MAP_BITS - 1) / MAP_BITS)};
    sp->words = (uint64_t)sp->groups * MAP_WORDS;
    sp->cur = mem_alloc(m, sp->words * 8);
    sp->ckpt = mem_alloc(m, sp->words * 8);
    sp->next = mem_alloc(m, sp->words * 8);
    sp->busy = mem_alloc(m, sp->words * 8);
    sp->group = mem_alloc(m, sp->groups * sizeof *sp->group);
    for (uint64_t i = blocks; i < sp->words * 64; i++) { // beyond the end: never free; not counted in busy_count
        sp->busy[i / 64] |= UINT64_C(1) << i % 64;
        sp->group[i / MAP_BITS].busy++;
    }
}
void space_fini(struct space *sp, struct mem *m) {
    mem_free(m, sp->cur);
    mem_free(m, sp->ckpt);
    mem_free(m, sp->next);
    mem_free(m, sp->busy);
    mem_free(m, sp->group);
    mem_free(m, sp->queue);
}

// ---- bits
static bool bit(const uint64_t *map, uint64_t i) {
    return map[i / 64] >> i % 64 & 1;
}
static void busy_set(struct space *sp, uint64_t i) {
    sp->busy[i / 64] |= UINT64_C(1) << i % 64;
    sp->group[i / MAP_BITS].busy++;
    sp->busy_count++;
}
static void busy_clear(struct space *sp, uint64_t i) {
    ASSERT(bit(sp->busy, i));
    sp->busy[i / 64] &= ~(UINT64_C(1) << i % 64);
    sp->group[i / MAP_BITS].busy--;
    sp->busy_count--;
}
static void cur_set(struct space *sp, uint64_t i) {
    sp->cur[i / 64] |= UINT64_C(1) << i % 64;
    sp->group[i / MAP_BITS].dirty = true;
    sp->cur_count++;
}
static void cur_clear(struct space *sp, uint64_t i) {
    sp->cur[i / 64] &= ~(UINT64_C(1) << i % 64);
    sp->group[i / MAP_BITS].dirty = true;
    sp->cur_count--;
}
static bool inside(const struct space *sp, uint64_t block, uint32_t blocks) {
    return block >= sp->first && block - sp->first <= sp->total && blocks <= sp->total - (block - sp->first);
}

// ---- map blocks
static uint32_t map_block_crc(const struct map_block *b, uint32_t seed) {
    return crc32c(seed, &b->index, BLOCK_BYTES - 4);
}

bool space_load_group(struct space *sp, uint32_t g, uint8_t copy, const struct map_block *b, uint32_t seed) {
    if (le32_get(b->crc) != map_block_crc(b, seed) || le32_get(b->index) != g) return false;
    sp->group[g] = (struct space_group){.stale = true, .busy = sp->group[g].busy};
    sp->group[g].crc[copy] = le32_get(b->crc); // the other is written whole by the next checkpoint: stale
    for (uint32_t w = 0; w < MAP_WORDS; w++) {
        uint64_t i = (uint64_t)g * MAP_WORDS + w, v = le64_get(b->words[w]);
        if (v & sp->busy[i]) return false; // beyond the end
        sp->cur[i] = sp->ckpt[i] = sp->next[i] = v;
        sp->busy[i] |= v;
        uint32_t n = (uint32_t)__builtin_popcountll(v);
        sp->cur_count += n;
        sp->busy_count += n;
        sp->group[g].busy += n;
    }
    return true;
}
void space_encode_group(struct space *sp, uint32_t g, uint8_t copy, uint64_t generation, uint32_t seed, struct map_block *b) {
    b->index = le32_of(g);
    b->generation = le64_of(generation);
    for (uint32_t w = 0; w < MAP_WORDS; w++) b->words[w] = le64_of(sp->next[(uint64_t)g * MAP_WORDS + w]);
    sp->group[g].crc[copy] = map_block_crc(b, seed);
    b->crc = le32_of(sp->group[g].crc[copy]);
}
uint32_t space_map_crc(const struct space *sp, uint8_t copy) {
    uint32_t crc = 0;
    for (uint32_t g = 0; g < sp->groups; g++) {
        le32 c = le32_of(sp->group[g].crc[copy]);
        crc = crc32c(crc, &c, sizeof c);
    }
    return crc;
}

// ---- taking
// The first free block from i on; sp->total if there is none before the end.
static uint64_t seek_free(const struct space *sp, uint64_t i) {
    while (i < sp->total) {
        if (sp->group[i / MAP_BITS].busy == MAP_BITS) {
            i = (i / MAP_BITS + 1) * MAP_BITS;
            continue;
        }
        uint64_t free = ~sp->busy[i / 64] >> i % 64;
        if (free != 0) return i + (uint64_t)__builtin_ctzll(free);
        i = (i / 64 + 1) * 64;
    }
    return sp->total;
}
uint32_t space_take_run(struct space *sp, uint64_t *cursor, uint32_t want, uint64_t *block) {
    uint64_t at = seek_free(sp, *cursor);
    if (at == sp->total) at = seek_free(sp, 0);
    if (at == sp->total) return 0;
    uint32_t n = 0;
    while (n < want && at + n < sp->total && !bit(sp->busy, at + n)) busy_set(sp, at + n++);
    sp->held_count += n;
    *cursor = at + n;
    *block = sp->first + at;
    return n;
}
void space_untake(struct space *sp, uint64_t block, uint32_t blocks) {
    ASSERT(inside(sp, block, blocks) && sp->held_count >= blocks);
    for (uint32_t k = 0; k < blocks; k++) {
        ASSERT(!bit(sp->cur, block - sp->first + k));
        busy_clear(sp, block - sp->first + k);
    }
    sp->held_count -= blocks;
}

// ---- naming and releasing, by batches
bool space_name(struct space *sp, uint64_t block, uint32_t blocks) {
    if (!inside(sp, block, blocks)) return false;
    for (uint32_t k = 0; k < blocks; k++) {
        uint64_t i = block - sp->first + k;
        if (bit(sp->cur, i) || bit(sp->busy, i) == sp->replaying) return false;
        if (sp->replaying)
            busy_set(sp, i);
        else
            sp->held_count--;
        cur_set(sp, i);
    }
    return true;
}

static void queue_push(struct space *sp, struct mem *m, struct release r) {
    struct release *last = sp->queue_len ? &sp->queue[(sp->queue_first + sp->queue_len - 1) % sp->queue_cap] : NULL;
    if (last && last->at.n == r.at.n && last->block + last->blocks == r.block) {
        last->blocks++;
        return;
    }
    if (sp->queue_len == sp->queue_cap) {
        uint32_t cap = MAX(64u, 2 * sp->queue_cap);
        struct release *q = mem_alloc(m, cap * sizeof *q);
        for (uint32_t i = 0; i < sp->queue_len; i++) q[i] = sp->queue[(sp->queue_first + i) % sp->queue_cap];
        mem_free(m, sp->queue);
        sp->queue = q;
        sp->queue_cap = cap;
        sp->queue_first = 0;
    }
    sp->queue[(sp->queue_first + sp->queue_len++) % sp->queue_cap] = r;
}
bool space_release(struct space *sp, struct mem *m, uint64_t block, uint32_t blocks, lsn at) {
    if (!inside(sp, block, blocks)) return false;
    for (uint32_t k = 0; k < blocks; k++) {
        uint64_t i = block - sp->first + k;
        if (!bit(sp->cur, i)) return false;
        cur_clear(sp, i);
        if (mutant(MUTANT_I1) && !sp->replaying) {
            busy_clear(sp, i);
            continue;
        }
        if (bit(sp->ckpt, i) || bit(sp->next, i)) continue; // a checkpoint's end frees it
        if (sp->replaying)
            busy_clear(sp, i);
        else
            queue_push(sp, m, (struct release){at, i, 1});
    }
    return true;
}
void space_durable(struct space *sp, lsn durable) {
    while (sp->queue_len > 0) {
        struct release r = sp->queue[sp->queue_first];
        if (r.at.n > durable.n) break;
        for (uint32_t k = 0; k < r.blocks; k++) busy_clear(sp, r.block + k);
        sp->queue_first = (sp->queue_first + 1) % sp->queue_cap;
        sp->queue_len--;
    }
}

// ---- tree pages: their places are not in the journal, they come and go with checkpoints
void space_page_name(struct space *sp, uint64_t block) {
    ASSERT(!bit(sp->cur, block - sp->first));
    sp->held_count--;
    cur_set(sp, block - sp->first);
}
void space_page_release(struct space *sp, uint64_t block) {
    uint64_t i = block - sp->first;
    ASSERT(bit(sp->cur, i) && (bit(sp->ckpt, i) || bit(sp->next, i)));
    cur_clear(sp, i);
    if (mutant(MUTANT_I1)) busy_clear(sp, i);
}

// ---- checkpoints
void space_checkpoint_begin(struct space *sp) {
    for (uint32_t g = 0; g < sp->groups; g++) {
        struct space_group *gr = &sp->group[g];
        gr->writing = gr->dirty || gr->stale;
        gr->stale = gr->dirty;
        if (gr->dirty) memcpy(&sp->next[(uint64_t)g * MAP_WORDS], &sp->cur[(uint64_t)g * MAP_WORDS], MAP_WORDS * 8);
        gr->dirty = false;
    }
}
void space_checkpoint_end(struct space *sp) {
    for (uint32_t g = 0; g < sp->groups; g++) {
        struct space_group *gr = &sp->group[g];
        if (!gr->writing) continue;
        gr->writing = false;
        for (uint64_t w = (uint64_t)g * MAP_WORDS; w < ((uint64_t)g + 1) * MAP_WORDS; w++) {
            uint64_t freed = sp->ckpt[w] & ~sp->next[w] & sp->busy[w];
            ASSERT((freed & sp->cur[w]) == 0);
            uint32_t n = (uint32_t)__builtin_popcountll(freed);
            sp->busy[w] &= ~freed;
            gr->busy -= n;
            sp->busy_count -= n;
            sp->ckpt[w] = sp->next[w];
        }
    }
}
