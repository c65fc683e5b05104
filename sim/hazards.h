// Hazards: what goes wrong beside the faults of a run's mode, in every mode, while clients work and while the power is off. A run has none, one or two kinds;
// the seed decides (a hash of it: the random numbers of the world are not touched, so a run without hazards is what it was before there were any), or --hazards.
//
//   rot    a bit of a block of a row flips                 eio    the disk refuses to read such a block, until it is written over
//   slow   the disks, the links, or both of one IOM are 10 to 50 times slower for a while
//   hang   a disk completes nothing for a while            delay  a link holds its messages back, longer than a failure takes to be declared
//   full   small stores, and clients that fill them        clock  clocks run apart and jump forward, wall clocks are anywhere
//
// What clients may be told then, and not more:
//
//   rot, eio   EIO where a block of the file that they asked for cannot be had from its place (the fault atlas is asked at that very instant); never a wrong byte.
//              At most one block of a row is bad at a time, so all of it can be had from the others: see row_repair_in_service. The audits name exactly
//              the blocks that are bad, all of them, and no other.
//   full       ENOSPC of what needs room, if a store came near its end meanwhile. Deletes and truncates make room again; in the end there is room.
//   the others nothing: the array may stop and recover, and an fsync may be told EIO once. What was acknowledged stays, for nobody has lost his memory.
#pragma once
#include "sim/array.h"
#include "sim/oracle.h"
#include "sim/workload.h"

enum hazard { HAZARD_ROT, HAZARD_EIO, HAZARD_SLOW, HAZARD_HANG, HAZARD_DELAY, HAZARD_FULL, HAZARD_CLOCK, HAZARDS };
extern const char *const hazard_name[HAZARDS];
#define HAZARD_BIT(h) (1u << (h))
#define HAZARDS_BY_SEED UINT32_MAX
MUST_USE bool hazards_of(const char *list, uint32_t *mask); // "rot,slow", "all", "none", "seed"
// asked: a mask, or HAZARDS_BY_SEED. By seed `full` is left out where IOMs stop or die, or hazards may stop the array: with --hazards=full
// still fail crash-all 20072 (an append beyond its end) and restart 20007 (EIO of an fsync), and one stands for minutes from 20000 on.
uint32_t hazards_decide(uint64_t seed, uint32_t asked, bool iom_stops);

struct hazard_counts { uint64_t injected[HAZARDS], told_eio, told_nospc; };

struct hazards;
void hazards_to_array(uint32_t mask, struct array_options *a);
void hazards_to_work(uint32_t mask, const struct array_options *a, struct workload_options *w);
// After the array was made, before anything starts.
struct hazards *hazards_create(uint64_t seed, uint32_t mask, struct array *a, struct oracle *o);
void hazards_destroy(struct hazards *h);
// Which files are never cut, but for their removal: see row_repair_in_service.
void hazards_uncut(struct hazards *h, bool (*uncut)(void *ctx, struct handle f), void *ctx);
bool hazards_may_stop(const struct hazards *h); // the array may stop though no IOM failed

void hazards_begin(struct hazards *h);   // clients work from now on
void hazards_at_rest(struct hazards *h); // all IOMs are off, in the midst of a run
void hazards_end(struct hazards *h);     // what can be mended is mended; what is bad stays bad
void hazards_on_io(struct hazards *h, const struct world_io *io);
void hazards_before_audit(struct hazards *h);
void hazards_after_audit(struct hazards *h, const char *which); // every bad block has been named
struct hazard_counts hazards_counts(const struct hazards *h);

// May an operation on bytes [off, off + len) of a file (index 0: of which is not known), begun at since_ns, end with e? For struct workload_options.excuse.
bool hazards_excuse(void *ctx, err e, struct handle h, uint64_t off, uint64_t len, uint64_t since_ns);
// Is this sentence of an audit about a row with a block that was made bad? For struct array.known.
bool hazards_known(void *ctx, const char *sentence);
