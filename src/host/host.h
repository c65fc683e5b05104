// What the files of host/ share: the loop's insides, watches, the order of a turn.
//
//   a turn    events that submitting calls left -> disk completions -> tasks, a slice at a time, each slice's disk I/Os
//             and messages handed to the kernel after it -> poll -> what it brought, for a while -> timers
//
// What a poll brought and its while did not suffice for is dispatched in the next turns, before there is another poll:
// neither a crowd of busy connections nor busy tasks make a turn long or have each other wait for ever.
//
// Rules: an event is delivered only by the loop, never from within the call that caused it. Whatever a callback may
// close while the loop still holds its pointer goes to the graves and is freed before the next poll.
#pragma once
#include "host/loop.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>

#define LOOP_EVENTS_MAX 128
#define LOOP_SLICE_TURNS 16u          // task turns between two looks at the clock
#define LOOP_TASKS_NS USEC(500)       // of tasks between two polls; a task's own turn is not cut
#define LOOP_EVENTS_NS MSEC(1)        // of dispatching before tasks have their turn
#define LOOP_SLOW_NS MSEC(5)
#define LOOP_RX_BYTES (64u << 10)     // the shared receive buffer

struct grave {
    struct list node;
    void *memory; // of env's mem
};

// Sits in the object that it serves; `arg` is usually that object.
struct watch {
    struct loop *loop;
    int fd;
    uint32_t events;
    bool dead;
    void (*fn)(void *arg, uint32_t events);
    void *arg;
    struct list node;   // loop.watches, only those made by loop_watch
    struct grave grave; // the same
};
err watch_add(struct loop *l, struct watch *w, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
              void *arg);
void watch_change(struct watch *w, uint32_t events);
void watch_remove(struct watch *w); // fine if not added

struct log_file {
    int fd;             // STDERR_FILENO until there is a file
    char *path;         // malloc'd; NULL = stderr
    uint64_t size_bytes, max_bytes;
};
void log_init(struct log_file *f);
void log_fini(struct log_file *f);
err log_open(struct log_file *f, const char *path, uint64_t max_bytes);
void log_write(void *log, enum trace_level level, const char *line); // a trace sink

// So that a flood of one kind of line does not become the log: one line a second, and how many were kept back.
struct log_limit {
    uint64_t next_ns;
    uint32_t hidden;
};
bool log_allowed(struct loop *l, struct log_limit *limit, uint32_t *hidden);

struct signal_fn {
    void (*fn)(void *arg);
    void *arg;
};

struct loop {
    struct env env;
    int epoll_fd, signal_fd, wake_fd;
    bool running, stopping;
    atomic_bool asleep;        // in epoll, or about to be: who completes something must write wake_fd
    struct watch signal_watch, wake_watch;
    sigset_t signals, signals_before;
    struct signal_fn signal_fns[_NSIG];
    struct log_file log;
    struct list watches;       // of loop_watch
    struct list disks;
    struct list listeners;
    struct list conns;         // all that are not closed
    struct list conns_silent;  // accepted and not yet heard: first to go when there are too many
    struct list conns_pending; // an event waits to be delivered
    struct list conns_to_send; // messages were queued
    struct list graves;
    uint32_t conns_len, conns_max; // accepted ones
    struct epoll_event events[LOOP_EVENTS_MAX]; // what the last poll brought; before events_next: dispatched
    int events_next, events_len;
    uint8_t *rx;               // LOOP_RX_BYTES
    struct log_limit garbled_log, refused_log;
    struct host_counters count;
    uint64_t random_pool[32];
    uint32_t random_left;
};

static inline struct loop *loop_of(struct env *e) { return CONTAINER_OF(e, struct loop, env); }
void loop_bury(struct loop *l, struct grave *g, void *memory);

// disk.c
err host_disk_open(struct env *e, const struct disk_open_args *a, struct disk **out);
void host_disk_submit(struct disk *d, struct disk_io *io);
void host_disk_close(struct disk *d);
uint32_t host_disk_inflight(const struct disk *d);
void disks_submit(struct loop *l);           // hands what was submitted to the threads
bool disks_completed(const struct loop *l);  // something is to be collected
void disks_collect(struct loop *l);          // calls done
void disks_close(struct loop *l);            // joins all threads; what is in flight ends without its done

// listen.c
err host_net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out);
void host_net_unlisten(struct env *e, struct listener *l);
void listeners_close(struct loop *l);

// socket.c
struct conn *host_net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx);
void host_conn_send(struct conn *c, struct msg *m);
uint64_t host_conn_queued_bytes(const struct conn *c);
void host_conn_close(struct conn *c);
void conn_accepted(struct loop *l, int fd, bool is_unix, const struct net_events *ev, void *ctx);
void conns_deliver(struct loop *l); // events left by submitting calls
void conns_send(struct loop *l);    // writes what is queued
void conns_close(struct loop *l);

// address.c
#define ADDRESS_TEXT_MAX 160
struct address {
    bool is_unix;
    const char *path; // is_unix: in the text parsed
    uint8_t raw[128]; // a sockaddr
    uint32_t raw_len;
};
err address_parse(struct env *e, const char *at, bool may_block, struct address *out);
// The sockaddr of a Unix path however long, by way of its directory, which *dir_fd holds open (the caller closes it).
err address_of_path(const char *path, struct address *out, int *dir_fd);
void address_of_peer(int fd, char *out, size_t out_len);
