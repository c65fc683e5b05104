// One run: a seed, the faults it may meet, and what came of it.
#pragma once
#include "base/common.h"
#include "sim/hazards.h"

enum run_faults { RUN_FAULTS_NONE, RUN_FAULTS_RESTART, RUN_FAULTS_CRASH_ALL, RUN_FAULTS_KILL_ALL, RUN_FAULTS_ONE, RUN_FAULTS_AWAY, RUN_FAULTS_ANY, RUN_FAULTS_HOST };
bool run_faults_of(const char *name, enum run_faults *out);
const char *run_faults_name(enum run_faults f);
// What --set decides otherwise than the seed: bit n of given, value[n], of the n-th of RUN_PARAMS (sim/params.h).
#define PARAM_WORDS_MAX 40
struct param_words {
    uint64_t given, value[PARAM_WORDS_MAX];
};
struct run_options {
    uint64_t seed;
    enum run_faults faults;
    uint8_t ioms; // 0: the seed decides
    uint32_t hazards; // a mask of enum hazard, or HAZARDS_BY_SEED
    bool power_lie; // the IOMs are told that the disks of their journals are power-protected, and they are not: what is lost is found
    struct param_words set;
    bool trace, strict; // strict: a failure of one loses nothing that was acknowledged
};
struct run_result {
    bool failed;
    char why[512];
    uint64_t crashes, events, ops, first_cut, uncertain_blocks, rolled_back, digest; // first_cut: the I/O at which the first fault was planned
    struct hazard_counts hazards;
};
// The events, crashes and operations in *r are kept while it runs: of a run that dies they say how far it came.
void sim_run(const struct run_options *o, struct run_result *r);
