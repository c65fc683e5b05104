// Messages, and the network's calls handed on to the world.
#include "env/env.h"
#include <string.h>

// ---- messages -------------------------------------------------------------------------------------------------------

struct msg *msg_new(struct mem *m, uint16_t type, uint32_t body_len) {
    ASSERT(body_len <= MSG_BODY_MAX);
    struct msg *msg = mem_alloc(m, sizeof *msg + body_len);
    list_init(&msg->node);
    msg->mem = m;
    msg->type = type;
    msg->body_len = body_len;
    return msg;
}

void msg_set_payload(struct msg *m, struct slice s) {
    ASSERT(s.len_bytes <= MSG_PAYLOAD_MAX);
    if (s.len_bytes > 0) {
        ASSERT(s.buf->mem == m->mem && (uint64_t)s.off_bytes + s.len_bytes <= s.buf->cap_bytes);
        buf_ref(s.buf);
    }
    buf_unref(m->payload.buf); // after the new reference: it may be the same buf
    m->payload = s.len_bytes > 0 ? s : (struct slice){0};
}

static struct slice slice_copy(struct mem *to, struct slice s) {
    struct slice c = {buf_new(to, s.len_bytes), 0, s.len_bytes};
    memcpy(slice_data(c), slice_data(s), s.len_bytes);
    return c;
}

struct msg *msg_copy(struct mem *to, const struct msg *m, bool deep) {
    struct msg *c = msg_new(to, m->type, m->body_len);
    c->flags = m->flags;
    memcpy(c->body, m->body, m->body_len);
    if (m->payload.len_bytes == 0) return c;
    if (deep) c->payload = slice_copy(to, m->payload);
    else msg_set_payload(c, m->payload);
    return c;
}

void msg_free(struct msg *m) {
    if (!m) return;
    buf_unref(m->payload.buf);
    mem_free(m->mem, m);
}

// ---- the network ----------------------------------------------------------------------------------------------------

err net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out) {
    err r = e->ops->net_listen(e, at, ev, ctx, out);
    if (r == OK) (*out)->env = e;
    return r;
}

void net_unlisten(struct listener *l) { l->env->ops->net_unlisten(l->env, l); }

struct conn *net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx) {
    return e->ops->net_connect(e, at, ev, ctx);
}

void conn_send(struct conn *c, struct msg *m) { c->env->ops->conn_send(c, m); }
uint64_t conn_queued_bytes(const struct conn *c) { return c->env->ops->conn_queued_bytes(c); }
void conn_close(struct conn *c) { c->env->ops->conn_close(c); }
