// A journal on a device of its own: which device is taken and which is refused, what is flushed when, and what the
// power-protected setting means.
#include "store/inside.h"
#include "tests/crash/store_bed.h"

static struct key k_of(uint64_t n) {
    return key_make(1, (const uint8_t *)"0123456789abcdef", n);
}
static err co_put(struct store *s, uint64_t n) {
    struct batch *b = batch_new(s);
    struct key k = k_of(n);
    uint8_t v[50] = {(uint8_t)n};
    batch_put(b, TREE_META, &k, v, sizeof v);
    lsn at;
    return co_batch_commit(b, &at);
}
static err co_sync(struct store *s) {
    return co_store_sync(s, store_now(s));
}
static void run(void (*script)(struct bed *b)) {
    struct bed b;
    bed_init(&b, 1, MIB(16));
    b.config = (struct store_config){.journal_bytes = MIB(1), .cache_bytes = MIB(1)};
    b.journal_apart = true;
    assert_true(bed_run(&b, script));
    bed_fini(&b);
}
static struct world_disk *raw(struct bed *b, const char *name) {
    return world_disk_find(b->w, name);
}
// A store with `records`, its last ones in the journal alone.
static void co_some_store(struct bed *b, uint64_t records) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint64_t n = 0; n < records; n++) assert_int_equal(co_put(b->s, n), OK);
    assert_int_equal(co_sync(b->s), OK);
    co_store_abandon(b->s);
    co_bed_disk_close(b);
}
static void co_expect_records(struct bed *b, uint64_t records) {
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(tree_records(b->s, TREE_META), records);
    assert_true(store_journal_apart(b->s) == b->journal_apart);
    co_bed_close(b);
}
static void co_disk(struct bed *b, const char *name, uint64_t size_bytes, struct disk **out) {
    struct disk_open_args a = {.path = name, .create = true, .size_bytes = size_bytes};
    assert_int_equal(disk_open(bed_env(b), &a, out), OK);
}
// Both are told the same: who looks before it opens, and who opens.
static void co_refused_with(struct bed *b, struct disk *journal, err want, const char *sentence) {
    struct disk *d;
    char why[STORE_WHY_BYTES];
    struct store_config c = {.journal = journal};
    co_disk(b, "disk", b->size_bytes, &d);
    assert_int_equal(co_store_journal_check(d, journal, why), want);
    if (!strstr(why, sentence)) fail_msg("'%s' lacks '%s'", why, sentence);
    assert_int_equal(co_store_open(d, &c, NULL, &b->s), want);
    co_disk_close(d);
}
static void co_refused(struct bed *b, const char *journal, uint64_t size_bytes, err want, const char *sentence) {
    struct disk *j;
    co_disk(b, journal, size_bytes, &j);
    co_refused_with(b, j, want, sentence);
    co_disk_close(j);
}

// ---- which journal
static void script_none_or_too_many(struct bed *b) {
    co_some_store(b, 7);
    co_refused_with(b, NULL, ERR_INVAL, "none is given: say where, with --journal");
    co_refused(b, "blank", BED_JOURNAL_BYTES, ERR_FORMAT, "there is no mendfs journal on it");
    co_expect_records(b, 7);
    b->journal_apart = false;
    world_disk_erase(raw(b, "disk"));
    co_some_store(b, 3);
    co_refused(b, "journal", BED_JOURNAL_BYTES, ERR_INVAL, "leave out the journal");
    co_expect_records(b, 3);
}
static void test_none_or_too_many(void **state) {
    run(script_none_or_too_many);
}

static void co_format_other(struct bed *b, const char *journal, const struct store_ident *id) {
    struct disk *d, *j;
    co_disk(b, "other", MIB(16), &d);
    co_disk(b, journal, BED_JOURNAL_BYTES, &j);
    assert_int_equal(co_store_format(d, id, &(struct store_config){.journal_bytes = MIB(1), .journal = j}), OK);
    co_disk_close(d);
    co_disk_close(j);
}
static void script_others(struct bed *b) {
    struct store_ident neighbour = bed_ident, stranger = bed_ident, before = bed_ident;
    neighbour.iom = 3;
    neighbour.store[0] ^= 1;
    stranger.cluster[0] ^= 1;
    before.store[0] ^= 1;
    co_some_store(b, 7);
    co_format_other(b, "journal-3", &neighbour);
    co_format_other(b, "stranger", &stranger);
    co_format_other(b, "before", &before);
    co_format_other(b, "twin", &bed_ident); // the same store, made twice
    co_refused(b, "journal-3", BED_JOURNAL_BYTES, ERR_JOURNAL, "journal of IOM 3, and the store is that of IOM 2");
    co_refused(b, "stranger", BED_JOURNAL_BYTES, ERR_JOURNAL, "another cluster");
    co_refused(b, "before", BED_JOURNAL_BYTES, ERR_JOURNAL, "another store of IOM 2");
    co_refused(b, "twin", BED_JOURNAL_BYTES, ERR_JOURNAL, "another store of IOM 2");
    co_expect_records(b, 7);
}
static void test_others(void **state) {
    run(script_others);
}

// ---- older copies
static void disk_copy(struct bed *b, const char *from, const char *to) {
    static uint8_t block[BLOCK_BYTES];
    uint64_t size_bytes = world_disk_size_bytes(raw(b, from));
    world_disk_add(b->w, to, size_bytes);
    for (uint64_t at = 0; at < size_bytes; at += BLOCK_BYTES) {
        world_disk_peek(raw(b, from), at, block, BLOCK_BYTES);
        if (!is_zero(block, BLOCK_BYTES)) world_disk_poke(raw(b, to), at, block, BLOCK_BYTES);
    }
}
static void script_older_copies(struct bed *b) {
    co_some_store(b, 7);
    disk_copy(b, "journal", "old-journal");
    disk_copy(b, "disk", "old-disk");
    co_expect_records(b, 7); // one more opening
    co_refused(b, "old-journal", BED_JOURNAL_BYTES, ERR_JOURNAL,
               "an older copy: the store was opened 1 times without it");
    co_expect_records(b, 7);
    world_disk_erase(raw(b, "disk"));
    disk_copy(b, "old-disk", "disk");
    co_refused(b, "journal", BED_JOURNAL_BYTES, ERR_JOURNAL,
               "newer than the store, which is an older copy (opened 2 times less)");
    world_disk_erase(raw(b, "journal"));
    disk_copy(b, "old-journal", "journal");
    co_expect_records(b, 7); // both old ones go together
}
static void test_older_copies(void **state) {
    run(script_older_copies);
}

// ---- damage
static void script_damaged(struct bed *b) {
    co_some_store(b, 7);
    world_disk_add(b->w, "short", BED_JOURNAL_BYTES - KIB(64));
    static uint8_t block[BLOCK_BYTES];
    for (uint64_t at = 0; at < BED_JOURNAL_BYTES - KIB(64); at += BLOCK_BYTES) {
        world_disk_peek(raw(b, "journal"), at, block, BLOCK_BYTES);
        world_disk_poke(raw(b, "short"), at, block, BLOCK_BYTES);
    }
    co_refused(b, "short", 0, ERR_TOOSMALL, "shorter than the journal that was made on it");
    for (uint64_t copy = 0; copy < 2; copy++) {
        world_disk_flip(raw(b, "journal"), copy * BLOCK_BYTES + 30, 3);
        co_expect_records(b, 7);
        struct journal_head h;
        world_disk_peek(raw(b, "journal"), copy * BLOCK_BYTES, &h, sizeof h);
        assert_int_equal(le64_get(h.incarnation), 2 + copy); // mended
    }
    for (uint64_t copy = 0; copy < 2; copy++) world_disk_flip(raw(b, "journal"), copy * BLOCK_BYTES + 30, 3);
    co_refused(b, "journal", BED_JOURNAL_BYTES, ERR_CHECKSUM, "both copies of its head are damaged");
}
static void test_damaged(void **state) {
    run(script_damaged);
}
static void script_small(struct bed *b) {
    struct disk *d, *j;
    co_disk(b, "disk", b->size_bytes, &d);
    co_disk(b, "small", BED_JOURNAL_BYTES - BLOCK_BYTES, &j);
    assert_int_equal(co_store_format(d, &bed_ident, &(struct store_config){.journal = j}), ERR_TOOSMALL);
    co_disk_close(j);
    co_disk(b, "large", MIB(64), &j); // more than is asked for: not all is used
    assert_int_equal(co_store_format(d, &bed_ident, &(struct store_config){.journal_bytes = MIB(2), .journal = j}), OK);
    struct super_block sb;
    world_disk_peek(raw(b, "disk"), 0, &sb, sizeof sb);
    assert_int_equal(le64_get(sb.journal_sectors) * JSECTOR_BYTES, MIB(2));
    assert_int_equal(store_journal_device_bytes(b->size_bytes, MIB(2)), MIB(2) + 2 * BLOCK_BYTES);
    co_disk_close(j);
    co_disk_close(d);
}
static void test_small(void **state) {
    run(script_small);
}

// ---- what is flushed
static void co_write_block(struct bed *b) {
    struct buf *buf = buf_new(bed_env(b)->mem, BLOCK_BYTES);
    struct block_io io = {{0}, buf->data, 0};
    struct batch *ba = batch_new(b->s);
    uint32_t got;
    lsn at;
    assert_int_equal(co_store_alloc(b->s, 1, false, &io.at, &got), OK);
    assert_int_equal(co_store_write_blocks(b->s, &io, 1), OK);
    batch_alloc(ba, io.at, 1);
    assert_int_equal(co_batch_commit(ba, &at), OK);
    buf_unref(buf);
}
static void flushes(struct bed *b, uint64_t disk, uint64_t journal) {
    assert_int_equal(world_disk_counts(raw(b, "disk")).flushes, disk);
    assert_int_equal(world_disk_counts(raw(b, "journal")).flushes, journal);
    world_disk_counts_reset(raw(b, "disk"));
    world_disk_counts_reset(raw(b, "journal"));
}
static void script_flushes(struct bed *b) {
    struct store_stats before, after;
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    store_stats(b->s, &before);
    world_disk_counts_reset(raw(b, "disk"));
    world_disk_counts_reset(raw(b, "journal"));
    world_options(b->w)->flush_min_ns = world_options(b->w)->flush_max_ns = MSEC(50);
    co_write_block(b);
    uint64_t begin_ns = env_now_ns(bed_env(b));
    assert_int_equal(co_sync(b->s), OK);
    assert_true(env_now_ns(bed_env(b)) - begin_ns < MSEC(60)); // side by side
    flushes(b, 1, 1);
    assert_int_equal(co_put(b->s, 1), OK); // names no block: the store's device has nothing new
    assert_int_equal(co_sync(b->s), OK);
    flushes(b, 0, 1);
    store_stats(b->s, &after);
    assert_int_equal(after.journal_flushes - before.journal_flushes, 2);
    co_bed_close(b);
}
static void test_flushes(void **state) {
    run(script_flushes);
}

// ---- power-protected devices
static void script_format(struct bed *b) {
    co_bed_format(b);
}
static void script_begin(struct bed *b) {
    assert_int_equal(co_bed_open(b), OK);
    world_disk_counts_reset(raw(b, "disk"));
    world_disk_counts_reset(raw(b, "journal"));
    co_write_block(b);
    assert_int_equal(co_put(b->s, 1), OK);
    assert_int_equal(co_sync(b->s), OK);
    assert_true(store_synced(b->s, store_now(b->s)));
}
static bool keep_nothing(void *ctx, const struct world_sector *s) {
    return false;
}
static void script_count(struct bed *b) {
    err e = co_bed_open(b);
    b->user = (void *)(uintptr_t)(e == OK ? 1 + tree_records(b->s, TREE_META) : 0);
}
// What the store believes, what is true: how many records are there after a power cut that keeps as little as it may?
static uint64_t survivors(bool believed, bool true_of_them) {
    struct bed b;
    bed_init(&b, 1, MIB(16));
    b.config = (struct store_config){.journal_bytes = MIB(1), .cache_bytes = MIB(1)};
    b.journal_apart = true;
    world_disk_protect(world_disk_add(b.w, "disk", b.size_bytes), true_of_them);
    world_disk_protect(world_disk_add(b.w, "journal", BED_JOURNAL_BYTES), true_of_them);
    assert_true(bed_run(&b, script_format));
    b.protected_disks = believed;
    assert_true(bed_run(&b, script_begin));
    if (believed)
        flushes(&b, 0, 0);
    else
        flushes(&b, 1, 1);
    world_keep_sectors(b.w, keep_nothing, NULL);
    node_power_cut(b.n);
    world_keep_sectors(b.w, NULL, NULL);
    assert_true(bed_run(&b, script_count));
    bed_fini(&b);
    uint64_t found = (uintptr_t)b.user;
    assert_int_not_equal(found, 0);
    return found - 1;
}
static void test_protected(void **state) {
    assert_int_equal(survivors(false, false), 1);
    assert_int_equal(survivors(true, true), 1);
    assert_int_equal(survivors(false, true), 1);
    assert_int_equal(survivors(true, false),
                     0); // the setting is a promise: where it is untrue, what was synced is lost
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none_or_too_many), cmocka_unit_test(test_others), cmocka_unit_test(test_older_copies),
        cmocka_unit_test(test_damaged),          cmocka_unit_test(test_small),  cmocka_unit_test(test_flushes),
        cmocka_unit_test(test_protected)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
