// One run: a seed, the faults it may meet, and what came of it.
#pragma once
#include "base/common.h"
#include "sim/hazards.h"

enum run_faults { RUN_FAULTS_NONE, RUN_FAULTS_RESTART, RUN_FAULTS_CRASH_ALL, RUN_FAULTS_KILL_ALL, RUN_FAULTS_ONE };
bool run_faults_of(const char *name, enum run_faults *out);
const char *run_faults_name(enum run_faults f);
struct run_options {
    uint64_t seed;
    enum run_faults faults;
    uint8_t ioms; // 0: the seed decides
    uint32_t hazards; // a mask of enum hazard, or HAZARDS_BY_SEED
    bool power_lie; // the IOMs are told that the disks of their journals are power-protected, and they are not: what is lost is found
    bool trace, strict; // strict: a failure of one loses nothing that was acknowledged
};
struct run_result {
    bool failed;
    char why[512];
    uint64_t crashes, events, ops, uncertain_blocks, rolled_back, digest;
    struct hazard_counts hazards;
};
void sim_run(const struct run_options *o, struct run_result *r);
