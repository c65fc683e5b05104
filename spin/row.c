// The model of the update protocol of one row, checked: row_model [OPTIONS]
//
//   --members N --writes N --failures N --breaks N --refusals N   the bounds (2, 3, 1, 0, 0)
//   --without RULE      leaves a rule out and expects a counterexample
//   --memory MIB --states N --seconds S                           limits
//   --rules             the rules and what they say
//
// Exit 0: it holds in all states within the bounds. 1: a counterexample was found, and told. 2: usage. 3: a limit was
// reached before all states were looked at.
#include "row.h"
#include <stdlib.h>

struct bounds bounds = {.members = 2, .writes = 3, .failures = 1};
enum rule left_out = RULES_COUNT;

static void row_first(void *state) {
    struct state *s = state;
    memset(s, 0, sizeof *s);
    s->writes_left = (uint8_t)bounds.writes;
    s->failures_left = (uint8_t)bounds.failures;
    s->breaks_left = (uint8_t)bounds.breaks;
    s->refusals_left = (uint8_t)bounds.refusals;
    s->head[0].block = BLOCK_GOOD;
    for (unsigned k = 0; k < bounds.members; k++) {
        s->m[k].d[0].block = BLOCK_GOOD;
        s->m[k].version = 0;
    }
}

static void row_next(const void *state, struct explorer *x) {
    const struct state *s = state;
    if (s->step != SERVICE) {
        recovery_steps(s, x);
        return;
    }
    service_steps(s, x);
    stop_steps(s, x);
}

// ---- what makes no difference ---------------------------------------------------------------------------------------

// Only which versions are equal and which is higher matters: the lowest of a member that anything still names becomes
// 0.
static void lower(uint8_t *v, uint8_t by) {
    *v = (uint8_t)(*v - by);
}

static uint8_t lowest_version(const struct state *s, const struct member *m) {
    uint8_t low = UINT8_MAX;
    for (unsigned i = 0; i <= m->images; i++) low = m->d[i].version < low ? m->d[i].version : low;
    for (unsigned i = 0; i <= s->p_images; i++) {
        low = m->p[i].version < low ? m->p[i].version : low;
        for (unsigned h = 0; h < 2; h++) // what came back is dropped late: it may be the lowest
            if (m->p[i].held[h].there && m->p[i].held[h].version < low) low = m->p[i].held[h].version;
    }
    return low & (uint8_t)~1;
}

static void lower_record(struct record *r, uint8_t by) {
    if (r->there) lower(&r->version, by);
}

static void lower_versions(const struct state *s, struct member *m, uint8_t by) {
    if (m->life == SERVES) lower(&m->version, by);
    for (unsigned i = 0; i <= m->images; i++) {
        lower(&m->d[i].version, by);
        lower_record(&m->d[i].update, by);
        lower_record(&m->d[i].second, by);
    }
    for (unsigned i = 0; i <= s->p_images; i++) {
        lower(&m->p[i].version, by);
        if (m->p[i].part) lower(&m->p[i].part_version, by);
        lower_record(&m->p[i].held[0], by);
        lower_record(&m->p[i].held[1], by);
    }
    if (m->open.there) lower(&m->open.version, by);
    if (m->frozen_acc.there) lower(&m->frozen_acc.version, by);
    if (m->told) lower(&m->told, by);
    if (m->last.kind) lower(&m->last.version, by);
    for (unsigned i = 0; i < m->outs; i++) lower(&m->out[i].version, by);
}

static int compare(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct member));
}

static void row_canonical(void *state) {
    struct state *s = state;
    for (unsigned k = 0; k < bounds.members; k++) {
        uint8_t by = lowest_version(s, &s->m[k]);
        if (by && holds(RULE_EPOCH) && holds(RULE_NUMBERS))
            lower_versions(s, &s->m[k], by); // left out, something old may still be about
    }
    qsort(s->m, bounds.members, sizeof s->m[0], compare); // the members are alike
}

static void print_step(FILE *to, unsigned what, unsigned who) {
#define NAME_OF(name, text) [name] = #name,
#define TEXT_OF(name, text) [name] = text,
    static const char *const names[] = {TRANSITIONS(NAME_OF) CHANCES(NAME_OF)}, *const texts[] = {TRANSITIONS(TEXT_OF)
                                                                                                      CHANCES(TEXT_OF)};
    bool subject = what <= D_SETTLE || what == STOP_HOLD || what == STOP_DOWN || what == CRASH;
    bool object = what == P_DELTA || what == P_REFUSE || what == P_FREEZE || what == P_TOLD_HARDENED ||
                  what == R_TAKE || what == BREAK;
    char member[16];
    snprintf(member, sizeof member, who == bounds.members ? "P" : "D%u", who);
    fprintf(to, "%-15s %s%s%s%s%s", names[what], subject ? member : "", subject ? " " : "", texts[what],
            object ? " " : "", object ? member : "");
}

// ---- the command ----------------------------------------------------------------------------------------------------

static const char *const rule_names[] = {
#define RULE_NAME(name, text) #name,
    RULES(RULE_NAME)};
static const char *const rule_texts[] = {
#define RULE_TEXT(name, text) text,
    RULES(RULE_TEXT)};

static int usage(const char *what, const char *arg) {
    fprintf(stderr, "row_model: %s %s; see the head of spin/row.c\n", what, arg);
    return 2;
}

static bool rule_named(const char *name) {
    for (unsigned i = 0; i < RULES_COUNT; i++)
        if (!strcmp(name, rule_names[i])) left_out = (enum rule)i;
    return left_out != RULES_COUNT;
}

static unsigned number(const char *text, unsigned max) {
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    return *end || v > max ? UINT32_MAX : (unsigned)v;
}

static int check(const struct explore_limits *limits) {
    static const struct explore_model m = {0,         row_first,   row_next,  row_canonical,
                                           row_fault, row_may_end, row_print, print_step};
    struct explore_model model = m;
    model.state_bytes = offsetof(struct state, m) + bounds.members * sizeof(struct member);
    struct explore_result r = explore(&model, limits, stdout);
    printf("%u members, %u writes, %u failures, %u breaks, %u refusals%s%s: ", bounds.members, bounds.writes,
           bounds.failures, bounds.breaks, bounds.refusals, left_out == RULES_COUNT ? "" : ", without ",
           left_out == RULES_COUNT ? "" : rule_names[left_out]);
    if (r.verdict == EXPLORE_HOLDS)
        printf("holds, %llu states, %llu steps, depth %u\n", (unsigned long long)r.states, (unsigned long long)r.steps,
               r.depth);
    else if (r.verdict == EXPLORE_TOO_BIG)
        printf("not ended: %llu states to depth %u, no fault among them\n", (unsigned long long)r.states, r.depth);
    else
        printf("counterexample of %u steps (%llu states): %s\n", r.depth, (unsigned long long)r.states, r.fault);
    return r.verdict == EXPLORE_HOLDS ? 0 : r.verdict == EXPLORE_TOO_BIG ? 3 : 1;
}

int main(int argc, char **argv) {
    unsigned memory_mib = 1000, states = 0, seconds = 0;
    struct {
        const char *name;
        unsigned *to, max;
    } options[] = {
        {"--members", &bounds.members, MEMBERS_MAX}, {"--writes", &bounds.writes, 6},
        {"--failures", &bounds.failures, 9},         {"--breaks", &bounds.breaks, 9},
        {"--refusals", &bounds.refusals, 9},         {"--memory", &memory_mib, 64000},
        {"--states", &states, UINT32_MAX - 1},       {"--seconds", &seconds, 86400},
    };
    for (int i = 1; i < argc; i++) {
        unsigned known = sizeof options / sizeof options[0];
        if (!strcmp(argv[i], "--rules")) {
            for (unsigned r = 0; r < RULES_COUNT; r++) printf("%-12s %s\n", rule_names[r], rule_texts[r]);
            return 0;
        }
        if (i + 1 == argc) return usage("no value, or no such option:", argv[i]);
        if (!strcmp(argv[i], "--without")) {
            if (!rule_named(argv[++i])) return usage("no such rule:", argv[i]);
            continue;
        }
        for (unsigned o = 0; o < known; o++)
            if (!strcmp(argv[i], options[o].name) &&
                (*options[o].to = number(argv[i + 1], options[o].max)) != UINT32_MAX)
                known = 0;
        if (known) return usage("no such option, or not with this value:", argv[i]);
        i++;
    }
    if (!bounds.members) return usage("there must be", "a member");
    return check(&(struct explore_limits){(uint64_t)memory_mib << 20, states, seconds});
}
