// A run: make an array, let clients work, cut its power or restart it now and then, let it come to rest, look at everything.
//
//   start ─ work ─┬─ (none)      ─────────────────────────────────┐
//                 ├─ (restart)   clean stop of all, start ─ work ─ ┤─ done ─ last look ─ verify rows ─ clean stop ─ check the stores
//                 ├─ (crash-all, kill-all) cut at some I/O, start ─┤   a cut may hit the recovery after a cut, too
//                 ├─ (one) one fails ─ it comes back ─ all recover ┤   likewise
//                 ├─ (away) one fails ─ the others go on without it ─ it comes back, all is built ┤
//                 ├─ (any) likewise, and meanwhile, or as it returns, the power of all is cut, or another one's ┤
//                 └─ (host) all IOMs of a host fail at once, and come back together or one after the other      ┘
//
// What the oracle is told of a failure of one: while the array goes on in the epoch of the failure, everything is as it was; when it serves again, in another
// epoch, what was acknowledged and not durable may have gone (oracle_crash). Not before: what is read in between rests on memory that goes with the stop.
//
// What is demanded of the failure of a host: with one IOM on it, as of the failure of one. With more the array stops, as at any two failures, and when all of them
// are back, or all but one, it goes on, with what was durable and each block old or new, as after a crash of all. With --strict it is asked for more where hosts
// are enough for every file and all proxies are on other hosts: then each thing acknowledged was in the memory of two hosts, and is there.
#include "sim/run.h"

#include "sim/audit.h"
#include "sim/hazards.h"
#include "sim/params.h"
#include "sim/workload.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_NS SEC(600) // virtual: what is not done by then hangs

static const char *const faults_names[] = {"none", "restart", "crash-all", "kill-all", "one", "away", "any", "host"};

bool run_faults_of(const char *name, enum run_faults *out) {
    for (uint32_t i = 0; i < ARRAY_LEN(faults_names); i++)
        if (!strcmp(name, faults_names[i])) {
            *out = (enum run_faults)i;
            return true;
        }
    return false;
}
const char *run_faults_name(enum run_faults f) { return faults_names[f]; }

enum failure { FAIL_PROCESS, FAIL_POWER, FAIL_PAUSE, FAIL_LINK, FAILURES };

struct run {
    const struct run_options *o;
    struct run_params p;
    struct run_result *result;
    struct world *world;
    struct array *array;
    struct oracle *oracle;
    struct workload *work;
    struct hazards *hazards;
    uint64_t rounds;             // faults still to come
    uint64_t again;              // in the recovery from the present one
    uint64_t cut_in;             // power cut of all IOMs at the cut_in-th I/O from now on; 0: none planned
    enum world_io_moment cut_at; // when it is submitted or when it is complete
    struct sim_iom *victim;      // of the planned failure; NULL: all IOMs
    bool victim_io;              // only the victim's I/Os count
    enum failure failure;        // of the victim
    bool told_due;               // an IOM failed and the oracle does not know yet
    uint64_t mx_deaths;          // still to come
    uint64_t mx_away;            // bit n: MX n is dead
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
static bool others_not_serving(void *ctx) { return !array_serving_but(((struct run *)ctx)->array, ((struct run *)ctx)->victim); }
static bool returning_uncut(void *ctx) { return ((struct run *)ctx)->cut_in && !array_whole(((struct run *)ctx)->array); }
static bool not_whole(void *ctx) { return !array_whole(((struct run *)ctx)->array); }
static bool not_over(void *ctx) { return !array_over(((struct run *)ctx)->array); }
static bool preparing(void *ctx) { return !workload_prepared(((struct run *)ctx)->work); }
static bool working(void *ctx) { return !workload_done(((struct run *)ctx)->work) && !oracle_faults(((struct run *)ctx)->oracle); }
static bool checking(void *ctx) { return !workload_checked(((struct run *)ctx)->work); }
static bool cut_pending(void *ctx) { return ((struct run *)ctx)->cut_in && working(ctx); }
static bool recovering_uncut(void *ctx) { return ((struct run *)ctx)->cut_in && not_serving(ctx); }

// ---- faults
static void tell(struct run *r, const char *what) {
    if (r->o->trace) fprintf(stderr, "%14.9f ---- %s\n", (double)world_now_ns(r->world) / 1e9, what);
}

static void all_lost(struct run *r) {
    bool power = r->o->faults != RUN_FAULTS_KILL_ALL;
    tell(r, power ? "the power of all IOMs is cut" : "the processes of all IOMs die");
    (power ? array_power_cut : array_kill)(r->array);
    oracle_crash(r->oracle);
}

// The victim, and in mode host those beside it.
static bool is_hit(const struct run *r, const struct sim_iom *i) {
    if (!r->victim) return false;
    bool beside = one_host(&r->array->shape, (iom_id){i->n}, (iom_id){r->victim->n});
    return i == r->victim || (r->o->faults == RUN_FAULTS_HOST && beside);
}

static uint32_t hit(const struct run *r) {
    uint32_t n = 0;
    for (uint8_t i = 0; i < r->array->ioms; i++) n += is_hit(r, &r->array->iom[i]);
    return n;
}

static void fails(struct run *r, struct sim_iom *i) {
    static const char *const what[FAILURES] = {"its process dies", "its power is cut", "it stands still", "its links are cut"};
    char line[64];
    snprintf(line, sizeof line, "%s: %s", i->name, what[r->failure]);
    tell(r, line);
    if (r->failure == FAIL_PAUSE) node_pause(i->node);
    else if (r->failure == FAIL_LINK) world_isolate(i->node);
    else array_iom_dies(i, r->failure == FAIL_POWER);
}

static void one_fails(struct run *r) {
    r->told_due = true;
    for (uint8_t n = 0; n < r->array->ioms; n++)
        if (is_hit(r, &r->array->iom[n])) fails(r, &r->array->iom[n]);
}

// But the one that failed: standing still, it does not know that it serves no more.
static uint32_t serving(const struct run *r) {
    const struct array *a = r->array;
    uint32_t n = 0;
    for (uint8_t i = 0; i < a->ioms; i++) n += a->iom[i].serving && (!is_hit(r, &a->iom[i]) || r->o->faults < RUN_FAULTS_AWAY);
    return n;
}

static bool two_hosts_have_all(const struct run *r) {
    const struct array_shape *s = &r->array->shape;
    for (uint8_t i = 0; i < s->ioms; i++)
        if (one_host(s, (iom_id){i}, proxy_of(s, (iom_id){i}))) return false;
    return array_hosts(s) >= 3;
}

// The old epoch is over for everybody: an IOM serves only when all have done their recovery. The first one to serve is the first of a new epoch.
static void on_serving(void *ctx) {
    struct run *r = ctx;
    if (!r->told_due || serving(r) > 1) return;
    r->told_due = false;
    bool several = hit(r) > 1;
    if (r->o->faults < RUN_FAULTS_AWAY || several) oracle_recovery(r->oracle);
    bool kept = several ? r->o->strict && two_hosts_have_all(r) : r->o->strict || r->o->faults >= RUN_FAULTS_AWAY;
    (kept ? oracle_failure : oracle_crash)(r->oracle);
}

static void keep_count(struct run *r) {
    r->result->events = world_events(r->world);
    r->result->crashes = oracle_crashes(r->oracle);
    if (r->work) r->result->ops = workload_progress(r->work);
}

// Nobody died: what is held goes to disk, and the array comes back with all of it.
static void on_stopped(void *ctx) {
    struct run *r = ctx;
    if (hazards_may_stop(r->hazards)) oracle_recovery(r->oracle);
}

static void on_io(void *ctx, const struct world_io *io) {
    struct run *r = ctx;
    keep_count(r);
    if (r->hazards) hazards_on_io(r->hazards, io);
    if (!r->cut_in || io->moment != r->cut_at || (r->victim_io && io->node != r->victim->node) || --r->cut_in) return;
    if (r->victim) one_fails(r);
    else all_lost(r);
}

static void plan_cut(struct run *r, uint64_t k) {
    r->cut_at = world_random_below(r->world, 2) ? WORLD_IO_SUBMITTED : WORLD_IO_COMPLETED;
    r->cut_in = k;
    if (!r->result->first_cut && r->p.cut_in) r->cut_in = r->p.cut_in;
    if (!r->result->first_cut) r->result->first_cut = r->cut_in;
}

// Whether another fault comes in the recovery from one.
static bool once_more(struct run *r) {
    if (r->again == 0 || world_random_below(r->world, 3)) return false;
    r->again--;
    return true;
}

static void start_again(struct run *r) {
    hazards_at_rest(r->hazards);
    array_start(r->array);
}

// Cuts the power of all IOMs at the k-th I/O from now on, and perhaps again and again while they recover.
static bool crash_round(struct run *r) {
    plan_cut(r, 1 + world_random_below(r->world, 400));
    r->again = r->p.again;
    if (!run_while(r, "the planned power cut", cut_pending)) return false;
    if (r->cut_in) { // the clients were done before
        r->cut_in = 0;
        return true;
    }
    start_again(r);
    while (once_more(r)) {
        plan_cut(r, 1 + world_random_below(r->world, 60));
        if (!run_while(r, "recovery", recovering_uncut)) return false;
        if (r->cut_in) break; // it recovered before the cut came
        start_again(r);
    }
    r->cut_in = 0;
    return run_while(r, "recovery", not_serving);
}

// ---- an MX dies, at any moment, and its successor comes soon or late
static bool mx_away(void *ctx) { return ((struct run *)ctx)->mx_away; }

static void mx_dies(void *arg);
static void mx_next(struct run *r) { world_at(r->world, world_now_ns(r->world) + world_random_below(r->world, MSEC(500)), mx_dies, r); }

static void mx_comes_back(void *arg) {
    struct run *r = arg;
    for (uint32_t n = 0; n < workload_mxs(r->work); n++)
        if (r->mx_away >> n & 1) workload_mx_comes_back(r->work, n);
    tell(r, "the MX comes back");
    r->mx_away = 0;
    if (r->mx_deaths) mx_next(r);
}

static void mx_dies(void *arg) {
    struct run *r = arg;
    if (workload_done(r->work)) return;
    if (!workload_prepared(r->work)) {
        mx_next(r);
        return;
    }
    uint32_t n = (uint32_t)world_random_below(r->world, workload_mxs(r->work));
    tell(r, "an MX dies");
    r->mx_deaths--;
    r->mx_away |= 1ull << n;
    workload_mx_dies(r->work, n);
    world_at(r->world, world_now_ns(r->world) + world_random_below(r->world, world_random_below(r->world, 4) ? MSEC(50) : SEC(90)), mx_comes_back, r);
}

// ---- one fails
static void plan_failure(struct run *r, uint64_t ios) {
    struct world *w = r->world;
    r->victim = &r->array->iom[world_random_below(w, r->array->ioms)];
    r->victim_io = world_random_below(w, 2) != 0;
    r->failure = (enum failure)world_random_below(w, FAILURES);
    world_options(w)->net_power_notice_ns = world_random_below(w, 3) ? UINT64_MAX : MSEC(1);
    plan_cut(r, 1 + world_random_below(w, r->victim_io ? 1 + ios / r->array->ioms : ios));
}

// It is away for a while: so short that nobody noticed, or so long that the others have stopped.
static void victim_comes_back(struct run *r) {
    struct world *w = r->world;
    bool dead = r->failure == FAIL_PROCESS || r->failure == FAIL_POWER;
    uint64_t away_ns = dead && world_random_below(w, 2) ? world_random_below(w, MSEC(50)) : MSEC(300) + world_random_below(w, MSEC(3700));
    world_run_until(w, world_now_ns(w) + away_ns);
    tell(r, "it comes back");
    if (r->failure == FAIL_PAUSE) node_resume(r->victim->node);
    else if (r->failure == FAIL_LINK) world_heal_all(w);
    else start_again(r);
    if (!dead) world_run_until(w, world_now_ns(w) + SEC(3)); // by then a stop that is on its way has come
}

// Fails one, and perhaps another (or the same again) while they recover. That is more than one failure, so not when nothing may be lost.
static bool one_round(struct run *r) {
    plan_failure(r, 400);
    r->again = r->p.again;
    if (!run_while(r, "the planned failure", cut_pending)) return false;
    if (!r->cut_in) victim_comes_back(r);
    while (!r->cut_in && !r->o->strict && once_more(r)) {
        plan_failure(r, 60);
        if (!run_while(r, "recovery of one", recovering_uncut)) return false;
        if (!r->cut_in) victim_comes_back(r);
    }
    r->cut_in = 0; // the clients were done, or all had recovered, before it came
    return run_while(r, "recovery of one", not_serving);
}

// Its store is lost as well: it comes back with an empty one.
static bool is_replaced(struct run *r) {
    char line[64];
    snprintf(line, sizeof line, "%s: its store is replaced", r->victim->name);
    tell(r, line);
    if (array_replace(r->victim, world_now_ns(r->world) + LIMIT_NS)) return true;
    tell_hang(r, "the replacement of a store");
    return false;
}

static void victim_returns(struct run *r, bool dead) {
    tell(r, "it comes back");
    if (r->failure == FAIL_PAUSE) node_resume(r->victim->node);
    else if (r->failure == FAIL_LINK) world_heal_all(r->world);
    if (dead) array_start(r->array);
}

// While one is away the power of all others fails too; they come back without it, or all together. Until they are back, that is more than one failure.
static bool all_but_it_lost(struct run *r) {
    struct array *a = r->array;
    tell(r, "the others lose their power too");
    for (uint8_t n = 0; n < a->ioms; n++)
        if (&a->iom[n] != r->victim) array_iom_dies(&a->iom[n], true);
    oracle_crash(r->oracle);
    r->told_due = false;
    world_run_until(r->world, world_now_ns(r->world) + world_random_below(r->world, SEC(1)));
    for (uint8_t n = 0; n < a->ioms; n++)
        if (&a->iom[n] != r->victim) array_start_one(&a->iom[n]);
    return true;
}

// Something else fails while it returns: it again, another, or all.
static bool worse_as_it_returns(struct run *r) {
    struct sim_iom *first = r->victim;
    enum failure was = r->failure;
    plan_failure(r, 200);
    uint32_t what = (uint32_t)world_random_below(r->world, 3);
    if (what == 0) r->victim = first;
    if (what == 2) r->victim = NULL;
    if (r->victim && r->failure >= FAIL_PAUSE) r->failure = FAIL_POWER;
    if (!r->victim) r->victim_io = false;
    struct sim_iom *second = r->victim;
    if (!run_while(r, "the return of one, or what comes between", returning_uncut)) return false;
    if (r->cut_in) { // it was whole before
        r->cut_in = 0;
        r->victim = first;
        return true;
    }
    if (second != first && second) oracle_crash(r->oracle); // two at once
    if (second != first) r->told_due = false;
    world_run_until(r->world, world_now_ns(r->world) + world_random_below(r->world, SEC(3)));
    array_start(r->array);
    r->victim = first;
    r->failure = was;
    return true;
}

// One at a time fails and is away for a moment or for long, while clients work; the next only when all is built again. Nobody is told of an error.
static bool away_round(struct run *r) {
    struct world *w = r->world;
    plan_failure(r, 400);
    if (!run_while(r, "the planned failure", cut_pending)) return false;
    if (r->cut_in) { // the clients were done before
        r->cut_in = 0;
        return true;
    }
    bool dead = r->failure == FAIL_PROCESS || r->failure == FAIL_POWER;
    uint64_t away_ns = world_random_below(w, 4) ? MSEC(100) + world_random_below(w, SEC(10)) : world_random_below(w, MSEC(50));
    world_run_until(w, world_now_ns(w) + away_ns);
    bool any = r->o->faults == RUN_FAULTS_ANY;
    if (any && dead && world_random_below(w, 3) == 0) {
        if (!all_but_it_lost(r)) return false;
        if (world_random_below(w, 2) && !run_while(r, "recovery without one", others_not_serving)) return false;
        world_run_until(w, world_now_ns(w) + world_random_below(w, SEC(2)));
    }
    if (r->p.replaces && dead && world_random_below(w, 2) && !is_replaced(r)) return false;
    victim_returns(r, dead);
    if (any && dead && world_random_below(w, 2) == 0 && !worse_as_it_returns(r)) return false;
    if (!dead) world_run_until(w, world_now_ns(w) + SEC(3)); // by then a stop that is on its way has come
    return run_while(r, "the return and rebuild of one", not_whole);
}

// Those of the host come back at once, or one after the other: the array goes on when one is missing.
static void host_returns(struct run *r) {
    struct world *w = r->world;
    bool at_once = world_random_below(w, 2);
    for (uint8_t k = 0, from = (uint8_t)world_random_below(w, r->array->ioms); k < r->array->ioms; k++) {
        struct sim_iom *i = &r->array->iom[(from + k) % r->array->ioms];
        if (!is_hit(r, i)) continue;
        tell(r, "one of the host comes back");
        if (r->failure == FAIL_PAUSE) node_resume(i->node);
        else array_start_one(i);
        if (!at_once) world_run_until(w, world_now_ns(w) + world_random_below(w, SEC(3)));
    }
}

static bool host_fails(struct run *r, const char *until, bool (*pending)(void *ctx)) {
    struct world *w = r->world;
    if (!run_while(r, until, pending)) return false;
    if (r->cut_in) return true; // that was over before
    world_run_until(w, world_now_ns(w) + world_random_below(w, world_random_below(w, 2) ? MSEC(100) : SEC(6)));
    host_returns(r);
    return true;
}

// A whole host fails while clients work, and perhaps again while its IOMs return.
static bool host_round(struct run *r) {
    plan_failure(r, 400);
    if (r->failure == FAIL_LINK) r->failure = FAIL_POWER;
    r->again = r->p.again;
    if (!host_fails(r, "the planned failure of a host", cut_pending)) return false;
    while (!r->cut_in && once_more(r)) {
        plan_cut(r, 1 + world_random_below(r->world, 200));
        if (!host_fails(r, "the return of a host", returning_uncut)) return false;
    }
    r->cut_in = 0;
    if (r->failure == FAIL_PAUSE) world_run_until(r->world, world_now_ns(r->world) + SEC(3)); // by then a stop that is on its way has come
    return run_while(r, "the return and rebuild of a host", not_whole);
}

static bool restart_round(struct run *r) {
    world_run_until(r->world, world_now_ns(r->world) + world_random_below(r->world, MSEC(400)));
    array_ask_stop(r->array);
    if (!run_while(r, "a clean stop", not_over)) return false;
    array_off(r->array);
    start_again(r);
    return run_while(r, "recovery after a clean stop", not_serving);
}

static bool fault_round(struct run *r) {
    switch (r->o->faults) {
    case RUN_FAULTS_RESTART: return restart_round(r);
    case RUN_FAULTS_NONE: case RUN_FAULTS_CRASH_ALL: case RUN_FAULTS_KILL_ALL: return crash_round(r);
    case RUN_FAULTS_ONE: return one_round(r);
    case RUN_FAULTS_AWAY: case RUN_FAULTS_ANY: return away_round(r);
    case RUN_FAULTS_HOST: return host_round(r);
    }
    return false;
}

static bool fault_rounds(struct run *r) {
    for (; r->rounds && working(r); r->rounds--) {
        if (!fault_round(r)) return false;
        world_run_until(r->world, world_now_ns(r->world) + world_random_below(r->world, MSEC(300)));
    }
    return true;
}

// A stop that is on its way comes, and then all serve.
static bool hazards_are_over(struct run *r) {
    hazards_end(r->hazards);
    if (!hazards_may_stop(r->hazards)) return true;
    world_run_until(r->world, world_now_ns(r->world) + SEC(5));
    return run_while(r, "recovery after the hazards", not_serving);
}

static bool run_story(struct run *r) {
    array_start(r->array);
    workload_start(r->work);
    if (!run_while(r, "the first start", not_serving)) return false;
    if (!run_while(r, "what the run begins with", preparing)) return false;
    if (r->mx_deaths) mx_next(r);
    hazards_begin(r->hazards);
    if (!fault_rounds(r)) return false;
    if (!run_while(r, "the end of the clients' work", working)) return false;
    r->mx_deaths = 0;
    if (!run_while(r, "the return of the MX", mx_away)) return false;
    if (!hazards_are_over(r)) return false;
    workload_check(r->work);
    if (!run_while(r, "the last look", checking)) return false;
    hazards_before_audit(r->hazards);
    if (!audit_rows(r->array, r->oracle)) return false;
    hazards_after_audit(r->hazards, "the verification of all rows");
    array_ask_stop(r->array);
    if (!run_while(r, "the last clean stop", not_over)) return false;
    array_off(r->array);
    hazards_before_audit(r->hazards);
    if (!audit_stores(r->array, r->oracle)) return false;
    hazards_after_audit(r->hazards, "the check of the stores");
    return !oracle_faults(r->oracle);
}

static void run_create(struct run *r) {
    const struct run_options *o = r->o;
    struct world_options *x = world_options(r->world);
    struct array_options a;
    struct workload_options w;
    x->on_io = on_io;
    x->ctx = r;
    if (o->trace) {
        x->trace = trace_out;
        x->trace_level = TRACE_DEBUG;
    }
    params_decide(r->world, o, &r->p);
    ASSERT(params_possible(&r->p));
    params_to_world(&r->p, x);
    params_to_array(&r->p, o->power_lie, &a);
    params_to_work(&r->p, &w);
    a.stand_ins = w.protected_only = o->faults >= RUN_FAULTS_AWAY;
    bool may = o->faults < RUN_FAULTS_AWAY || o->hazards != HAZARDS_BY_SEED; // beside a missing IOM a bad block is a second failure of its row
    uint32_t hazards = may && !o->power_lie ? hazards_decide(o->seed, o->hazards, o->faults != RUN_FAULTS_NONE) : 0;
    hazards_to_array(hazards, &a);
    hazards_to_work(hazards, &a, &w);
    r->rounds = r->p.rounds;
    r->mx_deaths = r->p.mx_deaths;
    r->array = array_create(r->world, &a);
    r->array->on_serving = on_serving;
    r->array->on_stopped = on_stopped;
    r->array->ctx = r;
    r->hazards = hazards_create(o->seed, hazards, r->array, r->oracle);
    w.excuse = hazards ? hazards_excuse : NULL;
    w.excuse_ctx = r->hazards;
    r->work = workload_create(r->array, r->oracle, &w);
    hazards_uncut(r->hazards, workload_uncut, r->work);
}

void sim_run(const struct run_options *o, struct run_result *result) {
    struct world_options x = world_options_default();
    struct run r = {.o = o, .result = result, .world = world_create(o->seed, &x), .oracle = oracle_create()};
    *result = (struct run_result){0};
    run_create(&r);
    bool ok = run_story(&r);
    struct oracle_counts c = oracle_counts(r.oracle);
    keep_count(&r);
    result->failed = !ok || oracle_faults(r.oracle);
    result->uncertain_blocks = c.uncertain_blocks;
    result->rolled_back = c.rolled_back;
    result->digest = world_digest(r.world);
    result->hazards = hazards_counts(r.hazards);
    memcpy(result->why, oracle_first_fault(r.oracle), sizeof result->why);
    workload_destroy(r.work);
    world_destroy(r.world);
    hazards_destroy(r.hazards);
    array_destroy(r.array);
    oracle_destroy(r.oracle);
}
