// The check of everything: reads every page from the disk again, whatever is in memory, and compares what the trees and
// their records reach with what the allocator says. On a quiet store; a checkpoint first makes disk and memory the
// same.
#include "store/inside.h"
#include <stdio.h>

struct verify {
    struct store *s;
    const struct store_verify *v;
    enum tree_id tree;
    uint64_t faults, reached, records;
    uint64_t *seen;    // bit per block
    struct buf *pages; // one for each level
    const uint8_t *key;
};
static void fault(struct verify *v, const char *what, uint64_t block) {
    char line[160];
    v->faults++;
    snprintf(line, sizeof line, "tree %d: block %llu: %s", v->tree, (unsigned long long)block, what);
    if (v->v->fault) v->v->fault(v->v->ctx, line);
}
static void reach(void *arg, block_addr at, uint32_t blocks) {
    struct verify *v = arg;
    const struct space *sp = &v->s->space;
    for (uint64_t n = at.n; n < at.n + blocks; n++) {
        if (n < sp->first || n - sp->first >= sp->total) {
            fault(v, "is referred to but lies outside the data area", n);
            continue;
        }
        uint64_t i = n - sp->first;
        if (v->seen[i / 64] >> i % 64 & 1) fault(v, "is referred to twice", n);
        v->seen[i / 64] |= UINT64_C(1) << i % 64;
        v->reached++;
    }
}
static bool within(const uint8_t *key, const uint8_t *from, const uint8_t *below) {
    return (from == NULL || key_cmp(key, from) >= 0) && (below == NULL || key_cmp(key, below) < 0);
}
static void check_leaf(struct verify *v, const uint8_t *p, uint64_t block, const uint8_t *from, const uint8_t *below) {
    if (tpage_count(p) == 0) fault(v, "is an empty leaf", block);
    for (uint32_t i = 0; i < tpage_count(p); i++) {
        uint32_t len;
        struct key k;
        memcpy(k.b, leaf_key(p, i), KEY_BYTES);
        const uint8_t *val = leaf_value(p, i, &len);
        if (!within(k.b, from, below)) fault(v, "holds a key that its parent puts elsewhere", block);
        if (v->v->refs) v->v->refs(v->v->ctx, v->tree, &k, val, len, reach, v);
        v->records++;
    }
}
// Everything at and below child c: keys from `from` on and below `below` (NULL: no bound).
static err co_check_page(struct verify *v, struct child c, uint8_t level, const uint8_t *from, const uint8_t *below) {
    uint8_t *p = v->pages->data + level * BLOCK_BYTES;
    reach(v, (block_addr){c.addr}, 1);
    err e = co_disk_read(v->s->d, c.addr * BLOCK_BYTES, p, BLOCK_BYTES);
    if (e != OK || crc32c(0, p, BLOCK_BYTES) != c.crc || !tpage_check(p, (uint8_t)v->tree, level)) {
        fault(v, e != OK ? "is a tree page that cannot be read" : "is a damaged tree page", c.addr);
        return OK;
    }
    if (level == 0) {
        check_leaf(v, p, c.addr, from, below);
        return OK;
    }
    for (uint32_t i = 0; i < tpage_count(p); i++) {
        if (i > 0 && !within(inner_key(p, i), from, below))
            fault(v, "holds a key that its parent puts elsewhere", c.addr);
        e = co_check_page(v, inner_child(p, i), level - 1, i > 0 ? inner_key(p, i) : from,
                          i + 1 < tpage_count(p) ? inner_key(p, i + 1) : below);
        if (e != OK) return e;
    }
    return OK;
}
static err co_check_trees(struct verify *v) {
    for (int t = 0; t < TREE_COUNT; t++) {
        const struct tree tr = v->s->trees[t];
        v->tree = (enum tree_id)t;
        v->records = 0;
        if (tr.levels == 0) continue;
        err e = co_check_page(v, tr.root, tr.levels - 1, NULL, NULL);
        if (e != OK) return e;
        if (v->records != tr.records)
            fault(v, "is the root of a tree with another number of records than it says", tr.root.addr);
    }
    return OK;
}
static void check_allocator(struct verify *v) {
    const struct space *sp = &v->s->space;
    for (uint64_t w = 0; w < sp->words; w++)
        for (uint64_t diff = sp->cur[w] ^ v->seen[w]; diff != 0; diff &= diff - 1) {
            uint64_t i = w * 64 + (uint64_t)__builtin_ctzll(diff);
            bool leaked = sp->cur[w] >> i % 64 & 1;
            fault(v, leaked ? "is allocated and nothing refers to it" : "is referred to and not allocated",
                  sp->first + i);
        }
}
err co_store_verify(struct store *s, const struct store_verify *v, uint64_t *faults, uint64_t *blocks_reached) {
    err e = co_store_checkpoint(s);
    if (e != OK) return e;
    if (s->cache.dirty > 0) return ERR_BUSY; // somebody is at work
    struct verify c = {.s = s, .v = v};
    c.seen = mem_alloc(s->mem, s->space.words * 8);
    c.pages = buf_new(s->mem, TREE_LEVELS_MAX * BLOCK_BYTES);
    e = co_check_trees(&c);
    if (e == OK && v->refs) check_allocator(&c);
    *faults = c.faults;
    *blocks_reached = c.reached;
    buf_unref(c.pages);
    mem_free(s->mem, c.seen);
    return e;
}
