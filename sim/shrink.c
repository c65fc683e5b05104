// Shrinking: from a run that fails to the smallest that still fails as it did.
//
//     the run's parameters ──> pass: each parameter a step toward its plain value, the far steps first ──> done
//              ^                  a candidate that fails likewise and weighs less is the run from then on
//              └── as long as one of the last two passes made it lighter ──┘
//
// A changed parameter gives another run from its first event on, so a candidate that could fail often does not: each is
// tried with several *dice*, which are other courses of the same parameters (params.h).
//
// A run *weighs* what was asked for: the operations of clients that act, and something for each parameter that is not
// plain. Of what weighs the same the one with clearly fewer events is smaller (an earlier power cut, a luckier course).
// None is longer than the first, in events.
//
// Failures are of one *kind* if they say the same but for numbers; an ASSERT tells its place, a signal its number, and
// who stands still in real time was killed by its alarm. So that a candidate may die of anything, it runs in a child.
#include "sim/shrink.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DICE 4u // courses tried of a candidate
#define BARREN_PASSES 2u
#define NEAR 32u
#define FIRST_SECONDS 300u  // of the run as it came
#define LEAST_SECONDS 5u    // of a candidate, and four times what the first run took
#define STDERR_BYTES 65536u // looked at
#define WEIGHT_OF_ONE 32u   // of a parameter that is not plain
#define WEIGHT_OF_FAULT 8u
#define WEIGHT_OF_CLIENT 8u

struct tried {
    struct run_result r;
    char failure[256]; // empty: it did not fail
};
struct descent {
    const struct run_options *o;
    void (*run)(const struct run_options *o, struct run_result *r);
    const struct shrink_limits *limits;
    uint64_t end_wall_s, dice;
    unsigned seconds;        // of a candidate
    struct run_params seeds; // what the seed alone decides
    struct run_params best;
    struct run_result *result; // shared with children
    struct shrunk *out;
};

static uint64_t wall_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

// ---- kinds of failures
void failure_kind(const char *why, char *out, size_t cap) {
    size_t n = 0;
    while (*why && n + 1 < cap) {
        size_t len = 0;
        bool number = false;
        for (; isalnum((unsigned char)why[len]); len++) number |= isdigit((unsigned char)why[len]) != 0;
        if (len == 0) len = 1; // between words
        for (size_t i = 0; i < (number ? 1 : len) && n + 1 < cap; i++) out[n++] = number ? '#' : why[i];
        why += len;
    }
    out[n] = 0;
}

// What it said on stderr, if that says what it died of.
static bool last_words(int fd, char *out, size_t cap) {
    static const char *const says[] = {"assertion failed", "Sanitizer: ", "runtime error: "};
    static char text[STDERR_BYTES + 1];
    ssize_t len = pread(fd, text, STDERR_BYTES, 0);
    char *save = NULL;
    text[MAX(len, 0)] = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        for (uint32_t i = 0; i < ARRAY_LEN(says); i++) {
            if (!strstr(line, says[i])) continue;
            if (i == 0)
                snprintf(out, cap, "%s", line); // with its place
            else
                failure_kind(strstr(line, says[i]), out, cap);
            return true;
        }
    return false;
}

static void failure_of(int status, int told, struct tried *t) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        if (t->r.failed) failure_kind(t->r.why, t->failure, sizeof t->failure);
        if (t->r.failed && !t->failure[0]) snprintf(t->failure, sizeof t->failure, "says nothing");
        return;
    }
    t->r.failed = true;
    if (!last_words(told, t->failure, sizeof t->failure)) {
        if (WIFEXITED(status))
            snprintf(t->failure, sizeof t->failure, "ends with status %d", WEXITSTATUS(status));
        else if (WTERMSIG(status) == SIGALRM)
            snprintf(t->failure, sizeof t->failure, "stands still");
        else
            snprintf(t->failure, sizeof t->failure, "dies of signal %d", WTERMSIG(status));
    }
    snprintf(t->r.why, sizeof t->r.why, "%s", t->failure);
}

// ---- one run, in a child
static _Noreturn void child(struct descent *d, const struct run_options *o, unsigned seconds, int told) {
    static const int fatal[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGALRM}; // test runners catch some
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (uint32_t i = 0; i < ARRAY_LEN(fatal); i++) signal(fatal[i], SIG_DFL);
    dup2(told, STDERR_FILENO);
    alarm(seconds);
    d->run(o, d->result);
    _exit(0);
}

static void run_alone(struct descent *d, const struct param_words *set, unsigned seconds, struct tried *t) {
    struct run_options o = *d->o;
    int status, told = memfd_create("stderr of a run", MFD_CLOEXEC);
    o.set = *set;
    o.trace = false;
    *d->result = (struct run_result){0};
    fflush(stdout);
    pid_t pid = fork();
    ASSERT(told >= 0 && pid >= 0);
    if (pid == 0) child(d, &o, seconds, told);
    ASSERT(waitpid(pid, &status, 0) == pid);
    *t = (struct tried){.r = *d->result};
    failure_of(status, told, t);
    close(told);
}

// ---- what is smaller
static uint64_t clients_of(const struct run_params *p) {
    return p->writers + p->namers + 2 * p->passers + p->loggers + p->brawlers + p->rivals;
}

static uint64_t everybody(const struct run_params *p) {
    return (1ull << clients_of(p)) - 1;
}

static uint64_t weight(struct run_params p) {
    uint64_t w = 0, clients = clients_of(&p), idle = (uint64_t)__builtin_popcountll(p.idle & everybody(&p));
    for (enum run_param n = 0; n < PARAMS; n++) {
        uint64_t v = *run_param(&p, n), plain = run_param_info[n].plain, far = v > plain ? v - plain : plain - v;
        if (n == PARAM_dice || n == PARAM_idle || n == PARAM_cut_in || far == 0) continue; // how it comes about
        w += WEIGHT_OF_ONE + 64 - (uint64_t)__builtin_clzll(far);
    }
    return w + (clients - idle) * p.ops + p.ops + p.blocks + WEIGHT_OF_CLIENT * clients +
           WEIGHT_OF_FAULT * (p.rounds + p.again + p.mx_deaths);
}

static bool smaller(const struct descent *d, const struct run_params *p, const struct run_result *r) {
    uint64_t new = weight(*p), old = weight(d->best);
    if (r->events > d->out->first.events || new > old) return false;
    return new < old || r->events < d->out->last.events / 10 * 9;
}

// ---- candidates
static struct param_words words_of(struct descent *d, struct run_params p) {
    struct param_words w = {0};
    for (enum run_param n = 0; n < PARAMS; n++) {
        w.value[n] = *run_param(&p, n);
        if (w.value[n] != *run_param(&d->seeds, n)) w.given |= 1ull << n;
    }
    return w;
}

static bool enough(const struct descent *d) {
    return d->out->tries >= d->limits->tries || wall_seconds() >= d->end_wall_s;
}

static void tell(const struct descent *d) {
    char words[1024];
    if (d->limits->quiet) return;
    param_words_write(&d->out->set, words, sizeof words);
    printf("%llu operations, %llu events, %llu crashes: --set=%s\n", (unsigned long long)d->out->last.ops,
           (unsigned long long)d->out->last.events, (unsigned long long)d->out->last.crashes, words);
    fflush(stdout);
}

static bool try_one(struct descent *d, struct run_params p) {
    struct tried t;
    p.idle &= everybody(&p);
    struct param_words set = words_of(d, p);
    d->out->tries++;
    run_alone(d, &set, d->seconds, &t);
    if (!t.failure[0]) return false;
    if (strcmp(t.failure, d->out->failure)) {
        d->out->otherwise++;
        return false;
    }
    if (!smaller(d, &p, &t.r)) return false;
    d->best = p;
    d->out->set = set;
    d->out->last = t.r;
    tell(d);
    return true;
}

static bool try_with(struct descent *d, enum run_param n, uint64_t v) {
    struct run_params p = d->best;
    *run_param(&p, n) = v;
    for (uint32_t i = 0; i < DICE && !enough(d); i++) {
        if (try_one(d, p)) return true;
        p.dice = ++d->dice;
    }
    return false;
}

// Toward `to`: all the way, an eighth is left, half of it, seven eighths; and near it one by one.
static bool try_nearer(struct descent *d, enum run_param n, uint64_t v, uint64_t to) {
    if (try_with(d, n, to)) return true;
    if (v < to || run_param_info[n].most == 1) return false; // a size that is made larger, a thing that is or is not
    uint64_t far = v - to;
    return (far > 8 && try_with(d, n, to + far / 8)) || (far > 2 && try_with(d, n, to + far / 2)) ||
           (far > 8 && try_with(d, n, to + far / 8 * 7)) || (far > 1 && far <= NEAR && try_with(d, n, v - 1));
}

static bool clients_rest(struct descent *d) {
    bool any = false;
    uint64_t clients = clients_of(&d->best), half = (1ull << clients / 2) - 1;
    if (clients > 3 && !d->best.idle)
        any = try_with(d, PARAM_idle, half) || try_with(d, PARAM_idle, everybody(&d->best) & ~half);
    for (uint64_t n = 0; n < clients; n++)
        if (!(d->best.idle >> n & 1)) any |= try_with(d, PARAM_idle, d->best.idle | 1ull << n);
    return any;
}

static bool step(struct descent *d, enum run_param n) {
    uint64_t v = *run_param(&d->best, n), plain = run_param_info[n].plain, cut = v ? v : d->out->last.first_cut;
    if (n == PARAM_dice) return false;
    if (n == PARAM_idle) return clients_rest(d);
    if (n == PARAM_cut_in) return d->best.rounds && cut > 1 && try_nearer(d, n, cut, 1);
    return v != plain && try_nearer(d, n, v, plain);
}

static bool pass(struct descent *d) {
    bool any = false;
    for (enum run_param n = 0; n < PARAMS; n++)
        for (bool again = true; again && !enough(d);) any |= again = step(d, n);
    return any;
}

void shrink(const struct run_options *o, void (*run)(const struct run_options *o, struct run_result *r),
            const struct shrink_limits *limits, struct shrunk *out) {
    struct run_options seed_alone = *o;
    struct descent d = {.o = o, .run = run, .limits = limits, .out = out};
    struct tried t;
    uint64_t begin = wall_seconds();
    d.result = mmap(NULL, sizeof *d.result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(d.result != MAP_FAILED);
    *out = (struct shrunk){.set = o->set};
    seed_alone.set = (struct param_words){0};
    params_of_seed(&seed_alone, &d.seeds);
    params_of_seed(o, &d.best);
    d.dice = d.best.dice;
    d.end_wall_s = begin + limits->seconds;
    run_alone(&d, &o->set, limits->candidate_seconds ? limits->candidate_seconds : FIRST_SECONDS, &t);
    d.seconds =
        limits->candidate_seconds ? limits->candidate_seconds : LEAST_SECONDS + 4 * (unsigned)(wall_seconds() - begin);
    out->first = out->last = t.r;
    snprintf(out->failure, sizeof out->failure, "%s", t.failure);
    for (uint32_t barren = 0; out->failure[0] && barren < BARREN_PASSES && !enough(&d);)
        barren = pass(&d) ? 0 : barren + 1;
    munmap(d.result, sizeof *d.result);
}

// ---- the command line
static void tell_command(const struct run_options *o, const struct param_words *set) {
    char words[1024];
    param_words_write(set, words, sizeof words);
    printf("mendfs-sim --seed %llu --faults %s", (unsigned long long)o->seed, run_faults_name(o->faults));
    if (o->strict) printf(" --strict");
    if (o->power_lie) printf(" --power-lie");
    if (o->ioms) printf(" --ioms %u", o->ioms);
    printf("%s%s\n", words[0] ? " --set=" : "", words);
}

int shrink_main(const struct run_options *o, uint64_t seconds, uint64_t tries) {
    struct shrink_limits limits = {.seconds = seconds, .tries = tries};
    struct shrunk s;
    shrink(o, sim_run, &limits, &s);
    if (!s.failure[0]) {
        printf("seed %llu (--faults %s) does not fail: there is nothing to shrink\n", (unsigned long long)o->seed,
               run_faults_name(o->faults));
        return 0;
    }
    printf("from %llu operations, %llu events, %llu crashes to %llu, %llu, %llu, in %llu tries (%llu of them failed "
           "otherwise)\n",
           (unsigned long long)s.first.ops, (unsigned long long)s.first.events, (unsigned long long)s.first.crashes,
           (unsigned long long)s.last.ops, (unsigned long long)s.last.events, (unsigned long long)s.last.crashes,
           (unsigned long long)s.tries, (unsigned long long)s.otherwise);
    printf("kind: %s\nfailed: %s\n", s.failure, s.last.why);
    tell_command(o, &s.set);
    return 1;
}
