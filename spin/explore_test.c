// Is the explorer right? Puzzles whose answers are known: number of states, length of the shortest way, what is stuck.
#include "explore.h"
#include <stdlib.h>
#include <string.h>

static unsigned failed;
static void expect(const char *what, uint64_t is, uint64_t should) {
    if (is == should) return;
    printf("%s: %llu, should be %llu\n", what, (unsigned long long)is, (unsigned long long)should);
    failed++;
}
static void as_it_is(void *state) {
    (void)state;
}
static const char *no_fault(const void *state) {
    return (void)state, NULL;
}
static bool anywhere(const void *state) {
    return (void)state, true;
}
static void print_bytes(const void *state, FILE *to) {
    fprintf(to, "%02x\n", *(const uint8_t *)state);
}
static void print_step(FILE *to, unsigned what, unsigned who) {
    fprintf(to, "step %u %u", what, who);
}

// ---- wolf, goat, cabbage: 7 crossings, no fewer
// ------------------------------------------------------------------------

enum { FARMER = 1, WOLF = 2, GOAT = 4, CABBAGE = 8, ALL = 15 };
static bool eaten(uint8_t there) { // on the bank where the farmer is not
    uint8_t alone = there & FARMER ? (uint8_t)(ALL & ~there) : there;
    return (alone & GOAT) && (alone & (WOLF | CABBAGE));
}
static void river_first(void *state) {
    *(uint8_t *)state = 0;
}
static void river_next(const void *state, struct explorer *x) {
    uint8_t there = *(const uint8_t *)state;
    for (unsigned with = 1; with <= CABBAGE; with *= 2) { // with the farmer alone, or with one who is on his bank
        if (!(there & with) != !(there & FARMER)) continue;
        uint8_t to = there ^ (uint8_t)(FARMER | with);
        if (!eaten(to)) explore_step(x, &to, 1, with, false);
    }
}
static const char *river_over(const void *state) {
    return *(const uint8_t *)state == ALL ? "all are over" : NULL;
}

static void test_river(void) {
    struct explore_model m = {1, river_first, river_next, as_it_is, river_over, anywhere, print_bytes, print_step};
    char *told = NULL;
    size_t len = 0;
    FILE *trace = open_memstream(&told, &len);
    struct explore_result r = explore(&m, &(struct explore_limits){0}, trace);
    fclose(trace);
    unsigned lines = 0;
    for (const char *p = told; (p = strstr(p, "step")); p++) lines++;
    expect("river: found", r.verdict, EXPLORE_FAULT);
    expect("river: crossings", r.depth, 7);
    expect("river: steps told", lines, 7);
    expect("river: the last state told is the end", strcmp(told + len - 3, "0f\n") == 0, 1);
    free(told);
    m.fault = no_fault;
    r = explore(&m, &(struct explore_limits){0}, NULL);
    expect("river: states", r.states, 10);
}

// ---- counters: how many states, with and without symmetry; growing; limits
// ----------------------------------------------

#define COUNTERS 3
static unsigned top;
static void count_first(void *state) {
    memset(state, 0, COUNTERS);
}
static void count_next(const void *state, struct explorer *x) {
    for (unsigned i = 0; i < COUNTERS; i++) {
        uint8_t c[COUNTERS];
        memcpy(c, state, COUNTERS);
        if (++c[i] <= top) explore_step(x, c, 0, i, false);
    }
}
static int by_size(const void *a, const void *b) {
    return *(const uint8_t *)a - *(const uint8_t *)b;
}
static void count_sorted(void *state) {
    qsort(state, COUNTERS, 1, by_size);
}

static void test_counters(void) {
    struct explore_model m = {COUNTERS, count_first, count_next, as_it_is, no_fault, anywhere, print_bytes, print_step};
    top = 99;
    struct explore_result r = explore(&m, &(struct explore_limits){0}, NULL);
    expect("counters: all", r.verdict, EXPLORE_HOLDS);
    expect("counters: states", r.states, 1000000);
    expect("counters: steps", r.steps, 3 * 990000);
    expect("counters: depth", r.depth, 3 * 99);
    m.canonical = count_sorted;
    r = explore(&m, &(struct explore_limits){0}, NULL);
    expect("counters: states but for symmetry", r.states, 102 * 101 * 100 / 6);
    m.canonical = as_it_is;
    expect("counters: a limit of states", explore(&m, &(struct explore_limits){.states = 5000}, NULL).verdict,
           EXPLORE_TOO_BIG);
    expect("counters: a limit of memory", explore(&m, &(struct explore_limits){.memory_bytes = 4 << 20}, NULL).verdict,
           EXPLORE_TOO_BIG);
}

// ---- three philosophers: stuck when each has taken one fork, after three steps
// ---------------------------------------------

#define SEATS 3
static void table_first(void *state) {
    memset(state, 0, 2 * SEATS);
} // forks taken; forks that each has
static void table_next(const void *state, struct explorer *x) {
    for (unsigned i = 0; i < SEATS; i++) {
        uint8_t t[2 * SEATS], *has = t + SEATS;
        memcpy(t, state, sizeof t);
        if (has[i] == 2) {
            has[i] = t[i] = t[(i + 1) % SEATS] = 0;
        } else {
            uint8_t *fork = &t[(i + has[i]) % SEATS];
            if (*fork) continue;
            *fork = 1;
            has[i]++;
        }
        explore_step(x, t, 0, i, false);
    }
}
static bool never(const void *state) {
    return (void)state, false;
}

static void test_table(void) {
    struct explore_model m = {2 * SEATS, table_first, table_next, as_it_is, no_fault, never, print_bytes, print_step};
    struct explore_result r = explore(&m, &(struct explore_limits){0}, NULL);
    expect("table: stuck", r.verdict, EXPLORE_STUCK);
    expect("table: after", r.depth, SEATS);
}

// Where only chances lead on, and it may not end there, it is stuck too.
static void chance_first(void *state) {
    *(uint8_t *)state = 0;
}
static void chance_next(const void *state, struct explorer *x) {
    uint8_t to = *(const uint8_t *)state + 1;
    if (to < 5) explore_step(x, &to, 0, 0, to > 3);
}
static bool at_end(const void *state) {
    return *(const uint8_t *)state == 4;
}
static void test_chance(void) {
    struct explore_model m = {1, chance_first, chance_next, as_it_is, no_fault, at_end, print_bytes, print_step};
    struct explore_result r = explore(&m, &(struct explore_limits){0}, NULL);
    expect("chance: stuck", r.verdict, EXPLORE_STUCK);
    expect("chance: after", r.depth, 3);
}

int main(void) {
    test_river();
    test_counters();
    test_table();
    test_chance();
    printf(failed ? "the explorer is wrong in %u things\n" : "the explorer is right\n", failed);
    return failed != 0;
}
