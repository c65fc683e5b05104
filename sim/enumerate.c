// Every crash of a small script, one by one: at each moment of each I/O (submitted, completed) of the script the power
// is cut, with each subset of the sectors that were not flushed; then the array recovers, a client looks at everything,
// and the audit does. With --depth 2 the power fails again at each I/O of that recovery, and so on.
//
//     the script   ──●──●──●──●──●──── to its end, verified as well
//                    │  └─ fork for each cut and subset ─ recovery ──●──●──●── verified
//                    └─ ...                                          └─ fork ─ recovery ── verified
//
// A process forks where the cut is to come, so what lies before is run once; the parent waits and goes on as if nothing
// had been. What is to be found of a cut depends on what is on the disks, on how far the clients are and on what the
// MXs have heard: a child that finds all three as an earlier one had them ends at once (counted as "known"). Reads
// change nothing on a disk: moments of reads count only if a client's message went by since the last one.
//
// Which sectors survive is a *subset* of those whose loss makes a difference (changed ones: most of a journal's block
// is the same before and after). Up to
// --bound of them all subsets are tried; of more: none, all, each alone, all but each, the first k, each disk alone,
// and some at random.
//
// Cuts (KIND): power       of all IOMs, and the clients die: in the end each block is old or new
//              power-live  the clients live on and ask again: each operation is done once
//              kill, kill-live     the processes of all IOMs die; what the OS has is kept, what is in flight is torn
//              power@N, kill@N     IOM N alone, clients live: nothing that was acknowledged is lost
// The later ones of one path are always power cuts of all.
//
// --journals-apart: each IOM's journal lies on a disk of its own; a power cut keeps any subset of the sectors of both.
// --protects says which of the disks are power-protected: nothing of those is at risk; --power-lie: the IOMs believe
// it, and it is not so.
//
// PATH: KIND:MOMENT:SUBSET[/MOMENT:SUBSET]...; what fails is told with the command line that replays it (--at PATH),
// without a fork.
#include "sim/enumerate.h"

#include "base/sum.h"
#include "sim/audit.h"
#include "sim/script.h"
#include "store/format.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_NS SEC(600)  // virtual: what is not done by then hangs
#define REST_NS SEC(2)     // before the script: nothing of the preparation is under way any more
#define TAIL_NS MSEC(60)   // after it: what is still to be settled is
#define STUCK_SECONDS 120u // of a child without children of its own
#define LEVELS 3u          // cuts in a row
#define WIDE_BOUND 4u      // with a lower --bound: of more sectors, only none, all and one subset at random
#define NARROW_BOUND 2u    // of sectors at risk in other cuts than the first of all IOMs
#define ALONE_MAX 24u      // of more sectors than this, that many are tried alone
#define AT_RANDOM 6u
#define SEEN_SLOTS (1u << 22) // a power of two
#define FAILURES_TOLD 12u

enum cut_kind { CUT_POWER, CUT_POWER_LIVE, CUT_KILL, CUT_KILL_LIVE, CUT_POWER_ONE, CUT_KILL_ONE };
static const char *const kind_name[] = {"power", "power-live", "kill", "kill-live", "power@", "kill@"};

// Which of the changed sectors at risk are kept, in the order in which the crash asks for them.
enum subset_kind { KEEP_NONE, KEEP_ALL, KEEP_MASK, KEEP_ONLY, KEEP_BUT, KEEP_FIRST, KEEP_DISK, KEEP_RANDOM };
static const char *const subset_name[] = {"none", "all", "mask", "only", "but", "first", "disk", "random"};
static const char *const protects_name[] = {"none", "journal", "store", "all"}; // enum array_protects
struct subset {
    enum subset_kind kind;
    uint64_t arg;
};
struct cut {
    uint64_t moment;
    struct subset keep;
};

struct shared { // by all processes of one script
    uint64_t moments[LEVELS], points, known, verified, failed, sectors_most;
    uint32_t at_risk; // changed sectors of the latest cut: the first child of a moment tells the others
    uint32_t told;
    bool stopped; // by --seconds, before all was tried
    char failure[FAILURES_TOLD][768];
    uint64_t seen[SEEN_SLOTS];
};

struct enumeration {
    const struct script *script;
    struct shared *shared;
    // what to do
    uint64_t seed, every, end_wall_s;
    uint32_t bound, depth, kinds;
    uint8_t ioms;
    bool journals_apart, lies;
    enum array_protects protects;
    bool trace, first_only, replay;
    // the present path
    enum cut_kind kind;
    uint8_t victim;
    struct cut path[LEVELS];
    uint32_t level, path_len; // cuts made; of a replay: to make
    // the run
    struct world *world;
    struct array *array;
    struct oracle *oracle;
    struct stage stage;
    bool armed, cut_now, told_due;
    uint64_t moment, messages, messages_seen;                           // messages of clients
    uint32_t sector;                                                    // of the present cut, changed ones
    uint8_t written[ARRAY_IOMS_MAX][STORE_BYTES_MIN / BLOCK_BYTES / 8]; // places, since the script began
};

static uint64_t wall_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

// ---- a path in words
static void path_tell(const struct enumeration *e, char *out, size_t cap) {
    size_t n = (size_t)snprintf(out, cap, "%s", e->level ? kind_name[e->kind] : "");
    if (e->level && e->kind >= CUT_POWER_ONE) n += (size_t)snprintf(out + n, cap - n, "%u", e->victim);
    for (uint32_t i = 0; i < e->level; i++) {
        const struct cut *c = &e->path[i];
        n += (size_t)snprintf(out + n, cap - n, "%s%llu:%s", i ? "/" : ":", (unsigned long long)c->moment,
                              subset_name[c->keep.kind]);
        if (c->keep.kind >= KEEP_MASK) n += (size_t)snprintf(out + n, cap - n, "%llx", (unsigned long long)c->keep.arg);
    }
}

static bool subset_of(const char *s, struct subset *out) {
    for (uint32_t k = 0; k < ARRAY_LEN(subset_name); k++) {
        size_t n = strlen(subset_name[k]);
        char *end;
        if (strncmp(s, subset_name[k], n)) continue;
        *out = (struct subset){(enum subset_kind)k, strtoull(s + n, &end, 16)};
        return !*end && (k >= KEEP_MASK) == (s[n] != 0);
    }
    return false;
}

static bool kind_of(const char *s, struct enumeration *e) {
    for (uint32_t k = 0; k < ARRAY_LEN(kind_name); k++) {
        size_t n = strlen(kind_name[k]);
        bool one = k >= CUT_POWER_ONE;
        if (one ? strncmp(s, kind_name[k], n) || s[n] < '0' || s[n] >= '0' + e->ioms || s[n + 1]
                : strcmp(s, kind_name[k]))
            continue;
        e->kind = (enum cut_kind)k;
        e->victim = one ? (uint8_t)(s[n] - '0') : 0;
        return true;
    }
    return false;
}

static bool path_of(char *s, struct enumeration *e) {
    char *rest = strchr(s, ':'), *save = NULL;
    if (!rest) return false;
    *rest++ = 0;
    if (!kind_of(s, e)) return false;
    for (char *one = strtok_r(rest, "/", &save); one; one = strtok_r(NULL, "/", &save)) {
        char *end;
        if (e->path_len == LEVELS) return false;
        struct cut *c = &e->path[e->path_len++];
        c->moment = strtoull(one, &end, 10);
        if (!c->moment || *end != ':' || !subset_of(end + 1, &c->keep)) return false;
    }
    return e->path_len > 0;
}

static void devices_tell(const struct enumeration *e, char *out, size_t cap) {
    bool some = e->protects != ARRAY_PROTECTS_NONE;
    snprintf(out, cap, "%s%s%s%s", e->journals_apart ? " --journals-apart" : "", some ? " --protects " : "",
             some ? protects_name[e->protects] : "", e->lies ? " --power-lie" : "");
}

// ---- failures
static void failed(struct enumeration *e, const char *why) {
    char path[256], devices[64];
    struct shared *s = e->shared;
    path_tell(e, path, sizeof path);
    devices_tell(e, devices, sizeof devices);
    s->failed++;
    if (s->told == FAILURES_TOLD) return;
    snprintf(s->failure[s->told++], sizeof s->failure[0],
             "%s: %s\n    mendfs-sim --enumerate %s --seed %llu --ioms %u%s%s%s --trace", e->level ? path : "no fault",
             why, e->script->name, (unsigned long long)e->seed, e->ioms, devices, e->level ? " --at " : " --depth 0",
             path);
}

static void tell(struct enumeration *e, const char *what) {
    if (e->trace) fprintf(stderr, "%14.9f ---- %s\n", (double)world_now_ns(e->world) / 1e9, what);
}

static bool run_while(struct enumeration *e, const char *what, bool (*pred)(void *ctx)) {
    if (oracle_faults(e->oracle)) return false;
    if (world_run_while(e->world, pred, e, world_now_ns(e->world) + LIMIT_NS)) return oracle_faults(e->oracle) == 0;
    oracle_fault(e->oracle, "hangs: %s does not come about within %llu s of virtual time", what,
                 (unsigned long long)(LIMIT_NS / SEC(1)));
    if (e->trace) stage_dump(&e->stage);
    return false;
}
static bool not_serving(void *ctx) {
    return !array_serving(((struct enumeration *)ctx)->array);
}
static bool recovering_uncut(void *ctx) {
    return !((struct enumeration *)ctx)->cut_now && not_serving(ctx);
}
static bool not_over(void *ctx) {
    return !array_over(((struct enumeration *)ctx)->array);
}
static bool uncut(void *ctx) {
    return !((struct enumeration *)ctx)->cut_now;
}
static bool busy(void *ctx) {
    struct enumeration *e = ctx;
    return stage_busy(&e->stage) && !oracle_faults(e->oracle);
}
static bool busy_uncut(void *ctx) {
    return uncut(ctx) && busy(ctx);
}

// ---- a cut
static bool is_journal(const struct world_disk *d) {
    return world_disk_name(d)[0] == 'j';
}

static uint32_t disk_number(const struct enumeration *e, const struct world_disk *d) { // stores, then journals
    const char *name = world_disk_name(d);
    return (uint32_t)(name[strlen(name) - 1] - '0') + (is_journal(d) ? e->ioms : 0);
}

static bool keep_sector(void *ctx, const struct world_sector *s) {
    struct enumeration *e = ctx;
    if (!s->changed || e->level == 0) return true;
    struct subset keep = e->path[e->level - 1].keep;
    uint32_t n = e->sector++;
    switch (keep.kind) {
    case KEEP_NONE: return false;
    case KEEP_ALL: return true;
    case KEEP_MASK: return n < 64 && (keep.arg >> n & 1);
    case KEEP_ONLY: return n == keep.arg;
    case KEEP_BUT: return n != keep.arg;
    case KEEP_FIRST: return n < keep.arg;
    case KEEP_DISK: return disk_number(e, s->disk) == keep.arg;
    case KEEP_RANDOM: return hash64(&n, sizeof n, keep.arg) & 1;
    }
    return false;
}

static bool clients_live(enum cut_kind k) {
    return k != CUT_POWER && k != CUT_KILL;
}

static void one_fails(struct enumeration *e) {
    e->told_due = true;
    array_iom_dies(&e->array->iom[e->victim], e->kind == CUT_POWER_ONE);
}

// From within the I/O: what dies is gone when the event is over.
static void cut_make(struct enumeration *e, struct cut c) {
    char path[256];
    bool again = e->level > 0;
    e->path[e->level++] = c;
    e->armed = false;
    e->cut_now = true;
    e->sector = 0;
    path_tell(e, path, sizeof path);
    tell(e, path);
    if (!clients_live(e->kind)) stage_end_actors(&e->stage);
    if (!again && e->kind >= CUT_POWER_ONE) {
        one_fails(e);
        return;
    }
    (again || e->kind == CUT_POWER || e->kind == CUT_POWER_LIVE ? array_power_cut : array_kill)(e->array);
    oracle_crash(e->oracle);
    e->told_due = false;
}

static void on_serving(void *ctx) { // see run.c
    struct enumeration *e = ctx;
    if (!e->told_due) return;
    e->told_due = false;
    oracle_recovery(e->oracle);
    if (e->script->weak) oracle_crash(e->oracle);
}

// ---- children
enum child_end { CHILD_GOOD = 0, CHILD_FAILED = 1, CHILD_KNOWN = 3 };

static void child_ended(struct enumeration *e, struct cut c, int status) {
    char why[64];
    e->shared->points++;
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_KNOWN)
        e->shared->known++;
    else if (WIFEXITED(status) && WEXITSTATUS(status) <= CHILD_FAILED)
        e->shared->verified++;
    else {
        if (WIFSIGNALED(status))
            snprintf(why, sizeof why, WTERMSIG(status) == SIGALRM ? "stands still" : "died of signal %d",
                     WTERMSIG(status));
        else
            snprintf(why, sizeof why, "ended with status %d", WEXITSTATUS(status));
        e->path[e->level++] = c;
        failed(e, why);
        e->level--;
    }
}

static bool enough(const struct enumeration *e) {
    if (e->end_wall_s && wall_seconds() >= e->end_wall_s) e->shared->stopped = true;
    return e->shared->stopped || (e->first_only && e->shared->failed);
}

// In the child: true, the cut is made. In the parent: false, when the child has ended.
static bool fork_cut(struct enumeration *e, struct subset keep) {
    struct cut c = {e->moment, keep};
    int status;
    if (enough(e)) return false;
    alarm(0);
    pid_t pid = fork();
    ASSERT(pid >= 0 && "fork: no process or memory left");
    if (pid == 0) {
        alarm(STUCK_SECONDS);
        cut_make(e, c);
        return true;
    }
    ASSERT(waitpid(pid, &status, 0) == pid);
    if (e->level) alarm(STUCK_SECONDS);
    child_ended(e, c, status);
    return false;
}

static bool fork_all_masks(struct enumeration *e, uint32_t n) {
    for (uint64_t mask = 1; mask + 1 < 1ull << n; mask++)
        if (fork_cut(e, (struct subset){KEEP_MASK, mask})) return true;
    return false;
}

static bool fork_some(struct enumeration *e, uint32_t n, bool wide) {
    uint32_t alone = MIN(n, ALONE_MAX);
    for (uint32_t i = 0; wide && i < alone; i++) {
        uint64_t at = (uint64_t)i * n / alone;
        if (fork_cut(e, (struct subset){KEEP_ONLY, at}) || fork_cut(e, (struct subset){KEEP_BUT, at}) ||
            fork_cut(e, (struct subset){KEEP_FIRST, at + 1}))
            return true;
    }
    for (uint64_t d = 0; wide && d < (e->journals_apart ? 2u : 1u) * e->ioms; d++)
        if (fork_cut(e, (struct subset){KEEP_DISK, d})) return true;
    for (uint32_t i = 0; i < (wide ? AT_RANDOM : 1); i++)
        if (fork_cut(e, (struct subset){KEEP_RANDOM, e->seed * 1000 + e->moment * 10 + i})) return true;
    return false;
}

// All subsets of one cut at this moment. The child that keeps none comes first, and tells how many there are.
static bool fork_subsets(struct enumeration *e) {
    bool main_kind = e->kind == CUT_POWER || e->kind == CUT_POWER_LIVE,
         wide = e->level == 0 && main_kind && e->bound >= WIDE_BOUND;
    if (fork_cut(e, (struct subset){KEEP_NONE, 0})) return true;
    uint32_t n = e->shared->at_risk, bound = wide ? e->bound : MIN(e->bound, NARROW_BOUND);
    e->shared->sectors_most = MAX(e->shared->sectors_most, n);
    if (n == 0) return false;
    if (fork_cut(e, (struct subset){KEEP_ALL, 0})) return true;
    return n <= bound ? fork_all_masks(e, n) : fork_some(e, n, wide);
}

static bool fork_kinds(struct enumeration *e) {
    for (uint32_t k = 0; k < ARRAY_LEN(kind_name); k++) {
        if (!(e->kinds >> k & 1)) continue;
        for (uint8_t v = 0; v < (k >= CUT_POWER_ONE ? e->ioms : 1); v++) {
            e->kind = (enum cut_kind)k;
            e->victim = v;
            if (fork_subsets(e)) return true;
        }
    }
    return false;
}

// ---- moments
static bool of_interest(struct enumeration *e, const struct world_io *io) {
    if (io && io->op == DISK_READ && e->messages == e->messages_seen) return false;
    e->messages_seen = e->messages;
    return true;
}

static bool sampled_out(const struct enumeration *e) { // only cuts of recoveries are
    uint64_t phase = hash64(e->path, e->level * sizeof e->path[0], e->seed);
    return e->level && (e->moment + phase) % e->every != 0;
}

// I5: the script is too short for a place to come round again, so each is written once, data or parity.
static void write_seen(struct enumeration *e, const struct world_io *io) {
    struct super_block sb;
    if (io->op != DISK_WRITE || io->moment != WORLD_IO_SUBMITTED || is_journal(io->disk)) return;
    world_disk_peek(io->disk, 0, &sb, sizeof sb);
    uint8_t *bits = e->written[disk_number(e, io->disk)];
    for (uint64_t b = io->off_bytes / BLOCK_BYTES; b < (io->off_bytes + io->len_bytes) / BLOCK_BYTES; b++) {
        if (b < le64_get(sb.data_at)) continue; // superblock, maps, journal
        if (bits[b / 8] >> b % 8 & 1)
            oracle_fault(e->oracle, "%s: block %llu is written twice", world_disk_name(io->disk),
                         (unsigned long long)b);
        bits[b / 8] |= (uint8_t)(1u << b % 8);
    }
}

static void moment_comes(struct enumeration *e, const struct world_io *io) { // io NULL: a client's
    e->moment++;
    if (e->replay) {
        if (e->level < e->path_len && e->path[e->level].moment == e->moment) cut_make(e, e->path[e->level]);
        return;
    }
    if (e->level >= e->depth || !of_interest(e, io) || sampled_out(e)) return;
    e->shared->moments[e->level]++;
    if (e->level)
        (void)fork_subsets(e);
    else
        (void)fork_kinds(e);
}

static void on_io(void *ctx, const struct world_io *io) {
    struct enumeration *e = ctx;
    if (e->armed && e->level == 0) write_seen(e, io);
    if (e->armed) moment_comes(e, io);
}

static bool on_step(void *ctx) {
    struct enumeration *e = ctx;
    if (e->armed && e->level == 0) moment_comes(e, NULL);
    return e->cut_now;
}

static void on_msg(void *ctx, struct node *from, struct node *to, const struct msg *m) {
    struct enumeration *e = ctx;
    for (uint32_t i = 0; i < SCRIPT_ACTORS; i++)
        e->messages += from == e->stage.actor[i].node || to == e->stage.actor[i].node;
}

// ---- states that are known
static uint64_t state_hash(const struct enumeration *e) {
    struct {
        uint64_t disk[ARRAY_IOMS_MAX], journal[ARRAY_IOMS_MAX], progress, messages, crashes, kind;
    } s = {.kind = e->kind};
    for (uint8_t n = 0; n < e->ioms; n++) {
        const struct sim_iom *i = &e->array->iom[n];
        s.disk[n] = world_disk_hash(world_disk_find(e->world, i->disk));
        if (i->journal[0]) s.journal[n] = world_disk_hash(world_disk_find(e->world, i->journal));
    }
    s.progress = e->stage.progress;
    s.messages = e->messages;
    if (e->kind == CUT_POWER || e->kind == CUT_POWER_LIVE) return hash64(&s, sizeof s, 1) | 1;
    s.crashes = e->level; // what the OS keeps is not durable: another cut sees the difference
    return hash64(&s, sizeof s, e->path[0].moment) | 1;
}

static bool state_known(struct enumeration *e) {
    uint64_t h = state_hash(e), *seen = e->shared->seen;
    for (uint32_t i = 0; i < 64; i++) { // a table that is full forgets: then a state is looked at twice
        uint64_t *slot = &seen[(h + i) & (SEEN_SLOTS - 1)];
        if (*slot == h) return true;
        if (*slot) continue;
        *slot = h;
        return false;
    }
    return false;
}

// ---- one run
static void trace_out(void *ctx, const char *line) {
    fprintf(stderr, "%s\n", line);
}

static bool recover(struct enumeration *e) { // from one cut, or from all that come
    while (e->cut_now) {
        e->cut_now = false;
        e->shared->at_risk = e->sector;
        if (!e->replay && e->kind < CUT_POWER_ONE && state_known(e)) _exit(CHILD_KNOWN);
        if (!e->replay && e->kind >= CUT_POWER_ONE && e->level > 1 && state_known(e)) _exit(CHILD_KNOWN);
        array_start(e->array);
        e->moment = 0;
        e->armed = e->replay ? e->level < e->path_len : e->level < e->depth;
        if (!run_while(e, "recovery", recovering_uncut)) return false;
        e->armed = false;
    }
    return true;
}

static bool script_runs(struct enumeration *e) {
    array_start(e->array);
    stage_prepare(&e->stage);
    if (!run_while(e, "the first start", not_serving)) return false;
    if (!run_while(e, "the preparation", busy)) return false;
    world_run_until(e->world, world_now_ns(e->world) + REST_NS);
    tell(e, "the script begins");
    e->armed = true;
    stage_act(&e->stage);
    if (!run_while(e, "the end of the script", busy_uncut)) return false;
    if (!e->cut_now) (void)!world_run_while(e->world, uncut, e, world_now_ns(e->world) + TAIL_NS);
    e->armed = false;
    return true;
}

static bool verify(struct enumeration *e) {
    if (!run_while(e, "the end of the clients' work", busy)) return false;
    tell(e, "a last look");
    stage_look(&e->stage);
    if (!run_while(e, "the last look", busy)) return false;
    if (!audit_rows(e->array, e->oracle)) return false;
    array_ask_stop(e->array);
    if (!run_while(e, "the last clean stop", not_over)) return false;
    array_off(e->array);
    return audit_stores(e->array, e->oracle);
}

static void run_create(struct enumeration *e) {
    struct world_options x = world_options_default();
    struct array_options a = {
        .ioms = e->ioms, .store_bytes = STORE_BYTES_MIN, .store = {.journal_bytes = MIB(1), .cache_bytes = MIB(1)}};
    a.journal_apart = e->journals_apart;
    a.protects = e->protects;
    a.lies = e->lies;
    a.rows = (struct rows_config){.cache_bytes = MIB(1), .credit_bytes = KIB(128), .flush_age_ns = MSEC(15)};
    x.flush_max_ns = MSEC(3); // so that the flushes of one row's members end in any order
    x.on_io = on_io;
    x.on_msg = on_msg;
    x.ctx = e;
    if (e->trace) x.trace = trace_out;
    e->world = world_create(e->seed, &x);
    e->oracle = oracle_create();
    world_keep_sectors(e->world, keep_sector, e);
    e->array = array_create(e->world, &a);
    e->array->on_serving = on_serving;
    e->array->ctx = e;
    stage_create(&e->stage, e->array, e->oracle, e->script);
    e->stage.on_step = on_step;
    e->stage.ctx = e;
}

// Runs the script in the present process; children that it forks come back from here as well.
static bool run(struct enumeration *e) {
    run_create(e);
    bool ok = script_runs(e) && recover(e) && verify(e);
    if (!ok) failed(e, oracle_first_fault(e->oracle));
    return ok;
}

// ---- a script, all of it
static void tell_failures(const struct shared *s) {
    for (uint32_t i = 0; i < s->told; i++) printf("%s\n", s->failure[i]);
    if (s->failed > s->told) printf("    (and %llu more)\n", (unsigned long long)(s->failed - s->told));
}

struct totals {
    uint64_t points, failed;
};

static void script_all(struct enumeration *e, struct totals *t) {
    uint64_t begin = wall_seconds();
    size_t bytes = sizeof *e->shared;
    int status;
    e->shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(e->shared != MAP_FAILED);
    fflush(stdout);
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) _exit(run(e) ? CHILD_GOOD : CHILD_FAILED);
    ASSERT(waitpid(pid, &status, 0) == pid);
    struct shared *s = e->shared;
    if (!WIFEXITED(status) || WEXITSTATUS(status) > CHILD_FAILED) failed(e, "the run without a fault died");
    printf("%-12s seed %llu: %llu moments, %llu crash points, %llu of known states, %llu recoveries verified; in "
           "recoveries %llu moments; most sectors at risk %llu; "
           "%llu failed; %llu s\n",
           e->script->name, (unsigned long long)e->seed, (unsigned long long)s->moments[0],
           (unsigned long long)s->points, (unsigned long long)s->known, (unsigned long long)s->verified,
           (unsigned long long)(s->moments[1] + s->moments[2]), (unsigned long long)s->sectors_most,
           (unsigned long long)s->failed, (unsigned long long)(wall_seconds() - begin));
    if (s->stopped) printf("    stopped by --seconds before all was tried\n");
    tell_failures(s);
    fflush(stdout);
    t->points += s->points;
    t->failed += s->failed;
    munmap(s, bytes);
}

static int replay(struct enumeration *e) {
    struct shared *s = e->shared = calloc(1, sizeof *s);
    ASSERT(s);
    bool ok = run(e);
    if (e->level < e->path_len) printf("the run came to its end after %u of %u cuts\n", e->level, e->path_len);
    tell_failures(s);
    printf("%u crash points, %u failed\n", e->level, !ok);
    fflush(stdout);
    _exit(!ok); // what actors that died held is not freed
}

// ---- the command line
static int usage(const char *why) {
    fprintf(stderr, "mendfs-sim: %s\n", why);
    fprintf(stderr,
            "usage: mendfs-sim --enumerate SCRIPT|all|list [--seed S] [--ioms N] [--bound K] [--depth D] [--every N]\n"
            "                  [--kinds KIND,...] [--journals-apart] [--protects journal|store|all [--power-lie]] "
            "[--first] [--seconds T]\n"
            "       mendfs-sim --enumerate SCRIPT [--seed S] [--ioms N] [--journals-apart] [--protects ...] --at PATH "
            "[--trace]\n"
            "  --bound K   all subsets of up to K sectors at risk (6)\n"
            "  --depth D   cuts in a row (1); 0: only the script\n"
            "  --every N   cut a recovery at every N-th moment (1)\n"
            "  --kinds     power, power-live, kill, kill-live, power@, kill@ (all)\n"
            "  --journals-apart  on disks of their own\n"
            "  --protects  which disks are power-protected; with --power-lie the IOMs believe it and it is not so\n"
            "  --first     end at the first failure\n"
            "  --seconds T wall-clock seconds after which no new crash point begins\n"
            "  --at PATH   replay one\n");
    return 2;
}

static int list(void) {
    for (uint32_t i = 0; script_at(i); i++) printf("%-12s %s\n", script_at(i)->name, script_at(i)->what);
    return 0;
}

static bool number(const char *s, uint64_t least, uint64_t most, uint64_t *out) {
    char *end;
    *out = strtoull(s, &end, 10);
    return *s && !*end && *s != '-' && *out >= least && *out <= most;
}

static bool protects_of(const char *s, enum array_protects *out) {
    for (uint32_t i = 0; i < ARRAY_LEN(protects_name); i++) {
        if (strcmp(s, protects_name[i])) continue;
        *out = (enum array_protects)i;
        return true;
    }
    return false;
}

static bool kinds_of(char *s, uint32_t *out) {
    char *save = NULL;
    *out = 0;
    for (char *one = strtok_r(s, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        uint32_t k = 0;
        while (k < ARRAY_LEN(kind_name) && strcmp(one, kind_name[k])) k++;
        if (k == ARRAY_LEN(kind_name)) return false;
        *out |= 1u << k;
    }
    return *out != 0;
}

int enumerate_main(int argc, char **argv) {
    static const struct option longs[] = {
        {"enumerate", 1, 0, 'e'}, {"seed", 1, 0, 's'},      {"ioms", 1, 0, 'i'},
        {"bound", 1, 0, 'b'},     {"depth", 1, 0, 'd'},     {"every", 1, 0, 'n'},
        {"kinds", 1, 0, 'k'},     {"first", 0, 0, 'f'},     {"at", 1, 0, 'a'},
        {"seconds", 1, 0, 't'},   {"trace", 0, 0, 'v'},     {"journals-apart", 0, 0, 'j'},
        {"protects", 1, 0, 'p'},  {"power-lie", 0, 0, 'l'}, {0}};
    struct enumeration e = {.seed = 1, .every = 1, .bound = 6, .depth = 1, .kinds = UINT32_MAX, .ioms = 3};
    struct totals t = {0};
    const char *script = NULL;
    char *at = NULL;
    uint64_t v = 0;
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'e': script = optarg; break;
        case 's':
            if (!number(optarg, 0, UINT64_MAX, &e.seed)) return usage("--seed takes a number");
            break;
        case 'i':
            if (!number(optarg, 3, 8, &v)) return usage("--ioms takes a number from 3 to 8");
            e.ioms = (uint8_t)v;
            break;
        case 'b':
            if (!number(optarg, 0, 16, &v)) return usage("--bound takes a number up to 16");
            e.bound = (uint32_t)v;
            break;
        case 'd':
            if (!number(optarg, 0, LEVELS, &v)) return usage("--depth takes a number up to 3");
            e.depth = (uint32_t)v;
            break;
        case 'n':
            if (!number(optarg, 1, 1000000, &e.every)) return usage("--every takes a number from 1");
            break;
        case 'k':
            if (!kinds_of(optarg, &e.kinds))
                return usage("--kinds takes some of power,power-live,kill,kill-live,power@,kill@");
            break;
        case 'f': e.first_only = true; break;
        case 'a': at = optarg; break;
        case 't':
            if (!number(optarg, 1, 1000000, &v)) return usage("--seconds takes a number from 1");
            e.end_wall_s = wall_seconds() + v;
            break;
        case 'v': e.trace = true; break;
        case 'l': e.lies = true; break;
        case 'j': e.journals_apart = true; break;
        case 'p':
            if (!protects_of(optarg, &e.protects)) return usage("--protects takes none, journal, store or all");
            break;
        default: return usage("there is an option that --enumerate does not know");
        }
    }
    if (optind < argc) return usage("there is an argument too many");
    if (!e.journals_apart && e.protects != ARRAY_PROTECTS_NONE && e.protects != ARRAY_PROTECTS_ALL)
        return usage("--protects journal or store needs --journals-apart");
    if (!script) return usage("--enumerate takes the name of a script, or all");
    if (!strcmp(script, "list")) return list();
    if (strcmp(script, "all") && !(e.script = script_find(script)))
        return usage("--enumerate takes the name of a script, or all");
    if (at && (!e.script || !path_of(at, &e)))
        return usage("--at takes what a failure was told with, and needs the name of a script");
    e.replay = at != NULL;
    if (e.replay) return replay(&e);
    if (e.script) script_all(&e, &t);
    for (uint32_t i = 0; !e.script && script_at(i) && !(e.first_only && t.failed); i++) {
        struct enumeration one = e;
        one.script = script_at(i);
        script_all(&one, &t);
    }
    printf("%llu crash points, %llu failed\n", (unsigned long long)t.points, (unsigned long long)t.failed);
    return t.failed != 0;
}
