// Tree pages as 4096-byte images: pure functions, no cache, no disk. The layout is in format.h.
// Functions other than tpage_check trust the image: it was built here or has passed tpage_check.
#pragma once
#include "base/bytes.h"
#include "store/format.h"

struct child {
    uint64_t addr;
    uint32_t crc;
};

// Order of 25-byte keys: as memcmp, by words.
static inline int key_cmp(const uint8_t *a, const uint8_t *b) {
    for (int i = 0; i < 24; i += 8) {
        uint64_t x = be64_at(a + i), y = be64_at(b + i);
        if (x != y) return x < y ? -1 : 1;
    }
    return (int)a[24] - (int)b[24];
}
static inline struct tpage_head *tpage_head(const uint8_t *p) {
    return (struct tpage_head *)(uintptr_t)p;
}
static inline uint32_t tpage_count(const uint8_t *p) {
    return le16_get(tpage_head(p)->count);
}
static inline uint32_t tpage_level(const uint8_t *p) {
    return tpage_head(p)->level;
}

void tpage_init(uint8_t *p, uint8_t tree, uint8_t level);
bool tpage_check(const uint8_t *p, uint8_t tree, uint8_t level); // safe on any bytes: may this be such a page?

uint32_t leaf_find(const uint8_t *p, const uint8_t *key, bool *found); // first slot with key >= *key
const uint8_t *leaf_key(const uint8_t *p, uint32_t i);
const uint8_t *leaf_value(const uint8_t *p, uint32_t i, uint32_t *len);
uint32_t leaf_live_bytes(const uint8_t *p); // slots and cells
static inline uint32_t leaf_cell_bytes(uint32_t len) {
    return 2 + CELL_HEAD + len;
} // with its slot
bool leaf_insert(uint8_t *p, uint32_t i, const uint8_t *key, const void *val, uint32_t len); // false: does not fit
void leaf_remove(uint8_t *p, uint32_t i);
uint32_t leaf_split_point(const uint8_t *p, uint32_t at, uint32_t len,
                          bool *left); // records that stay when one of len comes in at `at`
void leaf_move(uint8_t *from, uint32_t first,
               uint8_t *to); // records from `first` on to the end of `to`, where they fit

uint32_t inner_find(const uint8_t *p, const uint8_t *key); // the entry whose child may hold key
struct child inner_child(const uint8_t *p, uint32_t i);
const uint8_t *inner_key(const uint8_t *p, uint32_t i);
void inner_set_child(uint8_t *p, uint32_t i, struct child c);
void inner_set_key(uint8_t *p, uint32_t i, const uint8_t *key);
void inner_insert(uint8_t *p, uint32_t i, const uint8_t *key, struct child c); // fewer than INNER_MAX are there
void inner_remove(uint8_t *p, uint32_t i);
void inner_move(uint8_t *from, uint32_t first, uint8_t *to); // as leaf_move
