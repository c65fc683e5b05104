// Checksums by ISA-L, XOR by vectors, XXH64; and the plain forms that say what they must give.
#include "base/sum.h"
#include "base/bytes.h"
#include <isa-l/crc.h>
#include <isa-l/raid.h>

// ---- CRC32C ---------------------------------------------------------------------------------------------------------

#define PIECE_BYTES ((size_t)1 << 30) // ISA-L counts in int

uint32_t crc32c(uint32_t seed, const void *p, size_t len_bytes) {
    // ISA-L's form neither inverts what it is given nor what it returns; ours does both, so that 0 starts and results
    // chain.
    uint32_t crc = ~seed;
    unsigned char *at = (unsigned char *)p; // ISA-L's prototype lacks const
    while (len_bytes > 0) {
        size_t n = MIN(len_bytes, PIECE_BYTES);
        crc = crc32_iscsi(at, (int)n, crc);
        at += n;
        len_bytes -= n;
    }
    return ~crc;
}

uint32_t crc32c_plain(uint32_t seed, const void *p, size_t len_bytes) {
    uint32_t crc = ~seed;
    for (const uint8_t *at = p, *end = at + len_bytes; at != end; at++) {
        crc ^= *at;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

// ---- XOR ------------------------------------------------------------------------------------------------------------

// ISA-L wants its arrays aligned; then it is up to five times as fast as the vectors below while all is in the
// processor's cache. Parts of blocks mostly lie alike in all three, so a short head leads to aligned ones.
#define ISAL_ALIGN ((size_t)32)
#define ISAL_MIN ((size_t)256) // below this the call costs more than it gains

typedef uint64_t vec __attribute__((vector_size(32), aligned(1), may_alias));

static void xor_vectors(uint8_t *dst, const uint8_t *a, const uint8_t *b, size_t len_bytes) {
    size_t i = 0;
    for (; i + 4 * sizeof(vec) <= len_bytes; i += 4 * sizeof(vec)) {
        const vec *x = (const vec *)(a + i), *y = (const vec *)(b + i);
        vec r0 = x[0] ^ y[0], r1 = x[1] ^ y[1], r2 = x[2] ^ y[2], r3 = x[3] ^ y[3];
        vec *d = (vec *)(dst + i);
        d[0] = r0, d[1] = r1, d[2] = r2, d[3] = r3;
    }
    for (; i < len_bytes; i++) dst[i] = a[i] ^ b[i];
}

static void xor_isal(uint8_t *dst, const uint8_t *a, const uint8_t *b, size_t len_bytes) {
    while (len_bytes > 0) {
        size_t n = MIN(len_bytes, PIECE_BYTES);
        void *arrays[3] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, dst}; // the last is written, the others read
        int failed = xor_gen(3, (int)n, arrays);
        ASSERT(!failed);
        a += n, b += n, dst += n;
        len_bytes -= n;
    }
}

void xor_of(uint8_t *dst, const uint8_t *a, const uint8_t *b, size_t len_bytes) {
    uintptr_t d = (uintptr_t)dst;
    bool alike = ((d ^ (uintptr_t)a) | (d ^ (uintptr_t)b)) % ISAL_ALIGN == 0;
    if (!alike || len_bytes < ISAL_MIN) {
        xor_vectors(dst, a, b, len_bytes);
        return;
    }
    size_t head = -d % ISAL_ALIGN;
    xor_vectors(dst, a, b, head);
    xor_isal(dst + head, a + head, b + head, len_bytes - head);
}

void xor_into(uint8_t *dst, const uint8_t *src, size_t len_bytes) { xor_of(dst, dst, src, len_bytes); }

void xor_into_plain(uint8_t *dst, const uint8_t *src, size_t len_bytes) {
    for (size_t i = 0; i < len_bytes; i++) dst[i] ^= src[i];
}

bool is_zero(const void *p, size_t len_bytes) {
    const uint8_t *at = p;
    size_t i = 0;
    for (; i + 4 * sizeof(vec) <= len_bytes; i += 4 * sizeof(vec)) {
        const vec *v = (const vec *)(at + i);
        vec any = v[0] | v[1] | v[2] | v[3];
        if (any[0] | any[1] | any[2] | any[3]) return false;
    }
    for (; i < len_bytes; i++)
        if (at[i]) return false;
    return true;
}

// ---- XXH64 (Yann Collet's algorithm, written from its specification) ------------------------------------------------

#define XXH_P1 0x9E3779B185EBCA87u
#define XXH_P2 0xC2B2AE3D27D4EB4Fu
#define XXH_P3 0x165667B19E3779F9u
#define XXH_P4 0x85EBCA77C2B2AE63u
#define XXH_P5 0x27D4EB2F165667C5u

static uint64_t rotl(uint64_t v, int n) { return v << n | v >> (64 - n); }
static uint64_t le64_at(const uint8_t *p) {
    le64 v;
    memcpy(&v, p, sizeof v);
    return le64_get(v);
}
static uint32_t le32_at(const uint8_t *p) {
    le32 v;
    memcpy(&v, p, sizeof v);
    return le32_get(v);
}
static uint64_t xxh_round(uint64_t acc, uint64_t input) { return rotl(acc + input * XXH_P2, 31) * XXH_P1; }

static uint64_t xxh_lanes(const uint8_t **p, const uint8_t *end, uint64_t seed) {
    uint64_t v[4] = {seed + XXH_P1 + XXH_P2, seed + XXH_P2, seed, seed - XXH_P1};
    for (; end - *p >= 32; *p += 32)
        for (int i = 0; i < 4; i++) v[i] = xxh_round(v[i], le64_at(*p + 8 * i));
    uint64_t h = rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18);
    for (int i = 0; i < 4; i++) h = (h ^ xxh_round(0, v[i])) * XXH_P1 + XXH_P4;
    return h;
}

static uint64_t xxh_tail(const uint8_t *p, const uint8_t *end, uint64_t h) {
    for (; end - p >= 8; p += 8) h = rotl(h ^ xxh_round(0, le64_at(p)), 27) * XXH_P1 + XXH_P4;
    if (end - p >= 4) {
        h = rotl(h ^ le32_at(p) * XXH_P1, 23) * XXH_P2 + XXH_P3;
        p += 4;
    }
    for (; p < end; p++) h = rotl(h ^ *p * XXH_P5, 11) * XXH_P1;
    return h;
}

uint64_t hash64(const void *p, size_t len_bytes, uint64_t seed) {
    const uint8_t *at = p, *end = at + len_bytes;
    uint64_t h = len_bytes >= 32 ? xxh_lanes(&at, end, seed) : seed + XXH_P5;
    h = xxh_tail(at, end, h + len_bytes);
    h = (h ^ h >> 33) * XXH_P2;
    h = (h ^ h >> 29) * XXH_P3;
    return h ^ h >> 32;
}
