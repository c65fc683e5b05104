// The life of the array, as each node sees it. Every rule is looked at again whenever anything is heard, done or
// learned, and by a timer: member_step. It changes the map by compare-and-swap against the very map that the rule was
// looked at with.
//
//   map          rule (any node; the lower ones first)                            change
//   stopped      all members say READY, each with its incarnation                 epoch+1, recovering, these admitted
//                all but one do, and that one may be left out (absent.c)          the same; that one failed
//   recovering   all members have done all phases in this epoch                   running
//   recovering,  a member is silent too long, proven dead, heard under a newer    epoch+1, stopped
//   running      incarnation than the admitted one, deaf, or leaves
//   running      the failed member says READY                                     epoch+1, stopped
//   running      the node itself is rebuilding and has everything                 it is up, and there is one voter more
//                                                                                 if some lack; the epoch stays
//   running      all are up, and fewer vote than in a first map                   one voter more
//   any          the map has changed the voters, and has no successor             the same map again (paxos.c)
//
// A member is one that is not failed. What the map calls each:
//
//   up ──left out of a recovery──> failed ──READY, a recovery with it──> returning ──running──> rebuilding ──> up
//                                    ^                                       │                      │
//                                    └────────────── left out ───────────────┴──────────────────────┘
//
// Only when all others are up is one left out, so at most one is anything else; while one is, nobody else can be lost
// without stopping the array until it is back.
//
// and follows it:
//
//   closed --member_ready--> READY --recovering map admits our incarnation--> phase 0..n-1 --running map--> serving
//     ^                                                                          │                          │
//     └─────────── stop: any newer epoch, or a map that does not admit us ───────┴──────────────────────────┘
//
// Why nobody serves in two epochs: an epoch begins only with READY from *every* member, under an incarnation that has
// served nothing (I9), and a node says READY only after it has dropped what served before. Who is left out is dead, or
// can have no lease any more. An incarnation takes part once; who takes part in an epoch stops for good at the first
// chosen map that differs in epoch or in its own entry, and before it has heard of that map its lease ends
// (heartbeat.c): those who would admit another are a majority of the voters.
// Why phases are barriers: phase k+1 starts when all heartbeats show k done *in this epoch under the admitted
// incarnation*; a node that restarts shows another incarnation, and its count is not taken for the admitted one's.
// A start counts as a recovery (something answered may be lost) unless every READY said clean; it is counted with the
// admission, where all READYs are known, so a recovery that is cut short is counted too.
#include "cluster/member_internal.h"
#include <stdio.h>

enum change { CHANGE_NONE, CHANGE_READ, CHANGE_STOP, CHANGE_RECOVER, CHANGE_RUN, CHANGE_BUILT, CHANGE_SETTLE,
              CHANGE_VOTER };

// ---- rules ----------------------------------------------------------------------------------------------------------
static const struct cluster_map *map_now(const struct member *m) { return register_latest(m->cfg.reg); }

bool member_self_ready(const struct member *m) { return m->opened && !m->epoch && !m->leaving && !m->replaced; }

static bool is_member(const struct cluster_map *map, uint8_t i) { return map->iom[i].state != MAP_IOM_FAILED; }

// Why the array cannot go on as the map says; NULL: nothing known.
static const char *fault_of(const struct member *m, const struct cluster_map *map, uint8_t i) {
    const struct heard *o = &m->heard[i];
    uint64_t admitted = map->iom[i].incarnation;
    if (!is_member(map, i) || !is_member(map, m->cfg.iom)) return NULL; // who is left out does not judge the others
    if (i == m->cfg.iom) {
        if (m->leaving) return "leaves";
        return m->opened && m->incarnation != admitted ? "has restarted" : NULL;
    }
    if (o->dead && o->dead >= admitted) return "is dead";
    if (o->at_ns && o->incarnation > admitted) return "has restarted";
    if (o->at_ns && o->incarnation == admitted && (o->flags & HEART_LEAVING)) return "leaves";
    if (heartbeat_silent_ns(m, i, env_now_ns(m->env)) >= m->cfg.silence_ns) return "is silent";
    return absent_deaf(m, map, i);
}

static const char *array_fault(const struct member *m, const struct cluster_map *map, uint8_t *iom) {
    for (*iom = 0; *iom < map->ioms; ++*iom) {
        const char *fault = fault_of(m, map, *iom);
        if (fault) return fault;
    }
    return NULL;
}

static bool all_done(const struct member *m, const struct cluster_map *map, uint32_t phases) {
    for (uint8_t i = 0; i < map->ioms; i++) {
        const struct heard *o = &m->heard[i];
        if (!is_member(map, i)) continue;
        if (i == m->cfg.iom) {
            if (m->epoch != map->epoch || m->done < phases) return false;
        } else if (o->incarnation != map->iom[i].incarnation || o->epoch != map->epoch || o->phases_done < phases) {
            return false;
        }
    }
    return true;
}

static bool self_rebuilt(const struct member *m, const struct cluster_map *map) {
    return m->rebuilt && m->serving && m->epoch == map->epoch && map->iom[m->cfg.iom].state == MAP_IOM_REBUILDING;
}

// Only while all are up: who is not may be the one whose store is replaced next.
static bool voter_lacks(const struct cluster_map *map) {
    struct cluster_map more = *map;
    for (uint8_t i = 0; i < map->ioms; i++)
        if (map->iom[i].state != MAP_IOM_UP) return false;
    return cluster_map_add_voter(&more);
}

static enum change voters_due(const struct cluster_map *map) {
    if (map->chosen_by.count) return CHANGE_SETTLE;
    return map->state == ARRAY_RUNNING && voter_lacks(map) ? CHANGE_VOTER : CHANGE_NONE;
}

static enum change array_due(const struct member *m, const struct cluster_map *map) {
    uint8_t iom;
    switch ((enum array_state)map->state) {
    case ARRAY_STOPPED:
        return absent_nobody(m, map) || absent_one(m, map) != NO_IOM ? CHANGE_RECOVER : CHANGE_NONE;
    case ARRAY_RECOVERING:
        if (array_fault(m, map, &iom)) return CHANGE_STOP;
        return all_done(m, map, m->cfg.phases) ? CHANGE_RUN : CHANGE_NONE;
    case ARRAY_RUNNING:
        if (array_fault(m, map, &iom) || absent_back(m, map) != NO_IOM) return CHANGE_STOP;
        return self_rebuilt(m, map) ? CHANGE_BUILT : CHANGE_NONE;
    }
    return CHANGE_NONE;
}

static enum change change_due(const struct member *m) {
    const struct cluster_map *map = map_now(m);
    if (m->replaced) return CHANGE_NONE; // the array is no longer ours to move
    if (!map || m->must_read) return CHANGE_READ;
    enum change c = array_due(m, map);
    return c != CHANGE_NONE ? c : voters_due(map);
}

// The lowest that is alive makes the change; the next ones each wait a little longer, should it not come.
static uint64_t turn_delay_ns(const struct member *m, enum change c) {
    uint64_t before = 0;
    if (c == CHANGE_BUILT) return 0; // nobody else makes it
    for (uint8_t i = 0; i < m->cfg.iom; i++) before += heartbeat_fresh(m, i);
    return before * m->cfg.heartbeat_ns;
}

// ---- changing the map -----------------------------------------------------------------------------------------------
static void make_stopped(struct member *m, struct cluster_map *next) {
    uint8_t iom;
    const char *fault = array_fault(m, next, &iom);
    if (!fault) {
        fault = "returns";
        iom = absent_back(m, next);
    }
    LOG(m->env, TRACE_WARN, "stopping the array: IOM %u %s (epoch %llu)", iom, fault, (unsigned long long)next->epoch);
    next->epoch++;
    next->state = ARRAY_STOPPED;
}

static bool was_clean(const struct member *m, uint8_t i) {
    return i == m->cfg.iom ? m->clean : (m->heard[i].flags & HEART_CLEAN) != 0;
}

static void admit(struct map_iom *a, uint64_t incarnation) {
    a->incarnation = incarnation;
    if (a->state == MAP_IOM_FAILED) a->state = MAP_IOM_RETURNING;
}

static void make_recovering(struct member *m, struct cluster_map *next) {
    uint8_t out = absent_nobody(m, next) ? NO_IOM : absent_one(m, next);
    uint32_t lost = 0, since_running = 0;
    for (uint8_t i = 0; i < next->ioms; i++) {
        // A failed one has answered nothing that its stand-in does not know.
        bool loses = next->iom[i].state != MAP_IOM_FAILED && (i == out || !was_clean(m, i));
        next->iom[i].lost |= loses;
        lost += loses;
        since_running += next->iom[i].lost; // a recovery that was cut short may not have brought back what an earlier one lost
        if (i == out) next->iom[i].state = MAP_IOM_FAILED;
        else admit(&next->iom[i], i == m->cfg.iom ? m->incarnation : m->heard[i].incarnation);
    }
    next->epoch++;
    next->state = ARRAY_RECOVERING;
    if (lost) next->recoveries += m->cfg.stand_ins && since_running == 1 ? 1ull << 32 : 1;
    char without[24] = "";
    if (out != NO_IOM) snprintf(without, sizeof without, " but IOM %u", out);
    LOG(m->env, TRACE_INFO, "all members%s are ready: epoch %llu begins%s", without, (unsigned long long)next->epoch,
        lost ? " with a recovery" : " after a clean stop");
}

static void make_running(struct cluster_map *next) {
    for (uint8_t i = 0; i < next->ioms; i++) {
        if (next->iom[i].state == MAP_IOM_RETURNING) next->iom[i].state = MAP_IOM_REBUILDING;
        next->iom[i].lost = false;
    }
    next->state = ARRAY_RUNNING;
}

static void make_built(struct member *m, struct cluster_map *next) {
    next->iom[m->cfg.iom].state = MAP_IOM_UP;
    (void)cluster_map_add_voter(next);
}

static err co_make(struct member *m, enum change c, uint64_t deadline_ns) {
    struct cluster_map next;
    if (c == CHANGE_READ) return co_register_read(m->cfg.reg, deadline_ns, &next);
    next = *map_now(m);
    if (c == CHANGE_STOP) make_stopped(m, &next);
    if (c == CHANGE_RECOVER) make_recovering(m, &next);
    if (c == CHANGE_RUN) make_running(&next);
    if (c == CHANGE_BUILT) make_built(m, &next);
    if (c == CHANGE_VOTER) (void)cluster_map_add_voter(&next);
    return co_register_cas(m->cfg.reg, next.version, &next, deadline_ns);
}

// Nothing waits between looking (change_due) and forming the next map, so the compare-and-swap is against the map
// looked at.
static void changer(void *arg) {
    struct member *m = arg;
    while (!m->closing) {
        enum change c = change_due(m);
        uint64_t now = env_now_ns(m->env);
        if (c == CHANGE_NONE || (c != CHANGE_READ && (m->due != (int)c || now < m->due_since_ns + turn_delay_ns(m, c)))) {
            co_wait(m->env, &m->work, "a change of the map to be due");
            continue;
        }
        m->busy = true;
        err e = co_make(m, c, now + SEC(2));
        m->busy = false;
        m->must_read = e == ERR_TIMEOUT; // done or not: nobody knows before a whole round has been read
        member_step(m);
    }
    m->ended = true;
    waitq_wake_all(m->env, &m->ended_q);
}

static void look_for_change(struct member *m) {
    enum change c = change_due(m);
    if ((int)c != m->due) {
        m->due = c;
        m->due_since_ns = env_now_ns(m->env);
    }
    if (c != CHANGE_NONE && !m->busy) waitq_wake_all(m->env, &m->work);
}

// ---- following the map ----------------------------------------------------------------------------------------------
static bool admits_us(const struct member *m, const struct cluster_map *map) {
    const struct map_iom *us = &map->iom[m->cfg.iom];
    return map->state != ARRAY_STOPPED && us->state != MAP_IOM_FAILED && us->incarnation == m->incarnation &&
           !memcmp(us->store, m->cfg.store, 16);
}

static void stop(struct member *m, const struct cluster_map *map) {
    uint64_t epoch = m->epoch;
    char reason[96];
    snprintf(reason, sizeof reason, "epoch %llu is over: the map of epoch %llu says %s", (unsigned long long)epoch,
             (unsigned long long)map->epoch, array_state_name(map->state));
    m->epoch = 0;
    m->opened = m->serving = m->clean = m->rebuilt = false;
    m->done = m->phase = 0;
    heartbeat_forget_leases(m);
    m->cfg.events.stop(m->cfg.events.ctx, epoch, reason);
}

static void take_part(struct member *m, const struct cluster_map *map) {
    m->epoch = map->epoch;
    m->took_part = true;
    m->done = m->phase = 0;
    heartbeat_forget_leases(m);
    hub_set_epoch(m->cfg.hub, m->epoch);
    heartbeat_send_all(m);
    if (m->cfg.phases) m->cfg.events.phase(m->cfg.events.ctx, m->epoch, 0);
}

static void go_on(struct member *m, const struct cluster_map *map) {
    if (m->done > m->phase && m->done < m->cfg.phases && all_done(m, map, m->done)) {
        m->phase = m->done;
        m->cfg.events.phase(m->cfg.events.ctx, m->epoch, m->phase);
    } else if (map->state == ARRAY_RUNNING && !m->serving && m->done == m->cfg.phases) {
        m->serving = true;
        heartbeat_send_all(m); // asks for the lease
        m->cfg.events.serve(m->cfg.events.ctx, m->epoch);
    }
}

// A new store may be told first of a map from before it: its register blocks came with a later one, that names it.
static void look_for_our_place(struct member *m, const struct cluster_map *map) {
    if (m->replaced || map->version < register_hint(m->cfg.reg)->version) return;
    if (!memcmp(map->iom[m->cfg.iom].store, m->cfg.store, 16)) return;
    m->replaced = true;
    m->cfg.events.replaced(m->cfg.events.ctx, map);
}

// One transition at a time; the callbacks may come back in here, so what was true before them is looked at anew.
static void follow(struct member *m) {
    const struct cluster_map *map = map_now(m);
    if (!map) return;
    if (m->epoch && (map->epoch != m->epoch || !admits_us(m, map))) stop(m, map);
    else if (!m->epoch && map->state == ARRAY_RECOVERING && member_self_ready(m) && admits_us(m, map)) take_part(m, map);
    else if (m->epoch) go_on(m, map);
    look_for_our_place(m, map_now(m));
    map = map_now(m);
    if (!m->epoch && map->state == ARRAY_STOPPED && map->epoch > hub_epoch(m->cfg.hub))
        hub_set_epoch(m->cfg.hub, map->epoch);
}

void member_step(struct member *m) {
    if (m->closing) return;
    follow(m);
    look_for_change(m);
}

static void chosen(void *ctx, const struct cluster_map *map) {
    struct member *m = ctx;
    if (m->closing) return;
    if (map->epoch != m->known_epoch) {
        m->known_epoch = map->epoch;
        m->known_ns = env_now_ns(m->env);
    }
    absent_note(m, map);
    heartbeat_forget_replaced(m, map);
    if (m->cfg.events.map_changed) m->cfg.events.map_changed(m->cfg.events.ctx, map);
    member_step(m);
    heartbeat_send_all(m); // with the new version: who has an older one is told, who is behind asks
}

// ---- time -----------------------------------------------------------------------------------------------------------
static void tick(void *arg) {
    struct member *m = arg;
    uint64_t now = env_now_ns(m->env);
    if (heartbeat_was_away(m, now)) m->woke_ns = now; // we were away, not they
    m->tick_ns = now;
    timer_set(m->env, &m->tick, now + m->cfg.heartbeat_ns / 4, tick, m);
    bool waited_for = member_self_ready(m) && heartbeat_quiet(m) != m->quiet_told; // somebody is fenced a little sooner
    if (waited_for || now - m->beat_ns >= m->cfg.heartbeat_ns) {
        heartbeat_send_all(m);
        heartbeat_ping_quiet(m);
    }
    member_step(m);
}

// ---- the owner's side -----------------------------------------------------------------------------------------------
static void set_defaults(struct member_config *c) {
    if (!c->heartbeat_ns) c->heartbeat_ns = MSEC(100);
    if (!c->silence_ns) c->silence_ns = MSEC(1500);
    if (!c->ping_ns) c->ping_ns = c->silence_ns / 3;
    if (!c->lease_ns) c->lease_ns = c->silence_ns / 3 * 2;
    if (!c->grace_ns) c->grace_ns = SEC(5);
}

const char *member_config_fault(const struct member_config *config) {
    struct member_config c = *config;
    set_defaults(&c);
    if (c.heartbeat_ns < MSEC(4)) return "heartbeats are at least 4 ms apart";
    if (c.ping_ns < 3 * c.heartbeat_ns) return "the silence before a ping is at least three heartbeats";
    if (c.silence_ns < 2 * c.ping_ns) return "the silence of the failed is at least twice that before a ping";
    if (c.lease_ns + c.heartbeat_ns >= c.silence_ns)
        return "a lease and a heartbeat are shorter than the silence of the failed";
    if (c.lease_ns < 3 * c.heartbeat_ns) return "a lease lasts at least three heartbeats";
    return NULL;
}

struct member *member_create(const struct member_config *c) {
    ASSERT(!member_config_fault(c));
    struct member *m = mem_alloc(c->env->mem, sizeof *m);
    m->cfg = *c;
    m->env = c->env;
    set_defaults(&m->cfg);
    waitq_init(&m->work);
    waitq_init(&m->ended_q);
    m->created_ns = m->tick_ns = m->woke_ns = env_now_ns(m->env);
    heartbeat_forget_replaced(m, register_latest(m->cfg.reg) ? map_now(m) : register_hint(m->cfg.reg));
    if (m->cfg.stand_ins) absent_watch(m);
    register_subscribe(m->cfg.reg, chosen, m);
    timer_set(m->env, &m->tick, m->tick_ns + m->cfg.heartbeat_ns / 4, tick, m);
    env_spawn(m->env, "changes of the map", changer, m);
    return m;
}

void co_member_destroy(struct member *m) {
    m->closing = true;
    timer_cancel(m->env, &m->tick);
    hub_tell_deaths(m->cfg.hub, NULL);
    register_subscribe(m->cfg.reg, NULL, NULL);
    waitq_wake_all(m->env, &m->work);
    while (!m->ended) co_wait(m->env, &m->ended_q, "the last change of the map");
    mem_free(m->env->mem, m);
}

void member_ready(struct member *m, uint64_t incarnation, bool clean) {
    ASSERT(!m->opened && !m->epoch && incarnation);
    hub_set_incarnation(m->cfg.hub, incarnation);
    m->incarnation = incarnation;
    m->opened = true;
    m->clean = clean;
    heartbeat_send_all(m);
    member_step(m);
}

void member_phase_done(struct member *m, uint64_t epoch, uint32_t phase) {
    if (epoch != m->epoch || !m->epoch) return;
    ASSERT(phase == m->phase && m->done == phase);
    m->done = phase + 1;
    heartbeat_send_all(m);
    member_step(m);
}

void member_rebuilt(struct member *m) {
    m->rebuilt = m->epoch != 0;
    member_step(m);
}

bool member_may_serve(const struct member *m) { return m->serving && heartbeat_lease_holds(m, env_now_ns(m->env)); }
uint64_t member_epoch(const struct member *m) { return m->epoch; }

void member_leave(struct member *m) {
    m->leaving = true;
    heartbeat_send_all(m);
    member_step(m);
}

void member_proven_dead(struct member *m, uint8_t iom, uint64_t incarnation) {
    ASSERT(iom < ARRAY_IOMS_MAX);
    m->heard[iom].dead = MAX(m->heard[iom].dead, incarnation);
    member_step(m);
}

void member_cast(struct member *m, const struct node_name *from, struct msg *msg) {
    if (msg->type != MSG_HEARTBEAT && msg->type != MSG_HEARTBEAT_ACK) {
        register_cast(m->cfg.reg, from, msg);
        return;
    }
    if (!m->closing && from->kind == NODE_IOM) heartbeat_take(m, from, msg);
    msg_free(msg);
}

// ---- for status -----------------------------------------------------------------------------------------------------
static enum member_stage stage_of(uint8_t flags, uint64_t epoch) {
    if (flags & HEART_LEAVING) return STAGE_LEAVING;
    if (flags & HEART_SERVING) return STAGE_SERVING;
    if (epoch) return STAGE_RECOVERING;
    return flags & HEART_READY ? STAGE_READY : STAGE_CLOSED;
}

void member_suspect_view(const struct member *m, uint8_t iom, struct member_view *out) {
    uint64_t now = env_now_ns(m->env);
    const struct heard *o = &m->heard[iom];
    if (iom == m->cfg.iom) {
        uint8_t flags = (uint8_t)((m->leaving ? HEART_LEAVING : 0) | (m->serving ? HEART_SERVING : 0) |
                                  (member_self_ready(m) ? HEART_READY : 0));
        *out = (struct member_view){MEMBER_ALIVE, stage_of(flags, m->epoch), 0, m->incarnation, m->done};
        return;
    }
    *out = (struct member_view){MEMBER_UNHEARD, stage_of(o->flags, o->epoch), heartbeat_silent_ns(m, iom, now),
                                o->incarnation, o->phases_done};
    if (!o->at_ns) return;
    out->silent_ns = now - o->at_ns;
    out->seen = out->silent_ns >= m->cfg.silence_ns ? MEMBER_SILENT
                : out->silent_ns >= m->cfg.ping_ns  ? MEMBER_QUIET
                                                    : MEMBER_ALIVE;
}
