// mendfs status, mendfs watch: how the cluster is, within a second, whatever is dead, hung or stopped: it asks all IOMs at once,
// waits 700 ms at most, reads /proc and the kernel's table of mounts, and touches neither stores nor mounts.
#include "cli/cli.h"
#include "cli/hosts.h"
#include "cli/mounts.h"
#include "cli/start.h"
#include "cli/tool.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWERS_LIMIT_NS MSEC(700)
#define ADDRESSES_LIMIT_NS MSEC(150) // of those, for one address of --at
#define WATCH_MS 1000

struct status {
    struct conf conf;       // --dir
    struct addresses at;
    struct iom_answer answer[ARRAY_IOMS_MAX];
    struct shown shown;
    pid_t pid[ARRAY_IOMS_MAX]; // 0: it does not run here
    struct proc *mx;
    uint32_t mx_len;
    const char *first;      // --at
    err why;                // nobody answered at `first`
};

// ---- gathering
static void co_learn_addresses_of(struct tool *t, struct status *s, const char *first) {
    struct call_opts o = {.deadline_ns = env_now_ns(t->e) + ADDRESSES_LIMIT_NS};
    struct cluster_map m;
    struct msg *reply;
    char at[160];
    s->why = host_resolve(t->e, first, at, sizeof at);
    if (s->why) return;
    s->why = co_call(hub_peer_at(t->hub, at), hub_msg(t->hub, MSG_GET_MAP, sizeof(struct envelope)), &o, &reply);
    if (s->why) return;
    s->why = reply->payload.len_bytes
                 ? cluster_map_decode(&m, slice_data(reply->payload), reply->payload.len_bytes, NULL)
                 : ERR_FORMAT;
    msg_free(reply);
    if (s->why) return;
    addresses_of_map(&m, &s->at);
}

// One address after the other, until an IOM there answers.
static void co_learn_addresses(struct tool *t, struct status *s) {
    char list[ARRAY_IOMS_MAX * 160], *save;
    snprintf(list, sizeof list, "%s", s->first);
    s->why = ERR_INVAL;
    for (char *at = strtok_r(list, ",", &save); at && s->why; at = strtok_r(NULL, ",", &save)) co_learn_addresses_of(t, s, at);
}

static void co_gather(struct tool *t) {
    struct status *s = t->arg;
    uint64_t deadline_ns = env_now_ns(t->e) + ANSWERS_LIMIT_NS;
    if (s->first) co_learn_addresses(t, s);
    co_ask_status(t, &s->at, deadline_ns, s->answer);
}

static void find_processes(struct status *s) {
    for (uint8_t i = 0; i < s->at.ioms; i++) {
        char name[32];
        struct proc p;
        snprintf(name, sizeof name, "iom-%u", i);
        if (!proc_find(s->conf.dir, name, &p)) continue;
        s->pid[i] = p.pid;
        proc_close(&p);
        if (s->shown.iom[i] == SHOWN_STOPPED && !s->answer[i].answered)
            s->shown.iom[i] = SHOWN_FAILED; // it runs and is mute
    }
    s->mx_len = proc_find_mx(s->conf.dir, s->mx, MX_MAX, true);
    for (uint32_t i = 0; i < s->mx_len; i++) proc_close(&s->mx[i]);
}

static void gather(struct status *s) {
    tool_run(s->conf.cluster, co_gather, s);
    show(&s->at, s->answer, &s->shown);
    if (!s->first) find_processes(s);
}

static int verdict(const struct status *s) {
    if (s->shown.array != ARRAY_RUNNING) return 2;
    return s->shown.up == s->shown.ioms ? 0 : 1;
}

// ---- as JSON
static json_t *or_null(pid_t pid) { return pid ? json_integer(pid) : json_null(); }

static json_t *numbers_json(const struct wire_status *w) {
    const struct { const char *name; le64 value; } numbers[] = {
        {"objects", w->objects},
        {"dirty_bytes", w->rows_dirty_bytes},
        {"cache_bytes", w->cache_limit_bytes},
        {"memory_bytes", w->mem_bytes},
        {"memory_spare_bytes", w->mem_spare_bytes},
        {"reads", w->reads},
        {"writes", w->writes},
        {"settled", w->settled},
        {"journal_bytes", w->journal_bytes},
        {"journal_flushes", w->journal_flushes},
        {"data_blocks_written", w->data_blocks_written},
        {"bad_blocks", w->bad_blocks},
        {"mended_blocks", w->mended_blocks},
        {"lost_blocks", w->lost_blocks},
        {"msgs_in", w->msgs_in},
        {"msgs_out", w->msgs_out},
        {"net_bytes_in", w->net_bytes_in},
        {"net_bytes_out", w->net_bytes_out},
        {"syscalls", w->syscalls},
        {"wakes", w->wakes},
        {"disk_calls", w->disk_calls},
        {"disk_writes", w->disk_writes},
        {"disk_flushes", w->disk_flushes},
        {"disk_bytes_written", w->disk_bytes_written},
        {"slow_turns", w->slow_turns},
        {"longest_turn_ns", w->longest_turn_ns},
    };
    json_t *j = json_pack("{s:I,s:I}", "store_bytes", (json_int_t)(le64_get(w->blocks_total) * BLOCK_BYTES),
                          "free_bytes", (json_int_t)(le64_get(w->blocks_free) * BLOCK_BYTES));
    json_object_set_new(j, "used_bytes", json_integer((json_int_t)(le64_get(w->blocks_used) * BLOCK_BYTES)));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        json_object_set_new(j, numbers[i].name, json_integer((json_int_t)le64_get(numbers[i].value)));
    return j;
}

static json_t *scrub_json(const struct wire_status *w) {
    const struct { const char *name; le64 value; } numbers[] = {
        {"done", w->scrub.done},       {"total", w->scrub.total}, {"rows", w->scrub.rows},
        {"bytes", w->scrub.bytes},     {"rate", w->scrub.rate},   {"found", w->scrub.found},
        {"repaired", w->scrub.mended}, {"lost", w->scrub.lost},   {"skipped", w->scrub.skipped},
    };
    json_t *j = json_pack("{s:b}", "running", w->scrub.running);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        json_object_set_new(j, numbers[i].name, json_integer((json_int_t)le64_get(numbers[i].value)));
    return j;
}

static const char *protected_name(const struct wire_status *w) {
    enum protects p = PROTECTS_NONE;
    if (w->protected & WIRE_PROTECTED_JOURNAL) p = PROTECTS_JOURNAL;
    if (w->protected & WIRE_PROTECTED_STORE) p = p ? PROTECTS_ALL : PROTECTS_STORE;
    return protects_name(p);
}

static json_t *rebuild_json(const struct status *s, uint8_t i) {
    const struct wire_status *w = &s->answer[i].s;
    bool builds = s->answer[i].answered && s->shown.iom[i] == SHOWN_REBUILDING;
    return json_pack("{s:I, s:I}", "done", (json_int_t)(builds ? le64_get(w->missing_done) : 0), "total",
                     (json_int_t)(builds ? le64_get(w->missing_total) : 0));
}

static json_t *iom_json(const struct status *s, uint8_t i) {
    const struct iom_answer *a = &s->answer[i];
    uint8_t by = s->shown.stand_in[i];
    json_t *j = json_pack("{s:i, s:o, s:s, s:o, s:o, s:s, s:s?, s:i, s:b}", "id", i, "pid", or_null(s->pid[i]),
                          "state", iom_shown_name(s->shown.iom[i]), "stand_in", by == NO_IOM ? json_null() : json_integer(by),
                          "rebuild", rebuild_json(s, i), "at", s->at.at[i], "host", s->at.host[i][0] ? s->at.host[i] : NULL,
                          "proxy", proxy_of(&s->at.shape, (iom_id){i}).n, "answers",
                          a->answered);
    if (!a->answered) return j;
    json_object_set_new(j, "incarnation", json_integer((json_int_t)le64_get(a->s.incarnation)));
    json_object_set_new(j, "journal", json_string(a->s.journal_apart ? "apart" : "inside"));
    json_object_set_new(j, "power_protected", json_string(protected_name(&a->s)));
    json_t *numbers = numbers_json(&a->s);
    json_object_update(j, numbers);
    json_decref(numbers);
    json_object_set_new(j, "scrub", scrub_json(&a->s));
    return j;
}

static void print_json(const struct status *s) {
    json_t *ioms = json_array(), *mx = json_array();
    for (uint8_t i = 0; i < s->at.ioms; i++) json_array_append_new(ioms, iom_json(s, i));
    for (uint32_t i = 0; i < s->mx_len; i++)
        json_array_append_new(
            mx, json_pack("{s:s, s:i, s:s}", "kind", s->mx[i].kind, "pid", (int)s->mx[i].pid, "at", s->mx[i].at));
    char warning[HOSTS_WARNING_BYTES];
    json_t *j = json_pack("{s:I, s:s, s:I, s:o, s:o, s:i, s:s?}", "epoch", (json_int_t)s->shown.epoch, "state",
                          array_state_name(s->shown.array), "recoveries", (json_int_t)s->shown.recoveries, "ioms", ioms,
                          "mx", mx, "hosts", array_hosts(&s->at.shape), "hosts_warning", hosts_warning(&s->at, warning));
    ASSERT(j);
    json_dumpf(j, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(j);
}

// ---- for people
static void amount(uint64_t bytes, char out[24]) {
    static const char units[] = "BKMGTP";
    double n = (double)bytes;
    size_t u = 0;
    for (; n >= 1024 && u < sizeof units - 2; u++) n /= 1024;
    snprintf(out, 24, u && n < 10 ? "%.1f%c" : "%.0f%c", n, units[u]);
}

static void print_iom(const struct status *s, uint8_t i) {
    const struct iom_answer *a = &s->answer[i];
    char used[24], total[24], store[56] = "-", cache[24] = "-", pid[16] = "-";
    if (a->answered && le64_get(a->s.blocks_total)) {
        amount(le64_get(a->s.blocks_used) * BLOCK_BYTES, used);
        amount(le64_get(a->s.blocks_total) * BLOCK_BYTES, total);
        snprintf(store, sizeof store, "%s of %s", used, total);
    }
    if (a->answered) size_text(le64_get(a->s.cache_limit_bytes), cache);
    if (s->pid[i]) snprintf(pid, sizeof pid, "%d", (int)s->pid[i]);
    printf("%3u  %-8s %-10s %-12s %5u  %-16s %-6s %s\n", i, pid, iom_shown_name(s->shown.iom[i]), s->at.host[i][0] ? s->at.host[i] : "-",
           proxy_of(&s->at.shape, (iom_id){i}).n, store, cache, s->at.at[i]);
}

static void print_rebuild(const struct status *s, uint8_t i) {
    const struct wire_status *w = &s->answer[i].s;
    uint64_t done = le64_get(w->missing_done), total = le64_get(w->missing_total), ms = le64_get(w->building_ms);
    char rate[24], left[40] = "";
    if (!s->answer[i].answered || s->shown.iom[i] != SHOWN_REBUILDING) return;
    if (!total) {
        printf("IOM %u rebuilds what it missed: counting\n", i);
        return;
    }
    uint64_t per_s = done * 1000 / MAX(ms, 1);
    amount(per_s * BLOCK_BYTES, rate);
    if (per_s) snprintf(left, sizeof left, ", %llu s left", (unsigned long long)((total - done + per_s - 1) / per_s));
    printf("IOM %u rebuilds what it missed: %llu%% of %llu blocks, %s/s%s\n", i, (unsigned long long)(done * 100 / total),
           (unsigned long long)total, rate, left);
}

static void print_absent(const struct status *s, uint8_t i) {
    uint8_t by = s->shown.stand_in[i];
    if (by != NO_IOM)
        printf("IOM %u is away: IOM %u stands in for it%s\n", i, by,
               !s->first && !s->pid[i] ? "; start it again with: mendfs up" : "");
    print_rebuild(s, i);
}

// One line, and one more for each IOM that has it otherwise: what was set anew counts from its next start.
static void print_devices(const struct status *s) {
    const struct wire_status *first = NULL;
    for (uint8_t i = 0; i < s->at.ioms; i++) {
        const struct wire_status *w = &s->answer[i].s;
        if (!s->answer[i].answered || !le64_get(w->incarnation)) continue;
        if (first && w->journal_apart == first->journal_apart && w->protected == first->protected) continue;
        if (first) printf("IOM %u: ", i);
        else first = w;
        printf("journal %s, power-protected: %s\n", w->journal_apart ? "on a device of its own" : "inside the store",
               protected_name(w));
    }
}

static void print_table(const struct status *s) {
    static const char *const verdicts[] = {"healthy", "degraded", "not serving"};
    char warning[HOSTS_WARNING_BYTES];
    printf("IOM  pid      state      host         proxy  store used       cache  address\n");
    for (uint8_t i = 0; i < s->at.ioms; i++) print_iom(s, i);
    print_devices(s);
    for (uint8_t i = 0; i < s->at.ioms; i++) print_absent(s, i);
    if (hosts_warning(&s->at, warning)) printf("hosts: %s\n", warning);
    for (uint32_t i = 0; i < s->mx_len; i++) printf("mount  pid %d  %s\n", (int)s->mx[i].pid, s->mx[i].at);
    if (!s->mx_len && !s->first)
        printf("mount  none: what is written to %s now stays on this machine's disk; mount it with: mendfs up\n", s->conf.mount);
    printf("%s: the array is %s, epoch %llu, %u of %u IOMs up, %u mounts\n", verdicts[verdict(s)],
           array_state_name(s->shown.array), (unsigned long long)s->shown.epoch, s->shown.up, s->at.ioms, s->mx_len);
}

// ---- the commands
static volatile sig_atomic_t watch_over;
static void on_signal(int signo) { watch_over = signo; }

static int watch_run(int argc, char **argv) {
    static struct status s; // large
    const char *dir = NULL, *rest[1];
    const struct option_row options[] = {{"--dir", OPT_TEXT, &dir}, {0}};
    struct conf conf;
    if (!args_parse(&cmd_watch, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    if (!conf_need(dir, &conf)) return 2;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    struct proc *mx = calloc(MX_MAX, sizeof *mx);
    ASSERT(mx);
    while (!watch_over) {
        uint64_t began_ms = now_ms();
        memset(&s, 0, sizeof s);
        s.conf = conf;
        s.mx = mx;
        addresses_of(&s.conf, &s.at);
        gather(&s);
        if (isatty(1)) printf("\033[H\033[J");
        print_table(&s);
        if (fflush(stdout)) break; // nobody looks any more
        poll(NULL, 0, (int)(WATCH_MS - MIN(now_ms() - began_ms, WATCH_MS)));
    }
    int status = verdict(&s);
    free(mx);
    return status;
}

const struct command cmd_watch = {
    "watch", "mendfs watch [--dir DIR]", "Shows the status again every second, until it is interrupted",
    "Exit status: that of the last status shown.\n", watch_run,
};

static int status_run(int argc, char **argv) {
    static struct status s; // large
    const char *dir = NULL, *rest[1];
    bool json = false;
    const struct option_row options[] = {
        {"--dir", OPT_TEXT, &dir}, {"--at", OPT_TEXT, &s.first}, {"--json", OPT_FLAG, &json}, {0}};
    if (!args_parse(&cmd_status, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    if (dir && s.first) return fail(EXIT_USAGE, "status: --dir and --at exclude each other");
    if (!s.first && !conf_need(dir, &s.conf)) return 2;
    addresses_of(&s.conf, &s.at);
    s.mx = calloc(MX_MAX, sizeof *s.mx);
    ASSERT(s.mx);
    gather(&s);
    int status = verdict(&s);
    if (s.first && s.why) status = fail(2, "no IOM answers at %s: %s; is it that address, and does the IOM run there?", s.first, err_text(s.why));
    else if (json) print_json(&s);
    else print_table(&s);
    free(s.mx);
    return status;
}

const struct command cmd_status = {
    "status",
    "mendfs status [--dir DIR | --at AT[,AT...]] [--json]",
    "Tells the state of the array, its IOMs and mounts; within a second",
    "  --at AT       asks the IOM at HOST:PORT or unix:PATH (the first that answers, of several) instead of reading DIR;\n"
    "                processes and mounts are not known then\n"
    "  --json        for programs: {\"epoch\", \"state\": running|stopped|recovering, \"ioms\": [{\"id\", \"pid\", "
    "\"state\":\n"
    "                up|failed|returning|rebuilding|stopped, \"host\", \"proxy\", \"stand_in\", \"rebuild\": {\"done\", \"total\"}, ...}],\n"
    "                \"mx\": [{\"kind\", \"pid\", \"at\"}], \"hosts\", \"hosts_warning\"}. stand_in: who stands in for it now; proxy: who would;\n"
    "                host: the machine it is on; hosts_warning: what the death of one would do beyond that of an IOM, or null. pid is null unless that very process runs; epoch is 0 while nobody can tell "
    "it\n\n"
    "Exit status: 0 healthy, 1 degraded (it serves, an IOM is not up), 2 stopped or recovering (it does not serve "
    "now).\n",
    status_run,
};
