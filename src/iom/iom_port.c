// How rows and names of this IOM reach those of the others: posts and calls through the hub, to oneself straight.
//
// A call between IOMs is repeated until it is answered in the epoch in which it began: what asks is idempotent. It ends without an answer only when this instance
// ends (a stop) or the epoch changes: then everything is decided anew by recovery.
#include "iom/iom_inside.h"

static struct msg *port_msg(void *ctx, uint16_t type, uint32_t body_len) { return hub_msg(((struct instance *)ctx)->hub, type, body_len); }

static void port_post(void *ctx, iom_id to, struct msg *m) {
    struct instance *x = ctx;
    ASSERT(to.n != x->self.n && x->peer[to.n]);
    if (x->cancelled) msg_free(m); // the service it belongs to is over: under the next epoch it would follow a gap
    else hub_post(x->peer[to.n], m);
}

static bool worth_repeating(err e) {
    return e == ERR_CONN || e == ERR_REFUSED || e == ERR_EPOCH || e == ERR_TIMEOUT || e == ERR_STOPPED || e == ERR_RESTARTED;
}

static err co_port_call(void *ctx, iom_id to, struct msg *req, struct msg **reply) {
    struct instance *x = ctx;
    uint64_t epoch = hub_epoch(x->hub), pause_ns = MSEC(1);
    struct call_opts o = {.cancelled = &x->cancelled, .cancel = &x->cancel};
    ASSERT(to.n != x->self.n && x->peer[to.n]);
    for (;;) {
        err e = x->cancelled || hub_epoch(x->hub) != epoch ? ERR_STOPPED : co_call(x->peer[to.n], msg_copy(x->i->env->mem, req, false), &o, reply);
        if (x->cancelled || hub_epoch(x->hub) != epoch) {
            if (!e) msg_free(*reply);
            e = ERR_STOPPED;
        } else if (worth_repeating(e)) {
            co_wait_until(x->i->env, &x->cancel, env_now_ns(x->i->env) + pause_ns, "iom: pause before a call is repeated");
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
    struct instance *x = ctx;
    struct msg *reply;
    if (h.starter == x->self.n) return co_names_end_durable(x->names, h, end, truncates, durable_end);
    struct msg *q = port_msg(x, MSG_END_DURABLE, sizeof(struct req_end_durable));
    struct req_end_durable *r = (struct req_end_durable *)q->body;
    handle_put(r->handle.b, h);
    r->end = le64_of(end);
    r->truncates = le32_of(truncates);
    err e = co_port_call(x, (iom_id){h.starter}, q, &reply);
    if (e) return e;
    if (reply->body_len < sizeof(struct rep_size)) e = ERR_FORMAT;
    else *durable_end = le64_get(((const struct rep_size *)reply->body)->durable_size);
    msg_free(reply);
    return e;
}

struct touching {
    struct instance *x;
    struct handle h;
    uint64_t mtime_ns;
};
static void touch_task(void *arg) {
    struct touching *t = arg;
    struct instance *x = t->x;
    struct msg *q = port_msg(x, MSG_TOUCH, sizeof(struct req_touch)), *reply;
    handle_put(((struct req_touch *)q->body)->handle.b, t->h);
    ((struct req_touch *)q->body)->mtime_ns = le64_of(t->mtime_ns);
    err e = co_port_call(x, (iom_id){t->h.starter}, q, &reply);
    if (!e) msg_free(reply);
    else if (e != ERR_STOPPED && e != ERR_STALE) LOG(x->i->env, TRACE_WARN, "times of a changed object did not reach IOM %u: %s", t->h.starter, err_text(e));
    mem_free(x->i->env->mem, t);
    if (--x->touching == 0) waitq_wake_all(x->i->env, &x->touched);
    if (--x->requests == 0) waitq_wake_all(x->i->env, &x->idle);
}

static void touch(void *ctx, struct handle h, uint64_t mtime_ns) {
    struct instance *x = ctx;
    if (h.starter == x->self.n) {
        names_touch(x->names, h, mtime_ns);
        return;
    }
    struct touching *t = mem_alloc(x->i->env->mem, sizeof *t);
    *t = (struct touching){x, h, mtime_ns};
    x->touching++;
    x->requests++;
    env_spawn(x->i->env, "iom: touch", touch_task, t);
}

struct rows_port iom_rows_port(struct instance *x) {
    return (struct rows_port){.ctx = x, .post = port_post, .msg = port_msg, .co_call = co_port_call, .co_end_durable = co_end_durable, .touch = touch};
}

// ---- names to rows: this IOM's own part of a discard or of zeroing
static err co_own_discard(void *ctx, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates, bool gone) {
    return co_rows_discard(((struct instance *)ctx)->rows, h, m, from_seg, truncates, gone);
}
static err co_own_zero(void *ctx, struct handle h, const struct refmap *m, uint64_t off, uint64_t len, uint32_t truncates) {
    return co_rows_zero(((struct instance *)ctx)->rows, h, m, off, len, truncates);
}

struct names_port iom_names_port(struct instance *x) {
    return (struct names_port){.ctx = x, .post = port_post, .msg = port_msg, .co_call = co_port_call, .co_discard = co_own_discard, .co_zero = co_own_zero};
}

void iom_peers_of_map(struct instance *x, const struct cluster_map *m) {
    for (uint8_t n = 0; n < m->ioms; n++)
        if (n != x->self.n) x->peer[n] = hub_peer(x->hub, (iom_id){n}, m->iom[n].at);
}

void iom_peers_redirect(struct instance *x, const struct cluster_map *m, bool taken_over) {
    char at[MAP_ADDRESS_BYTES];
    for (uint8_t n = 0; n < m->ioms; n++) {
        bool by_proxy = m->iom[n].state == MAP_IOM_FAILED || (m->iom[n].state == MAP_IOM_RETURNING && !taken_over);
        if (n != x->self.n) hub_redirect(x->hub, (iom_id){n}, by_proxy ? cluster_map_stand_in(m, n, at) : NULL);
    }
}
