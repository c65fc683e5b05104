// An MX from start to end.
#include "mx/inside.h"
#include "wire/format.h"

static void on_call(void *ctx, struct inbound *in) { hub_reply(in, NULL, ERR_NOTSUP); }
static void on_message(void *ctx, const struct node_name *from, struct msg *m) { msg_free(m); }
static void on_post(void *ctx, iom_id from, struct msg *m) { msg_free(m); }
static void on_gone(void *ctx, const struct node_name *who) {}
static bool any_epoch(void *ctx, uint16_t type) { return type == MSG_GET_MAP; }

static void random_bytes(struct env *e, uint8_t *p, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) p[i] = (uint8_t)env_random(e);
}

struct mx *mx_create(struct env *e, const struct mx_config *c) {
    struct mx *m = mem_alloc(e->mem, sizeof *m);
    m->env = e;
    m->config = *c;
    random_bytes(e, m->session, sizeof m->session);
    waitq_init(&m->map_news);
    waitq_init(&m->map_wanted);
    list_init(&m->object_list);
    list_init(&m->idle);
    list_init(&m->tries);
    map_init_key32(&m->objects, e->mem);
    struct hub_config h = {.self = {.kind = NODE_MX}, .events = {.call = on_call, .post = on_post, .cast = on_message, .gone = on_gone, .any_epoch = any_epoch, .ctx = m}};
    memcpy(h.cluster, c->cluster, sizeof h.cluster);
    memcpy(h.self.id, m->session, sizeof h.self.id);
    m->hub = hub_create(e, &h);
    for (uint8_t i = 0; i < c->array_ioms; i++) {
        struct mx_iom *x = &m->iom[i];
        x->peer = hub_peer(m->hub, (iom_id){i}, c->at[i]);
        co_lock_init(&x->opening);
        waitq_init(&x->slot_free);
        waitq_init(&x->append_over);
        waitq_init(&x->parting_wake);
        list_init(&x->parting);
    }
    return m;
}

err co_mx_start(struct mx *m, struct mx_op *op) {
    mx_op_begin(m, op);
    m->map_stale = true;
    env_spawn(m->env, "mx: map", mx_refresher, m);
    env_spawn(m->env, "mx: sessions", mx_renewer, m);
    return co_mx_map_wait(m, op);
}

static void co_say_goodbye(struct mx *m, iom_id iom, uint64_t deadline_ns) {
    struct mx_op op = {0};
    struct msg *reply;
    struct call_opts o = {.deadline_ns = deadline_ns};
    err e = co_call(m->iom[iom.n].peer, mx_msg(m, &op, MSG_SESSION_CLOSE, sizeof(struct req_head)), &o, &reply);
    if (e) LOG(m->env, TRACE_INFO, "session at IOM %u not closed (%s): it expires by its lease", iom.n, err_text(e));
    msg_free(reply);
}

void co_mx_stop(struct mx *m) {
    uint64_t deadline_ns = env_now_ns(m->env) + SEC(1);
    m->stopping = true;
    waitq_wake_all(m->env, &m->map_wanted);
    waitq_wake_all(m->env, &m->map_news);
    mx_partings_stop(m);
    for (uint8_t i = 0; i < m->config.array_ioms; i++)
        if (m->iom[i].session) co_say_goodbye(m, (iom_id){i}, deadline_ns);
    while (m->refresher_runs || m->renewer_runs || m->releasers)
        if (!co_wait_until(m->env, &m->map_news, env_now_ns(m->env) + SEC(1), "mx: end of its tasks")) break;
}

void mx_destroy(struct mx *m) {
    timer_cancel(m->env, &m->doubt);
    hub_destroy(m->hub);
    while (!list_empty(&m->object_list)) {
        struct mx_object *o = LIST_ENTRY(m->object_list.next, struct mx_object, node);
        o->refs = 1;
        o->synced = o->writes, o->lost_told = true; // nobody is left to be told
        list_remove(&o->idle);
        mx_object_put(m, o);
    }
    map_fini(&m->objects);
    mem_free(m->env->mem, m);
}

void mx_stats(const struct mx *m, struct mx_stats *out) { *out = m->stats; }
