// MSG_DISCARD: from the starter of an object that was cut or deleted: every segment from some number on goes, durably.
#include "iom/data.h"
#include "wire/format.h"

static err co_discard(struct rows *r, const struct req_discard *q) {
    struct refmap map;
    struct handle h = handle_at(q->handle.b);
    if (refmap_at(&map, q->map.b) != OK || !handle_valid(h)) return ERR_INVAL;
    return co_rows_discard(r, h, &map, le64_get(q->from_seg), le32_get(q->truncates), q->gone != 0);
}

void co_data_discard(struct rows *r, struct inbound *in) {
    err e = in->m->body_len < sizeof(struct req_discard) ? ERR_INVAL : co_discard(r, (const void *)in->m->body);
    hub_reply(in, NULL, e);
}
