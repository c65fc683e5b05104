// Settled blocks that rot or do not read, in service: the row gives them back where they are needed, beside whatever
// else goes on with it; clients see no error. Where two of a row are bad nothing is invented.
#include "iom/iom_inside.h"
#include "tests/unit/rot_bed.h"

static struct rows_stats stats_of(struct story *s, uint8_t iom) {
    struct rows_stats st;
    rows_stats(s->a->iom[iom].start.iom->own.rows, &st);
    return st;
}

// Each block of row 0; parity and data agree; and the same after another start.
static void row_reads(struct story *s, uint8_t d0, uint8_t d1, uint8_t d2) {
    for (unsigned i = 0; i < 2; i++) {
        if (i) stopped_and_started(s), recovery_is_told(&s->c[0]);
        reads(&s->c[0], 0, 4096, 0, d0);
        reads(&s->c[0], CHUNK, 4096, 0, d1);
        reads(&s->c[0], 2 * CHUNK, 4096, 0, d2);
        assert_int_equal(faults_of_check(s), 0);
    }
}

// ---- one bad block

static void a_read_mends(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    reads(&s.c[0], 0, 8192, 0, 1);
    assert_int_equal(stats_of(&s, r.d[0]).mended_blocks, 1);
    reads(&s.c[1], 0, 4096, 0, 1);
    assert_int_equal(stats_of(&s, r.d[0]).bad_blocks, 1);
    row_reads(&s, 1, 1, 1);
    story_end(&s);
}

// Not a whole block is read: it goes through memory. And only a part is written.
static void a_part_is_read_and_written(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    writes(&s.c[0], 100, 1000, 2);
    reads(&s.c[1], 10, 90, 0, 1);
    reads(&s.c[1], 100, 1000, 0, 2);
    does(&s.c[0], co_fsync);
    assert_int_equal(stats_of(&s, r.d[0]).mended_blocks, 1);
    reads(&s.c[0], 1100, 2996, 0, 1);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

static void a_block_that_cannot_be_read(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    struct look l = look_at(&s, r.d[1], KIND_CHUNK);
    struct row_place place;
    memcpy(&place, l.val + sizeof(struct row_chunk), sizeof place);
    world_disk_break(world_disk_find(s.w, s.a->iom[r.d[1]].disk), le48_get(place.at) * BLOCK_BYTES, BLOCK_BYTES, DISK_READ);
    starts(&s);
    reads(&s.c[0], CHUNK, 4096, 0, 1);
    assert_int_equal(stats_of(&s, r.d[1]).mended_blocks, 1);
    row_reads(&s, 1, 1, 1);
    story_end(&s);
}

static void a_parity_is_formed_over_a_bad_one(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.p);
    starts(&s);
    writes(&s.c[0], 0, 4096, 2);
    does(&s.c[0], co_fsync);
    assert_int_equal(stats_of(&s, r.p).mended_blocks, 1);
    row_reads(&s, 2, 1, 1);
    story_end(&s);
}

// ---- protections other than parity

// The file is another now; off, and its first block at its first member has rotted.
static uint8_t another_rots(struct story *s, const char *as) {
    story_begin(s, 1);
    makes_another(&s->c[0], as);
    file_is_written(s);
    idle(s, SEC(2));
    array_ask_stop(s->a);
    until(s, not_over, s);
    array_off(s->a);
    uint8_t d = geo_locate(&s->file.map, 0).data.n;
    chunk_rots(s, d);
    starts(s);
    return d;
}

static void a_mirror_mends(void **state) {
    static struct story s;
    uint8_t d = another_rots(&s, "mirror");
    reads(&s.c[0], 0, 4096, 0, 1);
    assert_int_equal(stats_of(&s, d).mended_blocks, 1);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

static void without_protection_it_is_lost(void **state) {
    static struct story s;
    uint8_t d = another_rots(&s, "none");
    reads_eio(&s.c[0], 0);
    reads(&s.c[0], 4096, 4096, 0, 1);
    assert_int_equal(stats_of(&s, d).lost_blocks, 1);
    assert_int_equal(stats_of(&s, d).mended_blocks, 0);
    story_end(&s);
}

// A truncate in the middle of a lost block once never ended, nor any recovery after it: it cannot be zeroed. It is given up.
static void a_lost_block_is_cut(void **state) {
    static struct story s;
    uint8_t d = another_rots(&s, "none");
    truncates(&s.c[0], 100);
    truncates(&s.c[0], FILE_BYTES);
    reads_eio(&s.c[0], 0);
    reads(&s.c[0], 4096, 4096, 0, 0);
    one_dies_and_is_back(&s, d);
    reads_eio(&s.c[0], 0);
    truncates(&s.c[0], 0);
    writes(&s.c[0], 0, 4096, 2);
    reads(&s.c[0], 0, 4096, 0, 2);
    story_end(&s);
}

// The row's other blocks keep theirs.
static void one_of_two_lost_blocks_is_cut(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    chunk_rots(&s, r.d[1]);
    starts(&s);
    truncates(&s.c[0], CHUNK + 100);
    reads_eio(&s.c[0], CHUNK);
    reads_eio(&s.c[0], 0);
    one_dies_and_is_back(&s, r.p);
    reads(&s.c[0], 4096, 4096, 0, 1);
    truncates(&s.c[0], 0);
    writes(&s.c[0], 0, 4096, 2);
    does(&s.c[0], co_fsync);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// ---- two bad blocks in a row

static void two_data_blocks(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    chunk_rots(&s, r.d[1]);
    starts(&s);
    reads_eio(&s.c[0], 0);
    reads_eio(&s.c[0], CHUNK);
    assert_true(stats_of(&s, r.d[0]).lost_blocks > 0 && stats_of(&s, r.d[1]).lost_blocks > 0);
    writes(&s.c[0], 2 * CHUNK, 4096, 2); // the third may be written
    does(&s.c[0], co_fsync);
    reads(&s.c[0], 2 * CHUNK, 4096, 0, 2);
    reads_eio(&s.c[0], 0);
    assert_true(faults_of_check(&s) > 0);
    story_end(&s);
}

// The row stays without parity; all that is good in it can be read and written, and so can everything else.
static void a_data_block_and_the_parity(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    chunk_rots(&s, r.p);
    starts(&s);
    reads_eio(&s.c[0], 0);
    for (uint8_t i = 2; i < 4; i++) {
        writes(&s.c[0], CHUNK, 4096, i);
        does(&s.c[0], co_fsync);
        reads(&s.c[0], CHUNK, 4096, 0, i);
    }
    writes(&s.c[0], 4096, 4096, 4);
    does(&s.c[0], co_fsync);
    stopped_and_started(&s);
    recovery_is_told(&s.c[0]);
    reads_eio(&s.c[0], 0);
    reads(&s.c[0], CHUNK, 4096, 0, 3);
    reads(&s.c[0], 2 * CHUNK, 4096, 0, 1);
    reads(&s.c[0], 4096, 4096, 0, 4);
    assert_true(faults_of_check(&s) > 0);
    story_end(&s);
}

// ---- beside other things

// Somebody writes another block of the row all the time, each write settled before the next.
static bool over;
static uint64_t written_at;
static err co_writes_on(struct client *c) {
    for (uint8_t i = 2; !over; i = (uint8_t)(i + 1 ? i + 1 : 2)) {
        c->off = written_at;
        c->len = 4096;
        c->byte = i;
        err e = co_write(c);
        if (e != OK) return e;
    }
    return OK;
}
static err co_toughen(struct client *c) {
    struct mx_op op = {0};
    return co_mx_setxattr(c->mx, &op, c->story->file.handle, "user.mendfs.toughness", "2", 1, 0);
}
static void writes_on(struct client *c, uint64_t at) {
    does(c, co_toughen);
    over = false;
    written_at = at;
    begins(c, co_writes_on);
}

static void a_row_that_goes_on(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    world_options(s.w)->net_max_ns = MSEC(20); // what P asks for has often gone on when it is asked
    writes_on(&s.c[1], CHUNK);
    idle(&s, MSEC(500));
    reads(&s.c[0], 0, 4096, 0, 1);
    assert_int_equal(stats_of(&s, r.d[0]).mended_blocks, 1);
    uint64_t settled = stats_of(&s, r.p).settled;
    idle(&s, SEC(1));
    assert_true(stats_of(&s, r.p).settled > settled); // and it goes on afterwards
    over = true;
    ends(&s.c[1]);
    reads(&s.c[0], CHUNK, 4096, 0, s.c[1].byte);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// One member takes so long to read its block that the row has gone on each time: in the end P waits for it.
static void a_row_that_goes_on_faster(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    writes_on(&s.c[1], 2 * CHUNK);
    idle(&s, MSEC(300));
    s.c[0].off = 0;
    s.c[0].len = 4096;
    begins(&s.c[0], co_read);
    struct world_disk *slow = world_disk_find(s.w, s.a->iom[r.d[1]].disk);
    unsigned rounds = 0;
    for (; s.c[0].busy && rounds < 40; rounds++) {
        world_disk_hang(slow, true);
        idle(&s, MSEC(200));
        world_disk_hang(slow, false);
        idle(&s, USEC(50));
    }
    assert_in_range(rounds, 4, 20);
    ends(&s.c[0]);
    assert_int_equal(stats_of(&s, r.d[0]).mended_blocks, 1);
    uint64_t settled = stats_of(&s, r.p).settled;
    idle(&s, SEC(1));
    assert_true(stats_of(&s, r.p).settled > settled + 2); // and the row goes on afterwards
    over = true;
    ends(&s.c[1]);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

static void two_read_it_at_once(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    for (unsigned i = 0; i < 2; i++) {
        s.c[i].off = 100;
        s.c[i].len = 2000;
        begins(&s.c[i], co_read);
    }
    for (unsigned i = 0; i < 2; i++) ends(&s.c[i]);
    assert_int_equal(stats_of(&s, r.d[0]).mended_blocks, 1);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// The object is cut while its block is being rebuilt.
static void a_cut_meanwhile(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    s.c[0].off = 0;
    s.c[0].len = 4096;
    begins(&s.c[0], co_read);
    truncate_begins(&s.c[1], 0, USEC(50));
    ends(&s.c[1]);
    until(&s, busy, &s.c[0]);
    assert_int_equal(s.c[0].why, OK);
    assert_int_equal(size_of_file(&s.c[0]), 0);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// ---- a disk that fails as a whole
// While single blocks are given back, all of them are too many: its IOM stops itself, and with it, in this version, the array.
static void a_disk_fails(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    struct sim_iom *i = &s.a->iom[r.d[1]];
    starts(&s);
    world_disk_break(world_disk_find(s.w, i->disk), 0, world_disk_size_bytes(world_disk_find(s.w, i->disk)), DISK_READ);
    for (unsigned b = 0; b < 8; b++) reads(&s.c[0], CHUNK + b * 4096, 4096, 0, 1);
    assert_false(i->over);
    s.c[0].off = 0;
    s.c[0].len = FILE_BYTES;
    begins(&s.c[0], co_read);
    idle(&s, SEC(10));
    assert_true(i->over);
    assert_int_equal(i->why, ERR_IO);
    assert_false(array_serving(s.a));
    node_crash(i->node);
    world_disk_mend(world_disk_find(s.w, i->disk));
    recovers(&s);
    ends(&s.c[0]); // what has waited goes on
    recovery_is_told(&s.c[0]);
    reads(&s.c[0], 0, FILE_BYTES, 0, 1);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// ---- power cuts: at each I/O of a repair
static struct { struct story *s; uint64_t left; bool cut; } cutting;
static void on_io(void *ctx, const struct world_io *io) {
    (void)ctx, (void)io;
    if (!cutting.left || --cutting.left) return;
    cutting.cut = true;
    array_power_cut(cutting.s->a);
}
static bool neither(void *ctx) {
    struct client *c = ctx;
    return c->busy && !cutting.cut;
}

static void power_is_cut_at_each_io(void **state) {
    static struct story s;
    for (uint64_t i = 1, cut = true; cut; i++) {
        struct row r = quiet_row(&s);
        chunk_rots(&s, r.d[0]);
        starts(&s);
        world_options(s.w)->on_io = on_io;
        cutting.s = &s;
        cutting.left = i;
        cutting.cut = false;
        write_begins(&s.c[0], 100, 1000, 2); // reads it for that
        until(&s, neither, &s.c[0]);
        idle(&s, cutting.cut ? 0 : MSEC(1));
        cutting.left = 0;
        cut = cutting.cut;
        if (cut) recovers(&s);
        until(&s, busy, &s.c[0]);
        recovery_is_told(&s.c[0]);
        reads(&s.c[0], 1100, 2996, 0, 1);
        assert_int_equal(faults_of_check(&s), 0);
        assert_true(i < 100);
        story_end(&s);
    }
}

// ---- answers and questions that are not to be believed
static struct { unsigned how; uint64_t dice; uint64_t seen; } wrong;
static void on_msg(void *ctx, struct node *from, struct node *to, const struct msg *m) {
    (void)ctx, (void)from, (void)to;
    uint8_t *body = (void *)(uintptr_t)m->body;
    struct rep_gather *b = (void *)body;
    bool reply = m->type == (MSG_GATHER | MSG_REPLY);
    if (!reply && m->type != MSG_GATHER) return;
    wrong.seen++;
    if (reply && wrong.how == 1 && m->payload.len_bytes) slice_data(m->payload)[100] ^= 1;
    if (reply && wrong.how == 2) b->rows = le16_of(0xffff);
    if (reply && wrong.how == 3) b->lost = b->rows;
    if (reply && wrong.how == 4) b->rows = le16_of(0);
    if (wrong.how < 5 || reply) return;
    for (unsigned i = 0; i < 3; i++) { // any bytes behind the envelope
        wrong.dice = wrong.dice * 6364136223846793005u + 1442695040888963407u;
        uint32_t len = m->body_len - (uint32_t)sizeof(struct envelope);
        body[sizeof(struct envelope) + (wrong.dice >> 33) % len] ^= (uint8_t)(wrong.dice >> 56);
    }
}

static void wrong_answers(void **state) {
    static struct story s;
    for (wrong.how = 1; wrong.how < 5; wrong.how++) {
        struct row r = quiet_row(&s);
        chunk_rots(&s, r.d[0]);
        starts(&s);
        world_options(s.w)->on_msg = on_msg;
        wrong.seen = 0;
        s.c[0].off = 0;
        s.c[0].len = 4096;
        begins(&s.c[0], co_read);
        until(&s, busy, &s.c[0]);
        assert_true(wrong.seen > 0);
        assert_true(s.c[0].why != OK);
        world_options(s.w)->on_msg = NULL;
        reads(&s.c[0], 0, 4096, 0, 1);
        assert_int_equal(faults_of_check(&s), 0);
        story_end(&s);
    }
}

static void bad_questions(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.d[0]);
    starts(&s);
    wrong.how = 5;
    world_options(s.w)->on_msg = on_msg;
    for (unsigned i = 0; i < 500; i++) {
        s.c[0].off = 0;
        s.c[0].len = 4096;
        begins(&s.c[0], co_read);
        until(&s, busy, &s.c[0]);
        if (s.c[0].why == OK) break; // what was changed did not matter
        for (unsigned n = 0; n < IOMS; n++) assert_false(s.a->iom[n].over);
    }
    world_options(s.w)->on_msg = NULL;
    row_reads(&s, 1, 1, 1);
    story_end(&s);
}

#define T(f) cmocka_unit_test(f)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(a_read_mends),
        T(a_part_is_read_and_written),
        T(a_block_that_cannot_be_read),
        T(a_parity_is_formed_over_a_bad_one),
        T(a_mirror_mends),
        T(without_protection_it_is_lost),
        T(a_lost_block_is_cut),
        T(one_of_two_lost_blocks_is_cut),
        T(two_data_blocks),
        T(a_data_block_and_the_parity),
        T(a_row_that_goes_on),
        T(a_row_that_goes_on_faster),
        T(two_read_it_at_once),
        T(a_cut_meanwhile),
        T(a_disk_fails),
        T(power_is_cut_at_each_io),
        T(wrong_answers),
        T(bad_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
