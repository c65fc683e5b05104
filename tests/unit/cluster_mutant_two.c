// See cluster_mutant.h.
#define MENDFS_MUTANT_TWO_AT_ONCE
#include "cluster/map.c"
#include "cluster/paxos.c" // both in place of the library's
#include "cluster_mutant.h"

static const struct mutant_hunt hunt = {.first = 1000, .seeds = 400, .voters_change = true, .forks = true};
