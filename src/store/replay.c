// Reading the journal back: which sectors are the journal, and what the batches in them say.
//
// From the retained position on, a sector continues the one before it if its checksum is right, its sequence is the
// next and it is of the same incarnation. Where the chain breaks at sequence E, the journal goes on at the next unit's
// begin if there lies the first sector of a *later* incarnation that says it resumes E (its writer had read up to E
// too); what lies between, and a batch begun and not ended, is the torn tail of a flush that never returned. Otherwise
// E is the end. So sectors of an incarnation that lost its place are never taken for a continuation, whatever survived
// of them: they are of a lower incarnation than the one that goes on at E.
//
// Batches that begin before replay_seq are in the trees already; only their notes are reported.
#include "base/mutant.h"
#include "store/inside.h"

#define PIECE_SECTORS 256u

struct replay {
    struct store *s;
    const struct store_hooks *hooks;
    uint64_t replay_seq;
    struct buf *buf; // sectors [piece, piece + piece_len) of the ring
    uint64_t piece, piece_len;
    uint64_t at, incarnation; // the sequence expected next, and whose
    bool initial;             // the first sector of the chain
    uint8_t *batch;           // being put together
    uint32_t got, want;       // bytes; want 0: between batches
    uint64_t begin_seq;
    uint64_t applied; // batches
};

bool sector_parse(const uint8_t *p, uint32_t seed, struct sector_view *v) {
    const struct journal_sector *h = (const struct journal_sector *)p;
    if (le32_get(h->crc) != crc32c(seed, &h->used, JSECTOR_BYTES - 4)) return false;
    *v = (struct sector_view){le64_get(h->sequence), le64_get(h->incarnation), le64_get(h->resumes),
                              le16_get(h->used),     le16_get(h->first),       h->payload};
    return v->used <= JSECTOR_PAYLOAD && (v->first == JSECTOR_FIRST_NONE || v->first <= v->used);
}

// ---- what a batch says
static err batch_parse(struct batch *b, uint8_t *p, uint32_t len) {
    struct opvec *ops = NULL;
    for (uint32_t n; len > 0; p += n, len -= n) {
        n = entry_bytes(p, len);
        if (n == 0) return ERR_FORMAT;
        struct opvec *to = &b->blocks;
        switch ((enum entry)p[0]) {
        case ENTRY_NOTE: {
            if (p[1] >= TREE_COUNT) return ERR_FORMAT;
            le64 v[2];
            memcpy(v, p + 2, sizeof v);
            b->note[p[1]] = (struct batch_note){le64_get(v[0]), le64_get(v[1]), true};
            continue;
        }
        case ENTRY_TREE:
            if (p[1] >= TREE_COUNT) return ERR_FORMAT;
            ops = &b->ops[p[1]];
            continue;
        case ENTRY_PUT:
        case ENTRY_DEL:
            if (ops == NULL) return ERR_FORMAT;
            to = ops;
            break;
        case ENTRY_ALLOC:
        case ENTRY_FREE: break;
        case ENTRY_BEGIN: return ERR_FORMAT;
        }
        if (to->p == NULL) to->p = p;
        if (to->p + to->len != p) return ERR_FORMAT; // a section is in one piece
        to->len += n;
    }
    return OK;
}
static err co_batch_replay(struct replay *r, lsn at) {
    struct store *s = r->s;
    struct batch b = {.s = s};
    err e = batch_parse(&b, r->batch, r->want);
    if (e != OK) return e;
    for (int t = 0; t < TREE_COUNT && r->hooks && r->hooks->replay_note; t++)
        if (b.note[t].set)
            r->hooks->replay_note(r->hooks->ctx, (enum tree_id)t, b.note[t].epoch, b.note[t].number, b.ops[t].p,
                                  b.ops[t].len, at);
    if (r->begin_seq < r->replay_seq) return OK;
    uint64_t need;
    e = co_batch_pages(&b, &need);
    if (e == OK) {
        batch_apply_trees(&b);
        r->applied++;
        if (!batch_apply_blocks(&b, at)) e = ERR_FORMAT;
    }
    for (uint32_t i = 0; i < b.pins_len; i++) tcache_unpin(s, b.pins[i]);
    mem_free(s->mem, b.pins);
    return e;
}

// ---- sectors
static err co_feed(struct replay *r, const struct sector_view *v) {
    uint32_t pos = r->want > 0 ? 0 : v->first == JSECTOR_FIRST_NONE ? v->used : v->first;
    while (pos < v->used) {
        const uint8_t *p = v->payload + pos;
        if (r->want == 0) {
            if (v->used - pos < ENTRY_BEGIN_BYTES || p[0] != ENTRY_BEGIN) return ERR_FORMAT;
            r->want = p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 24;
            if (r->want == 0 || r->want > BATCH_BYTES_MAX) return ERR_FORMAT;
            r->got = 0;
            r->begin_seq = v->sequence;
            pos += ENTRY_BEGIN_BYTES;
            continue;
        }
        uint32_t n = MIN(r->want - r->got, v->used - pos);
        memcpy(r->batch + r->got, p, n);
        r->got += n;
        pos += n;
        if (r->got < r->want) continue;
        err e = co_batch_replay(r, (lsn){v->sequence * JSECTOR_BYTES + offsetof(struct journal_sector, payload) + pos});
        if (e != OK) return e;
        r->want = 0;
    }
    return OK;
}
static err co_sector(struct replay *r, uint64_t seq, const uint8_t **p) {
    struct journal *j = &r->s->j;
    if (seq < r->piece || seq >= r->piece + r->piece_len) {
        uint64_t in_ring = seq / JUNIT_SECTORS * JUNIT_SECTORS % j->sectors;
        r->piece = seq / JUNIT_SECTORS * JUNIT_SECTORS;
        r->piece_len = MIN(PIECE_SECTORS, j->sectors - in_ring);
        err e = co_disk_read(r->s->jd, j->at_block * BLOCK_BYTES + in_ring * JSECTOR_BYTES, r->buf->data,
                             (uint32_t)r->piece_len * JSECTOR_BYTES);
        if (e != OK) return r->piece_len = 0, e;
    }
    *p = r->buf->data + (seq - r->piece) * JSECTOR_BYTES;
    return OK;
}
// May the sector v, of the sequence that r expects or of the begin of the next unit, be the next one?
static bool follows(const struct replay *r, uint64_t seq, const struct sector_view *v) {
    if (v->sequence != seq) return false;
    bool start = v->resumes & JSECTOR_START;
    if (start && v->incarnation > r->incarnation)
        return seq % JUNIT_SECTORS == 0 && (v->resumes & ~JSECTOR_START) == r->at;
    if (start) return r->initial && seq == r->at && v->incarnation == r->incarnation;
    return seq == r->at && (v->incarnation == r->incarnation || mutant(MUTANT_TORN));
}
static void run_begins(struct journal *j, uint64_t incarnation, uint64_t seq) {
    if (j->runs_len == JOURNAL_RUNS_MAX - 1) // one place stays for this opening; the oldest can no longer be retained
        memmove(&j->runs[0], &j->runs[1], --j->runs_len * sizeof j->runs[0]);
    j->runs[j->runs_len++] = (struct journal_run){incarnation, seq};
}
// Takes the next sector, if there is one: *more says so.
static err co_step(struct replay *r, bool *more) {
    uint64_t unit = ROUND_UP(r->at, JUNIT_SECTORS);
    struct sector_view v;
    for (uint64_t seq = r->at;; seq = unit) {
        const uint8_t *p;
        err e = co_sector(r, seq, &p);
        if (e != OK) return e;
        *more = sector_parse(p, r->s->j.seed, &v) && follows(r, seq, &v);
        if (*more) break;
        if (seq == unit) return OK;
    }
    if (v.resumes != 0) r->want = 0; // a batch that was begun was never ended
    if (v.resumes != 0 || r->initial) run_begins(&r->s->j, v.incarnation, v.sequence);
    r->initial = false;
    r->incarnation = v.incarnation;
    r->at = v.sequence + 1;
    return co_feed(r, &v);
}
static err co_chain(struct replay *r, uint64_t from, uint64_t incarnation) {
    uint64_t end = from + r->s->j.sectors;
    r->at = from;
    r->incarnation = incarnation;
    r->initial = true;
    r->want = 0;
    for (bool more = true; more && r->at < end;) {
        err e = co_step(r, &more);
        if (e != OK) return e;
    }
    return OK;
}
err co_replay(struct store *s, const struct super_block *sb, const struct store_hooks *h, uint64_t *end_seq) {
    struct replay r = {.s = s, .hooks = h, .replay_seq = le64_get(sb->replay_seq)};
    r.buf = buf_new(s->mem, PIECE_SECTORS * JSECTOR_BYTES);
    r.batch = mem_alloc(s->mem, BATCH_BYTES_MAX);
    s->space.replaying = true;
    err e = co_chain(&r, le64_get(sb->retain_seq), le64_get(sb->retain_incarnation));
    if (e == OK && r.at < r.replay_seq) {
        LOG(s->e, TRACE_WARN, "store: the retained journal is damaged at %llu and is not kept",
            (unsigned long long)r.at);
        s->j.runs_len = 0;
        s->j.tail_seq = r.replay_seq;
        e = co_chain(&r, r.replay_seq, le64_get(sb->replay_incarnation));
    }
    s->space.replaying = false;
    *end_seq = r.at;
    mem_free(s->mem, r.batch);
    buf_unref(r.buf);
    if (e != OK)
        LOG(s->e, TRACE_ERROR, "store: the journal cannot be replayed at %llu: %s", (unsigned long long)r.at,
            err_text(e));
    else
        LOG(s->e, TRACE_INFO, "store: %llu batches replayed", (unsigned long long)r.applied);
    return e;
}
