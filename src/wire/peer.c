// The connecting side: paths to other nodes, and calls over them.
//
// A path:   idle --path_want--> connecting --opened--> greeting --WELCOME--> open
//             ^                    |                      |                    |
//             └── retry time ── waiting <----- lost ------┴--------------------┘
//
// An attempt that fails ends the calls that waited for it, with its cause, so that who asks can look elsewhere; a call
// made while waiting lasts until the next attempt: retrying in a loop costs no more than the backoff allows.
// A call that was sent and whose connection is lost ends with ERR_CONN: only the caller knows whether it may be
// repeated.
#include "wire/hub_internal.h"

#define BACKOFF_MIN_MS 5u
#define BACKOFF_MAX_MS 200u

struct call {            // on the stack of its task
    struct list node;    // in peer->waiting until sent
    struct peer *peer;
    struct msg *req;     // until sent
    uint64_t xid;
    uint64_t addressed;  // the incarnation known when it was made; 0: none
    struct waitq *q, own;
    bool done;
    err result;
    struct msg *reply;
};

static void call_end(struct env *e, struct call *c, err result) {
    list_remove(&c->node);
    msg_free(c->req);
    c->req = NULL;
    c->result = result;
    c->done = true;
    waitq_wake_all(e, c->q);
}

static void calls_end_waiting(struct peer *p, err why) {
    for (struct list *n; (n = list_pop_front(&p->waiting));)
        call_end(p->hub->env, LIST_ENTRY(n, struct call, node), why);
}

static void calls_end_sent(struct peer *p, err why) {
    MAP_FOR(&p->sent, it) {
        map_del(&p->sent, it.key);
        call_end(p->hub->env, it.value, why);
    }
}

// Whoever was to answer may have lost its power, and then nothing says so: a connection without traffic stays up. The new epoch does.
void peer_overtaken(struct peer *p) { calls_end_sent(p, ERR_CONN); }

static void call_send(struct peer *p, struct call *c) {
    list_remove(&c->node);
    map_put(&p->sent, c->xid, c);
    struct msg *m = c->req;
    c->req = NULL;
    conn_send(p->data.link->conn, m);
}

// ---- paths ----------------------------------------------------------------------------------------------------------
void path_init(struct path *p, struct peer *peer, enum link_role role) {
    *p = (struct path){.peer = peer, .role = role};
    list_init(&p->kept);
}

static void path_opened(struct conn *c) {
    struct link *l = c->ctx;
    conn_send(c, greeting_make(l->hub, MSG_HELLO, l->role, l->path->peer->iom));
}

static void path_retry(void *arg) {
    struct path *p = arg;
    if (!p->link) path_want(p);
}

// Casts do not wait, but for the few that are kept: what asks for the cast path comes again anyway.
static bool path_needed(const struct path *p) {
    if (p->role == LINK_CAST) return p->kept_len;
    return !list_empty(&p->peer->waiting) || stream_out_waits(p->peer);
}

static const char *path_address(const struct path *p) {
    return p->role == LINK_DATA && p->peer->served_at ? p->peer->served_at : p->peer->at;
}

void path_want(struct path *p) {
    static const struct net_events events = {path_opened, link_message, link_closed};
    struct peer *peer = p->peer;
    struct env *e = peer->hub->env;
    if (p->link) return;
    if (env_now_ns(e) < p->not_before_ns) {
        if (path_needed(p)) timer_set(e, &p->retry, p->not_before_ns, path_retry, p);
        return;
    }
    timer_cancel(e, &p->retry);
    const struct hub_deaths *d = &peer->hub->deaths;
    p->sought = d->known && peer->iom != NO_IOM && p->role == LINK_CAST ? d->known(d->ctx, peer->iom) : 0;
    p->link = link_new(peer->hub, p, p->role);
    p->link->conn = net_connect(e, path_address(p), &events, p->link);
}

// Out of turn: at once, then after 1, 2, 4 ms. A process that is being ended may still accept and then close. The next
// such series begins LOOK_AGAIN_NS later at the earliest, whatever becomes of the connections.
#define LOOKS_MAX 4u
#define LOOK_AGAIN_NS MSEC(10)

static void path_look(struct path *p, bool anew) {
    struct env *e = p->peer->hub->env;
    uint64_t now = env_now_ns(e);
    if (!p->peer->hub->deaths.dead || p->peer->iom == NO_IOM || p->link) return;
    if (anew && (!p->looked_ns || now - p->looked_ns >= LOOK_AGAIN_NS)) {
        p->looks_left = LOOKS_MAX;
        p->looked_ns = now;
    }
    if (p->looks_left) {
        uint32_t made = LOOKS_MAX - p->looks_left--;
        p->not_before_ns = now + (made ? MSEC(1) << (made - 1) : 0);
    } else if (anew) {
        p->not_before_ns = p->looked_ns + LOOK_AGAIN_NS;
    } else {
        return;
    }
    timer_set(e, &p->retry, p->not_before_ns, path_retry, p);
}

void peer_look(struct peer *p) { path_look(&p->cast, true); }

void peer_is_nobody(struct peer *p) {
    const struct hub_deaths *d = &p->hub->deaths;
    if (d->dead && p->cast.sought) d->dead(d->ctx, p->iom, p->cast.sought);
}

// ---- casts for a connection that is being made
#define KEPT_MAX 16u
#define KEPT_NS MSEC(50) // what is older says nothing any more

static void kept_drop(struct path *p) {
    for (struct list *n; (n = list_pop_front(&p->kept));) msg_free(LIST_ENTRY(n, struct msg, node));
    p->kept_len = 0;
}

static void kept_add(struct path *p, struct msg *m) {
    uint64_t now = env_now_ns(p->peer->hub->env);
    if (p->kept_len && now - p->kept_ns >= KEPT_NS) kept_drop(p);
    if (!p->kept_len) p->kept_ns = now;
    if (p->kept_len == KEPT_MAX) {
        msg_free(m);
        return;
    }
    list_push_back(&p->kept, &m->node);
    p->kept_len++;
}

void path_send_kept(struct path *p) {
    if (env_now_ns(p->peer->hub->env) - p->kept_ns >= KEPT_NS) kept_drop(p);
    for (struct list *n; (n = list_pop_front(&p->kept));) conn_send(p->link->conn, LIST_ENTRY(n, struct msg, node));
    p->kept_len = 0;
}

void peer_met(struct peer *p) {
    const struct hub_deaths *d = &p->hub->deaths;
    if (d->met && p->iom != NO_IOM) d->met(d->ctx, p->iom);
}

void path_lost(struct path *p, bool greeted, err why) {
    struct peer *peer = p->peer;
    struct env *e = peer->hub->env;
    p->link = NULL;
    p->backoff_ms = p->backoff_ms ? MIN(2 * p->backoff_ms, BACKOFF_MAX_MS) : BACKOFF_MIN_MS;
    uint64_t wait_ns = MSEC(p->backoff_ms);
    p->not_before_ns = env_now_ns(e) + wait_ns - env_random(e) % (wait_ns / 4); // not all at one instant
    if (p->role == LINK_CAST) {
        if (why == ERR_TIMEOUT || why == ERR_REFUSED) kept_drop(p);
        else path_look(p, greeted);
        if (path_needed(p)) path_want(p);
        return;
    }
    stream_out_lost(peer);
    calls_end_sent(peer, ERR_CONN);
    if (!greeted) calls_end_waiting(peer, why == ERR_TIMEOUT ? ERR_CONN : why);
    if (path_needed(p)) path_want(p);
}

// ---- peers ----------------------------------------------------------------------------------------------------------
static struct peer *peer_new(struct hub *h, uint8_t iom, const char *at) {
    struct peer *p = mem_alloc(h->env->mem, sizeof *p);
    p->hub = h;
    p->iom = iom;
    p->at = mem_strdup(h->env->mem, at);
    path_init(&p->data, p, LINK_DATA);
    path_init(&p->cast, p, LINK_CAST);
    list_init(&p->waiting);
    map_init(&p->sent, h->env->mem);
    stream_out_init(&p->out);
    list_push_back(&h->peers, &p->node);
    return p;
}

static void path_close(struct path *p) {
    kept_drop(p);
    if (p->link) link_end(p->link, ERR_CONN, true);
    timer_cancel(p->peer->hub->env, &p->retry);
}

void peer_free(struct peer *p) {
    struct mem *mem = p->hub->env->mem;
    calls_end_waiting(p, ERR_CONN);
    stream_out_reset(p);
    path_close(&p->data);
    path_close(&p->cast);
    if (p->iom != NO_IOM) p->hub->by_iom[p->iom] = NULL;
    list_remove(&p->node);
    map_fini(&p->sent);
    mem_free(mem, p->at);
    mem_free(mem, p->served_at);
    mem_free(mem, p);
}

static void path_leads_elsewhere(struct path *p) {
    path_close(p);
    p->not_before_ns = 0;
    if (path_needed(p)) path_want(p);
}

static void peer_move(struct peer *p, const char *at) {
    if (!strcmp(p->at, at)) return;
    mem_free(p->hub->env->mem, p->at);
    p->at = mem_strdup(p->hub->env->mem, at);
    path_leads_elsewhere(&p->cast);
    if (!p->served_at) path_leads_elsewhere(&p->data);
}

void hub_redirect(struct hub *h, iom_id iom, const char *at) {
    struct peer *p = h->by_iom[iom.n];
    ASSERT(p);
    if (at && p->served_at ? !strcmp(p->served_at, at) : !at && !p->served_at) return;
    mem_free(h->env->mem, p->served_at);
    p->served_at = at ? mem_strdup(h->env->mem, at) : NULL;
    path_leads_elsewhere(&p->data);
    p->known = p->out.remote_epoch = 0; // of whom we talked to
    stream_out_reset(p);
    stream_in_reset(h, iom.n);
}

struct peer *hub_peer(struct hub *h, iom_id iom, const char *at) {
    ASSERT(iom.n < ARRAY_IOMS_MAX && !(h->cfg.self.kind == NODE_IOM && h->cfg.self.iom == iom.n));
    if (!h->by_iom[iom.n]) h->by_iom[iom.n] = peer_new(h, iom.n, at);
    else peer_move(h->by_iom[iom.n], at);
    return h->by_iom[iom.n];
}

struct peer *hub_peer_at(struct hub *h, const char *at) {
    LIST_FOR(&h->peers, n) {
        struct peer *p = LIST_ENTRY(n, struct peer, node);
        if (p->iom == NO_IOM && !strcmp(p->at, at)) return p;
    }
    return peer_new(h, NO_IOM, at);
}

bool peer_connected(const struct peer *p) { return p->data.link && p->data.link->greeted; }

// A call made when another incarnation was known is not this one's business.
void peer_welcomed(struct peer *p, const struct greeting *g) {
    uint64_t incarnation = le64_get(g->incarnation);
    p->known = incarnation;
    stream_out_welcomed(p, g);
    LIST_FOR_SAFE(&p->waiting, n) {
        struct call *c = LIST_ENTRY(n, struct call, node);
        if (c->addressed && c->addressed != incarnation) call_end(p->hub->env, c, ERR_RESTARTED);
        else call_send(p, c);
    }
}

// A machine that lost its power closed nothing, and over the connection to it, where only posts go that wait for it to join our epoch, nothing would ever be
// sent that it could refuse.
static void end_if_older(struct path *path, const uint8_t id[16], uint64_t incarnation) {
    struct link *l = path->link;
    if (l && l->greeted && !memcmp(l->who.id, id, 16) && l->who.incarnation < incarnation) link_end(l, ERR_CONN, true);
}

// What began while the machine had no power may wait for an answer much longer than for a new attempt.
#define STUCK_NS MSEC(20)

static void begin_again_if_stuck(struct path *p) {
    struct link *l = p->link;
    struct hub *h = p->peer->hub;
    if (!h->deaths.dead || !l || l->greeted) return;
    if (env_now_ns(h->env) + GREETING_LIMIT_NS < l->greeting.at_ns + STUCK_NS) return;
    link_end(l, ERR_CONN, true);
    if (p->link) return;
    p->not_before_ns = 0;
    path_want(p);
}

void peer_alive(struct peer *p, const uint8_t id[16], uint64_t incarnation) {
    end_if_older(&p->data, id, incarnation);
    end_if_older(&p->cast, id, incarnation);
    begin_again_if_stuck(&p->data);
    begin_again_if_stuck(&p->cast);
}

void peer_reply(struct peer *p, struct msg *m) {
    struct call *c = map_del(&p->sent, le64_get(msg_envelope(m)->seq));
    if (!c) { // the caller has given up
        msg_free(m);
        return;
    }
    uint32_t result = le32_get(msg_envelope(m)->result);
    c->reply = m;
    call_end(p->hub->env, c, result < ERR_COUNT ? (err)result : ERR_FORMAT);
}

// ---- calls ----------------------------------------------------------------------------------------------------------
static void call_give_up(struct call *c, err why) {
    map_del(&c->peer->sent, c->xid);
    list_remove(&c->node);
    msg_free(c->req);
    c->result = why;
}

static void co_call_wait(struct env *e, struct call *c, const struct call_opts *o) {
    while (!c->done) {
        if (o && o->cancelled && *o->cancelled) {
            call_give_up(c, ERR_INTR);
            return;
        }
        if (!o || !o->deadline_ns) {
            co_wait(e, c->q, "the reply to a call");
        } else if (!co_wait_until(e, c->q, o->deadline_ns, "the reply to a call") && !c->done) {
            call_give_up(c, ERR_TIMEOUT);
            return;
        }
    }
}

err co_call(struct peer *p, struct msg *req, const struct call_opts *o, struct msg **reply) {
    struct env *e = p->hub->env;
    struct call c = {.peer = p, .req = req, .xid = ++p->hub->xid};
    if (p->iom != NO_IOM) c.addressed = p->known;
    waitq_init(&c.own);
    c.q = o && o->cancel ? o->cancel : &c.own;
    list_init(&c.node);
    msg_envelope(req)->seq = le64_of(c.xid);
    if (peer_connected(p)) {
        call_send(p, &c);
    } else {
        list_push_back(&p->waiting, &c.node);
        path_want(&p->data);
    }
    co_call_wait(e, &c, o);
    *reply = NULL;
    if (c.result == OK) *reply = c.reply;
    else msg_free(c.reply);
    return c.result;
}

// ---- casts ----------------------------------------------------------------------------------------------------------
#define CAST_QUEUE_MAX_BYTES KIB(64) // who does not read gets no more: the newest heartbeat is the one that counts

void hub_cast(struct peer *p, struct msg *m) {
    struct link *l = p->cast.link;
    if (l && l->greeted && conn_queued_bytes(l->conn) < CAST_QUEUE_MAX_BYTES) {
        conn_send(l->conn, m);
        return;
    }
    if (p->hub->deaths.dead && p->iom != NO_IOM && !(l && l->greeted)) kept_add(&p->cast, m);
    else msg_free(m);
    if (!l) path_want(&p->cast);
}
