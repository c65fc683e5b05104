// Checkpoints: all that the journal says up to an instant goes into the trees on disk, and the superblock flips.
//
//   begin, without a wait:  every dirty page gets a new place, children before parents, so that each parent holds its
//                           children's places and checksums; the allocator's `cur` becomes `next`; the journal's unit
//                           is closed
//   write, in parallel:     pages, the journal so far, changed map blocks to the copy that is not current
//   flush                   both devices: now all of the new state is durable, beside the old
//   superblock              (superblock.c) the flip
//   end, without a wait:    what only the old state named is free; the journal before the begin may be overwritten
//
// A crash at any instant finds the old state with its journal or the new state with its journal. Batches go on
// meanwhile: a page that is being written is not changed but copied (tcache_dirty).
#include "store/inside.h"

#define MAP_PIECE_BLOCKS 64u

// ---- begin
static void page_list(struct store *s, struct tframe *f) {
    struct ckpt *c = &s->ckpt;
    if (c->pages_len == c->pages_cap) {
        c->pages_cap = MAX(256u, 2 * c->pages_cap);
        c->pages = mem_realloc(s->mem, c->pages, c->pages_cap * sizeof *c->pages);
    }
    c->pages[c->pages_len++] = f;
}
// Gives places to the dirty pages at and below f, and makes parents name them. Only as deep as the tree.
static struct child settle_page(struct store *s, struct tframe *f) {
    for (uint32_t i = 0; tpage_level(f->data) > 0 && i < tpage_count(f->data); i++) {
        uint64_t id = inner_child(f->data, i).addr;
        if (id & TFRAME_VIRTUAL) inner_set_child(f->data, i, settle_page(s, s->cache.frames[id & ~TFRAME_VIRTUAL]));
    }
    uint64_t block;
    uint32_t got = space_take_run(&s->space, &s->space.page_cursor, 1, &block);
    ASSERT(got == 1);
    space_page_name(&s->space, block);
    tcache_begin_write(s, f, block);
    page_list(s, f);
    return (struct child){block, crc32c(0, f->data, BLOCK_BYTES)};
}
static void settle_trees(struct store *s) {
    s->space.page_cursor = 0;
    s->ckpt.pages_len = 0;
    for (int t = 0; t < TREE_COUNT; t++) {
        struct child *root = &s->trees[t].root;
        if (root->addr & TFRAME_VIRTUAL) *root = settle_page(s, s->cache.frames[root->addr & ~TFRAME_VIRTUAL]);
    }
    ASSERT(s->cache.dirty == 0);
}
// What is retained may take half of the ring; more would leave too little for the work.
static uint64_t retained_from(const struct store *s) {
    const struct journal *j = &s->j;
    uint64_t half = j->head_seq > j->sectors / 2 ? j->head_seq - j->sectors / 2 : 0;
    uint64_t from = MAX(MAX(j->retain_seq, half), MAX(j->runs[0].from_seq, j->tail_seq));
    return MIN(from, j->head_seq);
}
static void super_next(struct store *s, struct super_block *sb) {
    *sb = s->sb;
    sb->generation = le64_of(le64_get(s->sb.generation) + 1);
    sb->map_copy = 1 - s->sb.map_copy;
    sb->replay_seq = le64_of(s->j.head_seq);
    sb->replay_incarnation = le64_of(journal_incarnation_at(&s->j, s->j.head_seq));
    sb->retain_seq = le64_of(retained_from(s));
    sb->retain_incarnation = le64_of(journal_incarnation_at(&s->j, retained_from(s)));
    for (int t = 0; t < TREE_COUNT; t++) {
        const struct tree *tr = &s->trees[t];
        sb->roots[t] =
            (struct super_root){le64_of(tr->root.addr),  le32_of(tr->root.crc),   tr->levels, {0}, le64_of(tr->records),
                                le64_of(tr->note_epoch), le64_of(tr->note_number)};
    }
}

// ---- write
static err co_write_map(struct store *s, const struct super_block *sb) {
    uint64_t at = le64_get(sb->map_at[sb->map_copy]), generation = le64_get(sb->generation);
    struct buf *buf = buf_new(s->mem, MAP_PIECE_BLOCKS * BLOCK_BYTES);
    err e = OK;
    for (uint32_t g = 0; g < s->space.groups && e == OK;) {
        struct io_set set;
        io_set_init(&set, s, s->d);
        for (uint32_t k = 0; k < MAP_PIECE_BLOCKS && g < s->space.groups; g++) {
            if (!s->space.group[g].writing) continue;
            uint8_t *block = buf->data + k++ * BLOCK_BYTES;
            space_encode_group(&s->space, g, sb->map_copy, generation, s->j.seed, (struct map_block *)block);
            io_set_add(&set, DISK_WRITE, at + g, block, 1);
        }
        e = co_io_set_wait(&set, "checkpoint: map write");
    }
    buf_unref(buf);
    return e;
}
static err co_write_all(struct store *s, struct super_block *sb) {
    struct io_set pages;
    io_set_init(&pages, s, s->d);
    for (uint32_t i = 0; i < s->ckpt.pages_len; i++)
        io_set_add(&pages, DISK_WRITE, s->ckpt.pages[i]->addr, s->ckpt.pages[i]->data, 1);
    s->stats.pages_written += s->ckpt.pages_len;
    err map = co_write_map(s, sb);
    err journal = co_journal_write(s);
    err e = co_io_set_wait(&pages, "checkpoint: page write");
    if (e != OK || map != OK) return store_fail(s, "a checkpoint cannot be written", e != OK ? e : map);
    for (uint32_t i = 0; i < s->ckpt.pages_len; i++) tcache_end_write(s, s->ckpt.pages[i]);
    sb->map_crc = le32_of(space_map_crc(&s->space, sb->map_copy));
    return journal;
}

// ---- end
static void forget_runs(struct journal *j) {
    uint32_t gone = 0;
    while (gone + 1 < j->runs_len && j->runs[gone + 1].from_seq <= j->tail_seq) gone++;
    memmove(&j->runs[0], &j->runs[gone], (j->runs_len - gone) * sizeof j->runs[0]);
    j->runs_len -= gone;
}
static void end(struct store *s) {
    space_checkpoint_end(&s->space);
    s->j.replay_seq = le64_get(s->sb.replay_seq);
    s->j.tail_seq = le64_get(s->sb.retain_seq);
    forget_runs(&s->j);
    s->stats.checkpoints++;
}
static err co_checkpoint(struct store *s) {
    if (s->cache.dirty == 0 && s->j.end.n == s->ckpt.last.n) return OK; // nothing has happened
    if (space_avail(&s->space) < s->cache.dirty)
        return store_fail(s, "there is no place for the tree pages", ERR_NOSPC);
    settle_trees(s);
    journal_close_unit(s);
    s->ckpt.last = s->j.end;
    struct super_block sb;
    super_next(s, &sb);
    space_checkpoint_begin(&s->space);
    waitq_wake_all(s->e, &s->ckpt.q); // there is room for dirty pages
    err e = co_write_all(s, &sb);
    if (e == OK) e = co_flush(s, FLUSH_ALL);
    if (e == OK) e = co_super_write(s, &sb);
    if (e == OK) end(s);
    return e;
}

// ---- who asks
static void ckpt_task(void *arg) {
    struct store *s = arg;
    while (s->ckpt.requested && s->failed == OK) {
        s->ckpt.requested = false;
        uint64_t n = ++s->ckpt.started;
        if (co_checkpoint(s) == OK) s->ckpt.completed = n;
        waitq_wake_all(s->e, &s->ckpt.q);
    }
    s->ckpt.running = false;
    if (--s->tasks == 0) waitq_wake_all(s->e, &s->idle);
}
void ckpt_request(struct store *s) {
    if (s->closing) return;
    s->ckpt.requested = true;
    if (s->ckpt.running) return;
    s->ckpt.running = true;
    s->tasks++;
    env_spawn(s->e, "store checkpoint", ckpt_task, s);
}
err co_ckpt_await(struct store *s) {
    uint64_t want = s->ckpt.started + 1;
    while (s->ckpt.completed < want) {
        if (s->failed != OK) return s->failed;
        if (s->ckpt.started < want) ckpt_request(s);
        co_wait(s->e, &s->ckpt.q, "store: checkpoint");
    }
    return OK;
}
err co_store_checkpoint(struct store *s) {
    return s->failed != OK ? s->failed : co_ckpt_await(s);
}
