// What the files of the IOM instance share: iom.c (its life), iom_port.c (how rows and names reach the others), iom_serve.c (what comes in).
#pragma once
#include "cluster/member.h"
#include "cluster/register.h"
#include "iom/iom.h"

// What has to happen next, set by the membership's callbacks, done by the life task (iom.c).
struct iom_wanted {
    bool phase, serve, stop;
    uint64_t phase_epoch;
    uint32_t phase_number;
};
// A service: rows and names over the store, and how they reach those of the others. There from READY to the next stop. The node's own, and that of its ward
// while this IOM stands in for it.
struct instance {
    struct iom *i;
    iom_id self;             // for whom it answers
    struct hub *hub;         // NULL: a stand-in that there is not
    struct peer *peer[ARRAY_IOMS_MAX];
    struct rows *rows;
    struct names *names;
    bool serving;
    bool cancelled;          // it ends: calls to others give up
    struct waitq cancel;
    uint32_t touching;       // touches of other IOMs' objects under way
    struct waitq touched;    // woken when touching becomes 0
    uint32_t requests;       // tasks under way that use it
    struct waitq idle;       // woken when requests becomes 0
};
struct iom {
    struct env *env;
    const struct iom_config *config;
    struct store_ident ident;
    struct disk *disk, *journal; // journal NULL: it lies in the store
    struct reg *reg;
    struct member *member;
    struct store *store;     // of all instances, as long as there is one
    struct instance own, guest;
    bool asked_to_stop;
    uint64_t building_ns;    // since when the rebuild runs; 0: it does not
    bool disk_failed;        // as a whole: it stops itself
    bool replaced;           // another store has its place: it ends
    uint32_t disk_errors;    // since:
    uint64_t disk_errors_since_ns;
    struct recovery_time *time;
    struct iom_wanted wanted;
    struct waitq changed;    // woken with every change of `wanted` and asked_to_stop
};

// ---- iom_port.c
struct rows_port iom_rows_port(struct instance *x);
struct names_port iom_names_port(struct instance *x);
void iom_peers_of_map(struct instance *x, const struct cluster_map *m); // addresses of the others
void iom_peers_redirect(struct instance *x, const struct cluster_map *m, bool taken_over); // who answers for whom; taken_over: one that returns answers for itself

// ---- iom_serve.c
struct hub_events iom_hub_events(struct instance *x);

// ---- iom.c
void instance_init(struct instance *x, struct iom *i);
void instance_create(struct instance *x);                     // over the store as it is; its hub is there
void instance_cancel(struct instance *x);                     // from here on nobody is answered and no call to another IOM goes on
MUST_USE err co_instance_end(struct instance *x, bool harden); // an error: not all that it held is on disk

// ---- stand_in.c
bool stand_in_is_here(const struct iom *i);                        // this IOM stands in for its ward
MUST_USE err co_stand_in_up(struct iom *i, const struct cluster_map *m); // at the beginning of a recovery, if the map wants it
MUST_USE err co_stand_in_forget(struct iom *i);                   // what it has recorded; idempotent
MUST_USE err co_stand_in_down(struct iom *i, bool harden);         // with the service; or when its IOM takes over

// ---- replace.c
MUST_USE err co_replace(struct iom *i, struct inbound *in, struct msg **reply); // CONTROL_REPLACE

// ---- rebuild.c
void rebuild_start(struct instance *x); // if there is something to build

// ---- catch_up.c
MUST_USE err co_catch_up(struct instance *x, iom_id proxy, uint64_t epoch); // records of what was missed, from the proxy's store
void co_missed_answer(struct instance *x, struct inbound *in);     // MSG_MISSED

// ---- recovery.c
#define NAMES_BEFORE_ROWS 3 // phases of names before those of rows; the others follow
#define RECOVERY_FIRST (NAMES_RECOVERY_PHASES + ROWS_RECOVERY_PHASES)
#define RECOVERY_PHASES (RECOVERY_FIRST + 2 + NAMES_RECOVERY_PHASES)
MUST_USE err co_recovery_phase(struct iom *i, uint32_t phase, uint64_t epoch);

// ---- recovery_time.c: what the last stop and the recovery after it took
struct recovery_time *recovery_time_new(struct env *e); // of the node's memory
void recovery_time_stop(struct recovery_time *t);
void recovery_time_closed(struct recovery_time *t); // the store, with what was held in it
void recovery_time_ready(struct recovery_time *t);  // it is open again
void recovery_time_phase(struct recovery_time *t, uint32_t phase); // begins here
void recovery_time_done(struct recovery_time *t, uint32_t phase);  // this IOM's part of it
void recovery_time_tell(struct recovery_time *t, uint64_t epoch);  // it serves: a line in the log
