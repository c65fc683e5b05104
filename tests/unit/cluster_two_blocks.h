// The register's storage for tests: two alternating blocks on a simulated disk, as a store has them.
#pragma once
#include "base/sum.h"
#include "cluster/register.h"
#include "sim/world.h"

struct two_blocks { struct disk *d; };
struct slot_head { uint64_t seq; uint32_t len, sum; };

static bool co_slot_read(struct disk *d, int i, uint8_t *p, struct slot_head *h) {
    if (co_disk_read(d, (uint64_t)i * BLOCK_BYTES, p, BLOCK_BYTES) != OK) return false;
    memcpy(h, p, sizeof *h);
    return h->len <= REGISTER_RECORD_BYTES_MAX && h->seq && crc32c((uint32_t)h->seq, p + sizeof *h, h->len) == h->sum;
}

static uint64_t co_newest(struct disk *d, uint8_t *out, uint32_t *len, int *older) {
    struct buf *b = buf_new(d->env->mem, BLOCK_BYTES);
    uint64_t best = 0;
    *len = 0;
    *older = 0;
    for (int i = 0; i < 2; i++) {
        struct slot_head h;
        if (!co_slot_read(d, i, b->data, &h) || h.seq <= best) continue;
        best = h.seq;
        *older = !i;
        *len = h.len;
        if (out) memcpy(out, b->data + sizeof h, h.len);
    }
    buf_unref(b);
    return best;
}

static err co_story_read(void *ctx, uint8_t *buf, uint32_t *len) {
    int older;
    co_newest(((struct two_blocks *)ctx)->d, buf, len, &older);
    return co_disk_flush(((struct two_blocks *)ctx)->d); // who wrote it may have died before it was
}

static err co_story_write(void *ctx, const uint8_t *buf, uint32_t len) {
    struct disk *d = ((struct two_blocks *)ctx)->d;
    int older;
    uint32_t old_len;
    struct slot_head h = {.seq = co_newest(d, NULL, &old_len, &older) + 1, .len = len};
    h.sum = crc32c((uint32_t)h.seq, buf, len);
    struct buf *b = buf_new(d->env->mem, BLOCK_BYTES);
    memset(b->data, 0, BLOCK_BYTES);
    memcpy(b->data, &h, sizeof h);
    memcpy(b->data + sizeof h, buf, len);
    err e = co_disk_write(d, (uint64_t)older * BLOCK_BYTES, b->data, BLOCK_BYTES);
    buf_unref(b);
    return e == OK ? co_disk_flush(d) : e;
}

// What making a cluster does: the first block into the store; or, into one made later, one that knows addresses alone.
static void two_blocks_put(struct world_disk *d, bool is_first, const struct cluster_map *map) {
    static uint8_t p[BLOCK_BYTES];
    struct slot_head h = {.seq = 1};
    memset(p, 0, sizeof p);
    h.len = is_first ? register_first_block(map, p + sizeof h) : register_hint_block(map, p + sizeof h);
    h.sum = crc32c(1, p + sizeof h, h.len);
    memcpy(p, &h, sizeof h);
    world_disk_poke(d, 0, p, sizeof p);
}
static void two_blocks_format(struct world *w, const char *disk, const struct cluster_map *first) {
    two_blocks_put(world_disk_add(w, disk, KIB(64)), true, first);
}
