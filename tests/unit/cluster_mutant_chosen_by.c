// See cluster_mutant.h.
#define MENDFS_MUTANT_CHOSEN_BY_NEW
#include "cluster/paxos.c" // in place of the library's
#include "cluster_mutant.h"

static const struct mutant_hunt hunt = {.first = 1000, .seeds = 1500, .voters_change = true};
