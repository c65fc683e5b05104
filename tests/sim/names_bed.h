// A bed for names: IOMs that have a store, a hub and names, but no rows (discards are counted and answered), in the
// simulated world, and one client. The script runs as a task of the client; it breaks IOMs and leads the recovery
// itself.
#pragma once
#include "iom/names.h"
#include "iom/names_format.h"
#include "sim/world.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h> // after what it needs

#define BED_IOMS_MAX 5
#define BED_SLOTS 8

struct bed;
struct bed_iom {
    struct bed *bed;
    uint8_t i;
    char name[8];
    struct node *node;
    struct disk *disk;
    struct store *store;
    struct hub *hub;
    struct names *names;
    struct peer *peer[BED_IOMS_MAX];
    bool formatted, ready, serving;
    bool stop_wanted, stopped, cancel_wanted;
    uint32_t phase_wanted, phase_done; // 1 more than the phase
    uint64_t discards, zeros;
};
struct bed {
    struct world *w;
    struct bed_iom iom[BED_IOMS_MAX];
    uint8_t ioms;
    struct array_shape array;
    uint64_t epoch, disk_bytes, lease_ns;
    struct store_config config;
    struct node *mx;
    struct hub *hub;
    struct peer *peer[BED_IOMS_MAX];
    uint8_t session[16];
    uint64_t seq[BED_SLOTS];
    struct handle opens[64];
    uint32_t opens_len;
    struct wire_slot creates[4]; // under way, with `open`: named when the session is renewed
    uint32_t creates_len;
    void (*script)(struct bed *b);
    bool over;
    bool recovering;
    uint64_t calls, retries, recovery_deaths;
    void *user;
};

static inline struct env *mx_env(struct bed *b) {
    return node_env(b->mx);
}

// ---- an IOM
static inline void bed_port_post(void *ctx, iom_id to, struct msg *m) {
    struct bed_iom *s = ctx;
    hub_post(s->peer[to.n], m);
}
static inline struct msg *bed_port_msg(void *ctx, uint16_t type, uint32_t len) {
    return hub_msg(((struct bed_iom *)ctx)->hub, type, len);
}
static inline err bed_port_call(void *ctx, iom_id to, struct msg *req, struct msg **reply) {
    struct bed_iom *s = ctx;
    *reply = NULL;
    if (to.n == s->i) {
        err e = co_names_serve(s->names, req, reply);
        msg_free(req);
        return e;
    }
    for (;;) { // ERR_STOPPED ends it only if this IOM stops itself
        struct call_opts o = {.deadline_ns = env_now_ns(node_env(s->node)) + SEC(2)};
        err e = co_call(s->peer[to.n], msg_copy(node_env(s->node)->mem, req, false), &o, reply);
        if (e != ERR_STOPPED || s->stop_wanted) {
            msg_free(req);
            return e;
        }
        co_sleep_until(node_env(s->node), env_now_ns(node_env(s->node)) + MSEC(1), "bed");
    }
}
static inline err bed_port_discard(void *ctx, struct handle h, const struct refmap *m, uint64_t from,
                                   uint32_t truncates, bool gone) {
    ((struct bed_iom *)ctx)->discards++;
    return OK;
}
static inline err bed_port_zero(void *ctx, struct handle h, const struct refmap *m, uint64_t off, uint64_t len,
                                uint32_t truncates) {
    ((struct bed_iom *)ctx)->zeros++;
    return OK;
}

struct bed_call {
    struct bed_iom *s;
    struct inbound *in;
};
static inline void bed_call_task(void *arg) {
    struct bed_call c = *(struct bed_call *)arg;
    mem_free(node_env(c.s->node)->mem, arg);
    co_names_call(c.s->names, c.in);
}
static inline void bed_on_call(void *ctx, struct inbound *in) {
    struct bed_iom *s = ctx;
    uint16_t type = in->m->type;
    if (type == MSG_DISCARD) s->discards++;
    if (type == MSG_ZERO) s->zeros++;
    if (type == MSG_DISCARD || type == MSG_ZERO)
        hub_reply(in, NULL, OK);
    else if (s->names == NULL || (!s->serving && type < MSG_READ && in->from.kind == NODE_MX))
        hub_reply(in, NULL, ERR_STOPPED);
    else {
        struct bed_call *c = mem_alloc(node_env(s->node)->mem, sizeof *c);
        *c = (struct bed_call){s, in};
        env_spawn(node_env(s->node), "request", bed_call_task, c);
    }
}
static inline void bed_on_post(void *ctx, iom_id from, struct msg *m) {
    struct bed_iom *s = ctx;
    if (s->names != NULL)
        names_receive(s->names, from, m);
    else
        msg_free(m);
}
static inline bool bed_any_epoch(void *ctx, uint16_t type) {
    return false;
}

static inline void bed_check(err e, const char *what, uint8_t iom) {
    if (e == OK) return;
    fprintf(stderr, "IOM %u: %s: %s\n", iom, what, err_name(e));
    abort();
}

static inline void bed_iom_open(struct bed_iom *s) {
    struct env *e = node_env(s->node);
    struct bed *b = s->bed;
    char disk[16];
    snprintf(disk, sizeof disk, "disk%u", s->i);
    bed_check(disk_open(e, &(struct disk_open_args){disk, true, b->disk_bytes}, &s->disk), "disk", s->i);
    if (!s->formatted) {
        struct store_ident id = {.iom = s->i, .array_ioms = b->ioms};
        id.store[0] = (uint8_t)(s->i + 1);
        bed_check(co_store_format(s->disk, &id, &b->config), "format", s->i);
        s->formatted = true;
    }
    struct names_replay *replay = names_replay_new(e);
    struct store_hooks hooks = {names_replay_note, replay};
    bed_check(co_store_open(s->disk, &b->config, &hooks, &s->store), "store", s->i);
    struct hub_config hc = {.cluster = "bed",
                            .self = {.kind = NODE_IOM, .iom = s->i, .incarnation = store_incarnation(s->store)},
                            .events = {.call = bed_on_call, .post = bed_on_post, .any_epoch = bed_any_epoch, .ctx = s}};
    hc.self.id[0] = (uint8_t)(s->i + 1);
    s->hub = hub_create(e, &hc);
    for (uint8_t i = 0; i < b->ioms; i++)
        if (i != s->i) s->peer[i] = hub_peer(s->hub, (iom_id){i}, b->iom[i].name);
    struct names_port port = {s, bed_port_post, bed_port_msg, bed_port_call, bed_port_discard, bed_port_zero};
    struct names_config nc = {.self = {s->i}, .array = b->array, .session_lease_ns = b->lease_ns};
    s->names = names_create(e, s->store, &port, &nc);
    names_take_replay(s->names, replay);
    bed_check(hub_listen(s->hub, s->name), "listen", s->i);
}

static inline void bed_cancel_task(void *arg) {
    struct bed_iom *s = arg;
    for (;; co_sleep_until(node_env(s->node), env_now_ns(node_env(s->node)) + USEC(200), "bed")) {
        if (!s->cancel_wanted) continue;
        s->cancel_wanted = false;
        names_cancel(s->names);
    }
}

static inline void bed_iom_task(void *arg) {
    struct bed_iom *s = arg;
    bed_iom_open(s);
    env_spawn(node_env(s->node), "bed", bed_cancel_task, s);
    s->ready = s->stopped = true;
    for (;;) {
        if (s->stop_wanted) {
            co_names_stop(s->names, false);
            s->stop_wanted = false;
            s->stopped = true;
        }
        if (s->phase_wanted > s->phase_done) {
            uint32_t phase = s->phase_wanted - 1;
            if (phase == 0) hub_set_epoch(s->hub, s->bed->epoch);
            s->stopped = false;
            err e = co_names_recover(s->names, phase, s->bed->epoch);
            if (!s->stop_wanted) bed_check(e, "recovery", s->i);
            s->phase_done = phase + 1;
        }
        co_sleep_until(node_env(s->node), env_now_ns(node_env(s->node)) + USEC(200), "bed");
    }
}

static inline void bed_iom_start(struct bed_iom *s) {
    s->ready = s->serving = s->stopped = s->stop_wanted = s->cancel_wanted = false;
    s->phase_wanted = s->phase_done = 0;
    s->names = NULL;
    node_start(s->node, bed_iom_task, s);
}

// ---- the client
static inline void co_pause(struct bed *b, uint64_t ns) {
    co_sleep_until(mx_env(b), env_now_ns(mx_env(b)) + ns, "bed");
}

static inline struct msg *mx_msg(struct bed *b, uint16_t type, uint32_t len) {
    struct msg *m = hub_msg(b->hub, type, len);
    memcpy(((struct req_head *)(void *)m->body)->session, b->session, 16);
    return m;
}

// Owns m; sends until it is answered; slot >= 0: exactly once.
static inline err co_mx_call(struct bed *b, uint8_t iom, int slot, struct msg *m, struct msg **reply) {
    struct req_head *h = (void *)m->body;
    b->calls++;
    if (slot >= 0) {
        h->slot = le32_of((uint32_t)slot);
        h->seq = le64_of(++b->seq[slot]);
    }
    for (;;) {
        h->env.epoch = le64_of(hub_epoch(b->hub));
        struct call_opts o = {.deadline_ns = env_now_ns(mx_env(b)) + SEC(3)};
        *reply = NULL;
        err e = co_call(b->peer[iom], msg_copy(mx_env(b)->mem, m, false), &o, reply);
        if (!err_again(e) || e == ERR_TRUNCATED || (e == ERR_SESSION && !b->recovering)) {
            msg_free(m);
            return e;
        }
        b->retries++;
        co_pause(b, MSEC(2));
    }
}

static inline err co_mx_session(struct bed *b, uint16_t type) {
    for (uint8_t i = 0; i < b->ioms; i++) {
        uint32_t creates = type == MSG_SESSION_RENEW ? b->creates_len * (uint32_t)sizeof b->creates[0] : 0;
        struct msg *m = mx_msg(b, type, (uint32_t)sizeof(struct req_renew) + creates), *reply;
        memcpy(((struct req_renew *)(void *)m->body)->creates, b->creates, creates);
        if (type == MSG_SESSION_RENEW && b->opens_len > 0) {
            struct buf *buf = buf_new(mx_env(b)->mem, b->opens_len * HANDLE_BYTES);
            for (uint32_t k = 0; k < b->opens_len; k++) handle_put(buf->data + k * HANDLE_BYTES, b->opens[k]);
            msg_set_payload(m, (struct slice){buf, 0, b->opens_len * HANDLE_BYTES});
            buf_unref(buf);
        }
        err e = co_mx_call(b, i, -1, m, &reply);
        msg_free(reply);
        if (e != OK) return e;
    }
    return OK;
}

// Stops all that run, starts all that do not, and leads them through the phases into a new epoch.
static inline bool bed_all_run(struct bed *b) {
    for (uint8_t i = 0; i < b->ioms; i++)
        if (!node_running(b->iom[i].node)) return false;
    return true;
}
static inline bool co_bed_recover_once(struct bed *b) { // false: one more died
    b->epoch++;
    for (uint8_t i = 0; i < b->ioms; i++) {
        struct bed_iom *s = &b->iom[i];
        s->serving = false;
        if (!node_running(s->node))
            bed_iom_start(s);
        else if (s->ready && !s->stopped)
            s->stop_wanted = s->cancel_wanted = true;
        s->phase_wanted = s->phase_done = 0;
    }
    for (uint8_t i = 0; i < b->ioms; i++)
        while (!b->iom[i].ready || !b->iom[i].stopped) {
            if (!bed_all_run(b)) return false;
            co_pause(b, USEC(500));
        }
    for (uint8_t i = 0; i < b->ioms; i++) b->iom[i].phase_wanted = b->iom[i].phase_done = 0;
    for (uint32_t phase = 0; phase < NAMES_RECOVERY_PHASES; phase++) {
        for (uint8_t i = 0; i < b->ioms; i++) b->iom[i].phase_wanted = phase + 1;
        for (uint8_t i = 0; i < b->ioms; i++)
            while (b->iom[i].phase_done <= phase) {
                if (!bed_all_run(b)) return false;
                co_pause(b, USEC(100));
            }
    }
    return true;
}
static inline void co_bed_recover(struct bed *b) {
    b->recovering = true;
    while (!co_bed_recover_once(b) || !bed_all_run(b)) b->recovery_deaths++;
    for (uint8_t i = 0; i < b->ioms; i++) b->iom[i].serving = true;
    hub_set_epoch(b->hub, b->epoch);
    bool first = b->session[0] == 0;
    if (first) snprintf((char *)b->session, 16, "session of bed");
    bed_check(co_mx_session(b, first ? MSG_SESSION_OPEN : MSG_SESSION_RENEW), "session", 99);
    b->recovering = false;
}

static inline void bed_client_task(void *arg) {
    struct bed *b = arg;
    struct hub_config hc = {.cluster = "bed", .self = {.kind = NODE_MX, .id = "client"}, .events = {.ctx = b}};
    b->hub = hub_create(mx_env(b), &hc);
    for (uint8_t i = 0; i < b->ioms; i++) b->peer[i] = hub_peer(b->hub, (iom_id){i}, b->iom[i].name);
    co_bed_recover(b);
    b->script(b);
    b->over = true;
}
static inline bool bed_going(void *ctx) {
    return !((struct bed *)ctx)->over;
}
static inline void bed_trace(void *ctx, const char *line) {
    fprintf(stderr, "%s\n", line);
}
static inline struct world_options bed_options(void) {
    struct world_options o = world_options_default();
    o.net_power_notice_ns =
        MSEC(5); // who speaks to a machine without power hears of it: here nothing else would tell him
    o.trace = bed_trace;
    o.trace_level = getenv("BED_TRACE") ? (enum trace_level)atoi(getenv("BED_TRACE")) : TRACE_ERROR;
    return o;
}
static inline void bed_dump_line(void *ctx, const char *text) {
    fprintf(stderr, "  %s\n", text);
}

static inline void bed_begin(struct bed *b, uint64_t seed, uint8_t ioms, const struct world_options *o) {
    *b = (struct bed){.ioms = ioms, .disk_bytes = MIB(32), .lease_ns = SEC(600)};
    array_shape_make(&b->array, ioms, NULL);
    b->config = (struct store_config){.journal_bytes = MIB(2), .cache_bytes = MIB(4)};
    b->w = world_create(seed, o);
    for (uint8_t i = 0; i < ioms; i++) {
        struct bed_iom *s = &b->iom[i];
        s->bed = b;
        s->i = i;
        snprintf(s->name, sizeof s->name, "iom%u", i);
        s->node = node_add(b->w, s->name);
    }
    b->mx = node_add(b->w, "mx");
}
static inline void bed_run(struct bed *b, void (*script)(struct bed *b), uint64_t limit_ns) {
    b->script = script;
    b->over = false;
    if (!node_running(b->mx)) node_start(b->mx, bed_client_task, b);
    if (!world_run_while(b->w, bed_going, b, world_now_ns(b->w) + limit_ns)) {
        fprintf(stderr, "the script did not end in time\nclient:\n");
        env_dump(mx_env(b), bed_dump_line, NULL);
        for (uint8_t i = 0; i < b->ioms; i++) {
            fprintf(stderr, "IOM %u:\n", i);
            if (node_running(b->iom[i].node)) env_dump(node_env(b->iom[i].node), bed_dump_line, NULL);
        }
        abort();
    }
}
static inline void bed_end(struct bed *b) {
    world_destroy(b->w);
}

// ---- the check, on a node of its own that opens all stores after the others have gone
struct bed_checker {
    struct bed *bed;
    struct node *node;
    bool over;
    uint64_t objects, faults;
};
static inline void bed_fault(void *ctx, const char *text) {
    fprintf(stderr, "check: %s\n", text);
}
static inline void bed_checker_task(void *arg) {
    struct bed_checker *c = arg;
    struct env *e = node_env(c->node);
    struct store *stores[BED_IOMS_MAX];
    for (uint8_t i = 0; i < c->bed->ioms; i++) {
        char name[16];
        struct disk *d;
        snprintf(name, sizeof name, "disk%u", i);
        bed_check(disk_open(e, &(struct disk_open_args){name, true, c->bed->disk_bytes}, &d), "disk", i);
        bed_check(co_store_open(d, &c->bed->config, &(struct store_hooks){0}, &stores[i]), "store", i);
    }
    bed_check(co_names_check(e, stores, &c->bed->array, NO_IOM, bed_fault, NULL, &c->objects, &c->faults), "check", 99);
    for (uint8_t i = 0; i < c->bed->ioms; i++) co_store_abandon(stores[i]);
    c->over = true;
}
static inline bool bed_checking(void *ctx) {
    return !((struct bed_checker *)ctx)->over;
}
// All processes die (nothing is lost that a live disk has), then the stores are checked. Returns the number of objects.
static inline uint64_t bed_check_stores(struct bed *b) {
    struct bed_checker c = {.bed = b, .node = node_add(b->w, "checker")};
    for (uint8_t i = 0; i < b->ioms; i++) node_crash(b->iom[i].node);
    node_crash(b->mx);
    node_start(c.node, bed_checker_task, &c);
    bool done = world_run_while(b->w, bed_checking, &c, world_now_ns(b->w) + SEC(1000));
    ASSERT(done);
    if (c.faults > 0) {
        fprintf(stderr, "%llu faults\n", (unsigned long long)c.faults);
        abort();
    }
    return c.objects;
}
