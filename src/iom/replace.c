// A store in another one's place: an IOM whose store is lost for good goes on with an empty one. (Requirement C8)
//
//   a tool          asks any IOM that serves: "store X is IOM i's" ── CONTROL_REPLACE ──>  the map says so: X is the one admitted, the old one is strange from then
//                   makes X from the answer: the map as it is, an incarnation above all     on, whatever is on it, and votes no more (cluster/map.h)
//                   that the old one had
//   IOM i           starts on X, and returns like any other that was away; it has missed everything (row_census.c)
//
// Only who is failed is replaced, while all others are whole. Asked again, after an answer that did not come: the same. A tool that dies in between leaves a map
// that waits for a store which there is not: it is replaced once more.
#include "cluster/register.h"
#include "iom/iom_inside.h"

#define INCARNATIONS_APART (1ull << 20) // more than a store that nobody has admitted is opened without anybody hearing of it
#define CHANGE_NS SEC(2)

// ---- the map --------------------------------------------------------------------------------------------------------
static bool may_replace(const struct cluster_map *m, uint8_t iom) {
    if (!m || iom >= m->ioms || m->state != ARRAY_RUNNING || m->iom[iom].state != MAP_IOM_FAILED) return false;
    for (uint8_t n = 0; n < m->ioms; n++)
        if (n != iom && m->iom[n].state != MAP_IOM_UP) return false;
    return true;
}

static err co_change(struct iom *i, const struct req_control *q, struct cluster_map *now) {
    const struct cluster_map *m = register_latest(i->reg);
    if (!may_replace(m, q->iom)) return ERR_BUSY;
    *now = *m;
    if (!memcmp(now->iom[q->iom].store, q->store, 16)) return OK; // asked again
    cluster_map_replace(now, q->iom, q->store);
    uint64_t deadline_ns = env_now_ns(i->env) + CHANGE_NS;
    err e = co_register_cas(i->reg, now->version, now, deadline_ns);
    if (e == OK) LOG(i->env, TRACE_WARN, "IOM %u has another store from now on", q->iom);
    return e == OK ? co_register_read(i->reg, deadline_ns, now) : e;
}

err co_replace(struct iom *i, struct inbound *in, struct msg **reply) {
    const struct req_control *q = (const void *)in->m->body;
    struct cluster_map *now = mem_alloc(i->env->mem, sizeof *now);
    struct member_view v;
    err e = co_change(i, q, now);
    if (e == OK) {
        member_suspect_view(i->member, q->iom, &v);
        *reply = inbound_reply(in, sizeof(struct rep_replace));
        ((struct rep_replace *)(void *)(*reply)->body)->incarnation = le64_of(MAX(v.incarnation, now->iom[q->iom].incarnation) + INCARNATIONS_APART);
        struct buf *b = buf_new(i->env->mem, CLUSTER_MAP_BYTES_MAX);
        msg_set_payload(*reply, (struct slice){b, 0, cluster_map_encode(now, b->data)});
        buf_unref(b);
    }
    mem_free(i->env->mem, now);
    return e;
}

// ---- the store ------------------------------------------------------------------------------------------------------
static err co_mark_blank(struct disk *d, const struct store_config *c) {
    struct store *s;
    err e = co_store_open(d, c, NULL, &s);
    if (e != OK) return e;
    e = co_rows_blank_make(s);
    if (e != OK) return co_store_abandon(s), e;
    return co_store_close(s);
}

err co_iom_replacement_make(struct disk *d, const struct store_ident *id, const struct store_config *c, const struct cluster_map *known) {
    uint8_t *block = mem_alloc(d->env->mem, REGISTER_RECORD_BYTES_MAX);
    uint32_t len = register_hint_block(known, block);
    err e = co_store_format(d, id, c);
    if (e == OK) e = co_mark_blank(d, c);
    if (e == OK) e = co_register_blocks_write(d, block, len); // last: a store without them is none
    mem_free(d->env->mem, block);
    return e;
}
