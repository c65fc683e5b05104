// mendfs start-iom, mendfs stop-iom: one IOM of a cluster on this machine.
#include "cli/cli.h"
#include "cli/start.h"
#include "cli/tool.h"

#include <stdio.h>
#include <unistd.h>

#define CHANGE_LIMIT_MS 3000u // a change of the members takes longer only if nobody is left to go on

static bool id_parse(const char *text, const struct conf *c, uint8_t *id) {
    unsigned n;
    int end = 0;
    if (sscanf(text, "%3u%n", &n, &end) == 1 && !text[end] && n < c->ioms) {
        *id = (uint8_t)n;
        return true;
    }
    fail(EXIT_USAGE, "there is no IOM %s in %s: they are 0 to %u", text, c->dir, c->ioms - 1);
    return false;
}

// The cluster, the IOM, the lock; a negative descriptor: has said why not. Without `force` there is no --force.
int iom_command_begin(const struct command *cmd, int argc, char **argv, struct conf *c, uint8_t *id, bool *force) {
    const char *dir = NULL, *which;
    const struct option_row options[] = {{"--dir", OPT_TEXT, &dir}, {force ? "--force" : NULL, OPT_FLAG, force}, {0}};
    if (!args_parse(cmd, argc, argv, options, &which, 1, 1)) return -EXIT_USAGE;
    if (!conf_need(dir, c)) return -1;
    if (!id_parse(which, c, id)) return -EXIT_USAGE;
    return dir_lock(c->dir);
}

static int start_run(int argc, char **argv) {
    struct conf c;
    uint8_t id;
    struct started s;
    int lock_fd = iom_command_begin(&cmd_start_iom, argc, argv, &c, &id, NULL);
    if (lock_fd < 0) return -lock_fd;
    ioms_start(&c, 1u << id, now_ms() + START_LIMIT_MS, &s);
    int status = 0;
    if (!s.proc[id].pid) status = fail(1, "IOM %u does not run: %s", id, s.why[id]);
    else say("IOM %u runs%s (pid %d)", id, s.fresh[id] ? "" : " already", (int)s.proc[id].pid);
    started_close(&s);
    close(lock_fd);
    return status;
}

// ---- stopping one
struct sparing {
    const struct conf *c;
    struct shown shown;
};

// What is on its way from one epoch to the next is given a moment: which IOMs it goes on with shows only then.
static void co_look(struct tool *t) {
    struct sparing *s = t->arg;
    struct addresses a;
    struct iom_answer answers[ARRAY_IOMS_MAX];
    uint64_t until_ns = env_now_ns(t->e) + MSEC(CHANGE_LIMIT_MS);
    addresses_of(s->c, &a);
    while (true) {
        co_ask_status(t, &a, env_now_ns(t->e) + MSEC(700), answers);
        show(&a, answers, &s->shown);
        if (!s->shown.any || s->shown.array == ARRAY_RUNNING || env_now_ns(t->e) >= until_ns) return;
        co_sleep_until(t->e, env_now_ns(t->e) + MSEC(20), "stop-iom: until the array runs");
    }
}

static bool refuse_beside(uint8_t id, uint8_t other, enum iom_shown state) {
    char start[80] = "";
    if (state == SHOWN_FAILED) snprintf(start, sizeof start, "start that one first (mendfs start-iom %u) and ", other);
    return fail(0,
                "IOM %u is not stopped: IOM %u is %s, and without both the array stops and all clients wait; %swait until `mendfs status` "
                "says healthy, or add --force",
                id, other, iom_shown_name(state), start);
}

// The array runs without one IOM, not without two; one that is stopped already loses nothing by it. Says why not.
static bool can_spare(const struct conf *c, uint8_t id) {
    struct sparing s = {.c = c};
    tool_run(c->cluster, co_look, &s);
    if (s.shown.array == ARRAY_RECOVERING)
        return fail(0, "IOM %u is not stopped: the array is recovering; wait until `mendfs status` says healthy, or add --force", id);
    for (uint8_t i = 0; s.shown.array == ARRAY_RUNNING && i < c->ioms; i++)
        if (i != id && s.shown.iom[i] != SHOWN_UP) return refuse_beside(id, i, s.shown.iom[i]);
    return true;
}

static int stop_run(int argc, char **argv) {
    struct conf c;
    uint8_t id;
    bool force = false;
    int lock_fd = iom_command_begin(&cmd_stop_iom, argc, argv, &c, &id, &force);
    if (lock_fd < 0) return -lock_fd;
    if (!force && iom_runs(&c, id) && !can_spare(&c, id)) {
        close(lock_fd);
        return 1;
    }
    uint32_t ended, killed = ioms_stop(c.dir, 1u << id, &ended);
    if (killed) say("IOM %u was killed, as it did not end in time", id);
    else say("IOM %u %s", id, ended ? "is stopped" : "does not run");
    close(lock_fd);
    return 0;
}

const struct command cmd_start_iom = {
    "start-iom", "mendfs start-iom ID [--dir DIR]", "Starts one IOM; returns once it runs",
    "0 also if it runs already. Whether it serves depends on the others too: see `mendfs status`.\n", start_run,
};
const struct command cmd_stop_iom = {
    "stop-iom",
    "mendfs stop-iom ID [--dir DIR] [--force]",
    "Stops one IOM cleanly",
    "  --force       also while another IOM is away, returns or rebuilds: then the array stops, and clients wait\n\n"
    "The array goes on without it, with nothing to spare; `mendfs start-iom ID` brings it back. While another IOM is not whole the\n"
    "array cannot do without this one, and it is not stopped.\n",
    stop_run,
};
