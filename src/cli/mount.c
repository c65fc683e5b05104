// mendfs mount: an MX with the FUSE face, as a daemon, or in the foreground.
//
//   starting --array runs, mounted--> serving --umount by hand, or SIGTERM: a child unmounts--> ending --> gone
//
// The MX never unmounts by itself in its own thread: the kernel may first want to write back what is dirty, through
// this very MX. A busy mount is detached at SIGTERM: the one who stops it is a service manager; `mendfs down` asks
// first.
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/start.h"
#include "cli/tool.h"
#include "fuse/fuse.h"
#include "mx/mx.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct mount_args {
    const char *dir, *o;
    uint64_t number, ready_fd;
    bool foreground, nonempty;
    uint64_t eio_after_s;
    bool writeback, allow_other;
};

struct mount_daemon {
    struct node_daemon d;
    struct conf conf;
    struct mount_args args;
    char at[PATH_MAX], source[32];
    struct mx *mx;
    struct fuse_face *face;
    struct mx_op starting;
    bool stop_asked, detached, ended;
    struct waitq changed;
    pid_t unmounter;
    int unmounter_fd;
    struct watch *unmounter_watch;
    int status;
};

// ---- ending
static void note_change(struct mount_daemon *m) { waitq_wake_all(loop_env(m->d.l), &m->changed); }

static void on_unmounted(void *arg) {
    struct mount_daemon *m = arg;
    m->ended = true;
    note_change(m);
}

static void unmount_try(struct mount_daemon *m, bool detach);

static void on_unmounter_ended(void *arg, uint32_t events) {
    struct mount_daemon *m = arg;
    int status = 0;
    waitpid(m->unmounter, &status, 0);
    loop_unwatch(m->unmounter_watch);
    close(m->unmounter_fd);
    m->unmounter = 0;
    int eno = unmount_result(status);
    if (eno == EBUSY && !m->detached) {
        LOG(loop_env(m->d.l), TRACE_WARN,
            "%s is busy and is detached: who has files open there gets errors from now on", m->at);
        unmount_try(m, true);
        return;
    }
    if (eno) LOG(loop_env(m->d.l), TRACE_WARN, "%s cannot be unmounted: %s", m->at, strerror(eno));
    m->ended = true; // gone from the names, or it will be dead: the daemon ends either way
    note_change(m);
}

static void unmount_try(struct mount_daemon *m, bool detach) {
    m->detached = detach;
    m->unmounter = unmount_begin(m->at, detach);
    m->unmounter_fd = m->unmounter > 0 ? (int)syscall(SYS_pidfd_open, m->unmounter, 0) : -1;
    if (m->unmounter_fd >= 0 &&
        loop_watch(m->d.l, m->unmounter_fd, EPOLLIN, on_unmounter_ended, m, &m->unmounter_watch) == OK)
        return;
    LOG(loop_env(m->d.l), TRACE_ERROR, "%s cannot be unmounted: %s", m->at, strerror(errno));
    m->ended = true;
    note_change(m);
}

static void on_stop_signal(void *arg) {
    struct mount_daemon *m = arg;
    if (m->stop_asked) return;
    m->stop_asked = true;
    LOG(loop_env(m->d.l), TRACE_INFO, "asked to stop: unmounting %s", m->at);
    if (m->face) unmount_try(m, false);
    else mx_cancel(m->mx, &m->starting);
}

// Requests that wait for a stopped array do not end; they go with the process.
static void co_finish(struct mount_daemon *m) {
    struct env *e = loop_env(m->d.l);
    uint64_t until_ns = env_now_ns(e) + SEC(1);
    while (fuse_face_busy(m->face) && env_now_ns(e) < until_ns)
        co_sleep_until(e, env_now_ns(e) + MSEC(5), "mount: last requests");
    bool idle = !fuse_face_busy(m->face);
    co_mx_stop(m->mx);
    if (!idle) return;
    fuse_face_destroy(m->face);
    mx_destroy(m->mx);
}

// ---- its life
// A new array's top folder is root's, and only root may give it away: in the cluster of an ordinary user it becomes
// his.
static void co_own_root(struct mount_daemon *m) {
    struct mx_setattr s = {.valid = SETATTR_UID | SETATTR_GID, .uid = geteuid(), .gid = getegid()};
    struct attr a;
    struct mx_op ask = {0}, give = {0};
    if (geteuid() == 0 || co_mx_getattr(m->mx, &ask, handle_root(), &a) || a.uid != 0) return;
    err e = co_mx_setattr(m->mx, &give, handle_root(), &s, &a);
    if (e) LOG(loop_env(m->d.l), TRACE_WARN, "the top folder stays root's: %s", err_text(e));
}

static bool co_begin(struct mount_daemon *m) {
    err e = co_mx_start(m->mx, &m->starting);
    if (e || m->stop_asked) {
        if (m->stop_asked) daemon_fail(&m->d, "stopped before the array ran");
        else daemon_fail(&m->d, "the array cannot be used: %s%s", err_text(e), err_next(e));
        return false;
    }
    co_own_root(m);
    struct fuse_options o = {.mountpoint = m->at,
                             .source = m->source,
                             .allow_other = m->args.allow_other || geteuid() == 0,
                             .writeback = m->args.writeback,
                             .ended = on_unmounted,
                             .arg = m};
    e = fuse_face_start(m->d.l, m->mx, &o, &m->face);
    if (!e) return true;
    daemon_fail(&m->d, "%s", m->d.error.text[0] ? m->d.error.text : err_text(e));
    return false;
}

static void mount_task(void *arg) {
    struct mount_daemon *m = arg;
    struct env *e = loop_env(m->d.l);
    m->status = 1;
    if (co_begin(m)) {
        LOG(e, TRACE_INFO, "mounted at %s: pid %d", m->at, (int)getpid());
        daemon_ready(&m->d);
        if (m->stop_asked && !m->unmounter) unmount_try(m, false);
        while (!m->ended) co_wait(e, &m->changed, "mount: until it is unmounted");
        co_finish(m);
        LOG(e, TRACE_INFO, "unmounted from %s", m->at);
        m->status = 0;
    }
    loop_stop(m->d.l);
}

static struct mx *mx_make(struct mount_daemon *m) {
    struct mx_config c = {.array_ioms = m->conf.ioms, .eio_after_ns = SEC(m->args.eio_after_s)};
    memcpy(c.cluster, m->conf.cluster, 16);
    for (uint8_t i = 0; i < m->conf.ioms; i++) memcpy(c.at[i], m->conf.iom[i].at, sizeof c.at[i]);
    return mx_create(loop_env(m->d.l), &c);
}

// The first free number, unless one is given. Its lock is kept.
static bool number_take(struct mount_daemon *m) {
    bool given = m->args.number != UINT64_MAX;
    for (uint64_t n = given ? m->args.number : 0; n < MX_MAX && m->d.lock_fd < 0; n++) {
        snprintf(m->d.name, sizeof m->d.name, "mx-%u", (unsigned)n);
        m->d.lock_fd = run_lock(m->d.dir, m->d.name);
        if (given) break;
    }
    if (m->d.lock_fd < 0)
        daemon_fail(&m->d, "%s/run/%s.lock cannot be taken: %s", m->d.dir, m->d.name, strerror(errno));
    return m->d.lock_fd >= 0;
}

static int mount_daemon_run(struct mount_daemon *m) {
    path_make(m->d.dir, "%s", m->conf.dir);
    source_of(&m->conf, m->source);
    if (!number_take(m) || !daemon_begin(&m->d, "fuse", m->at)) return 1;
    waitq_init(&m->changed);
    m->mx = mx_make(m);
    loop_on_signal(m->d.l, SIGTERM, on_stop_signal, m);
    loop_on_signal(m->d.l, SIGINT, on_stop_signal, m);
    env_spawn(loop_env(m->d.l), "mount", mount_task, m);
    loop_run(m->d.l);
    daemon_end(&m->d);
    return m->status;
}

// ---- arguments
static bool take_suboption(struct mount_args *a, char *o) {
    uint64_t n;
    int end = 0;
    if (!strcmp(o, "writeback")) a->writeback = true;
    else if (!strcmp(o, "allow_other")) a->allow_other = true;
    else if (sscanf(o, "eio-after=%lu%n", &n, &end) == 1 && !o[end] && n && n < 1000000000) a->eio_after_s = n;
    else {
        fail(EXIT_USAGE, "-o %s is not known; there are eio-after=SECONDS, writeback, allow_other", o);
        return false;
    }
    return true;
}

static bool suboptions_parse(struct mount_args *a) {
    char text[256];
    if (!a->o) return true;
    if (strlen(a->o) >= sizeof text) return fail(0, "-o %.60s...: too long; there are eio-after=SECONDS, writeback, allow_other", a->o);
    snprintf(text, sizeof text, "%s", a->o);
    for (char *save, *o = strtok_r(text, ",", &save); o; o = strtok_r(NULL, ",", &save))
        if (!take_suboption(a, o)) return false;
    return true;
}

static int mount_begin(struct mount_daemon *m) {
    if (!mount_point_check(&m->conf, m->at, m->args.nonempty)) return 1;
    switch (mount_point_prepare(&m->conf, m->at, false, m->args.nonempty)) {
    case MOUNT_POINT_BAD: return 1;
    case MOUNT_POINT_SERVED: return fail(1, "%s is mounted already, and answers: nothing is to be done", m->at);
    case MOUNT_POINT_FREE: break;
    }
    if (!mount_start(&m->conf, m->at, m->args.o, now_ms() + START_LIMIT_MS)) return 1;
    say("mounted at %s", m->at);
    return 0;
}

static int mount_run(int argc, char **argv) {
    static struct mount_daemon m; // large, and the process's own
    const char *at;
    m.args = (struct mount_args){.number = UINT64_MAX, .ready_fd = UINT64_MAX};
    const struct option_row options[] = {
        {"--dir", OPT_TEXT, &m.args.dir},
        {"-o", OPT_TEXT, &m.args.o},
        {"--foreground", OPT_FLAG, &m.args.foreground},
        {"--nonempty", OPT_FLAG, &m.args.nonempty},
        {"--number", OPT_NUMBER, &m.args.number, 0, MX_MAX - 1},
        {"--ready-fd", OPT_NUMBER, &m.args.ready_fd, 3, 1023},
        {0},
    };
    if (!args_parse(&cmd_mount, argc, argv, options, &at, 1, 1) || !suboptions_parse(&m.args)) return EXIT_USAGE;
    m.d.lock_fd = -1;
    m.d.ready_fd = m.args.ready_fd == UINT64_MAX ? -1 : (int)m.args.ready_fd;
    if (m.d.ready_fd >= 0) fcntl(m.d.ready_fd, F_SETFD, FD_CLOEXEC);
    if (!conf_need(m.args.dir, &m.conf)) return daemon_fail(&m.d, "%s/cluster.conf cannot be used", m.conf.dir);
    if (!mount_resolve(at, m.at)) return 1;
    return m.args.foreground ? mount_daemon_run(&m) : mount_begin(&m);
}

const struct command cmd_mount = {
    "mount",
    "mendfs mount MNT [--dir DIR] [-o OPTION,...] [--nonempty] [--foreground]",
    "Mounts the array; returns once it is mounted",
    "Options of -o:\n"
    "  eio-after=SECONDS   a request that waits longer for a stopped array fails with EIO; without it, it waits\n"
    "  writeback           the kernel's write-back cache: fast, and write() promises nothing until fsync\n"
    "  allow_other         other users may use it too (always so for mounts of root; the kernel checks permissions)\n\n"
    "Any number of mounts may exist at once. `umount MNT` (or fusermount3 -u MNT) ends the daemon cleanly, as does "
    "SIGTERM.\n"
    "  --nonempty          mounts over a folder that is not empty: what lies there is hidden as long\n"
    "  --foreground        does not go into the background (for service managers)\n",
    mount_run,
};
