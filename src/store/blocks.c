// Data blocks: taking and giving back places, straight I/O to them; and the I/O of many runs that others use too.
#include "store/inside.h"

// ---- I/O of many runs: neighbours on disk become one I/O; all are in flight together
#define RUN_BLOCKS_MAX 256u // 1 MiB
struct store_io {
    struct disk_io io;
    struct list node;
    struct io_set *set;
    uint32_t blocks;
};
void io_set_init(struct io_set *set, struct store *s, struct disk *d) {
    set->s = s;
    set->d = d;
    set->open = NULL;
    group_init(&set->g);
}
static void io_done(struct disk_io *io) {
    struct store_io *x = CONTAINER_OF(io, struct store_io, io);
    struct io_set *set = x->set;
    list_push_front(&set->s->io_pool, &x->node);
    disk_told(set->d, io);
    group_done(set->s->e, &set->g, io->result);
}
static void io_submit(struct io_set *set) {
    struct store_io *x = set->open;
    set->open = NULL;
    group_add(&set->g);
    disk_submit(set->d, &x->io);
}
static struct store_io *io_new(struct io_set *set, enum disk_op op, uint64_t block) {
    struct list *n = list_pop_front(&set->s->io_pool);
    struct store_io *x = n ? LIST_ENTRY(n, struct store_io, node) : mem_alloc(set->s->mem, sizeof *x);
    x->io.op = op;
    x->io.off_bytes = block * BLOCK_BYTES;
    x->io.iov_len = 0;
    x->io.done = io_done;
    x->io.result = OK;
    x->set = set;
    x->blocks = 0;
    list_init(&x->node);
    list_init(&x->io.node);
    return set->open = x;
}
void io_set_add(struct io_set *set, enum disk_op op, uint64_t block, uint8_t *data, uint32_t blocks) {
    struct store_io *x = set->open;
    if (x && (x->io.op != op || x->io.off_bytes / BLOCK_BYTES + x->blocks != block ||
              x->blocks + blocks > RUN_BLOCKS_MAX || x->io.iov_len == DISK_IOV_MAX)) {
        io_submit(set);
        x = NULL;
    }
    if (x == NULL) x = io_new(set, op, block);
    uint32_t last = x->io.iov_len;
    if (last > 0 && x->io.iov[last - 1].base + x->io.iov[last - 1].len_bytes == data) {
        x->io.iov[last - 1].len_bytes += blocks * BLOCK_BYTES;
    } else {
        x->io.iov[last].base = data;
        x->io.iov[last].len_bytes = blocks * BLOCK_BYTES;
        x->io.iov_len++;
    }
    x->blocks += blocks;
}
err co_io_set_wait(struct io_set *set, const char *label) {
    if (set->open) io_submit(set);
    return co_group_wait(set->s->e, &set->g, label);
}
void blocks_fini(struct store *s) {
    for (struct list *n; (n = list_pop_front(&s->io_pool)) != NULL;)
        mem_free(s->mem, LIST_ENTRY(n, struct store_io, node));
}

// ---- places
uint64_t store_blocks_total(const struct store *s) {
    return s->space.total;
}
uint64_t store_blocks_used(const struct store *s) {
    return s->space.total - store_free_raw(s);
}
uint64_t store_blocks_free(const struct store *s) {
    uint64_t free = store_free_raw(s), kept = s->reserve_pages + s->reserve_urgent + s->reserved;
    return free > kept ? free - kept : 0;
}
bool store_reserve(struct store *s, uint64_t blocks) {
    if (store_blocks_free(s) < blocks) return false;
    s->reserved += blocks;
    return true;
}
bool store_reserve_urgent(struct store *s, uint64_t blocks) {
    if (store_free_raw(s) < s->reserve_pages + s->reserved + blocks) return false;
    s->reserved += blocks;
    return true;
}
void store_unreserve(struct store *s, uint64_t blocks) {
    ASSERT(s->reserved >= blocks);
    s->reserved -= blocks;
}
// Places may be taken as long as the dirty pages, which cannot be refused theirs, have enough besides.
err co_store_alloc(struct store *s, uint32_t want, bool use_reserve, block_addr *at, uint32_t *got) {
    ASSERT(want > 0);
    uint64_t floor = s->reserve_pages + (use_reserve ? 0 : s->reserve_urgent);
    for (int tries = 0;; tries++) {
        uint64_t free = store_free_raw(s), avail = space_avail(&s->space),
                 pages = s->cache.dirty + s->reserve_pages / 2;
        if (s->failed != OK) return s->failed;
        if (free <= floor) return ERR_NOSPC;
        if (avail > pages) {
            uint32_t n = (uint32_t)MIN(want, MIN(free - floor, avail - pages));
            uint64_t block;
            *got = space_take_run(&s->space, &s->space.data_cursor, n, &block);
            ASSERT(*got > 0);
            at->n = block;
            return OK;
        }
        if (tries == 3) return ERR_NOSPC;
        err e = co_ckpt_await(s); // what waits for it becomes free
        if (e != OK) return e;
    }
}
void store_unalloc(struct store *s, block_addr at, uint32_t blocks) {
    space_untake(&s->space, at.n, blocks);
}
uint32_t store_crc_block(const void *block4096) {
    return crc32c(0, block4096, BLOCK_BYTES);
}

// ---- writing and reading
err co_store_write_blocks(struct store *s, const struct block_io *v, uint32_t n) {
    if (s->failed != OK) return s->failed;
    struct io_set set;
    io_set_init(&set, s, s->d);
    for (uint32_t i = 0; i < n; i++) io_set_add(&set, DISK_WRITE, v[i].at.n, v[i].data, 1);
    err e = co_io_set_wait(&set, "store: block write");
    if (e == OK) s->writes_done++; // only what is counted before a flush is submitted is covered by it
    s->stats.data_blocks_written += n;
    return e;
}
static err block_check(const struct block_io *b) {
    return store_crc_block(b->data) == b->crc ? OK : ERR_CHECKSUM;
}

// Which blocks of a failed read are the bad ones: one by one.
static err co_read_one(struct store *s, struct block_io *b) {
    err e = co_disk_read(s->d, b->at.n * BLOCK_BYTES, b->data, BLOCK_BYTES);
    return e == OK ? block_check(b) : e;
}
err co_store_read_blocks(struct store *s, struct block_io *v, uint32_t n, uint32_t *bad_mask) {
    ASSERT(bad_mask == NULL || n <= 32);
    struct io_set set;
    io_set_init(&set, s, s->d);
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].at.n == 0)
            memset(v[i].data, 0, BLOCK_BYTES);
        else
            io_set_add(&set, DISK_READ, v[i].at.n, v[i].data, 1);
    }
    err all = co_io_set_wait(&set, "store: block read"), result = OK;
    s->stats.data_blocks_read += n;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].at.n == 0) continue;
        err e = all == OK ? block_check(&v[i]) : co_read_one(s, &v[i]);
        if (e == OK) continue;
        bad |= n <= 32 ? 1u << i : 0;
        if (result == OK) result = e;
    }
    if (bad_mask) *bad_mask = bad;
    return result;
}
