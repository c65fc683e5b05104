// Scrub: what rots is found and mended without anybody reading it, beside clients, over power cuts; what cannot be
// mended is counted.
#include "iom/iom_inside.h"
#include "tests/unit/rot_bed.h"

static struct rows *rows_of(struct story *s, unsigned n) {
    return s->a->iom[n].start.iom->own.rows;
}

static struct rows_scrub look_at_scrub(struct story *s, unsigned n) {
    struct rows_scrub x;
    rows_scrub_look(rows_of(s, n), &x);
    return x;
}

static bool scrubbing(void *ctx) {
    for (unsigned n = 0; n < IOMS; n++)
        if (look_at_scrub(ctx, n).running) return true;
    return false;
}

static void scrub_begins(struct story *s, uint64_t rate) {
    for (unsigned n = 0; n < IOMS; n++) assert_int_equal(rows_scrub_start(rows_of(s, n), rate), OK);
}

// Of all IOMs together.
static struct rows_scrub scrub_ends(struct story *s) {
    struct rows_scrub sum = {0};
    until(s, scrubbing, s);
    for (unsigned n = 0; n < IOMS; n++) {
        struct rows_scrub x = look_at_scrub(s, n);
        assert_int_equal(x.result, OK);
        assert_int_equal(x.done, x.total);
        sum.rows += x.rows;
        sum.found += x.found;
        sum.mended += x.mended;
        sum.lost += x.lost;
        sum.skipped += x.skipped;
        sum.bytes += x.bytes;
    }
    return sum;
}

static struct rows_scrub scrubs(struct story *s) {
    scrub_begins(s, 0);
    return scrub_ends(s);
}

// Row 0 of some stripe rots at its k-th data member, or at its P (k = 3).
static void stripe_rots(struct story *s, uint64_t stripe, unsigned k) {
    struct place p = geo_locate(&s->file.map, (stripe * 3 + MIN(k, 2u)) * CHUNK);
    struct look l = look_at_number(s, k == 3 ? p.parity.n : p.data.n, KIND_CHUNK, p.seg);
    assert_true(l.len > sizeof(struct row_chunk));
    place_rots(s, k == 3 ? p.parity.n : p.data.n, l.val + sizeof(struct row_chunk));
}

// ---- what is found
static void nothing_is_bad(void **state) {
    static struct story s;
    quiet_row(&s);
    starts(&s);
    struct rows_scrub x = scrubs(&s);
    assert_int_equal(x.rows, 6 * 16);
    assert_int_equal(x.found + x.lost + x.skipped, 0);
    story_end(&s);
}

static void all_that_rots_is_mended(void **state) {
    static struct story s;
    quiet_row(&s);
    for (uint64_t stripe = 0; stripe < 5; stripe++) stripe_rots(&s, stripe, stripe % 4);
    starts(&s);
    struct rows_scrub x = scrubs(&s);
    assert_int_equal(x.found, 5);
    assert_int_equal(x.mended, 5);
    assert_int_equal(x.lost + x.skipped, 0);
    assert_int_equal(faults_of_check(&s), 0);
    x = scrubs(&s);
    assert_int_equal(x.found, 0);
    stopped_and_started(&s);
    assert_int_equal(faults_of_check(&s), 0);
    reads(&s.c[0], 0, FILE_BYTES, 0, 1);
    story_end(&s);
}

static void two_of_a_row_are_told(void **state) {
    static struct story s;
    quiet_row(&s);
    stripe_rots(&s, 0, 0);
    stripe_rots(&s, 0, 1);
    stripe_rots(&s, 1, 2);
    stripe_rots(&s, 2, 3);
    stripe_rots(&s, 2, 0);
    starts(&s);
    struct rows_scrub x = scrubs(&s);
    assert_int_equal(x.found, 5);
    assert_int_equal(x.mended, 1);
    assert_int_equal(x.lost, 4);
    story_end(&s);
}

// ---- all checksums match, and the parity is not the xor: its record was made for it
static struct { struct story *s; uint8_t iom; bool over; } lying;
static bool still_lying(void *ctx) {
    (void)ctx;
    return !lying.over;
}
static void lie_main(void *arg) {
    struct story *s = arg;
    struct sim_iom *i = &s->a->iom[lying.iom];
    struct disk *d;
    struct store *st;
    uint8_t id[HANDLE_BYTES], val[RECORD_BYTES_MAX], block[BLOCK_BYTES];
    uint32_t len;
    struct row_place place;
    assert_int_equal(disk_open(node_env(i->node), &(struct disk_open_args){.path = i->disk}, &d), OK);
    assert_int_equal(co_store_open(d, &i->config.store, NULL, &st), OK);
    handle_put(id, s->file.handle);
    struct key k = key_make(KIND_CHUNK, id, 0);
    assert_int_equal(co_tree_get(st, TREE_LOCAL, &k, val, sizeof val, &len), OK);
    memcpy(&place, val + sizeof(struct row_chunk), sizeof place);
    struct world_disk *w = world_disk_find(s->w, i->disk);
    world_disk_flip(w, le48_get(place.at) * BLOCK_BYTES + 5, 1);
    world_disk_peek(w, le48_get(place.at) * BLOCK_BYTES, block, sizeof block);
    place.crc = le32_of(store_crc_block(block));
    memcpy(val + sizeof(struct row_chunk), &place, sizeof place);
    struct batch *b = batch_new(st);
    batch_put(b, TREE_LOCAL, &k, val, len);
    lsn at;
    assert_int_equal(co_batch_commit(b, &at), OK);
    assert_int_equal(co_store_close(st), OK);
    co_disk_close(d);
    lying.over = true;
}

static void a_parity_that_is_not_the_xor(void **state) {
    static struct story s;
    lying.iom = quiet_row(&s).p;
    lying.over = false;
    node_start(s.a->iom[lying.iom].node, lie_main, &s);
    until(&s, still_lying, NULL);
    node_crash(s.a->iom[lying.iom].node);
    starts(&s);
    assert_true(faults_of_check(&s) > 0);
    struct rows_scrub x = scrubs(&s);
    assert_int_equal(x.found, 1);
    assert_int_equal(x.mended, 1);
    assert_int_equal(faults_of_check(&s), 0);
    reads(&s.c[0], 0, FILE_BYTES, 0, 1);
    story_end(&s);
}

// ---- beside clients
static bool over;
static err co_works(struct client *c) {
    uint64_t dice = 12345;
    for (uint8_t i = 2; !over; i = (uint8_t)(i + 1 ? i + 1 : 2)) {
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        c->off = (dice >> 33) % (FILE_BYTES - 8192);
        c->len = 1 + (uint32_t)(dice >> 20) % 8192;
        c->byte = i;
        err e = co_write(c);
        if (e == OK && i % 8 == 0) e = co_fsync(c);
        if (e != OK) return e;
    }
    return OK;
}

static void beside_writers(void **state) {
    static struct story s;
    quiet_row(&s);
    for (uint64_t stripe = 0; stripe < 5; stripe++) stripe_rots(&s, stripe, stripe % 4);
    starts(&s);
    recovery_is_told(&s.c[1]);
    over = false;
    begins(&s.c[1], co_works);
    for (unsigned i = 0; i < 10; i++) {
        struct rows_scrub x = scrubs(&s);
        assert_int_equal(x.lost + x.skipped, 0);
        assert_int_equal(x.found, x.mended);
    }
    over = true;
    ends(&s.c[1]);
    does(&s.c[1], co_fsync);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// Its rate: no more is read than that.
static void at_a_rate(void **state) {
    static struct story s;
    quiet_row(&s);
    starts(&s);
    uint64_t began = world_now_ns(s.w);
    scrub_begins(&s, KIB(256));
    idle(&s, MSEC(100));
    assert_true(scrubbing(&s));
    scrub_begins(&s, 0); // is the same one
    struct rows_scrub x = scrub_ends(&s);
    assert_in_range(world_now_ns(s.w) - began, SEC(1), SEC(30));
    assert_true(x.bytes / IOMS <= KIB(256) * ((world_now_ns(s.w) - began) / SEC(1) + 1));
    story_end(&s);
}

// The array stops in its midst; and power is cut at I/Os of it, one run each.
static void a_stop_meanwhile(void **state) {
    static struct story s;
    quiet_row(&s);
    starts(&s);
    scrub_begins(&s, KIB(64));
    idle(&s, MSEC(100));
    stopped_and_started(&s);
    assert_false(scrubbing(&s));
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

static struct { struct story *s; uint64_t left; bool cut; } cutting;
static void on_io(void *ctx, const struct world_io *io) {
    (void)ctx, (void)io;
    if (!cutting.left || --cutting.left) return;
    cutting.cut = true;
    array_power_cut(cutting.s->a);
}
static bool uncut(void *ctx) {
    return !cutting.cut && scrubbing(ctx);
}

static void power_is_cut(void **state) {
    static struct story s;
    for (uint64_t i = 1, cut = true; cut; i += 3) {
        quiet_row(&s);
        for (uint64_t stripe = 0; stripe < 5; stripe++) stripe_rots(&s, stripe, stripe % 4);
        starts(&s);
        cutting.s = &s;
        cutting.left = i;
        cutting.cut = false;
        world_options(s.w)->on_io = on_io;
        scrub_begins(&s, 0);
        until(&s, uncut, &s);
        cutting.left = 0;
        cut = cutting.cut;
        if (cut) recovers(&s);
        recovery_is_told(&s.c[0]);
        reads(&s.c[0], 0, FILE_BYTES, 0, 1);
        assert_int_equal(scrubs(&s).lost, 0);
        assert_int_equal(faults_of_check(&s), 0);
        story_end(&s);
    }
}

#define T(f) cmocka_unit_test(f)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(nothing_is_bad),
        T(all_that_rots_is_mended),
        T(two_of_a_row_are_told),
        T(a_parity_that_is_not_the_xor),
        T(beside_writers),
        T(at_a_rate),
        T(a_stop_meanwhile),
        T(power_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
