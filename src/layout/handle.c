// Handles as bytes, as inode numbers and as hashes.
//
//   bytes    0..1 array · 2 starter · 3 zero · 4..11 index · 12..15 generation      big-endian: memcmp orders handles
//   inode    bits 51..62 array · 47..50 starter · 0..46 index                       generations share it, one after the other
#include "layout/layout.h"

#include <assert.h>

static_assert(HANDLE_INDEX_END == 1ull << 47 && HANDLE_ARRAYS == 1u << 12, "the inode number packs 12 + 4 + 47 bits");
static_assert(ARRAY_IOMS_MAX == 16, "the inode number has 4 bits for the starter");

void handle_put(uint8_t out[HANDLE_BYTES], struct handle h) {
    out[0] = (uint8_t)(h.array >> 8);
    out[1] = (uint8_t)h.array;
    out[2] = h.starter;
    out[3] = 0;
    be64_put(out + 4, h.index);
    for (int i = 0; i < 4; i++) out[12 + i] = (uint8_t)(h.generation >> (24 - 8 * i));
}

struct handle handle_at(const uint8_t in[HANDLE_BYTES]) {
    struct handle h = {
        .array = (uint16_t)(in[0] << 8 | in[1]),
        .starter = in[2],
        .generation = (uint32_t)in[12] << 24 | (uint32_t)in[13] << 16 | (uint32_t)in[14] << 8 | in[15],
        .index = be64_at(in + 4),
    };
    if (in[3] != 0) h.starter = NO_IOM; // not bytes of ours: no valid handle may come of them
    return h;
}

bool handle_eq(struct handle a, struct handle b) {
    return a.index == b.index && a.generation == b.generation && a.array == b.array && a.starter == b.starter;
}

bool handle_valid(struct handle h) {
    return h.array < HANDLE_ARRAYS && h.starter < ARRAY_IOMS_MAX && h.index != 0 && h.index < HANDLE_INDEX_END;
}

uint64_t handle_inode(struct handle h) {
    ASSERT(handle_valid(h));
    return (uint64_t)h.array << 51 | (uint64_t)h.starter << 47 | h.index;
}

static uint64_t mix(uint64_t x) { // the finaliser of SplitMix64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t handle_hash(struct handle h) {
    return mix(mix(h.index) + ((uint64_t)h.array << 40 | (uint64_t)h.starter << 32 | h.generation));
}

struct handle handle_root(void) {
    return (struct handle){.array = 0, .starter = 0, .generation = 1, .index = ROOT_INDEX};
}
