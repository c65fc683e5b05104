// The journal's own device: its head says whose journal it is, so that a wrong, missing, swapped or cut device is
// refused and never replayed or written over.
//
// Head and superblock carry the journal's random id and the incarnation that opened them last. An opening raises first
// the head, durably, then the superblock: so the head has the superblock's incarnation or, after a power cut between
// the two, the next one. A head that is behind is an older copy of the device; one that is farther ahead was written
// with a newer copy of the store. Either is refused: what the other has seen since would be lost without a word.
//
// Two copies: the one of incarnation n is written at n % 2, flushed, and then the other. A torn write leaves the other.
#include "store/inside.h"
#include <stdio.h>

static uint32_t jhead_crc(const struct journal_head *h) {
    return crc32c(0, &h->version, sizeof *h - offsetof(struct journal_head, version));
}
static err jhead_valid(const struct journal_head *h) {
    if (memcmp(h->magic, JHEAD_MAGIC, sizeof h->magic) != 0) return ERR_FORMAT;
    return le32_get(h->crc) == jhead_crc(h) ? OK : ERR_CHECKSUM;
}
static void jhead_make(struct journal_head *h, const struct super_block *sb, uint64_t incarnation) {
    *h = (struct journal_head){.version = sb->version,
                               .incarnation = le64_of(incarnation),
                               .iom = sb->iom,
                               .array_ioms = sb->array_ioms,
                               .sectors = sb->journal_sectors};
    memcpy(h->magic, JHEAD_MAGIC, sizeof h->magic);
    memcpy(h->cluster, sb->cluster, sizeof h->cluster);
    memcpy(h->store, sb->store, sizeof h->store);
    memcpy(h->journal, sb->journal, sizeof h->journal);
    h->crc = le32_of(jhead_crc(h));
}

// ---- looking
// The newer valid copy.
static err co_jhead_load(struct disk *journal, struct journal_head *h) {
    if (disk_size_bytes(journal) < JHEAD_BLOCKS * BLOCK_BYTES) return ERR_TOOSMALL;
    struct buf *buf = buf_new(journal->env->mem, JHEAD_BLOCKS * BLOCK_BYTES);
    const struct journal_head *copy = (const struct journal_head *)buf->data;
    err e = co_disk_read(journal, 0, buf->data, JHEAD_BLOCKS * BLOCK_BYTES);
    if (e == OK) {
        err a = jhead_valid(&copy[0]), b = jhead_valid(&copy[1]);
        bool second = b == OK && (a != OK || le64_get(copy[1].incarnation) > le64_get(copy[0].incarnation));
        *h = copy[second];
        if (a != OK && b != OK) e = a == ERR_FORMAT && b == ERR_FORMAT ? ERR_FORMAT : ERR_CHECKSUM;
    }
    buf_unref(buf);
    return e;
}
static const char *unreadable(err e) {
    switch (e) {
    case ERR_FORMAT: return "there is no mendfs journal on it; give the file or device that was made for this store";
    case ERR_CHECKSUM: return "both copies of its head are damaged; restore it from a copy, or replace this store";
    case ERR_TOOSMALL: return "it is shorter than the journal that was made on it; put back the whole file or device";
    default: return "it cannot be read: the device reports an error; see to the device";
    }
}
static err other_journal(const struct journal_head *h, const struct super_block *sb, char why[STORE_WHY_BYTES]) {
    if (memcmp(h->cluster, sb->cluster, sizeof h->cluster) != 0)
        snprintf(why, STORE_WHY_BYTES,
                 "it belongs to another cluster; give the file or device that was made for this store");
    else if (h->iom != sb->iom)
        snprintf(why, STORE_WHY_BYTES,
                 "it is the journal of IOM %u, and the store is that of IOM %u; give each its own", h->iom, sb->iom);
    else
        snprintf(why, STORE_WHY_BYTES,
                 "it was made for another store of IOM %u; give the file or device that was made for this store",
                 h->iom);
    return ERR_JOURNAL;
}
static err other_time(uint64_t head, uint64_t super, char why[STORE_WHY_BYTES]) {
    if (head < super)
        snprintf(
            why, STORE_WHY_BYTES,
            "it is an older copy: the store was opened %llu times without it; put back the journal that was last used",
            (unsigned long long)(super - head));
    else
        snprintf(why, STORE_WHY_BYTES,
                 "it is newer than the store, which is an older copy (opened %llu times less); put back the store that "
                 "was last used",
                 (unsigned long long)(head - super));
    return ERR_JOURNAL;
}
err co_jhead_check(struct disk *journal, const struct super_block *sb, char why[STORE_WHY_BYTES]) {
    struct journal_head h;
    why[0] = 0;
    if (SUPER_APART(sb) != (journal != NULL)) {
        snprintf(why, STORE_WHY_BYTES, "%s",
                 journal ? "its journal lies inside it, and another one is given: leave out the journal"
                         : "its journal lies on a device of its own, and none is given: say where, with --journal");
        return ERR_INVAL;
    }
    if (!journal) return OK;
    err e = co_jhead_load(journal, &h);
    if (e == OK && le32_get(h.version) > FORMAT_VERSION) {
        snprintf(why, STORE_WHY_BYTES,
                 "it is of format %u and this program knows formats up to %u: use the program that made it",
                 le32_get(h.version), FORMAT_VERSION);
        return ERR_VERSION;
    }
    if (e == OK &&
        (memcmp(h.store, sb->store, sizeof h.store) != 0 || memcmp(h.journal, sb->journal, sizeof h.journal) != 0))
        return other_journal(&h, sb, why);
    uint64_t head = le64_get(h.incarnation), super = le64_get(sb->incarnation);
    if (e == OK && head != super && head != super + 1) return other_time(head, super, why);
    uint64_t need = JHEAD_BLOCKS * BLOCK_BYTES + le64_get(sb->journal_sectors) * JSECTOR_BYTES;
    if (e == OK && disk_size_bytes(journal) < need) e = ERR_TOOSMALL;
    if (e != OK) snprintf(why, STORE_WHY_BYTES, "%s", unreadable(e));
    return e;
}
err co_store_journal_check(struct disk *d, struct disk *journal, char why[STORE_WHY_BYTES]) {
    struct super_block sb;
    uint32_t slot;
    bool twin;
    err e = co_super_load(d, &sb, &slot, &twin, why);
    return e == OK ? co_jhead_check(journal, &sb, why) : e;
}

// ---- writing
static err co_jhead_write(struct disk *journal, const struct super_block *sb, uint64_t incarnation) {
    struct buf *buf = buf_new(journal->env->mem, BLOCK_BYTES);
    uint64_t first = incarnation % JHEAD_BLOCKS;
    jhead_make((struct journal_head *)buf->data, sb, incarnation);
    err e = co_disk_write(journal, first * BLOCK_BYTES, buf->data, BLOCK_BYTES);
    if (e == OK) e = co_disk_flush(journal);
    if (e == OK) e = co_disk_write(journal, (1 - first) * BLOCK_BYTES, buf->data, BLOCK_BYTES);
    buf_unref(buf);
    return e;
}
// What lay there before is no journal from the first write on.
err co_jhead_format(struct disk *journal, const struct super_block *sb) {
    struct buf *buf = buf_new(journal->env->mem, JHEAD_BLOCKS * BLOCK_BYTES);
    memset(buf->data, 0, JHEAD_BLOCKS * BLOCK_BYTES);
    err e = co_disk_write(journal, 0, buf->data, JHEAD_BLOCKS * BLOCK_BYTES);
    if (e == OK) e = co_disk_flush(journal);
    if (e == OK) e = co_jhead_write(journal, sb, le64_get(sb->incarnation));
    if (e == OK) e = co_disk_flush(journal); // the second copy too
    buf_unref(buf);
    return e;
}
err co_jhead_raise(struct store *s) {
    err e = co_jhead_write(s->jd, &s->sb, s->incarnation);
    return e == OK ? OK : store_fail(s, "the head of the journal cannot be written", e);
}
