// The mirror: every batch of this IOM's names goes, in order, to its proxy, which keeps a second copy of the tree
// (TREE_WARD there).
//
//   owner                                        proxy
//   batch applied, number n ── MIRROR n, ops ──> queue ─ applied to TREE_WARD ── ACK number n        I10: then replies may leave
//   wants it durable: flushes here ── SYNC ────> flushes                      ── ACK durable n       both: durable
//
// Batches are numbered (epoch, number); the number goes on through the epochs, the epoch says in which service a batch
// was made. Each side keeps, in memory and (store_retain) in its journal, the batches that the other is not known to
// have on its disk: the *tail*. Recovery (mirror_recover.c) hands the shorter side its missing batches from there.
//
// The number is taken at the instant of application (batch_on_apply) and the message posted there: the order of
// numbers, of the journal and of the stream is one order.
#include "iom/name_inside.h"

#define TAIL_BYTES_MAX                                                                                                 \
    KIB(256) // more not known durable there: both flush at once, or the journals could not be trimmed

void mirror_init(struct names *n) {
    struct mirror *m = &n->mirror;
    list_init(&m->tail);
    list_init(&m->arrived);
    list_init(&m->ward_tail);
    waitq_init(&m->acks);
    waitq_init(&m->work);
    waitq_init(&m->sync_work);
    co_lock_init(&m->applying);
    tree_note(n->store, n->tree, &m->epoch, &m->number);
    tree_note(n->store, TREE_WARD, &m->ward_epoch, &m->ward_number);
}

struct tail_note *tail_note_new(struct mem *mem, uint64_t epoch, uint64_t number, const uint8_t *ops,
                                uint32_t ops_len) {
    struct tail_note *t = mem_alloc(mem, sizeof *t + ops_len);
    t->epoch = epoch;
    t->number = number;
    t->ops_len = ops_len;
    t->ops = (uint8_t *)(t + 1);
    if (ops_len) memcpy(t->ops, ops, ops_len); // a note may come without a change
    return t;
}

static void tail_clear(struct mem *mem, struct list *tail) {
    struct list *node;
    while ((node = list_pop_front(tail)) != NULL) mem_free(mem, LIST_ENTRY(node, struct tail_note, node));
}

void mirror_fini(struct names *n) {
    struct list *node;
    while ((node = list_pop_front(&n->mirror.arrived)) != NULL) msg_free(LIST_ENTRY(node, struct msg, node));
    tail_clear(n->mem, &n->mirror.tail);
    tail_clear(n->mem, &n->mirror.ward_tail);
}

void mirror_wake(struct names *n) {
    waitq_wake_all(n->env, &n->mirror.acks);
    waitq_wake_all(n->env, &n->mirror.work);
    waitq_wake_all(n->env, &n->mirror.sync_work);
}

static bool mirror_alone(const struct names *n) {
    return n->proxy.n == NO_IOM;
}

// ---- what the journal must keep
static lsn tail_first(const struct list *tail, lsn now) {
    LIST_FOR(tail, node) {
        const struct tail_note *t = LIST_ENTRY(node, struct tail_note, node);
        return t->at.n != 0 && t->at.n < now.n ? t->at : now;
    }
    return now;
}

void mirror_retain(struct names *n) {
    if (n->c.stand_in) return; // the host's own names say what the journal keeps
    lsn now = store_now(n->store).journal;
    store_retain(n->store, tail_first(&n->mirror.tail, tail_first(&n->mirror.ward_tail, now)));
}

static void tail_trim(struct names *n, struct list *tail, uint64_t upto) {
    bool some = false;
    LIST_FOR_SAFE(tail, node) {
        struct tail_note *t = LIST_ENTRY(node, struct tail_note, node);
        if (t->number > upto) break;
        if (tail == &n->mirror.tail) n->mirror.tail_bytes -= t->ops_len;
        list_remove(node);
        mem_free(n->mem, t);
        some = true;
    }
    if (some) mirror_retain(n);
}

// ---- the owner's side
static struct msg *mirror_msg(struct names *n, const uint8_t *ops, uint32_t len, uint32_t flags) {
    bool inside = sizeof(struct post_mirror) + len <= MSG_BODY_MAX;
    struct msg *m = n->port.msg(n->port.ctx, MSG_MIRROR, (uint32_t)sizeof(struct post_mirror) + (inside ? len : 0));
    struct post_mirror *p = (void *)m->body;
    p->flags = le32_of(flags);
    p->ops_len = le32_of(len);
    p->durable = le64_of(n->mirror.durable_here);
    n->mirror.told = n->mirror.durable_here;
    if (inside) {
        if (len > 0) memcpy(p->ops, ops, len);
    } else {
        struct buf *b = buf_new(n->mem, len);
        memcpy(b->data, ops, len);
        msg_set_payload(m, (struct slice){b, 0, len});
        buf_unref(b);
    }
    return m;
}

static void mirror_ask(struct names *n, uint32_t flags) { // a word without a batch
    if (flags & MIRROR_SYNC) n->mirror.asked = n->mirror.number;
    n->port.post(n->port.ctx, n->proxy, mirror_msg(n, NULL, 0, flags));
}

struct committing {
    struct names *n;
    uint64_t number;
    struct tail_note *note;
};

static void mirror_applied(void *arg, struct batch *b) {
    struct committing *c = arg;
    struct mirror *m = &c->n->mirror;
    c->number = ++m->number;
    m->epoch = c->n->epoch;
    batch_note(b, c->n->tree, m->epoch, c->number);
    c->n->stats.mirror_batches++;
    if (mirror_alone(c->n)) {
        m->acked = m->durable_there = c->number;
        return;
    }
    uint32_t len;
    const uint8_t *ops = batch_ops(b, c->n->tree, &len);
    c->note = tail_note_new(c->n->mem, m->epoch, c->number, ops, len);
    list_push_back(&m->tail, &c->note->node);
    m->tail_bytes += len;
    bool hurry = m->tail_bytes > TAIL_BYTES_MAX && m->asked <= m->durable_there;
    if (hurry) {
        m->asked = c->number;
        waitq_wake_all(c->n->env, &c->n->tick); // and the housekeeper flushes here
    }
    struct msg *msg = mirror_msg(c->n, ops, len, hurry ? MIRROR_SYNC : 0);
    struct post_mirror *p = (void *)msg->body;
    p->epoch = le64_of(m->epoch);
    p->number = le64_of(c->number);
    c->n->port.post(c->n->port.ctx, c->n->proxy, msg);
}

// The tail's note may be trimmed by an acknowledgement only after this task has run on: applications do not wait after
// the hook.
err co_mirror_commit(struct names *n, struct batch *b, uint64_t *number) {
    struct committing c = {.n = n};
    batch_on_apply(b, mirror_applied, &c);
    lsn at;
    err e = co_batch_commit(b, &at);
    if (e != OK) return e;
    if (c.note != NULL) c.note->at = at;
    *number = c.number;
    return OK;
}

err co_mirror_wait(struct names *n, uint64_t number) {
    if (n->exposed && n->mirror.durable_here < number) return co_mirror_durable(n, number);
    while (n->mirror.acked < number) {
        if (n->stopping) return ERR_STOPPED;
        co_wait(n->env, &n->mirror.acks, "proxy's acknowledgement");
    }
    return OK;
}

bool mirror_is_durable(const struct names *n, uint64_t number) {
    return n->mirror.durable_here >= number && n->mirror.durable_there >= number;
}

err co_mirror_durable(struct names *n, uint64_t number) {
    struct mirror *m = &n->mirror;
    if (!mirror_alone(n) && m->durable_there < number && m->asked < number) mirror_ask(n, MIRROR_SYNC);
    if (m->durable_here < number) {
        uint64_t applied = m->number;
        err e = co_store_sync(n->store, store_now(n->store));
        if (e != OK) return e;
        m->durable_here = MAX(m->durable_here, applied);
    }
    if (mirror_alone(n)) m->durable_there = MAX(m->durable_there, m->durable_here);
    while (m->durable_there < number) {
        if (n->stopping) return ERR_STOPPED;
        co_wait(n->env, &m->acks, "proxy's flush");
    }
    if (!mirror_alone(n) && m->told < m->durable_here && m->number == m->durable_here)
        mirror_ask(n, 0); // quiet: nothing else will tell it
    return OK;
}

void mirror_adopt(struct names *n, uint64_t epoch) {
    struct mirror *m = &n->mirror;
    tree_note(n->store, n->tree, &m->epoch, &m->number);
    m->epoch = epoch;
    m->acked = m->durable_here = m->durable_there = m->asked = m->told = m->number;
    tail_clear(n->mem, &m->tail);
    m->tail_bytes = 0;
    mirror_retain(n);
}

// A service without the other copy begins: its tree is of this epoch, also if no batch comes. Else a side that was away and had a batch more of the old
// epoch would hand it over at its return, to those who have gone on without (R2).
err co_mirror_alone(struct names *n) {
    struct batch *b = batch_new(n->store);
    batch_urgent(b);
    batch_note(b, n->tree, n->mirror.epoch, n->mirror.number);
    lsn at;
    err e = co_batch_commit(b, &at);
    return e == OK ? co_store_sync(n->store, store_now(n->store)) : e;
}

static void mirror_acked(struct names *n, const struct post_mirror_ack *a) {
    struct mirror *m = &n->mirror;
    m->acked = MAX(m->acked, le64_get(a->number));
    m->durable_there = MAX(m->durable_there, le64_get(a->durable));
    tail_trim(n, &m->tail, m->durable_there);
    waitq_wake_all(n->env, &m->acks);
}

// ---- the proxy's side
void mirror_forget_ward(struct names *n) {
    tail_clear(n->mem, &n->mirror.ward_tail);
    mirror_retain(n);
}

static void ward_ack(struct names *n) {
    struct mirror *m = &n->mirror;
    struct msg *msg = n->port.msg(n->port.ctx, MSG_MIRROR_ACK, sizeof(struct post_mirror_ack));
    struct post_mirror_ack *a = (void *)msg->body;
    m->ward_acked = m->ward_number;
    a->number = le64_of(m->ward_number);
    a->durable = le64_of(m->ward_synced);
    n->port.post(n->port.ctx, n->ward, msg);
}

err co_ward_apply(struct names *n, uint64_t epoch, uint64_t number, const uint8_t *ops, uint32_t len) {
    struct mirror *m = &n->mirror;
    struct batch *b = batch_new(n->store);
    batch_urgent(b);
    err e = batch_add_ops(b, TREE_WARD, ops, len);
    if (e != OK) return batch_drop(b), e;
    batch_note(b, TREE_WARD, epoch, number);
    struct tail_note *t = tail_note_new(n->mem, epoch, number, ops, len);
    e = co_batch_commit(b, &t->at);
    if (e != OK) return mem_free(n->mem, t), e;
    list_push_back(&m->ward_tail, &t->node);
    m->ward_epoch = epoch;
    m->ward_number = number;
    return OK;
}

static err co_ward_take(struct names *n, const struct msg *msg) {
    struct mirror *m = &n->mirror;
    const struct post_mirror *p = (const void *)msg->body;
    uint32_t len = le32_get(p->ops_len);
    uint64_t number = le64_get(p->number);
    bool inside = msg->payload.len_bytes == 0;
    if (msg->body_len < sizeof *p || len > (inside ? msg->body_len - sizeof *p : msg->payload.len_bytes))
        return ERR_FORMAT;
    if (number == m->ward_number + 1) {
        err e = co_ward_apply(n, le64_get(p->epoch), number, inside ? p->ops : slice_data(msg->payload), len);
        if (e != OK) return e;
    } else if (number > m->ward_number) {
        return ERR_FORMAT; // a hole in an ordered stream
    }
    if (le32_get(p->flags) & MIRROR_SYNC) m->ward_sync_wanted = m->ward_number;
    return OK;
}

// Applies what has arrived. A batch that cannot be applied is not acknowledged, nor anything after it: the ward's
// replies stop.
err co_ward_drain(struct names *n) {
    struct mirror *m = &n->mirror;
    err e = OK;
    co_lock(n->env, &m->applying, "ward's batches");
    while (!list_empty(&m->arrived) && !m->ward_broken) {
        struct msg *msg = LIST_ENTRY(list_pop_front(&m->arrived), struct msg, node);
        e = co_ward_take(n, msg);
        msg_free(msg);
        if (e == OK) continue;
        m->ward_broken = true;
        LOG(n->env, TRACE_ERROR, "names: a batch of the ward could not be kept: %s", err_name(e));
    }
    if (m->ward_broken && e == OK) e = ERR_IO;
    tail_trim(n, &m->ward_tail, m->ward_owner_durable);
    co_unlock(n->env, &m->applying);
    return e;
}

static void co_ward_work(struct names *n, void *arg) {
    struct mirror *m = &n->mirror;
    (void)arg;
    while (!n->stopping) {
        if (list_empty(&m->arrived) || m->ward_broken) {
            co_wait(n->env, &m->work, "ward's batches");
            continue;
        }
        if (co_ward_drain(n) != OK) continue;
        if (m->ward_acked < m->ward_number) ward_ack(n);
        if (m->ward_sync_wanted > m->ward_synced) waitq_wake_all(n->env, &m->sync_work);
    }
}

static void co_ward_sync(struct names *n, void *arg) {
    struct mirror *m = &n->mirror;
    (void)arg;
    while (!n->stopping) {
        if (m->ward_sync_wanted <= m->ward_synced) {
            co_wait(n->env, &m->sync_work, "ward wants a flush");
            continue;
        }
        uint64_t applied = m->ward_number;
        err e = co_store_sync(n->store, store_now(n->store));
        if (e != OK) {
            LOG(n->env, TRACE_ERROR, "names: the ward's batches could not be flushed: %s", err_name(e));
            return;
        }
        m->ward_synced = applied;
        ward_ack(n);
    }
}

void mirror_start(struct names *n) {
    if (n->ward.n == NO_IOM) return;
    n->mirror.ward_acked = n->mirror.ward_synced = n->mirror.ward_sync_wanted = n->mirror.ward_number;
    names_task(n, "ward's batches", co_ward_work, NULL);
    names_task(n, "ward's flushes", co_ward_sync, NULL);
}

void names_receive(struct names *n, iom_id from, struct msg *m) {
    if (m->type == MSG_MIRROR_ACK && iom_eq(from, n->proxy) && m->body_len >= sizeof(struct post_mirror_ack)) {
        mirror_acked(n, (const void *)m->body);
        msg_free(m);
    } else if (m->type == MSG_MIRROR && iom_eq(from, n->ward)) {
        // What the owner has on its disk need not be kept for it: told at once, for applying a batch may wait for just
        // that room.
        const struct post_mirror *p = (const void *)m->body;
        if (m->body_len >= sizeof *p)
            n->mirror.ward_owner_durable = MAX(n->mirror.ward_owner_durable, le64_get(p->durable));
        tail_trim(n, &n->mirror.ward_tail, n->mirror.ward_owner_durable);
        list_push_back(&n->mirror.arrived, &m->node);
        waitq_wake_all(n->env, &n->mirror.work);
    } else {
        LOG(n->env, TRACE_WARN, "names: a message %u from IOM %u that is not for the mirror", m->type, from.n);
        msg_free(m);
    }
}
