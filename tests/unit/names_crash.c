// Names while IOMs die. One IOM: nothing that was answered is lost, whatever its disk lost, and what was under way is
// done exactly once. All at once: every operation since the last sync is there or not, wholly.
#include "tests/sim/names_model.h"

static struct model model;
static uint64_t fault_rng;
static bool breaker_over, all_at_once, again_in_recovery;
static int rounds;

static uint64_t fault_random(uint64_t n) {
    fault_rng = fault_rng * 6364136223846793005u + 1442695040888963407u;
    return (fault_rng >> 33) % n;
}

static void break_iom(struct bed_iom *s) {
    if (fault_random(2))
        node_crash(s->node);
    else
        node_power_cut(s->node);
}

static void co_breaker(void *arg) {
    struct bed *b = arg;
    for (int i = 0; i < rounds; i++) {
        co_pause(b, USEC(1000 + fault_random(60000)));
        while (model.lost) co_pause(b, MSEC(1)); // first it is looked at what the last one left
        if (all_at_once) model.lost = true;
        for (uint8_t k = 0; k < b->ioms && all_at_once; k++) node_power_cut(b->iom[k].node);
        if (!all_at_once) break_iom(&b->iom[fault_random(b->ioms)]);
        co_pause(b, MSEC(fault_random(5)));
        co_bed_recover(b);
    }
    breaker_over = true;
}

// Others die while the recovery of the first death runs.
static void co_second_death(void *arg) {
    struct bed *b = arg;
    while (!breaker_over) {
        co_pause(b, USEC(200 + fault_random(3000)));
        if (b->recovering && b->session[0] != 0 && fault_random(4) == 0 && b->recovery_deaths < 60) {
            struct bed_iom *s = &b->iom[fault_random(b->ioms)];
            if (node_running(s->node) && !s->serving && s->formatted) break_iom(s);
        }
    }
}

static void script(struct bed *b) {
    m_init(&model, b, fault_rng);
    breaker_over = false;
    env_spawn(mx_env(b), "breaker", co_breaker, b);
    if (again_in_recovery) env_spawn(mx_env(b), "second breaker", co_second_death, b);
    while (!breaker_over || b->recovering) {
        co_op_any(&model);
        if (model.lost)
            co_m_after_loss(&model);
        else if (m_random(&model, 60) == 0)
            co_op_sync(&model);
    }
    if (model.lost) co_m_after_loss(&model);
    for (int i = 0; i < 100; i++) co_op_any(&model);
    co_pause(b, SEC(12)); // also longer than a forgotten part of an intent waits
}

static uint64_t model_objects(void) {
    uint64_t n = 0;
    for (int i = 0; i < MODEL_NODES; i++) n += model.node[i].used;
    return n;
}

static void run(uint64_t seed, uint8_t ioms, bool all, int times, uint32_t reset_ppm) {
    struct world_options o = bed_options();
    struct bed b;
    o.net_reset_ppm = reset_ppm;
    fault_rng = seed * 77;
    all_at_once = all;
    rounds = times;
    bed_begin(&b, seed, ioms, &o);
    bed_run(&b, script, SEC(10000));
    if (getenv("BED_TALK"))
        fprintf(stderr,
                "seed %llu ioms %u: %llu operations, %llu well, %llu again, epoch %llu, %llu losses, %llu deaths in "
                "recovery\n",
                (unsigned long long)seed, ioms, (unsigned long long)model.ops, (unsigned long long)model.oks,
                (unsigned long long)b.retries, (unsigned long long)b.epoch, (unsigned long long)model.losses,
                (unsigned long long)b.recovery_deaths);
    assert_int_equal(bed_check_stores(&b), model_objects());
    bed_end(&b);
}

static uint64_t seed_from(uint64_t standard) {
    return getenv("BED_SEED") ? strtoull(getenv("BED_SEED"), NULL, 10) : standard;
}
static uint64_t seeds(uint64_t standard) {
    return getenv("BED_SEEDS") ? strtoull(getenv("BED_SEEDS"), NULL, 10) : standard;
}

static void one_dies(void **state) {
    for (uint64_t s = seed_from(1), n = seeds(4); n > 0; s++, n--)
        run(s, (uint8_t)(2 + s % 3), false, 12, s % 2 ? 0 : 5000);
}
static void all_die(void **state) {
    for (uint64_t s = seed_from(101), n = seeds(4); n > 0; s++, n--)
        run(s, (uint8_t)(1 + s % 4), true, 12, s % 2 ? 0 : 5000);
}

static void all_die_again(void **state) {
    again_in_recovery = true;
    for (uint64_t s = seed_from(201), n = seeds(4); n > 0; s++, n--)
        run(s, (uint8_t)(1 + s % 4), true, 8, s % 2 ? 0 : 5000);
    again_in_recovery = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_dies), cmocka_unit_test(all_die),
                                       cmocka_unit_test(all_die_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
