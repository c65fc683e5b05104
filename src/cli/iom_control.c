// mendfs start-iom, mendfs stop-iom: one IOM of a cluster on this machine.
#include "cli/cli.h"
#include "cli/start.h"

#include <stdio.h>
#include <unistd.h>

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

int iom_command_begin(const struct command *cmd, int argc, char **argv, struct conf *c, uint8_t *id) {
    const char *dir = NULL, *which;
    const struct option_row options[] = {{"--dir", OPT_TEXT, &dir}, {0}};
    if (!args_parse(cmd, argc, argv, options, &which, 1, 1)) return -EXIT_USAGE;
    if (!conf_need(dir, c)) return -1;
    if (!id_parse(which, c, id)) return -EXIT_USAGE;
    return dir_lock(c->dir);
}

static int start_run(int argc, char **argv) {
    struct conf c;
    uint8_t id;
    struct started s;
    int lock_fd = iom_command_begin(&cmd_start_iom, argc, argv, &c, &id);
    if (lock_fd < 0) return -lock_fd;
    ioms_start(&c, 1u << id, now_ms() + START_LIMIT_MS, &s);
    int status = 0;
    if (!s.proc[id].pid) status = fail(1, "IOM %u does not run: %s", id, s.why[id]);
    else say("IOM %u runs%s (pid %d)", id, s.fresh[id] ? "" : " already", (int)s.proc[id].pid);
    started_close(&s);
    close(lock_fd);
    return status;
}

static int stop_run(int argc, char **argv) {
    struct conf c;
    uint8_t id;
    int lock_fd = iom_command_begin(&cmd_stop_iom, argc, argv, &c, &id);
    if (lock_fd < 0) return -lock_fd;
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
    "mendfs stop-iom ID [--dir DIR]",
    "Stops one IOM cleanly",
    "The array goes on without it as far as it can, with nothing to spare; `mendfs start-iom ID` brings it back.\n",
    stop_run,
};
