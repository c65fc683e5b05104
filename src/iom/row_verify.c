// Verification of a quiet array: every row whose parity is here is the xor of the data of all members, block by block with its checksum, and the parity
// includes the very version that each member has.
#include "iom/resolve.h"
#include "base/sum.h"
#include <stdio.h>

struct verify {
    struct rows *r;
    void (*fault)(void *ctx, const char *sentence);
    void *ctx;
    uint64_t rows, faults;
};

static void tell(struct verify *v, const struct pseg *p, unsigned b, const char *what, unsigned iom) {
    char text[200];
    snprintf(text, sizeof text, "object %u/%llx segment %llu row %u: %s (IOM %u)", p->s.o->h.starter, (unsigned long long)p->s.o->h.index,
             (unsigned long long)p->s.n, b, what, iom);
    v->faults++;
    if (v->fault) v->fault(v->ctx, text);
}

// ---- D answers with its settled blocks ------------------------------------------------------------------------------

static err co_answer_rows(struct dseg *d, struct inbound *in, struct msg **reply) {
    struct rows *r = d->s.r;
    struct msg *m = *reply = inbound_reply(in, sizeof(struct rep_verify_row));
    struct rep_verify_row *b = (void *)m->body;
    struct block_io io[ROWS_MAX];
    row_mask rows = 0;
    uint32_t n = 0, bad = 0;
    for (unsigned i = 0; i < d->s.blocks; i++) {
        b->version[i] = le64_of(d->row_version[i]);
        if (d->s.spot[i].at) rows |= (row_mask)(1u << i);
    }
    row_mask missing = row_missing(d->s.spot, rows);
    rows &= (row_mask)~missing;
    b->missing = le16_of(missing);
    struct slice data = {buf_new(r->env->mem, MAX(1, row_count(rows)) * BLOCK_BYTES), 0, row_count(rows) * BLOCK_BYTES};
    ROW_FOR(rows, i) {
        io[n] = (struct block_io){{d->s.spot[i].at}, data.buf->data + n * BLOCK_BYTES, d->s.spot[i].crc};
        n++;
    }
    err e = n ? co_store_read_blocks(r->store, io, n, &bad) : OK;
    uint32_t i = 0, bad_rows = 0;
    ROW_FOR(rows, x) bad_rows |= (bad >> i++ & 1) << x;
    b->rows = le16_of(rows);
    b->bad_rows = le16_of((uint16_t)bad_rows);
    msg_set_payload(m, data);
    buf_unref(data.buf);
    return bad ? OK : e;
}

err co_row_verify_answer(struct rows *r, struct inbound *in, struct msg **reply) {
    const struct req_verify *q = (const void *)in->m->body;
    struct object *o;
    if (in->m->body_len != sizeof *q) return ERR_INVAL;
    err e = co_resolve_object(r, handle_at(q->handle.b), &o);
    if (e == ERR_FORMAT) return rows_ask(r) ? ERR_NODATA : ERR_NOENT; // nothing of this object was ever settled here
    if (e != OK) return e;
    struct dseg *d = resolve_dseg(r, o, le64_get(q->seg));
    if (d && q->mend) {
        e = co_row_seg_load(&d->s);
        if (e == OK) e = co_row_scrub_answer(d, in, reply);
        row_seg_unpin(&d->s);
    } else if (d) {
        co_lock(r->env, &d->s.lock, "verify: segment");
        e = co_row_seg_load(&d->s);
        if (e == OK) e = co_answer_rows(d, in, reply);
        co_unlock(r->env, &d->s.lock);
        row_seg_unpin(&d->s);
    }
    row_object_unpin(o);
    return d ? e : ERR_INVAL;
}

// ---- P adds up ------------------------------------------------------------------------------------------------------

// *missing: rows of it that the member has to build yet.
static err co_add_member(struct verify *v, struct pseg *p, uint8_t k, uint8_t *sum, row_mask *missing) {
    struct rows *r = v->r;
    iom_id to = resolve_member(p->s.o, p->s.n, k);
    struct msg *m = r->port.msg(r->port.ctx, MSG_VERIFY, sizeof(struct req_verify)), *reply;
    struct req_verify *q = (void *)m->body;
    handle_put(q->handle.b, p->s.o->h);
    q->seg = le64_of(p->s.n);
    q->k = k;
    err e = r->port.co_call(r->port.ctx, to, m, &reply);
    static const struct rep_verify_row nothing;
    if (e == ERR_NODATA) *missing = (row_mask)~0; // the IOM that has it is not there
    if (e == ERR_NODATA) return OK;
    if (e != OK && e != ERR_NOENT) return e;
    const struct rep_verify_row *b = e == OK ? (const void *)reply->body : &nothing;
    if (e == OK && (reply->body_len != sizeof *b || reply->payload.len_bytes != row_count(le16_get(b->rows)) * BLOCK_BYTES)) {
        msg_free(reply);
        return ERR_FORMAT;
    }
    struct contents c = {e == OK ? reply->payload.buf : NULL, le16_get(b->rows)};
    *missing |= le16_get(b->missing);
    for (unsigned i = 0; i < p->s.blocks; i++) {
        if (le64_get(b->version[i]) != p->versions[i * p->n + k]) tell(v, p, i, "the parity includes another version than the member has", to.n);
        if (le16_get(b->bad_rows) >> i & 1) tell(v, p, i, "the data block's checksum does not match", to.n);
        if (c.rows >> i & 1) xor_into(sum + i * BLOCK_BYTES, resolve_row(&c, i), BLOCK_BYTES);
    }
    if (e == OK) msg_free(reply);
    return OK;
}

static err co_verify_seg(struct verify *v, struct pseg *p) {
    struct rows *r = v->r;
    struct block_io io[ROWS_MAX];
    uint32_t bad = 0;
    struct buf *sum = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    for (unsigned b = 0; b < p->s.blocks; b++) io[b] = (struct block_io){{p->s.spot[b].at}, sum->data + b * BLOCK_BYTES, p->s.spot[b].crc};
    row_mask missing = row_missing(p->s.spot, (row_mask)((1u << p->s.blocks) - 1));
    err e = co_row_read_places(r, io, p->s.blocks, &bad);
    if (bad) e = OK;
    for (uint8_t k = 0; k < p->n && e == OK; k++) e = co_add_member(v, p, k, sum->data, &missing);
    for (unsigned b = 0; b < p->s.blocks && e == OK; b++) {
        v->rows++;
        if (missing >> b & 1) continue; // it has to be built yet
        if (bad >> b & 1) tell(v, p, b, "the parity block's checksum does not match", r->self.n);
        else if (!is_zero(sum->data + b * BLOCK_BYTES, BLOCK_BYTES)) tell(v, p, b, "the parity is not the xor of the data", r->self.n);
    }
    buf_unref(sum);
    return e;
}

static err co_verify_one(struct verify *v, struct handle h, uint64_t seg) {
    struct object *o;
    err e = co_resolve_object(v->r, h, &o);
    if (e != OK) return e;
    uint8_t pos = refmap_position(&o->map, v->r->self);
    if (pos != NO_IOM && geo_role(&o->map, geo_seg_stripe(&o->map, seg), pos) == GEO_PARITY) {
        struct pseg *p = row_pseg(o, seg);
        co_lock(v->r->env, &p->s.lock, "verify: segment");
        e = co_row_seg_load(&p->s);
        if (e == OK) e = co_verify_seg(v, p);
        co_unlock(v->r->env, &p->s.lock);
        row_seg_unpin(&p->s);
    }
    row_object_unpin(o);
    return e;
}

static err co_verify_all(struct verify *v) {
    struct key k = {{KIND_CHUNK}};
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (;;) {
        err e = co_tree_seek(v->r->store, v->r->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_CHUNK)) return OK;
        if (e == OK) e = co_verify_one(v, handle_at(key_id(&k)), key_number(&k));
        if (e != OK) return e;
        if (v->r->stopping) return ERR_STOPPED;
        k = key_next(k);
    }
}

err co_rows_verify(struct rows *r, void (*fault)(void *ctx, const char *sentence), void *ctx, uint64_t *rows_verified, uint64_t *faults) {
    struct verify v = {.r = r, .fault = fault, .ctx = ctx};
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    err e = co_verify_all(&v);
    *rows_verified = v.rows;
    *faults = v.faults;
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
