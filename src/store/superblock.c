// The superblock: two copies of the root of everything. Making a store, looking at one.
//
// A new superblock is written first over the copy that is *not* known to be the newest, flushed - from then on it is
// the truth - and then over the other as well, so that later damage to either is survived. The second write need not be
// flushed: should a power cut tear it, the first copy is good and newer. Never are both in flight.
//
//   both copies good, one generation   the usual state
//   good and older good                cut between the two writes: the newer counts
//   good and damaged                   cut in a write, or bit rot: the good one counts, the other is mended at open
//   both damaged                       ERR_CHECKSUM; neither ever was a superblock: ERR_FORMAT
#include "store/inside.h"
#include <stdio.h>

static uint32_t super_crc(const struct super_block *sb) {
    static const le32 zero;
    uint32_t crc = crc32c(0, sb, offsetof(struct super_block, crc));
    crc = crc32c(crc, &zero, sizeof zero);
    size_t after = offsetof(struct super_block, crc) + sizeof sb->crc;
    return crc32c(crc, (const uint8_t *)sb + after, sizeof *sb - after);
}
void super_seal(struct super_block *sb) {
    sb->crc = le32_of(super_crc(sb));
}
uint32_t super_seed(const struct super_block *sb) {
    uint32_t seed = crc32c(0, sb->store, sizeof sb->store);
    return SUPER_APART(sb) ? crc32c(seed, sb->journal, sizeof sb->journal) : seed;
}

static bool geometry_fits(const struct super_block *sb) {
    uint64_t blocks = le64_get(sb->blocks), map = le64_get(sb->map_blocks), sectors = le64_get(sb->journal_sectors);
    uint64_t data = le64_get(sb->data_at), map_end = 4 + 2 * map;
    bool apart = SUPER_APART(sb);
    return blocks < UINT64_C(1) << 47 && map < blocks && sectors % JUNIT_SECTORS == 0 &&
           sectors >= KIB(64) / JSECTOR_BYTES && sectors / JUNIT_SECTORS < blocks && le64_get(sb->map_at[0]) == 4 &&
           le64_get(sb->map_at[1]) == 4 + map && le64_get(sb->journal_at) == (apart ? JHEAD_BLOCKS : map_end) &&
           data == map_end + (apart ? 0 : sectors / JUNIT_SECTORS) && data < blocks &&
           is_zero(sb->journal, 16) != apart && map == (blocks - data + MAP_BITS - 1) / MAP_BITS && sb->map_copy < 2;
}
static bool roots_fit(const struct super_block *sb) {
    for (int t = 0; t < TREE_COUNT; t++) {
        if (sb->roots[t].levels > TREE_LEVELS_MAX || le64_get(sb->roots[t].addr) >= le64_get(sb->blocks)) return false;
        if ((sb->roots[t].levels == 0) != (le64_get(sb->roots[t].addr) == 0)) return false;
    }
    return true;
}
err super_check(const struct super_block *sb) {
    if (memcmp(sb->magic, SUPER_MAGIC, sizeof sb->magic) != 0) return ERR_FORMAT;
    if (le32_get(sb->crc) != super_crc(sb)) return ERR_CHECKSUM;
    uint32_t version = le32_get(sb->version);
    if (version != FORMAT_JOURNAL_INSIDE && version != FORMAT_JOURNAL_APART) return ERR_VERSION;
    return geometry_fits(sb) && roots_fit(sb) ? OK : ERR_CHECKSUM;
}

// ---- loading
static err no_super(err a, err b, const struct super_block *v, char why[160]) {
    if (a == ERR_VERSION || b == ERR_VERSION) {
        snprintf(why, 160,
                 "the store is of format %u and this program knows formats up to %u: use the program that made it",
                 le32_get(v->version), FORMAT_VERSION);
        return ERR_VERSION;
    }
    if (a == ERR_FORMAT && b == ERR_FORMAT) {
        snprintf(why, 160, "there is no mendfs store here: neither copy of the superblock begins with its mark");
        return ERR_FORMAT;
    }
    snprintf(why, 160, "both copies of the superblock are damaged: restore block 0 or replace this store");
    return ERR_CHECKSUM;
}
err co_super_load(struct disk *d, struct super_block *sb, uint32_t *slot, bool *twin, char why[160]) {
    why[0] = 0;
    struct buf *buf = buf_new(d->env->mem, 2 * BLOCK_BYTES);
    const struct super_block *copy = (const struct super_block *)buf->data;
    err e = co_disk_read(d, 0, buf->data, 2 * BLOCK_BYTES);
    if (e == OK) {
        err a = super_check(&copy[0]), b = super_check(&copy[1]);
        *twin = a == OK && b == OK && le64_get(copy[0].generation) == le64_get(copy[1].generation);
        *slot = b == OK && (a != OK || le64_get(copy[1].generation) > le64_get(copy[0].generation));
        *sb = copy[*slot];
        if (a == ERR_VERSION || b == ERR_VERSION || (a != OK && b != OK))
            e = no_super(a, b, a == ERR_VERSION ? &copy[0] : &copy[1], why);
        else if (le64_get(sb->blocks) * BLOCK_BYTES > disk_size_bytes(d)) {
            snprintf(why, 160, "the device is shorter than the store that was made on it");
            e = ERR_TOOSMALL;
        }
    } else {
        snprintf(why, 160, "the superblock cannot be read: the device reports an error");
    }
    buf_unref(buf);
    return e;
}
err co_store_peek(struct disk *d, struct store_ident *id, uint64_t *incarnation, char why[160]) {
    struct super_block sb;
    uint32_t slot;
    bool twin;
    err e = co_super_load(d, &sb, &slot, &twin, why);
    if (e != OK) return e;
    memcpy(id->cluster, sb.cluster, 16);
    memcpy(id->store, sb.store, 16);
    id->iom = sb.iom;
    id->array_ioms = sb.array_ioms;
    *incarnation = le64_get(sb.incarnation);
    return OK;
}

// ---- writing
err co_super_write(struct store *s, struct super_block *sb) {
    uint32_t first = 1 - s->sb_slot;
    struct buf *buf = buf_new(s->mem, BLOCK_BYTES);
    super_seal(sb);
    memcpy(buf->data, sb, BLOCK_BYTES);
    err e = co_disk_write(s->d, (uint64_t)first * BLOCK_BYTES, buf->data, BLOCK_BYTES);
    if (e == OK) e = co_flush(s, FLUSH_ALL);
    if (e == OK) {
        s->sb = *sb;
        s->sb_slot = first;
        e = co_disk_write(s->d, (uint64_t)(1 - first) * BLOCK_BYTES, buf->data, BLOCK_BYTES);
    }
    buf_unref(buf);
    return e == OK ? OK : store_fail(s, "the superblock cannot be written", e);
}

// ---- making a store
#define FIRST_SEQ 64u // any unit's begin but 0: position 0 is "nothing"

static void lay_out(struct super_block *sb, uint64_t blocks, uint64_t ring_blocks) {
    uint64_t map = 1, journal_blocks = SUPER_APART(sb) ? 0 : ring_blocks;
    while (map * MAP_BITS + 2 * map < blocks - 4 - journal_blocks) map++;
    uint64_t data = 4 + 2 * map + journal_blocks;
    map = (blocks - data + MAP_BITS - 1) / MAP_BITS;
    sb->blocks = le64_of(blocks);
    sb->map_at[0] = le64_of(4);
    sb->map_at[1] = le64_of(4 + map);
    sb->map_blocks = le64_of(map);
    sb->journal_at = le64_of(SUPER_APART(sb) ? JHEAD_BLOCKS : 4 + 2 * map);
    sb->journal_sectors = le64_of(ring_blocks * JUNIT_SECTORS);
    sb->data_at = le64_of(4 + 2 * map + journal_blocks);
}
static uint64_t journal_blocks_for(uint64_t store_bytes, uint64_t wanted_bytes) {
    uint64_t bytes = wanted_bytes ? wanted_bytes : MIB(64);
    bytes = MAX(MIN(bytes, store_bytes / 8), MIB(1));
    return bytes / KIB(64) * (KIB(64) / BLOCK_BYTES);
}
uint64_t store_journal_device_bytes(uint64_t store_bytes, uint64_t journal_bytes) {
    return (JHEAD_BLOCKS + journal_blocks_for(store_bytes, journal_bytes)) * BLOCK_BYTES;
}
// All map blocks of copy A say "free".
static err co_format_map(struct disk *d, struct super_block *sb, struct buf *buf) {
    uint32_t crc_of_crcs = 0, seed = super_seed(sb);
    uint64_t n = le64_get(sb->map_blocks), at = le64_get(sb->map_at[0]);
    struct space none;
    space_init(&none, d->env->mem, le64_get(sb->data_at), le64_get(sb->blocks) - le64_get(sb->data_at));
    err e = OK;
    for (uint64_t g = 0; g < n && e == OK;) {
        uint32_t k = 0;
        for (; k < 64 && g + k < n; k++)
            space_encode_group(&none, (uint32_t)(g + k), 0, 1, seed, (struct map_block *)(buf->data + k * BLOCK_BYTES));
        e = co_disk_write(d, (at + g) * BLOCK_BYTES, buf->data, k * BLOCK_BYTES);
        g += k;
    }
    crc_of_crcs = space_map_crc(&none, 0);
    space_fini(&none, d->env->mem);
    sb->map_crc = le32_of(crc_of_crcs);
    return e;
}
static void super_make(struct super_block *sb, const struct store_ident *id, uint64_t blocks, uint64_t ring_blocks,
                       struct disk *journal) {
    *sb = (struct super_block){.version = le32_of(journal ? FORMAT_JOURNAL_APART : FORMAT_JOURNAL_INSIDE),
                               .generation = le64_of(1),
                               .clean = 1};
    for (size_t i = 0; journal && i < sizeof sb->journal; i += 8) {
        le64 part = le64_of(env_random(journal->env) | 1); // never all zero
        memcpy(sb->journal + i, &part, sizeof part);
    }
    memcpy(sb->magic, SUPER_MAGIC, sizeof sb->magic);
    memcpy(sb->cluster, id->cluster, 16);
    memcpy(sb->store, id->store, 16);
    sb->iom = id->iom;
    sb->array_ioms = id->array_ioms;
    sb->replay_seq = sb->retain_seq = le64_of(FIRST_SEQ);
    lay_out(sb, blocks, ring_blocks);
}
// The old superblock goes first and the new one comes last, so that half a store is no store.
static err co_format_write(struct disk *d, struct disk *journal, struct super_block *sb, struct buf *buf) {
    memset(buf->data, 0, 4 * BLOCK_BYTES); // superblocks and register blocks
    err e = co_disk_write(d, 0, buf->data, 4 * BLOCK_BYTES);
    if (e == OK) e = co_disk_flush(d);
    if (e == OK && journal) e = co_jhead_format(journal, sb);
    if (e == OK) e = co_format_map(d, sb, buf);
    if (e == OK) e = co_disk_flush(d);
    super_seal(sb);
    for (uint32_t slot = 0; slot < 2 && e == OK; slot++) {
        memcpy(buf->data, sb, BLOCK_BYTES);
        e = co_disk_write(d, slot * BLOCK_BYTES, buf->data, BLOCK_BYTES);
        if (e == OK) e = co_disk_flush(d);
    }
    return e;
}
static uint64_t ring_blocks_of(uint64_t bytes, const struct store_config *c) {
    uint64_t wanted = journal_blocks_for(bytes, c ? c->journal_bytes : 0);
    if (!c || !c->journal) return wanted;
    uint64_t have = disk_size_bytes(c->journal) / BLOCK_BYTES; // a device may be of any size
    return MIN(wanted,
               have < JHEAD_BLOCKS ? 0 : (have - JHEAD_BLOCKS) / (KIB(64) / BLOCK_BYTES) * (KIB(64) / BLOCK_BYTES));
}
err co_store_format(struct disk *d, const struct store_ident *id, const struct store_config *c) {
    uint64_t bytes = disk_size_bytes(d) / BLOCK_BYTES * BLOCK_BYTES, ring_blocks = ring_blocks_of(bytes, c);
    if (bytes < STORE_BYTES_MIN || ring_blocks < MIB(1) / BLOCK_BYTES) return ERR_TOOSMALL;
    struct super_block sb;
    struct disk *journal = c ? c->journal : NULL;
    super_make(&sb, id, bytes / BLOCK_BYTES, ring_blocks, journal);
    sb.incarnation = le64_of(c ? c->incarnation : 0);
    struct buf *buf = buf_new(d->env->mem, 64 * BLOCK_BYTES);
    err e = co_format_write(d, journal, &sb, buf);
    buf_unref(buf);
    return e;
}
