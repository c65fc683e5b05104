// The hub: all connections of a node, and what comes in over those that others made to us.
//
// Callbacks of the owner come from the loop's turn, one at a time; they may call anything here but hub_destroy. They
// may thereby end the very link that delivers, so nothing of a link is touched after a callback.
#include "wire/hub_internal.h"

// ---- links ----------------------------------------------------------------------------------------------------------
static void greeting_late(void *arg) { link_end(arg, ERR_TIMEOUT, true); }

struct link *link_new(struct hub *h, struct path *path, enum link_role role) {
    struct link *l = mem_alloc(h->env->mem, sizeof *l);
    list_init(&l->node);
    list_init(&l->inbounds);
    l->hub = h;
    l->path = path;
    l->role = role;
    timer_set(h->env, &l->greeting, env_now_ns(h->env) + GREETING_LIMIT_NS, greeting_late, l);
    return l;
}

static void orphan_inbounds(struct link *l) {
    for (struct list *n; (n = list_pop_front(&l->inbounds));) LIST_ENTRY(n, struct inbound, node)->conn = NULL;
}

// close: the connection still stands and is closed here; else the world has told us that it is gone.
void link_end(struct link *l, err why, bool close) {
    struct hub *h = l->hub;
    timer_cancel(h->env, &l->greeting);
    if (close) conn_close(l->conn);
    orphan_inbounds(l);
    list_remove(&l->node);
    struct path *path = l->path;
    struct node_name who = l->who;
    bool greeted = l->greeted, tell = greeted && !path && l->role == LINK_DATA && !l->replaced;
    if (!path && who.kind == NODE_IOM && h->in[who.iom].link == l) h->in[who.iom].link = NULL;
    bool look = greeted && !path && !l->replaced && who.kind == NODE_IOM && h->by_iom[who.iom];
    mem_free(h->env->mem, l);
    if (look) peer_look(h->by_iom[who.iom]);
    if (path) path_lost(path, greeted, why);
    else if (tell && h->cfg.events.gone) h->cfg.events.gone(h->cfg.events.ctx, &who);
}

void link_closed(struct conn *c, err why) {
    struct link *l = c->ctx;
    struct path *path = l->path;
    bool nobody = c->nobody && path;
    link_end(l, why, false);
    if (nobody && path->role == LINK_CAST) peer_is_nobody(path->peer);
}

// ---- what others send -----------------------------------------------------------------------------------------------
static void link_garbage(struct link *l, struct msg *m) {
    LOG(l->hub->env, TRACE_WARN, "closed a connection of %s %u: a message of type %#x does not belong there (%u bytes)",
        l->who.kind == NODE_IOM ? "IOM" : l->who.kind == NODE_MX ? "MX" : "tool", l->who.iom, m->type, m->body_len);
    msg_free(m);
    link_end(l, ERR_FORMAT, true);
}

static void take_call(struct link *l, struct msg *m) {
    struct hub *h = l->hub;
    const struct hub_events *ev = &h->cfg.events;
    struct inbound *in = mem_alloc(h->env->mem, sizeof *in);
    *in = (struct inbound){.hub = h, .from = l->who, .m = m, .conn = l->conn};
    in->xid = le64_get(msg_envelope(m)->seq);
    in->epoch = le64_get(msg_envelope(m)->epoch);
    list_push_back(&l->inbounds, &in->node);
    bool any = ev->any_epoch && ev->any_epoch(ev->ctx, m->type);
    if (!ev->call) hub_reply(in, NULL, ERR_NOTSUP);
    else if (in->epoch != h->epoch && !any) hub_reply(in, NULL, ERR_EPOCH);
    else ev->call(ev->ctx, in);
}

static void take_cast(struct link *l, struct msg *m) {
    const struct hub_events *ev = &l->hub->cfg.events;
    if (ev->cast) ev->cast(ev->ctx, &l->who, m);
    else msg_free(m);
}

static void accepted_message(struct link *l, struct msg *m) {
    if (m->body_len < sizeof(struct envelope) || (m->type & MSG_REPLY)) link_garbage(l, m);
    else if (l->role == LINK_CAST) take_cast(l, m);
    else if (m->type < MSG_POST_FIRST) take_call(l, m);
    else if (l->who.kind == NODE_IOM) stream_in_post(l, m);
    else link_garbage(l, m);
}

static void own_message(struct link *l, struct msg *m) {
    struct peer *p = l->path->peer;
    if (m->body_len < sizeof(struct envelope) || l->role != LINK_DATA) link_garbage(l, m);
    else if (m->type & MSG_REPLY) peer_reply(p, m);
    else if (m->type == MSG_POST_ACK) stream_out_told(p, m);
    else link_garbage(l, m);
}

void link_message(struct conn *c, struct msg *m) {
    struct link *l = c->ctx;
    if (!l->greeted && l->path) greet_answer(l, m);
    else if (!l->greeted) greet_hello(l, m);
    else if (l->path) own_message(l, m);
    else accepted_message(l, m);
}

static void accepted(struct conn *c) {
    struct hub *h = c->ctx;
    struct link *l = link_new(h, NULL, LINK_DATA);
    l->conn = c;
    c->ctx = l;
    list_push_back(&h->accepted, &l->node);
}

// ---- the hub --------------------------------------------------------------------------------------------------------
struct hub *hub_create(struct env *e, const struct hub_config *c) {
    struct hub *h = mem_alloc(e->mem, sizeof *h);
    h->env = e;
    h->cfg = *c;
    list_init(&h->accepted);
    list_init(&h->peers);
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) {
        h->in[i].hub = h;
        h->in[i].iom = i;
        stream_in_reset(h, i);
    }
    return h;
}

err hub_listen(struct hub *h, const char *at) {
    static const struct net_events events = {accepted, link_message, link_closed};
    ASSERT(h->listeners_len < HUB_LISTENERS_MAX);
    err r = net_listen(h->env, at, &events, h, &h->listeners[h->listeners_len]);
    if (r == OK) h->listeners_len++;
    return r;
}

static void end_accepted(struct hub *h) {
    while (!list_empty(&h->accepted)) {
        struct link *l = LIST_ENTRY(h->accepted.next, struct link, node);
        l->replaced = true; // our own doing: nobody is told
        link_end(l, ERR_CONN, true);
    }
}

void hub_destroy(struct hub *h) {
    for (uint32_t i = 0; i < h->listeners_len; i++) net_unlisten(h->listeners[i]);
    end_accepted(h);
    while (!list_empty(&h->peers)) peer_free(LIST_ENTRY(h->peers.next, struct peer, node));
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) stream_in_reset(h, i);
    mem_free(h->env->mem, h);
}

void hub_tell_deaths(struct hub *h, const struct hub_deaths *d) { h->deaths = d ? *d : (struct hub_deaths){0}; }
uint64_t hub_epoch(const struct hub *h) { return h->epoch; }

void hub_set_epoch(struct hub *h, uint64_t epoch) {
    if (epoch == h->epoch) return;
    h->epoch = epoch;
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) {
        stream_in_reset(h, i);
        if (h->by_iom[i]) stream_out_reset(h->by_iom[i]);
    }
    LIST_FOR(&h->peers, n) peer_overtaken(LIST_ENTRY(n, struct peer, node));
    LIST_FOR(&h->accepted, n) {
        struct link *l = LIST_ENTRY(n, struct link, node);
        if (l->greeted && l->role == LINK_DATA && l->who.kind == NODE_IOM) stream_tell_epoch(l);
    }
}

// Everybody who talked to the old incarnation must learn that it is gone, so accepted connections close too.
void hub_set_incarnation(struct hub *h, uint64_t incarnation) {
    if (h->cfg.self.incarnation == incarnation) return;
    h->cfg.self.incarnation = incarnation;
    end_accepted(h);
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) {
        stream_in_reset(h, i);
        if (h->by_iom[i]) stream_out_reset(h->by_iom[i]);
    }
    LIST_FOR(&h->peers, n) {
        struct peer *p = LIST_ENTRY(n, struct peer, node);
        if (p->data.link) link_end(p->data.link, ERR_CONN, true);
        if (p->cast.link) link_end(p->cast.link, ERR_CONN, true);
    }
}

struct msg *hub_msg(struct hub *h, uint16_t type, uint32_t body_len) {
    ASSERT(body_len >= sizeof(struct envelope));
    struct msg *m = msg_new(h->env->mem, type, body_len);
    msg_envelope(m)->epoch = le64_of(h->epoch);
    return m;
}

// ---- answers --------------------------------------------------------------------------------------------------------
struct msg *inbound_reply(struct inbound *in, uint32_t body_len) {
    ASSERT(body_len >= sizeof(struct envelope));
    return msg_new(in->m->mem, in->m->type | MSG_REPLY, body_len);
}

void hub_drop(struct inbound *in) {
    struct mem *mem = in->m->mem;
    list_remove(&in->node);
    msg_free(in->m);
    mem_free(mem, in);
}

void hub_reply(struct inbound *in, struct msg *reply, err result) {
    if (in->conn) {
        if (!reply) reply = inbound_reply(in, sizeof(struct envelope));
        struct envelope *v = msg_envelope(reply);
        v->epoch = le64_of(in->hub->epoch);
        v->seq = le64_of(in->xid);
        v->result = le32_of(result);
        conn_send(in->conn, reply);
    } else {
        msg_free(reply);
    }
    hub_drop(in);
}
