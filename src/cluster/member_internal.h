// What member.c (the life of the array) and heartbeat.c (who is heard, leases) share.
#pragma once
#include "cluster/member.h"

#define HEART_READY 1u
#define HEART_CLEAN 2u
#define HEART_LEAVING 4u
#define HEART_SERVING 8u
#define HEART_PING 16u    // an answer is wanted, also from who is no voter
#define HEART_CONFIRM 32u // answers: the incarnation is the admitted one as far as this voter has agreed to anything

struct heartbeat { // HEARTBEAT, and HEARTBEAT_ACK with sent_ns and epoch of what it answers
    struct envelope env;
    uint8_t store[16];
    le64 incarnation;
    le64 epoch;       // in which the sender takes part; 0: none
    le64 map_version; // newest it knows to be chosen
    le64 sent_ns;     // by the sender's clock
    le16 phases_done;
    le16 unheard;     // bit i: the sender has not heard IOM i for silence_ns
    uint8_t flags, reserved;
    le16 quiet;       // bit i: the sender, a voter, has not confirmed IOM i for a lease and its margin
};
_Static_assert(sizeof(struct heartbeat) == 80, "a heartbeat on the wire");

struct heard { // of one other IOM, what it said last
    uint8_t store[16];       // who it was, by the newest map
    uint64_t at_ns;          // 0: never
    uint64_t since_ns;       // without a break of ping_ns
    uint64_t incarnation, epoch;
    uint32_t phases_done;
    uint8_t flags;
    uint16_t unheard, quiet;
    uint64_t map_version;    // it knows
    uint64_t gave_ns;        // when we, a voter, confirmed it last
    uint64_t dead;           // the incarnation that is proven dead; 0: none
    uint64_t confirmed_ns;   // when it was asked what it, a voter, confirmed last; for the present epoch
    uint64_t nudged_ns;      // last heartbeat out of turn, because it knows a newer map
};

struct member {
    struct member_config cfg;
    struct env *env;
    struct heard heard[ARRAY_IOMS_MAX];
    uint64_t created_ns;
    uint64_t incarnation;    // 0: never opened
    bool opened, clean, leaving, closing;
    bool took_part;          // in some epoch, since member_create
    bool rebuilt;            // the owner has said so, of this incarnation
    bool replaced;           // another store has our place
    struct { bool tried; uint64_t backoff_ns, not_before_ns; } back; // of the one that is not up
    uint64_t epoch;          // in which we take part; 0: none
    uint32_t phase, done;    // running phase; phases done
    bool serving;
    uint64_t known_epoch, known_ns; // epoch of the newest map, and since when we know it: silence counts from there
    uint64_t beat_ns, tick_ns, woke_ns;
    uint16_t quiet_told;     // with the last heartbeat
    struct timer tick;
    // changes of the map: one task, one change at a time
    struct waitq work, ended_q;
    bool must_read, ended, busy;
    int due;                 // enum change
    uint64_t due_since_ns;
};

void heartbeat_send_all(struct member *m);
void heartbeat_send_to(struct member *m, uint8_t iom);
void heartbeat_take(struct member *m, const struct node_name *from, const struct msg *msg);
void heartbeat_ping_quiet(struct member *m);
void heartbeat_forget_leases(struct member *m);
// Of what was heard of a store that the map replaces nothing holds for the new one.
void heartbeat_forget_replaced(struct member *m, const struct cluster_map *map);
bool heartbeat_lease_holds(const struct member *m, uint64_t now_ns);
bool heartbeat_was_away(const struct member *m, uint64_t now_ns); // since the last tick: a sleep, or a turn far too long
bool heartbeat_fresh(const struct member *m, uint8_t iom);       // heard lately, and not known to be dead
// How long it is not heard, whatever the epoch: of what we could have heard.
uint64_t heartbeat_unheard_ns(const struct member *m, uint8_t iom, uint64_t now_ns);
uint16_t heartbeat_unheard(const struct member *m); // masks, as a heartbeat carries them
uint16_t heartbeat_quiet(const struct member *m);
uint64_t heartbeat_silent_ns(const struct member *m, uint8_t iom, uint64_t now_ns); // of what we could have heard
void member_step(struct member *m);
bool member_self_ready(const struct member *m);

// absent.c. `map`: the newest one, stopped, or running for absent_back.
bool absent_nobody(const struct member *m, const struct cluster_map *map);   // all are ready
uint8_t absent_one(const struct member *m, const struct cluster_map *map);   // all but this one, which may be left out
uint8_t absent_back(const struct member *m, const struct cluster_map *map);  // left out, and ready to return now
const char *absent_deaf(const struct member *m, const struct cluster_map *map, uint8_t iom); // does not hear the others
void absent_note(struct member *m, const struct cluster_map *map);           // a newer map: how returns go
void absent_watch(struct member *m);                                         // for deaths that the hub finds
