// One IOM's storage: superblock pair, register blocks, journal ring, 4 KiB blocks under one allocator, several
// copy-on-write B+trees of records over them ("contents trees"), checkpoints. Single-threaded; coroutines.
//
// A *batch* of record changes (put, delete), block allocations and releases is atomic: it is applied to the trees in memory and appended to
// the journal at one instant, in one order, and after a crash it is found whole or not at all. It is durable once co_store_sync has
// returned for its lsn. Data blocks are written straight to newly allocated places and named by a batch with their
// checksum, so that data and journal need one flush together: "durable" of a named block = its checksum matches.
//
//   [0] superblock A · [1] superblock B · [2],[3] register blocks (outside journal and allocator) · allocator map A, B · journal ring · blocks
//
// The journal ring may lie on a device of its own instead. The two devices are flushed side by side, and a crash may keep any subset of what
// was not flushed on either: that is no more than one device alone may do, so nothing above the store knows of it.
//
// I1: a block that a batch released is reused only after that batch is durable and no checkpoint that can still be replayed
// from refers to it.
#pragma once
#include "base/bytes.h"
#include "base/common.h"
#include "base/err.h"
#include "env/env.h"

struct store;
struct batch;
typedef struct { uint64_t n; } block_addr; // block number in the store; 0 = none (the hole)
typedef struct { uint64_t n; } lsn;        // position in the journal, only grows; 0 = nothing

// ---- keys and records
#define KEY_BYTES 25
struct key { uint8_t b[KEY_BYTES]; };  // kind (1), handle or other id (16), number (8, big-endian): memcmp order
struct key key_make(uint8_t kind, const uint8_t id[16], uint64_t number);
static inline uint8_t key_kind(const struct key *k) { return k->b[0]; }
static inline const uint8_t *key_id(const struct key *k) { return k->b + 1; }
static inline uint64_t key_number(const struct key *k) { return be64_at(k->b + 17); }
#define RECORD_BYTES_MAX 1700u         // of a value; two records and a header fit one page
// Entries of put records up to this size never cross a 1024-byte sector of the journal (B3):
#define RECORD_BYTES_ATOMIC 940u

// Mirrored kinds; local kinds; the ward's copy; the local kinds of the ward while this IOM stands in for it.
enum tree_id { TREE_META = 0, TREE_LOCAL = 1, TREE_WARD = 2, TREE_STAND_IN = 3, TREE_COUNT = 4 };

// ---- making, opening, closing
struct store_ident {
    uint8_t cluster[16], store[16]; // random ids; the store's is made with it and never again
    uint8_t iom;                    // position in the array
    uint8_t array_ioms;
};
struct store_config {      // 0 = default
    uint64_t journal_bytes; // at format: default 64 MiB, at most 1/8 of the store, at least 1 MiB
    uint64_t cache_bytes;   // tree pages, clean and dirty: default 64 MiB, at least 1 MiB
    uint64_t incarnation;   // at format: below that of the first opening; that of a store that replaces another is above all of that one's
    struct disk *journal;   // the journal's own device, the caller's: open as long as the store is; NULL: the journal lies in the store
};
#define STORE_BYTES_MIN MIB(16)
MUST_USE err co_store_format(struct disk *d, const struct store_ident *id, const struct store_config *c); // ERR_TOOSMALL

// What replay finds in the journal for trees that are mirrored (see batch_note), also batches older than the checkpoint that
// were retained. Called in journal order before co_store_open returns.
struct store_hooks {
    void (*replay_note)(void *ctx, enum tree_id tree, uint64_t epoch, uint64_t number, const uint8_t *ops, uint32_t ops_len, lsn at);
    void *ctx;
};
// Reads the newer valid superblock, replays the journal (ends with a flush), raises the incarnation (durably) before it returns.
// ERR_FORMAT (no store), ERR_VERSION (newer), ERR_CHECKSUM (both superblocks or the allocator's map damaged), ERR_TOOSMALL (the
// device is shorter than the store made on it), ERR_IO; what co_store_journal_check says. One damaged superblock is used past and mended.
MUST_USE err co_store_open(struct disk *d, const struct store_config *c, const struct store_hooks *h, struct store **out);
MUST_USE err co_store_close(struct store *s);   // syncs, checkpoints, marks clean; frees s. Caller has stopped all users. Not the disk.
void co_store_abandon(struct store *s);         // frees s without a write (waits for I/O in flight)
MUST_USE err co_store_peek(struct disk *d, struct store_ident *id, uint64_t *incarnation, char why[160]); // superblock only; why = one sentence on error
// Does the journal's device (NULL: none) go with the store? ERR_INVAL: the store wants one and there is none, or has its journal inside. Else it is the
// device that is wrong: ERR_FORMAT (no journal on it), ERR_CHECKSUM (damaged), ERR_VERSION (newer), ERR_JOURNAL (another store's, an earlier one, or one of
// the two is an older copy), ERR_TOOSMALL (cut short), ERR_IO. why = cause and next step. Reads only; co_store_open asks it too.
#define STORE_WHY_BYTES 240
MUST_USE err co_store_journal_check(struct disk *d, struct disk *journal, char why[STORE_WHY_BYTES]);
uint64_t store_journal_device_bytes(uint64_t store_bytes, uint64_t journal_bytes); // how large to make it; journal_bytes as in store_config
bool store_journal_apart(const struct store *s);

const struct store_ident *store_ident(const struct store *s);
bool store_was_clean(const struct store *s);       // the last one to have it open closed it: nothing was lost
uint64_t store_incarnation(const struct store *s); // of this opening; unique for the life of the store

// ---- the register's two alternating blocks (the embedded Paxos; usable on a full store, and without co_store_open)
#define REGISTER_BYTES_MAX 4000u
MUST_USE err co_register_blocks_read(struct disk *d, uint8_t *buf, uint32_t *len_bytes); // newest valid, durable on return; len 0 if never written
MUST_USE err co_register_blocks_write(struct disk *d, const uint8_t *buf, uint32_t len_bytes); // to the older; flushed on return

// ---- reading records (a copy of what is committed at the moment of return)
MUST_USE err co_tree_get(struct store *s, enum tree_id t, const struct key *k, void *val, uint32_t cap, uint32_t *len); // ERR_NOENT; ERR_RANGE if cap is too small
// First record with key >= *k (then *k is its key). ERR_NOENT at the end. To go on: key_next(*k).
MUST_USE err co_tree_seek(struct store *s, enum tree_id t, struct key *k, void *val, uint32_t cap, uint32_t *len);
struct key key_next(struct key k);          // the smallest greater key
uint64_t tree_records(const struct store *s, enum tree_id t);

// ---- batches
#define BATCH_BYTES_MAX (128u << 10) // of encoded entries: longer work is several batches
struct batch *batch_new(struct store *s);
void batch_put(struct batch *b, enum tree_id t, const struct key *k, const void *val, uint32_t len); // replaces
void batch_del(struct batch *b, enum tree_id t, const struct key *k);                                // absent: fine
void batch_alloc(struct batch *b, block_addr at, uint32_t blocks); // names blocks got from store_alloc: theirs for good
void batch_free(struct batch *b, block_addr at, uint32_t blocks);  // releases
bool batch_empty(const struct batch *b);
// The ops of one tree in encoded form, to send to a mirror; and the way back in, as ops on another tree.
const uint8_t *batch_ops(const struct batch *b, enum tree_id t, uint32_t *len_bytes); // valid until commit returns
MUST_USE err batch_add_ops(struct batch *b, enum tree_id t, const uint8_t *ops, uint32_t len_bytes); // ERR_FORMAT on garbage
// Marks the batch as (epoch, number) of a mirrored tree; replay reports it, tree_note remembers the last one (in checkpoints too).
void batch_note(struct batch *b, enum tree_id t, uint64_t epoch, uint64_t number);
void tree_note(const struct store *s, enum tree_id t, uint64_t *epoch, uint64_t *number);
// Runs at the instant of application, in journal order, before anybody sees the change; may call batch_note and batch_ops; must not wait.
void batch_on_apply(struct batch *b, void (*fn)(void *arg, struct batch *b), void *arg);
// Applies and appends. May wait before (pages, journal or dirty space), never between; order of waiting callers is not kept
// (hold your object's lock). Frees b always. On an error nothing is applied: ERR_NOSPC (only for batches without batch_urgent),
// ERR_2BIG (over BATCH_BYTES_MAX), ERR_CHECKSUM (a tree page is damaged), ERR_IO (the store has failed).
MUST_USE err co_batch_commit(struct batch *b, lsn *at);
void batch_urgent(struct batch *b); // may use the reserve: deletes, settles, recovery: never ERR_NOSPC while the reserve is sized right
void batch_drop(struct batch *b);   // not committed

// ---- durability (group commit: one journal write and one flush serve all who wait)
struct sync_point { lsn journal; uint64_t writes; };
struct sync_point store_now(const struct store *s); // all batches applied and all block writes completed so far
MUST_USE err co_store_sync(struct store *s, struct sync_point p); // returns at once if already covered by a flush
bool store_synced(const struct store *s, struct sync_point p);
lsn store_durable(const struct store *s);
// All batches with an lsn above `from` stay in the journal, and are replayed as notes, over checkpoints; lsn 0: nothing is kept
// (the default; at open, what the last opening kept until this is called). At most half of the ring is given to it: who
// has fallen back farther finds a gap in the replayed numbers and takes the whole tree.
void store_retain(struct store *s, lsn from);
MUST_USE err co_store_checkpoint(struct store *s); // also runs by itself by dirty pages, journal use and the number of released blocks

// ---- blocks
uint64_t store_blocks_total(const struct store *s);
uint64_t store_blocks_used(const struct store *s);  // by data, records and their trees; no reserve is counted in
uint64_t store_blocks_free(const struct store *s);  // what new data can have: without the reserve and reservations
// A promise of places; false: ERR_NOSPC for the caller. It holds as long as all who allocate new data reserve first.
bool store_reserve(struct store *s, uint64_t blocks);
bool store_reserve_urgent(struct store *s, uint64_t blocks); // likewise, from the reserve too: of what makes room when it is done
void store_unreserve(struct store *s, uint64_t blocks); // given back, or just turned into an allocation
// One run of up to `want` blocks (fewer when fragmented), found next to the last one; in memory only until batch_alloc names it.
// use_reserve: parity and recovery may go below the reserve. ERR_NOSPC. May wait for a checkpoint that frees released blocks.
MUST_USE err co_store_alloc(struct store *s, uint32_t want, bool use_reserve, block_addr *at, uint32_t *got);
void store_unalloc(struct store *s, block_addr at, uint32_t blocks); // never named: free again (not while a write to it is in flight)
// Write/read whole blocks straight to/from their places; memory page-aligned; runs of neighbours become one I/O.
struct block_io { block_addr at; uint8_t *data; uint32_t crc; }; // crc32c of the 4096 bytes; checked on read
MUST_USE err co_store_write_blocks(struct store *s, const struct block_io *v, uint32_t n); // volatile until a sync from a later store_now
MUST_USE err co_store_read_blocks(struct store *s, struct block_io *v, uint32_t n, uint32_t *bad_mask); // at = 0 reads zeros;
    // ERR_CHECKSUM or ERR_IO sets bits (n <= 32) of the blocks that are bad, the others are good; bad_mask may be NULL
uint32_t store_crc_block(const void *block4096);

// ---- check (fsck): trees valid, pages' checksums, allocator = reachability
struct store_verify {
    // calls emit(arg2, addr, blocks) for every block a record holds (kind by key)
    void (*refs)(void *ctx, enum tree_id t, const struct key *k, const void *val, uint32_t len, void (*emit)(void *arg, block_addr at, uint32_t n), void *arg);
    void (*fault)(void *ctx, const char *sentence);
    void *ctx;
};
MUST_USE err co_store_verify(struct store *s, const struct store_verify *v, uint64_t *faults, uint64_t *blocks_reached); // on a quiet store

struct store_stats {
    uint64_t journal_bytes_written, journal_flushes; // flushes: one after the other; two devices side by side are one; none: power-protected
    uint64_t checkpoints, pages_written, pages_read, data_blocks_written, data_blocks_read;
    uint64_t cache_used_bytes, dirty_bytes, blocks_pending_free;
};
void store_stats(const struct store *s, struct store_stats *out);
