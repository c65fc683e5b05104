// What an MX knows of the cluster: the map, learnt by one refresher task whenever somebody met an error that says it is old, and its
// session at each IOM, opened when first needed. After every new epoch the first RENEW names again what is open here of that IOM's objects,
// before anything else is asked of it: until then a starter does not let an unlinked object go.
#include "mx/inside.h"
#include "wire/format.h"

void mx_map_stale(struct mx *m) {
    m->map_stale = true;
    waitq_wake_all(m->env, &m->map_wanted);
}

static bool map_serves(const struct mx *m) {
    return m->map_known && !m->map_stale && m->map.state == ARRAY_RUNNING;
}

err co_mx_map_wait(struct mx *m, struct mx_op *op) {
    uint64_t pause_ns = MSEC(2);
    while (!map_serves(m)) {
        if (m->stopping) return ERR_STOPPED;
        waitq_wake_all(m->env, &m->map_wanted);
        err e = co_mx_pause(m, op, pause_ns); // an operation waits in its own queue, so that a cancel finds it
        if (e) return e;
        pause_ns = MIN(pause_ns * 2, MX_PAUSE_MAX_NS);
    }
    return OK;
}

static err co_ask_map(struct mx *m, iom_id iom, uint64_t limit_ns, struct cluster_map *out) {
    struct msg *reply;
    struct call_opts o = {.deadline_ns = env_now_ns(m->env) + limit_ns};
    err e = co_call(m->iom[iom.n].peer, hub_msg(m->hub, MSG_GET_MAP, sizeof(struct envelope)), &o, &reply);
    if (e) return e;
    e = reply->payload.len_bytes ? cluster_map_decode(out, slice_data(reply->payload), reply->payload.len_bytes, NULL) : ERR_FORMAT;
    msg_free(reply);
    return e;
}

// IOMs lost their memory at once: what was written here and not fsynced may be gone, so nothing that rests on it is known any more. One alone: only what no
// other had.
static void forget_unsynced(struct mx *m, bool one) {
    LIST_FOR(&m->object_list, n) {
        struct mx_object *o = LIST_ENTRY(n, struct mx_object, node);
        if (one && o->fast == o->fast_synced) continue;
        o->size = o->learned_ns = o->size_change = 0; // the next write raises it, the next read asks
        o->unflushed = false;
        if (o->writes == o->synced) continue;
        o->synced = o->writes;
        o->fast_synced = o->fast;
        o->lost++;
        o->lost_told = false;
    }
}

static void iom_take(struct mx *m, uint8_t i) {
    char at[MAP_ADDRESS_BYTES];
    const struct map_iom *x = &m->map.iom[i];
    m->iom[i].peer = hub_peer(m->hub, (iom_id){i}, x->at);
    hub_redirect(m->hub, (iom_id){i}, x->state == MAP_IOM_FAILED ? cluster_map_stand_in(&m->map, i, at) : NULL);
}

static void map_take(struct mx *m, const struct cluster_map *n) {
    bool news = !m->map_known || n->version > m->map.version;
    if (m->map_known && cluster_map_losses(n) != cluster_map_losses(&m->map)) forget_unsynced(m, false);
    else if (m->map_known && cluster_map_losses_of_one(n) != cluster_map_losses_of_one(&m->map)) forget_unsynced(m, true);
    if (news) m->map = *n;
    m->map_known = true;
    m->map_stale = false;
    hub_set_epoch(m->hub, m->map.epoch);
    for (uint8_t i = 0; news && i < m->map.ioms && i < ARRAY_IOMS_MAX; i++) iom_take(m, i);
}

static void wake_waiting(struct mx *m) {
    m->map_rounds++;
    waitq_wake_all(m->env, &m->map_news);
}

// Asks one IOM after the other until one answers with a map that is not older than what we have.
static bool co_refresh(struct mx *m, uint8_t *next, uint64_t limit_ns) {
    for (uint8_t n = 0; n < m->config.array_ioms && !m->stopping; n++) {
        struct cluster_map got;
        iom_id iom = {*next};
        *next = (uint8_t)((*next + 1) % m->config.array_ioms);
        if (co_ask_map(m, iom, limit_ns, &got) || (m->map_known && got.version < m->map.version)) continue;
        map_take(m, &got);
        return true;
    }
    return false;
}

void mx_refresher(void *arg) {
    struct mx *m = arg;
    uint8_t next = 0;
    uint64_t pause_ns = MSEC(5), limit_ns = MX_MAP_LIMIT_NS;
    m->refresher_runs = true;
    while (!m->stopping) {
        if (map_serves(m) && !m->map_doubted) {
            co_wait(m->env, &m->map_wanted, "mx: somebody needs a newer map");
            pause_ns = MSEC(5);
            continue;
        }
        m->map_doubted = false;
        limit_ns = co_refresh(m, &next, limit_ns) ? MX_MAP_LIMIT_NS : MIN(limit_ns * 2, MX_MAP_LIMIT_MAX_NS);
        wake_waiting(m);
        if (map_serves(m) || m->stopping) continue;
        co_sleep_until(m->env, env_now_ns(m->env) + pause_ns, "mx: pause between looks at the map");
        pause_ns = MIN(pause_ns * 2, MX_PAUSE_MAX_NS);
    }
    m->refresher_runs = false;
    wake_waiting(m);
}

// ---- sessions
static struct msg *session_msg(struct mx *m, uint16_t type) {
    struct mx_op nobody = {0};
    return mx_msg(m, &nobody, type, sizeof(struct req_head));
}

// A RENEW that names the creations under way at that IOM.
static struct msg *renew_msg(struct mx *m, iom_id iom) {
    struct mx_op nobody = {0};
    struct wire_slot creates[MX_SLOTS];
    uint32_t len = 0;
    for (uint32_t n = 0; n < MX_SLOTS; n++) {
        const struct mx_slot *s = &m->iom[iom.n].slot[n];
        if (s->busy && s->opens) creates[len++] = (struct wire_slot){le32_of(n), le64_of(s->seq)};
    }
    struct msg *q = mx_msg(m, &nobody, MSG_SESSION_RENEW, (uint32_t)(sizeof(struct req_renew) + len * sizeof creates[0]));
    memcpy(((struct req_renew *)q->body)->creates, creates, len * sizeof creates[0]);
    return q;
}

static err co_session_say(struct mx *m, struct mx_op *op, iom_id iom, struct msg *q) {
    struct msg *reply;
    err e = co_mx_call(m, op, iom, q, &reply);
    msg_free(reply);
    return e;
}

// What is open here of that IOM's objects, as the payload of a RENEW; no payload if there is nothing.
static void name_opens(struct mx *m, iom_id iom, struct msg *q) {
    struct buf *b = NULL;
    uint32_t len = 0;
    LIST_FOR(&m->object_list, n) {
        struct mx_object *o = LIST_ENTRY(n, struct mx_object, node);
        if (o->handle.starter != iom.n || !o->opens || len + HANDLE_BYTES > MX_TRANSFER_MAX) continue;
        if (!b) b = buf_new(m->env->mem, MX_TRANSFER_MAX);
        handle_put(b->data + len, o->handle);
        len += HANDLE_BYTES;
    }
    if (!b) return;
    msg_set_payload(q, (struct slice){b, 0, len});
    buf_unref(b);
}

static err co_session_open(struct mx *m, struct mx_op *op, iom_id iom) {
    struct mx_iom *i = &m->iom[iom.n];
    uint64_t epoch = m->map.epoch;
    err e = i->session ? OK : co_session_say(m, op, iom, session_msg(m, MSG_SESSION_OPEN));
    if (e) return e;
    struct msg *q = renew_msg(m, iom);
    name_opens(m, iom, q);
    e = co_session_say(m, op, iom, q);
    i->session = e == OK || (i->session && e != ERR_SESSION);
    if (!e) i->session_epoch = epoch;
    return e;
}

err co_mx_session(struct mx *m, struct mx_op *op, iom_id iom) {
    struct mx_iom *i = &m->iom[iom.n];
    uint64_t pause_ns = MSEC(2);
    while (!i->session || i->session_epoch != m->map.epoch) {
        err e = co_mx_map_wait(m, op);
        if (e) return e;
        co_lock(m->env, &i->opening, "mx: session");
        if (i->session && i->session_epoch == m->map.epoch) {
            co_unlock(m->env, &i->opening);
            return OK;
        }
        e = co_session_open(m, op, iom);
        co_unlock(m->env, &i->opening);
        if (!e) return OK;
        if (!err_again(e)) return e;
        mx_map_stale(m);
        e = co_mx_pause(m, op, pause_ns);
        if (e) return e;
        pause_ns = MIN(pause_ns * 2, MX_PAUSE_MAX_NS);
    }
    return OK;
}

void mx_session_lost(struct mx *m, iom_id iom) { m->iom[iom.n].session = false; }

// Keeps the leases of the sessions: a third of the lease between two rounds.
void mx_renewer(void *arg) {
    struct mx *m = arg;
    m->renewer_runs = true;
    while (!m->stopping) {
        struct mx_op op = {0};
        mx_op_begin(m, &op);
        uint64_t now_ns = env_now_ns(m->env);
        mx_objects_expire(m, now_ns - MIN(now_ns, MX_IDLE_NS));
        for (uint8_t i = 0; i < m->config.array_ioms && !m->stopping; i++) {
            if (!m->iom[i].session || !map_serves(m)) continue;
            if (m->iom[i].session_epoch != m->map.epoch) { // the first RENEW of an epoch names what is open: a bare one would let it go
                op.since_ns = env_now_ns(m->env);
                (void)!co_mx_session(m, &op, (iom_id){i});
                continue;
            }
            struct msg *reply;
            struct call_opts o = {.deadline_ns = env_now_ns(m->env) + SEC(5)};
            err e = co_call(m->iom[i].peer, session_msg(m, MSG_SESSION_RENEW), &o, &reply);
            msg_free(reply);
            if (e == ERR_SESSION) mx_session_lost(m, (iom_id){i});
            else if (err_again(e)) mx_map_stale(m); // an idle MX learns of a new epoch, and names its opens
            if (!e || m->stopping) continue;
            op.since_ns = env_now_ns(m->env);
            if (!list_empty(&m->object_list) && co_mx_session(m, &op, (iom_id){i})) continue;
        }
        if (!m->stopping) co_wait_until(m->env, &m->map_news, env_now_ns(m->env) + SEC(15), "mx: until sessions are renewed");
    }
    m->renewer_runs = false;
    wake_waiting(m);
}
