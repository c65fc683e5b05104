// CRC32C, XXH64 and XOR against known vectors, and the fast forms against the plain ones at all alignments and lengths.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/common.h"
#include "base/sum.h"
#include <string.h>

#define LEN_MAX 300
#define ALIGNS 33
#define MARGIN 64

static uint8_t noise[4096], more_noise[4096];

static int fill(void **state) {
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
        more_noise[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    }
    return 0;
}

// ---- CRC32C: the vectors of RFC 3720, appendix B.4 ------------------------------------------------------------------

static void crc32c_known(void **state) {
    uint8_t b[32];
    uint32_t (*const forms[])(uint32_t, const void *, size_t) = {crc32c, crc32c_plain};
    for (int f = 0; f < 2; f++) {
        assert_int_equal(forms[f](0, "123456789", 9), 0xE3069283);
        assert_int_equal(forms[f](0, "", 0), 0);
        memset(b, 0, 32);
        assert_int_equal(forms[f](0, b, 32), 0x8A9136AA);
        memset(b, 0xff, 32);
        assert_int_equal(forms[f](0, b, 32), 0x62A8AB43);
        for (int i = 0; i < 32; i++) b[i] = (uint8_t)i;
        assert_int_equal(forms[f](0, b, 32), 0x46DD794E);
        for (int i = 0; i < 32; i++) b[i] = (uint8_t)(31 - i);
        assert_int_equal(forms[f](0, b, 32), 0x113FDB5C);
    }
}

static void crc32c_is_the_plain_one(void **state) {
    for (size_t align = 0; align < ALIGNS; align++)
        for (size_t len = 0; len <= LEN_MAX; len++)
            assert_int_equal(crc32c((uint32_t)len * 77, noise + align, len),
                             crc32c_plain((uint32_t)len * 77, noise + align, len));
    assert_int_equal(crc32c(0, noise, 4096), crc32c_plain(0, noise, 4096));
}

static void crc32c_chains(void **state) {
    uint32_t whole = crc32c(0, noise, LEN_MAX);
    for (size_t cut = 0; cut <= LEN_MAX; cut++)
        assert_int_equal(crc32c(crc32c(0, noise, cut), noise + cut, LEN_MAX - cut), whole);
}

// ---- XOR ------------------------------------------------------------------------------------------------------------

static void check_xor(size_t da, size_t sa, size_t len) {
    uint8_t got[MARGIN + LEN_MAX + ALIGNS + MARGIN], want[sizeof got];
    memcpy(got, more_noise, sizeof got);
    memcpy(want, more_noise, sizeof want);
    xor_into(got + MARGIN + da, noise + sa, len);
    for (size_t i = 0; i < len; i++) want[MARGIN + da + i] ^= noise[sa + i];
    assert_memory_equal(got, want, sizeof got); // and nothing beside it

    memcpy(got, more_noise, sizeof got);
    xor_into_plain(got + MARGIN + da, noise + sa, len);
    assert_memory_equal(got, want, sizeof got);

    memset(got, 0x55, sizeof got);
    xor_of(got + MARGIN + da, more_noise + MARGIN + da, noise + sa, len);
    assert_memory_equal(got + MARGIN + da, want + MARGIN + da, len);
    assert_int_equal(got[MARGIN + da - 1], 0x55);
    assert_int_equal(got[MARGIN + da + len], 0x55);
}

static void xor_is_the_plain_one(void **state) {
    for (size_t len = 0; len <= LEN_MAX; len++)
        for (size_t align = 0; align < ALIGNS; align++) {
            check_xor(align, 0, len);
            check_xor(0, align, len);
            check_xor(align, (align * 7 + len) % ALIGNS, len);
        }
}

// Arrays that lie alike take another way: every head before the first aligned byte, every length of the tail.
static void xor_of_arrays_that_lie_alike(void **state) {
    enum { ALIKE_MAX = 700, BYTES = 32 + ALIKE_MAX + 32 };
    static _Alignas(64) uint8_t a[BYTES], b[BYTES], got[BYTES], into[BYTES], want[BYTES];
    memcpy(a, noise, BYTES);
    memcpy(b, more_noise, BYTES);
    for (size_t head = 0; head < 32; head++)
        for (size_t len = 0; len <= ALIKE_MAX; len++) {
            memset(want, 0x55, BYTES);
            memset(got, 0x55, BYTES);
            memcpy(into, b, BYTES);
            for (size_t i = head; i < head + len; i++) want[i] = a[i] ^ b[i];
            xor_of(got + head, a + head, b + head, len);
            assert_memory_equal(got, want, BYTES);
            xor_into(into + head, a + head, len);
            assert_memory_equal(into + head, want + head, len);
            assert_memory_equal(into, b, head);
            assert_memory_equal(into + head + len, b + head + len, BYTES - head - len);
        }
}

static void xor_of_may_be_in_place(void **state) {
    for (size_t len = 0; len <= LEN_MAX; len++) {
        uint8_t first[LEN_MAX], second[LEN_MAX], want[LEN_MAX];
        memcpy(first, noise, LEN_MAX);
        memcpy(second, more_noise, LEN_MAX);
        for (size_t i = 0; i < len; i++) want[i] = noise[i] ^ more_noise[i];
        xor_of(first, first, more_noise, len);
        xor_of(second, noise, second, len);
        assert_memory_equal(first, want, len);
        assert_memory_equal(second, want, len);
        xor_of(first, first, first, len);
        assert_true(is_zero(first, len));
    }
}

static void one_byte_is_seen(void **state) {
    uint8_t b[LEN_MAX + ALIGNS];
    memset(b, 0, sizeof b);
    for (size_t align = 0; align < ALIGNS; align += 5)
        for (size_t len = 0; len <= LEN_MAX; len++) {
            assert_true(is_zero(b + align, len));
            for (size_t i = 0; i < len; i++) {
                b[align + i] = (uint8_t)(1 << i % 8);
                if (is_zero(b + align, len)) fail_msg("byte %zu of %zu at %zu not seen", i, len, align);
                b[align + i] = 0;
            }
            b[align + len] = 1; // just behind: not its business
            assert_true(is_zero(b + align, len));
            b[align + len] = 0;
        }
}

// ---- XXH64: vectors of the reference implementation -----------------------------------------------------------------

static void hash64_known(void **state) {
    static const struct { const char *text; uint64_t seed, hash; } known[] = {
        {"", 0, 0xEF46DB3751D8E999},
        {"a", 0, 0xD24EC4F1A98C6E5B},
        {"abc", 0, 0x44BC2CF5AD770999},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        assert_true(hash64(known[i].text, strlen(known[i].text), known[i].seed) == known[i].hash);
    // The reference's own self-test: bytes of a multiplicative generator, seed 0 and PRIME32.
    uint8_t b[222];
    uint64_t gen = 2654435761u;
    for (size_t i = 0; i < sizeof b; i++) {
        b[i] = (uint8_t)(gen >> 56);
        gen *= 11400714785074694797u;
    }
    const uint64_t prime = 2654435761u;
    assert_true(hash64(b, 1, 0) == 0xE934A84ADB052768);
    assert_true(hash64(b, 1, prime) == 0x5014607643A9B4C3);
    assert_true(hash64(b, 4, 0) == 0x9136A0DCA57457EE);
    assert_true(hash64(b, 14, 0) == 0x8282DCC4994E35C8);
    assert_true(hash64(b, 14, prime) == 0xC3BD6BF63DEB6DF0);
    assert_true(hash64(b, 222, 0) == 0xB641AE8CB691C174);
    assert_true(hash64(b, 222, prime) == 0x20CB8AB7AE10C14A);
}

static void hash64_does_not_care_for_alignment(void **state) {
    uint8_t b[LEN_MAX + ALIGNS];
    for (size_t len = 0; len <= 100; len++)
        for (size_t align = 0; align < ALIGNS; align++) {
            memcpy(b + align, noise, len);
            assert_true(hash64(b + align, len, 5) == hash64(noise, len, 5));
            if (len) assert_false(hash64(b + align, len, 5) == hash64(noise, len - 1, 5));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_known),
        cmocka_unit_test(crc32c_is_the_plain_one),
        cmocka_unit_test(crc32c_chains),
        cmocka_unit_test(xor_is_the_plain_one),
        cmocka_unit_test(xor_of_arrays_that_lie_alike),
        cmocka_unit_test(xor_of_may_be_in_place),
        cmocka_unit_test(one_byte_is_seen),
        cmocka_unit_test(hash64_known),
        cmocka_unit_test(hash64_does_not_care_for_alignment),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
