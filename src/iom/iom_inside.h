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
struct iom {
    struct env *env;
    const struct iom_config *config;
    struct store_ident ident;
    iom_id self;
    struct disk *disk, *journal; // journal NULL: it lies in the store
    struct hub *hub;
    struct reg *reg;
    struct member *member;
    struct peer *peer[ARRAY_IOMS_MAX];
    // The instance: there from READY to the next stop.
    struct store *store;
    struct rows *rows;
    struct names *names;
    bool serving;
    bool cancelled;          // the instance ends: calls to others give up
    struct waitq cancel;
    uint32_t touching;       // touches of other IOMs' objects under way
    struct waitq touched;    // woken when touching becomes 0
    uint32_t requests;       // tasks under way that use the instance
    struct waitq idle;       // woken when requests becomes 0
    bool asked_to_stop;
    bool disk_failed;        // as a whole: it stops itself
    uint32_t disk_errors;    // since:
    uint64_t disk_errors_since_ns;
    struct iom_wanted wanted;
    struct waitq changed;    // woken with every change of `wanted` and asked_to_stop
};

// ---- iom_port.c
struct rows_port iom_rows_port(struct iom *i);
struct names_port iom_names_port(struct iom *i);
void iom_peers_of_map(struct iom *i, const struct cluster_map *m); // addresses of the others

// ---- iom_serve.c
struct hub_events iom_hub_events(struct iom *i);
