// From a run that fails to a small one that fails as it does; see shrink.c.
#pragma once
#include "sim/params.h"

struct shrink_limits {
    uint64_t seconds, tries;    // no new try begins after either
    uint32_t candidate_seconds; // of one try; 0: by the time that the first run took
    bool quiet;                 // nothing on stdout
};
struct shrunk {
    struct param_words set; // what --set is to say
    struct run_result first, last;
    char failure[256];         // what kind of failure it is, the same of both; empty: the run does not fail
    uint64_t tries, otherwise; // otherwise: of the tries, those that failed in another way
};
// `run` is sim_run, but for tests.
void shrink(const struct run_options *o, void (*run)(const struct run_options *o, struct run_result *r),
            const struct shrink_limits *limits, struct shrunk *out);
int shrink_main(const struct run_options *o, uint64_t seconds, uint64_t tries); // the exit status: 1 if the run fails

// What an oracle said, without what differs from run to run: numbers, and words with numbers in them.
void failure_kind(const char *why, char *out, size_t cap);
