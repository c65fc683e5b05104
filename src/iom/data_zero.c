// MSG_ZERO: this member's part of a range reads as zeros from now on; whole blocks become holes. Answered when settled.
#include "iom/data.h"
#include "wire/format.h"

static err co_zero(struct rows *r, const struct req_zero *q) {
    struct refmap map;
    struct handle h = handle_at(q->handle.b);
    uint64_t off = le64_get(q->off);
    if (refmap_at(&map, q->map.b) != OK || !handle_valid(h) || off > OBJECT_BYTES_MAX) return ERR_INVAL;
    return co_rows_zero(r, h, &map, off, le64_get(q->len), le32_get(q->truncates));
}

void co_data_zero(struct rows *r, struct inbound *in) {
    err e = in->m->body_len < sizeof(struct req_zero) ? ERR_INVAL : co_zero(r, (const void *)in->m->body);
    hub_reply(in, NULL, e);
}
