// mendfs replace-iom: an IOM whose store is lost for good goes on with an empty one, which the others fill (src/iom/replace.c).
//
//   wait until the array runs without it ── ask for the change of the map ── make the store ── start the IOM ── wait until it rebuilds
//
// Interrupted anywhere: run it again.
#include "cli/make.h"
#include "cli/start.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define AGREE_LIMIT_MS 20000u // until the others go on without it
#define ANSWER_NS SEC(5)
#define LOOK_NS MSEC(100)

struct replacement {
    const struct conf *conf;
    uint8_t id;
    struct store_ident ident;
    struct cluster_map known;
    uint64_t incarnation;
    struct shown shown;
    uint64_t deadline_ms;
    bool ok;
};

static void co_look(struct tool *t, struct replacement *r) {
    struct addresses a;
    struct iom_answer answers[ARRAY_IOMS_MAX];
    addresses_of(r->conf, &a);
    co_ask_status(t, &a, env_now_ns(t->e) + SEC(1), answers);
    show(&a, answers, &r->shown);
}

// ---- the change of the map
static bool others_are_up(const struct replacement *r) { return r->shown.up + 1 == r->conf->ioms && r->shown.iom[r->id] != SHOWN_UP; }

static err take(struct replacement *r, const struct msg *reply) {
    if (reply->body_len < sizeof(struct rep_replace)) return ERR_VERSION;
    r->incarnation = le64_get(((const struct rep_replace *)(const void *)reply->body)->incarnation);
    return cluster_map_decode(&r->known, reply->payload.len_bytes ? slice_data(reply->payload) : NULL, reply->payload.len_bytes, NULL);
}

static err co_ask_one(struct tool *t, struct replacement *r, uint8_t at) {
    struct msg *m = hub_msg(t->hub, MSG_CONTROL, sizeof(struct req_control)), *reply;
    struct req_control *q = (void *)m->body;
    q->op = CONTROL_REPLACE;
    q->iom = r->id;
    memcpy(q->store, r->ident.store, 16);
    err e = co_call(hub_peer(t->hub, (iom_id){at}, r->conf->iom[at].at), m, &(struct call_opts){.deadline_ns = env_now_ns(t->e) + ANSWER_NS}, &reply);
    if (e == OK) e = take(r, reply);
    msg_free(reply);
    return e;
}

// Another that is not whole: one that is away rather than one that only waits for it.
static uint8_t in_the_way(const struct replacement *r) {
    uint8_t found = NO_IOM;
    for (uint8_t i = 0; i < r->conf->ioms; i++) {
        enum iom_shown s = r->shown.iom[i];
        if (i == r->id || s == SHOWN_UP) continue;
        if (found == NO_IOM || s == SHOWN_FAILED || (s == SHOWN_STOPPED && r->shown.iom[found] != SHOWN_FAILED)) found = i;
    }
    return found;
}

static bool tell_why_not(const struct replacement *r, err last) {
    uint8_t i = in_the_way(r);
    if (i != NO_IOM)
        return fail(0, "IOM %u cannot be replaced now: IOM %u is %s, and all others are needed for what it had; see: mendfs status", r->id, i,
                    iom_shown_name(r->shown.iom[i]));
    return fail(0, "IOM %u cannot be replaced: the others have not agreed within %u s that it is gone (%s); see: mendfs status", r->id,
                AGREE_LIMIT_MS / 1000, err_text(last));
}

static bool co_agree(struct tool *t, struct replacement *r) {
    err e = ERR_BUSY;
    for (uint8_t at = r->id;; at = (uint8_t)((at + 1) % r->conf->ioms)) {
        co_look(t, r);
        if (at != r->id && others_are_up(r) && r->shown.array == ARRAY_RUNNING && (e = co_ask_one(t, r, at)) == OK) return true;
        if (now_ms() >= r->deadline_ms) return tell_why_not(r, e);
        if (at == r->id) co_sleep_until(t->e, env_now_ns(t->e) + LOOK_NS, "replace: until the array runs without it");
    }
}

// ---- the store
static err co_fill(struct disk *d, struct disk *journal, void *arg, uint8_t i) {
    const struct replacement *r = arg;
    struct store_config c = {.journal = journal, .incarnation = r->incarnation};
    return co_iom_replacement_make(d, &r->ident, &c, &r->known);
}

static void co_replace(struct tool *t) {
    struct replacement *r = t->arg;
    if (!co_agree(t, r)) return;
    journal_remove(r->conf->iom[r->id].journal);
    r->ok = co_store_make(t, r->conf, r->id, co_fill, r) == OK;
}

// ---- the return
static void co_wait_back(struct tool *t) {
    struct replacement *r = t->arg;
    for (r->ok = false; !r->ok && now_ms() < r->deadline_ms;) {
        co_look(t, r);
        r->ok = r->shown.iom[r->id] == SHOWN_REBUILDING || r->shown.iom[r->id] == SHOWN_UP;
        if (!r->ok) co_sleep_until(t->e, env_now_ns(t->e) + LOOK_NS, "replace: until it rebuilds");
    }
}

static int start(struct replacement *r) {
    struct started s;
    r->deadline_ms = now_ms() + START_LIMIT_MS;
    ioms_start(r->conf, 1u << r->id, r->deadline_ms, &s);
    bool runs = s.proc[r->id].pid != 0;
    if (!runs) fail(1, "IOM %u has an empty store now, but does not run: %s", r->id, s.why[r->id]);
    started_close(&s);
    if (!runs) return 1;
    tool_run(r->conf->cluster, co_wait_back, r);
    if (!r->ok)
        return fail(1, "IOM %u runs on an empty store, but is %s after %u s; see %s/log/iom-%u, and: mendfs status", r->id,
                    iom_shown_name(r->shown.iom[r->id]), START_LIMIT_MS / 1000, r->conf->dir, r->id);
    say("IOM %u has an empty store and is %s; `mendfs watch` shows how far it is", r->id,
        r->shown.iom[r->id] == SHOWN_UP ? "rebuilt already" : "being rebuilt");
    return 0;
}

static bool is_dead(const struct conf *c, uint8_t id) {
    char name[32];
    struct proc p;
    snprintf(name, sizeof name, "iom-%u", id);
    if (!proc_find(c->dir, name, &p)) return true;
    fail(0, "IOM %u runs (pid %d), and only one that does not is replaced; stop it first: mendfs stop-iom %u", id, (int)p.pid, id);
    proc_close(&p);
    return false;
}

static int replace_run(int argc, char **argv) {
    struct conf c;
    struct replacement r = {.conf = &c, .deadline_ms = now_ms() + AGREE_LIMIT_MS};
    int lock_fd = iom_command_begin(&cmd_replace_iom, argc, argv, &c, &r.id, NULL);
    if (lock_fd < 0) return -lock_fd;
    int status = 1;
    r.ident = (struct store_ident){.iom = r.id, .array_ioms = c.ioms};
    memcpy(r.ident.cluster, c.cluster, 16);
    random_id(r.ident.store);
    if (is_dead(&c, r.id)) tool_run(c.cluster, co_replace, &r);
    if (r.ok) status = start(&r);
    close(lock_fd);
    return status;
}

const struct command cmd_replace_iom = {
    "replace-iom",
    "mendfs replace-iom ID [--dir DIR]",
    "Gives an IOM whose store is lost an empty one, and rebuilds it",
    "For an IOM that does not run, while all others are up. Whatever is left of its old store is removed, no question asked. It serves at\n"
    "once and is rebuilt from the others meanwhile; returns when that has begun. Files without protection lose what they had on it.\n",
    replace_run,
};
