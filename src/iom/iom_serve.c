// What comes in: calls, posts, casts, and who may ask what when.
//
//   any time                 the map, status, control
//   an instance is there     calls between IOMs of this epoch (recovery lives on them), posts
//   serving, lease valid     clients: names and data
#include "iom/data.h"
#include "iom/iom_inside.h"

static bool any_epoch(void *ctx, uint16_t type) { return type == MSG_GET_MAP || type == MSG_STATUS || type == MSG_CONTROL; }

// ---- map, status, control
static void answer_map(struct iom *i, struct inbound *in) {
    const struct cluster_map *m = register_latest(i->reg);
    if (!m) {
        hub_reply(in, NULL, ERR_STOPPED);
        return;
    }
    struct msg *reply = inbound_reply(in, sizeof(struct envelope));
    struct buf *b = buf_new(i->env->mem, CLUSTER_MAP_BYTES_MAX);
    msg_set_payload(reply, (struct slice){b, 0, cluster_map_encode(m, b->data)});
    buf_unref(b);
    hub_reply(in, reply, OK);
}

static void status_of_map(struct iom *i, struct wire_status *s) {
    const struct cluster_map *m = register_latest(i->reg);
    s->iom = i->own.self.n;
    s->array_ioms = i->ident.array_ioms;
    s->array_state = ARRAY_STOPPED;
    s->serving = i->own.serving && member_may_serve(i->member);
    if (!m) return;
    s->map_version = le64_of(m->version);
    s->map_epoch = le64_of(m->epoch);
    s->recoveries = le64_of(cluster_map_losses(m));
    s->array_state = m->state;
    for (uint8_t n = 0; n < m->ioms; n++) {
        struct member_view v;
        member_suspect_view(i->member, n, &v);
        s->member[n].incarnation = le64_of(v.incarnation);
        s->member[n].silent_ms = le64_of(v.silent_ns / MSEC(1));
        s->member[n].state = m->iom[n].state;
    }
}

static void status_of_store(struct iom *i, struct wire_status *s) {
    struct rows_stats r;
    struct names_stats n;
    struct store_stats t;
    if (!i->own.rows) return;
    rows_stats(i->own.rows, &r);
    names_stats(i->own.names, &n);
    store_stats(i->store, &t);
    s->incarnation = le64_of(store_incarnation(i->store));
    s->blocks_total = le64_of(store_blocks_total(i->store));
    s->blocks_free = le64_of(store_blocks_free(i->store));
    s->blocks_used = le64_of(store_blocks_used(i->store));
    s->objects = le64_of(n.objects);
    s->rows_dirty_bytes = le64_of(r.dirty_bytes);
    s->rows_cache_bytes = le64_of(r.cache_bytes);
    s->store_cache_bytes = le64_of(t.cache_used_bytes);
    s->writes = le64_of(r.writes);
    s->reads = le64_of(r.reads);
    s->deltas_sent = le64_of(r.deltas_sent);
    s->settled = le64_of(r.settled);
    s->bad_blocks = le64_of(r.bad_blocks);
    s->mended_blocks = le64_of(r.mended_blocks);
    s->lost_blocks = le64_of(r.lost_blocks);
    s->journal_flushes = le64_of(t.journal_flushes);
    s->journal_bytes = le64_of(t.journal_bytes_written);
    s->data_blocks_written = le64_of(t.data_blocks_written);
    s->data_blocks_read = le64_of(t.data_blocks_read);
    if (i->building_ns) {
        s->missing_total = le64_of(r.missing_total);
        s->missing_done = le64_of(MIN(r.missing_done, r.missing_total)); // what is written meanwhile can make it more
        s->building_ms = le64_of((env_now_ns(i->env) - i->building_ns) / MSEC(1));
    }
    s->journal_apart = store_journal_apart(i->store);
    s->protected = (i->disk->power_protected ? WIRE_PROTECTED_STORE : 0) |
                   ((i->journal ? i->journal : i->disk)->power_protected ? WIRE_PROTECTED_JOURNAL : 0);
}

static void status_of_scrub(struct iom *i, struct wire_status *s) {
    struct rows_scrub x;
    if (!i->own.rows) return;
    rows_scrub_look(i->own.rows, &x);
    s->scrub.running = x.running;
    s->scrub.result = le32_of(x.result);
    s->scrub.done = le64_of(x.done);
    s->scrub.total = le64_of(x.total);
    s->scrub.rows = le64_of(x.rows);
    s->scrub.bytes = le64_of(x.bytes);
    s->scrub.rate = le64_of(x.rate);
    s->scrub.found = le64_of(x.found);
    s->scrub.mended = le64_of(x.mended);
    s->scrub.lost = le64_of(x.lost);
    s->scrub.skipped = le64_of(x.skipped);
    s->scrub.elapsed_ns = le64_of(x.elapsed_ns);
}

static void status_of_world(struct iom *i, struct wire_status *s) {
    struct iom_counters c;
    if (!i->config->counters) return;
    i->config->counters(i->config->ctx, &c);
    s->msgs_in = le64_of(c.msgs_in);
    s->msgs_out = le64_of(c.msgs_out);
    s->net_bytes_in = le64_of(c.net_bytes_in);
    s->net_bytes_out = le64_of(c.net_bytes_out);
    s->syscalls = le64_of(c.syscalls);
    s->wakes = le64_of(c.wakes);
    s->disk_calls = le64_of(c.disk_calls);
    s->slow_turns = le64_of(c.slow_turns);
    s->longest_turn_ns = le64_of(c.longest_turn_ns);
    s->disk_writes = le64_of(c.disk_writes);
    s->disk_flushes = le64_of(c.disk_flushes);
    s->disk_bytes_written = le64_of(c.disk_bytes_written);
}

static void answer_status(struct iom *i, struct inbound *in) {
    struct msg *reply = inbound_reply(in, sizeof(struct wire_status));
    struct wire_status *s = (struct wire_status *)reply->body;
    status_of_map(i, s);
    status_of_store(i, s);
    status_of_scrub(i, s);
    status_of_world(i, s);
    s->mem_bytes = le64_of(mem_used_bytes(i->env->mem));
    s->mem_spare_bytes = le64_of(mem_spare_bytes(i->env->mem));
    s->cache_limit_bytes = le64_of(i->config->store.cache_bytes + i->config->rows.cache_bytes);
    hub_reply(in, reply, OK);
}

struct sentences {
    struct buf *b;
    uint32_t len;
};
static void collect(void *ctx, const char *sentence) {
    struct sentences *s = ctx;
    uint32_t n = (uint32_t)strlen(sentence);
    if (s->len + n + 1 > KIB(64)) return; // the count tells that there are more
    memcpy(s->b->data + s->len, sentence, n);
    s->b->data[s->len + n] = '\n';
    s->len += n + 1;
}

static void co_verify(struct instance *x, struct inbound *in) {
    struct iom *i = x->i;
    struct msg *reply = inbound_reply(in, sizeof(struct rep_verify));
    struct rep_verify *r = (struct rep_verify *)reply->body;
    struct sentences s = {.b = buf_new(i->env->mem, (uint32_t)KIB(64))};
    uint64_t rows = 0, faults = 0;
    err e = co_rows_verify(x->rows, collect, &s, &rows, &faults);
    r->rows = le64_of(rows);
    r->faults = le64_of(faults);
    r->blocks = le64_of(store_blocks_used(i->store));
    if (s.len) msg_set_payload(reply, (struct slice){s.b, 0, s.len});
    buf_unref(s.b);
    hub_reply(in, reply, e);
}

// All that this service holds is on disk, here and where it has a second copy. A touch it sends may be news to another IOM: two rounds over all IOMs leave
// nothing behind.
static err co_sync(struct instance *x) {
    err e = co_rows_sync(x->rows);
    while (x->touching) co_wait(x->i->env, &x->touched, "iom: touches reach their starters");
    return e ? e : co_names_sync(x->names);
}

static bool array_is_whole(const struct iom *i) { // nobody is missing, and nothing has to be built: only then a row can be judged
    const struct cluster_map *m = register_latest(i->reg);
    for (uint8_t n = 0; m && n < m->ioms; n++)
        if (m->iom[n].state != MAP_IOM_UP) return false;
    return m != NULL;
}

static void co_control(struct instance *x, struct inbound *in) {
    const struct req_control *r = (const struct req_control *)in->m->body;
    if (in->m->body_len < sizeof *r) {
        hub_reply(in, NULL, ERR_FORMAT);
        return;
    }
    switch ((enum control_op)r->op) {
    case CONTROL_STOP:
        hub_reply(in, NULL, OK);
        iom_ask_stop(x->i);
        return;
    case CONTROL_VERIFY:
        if (x->serving) co_verify(x, in);
        else hub_reply(in, NULL, ERR_STOPPED);
        return;
    case CONTROL_SYNC:
        hub_reply(in, NULL, x->serving ? co_sync(x) : ERR_STOPPED);
        return;
    case CONTROL_REPLACE: {
        struct msg *reply = NULL;
        err e = x->serving ? co_replace(x->i, in, &reply) : ERR_STOPPED;
        hub_reply(in, reply, e);
        return;
    }
    case CONTROL_SCRUB:
        hub_reply(in, NULL, !x->serving ? ERR_STOPPED : !array_is_whole(x->i) ? ERR_BUSY : rows_scrub_start(x->rows, le64_get(r->rate)));
        return;
    }
    hub_reply(in, NULL, ERR_INVAL);
}

// ---- calls
struct request {
    struct instance *x;
    struct inbound *in;
    void (*co_answer)(struct instance *x, struct inbound *in);
};

static void request_task(void *arg) {
    struct request *q = arg;
    struct instance *x = q->x;
    q->co_answer(x, q->in);
    mem_free(x->i->env->mem, q);
    if (--x->requests == 0) waitq_wake_all(x->i->env, &x->idle);
}

static void co_names_answer(struct instance *x, struct inbound *in) { co_names_call(x->names, in); }
static void co_rows_answer(struct instance *x, struct inbound *in) { rows_call(x->rows, in); }
static void co_read_answer(struct instance *x, struct inbound *in) { co_data_read(x->rows, in); }
static void co_write_answer(struct instance *x, struct inbound *in) { co_data_write(x->rows, x->names, in); }
static void co_fsync_answer(struct instance *x, struct inbound *in) { co_data_fsync(x->rows, in); }
static void co_discard_answer(struct instance *x, struct inbound *in) { co_data_discard(x->rows, in); }
static void co_zero_answer(struct instance *x, struct inbound *in) { co_data_zero(x->rows, in); }

static void (*answer_of(uint16_t type))(struct instance *x, struct inbound *in) {
    if (names_takes(type)) return co_names_answer;
    switch (type) {
    case MSG_READ: return co_read_answer;
    case MSG_WRITE: return co_write_answer;
    case MSG_FSYNC: return co_fsync_answer;
    case MSG_DISCARD: return co_discard_answer;
    case MSG_ZERO: return co_zero_answer;
    case MSG_RESOLVE: case MSG_VERIFY: case MSG_GATHER: case MSG_SEGMENTS: case MSG_CENSUS: return co_rows_answer;
    case MSG_MISSED: return co_missed_answer;
    case MSG_CONTROL: return co_control;
    default: return NULL;
    }
}

static bool may_ask(const struct instance *x, const struct inbound *in) {
    if (in->m->type == MSG_CONTROL) return in->from.kind == NODE_TOOL && x->rows != NULL;
    if (in->from.kind == NODE_IOM) return x->rows != NULL && !x->cancelled;
    return x->serving && !x->cancelled && member_may_serve(x->i->member);
}

static void on_call(void *ctx, struct inbound *in) {
    struct instance *x = ctx;
    if (in->m->type == MSG_GET_MAP) {
        answer_map(x->i, in);
        return;
    }
    if (in->m->type == MSG_STATUS) {
        answer_status(x->i, in);
        return;
    }
    void (*co_answer)(struct instance *, struct inbound *) = answer_of(in->m->type);
    if (!co_answer || !may_ask(x, in)) {
        hub_reply(in, NULL, co_answer ? ERR_STOPPED : ERR_NOTSUP);
        return;
    }
    struct request *q = mem_alloc(x->i->env->mem, sizeof *q);
    *q = (struct request){x, in, co_answer};
    x->requests++;
    env_spawn(x->i->env, "iom: request", request_task, q);
}

// ---- posts and casts
static void on_post(void *ctx, iom_id from, struct msg *m) {
    struct instance *x = ctx;
    if (!x->rows || x->cancelled) msg_free(m); // of an epoch that is over: the hub's epoch changes before there is an instance again
    else if (m->type == MSG_MIRROR || m->type == MSG_MIRROR_ACK) names_receive(x->names, from, m);
    else rows_receive(x->rows, from, m);
}

static void on_cast(void *ctx, const struct node_name *from, struct msg *m) {
    struct instance *x = ctx;
    if (x->i->member && x == &x->i->own) member_cast(x->i->member, from, m);
    else msg_free(m);
}

static void on_gone(void *ctx, const struct node_name *who) {
    struct instance *x = ctx;
    if (who->kind == NODE_MX && x->names) names_session_gone(x->names, who->id);
}

struct hub_events iom_hub_events(struct instance *x) {
    return (struct hub_events){.call = on_call, .post = on_post, .cast = on_cast, .gone = on_gone, .any_epoch = any_epoch, .ctx = x};
}
