// Intents: one operation over several IOMs, done wholly or not at all. Two phases; what was only prepared is presumed
// undone.
//
//   owner (IOM of the first directory)             participant
//   1. the right to move directories, the walk for cycles (rename of a directory alone)
//   2. RESERVE, IOM after IOM in ascending order ─> waits for other holds, checks, holds, INTENT record durable ── OK or refusal
//      (its own steps: held in memory alone, at its place in the order)
//   3. decides: one batch = its own steps, the slot's reply, INTENT (role owner). The client is answered.
//   4. when that batch is durable: COMMIT ───────> one batch = its steps, INTENT gone; answers when that is durable
//   5. all have answered: the right is given back, INTENT (owner) goes
//
// Refused, or stopped before 3: ABORT; who does not hear it asks (after a recovery, or after ten seconds), and an owner
// that does not know the intent says so. After 3 it is rolled forward, whoever dies. A COMMIT whose part is gone was
// done before. The ids of ended parts are remembered in memory, so that a RESERVE that was long on its way holds
// nothing.
//
// Handles begin with their starter, so ascending IOMs, and steps in order of (handle, name hash) at each, are one order
// for all.
#include "iom/name_inside.h"

#include "base/sum.h"

#define PART_AGE_NS SEC(10)
#define DONE_IDS_MAX 4096u

enum part_state { PART_RESERVING, PART_HELD, PART_ENDING };
struct part { // what this IOM prepared for another's intent
    struct intent_id id;
    uint8_t number;
    enum part_state state;
    uint64_t since_ns;
    struct steps steps;
    uint8_t *bytes; // the names of the steps point here
    struct wire_attr attr;
    bool has_attr;
    uint32_t waiters;
    struct waitq q;
};
struct intent { // as owner
    struct intent_id id;
    bool decided, right_here;
    uint16_t parts, right_part;
    uint64_t number; // the deciding batch
};
struct done_id {
    struct list node;
    uint64_t key;
};

static uint64_t part_hash(const struct intent_id *id, uint8_t part) {
    return hash64(id, sizeof *id, 16 + part);
}

void intents_init(struct names *n) {
    map_init(&n->intents_here, n->mem);
    map_init(&n->parts_here, n->mem);
    map_init(&n->done_ids, n->mem);
    list_init(&n->done_order);
}

static void part_free(struct names *n, struct part *p) {
    mem_free(n->mem, p->bytes);
    mem_free(n->mem, p);
}

void intents_fini(struct names *n) {
    struct list *node;
    MAP_FOR(&n->intents_here, it) mem_free(n->mem, it.value);
    MAP_FOR(&n->parts_here, it) part_free(n, it.value);
    while ((node = list_pop_front(&n->done_order)) != NULL) mem_free(n->mem, LIST_ENTRY(node, struct done_id, node));
    map_fini(&n->intents_here);
    map_fini(&n->parts_here);
    map_fini(&n->done_ids);
}

static void done_remember(struct names *n, uint64_t key) {
    if (map_get(&n->done_ids, key) != NULL) return;
    struct done_id *d = mem_alloc(n->mem, sizeof *d);
    d->key = key;
    list_push_back(&n->done_order, &d->node);
    map_put(&n->done_ids, key, d);
    if (map_count(&n->done_ids) <= DONE_IDS_MAX) return;
    struct done_id *old = LIST_ENTRY(list_pop_front(&n->done_order), struct done_id, node);
    map_del(&n->done_ids, old->key);
    mem_free(n->mem, old);
}

static struct key intent_key(const struct intent_id *id, uint32_t role) {
    return key_make(KIND_INTENT, id->b, role);
}

// ---- calls
bool err_transport(err e) {
    switch (e) {
    case ERR_CONN:
    case ERR_REFUSED:
    case ERR_TIMEOUT:
    case ERR_EPOCH:
    case ERR_STOPPED:
    case ERR_RESTARTED:
    case ERR_BUSY:
    case ERR_NOMEM: return true;
    default: return false;
    }
}

#define CALL_AGAIN_NS MSEC(10)
#define RECOVERY_TRIES 300u

err co_call_iom(struct names *n, iom_id to, const struct msg *req, struct msg **reply) {
    for (uint32_t tries = 0;; tries++) {
        if (n->stopping && !n->recovering) return ERR_STOPPED;
        err e = n->port.co_call(n->port.ctx, to, msg_copy(n->mem, req, false), reply);
        if (!err_transport(e) || e == ERR_STOPPED || (n->recovering && tries == RECOVERY_TRIES)) return e;
        if (n->stopping && !n->recovering) return ERR_STOPPED;
        co_sleep_until(n->env, env_now_ns(n->env) + CALL_AGAIN_NS, "calls an IOM again");
    }
}

static err co_call_intent(struct names *n, iom_id to, uint16_t type, const struct intent_id *id, uint8_t part,
                          struct msg **reply) {
    struct msg *m = n->port.msg(n->port.ctx, type, sizeof(struct req_intent));
    struct req_intent *q = (void *)m->body;
    q->id = *id;
    q->part = part;
    err e = co_call_iom(n, to, m, reply);
    msg_free(m);
    return e;
}

// ---- the participant
static struct part *part_find(struct names *n, const struct intent_id *id, uint8_t number) {
    return map_get(&n->parts_here, part_hash(id, number));
}

static void part_end(struct names *n, struct part *p) {
    map_del(&n->parts_here, part_hash(&p->id, p->number));
    waitq_wake_all(n->env, &p->q);
    if (p->waiters == 0)
        part_free(n, p);
    else
        p->number = 0; // the last waiter frees it
}

// Waits while somebody works on it. NULL: it has ended.
static struct part *co_part_quiet(struct names *n, const struct intent_id *id, uint8_t number) {
    struct part *p = part_find(n, id, number);
    while (p != NULL && p->state != PART_HELD) {
        p->waiters++;
        co_wait(n->env, &p->q, "intent's part");
        if (--p->waiters == 0 && p->number == 0) part_free(n, p);
        p = part_find(n, id, number);
    }
    return p;
}

static struct part *part_new(struct names *n, const struct intent_id *id, uint8_t number, const uint8_t *bytes,
                             uint32_t len) {
    struct part *p = mem_alloc(n->mem, sizeof *p);
    p->id = *id;
    p->number = number;
    p->since_ns = env_now_ns(n->env);
    waitq_init(&p->q);
    p->bytes = mem_alloc(n->mem, len + 1);
    memcpy(p->bytes, bytes, len);
    map_put(&n->parts_here, part_hash(id, number), p);
    return p;
}

static err co_part_handle(struct names *n, struct part *p) { // what is to be made gets its handle now
    for (uint8_t i = 0; i < p->steps.len; i++) {
        struct step *s = &p->steps.v[i];
        if (s->kind != STEP_MAKE) continue;
        err e = co_handle_new(n, &s->at);
        if (e != OK) return e;
    }
    return OK;
}

static err co_part_check(struct names *n,
                         struct part *p) { // tries it, for the refusals and the attributes as they will be
    struct change c;
    err e = co_change_begin(&c, n, &p->steps, &p->id);
    if (e != OK) return e;
    co_change_apply(&c, &p->steps);
    batch_drop(c.b);
    const struct cnode *shown = change_shown(&c);
    p->has_attr = shown != NULL;
    if (shown != NULL) attr_fill(&p->attr, shown);
    change_end(&c);
    return OK;
}

static err co_part_record(struct names *n, struct part *p) {
    union {
        struct rec_intent_part r;
        uint8_t room[RECORD_BYTES_MAX];
    } val = {.r = {.format = NAMES_FORMAT}};
    struct key k = intent_key(&p->id, p->number);
    uint8_t count;
    uint32_t len = steps_encode(val.r.bytes, &p->steps, n->c.self, &count);
    if (p->number == PART_RIGHT) count = 0;
    val.r.steps = count;
    struct batch *b = batch_new(n->store);
    if (steps_take_away(&p->steps)) batch_urgent(b);
    batch_put(b, n->tree, &k, &val, (uint32_t)sizeof val.r + len);
    uint64_t number;
    err e = co_mirror_commit(n, b, &number);
    return e == OK ? co_mirror_durable(n, number) : e;
}

static err co_part_reserve(struct names *n, struct part *p) {
    err e = co_part_handle(n, p);
    if (e == OK) e = co_steps_hold(n, &p->steps, &p->id, false);
    if (e != OK) return e;
    e = co_part_check(n, p);
    if (e == OK) e = co_part_record(n, p);
    if (e != OK && e != ERR_STOPPED) steps_free(n, &p->steps, false);
    return e;
}

static void part_right(struct steps *s, iom_id self) {
    s->len = 0;
    steps_add(s, STEP_RIGHT, handle_root())->where = self;
}

static void part_answer(struct request *r, const struct part *p) {
    struct rep_reserve rep = {.attr = p->attr, .has_attr = p->has_attr};
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
}

err co_intent_reserve(struct request *r) {
    struct names *n = r->n;
    const struct req_reserve *q = (const void *)r->m->body;
    uint32_t len = r->m->body_len - (uint32_t)sizeof *q;
    if (q->part != PART_STEPS && q->part != PART_RIGHT) return ERR_FORMAT;
    if (part_find(n, &q->id, q->part) != NULL) { // asked again
        struct part *p = co_part_quiet(n, &q->id, q->part);
        if (p == NULL) return n->stopping ? ERR_STOPPED : ERR_CONFLICT;
        part_answer(r, p);
        return OK;
    }
    if (map_get(&n->done_ids, part_hash(&q->id, q->part)) != NULL) return ERR_CONFLICT; // long ended
    struct part *p = part_new(n, &q->id, q->part, q->bytes, len);
    err e = OK;
    if (q->part == PART_RIGHT)
        part_right(&p->steps, n->c.self);
    else
        e = steps_decode(&p->steps, q->steps, p->bytes, len, n->c.self);
    if (e == OK) e = co_part_reserve(n, p);
    if (e != OK) {
        part_end(n, p);
        return e;
    }
    p->state = PART_HELD;
    waitq_wake_all(n->env, &p->q);
    part_answer(r, p);
    return OK;
}

// commit: the steps and the end of the part in one batch. Else: the end alone.
static err co_part_finish(struct names *n, struct part *p, bool commit) {
    struct change c = {.b = NULL};
    struct key k = intent_key(&p->id, p->number);
    uint64_t number;
    p->state = PART_ENDING;
    err e = commit ? co_change_load(&c, n, &p->steps) : OK;
    if (e == OK) {
        if (commit) co_change_apply(&c, &p->steps);
        struct batch *b = commit ? c.b : batch_new(n->store);
        batch_urgent(b);
        batch_del(b, n->tree, &k);
        e = co_mirror_commit(n, b, &number);
        c.committed = e == OK;
        if (e == OK) steps_free(n, &p->steps, false);
        if (commit) change_end(&c);
    }
    if (e == OK) {
        done_remember(n, part_hash(&p->id, p->number));
        part_end(n, p);
    } else {
        p->state = PART_HELD;
        waitq_wake_all(n->env, &p->q);
    }
    return e;
}

err co_intent_commit(struct request *r) {
    const struct req_intent *q = (const void *)r->m->body;
    struct part *p = co_part_quiet(r->n, &q->id, q->part);
    err e = p != NULL ? co_part_finish(r->n, p, true) : OK;
    return e == OK ? co_mirror_durable(r->n, r->n->mirror.number) : e;
}

err co_intent_abort(struct request *r) {
    const struct req_intent *q = (const void *)r->m->body;
    struct part *p = co_part_quiet(r->n, &q->id, q->part);
    done_remember(r->n, part_hash(&q->id, q->part));
    return p != NULL ? co_part_finish(r->n, p, false) : OK;
}

static err co_part_ask(struct names *n, struct intent_id id, uint8_t number) {
    struct msg *reply;
    err e = co_call_intent(n, (iom_id){id.b[0]}, MSG_INTENT_QUERY, &id, number, &reply);
    if (e != OK) return e;
    uint8_t fate = reply != NULL && reply->body_len >= sizeof(struct rep_intent)
                       ? ((struct rep_intent *)(void *)reply->body)->fate
                       : INTENT_OPEN;
    msg_free(reply);
    struct part *p = fate != INTENT_OPEN ? co_part_quiet(n, &id, number) : NULL;
    if (p == NULL) return OK;
    LOG(n->env, TRACE_INFO, "names: an intent of IOM %u is %s", id.b[0],
        fate == INTENT_DECIDED ? "rolled forward" : "withdrawn");
    return co_part_finish(n, p, fate == INTENT_DECIDED);
}

struct asking {
    struct intent_id id;
    uint8_t number;
};

static void co_part_ask_task(struct names *n, void *arg) {
    struct asking a = *(struct asking *)arg;
    mem_free(n->mem, arg);
    err e = co_part_ask(n, a.id, a.number);
    if (e != OK && e != ERR_STOPPED) LOG(n->env, TRACE_WARN, "names: asking about an intent: %s", err_name(e));
}

void intents_age(struct names *n) {
    uint64_t now = env_now_ns(n->env);
    MAP_FOR(&n->parts_here, it) {
        struct part *p = it.value;
        if (p->state != PART_HELD || now - p->since_ns < PART_AGE_NS) continue;
        p->since_ns = now;
        struct asking *a = mem_alloc(n->mem, sizeof *a);
        *a = (struct asking){p->id, p->number};
        names_task(n, "intent question", co_part_ask_task, a);
    }
}

// ---- the owner
err co_intent_query(struct request *r) {
    const struct req_intent *q = (const void *)r->m->body;
    struct intent *it = map_get(&r->n->intents_here, part_hash(&q->id, 0));
    struct rep_intent rep = {.fate = INTENT_UNKNOWN};
    if (it != NULL) rep.fate = it->decided && mirror_is_durable(r->n, it->number) ? INTENT_DECIDED : INTENT_OPEN;
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
    return OK;
}

static struct intent *intent_new(struct names *n) {
    struct intent *it = mem_alloc(n->mem, sizeof *it);
    it->id.b[0] = n->c.self.n;
    be64_put(it->id.b + 8, n->epoch);
    uint32_t c = ++n->intent_counter;
    for (int i = 0; i < 4; i++) it->id.b[4 + i] = (uint8_t)(c >> (24 - 8 * i));
    map_put(&n->intents_here, part_hash(&it->id, 0), it);
    n->stats.intents++;
    return it;
}

static void intent_end(struct names *n, struct intent *it) {
    map_del(&n->intents_here, part_hash(&it->id, 0));
    mem_free(n->mem, it);
}

static void intent_right_back(struct names *n, struct intent *it) {
    if (it->right_here) hold_free(n, hold_key(HOLD_RIGHT, handle_root(), (struct name){0}), true);
    it->right_here = false;
}

static err co_parts_tell(struct names *n, struct intent *it, uint16_t parts, uint16_t type, uint8_t part) {
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) {
        struct msg *reply;
        err e = OK;
        if (parts >> i & 1)
            e = co_call_intent(n, (iom_id){i}, type, &it->id, part, &reply);
        else
            continue;
        if (e != OK) return e;
        msg_free(reply);
    }
    return OK;
}

static err co_intent_close(struct names *n, struct intent *it) {
    err e = co_mirror_durable(n, it->number);
    if (e == OK) e = co_parts_tell(n, it, it->parts, MSG_COMMIT, PART_STEPS);
    if (e == OK) e = co_parts_tell(n, it, it->right_part, MSG_COMMIT, PART_RIGHT);
    if (e != OK) return e;
    intent_right_back(n, it);
    struct key k = intent_key(&it->id, ROLE_OWNER);
    struct batch *b = batch_new(n->store);
    batch_urgent(b);
    batch_del(b, n->tree, &k);
    uint64_t number;
    e = co_mirror_commit(n, b, &number);
    if (e == OK) intent_end(n, it);
    return e;
}

static void co_intent_close_task(struct names *n, void *arg) {
    struct intent *it = arg;
    err e;
    while ((e = co_intent_close(n, it)) != OK && !n->stopping) {
        if (e != ERR_STOPPED) LOG(n->env, TRACE_WARN, "names: an intent cannot be closed yet: %s", err_name(e));
        co_sleep_until(n->env, env_now_ns(n->env) + MSEC(100), "intent to be closed");
    }
}

static void co_intent_abort_task(struct names *n, void *arg) {
    struct intent *it = arg;
    err e = co_parts_tell(n, it, it->parts, MSG_ABORT, PART_STEPS);
    if (e == OK) e = co_parts_tell(n, it, it->right_part, MSG_ABORT, PART_RIGHT);
    if (e != OK && e != ERR_STOPPED)
        LOG(n->env, TRACE_WARN, "names: an intent could not be withdrawn: %s", err_name(e)); // they will ask
    mem_free(n->mem, it);
}

// From now on unknown: whoever asks drops what he holds.
static void intent_withdraw(struct names *n, struct intent *it) {
    intent_right_back(n, it);
    map_del(&n->intents_here, part_hash(&it->id, 0));
    if ((it->parts | it->right_part) == 0 || n->stopping)
        mem_free(n->mem, it);
    else
        names_task(n, "intent withdrawn", co_intent_abort_task, it);
}

static err co_reserve_call(struct names *n, struct intent *it, struct steps *s, iom_id at, uint8_t part,
                           struct wire_attr *attr, bool *has_attr) {
    uint8_t bytes[RECORD_BYTES_MAX], count = 0;
    uint32_t len = part == PART_STEPS ? steps_encode(bytes, s, at, &count) : 0;
    struct msg *m = n->port.msg(n->port.ctx, MSG_RESERVE, (uint32_t)sizeof(struct req_reserve) + len), *reply;
    struct req_reserve *q = (void *)m->body;
    q->id = it->id;
    q->part = part;
    q->steps = count;
    memcpy(q->bytes, bytes, len);
    uint16_t *parts = part == PART_STEPS ? &it->parts : &it->right_part;
    *parts = (uint16_t)(*parts | 1u << at.n);
    err e = co_call_iom(n, at, m, &reply);
    msg_free(m);
    if (e == OK && (reply == NULL || reply->body_len < sizeof(struct rep_reserve))) e = ERR_FORMAT;
    if (e != OK) {
        if (!err_transport(e)) *parts = (uint16_t)(*parts & ~(1u << at.n)); // a refusal holds nothing
        return e;
    }
    const struct rep_reserve *rep = (const void *)reply->body;
    if (rep->has_attr) {
        *attr = rep->attr;
        *has_attr = true;
    }
    msg_free(reply);
    return OK;
}

static err co_intent_right(struct names *n, struct intent *it, struct steps *s) {
    for (uint8_t i = 0; i < s->len; i++) {
        struct step *t = &s->v[i];
        if (t->kind != STEP_RIGHT) continue;
        struct steps one = {.v = {*t}, .len = 1};
        struct wire_attr attr;
        bool has_attr = false;
        err e = OK;
        if (iom_eq(t->where, n->c.self)) {
            e = co_steps_hold(n, &one, &it->id, true);
            it->right_here = e == OK;
        } else {
            e = co_reserve_call(n, it, &one, t->where, PART_RIGHT, &attr, &has_attr);
        }
        if (e == OK && s->co_walk != NULL) e = s->co_walk(n, s->arg);
        s->v[i] = s->v[--s->len]; // the other steps go on without it
        return e;
    }
    return OK;
}

static err co_intent_own(struct names *n, struct intent *it, struct steps *s) {
    err e = co_steps_hold(n, s, &it->id, true);
    if (e != OK) return e;
    struct change c;
    e = co_change_begin(&c, n, s, &it->id);
    if (e == OK)
        change_end(&c);
    else
        steps_free(n, s, true);
    return e;
}

static int step_order(const struct step *a, const struct step *b) {
    uint8_t ka[HANDLE_BYTES + 8] = {0}, kb[HANDLE_BYTES + 8] = {0};
    if (a->where.n != b->where.n) return a->where.n < b->where.n ? -1 : 1;
    if (!handle_none(a->at)) handle_put(ka, a->at);
    if (!handle_none(b->at)) handle_put(kb, b->at);
    if (a->kind == STEP_NAME) be64_put(ka + HANDLE_BYTES, name_hash(a->name));
    if (b->kind == STEP_NAME) be64_put(kb + HANDLE_BYTES, name_hash(b->name));
    return memcmp(ka, kb, sizeof ka);
}

static void steps_sort(struct steps *s) {
    for (uint8_t i = 1; i < s->len; i++)
        for (uint8_t j = i; j > 0 && step_order(&s->v[j], &s->v[j - 1]) < 0; j--) {
            struct step t = s->v[j];
            s->v[j] = s->v[j - 1];
            s->v[j - 1] = t;
        }
}

// A new object made elsewhere: its handle is known now, the name takes it.
static err steps_made(struct steps *s, const struct wire_attr *attr) {
    for (uint8_t i = 0; i < s->len; i++) {
        struct step *t = &s->v[i];
        if (t->kind != STEP_NAME || !handle_none(t->target) || !handle_none(t->expect)) continue;
        t->target = wire_handle_at(&attr->handle);
        return refmap_at(&t->map, attr->map.b);
    }
    return OK;
}

static err co_intent_prepare(struct names *n, struct intent *it, struct steps *s, struct wire_attr *attr,
                             bool *has_attr, bool *own_held) {
    err e = co_intent_right(n, it, s);
    steps_sort(s);
    for (uint8_t i = 0; i < s->len && e == OK; i++) {
        iom_id at = s->v[i].where;
        if (i > 0 && iom_eq(at, s->v[i - 1].where)) continue;
        bool makes = false;
        for (uint8_t j = i; j < s->len; j++) makes |= s->v[j].kind == STEP_MAKE && iom_eq(s->v[j].where, at);
        if (iom_eq(at, n->c.self)) {
            e = co_intent_own(n, it, s);
            *own_held = e == OK;
        } else {
            e = co_reserve_call(n, it, s, at, PART_STEPS, attr, has_attr);
            if (e == OK && makes) e = *has_attr ? steps_made(s, attr) : ERR_FORMAT;
        }
    }
    return e;
}

static void owner_record(struct batch *b, const struct request *r, const struct intent *it) {
    struct rec_intent_owner rec = {.format = NAMES_FORMAT,
                                   .parts = le16_of(it->parts),
                                   .right_part = le16_of(it->right_part),
                                   .slot = le32_of(r->slot),
                                   .seq = le64_of(r->seq)};
    if (r->session != NULL) memcpy(rec.session, r->session->id, 16);
    struct key k = intent_key(&it->id, ROLE_OWNER);
    batch_put(b, r->n->tree, &k, &rec, sizeof rec);
}

static void reply_attr(struct request *r, const struct wire_attr *attr) {
    struct rep_attr rep = {.attr = *attr, .has_attr = 1};
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
}

static const struct cnode *change_directory(const struct change *c, const struct steps *s) { // NULL: another IOM's
    for (uint8_t i = 0; i < s->len; i++)
        for (uint8_t j = 0; j < c->len; j++)
            if (s->v[i].kind == STEP_NAME && handle_eq(s->v[i].at, c->node[j].h)) return &c->node[j];
    return NULL;
}

// The directory that got the name, as it is now: its gateway need not ask.
static void reply_directory(struct request *r, const struct change *c, const struct steps *s) {
    struct rep_attr rep;
    uint8_t *body = (uint8_t *)&rep + sizeof rep.env;
    const struct cnode *dir = change_directory(c, s);
    if (dir == NULL) return;
    ASSERT(r->reply_len == sizeof rep - sizeof rep.env);
    memcpy(body, r->reply, r->reply_len);
    rep.dir_change = le64_of(dir->change);
    rep.dir_time_ns = le64_of(dir->mtime_ns);
    rep.dir_nlink = le32_of(dir->nlink);
    memcpy(r->reply, body, r->reply_len);
}

static err co_intent_decide(struct request *r, struct intent *it, struct steps *s, const struct wire_attr *attr,
                            bool want_attr) {
    struct names *n = r->n;
    struct change c;
    err e = co_change_load(&c, n, s);
    if (e != OK) return e;
    co_change_apply(&c, s);
    const struct cnode *shown = change_shown(&c);
    if (want_attr && shown != NULL)
        request_attr(r, shown);
    else if (want_attr)
        reply_attr(r, attr);
    if (want_attr) reply_directory(r, &c, s);
    if (s->extra != NULL) s->extra(s->arg, c.b);
    owner_record(c.b, r, it);
    e = co_request_commit(r, c.b);
    c.committed = e == OK;
    it->decided = c.committed;
    it->number = n->mirror.number;
    change_end(&c);
    return e;
}

static err co_intent_run(struct request *r, struct steps *s, bool want_attr) {
    struct names *n = r->n;
    struct intent *it = intent_new(n);
    struct wire_attr attr = {.truncates = le32_of(0)};
    bool has_attr = false, own_held = false;
    err e = co_intent_prepare(n, it, s, &attr, &has_attr, &own_held);
    if (e == OK) e = co_intent_decide(r, it, s, &attr, want_attr);
    if (own_held) steps_free(n, s, true);
    if (e == OK)
        names_task(n, "intent closing", co_intent_close_task, it);
    else
        intent_withdraw(n, it);
    return e;
}

// ---- both kinds of operation
static err co_steps_alone(struct request *r, struct steps *s, bool want_attr, bool open) {
    struct change c;
    err e = co_change_begin(&c, r->n, s, NULL);
    if (e != OK) return e;
    co_change_apply(&c, s);
    const struct cnode *shown = change_shown(&c);
    if (want_attr) {
        request_attr(r, shown);
        reply_directory(r, &c, s);
    }
    if (s->extra != NULL) s->extra(s->arg, c.b);
    e = co_request_commit(r, c.b);
    c.committed = e == OK;
    if (e == OK && open && r->session != NULL) session_open_object(r->n, r->session, shown->h);
    if (e == OK && shown != NULL) object_changed(r->n, shown->h, r->shows);
    change_end(&c);
    return e;
}

err co_steps_run(struct request *r, struct steps *s, bool attr, bool open) {
    bool alone = true;
    for (uint8_t i = 0; i < s->len; i++) alone &= s->v[i].kind != STEP_RIGHT && iom_eq(s->v[i].where, r->n->c.self);
    return alone ? co_steps_alone(r, s, attr, open) : co_intent_run(r, s, attr);
}

// ---- after a restart
static err intent_load_part(struct names *n, const struct key *k, const uint8_t *val, uint32_t len) {
    const struct rec_intent_part *rec = (const void *)val;
    if (len < sizeof *rec || rec->format != NAMES_FORMAT) return ERR_FORMAT;
    struct intent_id id;
    memcpy(id.b, key_id(k), 16);
    struct part *p = part_new(n, &id, (uint8_t)key_number(k), rec->bytes, len - (uint32_t)sizeof *rec);
    p->state = PART_HELD;
    if (p->number == PART_RIGHT) part_right(&p->steps, n->c.self);
    err e = p->number == PART_RIGHT
                ? OK
                : steps_decode(&p->steps, rec->steps, p->bytes, len - (uint32_t)sizeof *rec, n->c.self);
    if (e == OK) steps_hold(n, &p->steps, &id, false);
    return e;
}

static err intent_load_own(struct names *n, const struct key *k, const uint8_t *val, uint32_t len) {
    const struct rec_intent_owner *rec = (const void *)val;
    if (len < sizeof *rec || rec->format != NAMES_FORMAT) return ERR_FORMAT;
    struct intent *it = mem_alloc(n->mem, sizeof *it);
    memcpy(it->id.b, key_id(k), 16);
    it->decided = true;
    it->parts = le16_get(rec->parts);
    it->right_part = le16_get(rec->right_part);
    map_put(&n->intents_here, part_hash(&it->id, 0), it);
    return OK;
}

err co_intents_load(struct names *n) {
    static const uint8_t zero[16];
    struct key k = key_make(KIND_INTENT, zero, 0);
    for (;; k = key_next(k)) {
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len;
        err e = co_tree_seek(n->store, n->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_INTENT)) return OK;
        if (e == OK && key_number(&k) == ROLE_OWNER)
            e = intent_load_own(n, &k, val, len);
        else if (e == OK && key_number(&k) != ROLE_TRUNCATE)
            e = intent_load_part(n, &k, val, len);
        if (e != OK) return e;
    }
}

static bool part_any(struct names *n, struct asking *a, uint64_t before_ns) {
    MAP_FOR(&n->parts_here, it) {
        struct part *p = it.value;
        if (p->state != PART_HELD || p->since_ns > before_ns) continue;
        *a = (struct asking){p->id, p->number};
        return true;
    }
    return false;
}

static struct intent *intent_any(struct names *n) {
    MAP_FOR(&n->intents_here, it) return it.value;
    return NULL;
}

// As owner: rolls forward what was decided. As participant: asks about the rest. Nobody serves yet, so nothing new
// comes.
err co_intents_recover(struct names *n) {
    struct asking a;
    struct intent *it;
    err e = OK;
    while (e == OK && (it = intent_any(n)) != NULL) e = co_intent_close(n, it);
    while (e == OK && part_any(n, &a, UINT64_MAX)) e = co_part_ask(n, a.id, a.number);
    return e;
}
