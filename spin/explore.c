// The explorer: a table of fingerprints, and two files for the states of this level and of the next.
#include "explore.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NO_STATE UINT32_MAX

struct explorer {
    const struct explore_model *m;
    // all states, in the order in which they were found; and a hash table of their numbers
    uint64_t *print;
    uint32_t *before, *slot;
    uint64_t len, cap, slots;
    FILE *next_level;
    uint64_t steps;
    uint32_t from;   // whose next states are being made
    unsigned onward; // of its steps those that are no chance
    bool full;
    // following a trace: the step to `wanted` is looked for
    bool follows;
    uint64_t wanted;
    bool met;
    unsigned what, who;
    uint8_t reached[EXPLORE_STATE_MAX];
};

static void die(const char *what) {
    perror(what);
    exit(2);
}

// ---- fingerprints ---------------------------------------------------------------------------------------------------

static uint64_t mix(uint64_t h) {
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9u;
    h = (h ^ h >> 27) * 0x94D049BB133111EBu;
    return h ^ h >> 31;
}

static uint64_t fingerprint(const uint8_t *p, size_t len) {
    uint64_t h = 0x9E3779B97F4A7C15u;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        h = mix(h ^ v) + 0x9E3779B97F4A7C15u;
    }
    uint64_t v = 0;
    memcpy(&v, p, len);
    return mix(h ^ v);
}

static uint64_t place_of(const struct explorer *x, uint64_t print) {
    uint64_t at = print & (x->slots - 1);
    while (x->slot[at] != NO_STATE && x->print[x->slot[at]] != print) at = (at + 1) & (x->slots - 1);
    return at;
}

static bool grow(struct explorer *x, const struct explore_limits *limits) {
    uint64_t cap = x->cap ? 2 * x->cap : 1 << 16;
    uint64_t bytes = cap * (sizeof *x->print + sizeof *x->before + 2 * sizeof *x->slot);
    if (limits->memory_bytes && bytes > limits->memory_bytes) return false;
    free(x->slot);
    x->print = realloc(x->print, cap * sizeof *x->print);
    x->before = realloc(x->before, cap * sizeof *x->before);
    x->slot = malloc(2 * cap * sizeof *x->slot);
    if (!x->print || !x->before || !x->slot) die("explore: memory");
    x->cap = cap;
    x->slots = 2 * cap;
    memset(x->slot, 0xff, x->slots * sizeof *x->slot);
    for (uint64_t i = 0; i < x->len; i++) x->slot[place_of(x, x->print[i])] = (uint32_t)i;
    return true;
}

static void add(struct explorer *x, const uint8_t *state, uint64_t print) {
    uint64_t at = place_of(x, print);
    if (x->slot[at] != NO_STATE) return;
    if (x->len == x->cap || x->len == NO_STATE) {
        x->full = true;
        return;
    }
    x->print[x->len] = print;
    x->before[x->len] = x->from;
    x->slot[at] = (uint32_t)x->len++;
    if (fwrite(state, x->m->state_bytes, 1, x->next_level) != 1) die("explore: the level's file");
}

void explore_step(struct explorer *x, const void *to, unsigned what, unsigned who, bool chance) {
    uint8_t state[EXPLORE_STATE_MAX];
    memcpy(state, to, x->m->state_bytes);
    x->m->canonical(state);
    uint64_t print = fingerprint(state, x->m->state_bytes);
    if (x->follows) {
        if (x->met || print != x->wanted) return;
        x->met = true;
        x->what = what;
        x->who = who;
        memcpy(x->reached, to, x->m->state_bytes); // as it is: the names in a trace do not change places
        return;
    }
    x->steps++;
    x->onward += !chance;
    add(x, state, print);
}

// ---- a counterexample -----------------------------------------------------------------------------------------------

static void tell(struct explorer *x, uint32_t last, uint32_t depth, FILE *to) {
    uint64_t *way = malloc((depth + 1) * sizeof *way);
    if (!way) die("explore: memory");
    for (uint32_t i = depth, at = last; i > 0; i--, at = x->before[at]) way[i] = x->print[at];
    uint8_t state[EXPLORE_STATE_MAX] = {0};
    x->m->first(state);
    x->follows = true;
    for (uint32_t i = 1; i <= depth; i++) {
        x->wanted = way[i];
        x->met = false;
        x->m->next(state, x);
        if (!x->met) break;
        memcpy(state, x->reached, sizeof state);
        fprintf(to, "%4u  ", i);
        x->m->print_step(to, x->what, x->who);
        fprintf(to, "\n          ");
        x->m->print(state, to);
    }
    free(way);
}

// ---- the search -----------------------------------------------------------------------------------------------------

static bool out_of_time(const struct explore_limits *l, time_t began) {
    return l->seconds && time(NULL) - began >= (time_t)l->seconds;
}

// One level: all states of the file. True: nothing was found, look on.
static bool look(struct explorer *x, FILE *level, uint64_t count, uint32_t number, const struct explore_limits *limits,
                 time_t began, struct explore_result *r) {
    uint8_t state[EXPLORE_STATE_MAX];
    for (uint64_t i = 0; i < count; i++) {
        if (fread(state, x->m->state_bytes, 1, level) != 1) die("explore: the level's file");
        x->from = number + (uint32_t)i;
        r->fault = x->m->fault(state);
        if (r->fault) {
            r->verdict = EXPLORE_FAULT;
            return false;
        }
        x->onward = 0;
        x->m->next(state, x);
        if (!x->onward && !x->m->may_end(state)) {
            r->fault = "nothing leads on, but not all is done";
            r->verdict = EXPLORE_STUCK;
            return false;
        }
        bool room = x->cap - x->len > 4096 || grow(x, limits);
        if (x->full || (!room && x->len == x->cap) || (limits->states && x->len > limits->states) ||
            (i % 1024 == 0 && out_of_time(limits, began))) {
            r->verdict = EXPLORE_TOO_BIG;
            return false;
        }
    }
    return true;
}

struct explore_result explore(const struct explore_model *m, const struct explore_limits *limits, FILE *trace) {
    struct explorer x = {.m = m, .from = NO_STATE};
    struct explore_result r = {EXPLORE_HOLDS, 0, 0, 0, NULL};
    time_t began = time(NULL);
    uint8_t state[EXPLORE_STATE_MAX] = {0};
    FILE *level = tmpfile();
    x.next_level = tmpfile();
    if (!level || !x.next_level) die("explore: a file for a level");
    if (!grow(&x, limits)) die("explore: more memory is needed");
    m->first(state);
    m->canonical(state);
    add(&x, state, fingerprint(state, m->state_bytes));
    for (uint64_t from = 0; from < x.len; r.depth++) {
        FILE *done = level;
        level = x.next_level;
        x.next_level = done;
        rewind(level);
        rewind(x.next_level);
        uint64_t count = x.len - from;
        if (!look(&x, level, count, (uint32_t)from, limits, began, &r)) break;
        from += count;
        if (from == x.len) break;
    }
    r.states = x.len;
    r.steps = x.steps;
    if (trace && (r.verdict == EXPLORE_FAULT || r.verdict == EXPLORE_STUCK)) tell(&x, x.from, r.depth, trace);
    fclose(level);
    fclose(x.next_level);
    free(x.print);
    free(x.before);
    free(x.slot);
    return r;
}
