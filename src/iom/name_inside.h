// What the files of names share and nobody else sees.
//
// A request runs in its caller's task:
//
//   serve ── slot taken (a repeated request: its stored reply) ── the operation: looks up, builds steps
//         ── steps: short locks, holds of intents respected, preconditions, one batch with the reply in the slot (or an intent)
//         ── waits until the proxy has every batch the reply can show (I10) ── reply
//
// Two kinds of exclusion. *Locks* (by object, in order of their keys, never held over a message) guard
// read-modify-write of records. *Holds* belong to intents and truncates, last over messages and restarts (their records
// put them back), and are respected by everybody who looks at the name or object: he waits, holding nothing, and looks
// again.
#pragma once
#include "base/map.h"
#include "base/mutant.h"
#include "iom/names.h"
#include "iom/names_format.h"

#define INTENT_STEPS_MAX 6
#define CHANGE_NODES 8
#define REPLY_BYTES_MAX 512

// ---- objects --------------------------------------------------------------------------------------------------------
struct cnode { // host form of rec_cnode
    struct handle h, parent;
    struct refmap map;
    uint64_t size, atime_ns, mtime_ns, ctime_ns, btime_ns, change, rdev;
    uint32_t mode, nlink, uid, gid, truncates;
    uint8_t type, toughness, flags;
    struct rec_policy policy;
};
struct dirent {
    uint64_t number; // of its key
    struct handle h;
    struct refmap map;
    uint8_t type, name_len;
    uint8_t name[NAME_BYTES_MAX];
};
struct name { const uint8_t *s; uint32_t len; };

struct key cnode_key(struct handle h);
struct key dirent_key(struct handle dir, uint64_t number);
uint32_t cnode_encode(const struct cnode *c, struct rec_cnode *out);
MUST_USE err cnode_decode(struct cnode *c, struct handle h, const void *val, uint32_t len);
uint32_t dirent_encode(struct rec_dirent *out, struct handle h, const struct refmap *m, uint8_t type, struct name nm);
MUST_USE err dirent_decode(struct dirent *d, const struct key *k, const void *val, uint32_t len);
MUST_USE err co_cnode_get(struct names *n, struct handle h, struct cnode *c);     // ERR_STALE
MUST_USE err co_cnode_live(struct names *n, struct handle h, struct cnode *c);    // ... also if deleted and not held open
MUST_USE err co_cnode_kept(struct names *n, struct handle h, struct cnode *c);    // ERR_BUSY instead: deleted, and being cleared away
MUST_USE err co_dirent_find(struct names *n, struct handle dir, struct name nm, struct dirent *d); // ERR_NOENT: d->number = a free one, 0 = none
MUST_USE err co_dir_empty(struct names *n, struct handle dir, bool *empty);
MUST_USE err co_handle_new(struct names *n, struct handle *h);
struct refmap dir_map(const struct names *n, iom_id starter); // of every directory; it has no data
uint64_t name_hash(struct name nm);       // 61 bits << 2
MUST_USE err name_check(struct name nm);  // 1..255 bytes, no '/' nor NUL, not "." nor ".."
MUST_USE err co_dir_find(struct names *n, struct handle dir, struct name nm, struct dirent *d);
MUST_USE err co_cnode_made(struct names *n, struct handle h, struct cnode *c);
MUST_USE err co_object_about(struct names *n, struct handle h, uint8_t *type, struct refmap *map);
uint8_t type_of_mode(uint32_t mode); // 0: none
void attr_fill(struct wire_attr *a, const struct cnode *c);
static inline void wire_handle_put(struct wire_handle *w, struct handle h) { handle_put(w->b, h); }
static inline struct handle wire_handle_at(const struct wire_handle *w) { return handle_at(w->b); }
static inline bool handle_none(struct handle h) { return h.index == 0; }
static inline struct handle handle_zero(void) { return (struct handle){0}; }

// ---- locks and holds (name_lock.c) ----------------------------------------------------------------------------------
struct lockset { uint64_t key[CHANGE_NODES]; uint8_t len; };
void lockset_add(struct lockset *s, struct handle h);
void co_lockset_take(struct names *n, struct lockset *s); // in order
void lockset_release(struct names *n, struct lockset *s);

enum hold_kind {
    HOLD_NAME,     // one name of a directory
    HOLD_DIR,      // shared: some names of it are held; it is not removed meanwhile
    HOLD_OBJECT,   // attributes, link count, parent
    HOLD_EMPTY,    // with HOLD_OBJECT: and no name may come into it
    HOLD_TRUNCATE, // size and count of truncates
    HOLD_RIGHT,
};
struct hold { // one per (kind, thing), with the number of its holders (only HOLD_DIR has several)
    uint64_t key;
    enum hold_kind kind;
    struct intent_id id; // of the (last) holder
    uint32_t holders, local; // local: holders that decide here: until they do, the thing is as it was, and may be looked at
    struct waitq freed;
    uint32_t waiters;
    uint64_t size;           // HOLD_TRUNCATE: the new size, durable with the INTENT ...
    uint32_t truncates;      // ... under this count; 0 until the INTENT is durable
    bool left;               // likewise: recovery could not finish it
};
uint64_t hold_key(enum hold_kind kind, struct handle h, struct name nm);
struct hold *hold_find(struct names *n, uint64_t key, const struct intent_id *but); // of another intent, or NULL
void hold_take(struct names *n, uint64_t key, enum hold_kind kind, const struct intent_id *id, bool local);
void hold_free(struct names *n, uint64_t key, bool local);
MUST_USE err co_hold_wait(struct names *n, struct hold *h);  // until it is freed once; ERR_STOPPED. Caller looks again
MUST_USE err co_look_object(struct names *n, struct handle h);            // waits for whoever may change its attributes
MUST_USE err co_look_name(struct names *n, struct handle dir, struct name nm);
bool object_looked_at(struct names *n, struct handle h);                  // would co_look_object wait?

// ---- requests -------------------------------------------------------------------------------------------------------
struct name_session;
struct name_slot { uint64_t seq; bool running, known; struct waitq q; };
struct request {
    struct names *n;
    const struct msg *m;
    const struct req_head *head;    // of requests that have one
    struct name_session *session;   // of requests that need one
    uint32_t slot;
    uint64_t seq;                   // 0: not kept
    bool stored;                    // the reply is in the slot, with the effect
    uint64_t shows;                 // the reply may show batches up to this
    uint32_t reply_len;             // after the envelope; 0 = envelope alone
    uint8_t reply[REPLY_BYTES_MAX];
    struct msg *big;                // READDIR and the like: the whole reply
};
void request_attr(struct request *r, const struct cnode *c);
void request_slot(struct request *r, struct batch *b, err result); // the reply and result into the batch; nothing without seq
MUST_USE err co_request_commit(struct request *r, struct batch *b); // co_mirror_commit with the slot, result OK; the reply rests on it
typedef err (*name_op)(struct request *r);

err co_name_lookup(struct request *r);
err co_name_getattr(struct request *r);
err co_name_open(struct request *r);
err co_name_release(struct request *r);
err co_name_readlink(struct request *r);
err co_name_statfs(struct request *r);
err co_name_readdir(struct request *r);
err co_name_create(struct request *r);
err co_name_create_again(struct request *r, struct msg **stored);
err co_name_mkdir(struct request *r);
err co_name_symlink(struct request *r);
err co_name_link(struct request *r);
err co_name_unlink(struct request *r);
err co_name_rmdir(struct request *r);
err co_name_rename(struct request *r);
err co_name_setattr(struct request *r);
err co_name_raise(struct request *r);
err co_name_sync_meta(struct request *r);
err co_name_end_durable(struct request *r);
err co_name_touch(struct request *r);
err co_name_setxattr(struct request *r);
err co_name_getxattr(struct request *r);
err co_name_listxattr(struct request *r);
err co_name_removexattr(struct request *r);
err co_name_session_open(struct request *r);
err co_name_session_renew(struct request *r);
err co_name_session_close(struct request *r);
err co_intent_reserve(struct request *r);
err co_intent_commit(struct request *r);
err co_intent_abort(struct request *r);
err co_intent_query(struct request *r);
err co_mirror_state(struct request *r);
err co_mirror_sync(struct request *r);

// ---- steps (name_step.c, intent.c) ----------------------------------------------------------------------------------
struct step { // host form of wire_step
    enum step_kind kind;
    uint8_t flags, type;
    int8_t nlink;
    struct handle at, expect, target;
    struct refmap map;
    struct name name;
    uint32_t mode, uid, gid;
    uint64_t rdev;
    uint64_t size; // of a symlink that is made: always here
    uint8_t toughness;
    struct rec_policy policy;
    iom_id where; // whose it is
};
struct steps {
    struct step v[INTENT_STEPS_MAX];
    uint8_t len;
    err (*co_walk)(struct names *n, void *arg);       // with the right held, before all else
    void (*extra)(void *arg, struct batch *b);        // what else the owner's batch holds
    void *arg;
};
struct step *steps_add(struct steps *s, enum step_kind kind, struct handle at);

struct change { // steps being applied at this IOM: the objects they touch, under their locks, and the batch
    struct names *n;
    struct batch *b;
    struct lockset locks;
    struct cnode node[CHANGE_NODES];
    bool dirty[CHANGE_NODES];
    uint8_t len;
    uint64_t number[INTENT_STEPS_MAX]; // of each name's key
    struct handle shown;      // the object step's or made object
    bool committed;
    struct handle orphans[CHANGE_NODES]; // lost their last name
    uint8_t orphans_len;
};
// Locks what the steps at this IOM touch and loads it. `but`: the intent whose holds do not count.
// OK: locked. ERR_CONFLICT: a name is not what was expected; other refusals; in all these cases nothing is locked.
MUST_USE err co_change_begin(struct change *c, struct names *n, const struct steps *s, const struct intent_id *but);
MUST_USE err co_change_load(struct change *c, struct names *n, const struct steps *s); // the same without looking at holds and preconditions
bool steps_take_away(const struct steps *s); // they make no name and no object: they may have what is kept for deletes, or a full store stayed full
void co_change_apply(struct change *c, const struct steps *s); // puts everything into c->b (made here)
const struct cnode *change_shown(const struct change *c);     // NULL if the steps have no object
void change_end(struct change *c);                            // unlocks; hands orphans on
struct hold *steps_blocked(struct names *n, const struct step *s, const struct intent_id *but); // a hold that the step must wait for
uint32_t steps_encode(uint8_t *out, const struct steps *s, iom_id where, uint8_t *count); // those of one IOM, the right apart
MUST_USE err steps_decode(struct steps *s, uint8_t count, const uint8_t *p, uint32_t len, iom_id self);
void steps_hold(struct names *n, const struct steps *s, const struct intent_id *id, bool local);
MUST_USE err co_steps_hold(struct names *n, const struct steps *s, const struct intent_id *id, bool local); // waits for each in order
void steps_free(struct names *n, const struct steps *s, bool local);
// Runs the operation: alone or as the owner of an intent. On OK the reply (attributes of the object step if `attr`) is
// formed and committed.
MUST_USE err co_steps_run(struct request *r, struct steps *s, bool attr, bool open);

void intents_init(struct names *n);
void intents_fini(struct names *n);
MUST_USE err co_intents_load(struct names *n);
MUST_USE err co_intents_recover(struct names *n);
void intents_age(struct names *n); // from the housekeeper: asks about parts held long

// ---- the mirror -----------------------------------------------------------------------------------------------------
struct tail_note { struct list node; uint64_t epoch, number; lsn at; uint32_t ops_len; uint8_t *ops; };
struct names_replay { struct mem *mem; struct list own, ward; };
struct mirror {
    uint64_t epoch, number; // the last batch applied here
    uint64_t acked, durable_there, durable_here, asked;
    uint64_t told;          // durable_here as the proxy last heard it
    uint64_t tail_bytes;
    struct list tail;       // tail_notes of own batches not known durable at the proxy
    struct waitq acks;
    // as proxy of the ward
    struct list arrived;    // MSG_MIRROR not yet applied
    struct co_lock applying;
    struct waitq work, sync_work;
    bool started; // its tasks run
    uint64_t ward_epoch, ward_number, ward_synced, ward_sync_wanted, ward_owner_durable, ward_acked;
    struct list ward_tail;
    bool ward_broken;
};
void mirror_init(struct names *n);
void mirror_start(struct names *n); // its tasks
void mirror_fini(struct names *n);
void mirror_wake(struct names *n);  // stopping: whoever waits looks again
MUST_USE err co_mirror_alone(struct names *n); // after it, without a proxy: from here on whatever the missing side has beyond this is void
void mirror_adopt(struct names *n, uint64_t epoch); // after phase 0: both sides are alike
void mirror_forget_ward(struct names *n);           // what was kept for it: another writes its copy now
MUST_USE err co_mirror_commit(struct names *n, struct batch *b, uint64_t *number); // applies, numbers, sends
MUST_USE err co_mirror_wait(struct names *n, uint64_t number);    // the proxy has it in memory
MUST_USE err co_mirror_durable(struct names *n, uint64_t number); // on the disks of both
bool mirror_is_durable(const struct names *n, uint64_t number);
MUST_USE err co_mirror_recover(struct names *n);
MUST_USE err co_ward_drain(struct names *n);
void mirror_retain(struct names *n);
MUST_USE err co_ward_apply(struct names *n, uint64_t epoch, uint64_t number, const uint8_t *ops, uint32_t len);
struct tail_note *tail_note_new(struct mem *m, uint64_t epoch, uint64_t number, const uint8_t *ops, uint32_t ops_len);

// ---- sessions -------------------------------------------------------------------------------------------------------
struct name_session {
    uint8_t id[16];
    uint64_t seen_ns;   // last heard of
    bool renewed;       // since the last recovery: its opens are known
    bool closing;
    uint32_t users;     // requests that use it
    struct waitq unused;
    struct map slots;   // slot -> name_slot
    struct map opens;   // handle hash -> struct name_open
};
void sessions_init(struct names *n);
void sessions_fini(struct names *n);
MUST_USE err co_sessions_load(struct names *n);
struct name_session *session_find(struct names *n, const uint8_t id[16]);
void co_sessions_expire(struct names *n);
bool sessions_settled(const struct names *n); // all have renewed or expired since the recovery
MUST_USE err co_slot_take(struct request *r, struct msg **stored, err *result); // OK with *stored or *result: repeated. Else it runs
void slot_give(struct request *r, bool done);
bool object_open(const struct names *n, struct handle h);
void session_open_object(struct names *n, struct name_session *s, struct handle h);
bool session_release_object(struct names *n, struct name_session *s, struct handle h); // true: was the last

// ---- deleted objects, truncates (name_orphan.c, name_truncate.c)
// -------------------------------------------------------
void orphans_init(struct names *n);
void orphans_fini(struct names *n);
MUST_USE err co_orphan_kept(struct names *n, struct handle h); // its last name is gone. ERR_BUSY: and nobody opens it any more
bool orphan_batch(struct names *n, struct batch *b, struct cnode *c); // the object lost its last name: false: its records go with this batch
void orphan_note(struct names *n, struct handle h);                   // it may go now: looks at it soon
MUST_USE err co_orphans_load(struct names *n);
MUST_USE err co_orphans_recover(struct names *n);
void co_orphans_settle(struct names *n); // housekeeper: sessions are settled
MUST_USE err co_truncate(struct request *r, struct cnode *c, const struct req_setattr *q, uint64_t now_ns);
void setattr_alter(const struct req_setattr *q, uint64_t now_ns, struct cnode *c); // all but the size
struct hold *truncate_open(struct names *n, struct handle h); // NULL: none is under way
// A truncate is under way and its INTENT durable: *size is the object's durable end for those who know the new count.
// ERR_TRUNCATED for an older one.
bool truncate_durable_end(struct names *n, struct handle h, uint32_t truncates, uint64_t *size, err *result);
MUST_USE err co_object_try_lock(struct names *n, struct handle h, struct lockset *locks, struct cnode *c, struct hold **held,
                                err (*co_get)(struct names *n, struct handle h, struct cnode *c));
MUST_USE err co_object_lock(struct names *n, struct handle h, struct lockset *locks, struct cnode *c); // live, no truncate under way
MUST_USE err co_object_put(struct request *r, struct cnode *c); // one batch with the reply
void object_changed(struct names *n, struct handle h, uint64_t number); // its creation or size is in this batch
uint64_t object_number(const struct names *n, struct handle h);         // all of that is durable when this batch is
MUST_USE err co_truncates_load(struct names *n);    // their holds
MUST_USE err co_truncates_recover(struct names *n, bool finish); // before and after the resolution of rows
void co_truncates_again(struct names *n);                        // what that has left
MUST_USE err co_members_discard(struct names *n, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates, bool gone);
MUST_USE err co_call_iom(struct names *n, iom_id to, const struct msg *req, struct msg **reply); // sends until it gets through; ERR_STOPPED
bool err_transport(err e); // lost on the way, perhaps done; not an answer

// ---- touches (name_raise.c)
void touches_init(struct names *n);
void touches_fini(struct names *n);
void co_touches_apply(struct names *n);

struct names {
    struct env *env;
    struct mem *mem;
    struct store *store;
    enum tree_id tree;      // its own: TREE_META; TREE_WARD of a stand-in
    struct names_port port;
    struct names_config c;
    iom_id proxy, ward;
    bool exposed;           // there should be a proxy and is none: what is answered is on this disk
    uint64_t epoch;
    bool stopping, started;
    uint32_t tasks;         // of its own, requests included
    struct waitq idle;      // tasks became 0
    struct waitq tick;      // the housekeeper sleeps here
    struct waitq touch_work;
    struct map locks, holds;
    uint64_t index_next, index_end;
    struct co_lock index_lock;
    struct mirror mirror;
    struct map sessions, opens; // by hash of the id; handle hash -> struct name_open (count of sessions)
    struct map intents_here, parts_here, done_ids; // intent.c
    struct list done_order;
    uint32_t intent_counter;
    struct list orphans; uint32_t orphan_workers; struct map orphans_known; bool orphans_waiting, truncates_left; struct waitq orphan_idle;
    struct map touches;
    uint64_t recent[1024]; // by handle hash: object_number
    bool recovering;
    struct names_stats stats;
};
void names_task(struct names *n, const char *name, void (*fn)(struct names *n, void *arg), void *arg); // counted; awaited by co_names_stop
