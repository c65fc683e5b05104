// The register: one linearizable value, the cluster map, changed by compare-and-swap alone. Behind these calls is the
// embedded single-register Paxos (paxos.c) on 1-7 voters among the IOMs.
//
// Only *chosen* values leave here: register_latest, the callback, the outcome of reads. Every node may read and change
// the register; voters are those the map names (store id, not address), as long as their store still has its register
// blocks. A change of the map may add or remove one of them.
#pragma once
#include "cluster/map.h"
#include "env/env.h"
#include "wire/format.h"
#include "wire/peer.h"

struct reg;

// Where a voter keeps its promises: two alternating blocks outside of everything else (store.h). write returns when it
// is on disk; what read gives is on disk, too, also if who wrote it died before that.
#define REGISTER_RECORD_BYTES_MAX 4000u
struct register_storage {
    err (*co_read)(void *ctx, uint8_t *buf,
                   uint32_t *len_bytes); // buf has REGISTER_RECORD_BYTES_MAX; len 0: never written
    err (*co_write)(void *ctx, const uint8_t *buf, uint32_t len_bytes);
    void *ctx;
};
struct register_storage register_storage_of_disk(struct disk *d);

// What is written into the register blocks of every store when the cluster is made: `first` as accepted, so as chosen,
// value.
uint32_t register_first_block(const struct cluster_map *first, uint8_t out[REGISTER_RECORD_BYTES_MAX]); // the length
// What is written into those of a store that is made later, to replace one that is lost: it knows the addresses of
// `known`, a chosen map, and has promised and accepted nothing.
uint32_t register_hint_block(const struct cluster_map *known, uint8_t out[REGISTER_RECORD_BYTES_MAX]); // the length

// The map that the blocks hold, chosen or not, of a store that nobody has opened: good for what never changes, for nothing else. Errors as of
// co_register_open but ERR_CLUSTER.
MUST_USE err co_register_peek(struct env *e, const struct register_storage *s, struct cluster_map *out);

struct register_config {
    struct env *env;
    struct hub *hub;
    uint8_t iom;                     // own position
    uint8_t cluster[16], store[16];
    struct register_storage storage;
    uint64_t phase_ns;               // 0: 400 ms; how long a round waits for a majority before it begins again
    void (*chosen)(void *ctx, const struct cluster_map *m); // a newer chosen value is known; must not wait; may be NULL
    void *ctx;
};
void register_subscribe(struct reg *r, void (*chosen)(void *ctx, const struct cluster_map *m), void *ctx);
// Reads the blocks. ERR_NODATA: never written (this store is no voter and knows no map); ERR_CLUSTER: another
// cluster's; ERR_CHECKSUM, ERR_FORMAT, ERR_VERSION: damaged or foreign. On any error there is no register.
MUST_USE err co_register_open(const struct register_config *c, struct reg **out);
void co_register_close(struct reg *r);             // waits for a write under way; calls that wait end with ERR_CONN

// The value chosen last before the return, linearizable. ERR_TIMEOUT: no majority answered in time.
MUST_USE err co_register_read(struct reg *r, uint64_t deadline_ns, struct cluster_map *out);
// If version `expected` is the register's value, `next` becomes it, with version expected + 1, a stamp of its own
// and chosen_by (all three are set here). OK: done. ERR_CONFLICT: not done and never will be. ERR_TIMEOUT: unknown:
// read before doing anything else. ERR_INVAL: not done; its voters differ from those of `expected` by more than one
// added or one removed (another one in place of one is two changes). The change is sent to all IOMs of the map as soon
// as it is chosen.
MUST_USE err co_register_cas(struct reg *r, uint64_t expected, const struct cluster_map *next, uint64_t deadline_ns);

const struct cluster_map *register_latest(const struct reg *r); // newest chosen value known here; NULL: none yet
// What the own blocks hold, chosen or not: good for addresses to begin with, for nothing else.
const struct cluster_map *register_hint(const struct reg *r);
// The newest map that this node would answer for: chosen, or accepted by its own voter though nobody has told that it
// is chosen. Only for refusing: who is confirmed by less would be confirmed by a map that a majority may have gone
// beyond.
const struct cluster_map *register_promised_map(const struct reg *r);
bool register_votes(const struct reg *r);                        // this node is a voter of the promised map
// The voters of the promised map: since which map they are the same, and since when (monotonic) this node knows that,
// as far as it has seen. Both are rather too late than too early.
uint64_t register_voters_version(const struct reg *r);
uint64_t register_voters_ns(const struct reg *r);

// Messages of types MSG_PAXOS_* go here, from the hub's cast callback. Owns m.
void register_cast(struct reg *r, const struct node_name *from, struct msg *m);
// Someone is behind: sends him the latest chosen value, if there is one.
void register_tell(struct reg *r, uint8_t iom);
void register_learn(struct reg *r, const struct cluster_map *m); // `m` is known to be chosen (MSG_GET_MAP answered it)
