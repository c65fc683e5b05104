// The life of an IOM.
//
//   open: disk, identity, hub, register, membership
//   ┌─> instance up: store opened (replay, a new incarnation), names and rows over it ── READY
//   │      recovery phases, one after the other, each when all members have done the one before: names 0..2, rows 0..2, names 3
//   │      serve
//   │   instance down: nothing is answered any more; what is held is hardened; the store is closed
//   └── a stop of the array                                              asked to stop ──> close all, end
//
// A stop is a restart: the survivors of a failure come back by the very path of the one that failed. The life task alone opens and closes the instance; the callbacks of
// the membership only say what is wanted (struct iom_wanted). Requests run in tasks of their own and are counted: the instance goes when the last has left it.
#include "iom/iom_inside.h"

#define NAMES_BEFORE_ROWS 3 // recovery phases of names before those of rows; the others follow
#define DISK_ERRORS_DEFAULT 64u // a block that does not read counts twice: with its neighbours, and alone
#define DISK_ERRORS_NS_DEFAULT SEC(10)
#define STOP_PATIENCE_NS SEC(3) // how long a clean stop waits for the others to agree that the array stops

static void changed(struct iom *i) { waitq_wake_all(i->env, &i->changed); }

static void set_serving(struct iom *i, bool on) {
    if (i->serving == on) return;
    i->serving = on;
    if (i->config->serving) i->config->serving(i->config->ctx, on);
}

// From here on nobody is answered and no call to another IOM goes on.
static void cancel_instance(struct iom *i) {
    set_serving(i, false);
    i->cancelled = true;
    waitq_wake_all(i->env, &i->cancel);
    if (i->names) names_cancel(i->names);
}

// ---- what the membership says
static void on_phase(void *ctx, uint64_t epoch, uint32_t phase) {
    struct iom *i = ctx;
    i->wanted.phase = true;
    i->wanted.phase_epoch = epoch;
    i->wanted.phase_number = phase;
    changed(i);
}

static void on_serve(void *ctx, uint64_t epoch) {
    struct iom *i = ctx;
    LOG(i->env, TRACE_INFO, "IOM %u serves in epoch %llu", i->self.n, (unsigned long long)epoch);
    i->wanted.serve = true;
    changed(i);
}

static void on_stop(void *ctx, uint64_t epoch, const char *reason) {
    struct iom *i = ctx;
    LOG(i->env, TRACE_WARN, "the array stops (epoch %llu): %s", (unsigned long long)epoch, reason);
    i->wanted = (struct iom_wanted){.stop = true};
    cancel_instance(i);
    changed(i);
}

static void on_map(void *ctx, const struct cluster_map *m) { iom_peers_of_map(ctx, m); }

void iom_ask_stop(struct iom *i) {
    i->asked_to_stop = true;
    changed(i);
}

// ---- a device that fails as a whole
// Single blocks are rebuilt from their rows. Where very many fail it is the device, and the others are better off without it.
static void on_disk_error(struct iom *i, const char *path, const char *what) {
    uint64_t now = env_now_ns(i->env), within_ns = i->config->disk_errors_ns ? i->config->disk_errors_ns : DISK_ERRORS_NS_DEFAULT;
    uint32_t limit = i->config->disk_errors ? i->config->disk_errors : DISK_ERRORS_DEFAULT;
    if (!i->disk_errors || now - i->disk_errors_since_ns > within_ns) {
        i->disk_errors = 0;
        i->disk_errors_since_ns = now;
    }
    if (++i->disk_errors < limit || i->disk_failed) return;
    i->disk_failed = true;
    LOG(i->env, TRACE_ERROR, "the %s %s fails: %u requests ended in an error within %llu s, so IOM %u stops itself; look at that device (dmesg, smartctl), "
        "copy what it holds to a good one, and start the IOM again: mendfs start-iom %u", what, path, i->disk_errors,
        (unsigned long long)((now - i->disk_errors_since_ns) / SEC(1) + 1), i->self.n, i->self.n);
    changed(i);
}
static void on_store_error(void *ctx, enum disk_op op) {
    struct iom *i = ctx;
    on_disk_error(i, i->config->disk_path, "store");
}
static void on_journal_error(void *ctx, enum disk_op op) {
    struct iom *i = ctx;
    on_disk_error(i, i->config->journal_path, "journal");
}

// ---- the instance
static void instance_forget(struct iom *i) {
    i->rows = NULL;
    i->names = NULL;
    i->store = NULL;
}

static err co_instance_up(struct iom *i) {
    struct names_replay *replay = names_replay_new(i->env);
    struct store_hooks hooks = {.replay_note = names_replay_note, .ctx = replay};
    struct store_config sc = i->config->store;
    sc.journal = i->journal;
    err e = co_store_open(i->disk, &sc, &hooks, &i->store);
    if (e) {
        LOG(i->env, TRACE_ERROR, "the store %s cannot be opened: %s", i->config->disk_path, err_text(e));
        return e;
    }
    struct rows_port rp = iom_rows_port(i);
    struct names_port np = iom_names_port(i);
    struct names_config nc = {.self = i->self, .array_ioms = i->ident.array_ioms};
    i->cancelled = false;
    i->wanted = (struct iom_wanted){0};
    i->rows = rows_create(i->env, i->store, i->self, &rp, &i->config->rows);
    i->names = names_create(i->env, i->store, &np, &nc);
    names_take_replay(i->names, replay);
    member_ready(i->member, store_incarnation(i->store), store_was_clean(i->store));
    return OK;
}

struct stopping {
    struct iom *i;
    struct group done;
};
static void names_stop_task(void *arg) {
    struct stopping *s = arg;
    co_names_stop(s->i->names, true);
    group_done(s->i->env, &s->done, OK);
}

// Both at once: tasks of each wait for the other, and end because both have been told.
static err co_stop_both(struct iom *i) {
    struct stopping s = {.i = i};
    group_init(&s.done);
    group_add(&s.done);
    env_spawn(i->env, "iom: names stop", names_stop_task, &s);
    err held = co_rows_stop(i->rows, true);
    err e = co_group_wait(i->env, &s.done, "iom: names stop");
    ASSERT(e == OK);
    return held;
}

static err co_instance_down(struct iom *i) {
    cancel_instance(i);
    err held = co_stop_both(i);
    while (i->requests) co_wait(i->env, &i->idle, "iom: the last request leaves the instance");
    rows_destroy(i->rows);
    names_destroy(i->names);
    struct store *s = i->store;
    instance_forget(i);
    err e = OK;
    if (held) co_store_abandon(s); // something is lost: it must not look like a clean end
    else e = co_store_close(s);
    if (e) LOG(i->env, TRACE_ERROR, "the store %s could not be closed: %s", i->config->disk_path, err_text(e));
    return e;
}

static err co_run_phase(struct iom *i, uint32_t phase, uint64_t epoch) {
    if (phase < NAMES_BEFORE_ROWS) return co_names_recover(i->names, phase, epoch);
    phase -= NAMES_BEFORE_ROWS;
    if (phase < ROWS_RECOVERY_PHASES) return co_rows_recover(i->rows, phase);
    return co_names_recover(i->names, phase - ROWS_RECOVERY_PHASES + NAMES_BEFORE_ROWS, epoch);
}

static err co_phase(struct iom *i) {
    uint64_t epoch = i->wanted.phase_epoch;
    uint32_t phase = i->wanted.phase_number;
    i->wanted.phase = false;
    err e = co_run_phase(i, phase, epoch);
    if (i->cancelled || i->wanted.stop) return OK; // it was overtaken by a stop: what came of it is decided anew
    if (e) {
        LOG(i->env, TRACE_ERROR, "recovery phase %u of epoch %llu failed: %s", phase, (unsigned long long)epoch, err_text(e));
        return e;
    }
    member_phase_done(i->member, epoch, phase);
    return OK;
}

// Asked to stop: the others learn it before they miss us. Where no majority is left to agree nobody serves anyway.
static void co_say_leave(struct iom *i) {
    uint64_t until_ns = env_now_ns(i->env) + STOP_PATIENCE_NS;
    bool in_array = member_epoch(i->member) != 0;
    member_leave(i->member);
    while (in_array && !i->wanted.stop)
        if (!co_wait_until(i->env, &i->changed, until_ns, "iom: the others agree to stop")) return;
}

static err co_instance_life(struct iom *i) {
    for (;;) {
        if (i->wanted.stop) return OK;
        if (i->asked_to_stop || i->disk_failed) {
            co_say_leave(i);
            return i->disk_failed ? ERR_IO : OK;
        }
        if (i->wanted.phase) {
            err e = co_phase(i);
            if (e) return e;
        } else if (i->wanted.serve) {
            i->wanted.serve = false;
            set_serving(i, true);
        } else co_wait(i->env, &i->changed, "iom: what comes next");
    }
}

static err co_live(struct iom *i) {
    while (!i->asked_to_stop) {
        err e = co_instance_up(i);
        if (e) return e;
        e = co_instance_life(i);
        err down = co_instance_down(i);
        if (e || down) return e ? e : down;
    }
    return OK;
}

// ---- the node
static err open_device(struct iom *i, const char *what, const char *path, bool power_protected, struct disk **out) {
    err e = disk_open(i->env, &(struct disk_open_args){.path = path, .power_protected = power_protected}, out);
    if (e) LOG(i->env, TRACE_ERROR, "cannot open the %s %s: %s", what, path, err_text(e));
    return e;
}

static err co_open_store(struct iom *i) {
    const struct iom_config *c = i->config;
    char why[STORE_WHY_BYTES] = "";
    uint64_t incarnation;
    err e = open_device(i, "store", c->disk_path, c->store_protected, &i->disk);
    if (!e && c->journal_path[0]) e = open_device(i, "journal", c->journal_path, c->journal_protected, &i->journal);
    if (e) return e;
    i->disk->failed = on_store_error;
    i->disk->ctx = i;
    if (i->journal) i->journal->failed = on_journal_error, i->journal->ctx = i;
    e = co_store_peek(i->disk, &i->ident, &incarnation, why);
    if (!e) e = co_store_journal_check(i->disk, i->journal, why);
    if (e) LOG(i->env, TRACE_ERROR, "cannot use the store %s%s%s: %s", c->disk_path, i->journal ? " with the journal " : "", c->journal_path, why);
    i->self = (iom_id){i->ident.iom};
    return e;
}

static err co_open_network(struct iom *i) {
    struct hub_config h = {.self = {.kind = NODE_IOM, .iom = i->self.n}, .events = iom_hub_events(i)};
    memcpy(h.cluster, i->ident.cluster, sizeof h.cluster);
    memcpy(h.self.id, i->ident.store, sizeof h.self.id);
    i->hub = hub_create(i->env, &h);
    struct register_config r = {.env = i->env, .hub = i->hub, .iom = i->self.n, .storage = register_storage_of_disk(i->disk)};
    memcpy(r.cluster, i->ident.cluster, sizeof r.cluster);
    memcpy(r.store, i->ident.store, sizeof r.store);
    err e = co_register_open(&r, &i->reg);
    if (e) LOG(i->env, TRACE_ERROR, "the store %s has no usable register blocks: %s", i->config->disk_path, err_text(e));
    if (e) return e;
    iom_peers_of_map(i, register_hint(i->reg));
    e = hub_listen(i->hub, i->config->listen);
    if (e) LOG(i->env, TRACE_ERROR, "IOM %u cannot listen at %s: %s", i->self.n, i->config->listen, err_text(e));
    return e;
}

static err member_open(struct iom *i) {
    struct member_config c = {.env = i->env, .hub = i->hub, .reg = i->reg, .iom = i->self.n, .phases = NAMES_RECOVERY_PHASES + ROWS_RECOVERY_PHASES,
                              .heartbeat_ns = i->config->heartbeat_ns, .silence_ns = i->config->silence_ns,
                              .events = {.phase = on_phase, .serve = on_serve, .stop = on_stop, .map_changed = on_map, .ctx = i}};
    memcpy(c.store, i->ident.store, sizeof c.store);
    const char *fault = member_config_fault(&c);
    if (fault) {
        LOG(i->env, TRACE_ERROR, "the times of failure detection do not fit together: %s", fault);
        return ERR_INVAL;
    }
    i->member = member_create(&c);
    return OK;
}

static void co_close_all(struct iom *i) {
    if (i->member) co_member_destroy(i->member);
    i->member = NULL;
    if (i->reg) co_register_close(i->reg);
    if (i->hub) hub_destroy(i->hub);
    if (i->journal) co_disk_close(i->journal);
    if (i->disk) co_disk_close(i->disk);
}

void iom_main(void *arg) {
    struct iom_start *start = arg;
    const struct iom_config *c = start->config;
    struct iom *i = mem_alloc(start->env->mem, sizeof *i);
    i->env = start->env;
    i->config = c;
    waitq_init(&i->cancel);
    waitq_init(&i->idle);
    waitq_init(&i->touched);
    waitq_init(&i->changed);
    start->iom = i;
    err e = co_open_store(i);
    if (!e) e = co_open_network(i);
    if (!e) e = member_open(i);
    if (!e) e = co_live(i);
    co_close_all(i);
    start->iom = NULL;
    mem_free(i->env->mem, i);
    if (c->ended) c->ended(c->ctx, e);
}
