// Crashes at every I/O of short lives, and long stories of many lives.
#include "tests/crash/store_story.h"

static uint64_t env_number(const char *name, uint64_t otherwise) {
    return getenv(name) ? strtoull(getenv(name), NULL, 10) : otherwise;
}

// Many lives in a row, each ended at a random I/O; the next one begins with what is left, and checks it.
// Each story is told of both places of the journal.
static void one_story(uint64_t seed, bool dense, bool heavy, bool journal_apart, uint32_t lives) {
    struct story y;
    story_init(&y, seed, dense, journal_apart);
    y.heavy = heavy;
    if (heavy) { // checkpoints take so long that the ring comes round meanwhile
        world_options(y.bed.w)->flush_min_ns = MSEC(2);
        world_options(y.bed.w)->flush_max_ns = MSEC(20);
    }
    for (uint32_t i = 0; i < lives; i++) {
        struct story_end end = {1 + story_random(&y, story_random(&y, 3) ? 150 : 25),
                                story_random(&y, 2) ? WORLD_IO_SUBMITTED : WORLD_IO_COMPLETED,
                                story_random(&y, 4) ? WORLD_CRASH_POWER : WORLD_CRASH_PROCESS,
                                story_random(&y, 5) == 0};
        story_live(&y, heavy ? 150 : 40, end);
    }
    story_live(&y, 0, (struct story_end){.k = 0});
    story_fini(&y);
}
static void test_stories(void **state) {
    uint64_t first = env_number("STORE_SEED", 1), n = env_number("STORE_SEEDS", 24);
    for (uint64_t seed = first; seed < first + n; seed++) one_story(seed, false, false, seed & 1, 12);
}
static void test_stories_in_a_full_store(void **state) {
    uint64_t first = env_number("STORE_SEED", 1), n = env_number("STORE_SEEDS", 24);
    for (uint64_t seed = first; seed < first + n; seed++) one_story(1000 + seed, true, false, seed & 1, 12);
}
static void test_stories_with_a_full_journal(void **state) {
    uint64_t first = env_number("STORE_SEED", 1), n = env_number("STORE_SEEDS", 24);
    for (uint64_t seed = first; seed < first + n; seed++) one_story(2000 + seed, false, true, seed & 1, 8);
}
// The same short life, cut at its first, second, third ... I/O, until it gets through.
static void every_io(uint64_t seed, bool journal_apart, enum world_io_moment at) {
    for (uint64_t k = 1;; k++) {
        struct story y;
        story_init(&y, seed, true, journal_apart);
        bool cut = story_live(&y, 5, (struct story_end){k, at, WORLD_CRASH_POWER, false});
        story_live(&y, 3,
                   (struct story_end){1 + k % 12, at, WORLD_CRASH_POWER, true}); // and once more while it recovers
        story_live(&y, 0, (struct story_end){.k = 0});
        story_fini(&y);
        if (!cut) return;
    }
}
static void test_every_io(void **state) {
    for (int apart = 0; apart < 2; apart++) {
        every_io(7, apart, WORLD_IO_SUBMITTED);
        every_io(8, apart, WORLD_IO_COMPLETED);
    }
}

static void co_put_number(struct bed *b, uint64_t key, uint32_t n) {
    struct batch *ba = batch_new(b->s);
    uint8_t v[900] = {(uint8_t)n, (uint8_t)(n >> 8)};
    struct key k = story_key(key);
    batch_put(ba, TREE_META, &k, v, sizeof v);
    lsn at;
    assert_int_equal(co_batch_commit(ba, &at), OK);
}
// ---- cut in a checkpoint, at each I/O, and again in the opening that follows, at each I/O
static void script_checkpoint(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(co_store_checkpoint(b->s), OK);
}
static void script_prepare(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    co_put_number(b, 1, 11);
    co_bed_close(b);
    assert_int_equal(co_bed_open(b), OK);
    co_put_number(b, 2, 12);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
}
static void script_look(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(tree_records(b->s, TREE_META), 2);
    uint64_t faults, reached;
    assert_int_equal(co_store_verify(b->s, &(struct store_verify){0}, &faults, &reached), OK);
    assert_int_equal(faults, 0);
    b->user = b;
}
static void cut_twice(uint64_t k, uint64_t j, bool journal_apart) {
    struct bed b;
    bed_init(&b, k * 100 + j, MIB(16));
    b.journal_apart = journal_apart;
    bed_run(&b, script_prepare);
    node_power_cut(b.n);
    world_crash_at_io(b.w, b.n, k, k % 2 ? WORLD_IO_SUBMITTED : WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    bed_run(&b, script_checkpoint);
    world_crash_at_io(b.w, b.n, j, WORLD_IO_SUBMITTED, WORLD_CRASH_POWER);
    bed_run(&b, script_checkpoint);
    world_crash_at_io(b.w, b.n, 0, WORLD_IO_SUBMITTED, WORLD_CRASH_POWER);
    bed_run(&b, script_look);
    assert_non_null(b.user);
    bed_fini(&b);
}
static void test_cut_twice(void **state) {
    for (uint64_t k = 1; k <= 30; k++)
        for (uint64_t j = 1; j <= 12; j++) {
            cut_twice(k, j, false);
            cut_twice(k, j, true);
        }
}

// ---- a torn tail, step by step
//   life 1   writes many units of journal in one go; the cut loses the first of them and keeps the others
//   life 2   finds nothing of it, writes one unit in that place, which is flushed; cut
//   life 3   finds that unit, and behind it the tail of life 1, of the very next sequence: not a continuation
static bool lose_first_unit(void *ctx, const struct world_sector *s) {
    uint64_t *unit = ctx;
    if (s->off_bytes < 4 * BLOCK_BYTES) return true; // superblocks
    if (*unit == 0) *unit = s->off_bytes;
    return s->off_bytes >= *unit + BLOCK_BYTES;
}
static void script_format(struct bed *b) {
    co_bed_format(b);
}
static void script_life_1(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    for (uint32_t i = 0; i < 40; i++) co_put_number(b, 1, 100 + i);
    world_crash_at_io(b->w, b->n, 1, WORLD_IO_SUBMITTED, WORLD_CRASH_POWER);
    (void)!co_store_sync(b->s, store_now(b->s));
}
static void script_life_2(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(tree_records(b->s, TREE_META), 0);
    co_put_number(b, 2, 7);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
    b->user = b;
}
static void script_life_3(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(tree_records(b->s, TREE_META), 1);
    uint8_t v[900];
    struct key k = story_key(2);
    assert_int_equal(co_tree_get(b->s, TREE_META, &k, v, sizeof v, NULL), OK);
    assert_int_equal(v[0], 7);
    co_bed_close(b);
    b->user = NULL;
}
static void test_torn_tail(void **state) {
    struct bed b;
    uint64_t unit = 0;
    bed_init(&b, 3, MIB(16));
    bed_run(&b, script_format);
    world_keep_sectors(b.w, lose_first_unit, &unit);
    assert_false(bed_run(&b, script_life_1));
    assert_int_not_equal(unit, 0);
    world_keep_sectors(b.w, NULL, NULL);
    bed_run(&b, script_life_2);
    assert_non_null(b.user);
    node_power_cut(b.n);
    bed_run(&b, script_life_3);
    assert_null(b.user);
    bed_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_torn_tail),
                                       cmocka_unit_test(test_stories),
                                       cmocka_unit_test(test_stories_in_a_full_store),
                                       cmocka_unit_test(test_stories_with_a_full_journal),
                                       cmocka_unit_test(test_every_io),
                                       cmocka_unit_test(test_cut_twice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
