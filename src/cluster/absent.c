// Who is absent: whom the array goes on without, and when it takes him back. Rules of member.c that look at more than
// one member at a time; all but absent_nobody are switched on by stand_ins.
//
// A member may be left out of the next epoch if it is the only one that is not up and ready, and
//
//   its process is gone           the hub was refused where it listened (absent_watch), or its store's lock was taken
//   or it has left                it says that it leaves, and that it knows of the stop: it takes part in nothing any more
//   or it is lost and fenced      lost: not heard for silence_ns; or heard, but not knowing of the stop for silence_ns;
//                                 or not heard by another, or not hearing another
//                                 fenced: it is ready, and knows of the stop (it serves nothing); or an incarnation
//                                 later than the admitted one was heard (that one is closed); or a majority of voters
//                                 is quiet about it (heartbeat.c)
//
// Everybody says in its heartbeats whom it does not hear. As long as one member does not hear another no epoch begins
// with both, for it would end as soon as that one has been silent too long.
// Who is back makes a stop; if what followed did not get as far as running, the next one waits, longer each time.
#include "cluster/member_internal.h"

#define BACK_MIN_NS SEC(2)
#define BACK_MAX_NS SEC(30)

// ---- one member -----------------------------------------------------------------------------------------------------
static bool knows(const struct member *m, const struct cluster_map *map, uint8_t i) {
    return m->heard[i].map_version >= map->version;
}

static bool is_ready(const struct member *m, const struct cluster_map *map, uint8_t i) {
    const struct heard *o = &m->heard[i];
    if (i == m->cfg.iom) return member_self_ready(m);
    if (!heartbeat_fresh(m, i) || !(o->flags & HEART_READY)) return false;
    if (o->incarnation < map->iom[i].incarnation) return false; // that one was heard long ago
    return !m->cfg.stand_ins || knows(m, map, i);
}

// a has not heard b for silence_ns. What a says of itself counts while it is fresh.
static bool misses(const struct member *m, uint8_t a, uint8_t b) {
    if (a == b) return false;
    if (a == m->cfg.iom) return heartbeat_unheard(m) >> b & 1;
    return heartbeat_fresh(m, a) && (m->heard[a].unheard >> b & 1);
}

// All hear each other; `but` is not looked at.
static bool all_hear(const struct member *m, const struct cluster_map *map, uint8_t but) {
    for (uint8_t a = 0; m->cfg.stand_ins && a < map->ioms; a++)
        for (uint8_t b = 0; b < map->ioms; b++)
            if (a != but && b != but && misses(m, a, b)) return false;
    return true;
}

const char *absent_deaf(const struct member *m, const struct cluster_map *map, uint8_t i) {
    if (!m->cfg.stand_ins || !heartbeat_fresh(m, i) || m->heard[i].epoch != map->epoch) return NULL;
    for (uint8_t b = 0; b < map->ioms; b++)
        if (map->iom[b].state != MAP_IOM_FAILED && misses(m, i, b)) return "does not hear the others";
    return NULL;
}

// ---- leaving out ----------------------------------------------------------------------------------------------------
bool absent_nobody(const struct member *m, const struct cluster_map *map) {
    for (uint8_t i = 0; i < map->ioms; i++)
        if (!is_ready(m, map, i)) return false;
    return all_hear(m, map, NO_IOM);
}

static bool gone(const struct member *m, const struct cluster_map *map, uint8_t i) {
    const struct heard *o = &m->heard[i];
    return o->dead && o->dead >= map->iom[i].incarnation && o->dead >= o->incarnation;
}

// Nobody has only just come back: what they say of each other is not about to change.
static bool all_steady(const struct member *m, const struct cluster_map *map) {
    uint64_t now = env_now_ns(m->env);
    for (uint8_t i = 0; i < map->ioms; i++)
        if (i != m->cfg.iom && (!heartbeat_fresh(m, i) || now - m->heard[i].since_ns < m->cfg.ping_ns)) return false;
    return true;
}

// Its own last word: under that incarnation it never says READY again. It may still be closing its store, which nobody else looks into.
static bool left(const struct member *m, const struct cluster_map *map, uint8_t i) {
    const struct heard *o = &m->heard[i];
    return (o->flags & HEART_LEAVING) && !o->epoch && o->incarnation >= map->iom[i].incarnation && knows(m, map, i);
}

static bool lost(const struct member *m, const struct cluster_map *map, uint8_t i) {
    uint64_t now = env_now_ns(m->env);
    if (heartbeat_unheard_ns(m, i, now) >= m->cfg.silence_ns) return true;
    if (!knows(m, map, i) && now - m->known_ns >= m->cfg.silence_ns) return true;
    if (!heartbeat_fresh(m, i) && m->heard[i].at_ns && m->heard[i].unheard) return true; // its last word: it is deaf
    return all_steady(m, map) && !all_hear(m, map, NO_IOM); // and all do without it: the caller has looked
}

static bool quiet_about(const struct member *m, const struct cluster_map *map, uint8_t voter, uint8_t i) {
    if (voter == i || !is_ready(m, map, voter)) return false;
    return (voter == m->cfg.iom ? heartbeat_quiet(m) : m->heard[voter].quiet) >> i & 1;
}

static bool fenced(const struct member *m, const struct cluster_map *map, uint8_t i) {
    if (is_ready(m, map, i) || m->heard[i].incarnation > map->iom[i].incarnation) return true;
    uint8_t quiet = 0;
    for (uint8_t v = 0; v < map->voters; v++) quiet += quiet_about(m, map, map->voter[v].iom, i);
    return quiet >= cluster_map_majority(map);
}

static bool others_whole(const struct member *m, const struct cluster_map *map, uint8_t i) {
    for (uint8_t j = 0; j < map->ioms; j++)
        if (j != i && (map->iom[j].state != MAP_IOM_UP || !is_ready(m, map, j))) return false;
    return all_hear(m, map, i);
}

static bool may_be_left_out(const struct member *m, const struct cluster_map *map, uint8_t i) {
    if (i == m->cfg.iom || !others_whole(m, map, i)) return false;
    return gone(m, map, i) || left(m, map, i) || (lost(m, map, i) && fenced(m, map, i));
}

uint8_t absent_one(const struct member *m, const struct cluster_map *map) {
    bool patient = !m->took_part && env_now_ns(m->env) - m->created_ns < m->cfg.grace_ns;
    for (uint8_t i = 0; m->cfg.stand_ins && !patient && i < map->ioms; i++)
        if (may_be_left_out(m, map, i)) return i;
    return NO_IOM;
}

// ---- the way back ---------------------------------------------------------------------------------------------------
static uint8_t not_up(const struct cluster_map *map) {
    for (uint8_t i = 0; i < map->ioms; i++)
        if (map->iom[i].state != MAP_IOM_UP) return i;
    return NO_IOM;
}

// Whatever its incarnation: it was perhaps admitted under this one and took no part, for it says READY, knowing a map
// after that.
uint8_t absent_back(const struct member *m, const struct cluster_map *map) {
    uint8_t i = not_up(map);
    if (!m->cfg.stand_ins || i == NO_IOM || map->iom[i].state != MAP_IOM_FAILED || !is_ready(m, map, i)) return NO_IOM;
    if (i == m->cfg.iom) return NO_IOM; // the others know when it tried last
    if (env_now_ns(m->env) < m->back.not_before_ns) return NO_IOM;
    for (uint8_t j = 0; j < map->ioms; j++)
        if (j != m->cfg.iom && !heartbeat_fresh(m, j)) return NO_IOM;
    return all_hear(m, map, NO_IOM) ? i : NO_IOM;
}

void absent_note(struct member *m, const struct cluster_map *map) {
    uint8_t i = not_up(map), state = i == NO_IOM ? MAP_IOM_UP : map->iom[i].state;
    if (map->state == ARRAY_RUNNING && state != MAP_IOM_FAILED) {
        m->back.tried = false;
        m->back.backoff_ns = m->back.not_before_ns = 0;
    } else if (state == MAP_IOM_RETURNING || (state == MAP_IOM_FAILED && map->state == ARRAY_STOPPED)) {
        m->back.tried = true;
    } else if (state == MAP_IOM_FAILED && m->back.tried) {
        m->back.tried = false;
        m->back.backoff_ns = MIN(MAX(2 * m->back.backoff_ns, BACK_MIN_NS), BACK_MAX_NS);
        m->back.not_before_ns = env_now_ns(m->env) + m->back.backoff_ns;
    }
}

// ---- deaths ---------------------------------------------------------------------------------------------------------
// Who was heard or admitted had listened before; what is opened later has an incarnation of its own.
static uint64_t known_incarnation(void *ctx, uint8_t i) {
    const struct member *m = ctx;
    const struct cluster_map *map = register_latest(m->cfg.reg);
    uint64_t admitted = map && i < map->ioms ? map->iom[i].incarnation : 0;
    return MAX(m->heard[i].incarnation, admitted);
}

static void found_dead(void *ctx, uint8_t i, uint64_t incarnation) {
    struct member *m = ctx;
    if (m->heard[i].dead < incarnation) LOG(m->env, TRACE_INFO, "IOM %u is dead: nobody is where it listened", i);
    member_proven_dead(m, i, incarnation);
}

// A new incarnation closes its connections, and what it says at once, READY, would not be heard before the next heartbeat.
static void met(void *ctx, uint8_t i) { heartbeat_send_to(ctx, i); }

void absent_watch(struct member *m) {
    hub_tell_deaths(m->cfg.hub, &(struct hub_deaths){known_incarnation, found_dead, met, m});
}
