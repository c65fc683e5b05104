// Truncates beside faults, told one story at a time: a whole array and two clients in the simulated world. Each of these once lost or changed bytes, or hung.
#include "tests/unit/story.h"

#include "iom/iom_inside.h"

// A write goes out in several pieces; a truncate discards while some are with the IOMs and some are not. A piece that waited for
// its row over the discard was once taken afterwards: the file grew again with nobody writing.
static void a_write_straddles_a_discard(uint64_t seed) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, seed);
    file_is_written(&s);
    stopped_and_started(&s);
    (void)size_of_file(&c[1]);
    uint64_t cut = world_random_below(s.w, 900000), after_ns = world_random_below(s.w, MSEC(6));
    write_begins(&c[0], 13, FILE_BYTES - 100, 2);
    truncate_begins(&c[1], cut, after_ns);
    ends(&c[0]);
    ends(&c[1]);
    uint64_t size = size_of_file(&c[1]);
    assert_true(size == cut || size == 13 + FILE_BYTES - 100); // either was the last
    idle(&s, SEC(3));
    assert_int_equal(size_of_file(&c[1]), size);
    truncates(&c[1], FILE_BYTES); // what is beyond it reads as zeros
    idle(&s, SEC(1));
    does(&c[0], co_fsync);
    reads(&c[0], 0, FILE_BYTES, (uint32_t)size, 0);
    story_end(&s);
}
static void straddle_4(void **state) { a_write_straddles_a_discard(4); }
static void straddle_75(void **state) { a_write_straddles_a_discard(75); }

// The file has been truncated once and written again. A bystander dies (a stop: what is held is written down), later once more, with a write between them that
// brings rows back without their object loaded: the count of truncates in CNODE2 once went back to 0. Then a write that is acknowledged by data and parity
// is in the memory of both; the IOM of its data dies, and parity alone must give it back.
static void an_acknowledged_write_after_two_stops(uint64_t seed) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin(&s, seed);
    file_is_written(&s);
    truncates(c, 0);
    file_is_written(&s);
    idle(&s, SEC(2));
    const struct place first = geo_locate(&s.file.map, 0);
    uint8_t bystander = 0, victim = first.parity.n;
    while (bystander == victim || bystander == first.data.n) bystander++;
    one_dies_and_is_back(&s, bystander);
    idle(&s, SEC(1));
    writes(c, 0, 4096, 5);
    one_dies_and_is_back(&s, bystander);
    idle(&s, SEC(1));
    uint64_t off = 0;
    while (geo_locate(&s.file.map, off).data.n != victim) off += 4096;
    writes(c, off, 4096, 6);
    idle(&s, MSEC(20));
    one_dies_and_is_back(&s, victim);
    reads(c, off, 4096, 0, 6);
    story_end(&s);
}

static void two_stops_1(void **state) { an_acknowledged_write_after_two_stops(1); }
static void two_stops_2(void **state) { an_acknowledged_write_after_two_stops(2); }

// A truncate cannot end, one of its members does not answer; meanwhile the file loses its name, and nobody has it open. Then the array crashes. Recovery has the
// orphan and the open truncate: once, clearing the orphan waited for the truncate, which waited for recovery.
static void begin_unlink_beside_truncate(struct story *s, void (*stop_member)(struct node *n), uint64_t *free_before) {
    struct client *c = s->c;
    story_begin(s, 1);
    *free_before = free_blocks(&c[0]);
    file_is_written(s);
    idle(s, SEC(1));
    assert_true(free_blocks(&c[0]) < *free_before);
    does(&c[0], co_close);
    does(&c[1], co_close);
    idle(s, SEC(1));
    stop_member(s->a->iom[2].node);
    truncate_begins(&c[1], 5 * 4096, 0);
    idle(s, MSEC(100));
    assert_true(c[1].busy);
    does(&c[0], co_unlink);
}

static void end_unlink_beside_truncate(struct story *s, uint64_t free_before) {
    recovers(s);
    until(s, busy, &s->c[1]); // the truncate has its answer, whichever
    idle(s, SEC(5));
    assert_int_equal(free_blocks(&s->c[0]), free_before); // the object is cleared away
    story_end(s);
}

static void unlink_beside_truncate_power_cut(void **state) {
    static struct story s;
    uint64_t free_before;
    begin_unlink_beside_truncate(&s, node_pause, &free_before);
    array_power_cut(s.a);
    idle(&s, MSEC(100));
    end_unlink_beside_truncate(&s, free_before);
}

static void unlink_beside_truncate_one_dies(void **state) {
    static struct story s;
    uint64_t free_before;
    begin_unlink_beside_truncate(&s, node_crash, &free_before);
    end_unlink_beside_truncate(&s, free_before);
}

// A member is dead when the truncate comes, and its client sleeps through the recovery, which does the truncate to its end. Another client writes and fsyncs.
// Then the first wakes and asks again: it was once done a second time, and took what the other had been promised.
static void a_truncate_is_done_once(void **state) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, 1);
    file_is_written(&s);
    idle(&s, SEC(1));
    node_crash(s.a->iom[2].node);
    truncate_begins(&c[1], 0, 0);
    idle(&s, MSEC(50));
    assert_true(c[1].busy);
    node_pause(c[1].node);
    recovers(&s);
    assert_int_equal(size_of_file(&c[0]), 0);
    writes(&c[0], 0, 4096, 7);
    does(&c[0], co_fsync);
    assert_int_equal(size_of_file(&c[0]), 4096);
    node_resume(c[1].node);
    ends(&c[1]);
    assert_int_equal(size_of_file(&c[0]), 4096);
    reads(&c[0], 0, 4096, 0, 7);
    story_end(&s);
}

// A write is on its way to P while the two cannot talk; the file is cut nine times, each time farther from its beginning, and grows again between. What of that write
// comes after all is void: P once remembered eight cuts, and took it.
static void many_cuts_over_a_delta_under_way(void **state) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, 1);
    file_is_written(&s);
    idle(&s, SEC(1));
    const uint64_t stripe = geo_data(&s.file.map) * refmap_quantum(&s.file.map);
    uint64_t off = stripe; // in the first stripe that all cuts but the first leave alone
    struct place at = geo_locate(&s.file.map, off);
    while (at.data.n == 0 || at.parity.n == 0) at = geo_locate(&s.file.map, off += refmap_quantum(&s.file.map)); // IOM 0 has to reach all
    assert_int_equal(at.stripe, 1);
    struct node *d = s.a->iom[at.data.n].node, *p = s.a->iom[at.parity.n].node;
    world_cut_link(d, p, false);
    write_begins(&c[0], off, 4096, 2);
    idle(&s, MSEC(5));
    for (unsigned i = 1; i <= 9; i++) {
        truncates(&c[1], i * stripe);
        truncates(&c[1], 16 * stripe);
    }
    world_heal_link(d, p);
    ends(&c[0]);
    does(&c[0], co_fsync);
    writes(&c[0], off, 4096, 3);
    does(&c[0], co_fsync);
    reads(&c[0], off, 4096, 0, 3);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// A client has a file open and falls asleep; its session expires, the file is deleted, the array starts anew and knows nothing of it. Then the client wakes up and
// writes. What it wrote was once kept for ever: no end could be made durable for it, and nobody told those who held it.
static void a_write_to_what_is_forgotten(void **state) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, 1);
    uint64_t free_before = free_blocks(&c[0]);
    file_is_written(&s);
    node_pause(c[1].node);
    does(&c[0], co_close);
    does(&c[0], co_unlink);
    idle(&s, SEC(400));
    assert_int_equal(free_blocks(&c[0]), free_before);
    stopped_and_started(&s);
    node_resume(c[1].node);
    write_begins(&c[1], FILE_BYTES, 65536, 2);
    until(&s, busy, &c[1]);
    idle(&s, SEC(3));
    assert_int_equal(free_blocks(&c[0]), free_before);
    assert_int_equal(faults_of_check(&s), 0); // which has all IOMs settle what they hold
    assert_int_equal(free_blocks(&c[0]), free_before);
    story_end(&s);
}

// A file is made and written, and the two that know its creation lose their power; the others put on disk what they hold of it. They once kept an entry of the object
// for ever. If the array is cut off once more amid the recovery, or just after it, they still find out.
// `whole`: the data and the parity of what is written is with the others alone.
static void both_that_know_it_die(struct story *s, bool whole) {
    story_begin(s, 1);
    file_is_written(s); // sessions, which are durable, are there
    idle(s, MSEC(1300));
    makes_another(&s->c[0], "parity");
    uint8_t starter = s->file.handle.starter, copy = iom_map(s->a->iom[0].start.iom)->iom[starter].proxy;
    uint32_t chunk = (uint32_t)refmap_quantum(&s->file.map);
    for (uint32_t i = 0; i < 4 * IOMS; i++) {
        struct place at = geo_locate(&s->file.map, i * chunk);
        bool hit = at.data.n == starter || at.data.n == copy || at.parity.n == starter || at.parity.n == copy;
        if (!whole || !hit) writes(&s->c[0], i * chunk, 4096, 1); // little, or it hardens at once
    }
    array_iom_dies(&s->a->iom[starter], true);
    array_iom_dies(&s->a->iom[copy], true);
    for (uint8_t i = 0; i < s->a->ioms; i++) s->a->iom[i].serving = false;
    idle(s, MSEC(20));
}

static uint64_t faults_at_rest(struct story *s) {
    struct oracle *o = oracle_create();
    array_ask_stop(s->a);
    until(s, not_over, s);
    array_off(s->a);
    audit_stores(s->a, o);
    uint64_t n = oracle_faults(o);
    if (n && getenv("STORY_TRACE")) fprintf(stderr, "at rest: %s\n", oracle_first_fault(o));
    oracle_destroy(o);
    return n;
}

static void a_creation_goes(bool whole, uint64_t cut_after_ns) {
    static struct story s;
    struct client *c = &s.c[0];
    both_that_know_it_die(&s, whole);
    array_start(s.a);
    if (cut_after_ns) {
        idle(&s, cut_after_ns);
        array_power_cut(s.a);
    }
    recovers(&s);
    begins(c, co_stat);
    until(&s, busy, c);
    assert_int_equal(c->why, ERR_STALE);
    idle(&s, SEC(1));
    assert_int_equal(faults_at_rest(&s), 0);
    story_end(&s);
}

static void a_creation_is_lost(void **state) {
    for (int whole = 0; whole <= 1; whole++)
        for (uint64_t ns = 0; ns < MSEC(500); ns += MSEC(10)) a_creation_goes(whole, ns);
}

// More appends at once than an MX has slots at the starter. Each holds one while it sends its data, which needs slots too.
#define APPENDS 200u
#define APPEND_BYTES 100u // all of them in the chunk that lies there
struct appends {
    struct client *c;
    struct group all;
};

static void append_main(void *arg) {
    struct appends *a = arg;
    struct mx_op op = {0};
    uint64_t at;
    struct buf *b = buf_new(node_env(a->c->node)->mem, APPEND_BYTES);
    memset(b->data, 7, APPEND_BYTES);
    err e = co_mx_append(a->c->mx, &op, a->c->file, (struct slice){b, 0, APPEND_BYTES}, &at);
    buf_unref(b);
    group_done(node_env(a->c->node), &a->all, e);
}

static err co_append_all(struct client *c) {
    struct appends a = {.c = c};
    group_init(&a.all);
    for (uint32_t i = 0; i < APPENDS; i++) {
        group_add(&a.all);
        env_spawn(node_env(c->node), "story: an append", append_main, &a);
    }
    return co_group_wait(node_env(c->node), &a.all, "story: all appends");
}

static void more_appends_than_slots(void **state) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, 1);
    does(&c[0], co_append_all);
    assert_int_equal(size_of_file(&c[1]), APPENDS * APPEND_BYTES);
    reads(&c[1], 0, APPENDS * APPEND_BYTES, 0, 7);
    story_end(&s);
}

// Two open files of one object at one MX. What was written through one, and not fsynced, may be lost when the power of all fails: each is told so, once, and so is
// who opens the object after its last close. It was once told to the first alone that asked.
static err co_open_again(struct client *c) {
    struct mx_op op = {0};
    struct attr a;
    return co_mx_open(c->mx, &op, c->story->file.handle, 0, &c->file, &a);
}

static err fsync_says(struct client *c, struct mx_file *f) {
    c->file = f;
    begins(c, co_fsync);
    until(c->story, busy, c);
    return c->why;
}

static void a_loss_is_told_to_all(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin(&s, 1);
    file_is_written(&s);
    struct mx_file *first = c->file, *second;
    does(c, co_open_again);
    second = c->file;
    c->file = first;
    writes(c, 0, 4096, 2);
    array_power_cut(s.a);
    recovers(&s);
    assert_int_equal(fsync_says(c, second), ERR_IO);
    assert_int_equal(fsync_says(c, first), ERR_IO);
    assert_int_equal(fsync_says(c, second), OK);
    assert_int_equal(fsync_says(c, first), OK);
    writes(c, 0, 4096, 3);
    does(c, co_close);
    c->file = second;
    does(c, co_close);
    idle(&s, SEC(1));
    writes(&s.c[1], 8192, 4096, 4); // another MX's business
    array_power_cut(s.a);
    recovers(&s);
    does(c, co_open_again);
    assert_int_equal(fsync_says(c, c->file), ERR_IO);
    assert_int_equal(fsync_says(c, c->file), OK);
    story_end(&s);
}

// An MX is dead, so that after a recovery not all sessions are renewed for a minute. Another client writes files, deletes and closes them: they are kept for that minute,
// in case the dead one has them open. What was written of them was refused its durable end as long, and other writes waited for the credit that it held.
static err co_temporary_files(struct client *c) {
    err e = OK;
    for (uint32_t i = 0; i < 40 && e == OK; i++) {
        struct mx_op create = {0}, unlink = {0};
        struct attr a;
        e = co_mx_create(c->mx, &create, handle_root(), "temporary", S_IFREG | 0644, MX_O_CREATE, &c->file, &a);
        if (e == OK) e = co_write(c);
        if (e == OK) e = co_mx_unlink(c->mx, &unlink, handle_root(), "temporary");
        if (e == OK) e = co_close(c);
    }
    return e;
}

static void deleted_while_an_mx_is_dead(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin(&s, 1);
    does(&s.c[1], co_close);
    idle(&s, SEC(1));
    node_crash(s.c[1].node);
    one_dies_and_is_back(&s, 1);
    c->off = 0;
    c->len = KIB(64);
    c->byte = 1;
    does(c, co_temporary_files);
    idle(&s, SEC(5));
    for (uint8_t i = 0; i < IOMS; i++) {
        struct rows_stats st;
        rows_stats(s.a->iom[i].start.iom->own.rows, &st);
        assert_int_equal(st.dirty_bytes, 0);
    }
    idle(&s, SEC(100));
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// A client has overwritten a block; another cuts the file, far above it. The first one's fsync learns of the cut, and was once answered although nobody had been
// asked for the block: what the cut makes durable is the row that it cuts.
static void an_fsync_that_meets_a_cut(void **state) {
    static struct story s;
    story_begin(&s, 1);
    file_is_written(&s);
    does(&s.c[1], co_close);
    does(&s.c[1], co_open_again); // it knows no durable end
    writes(&s.c[1], 0, 4096, 2);
    truncates(&s.c[0], FILE_BYTES / 2);
    does(&s.c[1], co_fsync);
    array_power_cut(s.a);
    recovers(&s);
    reads(&s.c[0], 0, 4096, 0, 2);
    story_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(straddle_4),  cmocka_unit_test(straddle_75), cmocka_unit_test(two_stops_1),
        cmocka_unit_test(two_stops_2), cmocka_unit_test(unlink_beside_truncate_power_cut),
        cmocka_unit_test(unlink_beside_truncate_one_dies), cmocka_unit_test(a_loss_is_told_to_all), cmocka_unit_test(a_truncate_is_done_once),
        cmocka_unit_test(many_cuts_over_a_delta_under_way), cmocka_unit_test(a_write_to_what_is_forgotten),
        cmocka_unit_test(more_appends_than_slots), cmocka_unit_test(deleted_while_an_mx_is_dead),
        cmocka_unit_test(an_fsync_that_meets_a_cut), cmocka_unit_test(a_creation_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
