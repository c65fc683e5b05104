// The simulated network: wires between two nodes, made of two pipes, each an ordered queue of packets.
//
//     end[0] (who connected)  --pipe[0]-->  end[1] (who accepted; NULL until the SYN has arrived)
//                             <--pipe[1]--
//
//     SYN      makes end[1], which answers SYNACK; or is refused with a FIN
//     SYNACK   opens end[0]; what it sent early goes out now
//     MSG      a message, already a copy in the memory of its receiver
//     FIN      the last of a pipe: the end that gets it is closed
//
// Only the head of a pipe has an event. A pipe stands still while its link is cut or its receiver is paused. An end is
// gone after conn_close, closed() or the death of its node; what arrives for an end that is gone is answered with a FIN
// if its machine runs, and with silence if it has no power. A wire without ends is freed.
#include "sim/inside.h"

#define PACKET_HEAD_BYTES 64u // of a frame on the line, beside its body and payload
#define PAUSED_POLL_NS MSEC(50) // a paused node hears of a timeout at most so long after it goes on

enum packet_kind { PACKET_SYN, PACKET_SYNACK, PACKET_MSG, PACKET_FIN };

struct packet {
    struct list node;
    enum packet_kind kind;
    err why;            // FIN
    struct msg *msg;    // MSG: of the receiver's memory; NULL if there is no receiver any more
    uint64_t bytes, arrive_ns;
};

struct pipe {
    struct event arrive, give_up;
    struct wire *wire;
    int side; // of the sender
    struct list packets;
    uint64_t queued_bytes, last_ns;
    bool fin;        // one was sent: nothing follows
    bool accepted;   // the SYN at the head has made its end already; the node is paused and not told yet
    bool unanswered; // something was sent to a machine without power
};

struct wire {
    struct list node; // in world->wires
    struct world *world;
    struct node *at[2];
    struct sim_conn *end[2];
    struct pipe pipe[2]; // [i]: from end i
    char *address; // what was connected to
    struct event connect_timeout;
    bool broken;   // reset: what is sent now is dropped
    uint32_t busy; // a packet is being delivered: not freed meanwhile
};

struct sim_conn { // in the memory of its node
    struct conn base;
    struct list node; // in node->conns
    struct node *n;
    struct wire *wire;
    int side;
    bool open, closing; // closing: closed() is being called
    struct list early; // messages sent before it opened
    uint64_t early_bytes;
};

struct sim_listener { // in the memory of its node
    struct listener base;
    struct list node; // in node->listeners
    struct node *n;
    const char *at;
    const struct net_events *events;
    void *ctx;
};

// ---- pipes ----------------------------------------------------------------------------------------------------------
static struct node *pipe_from(const struct pipe *p) { return p->wire->at[p->side]; }
static struct node *pipe_to(const struct pipe *p) { return p->wire->at[1 - p->side]; }
static struct sim_conn *pipe_receiver(const struct pipe *p) { return p->wire->end[1 - p->side]; }
static struct packet *packet_of(struct list *l) { return LIST_ENTRY(l, struct packet, node); }

static bool pipe_is_cut(const struct pipe *p) {
    const struct node *from = pipe_from(p), *to = pipe_to(p);
    return from && to && (from->cut_to >> to->index & 1);
}

static bool pipe_stands_still(const struct pipe *p) {
    const struct node *to = pipe_to(p);
    if (list_empty(&p->packets) || pipe_is_cut(p)) return true;
    if (to == NULL || to->state != NODE_PAUSED) return false;
    return p->accepted || packet_of(p->packets.next)->kind != PACKET_SYN; // its kernel accepts
}

static void pipe_watch(struct world *w, struct pipe *p) {
    bool waits = p->wire->end[p->side] && (p->unanswered || (pipe_is_cut(p) && !list_empty(&p->packets)));
    if (!waits) event_clear(w, &p->give_up);
    else if (p->give_up.index == 0) event_set(w, &p->give_up, w->now_ns + w->opt.net_give_up_ns);
}

static void pipe_schedule(struct pipe *p) {
    struct world *w = p->wire->world;
    pipe_watch(w, p);
    if (pipe_stands_still(p)) {
        event_clear(w, &p->arrive);
        return;
    }
    uint64_t at_ns = MAX(packet_of(p->packets.next)->arrive_ns, w->now_ns);
    if (p->arrive.index == 0 || p->arrive.at_ns != at_ns) event_set(w, &p->arrive, at_ns);
}

static struct packet *packet_new(struct world *w, enum packet_kind kind) {
    struct list *l = list_pop_front(&w->idle_packets);
    struct packet *k = l ? packet_of(l) : world_alloc(sizeof *k);
    *k = (struct packet){.kind = kind, .bytes = PACKET_HEAD_BYTES};
    list_init(&k->node);
    return k;
}

static void packet_free(struct world *w, struct packet *k) {
    msg_free(k->msg);
    list_remove(&k->node);
    list_push_front(&w->idle_packets, &k->node);
}

static uint64_t pipe_slow(const struct pipe *p) {
    const struct node *from = pipe_from(p), *to = pipe_to(p);
    return MAX(1u, MAX(from ? from->slow_links : 0, to ? to->slow_links : 0));
}

static void pipe_push(struct pipe *p, struct packet *k, uint64_t later_ns) {
    struct world *w = p->wire->world;
    const struct world_options *o = &w->opt;
    struct node *from = pipe_from(p);
    uint64_t out_ns = w->now_ns;
    if (from) {
        out_ns = from->line_free_ns = MAX(from->line_free_ns, w->now_ns) + (k->bytes * o->net_ns_per_kib >> 10);
    }
    out_ns += later_ns + pipe_slow(p) * world_delay_ns(w, o->net_min_ns, o->net_max_ns, o->net_spike_ppm, o->net_spike_ns);
    k->arrive_ns = p->last_ns = MAX(out_ns, p->last_ns);
    p->queued_bytes += k->bytes;
    bool first = list_empty(&p->packets);
    list_push_back(&p->packets, &k->node);
    if (first) pipe_schedule(p);
}

static void pipe_push_fin(struct pipe *p, err why, uint64_t later_ns) {
    if (p->fin) return;
    struct packet *k = packet_new(p->wire->world, PACKET_FIN);
    k->why = why;
    p->fin = true;
    pipe_push(p, k, later_ns);
}

static void pipe_drop(struct pipe *p, struct packet *k) {
    p->queued_bytes -= k->bytes;
    packet_free(p->wire->world, k);
}

static void pipe_drop_all(struct pipe *p) {
    while (!list_empty(&p->packets)) pipe_drop(p, packet_of(p->packets.next));
    p->fin = p->accepted = false;
    pipe_schedule(p);
}

// Some of the messages at its end never arrive.
static void pipe_lose_suffix(struct pipe *p) {
    uint32_t count = 0;
    for (struct list *l = p->packets.prev; l != &p->packets && packet_of(l)->kind == PACKET_MSG; l = l->prev) count++;
    if (count == 0) return;
    for (uint64_t lost = world_random_below(p->wire->world, count + 1); lost > 0; lost--)
        pipe_drop(p, packet_of(p->packets.prev));
    pipe_schedule(p);
}

// Its receiver is gone, and the memory of the messages with it.
static void pipe_disown(struct pipe *p) {
    if (p->accepted) { // the SYN was delivered to who is gone
        p->accepted = false;
        pipe_drop(p, packet_of(p->packets.next));
        pipe_schedule(p);
    }
    LIST_FOR(&p->packets, l) {
        msg_free(packet_of(l)->msg);
        packet_of(l)->msg = NULL;
    }
}

// ---- wires and ends -------------------------------------------------------------------------------------------------
static void pipe_arrive(struct world *w, struct event *ev);
static void pipe_give_up(struct world *w, struct event *ev);
static void wire_connect_timeout(struct world *w, struct event *ev);

static struct wire *wire_new(struct world *w, struct node *from, struct node *to, const char *address) {
    struct wire *x = world_alloc(sizeof *x);
    x->world = w;
    x->address = world_strdup(address);
    x->at[0] = from;
    x->at[1] = to;
    for (int i = 0; i < 2; i++) {
        struct pipe *p = &x->pipe[i];
        p->wire = x;
        p->side = i;
        p->arrive.fire = pipe_arrive;
        p->give_up.fire = pipe_give_up;
        list_init(&p->packets);
    }
    x->connect_timeout.fire = wire_connect_timeout;
    list_push_back(&w->wires, &x->node);
    return x;
}

static void wire_free(struct wire *x) {
    for (int i = 0; i < 2; i++) {
        pipe_drop_all(&x->pipe[i]);
        event_clear(x->world, &x->pipe[i].arrive);
        event_clear(x->world, &x->pipe[i].give_up);
    }
    event_clear(x->world, &x->connect_timeout);
    list_remove(&x->node);
    free(x->address);
    free(x);
}

static void wire_free_if_done(struct wire *x) {
    if (x->busy == 0 && x->end[0] == NULL && x->end[1] == NULL) wire_free(x);
}

static struct sim_conn *end_new(struct wire *x, int side, struct node *n, const struct net_events *ev, void *ctx) {
    struct sim_conn *c = mem_alloc(n->env.mem, sizeof *c);
    c->base = (struct conn){&n->env, ev, ctx, side == 1};
    c->n = n;
    c->wire = x;
    c->side = side;
    list_init(&c->early);
    list_push_back(&n->conns, &c->node);
    if (x) x->end[side] = c;
    return c;
}

// Takes the end off its wire and its node; c itself is left to the caller.
static void end_detach(struct sim_conn *c) {
    struct wire *x = c->wire;
    list_remove(&c->node);
    for (struct list *l; (l = list_pop_front(&c->early)) != NULL;) msg_free(LIST_ENTRY(l, struct msg, node));
    c->wire = NULL;
    if (x == NULL) return;
    x->end[c->side] = NULL;
    if (c->side == 0) event_clear(x->world, &x->connect_timeout);
    pipe_disown(&x->pipe[1 - c->side]);
    pipe_watch(x->world, &x->pipe[c->side]);
}

// The last event of a connection.
static void end_closed(struct sim_conn *c, err why) {
    struct node *n = c->n;
    c->base.nobody = why == ERR_REFUSED && c->wire->at[1]; // a machine has said so, not the lack of one
    end_detach(c);
    c->closing = true;
    ASSERT(n->state == NODE_RUNNING);
    node_enter(n);
    c->base.events->closed(&c->base, why);
    mem_free(n->env.mem, c);
    node_leave(n);
}

static void end_says_fin(struct sim_conn *c, uint64_t later_ns) {
    struct pipe *p = &c->wire->pipe[c->side];
    pipe_lose_suffix(p);
    pipe_push_fin(p, ERR_CONN, later_ns);
}

static void wire_connect_timeout(struct world *w, struct event *ev) {
    struct wire *x = CONTAINER_OF(ev, struct wire, connect_timeout);
    world_mix(w, 0xC077);
    struct sim_conn *c = x->end[0];
    if (c->n->state == NODE_PAUSED) {
        event_set(w, ev, w->now_ns + PAUSED_POLL_NS);
        return;
    }
    x->busy++;
    end_says_fin(c, 0);
    end_closed(c, ERR_TIMEOUT);
    x->busy--;
    wire_free_if_done(x);
}

static void pipe_give_up(struct world *w, struct event *ev) {
    struct pipe *p = CONTAINER_OF(ev, struct pipe, give_up);
    struct wire *x = p->wire;
    struct sim_conn *c = x->end[p->side];
    world_mix(w, 0x61FE);
    if (c->n->state == NODE_PAUSED) {
        event_set(w, ev, w->now_ns + PAUSED_POLL_NS);
        return;
    }
    x->busy++;
    p->unanswered = false;
    pipe_drop_all(p);
    end_closed(c, ERR_CONN);
    x->busy--;
    wire_free_if_done(x);
}

// ---- arrivals -------------------------------------------------------------------------------------------------------
static void send_now(struct sim_conn *c, struct msg *m);

static struct sim_listener *listener_at(struct node *n, const char *at) {
    LIST_FOR(&n->listeners, l) {
        struct sim_listener *s = LIST_ENTRY(l, struct sim_listener, node);
        if (strcmp(s->at, at) == 0) return s;
    }
    return NULL;
}

// Something came for an end that is gone.
static void pipe_answer_gone(struct pipe *p) {
    struct wire *x = p->wire;
    if (x->end[p->side] == NULL) return;
    if (pipe_to(p)->powered) pipe_push_fin(&x->pipe[1 - p->side], ERR_CONN, 0);
    else p->unanswered = true;
}

// The kernel's part of accepting: true if there is an end now that can be told.
static bool syn_accepted(struct pipe *p) {
    struct wire *x = p->wire;
    struct node *n = pipe_to(p);
    if (p->accepted) return true;
    if (!n->powered) return false;
    struct sim_listener *l = n->state == NODE_OFF ? NULL : listener_at(n, x->address);
    if (l == NULL) {
        pipe_push_fin(&x->pipe[1], ERR_REFUSED, 0);
        return false;
    }
    end_new(x, 1, n, l->events, l->ctx)->open = true;
    pipe_push(&x->pipe[1], packet_new(x->world, PACKET_SYNACK), 0);
    p->accepted = true;
    return true;
}

static void arrive_syn(struct pipe *p, struct packet *k) {
    bool told = syn_accepted(p);
    if (told && pipe_to(p)->state == NODE_PAUSED) return; // the packet stays at the head
    p->accepted = false;
    pipe_drop(p, k);
    if (!told) return;
    struct sim_conn *c = pipe_receiver(p);
    node_enter(c->n);
    c->base.events->opened(&c->base);
    node_leave(c->n);
}

static void arrive_synack(struct pipe *p) {
    struct sim_conn *c = pipe_receiver(p);
    if (c == NULL) {
        pipe_answer_gone(p);
        return;
    }
    struct node *n = c->n;
    event_clear(p->wire->world, &p->wire->connect_timeout);
    c->open = true;
    node_enter(n);
    for (struct list *l; (l = list_pop_front(&c->early)) != NULL;) send_now(c, LIST_ENTRY(l, struct msg, node));
    c->early_bytes = 0;
    if (n->doom == DOOM_NONE) c->base.events->opened(&c->base);
    node_leave(n);
}

static void arrive_msg(struct pipe *p, struct msg *m) {
    struct sim_conn *c = pipe_receiver(p);
    if (c == NULL) {
        ASSERT(m == NULL);
        pipe_answer_gone(p);
        return;
    }
    struct node *n = c->n;
    ASSERT(n->state == NODE_RUNNING && c->open && m->mem == n->env.mem);
    node_enter(n);
    c->base.events->message(&c->base, m);
    node_leave(n);
}

static void pipe_arrive(struct world *w, struct event *ev) {
    struct pipe *p = CONTAINER_OF(ev, struct pipe, arrive);
    struct wire *x = p->wire;
    ASSERT(!pipe_stands_still(p));
    struct packet *k = packet_of(p->packets.next);
    world_mix(w, k->kind | (uint64_t)pipe_to(p)->index << 8 | k->bytes << 16);
    x->busy++;
    if (k->kind == PACKET_SYN) {
        arrive_syn(p, k);
    } else {
        enum packet_kind kind = k->kind;
        struct msg *m = k->msg;
        err why = k->why;
        k->msg = NULL;
        pipe_drop(p, k);
        if (kind == PACKET_SYNACK) arrive_synack(p);
        else if (kind == PACKET_MSG) arrive_msg(p, m);
        else if (pipe_receiver(p)) end_closed(pipe_receiver(p), why);
    }
    x->busy--;
    pipe_schedule(p);
    wire_free_if_done(x);
}

// ---- env's operations -----------------------------------------------------------------------------------------------
static uint64_t msg_bytes(const struct msg *m) { return PACKET_HEAD_BYTES + m->body_len + m->payload.len_bytes; }

static void count_msg(struct world *w, const struct msg *m) {
    struct world_msg_counts *counts[] = {&w->msg_counts[m->type], &w->msg_total};
    for (int i = 0; i < 2; i++) {
        counts[i]->sent++;
        counts[i]->body_bytes += m->body_len;
        counts[i]->payload_bytes += m->payload.len_bytes;
    }
    world_mix(w, hash64(m->body, m->body_len, m->type));
    if (m->payload.len_bytes) world_mix(w, hash64(slice_data(m->payload), m->payload.len_bytes, 0));
}

static void wire_reset(struct wire *x) {
    if (x->broken || !x->end[0] || !x->end[1] || !x->end[0]->open || !x->end[1]->open) return;
    x->broken = true;
    for (int i = 0; i < 2; i++) {
        pipe_lose_suffix(&x->pipe[i]);
        pipe_push_fin(&x->pipe[i], ERR_CONN, 0);
    }
}

static void send_now(struct sim_conn *c, struct msg *m) {
    struct wire *x = c->wire;
    struct world *w = x->world;
    if (w->opt.on_msg && !x->broken && node_hears(c->n)) {
        node_enter(c->n);
        w->opt.on_msg(w->opt.ctx, c->n, x->at[1 - c->side], m);
        if (!node_leave(c->n)) return; // m goes with its memory
    }
    if (x->broken || !node_hears(c->n)) {
        msg_free(m);
        return;
    }
    count_msg(w, m);
    struct sim_conn *to = x->end[1 - c->side];
    struct packet *k = packet_new(w, PACKET_MSG);
    k->bytes = msg_bytes(m);
    k->msg = to ? msg_copy(to->n->env.mem, m, true) : NULL;
    msg_free(m);
    pipe_push(&x->pipe[c->side], k, 0);
    if (world_chance(w, w->opt.net_reset_ppm)) wire_reset(x);
}

void sim_conn_send(struct conn *base, struct msg *m) {
    struct sim_conn *c = CONTAINER_OF(base, struct sim_conn, base);
    ASSERT(!c->closing && m->mem == c->n->env.mem);
    if (!node_hears(c->n) || c->wire == NULL) {
        msg_free(m);
    } else if (c->open) {
        send_now(c, m);
    } else {
        c->early_bytes += msg_bytes(m);
        list_push_back(&c->early, &m->node);
    }
}

uint64_t sim_conn_queued_bytes(const struct conn *base) {
    const struct sim_conn *c = CONTAINER_OF(base, const struct sim_conn, base);
    return c->wire ? c->early_bytes + c->wire->pipe[c->side].queued_bytes : 0;
}

void sim_conn_close(struct conn *base) {
    struct sim_conn *c = CONTAINER_OF(base, struct sim_conn, base);
    struct wire *x = c->wire;
    ASSERT(!c->closing);
    if (!node_hears(c->n) || x == NULL) return; // dies in a moment
    end_says_fin(c, 0);
    end_detach(c);
    mem_free(c->n->env.mem, c);
    wire_free_if_done(x);
}

static struct node *node_at(struct world *w, const char *address) { // "NODE" or "NODE:PORT"
    size_t len = strcspn(address, ":");
    for (uint32_t i = 0; i < w->nodes_len; i++)
        if (strlen(w->nodes[i]->name) == len && strncmp(w->nodes[i]->name, address, len) == 0) return w->nodes[i];
    return NULL;
}

err sim_net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out) {
    struct node *n = node_of_env(e);
    if (node_at(n->world, at) != n) return ERR_INVAL;
    if (listener_at(n, at)) return ERR_BUSY;
    struct sim_listener *l = mem_alloc(e->mem, sizeof *l);
    *l = (struct sim_listener){.base = {e}, .n = n, .at = mem_strdup(e->mem, at), .events = ev, .ctx = ctx};
    list_push_back(&n->listeners, &l->node);
    *out = &l->base;
    return OK;
}

void sim_net_unlisten(struct env *e, struct listener *base) {
    struct sim_listener *l = CONTAINER_OF(base, struct sim_listener, base);
    list_remove(&l->node);
    mem_free(e->mem, (void *)(uintptr_t)l->at);
    mem_free(e->mem, l);
}

struct conn *sim_net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx) {
    struct node *n = node_of_env(e), *to = node_at(n->world, at);
    struct world *w = n->world;
    if (!node_hears(n)) return &end_new(NULL, 0, n, ev, ctx)->base;
    struct wire *x = wire_new(w, n, to, at);
    struct sim_conn *c = end_new(x, 0, n, ev, ctx);
    if (to) pipe_push(&x->pipe[0], packet_new(w, PACKET_SYN), 0);
    else pipe_push_fin(&x->pipe[1], ERR_REFUSED, 0);
    event_set(w, &x->connect_timeout, w->now_ns + w->opt.net_connect_ns);
    return &c->base;
}

// ---- nodes that die and come back -----------------------------------------------------------------------------------
void node_net_die(struct node *n, bool power) {
    uint64_t notice_ns = power ? n->world->opt.net_power_notice_ns : 0;
    while (!list_empty(&n->conns)) {
        struct sim_conn *c = LIST_ENTRY(n->conns.next, struct sim_conn, node);
        struct wire *x = c->wire;
        if (x && notice_ns != UINT64_MAX) end_says_fin(c, notice_ns);
        else if (x) pipe_lose_suffix(&x->pipe[c->side]);
        end_detach(c); // the rest of it goes with the node's memory
        if (x) wire_free_if_done(x);
    }
    list_init(&n->listeners);
}

void node_net_power_on(struct node *n) {
    LIST_FOR(&n->world->wires, l) {
        struct wire *x = LIST_ENTRY(l, struct wire, node);
        for (int i = 0; i < 2; i++) {
            struct pipe *p = &x->pipe[1 - i]; // towards n
            if (x->at[i] != n || !p->unanswered) continue;
            p->unanswered = false;
            pipe_watch(n->world, p);
            pipe_answer_gone(p);
        }
    }
}

void world_net_changed(struct world *w) {
    LIST_FOR(&w->wires, l) {
        struct wire *x = LIST_ENTRY(l, struct wire, node);
        for (int i = 0; i < 2; i++) pipe_schedule(&x->pipe[i]);
    }
}

void world_net_free(struct world *w) {
    ASSERT(list_empty(&w->wires));
    LIST_FOR_SAFE(&w->idle_packets, l) free(packet_of(l));
}

// ---- faults and counts ----------------------------------------------------------------------------------------------
void world_cut_link(struct node *from, struct node *to, bool one_way) {
    ASSERT(from != to);
    from->cut_to |= 1ull << to->index;
    if (!one_way) to->cut_to |= 1ull << from->index;
    world_mix(from->world, 0xC070000 + from->index * 256 + to->index * 2 + one_way);
    world_net_changed(from->world);
}

// What was held back sets out again, each pipe in its own time.
static void pipe_heal(struct pipe *p) {
    struct world *w = p->wire->world;
    if (list_empty(&p->packets)) return;
    struct packet *head = packet_of(p->packets.next);
    head->arrive_ns = MAX(head->arrive_ns, w->now_ns + world_random_below(w, w->opt.net_heal_max_ns + 1));
    pipe_schedule(p);
}

static void heal_direction(struct node *from, struct node *to) {
    uint64_t bit = 1ull << to->index;
    if (!(from->cut_to & bit)) return;
    from->cut_to &= ~bit;
    world_mix(from->world, 0x4EA1000 + from->index * 256 + to->index);
    LIST_FOR(&from->world->wires, l) {
        struct wire *x = LIST_ENTRY(l, struct wire, node);
        for (int i = 0; i < 2; i++)
            if (x->at[i] == from && x->at[1 - i] == to) pipe_heal(&x->pipe[i]);
    }
}

void world_heal_link(struct node *a, struct node *b) {
    heal_direction(a, b);
    heal_direction(b, a);
    world_net_changed(a->world);
}

void world_heal_all(struct world *w) {
    for (uint32_t i = 0; i < w->nodes_len; i++)
        for (uint32_t j = 0; j < w->nodes_len; j++) heal_direction(w->nodes[i], w->nodes[j]);
    world_net_changed(w);
}

void node_slow_links(struct node *n, uint32_t times) { n->slow_links = times; }

void world_isolate(struct node *n) {
    for (uint32_t i = 0; i < n->world->nodes_len; i++)
        if (n->world->nodes[i] != n) world_cut_link(n, n->world->nodes[i], false);
}

void world_reset_conns(struct node *a, struct node *b) {
    LIST_FOR(&a->world->wires, l) {
        struct wire *x = LIST_ENTRY(l, struct wire, node);
        if ((x->at[0] == a && x->at[1] == b) || (x->at[0] == b && x->at[1] == a)) wire_reset(x);
    }
}

struct world_msg_counts world_msg_counts(const struct world *w, uint16_t type) { return w->msg_counts[type]; }
struct world_msg_counts world_msg_total(const struct world *w) { return w->msg_total; }

void world_msg_counts_reset(struct world *w) {
    memset(w->msg_counts, 0, sizeof *w->msg_counts * (UINT16_MAX + 1));
    w->msg_total = (struct world_msg_counts){0};
}
