// The clients of a simulated array: tasks on MX nodes that do random things and tell the oracle.
#pragma once
#include "sim/array.h"
#include "sim/oracle.h"

struct workload;
struct workload_options {
    uint32_t mxs;      // MX nodes
    uint32_t writers;  // tasks on files, two of which share each file (own blocks each)
    uint32_t namers;   // tasks on names, each in a directory of its own
    uint32_t passers;  // pairs of tasks, each pair with one file: one works on it and closes it, then the other opens it
    uint32_t loggers;  // tasks that append to one file
    uint32_t brawlers; // tasks that write, cut, rename and remove the same files at once
    uint32_t rivals;   // tasks on the same names at once, of whom it is asked that there is one order of all that they see
    uint32_t fillers;  // tasks that fill the stores, and make room again
    uint32_t ops;      // of each task
    uint32_t blocks;   // of a shared file
    bool protected_only; // no folder without protection
    uint32_t idle;     // bit n: client n is there and does nothing
    bool policies;     // folders have protection, quantum, span and toughness by chance
    bool syncs;        // some writes with O_SYNC; the toughness of files changes
    bool late;         // disks, links and clocks are such that a request may be answered long after it was made
    // Errors that an operation on [off, off + len) of a file (no file: of names), begun at since_ns, may end with; NULL: none. See hazards.h.
    bool (*excuse)(void *ctx, err e, struct handle h, uint64_t off, uint64_t len, uint64_t since_ns);
    void *excuse_ctx;
};
struct workload *workload_create(struct array *a, struct oracle *o, const struct workload_options *w);
void workload_start(struct workload *w);         // the MX nodes and their tasks
bool workload_prepared(const struct workload *w); // what the run begins with is made, and on disk
bool workload_done(const struct workload *w);    // every task did its ops
void workload_check(struct workload *w);         // starts the last look: every file and every directory, read whole
bool workload_checked(const struct workload *w);
void workload_destroy(struct workload *w);
uint64_t workload_progress(const struct workload *w); // operations done: for "does it still move?"
bool workload_uncut(void *w, struct handle h);   // a file that nobody truncates
void workload_dump(const struct workload *w);    // on stderr: what each task is doing

// An MX dies with all its clients in the midst of what they do; its successor is another session, and its clients go on.
uint32_t workload_mxs(const struct workload *w);
void workload_mx_dies(struct workload *w, uint32_t mx);       // nothing if it is dead
void workload_mx_comes_back(struct workload *w, uint32_t mx); // nothing if it lives
