// Many at once: clients that do the same things in the same directories, so that locks, holds and intents meet. What
// must hold at the end: nobody waits for ever, the stores are whole, and of several who want one name exactly one has
// it.
#include "tests/sim/names_model.h"

#define CLIENTS 6

static struct model crowd[CLIENTS]; // used for their requests alone
static struct handle dirs[8];
static uint32_t dirs_len, ended;
static uint64_t won, lost_race;
static bool breaking, breaker_over;
static uint64_t fault_rng;

static uint64_t fault_random(uint64_t n) {
    fault_rng = fault_rng * 6364136223846793005u + 1442695040888963407u;
    return (fault_rng >> 33) % n;
}

static void co_any(struct model *m) {
    struct handle d = dirs[m_random(m, dirs_len)], t = dirs[m_random(m, dirs_len)];
    struct name_text a = m_name((int)m_random(m, 6)), b = m_name((int)m_random(m, 6));
    struct wire_attr attr;
    bool has;
    err e = OK;
    switch (m_random(m, 9)) {
    case 0:
    case 1: e = co_m_create(m, MSG_CREATE, d, a.s, 0644, &attr); break;
    case 2: e = co_m_create(m, MSG_MKDIR, d, a.s, 0755, &attr); break;
    case 3: e = co_m_name_req(m, MSG_UNLINK, d, a.s, m->slot, NULL, NULL); break;
    case 4: e = co_m_name_req(m, MSG_RMDIR, d, a.s, m->slot, NULL, NULL); break;
    case 5:
    case 6: e = co_m_rename(m, d, a.s, t, b.s, m_random(m, 4) == 0 ? RENAME_FLAG_EXCHANGE : 0); break;
    case 7:
        e = co_m_name_req(m, MSG_LOOKUP, d, a.s, -1, &attr, &has);
        if (e == OK && (le32_get(attr.mode) & 0170000) != 0040000)
            e = co_m_link(m, handle_at(attr.handle.b), t, b.s, &attr);
        break;
    case 8:
        e = co_m_name_req(m, MSG_LOOKUP, d, a.s, -1, &attr, &has);
        if (e == OK) e = co_m_getattr(m, handle_at(attr.handle.b), &attr);
        break;
    }
    m->oks += e == OK;
    if (err_class(e) > ERRC_CALLER) m_fail(m, "crowd", e, OK);
}

static void client(void *arg) {
    struct model *m = arg;
    struct bed *b = m->b;
    uint32_t ops = *(uint32_t *)b->user;
    for (uint32_t i = 0; i < ops || (breaking && !breaker_over); i++) co_any(m);
    // who makes the one name?
    struct wire_attr attr;
    err e = co_m_create(m, MSG_CREATE, handle_root(), "the one", 0600, &attr);
    won += e == OK;
    lost_race += e == ERR_EXIST;
    ended++;
}

static void co_breaker(void *arg) {
    struct bed *b = arg;
    for (int i = 0; i < 8; i++) {
        co_pause(b, USEC(2000 + fault_random(30000)));
        node_crash(b->iom[fault_random(b->ioms)].node);
        if (fault_random(3) == 0)
            for (uint8_t k = 0; k < b->ioms; k++) node_power_cut(b->iom[k].node);
        co_bed_recover(b);
    }
    breaker_over = true;
}

static void script(struct bed *b) {
    struct model *m = &crowd[0];
    struct wire_attr attr;
    won = lost_race = ended = 0;
    breaker_over = false;
    for (int i = 0; i < CLIENTS; i++) {
        m_init(&crowd[i], b, fault_rng + (uint64_t)i * 1000);
        crowd[i].slot = i; // a slot each
        crowd[i].doing = "crowd";
    }
    dirs[0] = handle_root();
    dirs_len = 1;
    for (int i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof name, "d%d", i);
        bed_check(co_m_create(m, MSG_MKDIR, dirs[m_random(m, dirs_len)], name, 0755, &attr), "mkdir", 99);
        dirs[dirs_len++] = handle_at(attr.handle.b);
    }
    for (uint8_t i = 0; i < b->ioms; i++) { // all that the directories hang on is durable
        for (uint32_t k = 0; k < dirs_len; k++)
            if (dirs[k].starter == i) bed_check(co_m_handle_req(m, MSG_SYNC_META, dirs[k]), "sync", i);
    }
    for (int i = 0; i < CLIENTS; i++) env_spawn(mx_env(b), "client", client, &crowd[i]);
    if (breaking) env_spawn(mx_env(b), "breaker", co_breaker, b);
    while (ended < CLIENTS) co_pause(b, MSEC(5));
    co_pause(b, SEC(15));
}

static void run(uint64_t seed, uint8_t ioms, uint32_t ops, bool faults) {
    struct world_options o = bed_options();
    struct bed b;
    fault_rng = seed * 1234567;
    breaking = faults;
    bed_begin(&b, seed, ioms, &o);
    b.user = &ops;
    bed_run(&b, script, SEC(10000));
    uint64_t oks = 0;
    for (int i = 0; i < CLIENTS; i++) oks += crowd[i].oks;
    uint64_t objects = bed_check_stores(&b);
    if (getenv("BED_TALK"))
        fprintf(stderr, "seed %llu ioms %u: %llu well, %llu again, epoch %llu, %llu objects, %llu ms\n",
                (unsigned long long)seed, ioms, (unsigned long long)oks, (unsigned long long)b.retries,
                (unsigned long long)b.epoch, (unsigned long long)objects,
                (unsigned long long)world_now_ns(b.w) / 1000000);
    assert_int_equal(won, 1);
    assert_int_equal(lost_race, CLIENTS - 1);
    bed_end(&b);
}

static uint64_t seed_from(uint64_t standard) {
    return getenv("BED_SEED") ? strtoull(getenv("BED_SEED"), NULL, 10) : standard;
}
static uint64_t seeds(uint64_t standard) {
    return getenv("BED_SEEDS") ? strtoull(getenv("BED_SEEDS"), NULL, 10) : standard;
}

static void crowd_alone(void **state) {
    for (uint64_t s = seed_from(1), n = seeds(4); n > 0; s++, n--) run(s, (uint8_t)(1 + s % 4), 300, false);
}
static void crowd_with_deaths(void **state) {
    for (uint64_t s = seed_from(51), n = seeds(4); n > 0; s++, n--) run(s, (uint8_t)(2 + s % 3), 100, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(crowd_alone), cmocka_unit_test(crowd_with_deaths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
