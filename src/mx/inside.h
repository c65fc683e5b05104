// What the files of the MX share; users of the MX see mx.h alone.
//
//   operation (mx_names.c, mx_data.c) -> co_mx_request (request.c): slot, session, retries -> hub: co_call
//   session.c keeps the map and the sessions: one refresher task learns the map whenever somebody met an error that says it is old.
#pragma once
#include "base/map.h"
#include "cluster/map.h"
#include "mx/mx.h"
#include "wire/peer.h"

#define MX_SLOTS 64u                // requests under way at one IOM that change something
#define MX_APPENDS (MX_SLOTS / 2)   // of these for appends, which hold one while their data wants another
#define MX_DOUBT_NS MSEC(500)       // an answer that takes longer makes the MX look at the map
#define MX_DOUBT_AGAIN_NS MSEC(100) // and again, as long as it does not come: the map may be the old one still
#define MX_MAP_LIMIT_NS MSEC(100)   // for an answer with the map; then another IOM is asked. Longer each time that nobody has answered
#define MX_MAP_LIMIT_MAX_NS MSEC(500)
#define MX_PAUSE_MAX_NS MSEC(20)    // between two tries while the array is stopped: clients stand still as long
#define MX_TRANSFER_MAX (1u << 20)  // bytes of payload in one READ or WRITE
#define MX_IDLE_OBJECTS_MAX 1024u   // closed objects kept for the sake of an fsync to come
#define MX_IDLE_NS SEC(60)          // and how long; by then flushers have long written them out
#define MX_PARTING_NS MSEC(10)      // last closes wait that long for others, to be told in one message
#define MX_PARTING_MAX 64u
#define MX_ATTR_FRESH_NS SEC(1)     // how long a size learned from the starter serves reads at the end of the file

struct mx_slot {
    uint64_t seq;
    bool busy;
    bool opens;                      // what is under way makes a file that is open then
};
struct mx_iom {
    struct peer *peer;
    bool session;                    // opened there, as far as we know
    uint64_t session_epoch;          // epoch in which opens were last named there
    struct co_lock opening;
    struct mx_slot slot[MX_SLOTS];
    struct waitq slot_free;
    uint32_t appends;                // whose size is this IOM's
    struct waitq append_over;
    struct list parting;             // objects whose last close the starter shall hear of
    uint32_t parting_len;
    bool releaser_runs;
    bool parting_hurry;              // what is there now is not to wait for more
    struct waitq parting_wake;       // the releaser looks again
};

// What this MX knows of one object that is open here. Shared by all its open files.
struct mx_object {
    struct handle handle;
    struct refmap map;
    struct list node;                // mx.object_list
    uint32_t refs;                   // mx_files
    struct list idle;                // mx.idle: refs is 0, but somebody may yet have to be told of a loss
    uint64_t idle_since_ns;
    uint32_t opens;                  // open files; the starter knows only whether there are any
    struct list parting;             // mx_iom.parting: it will be told that there are none
    bool releasing;                  // it is being told
    struct waitq released;
    uint64_t size, durable_end, mtime_ns;
    uint64_t change, own_since;      // the starter's change counter; from own_since to change nobody but this MX moved it
    uint64_t learned_ns;             // when size came from the starter
    uint64_t size_change;            // the change counter that size is of: an answer with a lower one was overtaken
    uint32_t truncates;
    uint8_t toughness;
    uint32_t write_number;           // of the one begun last
    bool unflushed;                  // written since the last flush(): the starter's mtime and change counter lag
    // As with a local file system (errseq): what an all-crash may have taken is told once to everyone who had the object open, or else to the next who opens it.
    uint64_t writes, synced;         // begins and ends of writes below toughness 2; how many of these an fsync covered
    uint64_t fast, fast_synced;      // the same of those that one IOM alone may hold: at toughness 0, or without protection
    uint64_t lost;                   // recoveries that found writes != synced
    bool lost_told;                  // the latest of them, to anyone
};
struct mx_file {
    struct mx_object *object;
    uint32_t flags;
    uint64_t lost_seen;              // object.lost when this file was told last
};
struct mx {
    struct env *env;
    struct mx_config config;
    struct hub *hub;
    uint8_t session[16];
    struct cluster_map map;
    bool map_known;                  // any map at all
    bool map_doubted;                // an answer takes long: perhaps there is a new epoch and nobody told us
    struct list tries;               // calls that wait for their answer, oldest first
    bool map_stale;                  // somebody met another epoch, a stop, a lost connection
    uint64_t map_rounds;             // grows with every answer of the refresher: what waiters wait for
    struct waitq map_news, map_wanted;
    bool stopping, refresher_runs, renewer_runs;
    uint32_t releasers;
    struct timer doubt;
    struct mx_iom iom[ARRAY_IOMS_MAX];
    struct map objects;              // by handle bytes
    struct list object_list;
    struct list idle;                // objects kept after their last close, the longest there first
    uint32_t idle_objects;
    struct mx_stats stats;
};

// ---- request.c
void mx_op_begin(struct mx *m, struct mx_op *op);
struct mx_target {                   // to whom, and how it may be repeated
    iom_id iom;
    bool once;                       // changes something: takes a slot
    bool opens;                      // and makes a file that is open then
    struct mx_slot *slot;            // that one, which the caller holds (co_mx_slot_take); NULL: one for this request
    const uint64_t *recoveries;      // not NULL: ERR_EPOCH instead of a repeat once the map counts others
};
// Sends `req` (a template: owned, freed) until there is a definite answer. The reply is the caller's, also when the result is an error of class CALLER: then it is freed.
MUST_USE err co_mx_request(struct mx *m, struct mx_op *op, struct mx_target t, struct msg *req, struct msg **reply);
// A slot for several sendings of one request: whichever is carried out first, the others get its reply.
struct mx_slot *co_mx_slot_take(struct mx *m, iom_id iom);
void mx_slot_give(struct mx *m, iom_id iom, struct mx_slot *s);
MUST_USE err co_mx_call(struct mx *m, struct mx_op *op, iom_id iom, struct msg *q, struct msg **reply); // one try, without slot or repeats; owns q
// The same where only the result matters.
MUST_USE err co_mx_order(struct mx *m, struct mx_op *op, struct mx_target t, struct msg *req);
struct msg *mx_msg(struct mx *m, struct mx_op *op, uint16_t type, uint32_t body_len);
MUST_USE err co_mx_pause(struct mx *m, struct mx_op *op, uint64_t for_ns); // ERR_INTR, ERR_IO (eio_after)

// ---- session.c
MUST_USE err co_mx_map_wait(struct mx *m, struct mx_op *op);   // until the map says running
void mx_map_stale(struct mx *m);
MUST_USE err co_mx_session(struct mx *m, struct mx_op *op, iom_id iom); // open there, opens named in this epoch
void mx_session_lost(struct mx *m, iom_id iom);
void mx_refresher(void *arg);
void mx_renewer(void *arg);

// ---- object.c
struct mx_object *mx_object_find(struct mx *m, struct handle h);           // NULL if not known here
struct mx_object *mx_object_get(struct mx *m, const struct attr *a);       // made or referenced
void mx_object_ref(struct mx *m, struct mx_object *o);
void mx_object_put(struct mx *m, struct mx_object *o);
void mx_objects_expire(struct mx *m, uint64_t idle_before_ns); // those that are kept since before then
void mx_object_learn(struct mx *m, struct mx_object *o, const struct attr *a);
void mx_object_change(struct mx_object *o, uint64_t change, bool by_us);
void co_mx_partings_first(struct mx *m, iom_id iom); // who waits to be told goes before what the caller sends next
void mx_partings_stop(struct mx *m);
void mx_attr_decode(struct attr *out, const struct wire_attr *w, err *bad);
MUST_USE err mx_reply_attr(struct mx *m, struct msg *reply, struct attr *out, bool *has_attr); // frees reply; overlays own writes
