// The loop of the simulated world: virtual time, the event queue, nodes that start, pause and crash, their clocks.
#include "sim/inside.h"
#include <stdio.h>

#define WALL_START_NS SEC(1735689600) // 2025-01-01: the wall clock of every node at virtual time 0
#define TURN_TASKS 64                 // tasks that run in one turn before the rest of the world gets a look
#define TURN_MIN_NS 200               // a turn takes time: who polls the clock meets the future

void *world_alloc(size_t len_bytes) {
    void *p = calloc(1, len_bytes);
    ASSERT(p != NULL);
    return p;
}

char *world_strdup(const char *s) {
    size_t len = strlen(s) + 1;
    return memcpy(world_alloc(len), s, len);
}

// ---- the event queue: a binary heap ---------------------------------------------------------------------------------
static bool slot_before(const struct heap_slot *a, const struct heap_slot *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void slot_put(struct world *w, uint32_t i, struct heap_slot s) {
    w->heap[i] = s;
    s.ev->index = i + 1;
}

static void heap_up(struct world *w, uint32_t i, struct heap_slot s) {
    while (i > 0 && slot_before(&s, &w->heap[(i - 1) / 2])) {
        slot_put(w, i, w->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    slot_put(w, i, s);
}

static void heap_down(struct world *w, uint32_t i, struct heap_slot s) {
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= w->heap_len) break;
        if (child + 1 < w->heap_len && slot_before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!slot_before(&w->heap[child], &s)) break;
        slot_put(w, i, w->heap[child]);
        i = child;
    }
    slot_put(w, i, s);
}

void event_clear(struct world *w, struct event *ev) {
    if (ev->index == 0) return;
    uint32_t i = ev->index - 1;
    ASSERT(w->heap[i].ev == ev);
    ev->index = 0;
    struct heap_slot last = w->heap[--w->heap_len];
    if (last.ev == ev) return;
    if (i > 0 && slot_before(&last, &w->heap[(i - 1) / 2])) heap_up(w, i, last);
    else heap_down(w, i, last);
}

void event_set(struct world *w, struct event *ev, uint64_t at_ns) {
    ASSERT(at_ns >= w->now_ns);
    event_clear(w, ev);
    if (w->heap_len == w->heap_cap) {
        w->heap_cap = w->heap_cap ? 2 * w->heap_cap : 256;
        w->heap = realloc(w->heap, w->heap_cap * sizeof *w->heap);
        ASSERT(w->heap != NULL);
    }
    ev->at_ns = at_ns;
    heap_up(w, w->heap_len++, (struct heap_slot){at_ns, w->seq++, ev});
}

// ---- a scripted call ------------------------------------------------------------------------------------------------
struct call {
    struct event ev;
    struct list node;
    void (*fn)(void *arg);
    void *arg;
};

static void call_fire(struct world *w, struct event *ev) {
    struct call *c = CONTAINER_OF(ev, struct call, ev);
    void (*fn)(void *arg) = c->fn;
    void *arg = c->arg;
    list_remove(&c->node);
    free(c);
    world_mix(w, 0xCA11);
    fn(arg);
}

void world_at(struct world *w, uint64_t t_ns, void (*fn)(void *arg), void *arg) {
    struct call *c = world_alloc(sizeof *c);
    c->ev.fire = call_fire;
    c->fn = fn;
    c->arg = arg;
    list_push_back(&w->calls, &c->node);
    event_set(w, &c->ev, t_ns);
}

// ---- the world ------------------------------------------------------------------------------------------------------
struct world_options world_options_default(void) {
    return (struct world_options){
        .disk_min_ns = USEC(15),
        .disk_max_ns = USEC(150),
        .flush_min_ns = USEC(100),
        .flush_max_ns = USEC(800),
        .disk_ns_per_kib = 2000,
        .disk_depth = 16,
        .disk_spike_ns = MSEC(50),
        .net_min_ns = USEC(15),
        .net_max_ns = USEC(80),
        .net_ns_per_kib = 1000,
        .net_spike_ns = MSEC(20),
        .net_connect_ns = SEC(3),
        .net_give_up_ns = SEC(15),
        .net_power_notice_ns = UINT64_MAX,
        .net_heal_max_ns = MSEC(200),
        .turn_max_ns = USEC(3),
        .trace_level = TRACE_DEBUG,
    };
}

struct world *world_create(uint64_t seed, const struct world_options *o) {
    struct world *w = world_alloc(sizeof *w);
    w->opt = o ? *o : world_options_default();
    w->seed = seed;
    w->rng = seed;
    w->digest = seed;
    list_init(&w->disks);
    list_init(&w->wires);
    list_init(&w->calls);
    list_init(&w->idle_ios);
    list_init(&w->idle_packets);
    w->msg_counts = world_alloc(sizeof *w->msg_counts * (UINT16_MAX + 1));
    return w;
}

void world_destroy(struct world *w) {
    ASSERT(!w->running);
    w->opt.on_io = NULL;
    w->opt.on_msg = NULL;
    w->keep = NULL;
    for (uint32_t i = 0; i < w->nodes_len; i++) node_crash(w->nodes[i]);
    world_net_free(w);
    world_disks_free(w);
    LIST_FOR_SAFE(&w->calls, l) free(LIST_ENTRY(l, struct call, node));
    for (uint32_t i = 0; i < w->nodes_len; i++) {
        free(w->nodes[i]->name);
        free(w->nodes[i]);
    }
    free(w->msg_counts);
    free(w->heap);
    free(w);
}

struct world_options *world_options(struct world *w) { return &w->opt; }
uint64_t world_now_ns(const struct world *w) { return w->now_ns; }
uint64_t world_digest(const struct world *w) { return w->digest; }
uint64_t world_events(const struct world *w) { return w->events; }

uint64_t world_random(struct world *w) { return rng_next(&w->rng); }
void world_reseed(struct world *w, uint64_t course) { w->rng = hash64(&course, sizeof course, w->seed); }

uint64_t world_random_below(struct world *w, uint64_t n) {
    ASSERT(n > 0);
    return (uint64_t)((unsigned __int128)world_random(w) * n >> 64);
}

bool world_chance(struct world *w, uint32_t ppm) { return ppm > 0 && world_random_below(w, 1000000) < ppm; }

// Small delays are the rule: min plus the square of a uniform number.
uint64_t world_delay_ns(struct world *w, uint64_t min_ns, uint64_t max_ns, uint32_t spike_ppm, uint64_t spike_ns) {
    uint64_t u = world_random(w) >> 32, delay_ns = min_ns;
    if (max_ns > min_ns) delay_ns += (uint64_t)((unsigned __int128)(u * u) * (max_ns - min_ns) >> 64);
    if (world_chance(w, spike_ppm)) delay_ns += world_random_below(w, spike_ns + 1);
    return delay_ns;
}

static void node_kick(struct node *n);

// Code outside the world may have set a node's timers since the last run.
static void world_kick_all(struct world *w) {
    for (uint32_t i = 0; i < w->nodes_len; i++) node_kick(w->nodes[i]);
}

static void world_fire_next(struct world *w) {
    struct event *ev = w->heap[0].ev;
    ASSERT(ev->at_ns >= w->now_ns);
    w->now_ns = ev->at_ns;
    event_clear(w, ev);
    w->events++;
    world_mix(w, w->now_ns);
    w->running = true;
    ev->fire(w, ev);
    w->running = false;
}

bool world_run_step(struct world *w) {
    ASSERT(!w->running);
    world_kick_all(w);
    if (w->heap_len == 0) return false;
    world_fire_next(w);
    return true;
}

void world_run_until(struct world *w, uint64_t t_ns) {
    ASSERT(!w->running);
    world_kick_all(w);
    while (w->heap_len > 0 && w->heap[0].at_ns <= t_ns) world_fire_next(w);
    w->now_ns = MAX(w->now_ns, t_ns);
}

bool world_run_while(struct world *w, bool (*pred)(void *ctx), void *ctx, uint64_t limit_ns) {
    ASSERT(!w->running);
    world_kick_all(w);
    while (pred(ctx)) {
        if (w->heap_len == 0 || w->heap[0].at_ns > limit_ns) return false;
        world_fire_next(w);
    }
    return true;
}

// ---- a node's clock -------------------------------------------------------------------------------------------------
static uint64_t clock_local(const struct local_clock *c, uint64_t virtual_ns) {
    int64_t d = (int64_t)(virtual_ns - c->virtual_ns);
    return c->local_ns + (uint64_t)d + (uint64_t)(int64_t)((__int128)d * c->rate_ppm / 1000000);
}

// The first virtual time at which the local clock shows local_ns.
static uint64_t clock_virtual(const struct local_clock *c, uint64_t local_ns) {
    if (local_ns >= UINT64_MAX / 2) return UINT64_MAX;
    if (local_ns <= c->local_ns) return c->virtual_ns;
    __int128 d = local_ns - c->local_ns;
    uint64_t v = c->virtual_ns + (uint64_t)(d * 1000000 / (1000000 + c->rate_ppm));
    while (clock_local(c, v) < local_ns) v++;
    return v;
}

void node_clock(struct node *n, int64_t jump_ns, int32_t rate_ppm) {
    ASSERT(jump_ns >= 0 && rate_ppm > -900000);
    uint64_t now_ns = n->world->now_ns;
    n->clock = (struct local_clock){now_ns, clock_local(&n->clock, now_ns) + (uint64_t)jump_ns, rate_ppm};
    event_clear(n->world, &n->turn);
    node_kick(n);
}

void node_wall_clock(struct node *n, int64_t offset_ns) { n->wall_offset_ns = offset_ns; }

// ---- a node's turn --------------------------------------------------------------------------------------------------
// Sets the next turn: soon if a task is ready, else at the next timer. A turn already set for sooner is kept.
static void node_kick(struct node *n) {
    struct world *w = n->world;
    if (n->state != NODE_RUNNING || n->entered > 0) return;
    uint64_t at_ns;
    if (!list_empty(&n->env.ready)) {
        if (n->turn.index != 0 && n->turn.at_ns <= w->now_ns) return;
        at_ns = w->now_ns + world_random_below(w, w->opt.turn_max_ns + 1);
    } else {
        uint64_t timer_ns = env_next_timer_ns(&n->env);
        if (timer_ns == UINT64_MAX) return;
        at_ns = MAX(clock_virtual(&n->clock, timer_ns), w->now_ns);
    }
    at_ns = MAX(at_ns, n->turn_end_ns);
    if (at_ns != UINT64_MAX && (n->turn.index == 0 || at_ns < n->turn.at_ns)) event_set(w, &n->turn, at_ns);
}

static void node_turn(struct world *w, struct event *ev) {
    struct node *n = CONTAINER_OF(ev, struct node, turn);
    ASSERT(n->state == NODE_RUNNING);
    world_mix(w, n->index);
    n->turn_end_ns = w->now_ns + TURN_MIN_NS;
    node_enter(n);
    env_fire_timers(&n->env, clock_local(&n->clock, w->now_ns));
    env_run_ready(&n->env, TURN_TASKS);
    node_leave(n);
}

static void node_die(struct node *n) {
    bool power = n->doom == DOOM_POWER;
    n->doom = DOOM_NONE;
    world_mix(n->world, 0xDEAD00 + n->index * 2 + power);
    if (power) n->powered = false;
    event_clear(n->world, &n->turn);
    node_net_die(n, power);
    node_disks_die(n, power); // before the memory goes: writes in flight are taken from there
    if (n->state != NODE_OFF) env_fini(&n->env);
    n->state = NODE_OFF;
}

void node_enter(struct node *n) { n->entered++; }

bool node_leave(struct node *n) {
    ASSERT(n->entered > 0);
    if (--n->entered > 0) return n->doom == DOOM_NONE;
    if (n->doom != DOOM_NONE) {
        node_die(n);
        return false;
    }
    node_kick(n);
    return true;
}

// ---- what a node asks of the world ----------------------------------------------------------------------------------
static uint64_t sim_now_ns(struct env *e) {
    struct node *n = node_of_env(e);
    return clock_local(&n->clock, n->world->now_ns);
}

static uint64_t sim_wall_ns(struct env *e) {
    struct node *n = node_of_env(e);
    return WALL_START_NS + n->world->now_ns + (uint64_t)n->wall_offset_ns;
}

static uint64_t sim_random(struct env *e) { return rng_next(&node_of_env(e)->rng); }
static void sim_wake(struct env *e) { node_kick(node_of_env(e)); }

static const struct env_ops sim_ops = {
    .now_ns = sim_now_ns,
    .wall_ns = sim_wall_ns,
    .random = sim_random,
    .wake = sim_wake,
    .disk_open = sim_disk_open,
    .disk_submit = sim_disk_submit,
    .disk_close = sim_disk_close,
    .disk_inflight = sim_disk_inflight,
    .net_listen = sim_net_listen,
    .net_unlisten = sim_net_unlisten,
    .net_connect = sim_net_connect,
    .conn_send = sim_conn_send,
    .conn_queued_bytes = sim_conn_queued_bytes,
    .conn_close = sim_conn_close,
};

static void sim_trace(void *ctx, enum trace_level level, const char *line) {
    static const char letters[] = "EWID";
    struct node *n = ctx;
    struct world *w = n->world;
    if (w->opt.trace == NULL || level > w->opt.trace_level) return;
    char text[1200];
    snprintf(text, sizeof text, "%6llu.%09llu %c %-8s %s", (unsigned long long)(w->now_ns / SEC(1)),
             (unsigned long long)(w->now_ns % SEC(1)), letters[level], n->name, line);
    w->opt.trace(w->opt.trace_ctx, text);
}

// ---- nodes ----------------------------------------------------------------------------------------------------------
struct node *node_add(struct world *w, const char *name) {
    ASSERT(w->nodes_len < WORLD_NODES_MAX && node_find(w, name) == NULL);
    struct node *n = world_alloc(sizeof *n);
    n->world = w;
    n->name = world_strdup(name);
    n->index = w->nodes_len;
    n->turn.fire = node_turn;
    n->clock.local_ns = SEC(1) + world_random_below(w, SEC(3600)); // nobody may compare clocks of two nodes
    n->powered = true;
    list_init(&n->finished_ios);
    list_init(&n->conns);
    list_init(&n->listeners);
    w->nodes[w->nodes_len++] = n;
    return n;
}

struct node *node_find(struct world *w, const char *name) {
    for (uint32_t i = 0; i < w->nodes_len; i++)
        if (strcmp(w->nodes[i]->name, name) == 0) return w->nodes[i];
    return NULL;
}

const char *node_name(const struct node *n) { return n->name; }
uint32_t node_index(const struct node *n) { return n->index; }
struct env *node_env(struct node *n) { return &n->env; }
struct world *node_world(const struct node *n) { return n->world; }
bool node_running(const struct node *n) { return node_hears(n); }
bool node_paused(const struct node *n) { return n->state == NODE_PAUSED; }
uint32_t node_starts(const struct node *n) { return n->starts; }

void node_start(struct node *n, void (*fn)(void *arg), void *arg) {
    struct world *w = n->world;
    ASSERT(n->state == NODE_OFF && n->entered == 0);
    n->starts++;
    n->rng = w->seed ^ (uint64_t)(n->index + 1) << 48 ^ (uint64_t)n->starts << 32;
    env_init(&n->env, &sim_ops);
    n->env.trace = (struct trace){w->opt.trace ? w->opt.trace_level : TRACE_ERROR, sim_trace, n};
    n->state = NODE_RUNNING;
    world_mix(w, 0x57A27 + n->index);
    if (!n->powered) {
        n->powered = true;
        node_net_power_on(n);
    }
    env_spawn(&n->env, n->name, fn, arg);
    node_kick(n);
}

static void node_doom(struct node *n, enum node_doom doom) {
    n->doom = MAX(n->doom, doom);
    if (n->entered == 0) node_die(n); // else when its code has returned
}

void node_crash(struct node *n) {
    if (n->state != NODE_OFF) node_doom(n, DOOM_PROCESS);
}

void node_power_cut(struct node *n) {
    if (n->powered) node_doom(n, DOOM_POWER);
}

void node_pause(struct node *n) {
    ASSERT(n->state != NODE_OFF);
    if (n->state == NODE_PAUSED) return;
    n->state = NODE_PAUSED;
    world_mix(n->world, 0x570B + n->index);
    event_clear(n->world, &n->turn);
    world_net_changed(n->world);
}

void node_resume(struct node *n) {
    ASSERT(n->state != NODE_OFF);
    if (n->state == NODE_RUNNING) return;
    n->state = NODE_RUNNING;
    world_mix(n->world, 0xC0B7 + n->index);
    node_disks_resume(n);
    world_net_changed(n->world);
    node_kick(n);
}

// ---- crash plans ----------------------------------------------------------------------------------------------------
void world_crash_at_io(struct world *w, struct node *n, uint64_t k, enum world_io_moment at, enum world_crash how) {
    w->plan = (struct crash_plan){n, k, at, how};
}

bool world_crash_pending(const struct world *w) { return w->plan.k > 0; }

static void plan_carry_out(struct world *w) {
    void (*crash)(struct node *) = w->plan.how == WORLD_CRASH_POWER ? node_power_cut : node_crash;
    if (w->plan.node) {
        crash(w->plan.node);
        return;
    }
    for (uint32_t i = 0; i < w->nodes_len; i++) crash(w->nodes[i]);
}

void world_io_moment(struct world *w, const struct world_io *io) {
    world_mix(w, io->number * 16 + io->op * 2 + io->moment);
    if (w->opt.on_io) w->opt.on_io(w->opt.ctx, io);
    struct crash_plan *p = &w->plan;
    if (p->k > 0 && p->at == io->moment && (p->node == NULL || p->node == io->node) && --p->k == 0) plan_carry_out(w);
}
