// Heartbeats: who is heard, and leases.
//
// Every node casts to every other, each heartbeat_ns and at once when something changes. Who has been silent for
// ping_ns is asked to answer (it may have lost our attention, not its life); silent for silence_ns, it is declared
// failed (member.c). Silence is counted from the last message, but never from before we knew of the present epoch, nor
// from before we woke: a node that was stopped (SIGSTOP, a suspended machine) has heard nobody through no fault of
// theirs.
//
// A lease lets a node serve. It is the answers of a majority of voters to its heartbeats, each counted from when it was
// *asked*, by the asker's own clock: however long the answer took, the voter said so later than that. A voter confirms
// by the newest map that it knows to be chosen or has itself accepted, so that once a majority has accepted a map
// without this incarnation, no majority confirms it any more; and by none that is older than the asker's own. The lease
// is shorter than the silence.
//
// *Fenced* is who can have no lease any more. Each voter tells in its heartbeats whom it has not confirmed for a lease
// (and a sixteenth, for clocks that differ): `quiet`. If a majority of voters, without i, are quiet about i and know the
// map that ended i's epoch, i is fenced: say M are the voters whose answers i still counts. One of M has accepted the
// map of the end on disk, so it has answered i before that; one of M is of the quiet majority, so it has answered i more
// than a lease before it said quiet - or, having forgotten by a restart what it knew, after it. Between that and the
// answer of the first lies more than a lease in either case, for in its first lease a process answers only in an epoch
// in which it takes part itself, and it takes part in none that began before its start.
//
// The voters change, also within an epoch, and i counts those of the map that it knows. So a voter confirms nobody whose
// map is older than the present voters, and is quiet about nobody in its first lease under them: be the voters that i
// counts
//   the same as those of the map that fences, or a neighbour   the quiet majority meets M, and the other one of M is one
//                                of those who have accepted the end, or the first change of the voters that i missed
//   another set                  two changes: the quiet ones have known of the second for a lease, which was proposed
//                                when the first was chosen; one of M has accepted the first, and answered before that
//
// Maps spread by the same way: who hears an older version tells the newer map; who hears a newer version says
// at once what it has, and is told.
#include "cluster/member_internal.h"

static const struct cluster_map *address_map(const struct member *m) {
    const struct cluster_map *map = register_latest(m->cfg.reg);
    return map ? map : register_hint(m->cfg.reg);
}

static uint64_t known_version(const struct member *m) {
    const struct cluster_map *map = register_latest(m->cfg.reg);
    return map ? map->version : 0;
}

static uint8_t own_flags(const struct member *m) {
    return (uint8_t)((member_self_ready(m) ? HEART_READY : 0) | (m->clean ? HEART_CLEAN : 0) |
                     (m->leaving ? HEART_LEAVING : 0) | (m->serving ? HEART_SERVING : 0));
}

static void send_one(struct member *m, uint8_t iom, uint16_t type, uint8_t flags, uint64_t sent_ns, uint64_t epoch) {
    const struct cluster_map *map = address_map(m);
    if (iom >= map->ioms || iom == m->cfg.iom) return;
    struct msg *msg = hub_msg(m->cfg.hub, type, sizeof(struct heartbeat));
    struct heartbeat *h = (struct heartbeat *)msg->body;
    memcpy(h->store, m->cfg.store, 16);
    h->incarnation = le64_of(m->incarnation);
    h->epoch = le64_of(epoch);
    h->map_version = le64_of(known_version(m));
    h->sent_ns = le64_of(sent_ns);
    h->phases_done = le16_of((uint16_t)m->done);
    h->flags = flags;
    h->unheard = le16_of(heartbeat_unheard(m));
    h->quiet = le16_of(heartbeat_quiet(m));
    hub_cast(hub_peer(m->cfg.hub, (iom_id){iom}, map->iom[iom].at), msg);
}

static void send_heartbeat(struct member *m, uint8_t iom, uint8_t more) {
    send_one(m, iom, MSG_HEARTBEAT, own_flags(m) | more, env_now_ns(m->env), m->epoch);
}

void heartbeat_send_to(struct member *m, uint8_t iom) { send_heartbeat(m, iom, 0); }

void heartbeat_send_all(struct member *m) {
    m->beat_ns = env_now_ns(m->env);
    m->quiet_told = heartbeat_quiet(m);
    for (uint8_t i = 0; i < address_map(m)->ioms; i++) send_heartbeat(m, i, 0);
}

bool heartbeat_was_away(const struct member *m, uint64_t now_ns) {
    return now_ns - m->tick_ns > 3 * m->cfg.heartbeat_ns;
}

// Whatever comes first after a sleep, before the next tick has noted it, finds nobody silent.
static bool judges_nobody(const struct member *m, uint64_t now_ns) {
    return m->cfg.stand_ins && heartbeat_was_away(m, now_ns);
}

uint64_t heartbeat_silent_ns(const struct member *m, uint8_t iom, uint64_t now_ns) {
    uint64_t from = MAX(m->heard[iom].at_ns, MAX(m->known_ns, m->woke_ns));
    if (judges_nobody(m, now_ns)) return 0;
    return now_ns > from ? now_ns - from : 0;
}

uint64_t heartbeat_unheard_ns(const struct member *m, uint8_t iom, uint64_t now_ns) {
    uint64_t from = MAX(m->heard[iom].at_ns, MAX(m->created_ns, m->woke_ns));
    if (judges_nobody(m, now_ns)) return 0;
    return now_ns > from ? now_ns - from : 0;
}

bool heartbeat_fresh(const struct member *m, uint8_t iom) {
    const struct heard *o = &m->heard[iom];
    bool dead = o->dead && o->dead >= o->incarnation;
    return o->at_ns && !dead && env_now_ns(m->env) - o->at_ns < m->cfg.ping_ns;
}

uint16_t heartbeat_unheard(const struct member *m) {
    uint64_t now = env_now_ns(m->env);
    uint16_t mask = 0;
    for (uint8_t i = 0; m->cfg.stand_ins && i < address_map(m)->ioms; i++)
        if (i != m->cfg.iom && heartbeat_unheard_ns(m, i, now) >= m->cfg.silence_ns) mask |= (uint16_t)(1u << i);
    return mask;
}

void heartbeat_ping_quiet(struct member *m) {
    uint64_t now = env_now_ns(m->env);
    for (uint8_t i = 0; i < address_map(m)->ioms; i++)
        if (heartbeat_silent_ns(m, i, now) >= m->cfg.ping_ns) send_heartbeat(m, i, HEART_PING);
}

// ---- leases ---------------------------------------------------------------------------------------------------------
// A lease as this node's clock has to count it for another's: the two may go a little differently.
static uint64_t foreign_lease_ns(const struct member *m) { return m->cfg.lease_ns + m->cfg.lease_ns / 16; }

// What this process said before it was started again is forgotten, also which map it knew then.
static bool holds_back(const struct member *m, uint64_t epoch) {
    return m->cfg.stand_ins && m->epoch != epoch && env_now_ns(m->env) - m->created_ns < foreign_lease_ns(m);
}

static bool confirms(const struct member *m, uint8_t iom, uint64_t incarnation, uint64_t epoch, uint64_t version) {
    const struct cluster_map *map = register_promised_map(m->cfg.reg);
    return register_votes(m->cfg.reg) && epoch && map->epoch == epoch && map->version >= version &&
           version >= register_voters_version(m->cfg.reg) &&
           map->state != ARRAY_STOPPED && iom < map->ioms && map->iom[iom].incarnation == incarnation &&
           map->iom[iom].state != MAP_IOM_FAILED && !holds_back(m, epoch);
}

uint16_t heartbeat_quiet(const struct member *m) {
    uint64_t now = env_now_ns(m->env), from = MAX(m->created_ns, register_voters_ns(m->cfg.reg));
    uint16_t mask = 0;
    for (uint8_t i = 0; m->cfg.stand_ins && register_votes(m->cfg.reg) && i < address_map(m)->ioms; i++)
        if (now - MAX(m->heard[i].gave_ns, from) >= foreign_lease_ns(m)) mask |= (uint16_t)(1u << i);
    return mask;
}

void heartbeat_forget_leases(struct member *m) {
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) m->heard[i].confirmed_ns = 0;
}

// What was confirmed to the one before stays: its lease counts for its place.
void heartbeat_forget_replaced(struct member *m, const struct cluster_map *map) {
    for (uint8_t i = 0; i < map->ioms; i++) {
        struct heard *o = &m->heard[i];
        if (!memcmp(o->store, map->iom[i].store, 16)) continue;
        *o = (struct heard){.gave_ns = o->gave_ns};
        memcpy(o->store, map->iom[i].store, 16);
    }
}

// Of itself a voter has the answer, too, that it gave itself when it last could: before it accepted other voters, which
// are perhaps not chosen yet.
static bool confirms_self(const struct member *m, const struct cluster_map *map, uint64_t now_ns) {
    bool lately = now_ns < register_voters_ns(m->cfg.reg) + m->cfg.lease_ns;
    uint64_t version = lately ? MAX(map->version, register_voters_version(m->cfg.reg)) : map->version;
    return confirms(m, m->cfg.iom, m->incarnation, m->epoch, version);
}

bool heartbeat_lease_holds(const struct member *m, uint64_t now_ns) {
    const struct cluster_map *map = register_latest(m->cfg.reg);
    uint8_t good = 0;
    for (uint8_t i = 0; map && i < map->voters; i++) {
        uint8_t iom = map->voter[i].iom;
        uint64_t asked = m->heard[iom].confirmed_ns;
        if (iom == m->cfg.iom) good += confirms_self(m, map, now_ns);
        else good += asked && now_ns < asked + m->cfg.lease_ns;
    }
    return map && good >= cluster_map_majority(map);
}

static void answer(struct member *m, uint8_t from, const struct heartbeat *h) {
    uint64_t epoch = le64_get(h->epoch);
    bool yes = confirms(m, from, le64_get(h->incarnation), epoch, le64_get(h->map_version));
    if (yes) m->heard[from].gave_ns = env_now_ns(m->env);
    if (!yes && !(h->flags & HEART_PING)) return;
    send_one(m, from, MSG_HEARTBEAT_ACK, own_flags(m) | (yes ? HEART_CONFIRM : 0), le64_get(h->sent_ns), epoch);
}

static void take_answer(struct member *m, uint8_t from, const struct heartbeat *h) {
    struct heard *o = &m->heard[from];
    if ((h->flags & HEART_CONFIRM) && m->epoch && le64_get(h->epoch) == m->epoch)
        o->confirmed_ns = MAX(o->confirmed_ns, MIN(le64_get(h->sent_ns), env_now_ns(m->env)));
}

// ---- hearing --------------------------------------------------------------------------------------------------------
static void spread_map(struct member *m, uint8_t from, uint64_t version) {
    struct heard *o = &m->heard[from];
    uint64_t now = env_now_ns(m->env), mine = known_version(m);
    if (mine > version) {
        register_tell(m->cfg.reg, from);
    } else if (mine < version && (!o->nudged_ns || now - o->nudged_ns >= MSEC(10))) {
        o->nudged_ns = now;
        send_heartbeat(m, from, 0);
    }
}

// What an older incarnation said is of no interest; nor what a store says that the map does not know, but one of the two
// has an old map then.
void heartbeat_take(struct member *m, const struct node_name *from, const struct msg *msg) {
    const struct heartbeat *h = (const struct heartbeat *)msg->body;
    uint8_t i = from->iom;
    const struct cluster_map *map = address_map(m);
    if (msg->body_len < sizeof *h || i >= map->ioms || i == m->cfg.iom) return;
    if (memcmp(h->store, map->iom[i].store, 16)) {
        spread_map(m, i, le64_get(h->map_version));
        return;
    }
    struct heard *o = &m->heard[i];
    uint64_t incarnation = le64_get(h->incarnation);
    if (incarnation < o->incarnation) return;
    bool missed = heartbeat_unheard(m) >> i & 1;
    uint64_t now = env_now_ns(m->env);
    if (!o->at_ns || now - o->at_ns >= m->cfg.ping_ns) o->since_ns = now;
    o->at_ns = now;
    o->incarnation = incarnation;
    if (msg->type == MSG_HEARTBEAT_ACK) {
        take_answer(m, i, h);
    } else {
        o->epoch = le64_get(h->epoch);
        o->phases_done = le16_get(h->phases_done);
        o->flags = h->flags;
        o->unheard = le16_get(h->unheard);
        o->quiet = le16_get(h->quiet);
        o->map_version = le64_get(h->map_version);
        answer(m, i, h);
    }
    spread_map(m, i, le64_get(h->map_version));
    if (missed) heartbeat_send_all(m); // no epoch begins before all have heard that it is heard
    member_step(m);
}
