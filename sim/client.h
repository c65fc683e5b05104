// What the files of the workload share.
//
// A client may die with its MX at any moment and goes on with the next one. What it was in the midst of is kept here, outside the node's memory.
#pragma once
#include "sim/workload.h"

#define CLIENTS_MAX 32
#define PRIVATE_BLOCKS 40u
#define SHARED_MAX CLIENTS_MAX // files that a group of clients has in common

enum client_kind { CLIENT_WRITER, CLIENT_NAMER, CLIENT_PASSER, CLIENT_LOGGER, CLIENT_BRAWLER, CLIENT_FILLER, CLIENT_RIVAL };

// What a folder's policies make of its files, as the client asked for it.
struct policy {
    bool set; // else nothing was asked for
    uint8_t protection, quantum_shift, span, toughness;
};

struct linear_op;
struct rival { // what is kept of one beside the client (workload_rivals.c)
    enum { RIVAL_AWAY, RIVAL_WORKS, RIVAL_WAITS } state;
    struct linear_op *op, *lost; // under way; of an earlier life, and may yet take effect
};

struct client {
    struct workload *w;
    uint32_t n, mx, group; // group: which of the things that several of its kind have in common
    enum client_kind kind;
    bool done, ready; // ready: its files are open on the present MX
    uint32_t ops;
    const char *doing;
    uint64_t quiet_ns; // what an earlier life of it asked for may go on until then
    struct ofile *shared, *own;
    struct handle shared_h, own_h;
    struct mx_file *shared_f, *own_f, *own_sync_f;
    uint8_t shared_toughness, own_toughness;
    uint64_t opened_crash;    // crashes when a brawler opened what it has
    bool own_toughness_known; // else the change of it may have been lost
    struct onames *names;
    struct fill *fill;
    struct rival rival;
    uint64_t since_ns; // when the operation under way began
    // the operation under way, for when the MX dies
    struct ofile *under_way;
    struct owrite write;  // data: in the simulator's own memory
    bool writes, appends, truncates;
    uint64_t truncate_to;
    struct ofsync *fsync;
};
struct mx_node {
    struct workload *w;
    uint32_t n;
    struct node *node;
    struct mx *mx;
};
struct log_file;
struct rivals;
struct workload {
    struct array *array;
    struct oracle *oracle;
    struct workload_options o;
    struct mx_node mx[ARRAY_MX_MAX];
    struct client client[CLIENTS_MAX];
    uint32_t clients;
    struct ofile *shared[SHARED_MAX];
    struct policy shared_policy[SHARED_MAX], own_policy[CLIENTS_MAX];
    struct ofile *passed[SHARED_MAX]; // of the passers: each file has one at a time who works on it
    uint32_t turn[SHARED_MAX];
    struct log_file *log;
    struct rivals *rivals;
    struct handle arena; // of the brawlers
    bool arena_careless; // files there may be told of the failure of one IOM
    bool prepared, checking;
    uint32_t checked;
    uint64_t progress;
};

uint64_t below(struct workload *w, uint64_t n);
struct env *client_env(struct client *c);
struct mx *client_mx(struct client *c);
void must(struct client *c, const char *what, err e); // an error here is a broken promise
// Likewise, but for what a hazard excuses, of [off, off + len) of a file. begins says when the operation did.
void begins(struct client *c);
bool excused(struct client *c, err e, struct handle h, uint64_t off, uint64_t len);
bool excused_full(struct client *c, err e); // of what needs room and no bytes of a file
void must_io(struct client *c, const char *what, err e, struct handle h, uint64_t off, uint64_t len);
void co_client_pause(struct client *c, uint64_t ns);

// ---- files and their policies (workload_file.c)
struct policy policy_random(struct workload *w);
MUST_USE err co_folder_make(struct client *c, const char *name, const struct policy *p, struct handle *dir); // in the root, durable
// Finds or makes DIR/f; the map and the toughness it got must be what the folder's policy says.
MUST_USE err co_file_in(struct client *c, struct handle dir, const struct policy *p, struct handle *h, struct mx_file **f);
MUST_USE err co_file_find(struct client *c, const char *dir, uint32_t flags, struct handle *h, struct mx_file **f, struct attr *a);

struct fwrite { // a write or an append of random bytes
    uint64_t off;
    uint32_t len;
    uint8_t toughness; // promised
    bool toughness_known, append;
};
MUST_USE err co_write_at(struct client *c, struct ofile *of, struct mx_file *f, struct fwrite what);
bool may_be_refused(struct client *c, struct ofile *of, const struct owrite *w); // though it was answered
void co_read_at(struct client *c, struct ofile *of, struct mx_file *f, uint64_t off, uint32_t len);
void co_fsync_file(struct client *c, struct ofile *of, struct mx_file *f);
void co_look(struct client *c, struct ofile *of, struct handle h); // the size
void co_truncate_file(struct client *c, struct ofile *of, struct handle h, uint64_t size);
void co_read_all(struct client *c, struct ofile *of, struct mx_file *f);
void client_died(struct client *c); // with its MX: tells the oracle what it was doing

// ---- names (workload_names.c)
MUST_USE err co_names_prepare(struct client *c, struct handle dir); // what a namer's directory begins with
void co_namer(struct client *c);
void co_check_names(struct client *c);
void names_client_died(struct client *c);

// ---- one file, one after the other (workload_pass.c)
MUST_USE err co_pass_prepare(struct client *c, uint32_t group);
void co_passer(struct client *c);
void co_pass_check(struct client *c);

// ---- all append to one file (workload_log.c)
MUST_USE err co_log_prepare(struct client *c);
void co_logger(struct client *c);
void co_log_check(struct client *c);
struct handle log_handle(const struct workload *w); // index 0: nobody has opened it yet

// ---- files that fill the stores (workload_fill.c)
MUST_USE err co_fill_prepare(struct client *c, uint32_t n);
void co_filler(struct client *c);
void co_fill_check(struct client *c);

// ---- everybody on the same names (workload_brawl.c)
MUST_USE err co_brawl_prepare(struct client *c);
void co_brawler(struct client *c);
void co_brawl_check(struct client *c);

// ---- everybody on the same names, and in which order (workload_rivals.c)
MUST_USE err co_rivals_prepare(struct client *c);
void co_rival(struct client *c);
void co_rival_check(struct client *c);
void rival_client_died(struct client *c);
void rivals_destroy(struct workload *w);
