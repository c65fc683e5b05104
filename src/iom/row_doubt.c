// Objects in doubt: a stop put the first record of them here, and their starter may have forgotten them in it.
//
// In service a block hardens only below an end that the starter has on disk, so of what has a record here the starter knows. A stop asks nobody (row_stop.c). If the
// starter and its copy lose their memory in it, the creation of a file is lost with them: recovery finds no end for such updates and drops them, but their CNODE2
// would stay, at their members and at who held deltas of them. So a first record that nobody was asked about comes with a mark,
//
//   KIND_DOUBT  ── service: the starter knows the object ──> no mark
//               └─ it does not ──> discarded at all members ──> no mark
//
// which stays over stops and power cuts until one of the two has happened. Not amid the phases of recovery: others still decide updates of that object then.
#include "iom/row_state.h"

void row_batch_doubt(struct batch *b, const struct object *o) {
    struct row_doubt v;
    struct key k = row_key(KIND_DOUBT, o->h, 0);
    refmap_put(v.map.b, &o->map);
    batch_put(b, o->r->tree, &k, &v, sizeof v);
}

// ---- what nobody knows ----------------------------------------------------------------------------------------------

static err co_discard_at(struct object *o, iom_id to) {
    struct rows *r = o->r;
    if (iom_eq(to, r->self)) return co_rows_discard(r, o->h, &o->map, 0, o->truncates, true);
    struct msg *m = r->port.msg(r->port.ctx, MSG_DISCARD, sizeof(struct req_discard)), *reply;
    struct req_discard *q = (void *)m->body;
    handle_put(q->handle.b, o->h);
    refmap_put(q->map.b, &o->map);
    q->truncates = le32_of(o->truncates);
    q->gone = true;
    err e = r->port.co_call(r->port.ctx, to, m, &reply);
    if (e == OK) msg_free(reply);
    return e;
}

// Here first, so that nothing more is taken for it; then with the other members, who hold its deltas.
err co_row_discard_unknown(struct object *o) {
    struct rows *r = o->r;
    LOG(r->env, TRACE_INFO, "rows: object %u/%llx has data, but nobody knows it: discarded", o->h.starter, (unsigned long long)o->h.index);
    err e = co_discard_at(o, r->self);
    for (uint8_t i = 0; i < o->map.span && e == OK; i++)
        if (!iom_eq(refmap_member(&o->map, i), r->self)) e = co_discard_at(o, refmap_member(&o->map, i));
    if (e != OK && e != ERR_STOPPED) LOG(r->env, TRACE_WARN, "rows: object %u/%llx is not discarded everywhere: %s", o->h.starter, (unsigned long long)o->h.index, err_text(e));
    return e;
}

// ---- asking ---------------------------------------------------------------------------------------------------------

static err co_forget(struct rows *r, const struct key *k) {
    struct batch *b = batch_new(r->store);
    batch_del(b, r->tree, k);
    batch_urgent(b);
    lsn at;
    return co_batch_commit(b, &at);
}

// ERR_TRUNCATED: it is known, and was cut. ERR_BUSY: it is being deleted, by a starter that knows all members.
static err co_ask(struct object *o) {
    uint64_t end = 0;
    err e = co_row_object_load(o);
    if (e == OK) e = o->r->port.co_end_durable(o->r->port.ctx, o->h, 0, o->truncates, &end);
    if (e == ERR_STALE) return co_row_discard_unknown(o);
    return e == ERR_TRUNCATED || e == ERR_BUSY ? OK : e;
}

static err co_clear(struct rows *r, const struct key *k, const struct row_doubt *v) {
    struct refmap map;
    err e = refmap_at(&map, v->map.b);
    if (e != OK) return e;
    struct object *o = row_object(r, handle_at(key_id(k)), &map);
    e = co_ask(o);
    row_object_unpin(o);
    return e == OK ? co_forget(r, k) : e;
}

static err co_clear_all(struct rows *r) {
    struct key k = {{KIND_DOUBT}};
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (; !r->stopping; k = key_next(k)) {
        err e = co_tree_seek(r->store, r->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_DOUBT)) return OK;
        if (e == OK) e = len == sizeof(struct row_doubt) ? co_clear(r, &k, (const void *)val) : ERR_FORMAT;
        if (e != OK) return e;
    }
    return ERR_STOPPED;
}

err co_rows_doubts(struct rows *r) {
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    err e = co_clear_all(r);
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
