// How rows and names of this IOM reach those of the others: posts and calls through the hub, to oneself straight.
//
// A call between IOMs is repeated until it is answered in the epoch in which it began: what asks is idempotent. It ends without an answer only when this instance
// ends (a stop) or the epoch changes: then everything is decided anew by recovery.
#include "iom/iom_inside.h"

static struct msg *port_msg(void *ctx, uint16_t type, uint32_t body_len) { return hub_msg(((struct iom *)ctx)->hub, type, body_len); }

static void port_post(void *ctx, iom_id to, struct msg *m) {
    struct iom *i = ctx;
    ASSERT(to.n != i->self.n && i->peer[to.n]);
    if (i->cancelled) msg_free(m); // the service it belongs to is over: under the next epoch it would follow a gap
    else hub_post(i->peer[to.n], m);
}

static bool worth_repeating(err e) {
    return e == ERR_CONN || e == ERR_REFUSED || e == ERR_EPOCH || e == ERR_TIMEOUT || e == ERR_STOPPED || e == ERR_RESTARTED;
}

static err co_port_call(void *ctx, iom_id to, struct msg *req, struct msg **reply) {
    struct iom *i = ctx;
    uint64_t epoch = hub_epoch(i->hub), pause_ns = MSEC(1);
    struct call_opts o = {.cancelled = &i->cancelled, .cancel = &i->cancel};
    ASSERT(to.n != i->self.n && i->peer[to.n]);
    for (;;) {
        err e = i->cancelled || hub_epoch(i->hub) != epoch ? ERR_STOPPED : co_call(i->peer[to.n], msg_copy(i->env->mem, req, false), &o, reply);
        if (i->cancelled || hub_epoch(i->hub) != epoch) {
            if (!e) msg_free(*reply);
            e = ERR_STOPPED;
        } else if (worth_repeating(e)) {
            co_wait_until(i->env, &i->cancel, env_now_ns(i->env) + pause_ns, "iom: pause before a call is repeated");
            pause_ns = MIN(pause_ns * 2, MSEC(50));
            continue;
        }
        if (e) *reply = NULL;
        msg_free(req);
        return e;
    }
}

// ---- rows to names: the starter of an object may be this IOM or another
static err co_end_durable(void *ctx, struct handle h, uint64_t end, uint32_t truncates, uint64_t *durable_end) {
    struct iom *i = ctx;
    struct msg *reply;
    if (h.starter == i->self.n) return co_names_end_durable(i->names, h, end, truncates, durable_end);
    struct msg *q = port_msg(i, MSG_END_DURABLE, sizeof(struct req_end_durable));
    struct req_end_durable *r = (struct req_end_durable *)q->body;
    handle_put(r->handle.b, h);
    r->end = le64_of(end);
    r->truncates = le32_of(truncates);
    err e = co_port_call(i, (iom_id){h.starter}, q, &reply);
    if (e) return e;
    if (reply->body_len < sizeof(struct rep_size)) e = ERR_FORMAT;
    else *durable_end = le64_get(((const struct rep_size *)reply->body)->durable_size);
    msg_free(reply);
    return e;
}

struct touching {
    struct iom *i;
    struct handle h;
    uint64_t mtime_ns;
};
static void touch_task(void *arg) {
    struct touching *t = arg;
    struct iom *i = t->i;
    struct msg *q = port_msg(i, MSG_TOUCH, sizeof(struct req_touch)), *reply;
    handle_put(((struct req_touch *)q->body)->handle.b, t->h);
    ((struct req_touch *)q->body)->mtime_ns = le64_of(t->mtime_ns);
    err e = co_port_call(i, (iom_id){t->h.starter}, q, &reply);
    if (!e) msg_free(reply);
    else if (e != ERR_STOPPED && e != ERR_STALE) LOG(i->env, TRACE_WARN, "times of a changed object did not reach IOM %u: %s", t->h.starter, err_text(e));
    mem_free(i->env->mem, t);
    if (--i->touching == 0) waitq_wake_all(i->env, &i->touched);
    if (--i->requests == 0) waitq_wake_all(i->env, &i->idle);
}

static void touch(void *ctx, struct handle h, uint64_t mtime_ns) {
    struct iom *i = ctx;
    if (h.starter == i->self.n) {
        names_touch(i->names, h, mtime_ns);
        return;
    }
    struct touching *t = mem_alloc(i->env->mem, sizeof *t);
    *t = (struct touching){i, h, mtime_ns};
    i->touching++;
    i->requests++;
    env_spawn(i->env, "iom: touch", touch_task, t);
}

struct rows_port iom_rows_port(struct iom *i) {
    return (struct rows_port){.ctx = i, .post = port_post, .msg = port_msg, .co_call = co_port_call, .co_end_durable = co_end_durable, .touch = touch};
}

// ---- names to rows: this IOM's own part of a discard or of zeroing
static err co_own_discard(void *ctx, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates, bool gone) {
    return co_rows_discard(((struct iom *)ctx)->rows, h, m, from_seg, truncates, gone);
}
static err co_own_zero(void *ctx, struct handle h, const struct refmap *m, uint64_t off, uint64_t len, uint32_t truncates) {
    return co_rows_zero(((struct iom *)ctx)->rows, h, m, off, len, truncates);
}

struct names_port iom_names_port(struct iom *i) {
    return (struct names_port){.ctx = i, .post = port_post, .msg = port_msg, .co_call = co_port_call, .co_discard = co_own_discard, .co_zero = co_own_zero};
}

void iom_peers_of_map(struct iom *i, const struct cluster_map *m) {
    for (uint8_t n = 0; n < m->ioms; n++)
        if (n != i->self.n) i->peer[n] = hub_peer(i->hub, (iom_id){n}, m->iom[n].at);
}
