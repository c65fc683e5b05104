// A node's memory: what is counted, what is given back, how bufs are recycled.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/common.h"
#include "base/mem.h"
#include "tests/unit/dies.h"
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN
#endif
#endif

static struct mem *m;
static int begin(void **state) {
    m = mem_create();
    return 0;
}
static int end(void **state) {
    mem_destroy(m); // the leak checker of an ASan build sees what it forgets
    return 0;
}

static void zeroed_aligned_counted(void) {
    uint8_t *p[100];
    uint64_t sum = 0;
    for (size_t i = 0; i < 100; i++) {
        p[i] = mem_alloc(m, i * 7);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < i * 7; k++) assert_int_equal(p[i][k], 0);
        memset(p[i], 0xee, i * 7);
        sum += i * 7;
        assert_int_equal(mem_used_bytes(m), sum);
    }
    for (size_t i = 0; i < 100; i++) mem_free(m, p[99 - i]);
    mem_free(m, NULL);
    assert_int_equal(mem_used_bytes(m), 0);
}

static void allocations_are_zeroed_aligned_and_counted(void **state) {
    for (int round = 0; round < 3; round++) zeroed_aligned_counted(); // also those that were used before
}

// What realloc made is kept for others of its size, too.
static void small_ones_are_as_large_as_they_say(void **state) {
    for (size_t from = 0; from < 1100; from += 7)
        for (size_t to = from % 50; to < 1100; to += 50) {
            uint8_t *p = mem_realloc(m, mem_alloc(m, from), to);
            memset(p, 0xee, to);
            mem_free(m, p);
            p = mem_alloc(m, to + 31);
            for (size_t i = 0; i < to + 31; i++) assert_int_equal(p[i], 0);
            memset(p, 0xee, to + 31);
            mem_free(m, p);
        }
    assert_int_equal(mem_used_bytes(m), 0);
    assert_true(mem_spare_bytes(m) <= 1u << 20);
}

static void realloc_keeps_what_was_there(void **state) {
    uint8_t *p = mem_realloc(m, NULL, 10);
    void *neighbour = mem_alloc(m, 10);
    for (uint8_t i = 0; i < 10; i++) p[i] = i;
    p = mem_realloc(m, p, 100000);
    assert_int_equal(mem_used_bytes(m), 100010);
    for (uint8_t i = 0; i < 10; i++) assert_int_equal(p[i], i);
    p = mem_realloc(m, p, 5);
    assert_int_equal(mem_used_bytes(m), 15);
    for (uint8_t i = 0; i < 5; i++) assert_int_equal(p[i], i);
    mem_free(m, p);
    mem_free(m, neighbour);
    char *s = mem_strdup(m, "copy");
    assert_string_equal(s, "copy");
    assert_int_equal(mem_used_bytes(m), 5);
}

static void bufs_are_aligned_and_of_their_class(void **state) {
    static const uint32_t lens[] = {0, 1, 4096, 4097, 65536, 65537, 262144, 262145, BUF_MAX_BYTES};
    static const uint32_t caps[] = {4096, 4096, 4096, 65536, 65536, 262144, 262144, BUF_MAX_BYTES, BUF_MAX_BYTES};
    uint64_t sum = 0;
    struct buf *b[ARRAY_LEN(lens)];
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        b[i] = buf_new(m, lens[i]);
        assert_int_equal(b[i]->cap_bytes, caps[i]);
        assert_int_equal((uintptr_t)b[i]->data % BLOCK_BYTES, 0);
        memset(b[i]->data, (int)i, b[i]->cap_bytes);
        assert_int_equal(mem_used_bytes(m), sum += caps[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        assert_int_equal(b[i]->data[0], i);
        assert_int_equal(b[i]->data[caps[i] - 1], i); // no two share a byte
        buf_unref(b[i]);
    }
    assert_int_equal(mem_used_bytes(m), 0);
}

static void references_hold_a_buf(void **state) {
    struct buf *b = buf_new(m, 100);
    assert_ptr_equal(buf_ref(b), b);
    buf_unref(b);
    assert_int_equal(b->refs, 1);
    assert_int_equal(mem_used_bytes(m), 4096);
    struct slice s = {b, 10, 20};
    assert_ptr_equal(slice_data(s), b->data + 10);
    buf_unref(b);
    buf_unref(NULL);
    assert_int_equal(mem_used_bytes(m), 0);
}

// Distinct bytes for a thousand live bufs of mixed classes, freed and taken in a scrambled order.
static void many_bufs_keep_apart(void **state) {
    enum { N = 1000 };
    static struct buf *b[N];
    static uint32_t mark[N];
    uint32_t x = 7, next_mark = 1;
    memset(b, 0, sizeof b);
    for (int step = 0; step < 20000; step++) {
        uint32_t i = (x = x * 1664525u + 1013904223u) >> 8;
        i %= N;
        if (!b[i]) {
            b[i] = buf_new(m, i % 50 ? 4096 : i % 100 ? 65536 : 262144);
            mark[i] = next_mark++;
            memcpy(b[i]->data, &mark[i], 4);
            memcpy(b[i]->data + b[i]->cap_bytes - 4, &mark[i], 4);
        } else {
            assert_memory_equal(b[i]->data, &mark[i], 4);
            assert_memory_equal(b[i]->data + b[i]->cap_bytes - 4, &mark[i], 4);
            assert_int_equal(b[i]->refs, 1);
            buf_unref(b[i]);
            b[i] = NULL;
        }
    }
    uint64_t held = 0;
    for (int i = 0; i < N; i++) held += b[i] ? b[i]->cap_bytes : 0;
    assert_int_equal(mem_used_bytes(m), held);
    for (int i = 0; i < N; i++) buf_unref(b[i]);
    assert_int_equal(mem_used_bytes(m), 0);
}

// However the sizes change: what is in use and what is kept are never above the peak of what was in use.
static void spare_stays_below_the_peak(void **state) {
    enum { N = 200 };
    static struct buf *b[N];
    static const uint32_t sizes[] = {65536, 262144, BUF_MAX_BYTES, 65536};
    struct mem *own = mem_create();
    uint64_t peak = 0;
    for (size_t r = 0; r < ARRAY_LEN(sizes); r++) {
        for (int i = 0; i < N; i++) {
            b[i] = buf_new(own, sizes[r]);
            peak = MAX(peak, mem_used_bytes(own));
            assert_true(mem_used_bytes(own) + mem_spare_bytes(own) <= peak);
        }
        for (int i = 0; i < N; i++) buf_unref(b[i]);
        assert_int_equal(mem_used_bytes(own), 0);
        assert_true(mem_spare_bytes(own) <= peak);
#ifdef UNDER_ASAN
        assert_int_equal(mem_spare_bytes(own), 0);
#else
        assert_true(mem_spare_bytes(own) >= N * (uint64_t)sizes[r]); // none of it went back
#endif
    }
    mem_destroy(own);
}

#ifdef UNDER_ASAN
static void read_after_unref(void) {
    struct mem *own = mem_create();
    struct buf *b = buf_new(own, 4096);
    volatile uint8_t *data = b->data;
    buf_unref(b);
    data[0]++;
}
static void use_after_the_last_unref_is_seen(void **state) { assert_dies(read_after_unref); }
#else
static void use_after_the_last_unref_is_seen(void **state) { skip(); } // only ASan sees it
#endif

static void bufs_are_recycled(void **state) {
#ifdef UNDER_ASAN
    skip(); // ASan builds free in earnest
#endif
    static const uint32_t lens[] = {4096, 65536, 262144, BUF_MAX_BYTES};
    for (size_t c = 0; c < ARRAY_LEN(lens); c++) {
        struct buf *b = buf_new(m, lens[c]), *other = buf_new(m, lens[c]);
        uint8_t *data = b->data;
        buf_unref(b);
        b = buf_new(m, lens[c]);
        assert_ptr_equal(b->data, data); // the warmest first
        assert_int_equal(b->refs, 1);
        buf_unref(b);
        buf_unref(other);
    }
}

static void free_at_the_wrong_node(void) {
    struct mem *a = mem_create(), *b = mem_create();
    mem_free(b, mem_alloc(a, 10));
}
static void unref_once_too_often(void) {
    struct mem *own = mem_create();
    struct buf *keep = buf_new(own, 10), *b = buf_new(own, 10);
    buf_unref(b);
    buf_unref(b);
    buf_unref(keep);
}
static void buf_too_large(void) {
    struct mem *own = mem_create();
    buf_unref(buf_new(own, BUF_MAX_BYTES + 1));
}
static void misuse_aborts(void **state) {
    assert_dies(free_at_the_wrong_node);
    assert_dies(unref_once_too_often);
    assert_dies(buf_too_large);
}

static void destroy_gives_back_what_is_left(void **state) {
    struct mem *own = mem_create();
    for (int i = 0; i < 100; i++) {
        mem_alloc(own, 1000);
        buf_new(own, 4096);
        if (i % 10 == 0) buf_new(own, 65536);
    }
    mem_destroy(own);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(allocations_are_zeroed_aligned_and_counted),
        T(small_ones_are_as_large_as_they_say),
        T(realloc_keeps_what_was_there),
        T(bufs_are_aligned_and_of_their_class),
        T(references_hold_a_buf),
        T(many_bufs_keep_apart),
        T(spare_stays_below_the_peak),
        T(bufs_are_recycled),
        T(use_after_the_last_unref_is_seen),
        T(misuse_aborts),
        T(destroy_gives_back_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
