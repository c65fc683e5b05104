// The life of the array with toy owners: it starts in any order, stops when one is lost, starts again, and no two
// members serve in different epochs at one time.
#include "cluster_toy.h"

// ---- stories --------------------------------------------------------------------------------------------------------
static void starts_in_any_order(void **state) {
    for (uint64_t seed = 0; seed < 10; seed++) {
        begin(seed, 0);
        for (int i = 0; i < IOMS; i++) world_at(w, world_random_below(w, SEC(3)), toy_start, &toy[i]);
        assert_true(until(not_all_serve, SEC(5)));
        assert_int_equal(map_of(0)->epoch, 2);
        assert_int_equal(map_of(0)->recoveries, 0); // all were clean
        for (int i = 0; i < IOMS; i++) assert_int_equal(toy[i].serves, 1);
        run_ms(3000);
        assert_false(not_all_serve(NULL));
        assert_int_equal(map_of(0)->version, 3); // nothing changes while all is well
        end();
    }
}

static void starts_soon(void **state) {
    begin(1, 0);
    start_all();
    print_message("all serve after %llu ms\n", (unsigned long long)(world_now_ns(w) / MSEC(1)));
    assert_true(world_now_ns(w) < MSEC(800));
    end();
}

static void one_crashes(void **state) {
    begin(2, 0);
    start_all();
    toy_kill(&toy[1], false);
    assert_true(until(some_serve, MSEC(2000))); // the silence, and the change
    run_ms(200);
    for (int i = 0; i < IOMS; i++) assert_int_equal(toy[i].stops, i == 1 ? 0 : 1);
    assert_int_equal(map_of(0)->state, ARRAY_STOPPED);
    struct member_view v;
    member_suspect_view(toy[0].member, 1, &v);
    assert_int_equal(v.seen, MEMBER_SILENT);
    run_ms(3000);
    toy_start(&toy[1]);
    assert_true(until(not_all_serve, SEC(2)));
    assert_int_equal(map_of(0)->epoch, 4);
    assert_int_equal(map_of(0)->recoveries, 1);
    end();
}

// It is back before anybody missed it; its memory is not.
static void one_restarts_at_once(void **state) {
    begin(3, 0);
    start_all();
    toy_kill(&toy[2], false);
    toy_start(&toy[2]);
    uint64_t t = world_now_ns(w);
    assert_true(until(some_serve, MSEC(500)));
    assert_true(until(not_all_serve, SEC(2)));
    print_message("serving again after %llu ms\n", (unsigned long long)((world_now_ns(w) - t) / MSEC(1)));
    assert_int_equal(map_of(0)->epoch, 4);
    assert_int_equal(map_of(0)->recoveries, 1);
    end();
}

static void all_lose_power(void **state) {
    begin(4, 0);
    start_all();
    for (int i = 0; i < IOMS; i++) toy_kill(&toy[i], true);
    run_ms(100);
    for (int i = 0; i < IOMS; i++) toy_start(&toy[i]);
    assert_true(until(not_all_serve, SEC(3)));
    assert_int_equal(map_of(0)->epoch, 4);
    assert_int_equal(map_of(0)->recoveries, 1);
    end();
}

static void one_sleeps(void **state) {
    begin(5, 0);
    start_all();
    uint64_t incarnation = toy[0].incarnation;
    node_pause(toy[0].node);
    run_ms(3000);
    assert_false(some_serve(NULL));
    assert_int_equal(map_of(1)->state, ARRAY_STOPPED);
    node_resume(toy[0].node);
    assert_false(serves(&toy[0])); // its lease is over, whatever it knows
    assert_true(until(not_all_serve, SEC(2)));
    assert_int_equal(toy[0].incarnation, incarnation + 1);
    assert_int_equal(node_starts(toy[0].node), 1); // the same process
    end();
}

// A machine that was suspended: all were away, nobody failed.
static void all_sleep(void **state) {
    begin(10, 0);
    start_all();
    for (int i = 0; i < IOMS; i++) node_pause(toy[i].node);
    run_ms(60000);
    for (int i = 0; i < IOMS; i++) node_resume(toy[i].node);
    for (int i = 0; i < IOMS; i++) assert_false(serves(&toy[i]));
    assert_true(until(not_all_serve, SEC(1)));
    run_ms(3000);
    assert_int_equal(map_of(0)->epoch, 2);
    end();
}

// A short cut is no failure: the lease ends, nothing is served, and all goes on in the same epoch.
static void short_and_long_cuts(void **state) {
    begin(6, 0);
    start_all();
    world_isolate(toy[3].node);
    run_ms(1150);
    assert_false(serves(&toy[3]));
    assert_true(serves(&toy[0]));
    world_heal_all(w);
    assert_true(until(not_all_serve, SEC(1)));
    assert_int_equal(map_of(0)->epoch, 2);
    world_isolate(toy[3].node);
    run_ms(4000);
    assert_false(some_serve(NULL));
    world_heal_all(w);
    assert_true(until(not_all_serve, SEC(3)));
    assert_int_equal(map_of(0)->epoch, 4);
    end();
}

static void one_leaves(void **state) {
    begin(7, 0);
    start_all();
    toy[2].stubborn = true;
    member_leave(toy[2].member);
    uint64_t t = world_now_ns(w);
    assert_true(until(some_serve, SEC(1)));
    run_ms(20);
    assert_true(world_now_ns(w) - t < MSEC(60));
    for (int i = 0; i < IOMS; i++) assert_int_equal(toy[i].stops, 1);
    run_ms(2000);
    assert_false(some_serve(NULL));
    end();
}

static void owner_knows_of_a_death(void **state) {
    begin(8, 0);
    start_all();
    toy_kill(&toy[3], false);
    member_proven_dead(toy[0].member, 3, toy[3].incarnation);
    assert_true(until(some_serve, MSEC(50)));
    end();
}

static bool destroyed;
static bool not_destroyed(void *ctx) { return !destroyed; }
static void destroy(void *arg) {
    struct toy *t = arg;
    struct member *m = t->member;
    t->member = NULL;
    co_member_destroy(m);
    co_register_close(t->reg);
    hub_destroy(t->hub);
    co_disk_close(t->blocks.d);
    destroyed = true;
}

static void closing_gives_all_back(void **state) {
    begin(9, 0);
    start_all();
    struct env *e = node_env(toy[1].node);
    destroyed = false;
    env_spawn(e, "the end", destroy, &toy[1]);
    assert_true(until(not_destroyed, SEC(5)));
    run_ms(100);
    assert_int_equal(mem_used_bytes(e->mem), e->heap_cap * sizeof *e->heap);
    end();
}

// ---- faults of all kinds --------------------------------------------------------------------------------------------
static void many_faults(void **state) {
    uint64_t served = 0, epochs = 0;
    for (uint64_t seed = 100; seed < 125; seed++) {
        begin(seed, 2000);
        for (int i = 0; i < IOMS; i++) toy_start(&toy[i]);
        thirty_seconds_of_faults();
        if (!until(not_all_serve, SEC(15))) violated("no progress after the faults", seed);
        if (fault[0]) fail_msg("seed %llu: %s", (unsigned long long)seed, fault);
        served += serving_polls;
        epochs += map_of(0)->epoch;
        end();
    }
    print_message("%llu epochs, serving %llu%% of the time\n", (unsigned long long)epochs,
                  (unsigned long long)served * 100 / (25 * 30000));
    assert_true(epochs > 200 && served > 25 * 3000);
}

static void bad_configs(void **state) {
    assert_null(member_config_fault(&(struct member_config){0}));
    assert_non_null(member_config_fault(&(struct member_config){.silence_ns = MSEC(600)}));
    assert_non_null(member_config_fault(&(struct member_config){.lease_ns = MSEC(1450)}));
    assert_non_null(member_config_fault(&(struct member_config){.heartbeat_ns = MSEC(300)}));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configs),
        cmocka_unit_test(starts_in_any_order),
        cmocka_unit_test(starts_soon),
        cmocka_unit_test(one_crashes),
        cmocka_unit_test(one_restarts_at_once),
        cmocka_unit_test(all_lose_power),
        cmocka_unit_test(one_sleeps),
        cmocka_unit_test(all_sleep),
        cmocka_unit_test(short_and_long_cuts),
        cmocka_unit_test(one_leaves),
        cmocka_unit_test(owner_knows_of_a_death),
        cmocka_unit_test(closing_gives_all_back),
        cmocka_unit_test(many_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
