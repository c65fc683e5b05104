// Shrinking, over runs whose failures are known to the last number: it has to come to exactly the least that fails,
// keep the kind of failure, and outlive whatever a run dies of. Real runs are shrunk by tests/sim/shrink.sh.
#include "sim/shrink.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct run_options seed_7 = {.seed = 7, .faults = RUN_FAULTS_CRASH_ALL};
static const struct shrink_limits limits = {.seconds = 60, .tries = 5000, .candidate_seconds = 20, .quiet = true};

static struct run_params begin_run(const struct run_options *o, struct run_result *r) {
    struct run_params p;
    params_of_seed(o, &p);
    *r = (struct run_result){.ops = p.ops, .events = 1000 + p.ops};
    return p;
}

static struct run_params params_after(const struct run_options *o, const struct shrunk *s) {
    struct run_params p;
    struct run_options small = *o;
    small.set = s->set;
    params_of_seed(&small, &p);
    return p;
}

// All others are plain.
static void assert_plain_but(struct run_params p, uint64_t others) {
    for (enum run_param n = 0; n < PARAMS; n++)
        if (!(others >> n & 1)) assert_int_equal(*run_param(&p, n), run_param_info[n].plain);
}

// ---- an assertion that needs two writers, of which the second writes, and seventeen operations
static void dies_of_an_assertion(const struct run_options *o, struct run_result *r) {
    struct run_params p = begin_run(o, r);
    ASSERT(!(p.writers >= 2 && !(p.idle & 2) && p.ops >= 17));
}
static void test_the_least_that_fails(void **state) {
    struct shrunk s;
    shrink(&seed_7, dies_of_an_assertion, &limits, &s);
    struct run_params p = params_after(&seed_7, &s);
    assert_non_null(strstr(s.failure, "sim_shrink.c:"));
    assert_non_null(strstr(s.failure, "dies_of_an_assertion: assertion failed"));
    assert_int_equal(p.writers, 2);
    assert_int_equal(p.idle, 1);
    assert_int_equal(p.ops, 17);
    assert_plain_but(p, 1u << PARAM_writers | 1u << PARAM_idle | 1u << PARAM_ops | 1u << PARAM_dice);
    assert_int_equal(s.last.events, 1017);
    assert_true(s.first.events > 1017);
}

// ---- a failure that is luck: one course in three
static void fails_by_luck(const struct run_options *o, struct run_result *r) {
    struct run_params p = begin_run(o, r);
    bool as_it_came = p.dice == 0 && p.ops == 100;
    r->failed = as_it_came || (p.dice % 3 == 1 && p.blocks >= 9);
    snprintf(r->why, sizeof r->why, "block %llu of s%llu is lost", (unsigned long long)p.blocks,
             (unsigned long long)p.ops);
}
static void test_another_course(void **state) {
    struct run_options o = seed_7;
    struct shrunk s;
    assert_true(param_words_read(&o.set, "ops=100,writers=4"));
    shrink(&o, fails_by_luck, &limits, &s);
    struct run_params p = params_after(&seed_7, &s);
    assert_string_equal(s.failure, "block # of # is lost");
    assert_int_equal(p.dice % 3, 1);
    assert_int_equal(p.blocks, 9);
    assert_int_equal(p.ops, 1);
    assert_int_equal(s.otherwise, 0);
}

// ---- with fewer operations it is another failure
static void fails_in_two_ways(const struct run_options *o, struct run_result *r) {
    struct run_params p = begin_run(o, r);
    r->failed = true;
    snprintf(r->why, sizeof r->why, p.ops >= 20 ? "a name of d%llu is gone" : "hangs %llu", (unsigned long long)p.ops);
}
static void test_the_kind_stays(void **state) {
    struct shrunk s;
    shrink(&seed_7, fails_in_two_ways, &limits, &s);
    struct run_params p = params_after(&seed_7, &s);
    assert_string_equal(s.failure, "a name of # is gone");
    assert_int_equal(p.ops, 20);
    assert_plain_but(p, 1u << PARAM_ops | 1u << PARAM_dice);
    assert_true(s.otherwise > 0);
}

// ---- smaller parameters, longer runs
static void small_is_long(const struct run_options *o, struct run_result *r) {
    struct run_params p = begin_run(o, r);
    r->failed = true;
    r->events = 100000 - p.ops;
}
static void test_no_run_is_longer_than_the_first(void **state) {
    struct shrunk s;
    shrink(&seed_7, small_is_long, &limits, &s);
    assert_int_equal(params_after(&seed_7, &s).ops, s.first.ops);
    assert_int_equal(s.last.events, s.first.events);
    assert_plain_but(params_after(&seed_7, &s), 1u << PARAM_ops);
}

// ---- other ends
static void dies_of_a_signal(const struct run_options *o, struct run_result *r) {
    (void)begin_run(o, r);
    kill(getpid(), SIGBUS);
}
static void stands_still(const struct run_options *o, struct run_result *r) {
    if (begin_run(o, r).ops > 1) pause();
}
static void is_good(const struct run_options *o, struct run_result *r) {
    (void)begin_run(o, r);
}
static void test_other_ends(void **state) {
    struct shrunk s;
    struct shrink_limits few = limits;
    few.tries = 3;
    few.candidate_seconds = 1;
    shrink(&seed_7, dies_of_a_signal, &few, &s);
    assert_string_equal(s.failure, "dies of signal 7");
    assert_int_equal(s.tries, 3);
    few.tries = 0;
    shrink(&seed_7, stands_still, &few, &s);
    assert_string_equal(s.failure, "stands still");
    assert_true(s.last.failed);
    shrink(&seed_7, is_good, &limits, &s);
    assert_string_equal(s.failure, "");
    assert_int_equal(s.tries, 0);
}

// ---- words
static void test_kinds(void **state) {
    char kind[64];
    failure_kind("s12: block 7 reads as nothing (of 3 versions)", kind, sizeof kind);
    assert_string_equal(kind, "#: block # reads as nothing (of # versions)");
    failure_kind("object 1/3fa0 is gone", kind, 16);
    assert_string_equal(kind, "object #/# is g");
}

static void test_words(void **state) {
    static const char *const wrong[] = {"",      "ops",     "ops=",   "ops=x", "ops=-1",
                                        "ops=0", "ops=12 ", "opps=1", "mxs=5", "ops=3,blocks=1"};
    struct param_words w = {0};
    char out[128];
    for (uint32_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct param_words none = {0};
        if (param_words_read(&none, wrong[i])) fail_msg("\"%s\" is taken", wrong[i]);
    }
    assert_true(param_words_read(&w, "namers=0,ops=12"));
    assert_true(param_words_read(&w, "ops=13"));
    param_words_write(&w, out, sizeof out);
    assert_string_equal(out, "namers=0,ops=13");
    struct run_options o = seed_7;
    struct run_params alone, with;
    params_of_seed(&o, &alone);
    o.set = w;
    params_of_seed(&o, &with);
    assert_int_equal(with.ops, 13);
    assert_int_equal(with.namers, 0);
    with.ops = alone.ops;
    with.namers = alone.namers;
    assert_memory_equal(&with, &alone, sizeof with);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_least_that_fails),
        cmocka_unit_test(test_another_course),
        cmocka_unit_test(test_the_kind_stays),
        cmocka_unit_test(test_no_run_is_longer_than_the_first),
        cmocka_unit_test(test_other_ends),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
