// The bed of the recovery cases: an array of four real IOMs, a client, and one block of one file that is about to be
// written.
//
//     bed_begin(b, &OVERWRITE)     the file is there and at rest; the disks are put on a shelf
//     bed_write_to(b, d, p)        from the shelf: the block is written; D and P get as far as the flush of their
//                                  part, for their disks stand still there. Then the power of all goes, and of what no
//                                  flush has covered survives what the fates of D and P say.
//     bed_recovers(b, outcome, 1)  all start again and serve; then nothing but what is durable is looked at. The same
//                                  again with the power cut at every I/O of the recovery (7: at every seventh), each
//                                  time from the same state.
//
// Other members of the row may be written in the same version (bed_also); case_members.c is about them.
//
// D is the IOM of the data block, P that of its parity (or copy). On disk an update is, at each of them, an *entry*
// (UPDATE in the journal: the new place, with the block's checksum) and a *block* (at that place). What the first
// design calls a hardened entry on disk is here an entry whose block matches its checksum.
#pragma once
#include "iom/iom_inside.h"
#include "store/format.h"
#include "tests/unit/case_look.h"

#include <sys/stat.h>

#define BED_IOMS 4
#define BED_FILE_BYTES MIB(1)
#define BED_ROW 5 // of the segment

enum fate { LOST, TORN, WHOLE };
struct fates {
    enum fate entry, block;
};
// Which place CHUNK names in the end: NEW is that of the entry, FRESH one that recovery took.
enum in_force { OLD_PLACE, NEW_PLACE, FRESH_PLACE };
struct outcome {
    enum in_force d, p;
};

struct scene {
    const char *name;
    enum protection protection;
    bool data_old;   // the block was written before
    bool others_old; // others of its row were
    uint8_t ioms;    // 0: four
    uint64_t size;   // of the file; 0: BED_FILE_BYTES
};
static const struct scene OVERWRITE = {"overwrite", PROT_PARITY, true, true},
                          FIRST = {"first write of the row", PROT_PARITY, false, false},
                          BESIDE = {"first write beside others", PROT_PARITY, false, true},
                          MIRROR = {"overwrite of a mirrored block", PROT_MIRROR, true, false},
                          MIRROR_FIRST = {"first write of a mirrored block", PROT_MIRROR, false, false},
                          ALONE = {"overwrite without protection", PROT_NONE, true, false};

struct bed_disk {                                 // of one IOM
    uint64_t journal_from, journal_to, data_from; // bytes
    bool stop_at_flush;                           // the next flush after a block was written does not end
    bool stands_still;
    bool member;        // D, P, or another whose block is written
    uint32_t wrote;     // blocks, since it is watched
    uint64_t new_place; // of the last
    struct fates fates;
    uint32_t at_risk_entry, at_risk_block; // sectors, in the cut
};
struct bed {
    const struct scene *scene;
    struct world *w;
    struct array *a;
    uint8_t d, p, k; // D, P (NO_IOM without protection) and the number of the data chunk
    uint64_t seg, off;
    struct bed_disk disk[LOOK_IOMS_MAX];
    struct bed_also { // by k: written in the same version as D's block
        bool written;
        uint8_t tag;         // what it is to be in the end
        enum in_force place; // and where
    } also[LOOK_IOMS_MAX];
    bool watching;
    bool hardened_sent, settled_sent; // from D to P, from P to D
    struct look before, now;
    // the client
    struct node *client;
    struct mx *mx;
    struct mx_file *file;
    struct attr attr;
    err (*co_task)(struct bed *b);
    bool busy;
    err why;
    uint8_t syncing; // IOM
    uint64_t io_off;
    uint8_t tag, read[BLOCK_BYTES];
};
static inline bool bed_has_parity(const struct bed *b) {
    return b->p != NO_IOM;
}

enum tag { TAG_HOLE, TAG_OTHERS = 10, TAG_OLD = 20, TAG_NEW, TAG_SECOND, TAG_ELSEWHERE, TAG_ALSO = 30 };

static inline void bed_pattern(uint8_t *to, uint8_t tag) {
    for (uint32_t i = 0; i < BLOCK_BYTES; i++) to[i] = tag == TAG_HOLE ? 0 : (uint8_t)(tag * 41 + i * 7 + (i >> 8) * 3);
}

// ---- time
static inline void bed_until(struct bed *b, bool (*going)(void *ctx), void *ctx) {
    assert_true(world_run_while(b->w, going, ctx, world_now_ns(b->w) + SEC(100)));
}
static inline void bed_idle(struct bed *b, uint64_t ns) {
    world_run_until(b->w, world_now_ns(b->w) + ns);
}
static inline bool bed_busy(void *ctx) {
    return ((struct bed *)ctx)->busy;
}
static inline bool bed_not_serving(void *ctx) {
    return !array_serving(((struct bed *)ctx)->a);
}
static inline bool bed_not_over(void *ctx) {
    return !array_over(((struct bed *)ctx)->a);
}

// ---- the client
static inline err co_bed_make(struct bed *b) {
    static const char *const policy[] = {[PROT_NONE] = "none", [PROT_MIRROR] = "mirror", [PROT_PARITY] = "parity"};
    const char *p = policy[b->scene->protection];
    struct mx_op set = {0}, create = {0}, size = {0};
    struct mx_setattr bytes = {.valid = SETATTR_SIZE, .size = b->scene->size ? b->scene->size : BED_FILE_BYTES};
    err e = co_mx_setxattr(b->mx, &set, handle_root(), "user.mendfs.protection", p, (uint32_t)strlen(p), 0);
    if (e == OK) e = co_mx_create(b->mx, &create, handle_root(), "f", S_IFREG | 0644, MX_O_CREATE, &b->file, &b->attr);
    return e == OK ? co_mx_setattr(b->mx, &size, b->attr.handle, &bytes, &b->attr) : e;
}

static inline err co_bed_open(struct bed *b) {
    struct mx_op op = {0};
    struct attr a;
    return co_mx_open(b->mx, &op, b->attr.handle, 0, &b->file, &a);
}

static inline err co_bed_start(struct bed *b) {
    struct mx_config config = array_mx_config(b->a);
    struct mx_op op = {0};
    b->mx = mx_create(node_env(b->client), &config);
    err e = co_mx_start(b->mx, &op);
    if (e != OK) return e;
    return b->attr.handle.index ? co_bed_open(b) : co_bed_make(b);
}

static inline err co_bed_write(struct bed *b) {
    struct mx_op op = {0};
    struct buf *buf = buf_new(node_env(b->client)->mem, BLOCK_BYTES);
    bed_pattern(buf->data, b->tag);
    err e = co_mx_write(b->mx, &op, b->file, b->io_off, (struct slice){buf, 0, BLOCK_BYTES});
    buf_unref(buf);
    return e;
}

static inline err co_bed_read(struct bed *b) {
    struct mx_op op = {0};
    uint32_t got = 0;
    err e = co_mx_read(b->mx, &op, b->file, b->io_off, BLOCK_BYTES, b->read, &got);
    return e == OK && got != BLOCK_BYTES ? ERR_RANGE : e;
}

static inline err co_bed_fsync(struct bed *b) {
    struct mx_op op = {0};
    return co_mx_fsync(b->mx, &op, b->file, false);
}

static inline void bed_client_main(void *arg) {
    struct bed *b = arg;
    b->why = b->co_task(b);
    b->busy = false;
}

static inline void bed_client_begins(struct bed *b, err (*co_task)(struct bed *b)) {
    b->co_task = co_task;
    b->busy = true;
    if (node_running(b->client))
        env_spawn(node_env(b->client), "bed", bed_client_main, b);
    else
        node_start(b->client, bed_client_main, b);
}

static inline void bed_client_does(struct bed *b, err (*co_task)(struct bed *b)) {
    bed_client_begins(b, co_task);
    bed_until(b, bed_busy, b);
    assert_int_equal(b->why, OK);
}

static inline void bed_writes(struct bed *b, uint64_t off, uint8_t tag) {
    b->io_off = off;
    b->tag = tag;
    bed_client_does(b, co_bed_write);
}

static inline void bed_reads(struct bed *b, uint64_t off, uint8_t tag) {
    uint8_t wanted[BLOCK_BYTES];
    b->io_off = off;
    bed_client_does(b, co_bed_read);
    bed_pattern(wanted, tag);
    assert_memory_equal(b->read, wanted, BLOCK_BYTES);
}

// ---- what the disks do
static inline void bed_on_io(void *ctx, const struct world_io *io) {
    struct bed *b = ctx;
    if (!b->watching || io->moment != WORLD_IO_SUBMITTED) return;
    for (uint8_t i = 0; i < b->a->ioms; i++) {
        struct bed_disk *x = &b->disk[i];
        if (io->node != b->a->iom[i].node) continue;
        if (io->op == DISK_WRITE && io->off_bytes >= x->data_from) {
            x->wrote++;
            x->new_place = io->off_bytes / BLOCK_BYTES;
        }
        if (io->op != DISK_FLUSH || !x->wrote || !x->stop_at_flush) continue;
        world_disk_hang(io->disk, true);
        x->stands_still = true;
    }
}

static inline void bed_on_msg(void *ctx, struct node *from, struct node *to, const struct msg *m) {
    struct bed *b = ctx;
    if (!b->watching || !bed_has_parity(b)) return;
    bool forth = from == b->a->iom[b->d].node && to == b->a->iom[b->p].node,
         back = to == b->a->iom[b->d].node && from == b->a->iom[b->p].node;
    if (forth && m->type == MSG_HARDENED) b->hardened_sent = true;
    if (back && m->type == MSG_SETTLED) b->settled_sent = true;
}

static inline bool bed_survives(enum fate f, uint64_t sector) {
    return f == WHOLE || (f == TORN && sector % 2);
}

static inline bool bed_keep(void *ctx, const struct world_sector *s) {
    struct bed *b = ctx;
    for (uint8_t i = 0; i < b->a->ioms; i++) {
        struct bed_disk *x = &b->disk[i];
        if (strcmp(world_disk_name(s->disk), b->a->iom[i].disk) != 0 || !x->member) continue;
        uint64_t sector = s->off_bytes / SECTOR_BYTES;
        if (s->off_bytes >= x->journal_from && s->off_bytes < x->journal_to) {
            x->at_risk_entry++;
            return bed_survives(x->fates.entry, sector);
        }
        if (s->off_bytes >= x->data_from) {
            x->at_risk_block++;
            return bed_survives(x->fates.block, sector);
        }
    }
    return true;
}

static inline bool bed_keep_none(void *ctx, const struct world_sector *s) {
    return false;
}

static inline void bed_learn_disks(struct bed *b) {
    for (uint8_t i = 0; i < b->a->ioms; i++) {
        struct super_block sb;
        world_disk_peek(world_disk_find(b->w, b->a->iom[i].disk), 0, &sb, sizeof sb);
        b->disk[i].journal_from = le64_get(sb.journal_at) * BLOCK_BYTES;
        b->disk[i].journal_to = b->disk[i].journal_from + le64_get(sb.journal_sectors) * JSECTOR_BYTES;
        b->disk[i].data_from = le64_get(sb.data_at) * BLOCK_BYTES;
    }
}

// ---- looking
static inline void bed_look(struct bed *b, bool at_rest) {
    b->now.a = b->a;
    b->now.h = b->attr.handle;
    b->now.map = b->attr.map;
    b->now.seg = b->seg;
    b->now.row = BED_ROW;
    world_keep_sectors(b->w, bed_keep_none, NULL);
    look_at(&b->now, at_rest);
    world_keep_sectors(b->w, NULL, NULL);
}

// ---- all on, all off
static inline void bed_off(struct bed *b) {
    array_power_cut(b->a);
    node_crash(b->client);
    for (uint8_t i = 0; i < b->a->ioms; i++) world_disk_hang(world_disk_find(b->w, b->a->iom[i].disk), false);
}

static inline void bed_on(struct bed *b) {
    array_start(b->a);
    bed_until(b, bed_not_serving, b);
}

static inline void bed_to_shelf(struct bed *b, const char *shelf) {
    look_copy_disks(b->a, "disk", shelf);
}
static inline void bed_from_shelf(struct bed *b, const char *shelf) {
    look_copy_disks(b->a, shelf, "disk");
}

// ---- the file at rest
static inline uint64_t bed_off_of(const struct bed *b, uint8_t k) {
    return geo_offset(&b->attr.map, b->seg, k, BED_ROW * BLOCK_BYTES);
}

// Stripe 1, and D neither its first chunk nor the file's starter, whose disk has the names to keep.
static inline void bed_choose_block(struct bed *b) {
    uint8_t n = geo_data(&b->attr.map);
    for (uint8_t k = 0; k < n; k++) {
        struct place x = geo_locate(
            &b->attr.map, geo_offset(&b->attr.map, geo_segs_per_chunk(&b->attr.map), k, BED_ROW * BLOCK_BYTES));
        if (x.data.n == b->attr.handle.starter || x.parity.n == b->attr.handle.starter) continue;
        b->d = x.data.n;
        b->p = x.parity.n;
        b->k = k;
        b->seg = x.seg;
    }
    b->off = bed_off_of(b, b->k);
    assert_int_not_equal(b->d, b->attr.handle.starter);
}

static inline uint8_t bed_tag_of(const struct bed *b, uint8_t k, uint8_t mine) {
    if (k == b->k) return mine;
    if (b->also[k].tag) return b->also[k].tag;
    return b->scene->others_old ? (uint8_t)(TAG_OTHERS + k) : TAG_HOLE;
}

static inline uint8_t bed_old_tag(const struct bed *b) {
    return b->scene->data_old ? TAG_OLD : TAG_HOLE;
}

// Something in other stripes, so that every IOM has records of rows and a tree of them: what is free then changes by
// the blocks of the update alone.
static inline void bed_write_all_else(struct bed *b) {
    for (uint64_t off = 0; off < b->attr.size; off += refmap_quantum(&b->attr.map))
        if (geo_locate(&b->attr.map, off).stripe != geo_seg_stripe(&b->attr.map, b->seg))
            bed_writes(b, off, TAG_ELSEWHERE);
}

static inline void bed_begin(struct bed *b, const struct scene *s) {
    struct world_options x = world_options_default();
    struct array_options o = {.ioms = s->ioms ? s->ioms : BED_IOMS,
                              .store_bytes = MIB(24),
                              .store = {.journal_bytes = MIB(1), .cache_bytes = MIB(1)}};
    o.rows = (struct rows_config){.flush_age_ns = MSEC(300), .credit_bytes = KIB(128), .cache_bytes = MIB(2)};
    memset(b, 0, sizeof *b);
    b->scene = s;
    x.on_io = bed_on_io;
    x.on_msg = bed_on_msg;
    x.ctx = b;
    b->w = world_create(1, &x);
    b->a = array_create(b->w, &o);
    b->client = node_add(b->w, "mx");
    bed_learn_disks(b);
    bed_on(b);
    bed_client_does(b, co_bed_start);
    bed_choose_block(b);
    bed_write_all_else(b);
    for (uint8_t k = 0; k < geo_data(&b->attr.map); k++) {
        uint8_t tag = bed_tag_of(b, k, bed_old_tag(b));
        if (tag != TAG_HOLE) bed_writes(b, bed_off_of(b, k), tag);
    }
    bed_client_does(b, co_bed_fsync);
    bed_idle(b, SEC(3));
    array_ask_stop(b->a);
    bed_until(b, bed_not_over, b);
    bed_off(b);
    bed_to_shelf(b, "rest");
}

static inline void bed_end(struct bed *b) {
    world_destroy(b->w);
    array_destroy(b->a);
    memset(b, 0, sizeof *b);
}

// ---- to the cut
static inline void bed_start_from_rest(struct bed *b) {
    bed_off(b);
    bed_from_shelf(b, "rest");
    b->hardened_sent = b->settled_sent = false;
    for (uint8_t i = 0; i < b->a->ioms; i++) {
        struct bed_disk *x = &b->disk[i];
        x->stop_at_flush = x->stands_still = false;
        x->wrote = 0;
        x->new_place = 0;
    }
    bed_on(b);
    bed_client_does(b, co_bed_start);
    bed_idle(b, SEC(3));
    bed_look(b, true);
    b->before = b->now;
    assert_int_equal(b->before.m[b->d].updates, 0);
}

static inline bool bed_moving(void *ctx) {
    struct bed *b = ctx;
    return !b->disk[b->d].stands_still || (bed_has_parity(b) && !b->disk[b->p].stands_still);
}

static inline void bed_stop_at_flush(struct bed *b) {
    b->watching = b->disk[b->d].stop_at_flush = true;
    if (bed_has_parity(b)) b->disk[b->p].stop_at_flush = true;
}

static inline void bed_cut(struct bed *b, struct fates d, struct fates p) {
    b->watching = false;
    for (uint8_t i = 0; i < b->a->ioms; i++) b->disk[i].at_risk_entry = b->disk[i].at_risk_block = 0;
    b->disk[b->d].fates = d;
    b->disk[b->d].member = true;
    if (bed_has_parity(b)) {
        b->disk[b->p].fates = p;
        b->disk[b->p].member = true;
    }
    world_keep_sectors(b->w, bed_keep, b);
    bed_off(b);
    world_keep_sectors(b->w, NULL, NULL);
    bed_to_shelf(b, "cut");
    bed_look(b, false);
}

// The picture that the cut was to leave: entry and block as `f` says, CHUNK as it was, and its block whole (I2).
// Exactly one unit of the journal and one block were at risk: so nothing else differs between the cases.
static inline void bed_check_member_cut(const struct bed *b, uint8_t iom, struct fates f) {
    const struct look_member *m = &b->now.m[iom], *was = &b->before.m[iom];
    assert_int_equal(b->disk[iom].at_risk_entry, BLOCK_BYTES / SECTOR_BYTES);
    assert_int_equal(b->disk[iom].at_risk_block, BLOCK_BYTES / SECTOR_BYTES);
    assert_int_equal(m->entry, f.entry == WHOLE);
    assert_int_equal(m->updates, f.entry == WHOLE);
    assert_int_equal(m->entry_whole, f.entry == WHOLE && f.block == WHOLE);
    if (m->entry) assert_int_equal(m->update.spot[BED_ROW].at, b->disk[iom].new_place);
    assert_int_equal(m->place.at, was->place.at);
    assert_true(m->settled_whole);
    assert_int_equal(m->refs, was->refs + m->entry); // the new place is allocated with its entry, or not at all
}

static inline void bed_write_to(struct bed *b, struct fates d, struct fates p) {
    bed_start_from_rest(b);
    bed_stop_at_flush(b);
    bed_writes(b, b->off, TAG_NEW);
    bed_until(b, bed_moving, b);
    bed_cut(b, d, p);
    bed_check_member_cut(b, b->d, d);
    if (bed_has_parity(b)) bed_check_member_cut(b, b->p, p);
}

// ---- to a cut after both parts were on disk: settled in memory, and on the disk of one
static inline uint64_t bed_settled_count(struct bed *b, uint8_t iom) {
    struct rows_stats x;
    rows_stats(b->a->iom[iom].start.iom->own.rows, &x);
    return x.settled;
}

static inline bool bed_unsettled(void *ctx) {
    struct bed *b = ctx;
    return !bed_settled_count(b, b->d) || (bed_has_parity(b) && !bed_settled_count(b, b->p));
}

static inline void co_bed_sync(void *arg) {
    struct bed *b = arg;
    struct store *s = b->a->iom[b->syncing].start.iom->store;
    b->why = co_store_sync(s, store_now(s));
    b->busy = false;
}

static inline void bed_sync_begins(struct bed *b, uint8_t iom) {
    b->syncing = iom;
    b->busy = true;
    env_spawn(node_env(b->a->iom[iom].node), "bed: sync", co_bed_sync, b);
}

static inline void bed_syncs(struct bed *b, uint8_t iom) {
    bed_sync_begins(b, iom);
    bed_until(b, bed_busy, b);
    assert_int_equal(b->why, OK);
}

static inline void bed_write_settled_at(struct bed *b, uint8_t iom) {
    uint8_t other = iom == b->d ? b->p : b->d;
    bed_start_from_rest(b);
    b->watching = true;
    bed_writes(b, b->off, TAG_NEW);
    bed_until(b, bed_unsettled, b);
    bed_syncs(b, iom);
    bed_cut(b, (struct fates){WHOLE, WHOLE}, (struct fates){WHOLE, WHOLE});
    const struct look_member *m = &b->now.m[iom], *x = &b->now.m[other];
    assert_int_equal(m->updates, 0);
    assert_int_equal(m->place.at, b->disk[iom].new_place);
    assert_true(x->entry_whole);
    assert_int_equal(x->place.at, b->before.m[other].place.at);
}

// ---- after it
static inline void bed_check_place(const struct bed *b, uint8_t iom, enum in_force which) {
    const struct look_member *m = &b->now.m[iom], *was = &b->before.m[iom];
    uint64_t old = was->place.at, new = b->disk[iom].new_place, at = m->place.at;
    if (which == OLD_PLACE)
        assert_int_equal(at, old);
    else
        assert_int_not_equal(at, old);
    if (which == NEW_PLACE) assert_int_equal(at, new);
    if (old && at != old) assert_false(look_refers(m, old));
    if (new &&at != new) assert_false(look_refers(m, new));
    uint32_t more = at && !old;
    assert_int_equal(m->refs, was->refs + more);
    assert_int_equal(m->free_blocks, was->free_blocks - more);
}

static inline uint8_t bed_iom_of(const struct bed *b, uint8_t k) {
    return geo_locate(&b->attr.map, bed_off_of(b, k)).data.n;
}

static inline void bed_check_bytes(const struct bed *b, uint8_t mine) {
    uint8_t sum[BLOCK_BYTES] = {0}, wanted[BLOCK_BYTES];
    for (uint8_t k = 0; k < geo_data(&b->attr.map); k++) {
        uint8_t iom = bed_iom_of(b, k);
        bed_pattern(wanted, bed_tag_of(b, k, mine));
        assert_memory_equal(b->now.m[iom].block, wanted, BLOCK_BYTES);
        xor_into(sum, wanted, BLOCK_BYTES);
    }
    if (bed_has_parity(b)) assert_memory_equal(b->now.m[b->p].block, sum, BLOCK_BYTES);
}

// What is durable once all serve.
static inline void bed_check_outcome(struct bed *b, const struct outcome *o, uint8_t mine) {
    bed_look(b, true);
    for (uint8_t i = 0; i < b->a->ioms; i++) assert_int_equal(b->now.m[i].updates, 0);
    bed_check_bytes(b, mine);
    bed_check_place(b, b->d, o->d);
    if (!bed_has_parity(b)) return;
    bed_check_place(b, b->p, o->p);
    for (uint8_t k = 0; k < geo_data(&b->attr.map); k++) {
        if (b->also[k].written) bed_check_place(b, bed_iom_of(b, k), b->also[k].place);
        assert_int_equal(b->now.m[bed_iom_of(b, k)].version[0], b->now.m[b->p].version[k]);
    }
}

static inline uint8_t bed_new_or_old(const struct bed *b, const struct outcome *o) {
    return o->d == OLD_PLACE ? bed_old_tag(b) : TAG_NEW;
}

static inline bool bed_neither(void *ctx) {
    return world_crash_pending(((struct bed *)ctx)->w) && bed_not_serving(ctx);
}

// All start; the power goes at the k-th I/O. False: they served before.
static inline bool bed_starts_and_is_cut(struct bed *b, uint64_t k) {
    world_crash_at_io(b->w, NULL, k, WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    array_start(b->a);
    bed_until(b, bed_neither, b);
    bool cut = !world_crash_pending(b->w);
    world_crash_at_io(b->w, NULL, 0, WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    return cut;
}

// From the state on the shelf, with the power cut at every I/O of the recovery, or at each `every`-th.
static inline void bed_check_cut_with(struct bed *b, const struct outcome *o, uint8_t mine, uint64_t every,
                                      world_keep_fn keep) {
    for (uint64_t k = every;; k += every) {
        bed_off(b);
        bed_from_shelf(b, "cut");
        world_keep_sectors(b->w, keep, b);
        bool cut = bed_starts_and_is_cut(b, k);
        world_keep_sectors(b->w, NULL, NULL);
        if (!cut) return;
        // and once more in the recovery from that
        if (k % 3 == 0) (void)bed_starts_and_is_cut(b, 1 + world_random_below(b->w, k));
        bed_on(b);
        bed_check_outcome(b, o, mine);
    }
}

static inline bool bed_keep_all_but_blocks(void *ctx, const struct world_sector *s) {
    struct bed *b = ctx;
    return s->off_bytes < b->disk[0].data_from; // the stores are alike
}

static inline void bed_check_cut_again(struct bed *b, const struct outcome *o, uint8_t mine, uint64_t every) {
    bed_check_cut_with(b, o, mine, every, NULL);
    // Where recovery takes a place, chance is not enough: no record may name it before its block is on disk.
    bool fresh = o->d == FRESH_PLACE || o->p == FRESH_PLACE;
    for (uint8_t k = 0; k < LOOK_IOMS_MAX; k++) fresh |= b->also[k].written && b->also[k].place == FRESH_PLACE;
    if (fresh && every == 1) bed_check_cut_with(b, o, mine, every, bed_keep_all_but_blocks);
}

static inline void bed_recovers(struct bed *b, struct outcome o, uint64_t every) {
    uint8_t mine = bed_new_or_old(b, &o);
    bed_on(b);
    bed_check_outcome(b, &o, mine);
    bed_client_does(b, co_bed_start);
    for (uint8_t k = 0; k < geo_data(&b->attr.map); k++) bed_reads(b, bed_off_of(b, k), bed_tag_of(b, k, mine));
    bed_check_cut_again(b, &o, mine, every);
}

// ---- the whole way of an update, cut at every I/O
struct verdict_seen {
    uint32_t forward, back;
};

// Our own opinion, from what the cut left: forward if either side has its new block. Of the place in force: that of the
// entry where its block is on disk.
static inline struct outcome bed_verdict(const struct bed *b) {
    bool has[2] = {false}, moved[2] = {false};
    const uint8_t iom[2] = {b->d, b->p};
    for (unsigned i = 0; i < 1u + bed_has_parity(b); i++) {
        const struct look_member *m = &b->now.m[iom[i]];
        moved[i] = m->place.at != b->before.m[iom[i]].place.at;
        has[i] = moved[i] || m->entry_whole;
    }
    if (!bed_has_parity(b)) return (struct outcome){has[0] ? NEW_PLACE : OLD_PLACE, OLD_PLACE};
    if (!has[0] && !has[1]) return (struct outcome){OLD_PLACE, OLD_PLACE};
    return (struct outcome){has[0] ? NEW_PLACE : FRESH_PLACE, has[1] ? NEW_PLACE : FRESH_PLACE};
}

// FIG. 16: an old place is kept until new data and new parity and the entries of both are on disk.
static inline void bed_check_old_places(const struct bed *b, const struct outcome *o) {
    const uint8_t iom[2] = {b->d, b->p};
    bool both = o->d == NEW_PLACE && (!bed_has_parity(b) || o->p == NEW_PLACE);
    for (unsigned i = 0; i < 1u + bed_has_parity(b); i++) {
        const struct look_member *m = &b->now.m[iom[i]];
        assert_true(m->settled_whole);
        uint64_t old = b->before.m[iom[i]].place.at;
        if (old && !look_refers(m, old)) assert_true(both);
    }
}

static inline bool bed_writing(void *ctx) {
    return world_crash_pending(((struct bed *)ctx)->w) && (bed_busy(ctx) || bed_unsettled(ctx));
}
static inline bool bed_syncing(void *ctx) {
    return world_crash_pending(((struct bed *)ctx)->w) && bed_busy(ctx);
}

// From the write to CHUNKs that are durable at both. False: all of it came before the k-th I/O.
static inline bool bed_writes_and_is_cut(struct bed *b, uint64_t k) {
    world_crash_at_io(b->w, NULL, k, WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    b->watching = true;
    b->io_off = b->off;
    b->tag = TAG_NEW;
    bed_client_begins(b, co_bed_write);
    bed_until(b, bed_writing, b);
    for (unsigned i = 0; i < 1u + bed_has_parity(b) && world_crash_pending(b->w); i++) {
        bed_sync_begins(b, i ? b->p : b->d);
        bed_until(b, bed_syncing, b);
    }
    b->watching = false;
    bool cut = !world_crash_pending(b->w);
    world_crash_at_io(b->w, NULL, 0, WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    return cut;
}

static inline bool bed_keep_all(void *ctx, const struct world_sector *s) {
    return true;
}

static inline void bed_walk_with(struct bed *b, world_keep_fn keep, struct verdict_seen *seen) {
    bool cut = true;
    for (uint64_t k = 1; cut; k++) {
        bed_start_from_rest(b);
        world_keep_sectors(b->w, keep, NULL);
        cut = bed_writes_and_is_cut(b, k);
        bed_off(b);
        world_keep_sectors(b->w, NULL, NULL);
        bed_look(b, false);
        struct outcome o = bed_verdict(b);
        bed_check_old_places(b, &o);
        if (!cut) assert_true(o.d == NEW_PLACE && b->now.m[b->d].updates == 0);
        bed_on(b);
        bed_check_outcome(b, &o, bed_new_or_old(b, &o));
        seen->forward += o.d != OLD_PLACE;
        seen->back += o.d == OLD_PLACE;
    }
}

static inline void bed_walk(struct bed *b) {
    struct verdict_seen seen = {0};
    bed_walk_with(b, bed_keep_none, &seen);
    bed_walk_with(b, bed_keep_all, &seen);
    for (unsigned i = 0; i < 4; i++) bed_walk_with(b, NULL, &seen);
    assert_true(seen.forward > 4 && seen.back > 4);
}
