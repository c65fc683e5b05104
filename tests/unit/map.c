// The hash map: against a plain array, in order of insertion, through growth, deletion and reuse.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/map.h"
#include <string.h>

static struct mem *mem;
static struct map m;
static char things[4096]; // their addresses serve as values

static int begin(void **state) {
    mem = mem_create();
    map_init(&m, mem);
    return 0;
}
static int end(void **state) {
    map_fini(&m);
    assert_int_equal(mem_used_bytes(mem), 0);
    mem_destroy(mem);
    return 0;
}

static void an_empty_map_has_nothing(void **state) {
    assert_null(map_get(&m, 0));
    assert_null(map_del(&m, 0));
    assert_int_equal(map_count(&m), 0);
    MAP_FOR(&m, it) fail();
    map_clear(&m);
}

static void put_get_replace_delete(void **state) {
    assert_null(map_put(&m, 0, &things[0]));
    assert_null(map_put(&m, UINT64_MAX, &things[1]));
    assert_ptr_equal(map_get(&m, 0), &things[0]);
    assert_ptr_equal(map_get(&m, UINT64_MAX), &things[1]);
    assert_null(map_get(&m, 1));
    assert_ptr_equal(map_put(&m, 0, &things[2]), &things[0]);
    assert_int_equal(map_count(&m), 2);
    assert_ptr_equal(map_del(&m, 0), &things[2]);
    assert_null(map_del(&m, 0));
    assert_null(map_get(&m, 0));
    assert_int_equal(map_count(&m), 1);
    assert_ptr_equal(map_get(&m, UINT64_MAX), &things[1]);
}

static void iteration_is_in_order_of_insertion(void **state) {
    for (uint64_t i = 0; i < 1000; i++) map_put(&m, i * 0x9E3779B97F4A7C15u, &things[i]);
    for (uint64_t i = 0; i < 1000; i += 3) map_del(&m, i * 0x9E3779B97F4A7C15u);
    map_put(&m, 1 * 0x9E3779B97F4A7C15u, &things[1]);  // again: its place stays
    map_put(&m, 0, &things[0]);                        // was deleted: goes to the end
    uint64_t want = 1, seen = 0;
    MAP_FOR(&m, it) {
        if (seen++ == 666) {
            assert_int_equal(it.key, 0);
            assert_ptr_equal(it.value, &things[0]);
            continue;
        }
        assert_true(it.key == want * 0x9E3779B97F4A7C15u);
        assert_ptr_equal(it.value, &things[want]);
        want += want % 3 == 1 ? 1 : 2;
    }
    assert_int_equal(seen, 667);
    assert_int_equal(map_count(&m), 667);
}

static void entries_may_be_deleted_while_iterating(void **state) {
    for (uint64_t i = 0; i < 100; i++) map_put(&m, i, &things[i]);
    uint64_t seen = 0;
    MAP_FOR(&m, it) {
        seen++;
        map_del(&m, it.key);
        if (it.key == 10) map_del(&m, 50); // one that is still to come
    }
    assert_int_equal(seen, 99);
    assert_int_equal(map_count(&m), 0);
}

static void against_an_array(void **state) {
    enum { KEYS = 700 };
    static void *model[KEYS];
    uint32_t count = 0, x = 99;
    memset(model, 0, sizeof model);
    for (int step = 0; step < 200000; step++) {
        x = x * 1664525u + 1013904223u;
        uint32_t k = (x >> 8) % KEYS, what = x >> 28;
        // keys that differ in high bits alone, in low bits alone
        uint64_t key = k % 2 ? (uint64_t)k << 48 : k;
        bool grow = step / 10000 % 2 == 0;
        if (what < (grow ? 8 : 3)) {
            assert_ptr_equal(map_put(&m, key, &things[step % 4096]), model[k]);
            count += !model[k];
            model[k] = &things[step % 4096];
        } else if (what < 12) {
            assert_ptr_equal(map_del(&m, key), model[k]);
            count -= model[k] != NULL;
            model[k] = NULL;
        } else assert_ptr_equal(map_get(&m, key), model[k]);
        assert_int_equal(map_count(&m), count);
    }
    uint32_t seen = 0;
    MAP_FOR(&m, it) {
        uint64_t k = it.key >> 48 ? it.key >> 48 : it.key;
        assert_ptr_equal(it.value, model[k]);
        seen++;
    }
    assert_int_equal(seen, count);
}

static void used_as_a_queue_it_does_not_grow(void **state) {
    for (uint64_t i = 0; i < 100000; i++) {
        map_put(&m, i, &things[i % 4096]);
        if (i < 20) continue;
        struct map_it it = {0};
        assert_true(map_next(&m, &it));
        assert_int_equal(it.key, i - 20);
        assert_ptr_equal(map_del(&m, it.key), &things[(i - 20) % 4096]);
    }
    assert_int_equal(map_count(&m), 20);
    assert_true(mem_used_bytes(mem) <= 64 * 16 + 128 * 4);
}

static void cleared_it_can_be_used_again(void **state) {
    for (uint64_t i = 0; i < 100; i++) map_put(&m, i, &things[i]);
    uint64_t used = mem_used_bytes(mem);
    map_clear(&m);
    assert_int_equal(map_count(&m), 0);
    for (uint64_t i = 0; i < 100; i++) assert_null(map_get(&m, i));
    for (uint64_t i = 0; i < 100; i++) map_put(&m, i, &things[i + 1]);
    for (uint64_t i = 0; i < 100; i++) assert_ptr_equal(map_get(&m, i), &things[i + 1]);
    assert_int_equal(mem_used_bytes(mem), used);
}

static void keys_of_32_bytes(void **state) {
    struct map wide;
    map_init_key32(&wide, mem);
    uint8_t key[MAP_KEY32_BYTES] = {0};
    for (uint32_t i = 0; i < 2000; i++) {
        memcpy(key + i % 8 * 4, &i, 4);
        key[31] ^= 1;
        assert_null(map_put_key32(&wide, key, &things[i]));
        memset(key, (int)(i % 251), sizeof key); // the map has its own copy
        memset(key, 0, sizeof key);
    }
    uint32_t n = 0;
    MAP_FOR(&wide, it) {
        memset(key, 0, sizeof key);
        memcpy(key + n % 8 * 4, &n, 4);
        key[31] ^= 1;
        assert_memory_equal(it.key32, key, sizeof key);
        assert_ptr_equal(it.value, &things[n]);
        assert_ptr_equal(map_get_key32(&wide, key), &things[n]);
        n++;
    }
    assert_int_equal(n, 2000);
    memset(key, 0, sizeof key);
    assert_null(map_get_key32(&wide, key));
    key[0] = 8; // i == 8
    key[31] = 1;
    assert_ptr_equal(map_del_key32(&wide, key), &things[8]);
    assert_null(map_get_key32(&wide, key));
    assert_int_equal(map_count(&wide), 1999);
    map_fini(&wide);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(an_empty_map_has_nothing),
        T(put_get_replace_delete),
        T(iteration_is_in_order_of_insertion),
        T(entries_may_be_deleted_while_iterating),
        T(against_an_array),
        T(used_as_a_queue_it_does_not_grow),
        T(cleared_it_can_be_used_again),
        T(keys_of_32_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
