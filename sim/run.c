// A run: make an array, let clients work, cut its power or restart it now and then, let it come to rest, look at everything.
//
//   start ─ work ─┬─ (none)      ─────────────────────────────────┐
//                 ├─ (restart)   clean stop of all, start ─ work ─ ┤─ done ─ last look ─ verify rows ─ clean stop ─ check the stores
//                 └─ (crash-all) cut at some I/O, start ─ work ─── ┘   a cut may hit the recovery after a cut, too
#include "sim/run.h"

#include "sim/audit.h"
#include "sim/workload.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_NS SEC(600) // virtual: what is not done by then hangs

static const char *const faults_names[] = {"none", "restart", "crash-all"};

bool run_faults_of(const char *name, enum run_faults *out) {
    for (uint32_t i = 0; i < ARRAY_LEN(faults_names); i++)
        if (!strcmp(name, faults_names[i])) {
            *out = (enum run_faults)i;
            return true;
        }
    return false;
}
const char *run_faults_name(enum run_faults f) { return faults_names[f]; }

struct run {
    const struct run_options *o;
    struct world *world;
    struct array *array;
    struct oracle *oracle;
    struct workload *work;
    uint32_t rounds;             // faults still to come
    uint64_t cut_in;             // power cut of all IOMs at the cut_in-th I/O from now on; 0: none planned
    enum world_io_moment cut_at; // when it is submitted or when it is complete
};

static void trace_out(void *ctx, const char *line) { fprintf(stderr, "%s\n", line); }

static void dump_line(void *ctx, const char *text) { fprintf(stderr, "  %s\n", text); }

static void tell_hang(struct run *r, const char *what) {
    oracle_fault(r->oracle, "hangs: %s does not come about within %llu s of virtual time", what, (unsigned long long)(LIMIT_NS / SEC(1)));
    if (!r->o->trace) return;
    workload_dump(r->work);
    for (uint8_t n = 0; n < r->array->ioms; n++)
        if (node_running(r->array->iom[n].node)) {
            fprintf(stderr, "%s waits for:\n", r->array->iom[n].name);
            env_dump(node_env(r->array->iom[n].node), dump_line, NULL);
        }
}

static bool run_while(struct run *r, const char *what, bool (*pred)(void *ctx)) {
    if (oracle_faults(r->oracle)) return false;
    if (world_run_while(r->world, pred, r, world_now_ns(r->world) + LIMIT_NS)) return oracle_faults(r->oracle) == 0;
    tell_hang(r, what);
    return false;
}

static bool not_serving(void *ctx) { return !array_serving(((struct run *)ctx)->array); }
static bool not_over(void *ctx) { return !array_over(((struct run *)ctx)->array); }
static bool preparing(void *ctx) { return !workload_prepared(((struct run *)ctx)->work); }
static bool working(void *ctx) { return !workload_done(((struct run *)ctx)->work) && !oracle_faults(((struct run *)ctx)->oracle); }
static bool checking(void *ctx) { return !workload_checked(((struct run *)ctx)->work); }
static bool cut_pending(void *ctx) { return ((struct run *)ctx)->cut_in && working(ctx); }
static bool recovering_uncut(void *ctx) { return ((struct run *)ctx)->cut_in && not_serving(ctx); }

// ---- faults
static void all_lost(struct run *r) {
    r->cut_in = 0;
    if (r->o->trace) fprintf(stderr, "%14.9f ---- the power of all IOMs is cut\n", (double)world_now_ns(r->world) / 1e9);
    array_power_cut(r->array);
    oracle_crash(r->oracle);
}

static void on_io(void *ctx, const struct world_io *io) {
    struct run *r = ctx;
    if (r->cut_in && io->moment == r->cut_at && --r->cut_in == 0) all_lost(r);
}

static void plan_cut(struct run *r, uint64_t k) {
    r->cut_at = world_random_below(r->world, 2) ? WORLD_IO_SUBMITTED : WORLD_IO_COMPLETED;
    r->cut_in = k;
}

// Cuts the power of all IOMs at the k-th I/O from now on, and perhaps again and again while they recover.
static bool crash_round(struct run *r) {
    plan_cut(r, 1 + world_random_below(r->world, 400));
    if (!run_while(r, "the planned power cut", cut_pending)) return false;
    if (r->cut_in) { // the clients were done before
        r->cut_in = 0;
        return true;
    }
    array_start(r->array);
    while (world_random_below(r->world, 3) == 0) {
        plan_cut(r, 1 + world_random_below(r->world, 60));
        if (!run_while(r, "recovery", recovering_uncut)) return false;
        if (r->cut_in) break; // it recovered before the cut came
        array_start(r->array);
    }
    r->cut_in = 0;
    return run_while(r, "recovery", not_serving);
}

static bool restart_round(struct run *r) {
    world_run_until(r->world, world_now_ns(r->world) + world_random_below(r->world, MSEC(400)));
    array_ask_stop(r->array);
    if (!run_while(r, "a clean stop", not_over)) return false;
    array_off(r->array);
    array_start(r->array);
    return run_while(r, "recovery after a clean stop", not_serving);
}

static bool fault_rounds(struct run *r) {
    for (; r->rounds && working(r); r->rounds--) {
        bool ok = r->o->faults == RUN_FAULTS_RESTART ? restart_round(r) : crash_round(r);
        if (!ok) return false;
        world_run_until(r->world, world_now_ns(r->world) + world_random_below(r->world, MSEC(300)));
    }
    return true;
}

static bool run_story(struct run *r) {
    array_start(r->array);
    workload_start(r->work);
    if (!run_while(r, "the first start", not_serving)) return false;
    if (!run_while(r, "what the run begins with", preparing)) return false;
    if (!fault_rounds(r)) return false;
    if (!run_while(r, "the end of the clients' work", working)) return false;
    workload_check(r->work);
    if (!run_while(r, "the last look", checking)) return false;
    if (!audit_rows(r->array, r->oracle)) return false;
    array_ask_stop(r->array);
    if (!run_while(r, "the last clean stop", not_over)) return false;
    array_off(r->array);
    return audit_stores(r->array, r->oracle);
}

// ---- what the seed decides
static void array_decide(struct world *w, const struct run_options *o, struct array_options *a) {
    *a = (struct array_options){.ioms = o->ioms ? o->ioms : (uint8_t)(3 + world_random_below(w, 3)), .store_bytes = MIB(64)};
    a->store.journal_bytes = MIB(1) << world_random_below(w, 3);
    a->store.cache_bytes = MIB(1 + world_random_below(w, 4));
    a->rows.cache_bytes = MIB(1) << world_random_below(w, 4);
    a->rows.credit_bytes = KIB(128) << world_random_below(w, 6);
    a->rows.flush_age_ns = MSEC(5 + world_random_below(w, 300));
}

static void work_decide(struct world *w, struct workload_options *o) {
    *o = (struct workload_options){
        .mxs = 1 + (uint32_t)world_random_below(w, 2),
        .writers = 2 + 2 * (uint32_t)world_random_below(w, 3),
        .namers = (uint32_t)world_random_below(w, 4),
        .ops = 30 + (uint32_t)world_random_below(w, 120),
        .blocks = 8 + 2 * (uint32_t)world_random_below(w, 60),
    };
}

static void world_decide(struct world *w, const struct run_options *o) {
    struct world_options *x = world_options(w);
    if (o->trace) {
        x->trace = trace_out;
        x->trace_level = TRACE_DEBUG;
    }
    if (world_random_below(w, 3) == 0) x->net_reset_ppm = (uint32_t)world_random_below(w, 2000);
    if (world_random_below(w, 3) == 0) {
        x->disk_spike_ppm = 10000;
        x->disk_spike_ns = MSEC(20);
    }
}

void sim_run(const struct run_options *o, struct run_result *result) {
    struct world_options x = world_options_default();
    struct run r = {.o = o, .world = world_create(o->seed, &x), .oracle = oracle_create()};
    struct array_options a;
    struct workload_options w;
    world_options(r.world)->on_io = on_io;
    world_options(r.world)->ctx = &r;
    world_decide(r.world, o);
    array_decide(r.world, o, &a);
    work_decide(r.world, &w);
    if (o->faults != RUN_FAULTS_NONE) r.rounds = 1 + (uint32_t)world_random_below(r.world, 5);
    r.array = array_create(r.world, &a);
    r.work = workload_create(r.array, r.oracle, &w);
    bool ok = run_story(&r);
    struct oracle_counts c = oracle_counts(r.oracle);
    *result = (struct run_result){.failed = !ok || oracle_faults(r.oracle), .crashes = oracle_crashes(r.oracle), .events = world_events(r.world),
                                  .ops = workload_progress(r.work), .uncertain_blocks = c.uncertain_blocks, .rolled_back = c.rolled_back, .digest = world_digest(r.world)};
    memcpy(result->why, oracle_first_fault(r.oracle), sizeof result->why);
    workload_destroy(r.work);
    world_destroy(r.world);
    array_destroy(r.array);
    oracle_destroy(r.oracle);
}
