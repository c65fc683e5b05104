// Tree pages in memory: frames, found by disk address while clean and by frame number while dirty.
//
//     FREE --load--> LOADING --read, checked--> CLEAN --change--> DIRTY --checkpoint begins--> WRITING
//     WRITING --written--> CLEAN --the clock's hand--> FREE
//     WRITING --change--> a DIRTY copy takes its place, the old one is an orphan
//     any --no tree refers to it--> FREE, or an orphan until nobody pins or writes it
//
// A dirty page has no place on disk: its old one is given back to the allocator at once (which keeps it until a
// checkpoint no longer refers to it), a new one comes when the checkpoint begins. `dirty` counts the places that will
// be needed.
#include "store/inside.h"

void tcache_init(struct store *s, uint64_t cache_bytes) {
    struct tcache *c = &s->cache;
    c->limit = (uint32_t)(cache_bytes / BLOCK_BYTES);
    uint32_t bits = 8;
    while (1u << bits < c->limit) bits++;
    c->hash = mem_alloc(s->mem, (size_t)4 << bits);
    c->hash_shift = 64 - bits;
    c->mark = 1;
}
void tcache_fini(struct store *s) {
    struct tcache *c = &s->cache;
    for (uint32_t i = 0; i < c->frames_len; i++) {
        buf_unref(c->frames[i]->buf);
        mem_free(s->mem, c->frames[i]);
    }
    mem_free(s->mem, c->frames);
    mem_free(s->mem, c->free);
    mem_free(s->mem, c->hash);
}

// ---- the hash from addresses to frames
static uint32_t *bucket(struct tcache *c, uint64_t addr) {
    return &c->hash[addr * UINT64_C(0x9E3779B97F4A7C15) >> c->hash_shift];
}
static void hash_add(struct tcache *c, struct tframe *f) {
    uint32_t *b = bucket(c, f->addr);
    f->hash_next = *b;
    *b = f->number + 1;
}
static void hash_del(struct tcache *c, struct tframe *f) {
    uint32_t *b = bucket(c, f->addr);
    while (*b != f->number + 1) b = &c->frames[*b - 1]->hash_next;
    *b = f->hash_next;
}
static struct tframe *hash_find(struct tcache *c, uint64_t addr) {
    for (uint32_t n = *bucket(c, addr); n != 0; n = c->frames[n - 1]->hash_next)
        if (c->frames[n - 1]->addr == addr) return c->frames[n - 1];
    return NULL;
}
struct tframe *tcache_get(struct store *s, uint64_t id) {
    struct tframe *f;
    if (id & TFRAME_VIRTUAL)
        f = s->cache.frames[id & ~TFRAME_VIRTUAL];
    else if ((f = hash_find(&s->cache, id)) == NULL || f->state == TFRAME_LOADING)
        return NULL;
    f->used = true;
    return f;
}

// ---- frames
static void frame_free(struct store *s, struct tframe *f) {
    f->state = TFRAME_FREE;
    f->orphan = false;
    f->addr = 0;
    s->cache.free[s->cache.free_len++] = f->number;
    s->cache.used--;
}
// Evicts one clean page that the hand has passed before without its being used since; at most two rounds. False: none.
static bool evict(struct store *s) {
    struct tcache *c = &s->cache;
    for (uint32_t turns = 2 * c->frames_len; turns > 0; turns--) {
        struct tframe *f = c->frames[c->hand];
        c->hand = (c->hand + 1) % c->frames_len;
        if (f->state != TFRAME_CLEAN || f->pins > 0) continue;
        if (!f->used) {
            hash_del(c, f);
            frame_free(s, f);
            return true;
        }
        f->used = false;
    }
    return false;
}
static struct tframe *frame_add(struct store *s) {
    struct tcache *c = &s->cache;
    if (c->frames_len == c->frames_cap) {
        c->frames_cap = MAX(64u, 2 * c->frames_cap);
        c->frames = mem_realloc(s->mem, c->frames, c->frames_cap * sizeof *c->frames);
        c->free = mem_realloc(s->mem, c->free, c->frames_cap * sizeof *c->free);
    }
    struct tframe *f = mem_alloc(s->mem, sizeof *f);
    f->buf = buf_new(s->mem, BLOCK_BYTES);
    f->data = f->buf->data;
    f->number = c->frames_len;
    waitq_init(&f->loaded);
    c->frames[c->frames_len++] = f;
    return f;
}
static struct tframe *frame_take(struct store *s) { // of no state yet
    struct tcache *c = &s->cache;
    while (!c->applying && c->used >= c->limit && evict(s)) {}
    struct tframe *f = c->free_len > 0 ? c->frames[c->free[--c->free_len]] : frame_add(s);
    c->used++;
    f->used = true;
    return f;
}
// While a batch is applied nothing is evicted, for it needs what it has found in memory; what that was too much goes
// now.
void tcache_applying(struct store *s, bool begins) {
    struct tcache *c = &s->cache;
    c->applying = begins;
    while (!begins && c->used > c->limit && evict(s)) {}
}
static void orphan_free(struct store *s, struct tframe *f) {
    if (f->orphan && f->pins == 0 && f->state != TFRAME_WRITING) frame_free(s, f); // it left the hash as it became one
}
void tcache_pin(struct tframe *f) {
    f->pins++;
}
void tcache_unpin(struct store *s, struct tframe *f) {
    ASSERT(f->pins > 0);
    f->pins--;
    orphan_free(s, f);
}

// ---- loading
static err frame_read(struct store *s, struct tframe *f, const struct miss *m) {
    err e = co_disk_read(s->d, f->addr * BLOCK_BYTES, f->data, BLOCK_BYTES);
    s->stats.pages_read++;
    if (e != OK) return e;
    if (crc32c(0, f->data, BLOCK_BYTES) == m->child.crc && tpage_check(f->data, m->tree, m->level)) return OK;
    LOG(s->e, TRACE_ERROR, "store: tree page at block %llu is damaged (tree %u, level %u)", (unsigned long long)f->addr,
        m->tree, m->level);
    return ERR_CHECKSUM;
}
err co_tcache_load(struct store *s, const struct miss *m) {
    struct tcache *c = &s->cache;
    ASSERT(!(m->child.addr & TFRAME_VIRTUAL));
    uint64_t in_store = m->child.addr - s->space.first; // wraps for what lies before
    if (in_store >= s->space.total) return ERR_CHECKSUM;
    struct tframe *f = hash_find(c, m->child.addr);
    if (f != NULL) {
        if (f->state == TFRAME_LOADING) co_wait(s->e, &f->loaded, "store: page being read");
        return s->closing ? ERR_IO : OK; // whatever became of it: the caller looks again
    }
    f = frame_take(s);
    f->state = TFRAME_LOADING;
    f->addr = m->child.addr;
    hash_add(c, f);
    err e = frame_read(s, f, m);
    f->state = TFRAME_CLEAN;
    if (e != OK) {
        hash_del(c, f);
        frame_free(s, f);
    }
    waitq_wake_all(s->e, &f->loaded);
    return e;
}

// ---- changing
struct tframe *tcache_new(struct store *s, uint8_t tree, uint8_t level) {
    struct tframe *f = frame_take(s);
    f->state = TFRAME_DIRTY;
    f->addr = 0;
    s->cache.dirty++;
    tpage_init(f->data, tree, level);
    return f;
}
struct tframe *tcache_dirty(struct store *s, struct tframe *f) {
    struct tcache *c = &s->cache;
    ASSERT(!f->orphan);
    if (f->state == TFRAME_DIRTY) return f;
    space_page_release(&s->space, f->addr);
    hash_del(c, f);
    c->dirty++;
    if (f->state == TFRAME_CLEAN) {
        f->addr = 0;
        f->state = TFRAME_DIRTY;
        return f;
    }
    ASSERT(f->state == TFRAME_WRITING);
    f->orphan = true;
    struct tframe *copy = frame_take(s);
    memcpy(copy->data, f->data, BLOCK_BYTES);
    copy->addr = 0;
    copy->state = TFRAME_DIRTY;
    return copy;
}
void tcache_drop(struct store *s, struct tframe *f) {
    struct tcache *c = &s->cache;
    ASSERT(!f->orphan);
    f->orphan = true;
    if (f->state == TFRAME_DIRTY) {
        c->dirty--;
        f->state = TFRAME_FREE; // in name only, while it is pinned: in no hash, never evicted
    } else {
        space_page_release(&s->space, f->addr);
        hash_del(c, f);
        if (f->state == TFRAME_CLEAN) f->state = TFRAME_FREE;
    }
    orphan_free(s, f);
}

// ---- checkpoints
void tcache_begin_write(struct store *s, struct tframe *f, uint64_t addr) {
    f->addr = addr;
    f->state = TFRAME_WRITING;
    hash_add(&s->cache, f);
    s->cache.dirty--;
    s->cache.writing++;
}
void tcache_end_write(struct store *s, struct tframe *f) {
    ASSERT(f->state == TFRAME_WRITING);
    s->cache.writing--;
    f->state = f->orphan ? TFRAME_FREE : TFRAME_CLEAN;
    orphan_free(s, f);
}
