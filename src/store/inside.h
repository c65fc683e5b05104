// What the files of store/ share: the store itself and its parts. Nobody outside includes this.
//
//   store.c       opening and closing             superblock.c  the two superblocks; format; peek
//   registers.c   the register's two blocks       alloc.c       which block is free for what (struct space)
//   journal.c     appending, writing out, sync    replay.c      reading the journal back
//   journal_head.c  the journal's own device
//   tpage.c       tree pages as bytes             tcache.c      pages in memory
//   tree.c        reading and changing trees      checkpoint.c  dirty pages and maps to disk, superblock flip
//   batch.c       batches                         blocks.c      data blocks, I/O of many runs
//   verify.c      the check of everything
//
// Rule of waiting: no function holds a page, a position in a page or an address read from a tree over a wait; it starts
// again from the root. Pins only keep pages from being evicted.
#pragma once
#include "base/sum.h"
#include "env/env.h"
#include "store/format.h"
#include "store/store.h"
#include "store/tpage.h"

#define TREE_LEVELS_MAX 12

// ---- the allocator (alloc.c)
struct space_group { // one map block
    uint32_t busy;   // bits set in `busy`
    uint32_t crc[2]; // of its map block in either copy: the generation within differs even where the bits do not
    bool dirty;      // `cur` changed since the last checkpoint began
    bool stale;      // the copy that is not current lacks the last checkpoint's change
    bool writing;    // belongs to the checkpoint under way
};
struct release { // blocks that no checkpoint refers to and a batch gave back
    lsn at;
    uint64_t block;
    uint32_t blocks;
};
struct space {
    uint64_t first, total;              // data area: its first block in the store, its length
    uint64_t words;                     // of each bitmap: groups * MAP_WORDS
    uint64_t *cur, *ckpt, *next, *busy; // see alloc.c
    uint32_t groups;
    struct space_group *group;
    uint64_t cur_count, busy_count, held_count;
    uint64_t data_cursor, page_cursor; // next fit
    struct release *queue;             // ring
    uint32_t queue_first, queue_len, queue_cap;
    bool replaying; // releases are durable already and nothing is allocated
};
void space_init(struct space *sp, struct mem *m, uint64_t first_block, uint64_t blocks);
void space_fini(struct space *sp, struct mem *m);
bool space_load_group(struct space *sp, uint32_t g, uint8_t copy, const struct map_block *b, uint32_t seed); // false: damaged
void space_encode_group(struct space *sp, uint32_t g, uint8_t copy, uint64_t generation, uint32_t seed,
                        struct map_block *b); // of `next`
uint32_t space_map_crc(const struct space *sp, uint8_t copy);
uint32_t space_take_run(struct space *sp, uint64_t *cursor, uint32_t want, uint64_t *block); // 0: nothing is free
void space_untake(struct space *sp, uint64_t block, uint32_t blocks);
bool space_name(struct space *sp, uint64_t block, uint32_t blocks); // false: not possible (replay of garbage)
bool space_release(struct space *sp, struct mem *m, uint64_t block, uint32_t blocks, lsn at); // as above
void space_page_name(struct space *sp, uint64_t block); // just taken, for a tree page
void space_page_release(struct space *sp, uint64_t block);
void space_durable(struct space *sp, lsn durable);
void space_checkpoint_begin(struct space *sp);
void space_checkpoint_end(struct space *sp);
static inline uint64_t space_avail(const struct space *sp) {
    return sp->total - sp->busy_count;
} // can be taken now
static inline uint64_t space_pending(const struct space *sp) {
    return sp->busy_count - sp->cur_count - sp->held_count;
}

// ---- pages in memory (tcache.c)
enum tframe_state {
    TFRAME_FREE,    // in the free list
    TFRAME_LOADING, // being read; in the hash
    TFRAME_CLEAN,   // as on disk; in the hash
    TFRAME_DIRTY,   // changed since the last checkpoint began; its parent names it by number; ancestors are dirty too
    TFRAME_WRITING, // belongs to the checkpoint under way: not to be changed; in the hash
};
#define TFRAME_VIRTUAL (UINT64_C(1) << 47) // in the place of an address: the frame's number
struct tframe {
    struct buf *buf;
    uint8_t *data;
    uint64_t addr; // 0 while dirty
    uint32_t number, pins;
    uint32_t hash_next; // number + 1
    uint32_t mark;      // when last counted (tree_need)
    uint8_t state;
    bool used;   // since the clock's hand last passed
    bool orphan; // no tree refers to it: freed when nobody pins or writes it
    struct waitq loaded;
};
struct tcache {
    struct tframe **frames;
    uint32_t frames_len, frames_cap;
    uint32_t *free;
    uint32_t free_len;
    uint32_t *hash; // number + 1; 0 = empty
    uint32_t hash_shift, hand;
    uint32_t limit; // frames in use, unless all are pinned, dirty or being written
    uint32_t used;  // not FREE
    uint32_t dirty, dirty_max, writing, mark;
    bool applying; // a batch: nothing is evicted
};
struct miss { // a page that is needed and not in memory
    struct child child;
    uint8_t tree, level;
};
void tcache_init(struct store *s, uint64_t cache_bytes);
void tcache_fini(struct store *s);
struct tframe *tcache_get(struct store *s, uint64_t id);   // NULL: not in memory (or still being read)
err co_tcache_load(struct store *s, const struct miss *m); // ERR_CHECKSUM, ERR_IO; the caller starts again
struct tframe *tcache_new(struct store *s, uint8_t tree, uint8_t level); // dirty, empty
struct tframe *tcache_dirty(struct store *s, struct tframe *f);          // f, or a copy that takes its place
void tcache_drop(struct store *s, struct tframe *f);                     // no tree refers to it any more
void tcache_applying(struct store *s, bool begins);
void tcache_pin(struct tframe *f);
void tcache_unpin(struct store *s, struct tframe *f);
void tcache_begin_write(struct store *s, struct tframe *f, uint64_t addr);
void tcache_end_write(struct store *s, struct tframe *f);
static inline uint64_t tframe_id(const struct tframe *f) {
    return f->state == TFRAME_DIRTY ? TFRAME_VIRTUAL | f->number : f->addr;
}

// ---- trees (tree.c)
struct tree {
    struct child root; // addr 0: empty
    uint8_t levels;
    uint64_t records, note_epoch, note_number;
};
struct path {
    uint32_t depth;
    struct {
        struct tframe *f;
        uint32_t i;
    } step[TREE_LEVELS_MAX]; // [depth - 1] is the leaf
    const uint8_t *above;    // the least key right of the leaf; NULL: there is none. In a page: valid until a wait
};
bool tree_descend(struct store *s, enum tree_id t, const uint8_t *key, struct path *p,
                  struct miss *m); // false: *m is missing
void tree_put(struct store *s, enum tree_id t, const uint8_t *key, const uint8_t *val,
              uint32_t len);                                           // its path is in memory
bool tree_del(struct store *s, enum tree_id t, const uint8_t *key);    // likewise; true: the leaf has become small
void tree_shrink(struct store *s, enum tree_id t, const uint8_t *key); // removes or merges a small leaf at key

// ---- the journal (journal.c, replay.c)
struct journal_run {
    uint64_t incarnation, from_seq;
}; // whose sectors lie in the ring from there on
#define JOURNAL_RUNS_MAX 64
struct journal {
    uint64_t at_block, sectors; // the ring; sector of sequence n lies at n % sectors
    uint32_t seed;              // of checksums
    uint64_t head_seq;          // the sector being filled
    uint32_t used;              // bytes of its payload
    uint16_t first;
    uint64_t resumes;     // of the next sector to be closed: see format.h
    uint64_t written_seq; // all below are handed to the disk and completed; a unit's begin
    uint64_t replay_seq;  // as in the newest durable superblock
    uint64_t tail_seq;    // older sectors may be overwritten
    uint64_t retain_seq;  // wanted by the user; UINT64_MAX: nothing
    lsn end, written, durable, want;
    struct list bufs; // struct jbuf: sectors from written_seq on
    bool writing;
    bool spawned; // a task that writes out what nobody has asked for yet
    struct waitq q;
    struct journal_run runs[JOURNAL_RUNS_MAX];
    uint32_t runs_len;
};
bool journal_room(const struct store *s, uint64_t bytes, bool *ring_full); // for a batch of that many bytes
void journal_begin(struct store *s, uint32_t len_bytes);
void journal_entries(struct store *s, const uint8_t *entries, uint32_t len_bytes); // whole entries
lsn journal_end(struct store *s);
uint32_t entry_bytes(const uint8_t *p, uint32_t len_bytes); // of the entry at p; 0: garbage
void journal_close_unit(struct store *s);                   // what follows begins in a new unit
err co_journal_write(struct store *s);                      // all that was appended before
uint64_t journal_incarnation_at(const struct journal *j, uint64_t seq);
enum flush {
    FLUSH_COUNTED, // what store_now counts: batches and blocks. A device on which nothing of that is new is left alone
    FLUSH_ALL,     // both devices
};
err co_flush(struct store *s, enum flush what); // side by side; and counts what it covers
void journal_init(struct store *s, uint64_t first_seq, uint64_t resumes, uint64_t incarnation);
void journal_fini(struct store *s);

struct sector_view {
    uint64_t sequence, incarnation, resumes;
    uint32_t used, first;
    const uint8_t *payload;
};
bool sector_parse(const uint8_t *p, uint32_t seed, struct sector_view *v); // safe on any bytes
err co_replay(struct store *s, const struct super_block *sb, const struct store_hooks *h, uint64_t *end_seq);

// ---- checkpoints (checkpoint.c)
struct ckpt {
    bool running, requested;
    uint64_t started, completed; // counts
    struct waitq q;              // woken when one has begun and when one has ended
    struct tframe **pages;       // of the one under way
    uint32_t pages_len, pages_cap;
    lsn last; // journal's end when the last one began
};
void ckpt_request(struct store *s);
err co_ckpt_await(struct store *s); // of one that begins now or later

// ---- superblock (superblock.c)
#define SUPER_APART(sb) (le32_get((sb)->version) == FORMAT_JOURNAL_APART)
err co_super_load(struct disk *d, struct super_block *sb, uint32_t *slot, bool *twin, char why[160]);
void super_seal(struct super_block *sb);
err super_check(const struct super_block *sb);               // OK, ERR_FORMAT (no magic), ERR_CHECKSUM, ERR_VERSION
err co_super_write(struct store *s, struct super_block *sb); // both copies, one after the other; ends durable
uint32_t super_seed(const struct super_block *sb);

// ---- the journal's own device (journal_head.c)
err co_jhead_format(struct disk *journal, const struct super_block *sb);
err co_jhead_check(struct disk *journal, const struct super_block *sb, char why[STORE_WHY_BYTES]); // see co_store_journal_check
err co_jhead_raise(struct store *s); // it now is of the incarnation that opens it; durable before the superblock says so

// ---- the store
struct opvec {
    uint8_t *p;
    uint32_t len, cap;
};
struct batch_note {
    uint64_t epoch, number;
    bool set;
};
struct batch {
    struct store *s;
    struct list node;
    struct opvec ops[TREE_COUNT], blocks; // encoded entries
    struct batch_note note[TREE_COUNT];
    uint32_t puts, dels;
    bool urgent;
    void (*on_apply)(void *arg, struct batch *b);
    void *on_apply_arg;
    struct tframe **pins;
    uint32_t pins_len, pins_cap;
};
err co_batch_pages(struct batch *b, uint64_t *need); // all pages in memory; need: blocks that they may take
void batch_apply_trees(struct batch *b);
bool batch_apply_blocks(struct batch *b, lsn at);
void batch_destroy(struct batch *b);

struct store {
    struct disk *d, *jd; // the journal's; d itself if it lies in the store
    struct env *e;
    struct mem *mem;
    struct super_block sb; // the newest durable one
    uint32_t sb_slot;      // where the newest is known to be good
    struct store_ident ident;
    uint64_t incarnation;
    err failed;
    bool closing, opened_clean;
    uint32_t tasks;
    struct waitq idle;
    struct space space;
    struct tcache cache;
    struct tree trees[TREE_COUNT];
    struct journal j;
    struct ckpt ckpt;
    uint64_t reserved, reserve_pages, reserve_urgent;
    uint64_t writes_done, writes_flushed;
    bool syncing;
    struct waitq sync_q;
    struct list batch_pool, io_pool;
    uint32_t batch_pool_len;
    struct store_stats stats;
};
err store_fail(struct store *s, const char *what, err e); // for good: ERR_IO to all who wait or come
// Without reserves: all blocks that are not in use by the state in memory.
static inline uint64_t store_free_raw(const struct store *s) {
    uint64_t used = s->space.cur_count + s->space.held_count + s->cache.dirty;
    return used < s->space.total ? s->space.total - used : 0;
}

// ---- I/O of many runs (blocks.c)
struct io_set {
    struct store *s;
    struct disk *d;
    struct group g;
    struct store_io *open;
};
void io_set_init(struct io_set *set, struct store *s, struct disk *d);
void io_set_add(struct io_set *set, enum disk_op op, uint64_t block, uint8_t *data,
                uint32_t blocks); // joins neighbours
err co_io_set_wait(struct io_set *set, const char *label);
void blocks_fini(struct store *s);
