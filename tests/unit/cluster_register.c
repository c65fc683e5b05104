// The register: simple stories, then seeds of faults; and that its messages are few.
#include "cluster_register_story.h"

static bool over;
static uint64_t in_ns(struct story_iom *n, uint64_t ns) { return env_now_ns(node_env(n->node)) + ns; }
static bool going(void *ctx) { return !over; }

static void change_alone(void *arg) {
    struct story_iom *n = arg;
    story_start(n);
    struct cluster_map m, next;
    assert_null(register_latest(n->reg));
    assert_int_equal(register_hint(n->reg)->version, 1);
    assert_int_equal(co_register_read(n->reg, in_ns(n, SEC(5)), &m), OK);
    assert_int_equal(m.version, 1);
    next = m;
    next.epoch = 7;
    world_msg_counts_reset(st.w);
    assert_int_equal(co_register_cas(n->reg, 1, &next, in_ns(n, SEC(5))), OK);
    assert_int_equal(world_msg_counts(st.w, MSG_PAXOS_PREPARE).sent, 2);
    assert_int_equal(world_msg_counts(st.w, MSG_PAXOS_ACCEPT).sent, 2);
    assert_int_equal(co_register_cas(n->reg, 1, &next, in_ns(n, SEC(5))), ERR_CONFLICT);
    assert_int_equal(register_latest(n->reg)->epoch, 7);
    assert_int_equal(register_latest(n->reg)->version, 2);
    next.voters -= 2;
    assert_int_equal(co_register_cas(n->reg, 2, &next, in_ns(n, SEC(5))), ERR_INVAL);
    assert_int_equal(co_register_read(n->reg, in_ns(n, SEC(5)), &m), OK);
    assert_int_equal(m.version, 2);
    register_tell(n->reg, 3); // it does not vote, so nobody had a connection to it when the change was told
    over = true;
}

static void one_changes_all_hear(void **state) {
    story_begin(2, 4);
    world_options(st.w)->net_reset_ppm = 0;
    over = false;
    for (int i = 1; i < 4; i++) node_start(st.iom[i].node, story_start, &st.iom[i]);
    world_run_until(st.w, MSEC(10));
    node_start(st.iom[0].node, change_alone, &st.iom[0]);
    assert_true(world_run_while(st.w, going, NULL, SEC(10)));
    world_run_until(st.w, world_now_ns(st.w) + MSEC(100));
    for (int i = 0; i < 4; i++) assert_int_equal(register_latest(st.iom[i].reg)->version, 2);
    assert_true(register_votes(st.iom[2].reg));
    assert_false(register_votes(st.iom[3].reg));
    world_destroy(st.w);
}

static void ask_without_majority(void *arg) {
    struct story_iom *n = arg;
    story_start(n);
    struct cluster_map m;
    assert_int_equal(co_register_read(n->reg, in_ns(n, MSEC(700)), &m), ERR_TIMEOUT);
    assert_int_equal(co_register_cas(n->reg, 1, register_hint(n->reg), in_ns(n, MSEC(1500))), ERR_TIMEOUT);
    assert_null(register_latest(n->reg));
    co_register_close(n->reg);
    over = true;
}

static void alone_nothing_is_chosen(void **state) {
    story_begin(2, 3);
    over = false;
    node_start(st.iom[0].node, ask_without_majority, &st.iom[0]);
    assert_true(world_run_while(st.w, going, NULL, SEC(10)));
    world_destroy(st.w);
}

static void open_an_empty_store(void *arg) {
    struct story_iom *n = arg;
    struct env *e = node_env(n->node);
    struct hub_config hc = {.self = {.kind = NODE_IOM, .iom = n->iom}, .events = {.cast = on_cast, .ctx = n}};
    struct register_config c = {
        .env = e, .hub = hub_create(e, &hc), .storage = {co_story_read, co_story_write, &n->blocks}};
    struct reg *r;
    ASSERT(disk_open(e, &(struct disk_open_args){n->disk, true, KIB(64)}, &n->blocks.d) == OK);
    assert_int_equal(co_register_open(&c, &r), ERR_NODATA);
    over = true;
}

static void a_store_without_record_is_no_voter(void **state) {
    story_begin(3, 3);
    over = false;
    world_disk_erase(world_disk_find(st.w, st.iom[0].disk));
    node_start(st.iom[0].node, open_an_empty_store, &st.iom[0]);
    assert_true(world_run_while(st.w, going, NULL, SEC(10)));
    world_destroy(st.w);
}

static void one_chain_whoever_votes(void **state) {
    uint32_t changed = 0, voters = 0, stores = 0, unknown = 0;
    for (uint64_t seed = 1000; seed < 1060; seed++) {
        const char *fault = story_run(seed, (uint8_t)(2 + seed % 5), true, SEC(4));
        if (fault) fail_msg("seed %llu: %s", (unsigned long long)seed, fault);
        changed += st.changed;
        voters += st.votes_changed;
        stores += st.stores_replaced;
        unknown += st.unknown;
    }
    print_message("%u changes, %u of voters; %u stores replaced; %u of unknown outcome\n", changed, voters, stores, unknown);
    assert_true(changed > 1000 && voters > 300 && stores > 20 && unknown > 10);
}

static void one_chain_under_faults(void **state) {
    uint32_t changed = 0, unknown = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        const char *fault = story_run(seed, (uint8_t)(3 + seed % 4), false, SEC(4));
        if (fault) fail_msg("seed %llu: %s", (unsigned long long)seed, fault);
        changed += st.changed;
        unknown += st.unknown;
    }
    print_message("%u changes, %u of unknown outcome\n", changed, unknown);
    assert_true(changed > 1000 && unknown > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_changes_all_hear), cmocka_unit_test(alone_nothing_is_chosen),
        cmocka_unit_test(a_store_without_record_is_no_voter), cmocka_unit_test(one_chain_under_faults),
        cmocka_unit_test(one_chain_whoever_votes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
