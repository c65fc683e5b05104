// Metadata of one IOM: everything whose starter it is. Directories, attributes, sessions and slots (exactly once),
// intents over several IOMs, and the mirror of all that at the proxy. One file per request (name_create.c,
// name_rename.c, ...), one table row each.
#pragma once
#include "layout/layout.h"
#include "store/store.h"
#include "wire/format.h"

struct names;
struct names_port {
    void *ctx;
    void (*post)(void *ctx, iom_id to, struct msg *m);                               // MSG_MIRROR, MSG_MIRROR_ACK; owns m
    struct msg *(*msg)(void *ctx, uint16_t type, uint32_t body_len);                 // body_len includes the envelope
    err (*co_call)(void *ctx, iom_id to, struct msg *req, struct msg **reply);       // to another IOM (or oneself: shortcut inside): owns req
    // this IOM's own rows, for discards and zeroing where it is itself a member
    err (*co_discard)(void *ctx, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates, bool gone);
    err (*co_zero)(void *ctx, struct handle h, const struct refmap *m, uint64_t off, uint64_t len, uint32_t truncates);
};
struct names_config {
    iom_id self;
    struct array_shape array;
    bool stand_in;             // of an IOM that is not there: its tree is the copy in the store of its proxy
    uint64_t session_lease_ns; // default 60 s
};
struct names *names_create(struct env *e, struct store *s, const struct names_port *port, const struct names_config *c);
// Before phase 0: is the proxy there to take the mirror? If not, what is answered rests on this disk alone, and is on it before the answer leaves (I7). Is the
// ward there? If not, its copy here is the stand-in's.
// As the map of this recovery has the array.
void names_neighbours(struct names *n, const struct array_shape *array, bool proxy, bool ward);
void names_cancel(struct names *n);               // all that waits in names ends with ERR_STOPPED, a phase of recovery too; co_names_stop follows
void co_names_stop(struct names *n, bool harden); // ends its tasks; harden: syncs what was committed
void names_destroy(struct names *n);

// Replies (bodies in wire/format.h): LOOKUP, GETATTR, OPEN, SETATTR, CREATE, MKDIR, SYMLINK, LINK rep_attr; RAISE,
// SYNC_META, END_DURABLE rep_size; READLINK, GETXATTR, LISTXATTR the envelope and a payload; all others the envelope
// alone. LOOKUP knows "." and "..". SESSION_OPEN, RENEW, CLOSE: a bare req_head. The first RENEW after a recovery names
// in its payload what the session has open here (wire_handles), and behind its head the creations under way, whose
// files are open if they were made before (wire_slots). OPEN and RELEASE say that a session has an object open
// or not, however often: the MX counts. A request that changes something carries seq != 0. names_port.co_call must end
// when the peer is lost or this IOM stops, or co_names_stop waits for it; its ERR_STOPPED means that this IOM stops or
// the epoch is over, other errors of the way are tried again. Between IOMs, also in recovery, calls go through from the
// phase 0 of both on; MXs are kept out by the caller until the last phase is over.

// ---- service. Every call of an MX or IOM with a type in names' table; answers with hub_reply, I10: only when the proxy
// has what the reply shows.
bool names_takes(uint16_t type);
void co_names_call(struct names *n, struct inbound *in);   // runs in the task of the request
MUST_USE err co_names_serve(struct names *n, const struct msg *m, struct msg **reply); // the same without a hub: *reply may be NULL (envelope alone)
void names_receive(struct names *n, iom_id from, struct msg *m); // MSG_MIRROR from the ward, MSG_MIRROR_ACK from the proxy; owns m; never waits
void names_session_gone(struct names *n, const uint8_t session[16]); // its connection closed: the lease runs
MUST_USE err co_names_end_durable(struct names *n, struct handle h, uint64_t end, uint32_t truncates, uint64_t *durable_end); // for rows whose starter is this IOM
void names_touch(struct names *n, struct handle h, uint64_t mtime_ns);

// The raise that a write brings along (req_write.raise). It begins when the write's bytes are in memory here, so that whoever sees the new size or change
// counter reads them, and runs beside the write's way to the parity.
struct names_raise {
    struct handle h;
    uint64_t end, mtime_ns;
    uint32_t truncates;
    bool begun;            // the rest is internal until the end
    struct group ended;
    struct names *n;
    struct rep_size size;  // the reply, its envelope apart
};
void names_raise_begin(struct names_raise *x);
MUST_USE err co_names_raise_end(struct names_raise *x); // when the proxy has it (I10). Not begun: the write was a repeated one, and its raise may be lacking
MUST_USE err co_names_sync(struct names *n); // touches applied, and all that was changed here durable at both copies

// ---- recovery phases, a barrier of all members after each; idempotent
//  0  mirror: of own tree and the proxy's copy the shorter takes the rest from the longer; both flushed
//  1  intents: withdrawn or rolled forward; 2  what truncates under way cut, and orphans, is discarded again on all members;
//  3  after the rows' recovery: truncates under way are finished
#define NAMES_RECOVERY_PHASES 4
MUST_USE err co_names_recover(struct names *n, uint32_t phase, uint64_t epoch);
// Makes the root directory if this IOM is its starter and the store is new. Part of phase 1.

// ---- the store's hook, given to co_store_open (before names exist): keeps the retained batches for recovery phase 0
struct names_replay;
struct names_replay *names_replay_new(struct env *e);
void names_replay_note(void *replay, enum tree_id tree, uint64_t epoch, uint64_t number, const uint8_t *ops, uint32_t ops_len, lsn at);
void names_take_replay(struct names *n, struct names_replay *r); // owns r
struct names_replay *names_leave_replay(struct names *n); // before names_destroy, if the store stays open: for the next names over it

// ---- check: every CNODE, DIRENT, link count, parent; mirror equals own tree (by digest). One sentence per fault.
// Online or on opened stores. All stores of the array, quiet (cleanly stopped, or recovered and without requests), in
// the caller's env. OK also with faults; an error: it could not be read. `away`: the IOM whose proxy stood in for it and whose own
// store is behind: the proxy's copy of its tree counts. NO_IOM: all were there.
MUST_USE err co_names_check(struct env *e, struct store *const stores[], const struct array_shape *array, uint8_t away, void (*fault)(void *ctx, const char *sentence),
                            void *ctx, uint64_t *objects, uint64_t *faults);
struct names_stats { uint64_t objects, dirents, requests, slots_replayed, mirror_batches, intents; };
void names_stats(const struct names *n, struct names_stats *out);
