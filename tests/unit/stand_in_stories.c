// Arrays that go on with one IOM missing, told one story at a time in the simulated world.
#include "tests/unit/rot_bed.h"

static bool not_over_yet(void *ctx) { return !((struct sim_iom *)ctx)->over; }
static bool not_whole(void *ctx) { return !array_whole(((struct story *)ctx)->a); }

// One is stopped cleanly. It says so itself, so nobody has to wait for its silence: the others go on without it at once, and take it back when it is started again.
static void one_leaves(void **state) {
    for (uint8_t n = 0; n < IOMS; n++) {
        static struct story s;
        struct client *c = &s.c[0];
        story_begin_as(&s, 1 + n, true);
        file_is_written(&s);
        iom_ask_stop(s.a->iom[n].start.iom);
        idle(&s, MSEC(1));
        uint64_t asked_ns = world_now_ns(s.w);
        writes(c, 0, FILE_BYTES, 2);
        does(c, co_fsync);
        assert_true(world_now_ns(s.w) - asked_ns < SEC(1)); // the silence that proves a failure is longer
        assert_int_equal(size_of_file(&s.c[1]), FILE_BYTES);
        reads(&s.c[1], 0, FILE_BYTES, 0, 2);
        until(&s, not_over_yet, &s.a->iom[n]);
        assert_int_equal(s.a->iom[n].why, OK);
        node_crash(s.a->iom[n].node); // what is left of the process
        array_start_one(&s.a->iom[n]);
        until(&s, not_whole, &s);
        reads(&s.c[1], 0, FILE_BYTES, 0, 2);
        assert_int_equal(faults_of_check(&s), 0);
        story_end(&s);
    }
}

// The same, and it falls asleep over closing its store: what counts is its word that it takes part in nothing any more.
static bool serves_still(void *ctx) { return ((struct sim_iom *)ctx)->serving; }

static void one_leaves_slowly(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin_as(&s, 1, true);
    file_is_written(&s);
    struct sim_iom *leaver = &s.a->iom[2];
    iom_ask_stop(leaver->start.iom);
    until(&s, serves_still, leaver);
    idle(&s, MSEC(1));
    assert_false(leaver->over);
    node_pause(leaver->node);
    uint64_t asleep_ns = world_now_ns(s.w);
    writes(c, 0, FILE_BYTES, 2);
    does(c, co_fsync);
    assert_true(world_now_ns(s.w) - asleep_ns < SEC(1));
    node_resume(leaver->node);
    idle(&s, SEC(1));
    assert_true(leaver->over);
    node_crash(leaver->node);
    array_start_one(leaver);
    until(&s, not_whole, &s);
    reads(c, 0, FILE_BYTES, 0, 2);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

static void goes(struct story *s, struct sim_iom *leaver) {
    iom_ask_stop(leaver->start.iom);
    idle(s, SEC(1));
    node_crash(leaver->node); // what is left of the process
}

static void is_back(struct story *s, struct sim_iom *leaver) {
    array_start_one(leaver);
    until(s, not_whole, s);
    recovery_is_told(&s->c[0]);
}

// While one is missing, another's block of a row is bad, and a truncate ends in the missing one's block of that row. Its stand-in cannot put that block together: only
// the missing one has it. So the truncate waits for its return, which was once the other way round: it came back into a recovery that waited for the truncate.
static void a_cut_that_only_the_missing_one_can_make(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin_as(&s, 1, true);
    file_is_written(&s);
    idle(&s, SEC(2));
    array_ask_stop(s.a);
    until(&s, not_over, &s);
    array_off(s.a);
    struct row r = row_of(&s);
    chunk_rots(&s, r.d[1]);
    array_start(s.a);
    until(&s, not_whole, &s);
    struct sim_iom *leaver = &s.a->iom[r.d[0]];
    goes(&s, leaver);
    truncate_begins(c, 100, 0);
    idle(&s, SEC(5));
    assert_true(c->busy);
    array_start_one(leaver);
    until(&s, not_whole, &s);
    ends(c);
    assert_int_equal(size_of_file(&s.c[1]), 100);
    reads_eio(c, 0); // what the one that returns had of a file that was cut meanwhile does not count any more
    truncates(c, 0);
    writes(c, 0, 4096, 2);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// ---- a file without protection, cut while the IOM that has its first chunk is away

static struct sim_iom *cut_while_away(struct story *s, uint64_t size) {
    struct client *c = &s->c[0];
    story_begin_as(s, 1, true);
    makes_another(c, "none");
    file_is_written(s);
    idle(s, SEC(2));
    struct sim_iom *leaver = &s->a->iom[geo_locate(&s->file.map, size).data.n];
    goes(s, leaver);
    truncates(c, size);
    return leaver;
}

// To a whole number of stripes: nothing is zeroed. The cut was never over for the one that returned, and what was appended to the file there never hardened.
static void an_unprotected_file_is_cut_evenly(void **state) {
    static struct story s;
    uint64_t stripe = (uint64_t)IOMS * CHUNK;
    is_back(&s, cut_while_away(&s, stripe));
    writes(&s.c[0], stripe, 4096, 2);
    idle(&s, SEC(1)); // it ages before it is asked for
    does(&s.c[0], co_fsync);
    reads(&s.c[0], stripe, 4096, 0, 2);
    truncates(&s.c[0], stripe + 8192);
    reads(&s.c[0], stripe + 4096, 4096, 0, 0);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// At each moment of the truncate all lose their power. What was cut does not come back.
static void an_unprotected_file_is_cut_and_power_fails(void **state) {
    for (uint64_t us = 20; us < 2000; us += 60) {
        static struct story s;
        struct client *c = &s.c[0];
        uint64_t stripe = (uint64_t)IOMS * CHUNK;
        struct sim_iom *leaver = cut_while_away(&s, 2 * stripe);
        truncate_begins(c, stripe, 0);
        idle(&s, USEC(us));
        array_power_cut(s.a);
        for (uint8_t i = 0; i < IOMS; i++) {
            s.a->iom[i].serving = false;
            if (&s.a->iom[i] != leaver) array_start_one(&s.a->iom[i]);
        }
        ends(c);
        is_back(&s, leaver);
        truncates(c, stripe + FILE_BYTES);
        reads(c, stripe, FILE_BYTES - (uint32_t)stripe, 0, 0);
        assert_int_equal(faults_of_check(&s), 0);
        story_end(&s);
    }
}

// An append that nobody has fsynced, at the IOM that has its file's size too, which is then stopped cleanly. It could not come back: it asked itself for a durable end before
// it knew any.
static void an_append_before_a_clean_stop(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin_as(&s, 1, true);
    makes_another(c, "none");
    idle(&s, SEC(2));
    struct sim_iom *leaver = &s.a->iom[s.file.handle.starter];
    writes(c, 0, 4096, 2);
    goes(&s, leaver);
    is_back(&s, leaver);
    assert_int_equal(size_of_file(c), 4096);
    reads(c, 0, 4096, 0, 2);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// More names than one batch of the journal holds come, or go, while one IOM is away: the trees of names that are copied at its return are copied all the same.
#define NAMES_MANY 1000u
#define NAME_BYTES 201u // long ones: few of them are much

static void name_of(uint32_t i, char name[NAME_BYTES]) { snprintf(name, NAME_BYTES, "%0200u", i); }

static err co_names_come(struct client *c) {
    struct mx_file *own = c->file;
    err e = OK;
    for (uint32_t i = 0; i < NAMES_MANY && e == OK; i++) {
        struct mx_op op = {0};
        struct mx_file *file;
        struct attr a;
        char name[NAME_BYTES];
        name_of(i, name);
        e = co_mx_create(c->mx, &op, handle_root(), name, S_IFREG | 0644, MX_O_CREATE, &file, &a);
        if (e != OK) return e;
        c->file = file;
        e = co_write(c);
        c->file = own;
        co_mx_release(c->mx, file);
    }
    return e;
}

static err co_names_go(struct client *c) {
    err e = OK;
    for (uint32_t i = 0; i < NAMES_MANY && e == OK; i++) {
        struct mx_op op = {0};
        char name[NAME_BYTES];
        name_of(i, name);
        e = co_mx_unlink(c->mx, &op, handle_root(), name);
    }
    return e;
}

static err co_count_names(struct client *c) {
    c->got = 0;
    for (uint32_t i = 0; i < NAMES_MANY; i++) {
        struct mx_op op = {0};
        struct attr a;
        char name[NAME_BYTES];
        name_of(i, name);
        err e = co_mx_lookup(c->mx, &op, handle_root(), name, &a);
        if (e != OK && e != ERR_NOENT) return e;
        c->got += e == OK;
    }
    return OK;
}

// At its return flushes take as long as those of a common disk; that everybody waits for a flush per name would take seconds.
static uint64_t comes_back_in_ns(struct story *s, struct sim_iom *leaver) {
    struct world_options *x = world_options(s->w), fast = *x;
    x->flush_min_ns = x->flush_max_ns = MSEC(5);
    uint64_t started_ns = world_now_ns(s->w);
    is_back(s, leaver);
    x->flush_min_ns = fast.flush_min_ns;
    x->flush_max_ns = fast.flush_max_ns;
    return world_now_ns(s->w) - started_ns;
}

static void names_while_away(struct story *s, struct sim_iom *leaver, err (*co_names)(struct client *c), uint32_t then, uint64_t within_ns) {
    goes(s, leaver);
    does(&s->c[0], co_names);
    idle(s, SEC(10)); // until what was deleted is discarded everywhere
    uint64_t took_ns = comes_back_in_ns(s, leaver);
    assert_true(took_ns < within_ns);
    does(&s->c[1], co_count_names);
    assert_int_equal(s->c[1].got, then);
    assert_int_equal(faults_of_check(s), 0);
}

static void many_names(void **state) {
    static struct story s;
    story_begin_as(&s, 1, true);
    s.c[0].len = 100;
    for (uint8_t n = 0; n < 2; n++) { // the one that has the folder, and the one that has its copy
        names_while_away(&s, &s.a->iom[n], co_names_come, NAMES_MANY, SEC(5)); // with all blocks built
        names_while_away(&s, &s.a->iom[n], co_names_go, 0, MSEC(500));
    }
    story_end(&s);
}

// While one rebuilds much, a client reads what is missing there, block by block. The tasks that build once took each
// turn to mend that became free, and the client waited until nothing was left to build. And although the client never
// rests, the rebuild ends.
static void clients_get_on_while_one_rebuilds(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    const uint64_t file_bytes = 24 * FILE_BYTES;
    story_begin_as(&s, 1, true);
    struct sim_iom *leaver = &s.a->iom[2];
    for (uint64_t at = 0; at < file_bytes; at += FILE_BYTES) writes(c, at, FILE_BYTES, 1);
    does(c, co_fsync);
    goes(&s, leaver);
    for (uint64_t at = 0; at < file_bytes; at += FILE_BYTES) writes(c, at, FILE_BYTES, 2);
    does(c, co_fsync);
    leaver->serving = false;
    array_start_one(leaver);
    until(&s, not_serving, &s);
    recovery_is_told(&s.c[0]);
    uint64_t longest_ns = 0, count = 0, until_ns = world_now_ns(s.w) + SEC(100);
    while (!array_whole(s.a)) {
        uint64_t begun_ns = world_now_ns(s.w);
        reads(&s.c[0], count++ * 37 * 4096 % file_bytes, 4096, 0, 2);
        longest_ns = MAX(longest_ns, world_now_ns(s.w) - begun_ns);
        assert_true(world_now_ns(s.w) < until_ns);
    }
    assert_true(count > 100);
    assert_true(longest_ns < MSEC(50));
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_leaves),
        cmocka_unit_test(one_leaves_slowly),
        cmocka_unit_test(a_cut_that_only_the_missing_one_can_make),
        cmocka_unit_test(an_unprotected_file_is_cut_evenly),
        cmocka_unit_test(an_unprotected_file_is_cut_and_power_fails),
        cmocka_unit_test(an_append_before_a_clean_stop),
        cmocka_unit_test(many_names),
        cmocka_unit_test(clients_get_on_while_one_rebuilds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
