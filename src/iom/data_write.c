// MSG_WRITE: new bytes for this member's part of a range. Answered when what its toughness promises has happened. The payload's memory becomes
// the cached content where whole blocks lie aligned in it. A write that makes a file longer brings the new size along where its starter is addressed.
#include "iom/data.h"
#include "wire/format.h"

static err write_decode(const struct msg *m, struct row_write *w) {
    const struct req_write *q = (const void *)m->body;
    *w = (struct row_write){.h = handle_at(q->handle.b), .off = le64_get(q->off), .len = le32_get(q->len), .data = m->payload,
                            .truncates = le32_get(q->truncates), .durable_end = le64_get(q->durable_end), .toughness = MIN(q->toughness, 2),
                            .slot = le32_get(q->h.slot), .seq = le64_get(q->h.seq)};
    memcpy(w->session, q->h.session, sizeof w->session);
    if (refmap_at(&w->map, q->map.b) != OK || !handle_valid(w->h)) return ERR_INVAL;
    if (w->off > OBJECT_BYTES_MAX || w->len > OBJECT_BYTES_MAX - w->off) return ERR_FBIG;
    return OK;
}

static void applied(void *arg) { names_raise_begin(arg); }

static err co_write_raising(struct rows *r, struct names *n, const struct req_write *q, struct row_write *w, struct rep_size *size) {
    struct names_raise x = {.n = n, .h = w->h, .end = w->off + w->len, .mtime_ns = le64_get(q->mtime_ns), .truncates = w->truncates};
    w->told = true;
    w->applied = applied;
    w->arg = &x;
    err e = co_rows_write(r, w);
    err raised = x.begun || !e ? co_names_raise_end(&x) : OK;
    *size = x.size;
    return e ? e : raised;
}

static struct msg *size_reply(struct inbound *in, const struct rep_size *size) {
    struct msg *reply = inbound_reply(in, sizeof *size);
    memcpy(reply->body + sizeof size->env, (const uint8_t *)size + sizeof size->env, sizeof *size - sizeof size->env);
    return reply;
}

void co_data_write(struct rows *r, struct names *n, struct inbound *in) {
    const struct req_write *q = (const void *)in->m->body;
    struct row_write w;
    struct rep_size size;
    err e = in->m->body_len < sizeof *q ? ERR_INVAL : write_decode(in->m, &w);
    bool raises = !e && q->raise;
    if (raises) e = co_write_raising(r, n, q, &w, &size);
    else if (!e) e = co_rows_write(r, &w);
    hub_reply(in, !e && raises ? size_reply(in, &size) : NULL, e);
}
