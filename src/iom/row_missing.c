// What is not here: blocks that this service should have and has not, because it stands in for the IOM that has them, or was away when they were written.
//
//                 record of the segment            a row of it
//   stand-in      none: nothing is known of it     its version is known, its place is ROW_AT_MISSING
//                 (ask the others)
//   returned      always, catch_up.c puts one      likewise
//   replaced      none: nothing is known of it,    likewise
//                 until a census (row_census.c)
//
// So a missing block is one with a version and no place: it reads like a bad one, and like a bad one it is put together from its row and then has a place.
// Versions count on without a gap, so no rule of the update protocol knows of it. A segment without a record asks for its versions:
//
//   data     P, which includes the block at that version                  parity   every D, for the version that it has settled
//
// In service these are the same as ever: only P settles, so what a D has settled changes only by the word of the very P that asks, and what P includes
// of a D only after that D has frozen it. Neither call takes a lock there: whoever holds one may be waiting for us.
#include "iom/resolve.h"

#define AGAIN_NS MSEC(2)
#define RECHECKERS 32u

bool row_lost_with_store(const struct object *o) {
    const struct rows *r = o->r;
    return !r->cfg.stand_in && r->blank_since && !geo_has_parity(&o->map) && !o->anew && (int32_t)(o->h.generation - r->blank_since) < 0;
}

bool row_asks(const struct seg *s) { return geo_has_parity(&s->o->map) ? rows_ask(s->r) : s->r->cfg.stand_in || row_lost_with_store(s->o); }

row_mask row_missing(const struct spot *spot, row_mask rows) {
    row_mask missing = 0;
    ROW_FOR(rows, b) if (spot[b].at == ROW_AT_MISSING) missing |= (row_mask)(1u << b);
    return missing;
}

// ---- versions -------------------------------------------------------------------------------------------------------
// [row * columns + column]; a data segment has one column.
static uint8_t columns(const struct seg *s) { return s->role == ROW_PARITY ? ((const struct pseg *)s)->n : 1; }
static uint64_t *own_versions(struct seg *s) { return s->role == ROW_PARITY ? row_p(s)->versions : row_d(s)->row_version; }

static err co_ask(struct seg *s, iom_id of, struct req_resolve *q, uint32_t body_len, struct msg **reply) {
    q->seg = le64_of(s->n);
    err e = co_resolve_call(s->r, of, s->o, q, NULL, reply);
    if (e != OK || (*reply)->body_len == body_len) return e;
    msg_free(*reply);
    return ERR_FORMAT;
}

// Who has not yet discarded what is cut here tells of what was before: asked again. Of an object that is new here its count is learned.
static bool before_cut(struct seg *s, uint32_t truncates) {
    if (row_cut(s->o, truncates, s->n)) return true;
    if (!s->o->stored) s->o->truncates = MAX(s->o->truncates, truncates);
    return false;
}

#define LOST_VERSION 2u // of what was in a store that was replaced: the first there is

// At a stand-in the store may yet come back; after a replacement it is lost for good, and reads say so.
static err lost_versions(const struct dseg *d, uint64_t *out) {
    if (!row_lost_with_store(d->s.o)) return d->s.r->cfg.stand_in ? ERR_IO : OK;
    for (unsigned b = 0; b < d->s.blocks; b++) out[b] = LOST_VERSION;
    return OK;
}

static err co_versions_data(struct dseg *d, uint64_t *out, bool *again) {
    struct req_resolve q = {.op = RESOLVE_VERSIONS, .k = d->k};
    struct msg *m;
    if (!row_has_parity(d)) return lost_versions(d, out); // nobody else has it
    err e = co_ask(&d->s, d->p, &q, sizeof(struct resolve_decided), &m);
    if (e != OK) return e;
    const struct resolve_decided *x = (const void *)m->body;
    *again = before_cut(&d->s, le32_get(x->truncates));
    for (unsigned b = 0; b < d->s.blocks; b++) out[b] = le64_get(x->version[b]);
    msg_free(m);
    return OK;
}

static err co_versions_parity(struct pseg *p, uint64_t *out, bool *again) {
    for (uint8_t k = 0; k < p->n && !*again; k++) {
        struct req_resolve q = {.op = RESOLVE_STATE, .what = WHAT_AT, .k = k};
        struct msg *m;
        err e = co_ask(&p->s, resolve_member(p->s.o, p->s.n, k), &q, sizeof(struct resolve_state), &m);
        if (e != OK) return e;
        const struct resolve_state *x = (const void *)m->body;
        *again = before_cut(&p->s, le32_get(x->truncates));
        for (unsigned b = 0; b < p->s.blocks; b++) out[b * p->n + k] = le64_get(x->version[b]);
        msg_free(m);
    }
    return OK;
}

static err co_versions(struct seg *s, uint64_t *out) {
    struct rows *r = s->r;
    for (;;) {
        bool again = false;
        err e = s->role == ROW_DATA ? co_versions_data(row_d(s), out, &again) : co_versions_parity(row_p(s), out, &again);
        if (e == ERR_TRUNCATED) again = true; // cut there; here in a moment
        else if (e != OK || !again) return e;
        if (s->dead) return OK; // of no interest any more
        co_wait_until(r->env, &s->q, env_now_ns(r->env) + AGAIN_NS, "row missing: a cut that is under way");
        if (r->stopping) return ERR_STOPPED;
    }
}

// These are the versions: rows that have others here are missing. Their places, which no longer count, go with `b` (NULL: there are none).
static row_mask adopt(struct seg *s, const uint64_t *versions, struct batch *b) {
    uint8_t n = columns(s);
    uint64_t *own = own_versions(s);
    row_mask stale = 0;
    for (unsigned row = 0; row < s->blocks; row++) {
        bool written = false;
        if (!memcmp(own + row * n, versions + row * n, n * sizeof own[0])) continue;
        memcpy(own + row * n, versions + row * n, n * sizeof own[0]);
        for (uint8_t k = 0; k < n; k++) written = written || own[row * n + k];
        stale |= (row_mask)(1u << row);
        if (b) row_batch_free(b, s->spot, (row_mask)(1u << row));
        s->spot[row] = (struct spot){written ? ROW_AT_MISSING : 0, 0};
    }
    if (s->role == ROW_DATA) {
        struct dseg *d = row_d(s);
        for (unsigned row = 0; row < s->blocks; row++) d->version = MAX(d->version, (own[row] + 1) & ~1ull);
        d->settled = d->version;
    }
    return stale;
}

static uint64_t *versions_new(struct seg *s) { return mem_alloc(s->r->env->mem, sizeof(uint64_t) * columns(s) * s->blocks); }

err co_row_ask_versions(struct seg *s) {
    err e = co_row_object_load(s->o);
    if (e != OK) return e;
    uint64_t *v = versions_new(s);
    e = co_versions(s, v);
    if (e == OK && !s->loaded && !s->dead) adopt(s, v, NULL);
    mem_free(s->r->env->mem, v);
    return e;
}

// ---- the return: what was decided without us ------------------------------------------------------------------------
struct recheck { struct list node; struct handle h; uint64_t seg; };

static void remember(struct rows *r, struct handle h, uint64_t seg) {
    struct recheck *x = mem_alloc(r->env->mem, sizeof *x);
    *x = (struct recheck){.h = h, .seg = seg};
    list_push_back(&r->recheck, &x->node);
}

void row_recheck_forget(struct rows *r) {
    for (struct list *n; (n = list_pop_front(&r->recheck)) != NULL;) mem_free(r->env->mem, LIST_ENTRY(n, struct recheck, node));
}

static err co_commit(struct batch *b) {
    lsn at;
    batch_urgent(b);
    return co_batch_commit(b, &at);
}

static err co_each_update(struct rows *r, err (*co_fn)(struct rows *r, struct key k, const struct update *u)) {
    struct key k = {{KIND_UPDATE}};
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (;; k = key_next(k)) {
        struct update u;
        err e = co_tree_seek(r->store, r->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_UPDATE)) return OK;
        if (e == OK) e = row_update_decode(&u, val, len);
        if (e == OK) e = co_fn(r, k, &u);
        if (e != OK) return e;
    }
}

// Unprotected objects have no other copy: what is on disk of them is completed as ever.
static err co_unsettled_one(struct rows *r, struct key k, const struct update *u) {
    struct object *o;
    struct handle h = handle_at(key_id(&k));
    err e = co_resolve_object(r, h, &o);
    if (e != OK) return e;
    bool alone = !geo_has_parity(&o->map);
    row_object_unpin(o);
    if (alone) return co_resolve_finish_alone(r, h, key_number(&k), u);
    if (!(key_number(&k) & ROW_KEY_HELD)) remember(r, h, key_number(&k) & ROW_KEY_SEG);
    return OK;
}

err co_rows_unsettled(struct rows *r) {
    row_recheck_forget(r);
    return co_each_update(r, co_unsettled_one);
}

static err co_forget_one(struct rows *r, struct key k, const struct update *u) {
    struct batch *b = batch_new(r->store);
    row_batch_free(b, u->spot, u->rows);
    batch_del(b, r->tree, &k);
    return co_commit(b);
}

// ---- the return: an object of which nothing here counts ---------------------------------------------------------------
static err co_segs_there(struct rows *r, struct object *o, iom_id of, uint64_t *from, bool *more) {
    struct msg *m = r->port.msg(r->port.ctx, MSG_SEGMENTS, sizeof(struct req_segments)), *reply;
    struct req_segments *q = (void *)m->body;
    handle_put(q->handle.b, o->h);
    q->from = le64_of(*from);
    err e = r->port.co_call(r->port.ctx, of, m, &reply);
    if (e != OK) return e;
    uint32_t n = reply->payload.len_bytes / (uint32_t)sizeof(le64);
    const le64 *v = n ? (const void *)slice_data(reply->payload) : NULL;
    *more = n == SEGMENTS_MAX;
    for (uint32_t i = 0; i < n; i++) remember(r, o->h, *from = le64_get(v[i]));
    ++*from;
    msg_free(reply);
    return OK;
}

static err co_remember_all(struct rows *r, struct object *o) {
    err e = OK;
    remember(r, o->h, 0);
    for (uint8_t i = 0; i < o->map.span && e == OK; i++) {
        uint64_t from = 0;
        iom_id of = refmap_member(&o->map, i);
        for (bool more = !iom_eq(of, r->self); more && e == OK;) e = co_segs_there(r, o, of, &from, &more);
    }
    return e;
}

// Another asks which segments of an object have a record here.
err co_rows_segments(struct rows *r, struct inbound *in, struct msg **reply) {
    const struct req_segments *q = (const void *)in->m->body;
    if (in->m->body_len != sizeof *q || le64_get(q->from) > ROW_KEY_SEG) return ERR_INVAL;
    struct key k = row_key(KIND_CHUNK, handle_at(q->handle.b), le64_get(q->from)), first = k;
    struct buf *b = buf_new(r->env->mem, SEGMENTS_MAX * (uint32_t)sizeof(le64));
    uint32_t n = 0, len;
    uint8_t val[RECORD_BYTES_MAX];
    err e = OK;
    for (; n < SEGMENTS_MAX; n++, k = key_next(k)) {
        e = co_tree_seek(r->store, r->tree, &k, val, sizeof val, &len);
        if (e != OK || memcmp(k.b, first.b, 1 + HANDLE_BYTES) != 0) break;
        ((le64 *)(void *)b->data)[n] = le64_of(key_number(&k));
    }
    *reply = inbound_reply(in, sizeof(struct envelope));
    if (n) msg_set_payload(*reply, (struct slice){b, 0, n * (uint32_t)sizeof(le64)});
    buf_unref(b);
    return e == ERR_NOENT ? OK : e;
}

// ---- the return: what the stand-in recorded -------------------------------------------------------------------------
static err co_missed_object(struct rows *r, struct handle h, const struct row_cnode2 *v) {
    struct refmap map;
    err e = refmap_at(&map, v->map.b);
    if (e != OK) return e;
    uint32_t count = le32_get(v->truncates);
    if (le32_get(v->flags) & ROW_CNODE2_GONE) return co_rows_discard(r, h, &map, 0, count, true);
    struct object *o = row_object(r, h, &map);
    e = co_row_object_load(o);
    bool cut = e == OK && o->stored && geo_has_parity(&map) && (o->asks || count > o->swept);
    if (cut) {
        o->asks = true; // put with the discard, until its segments have been asked for: a power cut between the two begins again
        if (count > o->swept) e = co_rows_discard(r, h, &map, 0, count, false); // which segments it lost, and what came after, the others know
        if (e == OK) e = co_remember_all(r, o);
    } else if (e == OK && !o->stored) {
        struct batch *b = batch_new(r->store);
        o->swept = o->truncates = count;
        row_batch_cnode2(b, o);
        e = co_commit(b);
        o->stored = e == OK;
    }
    row_object_unpin(o);
    return e;
}

struct seg *row_seg_of(struct object *o, uint64_t n) {
    uint8_t pos = refmap_position(&o->map, o->r->self);
    if (pos == NO_IOM) return NULL;
    if (geo_role(&o->map, geo_seg_stripe(&o->map, n), pos) == GEO_PARITY) return &row_pseg(o, n)->s;
    struct dseg *d = resolve_dseg(o->r, o, n);
    return d ? &d->s : NULL;
}

static err co_adopt(struct seg *s, const uint64_t *versions) {
    struct batch *b = batch_new(s->r->store);
    if (!adopt(s, versions, b)) return batch_drop(b), OK;
    row_batch_chunk(b, s);
    return co_commit(b);
}

// Of the stand-in's record only the versions count: its places are another store's.
static err co_missed_chunk(struct rows *r, struct seg *s, const void *val, uint32_t len) {
    uint64_t *v = versions_new(s);
    err e = row_chunk_versions(val, len, s->role, columns(s), s->blocks, v);
    if (e == OK) e = co_row_seg_load(s);
    if (e == OK) e = co_adopt(s, v);
    mem_free(r->env->mem, v);
    return e;
}

static err co_with_seg(struct rows *r, struct handle h, uint64_t n, const void *val, uint32_t len, err (*co_fn)(struct rows *r, struct seg *s, const void *val, uint32_t len)) {
    struct object *o;
    err e = co_resolve_object(r, h, &o);
    if (e == ERR_FORMAT) return OK; // the object has gone meanwhile
    if (e != OK) return e;
    struct seg *s = o->gone ? NULL : row_seg_of(o, n);
    if (s) {
        e = co_fn(r, s, val, len);
        row_seg_unpin(s);
    }
    row_object_unpin(o);
    return e;
}

// Objects without protection: what is here stays, but for what was cut.
err co_row_note_cut(struct object *o, uint64_t seg, uint64_t off) {
    struct rows *r = o->r;
    struct row_cut_record v = {le64_of(seg), le64_of(off), le32_of(o->truncates), le32_of(0)}, had;
    uint32_t len;
    struct key k = row_key(KIND_CUT, o->h, 0);
    err e = co_tree_get(r->store, r->tree, &k, &had, sizeof had, &len);
    if (e != OK && e != ERR_NOENT) return e;
    if (e == OK && len == sizeof had) {
        v.seg = le64_of(MIN(seg, le64_get(had.seg)));
        v.off = le64_of(MIN(off, le64_get(had.off)));
    }
    struct batch *b = batch_new(r->store);
    row_batch_cnode2(b, o);
    batch_put(b, r->tree, &k, &v, sizeof v);
    e = co_commit(b);
    return e == OK ? co_store_sync(r->store, store_now(r->store)) : e;
}

static err co_missed_cut(struct rows *r, struct handle h, const struct row_cut_record *v) {
    struct object *o;
    err e = co_resolve_object(r, h, &o);
    if (e == ERR_FORMAT) return OK; // nothing of it is here
    if (e != OK) return e;
    uint64_t off = le64_get(v->off);
    uint32_t count = le32_get(v->truncates);
    e = co_rows_discard(r, h, &o->map, MIN(le64_get(v->seg), ROW_KEY_SEG), count, false);
    uint64_t len = off == UINT64_MAX ? 0 : OBJECT_BYTES_MAX - off; // none to zero: the cut is over all the same
    if (e == OK) e = co_rows_zero(r, h, &o->map, len ? off : 0, len, count);
    row_object_unpin(o);
    return e;
}

// The object that came with it is in doubt here, too.
static err co_missed_doubt(struct rows *r, const struct key *k, const void *val, uint32_t len) {
    struct batch *b = batch_new(r->store);
    batch_put(b, r->tree, k, val, len);
    return co_commit(b);
}

err co_rows_missed(struct rows *r, const struct key *k, const void *val, uint32_t len) {
    struct handle h = handle_at(key_id(k));
    if (key_kind(k) == KIND_CUT) return len == sizeof(struct row_cut_record) ? co_missed_cut(r, h, val) : ERR_FORMAT;
    if (key_kind(k) == KIND_CNODE2) return len == sizeof(struct row_cnode2) ? co_missed_object(r, h, val) : ERR_FORMAT;
    if (key_kind(k) == KIND_DOUBT) return co_missed_doubt(r, k, val, len);
    if (key_kind(k) == KIND_CHUNK) return co_with_seg(r, h, key_number(k), val, len, co_missed_chunk);
    return key_kind(k) == KIND_UPDATE ? ERR_FORMAT : OK; // nothing is unsettled any more
}

static err co_recheck(struct rows *r, struct seg *s, const void *val, uint32_t len) {
    uint64_t *v = versions_new(s);
    err e = co_versions(s, v);
    if (e == OK) e = co_row_seg_load(s);
    if (e == OK) e = co_adopt(s, v);
    mem_free(r->env->mem, v);
    return e;
}

// Journal order makes the rest sound: what marks a segment for its recheck goes after all that the recheck has put.
static err co_asked(struct rows *r, struct handle h) {
    struct object *o;
    err e = co_resolve_object(r, h, &o);
    if (e == ERR_FORMAT) return OK; // it has gone
    if (e != OK) return e;
    if (o->asks) {
        struct batch *b = batch_new(r->store);
        o->asks = false;
        row_batch_cnode2(b, o);
        e = co_commit(b);
    }
    row_object_unpin(o);
    return e;
}

struct rechecking { struct rows *r; const struct list *next; };

static err co_recheck_next(void *arg) {
    struct rechecking *c = arg;
    while (c->next != &c->r->recheck) {
        const struct recheck *x = LIST_ENTRY(c->next, struct recheck, node);
        c->next = c->next->next;
        err e = co_with_seg(c->r, x->h, x->seg, NULL, 0, co_recheck);
        if (e == OK) continue;
        c->next = &c->r->recheck; // nobody takes another
        return e;
    }
    return OK;
}

err co_rows_recheck(struct rows *r) {
    struct rechecking c = {r, r->recheck.next};
    err e = co_workers(r->env, "row missing: recheck", RECHECKERS, co_recheck_next, &c); // a segment may be there twice: it gets the same versions
    LIST_FOR(&r->recheck, n) if (e == OK) e = co_asked(r, LIST_ENTRY(n, struct recheck, node)->h);
    if (e == OK) e = co_each_update(r, co_forget_one);
    if (e == OK) row_recheck_forget(r);
    return e;
}
