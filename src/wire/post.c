// Posts: one numbered stream from each IOM to each other, in order, exactly once between two incarnations in one epoch.
//
//   sender    unsent ──sent──> unacked ──told──> freed          connection lost: unacked goes back before unsent
//   receiver  takes only the next number; lower ones are repetitions, a higher one is a fault and closes the connection
//
// When may a post go out? Only to an incarnation that has told (WELCOME, or an ack when it changes) that it is in our
// epoch: earlier it would be refused, and the connection with it. Such an incarnation is the one this epoch admitted,
// so the stream is *bound* to it: if another one greets later in the same epoch, or the same one has forgotten numbers,
// the stream cannot be resumed. Then it stays silent until the next epoch, which is on its way: its heartbeats show it.
//
// Acks (type MSG_POST_ACK: epoch and next number expected) free memory, nothing waits for them. They ride on posts the
// other way (low 32 bits of the next number in the envelope's reserved field) or are sent after some posts or
// milliseconds.
#include "wire/hub_internal.h"

#define ACK_AFTER_POSTS 64u
#define ACK_AFTER_NS MSEC(5)

static uint64_t post_number(struct msg *m) { return le64_get(msg_envelope(m)->seq); }
static uint64_t post_bytes(const struct msg *m) { return sizeof *m + m->body_len + m->payload.len_bytes; }

// ---- sending --------------------------------------------------------------------------------------------------------
void stream_out_init(struct stream_out *s) {
    *s = (struct stream_out){.next = 1};
    list_init(&s->unacked);
    list_init(&s->unsent);
}

static void free_posts(struct list *l) {
    for (struct list *n; (n = list_pop_front(l));) msg_free(LIST_ENTRY(n, struct msg, node));
}

void stream_out_reset(struct peer *p) {
    struct stream_out *s = &p->out;
    uint64_t remote_epoch = s->remote_epoch;
    free_posts(&s->unacked);
    free_posts(&s->unsent);
    stream_out_init(s);
    s->remote_epoch = remote_epoch;
    if (peer_connected(p) && remote_epoch == p->hub->epoch) s->bound = p->known;
}

bool stream_out_waits(const struct peer *p) { return !list_empty(&p->out.unsent); }
uint64_t peer_post_backlog_bytes(const struct peer *p) { return p->out.backlog_bytes; }

static void break_stream(struct peer *p, const char *why) {
    LOG(p->hub->env, TRACE_WARN, "the stream to IOM %u at %s cannot be resumed in epoch %llu: %s", p->iom, p->at,
        (unsigned long long)p->hub->epoch, why);
    uint64_t remote_epoch = p->out.remote_epoch;
    free_posts(&p->out.unacked);
    free_posts(&p->out.unsent);
    stream_out_init(&p->out);
    p->out.remote_epoch = remote_epoch;
    p->out.broken = true;
}

// What rides on every post: the number we expect next from there.
static void ride_ack(struct peer *p, struct msg *m) {
    struct stream_in *in = &p->hub->in[p->iom];
    msg_envelope(m)->reserved = le32_of((uint32_t)in->next);
    in->untold = 0;
    timer_cancel(p->hub->env, &in->ack);
}

static void pump(struct peer *p) {
    struct stream_out *s = &p->out;
    if (!peer_connected(p) || s->remote_epoch != p->hub->epoch) return;
    for (struct list *n; (n = list_pop_front(&s->unsent));) {
        struct msg *m = LIST_ENTRY(n, struct msg, node);
        ride_ack(p, m);
        list_push_back(&s->unacked, &m->node);
        conn_send(p->data.link->conn, msg_copy(p->hub->env->mem, m, false));
    }
}

void hub_post(struct peer *p, struct msg *m) {
    struct stream_out *s = &p->out;
    ASSERT(m->type >= MSG_POST_FIRST && p->iom != NO_IOM && p->hub->cfg.self.kind == NODE_IOM);
    if (s->broken || le64_get(msg_envelope(m)->epoch) != p->hub->epoch) { // it was made before a recovery
        msg_free(m);
        return;
    }
    msg_envelope(m)->seq = le64_of(s->next++);
    s->backlog_bytes += post_bytes(m);
    list_push_back(&s->unsent, &m->node);
    if (peer_connected(p)) pump(p);
    else path_want(&p->data);
}

static void forget_below(struct stream_out *s, uint64_t next) {
    while (!list_empty(&s->unacked)) {
        struct msg *m = LIST_ENTRY(s->unacked.next, struct msg, node);
        if (post_number(m) >= next) return;
        s->backlog_bytes -= post_bytes(m);
        list_remove(&m->node);
        msg_free(m);
    }
}

static uint64_t first_unacked(const struct stream_out *s) {
    if (list_empty(&s->unacked)) return 0;
    return post_number(LIST_ENTRY(s->unacked.next, struct msg, node));
}

// The other side is in our epoch: it expects `next`, and the stream is bound to it.
static void in_our_epoch(struct peer *p, uint64_t next) {
    struct stream_out *s = &p->out;
    s->bound = p->known;
    forget_below(s, next);
    pump(p);
}

void stream_out_lost(struct peer *p) {
    struct stream_out *s = &p->out;
    s->remote_epoch = 0;
    while (!list_empty(&s->unacked)) {
        struct list *last = s->unacked.prev;
        list_remove(last);
        list_push_front(&s->unsent, last);
    }
}

// Everything is in `unsent` now; what the other side has is dropped from it. Who is no IOM has no stream, and is told no number.
void stream_out_welcomed(struct peer *p, const struct greeting *g) {
    struct stream_out *s = &p->out;
    if (p->hub->cfg.self.kind != NODE_IOM || p->iom == NO_IOM || s->broken) return;
    s->remote_epoch = le64_get(g->epoch);
    if (s->bound && s->bound != p->known) {
        break_stream(p, "another incarnation answers there");
        return;
    }
    if (s->remote_epoch != p->hub->epoch) return;
    uint64_t next = le64_get(g->next_post);
    uint64_t first = list_empty(&s->unsent) ? s->next : post_number(LIST_ENTRY(s->unsent.next, struct msg, node));
    if (next < first || next > s->next) {
        break_stream(p, "the numbers do not fit");
        return;
    }
    while (first < next) {
        struct msg *m = LIST_ENTRY(list_pop_front(&s->unsent), struct msg, node);
        s->backlog_bytes -= post_bytes(m);
        msg_free(m);
        first++;
    }
    in_our_epoch(p, next);
}

void stream_out_told(struct peer *p, struct msg *ack) {
    struct stream_out *s = &p->out;
    s->remote_epoch = le64_get(msg_envelope(ack)->epoch);
    if (!s->broken && s->remote_epoch == p->hub->epoch) in_our_epoch(p, post_number(ack));
    msg_free(ack);
}

// ---- receiving ------------------------------------------------------------------------------------------------------
void stream_in_reset(struct hub *h, uint8_t iom) {
    struct stream_in *s = &h->in[iom];
    timer_cancel(h->env, &s->ack);
    *s = (struct stream_in){.hub = h, .iom = iom, .next = 1};
}

static void send_ack(struct link *l, uint64_t next) {
    struct msg *m = hub_msg(l->hub, MSG_POST_ACK, sizeof(struct envelope));
    msg_envelope(m)->seq = le64_of(next);
    conn_send(l->conn, m);
}

static bool belongs(const struct stream_in *s, const uint8_t id[16], uint64_t incarnation) {
    return s->incarnation == incarnation && !memcmp(s->id, id, 16);
}

uint64_t stream_in_next(struct hub *h, const struct greeting *hello) {
    const struct stream_in *s = &h->in[hello->iom];
    return belongs(s, hello->id, le64_get(hello->incarnation)) ? s->next : 1;
}

void stream_tell_epoch(struct link *l) { send_ack(l, 1); }

static void ack_now(void *arg) {
    struct stream_in *s = arg;
    timer_cancel(s->hub->env, &s->ack);
    s->untold = 0;
    if (s->link) send_ack(s->link, s->next);
}

static void ack_later(struct stream_in *s) {
    struct env *e = s->hub->env;
    if (++s->untold >= ACK_AFTER_POSTS) ack_now(s);
    else if (!s->ack.index) timer_set(e, &s->ack, env_now_ns(e) + ACK_AFTER_NS, ack_now, s);
}

// Low 32 bits of a number near those that are open.
static void ridden_ack(struct hub *h, const struct link *l, uint32_t low) {
    struct peer *p = h->by_iom[l->who.iom];
    if (!p || p->out.broken) return;
    uint64_t first = first_unacked(&p->out);
    int32_t ahead = (int32_t)(low - (uint32_t)first);
    if (first && ahead > 0) forget_below(&p->out, first + (uint32_t)ahead);
}

static bool in_turn(struct stream_in *s, struct link *l, struct msg *m) {
    if (!s->incarnation) {
        memcpy(s->id, l->who.id, 16);
        s->incarnation = l->who.incarnation;
    }
    return belongs(s, l->who.id, l->who.incarnation) && post_number(m) <= s->next;
}

void stream_in_post(struct link *l, struct msg *m) {
    struct hub *h = l->hub;
    struct stream_in *s = &h->in[l->who.iom];
    uint64_t epoch = le64_get(msg_envelope(m)->epoch);
    if (epoch < h->epoch) { // of before the last recovery
        msg_free(m);
        return;
    }
    if (epoch > h->epoch || !in_turn(s, l, m)) {
        LOG(h->env, TRACE_WARN,
            "closed a connection of IOM %u: post %llu of epoch %llu is out of turn (expected %llu of %llu)", l->who.iom,
            (unsigned long long)post_number(m), (unsigned long long)epoch, (unsigned long long)s->next,
            (unsigned long long)h->epoch);
        msg_free(m);
        link_end(l, ERR_EPOCH, true);
        return;
    }
    s->link = l;
    ridden_ack(h, l, le32_get(msg_envelope(m)->reserved));
    if (post_number(m) < s->next || !h->cfg.events.post) {
        msg_free(m);
        return;
    }
    s->next++;
    ack_later(s);
    h->cfg.events.post(h->cfg.events.ctx, (iom_id){l->who.iom}, m);
}
