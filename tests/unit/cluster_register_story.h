// The register under faults: nodes read and change it, and its voters, while power fails, links are cut, connections
// break, and stores are lost for good and replaced. What every one saw is checked: one value a version, each made from
// the one before it, nothing read that is older than what had been seen, no refused change among the chosen. Shared by
// the test and by the mutants, which must be found.
#include "cluster_two_blocks.h"
#include "sim/world.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

#define STORY_IOMS_MAX 6
#define STORY_VERSIONS 4096

// ---- the array ------------------------------------------------------------------------------------------------------
struct story_iom {
    struct node *node;
    uint8_t iom;
    char at[8], disk[8];
    uint8_t store[16];
    struct hub *hub;
    struct reg *reg;
    struct two_blocks blocks;
    uint64_t incarnation;
};
struct story {
    struct world *w;
    uint8_t ioms;
    struct story_iom iom[STORY_IOMS_MAX];
    struct cluster_map first;
    uint64_t ids[STORY_VERSIONS];       // chosen value of each version, as seen by anybody
    uint64_t befores[STORY_VERSIONS];   // what it says it was made from
    uint64_t refused[STORY_VERSIONS];   // changes that ended with ERR_CONFLICT
    uint32_t refused_len;
    uint64_t next_id, completed;        // completed: newest version that some operation has returned
    uint64_t deadline_ns, think_ns, phase_ns;
    uint32_t changed, unknown, reads, open_clients;
    uint32_t votes_changed, stores_replaced;
    bool voters_change;                 // some changes add or remove a voter
    uint64_t losing;                    // 0; or from this id on no change is one of the voters: a store is to be lost
    int lost;                           // whose; -1: none. It waits for a map with its new store
    struct cluster_map newest;          // of all that were seen
    bool quiet;
    char fault[160];                    // the first violation
};
static struct story st;

static void violated(const char *what, uint64_t version) {
    if (!st.fault[0]) snprintf(st.fault, sizeof st.fault, "%s (version %llu)", what, (unsigned long long)version);
}

static void lose_a_store(void *arg);
static void bring_a_store(void *arg);
static bool has_new_store(const struct cluster_map *m) {
    return !memcmp(m->iom[st.lost].store, st.iom[st.lost].store, 16);
}

// A value's identity is in `recoveries`, that of the one it was made from in `epoch`.
static void saw(const struct cluster_map *m) {
    ASSERT(m->version < STORY_VERSIONS);
    uint64_t *id = &st.ids[m->version];
    if (*id && *id != m->recoveries + 1) violated("two values of one version", m->version);
    *id = m->recoveries + 1;
    st.befores[m->version] = m->epoch;
    if (m->version <= st.newest.version) return;
    st.newest = *m;
    if (st.losing && st.lost < 0 && m->recoveries >= st.losing) world_at(st.w, world_now_ns(st.w), lose_a_store, NULL);
    if (st.lost >= 0 && has_new_store(m)) world_at(st.w, world_now_ns(st.w), bring_a_store, NULL);
}

static void on_chosen(void *ctx, const struct cluster_map *m) { saw(m); }
static void on_cast(void *ctx, const struct node_name *from, struct msg *m) {
    struct story_iom *n = ctx;
    if (n->reg) register_cast(n->reg, from, m);
    else msg_free(m);
}

#define STORY_VOTERS_MAX 5
static void add_or_remove(struct cluster_map *m, uint8_t iom) {
    int at = cluster_map_voter(m, m->iom[iom].store);
    if (at < 0 && m->voters < STORY_VOTERS_MAX) {
        memcpy(m->voter[m->voters].store, m->iom[iom].store, 16);
        m->voter[m->voters++].iom = iom;
    } else if (at >= 0 && m->voters > 1) {
        m->voter[at] = m->voter[--m->voters];
    }
}

static void change_voters(struct cluster_map *next) {
    if (st.lost >= 0 && !has_new_store(next)) {
        next->iom[st.lost].state = MAP_IOM_FAILED;
        cluster_map_replace(next, (uint8_t)st.lost, st.iom[st.lost].store);
    }
    if (st.losing || world_chance(st.w, 600000)) return;
    add_or_remove(next, (uint8_t)world_random_below(st.w, st.ioms));
    if (world_chance(st.w, 100000)) add_or_remove(next, (uint8_t)world_random_below(st.w, st.ioms)); // refused
}

static err co_story_change(struct story_iom *n, const struct cluster_map *from) {
    struct cluster_map next = *from;
    if (st.voters_change) change_voters(&next);
    struct map_voters old = cluster_map_voters(from), new = cluster_map_voters(&next);
    bool same = map_voters_same(&old, &new);
    next.recoveries = ++st.next_id;
    next.epoch = from->recoveries + 1;
    uint64_t id = next.recoveries;
    err e = co_register_cas(n->reg, from->version, &next, env_now_ns(node_env(n->node)) + st.deadline_ns);
    if (e == OK) {
        next.version = from->version + 1;
        next.chosen_by = same ? (struct map_voters){0} : old;
        saw(&next);
        st.votes_changed += !same;
        st.completed = MAX(st.completed, next.version);
        st.changed++;
    } else if (e == ERR_CONFLICT || e == ERR_INVAL) {
        if (st.refused_len < STORY_VERSIONS) st.refused[st.refused_len++] = id;
    } else {
        st.unknown++;
    }
    return e;
}

static err co_story_look(struct story_iom *n, struct cluster_map *m) {
    uint64_t before = st.completed;
    err e = co_register_read(n->reg, env_now_ns(node_env(n->node)) + st.deadline_ns, m);
    if (e != OK) return e;
    saw(m);
    st.reads++;
    if (m->version < before) violated("a read gave an older value than was known", m->version);
    st.completed = MAX(st.completed, m->version);
    return OK;
}

static void story_client(void *arg) {
    struct story_iom *n = arg;
    struct env *e = node_env(n->node);
    struct cluster_map m;
    while (!st.quiet) {
        if (co_story_look(n, &m) == OK && !st.quiet) (void)co_story_change(n, &m);
        co_sleep_until(e, env_now_ns(e) + env_random(e) % (st.think_ns + 1), "thinking");
    }
    st.open_clients--;
}

static void story_start(void *arg) {
    struct story_iom *n = arg;
    struct env *e = node_env(n->node);
    struct hub_config hc = {.self = {.kind = NODE_IOM, .iom = n->iom, .incarnation = ++n->incarnation},
                            .events = {.cast = on_cast, .ctx = n}};
    n->reg = NULL;
    memcpy(hc.self.id, n->store, 16);
    n->hub = hub_create(e, &hc);
    ASSERT(hub_listen(n->hub, n->at) == OK);
    ASSERT(disk_open(e, &(struct disk_open_args){n->disk, true, KIB(64)}, &n->blocks.d) == OK);
    struct register_config c = {.env = e,
                                .hub = n->hub,
                                .iom = n->iom,
                                .storage = {co_story_read, co_story_write, &n->blocks},
                                .phase_ns = st.phase_ns,
                                .chosen = on_chosen,
                                .ctx = n};
    memcpy(c.store, n->store, 16);
    struct reg *r;
    ASSERT(co_register_open(&c, &r) == OK);
    n->reg = r;
}

static void story_life(void *arg) {
    story_start(arg);
    story_client(arg);
}

static void story_begin(uint64_t seed, uint8_t ioms) {
    struct world_options o = world_options_default();
    o.net_reset_ppm = seed % 4 ? 2000 : 0;
    st = (struct story){.ioms = ioms, .lost = -1, .deadline_ns = MSEC(600), .think_ns = MSEC(20), .phase_ns = MSEC(60)};
    if (seed % 2) { // slow: many things are under way at once
        o.net_min_ns = USEC(100);
        o.net_max_ns = MSEC(40);
        o.net_power_notice_ns = MSEC(1);
        o.flush_max_ns = MSEC(8);
        st.think_ns = MSEC(3);
        st.phase_ns = MSEC(150);
    }
    st.w = world_create(seed, &o);
    struct map_first_iom f[STORY_IOMS_MAX];
    for (uint8_t i = 0; i < ioms; i++) {
        struct story_iom *n = &st.iom[i];
        n->iom = i;
        snprintf(n->at, sizeof n->at, "iom%u", i);
        snprintf(n->disk, sizeof n->disk, "disk%u", i);
        n->node = node_add(st.w, n->at);
        f[i] = (struct map_first_iom){.at = n->at, .host = n->at};
        memset(n->store, i + 1, 16);
        memcpy(f[i].store, n->store, 16);
    }
    cluster_map_first(&st.first, (const uint8_t[16]){0}, f, ioms);
    for (uint8_t i = 0; i < ioms; i++) two_blocks_format(st.w, st.iom[i].disk, &st.first);
}

// ---- faults ---------------------------------------------------------------------------------------------------------
static void story_revive(struct story_iom *n) {
    if (node_running(n->node) || n->iom == st.lost) return;
    st.open_clients++;
    node_start(n->node, story_life, n);
}

static void story_kill(struct story_iom *n, bool power) {
    if (!node_running(n->node)) return;
    st.open_clients--;
    n->reg = NULL;
    if (power) node_power_cut(n->node);
    else node_crash(n->node);
}

static void revive_later(void *arg) {
    if (!st.quiet) story_revive(arg);
}

// ---- a store is lost for good, and replaced by an empty one ---------------------------------------------------------
// Only of voters whose majority can do without: all know by now who they are, for no change of them is under way.
static void lose_a_store(void *arg) {
    if (st.quiet || !st.losing || st.lost >= 0) return;
    struct story_iom *n = &st.iom[world_random_below(st.w, st.ioms)];
    if (st.newest.voters < 3 && cluster_map_voter(&st.newest, n->store) >= 0) {
        st.losing = 0;
        return;
    }
    story_kill(n, true);
    world_disk_erase(world_disk_find(st.w, n->disk));
    st.lost = n->iom;
    n->store[1]++; // the new one's
}

static void bring_a_store(void *arg) {
    if (st.lost < 0) return;
    struct story_iom *n = &st.iom[st.lost];
    two_blocks_put(world_disk_find(st.w, n->disk), false, &st.newest);
    st.lost = -1;
    st.losing = 0;
    st.stores_replaced++;
    if (!st.quiet) story_revive(n);
}

static void story_fault(void *arg) {
    if (st.quiet) return;
    if (st.voters_change && !st.losing && world_chance(st.w, 30000)) st.losing = st.next_id + 1;
    struct story_iom *n = &st.iom[world_random_below(st.w, st.ioms)], *o = &st.iom[world_random_below(st.w, st.ioms)];
    switch (world_random_below(st.w, 7)) {
    case 0:
    case 1:
    case 2:
        story_kill(n, true);
        world_at(st.w,
                 world_now_ns(st.w) + MSEC(1) + world_random_below(st.w, MSEC(world_chance(st.w, 700000) ? 15 : 300)),
                 revive_later, n);
        break;
    case 3:
        story_kill(n, false);
        world_at(st.w, world_now_ns(st.w) + MSEC(1) + world_random_below(st.w, MSEC(100)), revive_later, n);
        break;
    case 4:
        if (n != o) world_cut_link(n->node, o->node, world_chance(st.w, 500000));
        break;
    case 5: world_heal_all(st.w); break;
    case 6:
        if (node_paused(n->node)) node_resume(n->node);
        else if (node_running(n->node)) node_pause(n->node);
        break;
    }
    world_at(st.w, world_now_ns(st.w) + MSEC(1) + world_random_below(st.w, MSEC(60)), story_fault, NULL);
}

static void story_heal(void) {
    st.quiet = true;
    world_heal_all(st.w);
    world_options(st.w)->net_reset_ppm = 0;
    bring_a_store(NULL); // perhaps no map names it: it reads all the same
    for (uint8_t i = 0; i < st.ioms; i++) {
        if (node_paused(st.iom[i].node)) node_resume(st.iom[i].node);
        story_revive(&st.iom[i]); // its client ends at once
    }
}

static bool clients_open(void *ctx) { return st.open_clients > 0; }

static void check_chain(void) {
    for (uint64_t v = 2; v < STORY_VERSIONS && st.ids[v]; v++)
        if (st.ids[v - 1] && st.befores[v] != st.ids[v - 1]) violated("a value was not made from the one before it", v);
    for (uint32_t i = 0; i < st.refused_len; i++)
        for (uint64_t v = 1; v < STORY_VERSIONS; v++)
            if (st.ids[v] == st.refused[i] + 1) violated("a refused change was chosen", v);
}

// Who slept through so many changes that those who voted when it last looked are lost has nobody to ask: it is told, as
// heartbeats do, again and again.
static uint32_t last_readers;
static bool readers_open(void *ctx) { return last_readers < st.ioms; }

static void last_look(void *arg) {
    struct story_iom *n = arg;
    struct cluster_map m;
    if (co_story_look(n, &m) != OK) return;
    last_readers++;
    for (struct env *e = node_env(n->node); readers_open(NULL); co_sleep_until(e, env_now_ns(e) + MSEC(100), "telling"))
        for (uint8_t i = 0; i < st.ioms; i++)
            if (i != n->iom) register_tell(n->reg, i);
}

// Runs one seed; the first violation, or NULL.
static const char *story_run(uint64_t seed, uint8_t ioms, bool voters_change, uint64_t length_ns) {
    story_begin(seed, ioms);
    st.voters_change = voters_change;
    for (uint8_t i = 0; i < ioms; i++) story_revive(&st.iom[i]);
    world_at(st.w, MSEC(50), story_fault, NULL);
    world_run_until(st.w, length_ns);
    story_heal();
    if (!world_run_while(st.w, clients_open, NULL, world_now_ns(st.w) + SEC(20))) violated("operations do not end", 0);
    world_run_until(st.w, world_now_ns(st.w) + SEC(2));
    st.deadline_ns = SEC(5);
    last_readers = 0;
    if (!st.fault[0]) {
        for (uint8_t i = 0; i < ioms; i++) env_spawn(node_env(st.iom[i].node), "last look", last_look, &st.iom[i]);
        if (!world_run_while(st.w, readers_open, NULL, world_now_ns(st.w) + SEC(20)))
            violated("no progress after the faults", 0);
    }
    check_chain();
    world_destroy(st.w);
    return st.fault[0] ? st.fault : NULL;
}
