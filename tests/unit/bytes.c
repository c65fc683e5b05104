// Little- and big-endian integers: every byte in its place, extremes, order of big-endian keys.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/common.h"

static_assert(sizeof(le16) == 2 && sizeof(le32) == 4 && sizeof(le48) == 6 && sizeof(le64) == 8, "no padding");
static_assert(_Alignof(le16) == 1 && _Alignof(le32) == 1 && _Alignof(le48) == 1 && _Alignof(le64) == 1, "no alignment");

static void lowest_byte_is_first(void **state) {
    le16 a = le16_of(0x0102);
    le32 b = le32_of(0x01020304);
    le48 c = le48_of(0x010203040506);
    le64 d = le64_of(0x0102030405060708);
    assert_memory_equal(&a, "\2\1", 2);
    assert_memory_equal(&b, "\4\3\2\1", 4);
    assert_memory_equal(&c, "\6\5\4\3\2\1", 6);
    assert_memory_equal(&d, "\10\7\6\5\4\3\2\1", 8);
}

static void each_bit_comes_back(void **state) {
    for (int i = 0; i < 64; i++) {
        uint64_t v = (uint64_t)1 << i;
        assert_int_equal(le64_get(le64_of(v)), v);
        assert_int_equal(le64_get(le64_of(~v)), ~v);
        if (i < 48) assert_int_equal(le48_get(le48_of(v)), v);
        if (i < 32) assert_int_equal(le32_get(le32_of((uint32_t)v)), v);
        if (i < 16) assert_int_equal(le16_get(le16_of((uint16_t)v)), v);
    }
    assert_int_equal(le16_get(le16_of(UINT16_MAX)), UINT16_MAX);
    assert_int_equal(le32_get(le32_of(UINT32_MAX)), UINT32_MAX);
    assert_int_equal(le48_get(le48_of(((uint64_t)1 << 48) - 1)), ((uint64_t)1 << 48) - 1);
    assert_true(le64_get(le64_of(UINT64_MAX)) == UINT64_MAX);
}

static void forty_eight_bits_are_cut(void **state) { assert_int_equal(le48_get(le48_of(UINT64_MAX)), 0xffffffffffff); }

static void big_endian_is_ordered_by_memcmp(void **state) {
    const uint64_t v[] = {0, 1, 0xff, 0x100, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffffff,
                          0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        uint8_t a[8], b[8];
        be64_put(a, v[i]);
        assert_true(be64_at(a) == v[i]);
        if (i == 0) continue;
        be64_put(b, v[i - 1]);
        assert_true(memcmp(b, a, 8) < 0);
    }
    uint8_t p[8];
    be64_put(p, 0x0102030405060708);
    assert_memory_equal(p, "\1\2\3\4\5\6\7\10", 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_byte_is_first),
        cmocka_unit_test(each_bit_comes_back),
        cmocka_unit_test(forty_eight_bits_are_cut),
        cmocka_unit_test(big_endian_is_ordered_by_memcmp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
