// MSG_FSYNC: answered when every row of the object that this member holds dirty or unsettled is settled (I3).
#include "iom/data.h"
#include "wire/format.h"

static err co_fsync(struct rows *r, const struct req_fsync *q) {
    struct handle h = handle_at(q->handle.b);
    if (!handle_valid(h)) return ERR_INVAL;
    return co_rows_fsync(r, h, le64_get(q->durable_end), le32_get(q->truncates));
}

void co_data_fsync(struct rows *r, struct inbound *in) {
    err e = in->m->body_len < sizeof(struct req_fsync) ? ERR_INVAL : co_fsync(r, (const void *)in->m->body);
    hub_reply(in, NULL, e);
}
