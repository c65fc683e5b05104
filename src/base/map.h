// A hash map from 64-bit or 32-byte keys to pointers. Iteration is in order of insertion, whatever the addresses are,
// so that a node does the same thing in every run of a seed.
//
// Rules: a value is never NULL (that is how absence is told). The map does not own what it points to. While a MAP_FOR
// runs, entries may be deleted (the present one too), but nothing may be put: so never wait inside a MAP_FOR whose map
// others put into. Get, put and delete cost O(1) on the average; memory is that of the largest count so far.
#pragma once
#include "base/common.h"
#include "base/mem.h"

#define MAP_KEY32_BYTES 32

struct map { // all fields are map.c's
    struct mem *mem;
    uint8_t *entries; // key, then value; in order of insertion, holes where one was deleted
    uint32_t *index;  // open addressing: number of an entry plus one; 0 = empty
    uint32_t key_bytes, count;
    uint32_t first, used, cap; // entries: first that may be live, end, room
    uint32_t index_mask;
};

void map_init(struct map *m, struct mem *mem);       // 64-bit keys
void map_init_key32(struct map *m, struct mem *mem); // 32-byte keys
void map_fini(struct map *m);                        // frees the map alone; afterwards init again before use
void map_clear(struct map *m);                       // empty, memory kept
static inline uint32_t map_count(const struct map *m) { return m->count; }

void *map_get(const struct map *m, uint64_t key);    // NULL if absent
void *map_put(struct map *m, uint64_t key, void *value); // what was there (its place in the order stays) or NULL
void *map_del(struct map *m, uint64_t key);          // what was there, or NULL
void *map_get_key32(const struct map *m, const void *key);
void *map_put_key32(struct map *m, const void *key, void *value); // copies the key
void *map_del_key32(struct map *m, const void *key);

struct map_it {
    uint32_t next;
    uint64_t key;         // of a map with 64-bit keys
    const uint8_t *key32; // of a map with 32-byte keys; valid until the next put
    void *value;
};
bool map_next(const struct map *m, struct map_it *it); // false at the end
#define MAP_FOR(m, it) for (struct map_it it = {0}; map_next((m), &it);)
