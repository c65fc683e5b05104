// Checksums and XOR, by ISA-L; the plain C forms (`*_plain`) serve other machines and as the tests' reference.
#pragma once
#include "base/common.h"

uint32_t crc32c(uint32_t seed, const void *p, size_t len_bytes); // Castagnoli, RFC 3720; seed 0 to start; chains
uint32_t crc32c_plain(uint32_t seed, const void *p, size_t len_bytes);
void xor_into(uint8_t *dst, const uint8_t *src, size_t len_bytes);                        // dst ^= src, any alignment
void xor_of(uint8_t *dst, const uint8_t *a, const uint8_t *b, size_t len_bytes);          // dst = a ^ b; dst may be a or b
void xor_into_plain(uint8_t *dst, const uint8_t *src, size_t len_bytes);
bool is_zero(const void *p, size_t len_bytes);
uint64_t hash64(const void *p, size_t len_bytes, uint64_t seed); // good mixing, fixed for ever (names on disk): XXH64
