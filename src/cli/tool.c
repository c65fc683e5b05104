// A command as a node of kind "tool": its loop, its hub, and asking all IOMs at once.
#include "cli/tool.h"

#include <stdio.h>
#include <string.h>

// ---- the last error
static void keep_line(void *ctx, enum trace_level level, const char *line) {
    struct last_error *k = ctx;
    if (level == TRACE_ERROR) snprintf(k->text, sizeof k->text, "%s", line);
    if (k->sink) k->sink(k->ctx, level, line);
}

void last_error_keep(struct env *e, struct last_error *k, bool quiet) {
    *k = (struct last_error){.sink = quiet ? NULL : e->trace.sink, .ctx = e->trace.ctx};
    e->trace.sink = keep_line;
    e->trace.ctx = k;
}

// ---- running
static void tool_task(void *arg) {
    struct tool *t = arg;
    t->co_fn(t);
    loop_stop(t->l);
}

void tool_run(const uint8_t cluster[16], void (*co_fn)(struct tool *t), void *arg) {
    struct tool t = {.l = loop_create(), .co_fn = co_fn, .arg = arg};
    struct hub_config h = {.self = {.kind = NODE_TOOL, .iom = NO_IOM}};
    t.e = loop_env(t.l);
    last_error_keep(t.e, &t.error, true);
    for (int i = 0; i < 16; i++) h.self.id[i] = (uint8_t)env_random(t.e);
    memcpy(h.cluster, cluster, 16);
    t.hub = hub_create(t.e, &h);
    env_spawn(t.e, "command", tool_task, &t);
    loop_run(t.l);
    hub_destroy(t.hub);
    loop_destroy(t.l);
}

// ---- asking
void addresses_of(const struct conf *c, struct addresses *a) {
    *a = (struct addresses){.ioms = c->ioms};
    uint8_t host[ARRAY_IOMS_MAX];
    for (uint8_t i = 0; i < c->ioms; i++) {
        memcpy(a->at[i], c->iom[i].at, sizeof a->at[i]);
        memcpy(a->host[i], c->iom[i].host, sizeof a->host[i]);
        for (host[i] = 0; strcmp(c->iom[host[i]].host, c->iom[i].host) != 0;) host[i]++; // the first with that label
    }
    if (c->ioms) array_shape_make(&a->shape, c->ioms, host); // as the map has it: an IOM whose map has other labels does not start
}

void addresses_of_map(const struct cluster_map *m, struct addresses *a) {
    *a = (struct addresses){.ioms = m->ioms};
    for (uint8_t i = 0; i < m->ioms; i++) {
        memcpy(a->at[i], m->iom[i].at, sizeof a->at[i]);
        memcpy(a->host[i], m->iom[i].host, sizeof a->host[i]);
    }
    cluster_map_shape(m, &a->shape);
}

struct question {
    struct tool *t;
    iom_id iom;
    const char *at;
    uint64_t deadline_ns;
    struct iom_answer *out;
    struct group *all;
};

static void co_ask_one(void *arg) {
    struct question *q = arg;
    struct call_opts o = {.deadline_ns = q->deadline_ns};
    struct msg *reply;
    err e = co_call(hub_peer(q->t->hub, q->iom, q->at), hub_msg(q->t->hub, MSG_STATUS, sizeof(struct envelope)), &o,
                    &reply);
    if (!e && reply->body_len < sizeof q->out->s) e = ERR_VERSION;
    *q->out = (struct iom_answer){.answered = !e, .why = e};
    if (!e) memcpy(&q->out->s, reply->body, sizeof q->out->s);
    msg_free(reply);
    group_done(q->t->e, q->all, OK);
}

void co_ask_status(struct tool *t, const struct addresses *a, uint64_t deadline_ns,
                   struct iom_answer out[ARRAY_IOMS_MAX]) {
    struct question q[ARRAY_IOMS_MAX];
    struct group all;
    group_init(&all);
    for (uint8_t i = 0; i < a->ioms; i++) {
        q[i] = (struct question){t, {i}, a->at[i], deadline_ns, &out[i], &all};
        group_add(&all);
        env_spawn(t->e, "command: question", co_ask_one, &q[i]);
    }
    err e = co_group_wait(t->e, &all, "command: answers of the IOMs");
    ASSERT(!e);
}

// ---- what it amounts to
static const struct wire_status *newest(uint8_t ioms, const struct iom_answer *a) {
    const struct wire_status *best = NULL;
    for (uint8_t i = 0; i < ioms; i++) {
        if (!a[i].answered || a[i].s.array_ioms != ioms) continue;
        if (!best || le64_get(a[i].s.map_version) > le64_get(best->map_version)) best = &a[i].s;
    }
    return best;
}

static enum iom_shown of_map(uint8_t state) {
    switch ((enum map_iom_state)state) {
    case MAP_IOM_UP: return SHOWN_UP;
    case MAP_IOM_FAILED: return SHOWN_FAILED;
    case MAP_IOM_RETURNING: return SHOWN_RETURNING;
    case MAP_IOM_REBUILDING: return SHOWN_REBUILDING;
    }
    return SHOWN_STOPPED;
}

// "up" is only who the map calls so and who says himself that he serves. Who does not answer has failed as far as
// anybody outside can tell, whether the others have agreed on that or not yet.
static enum iom_shown show_iom(const struct wire_status *map, uint8_t i, const struct iom_answer *a) {
    enum iom_shown s = of_map(map->member[i].state);
    if (!a->answered && s != SHOWN_FAILED) return map->array_state == ARRAY_RUNNING ? SHOWN_FAILED : SHOWN_STOPPED;
    if (a->answered && (s == SHOWN_FAILED || (s == SHOWN_UP && !a->s.serving))) return SHOWN_RETURNING;
    return s;
}

// The map alone may be old news: without a majority nobody could write into it that the array has stopped.
static uint8_t array_shown(const struct wire_status *map, uint8_t ioms, const struct iom_answer *a) {
    uint8_t serving = 0;
    for (uint8_t i = 0; i < ioms; i++) serving += a[i].answered && a[i].s.serving;
    if (map->array_state != ARRAY_RUNNING)
        return map->array_state == ARRAY_RECOVERING ? ARRAY_RECOVERING : ARRAY_STOPPED;
    return serving + 1 >= ioms && serving ? ARRAY_RUNNING : ARRAY_STOPPED;
}

void show(const struct addresses *of, const struct iom_answer *a, struct shown *out) {
    uint8_t ioms = of->ioms;
    const struct wire_status *map = newest(ioms, a);
    *out = (struct shown){.ioms = ioms, .array = ARRAY_STOPPED, .any = map != NULL};
    out->behind = NO_IOM;
    memset(out->stand_in, NO_IOM, sizeof out->stand_in);
    if (!map) return;
    out->epoch = le64_get(map->map_epoch);
    out->recoveries = le64_get(map->recoveries);
    out->array = array_shown(map, ioms, a);
    for (uint8_t i = 0; i < ioms; i++) {
        out->iom[i] = show_iom(map, i, &a[i]);
        bool away = map->member[i].state == MAP_IOM_FAILED || map->member[i].state == MAP_IOM_RETURNING;
        out->stand_in[i] = away && map->array_state != ARRAY_STOPPED ? proxy_of(&of->shape, (iom_id){i}).n : NO_IOM;
        if (map->member[i].state != MAP_IOM_UP) out->behind = i;
        out->up += out->iom[i] == SHOWN_UP;
    }
}

bool co_all_up(struct tool *t, const struct conf *c) {
    struct addresses a;
    struct iom_answer answers[ARRAY_IOMS_MAX];
    struct shown s;
    addresses_of(c, &a);
    co_ask_status(t, &a, env_now_ns(t->e) + SEC(2), answers);
    show(&a, answers, &s);
    return s.array == ARRAY_RUNNING && s.up == c->ioms;
}

const char *iom_shown_name(enum iom_shown s) {
    static const char *const names[] = {"stopped", "up", "failed", "returning", "rebuilding"};
    return names[s];
}

void answers_at(const struct conf *c, uint8_t iom, uint8_t stand_in, char out[108]) {
    struct cluster_map m = {.ioms = c->ioms};
    for (uint8_t i = 0; i < c->ioms; i++) memcpy(m.iom[i].at, c->iom[i].at, sizeof m.iom[i].at);
    m.iom[iom].proxy = stand_in;
    if (stand_in == NO_IOM) snprintf(out, 108, "%s", c->iom[iom].at);
    else cluster_map_stand_in(&m, iom, out);
}
