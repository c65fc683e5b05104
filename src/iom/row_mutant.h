// Rules left out on purpose, one a build (-DMENDFS_MUTANT=MUTANT_...): the simulator has to find each of them (tests/sim/mutants.sh). A rule that can
// be left out unnoticed is either not needed or not tested.
#pragma once
#include "base/common.h"

enum row_mutant {
    MUTANT_NONE,
    MUTANT_I2,        // D and P release the old place when their own part is hardened
    MUTANT_I3,        // fsync is answered when the parity is hardened
    MUTANT_I4,        // P does not wait for its participants: the version is over, and the next begins, when P's own part is hardened
    MUTANT_I10,       // a read shows what P does not hold yet
    MUTANT_MERGE,     // a freeze that comes while a version is in flight counts as part of it
    MUTANT_A,         // (a) only after (b)
    MUTANT_A_NEVER,   // (a) left out
    MUTANT_B,         // (b) left out: P keeps the old parity
    MUTANT_B_BLIND,   // (b) goes forward without looking for P's own block
    MUTANT_B_TWO,     // (b) goes forward with more than one without
    MUTANT_C,         // (c) left out: such updates are dropped
    MUTANT_C_BARE,    // (c) without an UPDATE of its own
    MUTANT_C_BAD,     // (c) takes what is not on disk
    MUTANT_TAKE,      // a reconstructed block is named before it is on disk
    MUTANT_HELD,      // the stop keeps nothing of what P holds
    MUTANT_SECOND,    // the stop keeps nothing of what lies over a version in flight
    MUTANT_END,       // blocks harden beyond the durable end
    MUTANT_CUT,       // what was said before a discard is taken after it
};
#ifndef MENDFS_MUTANT
#define MENDFS_MUTANT MUTANT_NONE
#endif
static inline bool mutant(enum row_mutant m) { return MENDFS_MUTANT == m; }
