// The journal's writing side: batches are appended to sectors in memory; one write and one flush serve all who wait.
//
//   ring of `sectors`; the sector of sequence n lies at n % sectors
//
//      tail_seq           written_seq          head_seq
//     ──┬────────────────────┬────────────────────┬───────────
//       │ on disk            │ in memory, closed  │ being filled
//     ──┴────────────────────┴────────────────────┴───────────
//       free again after a checkpoint, unless retained
//
// A write-out closes the unit of 4 KiB that is being filled (the rest of it is empty sectors), so what is durable is
// never written again before the ring comes round, and sequences have no holes. lsn = sequence * 1024 + offset behind
// the batch's last byte. `end` >= `written` (completed) >= `durable` (flushed).
#include "base/mutant.h"
#include "store/inside.h"

#define JBUF_SECTORS 64u // of one buffer: 64 KiB of the ring
#define PENDING_SECTORS_MAX 4096u

struct jbuf {
    struct list node;
    struct buf *buf;
    uint64_t base_seq; // a multiple of JBUF_SECTORS: a buffer never lies over the ring's end
};

void journal_init(struct store *s, uint64_t first_seq, uint64_t resumes, uint64_t incarnation) {
    struct journal *j = &s->j;
    ASSERT(first_seq % JUNIT_SECTORS == 0 && j->runs_len < JOURNAL_RUNS_MAX);
    j->head_seq = j->written_seq = first_seq;
    j->used = 0;
    j->first = JSECTOR_FIRST_NONE;
    j->resumes = JSECTOR_START | resumes;
    j->end = j->written = j->durable = j->want = (lsn){first_seq * JSECTOR_BYTES};
    j->runs[j->runs_len++] = (struct journal_run){incarnation, first_seq};
}
void journal_fini(struct store *s) {
    for (struct list *n; (n = list_pop_front(&s->j.bufs)) != NULL;) {
        struct jbuf *b = LIST_ENTRY(n, struct jbuf, node);
        buf_unref(b->buf);
        mem_free(s->mem, b);
    }
}
uint64_t journal_incarnation_at(const struct journal *j, uint64_t seq) {
    uint64_t incarnation = 0;
    for (uint32_t i = 0; i < j->runs_len && j->runs[i].from_seq <= seq; i++) incarnation = j->runs[i].incarnation;
    return incarnation;
}

// ---- appending
static struct journal_sector *head_sector(struct store *s) {
    struct journal *j = &s->j;
    uint64_t base = j->head_seq / JBUF_SECTORS * JBUF_SECTORS;
    struct jbuf *b = list_empty(&j->bufs) ? NULL : LIST_ENTRY(j->bufs.prev, struct jbuf, node);
    if (b == NULL || b->base_seq != base) {
        b = mem_alloc(s->mem, sizeof *b);
        b->buf = buf_new(s->mem, JBUF_SECTORS * JSECTOR_BYTES);
        b->base_seq = base;
        list_push_back(&j->bufs, &b->node);
    }
    return (struct journal_sector *)b->buf->data + (j->head_seq - base);
}
static void close_sector(struct store *s) {
    struct journal *j = &s->j;
    struct journal_sector *h = head_sector(s);
    h->used = le16_of((uint16_t)j->used);
    h->first = le16_of(j->first);
    h->sequence = le64_of(j->head_seq);
    h->incarnation = le64_of(s->incarnation);
    h->resumes = le64_of(j->resumes);
    memset(h->payload + j->used, 0, JSECTOR_PAYLOAD - j->used);
    h->crc = le32_of(crc32c(j->seed, &h->used, JSECTOR_BYTES - 4));
    j->head_seq++;
    j->used = 0;
    j->first = JSECTOR_FIRST_NONE;
    j->resumes = 0;
}
void journal_close_unit(struct store *s) {
    while (s->j.used > 0 || s->j.head_seq % JUNIT_SECTORS != 0) close_sector(s);
}
static void append(struct store *s, const uint8_t *p, uint32_t len) {
    memcpy(head_sector(s)->payload + s->j.used, p, len);
    s->j.used += len;
}
static uint32_t room(const struct journal *j) {
    return JSECTOR_PAYLOAD - j->used;
}

uint32_t entry_bytes(const uint8_t *p, uint32_t len_bytes) {
    uint32_t n = 0;
    switch (p[0]) {
    case ENTRY_PUT:
        if (len_bytes < ENTRY_PUT_BYTES) return 0;
        n = ENTRY_PUT_BYTES + (p[1 + KEY_BYTES] | (uint32_t)p[2 + KEY_BYTES] << 8);
        if (n > ENTRY_PUT_BYTES + RECORD_BYTES_MAX) return 0;
        break;
    case ENTRY_DEL: n = ENTRY_DEL_BYTES; break;
    case ENTRY_ALLOC:
    case ENTRY_FREE: n = ENTRY_BLOCKS_BYTES; break;
    case ENTRY_NOTE: n = ENTRY_NOTE_BYTES; break;
    case ENTRY_TREE: n = ENTRY_TREE_BYTES; break;
    }
    return n <= len_bytes ? n : 0;
}
void journal_begin(struct store *s, uint32_t len_bytes) {
    if (room(&s->j) < ENTRY_BEGIN_BYTES) close_sector(s);
    if (s->j.first == JSECTOR_FIRST_NONE) s->j.first = (uint16_t)s->j.used;
    le32 len = le32_of(len_bytes);
    uint8_t b[ENTRY_BEGIN_BYTES] = {ENTRY_BEGIN, len.b[0], len.b[1], len.b[2], len.b[3]};
    append(s, b, sizeof b);
}
void journal_entries(struct store *s, const uint8_t *p, uint32_t len) {
    if (len == 0) return;
    if (len <= room(&s->j)) { // the common case, all at once
        append(s, p, len);
        return;
    }
    while (len > 0) {
        uint32_t n = entry_bytes(p, len);
        ASSERT(n > 0);
        len -= n;
        if (n <= JSECTOR_PAYLOAD && n > room(&s->j)) close_sector(s); // an entry that fits one sector stays in one
        while (n > 0) {
            if (room(&s->j) == 0) close_sector(s);
            uint32_t part = MIN(n, room(&s->j));
            append(s, p, part);
            p += part;
            n -= part;
        }
    }
}
lsn journal_end(struct store *s) {
    struct journal *j = &s->j;
    j->end.n = j->head_seq * JSECTOR_BYTES + offsetof(struct journal_sector, payload) + j->used;
    return j->end;
}
// Two neighbouring sectors of a batch hold more than one payload together, or an entry would have gone into the first.
bool journal_room(const struct store *s, uint64_t bytes, bool *ring_full) {
    const struct journal *j = &s->j;
    uint64_t need = 2 * (bytes / JSECTOR_PAYLOAD + 1) + 3 * JUNIT_SECTORS;
    *ring_full = j->head_seq + need > j->tail_seq + j->sectors;
    return !*ring_full && j->head_seq + need <= j->written_seq + PENDING_SECTORS_MAX;
}

// ---- writing out
static void drop_written(struct store *s) {
    struct journal *j = &s->j;
    while (!list_empty(&j->bufs)) {
        struct jbuf *b = LIST_ENTRY(j->bufs.next, struct jbuf, node);
        if (b->base_seq + JBUF_SECTORS > j->written_seq) return;
        list_remove(&b->node);
        buf_unref(b->buf);
        mem_free(s->mem, b);
    }
}
static err co_write_sectors(struct store *s, uint64_t to_seq) {
    struct journal *j = &s->j;
    struct io_set set;
    io_set_init(&set, s, s->jd);
    LIST_FOR(&j->bufs, n) {
        struct jbuf *b = LIST_ENTRY(n, struct jbuf, node);
        uint64_t from = MAX(b->base_seq, j->written_seq), to = MIN(b->base_seq + JBUF_SECTORS, to_seq);
        if (from >= to) continue;
        s->stats.journal_bytes_written += (to - from) * JSECTOR_BYTES;
        io_set_add(&set, DISK_WRITE, j->at_block + from % j->sectors / JUNIT_SECTORS,
                   b->buf->data + (from - b->base_seq) * JSECTOR_BYTES, (uint32_t)((to - from) / JUNIT_SECTORS));
    }
    return co_io_set_wait(&set, "store: journal write");
}
err co_journal_write(struct store *s) {
    struct journal *j = &s->j;
    lsn target = j->end;
    while (j->written.n < target.n) {
        if (s->failed != OK) return s->failed;
        if (j->writing) {
            co_wait(s->e, &j->q, "store: journal being written");
            continue;
        }
        j->writing = true;
        journal_close_unit(s);
        uint64_t to_seq = j->head_seq;
        lsn upto = j->end;
        err e = co_write_sectors(s, to_seq);
        j->writing = false;
        waitq_wake_all(s->e, &j->q);
        if (e != OK) return store_fail(s, "the journal cannot be written", e);
        j->written_seq = to_seq;
        j->written = upto;
        drop_written(s);
    }
    return s->failed;
}

// ---- flush and sync
// A flush covers what had been completed when it was submitted. It is never tried a second time: the kernel may have
// dropped what it could not write.
//
// A flush that makes a batch durable also flushes every block written before that batch was applied, as one device
// would: so the journal's device is flushed alone only while no such block is volatile.
err co_flush(struct store *s, enum flush what) {
    if (s->failed != OK) return s->failed;
    lsn covers = s->j.written;
    uint64_t writes = s->writes_done;
    bool all = what == FLUSH_ALL || s->jd == s->d;
    bool journal = all || covers.n > s->j.durable.n, blocks = all || writes > s->writes_flushed;
    if (!journal && !blocks) return OK; // another flush was quicker
    bool needed = (journal && !s->jd->power_protected) || (blocks && !s->d->power_protected);
    s->stats.journal_flushes += needed;
    if (mutant(MUTANT_APART) && journal && !all) blocks = false; // and they count as flushed
    err e = blocks ? co_disk_flush_both(s->d, journal ? s->jd : NULL) : co_disk_flush(s->jd);
    if (s->failed != OK) return s->failed;
    if (e != OK) return store_fail(s, "the device cannot be flushed", e);
    if (covers.n > s->j.durable.n) s->j.durable = covers;
    s->writes_flushed = MAX(s->writes_flushed, writes);
    space_durable(&s->space, s->j.durable);
    return OK;
}
struct sync_point store_now(const struct store *s) {
    return (struct sync_point){s->j.end, s->writes_done};
}
lsn store_durable(const struct store *s) {
    return s->j.durable;
}
bool store_synced(const struct store *s, struct sync_point p) {
    return p.journal.n <= s->j.durable.n && p.writes <= s->writes_flushed;
}
// The first who finds nobody at it does the work for all who wait by then; those who come meanwhile gather for the
// next.
err co_store_sync(struct store *s, struct sync_point p) {
    ASSERT(p.journal.n <= s->j.end.n && p.writes <= s->writes_done);
    if (p.journal.n > s->j.want.n) s->j.want = p.journal;
    while (!store_synced(s, p)) {
        if (s->failed != OK) return s->failed;
        if (s->syncing) {
            co_wait(s->e, &s->sync_q, "store: sync");
            continue;
        }
        s->syncing = true;
        err e = s->j.want.n > s->j.written.n ? co_journal_write(s) : OK;
        if (e == OK) e = co_flush(s, FLUSH_COUNTED);
        s->syncing = false;
        waitq_wake_all(s->e, &s->sync_q);
        if (e != OK) return e;
    }
    return OK;
}
void store_retain(struct store *s, lsn from) {
    s->j.retain_seq = from.n == 0 ? UINT64_MAX : from.n / JSECTOR_BYTES;
}
