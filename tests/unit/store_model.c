// The trees against a sorted map: random batches in several trees, long values, deletes to empty, reopening, many
// records.
#include "tests/crash/store_bed.h"

#define TREES 3
struct model {
    uint32_t keys;
    uint16_t *len[TREES]; // of the value, plus one; 0 = absent
    uint32_t *seed[TREES];
    uint64_t rng;
};
static uint64_t rnd(struct model *m, uint64_t n) {
    uint64_t z = m->rng += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    return (z ^ z >> 31) % n;
}
static void model_init(struct model *m, uint32_t keys, uint64_t seed) {
    *m = (struct model){.keys = keys, .rng = seed};
    for (int t = 0; t < TREES; t++) {
        m->len[t] = calloc(keys, sizeof *m->len[t]);
        m->seed[t] = calloc(keys, sizeof *m->seed[t]);
    }
}
static void model_fini(struct model *m) {
    for (int t = 0; t < TREES; t++) {
        free(m->len[t]);
        free(m->seed[t]);
    }
}
static struct key k_of(uint32_t n) {
    uint8_t id[16] = {0};
    id[15] = (uint8_t)(n % 7);
    return key_make((uint8_t)(1 + n % 3), id, n);
}
static void value_of(uint8_t *p, uint32_t len, uint32_t seed) {
    for (uint32_t i = 0; i < len; i++) p[i] = (uint8_t)(seed * 2654435761u >> (i & 15)) + (uint8_t)i;
}
static void co_step(struct bed *b, struct model *m, uint32_t ops, uint32_t del_in_10, uint32_t len_max) {
    struct batch *ba = batch_new(b->s);
    for (uint32_t i = 0; i < ops; i++) {
        uint32_t t = (uint32_t)rnd(m, TREES), n = (uint32_t)rnd(m, m->keys);
        struct key k = k_of(n);
        uint8_t v[RECORD_BYTES_MAX];
        if (rnd(m, 10) < del_in_10) {
            batch_del(ba, (enum tree_id)t, &k);
            m->len[t][n] = 0;
        } else {
            uint32_t len = (uint32_t)rnd(m, len_max + 1), seed = (uint32_t)rnd(m, UINT32_MAX);
            value_of(v, len, seed);
            batch_put(ba, (enum tree_id)t, &k, v, len);
            m->len[t][n] = (uint16_t)(len + 1);
            m->seed[t][n] = seed;
        }
    }
    lsn at;
    assert_int_equal(co_batch_commit(ba, &at), OK);
}
static void check_value(struct model *m, uint32_t t, uint32_t n, const uint8_t *v, uint32_t len) {
    uint8_t want[RECORD_BYTES_MAX];
    assert_int_equal(len + 1, m->len[t][n]);
    value_of(want, len, m->seed[t][n]);
    assert_memory_equal(v, want, len);
}
static void co_compare(struct bed *b, struct model *m) {
    for (uint32_t t = 0; t < TREES; t++) {
        uint64_t want = 0, seen = 0;
        for (uint32_t n = 0; n < m->keys; n++) want += m->len[t][n] > 0;
        assert_int_equal(tree_records(b->s, (enum tree_id)t), want);
        struct key k = {{0}}, before = {{0}};
        uint8_t v[RECORD_BYTES_MAX];
        uint32_t len;
        while (co_tree_seek(b->s, (enum tree_id)t, &k, v, sizeof v, &len) == OK) {
            assert_true(seen++ == 0 || memcmp(before.b, k.b, KEY_BYTES) < 0);
            check_value(m, t, (uint32_t)key_number(&k), v, len);
            before = k;
            k = key_next(k);
        }
        assert_int_equal(seen, want);
    }
    uint64_t faults, reached;
    assert_int_equal(co_store_verify(b->s, &(struct store_verify){0}, &faults, &reached), OK);
    assert_int_equal(faults, 0);
}
static void co_clear(struct bed *b, struct model *m) {
    for (uint32_t t = 0; t < TREES; t++)
        for (uint32_t n = 0; n < m->keys;) {
            struct batch *ba = batch_new(b->s);
            for (uint32_t i = 0; i < 500 && n < m->keys; i++, n++) {
                struct key k = k_of(n);
                batch_del(ba, (enum tree_id)t, &k);
                m->len[t][n] = 0;
            }
            lsn at;
            assert_int_equal(co_batch_commit(ba, &at), OK);
        }
}

static void script_random(struct bed *b) {
    struct model *m = b->user;
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint32_t round = 0; round < 12; round++) {
        uint32_t del_in_10 = (uint32_t)rnd(m, 10), len_max = rnd(m, 2) ? 60 : RECORD_BYTES_MAX;
        for (uint32_t i = 0; i < 150; i++) co_step(b, m, 1 + (uint32_t)rnd(m, 25), del_in_10, len_max);
        co_compare(b, m);
        if (rnd(m, 2)) {
            co_bed_close(b);
        } else { // as after the death of the process alone
            assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
            co_store_abandon(b->s);
            co_bed_disk_close(b);
        }
        assert_int_equal(co_bed_open(b), OK);
        co_compare(b, m);
    }
    co_clear(b, m);
    co_compare(b, m);
    for (uint32_t t = 0; t < TREES; t++) assert_int_equal(tree_records(b->s, (enum tree_id)t), 0);
    co_bed_close(b);
}
static void test_random(void **state) {
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct bed b;
        struct model m;
        model_init(&m, seed % 2 ? 400 : 5000, seed);
        bed_init(&b, seed, MIB(128));
        b.user = &m;
        b.journal_apart = seed > 2;
        b.config.cache_bytes = MIB(1);
        assert_true(bed_run(&b, script_random));
        bed_fini(&b);
        model_fini(&m);
    }
}

static void script_many(struct bed *b) {
    struct model *m = b->user;
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint32_t n = 0; n < m->keys;) {
        struct batch *ba = batch_new(b->s);
        for (uint32_t i = 0; i < 50; i++, n++) {
            struct key k = k_of(n);
            uint8_t v[40];
            m->len[0][n] = sizeof v + 1;
            m->seed[0][n] = n;
            value_of(v, sizeof v, n);
            batch_put(ba, TREE_META, &k, v, sizeof v);
        }
        lsn at;
        assert_int_equal(co_batch_commit(ba, &at), OK);
        struct store_stats st;
        store_stats(b->s, &st);
        assert_true(st.cache_used_bytes <= MIB(4) + KIB(256));
    }
    uint64_t before = store_blocks_free(b->s);
    co_bed_close(b);
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(store_blocks_free(b->s), before);
    co_compare(b, m);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t n = (uint32_t)rnd(m, m->keys), len;
        struct key k = k_of(n);
        uint8_t v[64];
        assert_int_equal(co_tree_get(b->s, TREE_META, &k, v, sizeof v, &len), OK);
        check_value(m, 0, n, v, len);
    }
    co_clear(b, m);
    co_compare(b, m);
    co_bed_close(b);
}
static void test_200000_records_in_a_small_cache(void **state) {
    struct bed b;
    struct model m;
    model_init(&m, 200000, 9);
    bed_init(&b, 5, MIB(256));
    b.user = &m;
    b.config.cache_bytes = MIB(4);
    assert_true(bed_run(&b, script_many));
    bed_fini(&b);
    model_fini(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random),
                                       cmocka_unit_test(test_200000_records_in_a_small_cache)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
