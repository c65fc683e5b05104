// See cluster_mutant.h.
#define MENDFS_MUTANT_NO_NEW_BEGINNING
#include "cluster/paxos.c" // in place of the library's
#include "cluster_mutant.h"

static const struct mutant_hunt hunt = {.first = 1000, .seeds = 400, .voters_change = true};
