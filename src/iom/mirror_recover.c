// Recovery phase 0: an IOM's tree and its proxy's copy become alike, and both durable, before anybody acts on either.
//
// The owner drives. Both name their last batch (epoch, number). The shorter gets what it lacks, batch by batch, from
// the other's tail: the batches it kept because this side was not known to have them (in memory if its process lived,
// else out of its journal). In one history that always suffices. Where it does not (an empty disk, a lost tail) the
// whole tree is copied: the receiving tree is marked (0, 0) first and gets the right mark with the last record, so that
// a copy that was cut short begins again.
#include "iom/name_inside.h"
#include "iom/pages.h"


struct names_replay *names_replay_new(struct env *e) {
    struct names_replay *r = mem_alloc(e->mem, sizeof *r);
    r->mem = e->mem;
    list_init(&r->own);
    list_init(&r->ward);
    return r;
}

static void notes_free(struct mem *mem, struct list *l) {
    struct list *node;
    while ((node = list_pop_front(l)) != NULL) mem_free(mem, LIST_ENTRY(node, struct tail_note, node));
}

void names_replay_note(void *replay, enum tree_id tree, uint64_t epoch, uint64_t number, const uint8_t *ops,
                       uint32_t ops_len, lsn at) {
    struct names_replay *r = replay;
    if (tree != TREE_META && tree != TREE_WARD) return; // a stand-in's tree is no mirror
    struct list *l = tree == TREE_META ? &r->own : &r->ward;
    if (number == 0) { // a copy began: what came before leads nowhere
        notes_free(r->mem, l);
        return;
    }
    struct tail_note *t = tail_note_new(r->mem, epoch, number, ops, ops_len);
    t->at = at;
    list_push_back(l, &t->node);
}

static void notes_move(struct list *to, struct list *from, uint64_t *bytes) {
    struct list *node;
    while ((node = list_pop_front(from)) != NULL) {
        *bytes += LIST_ENTRY(node, struct tail_note, node)->ops_len;
        list_push_back(to, node);
    }
}

void names_take_replay(struct names *n, struct names_replay *r) {
    uint64_t ward_bytes = 0;
    notes_move(&n->mirror.tail, &r->own, &n->mirror.tail_bytes);
    notes_move(&n->mirror.ward_tail, &r->ward, &ward_bytes);
    mem_free(r->mem, r);
    mirror_retain(n);
}

// The other way round: what a service that ends leaves to the next one over the same open store.
struct names_replay *names_leave_replay(struct names *n) {
    struct names_replay *r = names_replay_new(n->env);
    uint64_t bytes = 0;
    notes_move(&r->own, &n->mirror.tail, &bytes);
    notes_move(&r->ward, &n->mirror.ward_tail, &bytes);
    n->mirror.tail_bytes = 0;
    return r;
}

struct position {
    uint64_t epoch, number;
};

static int position_order(struct position a, struct position b) {
    if (a.epoch != b.epoch) return a.epoch < b.epoch ? -1 : 1;
    return a.number < b.number ? -1 : a.number > b.number;
}

static struct position tree_position(struct names *n, enum tree_id t) {
    struct position p;
    tree_note(n->store, t, &p.epoch, &p.number);
    return p;
}

// The first note of a tail that follows `p` in one history without a hole up to `end`; NULL: there is none.
static struct tail_note *tail_after(struct list *tail, struct position p, struct position end) {
    struct tail_note *first = NULL;
    uint64_t next = p.number + 1;
    struct position last = p;
    LIST_FOR(tail, node) {
        struct tail_note *t = LIST_ENTRY(node, struct tail_note, node);
        if (t->number == p.number && t->epoch != p.epoch) return NULL; // another history
        if (t->number < next || (t->number == p.number && first == NULL)) continue;
        if (t->number != next || t->epoch < last.epoch) return NULL;
        if (first == NULL) first = t;
        last = (struct position){t->epoch, t->number};
        next++;
    }
    return position_order(last, end) == 0 ? first : NULL;
}

// ---- records of a tree, in pages
// A page goes into a tree as one batch, if it fits; what does not goes before, marked as a copy under way.
#define PART_BYTES (BATCH_BYTES_MAX / 2)

struct copying {
    struct names *n;
    enum tree_id t;
    struct batch *b;
};

static void part_begin(struct copying *c) {
    c->b = batch_new(c->n->store);
    batch_urgent(c->b);
}

static err co_part_end(struct copying *c, struct position mark) {
    lsn done;
    batch_note(c->b, c->t, mark.epoch, mark.number);
    return co_batch_commit(c->b, &done);
}

static err co_part_goes_on(struct copying *c) {
    uint32_t len;
    batch_ops(c->b, c->t, &len);
    if (len < PART_BYTES) return OK;
    err e = co_part_end(c, (struct position){0, 0});
    part_begin(c);
    return e;
}

// Deletes what the tree has in [from, to) and the page does not.
static err co_page_prune(struct copying *c, struct key k, const struct key *to, const uint8_t *p, const uint8_t *end) {
    const struct wire_record *w = record_next(&p, end);
    for (err e = OK;; k = key_next(k)) {
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len;
        if (e == OK) e = co_tree_seek(c->n->store, c->t, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && to != NULL && memcmp(k.b, to->b, KEY_BYTES) >= 0)) return OK;
        if (e != OK) return e;
        while (w != NULL && memcmp(w->key, k.b, KEY_BYTES) < 0) w = record_next(&p, end);
        if (w != NULL && memcmp(w->key, k.b, KEY_BYTES) == 0) continue;
        batch_del(c->b, c->t, &k);
        e = co_part_goes_on(c);
    }
}

static err co_page_put(struct copying *c, const uint8_t *p, const uint8_t *end) {
    const struct wire_record *w;
    err e = OK;
    while (e == OK && (w = record_next(&p, end)) != NULL) {
        struct key k;
        memcpy(k.b, w->key, KEY_BYTES);
        batch_put(c->b, c->t, &k, w->val, le16_get(w->len));
        e = co_part_goes_on(c);
    }
    return e == OK && p != end ? ERR_FORMAT : e;
}

// One page into tree t: afterwards [from, to) holds exactly these records. `mark`: the tree's note with the last batch.
static err co_tree_put_page(struct names *n, enum tree_id t, const struct key *from, const struct key *to,
                            const uint8_t *p, uint32_t len, struct position mark) {
    struct copying c = {.n = n, .t = t};
    const uint8_t *end = len ? p + len : p; // an empty page is no address
    part_begin(&c);
    err e = co_page_prune(&c, *from, to, p, end);
    if (e == OK) e = co_page_put(&c, p, end);
    if (e == OK) return co_part_end(&c, mark);
    batch_drop(c.b);
    return e;
}

// ---- messages
static struct msg *state_msg(struct names *n, enum mirror_op op, struct position p) {
    struct msg *m = n->port.msg(n->port.ctx, MSG_MIRROR_STATE, sizeof(struct req_mirror_state));
    struct req_mirror_state *q = (void *)m->body;
    q->op = (uint8_t)op;
    q->epoch = le64_of(p.epoch);
    q->number = le64_of(p.number);
    return m;
}

static void msg_bytes(struct names *n, struct msg *m, const uint8_t *p, uint32_t len) {
    if (len == 0) return;
    struct buf *b = buf_new(n->mem, len);
    memcpy(b->data, p, len);
    msg_set_payload(m, (struct slice){b, 0, len});
    buf_unref(b);
}

static err co_state_call(struct names *n, struct msg *req, struct msg **reply) { // owns req
    err e = co_call_iom(n, n->proxy, req, reply);
    msg_free(req);
    if (e == OK && (*reply == NULL || (*reply)->body_len < sizeof(struct rep_mirror_state))) {
        msg_free(*reply);
        return ERR_FORMAT;
    }
    return e;
}

static err co_state_send(struct names *n, struct msg *req) { // nothing of the reply matters
    struct msg *reply;
    err e = co_state_call(n, req, &reply);
    if (e == OK) msg_free(reply);
    return e;
}

// ---- the proxy's answers
static err co_answer_fetch(struct request *r, struct position after, struct msg *reply) {
    struct names *n = r->n;
    struct rep_mirror_state *rep = (void *)reply->body;
    struct tail_note *t = tail_after(&n->mirror.ward_tail, after, tree_position(n, TREE_WARD));
    if (t == NULL) return ERR_NODATA;
    struct buf *b = buf_new(n->mem, BUF_MAX_BYTES);
    uint32_t len = 0;
    for (struct list *node = &t->node; node != &n->mirror.ward_tail; node = node->next) {
        t = LIST_ENTRY(node, struct tail_note, node);
        rep->more = len > 0 && len + sizeof(struct wire_batch) + t->ops_len > PAGE_OF_RECORDS_BYTES;
        if (rep->more) break;
        struct wire_batch *w = (void *)(b->data + len);
        *w = (struct wire_batch){le64_of(t->epoch), le64_of(t->number), le32_of(t->ops_len)};
        memcpy(w->ops, t->ops, t->ops_len);
        len += (uint32_t)sizeof *w + t->ops_len;
    }
    msg_set_payload(reply, (struct slice){b, 0, len});
    buf_unref(b);
    return OK;
}

static err co_answer_apply(struct request *r, struct position p) {
    struct mirror *m = &r->n->mirror;
    if (p.number <= m->ward_number) return OK; // a repeated message
    if (p.number != m->ward_number + 1 || r->m->payload.len_bytes == 0) return ERR_FORMAT;
    return co_ward_apply(r->n, p.epoch, p.number, slice_data(r->m->payload), r->m->payload.len_bytes);
}

static err co_answer_read(struct request *r, struct msg *reply) {
    const struct req_mirror_state *q = (const void *)r->m->body;
    struct rep_mirror_state *rep = (void *)reply->body;
    struct key from, next = {{0}};
    memcpy(from.b, q->from, KEY_BYTES);
    struct buf *b = buf_new(r->n->mem, PAGE_OF_RECORDS_BYTES);
    uint32_t len;
    bool more;
    err e = co_records_page(r->n->store, TREE_WARD, &from, b->data, &len, &next, &more);
    if (e == OK && len > 0) msg_set_payload(reply, (struct slice){b, 0, len});
    buf_unref(b);
    rep->more = more;
    memcpy(rep->next, next.b, KEY_BYTES);
    return e;
}

static err co_answer_write(struct request *r, struct position p) {
    const struct req_mirror_state *q = (const void *)r->m->body;
    struct key from, to;
    memcpy(from.b, q->from, KEY_BYTES);
    memcpy(to.b, q->to, KEY_BYTES);
    bool last = q->flags & MIRROR_LAST;
    const uint8_t *data = r->m->payload.len_bytes > 0 ? slice_data(r->m->payload) : NULL;
    err e = co_tree_put_page(r->n, TREE_WARD, &from, last ? NULL : &to, data, r->m->payload.len_bytes,
                             last ? p : (struct position){0, 0});
    notes_free(r->n->mem, &r->n->mirror.ward_tail);
    struct mirror *m = &r->n->mirror;
    tree_note(r->n->store, TREE_WARD, &m->ward_epoch, &m->ward_number);
    return e;
}

// Both are alike: what was kept for the ward's sake is not needed any more.
static err co_answer_done(struct request *r, struct position p) {
    struct mirror *m = &r->n->mirror;
    if (position_order(p, tree_position(r->n, TREE_WARD)) != 0) return ERR_FORMAT;
    tree_note(r->n->store, TREE_WARD, &m->ward_epoch, &m->ward_number); // a stand-in may have carried it on
    err e = co_store_sync(r->n->store, store_now(r->n->store));
    if (e != OK) return e;
    notes_free(r->n->mem, &m->ward_tail);
    m->ward_synced = m->ward_acked = m->ward_sync_wanted = m->ward_owner_durable = m->ward_number;
    m->ward_broken = false;
    mirror_retain(r->n);
    return OK;
}

static err co_answer(struct request *r, const struct req_mirror_state *q, struct position p, struct msg *reply) {
    switch ((enum mirror_op)q->op) {
    case MIRROR_STATE: return OK;
    case MIRROR_FETCH: return co_answer_fetch(r, p, reply);
    case MIRROR_APPLY: return co_answer_apply(r, p);
    case MIRROR_TREE_READ: return co_answer_read(r, reply);
    case MIRROR_TREE_WRITE: return co_answer_write(r, p);
    case MIRROR_DONE: return co_answer_done(r, p);
    }
    return ERR_FORMAT;
}

err co_mirror_state(struct request *r) {
    const struct req_mirror_state *q = (const void *)r->m->body;
    struct position p = {le64_get(q->epoch), le64_get(q->number)};
    err e = co_ward_drain(r->n);
    if (e != OK && !r->n->mirror.ward_broken) return e;
    r->big = msg_new(r->n->mem, MSG_MIRROR_STATE | MSG_REPLY, sizeof(struct rep_mirror_state));
    co_lock(r->n->env, &r->n->mirror.applying, "mirror state");
    e = co_answer(r, q, p, r->big);
    struct rep_mirror_state *rep = (void *)r->big->body;
    p = tree_position(r->n, TREE_WARD);
    rep->epoch = le64_of(p.epoch);
    rep->number = le64_of(p.number);
    rep->empty = tree_records(r->n->store, TREE_WARD) == 0;
    co_unlock(r->n->env, &r->n->mirror.applying);
    return e;
}

err co_mirror_sync(struct request *r) {
    err e = co_ward_drain(r->n);
    return e == OK ? co_store_sync(r->n->store, store_now(r->n->store)) : e;
}

// ---- the owner's course
static err co_take_batches(struct names *n, const struct msg *reply) {
    const uint8_t *p = slice_data(reply->payload), *end = p + reply->payload.len_bytes;
    while (p < end) {
        const struct wire_batch *w = (const void *)p;
        if ((size_t)(end - p) < sizeof *w || (size_t)(end - p) < sizeof *w + le32_get(w->ops_len)) return ERR_FORMAT;
        if (le64_get(w->number) != tree_position(n, TREE_META).number + 1) return ERR_FORMAT;
        struct batch *b = batch_new(n->store);
        batch_urgent(b);
        err e = batch_add_ops(b, TREE_META, w->ops, le32_get(w->ops_len));
        if (e != OK) return batch_drop(b), e;
        batch_note(b, TREE_META, le64_get(w->epoch), le64_get(w->number));
        lsn at;
        e = co_batch_commit(b, &at);
        if (e != OK) return e;
        p += sizeof *w + le32_get(w->ops_len);
    }
    return OK;
}

static err co_pull_batches(struct names *n) { // ERR_NODATA: they cannot be bridged
    for (bool more = true; more;) {
        struct msg *reply;
        err e = co_state_call(n, state_msg(n, MIRROR_FETCH, tree_position(n, TREE_META)), &reply);
        if (e != OK) return e;
        more = ((struct rep_mirror_state *)(void *)reply->body)->more;
        e = reply->payload.len_bytes > 0 ? co_take_batches(n, reply) : ERR_FORMAT;
        msg_free(reply);
        if (e != OK) return e;
    }
    return OK;
}

static err co_push_batches(struct names *n, struct position there) {
    struct tail_note *t = tail_after(&n->mirror.tail, there, tree_position(n, TREE_META));
    if (t == NULL) return ERR_NODATA;
    for (struct list *node = &t->node; node != &n->mirror.tail; node = node->next) {
        t = LIST_ENTRY(node, struct tail_note, node);
        struct msg *m = state_msg(n, MIRROR_APPLY, (struct position){t->epoch, t->number});
        msg_bytes(n, m, t->ops, t->ops_len);
        err e = co_state_send(n, m);
        if (e != OK) return e;
    }
    return OK;
}

static err co_pull_tree(struct names *n, struct position whole) {
    struct key from = {{0}};
    for (bool more = true; more;) {
        struct msg *m = state_msg(n, MIRROR_TREE_READ, whole), *reply;
        memcpy(((struct req_mirror_state *)(void *)m->body)->from, from.b, KEY_BYTES);
        err e = co_state_call(n, m, &reply);
        if (e != OK) return e;
        const struct rep_mirror_state *rep = (const void *)reply->body;
        struct key to;
        memcpy(to.b, rep->next, KEY_BYTES);
        more = rep->more;
        const uint8_t *data = reply->payload.len_bytes > 0 ? slice_data(reply->payload) : NULL;
        e = co_tree_put_page(n, TREE_META, &from, more ? &to : NULL, data, reply->payload.len_bytes,
                             more ? (struct position){0, 0} : whole);
        msg_free(reply);
        if (e != OK) return e;
        from = to;
    }
    return OK;
}

static err co_push_tree(struct names *n) {
    struct position whole = tree_position(n, TREE_META);
    struct key from = {{0}}, next = {{0}};
    uint8_t *page = mem_alloc(n->mem, PAGE_OF_RECORDS_BYTES);
    err e = OK;
    for (bool more = true; more && e == OK; from = next) {
        uint32_t len;
        e = co_records_page(n->store, TREE_META, &from, page, &len, &next, &more);
        if (e != OK) break;
        struct msg *m = state_msg(n, MIRROR_TREE_WRITE, whole);
        struct req_mirror_state *q = (void *)m->body;
        q->flags = more ? 0 : MIRROR_LAST;
        memcpy(q->from, from.b, KEY_BYTES);
        memcpy(q->to, next.b, KEY_BYTES);
        msg_bytes(n, m, page, len);
        e = co_state_send(n, m);
    }
    mem_free(n->mem, page);
    return e;
}

static err co_trees_alike(struct names *n, struct position there, bool there_torn) {
    struct position here = tree_position(n, TREE_META);
    bool here_torn = here.number == 0 && tree_records(n->store, TREE_META) > 0;
    int order = position_order(here, there);
    if (order == 0 && !here_torn) return OK;
    LOG(n->env, TRACE_INFO, "names: own tree at batch %llu of epoch %llu, its copy at %llu of %llu",
        (unsigned long long)here.number, (unsigned long long)here.epoch, (unsigned long long)there.number,
        (unsigned long long)there.epoch);
    if (here_torn && there_torn) return ERR_FORMAT;
    if (order < 0) {
        err e = here_torn ? ERR_NODATA : co_pull_batches(n);
        return e == ERR_NODATA ? co_pull_tree(n, there) : e;
    }
    err e = there_torn ? ERR_NODATA : co_push_batches(n, there);
    return e == ERR_NODATA ? co_push_tree(n) : e;
}

err co_mirror_recover(struct names *n) {
    if (n->proxy.n == NO_IOM) return co_store_sync(n->store, store_now(n->store));
    struct msg *reply;
    err e = co_state_call(n, state_msg(n, MIRROR_STATE, tree_position(n, TREE_META)), &reply);
    if (e != OK) return e;
    const struct rep_mirror_state *rep = (const void *)reply->body;
    struct position there = {le64_get(rep->epoch), le64_get(rep->number)};
    bool torn = there.number == 0 && !rep->empty;
    msg_free(reply);
    e = co_trees_alike(n, there, torn);
    if (e == OK) e = co_store_sync(n->store, store_now(n->store));
    return e == OK ? co_state_send(n, state_msg(n, MIRROR_DONE, tree_position(n, TREE_META))) : e;
}
