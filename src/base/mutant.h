// Rules left out on purpose: tests have to find each of them (tests/sim/mutants.sh, `make test-mutants`). A rule that
// can be left out unnoticed is either not needed or not tested. Only builds with -DMENDFS_MUTANTS know any, and run one
// of them if the environment names it (sim/mutant.c); in all others mutant() is the constant false.
#pragma once
#include "base/common.h"

//   name      rule        what is left out
#define MUTANTS(X)                                                                                                     \
    X(I1, "I1", "a place is used again before the batch that freed it is durable")                                     \
    X(TORN, "I1", "replay takes a torn tail of the journal for its continuation")                                      \
    X(APART, "flush", "of journals on their own device: a batch is durable before the blocks written before it")               \
    X(I2, "I2", "D and P release the old place when their own part is hardened")                                       \
    X(I3, "I3", "fsync is answered when the parity is hardened")                                                       \
    X(I4, "I4", "P does not wait for its participants: the next version begins when P's own part is hardened")         \
    X(I5, "I5", "D writes its blocks twice")                                                                           \
    X(I6, "I6", "a block is reconstructed from the whole row, bystanders too")                                         \
    X(I8, "I8", "a freeze needs credit")                                                                               \
    X(I10, "I10", "a read shows what P does not hold yet")                                                             \
    X(MERGE, "I4", "a freeze that comes while a version is in flight counts as part of it")                            \
    X(A, "(a)", "only after (b)")                                                                                      \
    X(A_NEVER, "(a)", "left out")                                                                                      \
    X(B, "(b)", "left out: P keeps the old parity")                                                                    \
    X(B_BLIND, "(b)", "goes forward without looking for P's own block")                                                \
    X(B_TRUST, "(b)", "a participant's UPDATE is enough, whatever its block says")                                     \
    X(B_CHUNK, "(b)", "that a participant has completed does not count")                                               \
    X(B_TWO, "(b)", "goes forward with more than one without")                                                         \
    X(B_LACK, "(b)", "the one without is not given its block")                                                         \
    X(TAKE, "(b)", "a reconstructed block is named before it is on disk")                                              \
    X(C, "(c)", "left out: such updates are dropped")                                                                  \
    X(C_BARE, "(c)", "without an UPDATE of its own")                                                                   \
    X(C_BAD, "(c)", "takes what is not on disk")                                                                       \
    X(HELD, "stop", "keeps nothing of what P holds")                                                                   \
    X(SECOND, "stop", "keeps nothing of what lies over a version in flight")                                           \
    X(END, "ends", "blocks harden beyond the durable end")                                                             \
    X(CUT, "cuts", "what was said before a discard is taken after it")                                                 \
    X(GATHER, "gather", "members are asked for what P has by then, not for what the parity that it read includes")     \
    X(HOLD, "gather", "a row that goes on each time is gathered for ever")                                             \
    X(BELIEVE, "mend", "a rebuilt block is taken whatever its checksum says")                                          \
    X(PUTTING, "mend", "a mended CHUNK and a settled one are put at the same time")                                    \
    X(TWICE, "names", "a request that comes again is done again")                                                      \
    X(LOOK, "names", "who looks at a name does not wait for an intent that may be decided and holds it")               \
    X(EMPTY, "names", "a directory is removed without a look whether it is empty")                                     \
    X(EXPECT, "names", "a name is changed whatever it leads to by then")                                             \
    X(TWO_LOOKS, "names", "a rename that changes nothing is answered by two looks at two instants")

#define MUTANT_ENUM(name, rule, what) MUTANT_##name,
enum mutant { MUTANT_NONE, MUTANTS(MUTANT_ENUM) };
#ifdef MENDFS_MUTANTS
extern enum mutant mendfs_mutant;
static inline bool mutant(enum mutant m) {
    return mendfs_mutant == m;
}
#else
static inline bool mutant(enum mutant m) {
    return false;
}
#endif
