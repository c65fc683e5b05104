// The session: from the descriptor to the coroutine of a request, and mounting.
//
// A request is read into a page-aligned buffer at such an offset that the data of a WRITE begins on a page: it goes on to the IOMs by reference, without
// a copy. The buffer is then the request's, and the next one is read into a new one; other requests copy the few bytes they need.
#include "fuse/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <unistd.h>

#define KERNEL_PF_EXITING 0x4ul // linux/sched.h; shown in /proc/PID/stat
#define RX_OFFSET (BLOCK_BYTES - FUSE_WRITE_HEADER)

// ---- requests
struct fcall *fcall_new(struct fuse_face *f, fuse_req_t req, void (*co_run)(struct fcall *c)) {
    struct fcall *c = mem_alloc(f->env->mem, sizeof *c);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    c->f = f;
    c->req = req;
    c->co_run = co_run;
    c->pid = ctx->pid;
    c->op.cred = (struct mx_cred){ctx->uid, ctx->gid};
    f->calls++;
    return c;
}

void fcall_name(struct fcall *c, const char *name, const char *name2) {
    c->name = mem_strdup(c->f->env->mem, name);
    if (name2) c->name2 = mem_strdup(c->f->env->mem, name2);
}

static void pause_or_go_on(struct fuse_face *f) {
    bool pause = f->calls >= FUSE_CALLS_MAX;
    if (pause == f->paused || !f->watch) return;
    f->paused = pause;
    loop_rewatch(f->watch, pause ? 0 : EPOLLIN);
}

static void fcall_free(struct fcall *c) {
    struct fuse_face *f = c->f;
    timer_cancel(f->env, &c->dying);
    timer_cancel(f->env, &c->limit);
    buf_unref(c->data.buf);
    mem_free(f->env->mem, c->name);
    mem_free(f->env->mem, c->name2);
    mem_free(f->env->mem, c);
    f->calls--;
    pause_or_go_on(f);
}

// A thread on its way out closes its files, and no signal reaches it any more. One we cannot see is taken to live. Its flags are the ninth word, after a name that may hold anything.
static bool is_exiting(pid_t pid) {
    char path[64], text[512];
    unsigned long flags = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *s = fopen(path, "re");
    if (!s) return false;
    text[fread(text, 1, sizeof text - 1, s)] = 0;
    fclose(s);
    const char *end = strrchr(text, ')');
    if (!end || sscanf(end + 1, " %*c %*s %*s %*s %*s %*s %lu", &flags) != 1) return false;
    return flags & KERNEL_PF_EXITING;
}

// Whether the kernel has condemned a thread: then SIGKILL is among what is pending, whatever signal it was. A thread we cannot see counts as condemned.
static bool is_dying(pid_t pid) {
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *s = fopen(path, "re");
    if (!s) return true;
    bool dying = false;
    while (!dying && fgets(line, sizeof line, s)) {
        unsigned long long pending;
        if (sscanf(line, "SigPnd: %llx", &pending) == 1 || sscanf(line, "ShdPnd: %llx", &pending) == 1) dying = pending >> (SIGKILL - 1) & 1;
    }
    fclose(s);
    return dying || is_exiting(pid);
}

// The kernel tells us of a first signal, of any kind, and of no further one. A file system is not interrupted by SIGCHLD or an alarm: the operation ends early
// only for a caller that is about to die, now or later.
static void look_for_death(void *arg) {
    struct fcall *c = arg;
    if (is_dying(c->pid)) mx_cancel(c->f->mx, &c->op);
    else timer_set(c->f->env, &c->dying, env_now_ns(c->f->env) + FUSE_DEATH_LOOK_NS, look_for_death, c);
}

static void look_for_exit(void *arg) {
    struct fcall *c = arg;
    if (is_exiting(c->pid)) mx_cancel(c->f->mx, &c->op);
    else fcall_watch_exit(c);
}

void fcall_watch_exit(struct fcall *c) { timer_set(c->f->env, &c->dying, env_now_ns(c->f->env) + FUSE_DEATH_LOOK_NS, look_for_exit, c); }

static void on_limit(void *arg) {
    struct fcall *c = arg;
    c->late = true;
    mx_cancel(c->f->mx, &c->op);
}

void fcall_limit(struct fcall *c, uint64_t ns) { timer_set(c->f->env, &c->limit, env_now_ns(c->f->env) + ns, on_limit, c); }

static void on_interrupt(fuse_req_t req, void *arg) { look_for_death(arg); }

static void fcall_task(void *arg) {
    struct fcall *c = arg;
    fuse_req_interrupt_func(c->req, on_interrupt, c);
    c->co_run(c); // replies; the request is not touched after that
    fcall_free(c);
}

// Every operation names its inode by ino (and ino2); what the kernel cannot know is stale.
void fcall_go(struct fcall *c) {
    struct node *n = node_of(c->f, c->ino), *n2 = c->ino2 ? node_of(c->f, c->ino2) : n;
    if (!n || !n2) {
        fuse_reply_err(c->req, ESTALE);
        fcall_free(c);
        return;
    }
    c->h = n->handle;
    c->h2 = n2->handle;
    env_spawn(c->f->env, "fuse: request", fcall_task, c);
}

void reply_err(struct fcall *c, err e) {
    fuse_req_interrupt_func(c->req, NULL, NULL);
    fuse_reply_err(c->req, err_errno(e));
}

// ---- the session
static void on_ended(struct fuse_face *f) {
    if (f->ended) return;
    f->ended = true;
    f->mounted = false;
    loop_unwatch(f->watch);
    f->watch = NULL;
    if (f->options.ended) f->options.ended(f->options.arg);
}

// One client that waits for its answer sends nothing more before it: when nothing else is under way, a look for a further request would find none.
// Should there be one after all, the descriptor is still readable and the next turn takes it.
static void on_readable(void *arg, uint32_t events) {
    struct fuse_face *f = arg;
    int most = f->calls ? FUSE_READS_PER_TURN : 1;
    for (int n = 0; n < most && !f->paused && !f->ended; n++) {
        struct fuse_buf b = {.mem = f->rx->data + RX_OFFSET};
        int got = fuse_session_receive_buf(f->session, &b);
        if (got == -EINTR || got == -EAGAIN) return;
        if (got <= 0) {
            on_ended(f);
            return;
        }
        fuse_session_process_buf(f->session, &b);
        if (f->rx->refs > 1) { // a write took it
            buf_unref(f->rx);
            f->rx = buf_new(f->env->mem, BUF_MAX_BYTES);
        }
        pause_or_go_on(f);
        if (fuse_session_exited(f->session)) on_ended(f);
    }
}

const char *fuse_lacking(void) {
    if (access("/dev/fuse", F_OK))
        return "/dev/fuse is missing; load the fuse module (modprobe fuse) or give the container the device";
    if (access("/dev/fuse", R_OK | W_OK)) return "/dev/fuse may not be opened by this user; run as root or ask for access to it";
    if (geteuid() && access("/usr/bin/fusermount3", X_OK) && access("/bin/fusermount3", X_OK))
        return "fusermount3 is missing; install the package fuse3";
    return NULL;
}

static err mount_error(struct fuse_face *f, const char *why) {
    const char *lacking = fuse_lacking();
    if (lacking) LOG(f->env, TRACE_ERROR, "cannot mount %s: %s", f->options.mountpoint, lacking);
    else if (access(f->options.mountpoint, F_OK))
        LOG(f->env, TRACE_ERROR, "cannot mount %s: there is no such directory, or a dead mount hangs there; make it, or unmount it with: umount -l %s",
            f->options.mountpoint, f->options.mountpoint);
    else LOG(f->env, TRACE_ERROR, "cannot mount %s: %s; the log may say more", f->options.mountpoint, why);
    return ERR_IO;
}

// Whatever its length, it cuts off nothing; whatever is in it, it adds no option.
static bool add_source(char **options, const char *source) {
    char text[PATH_MAX + 8];
    int len = snprintf(text, sizeof text, "fsname=%s", source);
    return len > 0 && (size_t)len < sizeof text && !fuse_opt_add_opt_escaped(options, text);
}

static err session_make(struct fuse_face *f) {
    char *options = NULL;
    bool fits = !fuse_opt_add_opt(&options, "default_permissions,subtype=mendfs");
    if (f->options.allow_other) fits = fits && !fuse_opt_add_opt(&options, "allow_other");
    fits = fits && add_source(&options, f->options.source ? f->options.source : "mendfs");
    char *argv[] = {(char *)"mendfs", (char *)"-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct fuse_lowlevel_ops ops = {0};
    fuse_ops_names(&ops);
    fuse_ops_files(&ops);
    if (fits) f->session = fuse_session_new(&args, &ops, sizeof ops, f);
    fuse_opt_free_args(&args);
    free(options);
    return f->session ? OK : ERR_INVAL;
}

err fuse_face_start(struct loop *l, struct mx *m, const struct fuse_options *o, struct fuse_face **out) {
    struct env *e = loop_env(l);
    struct fuse_face *f = mem_alloc(e->mem, sizeof *f);
    f->loop = l;
    f->env = e;
    f->mx = m;
    f->options = *o;
    map_init(&f->nodes, e->mem);
    struct attr root = {.handle = handle_root()};
    node_seen(f, &root);
    f->rx = buf_new(e->mem, BUF_MAX_BYTES);
    *out = NULL;
    err bad = session_make(f);
    if (bad || fuse_session_mount(f->session, o->mountpoint)) {
        bad = mount_error(f, bad ? "no FUSE session can be made" : strerror(errno));
        fuse_face_destroy(f);
        return bad;
    }
    f->mounted = true;
    int fd = fuse_session_fd(f->session);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    bad = loop_watch(l, fd, EPOLLIN, on_readable, f, &f->watch);
    if (bad) {
        fuse_session_unmount(f->session);
        f->mounted = false;
        fuse_face_destroy(f);
        return bad;
    }
    *out = f;
    return OK;
}

uint32_t fuse_face_busy(const struct fuse_face *f) { return f->calls; }

err fuse_face_unmount(struct fuse_face *f, bool detach) {
    if (!f->mounted) return OK;
    if (!detach && geteuid() == 0 && umount2(f->options.mountpoint, UMOUNT_NOFOLLOW)) return errno == EBUSY ? ERR_BUSY : OK;
    fuse_session_unmount(f->session); // lazily: what is open stays usable to the kernel until closed, but nobody serves it
    f->mounted = false;
    on_ended(f);
    return OK;
}

static void nodes_free(struct fuse_face *f) {
    MAP_FOR(&f->nodes, it) mem_free(f->env->mem, it.value);
    map_fini(&f->nodes);
}

void fuse_face_destroy(struct fuse_face *f) {
    loop_unwatch(f->watch);
    if (f->session) fuse_session_destroy(f->session);
    nodes_free(f);
    buf_unref(f->rx);
    mem_free(f->env->mem, f);
}
