// MSG_WRITE: new bytes for this member's part of a range. Answered when what its toughness promises has happened. The payload's memory becomes
// the cached content where whole blocks lie aligned in it.
#include "iom/data.h"
#include "wire/format.h"

static err co_write(struct rows *r, const struct msg *m) {
    const struct req_write *q = (const void *)m->body;
    struct row_write w = {.h = handle_at(q->handle.b), .off = le64_get(q->off), .len = le32_get(q->len), .data = m->payload,
                          .truncates = le32_get(q->truncates), .durable_end = le64_get(q->durable_end), .toughness = MIN(q->toughness, 2),
                          .slot = le32_get(q->h.slot), .seq = le64_get(q->h.seq)};
    memcpy(w.session, q->h.session, sizeof w.session);
    if (refmap_at(&w.map, q->map.b) != OK || !handle_valid(w.h)) return ERR_INVAL;
    if (w.off > OBJECT_BYTES_MAX || w.len > OBJECT_BYTES_MAX - w.off) return ERR_FBIG;
    return co_rows_write(r, &w);
}

void co_data_write(struct rows *r, struct inbound *in) {
    err e = in->m->body_len < sizeof(struct req_write) ? ERR_INVAL : co_write(r, in->m);
    hub_reply(in, NULL, e);
}
