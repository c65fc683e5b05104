// What a run is made of, in numbers. The seed decides all of them (params_decide); --set NAME=VALUE,... decides some
// otherwise, and leaves the others as they were. So a run that was made smaller (sim/shrink.h) is a command line.
//
// `plain` is the value with which a parameter has no part in what happens, or the least: shrinking goes there.
#pragma once
#include "sim/array.h"
#include "sim/run.h"
#include "sim/workload.h"

// In the order in which shrinking leaves them out.
//    name          least  most        plain  what
#define RUN_PARAMS(X)                                                                                                  \
    X(dice,         0,     UINT32_MAX, 0,     "another course of the same run")                                        \
    X(rounds,       0,     100,        0,     "faults, one after the other")                                           \
    X(cut_in,       0,     100000,     0,     "the first comes at this I/O; 0: at one by chance")                      \
    X(again,        0,     100,        0,     "at most so many in the recovery from one")                              \
    X(mx_deaths,    0,     100,        0,     "")                                                                      \
    X(idle,         0,     UINT32_MAX, 0,     "bit n: client n is there and does nothing")                             \
    X(writers,      0,     16,         0,     "clients, each kind: sim/workload.h")                                    \
    X(namers,       0,     16,         0,     "")                                                                      \
    X(passers,      0,     8,          0,     "pairs")                                                                 \
    X(loggers,      0,     16,         0,     "")                                                                      \
    X(brawlers,     0,     16,         0,     "")                                                                      \
    X(rivals,       0,     8,          0,     "")                                                                      \
    X(mxs,          1,     4,          1,     "MX nodes")                                                              \
    X(ops,          1,     10000,      1,     "of each client")                                                        \
    X(blocks,       2,     512,        2,     "of a shared file")                                                      \
    X(policies,     0,     1,          0,     "folders have policies")                                                 \
    X(syncs,        0,     1,          0,     "writes with O_SYNC, the toughness of files changes")                    \
    X(apart,        0,     1,          0,     "journals on disks of their own")                                        \
    X(protects,     0,     3,          0,     "power-protected: 1 journals, 2 stores, 3 both")                         \
    X(reset_ppm,    0,     100000,     0,     "of all messages: their connection breaks")                              \
    X(spike_ppm,    0,     1000000,    0,     "of all disk I/Os: they take 20 ms more")                                \
    X(hosts,        0,     99999999,   0,     "digit n from the right: the host of IOM n; 0: all on one")              \
    X(ioms,         1,     8,          3,     "IOMs")                                                                  \
    X(journal_kib,  1024,  8192,       4096,  "of each IOM")                                                           \
    X(meta_kib,     1024,  65536,      4096,  "of the store's cache")                                                  \
    X(cache_kib,    1024,  65536,      8192,  "of the rows' cache")                                                    \
    X(credit_kib,   128,   65536,      4096,  "that each D may have at a P")                                           \
    X(age_ms,       1,     10000,      5,     "after which a write hardens by itself")

#define RUN_PARAM_FIELD(name, least, most, plain, what) uint64_t name;
struct run_params { RUN_PARAMS(RUN_PARAM_FIELD) };

#define RUN_PARAM_ENUM(name, least, most, plain, what) PARAM_##name,
enum run_param { RUN_PARAMS(RUN_PARAM_ENUM) PARAMS };
struct run_param_info {
    const char *name;
    uint64_t least, most, plain;
    const char *what;
};
extern const struct run_param_info run_param_info[PARAMS];
uint64_t *run_param(struct run_params *p, enum run_param n);

struct world;
// The first random numbers of a world with this seed are its parameters; then --set, and the dice.
void params_decide(struct world *w, const struct run_options *o, struct run_params *p);
void params_of_seed(const struct run_options *o, struct run_params *p); // the same, without a run
bool params_possible(const struct run_params *p);                       // together: workload_create takes no more clients

bool param_words_read(struct param_words *to, const char *s);           // "ops=12,writers=2"; false: what is that?
void param_words_write(const struct param_words *w, char *out, size_t cap);

void params_to_world(const struct run_params *p, struct world_options *x);
void params_to_array(const struct run_params *p, bool lies, struct array_options *a);
void params_to_work(const struct run_params *p, struct workload_options *w);
