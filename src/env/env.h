// The only door to the world: time, random numbers, tasks, disk, network. Two implementations stand behind `env_ops`:
// src/host (epoll, disk threads, sockets) and sim/ (virtual time, faults). No code above this calls the kernel.
//
// One node = one `struct env` = one thread of control: tasks are coroutines that run until they wait; nothing is
// pre-empted. Functions that may wait begin with `co_`. What was true before a wait may be false after it.
// A node that dies in the simulator is env_fini: its tasks vanish where they stand, its memory is freed.
#pragma once
#include "base/co.h"
#include "base/common.h"
#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/trace.h"

struct env;
struct task;

// ---- a node ---------------------------------------------------------------------------------------------------------
struct env_ops;
struct env {
    const struct env_ops *ops;
    struct mem *mem;
    struct trace trace;
    struct list ready;   // tasks that can run, first come first served
    struct list tasks;   // all tasks
    struct timer **heap; // timers, binary heap by (at_ns, sequence)
    uint32_t heap_len, heap_cap;
    uint64_t timer_seq;
    uint64_t firing_ns;  // the time env_fire_timers fires for, else 0
    struct task *running;
};
void env_init(struct env *e, const struct env_ops *ops); // creates e->mem; the trace's sink is set after it
// Destroys all tasks, timers, memory; from outside any task. Disk I/O in flight may point into what is freed: the world
// first drops it (simulator) or waits for it (host), and closes connections and listeners without further events.
void env_fini(struct env *e);
// For the two worlds' loops:
bool env_run_ready(struct env *e, uint32_t max_turns);   // runs ready tasks; true if some are still ready
uint64_t env_next_timer_ns(const struct env *e);         // UINT64_MAX if none
void env_fire_timers(struct env *e, uint64_t now_ns);    // all with at_ns <= now; those set meanwhile: the next time
void env_dump(struct env *e, void (*line)(void *ctx, const char *text), void *ctx); // what each task waits for

uint64_t env_now_ns(struct env *e);  // never goes back; counts the time in which the machine was suspended
uint64_t env_wall_ns(struct env *e); // since 1970, for file times only
uint64_t env_random(struct env *e);
#define LOG(e, level, ...) TRACE(&(e)->trace, level, __VA_ARGS__)

// ---- tasks and waiting ----------------------------------------------------------------------------------------------
struct task *env_spawn(struct env *e, const char *name, void (*fn)(void *arg), void *arg); // name is kept by pointer

// Waiting. Waiters are woken first come, first served. A wake takes the task off the queue at once and lets it run
// later, from the loop: what was true at the wake may be false when it runs, so conditions are waited for in a loop.
// A wake that finds nobody is lost. Whoever is woken, or whose time comes, does not touch the queue again: so an owner
// may wake all and free the queue's memory in one breath, but must never free it (or init it again) with waiters in it.
// Queues, locks and groups may live on the stack of the task that waits. env_fini touches no queue.
struct waitq { struct list waiters; };
void waitq_init(struct waitq *q);
void co_wait(struct env *e, struct waitq *q, const char *label);                           // until woken
// false: the time came first (then no wake was used up). UINT64_MAX: for ever. Waits a turn even when at_ns is past.
bool co_wait_until(struct env *e, struct waitq *q, uint64_t at_ns, const char *label);
static inline bool waitq_empty(const struct waitq *q) { return list_empty(&q->waiters); }
void waitq_wake_one(struct env *e, struct waitq *q); // makes ready; runs later, from the loop
void waitq_wake_all(struct env *e, struct waitq *q);
void co_sleep_until(struct env *e, uint64_t at_ns, const char *label);
void co_yield(struct env *e); // to the back of the run queue

// A lock between coroutines, fair: unlocking hands it to who has waited longest. Only its holder unlocks it.
struct co_lock { struct task *holder; struct waitq q; };
void co_lock_init(struct co_lock *l);
void co_lock(struct env *e, struct co_lock *l, const char *label);
void co_unlock(struct env *e, struct co_lock *l);

// Wait for a number of things to be done: group_add before each, group_done by each, co_group_wait for all. The result
// is that of the first that failed; it stays until group_init.
struct group { uint32_t pending; err first_error; struct waitq q; };
void group_init(struct group *g);
void group_add(struct group *g);
void group_done(struct env *e, struct group *g, err result);
MUST_USE err co_group_wait(struct env *e, struct group *g, const char *label);
// Several tasks of co_fn(arg), each of which takes what is next until nothing is left. When all have ended: the first error.
MUST_USE err co_workers(struct env *e, const char *name, uint32_t workers, err (*co_fn)(void *arg), void *arg);

struct timer {
    uint64_t at_ns, seq;
    uint32_t index; // in the heap, plus one; 0 = not set
    void (*fn)(void *arg);
    void *arg;
};
// Timers fire in order of at_ns, then of being set. The struct is the caller's: zeroed before the first use, alive while
// it is set.
void timer_set(struct env *e, struct timer *t, uint64_t at_ns, void (*fn)(void *arg), void *arg); // re-sets if set
void timer_cancel(struct env *e, struct timer *t);                                                // fine if not set

// ---- disk -----------------------------------------------------------------------------------------------------------
// A store's device, or its journal's. Offsets, lengths and memory are multiples of BLOCK_BYTES. A completed write is
// volatile until a flush that was submitted after its completion returns; on a power-protected device it is durable at
// once. I/Os in flight are not ordered among each other. Beyond the device's end: ERR_IO.
enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH };
#define DISK_IOV_MAX 64
struct disk;
struct disk_io {
    enum disk_op op;
    uint64_t off_bytes;
    uint32_t iov_len;
    struct { uint8_t *base; uint32_t len_bytes; } iov[DISK_IOV_MAX];
    void (*done)(struct disk_io *io); // on the loop of the node, never from within disk_submit
    void *arg;
    err result;
    struct list node; // the world's
};
struct disk_open_args {
    const char *path;     // simulator: the name of the node's disk
    bool create;          // make it, size_bytes long (fallocate); an existing file or device is never shrunk
    uint64_t size_bytes;
    bool power_protected; // the device keeps every write that it has accepted: flushes are not needed, and not sent
};
MUST_USE err disk_open(struct env *e, const struct disk_open_args *a, struct disk **out); // takes the store's lock: ERR_LOCKED
uint64_t disk_size_bytes(const struct disk *d);
void disk_submit(struct disk *d, struct disk_io *io);
void co_disk_close(struct disk *d); // waits for what is in flight
MUST_USE err co_disk_read(struct disk *d, uint64_t off_bytes, void *p, uint32_t len_bytes);
MUST_USE err co_disk_write(struct disk *d, uint64_t off_bytes, const void *p, uint32_t len_bytes);
MUST_USE err co_disk_flush(struct disk *d); // OK at once if the device is power-protected
MUST_USE err co_disk_flush_both(struct disk *a, struct disk *b); // likewise, side by side; b may be NULL or a
struct disk { // the worlds embed it at offset 0 of theirs
    struct env *env;
    uint64_t size_bytes;
    bool power_protected;
    void (*failed)(void *ctx, enum disk_op op); // NULL, or told of every I/O that the device has answered with an error; set after disk_open
    void *ctx;
};
void disk_told(struct disk *d, const struct disk_io *io); // by who submitted it, when it is done

// ---- network --------------------------------------------------------------------------------------------------------
// Messages, framed and ordered, over connections between nodes. An address is "unix:PATH" or "HOST:PORT" (host), or a
// node's name (simulator). A connection loses messages only by closing: then some suffix of what was sent is lost.
#define MSG_BODY_MAX 8192u
#define MSG_PAYLOAD_MAX BUF_MAX_BYTES
struct msg {
    struct list node;
    struct mem *mem;       // whose it is
    uint16_t type;         // enum msg_type of wire/format.h
    uint16_t flags;
    uint32_t body_len;     // bytes, at most MSG_BODY_MAX
    struct slice payload;  // len_bytes 0 = none; the message owns a reference. Received payloads start page-aligned
    uint8_t body[];        // capacity as given to msg_new
};
struct msg *msg_new(struct mem *m, uint16_t type, uint32_t body_len); // body zeroed
void msg_set_payload(struct msg *m, struct slice s);                  // takes its own reference
struct msg *msg_copy(struct mem *to, const struct msg *m, bool deep); // deep: the payload's bytes too (another node's mem);
                                                                      // else the same buf, which must be of `to`
void msg_free(struct msg *m);                                         // NULL is fine

struct conn {            // the worlds embed it at offset 0 of theirs
    struct env *env;
    const struct net_events *events;
    void *ctx;           // the user's; may be changed at any time
    bool accepted;       // by a listener (else made by net_connect)
    bool nobody;         // closed with ERR_REFUSED: no process holds that address, so who listened there is dead
};
struct net_events {
    void (*opened)(struct conn *c);                  // connected, or accepted (ctx = the listener's)
    void (*message)(struct conn *c, struct msg *m);  // the callee owns m
    void (*closed)(struct conn *c, err why);         // last call for c; also when net_connect fails; not after conn_close
};
struct listener;
MUST_USE err net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out);
struct listener { struct env *env; }; // the worlds embed it at offset 0 of theirs; env.c sets it
void net_unlisten(struct listener *l);
struct conn *net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx); // never NULL; events follow
void conn_send(struct conn *c, struct msg *m); // owns m; queued, never waits; dropped silently once the connection is broken
uint64_t conn_queued_bytes(const struct conn *c);
void conn_close(struct conn *c);               // no further events; what is queued may be lost

// ---- what a world implements ----------------------------------------------------------------------------------------
struct env_ops {
    uint64_t (*now_ns)(struct env *e);
    uint64_t (*wall_ns)(struct env *e);
    uint64_t (*random)(struct env *e);
    void (*wake)(struct env *e); // a task became ready from outside env_run_ready, and none was before (may be NULL)
    err (*disk_open)(struct env *e, const struct disk_open_args *a, struct disk **out);
    void (*disk_submit)(struct disk *d, struct disk_io *io);
    void (*disk_close)(struct disk *d); // nothing is in flight any more
    uint32_t (*disk_inflight)(const struct disk *d);
    err (*net_listen)(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out);
    void (*net_unlisten)(struct env *e, struct listener *l);
    struct conn *(*net_connect)(struct env *e, const char *at, const struct net_events *ev, void *ctx);
    void (*conn_send)(struct conn *c, struct msg *m);
    uint64_t (*conn_queued_bytes)(const struct conn *c);
    void (*conn_close)(struct conn *c);
};
