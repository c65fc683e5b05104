// A simulated disk: what was written, what of it is durable, and what a crash leaves.
//
// Every written block has a chain of versions, newest first:
//
//     version (epoch 7) -> version (epoch 5) -> base (epoch 0: flushed)          missing base = zeros
//
// The disk's epoch grows with each flush that is submitted: the flush submitted in epoch 5 covers, when it completes, the
// versions of epochs up to 5, and the newest of them becomes the base. A write within the epoch of the newest version
// goes over it in place. Blocks with versions above the base are in `dirty`; their sectors are what a power cut puts at
// risk. Reads give the newest.
//
// A power-protected disk keeps what it has accepted: the version of a completed write becomes the base at once. What had
// not completed is torn there, too.
//
// An I/O: submitted -> waiting -> active (depth bound; its time runs) -> finished (done at the device, node not told:
// it may be paused) -> told. A crash drops it anywhere; a write that was waiting or active is then torn by sectors.
#include "sim/inside.h"

#define BLOCK_SECTORS (BLOCK_BYTES / SECTOR_BYTES)
#define LEAF_BLOCKS 512u
#define BROKEN_MAX 32u

struct version {
    struct version *older;
    uint64_t epoch; // 0: durable
    uint8_t data[BLOCK_BYTES];
};

struct leaf { struct version *newest[LEAF_BLOCKS]; };

struct world_disk {
    struct list node; // in world->disks
    struct world *world;
    char *name;
    uint64_t size_bytes;
    struct leaf **leaves;
    struct version *spare; // for reuse
    uint64_t versions;     // held by blocks
    uint64_t *dirty, dirty_len, dirty_cap; // block numbers, each once
    uint64_t epoch;        // from 1

    struct node *holder; // of the lock
    struct node *home;   // who opened it last
    struct list waiting, active; // sim_io, both by number
    uint32_t active_len;
    bool hung;
    uint32_t slow; // I/Os take so many times as long; 0: as ever
    bool power_protected;
    struct broken {
        uint64_t off_bytes, len_bytes;
        enum disk_op op;
    } broken[BROKEN_MAX];
    uint32_t broken_len;
    struct world_disk_counts counts;
};

struct sim_disk { // an open disk, in the memory of the node
    struct disk base;
    struct world_disk *d;
    struct node *n;
    uint32_t inflight;
};

struct sim_io {
    struct event ev;
    struct list node; // in waiting or active of the disk, finished_ios of the node, idle_ios of the world
    struct disk_io *io;
    struct sim_disk *sd;
    struct world_disk *d;
    uint64_t number, len_bytes;
    uint64_t epoch; // of a flush: the last it covers
    bool finished;
};

// ---- blocks and versions --------------------------------------------------------------------------------------------
static uint64_t leaf_count(uint64_t size_bytes) {
    return ROUND_UP(size_bytes >> BLOCK_SHIFT, LEAF_BLOCKS) / LEAF_BLOCKS;
}

static struct version *block_newest(const struct world_disk *d, uint64_t block) {
    const struct leaf *l = d->leaves[block / LEAF_BLOCKS];
    return l ? l->newest[block % LEAF_BLOCKS] : NULL;
}

static struct version **block_slot(struct world_disk *d, uint64_t block) {
    struct leaf **l = &d->leaves[block / LEAF_BLOCKS];
    if (*l == NULL) *l = world_alloc(sizeof **l);
    return &(*l)->newest[block % LEAF_BLOCKS];
}

static struct version *version_new(struct world_disk *d, uint64_t epoch, struct version *older) {
    struct version *v = d->spare;
    if (v) d->spare = v->older;
    else v = malloc(sizeof *v);
    ASSERT(v != NULL);
    d->versions++;
    v->epoch = epoch;
    v->older = older;
    return v;
}

static void version_free_chain(struct world_disk *d, struct version *v) {
    while (v) {
        struct version *older = v->older;
        v->older = d->spare;
        d->spare = v;
        d->versions--;
        v = older;
    }
}

static const struct version *version_base(const struct version *v) { // NULL: zeros
    while (v && v->epoch != 0) v = v->older;
    return v;
}

static void sector_copy(uint8_t *block, uint32_t sector, const uint8_t *from_block) {
    memcpy(block + sector * SECTOR_BYTES, from_block + sector * SECTOR_BYTES, SECTOR_BYTES);
}

static void dirty_push(struct world_disk *d, uint64_t block) {
    if (d->dirty_len == d->dirty_cap) {
        d->dirty_cap = d->dirty_cap ? 2 * d->dirty_cap : 64;
        d->dirty = realloc(d->dirty, d->dirty_cap * sizeof *d->dirty);
        ASSERT(d->dirty != NULL);
    }
    d->dirty[d->dirty_len++] = block;
}

// What the disk made durable by itself before v is written over: some sectors of v are then the base's.
static void block_destage(struct world_disk *d, struct version *v) {
    if (d->world->opt.disk_destage_ppm == 0) return;
    if (v->older == NULL) {
        v->older = version_new(d, 0, NULL);
        memset(v->older->data, 0, BLOCK_BYTES);
    }
    for (uint32_t s = 0; s < BLOCK_SECTORS; s++)
        if (world_chance(d->world, d->world->opt.disk_destage_ppm)) sector_copy(v->older->data, s, v->data);
}

// The newest version as one that may be changed: of this epoch, with the content so far if `keep_content`.
static struct version *block_writable(struct world_disk *d, uint64_t block, bool keep_content) {
    struct version **slot = block_slot(d, block);
    struct version *v = *slot;
    if (v && v->epoch == d->epoch) {
        block_destage(d, v);
        return v;
    }
    if (v == NULL || v->epoch == 0) dirty_push(d, block);
    *slot = version_new(d, d->epoch, v);
    if (keep_content) {
        if (v) memcpy((*slot)->data, v->data, BLOCK_BYTES);
        else memset((*slot)->data, 0, BLOCK_BYTES);
    }
    return *slot;
}

static void block_read(const struct world_disk *d, uint64_t block, uint8_t *data) {
    const struct version *v = block_newest(d, block);
    if (v) memcpy(data, v->data, BLOCK_BYTES);
    else memset(data, 0, BLOCK_BYTES);
}

// The content from now on, durable, whatever was there.
static void block_put(struct world_disk *d, uint64_t block, const uint8_t *data) {
    struct version **slot = block_slot(d, block);
    version_free_chain(d, *slot);
    *slot = version_new(d, 0, NULL);
    memcpy((*slot)->data, data, BLOCK_BYTES);
}

static void block_write(struct world_disk *d, uint64_t block, const uint8_t *data) {
    if (d->power_protected) block_put(d, block, data);
    else memcpy(block_writable(d, block, false)->data, data, BLOCK_BYTES);
}

static void flush_complete(struct world_disk *d, uint64_t epoch) {
    uint64_t left = 0;
    for (uint64_t i = 0; i < d->dirty_len; i++) {
        struct version *v = *block_slot(d, d->dirty[i]);
        if (v->epoch > epoch) d->dirty[left++] = d->dirty[i];
        while (v->epoch > epoch && v->older) v = v->older;
        if (v->epoch == 0 || v->epoch > epoch) continue;
        v->epoch = 0;
        version_free_chain(d, v->older);
        v->older = NULL;
    }
    d->dirty_len = left;
}

// ---- the bytes of an I/O --------------------------------------------------------------------------------------------
static uint64_t io_len_bytes(const struct disk_io *io) {
    uint64_t len = 0;
    for (uint32_t i = 0; i < io->iov_len; i++) len += io->iov[i].len_bytes;
    return len;
}

// The block'th block of the I/O's memory.
static uint8_t *io_block(const struct disk_io *io, uint64_t block) {
    uint64_t off = block << BLOCK_SHIFT;
    for (uint32_t i = 0; i < io->iov_len; i++) {
        if (off < io->iov[i].len_bytes) return io->iov[i].base + off;
        off -= io->iov[i].len_bytes;
    }
    ASSERT(!"block beyond the I/O");
    return NULL;
}

static bool overlap(const struct sim_io *s, uint64_t off_bytes, uint64_t len_bytes) {
    return s->io->off_bytes < off_bytes + len_bytes && off_bytes < s->io->off_bytes + s->len_bytes;
}

// One that reaches the medium: not beyond its end.
static bool is_write(const struct sim_io *s) {
    return s->io->op == DISK_WRITE && s->io->off_bytes + s->len_bytes <= s->d->size_bytes;
}

// ---- crashes: which sectors survive ---------------------------------------------------------------------------------
struct cut {
    struct world_disk *d;
    uint32_t index;  // of the next sector at risk, over all disks of the crash
    bool by_chance;  // whatever world_keep_sectors says
};

// How many of the versions of a sector there are to choose from; returns the one chosen: 0 = newest, count-1 = base.
static uint32_t cut_choose(struct cut *c, uint64_t off_bytes, bool in_flight, bool changed, uint32_t count) {
    struct world *w = c->d->world;
    if (w->keep == NULL || c->by_chance) return (uint32_t)world_random_below(w, count);
    struct world_sector s = {c->d, off_bytes, c->index++, in_flight, changed};
    return w->keep(w->keep_ctx, &s) ? 0 : count - 1;
}

static bool sector_differs(const uint8_t *a_block, const uint8_t *b_block, uint32_t sector) {
    return memcmp(a_block + sector * SECTOR_BYTES, b_block + sector * SECTOR_BYTES, SECTOR_BYTES) != 0;
}

// A dirty block as the power cut leaves it.
static void cut_block(struct cut *c, uint64_t block, uint8_t *out) {
    static const uint8_t zeros[BLOCK_BYTES];
    const struct version *newest = block_newest(c->d, block), *base = version_base(newest);
    const uint8_t *lost = base ? base->data : zeros;
    uint32_t count = 1; // of versions, the base included
    for (const struct version *v = newest; v && v->epoch != 0; v = v->older) count++;
    for (uint32_t s = 0; s < BLOCK_SECTORS; s++) {
        const struct version *v = newest;
        bool changed = sector_differs(newest->data, lost, s);
        uint32_t back = cut_choose(c, (block << BLOCK_SHIFT) + s * SECTOR_BYTES, false, changed, count);
        for (; back > 0 && v; back--) v = v->older;
        sector_copy(out, s, v ? v->data : zeros);
    }
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void dirty_sort(struct world_disk *d) {
    if (d->dirty_len > 1) qsort(d->dirty, d->dirty_len, sizeof *d->dirty, by_number);
}

// A write that was in flight, onto `to`: each sector done or not.
static void cut_write(struct cut *c, const struct sim_io *s, struct world_disk *to, bool durable) {
    for (uint64_t b = 0; b < s->len_bytes >> BLOCK_SHIFT; b++) {
        uint64_t block = (s->io->off_bytes >> BLOCK_SHIFT) + b;
        uint8_t out[BLOCK_BYTES];
        uint32_t done = 0;
        block_read(to, block, out);
        for (uint32_t k = 0; k < BLOCK_SECTORS; k++) {
            bool changed = sector_differs(io_block(s->io, b), out, k);
            if (cut_choose(c, (block << BLOCK_SHIFT) + k * SECTOR_BYTES, true, changed, 2) != 0) continue;
            sector_copy(out, k, io_block(s->io, b));
            done++;
        }
        if (done == 0) continue;
        if (durable) block_put(to, block, out);
        else block_write(to, block, out);
    }
}

static void cut_writes_of(struct cut *c, const struct list *ios, struct world_disk *to, bool durable) {
    LIST_FOR(ios, l) {
        const struct sim_io *s = LIST_ENTRY(l, struct sim_io, node);
        if (is_write(s)) cut_write(c, s, to, durable);
    }
}

static void ios_drop(struct world *w, struct list *ios) {
    for (struct list *l; (l = list_pop_front(ios)) != NULL;) {
        struct sim_io *s = LIST_ENTRY(l, struct sim_io, node);
        event_clear(w, &s->ev);
        list_push_front(&w->idle_ios, &s->node);
    }
}

static void disk_crash(struct cut *c, bool power) {
    struct world_disk *d = c->d;
    if (power) {
        dirty_sort(d);
        for (uint64_t i = 0; i < d->dirty_len; i++) {
            uint8_t out[BLOCK_BYTES];
            cut_block(c, d->dirty[i], out);
            block_put(d, d->dirty[i], out);
        }
        d->dirty_len = 0;
    }
    cut_writes_of(c, &d->active, d, power);
    cut_writes_of(c, &d->waiting, d, power);
    ios_drop(d->world, &d->active);
    ios_drop(d->world, &d->waiting);
    d->active_len = 0;
    d->holder = NULL;
}

void node_disks_die(struct node *n, bool power) {
    struct cut c = {0};
    ios_drop(n->world, &n->finished_ios);
    LIST_FOR(&n->world->disks, l) {
        c.d = LIST_ENTRY(l, struct world_disk, node);
        if (c.d->holder == n || (power && c.d->home == n)) disk_crash(&c, power);
    }
}

void world_disk_image(struct world_disk *from, struct world_disk *to) {
    ASSERT(to->holder == NULL && to != from);
    struct cut c = {.d = from};
    world_disk_erase(to);
    free(to->leaves);
    to->size_bytes = from->size_bytes;
    to->leaves = world_alloc(leaf_count(to->size_bytes) * sizeof *to->leaves);
    for (uint64_t i = 0; i < leaf_count(from->size_bytes); i++)
        for (uint64_t j = 0; from->leaves[i] && j < LEAF_BLOCKS; j++) {
            const struct version *base = version_base(from->leaves[i]->newest[j]);
            if (base) block_put(to, i * LEAF_BLOCKS + j, base->data);
        }
    dirty_sort(from);
    for (uint64_t i = 0; i < from->dirty_len; i++) {
        uint8_t out[BLOCK_BYTES];
        cut_block(&c, from->dirty[i], out);
        block_put(to, from->dirty[i], out);
    }
    cut_writes_of(&c, &from->active, to, true);
    cut_writes_of(&c, &from->waiting, to, true);
}

static uint32_t sectors_in_flight(const struct list *ios) {
    uint64_t bytes = 0;
    LIST_FOR(ios, l) {
        const struct sim_io *s = LIST_ENTRY(l, struct sim_io, node);
        if (is_write(s)) bytes += s->len_bytes;
    }
    return (uint32_t)(bytes / SECTOR_BYTES);
}

uint32_t node_sectors_at_risk(const struct node *n) {
    uint32_t sectors = 0;
    LIST_FOR(&n->world->disks, l) {
        const struct world_disk *d = LIST_ENTRY(l, struct world_disk, node);
        if (d->home != n) continue;
        sectors += (uint32_t)(d->dirty_len * BLOCK_SECTORS);
        sectors += sectors_in_flight(&d->active) + sectors_in_flight(&d->waiting);
    }
    return sectors;
}

void world_keep_sectors(struct world *w, world_keep_fn keep, void *ctx) {
    w->keep = keep;
    w->keep_ctx = ctx;
}

bool world_keep_mask(void *ctx, const struct world_sector *s) {
    const struct world_mask *m = ctx;
    return s->index < m->len_bits && (m->words[s->index / 64] >> (s->index % 64) & 1);
}

// ---- I/O ------------------------------------------------------------------------------------------------------------
static bool disk_is_broken(const struct world_disk *d, const struct sim_io *s) {
    for (uint32_t i = 0; i < d->broken_len; i++) {
        const struct broken *b = &d->broken[i];
        if (b->op != s->io->op) continue;
        if (b->op == DISK_FLUSH || overlap(s, b->off_bytes, b->len_bytes)) return true;
    }
    return false;
}

// A read that runs beside a write of the same block sees any mix of old and new sectors.
static void read_beside_writes(struct world_disk *d, const struct sim_io *r) {
    LIST_FOR(&d->active, l) {
        const struct sim_io *s = LIST_ENTRY(l, struct sim_io, node);
        if (!is_write(s) || !overlap(s, r->io->off_bytes, r->len_bytes)) continue;
        uint64_t from = MAX(s->io->off_bytes, r->io->off_bytes) >> BLOCK_SHIFT;
        uint64_t end = MIN(s->io->off_bytes + s->len_bytes, r->io->off_bytes + r->len_bytes) >> BLOCK_SHIFT;
        for (uint64_t b = from; b < end; b++)
            for (uint32_t k = 0; k < BLOCK_SECTORS; k++)
                if (world_chance(d->world, 500000))
                    sector_copy(io_block(r->io, b - (r->io->off_bytes >> BLOCK_SHIFT)), k,
                                io_block(s->io, b - (s->io->off_bytes >> BLOCK_SHIFT)));
    }
}

static void read_complete(struct world_disk *d, struct sim_io *s) {
    uint64_t block = s->io->off_bytes >> BLOCK_SHIFT;
    for (uint32_t i = 0; i < s->io->iov_len; i++) {
        uint8_t *p = s->io->iov[i].base, *end = p + s->io->iov[i].len_bytes;
        for (; p < end; p += BLOCK_BYTES) block_read(d, block++, p);
    }
    if (d->active_len > 1) read_beside_writes(d, s);
    d->counts.reads++;
    d->counts.read_bytes += s->len_bytes;
}

static void write_complete(struct world_disk *d, struct sim_io *s) {
    uint64_t block = s->io->off_bytes >> BLOCK_SHIFT;
    for (uint32_t i = 0; i < s->io->iov_len; i++) {
        const uint8_t *p = s->io->iov[i].base, *end = p + s->io->iov[i].len_bytes;
        for (; p < end; p += BLOCK_BYTES) block_write(d, block++, p);
        world_mix(d->world, hash64(s->io->iov[i].base, s->io->iov[i].len_bytes, s->number));
    }
    d->counts.writes++;
    d->counts.write_bytes += s->len_bytes;
}

// What the I/O does at the device; the result of a failed write is left to chance, sector by sector.
static err io_complete(struct world_disk *d, struct sim_io *s) {
    if (s->io->op != DISK_FLUSH && s->io->off_bytes + s->len_bytes > d->size_bytes) return ERR_IO;
    if (disk_is_broken(d, s)) {
        d->counts.errors++;
        if (s->io->op == DISK_WRITE) cut_write(&(struct cut){.d = d, .by_chance = true}, s, d, false);
        return ERR_IO;
    }
    switch (s->io->op) {
    case DISK_READ: read_complete(d, s); break;
    case DISK_WRITE: write_complete(d, s); break;
    case DISK_FLUSH:
        flush_complete(d, s->epoch);
        d->counts.flushes++;
        break;
    }
    return OK;
}

static uint64_t io_time_ns(struct world_disk *d, const struct sim_io *s) {
    const struct world_options *o = &d->world->opt;
    uint64_t times = MAX(d->slow, 1u);
    if (s->io->op == DISK_FLUSH)
        return times * world_delay_ns(d->world, o->flush_min_ns, o->flush_max_ns, o->disk_spike_ppm, o->disk_spike_ns);
    return times * (world_delay_ns(d->world, o->disk_min_ns, o->disk_max_ns, o->disk_spike_ppm, o->disk_spike_ns) +
                    (s->len_bytes * o->disk_ns_per_kib >> 10));
}

static void disk_pump(struct world_disk *d) {
    while (!d->hung && d->active_len < MAX(d->world->opt.disk_depth, 1u) && !list_empty(&d->waiting)) {
        struct list *l = list_pop_front(&d->waiting);
        struct sim_io *s = LIST_ENTRY(l, struct sim_io, node);
        list_push_back(&d->active, l);
        d->active_len++;
        event_set(d->world, &s->ev, d->world->now_ns + io_time_ns(d, s));
    }
}

// Tells hook and plan. True if the node lives on.
static bool io_moment(struct node *n, const struct sim_io *s, enum world_io_moment moment) {
    uint64_t off_bytes = s->io->op == DISK_FLUSH ? 0 : s->io->off_bytes;
    struct world_io info = {n, s->d, s->io->op, moment, off_bytes, s->len_bytes, s->number};
    node_enter(n);
    world_io_moment(n->world, &info);
    return node_leave(n);
}

static void io_tell(struct sim_io *s) {
    struct node *n = s->sd->n;
    struct disk_io *io = s->io;
    ASSERT(n->state == NODE_RUNNING && s->sd->inflight > 0);
    s->sd->inflight--;
    list_remove(&s->node);
    list_push_front(&n->world->idle_ios, &s->node);
    node_enter(n);
    io->done(io);
    node_leave(n);
}

static void io_fire(struct world *w, struct event *ev) {
    struct sim_io *s = CONTAINER_OF(ev, struct sim_io, ev);
    struct world_disk *d = s->d;
    struct node *n = s->sd->n;
    ASSERT(n->state != NODE_OFF && d->holder == n);
    if (!s->finished) {
        if (d->hung) return; // stays active; world_disk_hang sets it again
        list_remove(&s->node);
        d->active_len--;
        s->io->result = io_complete(d, s);
        s->finished = true;
        list_push_back(&n->finished_ios, &s->node);
        disk_pump(d);
        if (!io_moment(n, s, WORLD_IO_COMPLETED)) return;
    }
    if (n->state == NODE_RUNNING) io_tell(s);
}

void node_disks_resume(struct node *n) {
    LIST_FOR(&n->finished_ios, l) event_set(n->world, &LIST_ENTRY(l, struct sim_io, node)->ev, n->world->now_ns);
}

static struct sim_io *io_new(struct world *w) {
    struct list *l = list_pop_front(&w->idle_ios);
    struct sim_io *s = l ? LIST_ENTRY(l, struct sim_io, node) : world_alloc(sizeof *s);
    *s = (struct sim_io){.ev.fire = io_fire};
    list_init(&s->node);
    return s;
}

// ---- env's operations -----------------------------------------------------------------------------------------------
void sim_disk_submit(struct disk *base, struct disk_io *io) {
    struct sim_disk *sd = CONTAINER_OF(base, struct sim_disk, base);
    struct world *w = sd->n->world;
    if (!node_hears(sd->n)) return;
    ASSERT(sd->d->holder == sd->n);
    struct sim_io *s = io_new(w);
    s->io = io;
    s->sd = sd;
    s->d = sd->d;
    s->number = ++w->io_number;
    if (io->op == DISK_FLUSH) s->epoch = sd->d->epoch++;
    else s->len_bytes = io_len_bytes(io);
    sd->inflight++;
    list_push_back(&sd->d->waiting, &s->node);
    disk_pump(sd->d);
    io_moment(sd->n, s, WORLD_IO_SUBMITTED);
}

err sim_disk_open(struct env *e, const struct disk_open_args *a, struct disk **out) {
    struct node *n = node_of_env(e);
    struct world_disk *d = world_disk_find(n->world, a->path);
    if (!node_hears(n)) return ERR_IO;
    if (d == NULL && !a->create) return ERR_NOENT;
    if (d && d->holder) return ERR_LOCKED;
    if (a->create) d = world_disk_add(n->world, a->path, a->size_bytes);
    struct sim_disk *sd = mem_alloc(e->mem, sizeof *sd);
    *sd = (struct sim_disk){.base = {e, d->size_bytes}, .d = d, .n = n};
    d->holder = d->home = n;
    *out = &sd->base;
    return OK;
}

void sim_disk_close(struct disk *base) {
    struct sim_disk *sd = CONTAINER_OF(base, struct sim_disk, base);
    ASSERT(sd->inflight == 0);
    if (node_hears(sd->n)) {
        ASSERT(sd->d->holder == sd->n);
        sd->d->holder = NULL;
    }
    mem_free(sd->base.env->mem, sd);
}

uint32_t sim_disk_inflight(const struct disk *base) {
    return CONTAINER_OF(base, const struct sim_disk, base)->inflight;
}

// ---- disks ----------------------------------------------------------------------------------------------------------
static void disk_grow(struct world_disk *d, uint64_t size_bytes) {
    if (size_bytes <= d->size_bytes) return;
    uint64_t had = leaf_count(d->size_bytes), need = leaf_count(size_bytes);
    struct leaf **leaves = world_alloc(need * sizeof *leaves);
    if (had > 0) memcpy(leaves, d->leaves, had * sizeof *leaves);
    free(d->leaves);
    d->leaves = leaves;
    d->size_bytes = size_bytes;
}

struct world_disk *world_disk_add(struct world *w, const char *name, uint64_t size_bytes) {
    struct world_disk *d = world_disk_find(w, name);
    size_bytes = size_bytes / BLOCK_BYTES * BLOCK_BYTES;
    if (d == NULL) {
        d = world_alloc(sizeof *d);
        d->world = w;
        d->name = world_strdup(name);
        d->epoch = 1;
        list_init(&d->waiting);
        list_init(&d->active);
        list_push_back(&w->disks, &d->node);
    }
    disk_grow(d, size_bytes);
    return d;
}

struct world_disk *world_disk_find(struct world *w, const char *name) {
    LIST_FOR(&w->disks, l) {
        struct world_disk *d = LIST_ENTRY(l, struct world_disk, node);
        if (strcmp(d->name, name) == 0) return d;
    }
    return NULL;
}

const char *world_disk_name(const struct world_disk *d) { return d->name; }
uint64_t world_disk_size_bytes(const struct world_disk *d) { return d->size_bytes; }
struct world_disk_counts world_disk_counts(const struct world_disk *d) { return d->counts; }
void world_disk_counts_reset(struct world_disk *d) { d->counts = (struct world_disk_counts){0}; }
uint64_t world_disk_stored_bytes(const struct world_disk *d) { return d->versions * BLOCK_BYTES; }

void world_disk_peek(struct world_disk *d, uint64_t off_bytes, void *p, uint32_t len_bytes) {
    ASSERT(off_bytes + len_bytes <= d->size_bytes);
    for (uint8_t *to = p; len_bytes > 0;) {
        uint32_t in = off_bytes % BLOCK_BYTES, len = MIN(len_bytes, BLOCK_BYTES - in);
        const struct version *v = block_newest(d, off_bytes >> BLOCK_SHIFT);
        if (v) memcpy(to, v->data + in, len);
        else memset(to, 0, len);
        to += len;
        off_bytes += len;
        len_bytes -= len;
    }
}

// All versions of the block get the bytes: with none, a base does.
static void block_poke(struct world_disk *d, uint64_t block, uint32_t in, const uint8_t *from, uint32_t len) {
    struct version **end = block_slot(d, block);
    bool base = false;
    for (; *end; end = &(*end)->older) {
        memcpy((*end)->data + in, from, len);
        base = (*end)->epoch == 0;
    }
    if (base) return;
    *end = version_new(d, 0, NULL);
    memset((*end)->data, 0, BLOCK_BYTES);
    memcpy((*end)->data + in, from, len);
}

void world_disk_poke(struct world_disk *d, uint64_t off_bytes, const void *p, uint32_t len_bytes) {
    ASSERT(off_bytes + len_bytes <= d->size_bytes);
    for (const uint8_t *from = p; len_bytes > 0;) {
        uint32_t in = off_bytes % BLOCK_BYTES, len = MIN(len_bytes, BLOCK_BYTES - in);
        block_poke(d, off_bytes >> BLOCK_SHIFT, in, from, len);
        from += len;
        off_bytes += len;
        len_bytes -= len;
    }
}

uint64_t world_disk_hash(const struct world_disk *d) {
    uint64_t h = 0;
    for (uint64_t i = 0; i < leaf_count(d->size_bytes); i++)
        for (uint32_t j = 0; d->leaves[i] && j < LEAF_BLOCKS; j++) {
            const struct version *v = d->leaves[i]->newest[j];
            if (v) h = hash64(v->data, BLOCK_BYTES, h ^ (i * LEAF_BLOCKS + j));
        }
    return h;
}

void world_disk_flip(struct world_disk *d, uint64_t off_bytes, unsigned bit) {
    uint8_t byte;
    world_disk_peek(d, off_bytes, &byte, 1);
    byte ^= (uint8_t)(1u << bit % 8);
    world_disk_poke(d, off_bytes, &byte, 1);
    world_mix(d->world, 0xF11B + off_bytes * 8 + bit);
}

void world_disk_break(struct world_disk *d, uint64_t off_bytes, uint64_t len_bytes, enum disk_op op) {
    ASSERT(d->broken_len < BROKEN_MAX);
    d->broken[d->broken_len++] = (struct broken){off_bytes, len_bytes, op};
}

void world_disk_mend(struct world_disk *d) { d->broken_len = 0; }

void world_disk_mend_range(struct world_disk *d, uint64_t off_bytes, uint64_t len_bytes) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < d->broken_len; i++) {
        const struct broken *b = &d->broken[i];
        bool within = b->off_bytes >= off_bytes && b->off_bytes + b->len_bytes <= off_bytes + len_bytes;
        if (!within) d->broken[left++] = *b;
    }
    d->broken_len = left;
}

void world_disk_slow(struct world_disk *d, uint32_t times) { d->slow = times; }

void world_disk_hang(struct world_disk *d, bool hung) {
    d->hung = hung;
    if (hung) return;
    LIST_FOR(&d->active, l) {
        struct sim_io *s = LIST_ENTRY(l, struct sim_io, node);
        if (s->ev.index == 0) event_set(d->world, &s->ev, d->world->now_ns + io_time_ns(d, s));
    }
    disk_pump(d);
}

void world_disk_protect(struct world_disk *d, bool power_protected) {
    ASSERT(d->dirty_len == 0);
    d->power_protected = power_protected;
}

void world_disk_erase(struct world_disk *d) {
    ASSERT(d->holder == NULL);
    for (uint64_t i = 0; i < leaf_count(d->size_bytes); i++) {
        for (uint32_t j = 0; d->leaves[i] && j < LEAF_BLOCKS; j++) version_free_chain(d, d->leaves[i]->newest[j]);
        free(d->leaves[i]);
        d->leaves[i] = NULL;
    }
    d->dirty_len = 0;
}

static void disk_free(struct world_disk *d) {
    world_disk_erase(d);
    for (struct version *v; (v = d->spare) != NULL;) {
        d->spare = v->older;
        free(v);
    }
    free(d->leaves);
    free(d->dirty);
    free(d->name);
    free(d);
}

void world_disks_free(struct world *w) {
    LIST_FOR_SAFE(&w->disks, l) disk_free(LIST_ENTRY(l, struct world_disk, node));
    LIST_FOR_SAFE(&w->idle_ios, l) free(LIST_ENTRY(l, struct sim_io, node));
}
