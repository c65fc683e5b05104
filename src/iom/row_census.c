// The census: what a store that was replaced lacks. (Requirement C8; DESIGN: a replaced disk is the same with every chunk to be built)
//
// Such a store (replace.c) is *blank*: it has no records, and no record does not mean that nothing was ever written, but that nothing is known. So it serves at
// once: what it is asked for it asks about, as a stand-in does (row_missing.c). Beside that it goes through the records of all others:
//
//     other j        CHUNKs in the order of their keys ── MSG_CENSUS, a page ──>  those in which we have a part
//     here           a segment without a record ── asks for its versions ──>      a CHUNK: all versions, no place
//
// and when all is told, durably, no record means again that nothing was written, and the rebuild goes on as after any return (row_build.c).
//
// Why nothing is left out: of a row whose block is ours, P includes a version of it and so has a CHUNK; of a row whose parity is ours, each D that was ever
// written has one. What is written after its owner's page was read passes through here, and gets its record by being settled. The others are all whole: while we
// are not, nobody else may be missing.
// Why nothing is too much: a segment that is discarded here while we look at it is dead before its records go (row_discard.c waits for `putting`), and a deleted
// object is remembered until the census is over (row.c), whatever a page read earlier says of it.
//
// A census that is cut short begins again: the mark of a blank store is the note of TREE_LOCAL, and goes last.
//
//   note of TREE_LOCAL   0, 0    no replacement
//                        0, 1    blank, has taken part in nothing yet
//                        e, 1    blank, came in epoch e
//                        e, 2    knows what it lacks. e stays: what has no protection and is older had its blocks in the store that is lost
#include "iom/resolve.h"

#define NOTE_BLANK 1u
#define NOTE_COUNTED 2u
#define WORKERS 16u
#define LOOKED_AT_MAX 2048u // records a page: the loop has other things to do

// ---- the mark -------------------------------------------------------------------------------------------------------

void row_blank_of_store(struct rows *r) {
    uint64_t epoch, number;
    if (r->cfg.stand_in) return;
    tree_note(r->store, TREE_LOCAL, &epoch, &number);
    r->blank = number == NOTE_BLANK;
    r->blank_since = (uint32_t)epoch;
}

bool rows_blank(const struct rows *r) { return r->blank; }

static err co_mark(struct rows *r, uint64_t epoch, uint64_t number) {
    struct batch *b = batch_new(r->store);
    lsn at;
    batch_note(b, TREE_LOCAL, epoch, number);
    batch_urgent(b);
    err e = co_batch_commit(b, &at);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store));
    if (e == OK) row_blank_of_store(r);
    return e;
}

err co_rows_blank_make(struct store *s) {
    struct batch *b = batch_new(s);
    lsn at;
    batch_note(b, TREE_LOCAL, 0, NOTE_BLANK);
    return co_batch_commit(b, &at);
}

err co_rows_blank_since(struct rows *r, uint64_t epoch) {
    return r->blank && !r->blank_since ? co_mark(r, epoch, NOTE_BLANK) : OK;
}

// ---- the others answer ----------------------------------------------------------------------------------------------

static bool concerns(const struct refmap *m, uint64_t seg, iom_id self, iom_id asker) {
    uint8_t own = refmap_position(m, self), its = refmap_position(m, asker);
    if (!geo_has_parity(m) || own == NO_IOM || its == NO_IOM) return false;
    uint64_t stripe = geo_seg_stripe(m, seg);
    uint8_t own_role = geo_role(m, stripe, own), its_role = geo_role(m, stripe, its);
    return own_role == GEO_PARITY ? its_role < GEO_PARITY : own_role < GEO_PARITY && its_role == GEO_PARITY;
}

static void put_entry(struct row_census_seg *out, const struct object *o, uint64_t seg) {
    *out = (struct row_census_seg){.seg = le64_of(seg), .truncates = le32_of(o->truncates)};
    handle_put(out->handle.b, o->h);
    refmap_put(out->map.b, &o->map);
}

struct page {
    struct buf *buf;
    uint32_t n;
    struct key next;
    bool more;
};

static err co_add_record(struct rows *r, const struct key *k, iom_id asker, struct page *p) {
    struct object *o;
    err e = co_resolve_object(r, handle_at(key_id(k)), &o);
    if (e != OK) return e == ERR_FORMAT ? OK : e; // deleted at this moment
    if (!o->gone && concerns(&o->map, key_number(k), r->self, asker))
        put_entry((struct row_census_seg *)(void *)p->buf->data + p->n++, o, key_number(k));
    row_object_unpin(o);
    return OK;
}

static err co_page(struct rows *r, struct key from, iom_id asker, struct page *p) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (uint32_t looked = 0;; looked++) {
        p->next = from;
        p->more = looked == LOOKED_AT_MAX || p->n == CENSUS_MAX;
        if (p->more) return OK;
        err e = co_tree_seek(r->store, r->tree, &from, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&from) != KIND_CHUNK)) return OK;
        if (e == OK) e = co_add_record(r, &from, asker, p);
        if (e != OK) return e;
        from = key_next(from);
    }
}

err co_row_census_answer(struct rows *r, struct inbound *in, struct msg **reply) {
    const struct req_census *q = (const void *)in->m->body;
    if (in->m->body_len != sizeof *q || q->from[0] != KIND_CHUNK || in->from.kind != NODE_IOM) return ERR_INVAL;
    struct key from;
    memcpy(from.b, q->from, KEY_BYTES);
    struct page p = {.buf = buf_new(r->env->mem, CENSUS_MAX * (uint32_t)sizeof(struct row_census_seg))};
    err e = co_page(r, from, (iom_id){in->from.iom}, &p);
    if (e == OK) {
        *reply = inbound_reply(in, sizeof(struct rep_census));
        struct rep_census *rep = (void *)(*reply)->body;
        memcpy(rep->next, p.next.b, KEY_BYTES);
        rep->more = p.more;
        if (p.n) msg_set_payload(*reply, (struct slice){p.buf, 0, p.n * (uint32_t)sizeof(struct row_census_seg)});
    }
    buf_unref(p.buf);
    return e;
}

// ---- one segment ----------------------------------------------------------------------------------------------------

static bool ever_written(struct seg *s) {
    uint8_t val[RECORD_BYTES_MAX];
    return row_chunk_encode(s, val) != 0;
}

static err co_put(struct seg *s) {
    struct rows *r = s->r;
    struct object *o = s->o;
    while (s->putting && !s->dead) co_wait(r->env, &s->q, "row census: another puts the CHUNK");
    if (s->dead || o->gone) return OK;
    struct batch *b = batch_new(r->store);
    uint32_t swept = o->swept;
    bool object = !o->stored;
    lsn at;
    s->putting = true;
    if (object) row_batch_cnode2(b, o);
    row_batch_chunk(b, s);
    batch_urgent(b);
    err e = co_batch_commit(b, &at);
    s->putting = false;
    waitq_wake_all(r->env, &s->q);
    waitq_wake_all(r->env, &r->settle_wake);
    return e == OK && object ? co_row_cnode2_stored(o, swept) : e;
}

// Under the segment's lock. What is loaded already was asked about, or has been written since.
static err co_count_locked(struct seg *s) {
    struct rows *r = s->r;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = row_key(KIND_CHUNK, s->o->h, s->n);
    err e = co_tree_get(r->store, r->tree, &k, val, sizeof val, &len);
    if (e != ERR_NOENT || s->dead || s->o->gone) return e == ERR_NOENT ? OK : e;
    e = co_row_seg_load(s);
    return e == OK && s->loaded && !s->dead && ever_written(s) ? co_put(s) : e;
}

static err co_count_part(struct object *o, uint64_t n) {
    struct rows *r = o->r;
    struct seg *s = row_seg_of(o, n);
    if (!s) return ERR_FORMAT;
    co_lock(r->env, &s->lock, "row census: segment");
    err e = r->stopping ? ERR_STOPPED : co_count_locked(s);
    co_unlock(r->env, &s->lock);
    row_seg_unpin(s);
    return e;
}

static err co_count(struct rows *r, const struct row_census_seg *c) {
    struct refmap map;
    struct handle h = handle_at(c->handle.b);
    uint64_t n = le64_get(c->seg);
    if (refmap_at(&map, c->map.b) != OK || !handle_valid(h) || n > ROW_KEY_SEG) return ERR_FORMAT;
    struct object *o = row_object(r, h, &map);
    err e = co_row_object_load(o);
    if (e == OK && !o->gone) {
        o->truncates = MAX(o->truncates, le32_get(c->truncates)); // the other side has its record
        e = co_count_part(o, n);
    }
    row_object_unpin(o);
    return e;
}

// ---- all of them ----------------------------------------------------------------------------------------------------

struct census {
    struct rows *r;
    const struct row_census_seg *v, *end; // what is left of the page
};

static err co_count_next(void *arg) {
    struct census *c = arg;
    while (c->v < c->end) {
        err e = c->r->stopping ? ERR_STOPPED : co_count(c->r, c->v++);
        if (e == OK) continue;
        c->v = c->end; // nobody takes another
        return e;
    }
    return OK;
}

static err co_count_all(struct rows *r, const struct msg *m) {
    uint32_t n = m->payload.len_bytes / (uint32_t)sizeof(struct row_census_seg);
    if (!n) return OK;
    struct census c = {.r = r, .v = (const void *)slice_data(m->payload)};
    c.end = c.v + n;
    return co_workers(r->env, "row census", MIN(n, WORKERS), co_count_next, &c);
}

static err co_of(struct rows *r, iom_id other) {
    struct key from = {{KIND_CHUNK}};
    for (bool more = true; more;) {
        struct msg *m = r->port.msg(r->port.ctx, MSG_CENSUS, sizeof(struct req_census)), *reply;
        memcpy(((struct req_census *)(void *)m->body)->from, from.b, KEY_BYTES);
        err e = r->port.co_call(r->port.ctx, other, m, &reply);
        if (e != OK) return e;
        const struct rep_census *p = (const void *)reply->body;
        bool sound = reply->body_len == sizeof *p && reply->payload.len_bytes % sizeof(struct row_census_seg) == 0;
        more = sound && p->more;
        if (more) memcpy(from.b, p->next, KEY_BYTES);
        e = sound ? co_count_all(r, reply) : ERR_FORMAT;
        msg_free(reply);
        if (e != OK) return e;
    }
    return OK;
}

err co_rows_census(struct rows *r, uint8_t ioms) {
    if (r->stopping) return ERR_STOPPED;
    if (!r->blank) return OK;
    uint64_t epoch, number;
    err e = OK;
    r->inside++;
    for (uint8_t i = 0; i < ioms && e == OK; i++)
        if (i != r->self.n) e = co_of(r, (iom_id){i});
    if (e == OK && r->stopping) e = ERR_STOPPED;
    tree_note(r->store, TREE_LOCAL, &epoch, &number);
    if (e == OK) e = co_mark(r, epoch, NOTE_COUNTED);
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
