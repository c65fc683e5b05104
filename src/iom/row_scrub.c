// Scrub: every block that is settled is read from disk, beside clients and at a rate; what is bad is rebuilt from its
// row (row_mend.c), and so is a parity that is not the xor of its row. Each IOM goes through its own CHUNKs: as P it
// drives its rows, whose members read and mend their blocks (MSG_VERIFY with `mend`); of objects without protection it
// reads its own blocks, which nothing gives back.
//
//   one segment   P: own blocks from disk, bad ones mended ──> versions that the parity includes: V
//                 each member: its blocks from disk, bad ones mended, with their versions
//                 a row whose members are all at V, and whose parity has not changed meanwhile, is judged; any other has
//                 gone on and is looked at again. From the second time on P begins no new version meanwhile (`holds`),
//                 so that the third mostly finds all at rest
//
// Members answer without the segment's lock, as for a gather and for the same reason (row_gather.c). Blocks are read from
// disk, for what is in memory says nothing about what is there.
//
// Where all blocks match their checksums and the parity is not their xor, the data is right: each block is what its
// writer's checksum says. It means that the protocol, or a disk, has broken a promise, and is told as an error.
#include "base/sum.h"
#include "iom/resolve.h"

#define TRIES_MAX 10u
#define AGAIN_NS MSEC(20)
#define MENDS_IN_TURN 4u // of a segment, at one look

struct scrub {
    struct rows *r;
    struct rows_scrub now;
    uint64_t started_ns;
};

// ---- D: its settled blocks ------------------------------------------------------------------------------------------

static err co_read_disk(struct seg *s, struct buf *buf, struct spot *was, row_mask *rows, row_mask *bad) {
    struct block_io io[ROWS_MAX];
    uint32_t n = 0, bits = 0, i = 0;
    memcpy(was, s->spot, sizeof s->spot);
    *rows = *bad = 0;
    for (unsigned b = 0; b < s->blocks; b++)
        if (was[b].at) *rows |= (row_mask)(1u << b);
    ROW_FOR(*rows, b) io[n++] = (struct block_io){{was[b].at}, buf->data + b * BLOCK_BYTES, was[b].crc};
    err e = n ? co_store_read_blocks(s->r->store, io, n, &bits) : OK;
    ROW_FOR(*rows, b) if (bits >> i++ & 1) *bad |= (row_mask)(1u << b);
    ROW_FOR(*bad, b) if (!row_spot_same(&was[b], &s->spot[b])) *bad &= (row_mask)~(1u << b); // it has gone on
    s->r->stats.bad_blocks += row_count(*bad);
    return bits ? OK : e;
}

// Reads; what is bad is mended, and all is read again, but what its row does not give back. *mended: rows that were bad and are not.
static err co_read_mended(struct seg *s, struct buf *buf, struct spot *was, row_mask *rows, row_mask *bad, row_mask *mended) {
    row_mask were = 0, lost = 0;
    err e = co_read_disk(s, buf, was, rows, bad);
    for (unsigned i = 0; e == OK && (*bad & (row_mask)~lost) && !s->dead && i < MENDS_IN_TURN; i++) {
        were |= *bad;
        e = co_row_mend(s, *bad & (row_mask)~lost);
        ROW_FOR(*bad, b) if (e == ERR_IO && row_spot_same(&was[b], &s->spot[b])) lost |= (row_mask)(1u << b);
        if (e == OK || e == ERR_IO) e = co_read_disk(s, buf, was, rows, bad);
    }
    *mended = were & (row_mask)~*bad;
    return e;
}

err co_row_scrub_answer(struct dseg *d, struct inbound *in, struct msg **reply) {
    struct rows *r = d->s.r;
    struct buf *buf = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    struct spot was[ROWS_MAX];
    row_mask rows, bad, mended;
    err e = co_read_mended(&d->s, buf, was, &rows, &bad, &mended);
    if (e == OK && d->s.dead) e = ERR_TRUNCATED;
    if (e == OK) {
        struct msg *m = *reply = inbound_reply(in, sizeof(struct rep_verify_row));
        struct rep_verify_row *b = (void *)m->body;
        uint32_t n = 0;
        for (unsigned i = 0; i < ROWS_MAX; i++) {
            bool same = i < d->s.blocks && row_spot_same(&was[i], &d->s.spot[i]);
            b->version[i] = le64_of(same ? d->row_version[i] : VERIFY_GONE_ON);
        }
        ROW_FOR(rows, i) memmove(buf->data + n++ * BLOCK_BYTES, buf->data + i * BLOCK_BYTES, BLOCK_BYTES);
        b->rows = le16_of(rows);
        b->bad_rows = le16_of(bad);
        b->mended_rows = le16_of(mended);
        msg_set_payload(m, (struct slice){buf, 0, n * BLOCK_BYTES});
    }
    buf_unref(buf);
    return e;
}

// ---- P: one segment -------------------------------------------------------------------------------------------------

struct look { // at a segment
    struct scrub *x;
    struct pseg *p;
    struct buf *sum;
    uint64_t *versions;
    row_mask left, gone_on;
    uint8_t lost[ROWS_MAX];      // blocks of a row that the row does not give back
};

static err co_own(struct look *k) {
    struct pseg *p = k->p;
    struct spot was[ROWS_MAX];
    row_mask rows, bad, mended;
    memset(k->sum->data, 0, ROWS_MAX * BLOCK_BYTES);
    err e = co_read_mended(&p->s, k->sum, was, &rows, &bad, &mended);
    memcpy(k->versions, p->versions, (size_t)p->n * p->s.blocks * sizeof p->versions[0]);
    for (unsigned b = 0; b < p->s.blocks; b++)
        if (!row_spot_same(&was[b], &p->s.spot[b])) k->gone_on |= (row_mask)(1u << b);
    k->x->now.found += row_count(mended);
    k->x->now.mended += row_count(mended);
    memset(k->lost, 0, sizeof k->lost);
    ROW_FOR(bad, b) k->lost[b] = 1;
    return e;
}

static err co_member(struct look *k, uint8_t member) {
    struct pseg *p = k->p;
    struct rows *r = p->s.r;
    static const struct rep_verify_row nothing;
    struct msg *m = r->port.msg(r->port.ctx, MSG_VERIFY, sizeof(struct req_verify)), *reply = NULL;
    struct req_verify *q = (void *)m->body;
    handle_put(q->handle.b, p->s.o->h);
    q->seg = le64_of(p->s.n);
    q->k = member;
    q->mend = 1;
    err e = r->port.co_call(r->port.ctx, resolve_member(p->s.o, p->s.n, member), m, &reply);
    if (e != OK && e != ERR_NOENT) return e;
    const struct rep_verify_row *b = e == OK ? (const void *)reply->body : &nothing;
    bool sound = e != OK || (reply->body_len == sizeof *b && !(le16_get(b->rows) >> p->s.blocks) &&
                             reply->payload.len_bytes == row_count(le16_get(b->rows)) * BLOCK_BYTES);
    struct contents c = {e == OK ? reply->payload.buf : NULL, sound ? le16_get(b->rows) : 0};
    row_mask bad = sound ? le16_get(b->bad_rows) & c.rows : 0, mended = sound ? le16_get(b->mended_rows) & c.rows : 0;
    for (unsigned x = 0; x < p->s.blocks && sound; x++)
        if (le64_get(b->version[x]) != k->versions[x * p->n + member]) k->gone_on |= (row_mask)(1u << x);
    ROW_FOR(c.rows, x) xor_into(k->sum->data + x * BLOCK_BYTES, resolve_row(&c, x), BLOCK_BYTES);
    k->x->now.found += row_count(mended);
    k->x->now.mended += row_count(mended);
    ROW_FOR(bad, x) k->lost[x]++;
    msg_free(reply);
    return sound ? OK : ERR_FORMAT;
}

static bool unchanged(const struct look *k, unsigned b) {
    const struct pseg *p = k->p;
    return !memcmp(&k->versions[b * p->n], &p->versions[b * p->n], p->n * sizeof p->versions[0]);
}

// All that was read belongs together, and does not add up: the parity is formed anew.
static err co_reform(struct look *k, row_mask wrong) {
    struct pseg *p = k->p;
    struct rows *r = p->s.r;
    uint64_t before = r->stats.mended_blocks;
    LOG(r->env, TRACE_ERROR, "scrub: object %u/%llx segment %llu rows %04x: the parity of IOM %u is not the xor of its row; formed anew", p->s.o->h.starter,
        (unsigned long long)p->s.o->h.index, (unsigned long long)p->s.n, wrong, r->self.n);
    row_clean_drop(&p->s, wrong); // it may be the wrong one
    err e = co_row_mend(&p->s, wrong);
    if (e != OK && e != ERR_IO) return e;
    k->x->now.found += row_count(wrong);
    if (r->stats.mended_blocks > before) k->x->now.mended += row_count(wrong);
    else k->x->now.lost += row_count(wrong);
    return OK;
}

static err co_look(struct look *k) {
    struct pseg *p = k->p;
    row_mask wrong = 0;
    k->gone_on = 0;
    err e = co_own(k);
    for (uint8_t i = 0; i < p->n && e == OK; i++) e = co_member(k, i);
    if (e != OK) return e;
    k->x->now.bytes += (uint64_t)(p->n + 1) * p->s.blocks * BLOCK_BYTES;
    ROW_FOR(k->left, b) {
        if ((k->gone_on >> b & 1) || !unchanged(k, b)) continue;
        k->left &= (row_mask)~(1u << b);
        k->x->now.rows++;
        k->x->now.found += k->lost[b];
        k->x->now.lost += k->lost[b];
        if (!k->lost[b] && !is_zero(k->sum->data + b * BLOCK_BYTES, BLOCK_BYTES)) wrong |= (row_mask)(1u << b);
    }
    return wrong ? co_reform(k, wrong) : OK;
}

static err co_scrub_parity(struct scrub *x, struct pseg *p) {
    struct rows *r = x->r;
    struct look k = {.x = x, .p = p, .left = (row_mask)((1u << p->s.blocks) - 1)};
    err e = co_row_seg_load(&p->s);
    k.sum = buf_new(r->env->mem, ROWS_MAX * BLOCK_BYTES);
    k.versions = mem_alloc(r->env->mem, (size_t)p->n * p->s.blocks * sizeof p->versions[0]);
    bool held = false;
    for (unsigned i = 0; k.left && e == OK && i < TRIES_MAX; i++) {
        if (i == 1) p->holds++, held = true;
        if (i) co_wait_until(r->env, &r->stop_q, env_now_ns(r->env) + AGAIN_NS, "row scrub: the row goes on");
        if (r->stopping) e = ERR_STOPPED;
        else if (p->s.dead) break;
        else e = co_look(&k);
    }
    if (held) row_p_release(p);
    if (e == ERR_TRUNCATED || p->s.dead) e = OK; // cut: nothing is left to look at
    else x->now.skipped += row_count(k.left);
    mem_free(r->env->mem, k.versions);
    buf_unref(k.sum);
    return e;
}

// ---- without protection ---------------------------------------------------------------------------------------------

static err co_scrub_alone(struct scrub *x, struct dseg *d) {
    struct buf *buf = buf_new(x->r->env->mem, ROWS_MAX * BLOCK_BYTES);
    struct spot was[ROWS_MAX];
    row_mask rows, bad, mended;
    err e = co_row_seg_load(&d->s);
    if (e == OK) e = co_read_mended(&d->s, buf, was, &rows, &bad, &mended);
    if (e == OK) {
        x->now.rows += row_count(rows);
        x->now.bytes += row_count(rows) * BLOCK_BYTES;
        x->now.found += row_count(bad);
        x->now.lost += row_count(bad);
    }
    buf_unref(buf);
    return e;
}

// ---- all ------------------------------------------------------------------------------------------------------------

// Rows are driven by P; data by nobody else only where there is no P.
static err co_one(struct scrub *x, struct handle h, uint64_t seg, uint8_t role) {
    struct rows *r = x->r;
    struct object *o;
    err e = co_resolve_object(r, h, &o);
    if (e == ERR_FORMAT) return OK; // deleted meanwhile
    if (e != OK) return e;
    uint8_t pos = refmap_position(&o->map, r->self);
    if (role == ROW_PARITY && pos != NO_IOM && geo_role(&o->map, geo_seg_stripe(&o->map, seg), pos) == GEO_PARITY && !row_cut(o, o->truncates, seg)) {
        struct pseg *p = row_pseg(o, seg);
        e = co_scrub_parity(x, p);
        row_seg_unpin(&p->s);
    } else if (role == ROW_DATA && !geo_has_parity(&o->map)) {
        struct dseg *d = resolve_dseg(r, o, seg);
        if (d) e = co_scrub_alone(x, d);
        if (d) row_seg_unpin(&d->s);
    }
    row_object_unpin(o);
    return e;
}

// So long that the rate holds over all that was read so far.
static void co_rest(struct scrub *x) {
    struct rows *r = x->r;
    if (!x->now.rate) return;
    uint64_t due = x->started_ns + (uint64_t)((double)x->now.bytes / (double)x->now.rate * 1e9);
    while (!r->stopping && env_now_ns(r->env) < due) co_wait_until(r->env, &r->stop_q, due, "row scrub: its rate");
}

static err co_walk(struct scrub *x, bool count) {
    struct rows *r = x->r;
    struct key k = {{KIND_CHUNK}};
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (unsigned n = 1;; n++) {
        err e = co_tree_seek(r->store, r->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_CHUNK)) return OK;
        if (e == OK && r->stopping) e = ERR_STOPPED;
        if (e == OK && !count) e = co_one(x, handle_at(key_id(&k)), key_number(&k), val[0]);
        if (e != OK) return e;
        if (count) x->now.total++;
        else x->now.done++, co_rest(x);
        if (n % 64 == 0) co_yield(r->env);
        k = key_next(k);
    }
}

static void scrub_task(void *arg) {
    struct scrub *x = arg;
    struct rows *r = x->r;
    err e = co_walk(x, true);
    x->started_ns = env_now_ns(r->env); // the rate counts from here
    if (e == OK) e = co_walk(x, false);
    if (e == OK) x->now.total = x->now.done;
    x->now.running = false;
    x->now.result = e;
    x->now.elapsed_ns = env_now_ns(r->env) - x->started_ns;
    LOG(r->env, e == OK && !x->now.lost ? TRACE_INFO : TRACE_WARN, "scrub: %s: %llu rows, %llu bad blocks found, %llu rebuilt, %llu not, %llu rows skipped", err_text(e),
        (unsigned long long)x->now.rows, (unsigned long long)x->now.found, (unsigned long long)x->now.mended, (unsigned long long)x->now.lost,
        (unsigned long long)x->now.skipped);
    row_task_end(r);
}

err rows_scrub_start(struct rows *r, uint64_t bytes_per_s) {
    if (r->stopping) return ERR_STOPPED;
    if (!r->scrub) r->scrub = mem_alloc(r->env->mem, sizeof *r->scrub);
    struct scrub *x = r->scrub;
    if (x->now.running) return OK;
    *x = (struct scrub){.r = r, .started_ns = env_now_ns(r->env), .now = {.running = true, .rate = bytes_per_s}};
    row_spawn(r, "row scrub", scrub_task, x);
    return OK;
}

void rows_scrub_look(const struct rows *r, struct rows_scrub *out) {
    *out = r->scrub ? r->scrub->now : (struct rows_scrub){0};
    if (out->running) out->elapsed_ns = env_now_ns(r->env) - r->scrub->started_ns;
}

void row_scrub_forget(struct rows *r) {
    mem_free(r->env->mem, r->scrub);
    r->scrub = NULL;
}
