// Catching up: the IOM that returns learns what it has missed. (FIG. 14; design R1, R2, R5)
//
//   1  its own unsettled updates, and what it held for others, were decided without it: their segments are remembered
//   2  the stand-in's records, which are just what was changed (stand_in.c): objects first (deleted: dropped here; cut: all its segments ask anew), then segments:
//      each row whose version is another than here is missing from now on
//   3  the segments of 1, and all of objects that were cut, ask for their versions: what was decided as they have it is theirs, all else is missing. Only then
//      do the updates of 1 go
//
// A store that was replaced has missed everything, and says so by having no records (row_census.c); only what it has since counts.
//
// All of it flushed before this phase of recovery is over: only then may the proxy forget its records. A power cut in the midst: it begins again.
// The stand-in is at rest and everything is settled, so neither versions nor records change meanwhile.
#include "iom/iom_inside.h"
#include "iom/pages.h"

#define TAKERS 32u

struct req_missed { struct envelope env; uint8_t from[KEY_BYTES], reserved[7]; };
struct rep_missed { struct envelope env; uint8_t next[KEY_BYTES], more, reserved[6]; }; // payload: wire_records
static_assert(sizeof(struct req_missed) == 56, "req_missed");
static_assert(sizeof(struct rep_missed) == 56, "rep_missed");

// ---- the proxy answers ----------------------------------------------------------------------------------------------
static err co_page(struct instance *x, const struct req_missed *q, struct msg *reply) {
    struct rep_missed *r = (void *)reply->body;
    struct key from, next = {{0}};
    struct buf *b = buf_new(x->i->env->mem, PAGE_OF_RECORDS_BYTES);
    uint32_t len;
    bool more;
    memcpy(from.b, q->from, KEY_BYTES);
    err e = co_records_page(x->i->store, TREE_STAND_IN, &from, b->data, &len, &next, &more);
    if (e == OK && len) msg_set_payload(reply, (struct slice){b, 0, len});
    buf_unref(b);
    r->more = more;
    memcpy(r->next, next.b, KEY_BYTES);
    return e;
}

void co_missed_answer(struct instance *x, struct inbound *in) {
    struct msg *reply = inbound_reply(in, sizeof(struct rep_missed));
    err e = in->m->body_len == sizeof(struct req_missed) ? co_page(x, (const void *)in->m->body, reply) : ERR_FORMAT;
    hub_reply(in, reply, e);
}

// ---- who returns ----------------------------------------------------------------------------------------------------
struct taking {
    struct instance *x;
    const uint8_t *p, *end; // what is left of the page
};

static const struct wire_record *take_peek(const struct taking *t, struct key *k) {
    const uint8_t *p = t->p;
    const struct wire_record *w = t->p < t->end ? record_next(&p, t->end) : NULL;
    if (w) memcpy(k->b, w->key, KEY_BYTES);
    return w;
}

// Records of one kind, from the next on.
static err co_take_kind(void *arg) {
    struct taking *t = arg;
    const struct wire_record *w;
    struct key first, k;
    if (!take_peek(t, &first)) return OK;
    while ((w = take_peek(t, &k)) != NULL && key_kind(&k) == key_kind(&first)) {
        (void)record_next(&t->p, t->end);
        err e = co_rows_missed(t->x->rows, &k, w->val, le16_get(w->len));
        if (e == OK) continue;
        t->p = t->end; // nobody takes another
        return e;
    }
    return OK;
}

// Each is of another object, or of another segment: what is deleted or cut is flushed each for itself, so those are taken side by side.
static uint32_t takers(uint8_t kind) { return kind == KIND_CNODE2 || kind == KIND_CHUNK ? TAKERS : 1; }

static err co_take(struct instance *x, const struct msg *m, bool objects) {
    if (!m->payload.len_bytes) return OK; // it has missed nothing
    const uint8_t *page = slice_data(m->payload);
    struct taking t = {x, page, page + m->payload.len_bytes};
    struct key k;
    while (take_peek(&t, &k)) {
        err e = OK;
        if ((key_kind(&k) == KIND_CNODE2) != objects) (void)record_next(&t.p, t.end);
        else e = co_workers(x->i->env, "iom: catching up", takers(key_kind(&k)), co_take_kind, &t);
        if (e != OK) return e;
    }
    return t.p != t.end ? ERR_FORMAT : OK;
}

static err co_take_all(struct instance *x, iom_id proxy, bool objects) {
    struct rows_port port = iom_rows_port(x);
    struct key from = {{0}};
    for (bool more = true; more;) {
        struct msg *m = port.msg(port.ctx, MSG_MISSED, sizeof(struct req_missed)), *reply;
        memcpy(((struct req_missed *)(void *)m->body)->from, from.b, KEY_BYTES);
        err e = port.co_call(port.ctx, proxy, m, &reply);
        if (e != OK) return e;
        const struct rep_missed *r = (const void *)reply->body;
        if (reply->body_len == sizeof *r) e = co_take(x, reply, objects);
        else e = ERR_FORMAT;
        more = e == OK && r->more;
        if (more) memcpy(from.b, r->next, KEY_BYTES);
        msg_free(reply);
        if (e != OK) return e;
    }
    return OK;
}

err co_catch_up(struct instance *x, iom_id proxy, uint64_t epoch) {
    err e = co_rows_blank_since(x->rows, epoch);
    if (e != OK || (rows_blank(x->rows) && tree_records(x->i->store, TREE_LOCAL) == 0)) return e; // it asks about everything as it is
    e = co_rows_unsettled(x->rows);
    if (e == OK) e = co_take_all(x, proxy, true);
    if (e == OK) e = co_take_all(x, proxy, false);
    if (e == OK) e = co_rows_recheck(x->rows);
    return e == OK ? co_store_sync(x->i->store, store_now(x->i->store)) : e;
}
