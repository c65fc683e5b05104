// The life of an IOM.
//
//   open: disk, identity, hub, register, membership
//   ┌─> service up: store opened (replay, a new incarnation), names and rows over it ── READY
//   │      recovery phases, one after the other, each when all members have done the one before: (recovery.c)
//   │      serve
//   │   service down: nothing is answered any more; what is held is hardened; the store is closed
//   └── a stop of the array                                              asked to stop ──> close all, end
//
// A stop is a restart: the survivors of a failure come back by the very path of the one that failed. The life task alone opens and closes the service; the callbacks of
// the membership only say what is wanted (struct iom_wanted). Requests run in tasks of their own and are counted: the instance goes when the last has left it.
#include "iom/iom_inside.h"

#define DISK_ERRORS_DEFAULT 64u // a block that does not read counts twice: with its neighbours, and alone
#define DISK_ERRORS_NS_DEFAULT SEC(10)
#define STOP_PATIENCE_NS SEC(3) // how long a clean stop waits for the others to agree that the array stops

static void changed(struct iom *i) { waitq_wake_all(i->env, &i->changed); }

static void set_serving(struct instance *x, bool on) {
    const struct iom_config *c = x->i->config;
    if (x->serving == on) return;
    x->serving = on;
    if (x == &x->i->own && c->serving) c->serving(c->ctx, on);
}

void instance_cancel(struct instance *x) {
    set_serving(x, false);
    x->cancelled = true;
    waitq_wake_all(x->i->env, &x->cancel);
    if (x->rows) rows_cancel(x->rows);
    if (x->names) names_cancel(x->names);
}

// ---- what the membership says
static void on_phase(void *ctx, uint64_t epoch, uint32_t phase) {
    struct iom *i = ctx;
    i->wanted.phase = true;
    i->wanted.phase_epoch = epoch;
    i->wanted.phase_number = phase;
    recovery_time_phase(i->time, phase);
    changed(i);
}

static void on_serve(void *ctx, uint64_t epoch) {
    struct iom *i = ctx;
    LOG(i->env, TRACE_INFO, "IOM %u serves in epoch %llu", i->own.self.n, (unsigned long long)epoch);
    recovery_time_tell(i->time, epoch);
    i->wanted.serve = true;
    changed(i);
}

static void on_stop(void *ctx, uint64_t epoch, const char *reason) {
    struct iom *i = ctx;
    LOG(i->env, TRACE_WARN, "the array stops (epoch %llu): %s", (unsigned long long)epoch, reason);
    i->wanted = (struct iom_wanted){.stop = true};
    recovery_time_stop(i->time);
    instance_cancel(&i->own);
    instance_cancel(&i->guest);
    changed(i);
}

static void on_replaced(void *ctx, const struct cluster_map *m) {
    struct iom *i = ctx;
    LOG(i->env, TRACE_ERROR,
        "the store %s is not IOM %u any more: while it was away another store was put in its place (map version %llu), so "
        "it serves nothing and ends; start IOM %u with the store that replaced it",
        i->config->disk_path, i->own.self.n, (unsigned long long)m->version, i->own.self.n);
    i->replaced = true;
    changed(i);
}

static void on_map(void *ctx, const struct cluster_map *m) { iom_peers_of_map(&((struct iom *)ctx)->own, m); }

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
        (unsigned long long)((now - i->disk_errors_since_ns) / SEC(1) + 1), i->own.self.n, i->own.self.n);
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

// ---- instances
void instance_init(struct instance *x, struct iom *i) {
    *x = (struct instance){.i = i};
    waitq_init(&x->cancel);
    waitq_init(&x->idle);
    waitq_init(&x->touched);
}

// Hosts and proxies of an array are what it was made with, so any map tells them.
static const struct cluster_map *map_known(const struct iom *i) {
    const struct cluster_map *m = register_latest(i->reg);
    return m ? m : register_hint(i->reg);
}

void instance_create(struct instance *x) {
    struct iom *i = x->i;
    struct rows_port rp = iom_rows_port(x);
    struct names_port np = iom_names_port(x);
    struct rows_config rc = i->config->rows;
    struct names_config nc = {.self = x->self, .stand_in = x == &i->guest};
    cluster_map_shape(map_known(i), &nc.array);
    rc.stand_in = x == &i->guest;
    x->cancelled = false;
    x->rows = rows_create(i->env, i->store, x->self, &rp, &rc);
    x->names = names_create(i->env, i->store, &np, &nc);
}

struct stopping {
    struct instance *x;
    bool harden;
    struct group done;
};
static void names_stop_task(void *arg) {
    struct stopping *s = arg;
    co_names_stop(s->x->names, s->harden);
    group_done(s->x->i->env, &s->done, OK);
}

// Both at once: tasks of each wait for the other, and end because both have been told.
static err co_stop_both(struct instance *x, bool harden) {
    struct stopping s = {.x = x, .harden = harden};
    group_init(&s.done);
    group_add(&s.done);
    env_spawn(x->i->env, "iom: names stop", names_stop_task, &s);
    err held = co_rows_stop(x->rows, harden);
    err e = co_group_wait(x->i->env, &s.done, "iom: names stop");
    ASSERT(e == OK);
    return held;
}

err co_instance_end(struct instance *x, bool harden) {
    instance_cancel(x);
    err held = co_stop_both(x, harden);
    while (x->requests) co_wait(x->i->env, &x->idle, "iom: the last request leaves the instance");
    rows_destroy(x->rows);
    names_destroy(x->names);
    x->rows = NULL;
    x->names = NULL;
    return held;
}

static void doubts_task(void *arg) {
    struct instance *x = arg;
    err e = co_rows_doubts(x->rows);
    if (e != OK && e != ERR_STOPPED) LOG(x->i->env, TRACE_WARN, "objects that may be unknown to their IOM are looked at again after the next stop: %s", err_text(e));
    if (--x->requests == 0) waitq_wake_all(x->i->env, &x->idle);
}

static void serve(struct instance *x) {
    set_serving(x, true);
    x->requests++;
    env_spawn(x->i->env, "iom: objects in doubt", doubts_task, x);
}

static err co_service_up(struct iom *i) {
    struct names_replay *replay = names_replay_new(i->env);
    struct store_hooks hooks = {.replay_note = names_replay_note, .ctx = replay};
    struct store_config sc = i->config->store;
    sc.journal = i->journal;
    err e = co_store_open(i->disk, &sc, &hooks, &i->store);
    if (e) {
        LOG(i->env, TRACE_ERROR, "the store %s cannot be opened: %s", i->config->disk_path, err_text(e));
        return e;
    }
    i->wanted = (struct iom_wanted){0};
    instance_create(&i->own);
    names_take_replay(i->own.names, replay);
    recovery_time_ready(i->time);
    member_ready(i->member, store_incarnation(i->store), store_was_clean(i->store));
    return OK;
}

static err co_service_down(struct iom *i) {
    err guest = co_stand_in_down(i, true), held = co_instance_end(&i->own, true);
    struct store *s = i->store;
    i->store = NULL;
    err e = OK;
    if (held || guest) co_store_abandon(s); // something is lost: it must not look like a clean end
    else e = co_store_close(s);
    recovery_time_closed(i->time);
    if (e) LOG(i->env, TRACE_ERROR, "the store %s could not be closed: %s", i->config->disk_path, err_text(e));
    return e;
}

static err co_phase(struct iom *i) {
    uint64_t epoch = i->wanted.phase_epoch;
    uint32_t phase = i->wanted.phase_number;
    i->wanted.phase = false;
    err e = co_recovery_phase(i, phase, epoch);
    if (i->own.cancelled || i->wanted.stop) return OK; // it was overtaken by a stop: what came of it is decided anew
    if (e) {
        LOG(i->env, TRACE_ERROR, "recovery phase %u of epoch %llu failed: %s", phase, (unsigned long long)epoch, err_text(e));
        return e;
    }
    recovery_time_done(i->time, phase);
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

static err co_service_life(struct iom *i) {
    for (;;) {
        if (i->replaced) return ERR_MEMBER_REPLACED;
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
            serve(&i->own);
            if (stand_in_is_here(i)) serve(&i->guest);
            rebuild_start(&i->own);
        } else co_wait(i->env, &i->changed, "iom: what comes next");
    }
}

static err co_live(struct iom *i) {
    while (!i->asked_to_stop) {
        err e = co_service_up(i);
        if (e) return e;
        e = co_service_life(i);
        err down = co_service_down(i);
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
    i->own.self = (iom_id){i->ident.iom};
    return e;
}

static err co_open_network(struct iom *i) {
    struct hub_config h = {.self = {.kind = NODE_IOM, .iom = i->own.self.n}, .events = iom_hub_events(&i->own)};
    memcpy(h.cluster, i->ident.cluster, sizeof h.cluster);
    memcpy(h.self.id, i->ident.store, sizeof h.self.id);
    i->own.hub = hub_create(i->env, &h);
    struct register_config r = {.env = i->env, .hub = i->own.hub, .iom = i->own.self.n, .storage = register_storage_of_disk(i->disk)};
    memcpy(r.cluster, i->ident.cluster, sizeof r.cluster);
    memcpy(r.store, i->ident.store, sizeof r.store);
    err e = co_register_open(&r, &i->reg);
    if (e) LOG(i->env, TRACE_ERROR, "the store %s has no usable register blocks: %s", i->config->disk_path, err_text(e));
    if (e) return e;
    iom_peers_of_map(&i->own, register_hint(i->reg));
    e = hub_listen(i->own.hub, i->config->listen);
    if (e) LOG(i->env, TRACE_ERROR, "IOM %u cannot listen at %s: %s", i->own.self.n, i->config->listen, err_text(e));
    return e;
}

static err member_open(struct iom *i) {
    struct member_config c = {.env = i->env, .hub = i->own.hub, .reg = i->reg, .iom = i->own.self.n, .phases = RECOVERY_PHASES,
                              .heartbeat_ns = i->config->heartbeat_ns, .silence_ns = i->config->silence_ns, .stand_ins = i->config->stand_ins && i->ident.array_ioms >= 3,
                              .events = {.phase = on_phase, .serve = on_serve, .stop = on_stop,
                                         .map_changed = on_map, .replaced = on_replaced, .ctx = i}};
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
    if (i->own.hub) hub_destroy(i->own.hub);
    if (i->journal) co_disk_close(i->journal);
    if (i->disk) co_disk_close(i->disk);
}

const struct cluster_map *iom_map(const struct iom *i) { return i->reg ? register_latest(i->reg) : NULL; }

void iom_main(void *arg) {
    struct iom_start *start = arg;
    const struct iom_config *c = start->config;
    struct iom *i = mem_alloc(start->env->mem, sizeof *i);
    i->env = start->env;
    i->config = c;
    instance_init(&i->own, i);
    instance_init(&i->guest, i);
    waitq_init(&i->changed);
    i->time = recovery_time_new(i->env);
    start->iom = i;
    err e = co_open_store(i);
    if (!e) e = co_open_network(i);
    if (!e) e = member_open(i);
    if (!e) e = co_live(i);
    co_close_all(i);
    start->iom = NULL;
    mem_free(i->env->mem, i->time);
    mem_free(i->env->mem, i);
    if (c->ended) c->ended(c->ctx, e);
}
