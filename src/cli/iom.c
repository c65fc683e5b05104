// mendfs iom: the daemon of one IOM.
//
// It looks into the store before it starts (whose it is, whether it is in use), so that who starts it hears the reason.
// "Ready" is told when the IOM answers at its own address that its store is open.
#include "cli/cli.h"
#include "cli/hosts.h"
#include "cli/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CREDIT_BYTES_MOST MIB(8) // what one IOM's data may have in the parity memory of another

struct iom_daemon {
    struct node_daemon d;
    struct conf conf;        // ioms 0: there is none, the arguments say it all
    struct iom_config config;
    struct iom_start start;
    uint64_t id, cache_bytes, heartbeat_ms, silence_ms; // times 0: not given
    char store[PATH_MAX], journal[PATH_MAX]; // journal empty: it lies in the store
    bool runs, stop_asked;
    err why;                 // it ended
    int status;
};

struct devices { // of the arguments; NULL: not given
    const char *store, *journal, *protects;
};

// ---- the store, before
static const char *store_fault(const struct iom_daemon *m, const struct store_ident *id) {
    if (m->conf.ioms && memcmp(id->cluster, m->conf.cluster, 16)) return "it belongs to another cluster";
    if (m->conf.ioms && id->array_ioms != m->conf.ioms) return "it belongs to an array of another size";
    if (id->iom != m->id) return "it is the store of another IOM of this cluster";
    return NULL;
}

static bool device_open(struct iom_daemon *m, const char *what, const char *shown, const char *path,
                        struct disk **out) {
    struct disk_open_args a = {.path = path};
    err r = disk_open(loop_env(m->d.l), &a, out);
    const char *cause = r == ERR_NOENT       ? "it is missing; put it back"
                        : r == ERR_LOCKED    ? "it is in use by another process; end that, or give each IOM its own"
                        : m->d.error.text[0] ? m->d.error.text
                                             : err_text(r);
    if (r) daemon_fail(&m->d, "the %s %s cannot be opened: %s", what, shown, cause);
    return !r;
}

static bool co_journal_fits(struct iom_daemon *m, struct disk *d) {
    char why[STORE_WHY_BYTES];
    struct disk *journal = NULL;
    if (m->journal[0] && !device_open(m, "journal", m->journal, m->config.journal_path, &journal)) return false;
    err r = co_store_journal_check(d, journal, why);
    if (journal) co_disk_close(journal);
    if (r == ERR_INVAL) daemon_fail(&m->d, "the store %s cannot be used: %s", m->store, why);
    else if (r) daemon_fail(&m->d, "the journal %s of the store %s cannot be used: %s", m->journal, m->store, why);
    return !r;
}

static bool co_look(struct iom_daemon *m, struct disk *d, struct store_ident *id, uint64_t *incarnation) {
    char why[STORE_WHY_BYTES] = "";
    err r = co_store_peek(d, id, incarnation, why);
    if (r) return daemon_fail(&m->d, "the store %s cannot be used: %s%s", m->store, why[0] ? why : err_text(r), err_next(r)), false;
    const char *fault = store_fault(m, id);
    if (!fault && !co_hosts_are_of_map(loop_env(m->d.l), &m->conf, d, why)) fault = why;
    if (fault) return daemon_fail(&m->d, "the store %s cannot be used: %s", m->store, fault), false;
    return co_journal_fits(m, d);
}

static bool co_store_fits(struct iom_daemon *m) {
    struct env *e = loop_env(m->d.l);
    struct store_ident id;
    struct disk *d;
    uint64_t incarnation;
    if (!device_open(m, "store", m->store, m->config.disk_path, &d)) return false;
    bool fits = co_look(m, d, &id, &incarnation);
    co_disk_close(d);
    if (!fits) return false;
    memcpy(m->conf.cluster, id.cluster, 16);
    LOG(e, TRACE_INFO, "IOM %u of %u begins: pid %d, store %s, incarnation so far %llu, listens at %s", id.iom,
        id.array_ioms, (int)getpid(), m->store, (unsigned long long)incarnation, m->config.listen);
    return true;
}

// ---- readiness
static struct hub *own_hub(struct iom_daemon *m, struct env *e) {
    struct hub_config h = {.self = {.kind = NODE_TOOL, .iom = NO_IOM}};
    for (int i = 0; i < 16; i++) h.self.id[i] = (uint8_t)env_random(e);
    memcpy(h.cluster, m->conf.cluster, 16);
    return hub_create(e, &h);
}

// It listens before its store is open; an open store has an incarnation.
static bool co_is_open(struct hub *h, struct peer *p, struct env *e) {
    struct call_opts o = {.deadline_ns = env_now_ns(e) + SEC(1)};
    struct msg *reply;
    err r = co_call(p, hub_msg(h, MSG_STATUS, sizeof(struct envelope)), &o, &reply);
    bool open = !r && reply->body_len >= sizeof(struct wire_status) &&
                le64_get(((const struct wire_status *)reply->body)->incarnation);
    msg_free(reply);
    return open;
}

static void co_tell_ready(void *arg) {
    struct iom_daemon *m = arg;
    struct env *e = loop_env(m->d.l);
    struct hub *h = own_hub(m, e);
    struct peer *p = hub_peer(h, (iom_id){(uint8_t)m->id}, m->config.listen);
    while (m->runs && !co_is_open(h, p, e)) co_sleep_until(e, env_now_ns(e) + MSEC(2), "iom: until its store is open");
    hub_destroy(h);
    if (!m->runs) return;
    LOG(e, TRACE_INFO, "IOM %u is ready", (unsigned)m->id);
    daemon_ready(&m->d);
}

// ---- its life
static void on_ended(void *ctx, err why) {
    struct iom_daemon *m = ctx;
    m->runs = false;
    m->why = why;
}

static void on_serving(void *ctx, bool on) {
    struct iom_daemon *m = ctx;
    LOG(loop_env(m->d.l), TRACE_INFO, "IOM %u %s", (unsigned)m->id, on ? "serves" : "does not serve");
}

static void tell_counters(void *ctx, struct iom_counters *out) {
    struct host_counters c;
    loop_counters(((struct iom_daemon *)ctx)->d.l, &c);
    *out = (struct iom_counters){.msgs_in = c.msgs_in,
                                 .msgs_out = c.msgs_out,
                                 .net_bytes_in = c.net_bytes_in,
                                 .net_bytes_out = c.net_bytes_out,
                                 .syscalls = c.syscalls,
                                 .wakes = c.wakes,
                                 .disk_calls = c.disk_calls,
                                 .slow_turns = c.slow_turns,
                                 .longest_turn_ns = c.longest_turn_ns,
                                 .disk_writes = c.disk_writes,
                                 .disk_flushes = c.disk_flushes,
                                 .disk_bytes_written = c.disk_bytes_written};
}

static void on_stop_signal(void *arg) {
    struct iom_daemon *m = arg;
    if (m->stop_asked) return;
    m->stop_asked = true;
    LOG(loop_env(m->d.l), TRACE_INFO, "IOM %u is asked to stop", (unsigned)m->id);
    if (m->runs && m->start.iom) iom_ask_stop(m->start.iom);
}

// In the log too: who waits for the array reads there why it does not come.
static void tell_end(struct iom_daemon *m) {
    char text[800];
    const char *next = err_next(m->why), *why = m->d.error.text[0] ? m->d.error.text : err_text(m->why);
    snprintf(text, sizeof text, "%s%s", why, strstr(why, next) ? "" : next);
    LOG(loop_env(m->d.l), TRACE_ERROR, "%s", text);
    daemon_fail(&m->d, "IOM %u ended: %s", (unsigned)m->id, text);
}

static void iom_task(void *arg) {
    struct iom_daemon *m = arg;
    struct env *e = loop_env(m->d.l);
    if (co_store_fits(m) && !m->stop_asked) {
        m->runs = true;
        m->start = (struct iom_start){.env = e, .config = &m->config};
        env_spawn(e, "iom: readiness", co_tell_ready, m);
        iom_main(&m->start);
        m->runs = false;
        m->status = m->why || !m->stop_asked;
        if (m->status) tell_end(m);
        else LOG(e, TRACE_INFO, "IOM %u has stopped cleanly", (unsigned)m->id);
    }
    loop_stop(m->d.l);
}

// ---- arguments
static bool listens_privately(struct iom_daemon *m, bool insecure) {
    const char *at = m->config.listen;
    if (address_is_private(at)) return true;
    if (!insecure && !m->conf.insecure)
        return daemon_fail(&m->d,
                           "--listen %s is open to the network, and nodes do not authenticate each other yet: whoever "
                           "reaches it "
                           "has all data. Use a loopback address or unix:PATH, or add --insecure",
                           at),
               false;
    warn("IOM %u listens at %s: whoever reaches that address has all data", (unsigned)m->id, at);
    return true;
}

// Paths longer than the configuration of an IOM takes go by way of the open folder.
static bool path_fit(struct iom_daemon *m, const char *what, const char *path, char out[256]) {
    if (strlen(path) < 256) {
        snprintf(out, 256, "%.255s", path);
        return true;
    }
    char folder[PATH_MAX];
    path_make(folder, "%s", path);
    char *slash = strrchr(folder, '/');
    *slash = 0;
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC); // for the life of the process
    if (fd < 0) return daemon_fail(&m->d, "the %s %s cannot be opened: %s", what, path, strerror(errno)), false;
    snprintf(out, 256, "/proc/self/fd/%d/%.200s", fd, slash + 1);
    return true;
}

// What is dirty here and what is held for the others is each half of the rows' share at most.
static void cache_share(struct iom_daemon *m) {
    uint64_t bytes = m->conf.ioms ? m->conf.cache_bytes : CACHE_BYTES_DEFAULT;
    if (m->cache_bytes != UINT64_MAX) bytes = m->cache_bytes;
    uint64_t rows = bytes - bytes / 4;
    uint8_t others = m->conf.ioms ? MAX(m->conf.ioms - 1, 1) : ARRAY_IOMS_MAX - 1;
    m->config.store.cache_bytes = bytes / 4;
    m->config.rows.cache_bytes = rows;
    m->config.rows.credit_bytes = MIN(CREDIT_BYTES_MOST, rows / 2 / others);
}

static bool absolute(struct iom_daemon *m, const char *option, const char *path) {
    if (!path || (path[0] == '/' && strlen(path) < DIR_LEN_MAX)) return true;
    return daemon_fail(&m->d, "%s %.100s: an absolute path is needed", option, path), false;
}

// What the arguments say counts before what cluster.conf says; a store that is named brings no journal along.
static bool devices_set(struct iom_daemon *m, const struct devices *v) {
    const char *journal = v->journal ? v->journal : !v->store && m->conf.ioms ? m->conf.iom[m->id].journal : "";
    enum protects protects = m->conf.protects;
    if (!absolute(m, "--store", v->store) || !absolute(m, "--journal", v->journal)) return false;
    if (v->protects && !protects_parse(v->protects, &protects)) return false;
    if (protects == PROTECTS_JOURNAL && !journal[0])
        return daemon_fail(&m->d, "--power-protected journal: the journal lies inside the store, on the same device; say all"),
               false;
    if (v->store) path_make(m->store, "%s", v->store);
    else conf_store_path(&m->conf, (uint8_t)m->id, m->store);
    path_make(m->journal, "%s", journal);
    m->config.store_protected = protects == PROTECTS_STORE || protects == PROTECTS_ALL;
    m->config.journal_protected = protects == PROTECTS_JOURNAL || protects == PROTECTS_ALL;
    return path_fit(m, "store", m->store, m->config.disk_path) &&
           path_fit(m, "journal", m->journal, m->config.journal_path);
}

static bool times_set(struct iom_daemon *m) {
    uint64_t heartbeat_ms = m->heartbeat_ms ? m->heartbeat_ms : m->conf.heartbeat_ms;
    uint64_t silence_ms = m->silence_ms ? m->silence_ms : m->conf.silence_ms;
    char why[240];
    if (!times_fit(heartbeat_ms, silence_ms, why)) return daemon_fail(&m->d, "%s", why), false;
    m->config.heartbeat_ns = MSEC(heartbeat_ms);
    m->config.silence_ns = MSEC(silence_ms);
    m->config.stand_ins = true;
    return true;
}

static bool configure(struct iom_daemon *m, const struct devices *v, const char *listen) {
    if (m->conf.ioms && m->id >= m->conf.ioms)
        return daemon_fail(&m->d, "there is no IOM %u in %s: they are 0 to %u", (unsigned)m->id, m->conf.dir,
                           m->conf.ioms - 1),
               false;
    if (!m->conf.ioms && (!v->store || !listen))
        return daemon_fail(&m->d, "without a cluster.conf (--dir) both --store and --listen are needed"), false;
    if (!listen) listen = m->conf.iom[m->id].at;
    if (strlen(listen) >= sizeof m->config.listen)
        return daemon_fail(&m->d, "--listen %.120s is too long", listen), false;
    snprintf(m->config.listen, sizeof m->config.listen, "%s", listen);
    cache_share(m);
    m->config.ended = on_ended;
    m->config.serving = on_serving;
    m->config.counters = tell_counters;
    m->config.ctx = m;
    return times_set(m) && devices_set(m, v);
}

static int iom_daemon_run(struct iom_daemon *m) {
    if (!daemon_begin(&m->d, "iom", m->config.listen)) return 1;
    loop_on_signal(m->d.l, SIGTERM, on_stop_signal, m);
    loop_on_signal(m->d.l, SIGINT, on_stop_signal, m);
    m->status = 1;
    env_spawn(loop_env(m->d.l), "iom", iom_task, m);
    loop_run(m->d.l);
    daemon_end(&m->d);
    return m->status;
}

static bool conf_find(struct iom_daemon *m, const char *dir, bool alone) {
    if (!dir) return true;
    if (!dir_resolve(dir, m->d.dir)) return daemon_fail(&m->d, "the folder %.100s cannot be used", dir), false;
    if (alone && conf_load(m->d.dir, &m->conf) == CONF_NONE) return true;
    return conf_need(dir, &m->conf) || (daemon_fail(&m->d, "%s/cluster.conf cannot be used", m->d.dir), false);
}

static int iom_run(int argc, char **argv) {
    static struct iom_daemon m; // large, and the process's own
    const char *dir = NULL, *listen = NULL, *rest[1];
    struct devices v = {0};
    uint64_t ready_fd = UINT64_MAX;
    bool insecure = false;
    m.id = m.cache_bytes = UINT64_MAX; // not given
    const struct option_row options[] = {
        {"--dir", OPT_TEXT, &dir},
        {"--id", OPT_NUMBER, &m.id, 0, ARRAY_IOMS_MAX - 1},
        {"--store", OPT_TEXT, &v.store},
        {"--journal", OPT_TEXT, &v.journal},
        {"--power-protected", OPT_TEXT, &v.protects},
        {"--listen", OPT_TEXT, &listen},
        {"--cache", OPT_SIZE, &m.cache_bytes},
        {"--insecure", OPT_FLAG, &insecure},
        {"--heartbeat-ms", OPT_NUMBER, &m.heartbeat_ms, 1, TIME_MS_MAX},
        {"--silence-ms", OPT_NUMBER, &m.silence_ms, 1, TIME_MS_MAX},
        {"--ready-fd", OPT_NUMBER, &ready_fd, 3, 1023},
        {0},
    };
    if (!args_parse(&cmd_iom, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    m.d.lock_fd = -1;
    m.d.ready_fd = ready_fd == UINT64_MAX ? -1 : (int)ready_fd;
    if (m.d.ready_fd >= 0) fcntl(m.d.ready_fd, F_SETFD, FD_CLOEXEC);
    if (m.id == UINT64_MAX) return fail(EXIT_USAGE, "iom: --id is missing; usage: %s", cmd_iom.synopsis);
    snprintf(m.d.name, sizeof m.d.name, "iom-%u", (unsigned)m.id);
    if (m.cache_bytes != UINT64_MAX && !cache_fits(m.cache_bytes, 1)) return 1;
    if (!conf_find(&m, dir, v.store && listen) || !configure(&m, &v, listen) || !listens_privately(&m, insecure))
        return 1;
    return iom_daemon_run(&m);
}

const struct command cmd_iom = {
    "iom",
    "mendfs iom --dir DIR --id N [--store PATH] [--journal PATH] [--power-protected WHAT] [--listen AT] [--cache SIZE] [--heartbeat-ms N] [--silence-ms N] [--insecure]",
    "Runs one IOM in the foreground (for service managers)",
    "  --id N        its position in the array\n"
    "  --store PATH  instead of what DIR/cluster.conf says: a file or a block device; absolute\n"
    "  --journal PATH\n"
    "                the file or block device that its journal lies on, if the store was made with one; else what\n"
    "                DIR/cluster.conf says. With --store and without --journal the journal lies inside that store\n"
    "  --power-protected none|journal|store|all\n"
    "                which of the two keep every write that they have accepted when the power fails; these are not flushed.\n"
    "                Default: what DIR/cluster.conf says\n"
    "  --listen AT   like --store: unix:PATH or HOST:PORT. Without --insecure only Unix sockets and loopback addresses\n"
    "  --cache SIZE  what it keeps of its store in memory, 16M at least; default: what DIR/cluster.conf says, or 256M\n"
    "  --heartbeat-ms N, --silence-ms N\n"
    "                how often it tells the others that it is there, and how long one may be silent before the array goes on\n"
    "                without it; default: what DIR/cluster.conf says, or 100 and 1500. The silence is at least nine heartbeats.\n"
    "                They must be the same for all IOMs of an array: who is taken for failed must have ceased to serve by then\n"
    "  --ready-fd N  writes a line to that descriptor: \"ok\" once it runs and has its store open, else what went "
    "wrong\n\n"
    "SIGTERM and SIGINT stop it cleanly. SIGUSR1 writes to the log what each of its tasks waits for.\n",
    iom_run,
};
