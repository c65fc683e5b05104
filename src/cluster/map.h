// The cluster map: the one value of the register. Who belongs to the array, where each IOM is found, which incarnation
// of it was admitted last, in which epoch the array is and whether it runs. A few hundred bytes that change only when
// something fails or joins; every change is one compare-and-swap in the register (register.h) and raises `version` by
// one.
//
// Encoded (little-endian; at most CLUSTER_MAP_BYTES_MAX):
//    0 magic "MMAP" · 4 format · 6 length · 8 CRC32C of all with this field 0 · 12 state · 13 ioms · 14 voters
//   15 voters under whom it was chosen, 0: the same · 16 cluster id · 32 version · 40 epoch · 48 recoveries · 56 stamp
//   64 entries of IOMs, then of voters, then of those under whom it was chosen
//   IOM:   store id 16 · incarnation 8 · state 1 · proxy 1 · address length 1 · host length 1 · address · host
//   voter: store id 16 · IOM position 1
#pragma once
#include "base/bytes.h"
#include "base/common.h"
#include "base/err.h"
#include "layout/layout.h"

#define MAP_ADDRESS_BYTES 108 // with the terminating zero: what fits a sockaddr_un
#define MAP_HOST_BYTES 32
#define MAP_VOTERS_MAX 7
#define CLUSTER_MAP_BYTES_MAX                                                                                          \
    (64 + ARRAY_IOMS_MAX * (28 + MAP_ADDRESS_BYTES - 1 + MAP_HOST_BYTES - 1) + 2 * MAP_VOTERS_MAX * 17)

//   stopped --all members ready, or all but one--> recovering --recovery done by all--> running; a member lost or back:
//   stopped, from either
enum array_state { ARRAY_STOPPED = 1, ARRAY_RECOVERING = 2, ARRAY_RUNNING = 3 };
// While the array recovers and runs, at most one IOM is anything but up:
//   up --left out of a recovery--> failed --takes part in one--> returning --running--> rebuilding --has everything--> up
//   left out again, from any: failed. A failed one is served for by its proxy.
enum map_iom_state { MAP_IOM_UP = 1, MAP_IOM_FAILED = 2, MAP_IOM_RETURNING = 3, MAP_IOM_REBUILDING = 4 };

struct map_iom {
    uint8_t store[16];            // the random id made with its store: another one is another (empty) disk
    uint64_t incarnation;         // admitted last; 0: none yet
    uint8_t state;                // enum map_iom_state
    bool lost;                    // its memory, since the array ran last
    uint8_t proxy;                // position of the IOM that has the copy of its contents
    char at[MAP_ADDRESS_BYTES];   // for net_connect
    char host[MAP_HOST_BYTES];    // label: what dies together
};
struct map_voter { uint8_t store[16]; uint8_t iom; };
struct map_voters { uint8_t count; struct map_voter at[MAP_VOTERS_MAX]; };

struct cluster_map {
    uint8_t cluster[16];
    uint64_t version;     // 1, 2, 3...: one more with every change
    uint64_t epoch;       // only grows; one more whenever the set of serving incarnations changes
    uint64_t recoveries;  // low half: those after which something answered may be lost, more than one member having lost its memory since the array ran last (fsync, NFS
                          // verifiers); high half: those after which only what one member alone had may be (toughness 0, no protection)
    uint64_t stamp;       // random, of this change: tells who made it
    uint8_t state;        // enum array_state
    uint8_t ioms, voters; // counts
    struct map_iom iom[ARRAY_IOMS_MAX];
    struct map_voter voter[MAP_VOTERS_MAX]; // they decide on the next map
    // Under whom this one is chosen, if that is not the voters: one of them is removed or added by this very map. Count
    // 0: the voters. The register sets it.
    struct map_voters chosen_by;
};

uint32_t cluster_map_encode(const struct cluster_map *m, uint8_t out[CLUSTER_MAP_BYTES_MAX]); // the length
// ERR_FORMAT, ERR_VERSION (newer), ERR_CHECKSUM; *why, if not NULL, is then one clause that says what is wrong.
MUST_USE err cluster_map_decode(struct cluster_map *m, const uint8_t *p, uint32_t len_bytes, const char **why);
const char *cluster_map_fault(const struct cluster_map *m); // what makes it no map; NULL: nothing

// The first map, the same bytes from the same arguments: whoever makes a cluster writes it into every store's register
// blocks (register_first_block), so that all voters start from one chosen value. Stopped, epoch 1, nobody admitted.
// Voters: 1 of 1, 2 of 2, 3 of 3 or 4, else 5; on different hosts as far as there are. Proxies: array_shape_make.
struct map_first_iom { uint8_t store[16]; const char *at, *host; };
void cluster_map_first(struct cluster_map *m, const uint8_t cluster[16], const struct map_first_iom *ioms,
                       uint8_t count);

void cluster_map_shape(const struct cluster_map *m, struct array_shape *out); // its hosts, numbered by their labels, and its proxies
// Another, empty store at the position of a failed IOM whose own is lost for good: the entry gets its id and stays
// failed; the lost store votes no more. It must not be the last voter (the register went with it). The incarnation
// stays, too: those of the new store begin above all of the lost one, or what is known of that one (dead, admitted)
// would be said of it.
void cluster_map_replace(struct cluster_map *m, uint8_t iom, const uint8_t store[16]);
// One more voter, of the IOMs that are up, chosen as for the first map; false: there are enough, or nobody is left.
bool cluster_map_add_voter(struct cluster_map *m);

// Where the stand-in of that IOM answers: at its proxy's process, which listens there while it stands in. "unix:PATH" + "+", HOST:PORT + 1000, or in the
// simulator NODE:1.
const char *cluster_map_stand_in(const struct cluster_map *m, uint8_t iom, char out[MAP_ADDRESS_BYTES]);
static inline uint32_t cluster_map_losses(const struct cluster_map *m) { return (uint32_t)m->recoveries; }
static inline uint32_t cluster_map_losses_of_one(const struct cluster_map *m) { return (uint32_t)(m->recoveries >> 32); }
const char *array_state_name(uint8_t s);
const char *map_iom_state_name(uint8_t s);
int cluster_map_voter(const struct cluster_map *m, const uint8_t store[16]); // its place among the voters; -1: none
struct map_voters cluster_map_voters(const struct cluster_map *m);
struct map_voters cluster_map_choosers(const struct cluster_map *m); // under whom it is chosen
bool map_voters_same(const struct map_voters *a, const struct map_voters *b); // in any order
// One has been added or removed: then each majority of the one set meets each of the other.
bool map_voters_one_apart(const struct map_voters *a, const struct map_voters *b);
int map_voters_find(const struct map_voters *v, const uint8_t store[16]); // its place; -1: none
static inline uint8_t map_voters_majority(const struct map_voters *v) { return (uint8_t)(v->count / 2 + 1); }
static inline uint8_t cluster_map_majority(const struct cluster_map *m) { return (uint8_t)(m->voters / 2 + 1); }
