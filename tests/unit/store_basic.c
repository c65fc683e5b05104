// The store as its users see it: records in and out, durability, blocks, reopening.
#include "tests/crash/store_bed.h"

static struct key k_of(uint64_t n) {
    return key_make(1, (const uint8_t *)"0123456789abcdef", n);
}

static void co_put(struct store *s, enum tree_id t, uint64_t n, const char *text) {
    struct batch *b = batch_new(s);
    struct key k = k_of(n);
    batch_put(b, t, &k, text, (uint32_t)strlen(text));
    lsn at;
    assert_int_equal(co_batch_commit(b, &at), OK);
}
static void co_expect(struct store *s, enum tree_id t, uint64_t n, const char *text) {
    char v[64];
    uint32_t len;
    struct key k = k_of(n);
    err e = co_tree_get(s, t, &k, v, sizeof v, &len);
    if (text == NULL) {
        assert_int_equal(e, ERR_NOENT);
        return;
    }
    assert_int_equal(e, OK);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(v, text, len);
}

static void script_first(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(store_incarnation(b->s), 1);
    for (uint64_t i = 0; i < 1000; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %llu", (unsigned long long)i * 7);
        co_put(b->s, TREE_META, i, text);
    }
    co_put(b->s, TREE_LOCAL, 5, "local");
    co_expect(b->s, TREE_META, 10, "value 70");
    co_expect(b->s, TREE_META, 1000, NULL);
    co_expect(b->s, TREE_LOCAL, 5, "local");
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
}
static void script_second(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(store_incarnation(b->s), 2);
    assert_int_equal(tree_records(b->s, TREE_META), 1000);
    co_expect(b->s, TREE_META, 999, "value 6993");
    co_expect(b->s, TREE_LOCAL, 5, "local");
    co_put(b->s, TREE_META, 999, "other");
    assert_int_equal(co_store_checkpoint(b->s), OK);
    co_put(b->s, TREE_META, 998, "after");
    co_bed_close(b);
}
static void script_third(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    co_expect(b->s, TREE_META, 999, "other");
    co_expect(b->s, TREE_META, 998, "after");
    co_expect(b->s, TREE_META, 0, "value 0");
    struct key k = k_of(997);
    char v[64];
    uint32_t len, seen = 0;
    while (co_tree_seek(b->s, TREE_META, &k, v, sizeof v, &len) == OK) {
        seen++;
        k = key_next(k);
    }
    assert_int_equal(seen, 3);
    uint64_t faults, reached;
    assert_int_equal(co_store_verify(b->s, &(struct store_verify){0}, &faults, &reached), OK);
    assert_int_equal(faults, 0);
    co_bed_close(b);
}
static void test_records_survive(void **state) {
    struct bed b;
    bed_init(&b, 1, MIB(64));
    assert_true(bed_run(&b, script_first));
    node_power_cut(b.n);
    assert_true(bed_run(&b, script_second));
    assert_true(bed_run(&b, script_third));
    bed_fini(&b);
}

// A store of several map blocks, of which most lie idle over some checkpoints while others change: each copy of the map has blocks of different ages.
static block_addr co_take_blocks(struct store *s, uint32_t blocks) {
    block_addr at = {0}, first = {0};
    for (uint32_t got = 0, n; got < blocks; got += n) {
        assert_int_equal(co_store_alloc(s, MIN(blocks - got, 4096u), false, &at, &n), OK);
        if (!first.n) first = at;
        struct batch *b = batch_new(s);
        batch_alloc(b, at, n);
        lsn l;
        assert_int_equal(co_batch_commit(b, &l), OK);
    }
    return first;
}
static void script_many_groups(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint32_t i = 0; i < 7; i++) { // through the store, a checkpoint each: what is behind lies idle from then on
        co_take_blocks(b->s, 20000);
        assert_int_equal(co_store_checkpoint(b->s), OK);
        if (i % 2) assert_int_equal(co_store_checkpoint(b->s), OK);
    }
    co_put(b->s, TREE_META, 1, "here");
    co_bed_close(b);
}
static void script_many_groups_again(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    co_expect(b->s, TREE_META, 1, "here");
    co_take_blocks(b->s, 100);
    assert_int_equal(co_store_checkpoint(b->s), OK);
    co_bed_close(b);
}
static void test_many_groups(void **state) {
    struct bed b;
    bed_init(&b, 2, GIB(1));
    assert_true(bed_run(&b, script_many_groups));
    for (uint32_t i = 0; i < 3; i++) assert_true(bed_run(&b, script_many_groups_again));
    bed_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_records_survive), cmocka_unit_test(test_many_groups)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
