// mendfs down: unmounts, then stops the IOMs. It needs nothing from the array, which may be stopped or hang: it knows
// the daemons by their pid files and the mounts by the kernel's table.
#include "cli/tool.h"
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/start.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNMOUNT_LIMIT_MS 10000u

struct down {
    const char *dir;
    bool force;
    struct proc *mx; // those that run
    uint32_t mx_len, mounts, busy;
};

static struct proc *mx_of(struct down *d, const char *at) {
    for (uint32_t i = 0; i < d->mx_len; i++)
        if (!strcmp(d->mx[i].at, at) && !proc_ended(&d->mx[i])) return &d->mx[i];
    return NULL;
}

static void tell_busy(struct down *d, const char *at) {
    char users[400];
    mount_users(at, users, sizeof users);
    warn("%s is busy%s%s; end that, or detach it with: mendfs down --force", at, users[0] ? ", used by " : ": ",
         users[0] ? users : "somebody works in it");
    d->busy++;
}

// An unmount that hangs waits for the array, by its MX: without that MX it ends.
static void unmount_hung(struct down *d, const char *at) {
    struct proc *p = mx_of(d, at);
    warn("%s does not let itself be unmounted within %u s; it is detached and its daemon killed", at,
         UNMOUNT_LIMIT_MS / 1000);
    if (p) proc_kill(p, SIGKILL);
    unmount_now(at, true, UNMOUNT_LIMIT_MS);
}

static void unmount(struct down *d, const char *at) {
    int eno = unmount_now(at, !mx_of(d, at), UNMOUNT_LIMIT_MS); // a dead one is detached
    if (eno == EBUSY && d->force) {
        warn("%s is busy and is detached", at);
        eno = unmount_now(at, true, UNMOUNT_LIMIT_MS);
    }
    struct mount_entry e;
    if (eno == ETIMEDOUT) unmount_hung(d, at);
    else if (eno == EBUSY) tell_busy(d, at);
    else if (eno && mount_find(at, &e)) {
        warn("%s cannot be unmounted: %s; try: umount -l %s", at, strerror(eno), at);
        d->busy++;
    }
}

static void unmount_all(struct down *d, const char *source) {
    struct mount_entry *list = calloc(MX_MAX, sizeof *list);
    ASSERT(list);
    uint32_t n = mount_find_all(source, list, MX_MAX);
    for (uint32_t i = 0; i < n; i++) unmount(d, list[i].at);
    d->mounts += n;
    free(list);
}

static void mx_end(struct down *d) {
    struct mount_entry e;
    for (uint32_t i = 0; i < d->mx_len; i++) {
        struct proc *p = &d->mx[i];
        if (mount_find(p->at, &e) && !d->force && d->busy) continue; // it goes on
        if (!proc_wait(p, 1, 2000)) proc_kill(p, SIGTERM);           // it ends by itself when it is unmounted
        if (proc_wait(p, 1, UNMOUNT_LIMIT_MS)) {
            pid_file_remove(d->dir, p->name);
            continue;
        }
        warn("%s (pid %d) of %s did not end and is killed", p->name, (int)p->pid, p->at);
        proc_kill(p, SIGKILL);
        if (proc_wait(p, 1, 5000)) pid_file_remove(d->dir, p->name);
    }
}

// Before the IOMs end all that they hold is put where it belongs, while each still has the others: two rounds, for what one tells another in the first.
struct settling {
    struct tool *t;
    const struct conf *c;
    uint8_t iom, stand_in;
    struct group *all;
};
static void co_settle_iom(void *arg) {
    struct settling *s = arg;
    struct msg *q = hub_msg(s->t->hub, MSG_CONTROL, sizeof(struct req_control)), *reply;
    ((struct req_control *)q->body)->op = CONTROL_SYNC;
    struct call_opts o = {.deadline_ns = env_now_ns(s->t->e) + SEC(10)};
    char at[108];
    answers_at(s->c, s->iom, s->stand_in, at);
    err e = co_call(hub_peer(s->t->hub, (iom_id){s->iom}, at), q, &o, &reply);
    msg_free(reply);
    group_done(s->t->e, s->all, e);
}

static void co_settle_all(struct tool *t) {
    const struct conf *c = t->arg;
    struct addresses at;
    struct iom_answer answers[ARRAY_IOMS_MAX];
    struct shown shown;
    addresses_of(c, &at);
    co_ask_status(t, &at, env_now_ns(t->e) + SEC(1), answers);
    show(&at, answers, &shown);
    if (shown.array != ARRAY_RUNNING) return; // the next start settles it
    for (uint32_t round = 0; round < 2; round++) {
        struct settling s[ARRAY_IOMS_MAX];
        struct group all;
        group_init(&all);
        for (uint8_t i = 0; i < c->ioms; i++) {
            if (shown.stand_in[i] == NO_IOM && !answers[i].answered) continue; // hung, or just gone
            s[i] = (struct settling){t, c, i, shown.stand_in[i], &all};
            group_add(&all);
            env_spawn(t->e, "down: one IOM", co_settle_iom, &s[i]);
        }
        if (co_group_wait(t->e, &all, "down: all is settled")) return; // it is stopped or hung: the next start settles it
    }
}

static int down(struct down *d, const struct conf *c) {
    char source[32];
    source_of(c, source);
    if (c->ioms) unmount_all(d, source);
    mx_end(d);
    if (d->busy)
        return fail(1, "not stopped: %u of %u mounts could not be unmounted; the reasons stand above", d->busy,
                    d->mounts);
    if (c->ioms) tool_run(c->cluster, co_settle_all, (void *)(uintptr_t)c);
    uint32_t ended, killed = ioms_stop(d->dir, ~0u, &ended);
    socket_dirs_remove(c);
    if (!ended && !d->mx_len && !d->mounts) say("stopped already: nothing of %s runs", d->dir);
    else
        say("stopped: %u IOMs and %u mounts%s", ended, MAX(d->mounts, d->mx_len),
            killed ? "; some had to be killed, see above" : "");
    return 0;
}

static bool is_used(const char *dir) { // by whatever mendfs started there
    char path[PATH_MAX];
    path_make(path, "%s/lock", dir);
    return access(path, F_OK) == 0;
}

static int down_run(int argc, char **argv) {
    const char *dir_option = NULL, *rest[1];
    struct down d = {0};
    char dir[PATH_MAX];
    struct conf c;
    const struct option_row options[] = {{"--dir", OPT_TEXT, &dir_option}, {"--force", OPT_FLAG, &d.force}, {0}};
    if (!args_parse(&cmd_down, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    if (!dir_resolve(dir_option, dir)) return 1;
    if (!is_used(dir)) {
        say("stopped already: there is no cluster in %s", dir);
        return 0;
    }
    int lock_fd = dir_lock(dir);
    if (lock_fd < 0) return 1;
    if (conf_load(dir, &c) == CONF_BAD) warn("the daemons are found by their pid files alone");
    d.dir = dir;
    d.mx = calloc(MX_MAX, sizeof *d.mx);
    ASSERT(d.mx);
    d.mx_len = proc_find_mx(dir, d.mx, MX_MAX, true);
    int status = down(&d, &c);
    for (uint32_t i = 0; i < d.mx_len; i++) proc_close(&d.mx[i]);
    free(d.mx);
    close(lock_fd);
    return status;
}

const struct command cmd_down = {
    "down",
    "mendfs down [--dir DIR] [--force]",
    "Unmounts everything and stops the IOMs cleanly; the data stays",
    "  --force       detaches a mount that is in use; without it such a mount is named and nothing stops\n\n"
    "It works while the array is stopped or hangs. A daemon that does not end in time is killed, and `down` says so: "
    "nothing\n"
    "that was promised is lost by that, the next start recovers. Exit status 0 also if nothing ran.\n",
    down_run,
};
