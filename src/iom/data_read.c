// MSG_READ: this member's part of a range of an object. The blocks are read straight into the reply's payload.
#include "iom/data.h"
#include "wire/format.h"

static err co_read(struct rows *r, struct inbound *in, const struct req_read *q, struct msg *reply) {
    struct refmap map;
    struct handle h = handle_at(q->handle.b);
    uint64_t off = le64_get(q->off);
    uint32_t len = le32_get(q->len), got;
    if (refmap_at(&map, q->map.b) != OK || !handle_valid(h)) return ERR_INVAL;
    if (off > OBJECT_BYTES_MAX || len > BUF_MAX_BYTES || !len) return ERR_INVAL;
    uint32_t room = ROUND_UP(len, BLOCK_BYTES);
    struct slice data = {buf_new(in->m->mem, MIN(room, BUF_MAX_BYTES)), 0, 0};
    err e = co_rows_read(r, h, &map, off, len, data.buf->data, data.buf->cap_bytes, &got);
    data.len_bytes = got;
    if (e == OK) msg_set_payload(reply, data);
    buf_unref(data.buf);
    return e;
}

void co_data_read(struct rows *r, struct inbound *in) {
    if (in->m->body_len < sizeof(struct req_read)) {
        hub_reply(in, NULL, ERR_INVAL);
        return;
    }
    struct msg *reply = inbound_reply(in, sizeof(struct envelope));
    err e = co_read(r, in, (const void *)in->m->body, reply);
    hub_reply(in, reply, e);
}
