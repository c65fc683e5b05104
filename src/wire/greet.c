// The greeting: who may talk to whom. The connecting side says HELLO, the accepting side WELCOME or REFUSE with a
// cause; both log one line that names address and cause, and repeat it only when it changes (the accepting side: every
// 10 s).
//
// Refused are: another wire version, another cluster (a tool may name none), oneself, an address where another IOM than
// the expected one answers, and a second store that claims our position in the array.
// A refusing side does not close at once, or its answer might be lost with the connection; the other side closes, or
// the greeting timer.
#include "wire/hub_internal.h"
#include <stdio.h>

struct msg *greeting_make(struct hub *h, uint16_t type, enum link_role role, uint8_t expect_iom) {
    struct msg *m = msg_new(h->env->mem, type, sizeof(struct greeting));
    struct greeting *g = (struct greeting *)m->body;
    g->magic = le32_of(GREETING_MAGIC);
    g->version = le16_of(WIRE_VERSION);
    g->role = (uint8_t)role;
    g->kind = (uint8_t)h->cfg.self.kind;
    g->iom = h->cfg.self.kind == NODE_IOM ? h->cfg.self.iom : NO_IOM;
    g->expect_iom = expect_iom;
    memcpy(g->cluster, h->cfg.cluster, sizeof g->cluster);
    memcpy(g->id, h->cfg.self.id, sizeof g->id);
    g->incarnation = le64_of(h->cfg.self.incarnation);
    g->epoch = le64_of(h->epoch);
    return m;
}

static const char *who_text(const struct greeting *g, char text[96]) {
    char id[33], name[24] = "a tool";
    for (int i = 0; i < 16; i++) snprintf(id + 2 * i, 3, "%02x", g->id[i]);
    if (g->kind == NODE_IOM) snprintf(name, sizeof name, "IOM %u", g->iom);
    if (g->kind == NODE_MX) snprintf(name, sizeof name, "an MX");
    snprintf(text, 96, "%s (id %s)", name, id);
    return text;
}

// Of what every version has in common, and then of this one.
static bool greeting_sound(const struct msg *m) {
    const struct greeting *g = (const struct greeting *)m->body;
    if (m->body_len < sizeof *g || le32_get(g->magic) != GREETING_MAGIC) return false;
    if (le16_get(g->version) != WIRE_VERSION) return true;
    if (g->role != LINK_DATA && g->role != LINK_CAST) return false;
    return g->kind == NODE_IOM ? g->iom < ARRAY_IOMS_MAX : g->kind == NODE_MX || g->kind == NODE_TOOL;
}

static err judge(const struct hub *h, const struct greeting *g, const char **cause) {
    static const uint8_t none[16];
    const struct node_name *self = &h->cfg.self;
    *cause = "it speaks another version of the protocol";
    if (le16_get(g->version) != WIRE_VERSION) return ERR_VERSION;
    *cause = "it belongs to another cluster";
    bool unnamed = g->kind == NODE_TOOL && !memcmp(g->cluster, none, 16);
    if (memcmp(g->cluster, h->cfg.cluster, 16) && !unnamed) return ERR_CLUSTER;
    *cause = "it is ourselves: the address in the map leads back here";
    if (!memcmp(g->id, self->id, 16)) return ERR_INVAL;
    *cause = "it looks for another IOM at this address";
    if (g->expect_iom != NO_IOM && (self->kind != NODE_IOM || g->expect_iom != self->iom)) return ERR_INVAL;
    *cause = "its store claims the same position in the array as ours";
    if (g->kind == NODE_IOM && self->kind == NODE_IOM && g->iom == self->iom) return ERR_INVAL;
    return OK;
}

static void refuse(struct link *l, const struct greeting *g, err why, const char *cause) {
    struct hub *h = l->hub;
    uint64_t now = env_now_ns(h->env);
    if (h->told.cause != why || memcmp(h->told.id, g->id, 16) || now >= h->told.until_ns) {
        char who[96];
        LOG(h->env, TRACE_WARN, "refused a connection from %s: %s", who_text(g, who), cause);
        memcpy(h->told.id, g->id, 16);
        h->told.cause = why;
        h->told.until_ns = now + SEC(10);
    }
    struct msg *m = greeting_make(h, MSG_REFUSE, l->role, NO_IOM);
    ((struct greeting *)m->body)->result = le32_of(why);
    l->refused = true;
    conn_send(l->conn, m);
}

// A node has one connection of each role: an older one is half dead.
static void replace_older(struct link *l) {
    LIST_FOR_SAFE(&l->hub->accepted, n) {
        struct link *o = LIST_ENTRY(n, struct link, node);
        if (o == l || !o->greeted || o->role != l->role || memcmp(o->who.id, l->who.id, 16)) continue;
        o->replaced = true;
        link_end(o, ERR_CONN, true);
    }
}

void greet_hello(struct link *l, struct msg *m) {
    const struct greeting *g = (const struct greeting *)m->body;
    struct hub *h = l->hub;
    if (m->type != MSG_HELLO || l->refused || !greeting_sound(m)) {
        LOG(h->env, TRACE_WARN, "closed a connection that began with garbage (type %#x, %u bytes)", m->type,
            m->body_len);
        msg_free(m);
        link_end(l, ERR_FORMAT, true);
        return;
    }
    const char *cause;
    err why = judge(h, g, &cause);
    if (why != OK) {
        refuse(l, g, why, cause);
        msg_free(m);
        return;
    }
    l->role = g->role;
    l->who = (struct node_name){.kind = g->kind, .iom = g->iom, .incarnation = le64_get(g->incarnation)};
    memcpy(l->who.id, g->id, 16);
    l->greeted = true;
    timer_cancel(h->env, &l->greeting);
    replace_older(l);
    if (g->kind == NODE_IOM && h->by_iom[g->iom]) peer_alive(h->by_iom[g->iom], l->who.id, l->who.incarnation);
    struct msg *w = greeting_make(h, MSG_WELCOME, l->role, NO_IOM);
    if (g->kind == NODE_IOM) ((struct greeting *)w->body)->next_post = le64_of(stream_in_next(h, g));
    conn_send(l->conn, w);
    msg_free(m);
}

static void answered_refusal(struct link *l, const struct greeting *g) {
    struct peer *p = l->path->peer;
    err why = le32_get(g->result) && le32_get(g->result) < ERR_COUNT ? (err)le32_get(g->result) : ERR_FORMAT;
    if (p->refusal != why) {
        char who[96];
        LOG(l->hub->env, TRACE_WARN, "%s at %s refuses us: %s", who_text(g, who), p->at,
            why == ERR_CLUSTER ? "it belongs to another cluster" : why == ERR_VERSION ? "it speaks another version"
            : why == ERR_INVAL ? "it is not whom we look for" : err_text(why));
        p->refusal = why;
    }
    link_end(l, why, true);
}

// The accepting side has judged us; do we take it?
static bool welcome_fits(const struct link *l, const struct greeting *g) {
    static const uint8_t none[16];
    const struct hub *h = l->hub;
    if (le16_get(g->version) != WIRE_VERSION) return false;
    if (memcmp(g->cluster, h->cfg.cluster, 16) && memcmp(h->cfg.cluster, none, 16)) return false;
    uint8_t want = l->path->peer->iom;
    return want == NO_IOM || (g->kind == NODE_IOM && g->iom == want);
}

void greet_answer(struct link *l, struct msg *m) {
    const struct greeting *g = (const struct greeting *)m->body;
    struct hub *h = l->hub;
    struct path *path = l->path;
    if ((m->type != MSG_WELCOME && m->type != MSG_REFUSE) || !greeting_sound(m)) {
        LOG(h->env, TRACE_WARN, "%s answers our greeting with garbage", path->peer->at);
        link_end(l, ERR_FORMAT, true);
    } else if (m->type == MSG_REFUSE) {
        answered_refusal(l, g);
    } else if (!welcome_fits(l, g)) {
        LOG(h->env, TRACE_WARN, "%s is not whom we look for", path->peer->at);
        link_end(l, ERR_CLUSTER, true);
    } else {
        l->who = (struct node_name){.kind = g->kind, .iom = g->iom, .incarnation = le64_get(g->incarnation)};
        memcpy(l->who.id, g->id, 16);
        l->greeted = true;
        path->backoff_ms = 0;
        path->peer->refusal = OK;
        timer_cancel(h->env, &l->greeting);
        peer_alive(path->peer, l->who.id, l->who.incarnation);
        if (path->role == LINK_DATA) peer_welcomed(path->peer, g);
        else {
            path_send_kept(path);
            peer_met(path->peer);
        }
    }
    msg_free(m);
}
