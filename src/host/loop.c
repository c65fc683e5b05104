// The event loop: turns, time, signals, watches; and the table that makes it a world of env.
#include "host/host.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_ns(clockid_t id) {
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

// A lease is over at its time also for a machine that was suspended meanwhile: CLOCK_MONOTONIC would have stood still.
static uint64_t now_ns(struct env *e) { return clock_ns(CLOCK_BOOTTIME); }
static uint64_t wall_ns(struct env *e) { return clock_ns(CLOCK_REALTIME); }

static uint64_t random_u64(struct env *e) {
    struct loop *l = loop_of(e);
    if (!l->random_left) {
        ssize_t n = getrandom(l->random_pool, sizeof l->random_pool, 0); // up to 256 bytes are never cut short
        ASSERT(n == (ssize_t)sizeof l->random_pool);
        l->random_left = ARRAY_LEN(l->random_pool);
        l->count.syscalls++;
    }
    return l->random_pool[--l->random_left];
}

static const struct env_ops host_ops = {
    .now_ns = now_ns,
    .wall_ns = wall_ns,
    .random = random_u64,
    .disk_open = host_disk_open,
    .disk_submit = host_disk_submit,
    .disk_close = host_disk_close,
    .disk_inflight = host_disk_inflight,
    .net_listen = host_net_listen,
    .net_unlisten = host_net_unlisten,
    .net_connect = host_net_connect,
    .conn_send = host_conn_send,
    .conn_queued_bytes = host_conn_queued_bytes,
    .conn_close = host_conn_close,
};

// ---- watches --------------------------------------------------------------------------------------------------------
err watch_add(struct loop *l, struct watch *w, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
              void *arg) {
    *w = (struct watch){.loop = l, .fd = fd, .events = events, .fn = fn, .arg = arg};
    list_init(&w->node);
    struct epoll_event ev = {.events = events, .data.ptr = w};
    l->count.syscalls++;
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? OK : err_of_errno(errno);
}

void watch_change(struct watch *w, uint32_t events) {
    if (w->dead || w->events == events) return;
    w->events = events;
    struct epoll_event ev = {.events = events, .data.ptr = w};
    w->loop->count.syscalls++;
    int r = epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
    ASSERT(r == 0);
}

void watch_remove(struct watch *w) {
    if (!w->loop || w->dead) return;
    w->dead = true;
    w->loop->count.syscalls++;
    epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
}

err loop_watch(struct loop *l, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events), void *arg,
               struct watch **out) {
    struct watch *w = mem_alloc(l->env.mem, sizeof *w);
    err e = watch_add(l, w, fd, events, fn, arg);
    if (e != OK) {
        mem_free(l->env.mem, w);
        return e;
    }
    list_push_back(&l->watches, &w->node);
    *out = w;
    return OK;
}

void loop_rewatch(struct watch *w, uint32_t events) { watch_change(w, events); }

void loop_unwatch(struct watch *w) {
    if (!w || w->dead) return;
    watch_remove(w);
    list_remove(&w->node);
    loop_bury(w->loop, &w->grave, w);
}

void loop_bury(struct loop *l, struct grave *g, void *memory) {
    g->memory = memory;
    list_push_back(&l->graves, &g->node);
}

static void free_graves(struct loop *l) {
    for (struct list *n; (n = list_pop_front(&l->graves));)
        mem_free(l->env.mem, LIST_ENTRY(n, struct grave, node)->memory);
}

// ---- signals and the log --------------------------------------------------------------------------------------------
static void on_signal_fd(void *arg, uint32_t events) {
    struct loop *l = arg;
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof info) == sizeof info) {
        l->count.syscalls++;
        struct signal_fn *s = &l->signal_fns[info.ssi_signo];
        if (s->fn) s->fn(s->arg);
    }
}

void loop_on_signal(struct loop *l, int signo, void (*fn)(void *arg), void *arg) {
    ASSERT(signo > 0 && signo < _NSIG);
    l->signal_fns[signo] = (struct signal_fn){fn, arg};
    sigaddset(&l->signals, signo);
    pthread_sigmask(SIG_BLOCK, &l->signals, NULL);
    int fd = signalfd(l->signal_fd, &l->signals, SFD_NONBLOCK | SFD_CLOEXEC);
    ASSERT(fd >= 0);
    if (l->signal_fd < 0) {
        l->signal_fd = fd;
        err e = watch_add(l, &l->signal_watch, fd, EPOLLIN, on_signal_fd, l);
        ASSERT(e == OK);
    }
}

void loop_unblock_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
}

static void dump_line(void *ctx, const char *text) {
    struct loop *l = ctx;
    LOG(&l->env, TRACE_ERROR, "dump: %s", text); // at the level that is never off: somebody asked
}

void loop_dump(struct loop *l) {
    dump_line(l, "tasks and what they wait for:");
    env_dump(&l->env, dump_line, l);
}

static void on_sigusr1(void *arg) { loop_dump(arg); }

err loop_log_file(struct loop *l, const char *path, uint64_t max_bytes) {
    return log_open(&l->log, path, max_bytes ? max_bytes : LOG_FILE_BYTES);
}

void loop_log_level(struct loop *l, enum trace_level level) { l->env.trace.level = level; }

// ---- a turn ---------------------------------------------------------------------------------------------------------
static void hand_out(struct loop *l) {
    disks_submit(l);
    conns_send(l);
}

// True if tasks are left for the next turn.
static bool run_tasks(struct loop *l, uint64_t until_ns) {
    bool more;
    do {
        more = env_run_ready(&l->env, LOOP_SLICE_TURNS);
        hand_out(l);
    } while (more && now_ns(&l->env) < until_ns);
    return more;
}

static int64_t poll_timeout_ns(struct loop *l, bool busy) {
    if (busy || l->stopping || !list_empty(&l->conns_pending) || !list_empty(&l->env.ready)) return 0;
    uint64_t next_ns = env_next_timer_ns(&l->env);
    if (next_ns == UINT64_MAX) return -1;
    uint64_t now = now_ns(&l->env);
    return next_ns <= now ? 0 : (int64_t)(next_ns - now);
}

static void poll_events(struct loop *l, int64_t timeout_ns) {
    if (timeout_ns != 0) {
        atomic_store(&l->asleep, true);
        if (disks_completed(l)) timeout_ns = 0; // completed before it could see us sleep: nobody will wake us
    }
    struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    l->count.syscalls++;
    l->count.polls++;
    int n = epoll_pwait2(l->epoll_fd, l->events, LOOP_EVENTS_MAX, timeout_ns < 0 ? NULL : &ts, NULL);
    if (n < 0 && errno == ENOSYS) // Linux before 5.11: a millisecond late at worst
        n = epoll_wait(l->epoll_fd, l->events, LOOP_EVENTS_MAX,
                       timeout_ns < 0 ? -1 : (int)MIN((timeout_ns + 999999) / 1000000, INT32_MAX));
    ASSERT(n >= 0 || errno == EINTR);
    atomic_store(&l->asleep, false);
    l->events_next = 0;
    l->events_len = MAX(n, 0);
}

static void dispatch(struct loop *l, uint64_t until_ns) {
    while (l->events_next < l->events_len) {
        struct epoll_event *ev = &l->events[l->events_next++];
        struct watch *w = ev->data.ptr;
        if (w->dead) continue;
        w->fn(w->arg, ev->events);
        if (now_ns(&l->env) >= until_ns) return;
    }
}

static void note_turn(struct loop *l, uint64_t took_ns) {
    l->count.turns++;
    l->count.longest_turn_ns = MAX(l->count.longest_turn_ns, took_ns);
    if (took_ns > LOOP_SLOW_NS) l->count.slow_turns++;
}

static void run_turn(struct loop *l, uint64_t *began_ns) {
    conns_deliver(l);
    disks_collect(l);
    bool busy = run_tasks(l, now_ns(&l->env) + LOOP_TASKS_NS);
    note_turn(l, now_ns(&l->env) - *began_ns);
    if (l->events_next == l->events_len) {
        free_graves(l);
        poll_events(l, poll_timeout_ns(l, busy));
    }
    *began_ns = now_ns(&l->env);
    dispatch(l, *began_ns + LOOP_EVENTS_NS);
    env_fire_timers(&l->env, now_ns(&l->env));
}

void loop_run(struct loop *l) {
    ASSERT(!l->running);
    l->running = true;
    l->stopping = false;
    uint64_t began_ns = now_ns(&l->env);
    while (!l->stopping) run_turn(l, &began_ns);
    hand_out(l); // a last reply goes out
    l->running = false;
}

void loop_stop(struct loop *l) { l->stopping = true; }

// ---- life -----------------------------------------------------------------------------------------------------------
static void on_wake(void *arg, uint32_t events) {
    // Edge-triggered and never read: that a disk thread wrote is all there is to know, and its list tells the rest.
}

struct loop *loop_create(void) {
    struct loop *l = calloc(1, sizeof *l);
    ASSERT(l);
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_SETMASK, NULL, &l->signals_before);
    sigemptyset(&l->signals);
    struct list *lists[] = {&l->watches,      &l->disks,         &l->listeners,     &l->conns,
                            &l->conns_silent, &l->conns_pending, &l->conns_to_send, &l->graves};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) list_init(lists[i]);
    env_init(&l->env, &host_ops);
    log_init(&l->log);
    l->env.trace = (struct trace){.level = TRACE_INFO, .sink = log_write, .ctx = &l->log};
    l->conns_max = HOST_CONNS_MAX;
    l->rx = mem_alloc(l->env.mem, LOOP_RX_BYTES);
    l->signal_fd = -1;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ASSERT(l->epoll_fd >= 0 && l->wake_fd >= 0);
    err e = watch_add(l, &l->wake_watch, l->wake_fd, EPOLLIN | EPOLLET, on_wake, l);
    ASSERT(e == OK);
    loop_on_signal(l, SIGUSR1, on_sigusr1, l);
    return l;
}

struct env *loop_env(struct loop *l) { return &l->env; }

void loop_counters(struct loop *l, struct host_counters *out) {
    *out = l->count;
    out->conns = 0;
    LIST_FOR(&l->conns, n) out->conns++;
}

// Threads end before tasks do: an I/O in flight reads or writes the memory of the task that waits for it.
void loop_destroy(struct loop *l) {
    if (!l) return;
    ASSERT(!l->running);
    disks_close(l);
    conns_close(l);
    listeners_close(l);
    free_graves(l);
    env_fini(&l->env);
    close(l->signal_fd);
    close(l->wake_fd);
    close(l->epoll_fd);
    pthread_sigmask(SIG_SETMASK, &l->signals_before, NULL);
    log_fini(&l->log);
    free(l);
}
