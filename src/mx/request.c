// One request of an operation and its repeats: the slot that makes it happen once, the pauses while the array is stopped, the way out when
// the client gives up.
#include "mx/inside.h"
#include "wire/format.h"

void mx_op_begin(struct mx *m, struct mx_op *op) {
    if (!op->ready) {
        waitq_init(&op->waiting);
        op->ready = true;
    }
    op->since_ns = env_now_ns(m->env);
}

void mx_cancel(struct mx *m, struct mx_op *op) {
    op->cancelled = true;
    if (op->ready) waitq_wake_all(m->env, &op->waiting);
}

struct msg *mx_msg(struct mx *m, struct mx_op *op, uint16_t type, uint32_t body_len) {
    struct msg *q = hub_msg(m->hub, type, body_len);
    struct req_head *h = (struct req_head *)q->body;
    memcpy(h->session, m->session, sizeof h->session);
    h->uid = le32_of(op->cred.uid);
    h->gid = le32_of(op->cred.gid);
    return q;
}

static err gave_up(struct mx *m, struct mx_op *op) {
    if (op->cancelled) return ERR_INTR;
    if (m->config.eio_after_ns && env_now_ns(m->env) - op->since_ns >= m->config.eio_after_ns) return ERR_IO;
    return OK;
}

err co_mx_pause(struct mx *m, struct mx_op *op, uint64_t for_ns) {
    err e = gave_up(m, op);
    if (e) return e;
    co_wait_until(m->env, &op->waiting, env_now_ns(m->env) + for_ns, "mx: pause before a repeat");
    return gave_up(m, op);
}

struct mx_slot *co_mx_slot_take(struct mx *m, iom_id iom) {
    struct mx_iom *i = &m->iom[iom.n];
    for (;;) {
        for (uint32_t n = 0; n < MX_SLOTS; n++)
            if (!i->slot[n].busy) {
                i->slot[n].busy = true;
                i->slot[n].seq++;
                return &i->slot[n];
            }
        co_wait(m->env, &i->slot_free, "mx: a free slot");
    }
}

void mx_slot_give(struct mx *m, iom_id iom, struct mx_slot *s) {
    s->busy = false;
    waitq_wake_one(m->env, &m->iom[iom.n].slot_free);
}

struct try {
    struct list node;
    uint64_t since_ns;
};

static void doubt(void *arg) {
    struct mx *m = arg;
    if (list_empty(&m->tries)) return;
    uint64_t due_ns = LIST_ENTRY(m->tries.next, struct try, node)->since_ns + MX_DOUBT_NS, now_ns = env_now_ns(m->env);
    if (due_ns <= now_ns) {
        m->map_doubted = true;
        waitq_wake_all(m->env, &m->map_wanted);
        due_ns = now_ns + MX_DOUBT_AGAIN_NS;
    }
    timer_set(m->env, &m->doubt, due_ns, doubt, m);
}

// One call. A machine without power does not close its connections: an answer that takes long makes us ask the others for the map, and a new
// epoch ends the call.
err co_mx_call(struct mx *m, struct mx_op *op, iom_id iom, struct msg *q, struct msg **reply) {
    struct call_opts o = {.cancelled = &op->cancelled, .cancel = &op->waiting};
    if (m->config.eio_after_ns) o.deadline_ns = op->since_ns + m->config.eio_after_ns;
    struct try t = {.since_ns = env_now_ns(m->env)};
    list_push_back(&m->tries, &t.node);
    if (!m->doubt.index) timer_set(m->env, &m->doubt, t.since_ns + MX_DOUBT_NS, doubt, m);
    err e = co_call(m->iom[iom.n].peer, q, &o, reply);
    list_remove(&t.node);
    m->stats.calls++;
    return e;
}

static err co_try(struct mx *m, struct mx_op *op, iom_id iom, const struct msg *template, struct msg **reply) {
    struct msg *q = msg_copy(m->env->mem, template, false);
    ((struct envelope *)q->body)->epoch = le64_of(hub_epoch(m->hub)); // the template may be of an epoch that is over
    return co_mx_call(m, op, iom, q, reply);
}

// The outcome of an unknown session when an earlier try may have been carried out: it cannot be told whether it was.
static err session_refused(struct mx *m, iom_id iom, bool once, bool maybe_done) {
    mx_session_lost(m, iom);
    return once && maybe_done ? ERR_IO : ERR_SESSION;
}

static err co_repeat(struct mx *m, struct mx_op *op, struct mx_target t, const struct msg *template, struct msg **reply) {
    uint64_t pause_ns = MSEC(2);
    bool maybe_done = false;
    for (;;) {
        err e = co_mx_map_wait(m, op);
        if (!e) e = co_mx_session(m, op, t.iom);
        if (e) return e;
        if (t.recoveries && *t.recoveries != cluster_map_losses(&m->map)) return ERR_EPOCH;
        e = co_try(m, op, t.iom, template, reply);
        if (e == ERR_TRUNCATED || !err_again(e)) return e;
        if (e == ERR_NOMEM || e == ERR_BUSY) {
            // the IOM is there and asks for patience
        } else if (e == ERR_SESSION) {
            e = session_refused(m, t.iom, t.once, maybe_done);
            if (e == ERR_IO) return e;
        } else {
            if (e == ERR_CONN || e == ERR_TIMEOUT || e == ERR_RESTARTED) maybe_done = true;
            mx_map_stale(m);
        }
        m->stats.retries++;
        LOG(m->env, TRACE_DEBUG, "mx: request %x to IOM %u again: %s", template->type, t.iom.n, err_text(e));
        e = co_mx_pause(m, op, pause_ns);
        if (e) return e;
        pause_ns = MIN(pause_ns * 2, MX_PAUSE_MAX_NS);
    }
}

err co_mx_request(struct mx *m, struct mx_op *op, struct mx_target t, struct msg *req, struct msg **reply) {
    struct mx_iom *i = &m->iom[t.iom.n];
    struct mx_slot *slot = t.slot;
    *reply = NULL;
    if (t.iom.n >= m->config.array_ioms) {
        msg_free(req);
        return ERR_STALE; // a handle that names an IOM there is not
    }
    if (t.once) {
        if (!slot) slot = co_mx_slot_take(m, t.iom);
        slot->opens = t.opens;
        struct req_head *h = (struct req_head *)req->body;
        h->slot = le32_of((uint32_t)(slot - i->slot));
        h->seq = le64_of(slot->seq);
    }
    err e = co_repeat(m, op, t, req, reply);
    if (slot && !t.slot) mx_slot_give(m, t.iom, slot);
    msg_free(req);
    return e;
}

err co_mx_order(struct mx *m, struct mx_op *op, struct mx_target t, struct msg *req) {
    struct msg *reply;
    err e = co_mx_request(m, op, t, req, &reply);
    msg_free(reply);
    return e;
}
