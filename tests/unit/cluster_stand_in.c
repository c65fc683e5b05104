// The array goes on without one: whom it leaves out, how soon, that he then serves nothing, and how he comes back. Each
// story is told under many seeds, for other moments and another victim each.
#include "cluster_toy.h"

#define SEEDS 200
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#undef SEEDS
#define SEEDS 20 // each takes thirty times as long
#endif
#endif

// What the array looks like from whoever is there and knows most.
static const struct cluster_map *newest_map(void) {
    const struct cluster_map *newest = NULL;
    for (int i = 0; i < IOMS; i++) {
        const struct cluster_map *map = node_running(toy[i].node) && toy[i].member ? map_of(i) : NULL;
        if (map && (!newest || map->version > newest->version)) newest = map;
    }
    return newest;
}

static struct toy *out; // who is left out, in the story that is told
static bool others_wait(void *ctx) { // some of the others do not serve, or with him
    for (int i = 0; i < IOMS; i++)
        if (&toy[i] != out && (!serves(&toy[i]) || map_of(i)->iom[out->iom].state != MAP_IOM_FAILED)) return true;
    return false;
}
static bool not_recovering(void *ctx) {
    const struct cluster_map *map = newest_map();
    return !map || map->state != ARRAY_RECOVERING;
}
static bool not_whole(void *ctx) {
    const struct cluster_map *map = newest_map();
    for (int i = 0; map && i < IOMS; i++)
        if (map->iom[i].state != MAP_IOM_UP) return true;
    return !map || not_all_serve(NULL);
}
static bool not_rebuilding(void *ctx) {
    const struct cluster_map *map = newest_map();
    return not_all_serve(NULL) || map->iom[out->iom].state != MAP_IOM_REBUILDING;
}

static struct { uint64_t least, most, sum, count; } took; // from the fault to the recovering map
static void note_time(uint64_t since_ns) {
    uint64_t ns = world_now_ns(w) - since_ns;
    took.least = took.count ? MIN(took.least, ns) : ns;
    took.most = MAX(took.most, ns);
    took.sum += ns;
    took.count++;
}
static void tell_time(const char *what) {
    print_message("%s: recovering without it after %.1f to %.1f ms, %.1f on average\n", what, (double)took.least / 1e6,
                  (double)took.most / 1e6, (double)took.sum / 1e6 / (double)took.count);
}

static uint64_t story_seed;
static void must(bool done, const char *what) {
    if (fault[0]) fail_msg("seed %llu: %s", (unsigned long long)story_seed, fault);
    if (!done) fail_msg("seed %llu: it did not happen in time: %s", (unsigned long long)story_seed, what);
}
static void same(uint64_t a, uint64_t b, const char *what) {
    if (a != b) fail_msg("seed %llu: %llu is not %llu: %s", (unsigned long long)story_seed, (unsigned long long)a,
                         (unsigned long long)b, what);
}
static void run_until(bool (*waiting)(void *), uint64_t limit_ns, const char *what) {
    must(until(waiting, limit_ns), what);
}

static void tell(uint64_t seed) {
    stand_ins = true;
    story_seed = seed;
    begin(seed, 0);
    out = &toy[world_random_below(w, IOMS)];
}

static void tell_running(uint64_t seed) {
    tell(seed);
    swift = true;
    start_all();
    run_ms(world_random_below(w, 400));
    world_run_until(w, world_now_ns(w) + world_random_below(w, MSEC(1)));
}

static void every(void (*story)(void)) {
    memset(&took, 0, sizeof took);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        tell_running(seed);
        story();
        must(true, NULL);
        end();
    }
}

// ---- he dies --------------------------------------------------------------------------------------------------------
static void recovers_from(uint64_t limit_ns) {
    uint64_t t = world_now_ns(w);
    run_until(not_recovering, limit_ns, "a recovery without it");
    note_time(t);
    same(newest_map()->iom[out->iom].state, MAP_IOM_FAILED, "its state");
}

static void recovers_without(uint64_t limit_ns) {
    recovers_from(limit_ns);
    run_until(others_wait, MSEC(300), "the others serve");
}

static void comes_back(void) {
    out->lazy = true;
    uint64_t epoch = newest_map()->epoch;
    run_until(not_rebuilding, SEC(6), "it is taken in");
    assert_true(out->back);
    same(newest_map()->epoch, epoch + 2, "the epoch"); // one more stop, one more recovery
    out->lazy = false;
    epoch = newest_map()->epoch;
    env_spawn(node_env(out->node), "rebuild", toy_rebuild, out);
    run_until(not_whole, SEC(2), "it is up");
    same(newest_map()->epoch, epoch, "the epoch");
}

static void story_killed(void) {
    toy_kill(out, false);
    recovers_without(MSEC(20));
    run_ms(world_random_below(w, 2000));
    must(!others_wait(NULL), "they go on");
    toy_start(out);
    comes_back();
}
static void one_is_killed(void **state) {
    every(story_killed);
    tell_time("killed");
}

static void story_power(void) {
    toy_kill(out, true);
    recovers_without(MSEC(1500) + MSEC(1100));
    run_ms(world_random_below(w, 1000));
    toy_start(out);
    comes_back();
}
static void one_loses_power(void **state) {
    every(story_power);
    tell_time("no power");
}

// Back before the others have gone on without it, or just after: either way all are up in the end.
static void story_restarted(void) {
    toy_kill(out, world_chance(w, 500000));
    world_at(w, world_now_ns(w) + world_random_below(w, MSEC(40)), toy_start, out);
    run_ms(50);
    run_until(not_whole, SEC(6), "all are up");
}
static void one_restarts_at_once(void **state) { every(story_restarted); }

// ---- he is not heard ------------------------------------------------------------------------------------------------
static void story_paused(void) {
    uint64_t incarnation = out->incarnation;
    node_pause(out->node);
    recovers_without(MSEC(1500) + MSEC(1100));
    run_ms(world_random_below(w, 2000));
    node_resume(out->node);
    assert_false(serves(out));
    comes_back();
    assert_true(out->incarnation > incarnation);
    assert_int_equal(node_starts(out->node), 1); // the same process
}
static void one_sleeps(void **state) {
    every(story_paused);
    tell_time("paused");
}

// A machine that was suspended: all were away, nobody is left out.
static void story_all_asleep(void) {
    for (int i = 0; i < IOMS; i++) node_pause(toy[i].node);
    run_ms(60000);
    for (int i = 0; i < IOMS; i++) node_resume(toy[i].node);
    run_until(not_all_serve, SEC(1), "all serve");
    run_ms(3000);
    same(newest_map()->epoch, 2, "the epoch");
}
static void all_sleep(void **state) { every(story_all_asleep); }

// Wakes at any moment of its own leaving out.
static void story_dozes(void) {
    node_pause(out->node);
    run_ms(1000 + world_random_below(w, 1800));
    world_run_until(w, world_now_ns(w) + world_random_below(w, MSEC(1)));
    node_resume(out->node);
    run_until(not_whole, SEC(8), "all are up");
}
static void one_dozes(void **state) { every(story_dozes); }

static void story_isolated(void) {
    world_isolate(out->node);
    recovers_without(MSEC(1500) + MSEC(1100));
    run_ms(world_random_below(w, 5000));
    assert_false(serves(out));
    world_heal_all(w);
    comes_back();
}
static void one_is_cut_off(void **state) {
    every(story_isolated);
    tell_time("cut off");
}

static void cut_one_way(bool mute) {
    for (int i = 0; i < IOMS; i++)
        if (&toy[i] != out) world_cut_link(mute ? out->node : toy[i].node, mute ? toy[i].node : out->node, true);
}

static void story_mute(void) {
    cut_one_way(true);
    recovers_without(MSEC(1500) + MSEC(1100));
    run_ms(world_random_below(w, 1000));
    world_heal_all(w);
    comes_back();
}
static void one_is_mute(void **state) {
    every(story_mute);
    tell_time("mute");
}

// Heard, and hears nobody: the others have to be told by it, and then wait whether it has heard them.
static void story_deaf(void) {
    cut_one_way(false);
    recovers_without(MSEC(1500) + MSEC(1300));
    run_ms(world_random_below(w, 1000));
    world_heal_all(w);
    comes_back();
}
static void one_is_deaf(void **state) {
    every(story_deaf);
    tell_time("deaf");
}

// Two do not hear each other, or one not the other: one of the two is left out, and stays out as long as it is so.
static void story_pair(void) {
    struct toy *o = &toy[(out->iom + 1 + world_random_below(w, IOMS - 1)) % IOMS];
    world_cut_link(out->node, o->node, world_chance(w, 500000));
    uint64_t t = world_now_ns(w);
    run_until(not_recovering, MSEC(1500) + MSEC(1200), "a recovery without one of them");
    note_time(t);
    if (newest_map()->iom[o->iom].state == MAP_IOM_FAILED) out = o;
    same(newest_map()->iom[out->iom].state, MAP_IOM_FAILED, "its state");
    run_until(others_wait, MSEC(300), "the others serve");
    uint64_t epoch = newest_map()->epoch;
    run_ms(5000);
    same(newest_map()->epoch, epoch, "the epoch");
    world_heal_all(w);
    comes_back();
}
static void two_do_not_hear_each_other(void **state) {
    every(story_pair);
    tell_time("a cut between two");
}

// One that the others still hear and confirm is not heard by the lowest; when that one stops the array it is cut off
// from all: it knows nothing and has its lease. Nobody goes on before that is over.
static bool none_stopped(void *ctx) { return newest_map()->state == ARRAY_RUNNING; }
static uint32_t leased;
static void story_fenced(void) {
    if (!out->iom) out = &toy[1 + world_random_below(w, IOMS - 1)];
    world_cut_link(out->node, toy[0].node, true);
    run_until(none_stopped, MSEC(1700), "a stop");
    world_isolate(out->node);
    bool paused = world_chance(w, 300000);
    if (paused) node_pause(out->node);
    run_ms(30);
    leased += could_serve(out); // a voter that has accepted the stop has none
    recovers_without(MSEC(1100));
    assert_false(could_serve(out));
    if (paused) node_resume(out->node);
    world_heal_all(w);
    comes_back();
}
static void one_has_its_lease(void **state) {
    every(story_fenced);
    tell_time("cut off with its lease");
    assert_in_range(leased, SEEDS / 4, SEEDS);
}

// A voter that was quiet about him, and had not accepted the stop, loses its memory: it hears only him, and what it has
// on disk says that he is admitted. Another one's answer from before the stop still counts for him.
static void cut(int from, int to) { world_cut_link(toy[from].node, toy[to].node, true); }
static void story_forgets(void) {
    out = &toy[3]; // no voter; 0, 1, 2 are
    cut(3, 0);
    cut(3, 2);
    run_ms(1200 + world_random_below(w, 150)); // 1 alone confirms him
    world_isolate(out->node);
    struct world_disk *d = world_disk_find(w, toy[2].disk);
    world_disk_hang(d, true); // 2 learns what is chosen, and accepts nothing
    recovers_from(MSEC(1500));
    toy_kill(&toy[2], true);
    world_disk_hang(d, false);
    world_isolate(toy[2].node);
    toy_start(&toy[2]);
    world_heal_link(toy[2].node, toy[3].node);
    run_ms(900);
    world_heal_all(w);
    run_until(not_whole, SEC(10), "all are up");
}
static void a_voter_forgets(void **state) { every(story_forgets); }

// ---- its store is lost for good, and replaced -----------------------------------------------------------------------
static uint8_t new_store[16];
static void replace_store(void *arg) {
    struct toy *t = arg;
    struct env *e = node_env(t->node);
    struct cluster_map next;
    while (out && memcmp(map_of(t->iom)->iom[out->iom].store, new_store, 16) != 0) {
        next = *map_of(t->iom);
        if (next.iom[out->iom].state != MAP_IOM_FAILED || next.voters == 1) return;
        cluster_map_replace(&next, out->iom, new_store);
        err done = co_register_cas(t->reg, next.version, &next, env_now_ns(e) + SEC(1));
        if (done != OK) co_sleep_until(e, env_now_ns(e) + MSEC(10), "another change of the map came first");
    }
}
static bool not_replaced(void *ctx) {
    return !newest_map() || memcmp(newest_map()->iom[out->iom].store, new_store, 16) != 0;
}
static bool voters_lack(void *ctx) {
    const struct cluster_map *map = newest_map();
    return !map || map->voters < 3 || map->chosen_by.count;
}

// Its incarnations begin above all of the lost one.
static void name_another_store(void) {
    static uint32_t stores;
    stores++;
    memcpy(new_store, &stores, sizeof stores);
    memset(new_store + 4, 0x80, 12);
}
static void bring_another_store_of(const struct cluster_map *map) {
    memcpy(out->store, new_store, 16);
    snprintf(out->disk, sizeof out->disk, "n%02x%02x%02x", new_store[2], new_store[1], new_store[0]);
    two_blocks_put(world_disk_add(w, out->disk, KIB(64)), false, map);
    out->incarnation += 1000;
}
static void bring_another_store(void) {
    name_another_store();
    env_spawn(node_env(toy[(out->iom + 1) % IOMS].node), "replace", replace_store, &toy[(out->iom + 1) % IOMS]);
    run_until(not_replaced, SEC(2), "the map has the new store");
    bring_another_store_of(newest_map());
}

// One after the other, more than half of the voters that there were first.
static void story_replaced(void) {
    for (int k = 0; k < IOMS - 1; k++) {
        out = &toy[(out->iom + 1) % IOMS];
        toy_kill(out, true);
        recovers_without(MSEC(3000));
        run_ms(world_random_below(w, 1500));
        bring_another_store();
        must(!others_wait(NULL), "they go on");
        run_ms(world_random_below(w, 1500));
        toy_start(out);
        run_until(not_whole, SEC(8), "it is up");
        run_until(voters_lack, SEC(1), "three vote again, and all know under whom");
        must(!not_whole(NULL), "nothing stops for that");
    }
}
static void stores_are_replaced(void **state) { every(story_replaced); }

static bool not_told(void *ctx) { return !out->replaced; }
static void story_back_from_the_dead(void) {
    struct toy old = *out;
    toy_kill(out, true);
    recovers_without(MSEC(3000));
    bring_another_store();
    struct toy new = *out;
    memcpy(out->store, old.store, 16);
    memcpy(out->disk, old.disk, sizeof out->disk);
    out->incarnation = old.incarnation;
    uint32_t serves_before = out->serves;
    toy_start(out);
    run_until(not_told, SEC(8), "the old store is told that it is replaced");
    run_ms(2000);
    same(out->replaced, 1, "times it was told");
    same(out->serves, serves_before, "times it served");
    must(!others_wait(NULL), "they go on");
    toy_kill(out, true);
    memcpy(out->store, new.store, 16);
    memcpy(out->disk, new.disk, sizeof out->disk);
    out->incarnation = new.incarnation;
    toy_start(out);
    run_until(not_whole, SEC(8), "the new one is up");
    run_until(voters_lack, SEC(1), "three vote again");
}
static void a_replaced_store_comes_back(void **state) { every(story_back_from_the_dead); }

// ---- a start with one missing ---------------------------------------------------------------------------------------
static void start_others(uint64_t within_ns) {
    for (int i = 0; i < IOMS; i++)
        if (&toy[i] != out) world_at(w, world_now_ns(w) + world_random_below(w, within_ns), toy_start, &toy[i]);
}

// One machine boots slower: it is waited for.
static void grace_at_a_cold_start(void **state) {
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        tell(seed);
        start_others(MSEC(500));
        world_at(w, world_now_ns(w) + MSEC(500) + world_random_below(w, MSEC(4000)), toy_start, out);
        run_until(not_whole, SEC(6), "all serve");
        same(newest_map()->epoch, 2, "the epoch");
        end();
    }
}

// Dead for certain or only silent: whoever has only just started waits as long.
static void all_crash_and_one_stays_away(void **state) {
    memset(&took, 0, sizeof took);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        tell_running(seed);
        for (int i = 0; i < IOMS; i++) toy_kill(&toy[i], world_chance(w, 500000));
        run_ms(world_random_below(w, 100));
        start_others(MSEC(300));
        uint64_t t = world_now_ns(w);
        run_ms(4900);
        must(not_recovering(NULL), "they wait");
        run_until(not_recovering, MSEC(500), "a recovery without it");
        note_time(t);
        run_until(others_wait, MSEC(300), "the others serve");
        run_ms(world_random_below(w, 3000));
        toy_start(out);
        comes_back();
        end();
    }
    tell_time("all crashed");
}

// ---- more than one --------------------------------------------------------------------------------------------------
static void story_second(void) {
    struct toy *o = &toy[(out->iom + 1 + world_random_below(w, IOMS - 1)) % IOMS];
    toy_kill(out, false);
    recovers_without(MSEC(20));
    toy_kill(o, world_chance(w, 500000));
    run_ms(8000);
    must(!some_serve(NULL), "neither is enough");
    bool out_first = world_chance(w, 500000);
    toy_start(out_first ? out : o);
    run_ms(3000);
    // Who was up is needed; who was failed already is not.
    if (out_first) {
        must(!some_serve(NULL), "nobody serves");
        toy_start(o);
        run_until(not_whole, SEC(8), "all are up");
    } else {
        must(!others_wait(NULL), "the three serve");
        toy_start(out);
        comes_back();
    }
}
static void a_second_one_stops_the_array(void **state) { every(story_second); }

// One dies, and in the recovery from that another: each time one has lost its memory, but what the first had was not on the second's disk yet. So more may be lost than
// what one alone has; and counted as such, once.
static void story_second_in_recovery(void) {
    struct toy *o = &toy[(out->iom + 1 + world_random_below(w, IOMS - 1)) % IOMS];
    uint32_t of_several = cluster_map_losses(newest_map());
    swift = false;
    toy_kill(out, false);
    run_until(not_recovering, SEC(3), "a recovery without it");
    same(cluster_map_losses(newest_map()), of_several, "losses of several, after one");
    toy_kill(o, world_chance(w, 500000));
    run_ms(world_random_below(w, 100));
    toy_start(o);
    run_until(others_wait, SEC(8), "the others serve");
    same(cluster_map_losses(newest_map()), of_several + 1, "losses of several, after two");
    swift = true;
    toy_start(out);
    comes_back();
    same(cluster_map_losses(newest_map()), of_several + 1, "losses of several, afterwards");
    toy_kill(o, true);
    run_ms(50);
    toy_start(o);
    run_until(not_whole, SEC(8), "all are up");
    same(cluster_map_losses(newest_map()), of_several + 1, "losses of several, after one more");
}
static void a_second_one_in_the_recovery(void **state) { every(story_second_in_recovery); }

static bool not_returning(void *ctx) {
    const struct cluster_map *map = newest_map();
    return !map || map->iom[out->iom].state != MAP_IOM_RETURNING;
}

// It dies in the recovery that takes it in: they go on without it, and are not stopped again at once.
static void story_fails_again(void) {
    toy_kill(out, false);
    recovers_without(MSEC(20));
    swift = false;
    toy_start(out);
    run_until(not_returning, SEC(4), "it returns");
    run_ms(world_random_below(w, 3));
    toy_kill(out, world_chance(w, 300000));
    run_until(others_wait, SEC(4), "the others go on");
    uint64_t epoch = newest_map()->epoch, t = world_now_ns(w);
    toy_start(out);
    run_ms(1800);
    same(newest_map()->epoch, epoch, "the epoch");
    run_until(not_whole, SEC(6), "all are up");
    assert_true(world_now_ns(w) - t < SEC(5));
}
static void it_fails_while_it_returns(void **state) { every(story_fails_again); }

// It had come back, not yet with everything.
static void story_fails_rebuilding(void) {
    toy_kill(out, false);
    recovers_without(MSEC(20));
    out->lazy = true;
    toy_start(out);
    run_until(not_rebuilding, SEC(4), "it rebuilds");
    toy_kill(out, false);
    recovers_without(MSEC(20));
    toy_start(out);
    run_until(not_rebuilding, SEC(4), "it rebuilds");
    struct toy *o = &toy[(out->iom + 1) % IOMS]; // another one's restart: it still rebuilds after it
    toy_kill(o, false);
    run_ms(3000);
    must(!some_serve(NULL), "nobody serves");
    toy_start(o);
    run_until(not_rebuilding, SEC(4), "it rebuilds");
    same(newest_map()->iom[o->iom].state, MAP_IOM_UP, "its state");
    out->lazy = false;
    env_spawn(node_env(out->node), "rebuild", toy_rebuild, out);
    run_until(not_whole, SEC(2), "it is up");
}
static void it_fails_while_it_rebuilds(void **state) { every(story_fails_rebuilding); }

// ---- faults of all kinds --------------------------------------------------------------------------------------------
// Connections break, proposers die with their change under way: what was not known to be done is read again.
static void many_faults(void **state) {
    uint64_t served = 0, epochs = 0;
    for (uint64_t seed = 1000; seed < 1000 + SEEDS; seed++) {
        stand_ins = true;
        story_seed = seed;
        begin(seed, 2000);
        for (int i = 0; i < IOMS; i++) {
            toy_start(&toy[i]);
            node_clock(toy[i].node, 0, (int32_t)world_random_below(w, 40001) - 20000); // clocks go 2 % wrong
        }
        thirty_seconds_of_faults();
        run_until(not_whole, SEC(45), "progress after the faults");
        served += serving_polls;
        epochs += map_of(0)->epoch;
        end();
    }
    print_message("%llu epochs, serving %llu%% of the time\n", (unsigned long long)epochs,
                  (unsigned long long)served * 100 / (SEEDS * 30000));
    assert_true(epochs > SEEDS * 8 && served > SEEDS * 3000);
}

static uint32_t stores_lost;
static void lose_and_replace(void *arg) {
    const struct cluster_map *map = newest_map();
    struct toy *any = &toy[world_random_below(w, IOMS)];
    if (!out && !quiet && map && map->state == ARRAY_RUNNING && world_chance(w, 300000))
        for (int i = 0; i < IOMS; i++)
            if (map->iom[i].state == MAP_IOM_FAILED) out = &toy[i];
    if (out && !out->lost) {
        if (node_running(out->node)) toy_kill(out, true);
        out->lost = true;
        name_another_store();
        stores_lost++;
    } else if (out && !not_replaced(NULL)) {
        bring_another_store_of(map);
        out->lost = false;
        toy_start(out);
        out = NULL;
    } else if (out && node_running(any->node) && any->member && map_of(any->iom)) {
        env_spawn(node_env(any->node), "replace", replace_store, any);
    }
    world_at(w, world_now_ns(w) + MSEC(200), lose_and_replace, NULL);
}

static bool not_whole_and_all_vote(void *ctx) { return out || not_whole(NULL) || voters_lack(NULL); }
static void many_faults_and_lost_stores(void **state) {
    uint64_t served = 0;
    stores_lost = 0;
    for (uint64_t seed = 5000; seed < 5000 + SEEDS; seed++) {
        tell(seed);
        out = NULL;
        world_options(w)->net_reset_ppm = 2000;
        for (int i = 0; i < IOMS; i++) {
            toy_start(&toy[i]);
            node_clock(toy[i].node, 0, (int32_t)world_random_below(w, 40001) - 20000);
        }
        lose_and_replace(NULL);
        thirty_seconds_of_faults();
        run_until(not_whole_and_all_vote, SEC(60), "progress after the faults");
        served += serving_polls;
        end();
    }
    print_message("%u stores lost, serving %llu%% of the time\n", stores_lost,
                  (unsigned long long)served * 100 / (SEEDS * 30000));
    assert_true(stores_lost > SEEDS / 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_is_killed),
        cmocka_unit_test(one_loses_power),
        cmocka_unit_test(one_restarts_at_once),
        cmocka_unit_test(one_sleeps),
        cmocka_unit_test(all_sleep),
        cmocka_unit_test(one_dozes),
        cmocka_unit_test(one_is_cut_off),
        cmocka_unit_test(one_is_mute),
        cmocka_unit_test(one_is_deaf),
        cmocka_unit_test(two_do_not_hear_each_other),
        cmocka_unit_test(one_has_its_lease),
        cmocka_unit_test(many_faults_and_lost_stores),
        cmocka_unit_test(a_voter_forgets),
        cmocka_unit_test(stores_are_replaced),
        cmocka_unit_test(a_replaced_store_comes_back),
        cmocka_unit_test(grace_at_a_cold_start),
        cmocka_unit_test(all_crash_and_one_stays_away),
        cmocka_unit_test(a_second_one_stops_the_array), cmocka_unit_test(a_second_one_in_the_recovery),
        cmocka_unit_test(it_fails_while_it_returns),
        cmocka_unit_test(it_fails_while_it_rebuilds),
        cmocka_unit_test(many_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
