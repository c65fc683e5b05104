// Listeners: bind, the stale socket files of dead processes, accept.
#include "host/host.h"
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTEN_BACKLOG 1024
#define ACCEPTS_PER_EVENT 64
#define ACCEPT_PAUSE_NS MSEC(100)

struct host_listener {
    struct listener listener;
    struct env *env;
    struct loop *loop;
    struct list node;     // loop.listeners
    struct grave grave;
    struct watch watch;
    struct timer resume;
    const struct net_events *events;
    void *ctx;
    int fd;
    uint16_t port;        // TCP
    char *path;           // Unix: removed at the end if it is still the file that bind made
    dev_t dev;
    ino_t ino;
};

static struct host_listener *host_listener_of(const struct listener *l) {
    return CONTAINER_OF(l, struct host_listener, listener);
}

// ---- accepting ------------------------------------------------------------------------------------------------------
static void on_resume(void *arg) { watch_change(&((struct host_listener *)arg)->watch, EPOLLIN); }

// Out of descriptors or memory: the connection stays in the backlog, and epoll would report it again and again.
static void pause_accepting(struct host_listener *hl, int eno) {
    uint32_t hidden;
    if (log_allowed(hl->loop, &hl->loop->refused_log, &hidden))
        LOG(hl->env, TRACE_WARN, "accept: %s; trying again soon (%u such lines kept back)", strerror(eno), hidden);
    watch_change(&hl->watch, 0);
    timer_set(hl->env, &hl->resume, env_now_ns(hl->env) + ACCEPT_PAUSE_NS, on_resume, hl);
}

static void on_accept(void *arg, uint32_t events) {
    struct host_listener *hl = arg;
    for (int i = 0; i < ACCEPTS_PER_EVENT && !hl->watch.dead; i++) {
        int fd = accept4(hl->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        hl->loop->count.syscalls++;
        if (fd >= 0) {
            conn_accepted(hl->loop, fd, hl->path != NULL, hl->events, hl->ctx);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN) pause_accepting(hl, errno);
        return;
    }
}

// ---- binding --------------------------------------------------------------------------------------------------------
// Whether somebody listens at the socket file is seen by connecting. Only a socket that refuses is removed.
static err remove_stale(struct env *e, const char *path, const struct address *a) {
    struct stat st;
    if (lstat(path, &st) != 0) return errno == ENOENT ? OK : err_of_errno(errno);
    if (!S_ISSOCK(st.st_mode)) {
        LOG(e, TRACE_ERROR, "cannot listen at unix:%s: there is a file of that name which is no socket", path);
        return ERR_EXIST;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_of_errno(errno);
    int r = connect(fd, (const struct sockaddr *)a->raw, a->raw_len);
    int eno = r == 0 ? 0 : errno;
    close(fd);
    if (eno == ENOENT) return OK;
    if (eno != ECONNREFUSED) {
        LOG(e, TRACE_ERROR, "cannot listen at unix:%s: another process listens there", path);
        return ERR_BUSY;
    }
    LOG(e, TRACE_INFO, "unix:%s was left by a process that is gone; removed", path);
    return unlink(path) == 0 || errno == ENOENT ? OK : err_of_errno(errno);
}

static err bind_path(struct host_listener *hl, const struct address *a) {
    const struct sockaddr *sa = (const struct sockaddr *)a->raw;
    if (bind(hl->fd, sa, a->raw_len) != 0) {
        if (errno != EADDRINUSE) return err_of_errno(errno);
        err r = remove_stale(hl->env, hl->path, a);
        if (r != OK) return r;
        if (bind(hl->fd, sa, a->raw_len) != 0) return err_of_errno(errno);
    }
    struct stat st;
    if (listen(hl->fd, LISTEN_BACKLOG) != 0 || lstat(hl->path, &st) != 0) return err_of_errno(errno);
    hl->dev = st.st_dev;
    hl->ino = st.st_ino;
    return OK;
}

// The directory is locked meanwhile: of two that start at once, the second must not take the first's socket, bound and
// not yet listening, for a stale one.
static err listen_unix(struct host_listener *hl, const char *path) {
    hl->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (hl->fd < 0) return err_of_errno(errno);
    fchmod(hl->fd, 0600);
    hl->path = mem_strdup(hl->env->mem, path);
    struct address a;
    int dir_fd;
    err r = address_of_path(path, &a, &dir_fd);
    if (r != OK) return r;
    flock(dir_fd, LOCK_EX); // where a file system cannot, there is only the race
    r = bind_path(hl, &a);
    close(dir_fd);
    return r;
}

static err listen_tcp(struct host_listener *hl, const char *at, const struct address *a) {
    const struct sockaddr *sa = (const struct sockaddr *)a->raw;
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof bound;
    hl->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (hl->fd < 0) return err_of_errno(errno);
    setsockopt(hl->fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(hl->fd, sa, a->raw_len) != 0 || listen(hl->fd, LISTEN_BACKLOG) != 0) {
        if (errno != EADDRINUSE) return err_of_errno(errno);
        LOG(hl->env, TRACE_ERROR, "cannot listen at %s: another process listens there", at);
        return ERR_BUSY;
    }
    if (getsockname(hl->fd, (struct sockaddr *)&bound, &bound_len) != 0) return err_of_errno(errno);
    hl->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                 : ((struct sockaddr_in *)&bound)->sin_port);
    return OK;
}

static void remove_own_path(struct host_listener *hl) {
    struct stat st;
    if (hl->path && hl->ino && lstat(hl->path, &st) == 0 && st.st_dev == hl->dev && st.st_ino == hl->ino)
        unlink(hl->path);
}

static void listener_free(struct host_listener *hl) {
    timer_cancel(hl->env, &hl->resume);
    watch_remove(&hl->watch);
    remove_own_path(hl);
    if (hl->fd >= 0) close(hl->fd);
    mem_free(hl->env->mem, hl->path);
    list_remove(&hl->node);
    loop_bury(hl->loop, &hl->grave, hl);
}

err host_net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out) {
    struct address a;
    err r = address_parse(e, at, true, &a);
    if (r != OK) return r;
    struct loop *l = loop_of(e);
    struct host_listener *hl = mem_alloc(e->mem, sizeof *hl);
    *hl = (struct host_listener){.listener.env = e, .env = e, .loop = l, .events = ev, .ctx = ctx, .fd = -1};
    list_push_back(&l->listeners, &hl->node);
    r = a.is_unix ? listen_unix(hl, a.path) : listen_tcp(hl, at, &a);
    if (r == OK) r = watch_add(l, &hl->watch, hl->fd, EPOLLIN, on_accept, hl);
    if (r != OK) {
        if (r != ERR_BUSY && r != ERR_EXIST) LOG(e, TRACE_ERROR, "cannot listen at %s: %s", at, err_text(r));
        listener_free(hl);
        return r;
    }
    *out = &hl->listener;
    return OK;
}

void host_net_unlisten(struct env *e, struct listener *l) { listener_free(host_listener_of(l)); }

uint16_t host_listener_port(const struct listener *l) { return host_listener_of(l)->port; }

void listeners_close(struct loop *l) {
    while (!list_empty(&l->listeners)) listener_free(LIST_ENTRY(l->listeners.next, struct host_listener, node));
}
