// Explores all states of a small model, breadth first: the first fault found is one of the shortest ways to it.
//
// A state is a run of bytes without padding. A model gives the first state and, for each, all next ones. Of a visited
// state only a fingerprint of 64 bits and the number of the state before it are kept (about 20 bytes); the states of
// the level that is being looked at lie in a file. Two states with one fingerprint would be taken for one: with 10^8
// states the chance that this happened at all is below 0.1 %.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPLORE_STATE_MAX 1024

struct explorer;
struct explore_model {
    size_t state_bytes;
    void (*first)(void *state);
    void (*next)(const void *state, struct explorer *x); // explore_step for each
    void (*canonical)(void *state);                      // of states that differ by a symmetry only: one
    const char *(*fault)(const void *state);             // what is wrong with it, NULL: nothing
    bool (*may_end)(const void *state);                  // no step leads on: is that right?
    void (*print)(const void *state, FILE *to);          // one line
    void (*print_step)(FILE *to, unsigned what, unsigned who);
};
// what, who: for print_step. chance: a step that nobody has to make (a fault, a request): where only such lead on the
// model rests.
void explore_step(struct explorer *x, const void *to, unsigned what, unsigned who, bool chance);

enum explore_verdict { EXPLORE_HOLDS, EXPLORE_FAULT, EXPLORE_STUCK, EXPLORE_TOO_BIG };
struct explore_result {
    enum explore_verdict verdict;
    uint64_t states, steps; // looked at; made
    uint32_t depth;         // of the deepest, or the length of the counterexample
    const char *fault;
};
struct explore_limits {
    uint64_t memory_bytes, states; // 0: none
    uint32_t seconds;
};
// trace: where to tell a counterexample, NULL: nowhere
struct explore_result explore(const struct explore_model *m, const struct explore_limits *limits, FILE *trace);
