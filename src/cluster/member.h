// Membership: who is alive, who may serve, and the life of the array, as one state machine a node. It hears heartbeats
// and newly chosen maps, changes the map through the register, and calls its owner:
//
//   owner: open the store ── member_ready ──> READY ──(all members READY; map: recovering)──> phase(0)
//   owner: run phase k ── member_phase_done(k) ──> phase(k+1) when *all* members have done k ... ──(map: running)──> serve
//   stop (from any of these): the owner hardens what it holds, drops its instance, opens its store again (a new
//   incarnation) and calls member_ready again
//
// Every member is needed: one that is lost stops the array until it is back, unless `stand_ins` allows to go on without
// that one. Then the map of the next recovery says who is failed; the owner of its proxy hosts what answers for it. When
// it is back, the array stops once more to take it in (returning, then rebuilding), and its owner says member_rebuilt
// when nothing is lacking any more.
#pragma once
#include "cluster/register.h"

struct member;

struct member_events { // none may wait; each may call anything here but member_destroy
    void (*phase)(void *ctx, uint64_t epoch, uint32_t phase); // run recovery phase 0, 1, ...: then member_phase_done
    void (*serve)(void *ctx, uint64_t epoch);
    void (*stop)(void *ctx, uint64_t epoch, const char *reason);
    void (*map_changed)(void *ctx,
                        const struct cluster_map *m); // before the other events that follow from it; may be NULL
    // The newest map has another store in this one's place: it takes part in nothing any more, and never will. Once, after
    // the stop if it took part.
    void (*replaced)(void *ctx, const struct cluster_map *m);
    void *ctx;
};

struct member_config {
    struct env *env;
    struct hub *hub;
    struct reg *reg;          // opened; its callback is taken over by the member
    uint8_t iom, store[16];
    uint32_t phases;          // of recovery; may be 0
    // 0: default. heartbeat < ping < silence; lease + heartbeat < silence: who is declared failed serves no more by
    // then. All members have the same: a lease is counted by who holds it and by who gave it.
    uint64_t heartbeat_ns;    // 100 ms
    uint64_t ping_ns;         // a third of silence_ns: asked whether it is there
    uint64_t silence_ns;      // 1500 ms of silence: declared failed
    uint64_t lease_ns;        // two thirds of silence_ns
    bool stand_ins;           // go on without one that is lost
    uint64_t grace_ns;        // 5 s from member_create, if it has taken part in nothing since: nobody is left out before
    struct member_events events;
};
const char *member_config_fault(const struct member_config *c); // NULL, or which relation does not hold
struct member *member_create(const struct member_config *c);    // its fault must be NULL
void co_member_destroy(struct member *m);                       // no event follows the call; before co_register_close

// The instance is opened under `incarnation`, serves nothing. clean: nothing that was answered can have been lost (the
// store was closed cleanly with nothing left unhardened). The hub greets under this incarnation from now on.
void member_ready(struct member *m, uint64_t incarnation, bool clean);
void member_phase_done(struct member *m, uint64_t epoch, uint32_t phase); // of an older epoch: ignored
// This node, which the map calls rebuilding, has everything that is its own: it counts as up from the next map on, in
// the same epoch. To be said again after a stop.
void member_rebuilt(struct member *m);
// May a request be answered now? Serving, and a majority of voters has confirmed this incarnation within a lease. To be
// asked before each answer; false may be true again later without any event.
bool member_may_serve(const struct member *m);
// A clean stop of this node: the others are told and the array stops at once. The owner's stop event follows when it
// was serving or recovering; then the owner closes its store. If no majority is there to agree, it never follows: the
// owner sets its own limit.
void member_leave(struct member *m);
// The process of that incarnation is gone for certain (its store's lock was taken).
void member_proven_dead(struct member *m, uint8_t iom, uint64_t incarnation);
// Casts of types MSG_HEARTBEAT*, MSG_PAXOS_* (handed on to the register). Owns msg.
void member_cast(struct member *m, const struct node_name *from, struct msg *msg);

// ---- for status
enum member_seen { MEMBER_UNHEARD, MEMBER_ALIVE, MEMBER_QUIET, MEMBER_SILENT }; // quiet: longer than ping_ns
enum member_stage { STAGE_CLOSED, STAGE_READY, STAGE_RECOVERING, STAGE_SERVING, STAGE_LEAVING };
struct member_view {
    enum member_seen seen;
    enum member_stage stage;  // what it said last
    uint64_t silent_ns, incarnation;
    uint32_t phases_done;
};
void member_suspect_view(const struct member *m, uint8_t iom, struct member_view *out); // also of oneself
uint64_t member_epoch(const struct member *m);                  // in which this node takes part; 0: in none
