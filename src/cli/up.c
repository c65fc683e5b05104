// mendfs up: makes what is missing, starts what does not run, mounts; returns when files can be written.
#include "cli/cli.h"
#include "cli/hosts.h"
#include "cli/make.h"
#include "cli/mounts.h"
#include "cli/start.h"
#include "cli/tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_SIZE GIB(8)
#define IOMS_LEAST 3u
#define RETURN_PATIENCE_MS 10000u
#define WITHOUT_ONE_LIMIT_MS 15000u // the others give one that does not come 5 s before they begin without it

struct up_args {
    const char *dir, *mount, *nfs, *at, *journal, *power_protected, *hosts;
    enum protects protects; // if power_protected
    uint64_t ioms, size_bytes, cache_bytes, heartbeat_ms, silence_ms;
    bool nonempty, insecure;
};

// ---- the cluster
// PATTERN has a '%', which stands for the IOM's number; without one IOM N listens at PORT + N. False: it is no address.
static bool address_make(const char *pattern, uint8_t iom, char out[108]) {
    const char *mark = strchr(pattern, '%'), *colon = strrchr(pattern, ':');
    unsigned port;
    int end = 0;
    if (!colon || strlen(pattern) > 64 || (mark && strchr(mark + 1, '%'))) return false;
    if (mark) snprintf(out, 108, "%.*s%u%s", (int)(mark - pattern), pattern, iom, mark + 1);
    else if (sscanf(colon + 1, "%5u%n", &port, &end) != 1) return false;
    else snprintf(out, 108, "%.*s:%u%s", (int)(colon - pattern), pattern, port + iom, colon + 1 + end);
    return address_is_numeric(out);
}

static bool addresses_choose(const struct up_args *a, struct conf *c) {
    c->insecure = a->insecure;
    for (uint8_t i = 0; a->at && i < c->ioms; i++) {
        if (!address_make(a->at, i, c->iom[i].at))
            return fail(0, "--at %.100s: HOST:PORT is expected, HOST in numbers, PORT up to %u, with one %% at most, which stands for "
                           "the IOM's number", a->at, ADDRESS_PORT_MAX);
        if (!address_is_private(c->iom[i].at) && !a->insecure)
            return fail(0, "--at %.100s is open to the network, and nodes do not authenticate each other yet: whoever reaches an "
                           "IOM has all data. Use a loopback address, or add --insecure", a->at);
    }
    return true;
}

static bool addresses_fit(const struct up_args *a, const struct conf *c) {
    char at[108];
    for (uint8_t i = 0; a->at && i < c->ioms; i++)
        if (!address_make(a->at, i, at) || strcmp(at, c->iom[i].at))
            return fail(0, "IOM %u of the cluster in %s is at %s; --at is chosen when an array is made, so leave it out", i, c->dir,
                        c->iom[i].at);
    return true;
}

// PATTERN has a '%', which stands for the IOM's number; without one it is a folder.
static bool journal_path(const char *pattern, uint8_t iom, char out[PATH_MAX]) {
    const char *mark = pattern ? strchr(pattern, '%') : NULL;
    if (!pattern) out[0] = 0;
    else if (pattern[0] != '/' || strlen(pattern) > DIR_LEN_MAX / 2)
        return fail(0, "--journal %.100s: an absolute path is needed", pattern);
    else if (mark && strchr(mark + 1, '%'))
        return fail(0, "--journal %.100s: one %% at most, which stands for the IOM's number", pattern);
    else if (mark) path_make(out, "%.*s%u%s", (int)(mark - pattern), pattern, iom, mark + 1);
    else path_make(out, "%s/iom-%u.journal", pattern, iom);
    return true;
}

static bool journals_fit(const struct up_args *a, const struct conf *c) {
    char path[PATH_MAX];
    for (uint8_t i = 0; a->journal && i < c->ioms; i++) {
        if (!journal_path(a->journal, i, path)) return false;
        if (!strcmp(path, c->iom[i].journal)) continue;
        if (!c->iom[i].journal[0])
            return fail(0,
                        "the stores in %s have their journals inside; --journal is chosen when an array is made, so leave "
                        "it out",
                        c->dir);
        return fail(0,
                    "the journal of IOM %u is %s, not %s; leave out --journal, or move the file and put a link where it was",
                    i, c->iom[i].journal, path);
    }
    return true;
}

static bool protects_fit(const struct up_args *a, const struct conf *c) {
    if (!a->power_protected || a->protects != PROTECTS_JOURNAL || c->iom[0].journal[0]) return true;
    return fail(0, "--power-protected journal: the journals lie inside the stores, on the same devices; say all, or add "
                   "--journal to a new array");
}

static bool protects_change(const struct up_args *a, struct conf *c) {
    if (!a->power_protected || a->protects == c->protects) return true;
    c->protects = a->protects;
    if (!conf_save(c)) return false;
    say("power-protected from the next start of each IOM on: %s", protects_name(c->protects));
    return true;
}

static bool args_fit(const struct up_args *a, const struct conf *c) {
    char have[24], want[24];
    if (a->ioms && a->ioms != c->ioms)
        return fail(0, "the cluster in %s has %u IOMs; changing that is not yet in this version", c->dir, c->ioms);
    if (a->size_bytes && a->size_bytes / BLOCK_BYTES * BLOCK_BYTES != c->iom[0].size_bytes)
        return fail(0, "the stores in %s are of %s each, not %s; changing that is not yet in this version", c->dir,
                    size_text(c->iom[0].size_bytes, have), size_text(a->size_bytes, want));
    return addresses_fit(a, c) && journals_fit(a, c) && protects_fit(a, c) && hosts_fit(c, a->hosts);
}

// A folder for the journals is made; the folder of a pattern is there already.
static bool journals_choose(const struct up_args *a, struct conf *c) {
    c->protects = a->protects;
    for (uint8_t i = 0; i < c->ioms; i++)
        if (!journal_path(a->journal, i, c->iom[i].journal)) return false;
    if (!protects_fit(a, c)) return false;
    return !a->journal || strchr(a->journal, '%') || dir_make(a->journal, 0700);
}

// The cache is nothing of the stores: it may change. What runs keeps the one it began with.
static bool cache_set(const struct up_args *a, struct conf *c) {
    char want[24];
    if (a->cache_bytes == UINT64_MAX || a->cache_bytes == c->cache_bytes) return true;
    if (!cache_fits(a->cache_bytes, c->ioms)) return false;
    c->cache_bytes = a->cache_bytes;
    if (!conf_save(c)) return false;
    say("each IOM that starts from now on has a cache of %s; those that run keep theirs until they are stopped "
        "(mendfs down)", size_text(c->cache_bytes, want));
    return true;
}

// Who is taken for failed has ceased to serve by then only if all count with the same times: so none may run meanwhile.
static bool times_set(const struct up_args *a, struct conf *c) {
    uint64_t heartbeat_ms = a->heartbeat_ms ? a->heartbeat_ms : c->heartbeat_ms, silence_ms = a->silence_ms ? a->silence_ms : c->silence_ms;
    if (heartbeat_ms == c->heartbeat_ms && silence_ms == c->silence_ms) return true;
    char why[240];
    if (!times_fit(heartbeat_ms, silence_ms, why)) return fail(0, "%s", why);
    if (ioms_any_run(c)) return fail(0, "--heartbeat-ms and --silence-ms are changed while no IOM runs: mendfs down, then mendfs up with them");
    c->heartbeat_ms = heartbeat_ms;
    c->silence_ms = silence_ms;
    return !c->made || conf_save(c);
}

// As many as there are labels of hosts, if nobody says otherwise. 0: has said why not.
static uint8_t ioms_of_new(const struct up_args *a) {
    uint32_t labels = a->hosts ? hosts_given(a->hosts) : 4;
    if (a->ioms) return (uint8_t)a->ioms;
    if (labels >= IOMS_LEAST && labels <= ARRAY_IOMS_MAX) return (uint8_t)labels;
    return (uint8_t)fail(0, "--hosts %.100s: %u labels; an array has %u to %u IOMs, and each needs one", a->hosts, labels, IOMS_LEAST, ARRAY_IOMS_MAX);
}

static void warn_of_hosts(const struct conf *c) {
    struct addresses at;
    char text[HOSTS_WARNING_BYTES];
    addresses_of(c, &at);
    if (hosts_warning(&at, text)) warn("warning: %s", text);
}

static bool make_new(const struct up_args *a, const char *dir, const char *at, struct conf *c) {
    char size[24];
    uint64_t size_bytes = a->size_bytes ? a->size_bytes : DEFAULT_SIZE;
    uint8_t ioms = ioms_of_new(a);
    if (!ioms || !conf_new(c, dir, ioms, size_bytes, at) || !hosts_set(c, a->hosts)) return false;
    if (a->cache_bytes != UINT64_MAX) c->cache_bytes = a->cache_bytes;
    if (a->cache_bytes != UINT64_MAX && !cache_fits(c->cache_bytes, c->ioms)) return false;
    if (!times_set(a, c) || !addresses_choose(a, c) || !journals_choose(a, c) || !cluster_make(c)) return false;
    say("made %u stores of %s in %s", c->ioms, size_text(c->iom[0].size_bytes, size), dir);
    warn_of_hosts(c);
    return true;
}

// The cluster, made if there is none, and where it is to be mounted. What the mount would fail by is found before anything is made or started.
static bool cluster_find(const struct up_args *a, const char *dir, const char *mount, struct conf *c, char at[PATH_MAX]) {
    enum conf_found found = conf_load(dir, c);
    if (found == CONF_BAD || (found == CONF_NONE && !folder_is_free(dir))) return false;
    if (mount) path_make(at, "%s", mount);
    else if (found == CONF_FOUND) path_make(at, "%s", c->mount);
    else mount_default(at);
    if (c->made && !args_fit(a, c)) return false;
    if (!mount_point_check(c, at, a->nonempty)) return false;
    if (c->made) return times_set(a, c) && cache_set(a, c) && protects_change(a, c);
    if (found == CONF_FOUND) cluster_unmake(c);
    return make_new(a, dir, at, c);
}

// ---- waiting until it runs
struct run_wait {
    const struct conf *c;
    struct started *s;
    uint64_t deadline_ms;
    bool runs;
    bool old_ended; // one that ran before us ended meanwhile: somebody had killed it
    uint64_t running_ms; // since when the array runs; 0: it does not yet
    struct shown shown;
};

static void note_dead(struct run_wait *w) {
    for (uint8_t i = 0; i < w->c->ioms; i++) {
        struct proc *p = &w->s->proc[i];
        if (!p->pid || !proc_ended(p)) continue;
        char last[500];
        bool has = log_last_error(w->c->dir, p->name, 0, last, sizeof last);
        snprintf(w->s->why[i], sizeof w->s->why[i], "it ended: %s", has ? last : "see its log");
        if (!w->s->fresh[i]) w->old_ended = true;
        proc_close(p);
        p->pid = 0;
        w->s->running--;
        w->s->failed++;
        w->deadline_ms = MIN(w->deadline_ms, now_ms() + WITHOUT_ONE_LIMIT_MS);
    }
}

// It runs, and every IOM that runs belongs to it: one that returns is worth a moment of patience, for the array stops once more to take it in.
static bool is_running(struct run_wait *w) {
    if (w->shown.array != ARRAY_RUNNING) return false;
    if (!w->running_ms) w->running_ms = now_ms();
    bool all = true;
    for (uint8_t i = 0; i < w->c->ioms; i++)
        all &= !w->s->proc[i].pid || w->shown.iom[i] == SHOWN_UP || w->shown.iom[i] == SHOWN_REBUILDING;
    return all || now_ms() - w->running_ms >= RETURN_PATIENCE_MS;
}

static void co_wait_running(struct tool *t) {
    struct run_wait *w = t->arg;
    struct addresses a;
    struct iom_answer answers[ARRAY_IOMS_MAX];
    addresses_of(w->c, &a);
    while (true) {
        co_ask_status(t, &a, env_now_ns(t->e) + MSEC(500), answers);
        show(&a, answers, &w->shown);
        note_dead(w);
        w->runs = is_running(w);
        if (w->runs || w->old_ended || w->s->failed > 1 || now_ms() >= w->deadline_ms) return;
        co_sleep_until(t->e, env_now_ns(t->e) + MSEC(20), "up: until the array runs");
    }
}

static void tell_failed(const struct started *s, uint8_t ioms) {
    for (uint8_t i = 0; i < ioms; i++)
        if (s->why[i][0]) warn("IOM %u does not run: %s", i, s->why[i]);
}

static void try_start(const struct conf *c, uint64_t deadline_ms, struct started *s, struct run_wait *w) {
    ioms_start(c, ~0u, deadline_ms, s);
    if (s->failed) deadline_ms = MIN(deadline_ms, now_ms() + WITHOUT_ONE_LIMIT_MS);
    *w = (struct run_wait){.c = c, .s = s, .deadline_ms = deadline_ms, .shown.behind = NO_IOM};
    if (s->failed < 2) tool_run(c->cluster, co_wait_running, w);
    started_close(s);
}

// How it runs, for the summary: nothing to add, or who is not whole.
static void how_it_runs(const struct run_wait *w, char out[120]) {
    char *end = out;
    *out = 0;
    for (uint8_t i = 0; i < w->c->ioms; i++)
        if (w->shown.iom[i] != SHOWN_UP && end - out < 80)
            end += snprintf(end, 40, "%sIOM %u is %s", end == out ? " (" : ", ", i, iom_shown_name(w->shown.iom[i]));
    if (end > out) snprintf(end, 2, ")");
}

static int array_start(const struct conf *c, uint64_t deadline_ms, char how[120]) {
    struct started s;
    struct run_wait w;
    try_start(c, deadline_ms, &s, &w);
    if (w.old_ended) try_start(c, deadline_ms, &s, &w);
    tell_failed(&s, c->ioms);
    how_it_runs(&w, how);
    if (w.runs) return 0;
    char behind[120] = "";
    if (w.shown.behind < c->ioms && !s.why[w.shown.behind][0])
        snprintf(behind, sizeof behind, "; IOM %u was away before and lacks what was changed then, so that all others are needed", w.shown.behind);
    if (s.failed)
        return fail(1, "the array is not running: %u of its %u IOMs could not be started; the reasons stand above%s", s.failed, c->ioms,
                    behind);
    return fail(1, "the array is still %s after %u s, although all its IOMs run; see the logs in %s/log",
                array_state_name(w.shown.array), START_LIMIT_MS / 1000, c->dir);
}

// ---- the command
// A mount point that was made here goes again with what it was made for: what is copied there later shall fail, not land on this machine's disk.
static bool mount_it(const struct up_args *a, const struct conf *c, const char *at, uint64_t deadline_ms) {
    struct mount_entry e;
    bool there = mount_find(at, &e) || access(at, F_OK) == 0 || errno != ENOENT;
    switch (mount_point_prepare(c, at, true, a->nonempty)) {
    case MOUNT_POINT_BAD: return false;
    case MOUNT_POINT_FREE:
        if (mount_start(c, at, NULL, deadline_ms)) return true;
        if (!there) rmdir(at);
        return false;
    case MOUNT_POINT_SERVED: return true;
    }
    return false;
}

static int up(const struct up_args *a, const char *dir, const char *mount) {
    struct conf c;
    char at[PATH_MAX], how[120];
    if (!cluster_find(a, dir, mount, &c, at)) return 1;
    uint64_t deadline_ms = now_ms() + START_LIMIT_MS;
    if (array_start(&c, deadline_ms, how)) return 1;
    if (!mount_it(a, &c, at, deadline_ms))
        return fail(1,
                    "the array runs (its IOMs in the background), but is not mounted at %s; the reason stands above. Once that is "
                    "mended, mount it with: mendfs up --dir %s --mount %s; or stop it with: mendfs down --dir %s",
                    at, c.dir, at, c.dir);
    say("running: %u IOMs%s, mounted at %s", c.ioms, how, at);
    return 0;
}

// What was made for a cluster that then was not: the folder, and those above it that were missing too.
static void dir_unmake(const char *dir, const char *first_made) {
    char path[PATH_MAX];
    path_make(path, "%s/cluster.conf", dir);
    if (!*first_made || access(path, F_OK) == 0) return;
    path_make(path, "%s/lock", dir);
    unlink(path);
    path_make(path, "%s", dir);
    while (rmdir(path) == 0 && strlen(path) > strlen(first_made)) *strrchr(path, '/') = 0;
}

// The topmost of the folders that lead to `dir` which is missing; empty: none.
static void first_missing(const char *dir, char out[PATH_MAX]) {
    out[0] = 0;
    for (const char *p = dir + 1; !out[0]; p++) {
        if (*p && *p != '/') continue;
        path_make(out, "%.*s", (int)(p - dir), dir);
        if (access(out, F_OK) == 0 || errno != ENOENT) out[0] = 0;
        if (!*p) return;
    }
}

static int up_run(int argc, char **argv) {
    struct up_args a = {.cache_bytes = UINT64_MAX}; // not given
    char dir[PATH_MAX], mount[PATH_MAX], made[PATH_MAX];
    const char *rest[1];
    const struct option_row options[] = {
        {"--dir", OPT_TEXT, &a.dir},         {"--ioms", OPT_NUMBER, &a.ioms, IOMS_LEAST, ARRAY_IOMS_MAX},
        {"--mount", OPT_TEXT, &a.mount},     {"--nfs", OPT_TEXT, &a.nfs},
        {"--size", OPT_SIZE, &a.size_bytes}, {"--journal", OPT_TEXT, &a.journal},
        {"--power-protected", OPT_TEXT, &a.power_protected},
        {"--at", OPT_TEXT, &a.at},           {"--insecure", OPT_FLAG, &a.insecure},           {"--hosts", OPT_TEXT, &a.hosts},
        {"--cache", OPT_SIZE, &a.cache_bytes}, {"--nonempty", OPT_FLAG, &a.nonempty},
        {"--heartbeat-ms", OPT_NUMBER, &a.heartbeat_ms, 1, TIME_MS_MAX}, {"--silence-ms", OPT_NUMBER, &a.silence_ms, 1, TIME_MS_MAX},
        {0},
    };
    if (!args_parse(&cmd_up, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    if (a.power_protected && !protects_parse(a.power_protected, &a.protects)) return EXIT_USAGE;
    if (a.nfs) return fail(EXIT_USAGE, "--nfs: not yet in this version");
    if (!dir_resolve(a.dir, dir) || (a.mount && !mount_resolve(a.mount, mount))) return 1;
    first_missing(dir, made);
    int lock_fd = folder_make_private(dir) ? dir_lock(dir) : -1;
    int status = lock_fd < 0 ? 1 : up(&a, dir, a.mount ? mount : NULL);
    if (status) dir_unmake(dir, made);
    if (lock_fd < 0) return status;
    close(lock_fd);
    return status;
}

const struct command cmd_up = {
    "up",
    "mendfs up [--dir DIR] [--ioms N] [--hosts LABEL,...] [--mount MNT] [--nonempty] [--size SIZE] [--cache SIZE] [--journal WHERE] [--power-protected WHAT] [--heartbeat-ms N] [--silence-ms N] [--at WHERE [--insecure]]",
    "Makes what is missing, starts what does not run, and mounts it; returns once files can be written",
    "  --ioms N      storage servers of a new array, 3 to 16; default 4. One of them may be lost without loss of data\n"
    "  --hosts LABEL,...\n"
    "                which machine each IOM is on, one label an IOM, for a new array: what has one label dies together. The\n"
    "                proxy of an IOM is on another host if that can be, and with three hosts at least no file has two IOMs of one.\n"
    "                Default: all on this machine\n"
    "  --mount MNT   where to mount; default /mnt/mendfs (root) or ~/mendfs, or what the array was made with\n"
    "  --nonempty    mounts over a folder that is not empty: what lies there is hidden as long\n"
    "  --size SIZE   of each IOM's store, reserved at once (fallocate); default 8G\n"
    "  --cache SIZE  what each IOM keeps of its store in memory, 16M at least; default 256M. It is kept for later starts, and may be\n"
    "                given again to change it. An IOM uses up to 96M more than its cache\n"
    "  --journal WHERE\n"
    "                puts each IOM's journal on a file or block device of its own, for a new array: a folder, in which each\n"
    "                gets the file iom-N.journal (or finds there a link to a device), or a path with a % that stands for N,\n"
    "                like /dev/vg/journal-%. Absolute. Without it the journal lies in the store\n"
    "  --power-protected WHAT\n"
    "                which devices keep every write that they have accepted when the power fails (battery, capacitors): none\n"
    "                (the default), journal, store or all. Such a device is not flushed. If it is not true, what was fsynced\n"
    "                is lost. May be changed; each IOM takes it up when it starts\n"
    "  --heartbeat-ms N, --silence-ms N\n"
    "                how often the IOMs tell each other that they are there, and how long one may be silent before the array\n"
    "                goes on without it; default 100 and 1500. The silence is at least nine heartbeats. A process that ends is\n"
    "                found at once, whatever these are. Changed only while no IOM runs\n"
    "  --at WHERE    where the IOMs of a new array listen, instead of Unix sockets in DIR: HOST:PORT, IOM N at PORT + N; or with a %\n"
    "                that stands for N, like 10.9.0.1%:7000. HOST in numbers. An IOM that stands in for another listens at its own\n"
    "                port + 1000 too. All IOMs and mounts see the same DIR\n"
    "  --insecure    for --at: also addresses that others reach. Nodes do not authenticate each other yet: whoever reaches one has\n"
    "                all data\n\n"
    "It may be run at any time: what runs stays as it is. It does not supervise: a daemon that died stays dead until "
    "`up`,\n"
    "`start-iom` or the service manager starts it again. Without --at daemons listen on Unix\n"
    "sockets in DIR alone.\n",
    up_run,
};
