// The names of one IOM: its life, its requests, its housekeeping.
//
//   created ── recover 0 (mirror) ── 1 (records read; intents) ── 2 (truncates, orphans) ── serving ── stopped ── recover 0 ... or destroyed
//
// Every reply leaves through co_names_serve, which holds it until the proxy has what it shows (I10).
#include "iom/name_inside.h"

#define SESSION_LEASE_NS SEC(60)
#define HOUSEKEEP_NS SEC(1)

// ---- requests
enum { NEEDS_HEAD = 1, NEEDS_SESSION = 2, KEPT = 4 }; // KEPT: its reply stays in the slot
struct op_row {
    uint16_t type;
    uint16_t body_min;
    uint8_t needs;
    name_op op;
};
static const struct op_row ops[] = {
    {MSG_SESSION_OPEN, sizeof(struct req_head), NEEDS_HEAD, co_name_session_open},
    {MSG_SESSION_RENEW, sizeof(struct req_renew), NEEDS_HEAD | NEEDS_SESSION, co_name_session_renew},
    {MSG_SESSION_CLOSE, sizeof(struct req_head), NEEDS_HEAD | NEEDS_SESSION, co_name_session_close},
    {MSG_LOOKUP, sizeof(struct req_name), NEEDS_HEAD, co_name_lookup},
    {MSG_GETATTR, sizeof(struct req_handle), NEEDS_HEAD, co_name_getattr},
    {MSG_SETATTR, sizeof(struct req_setattr), NEEDS_HEAD | KEPT, co_name_setattr},
    {MSG_CREATE, sizeof(struct req_create), NEEDS_HEAD | KEPT, co_name_create},
    {MSG_MKDIR, sizeof(struct req_create), NEEDS_HEAD | KEPT, co_name_mkdir},
    {MSG_SYMLINK, sizeof(struct req_create), NEEDS_HEAD | KEPT, co_name_symlink},
    {MSG_READLINK, sizeof(struct req_handle), NEEDS_HEAD, co_name_readlink},
    {MSG_LINK, sizeof(struct req_link), NEEDS_HEAD | KEPT, co_name_link},
    {MSG_UNLINK, sizeof(struct req_name), NEEDS_HEAD | KEPT, co_name_unlink},
    {MSG_RMDIR, sizeof(struct req_name), NEEDS_HEAD | KEPT, co_name_rmdir},
    {MSG_RENAME, sizeof(struct req_rename), NEEDS_HEAD | KEPT, co_name_rename},
    {MSG_READDIR, sizeof(struct req_readdir), NEEDS_HEAD, co_name_readdir},
    {MSG_OPEN, sizeof(struct req_handle), NEEDS_HEAD | NEEDS_SESSION, co_name_open},
    {MSG_RELEASE, sizeof(struct req_handle), NEEDS_HEAD | NEEDS_SESSION, co_name_release},
    {MSG_RAISE, sizeof(struct req_raise), NEEDS_HEAD | KEPT, co_name_raise},
    {MSG_SYNC_META, sizeof(struct req_handle), NEEDS_HEAD, co_name_sync_meta},
    {MSG_STATFS, sizeof(struct req_head), NEEDS_HEAD, co_name_statfs},
    {MSG_SETXATTR, sizeof(struct req_xattr), NEEDS_HEAD | KEPT, co_name_setxattr},
    {MSG_GETXATTR, sizeof(struct req_xattr), NEEDS_HEAD, co_name_getxattr},
    {MSG_LISTXATTR, sizeof(struct req_handle), NEEDS_HEAD, co_name_listxattr},
    {MSG_REMOVEXATTR, sizeof(struct req_xattr), NEEDS_HEAD | KEPT, co_name_removexattr},
    {MSG_END_DURABLE, sizeof(struct req_end_durable), 0, co_name_end_durable},
    {MSG_TOUCH, sizeof(struct req_touch), 0, co_name_touch},
    {MSG_RESERVE, sizeof(struct req_reserve), 0, co_intent_reserve},
    {MSG_COMMIT, sizeof(struct req_intent), 0, co_intent_commit},
    {MSG_ABORT, sizeof(struct req_intent), 0, co_intent_abort},
    {MSG_INTENT_QUERY, sizeof(struct req_intent), 0, co_intent_query},
    {MSG_MIRROR_STATE, sizeof(struct req_mirror_state), 0, co_mirror_state},
    {MSG_MIRROR_SYNC, sizeof(struct envelope), 0, co_mirror_sync},
};

static const struct op_row *op_find(uint16_t type) {
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (ops[i].type == type) return &ops[i];
    return NULL;
}

bool names_takes(uint16_t type) {
    return op_find(type) != NULL;
}

void request_attr(struct request *r, const struct cnode *c) {
    struct rep_attr rep = {.has_attr = 1};
    attr_fill(&rep.attr, c);
    r->reply_len = sizeof rep - sizeof rep.env;
    memcpy(r->reply, (uint8_t *)&rep + sizeof rep.env, r->reply_len);
}

err co_request_commit(struct request *r, struct batch *b) {
    request_slot(r, b, OK);
    uint64_t number;
    err e = co_mirror_commit(r->n, b, &number);
    if (e != OK) return e;
    r->stored = true;
    r->shows = MAX(r->shows, number);
    return OK;
}

// A refusal is kept too, or a second copy of the request could do it later.
static err co_refusal_keep(struct request *r, err why) {
    struct batch *b = batch_new(r->n->store);
    batch_urgent(b);
    r->reply_len = 0;
    request_slot(r, b, why);
    uint64_t number;
    err e = co_mirror_commit(r->n, b, &number);
    if (e != OK) return e;
    r->stored = true;
    return why;
}

static bool request_kept(const struct request *r, const struct op_row *row) {
    return r->seq != 0 && (row->needs & KEPT);
}

static err co_request_run(struct request *r, const struct op_row *row, struct msg **stored) {
    if (!request_kept(r, row)) {
        r->seq = 0;
        return row->op(r);
    }
    err result = OK;
    err e = co_slot_take(r, stored, &result);
    if (e != OK) return e;
    if (r->stored) return result == OK && r->m->type == MSG_CREATE ? co_name_create_again(r, stored) : result; // of the first time
    e = row->op(r);
    if (!r->stored && (err_class(e) == ERRC_CALLER || e == OK)) e = co_refusal_keep(r, e);
    slot_give(r, r->stored);
    return e;
}

static err request_begin(struct request *r, const struct op_row *row) {
    if (r->m->body_len < row->body_min) return ERR_FORMAT;
    if (!(row->needs & NEEDS_HEAD)) return OK;
    r->head = (const void *)r->m->body;
    r->seq = le64_get(r->head->seq);
    r->slot = le32_get(r->head->slot);
    if (!(row->needs & NEEDS_SESSION) && !request_kept(r, row)) return OK;
    r->session = session_find(r->n, r->head->session);
    if (r->session == NULL) return ERR_SESSION;
    r->session->users++;
    r->session->seen_ns = env_now_ns(r->n->env);
    return OK;
}

static void request_end(struct request *r) {
    if (r->session == NULL) return;
    r->session->seen_ns = env_now_ns(r->n->env);
    r->session->users--;
    waitq_wake_all(r->n->env, &r->session->unused);
}

static struct msg *request_reply(struct request *r, err e, struct msg *stored) {
    if (stored != NULL) return stored;
    if (e == OK && r->big != NULL) return r->big;
    msg_free(r->big);
    if (e != OK || r->reply_len == 0) return NULL;
    struct msg *m = msg_new(r->n->mem, r->m->type | MSG_REPLY, (uint32_t)sizeof(struct envelope) + r->reply_len);
    memcpy(m->body + sizeof(struct envelope), r->reply, r->reply_len);
    return m;
}

static void names_enter(struct names *n) {
    n->tasks++;
}
static void names_leave(struct names *n) {
    if (--n->tasks == 0) waitq_wake_all(n->env, &n->idle);
}

err co_names_sync(struct names *n) {
    if (n->stopping) return ERR_STOPPED;
    names_enter(n);
    co_touches_apply(n);
    err e = co_mirror_durable(n, n->mirror.number);
    names_leave(n);
    return e;
}

err co_names_serve(struct names *n, const struct msg *m, struct msg **reply) {
    const struct op_row *row = op_find(m->type);
    *reply = NULL;
    if (row == NULL) return ERR_NOTSUP;
    if (n->stopping && m->type != MSG_MIRROR_STATE && m->type != MSG_MIRROR_SYNC) return ERR_STOPPED;
    names_enter(n);
    n->stats.requests++;
    struct request *r = mem_alloc(n->mem, sizeof *r);
    r->n = n;
    r->m = m;
    struct msg *stored = NULL;
    err e = request_begin(r, row);
    if (e == OK) e = co_request_run(r, row, &stored);
    request_end(r);
    bool mirrored = row->needs & NEEDS_HEAD; // the mirror's own messages wait for nothing
    err w = mirrored && err_class(e) <= ERRC_CALLER ? co_mirror_wait(n, MAX(r->shows, n->mirror.number)) : OK;
    *reply = request_reply(r, e, stored);
    if (w != OK) {
        msg_free(*reply);
        *reply = NULL;
        e = w;
    }
    mem_free(n->mem, r);
    names_leave(n);
    return e;
}

// ---- tasks of its own
struct names_task {
    struct names *n;
    void (*fn)(struct names *n, void *arg);
    void *arg;
};

static void names_task_run(void *arg) {
    struct names_task t = *(struct names_task *)arg;
    mem_free(t.n->mem, arg);
    t.fn(t.n, t.arg);
    names_leave(t.n);
}

void names_task(struct names *n, const char *name, void (*fn)(struct names *n, void *arg), void *arg) {
    struct names_task *t = mem_alloc(n->mem, sizeof *t);
    *t = (struct names_task){n, fn, arg};
    names_enter(n);
    env_spawn(n->env, name, names_task_run, t);
}

// Once a second what nobody asked for becomes durable, leases end, forgotten intents are asked about.
static void co_housekeep(struct names *n, void *arg) {
    (void)arg;
    while (!n->stopping) {
        co_wait_until(n->env, &n->tick, env_now_ns(n->env) + HOUSEKEEP_NS, "housekeeping");
        if (n->stopping) break;
        co_touches_apply(n);
        co_sessions_expire(n);
        intents_age(n);
        if (n->truncates_left) co_truncates_again(n);
        if (n->orphans_waiting && sessions_settled(n)) co_orphans_settle(n);
        if (co_mirror_durable(n, n->mirror.number) != OK && !n->stopping)
            LOG(n->env, TRACE_ERROR, "names: batches could not be made durable");
    }
}

static void co_touch_often(struct names *n, void *arg) { // times are shown soon: not the housekeeper's second
    (void)arg;
    while (!n->stopping) {
        co_wait_until(n->env, &n->touch_work, UINT64_MAX, "touches");
        if (!n->stopping) co_touches_apply(n);
    }
}

// ---- life
struct names *names_create(struct env *e, struct store *s, const struct names_port *port,
                           const struct names_config *c) {
    struct names *n = mem_alloc(e->mem, sizeof *n);
    n->env = e;
    n->mem = e->mem;
    n->store = s;
    n->tree = c->stand_in ? TREE_WARD : TREE_META;
    n->port = *port;
    n->c = *c;
    if (n->c.session_lease_ns == 0) n->c.session_lease_ns = SESSION_LEASE_NS;
    n->proxy = proxy_of(&c->array, c->self);
    n->ward = ward_of(&c->array, c->self);
    n->stopping = true; // until recovered
    waitq_init(&n->idle);
    waitq_init(&n->tick);
    waitq_init(&n->touch_work);
    co_lock_init(&n->index_lock);
    map_init(&n->locks, n->mem);
    map_init(&n->holds, n->mem);
    mirror_init(n);
    sessions_init(n);
    intents_init(n);
    orphans_init(n);
    touches_init(n);
    return n;
}

void names_neighbours(struct names *n, const struct array_shape *array, bool proxy, bool ward) {
    n->c.array = *array;
    n->proxy = proxy ? proxy_of(array, n->c.self) : (iom_id){NO_IOM};
    n->ward = ward ? ward_of(array, n->c.self) : (iom_id){NO_IOM};
    n->exposed = !proxy && array->ioms > 1;
    if (!ward) mirror_forget_ward(n);
}

void names_cancel(struct names *n) {
    n->stopping = true;
    n->recovering = n->rows_resolve = false;
    mirror_wake(n);
    waitq_wake_all(n->env, &n->tick);
    waitq_wake_all(n->env, &n->touch_work);
    waitq_wake_all(n->env, &n->orphan_idle);
    MAP_FOR(&n->holds, it) waitq_wake_all(n->env, &((struct hold *)it.value)->freed);
    MAP_FOR(&n->sessions, it) waitq_wake_all(n->env, &((struct name_session *)it.value)->unused);
}

void co_names_stop(struct names *n, bool harden) {
    names_cancel(n);
    while (n->tasks > 0) co_wait(n->env, &n->idle, "tasks of names");
    if (co_ward_drain(n) != OK) LOG(n->env, TRACE_ERROR, "names: the ward's batches could not be applied");
    if (harden && co_store_sync(n->store, store_now(n->store)) != OK)
        LOG(n->env, TRACE_ERROR, "names: the store could not be flushed");
}

void names_destroy(struct names *n) {
    ASSERT(n->tasks == 0);
    mirror_fini(n);
    sessions_fini(n);
    intents_fini(n);
    orphans_fini(n);
    touches_fini(n);
    MAP_FOR(&n->holds, it) mem_free(n->mem, it.value);
    map_fini(&n->holds);
    map_fini(&n->locks);
    mem_free(n->mem, n);
}

static err co_root_make(struct names *n) {
    struct cnode c;
    if (n->c.self.n != handle_root().starter) return OK;
    err e = co_cnode_get(n, handle_root(), &c);
    if (e != ERR_STALE) return e;
    uint64_t now = env_wall_ns(n->env);
    c = (struct cnode){
        .h = handle_root(),
        .parent = handle_root(),
        .map = dir_map(n, n->c.self),
        .atime_ns = now,
        .mtime_ns = now,
        .ctime_ns = now,
        .btime_ns = now,
        .change = 1,
        .mode = 0755,
        .nlink = 2,
        .type = OBJ_DIR,
        .toughness = 1,
        .policy = {POLICY_UNSET, POLICY_UNSET, POLICY_UNSET, POLICY_UNSET},
    };
    struct rec_cnode rec;
    struct key k = cnode_key(c.h);
    struct batch *b = batch_new(n->store);
    batch_put(b, n->tree, &k, &rec, cnode_encode(&c, &rec));
    uint64_t number;
    e = co_mirror_commit(n, b, &number);
    return e == OK ? co_mirror_durable(n, number) : e;
}

static void names_forget(struct names *n) { // what memory knew of an earlier service
    MAP_FOR(&n->holds, it) mem_free(n->mem, it.value);
    map_clear(&n->holds);
    n->index_next = n->index_end = 0;
    n->truncates_left = false;
    memset(n->recent, 0, sizeof n->recent);
    intents_fini(n);
    intents_init(n);
    orphans_fini(n);
    orphans_init(n);
    touches_fini(n);
    touches_init(n);
}

static err co_names_start(struct names *n) {
    if (n->started && !n->stopping) return OK;
    names_forget(n);
    err e = co_sessions_load(n);
    if (e == OK) e = co_intents_load(n);
    if (e == OK) e = co_truncates_load(n);
    if (e == OK) e = co_orphans_load(n);
    if (e != OK) return e;
    n->started = true;
    n->stopping = false;
    mirror_start(n);
    names_task(n, "names housekeeper", co_housekeep, NULL);
    names_task(n, "names touches", co_touch_often, NULL);
    return OK;
}

static err co_recover_mirror(struct names *n, uint64_t epoch) {
    n->recovering = true;
    err e = co_mirror_recover(n);
    if (e == OK && !n->recovering) e = ERR_STOPPED;
    n->recovering = false;
    if (e != OK) return e;
    n->epoch = epoch;
    mirror_adopt(n, epoch);
    e = n->exposed ? co_mirror_alone(n) : OK;
    return e == OK ? co_names_start(n) : e;
}

err co_names_recover(struct names *n, uint32_t phase, uint64_t epoch) {
    err e = ERR_INVAL;
    if (phase == 0 && !n->stopping) co_names_stop(n, false); // a recovery that begins again
    names_enter(n);
    switch (phase) {
    case 0: e = co_recover_mirror(n, epoch); break;
    case 1:
        e = co_root_make(n);
        if (e == OK) e = co_intents_recover(n);
        break;
    case 2:
        e = co_truncates_recover(n, false);
        if (e == OK) e = co_orphans_recover(n);
        n->rows_resolve = true;
        break;
    case 3:
        n->rows_resolve = false;
        e = co_truncates_recover(n, true);
        break;
    }
    names_leave(n);
    return e;
}

void names_session_gone(struct names *n, const uint8_t id[16]) {
    struct name_session *s = session_find(n, id);
    if (s != NULL) s->seen_ns = MAX(s->seen_ns, env_now_ns(n->env)); // its lease runs from here
}

void names_stats(const struct names *n, struct names_stats *out) {
    *out = n->stats;
    out->objects = tree_records(n->store, n->tree) / 2; // an estimate: most records are a CNODE and its DIRENT
    out->dirents = out->objects;
}
