// The journal of updates (B3), as it lies on the disks of an array: no entry of an update crosses a sector of 1024
// bytes; places are allocated in the batch that names them and released in the batch that settles; the end of a file is
// durable before anything beyond it hardens.
#include "store/inside.h"
#include "tests/unit/case_bed.h"

static struct bed bed, *const b = &bed;

// ---- reading a journal: batches, entry by entry
struct entry_seen {
    const uint8_t *p;     // its bytes, or as many of them as lie in its first sector
    uint32_t bytes, here; // of the entry; of it in the sector where it begins
    uint64_t batch;       // number of the batch it belongs to
};
struct walker {
    uint64_t batch, entries, rows_entries, longest, incarnation;
    uint32_t rest; // of an entry that goes on in the next sector
    void (*on)(struct walker *w, const struct entry_seen *e);
    void *ctx;
};

static void walk_sector(struct walker *w, const struct sector_view *v) {
    uint32_t at = MIN(w->rest, v->used);
    w->rest -= at;
    while (at < v->used) {
        const uint8_t *p = v->payload + at;
        uint8_t whole[RECORD_BYTES_MAX + ENTRY_PUT_BYTES] = {0};
        memcpy(whole, p, v->used - at); // so that the length of one that goes on can be told
        struct entry_seen e = {p, p[0] == ENTRY_BEGIN ? ENTRY_BEGIN_BYTES : entry_bytes(whole, sizeof whole), 0,
                               w->batch};
        assert_int_not_equal(e.bytes, 0);
        e.here = MIN(e.bytes, v->used - at);
        if (p[0] == ENTRY_BEGIN) e.batch = ++w->batch;
        w->rest = e.bytes - e.here;
        w->entries++;
        w->on(w, &e);
        at += e.here;
    }
}

// From the first sector on: the ring has not come round.
static void walk_journal(uint8_t iom, struct walker *w) {
    struct world_disk *d = world_disk_find(b->w, b->a->iom[iom].disk);
    struct super_block sb;
    world_disk_peek(d, 0, &sb, sizeof sb);
    uint64_t from = le64_get(sb.journal_at) * BLOCK_BYTES;
    for (uint64_t i = 0; i < le64_get(sb.journal_sectors); i++) {
        uint8_t sector[JSECTOR_BYTES];
        struct sector_view v;
        world_disk_peek(d, from + i * JSECTOR_BYTES, sector, sizeof sector);
        if (!sector_parse(sector, super_seed(&sb), &v)) continue;
        if (v.incarnation != w->incarnation) w->rest = 0; // a torn tail
        w->incarnation = v.incarnation;
        walk_sector(w, &v);
    }
}

static enum record_kind kind_of(const struct entry_seen *e) {
    return e->here > 1 ? (enum record_kind)e->p[1] : 0;
}

// ---- no entry crosses a sector
static bool of_an_update(const struct entry_seen *e) {
    if (e->p[0] == ENTRY_ALLOC || e->p[0] == ENTRY_FREE) return true;
    return (e->p[0] == ENTRY_PUT || e->p[0] == ENTRY_DEL) &&
           (kind_of(e) == KIND_UPDATE || kind_of(e) == KIND_CHUNK || kind_of(e) == KIND_CNODE2);
}

static void check_whole(struct walker *w, const struct entry_seen *e) {
    if (!of_an_update(e)) return;
    w->rows_entries++;
    w->longest = MAX(w->longest, e->bytes);
    if (e->here != e->bytes)
        fail_msg("an entry of kind %u goes on in the next sector: %u of %u bytes are here", kind_of(e), e->here,
                 e->bytes);
}

// Rows of every number, in every phase of a sector, at eight IOMs, where the records of the parity are the longest.
static void no_entry_of_an_update_crosses_a_sector(void **state) {
    static const struct scene eight = {"eight", PROT_PARITY, true, true, .ioms = 8, .size = MIB(2)};
    bed_begin(b, &eight);
    bed_start_from_rest(b);
    for (unsigned i = 0; i < 150; i++) {
        unsigned blocks = 1 + (unsigned)world_random_below(b->w, 6);
        uint64_t off = world_random_below(b->w, MIB(2) / BLOCK_BYTES - blocks) * BLOCK_BYTES;
        for (unsigned n = 0; n < blocks; n++) bed_writes(b, off + n * BLOCK_BYTES, (uint8_t)(1 + i));
        if (i % 3 == 0) bed_client_does(b, co_bed_fsync);
    }
    for (unsigned n = 0; n < 32 * 7; n++)
        bed_writes(b, n * 16 * BLOCK_BYTES % MIB(2) + n / 32 * BLOCK_BYTES, 77); // whole rows, many of a segment
    bed_client_does(b, co_bed_fsync);
    bed_idle(b, SEC(1));
    struct walker w = {.on = check_whole};
    for (uint8_t i = 0; i < 8; i++) walk_journal(i, &w);
    assert_true(w.rows_entries > 1000);
    assert_int_equal(w.longest, ENTRY_PUT_BYTES + sizeof(struct row_chunk) +
                                    16 * (sizeof(struct row_place) + 7 * sizeof(le48))); // CHUNK of 16 rows of parity
    bed_end(b);
}

// ---- places change with the records that name them
struct batches { // of one IOM: numbers of the batches that hold these entries
    uint64_t put_update, alloc, put_chunk, del_update, free;
    uint64_t new_place, old_place;
};

static bool covers(const struct entry_seen *e, uint64_t place) {
    le48 at;
    le32 n;
    memcpy(&at, e->p + 1, sizeof at);
    memcpy(&n, e->p + 7, sizeof n);
    return place && place >= le48_get(at) && place < le48_get(at) + le32_get(n);
}

static void note_batches(struct walker *w, const struct entry_seen *e) {
    struct batches *x = w->ctx;
    struct key update = row_key(KIND_UPDATE, b->attr.handle, b->seg),
               chunk = row_key(KIND_CHUNK, b->attr.handle, b->seg);
    bool of_update = e->here > KEY_BYTES && memcmp(e->p + 1, update.b, KEY_BYTES) == 0,
         of_chunk = e->here > KEY_BYTES && memcmp(e->p + 1, chunk.b, KEY_BYTES) == 0;
    if (e->p[0] == ENTRY_PUT && of_update) x->put_update = e->batch;
    if (e->p[0] == ENTRY_DEL && of_update) x->del_update = e->batch;
    if (e->p[0] == ENTRY_PUT && of_chunk) x->put_chunk = e->batch;
    if (e->p[0] == ENTRY_ALLOC && covers(e, x->new_place)) x->alloc = e->batch;
    if (e->p[0] == ENTRY_FREE && covers(e, x->old_place)) x->free = e->batch;
}

static struct batches batches_of(uint8_t iom) {
    struct batches x = {.new_place = b->disk[iom].new_place, .old_place = b->before.m[iom].place.at};
    struct walker w = {.on = note_batches, .ctx = &x};
    walk_journal(iom, &w);
    return x;
}

static void places_change_with_their_records(void **state) {
    bed_begin(b, &OVERWRITE);
    bed_start_from_rest(b);
    b->watching = true;
    bed_writes(b, b->off, TAG_NEW);
    bed_until(b, bed_unsettled, b);
    bed_syncs(b, b->d);
    bed_syncs(b, b->p);
    const uint8_t iom[] = {b->d, b->p};
    for (unsigned i = 0; i < 2; i++) {
        struct batches x = batches_of(iom[i]);
        assert_int_not_equal(x.put_update, 0);
        assert_int_equal(x.alloc, x.put_update);
        assert_true(x.put_chunk > x.put_update);
        assert_int_equal(x.del_update, x.put_chunk);
        assert_int_equal(x.free, x.put_chunk);
    }
    bed_end(b);
}

// Through replay: bed_look opens what a cut left and finds the allocator exactly as the records say (case_look.h),
// whichever of the batches survived.
static void replay_allocates_and_releases(void **state) {
    static const struct fates f[] = {{LOST, WHOLE}, {TORN, WHOLE}, {WHOLE, LOST}};
    bed_begin(b, &OVERWRITE);
    for (unsigned i = 0; i < ARRAY_LEN(f); i++) {
        bed_write_to(b, f[i], f[i]);
        const uint8_t iom[] = {b->d, b->p};
        for (unsigned n = 0; n < 2; n++)
            assert_int_equal(b->now.m[iom[n]].free_blocks, b->before.m[iom[n]].free_blocks - (f[i].entry == WHOLE));
    }
    const uint8_t iom[] = {b->d, b->p};
    for (unsigned n = 0; n < 2; n++) {
        bed_write_settled_at(b, iom[n]);
        assert_int_equal(b->now.m[iom[n]].free_blocks, b->before.m[iom[n]].free_blocks);
        assert_true(look_refers(&b->now.m[iom[n]], b->disk[iom[n]].new_place));
        assert_false(look_refers(&b->now.m[iom[n]], b->before.m[iom[n]].place.at));
    }
    bed_end(b);
}

// ---- the end of the file
static bool writing_to_disk(void *ctx) {
    return world_crash_pending(b->w) && bed_busy(b);
}

static bool appends_and_is_cut(uint64_t k) {
    bed_start_from_rest(b);
    assert_true(b->before.size < b->off);
    world_crash_at_io(b->w, NULL, k, WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    b->watching = true;
    b->io_off = b->off;
    b->tag = TAG_NEW;
    bed_client_begins(b, co_bed_write);
    bed_until(b, writing_to_disk, NULL);
    if (world_crash_pending(b->w)) bed_client_begins(b, co_bed_fsync);
    bed_until(b, writing_to_disk, NULL);
    bool cut = !world_crash_pending(b->w);
    world_crash_at_io(b->w, NULL, 0, WORLD_IO_COMPLETED, WORLD_CRASH_POWER);
    b->watching = false;
    bed_off(b);
    return cut;
}

// The block at the end, and the size: no block beyond the durable end is on disk, so whatever survives of the update
// lies below the size that is found.
static void check_end(bool cut, uint32_t *with_block) {
    uint64_t end = b->off + BLOCK_BYTES;
    bed_look(b, false);
    struct outcome o = bed_verdict(b);
    bool block = o.d != OLD_PLACE;
    assert_true(b->now.size == b->before.size || b->now.size == end);
    if (block || b->now.m[b->d].entry || b->now.m[b->p].entry) assert_int_equal(b->now.size, end);
    if (!cut) assert_true(block);
    uint64_t size = b->now.size;
    bed_on(b);
    bed_check_outcome(b, &o, block ? TAG_NEW : TAG_HOLE);
    // The write had no answer, or no fsync: it may be there without its bytes (zeros), but not the bytes without the
    // size.
    assert_true(b->now.size >= size);
    if (block) assert_int_equal(b->now.size, end);
    *with_block += block;
}

static void the_end_is_durable_before_what_lies_beyond(void **state) {
    static const struct scene short_file = {"append", PROT_PARITY, false, false, .size = 3 * KIB(64)};
    uint32_t with_block = 0, cuts = 0;
    bed_begin(b, &short_file);
    for (unsigned round = 0; round < 3; round++)
        for (uint64_t k = 1;; k++) {
            bool cut = appends_and_is_cut(k);
            check_end(cut, &with_block);
            cuts++;
            if (!cut) break;
        }
    assert_true(with_block > 3 && cuts > with_block + 3);
    bed_end(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_entry_of_an_update_crosses_a_sector),
        cmocka_unit_test(places_change_with_their_records),
        cmocka_unit_test(replay_allocates_and_releases),
        cmocka_unit_test(the_end_is_durable_before_what_lies_beyond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
