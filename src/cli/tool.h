// A command as a node: a loop, a hub, questions to IOMs; and a daemon's common part.
#pragma once
#include "cli/cli.h"
#include "host/loop.h"
#include "iom/iom.h"
#include "wire/format.h"
#include "wire/peer.h"

// ---- what went wrong last: the lines of the node's log, of which the last error is kept for the summary
struct last_error {
    void (*sink)(void *ctx, enum trace_level level, const char *line); // the log's own; NULL: lines go nowhere
    void *ctx;
    char text[500];
};
void last_error_keep(struct env *e, struct last_error *k, bool quiet);

// ---- a command that talks to IOMs
struct tool {
    struct loop *l;
    struct env *e;
    struct hub *hub;
    struct last_error error;
    void (*co_fn)(struct tool *t);
    void *arg;
};
// Runs co_fn in a task of a loop of its own and returns when it has ended.
void tool_run(const uint8_t cluster[16], void (*co_fn)(struct tool *t), void *arg);

struct iom_answer {
    bool answered;
    err why; // not answered
    struct wire_status s;
};
struct addresses {
    uint8_t ioms;
    char at[ARRAY_IOMS_MAX][108];
    char host[ARRAY_IOMS_MAX][MAP_HOST_BYTES]; // empty: not known
    struct array_shape shape;
};
void addresses_of(const struct conf *c, struct addresses *a);
void addresses_of_map(const struct cluster_map *m, struct addresses *a);
// Asks all at once; returns at the deadline at the latest.
void co_ask_status(struct tool *t, const struct addresses *a, uint64_t deadline_ns,
                   struct iom_answer out[ARRAY_IOMS_MAX]);

// ---- what the answers amount to
enum iom_shown { SHOWN_STOPPED, SHOWN_UP, SHOWN_FAILED, SHOWN_RETURNING, SHOWN_REBUILDING };
struct shown {
    uint64_t epoch, recoveries;
    uint8_t array;  // enum array_state
    uint8_t ioms, up;
    enum iom_shown iom[ARRAY_IOMS_MAX];
    uint8_t stand_in[ARRAY_IOMS_MAX]; // who answers for it; NO_IOM: nobody else
    bool any;       // somebody answered
    uint8_t behind; // the one that has not all that is its own; NO_IOM: none
};
void show(const struct addresses *of, const struct iom_answer *a, struct shown *out);
bool co_all_up(struct tool *t, const struct conf *c); // the array runs, and every IOM serves
const char *iom_shown_name(enum iom_shown s);
// Where that IOM is answered for: by itself (NO_IOM), or by its stand-in.
void answers_at(const struct conf *c, uint8_t iom, uint8_t stand_in, char out[108]);

// ---- a daemon (daemon.c)
struct proc;
struct node_daemon {
    char dir[PATH_MAX];     // empty: none
    char name[32];
    int ready_fd, lock_fd;  // -1: none
    struct loop *l;
    struct last_error error;
};
// Lock, pid file, log, loop, in this order; says (to whom waits too) why not. `kind` and `at` go into the pid file.
bool daemon_begin(struct node_daemon *d, const char *kind, const char *at);
void daemon_ready(struct node_daemon *d);                                              // "ok" to whom waits
int daemon_fail(struct node_daemon *d, const char *fmt, ...)
    PRINTF_LIKE(2, 3); // the sentence to whom waits, and to stderr; returns 1
void daemon_end(struct node_daemon *d);
