// See cluster_mutant.h.
#define MENDFS_MUTANT_PROMISE_NOT_FLUSHED
#include "cluster/paxos.c" // in place of the library's
#include "cluster_mutant.h"

static const struct mutant_hunt hunt = {.first = 0, .seeds = 1500};
