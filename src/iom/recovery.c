// Recovery, phase by phase; all members have done one before anybody begins the next (cluster/member.c).
//
//   phase    what                                                                        by whom
//   0..2     names: mirror, intents, what truncates under way cut                        every service, a stand-in among them
//   3..8     rows                                                                        likewise
//   9        names: truncates are finished                                               likewise
//   10..15   only if a member returns (else nothing is done in them):
//   10         its stand-in ends; from now on everybody turns to itself                  its proxy; all
//   11         it takes over what it has missed: marks what it must build (catch_up.c)   the one that returns
//   12..15     names once more: it takes its tree from the proxy's copy, and gives its   all
//              own ward a copy again; by 12 the proxy forgets the stand-in's records
//
// So whoever returns joins when nothing is unsettled any more, and a power cut at any point leaves either a stand-in whose records are whole, or an IOM
// that knows what it lacks.
#include "iom/iom_inside.h"

static const struct map_iom *returning(const struct cluster_map *m) {
    for (uint8_t n = 0; n < m->ioms; n++)
        if (m->iom[n].state == MAP_IOM_RETURNING) return &m->iom[n];
    return NULL;
}

static bool away(const struct cluster_map *m, uint8_t iom) {
    return m->iom[iom].state == MAP_IOM_FAILED || m->iom[iom].state == MAP_IOM_RETURNING;
}

// ---- one phase of one service ---------------------------------------------------------------------------------------
static err co_phase_of(struct instance *x, uint32_t phase, uint64_t epoch) {
    if (phase < NAMES_BEFORE_ROWS) return co_names_recover(x->names, phase, epoch);
    phase -= NAMES_BEFORE_ROWS;
    if (phase < ROWS_RECOVERY_PHASES) return co_rows_recover(x->rows, phase);
    return co_names_recover(x->names, phase - ROWS_RECOVERY_PHASES + NAMES_BEFORE_ROWS, epoch);
}

struct beside { // the stand-in's part, beside our own: they ask each other
    struct iom *i;
    uint32_t phase;
    uint64_t epoch;
    struct group done;
};
static void beside_task(void *arg) {
    struct beside *b = arg;
    group_done(b->i->env, &b->done, co_phase_of(&b->i->guest, b->phase, b->epoch));
}

static err co_both(struct iom *i, uint32_t phase, uint64_t epoch) {
    struct beside b = {.i = i, .phase = phase, .epoch = epoch};
    group_init(&b.done);
    if (stand_in_is_here(i)) {
        group_add(&b.done);
        env_spawn(i->env, "iom: stand-in's phase", beside_task, &b);
    }
    err e = co_phase_of(&i->own, phase, epoch), guest = co_group_wait(i->env, &b.done, "iom: stand-in's phase");
    return e == OK ? guest : e;
}

// ---- the phases -----------------------------------------------------------------------------------------------------
static err co_begin(struct iom *i, const struct cluster_map *m) {
    struct array_shape array;
    cluster_map_shape(m, &array);
    iom_id proxy = proxy_of(&array, i->own.self);
    iom_peers_redirect(&i->own, m, false);
    rows_beside(i->own.rows, (iom_id){NO_IOM});
    err e = co_stand_in_up(i, m);
    names_neighbours(i->own.names, &array, proxy.n != NO_IOM && !away(m, proxy.n), !stand_in_is_here(i));
    if (e != OK || !stand_in_is_here(i)) return e;
    names_neighbours(i->guest.names, &array, false, false);
    rows_beside(i->own.rows, i->guest.self);
    rows_beside(i->guest.rows, i->own.self);
    return OK;
}

static err co_first(struct iom *i, const struct cluster_map *m, uint32_t phase) {
    if (phase == 0) {
        err e = co_begin(i, m);
        if (e != OK) return e;
    }
    if (m->iom[i->own.self.n].state == MAP_IOM_RETURNING) return OK; // its stand-in does
    return co_both(i, phase, m->epoch);
}

// No UPDATE is left anywhere, and nobody serves.
static err co_turn(struct iom *i, const struct cluster_map *m) {
    struct array_shape array;
    cluster_map_shape(m, &array);
    err e = co_stand_in_down(i, false); // nothing is dirty
    rows_beside(i->own.rows, (iom_id){NO_IOM});
    iom_peers_redirect(&i->own, m, true);
    names_neighbours(i->own.names, &array, true, true);
    return e;
}

static err co_second(struct iom *i, const struct cluster_map *m, uint32_t phase) {
    const struct map_iom *back = returning(m);
    if (!back) return OK;
    bool self = back == &m->iom[i->own.self.n];
    if (phase == 0) return co_turn(i, m);
    if (phase == 1) return self ? co_catch_up(&i->own, (iom_id){back->proxy}, m->epoch) : OK;
    if (phase == 2 && back->proxy == i->own.self.n) {
        err e = co_stand_in_forget(i);
        if (e != OK) return e;
    }
    return co_names_recover(i->own.names, phase - 2, m->epoch);
}

err co_recovery_phase(struct iom *i, uint32_t phase, uint64_t epoch) {
    const struct cluster_map *now = register_latest(i->reg);
    if (!now || now->epoch != epoch) return ERR_STOPPED; // overtaken: the stop is on its way
    struct cluster_map *m = mem_alloc(i->env->mem, sizeof *m); // it may change while we wait
    *m = *now;
    err e = phase < RECOVERY_FIRST ? co_first(i, m, phase) : co_second(i, m, phase - RECOVERY_FIRST);
    mem_free(i->env->mem, m);
    return e;
}
