// What the files of the update protocol share: a segment's two sides, the objects, the peers. The story is told in row.c.
#pragma once
#include "base/map.h"
#include "base/mutant.h"
#include "iom/row.h"
#include "iom/row_format.h"

#define ROWS_MAX SEG_BLOCKS_MAX
typedef uint16_t row_mask;

// ---- contents of blocks ---------------------------------------------------------------------------------------------
// A block in memory: 4096 bytes within a buf (one reference is ours). `own`: nobody else's bytes lie in the buf and no message refers to it, so it may
// be changed in place while it is in an open layer.
struct content {
    struct buf *buf; // NULL in a layer's mask: the hole, all zeros
    uint32_t off;
    bool own;
};
struct layer {
    row_mask mask;
    struct content c[ROWS_MAX];
};
struct spot { uint64_t at; uint32_t crc; }; // a place on disk; at 0 = the hole
static inline bool row_spot_same(const struct spot *a, const struct spot *b) { return a->at == b->at && a->crc == b->crc; }

// ---- objects --------------------------------------------------------------------------------------------------------
#define ROW_CUTS_MAX 4096u // more than a file can be cut in the time in which a broken stream is found out
struct cut { uint32_t count; uint64_t from_seg; };
struct object {
    struct rows *r;
    struct handle h;
    struct refmap map;
    bool loaded;        // CNODE2 has been looked for
    bool stored;        // CNODE2 is in the tree, with `swept`
    bool gone;          // deleted: nothing is taken for it any more
    bool asks;          // it was cut while this IOM was away, and its segments have not all been asked for (row_missing.c)
    bool anew;          // without protection, in a replaced store: it was emptied since (row_census.c)
    bool sweeping;      // records of segments >= sweep_from are being deleted, for a discard that CNODE2 does not tell before all of them are gone
    bool cut_open;      // discarded from, not zeroed yet: what is dirty may reach beyond the cut, and its end is not to be asked for
    bool asking_end;    // a task asks the starter for a durable end
    uint32_t truncates; // count of truncates, as far as anybody has told it
    uint32_t swept;     // that of the last one whose discard is done here, or never had anything to do here: CNODE2's
    uint64_t sweep_from, durable_end, end_wanted, mtime_ns, touched_since_ns;
    struct cut *cut; // discards, oldest first: what was said before them about what they cut is void. Each cuts less than the one before it: else that says nothing more
    uint32_t cuts, cut_cap;
    struct list segs;      // seg.of_object: all in memory
    struct list unsettled; // dseg.unsettled: dirty or in flight
    struct list touched;   // rows.touched
    struct list idle;      // rows.idle_objects when nothing hangs on it
    err lost;              // a write that was answered early (toughness 0) and refused later: told once, at fsync
    uint32_t pins;
    struct co_lock cutting; // one discard at a time
};

// ---- segments -------------------------------------------------------------------------------------------------------
struct seg {
    struct rows *r;
    struct object *o;
    uint64_t n;           // segment number
    uint8_t role;         // enum row_role
    uint8_t blocks;       // rows
    bool loaded;          // spot[] (and versions) are those of the tree
    bool dead;            // discarded; freed with the last pin
    bool busy;            // a round or the settler works on it: its places are between being taken and being named
    bool putting;         // the settler or a mender is putting its CHUNK: one at a time, or an older one would come to lie over a newer
    uint32_t storing;     // the count of truncates in the CNODE2 that its batch puts, plus one; 0: it puts none
    bool mending;         // a task rebuilds blocks of it (row_mend.c): one at a time
    uint32_t pins;
    struct list of_object, lru, work, settling; // work: the queue of freezing or forming it stands in, if any
    struct co_lock lock;  // loading; writers
    struct waitq q;       // woken by every change that somebody may wait for
    struct spot spot[ROWS_MAX]; // settled
    struct spot next[ROWS_MAX]; // of the version in flight
    struct layer clean;   // settled contents that are in memory
};

// D's side. The open version is `version + 2`: what is dirty will be frozen at that.
enum d_state {
    D_IDLE,      // nothing in flight
    D_HARDENING, // frozen; blocks and UPDATE on their way to disk; P has been told to freeze
    D_HARDENED,  // on disk, P knows (without P: goes on at once)
    D_SETTLING,  // P said settled: CHUNK is being put
};
struct dseg {
    struct seg s;
    uint8_t k;
    iom_id p;             // NO_IOM without protection
    enum d_state state;
    bool due;             // to be frozen as soon as it may be
    bool urgent;          // and somebody waits for it
    bool decided;         // recovery: P has told that it has nothing to decide of it (resolve.c)
    bool early;           // a mutant's: settled before it was hardened
    uint64_t version;     // last frozen at
    uint64_t settled;     // highest version that is settled
    uint64_t row_version[ROWS_MAX];
    struct layer dirty, frozen;
    row_mask pending;     // dirty rows whose first delta P has not yet taken: no second write to them, no freeze
    uint32_t posted;      // deltas not yet acknowledged
    uint32_t refused;     // deltas taken back so far
    uint64_t last_delta;  // number of the last one
    uint64_t dirty_end, frozen_end; // highest byte of the object, exclusive, that is dirty / frozen
    uint64_t dirty_since_ns;
    struct list unsettled;
    struct spot *on_disk; // recovery: places of the UPDATE, by row, that have been read and are good (resolve_data.c); NULL: none
};

// P's side. One accumulator per data member; a frozen one stays until its version is settled.
struct acc {
    struct layer l;      // bytes to be xored in
    uint64_t version, end;
    uint32_t reserved;   // places promised for it
    bool taken;          // in the version in flight
    bool hardened;       // D has said so
};
enum p_state {
    P_IDLE,
    P_FORMING,  // reads old parity, forms the new, writes, journals
    P_HARDENED, // own part is on disk; waits for the participants'
    P_SETTLING, // all are: CHUNK is being put
};
struct pseg {
    struct seg s;
    uint8_t n;
    enum p_state state;
    bool urgent;
    bool entered;             // recovery: what its members have hardened is included (resolve_parity.c)
    uint8_t holds;            // gathers that have seen it change too often: no version is begun until they are done
    uint64_t gather_until_ns; // a freeze nobody waits for gives the other members this long to join
    struct acc *open[ARRAY_IOMS_MAX], *frozen[ARRAY_IOMS_MAX];
    uint64_t *versions;       // [row * n + k], settled
    struct layer forming;     // new parity of the version in flight
    row_mask unknown;         // rows of it whose old parity is lost: so is this one, and it is put so that it does not read
};

// ---- peers ----------------------------------------------------------------------------------------------------------
// A delta on its way to P. It may be refused (no place for the parity): then it is taken back.
struct delta_out {
    struct list node;
    uint64_t no;
    struct dseg *d;       // pinned
    struct slice payload; // one reference
    uint32_t off;
    row_mask fresh;       // rows that this delta made dirty
    uint32_t truncates;
    struct group *group;  // who waits; NULL: nobody
};
struct rpeer {
    uint64_t sent_no;      // as D: of the last delta sent to it
    struct list out;       // delta_out in order
    uint64_t freeze_at;    // credit_used at which the oldest is frozen, before credit runs out
    uint64_t credit_used;  // bytes of accumulators it holds for us
    struct waitq credit_q;
    uint64_t got_no;       // as P: of the last delta received from it
    bool ack_due;
    struct row_refusal *refusal;
    uint32_t refusals, refusal_cap;
};

struct slot;
struct rows {
    struct env *env;
    struct store *store;
    enum tree_id tree; // of its records: TREE_LOCAL, or TREE_STAND_IN of a stand-in
    iom_id self, beside; // beside: the service in the same memory; NO_IOM: none
    struct rows_port port;
    struct rows_config cfg;
    struct rpeer peer[ARRAY_IOMS_MAX];
    struct map objects, segs, slots; // keys of 32 bytes: handle; handle and segment; session and slot
    struct list slot_lru;
    struct list lru, idle_objects;
    uint32_t idle_count;
    uint64_t clean_bytes, dirty_bytes, acc_bytes;

    // Queues of work (seg.work; settle: seg.settling)
    struct list d_aged;    // dirty, oldest first
    struct list d_due;     // dirty, to be frozen at once
    struct list touched;   // objects whose starter is to hear of changed data
    struct list p_gather;  // freezes that wait a little for the other members
    struct list p_ready;   // versions to be formed
    struct list settle;    // both sides: P's with all parts hardened, D's that were told settled
    struct waitq d_wake, p_wake, settle_wake, ack_wake, room_q, stop_q;
    uint32_t d_rounds, p_rounds; // under way
    uint32_t mends, gathers;     // likewise; bounded (row_mend.c, row_gather.c)
    struct waitq mend_q, gather_q;
    struct scrub *scrub;         // under way, or the last one; NULL: none since the start
    uint32_t tasks, inside;      // own tasks; calls within (both awaited by co_rows_stop)
    struct list recheck;         // of the return (row_missing.c)
    uint64_t missing_total, missing_done; // blocks (row_build.c)
    bool blank;                  // the store was replaced, and does not know yet what it lacks (row_census.c)
    uint32_t blank_since;        // low half of the epoch in which the replaced store came; 0: it is the first
    uint64_t client_ns;          // when a client's read, write or delta came last: what builds gives way (row_build.c)
    struct waitq build_q;        // nobody wakes it but a stop
    bool stopping, hurry;        // hurry: freeze all that is dirty
    err broken;                  // the store failed: nothing is promised any more
    struct rows_stats stats;
};

// row.c
struct object *row_object_find(struct rows *r, struct handle h); // NULL; not pinned
struct object *row_object(struct rows *r, struct handle h, const struct refmap *m); // pinned; new if need be
void row_object_unpin(struct object *o);
MUST_USE err co_row_object_load(struct object *o);
void row_cut_add(struct object *o, uint32_t count, uint64_t from_seg);
bool row_cut(const struct object *o, uint32_t count, uint64_t seg); // a message of this count about this segment is void
struct seg *row_seg_find(struct rows *r, struct handle h, uint64_t n);
struct dseg *row_dseg(struct object *o, uint64_t n, uint8_t k, iom_id p); // pinned
struct pseg *row_pseg(struct object *o, uint64_t n);                      // pinned
MUST_USE err co_row_seg_load(struct seg *s);
void row_seg_pin(struct seg *s);
void row_seg_unpin(struct seg *s);
void row_seg_drop(struct seg *s);   // dead and out of the maps
void row_cache_trim(struct rows *r);
static inline struct dseg *row_d(struct seg *s) { ASSERT(s->role == ROW_DATA); return (struct dseg *)s; }
static inline struct pseg *row_p(struct seg *s) { ASSERT(s->role == ROW_PARITY); return (struct pseg *)s; }
void row_spawn(struct rows *r, const char *name, void (*fn)(void *arg), void *arg); // counted; ends with row_task_end
void row_task_end(struct rows *r);
void row_break(struct rows *r, err e, const char *what); // the store failed
static inline void row_queue(struct list *q, struct seg *s) {
    list_remove(&s->work);
    list_push_back(q, &s->work);
}

// layers
uint8_t *row_content_data(const struct content *c);
void row_layer_set(struct layer *l, unsigned row, struct content c); // replaces; takes over c's reference
void row_layer_drop(struct layer *l, row_mask rows);
void row_clean_drop(struct seg *s, row_mask rows);
void row_layer_move(struct layer *to, struct layer *from);           // `to` gets from's rows over its own; from is empty
struct content row_own_block(struct rows *r);                        // content undefined
static inline unsigned row_count(row_mask m) { return (unsigned)__builtin_popcount(m); }
#define ROW_FOR(mask, b) \
    for (unsigned b, b##_left = (mask); b##_left && ((b = (unsigned)__builtin_ctz(b##_left)), true); b##_left &= b##_left - 1)
static inline row_mask row_span(uint32_t off, uint32_t len) { // rows touched by a byte range of a segment; len > 0
    uint32_t first = off >> BLOCK_SHIFT, last = (off + len - 1) >> BLOCK_SHIFT;
    return (row_mask)((2u << last) - (1u << first));
}

// row_record.c
struct key row_key(uint8_t kind, struct handle h, uint64_t number);
struct seg_places { uint64_t *at; uint32_t len; }; // one address per block to be written, in order
uint32_t row_chunk_encode(const struct seg *s, uint8_t *out); // of spot[] and versions; 0: nothing present
MUST_USE err row_chunk_versions(const uint8_t *val, uint32_t len, uint8_t role, uint8_t columns, uint8_t blocks, uint64_t *out); // [row * columns + column]; out zeroed
MUST_USE err row_chunk_decode(struct seg *s, const uint8_t *val, uint32_t len);
struct update { // the memory form of an UPDATE or HELD record
    uint8_t role, k;
    row_mask rows;
    uint64_t version, end;
    uint32_t truncates;
    struct spot spot[ROWS_MAX];
    uint8_t parts;
    struct { uint8_t k; row_mask rows; uint64_t version; } part[ROW_PARTS_MAX];
};
uint32_t row_update_encode(const struct update *u, uint8_t *out);
MUST_USE err row_update_decode(struct update *u, const uint8_t *val, uint32_t len);
MUST_USE err co_row_update_get(struct rows *r, struct handle h, uint64_t number, struct update *u); // ERR_NOENT
void row_batch_update(struct rows *r, struct batch *b, struct handle h, uint64_t number, const struct update *u);
void row_batch_chunk(struct batch *b, const struct seg *s);
// It is believed after a crash: a discard it tells is not done again. So what comes to disk in the middle of one tells nothing of it; with the last records that go it is told.
void row_batch_cnode2(struct batch *b, struct object *o);
void row_batch_cnode2_swept(struct batch *b, struct object *o, uint32_t truncates);
// The first as part of a round, as long as it is not known to be in the tree; that is after the commit, for a batch that waits may be overtaken by one without it.
void row_batch_stored(struct batch *b, struct seg *s);
MUST_USE err co_row_stored(struct seg *s); // that batch is committed
MUST_USE err co_row_cnode2_stored(struct object *o, uint32_t put); // a batch with CNODE2 telling `put` is committed
void row_batch_free(struct batch *b, const struct spot *spot, row_mask rows); // neighbours as one

// row_missing.c
bool row_asks(const struct seg *s);                          // no record does not mean that nothing was ever written
static inline bool rows_ask(const struct rows *r) { return r->cfg.stand_in || r->blank; } // likewise, of all that is protected
bool row_lost_with_store(const struct object *o);            // without protection: what has no record here was in the store that was replaced, if anywhere
struct seg *row_seg_of(struct object *o, uint64_t n); // this IOM's part of it, pinned; NULL: it has none
row_mask row_missing(const struct spot *spot, row_mask rows); // of these
void row_recheck_forget(struct rows *r);
MUST_USE err co_row_note_cut(struct object *o, uint64_t seg, uint64_t off); // at a stand-in: of an object that it has nothing of
MUST_USE err co_row_ask_versions(struct seg *s);             // of a segment without a record: fills it in, unless another has loaded it meanwhile

// row_io.c
MUST_USE err co_row_read_places(struct rows *r, struct block_io *v, uint32_t n, uint32_t *bad_mask);
MUST_USE err co_row_read_contents(struct seg *s, row_mask rows, row_mask *bad); // settled blocks into `clean`
struct run { uint64_t at; uint32_t len; };
struct runs { struct run *run; uint32_t len, cap, next, used; };
MUST_USE err co_row_alloc(struct rows *r, uint32_t blocks, struct runs *out); // several runs
block_addr row_runs_take(struct runs *v);                                      // the next block
void row_runs_name(struct batch *b, const struct runs *v);                     // batch_alloc of all
void row_runs_unalloc(struct rows *r, struct runs *v);
void row_runs_free(struct rows *r, struct runs *v);
struct writes { struct block_io *io; uint32_t len, cap; };
void row_writes_add(struct rows *r, struct writes *w, block_addr at, uint8_t *data, uint32_t crc);
void row_writes_free(struct rows *r, struct writes *w);

// row_doubt.c
void row_batch_doubt(struct batch *b, const struct object *o);      // its starter is to be asked whether it knows the object
MUST_USE err co_row_discard_unknown(struct object *o);              // of one that the starter does not know: here and at all members; told if it fails

// row_data.c, row_harden.c
void row_delta_ack(struct rows *r, iom_id from, const struct msg *m);
void row_deltas_abandon(struct rows *r); // stop: nobody waits for acknowledgements any more
void row_d_hint(struct rows *r, const struct row_mark *k);
void row_d_settled(struct rows *r, const struct row_mark *k);
void row_d_due(struct dseg *d);          // freeze it soon; nobody waits for it
void row_d_want(struct dseg *d);         // freeze it as soon as it may be: somebody waits
void row_d_unblocked(struct dseg *d);    // what kept it from being frozen may be over
void row_d_idle(struct dseg *d);         // settled: next version, or clean
void row_d_forget_dirty(struct dseg *d, row_mask rows); // take-back and discard: memory, credit, places given back
void row_d_flusher(void *arg);
void row_touch(struct object *o, uint64_t mtime_ns);
void row_tell_touches(struct rows *r);   // all, at once
void row_object_pin(struct object *o);
struct waitlist { struct dseg **d; uint64_t *target; uint32_t len, cap; };
MUST_USE err co_row_zero(struct object *o, uint64_t seg, uint64_t off, uint64_t len, struct waitlist *settle);
void row_wait_add(struct rows *r, struct waitlist *w, struct dseg *d);  // pins; target: all that is dirty now
MUST_USE err co_row_wait(struct rows *r, struct waitlist *w);           // unpins, frees
void row_wait_drop(struct rows *r, struct waitlist *w);                 // likewise, without a wait
static inline uint64_t row_d_target(const struct dseg *d) { return d->dirty.mask ? d->version + 2 : d->version; }
static inline bool row_has_parity(const struct dseg *d) { return d->p.n != NO_IOM; }

// row_parity.c
void row_delta_receive(struct rows *r, iom_id from, struct msg *m);
void row_p_freeze(struct rows *r, iom_id from, const struct row_mark *k);
void row_p_hardened(struct rows *r, const struct row_mark *k);
void row_p_flusher(void *arg);
void row_p_acker(void *arg);
void row_p_forget(struct pseg *p); // discard: accumulators, their places and memory
void row_acc_free(struct rows *r, struct acc **a);
void row_p_idle(struct pseg *p);   // settled: the next version, if freezes wait

void row_p_release(struct pseg *p); // a hold less: a version that has waited for that begins

// row_census.c
void row_blank_of_store(struct rows *r); // reads whether it is
MUST_USE err co_row_census_answer(struct rows *r, struct inbound *in, struct msg **reply);

// row_gather.c
struct gathered {
    struct buf *buf;             // a block at each row; those of `have` mean something
    row_mask have, lost;         // lost: not to be had, more than one block of the row is bad
    uint64_t version[ROWS_MAX];  // of the member that was asked for, as P's settled parity includes it
};
MUST_USE err co_row_gather(struct dseg *d, row_mask rows, struct gathered *g);                 // D asks P for its own settled blocks; then gathered_free
MUST_USE err co_row_gather_here(struct pseg *p, uint8_t but, row_mask rows, struct gathered *g); // at P. `but`: k, or GATHER_PARITY
MUST_USE err co_row_gather_answer(struct rows *r, struct inbound *in, struct msg **reply);
MUST_USE err co_row_own_parity(struct pseg *p, row_mask rows, struct gathered *g, uint64_t *versions, row_mask *bad);
void gathered_free(struct gathered *g);
#define GATHER_PARITY ARRAY_IOMS_MAX

// row_mend.c
#define ROW_BUILDERS 16u // tasks that build what is missing (row_build.c); there are more turns to mend, for clients
// Rebuilds settled blocks that do not read. OK: look again, at memory first. ERR_IO: not to be had, counted and named.
MUST_USE err co_row_mend(struct seg *s, row_mask bad);
MUST_USE err co_row_give_up(struct seg *s, unsigned b); // a block that co_row_mend cannot give is recorded as lost

// row_settle.c
void row_settler(void *arg);
struct marks { struct rows *r; uint16_t type; struct msg *m[ARRAY_IOMS_MAX]; uint32_t cap; };
void row_marks_init(struct marks *v, struct rows *r, uint16_t type);
void row_marks_add(struct marks *v, iom_id to, const struct seg *s, uint8_t k, uint64_t version, row_mask rows, uint8_t flags);
void row_marks_post(struct marks *v);
void row_marks_drop(struct marks *v);
void row_settle(struct seg *s); // all parts are on disk

// row_slot.c: exactly once
struct row_claim { struct slot *slot; };
// OK: do it, then row_slot_end. done: it was done before. Waits for one under way.
MUST_USE err co_row_slot_begin(struct rows *r, const uint8_t session[16], uint32_t slot, uint64_t seq, struct row_claim *c, bool *done);
void row_slot_end(struct rows *r, struct row_claim *c, err result);
void row_slots_wake(struct rows *r);

// row_scrub.c
MUST_USE err co_row_scrub_answer(struct dseg *d, struct inbound *in, struct msg **reply);
void row_scrub_forget(struct rows *r);

// row_verify.c
MUST_USE err co_row_verify_answer(struct rows *r, struct inbound *in, struct msg **reply);
