// What can go wrong with a store, and what is promised then: damage, a full store, a failing device; and the smaller
// promises: registers, notes and retention, group commit, entries that do not cross sectors.
#include "store/inside.h"
#include "tests/crash/store_bed.h"

static struct key k_of(uint64_t n) {
    return key_make(1, (const uint8_t *)"0123456789abcdef", n);
}
static err co_put(struct store *s, uint64_t n, uint32_t len, lsn *at) {
    uint8_t v[RECORD_BYTES_MAX];
    memset(v, (int)n, sizeof v);
    struct batch *b = batch_new(s);
    struct key k = k_of(n);
    batch_put(b, TREE_META, &k, v, len);
    lsn l;
    return co_batch_commit(b, at ? at : &l);
}
static err co_get(struct store *s, uint64_t n) {
    uint8_t v[RECORD_BYTES_MAX];
    struct key k = k_of(n);
    return co_tree_get(s, TREE_META, &k, v, sizeof v, NULL);
}
static void co_some_store(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint64_t i = 0; i < 500; i++) assert_int_equal(co_put(b->s, i, 50, NULL), OK);
    co_bed_close(b);
}
static void run(uint64_t size_bytes, void (*script)(struct bed *b)) {
    struct bed b;
    bed_init(&b, 1, size_bytes);
    b.config = (struct store_config){.journal_bytes = MIB(1), .cache_bytes = MIB(1)};
    assert_true(bed_run(&b, script));
    bed_fini(&b);
}
static struct world_disk *raw(struct bed *b) {
    return world_disk_find(b->w, "disk");
}

// ---- superblocks
static void damage_super(struct bed *b, int slot) {
    world_disk_flip(raw(b), (uint64_t)slot * BLOCK_BYTES + 200, 3);
}
static void script_superblocks(struct bed *b) {
    co_some_store(b);
    for (int slot = 0; slot < 2; slot++) {
        damage_super(b, slot);
        assert_int_equal(co_bed_open(b), OK);
        assert_int_equal(co_get(b->s, 77), OK);
        struct super_block sb;
        world_disk_peek(raw(b), (uint64_t)slot * BLOCK_BYTES, &sb, sizeof sb);
        assert_int_equal(super_check(&sb), OK); // mended
        co_bed_close(b);
    }
    damage_super(b, 0);
    damage_super(b, 1);
    assert_int_equal(co_bed_open(b), ERR_CHECKSUM);
    struct store_ident id;
    uint64_t incarnation;
    char why[160];
    assert_int_equal(co_store_peek(b->d, &id, &incarnation, why), ERR_CHECKSUM);
    assert_non_null(strstr(why, "both copies"));
    co_bed_disk_close(b);
}
static void test_superblocks(void **state) {
    run(MIB(16), script_superblocks);
}

static void script_other_formats(struct bed *b) {
    assert_int_equal(co_bed_open(b), ERR_FORMAT);
    co_bed_disk_close(b);
    co_some_store(b);
    struct super_block sb;
    world_disk_peek(raw(b), 0, &sb, sizeof sb);
    sb.version = le32_of(FORMAT_VERSION + 1);
    super_seal(&sb);
    world_disk_poke(raw(b), BLOCK_BYTES, &sb, sizeof sb); // one copy is enough: never converted silently
    assert_int_equal(co_bed_open(b), ERR_VERSION);
    co_bed_disk_close(b);
}
static void test_other_formats(void **state) {
    run(MIB(16), script_other_formats);
}

static void script_too_small(struct bed *b) {
    assert_int_equal(co_bed_disk(b), OK);
    assert_int_equal(co_store_format(b->d, &bed_ident, NULL), ERR_TOOSMALL);
    co_bed_disk_close(b);
}
static void test_too_small(void **state) {
    run(MIB(15), script_too_small);
}

static void script_two_opens(struct bed *b) {
    co_some_store(b);
    assert_int_equal(co_bed_open(b), OK);
    struct disk *second;
    assert_int_equal(disk_open(bed_env(b), &(struct disk_open_args){.path = "disk"}, &second), ERR_LOCKED);
    co_bed_close(b);
}
static void test_two_opens(void **state) {
    run(MIB(16), script_two_opens);
}

// A store made anew over an old one: nothing of the old journal is taken for its own.
static void script_format_again(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(co_put(b->s, 1, 50, NULL), OK);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
    co_store_abandon(b->s);
    struct store_ident other = bed_ident;
    other.store[0] ^= 1;
    assert_int_equal(co_store_format(b->d, &other, &b->config), OK);
    assert_int_equal(co_store_open(b->d, &b->config, NULL, &b->s), OK);
    assert_int_equal(tree_records(b->s, TREE_META), 0);
    co_bed_close(b);
}
static void test_format_again(void **state) {
    run(MIB(16), script_format_again);
}

// ---- damage further down
static void script_damaged_page(struct bed *b) {
    co_some_store(b);
    struct super_block sb;
    world_disk_peek(raw(b), 0, &sb, sizeof sb);
    uint64_t root = le64_get(sb.roots[TREE_META].addr);
    world_disk_flip(raw(b), root * BLOCK_BYTES + 1000, 1);
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(co_get(b->s, 77), ERR_CHECKSUM);
    assert_int_equal(co_put(b->s, 78, 10, NULL), ERR_CHECKSUM);
    uint64_t faults, reached;
    assert_int_equal(co_store_verify(b->s, &(struct store_verify){0}, &faults, &reached), OK);
    assert_true(faults > 0);
    world_disk_flip(raw(b), root * BLOCK_BYTES + 1000, 1);
    assert_int_equal(co_get(b->s, 77), OK);
    co_bed_close(b);
}
static void test_damaged_page(void **state) {
    run(MIB(16), script_damaged_page);
}

static void script_damaged_map(struct bed *b) {
    co_some_store(b);
    struct super_block sb;
    world_disk_peek(raw(b), 0, &sb, sizeof sb);
    world_disk_flip(raw(b), le64_get(sb.map_at[sb.map_copy]) * BLOCK_BYTES + 2000, 1);
    assert_int_equal(co_bed_open(b), ERR_CHECKSUM);
    co_bed_disk_close(b);
}
static void test_damaged_map(void **state) {
    run(MIB(16), script_damaged_map);
}

static void script_blocks(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    struct buf *buf = buf_new(bed_env(b)->mem, 8 * BLOCK_BYTES);
    block_addr at;
    uint32_t got, bad;
    assert_int_equal(co_store_alloc(b->s, 8, false, &at, &got), OK);
    assert_int_equal(got, 8);
    struct block_io io[8];
    for (uint32_t i = 0; i < 8; i++) {
        memset(buf->data + i * BLOCK_BYTES, 'a' + (int)i, BLOCK_BYTES);
        io[i] =
            (struct block_io){{at.n + i}, buf->data + i * BLOCK_BYTES, store_crc_block(buf->data + i * BLOCK_BYTES)};
    }
    world_disk_counts_reset(raw(b));
    assert_int_equal(co_store_write_blocks(b->s, io, 8), OK);
    assert_int_equal(world_disk_counts(raw(b)).writes, 1); // one run, one I/O
    memset(buf->data, 0, 8 * BLOCK_BYTES);
    assert_int_equal(co_store_read_blocks(b->s, io, 8, &bad), OK);
    assert_int_equal(world_disk_counts(raw(b)).reads, 1);
    assert_int_equal(buf->data[7 * BLOCK_BYTES], 'h');
    world_disk_flip(raw(b), (at.n + 3) * BLOCK_BYTES + 5, 1);
    world_disk_break(raw(b), (at.n + 5) * BLOCK_BYTES, BLOCK_BYTES, DISK_READ);
    io[0].at.n = 0;
    assert_int_equal(co_store_read_blocks(b->s, io, 8, &bad), ERR_CHECKSUM);
    assert_int_equal(bad, 1 << 3 | 1 << 5);
    assert_int_equal(buf->data[0], 0);
    assert_int_equal(buf->data[4 * BLOCK_BYTES], 'e');
    uint64_t free = store_blocks_free(b->s);
    store_unalloc(b->s, at, 8);
    assert_int_equal(store_blocks_free(b->s), free + 8);
    buf_unref(buf);
    co_bed_close(b);
}
static void test_blocks(void **state) {
    run(MIB(16), script_blocks);
}

// ---- a full store
static err co_put_with_blocks(struct store *s, uint64_t n, uint32_t *blocks) {
    block_addr at;
    if (!store_reserve(s, 16)) return ERR_NOSPC;
    err e = co_store_alloc(s, 16, false, &at, blocks);
    store_unreserve(s, 16);
    if (e != OK) return e;
    struct batch *b = batch_new(s);
    struct key k = k_of(n);
    le64 v[2] = {le64_of(at.n), le64_of(*blocks)};
    batch_put(b, TREE_META, &k, v, sizeof v);
    batch_alloc(b, at, *blocks);
    lsn l;
    e = co_batch_commit(b, &l);
    if (e != OK) store_unalloc(s, at, *blocks);
    return e;
}
static void co_del_with_blocks(struct store *s, uint64_t n) {
    le64 v[2];
    struct key k = k_of(n);
    assert_int_equal(co_tree_get(s, TREE_META, &k, v, sizeof v, NULL), OK);
    struct batch *b = batch_new(s);
    batch_del(b, TREE_META, &k);
    batch_free(b, (block_addr){le64_get(v[0])}, (uint32_t)le64_get(v[1]));
    lsn l;
    assert_int_equal(co_batch_commit(b, &l), OK);
}
static void refs(void *ctx, enum tree_id t, const struct key *k, const void *val, uint32_t len,
                 void (*emit)(void *arg, block_addr at, uint32_t n), void *arg) {
    le64 v[2];
    memcpy(v, val, sizeof v);
    emit(arg, (block_addr){le64_get(v[0])}, (uint32_t)le64_get(v[1]));
}
static void script_full(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    uint64_t empty = store_blocks_free(b->s), n, held = 0, n2;
    for (int round = 0; round < 4; round++) {
        uint32_t blocks;
        for (n = 0, held = 0; co_put_with_blocks(b->s, n, &blocks) == OK; n++) held += blocks;
        assert_true(store_blocks_free(b->s) < 16);
        assert_true(held + 16 + 64 > empty); // all but some tree pages went to the data
        for (n2 = 0; n2 < n; n2++) co_del_with_blocks(b->s, n2);
        assert_true(store_blocks_free(b->s) >= empty - 2); // at once, though they are not free on disk yet
    }
    uint32_t blocks;
    for (n = 0; co_put_with_blocks(b->s, n, &blocks) == OK; n++) {}
    struct batch *ba = batch_new(b->s); // what is urgent goes on in a full store
    struct key k = k_of(999999);
    le64 none[2] = {{{0}}, {{0}}};
    batch_put(ba, TREE_META, &k, none, sizeof none);
    batch_urgent(ba);
    lsn l;
    assert_int_equal(co_batch_commit(ba, &l), OK);
    co_bed_close(b);
    assert_int_equal(co_bed_open(b), OK);
    uint64_t faults, reached;
    assert_int_equal(co_store_verify(b->s, &(struct store_verify){.refs = refs}, &faults, &reached), OK);
    assert_int_equal(faults, 0);
    for (n2 = 0; n2 < n; n2++) co_del_with_blocks(b->s, n2);
    assert_int_equal(co_put_with_blocks(b->s, 5, &blocks), OK);
    co_bed_close(b);
}
static void test_full(void **state) {
    run(MIB(16), script_full);
}

// ---- a failing device
static void script_flush_fails(struct bed *b) {
    co_some_store(b);
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(co_put(b->s, 1, 10, NULL), OK);
    world_disk_break(raw(b), 0, disk_size_bytes(b->d), DISK_FLUSH);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), ERR_IO);
    world_disk_mend(raw(b));
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), ERR_IO); // for good: a second fsync proves nothing
    assert_int_equal(co_put(b->s, 2, 10, NULL), ERR_IO);
    assert_int_equal(co_get(b->s, 2), OK);
    assert_int_equal(co_store_checkpoint(b->s), ERR_IO);
    co_store_abandon(b->s);
    co_bed_disk_close(b);
}
static void test_flush_fails(void **state) {
    run(MIB(16), script_flush_fails);
}

static void script_journal_fails(struct bed *b) {
    co_some_store(b);
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(co_put(b->s, 1, 10, NULL), OK);
    world_disk_break(raw(b), 0, MIB(2), DISK_WRITE);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), ERR_IO);
    assert_int_equal(co_store_close(b->s), ERR_IO);
    co_bed_disk_close(b);
}
static void test_journal_fails(void **state) {
    run(MIB(16), script_journal_fails);
}

// ---- registers
static void script_registers(struct bed *b) {
    uint8_t v[REGISTER_BYTES_MAX];
    uint32_t len;
    co_bed_format(b);
    assert_int_equal(co_bed_disk(b), OK);
    assert_int_equal(co_register_blocks_read(b->d, v, &len), OK);
    assert_int_equal(len, 0);
    for (int i = 1; i < 5; i++) {
        memset(v, i, sizeof v);
        assert_int_equal(co_register_blocks_write(b->d, v, (uint32_t)(100 * i)), OK);
        assert_int_equal(co_register_blocks_read(b->d, v, &len), OK);
        assert_int_equal(len, 100 * i);
        assert_int_equal(v[len - 1], i);
    }
    uint64_t flushes = world_disk_counts(raw(b)).flushes;
    assert_int_equal(co_register_blocks_read(b->d, v, &len), OK);
    assert_int_equal(world_disk_counts(raw(b)).flushes, flushes + 1); // who wrote it may have died before it was flushed
    struct register_block r[2];
    world_disk_peek(raw(b), 2 * BLOCK_BYTES, r, sizeof r);
    int newest = le64_get(r[1].generation) > le64_get(r[0].generation);
    world_disk_flip(raw(b), (2 + (uint64_t)newest) * BLOCK_BYTES + 50, 2); // as a torn write leaves it
    assert_int_equal(co_register_blocks_read(b->d, v, &len), OK);
    assert_int_equal(len, 300);
    co_bed_disk_close(b);
}
static void test_registers(void **state) {
    run(MIB(16), script_registers);
}

// ---- notes and what is retained
struct noted {
    uint32_t n;
    uint64_t numbers[64];
    lsn at[64];
    uint32_t ops_len[64];
};
static void on_note(void *ctx, enum tree_id t, uint64_t epoch, uint64_t number, const uint8_t *ops, uint32_t ops_len,
                    lsn at) {
    struct noted *n = ctx;
    assert_int_equal(t, TREE_META);
    assert_int_equal(epoch, 4);
    n->numbers[n->n] = number;
    n->ops_len[n->n] = ops_len;
    n->at[n->n++] = at;
}
static void note_it(void *arg, struct batch *b) {
    uint64_t *number = arg;
    batch_note(b, TREE_META, 4, ++*number);
}
static void co_noted(struct bed *b, uint64_t *number, lsn *at) {
    struct batch *ba = batch_new(b->s);
    struct key k = k_of(*number);
    uint8_t v[1700] = {0};
    batch_put(ba, TREE_META, &k, v, sizeof v);
    batch_put(ba, TREE_LOCAL, &k, v, 3);
    batch_on_apply(ba, note_it, number);
    assert_int_equal(co_batch_commit(ba, at), OK);
}
static void script_notes(struct bed *b) {
    struct noted seen = {0};
    uint64_t number = 0, epoch, last;
    lsn at[32];
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (int i = 0; i < 10; i++) co_noted(b, &number, &at[i]);
    store_retain(b->s, at[4]);
    assert_int_equal(co_store_checkpoint(b->s), OK);
    for (int i = 10; i < 15; i++) co_noted(b, &number, &at[i]);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
    b->hooks = (struct store_hooks){on_note, &seen};
    for (int life = 0; life < 3; life++) { // twice after the death of the process, then after a checkpoint
        co_store_abandon(b->s);
        co_bed_disk_close(b);
        seen.n = 0;
        assert_int_equal(co_bed_open(b), OK);
        assert_in_range(seen.n, 10, 12); // all after the fifth, and what else begins in the same sector
        for (uint32_t i = 0; i < seen.n; i++) {
            assert_int_equal(seen.numbers[seen.n - 1 - i], 15 - i);
            assert_int_equal(seen.at[seen.n - 1 - i].n, at[14 - i].n);
            assert_int_equal(seen.ops_len[i], ENTRY_PUT_BYTES + 1700);
        }
        tree_note(b->s, TREE_META, &epoch, &last);
        assert_int_equal(epoch, 4);
        assert_int_equal(last, 15);
        assert_int_equal(tree_records(b->s, TREE_META), 15);
        if (life == 1) assert_int_equal(co_store_checkpoint(b->s), OK);
    }
    store_retain(b->s, (lsn){0});
    co_noted(b, &number, &at[15]);
    co_bed_close(b);
    seen.n = 0;
    assert_int_equal(co_bed_open(b), OK);
    assert_int_equal(seen.n, 0);
    tree_note(b->s, TREE_META, &epoch, &last);
    assert_int_equal(last, 16);
    co_bed_close(b);
}
static void test_notes(void **state) {
    run(MIB(16), script_notes);
}

// ---- many at once
struct many {
    struct bed *b;
    uint32_t left;
    uint64_t next;
};
static void many_task(void *arg) {
    struct many *m = arg;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(co_put(m->b->s, m->next++, 100, NULL), OK);
        assert_int_equal(co_store_sync(m->b->s, store_now(m->b->s)), OK);
    }
    m->left--;
}
static void script_many(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    struct store_stats before, after;
    store_stats(b->s, &before);
    struct many m = {b, 50, 0};
    for (int i = 0; i < 50; i++) env_spawn(bed_env(b), "many", many_task, &m);
    while (m.left > 0) co_sleep_until(bed_env(b), env_now_ns(bed_env(b)) + USEC(100), "many");
    store_stats(b->s, &after);
    assert_in_range(after.journal_flushes - before.journal_flushes, 20, 44); // of 1000 syncs
    struct sync_point p = store_now(b->s);
    assert_true(store_synced(b->s, p));
    store_stats(b->s, &before);
    assert_int_equal(co_store_sync(b->s, p), OK);
    store_stats(b->s, &after);
    assert_int_equal(after.journal_flushes, before.journal_flushes);
    co_bed_close(b);
}
static void test_many(void **state) {
    run(MIB(16), script_many);
}

// ---- what a flush covers: only what was complete when it was submitted
static void sync_task(void *arg) {
    struct many *m = arg;
    assert_int_equal(co_store_sync(m->b->s, store_now(m->b->s)), OK);
    m->left--;
}
static void script_flush_covers(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    struct world_options *o = world_options(b->w);
    o->flush_min_ns = o->flush_max_ns = MSEC(50);
    struct buf *buf = buf_new(bed_env(b)->mem, BLOCK_BYTES);
    struct block_io io = {{0}, buf->data, 0};
    uint32_t got;
    assert_int_equal(co_store_alloc(b->s, 1, false, &io.at, &got), OK);
    struct many m = {b, 1, 0};
    assert_int_equal(co_put(b->s, 1, 100, NULL), OK);
    struct sync_point early = store_now(b->s);
    env_spawn(bed_env(b), "sync", sync_task, &m);
    co_sleep_until(bed_env(b), env_now_ns(bed_env(b)) + MSEC(10), "flush under way");
    assert_int_equal(co_store_write_blocks(b->s, &io, 1), OK); // complete before the flush returns
    struct sync_point write = store_now(b->s);
    assert_int_equal(co_put(b->s, 2, 100, NULL), OK);
    assert_int_equal(co_journal_write(b->s), OK); // so is this
    assert_int_equal(m.left, 1);
    assert_false(store_synced(b->s, early));
    while (m.left > 0) co_sleep_until(bed_env(b), env_now_ns(bed_env(b)) + USEC(50), "flush");
    assert_true(store_synced(b->s, early));
    assert_false(store_synced(b->s, write));
    assert_true(store_durable(b->s).n < store_now(b->s).journal.n);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
    assert_true(store_synced(b->s, store_now(b->s)));
    store_unalloc(b->s, io.at, 1);
    buf_unref(buf);
    co_bed_close(b);
}
static void test_flush_covers(void **state) {
    run(MIB(16), script_flush_covers);
}

// ---- B3: entries up to RECORD_BYTES_ATOMIC lie within one sector
static void script_sectors(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint64_t i = 0; i < 300; i++) {
        struct batch *ba = batch_new(b->s);
        uint8_t v[RECORD_BYTES_MAX] = {0};
        for (uint64_t j = 0; j < 4; j++) {
            struct key k = k_of(i * 4 + j);
            batch_put(ba, TREE_LOCAL, &k, v, (uint32_t)((i * 7919 + j * 104729) % (RECORD_BYTES_ATOMIC + 1)));
        }
        lsn at;
        assert_int_equal(co_batch_commit(ba, &at), OK);
    }
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
    uint64_t entries = 0;
    for (uint64_t seq = 64; seq * JSECTOR_BYTES < store_durable(b->s).n; seq++) {
        uint8_t sector[JSECTOR_BYTES];
        struct sector_view v;
        world_disk_peek(raw(b), b->s->j.at_block * BLOCK_BYTES + seq % b->s->j.sectors * JSECTOR_BYTES, sector,
                        sizeof sector);
        assert_true(sector_parse(sector, b->s->j.seed, &v));
        for (uint32_t at = 0, n; at < v.used; at += n, entries++) { // every sector can be read by itself
            n = v.payload[at] == ENTRY_BEGIN ? ENTRY_BEGIN_BYTES : entry_bytes(v.payload + at, v.used - at);
            assert_true(n > 0 && at + n <= v.used);
        }
    }
    assert_int_equal(entries, 300 * 6);
    co_bed_close(b);
}
static void test_sectors(void **state) {
    run(MIB(16), script_sectors);
}

static void script_garbage_ops(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    struct batch *ba = batch_new(b->s);
    uint8_t junk[64];
    for (uint32_t seed = 1; seed < 5000; seed++) {
        for (uint32_t i = 0; i < sizeof junk; i++)
            junk[i] = (uint8_t)(seed * 2654435761u >> (i % 24)) % (i % 3 ? 255 : 9);
        (void)!batch_add_ops(ba, TREE_WARD, junk, seed % sizeof junk);
    }
    batch_drop(ba);
    ba = batch_new(b->s);
    struct key k = k_of(1);
    batch_put(ba, TREE_META, &k, "abc", 3);
    batch_del(ba, TREE_META, &k);
    batch_put(ba, TREE_META, &k, "xyz", 3);
    uint32_t len;
    const uint8_t *ops = batch_ops(ba, TREE_META, &len);
    struct batch *copy = batch_new(b->s);
    assert_int_equal(batch_add_ops(copy, TREE_WARD, ops, len), OK);
    lsn at;
    assert_int_equal(co_batch_commit(copy, &at), OK);
    batch_drop(ba);
    char v[3];
    assert_int_equal(co_tree_get(b->s, TREE_WARD, &k, v, sizeof v, NULL), OK);
    assert_memory_equal(v, "xyz", 3);
    assert_int_equal(co_tree_get(b->s, TREE_WARD, &k, v, 2, &len), ERR_RANGE);
    assert_int_equal(len, 3);
    co_bed_close(b);
}
static void test_garbage_ops(void **state) {
    run(MIB(16), script_garbage_ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_superblocks), cmocka_unit_test(test_other_formats), cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_two_opens),   cmocka_unit_test(test_format_again),  cmocka_unit_test(test_damaged_page),
        cmocka_unit_test(test_damaged_map), cmocka_unit_test(test_blocks),        cmocka_unit_test(test_full),
        cmocka_unit_test(test_flush_fails), cmocka_unit_test(test_journal_fails), cmocka_unit_test(test_registers),
        cmocka_unit_test(test_notes),       cmocka_unit_test(test_many),          cmocka_unit_test(test_flush_covers),
        cmocka_unit_test(test_sectors),     cmocka_unit_test(test_garbage_ops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
