// Names against a plain tree in memory: random operations on one IOM and on several, over a network that breaks
// connections.
#include "tests/sim/names_model.h"

static struct model model;

static void script_random(struct bed *b) {
    m_init(&model, b, *(uint64_t *)b->user);
    for (int i = 0; i < 1500; i++) {
        co_op_any(&model);
        if (i % 100 == 99) co_op_sync(&model);
    }
    co_pause(b, SEC(3)); // intents are closed, orphans cleared away, all is durable
}

static uint64_t model_objects(void) {
    uint64_t n = 0;
    for (int i = 0; i < MODEL_NODES; i++) n += model.node[i].used;
    return n;
}

static void run_random(uint64_t seed, uint8_t ioms, uint32_t reset_ppm) {
    struct world_options o = bed_options();
    struct bed b;
    o.net_reset_ppm = reset_ppm;
    bed_begin(&b, seed, ioms, &o);
    b.user = &seed;
    bed_run(&b, script_random, SEC(1000));
    if (getenv("BED_TALK"))
        fprintf(stderr, "seed %llu ioms %u: %llu operations, %llu well, %llu calls, %llu again, %llu ms, digest %llx\n",
                (unsigned long long)seed, ioms, (unsigned long long)model.ops, (unsigned long long)model.oks,
                (unsigned long long)b.calls, (unsigned long long)b.retries,
                (unsigned long long)world_now_ns(b.w) / 1000000, (unsigned long long)world_digest(b.w));
    assert_int_equal(bed_check_stores(&b), model_objects());
    bed_end(&b);
}

static void one_iom(void **state) {
    run_random(1, 1, 0);
}
static void two_ioms(void **state) {
    run_random(2, 2, 0);
}
static void four_ioms(void **state) {
    run_random(3, 4, 0);
}
static void broken_connections(void **state) {
    for (uint64_t seed = 10; seed < 13; seed++) run_random(seed, 3, 20000);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_iom), cmocka_unit_test(two_ioms),
                                       cmocka_unit_test(four_ioms), cmocka_unit_test(broken_connections)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
