// A store that is lost for good, and another one in its place: what `mendfs replace-iom` does. The tool runs where the IOM ran, since that one is dead.
#include "sim/array.h"
#include "wire/format.h"

#include <stdlib.h>
#include <string.h>

#define ANSWER_NS SEC(5)
#define AGAIN_NS MSEC(100)

struct replacing {
    struct sim_iom *i;
    struct store_ident ident;
    struct cluster_map known;
    uint64_t incarnation;
    struct hub *hub;
    bool done;
    err result;
};

static void ignore_call(void *ctx, struct inbound *in) { hub_drop(in); }
static void ignore_msg(void *ctx, iom_id from, struct msg *m) { msg_free(m); }
static void ignore_cast(void *ctx, const struct node_name *from, struct msg *m) { msg_free(m); }

static void take(struct replacing *x, const struct msg *reply) {
    ASSERT(reply->body_len == sizeof(struct rep_replace));
    x->incarnation = le64_get(((const struct rep_replace *)(const void *)reply->body)->incarnation);
    x->result = cluster_map_decode(&x->known, slice_data(reply->payload), reply->payload.len_bytes, NULL);
}

static bool co_ask(struct replacing *x, struct env *e, const struct sim_iom *at) {
    struct msg *q = hub_msg(x->hub, MSG_CONTROL, sizeof(struct req_control)), *reply;
    struct req_control *r = (void *)q->body;
    r->op = CONTROL_REPLACE;
    r->iom = x->i->n;
    memcpy(r->store, x->ident.store, 16);
    if (co_call(hub_peer(x->hub, (iom_id){at->n}, at->name), q, &(struct call_opts){.deadline_ns = env_now_ns(e) + ANSWER_NS}, &reply) != OK) return false;
    take(x, reply);
    msg_free(reply);
    return true;
}

// Until the array goes on without that IOM, and has said yes.
static void co_ask_all(struct replacing *x, struct env *e) {
    const struct array *a = x->i->array;
    for (uint8_t n = 0;; n = (uint8_t)((n + 1) % a->ioms)) {
        if (n != x->i->n && co_ask(x, e, &a->iom[n])) return;
        co_sleep_until(e, env_now_ns(e) + AGAIN_NS, "replace: asks again");
    }
}

static err co_make(struct replacing *x, struct env *e) {
    struct disk *d, *journal;
    err r = co_array_disks_open(x->i, e, &d, &journal);
    if (r) return r;
    struct store_config c = x->i->config.store;
    c.journal = journal;
    c.incarnation = x->incarnation;
    r = co_iom_replacement_make(d, &x->ident, &c, &x->known);
    if (journal) co_disk_close(journal);
    co_disk_close(d);
    return r;
}

static void replace_main(void *arg) {
    struct replacing *x = arg;
    struct env *e = node_env(x->i->node);
    struct hub_config h = {.self = {.kind = NODE_TOOL, .iom = NO_IOM, .id = "replacer"}, .events = {.call = ignore_call, .post = ignore_msg, .cast = ignore_cast}};
    memcpy(h.cluster, x->ident.cluster, 16);
    x->hub = hub_create(e, &h);
    co_ask_all(x, e);
    hub_destroy(x->hub);
    if (x->result == OK) x->result = co_make(x, e);
    x->done = true;
}

static bool replacing(void *ctx) { return !((struct replacing *)ctx)->done; }

bool array_replace(struct sim_iom *i, uint64_t deadline_ns) {
    struct replacing *x = calloc(1, sizeof *x);
    struct world *w = i->array->world;
    ASSERT(x && !node_running(i->node));
    x->i = i;
    x->ident = (struct store_ident){.iom = i->n, .array_ioms = i->array->ioms};
    memcpy(x->ident.cluster, i->array->cluster, 16);
    for (unsigned b = 0; b < 16; b++) x->ident.store[b] = (uint8_t)world_random(w);
    world_disk_erase(world_disk_find(w, i->disk));
    if (i->journal[0]) world_disk_erase(world_disk_find(w, i->journal));
    node_start(i->node, replace_main, x);
    bool done = world_run_while(w, replacing, x, deadline_ns);
    ASSERT(!done || x->result == OK);
    node_crash(i->node);
    free(x);
    return done;
}
