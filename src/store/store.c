// A store's life: opening (superblock, map, replay, a new incarnation), failing, closing.
//
// Open, in order: the newest superblock; the head of the journal's own device, if it has one; the map copy; replay of
// the journal into memory; head and then superblock with the incarnation raised, to both copies (which mends a damaged
// one). The last flush also covers what was replayed: after the death of a process alone, what is read back need not be
// durable. Only then does anybody hear of anything.
#include "store/inside.h"

err store_fail(struct store *s, const char *what, err e) {
    if (s->failed != OK) return s->failed;
    s->failed = ERR_IO;
    LOG(s->e, TRACE_ERROR, "store failed for good: %s: %s; the node must be started again or the disk replaced", what,
        err_text(e));
    waitq_wake_all(s->e, &s->ckpt.q);
    waitq_wake_all(s->e, &s->sync_q);
    waitq_wake_all(s->e, &s->j.q);
    return s->failed;
}

static void size_up(struct store *s, uint64_t cache_bytes) {
    cache_bytes = MAX(cache_bytes ? cache_bytes : MIB(64), MIB(1));
    tcache_init(s, cache_bytes);
    uint64_t dirty = MIN(MIN(cache_bytes / 4, MIB(8)) / BLOCK_BYTES, s->space.total / 32);
    s->cache.dirty_max = (uint32_t)MAX(dirty, 16);
    s->reserve_pages = s->cache.dirty_max + 32;
    s->reserve_urgent = MAX(64, s->space.total / 64);
    s->space.data_cursor = MIN(s->space.total / 32, 4096u); // the first blocks are for tree pages, while there is room
}
static struct store *store_new(struct disk *d, const struct super_block *sb, uint32_t slot,
                               const struct store_config *c) {
    struct store *s = mem_alloc(d->env->mem, sizeof *s);
    s->d = d;
    s->jd = SUPER_APART(sb) ? c->journal : d;
    s->e = d->env;
    s->mem = d->env->mem;
    s->sb = *sb;
    s->sb_slot = slot;
    memcpy(s->ident.cluster, sb->cluster, 16);
    memcpy(s->ident.store, sb->store, 16);
    s->ident.iom = sb->iom;
    s->ident.array_ioms = sb->array_ioms;
    s->incarnation = le64_get(sb->incarnation) + 1;
    list_init(&s->batch_pool);
    list_init(&s->io_pool);
    list_init(&s->j.bufs);
    waitq_init(&s->idle);
    waitq_init(&s->sync_q);
    waitq_init(&s->j.q);
    waitq_init(&s->ckpt.q);
    space_init(&s->space, s->mem, le64_get(sb->data_at), le64_get(sb->blocks) - le64_get(sb->data_at));
    size_up(s, c ? c->cache_bytes : 0);
    s->j.at_block = le64_get(sb->journal_at);
    s->j.sectors = le64_get(sb->journal_sectors);
    s->j.seed = super_seed(sb);
    s->j.replay_seq = le64_get(sb->replay_seq);
    s->j.tail_seq = le64_get(sb->retain_seq);
    s->j.retain_seq = s->j.tail_seq < s->j.replay_seq ? s->j.tail_seq : UINT64_MAX; // until the user says otherwise
    for (int t = 0; t < TREE_COUNT; t++) {
        const struct super_root *r = &sb->roots[t];
        s->trees[t] = (struct tree){{le64_get(r->addr), le32_get(r->crc)},
                                    r->levels,
                                    le64_get(r->records),
                                    le64_get(r->note_epoch),
                                    le64_get(r->note_number)};
    }
    return s;
}
static void store_free(struct store *s) {
    struct mem *m = s->mem;
    for (struct list *n; (n = list_pop_front(&s->batch_pool)) != NULL;)
        batch_destroy(LIST_ENTRY(n, struct batch, node));
    blocks_fini(s);
    journal_fini(s);
    tcache_fini(s);
    space_fini(&s->space, m);
    mem_free(m, s->ckpt.pages);
    mem_free(m, s);
}

// ---- opening
static err co_load_map(struct store *s) {
    uint64_t at = le64_get(s->sb.map_at[s->sb.map_copy]);
    struct buf *buf = buf_new(s->mem, 64 * BLOCK_BYTES);
    err e = OK;
    for (uint32_t g = 0; g < s->space.groups && e == OK;) {
        uint32_t n = MIN(64, s->space.groups - g);
        e = co_disk_read(s->d, (at + g) * BLOCK_BYTES, buf->data, n * BLOCK_BYTES);
        for (uint32_t k = 0; k < n && e == OK; k++, g++)
            if (!space_load_group(&s->space, g, s->sb.map_copy, (const struct map_block *)(buf->data + k * BLOCK_BYTES), s->j.seed))
                e = ERR_CHECKSUM;
    }
    buf_unref(buf);
    if (e == OK && space_map_crc(&s->space, s->sb.map_copy) != le32_get(s->sb.map_crc)) e = ERR_CHECKSUM;
    if (e != OK) LOG(s->e, TRACE_ERROR, "store: the allocator's map cannot be read: %s", err_text(e));
    return e;
}
static err co_raise_incarnation(struct store *s) {
    struct super_block sb = s->sb;
    sb.generation = le64_of(le64_get(sb.generation) + 1);
    sb.incarnation = le64_of(s->incarnation);
    sb.clean = 0;
    return co_super_write(s, &sb);
}
// The journal's device first: were it left behind, the superblock would name an incarnation that nobody's journal has. And before that the superblock that was
// read: who wrote it may have died before it was flushed, and if it were lost then the head would be two ahead of what is left.
static err co_raise_both(struct store *s) {
    err e = s->jd != s->d ? co_flush(s, FLUSH_ALL) : OK;
    if (e == OK && s->jd != s->d) e = co_jhead_raise(s);
    return e == OK ? co_raise_incarnation(s) : e;
}
static err co_bring_up(struct store *s, const struct store_hooks *h) {
    uint64_t end_seq;
    s->opened_clean = s->sb.clean;
    err e = co_load_map(s);
    if (e == OK) e = co_replay(s, &s->sb, h, &end_seq);
    if (e == OK) e = co_raise_both(s);
    if (e == OK) journal_init(s, ROUND_UP(end_seq, JUNIT_SECTORS), end_seq, s->incarnation);
    return e;
}
err co_store_open(struct disk *d, const struct store_config *c, const struct store_hooks *h, struct store **out) {
    struct super_block sb;
    uint32_t slot;
    bool twin;
    char why[STORE_WHY_BYTES];
    err e = co_super_load(d, &sb, &slot, &twin, why);
    if (e == OK) e = co_jhead_check(c ? c->journal : NULL, &sb, why);
    if (e != OK) {
        LOG(d->env, TRACE_ERROR, "store: %s", why);
        return e;
    }
    if (!twin)
        LOG(d->env, TRACE_WARN, "store: superblock %u is damaged or older than the other and is mended", 1 - slot);
    struct store *s = store_new(d, &sb, slot, c);
    e = co_bring_up(s, h);
    if (e != OK) {
        store_free(s);
        return e;
    }
    *out = s;
    return OK;
}

bool store_journal_apart(const struct store *s) {
    return s->jd != s->d;
}
bool store_was_clean(const struct store *s) {
    return s->opened_clean;
}

// ---- closing
static void co_quiet(struct store *s) { // what runs in the background comes to its end
    s->closing = true;
    s->ckpt.requested = false;
    while (s->tasks > 0) co_wait(s->e, &s->idle, "store: closing");
}
void co_store_abandon(struct store *s) {
    if (s->failed == OK) s->failed = ERR_STOPPED;
    co_quiet(s);
    store_free(s);
}
err co_store_close(struct store *s) {
    err e = co_store_sync(s, store_now(s));
    if (e == OK) e = co_store_checkpoint(s);
    co_quiet(s);
    if (e == OK) {
        struct super_block sb = s->sb;
        sb.generation = le64_of(le64_get(sb.generation) + 1);
        sb.clean = 1;
        e = co_super_write(s, &sb);
    }
    if (e == OK) e = co_flush(s, FLUSH_ALL); // the second copy too
    store_free(s);
    return e;
}

const struct store_ident *store_ident(const struct store *s) {
    return &s->ident;
}
uint64_t store_incarnation(const struct store *s) {
    return s->incarnation;
}
void store_stats(const struct store *s, struct store_stats *out) {
    *out = s->stats;
    out->cache_used_bytes = (uint64_t)s->cache.used * BLOCK_BYTES;
    out->dirty_bytes = (uint64_t)s->cache.dirty * BLOCK_BYTES;
    out->blocks_pending_free = space_pending(&s->space);
}
