// Toy owners of a membership in a simulated world: each opens, runs phases and rebuilds by waiting a little, and what
// must hold of serving is looked at every millisecond.
#pragma once
#include "cluster/member.h"
#include "cluster_two_blocks.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

#define IOMS 4
#define PHASES 3

struct toy {
    struct node *node;
    uint8_t iom, store[16];
    char at[8], disk[8];
    struct hub *hub;
    struct reg *reg;
    struct member *member;
    struct two_blocks blocks;
    uint64_t incarnation; // as the store keeps it
    bool lost;            // its store is; it waits for another
    bool clean, stubborn; // stubborn: does not open its store again after a stop
    bool back, lazy;      // back: served as one that is rebuilding; lazy: is never done with it
    // what happened, kept over restarts
    uint64_t done_epoch, phase_epoch, serve_epoch;
    uint32_t done, phase;
    uint32_t serves, stops, replaced;
};
static struct toy toy[IOMS];
static struct world *w;
static struct cluster_map first;
static char fault[160];
static uint64_t serving_polls;
static bool stand_ins, swift; // swift: toys open and run their phases in a millisecond

static void violated(const char *what, uint64_t n) {
    if (!fault[0]) snprintf(fault, sizeof fault, "%s (%llu)", what, (unsigned long long)n);
}

// ---- the toy owner --------------------------------------------------------------------------------------------------
static void pause_a_little(struct toy *t) {
    struct env *e = node_env(t->node);
    co_sleep_until(e, env_now_ns(e) + MSEC(1) + (swift ? 0 : env_random(e) % MSEC(20)), "toy work");
}

static void toy_open(void *arg) {
    struct toy *t = arg;
    pause_a_little(t);
    t->incarnation++;
    member_ready(t->member, t->incarnation, t->clean);
    t->clean = false;
}

static void toy_phase(void *arg) {
    struct toy *t = arg;
    uint64_t epoch = t->phase_epoch;
    uint32_t phase = t->phase;
    pause_a_little(t);
    if (member_epoch(t->member) != epoch) return;
    t->done_epoch = epoch;
    t->done = phase + 1;
    member_phase_done(t->member, epoch, phase);
}

static void on_phase(void *ctx, uint64_t epoch, uint32_t phase) {
    struct toy *t = ctx;
    for (int i = 0; i < IOMS && phase; i++) {
        bool done = toy[i].done_epoch > epoch || (toy[i].done_epoch == epoch && toy[i].done >= phase);
        if (!done && register_latest(t->reg)->iom[i].state != MAP_IOM_FAILED)
            violated("a phase began before all had done the one before", phase);
    }
    t->phase_epoch = epoch;
    t->phase = phase;
    env_spawn(node_env(t->node), "phase", toy_phase, t);
}

static void toy_rebuild(void *arg) {
    struct toy *t = arg;
    struct env *e = node_env(t->node);
    uint64_t epoch = t->serve_epoch;
    co_sleep_until(e, env_now_ns(e) + env_random(e) % MSEC(600), "toy rebuild");
    if (member_epoch(t->member) == epoch && !t->lazy) member_rebuilt(t->member);
}

static void on_serve(void *ctx, uint64_t epoch) {
    struct toy *t = ctx;
    if (t->done_epoch != epoch || t->done != PHASES) violated("served before recovery was done", epoch);
    t->serve_epoch = epoch;
    t->serves++;
    t->back = register_latest(t->reg)->iom[t->iom].state == MAP_IOM_REBUILDING;
    if (t->back) env_spawn(node_env(t->node), "rebuild", toy_rebuild, t);
}

static void on_stop(void *ctx, uint64_t epoch, const char *reason) {
    struct toy *t = ctx;
    t->stops++;
    t->serve_epoch = 0;
    t->clean = stand_ins; // what it had in memory is on disk
    if (!t->stubborn) env_spawn(node_env(t->node), "open again", toy_open, t);
}

static void on_replaced(void *ctx, const struct cluster_map *m) { ((struct toy *)ctx)->replaced++; }

static void on_cast(void *ctx, const struct node_name *from, struct msg *m) {
    struct toy *t = ctx;
    if (t->member) member_cast(t->member, from, m);
    else msg_free(m);
}

static void toy_main(void *arg) {
    struct toy *t = arg;
    struct env *e = node_env(t->node);
    struct hub_config hc = {.self = {.kind = NODE_IOM, .iom = t->iom, .incarnation = t->incarnation},
                            .events = {.cast = on_cast, .ctx = t}};
    memcpy(hc.self.id, t->store, 16);
    t->serve_epoch = 0;
    t->hub = hub_create(e, &hc);
    ASSERT(hub_listen(t->hub, t->at) == OK);
    ASSERT(disk_open(e, &(struct disk_open_args){t->disk, true, KIB(64)}, &t->blocks.d) == OK);
    struct register_config rc = {
        .env = e, .hub = t->hub, .iom = t->iom, .storage = {co_story_read, co_story_write, &t->blocks}};
    memcpy(rc.store, t->store, 16);
    ASSERT(co_register_open(&rc, &t->reg) == OK);
    struct member_config mc = {.env = e, .hub = t->hub, .reg = t->reg, .iom = t->iom, .phases = PHASES,
                               .stand_ins = stand_ins,
                               .events = {.phase = on_phase, .serve = on_serve, .stop = on_stop, .replaced = on_replaced, .ctx = t}};
    memcpy(mc.store, t->store, 16);
    t->member = member_create(&mc);
    toy_open(t);
}

static void toy_start(void *arg) {
    struct toy *t = arg;
    if (!t->lost && !node_running(t->node)) node_start(t->node, toy_main, t);
}

static void toy_kill(struct toy *t, bool power) {
    t->member = NULL;
    t->serve_epoch = 0;
    t->clean = false;
    if (power) node_power_cut(t->node);
    else node_crash(t->node);
}

// ---- what must hold at every instant --------------------------------------------------------------------------------
static bool serves(struct toy *t) {
    return node_running(t->node) && !node_paused(t->node) && t->member && member_may_serve(t->member);
}

// A node that is paused has not looked at its clock: if it went on now, it would serve by what it knows.
static bool could_serve(struct toy *t) {
    return node_running(t->node) && t->member && member_may_serve(t->member);
}

static uint64_t newest_epoch(void) {
    uint64_t newest = 0;
    for (int i = 0; i < IOMS; i++)
        if (node_running(toy[i].node) && toy[i].member) newest = MAX(newest, member_epoch(toy[i].member));
    return newest;
}

static void poll(void *arg) {
    const struct cluster_map *seen = NULL;
    uint64_t newest = newest_epoch();
    for (int i = 0; i < IOMS; i++) {
        if (could_serve(&toy[i]) && toy[i].serve_epoch < newest)
            violated("serves, and somebody takes part in a later epoch", newest);
        if (!serves(&toy[i])) continue;
        const struct cluster_map *map = register_latest(toy[i].reg);
        if (map->epoch != toy[i].serve_epoch) violated("serves under a map of another epoch", map->epoch);
        if (map->iom[i].incarnation != toy[i].incarnation) violated("serves without being admitted", map->epoch);
        if (seen && seen->epoch != map->epoch) violated("two serve in different epochs", map->epoch);
        seen = map;
    }
    serving_polls += seen != NULL;
    world_at(w, world_now_ns(w) + MSEC(1), poll, NULL);
}

static void begin(uint64_t seed, uint32_t reset_ppm) {
    struct world_options o = world_options_default();
    o.net_reset_ppm = reset_ppm;
    w = world_create(seed, &o);
    swift = false;
    fault[0] = 0;
    serving_polls = 0;
    struct map_first_iom f[IOMS];
    for (uint8_t i = 0; i < IOMS; i++) {
        toy[i] = (struct toy){.iom = i, .clean = true};
        snprintf(toy[i].at, sizeof toy[i].at, "iom%u", i);
        snprintf(toy[i].disk, sizeof toy[i].disk, "disk%u", i);
        toy[i].node = node_add(w, toy[i].at);
        f[i] = (struct map_first_iom){.at = toy[i].at, .host = toy[i].at};
        memset(toy[i].store, i + 1, 16);
        memcpy(f[i].store, toy[i].store, 16);
    }
    cluster_map_first(&first, (const uint8_t[16]){0}, f, IOMS);
    for (int i = 0; i < IOMS; i++) two_blocks_format(w, toy[i].disk, &first);
    poll(NULL);
}

static void end(void) {
    assert_string_equal(fault, "");
    world_destroy(w);
}

static bool not_all_serve(void *ctx) {
    for (int i = 0; i < IOMS; i++)
        if (!serves(&toy[i]) || toy[i].serve_epoch != toy[0].serve_epoch) return true;
    return false;
}
static bool some_serve(void *ctx) {
    for (int i = 0; i < IOMS; i++)
        if (serves(&toy[i])) return true;
    return false;
}
static bool until(bool (*pred)(void *), uint64_t limit_ns) {
    return world_run_while(w, pred, NULL, world_now_ns(w) + limit_ns);
}
static void run_ms(uint64_t ms) { world_run_until(w, world_now_ns(w) + MSEC(ms)); }
static const struct cluster_map *map_of(int i) { return register_latest(toy[i].reg); }

static void start_all(void) {
    for (int i = 0; i < IOMS; i++) toy_start(&toy[i]);
    assert_true(until(not_all_serve, SEC(2)));
}


// ---- faults of all kinds --------------------------------------------------------------------------------------------
static bool quiet;

static void random_fault(void *arg) {
    if (quiet) return;
    struct toy *t = &toy[world_random_below(w, IOMS)], *o = &toy[world_random_below(w, IOMS)];
    switch (world_random_below(w, 9)) {
    case 0:
    case 1:
        if (!node_running(t->node)) break;
        toy_kill(t, world_chance(w, 500000));
        world_at(w, world_now_ns(w) + world_random_below(w, SEC(2)), toy_start, t);
        break;
    case 2:
        for (int i = 0; i < IOMS; i++) {
            toy_kill(&toy[i], true);
            world_at(w, world_now_ns(w) + MSEC(1) + world_random_below(w, SEC(1)), toy_start, &toy[i]);
        }
        break;
    case 3:
        if (t != o) world_cut_link(t->node, o->node, world_chance(w, 500000));
        break;
    case 4: world_isolate(t->node); break;
    case 5:
    case 6: world_heal_all(w); break;
    case 7:
    case 8:
        if (node_paused(t->node)) node_resume(t->node);
        else if (node_running(t->node)) node_pause(t->node);
        break;
    }
    world_at(w, world_now_ns(w) + world_random_below(w, SEC(2)), random_fault, NULL);
}

// After them all are there again.
static void thirty_seconds_of_faults(void) {
    quiet = false;
    world_at(w, SEC(1), random_fault, NULL);
    run_ms(30000);
    quiet = true;
    world_heal_all(w);
    world_options(w)->net_reset_ppm = 0;
    for (int i = 0; i < IOMS; i++) {
        if (node_paused(toy[i].node)) node_resume(toy[i].node);
        toy_start(&toy[i]);
    }
}
