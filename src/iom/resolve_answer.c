// Calls of other IOMs' rows: each is answered by a task of its own. MSG_RESOLVE: resolve.c. MSG_VERIFY: row_verify.c. MSG_GATHER: row_gather.c.
#include "iom/resolve.h"

struct answer { struct rows *r; struct inbound *in; };

static err co_state(struct dseg *d, const struct req_resolve *q, struct inbound *in, struct msg **reply) {
    struct contents c = {0};
    struct msg *m = inbound_reply(in, sizeof(struct resolve_state));
    err e = co_resolve_state(d, q, (void *)m->body, &c);
    if (c.buf && e == OK) msg_set_payload(m, (struct slice){c.buf, 0, row_count(c.rows) * BLOCK_BYTES});
    buf_unref(c.buf);
    *reply = m;
    return e;
}

// Asked in service too, and without the segment's lock: a write may hold that while it waits for the very P that asks.
static err co_at(struct rows *r, struct object *o, const struct req_resolve *q, struct inbound *in, struct msg **reply) {
    uint64_t seg = le64_get(q->seg);
    if (row_cut(o, le32_get(q->truncates), seg)) return ERR_TRUNCATED;
    struct dseg *d = resolve_dseg(r, o, seg);
    if (!d) return ERR_INVAL;
    err e = co_row_seg_load(&d->s);
    if (e == OK) e = co_state(d, q, in, reply);
    if (e == OK && d->s.dead) e = ERR_TRUNCATED;
    row_seg_unpin(&d->s);
    return e;
}

static err co_as_data(struct rows *r, struct object *o, const struct req_resolve *q, struct inbound *in, struct msg **reply) {
    struct contents c = {in->m->payload.buf, le16_get(q->rows)};
    bool has_payload = q->op != RESOLVE_STATE;
    if (has_payload && in->m->payload.len_bytes != row_count(c.rows) * BLOCK_BYTES) return ERR_INVAL;
    if (!has_payload && q->what == WHAT_AT) return co_at(r, o, q, in, reply);
    struct dseg *d = resolve_dseg(r, o, le64_get(q->seg));
    if (!d) return ERR_INVAL;
    co_lock(r->env, &d->s.lock, "resolve: segment");
    err e = co_row_seg_load(&d->s);
    if (e == OK && q->op == RESOLVE_STATE) e = co_state(d, q, in, reply);
    if (e == OK && q->op == RESOLVE_TAKE) e = co_resolve_take(d, q, &c);
    if (e == OK && q->op == RESOLVE_HELD) e = co_resolve_held(d, q, &c);
    co_unlock(r->env, &d->s.lock);
    row_seg_unpin(&d->s);
    return e;
}

static err co_as_parity(struct rows *r, struct object *o, const struct req_resolve *q, struct inbound *in, struct msg **reply) {
    uint64_t seg = le64_get(q->seg);
    uint8_t pos = refmap_position(&o->map, r->self);
    if (pos == NO_IOM || geo_role(&o->map, geo_seg_stripe(&o->map, seg), pos) != GEO_PARITY) return ERR_INVAL;
    err e = OK;
    if (q->op == RESOLVE_DECIDE) e = co_resolve_decide(r, o, seg);
    if (q->op == RESOLVE_ENTER) e = co_resolve_enter(r, o, seg);
    if (e != OK) return e;
    *reply = inbound_reply(in, sizeof(struct resolve_decided));
    struct resolve_decided *out = (void *)(*reply)->body;
    if (q->op == RESOLVE_SETTLED) e = co_resolve_decided(r, o, seg, out);
    return e == OK ? co_resolve_versions(r, o, seg, q->k, out) : e;
}

static err co_resolve(struct rows *r, struct inbound *in, struct msg **reply) {
    const struct req_resolve *q = (const void *)in->m->body;
    struct refmap map;
    struct handle h = handle_at(q->handle.b);
    if (in->m->body_len != sizeof *q || refmap_at(&map, q->map.b) != OK || !handle_valid(h)) return ERR_INVAL;
    struct object *o = row_object(r, h, &map);
    err e = co_row_object_load(o);
    if (rows_ask(r)) o->truncates = MAX(o->truncates, le32_get(q->truncates)); // the other side has its record
    if (e == OK) {
        bool data = q->op == RESOLVE_STATE || q->op == RESOLVE_TAKE || q->op == RESOLVE_HELD;
        if (data) e = co_as_data(r, o, q, in, reply);
        else if (q->op >= RESOLVE_SETTLED && q->op <= RESOLVE_VERSIONS) e = co_as_parity(r, o, q, in, reply);
        else e = ERR_INVAL;
    }
    row_object_unpin(o);
    return e;
}

static void co_answer(void *arg) {
    struct answer *a = arg;
    struct rows *r = a->r;
    struct msg *reply = NULL;
    err e = ERR_STOPPED;
    if (!r->stopping && a->in->m->type == MSG_VERIFY) e = co_row_verify_answer(r, a->in, &reply);
    else if (!r->stopping && a->in->m->type == MSG_SEGMENTS) e = co_rows_segments(r, a->in, &reply);
    else if (!r->stopping && a->in->m->type == MSG_CENSUS) e = co_row_census_answer(r, a->in, &reply);
    else if (!r->stopping && a->in->m->type == MSG_GATHER) e = co_row_gather_answer(r, a->in, &reply);
    else if (!r->stopping) e = co_resolve(r, a->in, &reply);
    hub_reply(a->in, reply, e);
    mem_free(r->env->mem, a);
    row_task_end(r);
}

void rows_call(struct rows *r, struct inbound *in) {
    struct answer *a = mem_alloc(r->env->mem, sizeof *a);
    *a = (struct answer){r, in};
    row_spawn(r, "row answer", co_answer, a);
}
