// env on Linux: one event loop, one thread, one node. Everything of env.h works on loop_env(); this header is what the
// programs need besides: running, signals, foreign descriptors (FUSE), the log, counters, locks and addresses.
#pragma once
#include "env/env.h"

struct loop;
struct loop *loop_create(void);           // ignores SIGPIPE; SIGUSR1 writes what each task waits for to the log
struct env *loop_env(struct loop *l);
void loop_run(struct loop *l);            // until loop_stop; may be called again
void loop_stop(struct loop *l);           // from a task or a callback; the turn is finished first
void loop_destroy(struct loop *l);        // ends disk threads, closes all, no further event; NULL is fine

// fn runs on the loop, not in signal context. The signal stays blocked in this thread until loop_destroy.
void loop_on_signal(struct loop *l, int signo, void (*fn)(void *arg), void *arg);
void loop_unblock_signals(void);          // in a child between fork and exec: what it runs wants its signals
void loop_dump(struct loop *l);           // what SIGUSR1 does

// A descriptor that is not env's. events: EPOLLIN, EPOLLOUT...; level-triggered. ERR_PERM: it cannot be polled.
struct watch;
MUST_USE err loop_watch(struct loop *l, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events), void *arg,
                        struct watch **out);
void loop_rewatch(struct watch *w, uint32_t events);
void loop_unwatch(struct watch *w);       // before fd is closed; no further call; NULL is fine

// The log: stderr until loop_log_file. A file of LOG_FILE_BYTES becomes PATH.1 (the one before it goes), so a log is
// never larger than twice that. A line: UTC time, level (E W I D), text.
#define LOG_FILE_BYTES MIB(8)
MUST_USE err loop_log_file(struct loop *l, const char *path, uint64_t max_bytes); // 0: LOG_FILE_BYTES
void loop_log_level(struct loop *l, enum trace_level level);

// What it cost. syscalls counts all that the loop and its disk threads make for env (futex and clocks aside).
struct host_counters {
    uint64_t turns, slow_turns, longest_turn_ns; // slow: over 5 ms
    uint64_t syscalls, polls, wakes;             // wakes: eventfd writes of disk threads
    uint64_t msgs_in, msgs_out, net_bytes_in, net_bytes_out, net_reads, net_writes;
    uint64_t conns_accepted, conns_refused, conns_garbled, conns;
    uint64_t disk_reads, disk_writes, disk_flushes;           // as submitted
    uint64_t disk_calls, disk_bytes_read, disk_bytes_written; // of the kernel: merging and sharing make them fewer
};
void loop_counters(struct loop *l, struct host_counters *out);

// ---- locks ----------------------------------------------------------------------------------------------------------
// The lock of a store (or of any file): held as long as the descriptor is open, gone with the process however it
// dies (a child that is forked and does not exec shares it). Taking it proves that no process of this host has the
// store open. disk_open takes the same lock.
MUST_USE err host_lock_take(const char *path, int *out_fd); // ERR_LOCKED, ERR_NOENT...
void host_lock_release(int fd);
MUST_USE err host_lock_fd(int fd);                          // on a descriptor that is open for writing

// ---- addresses ------------------------------------------------------------------------------------------------------
// "unix:PATH", "HOST:PORT", "[V6]:PORT". net_connect takes numeric hosts only, as a resolver may block for seconds;
// host_resolve may block and makes an address numeric: for use at start. net_listen resolves by itself.
MUST_USE err host_resolve(struct env *e, const char *at, char *out, size_t out_len);
uint16_t host_listener_port(const struct listener *l);      // of port 0; 0 for Unix sockets

#define HOST_CONNS_MAX 1024u // accepted connections of one loop; see socket.c for who goes first
void host_set_conns_max(struct loop *l, uint32_t max);
