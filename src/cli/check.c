// mendfs check (fsck): online the running array verifies its rows; offline this process opens all stores and verifies
// them, then the rows, by the IOMs' own code: each store gets its rows, which ask each other over the sockets of the
// IOMs that do not run.
//
// An IOM that is away is looked at as far as the others have what it has: online its stand-in is asked; offline its proxy's store
// gets a second set of rows, the stand-in's, and the proxy's copy of its tree counts. Its own store, which is behind, is verified by itself.
//
// Offline, what was not stopped cleanly has updates that no recovery has settled. Only the stores are verified then,
// and they are left as unclean as they were, so that the next start recovers.
#include "cli/cli.h"
#include "cli/hosts.h"
#include "cli/start.h"
#include "cli/tool.h"
#include "iom/records.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FAULTS_SHOWN 200u
#define SETTLE_LIMIT_MS 10000u

struct totals {
    uint64_t rows, blocks, faults, told;
};
struct check {
    struct conf *conf;
    struct totals sum;
    bool ran;        // to its end
    uint8_t away;    // offline: whose store is behind; NO_IOM: nobody's
    struct shown shown; // online
    bool unrecovered; // and could look at the stores alone
};

static void tell_fault(struct totals *t, uint8_t iom, const char *sentence) {
    if (t->told++ < FAULTS_SHOWN) say("IOM %u: %s", iom, sentence);
    if (t->told == FAULTS_SHOWN) say("(further faults are only counted)");
}

// ---- online
struct verification {
    struct tool *t;
    struct check *c;
    uint8_t iom;
    struct group *all;
};

static void tell_lines(struct totals *t, uint8_t iom, struct slice s) {
    char line[512];
    const uint8_t *p = s.len_bytes ? slice_data(s) : NULL, *end = p ? p + s.len_bytes : NULL;
    while (p < end) {
        const uint8_t *nl = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((nl ? nl : end) - p);
        snprintf(line, sizeof line, "%.*s", (int)MIN(len, sizeof line - 1), (const char *)p);
        tell_fault(t, iom, line);
        p += len + 1;
    }
}

static err take_verified(struct check *c, uint8_t iom, const struct msg *reply) {
    const struct rep_verify *r = (const struct rep_verify *)reply->body;
    if (reply->body_len < sizeof *r) return ERR_VERSION;
    c->sum.rows += le64_get(r->rows);
    c->sum.blocks += le64_get(r->blocks);
    c->sum.faults += le64_get(r->faults);
    tell_lines(&c->sum, iom, reply->payload);
    return OK;
}

static err co_control(struct verification *v, enum control_op op, struct msg **reply) {
    struct msg *q = hub_msg(v->t->hub, MSG_CONTROL, sizeof(struct req_control));
    ((struct req_control *)q->body)->op = (uint8_t)op;
    char at[108];
    answers_at(v->c->conf, v->iom, v->c->shown.stand_in[v->iom], at);
    return co_call(hub_peer(v->t->hub, (iom_id){v->iom}, at), q, &(struct call_opts){0}, reply);
}

static void co_settle_one(void *arg) {
    struct verification *v = arg;
    struct msg *reply;
    err e = co_control(v, CONTROL_SYNC, &reply);
    msg_free(reply);
    if (e) warn("IOM %u could not settle its rows: %s%s", v->iom, err_text(e), err_next(e));
    group_done(v->t->e, v->all, e);
}

static void co_verify_one(void *arg) {
    struct verification *v = arg;
    struct msg *reply;
    err e = co_control(v, CONTROL_VERIFY, &reply);
    if (!e) e = take_verified(v->c, v->iom, reply);
    msg_free(reply);
    if (e) warn("IOM %u could not verify its rows: %s%s", v->iom, err_text(e), err_next(e));
    group_done(v->t->e, v->all, e);
}

static err co_all(struct tool *t, struct check *c, void (*co_one)(void *arg), const char *label) {
    struct verification v[ARRAY_IOMS_MAX];
    struct group all;
    group_init(&all);
    for (uint8_t i = 0; i < c->conf->ioms; i++) {
        v[i] = (struct verification){t, c, i, &all};
        group_add(&all);
        env_spawn(t->e, "check: one IOM", co_one, &v[i]);
    }
    return co_group_wait(t->e, &all, label);
}

// Each IOM answers, or the others have agreed on who answers for it.
static bool all_are_answered_for(const struct shown *s) {
    for (uint8_t i = 0; i < s->ioms; i++)
        if (s->stand_in[i] == NO_IOM && s->iom[i] != SHOWN_UP && s->iom[i] != SHOWN_REBUILDING) return false;
    return s->array == ARRAY_RUNNING;
}

// One that has just failed or returns: that takes a moment.
static bool co_array_serves(struct tool *t, struct check *c, struct iom_answer answers[ARRAY_IOMS_MAX]) {
    struct addresses a;
    uint64_t deadline_ms = now_ms() + SETTLE_LIMIT_MS;
    addresses_of(c->conf, &a);
    for (;;) {
        co_ask_status(t, &a, env_now_ns(t->e) + SEC(2), answers);
        show(&a, answers, &c->shown);
        if (all_are_answered_for(&c->shown)) return true;
        if (now_ms() >= deadline_ms || !c->shown.any) return false;
        co_sleep_until(t->e, env_now_ns(t->e) + MSEC(100), "check: until the array runs");
    }
}

static void tell_not_looked_at(const struct check *c, const struct iom_answer *answers) {
    for (uint8_t i = 0; i < c->conf->ioms; i++) {
        const struct wire_status *w = &answers[i].s;
        if (c->shown.stand_in[i] != NO_IOM)
            say("IOM %u is away: checked as far as the others have what it has; rows with a block that only it has were not added up", i);
        else if (c->shown.iom[i] == SHOWN_REBUILDING)
            say("IOM %u rebuilds: rows with one of the %llu blocks that it lacks still were not added up", i,
                (unsigned long long)(le64_get(w->missing_total) - le64_get(w->missing_done)));
    }
}

static void co_check_online(struct tool *t) {
    struct check *c = t->arg;
    struct iom_answer answers[ARRAY_IOMS_MAX];
    if (!co_array_serves(t, c, answers)) {
        warn("the array does not serve now; see who is missing with: mendfs status, and start it with: mendfs up");
        return;
    }
    tell_not_looked_at(c, answers);
    if (co_all(t, c, co_settle_one, "check: until all is settled") == OK)
        c->ran = co_all(t, c, co_verify_one, "check: answers of the IOMs") == OK;
}

// ---- offline: the stores
struct member {
    struct offline *o;
    uint8_t iom;
    struct disk *disk, *journal;
    struct store *store;
    struct names_replay *replay;
    struct hub *hub;
    struct peer *peer[ARRAY_IOMS_MAX];
    struct rows *rows;
};
struct offline {
    struct tool *t;
    struct check *c;
    struct addresses at;
    struct member member[ARRAY_IOMS_MAX];
};

static void store_fault(void *ctx, const char *sentence) {
    struct member *m = ctx;
    tell_fault(&m->o->c->sum, m->iom, sentence);
}

static void record_refs(void *ctx, enum tree_id t, const struct key *k, const void *val, uint32_t len,
                        void (*emit)(void *arg, block_addr at, uint32_t n), void *arg) {
    if (t == TREE_LOCAL || t == TREE_STAND_IN) row_record_refs(k, val, len, emit, arg);
}

static err co_journal_open(struct member *m, const char *path, char why[STORE_WHY_BYTES]) {
    char cause[STORE_WHY_BYTES] = "";
    err r = path[0] ? disk_open(m->o->t->e, &(struct disk_open_args){.path = path}, &m->journal) : OK;
    if (!r) r = co_store_journal_check(m->disk, m->journal, cause);
    if (r == ERR_INVAL) snprintf(why, STORE_WHY_BYTES, "%s", cause);
    else if (r) snprintf(why, STORE_WHY_BYTES, "its journal %.100s: %.120s", path, cause[0] ? cause : err_text(r));
    return r;
}

static err co_member_open(struct member *m, char why[STORE_WHY_BYTES]) {
    struct env *e = m->o->t->e;
    const struct conf *c = m->o->c->conf;
    struct store_ident id;
    uint64_t incarnation;
    char path[PATH_MAX];
    conf_store_path(c, m->iom, path);
    snprintf(why, STORE_WHY_BYTES, "%s", "");
    err r = disk_open(e, &(struct disk_open_args){.path = path}, &m->disk);
    if (r) return r;
    r = co_store_peek(m->disk, &id, &incarnation, why);
    if (!r) r = co_journal_open(m, c->iom[m->iom].journal, why);
    if (r) return r;
    if (memcmp(id.cluster, c->cluster, 16) || id.iom != m->iom) return ERR_CLUSTER;
    if (!co_hosts_are_of_map(e, c, m->disk, why)) return ERR_INVAL;
    m->replay = names_replay_new(e);
    struct store_hooks h = {.replay_note = names_replay_note, .ctx = m->replay};
    r = co_store_open(m->disk, &(struct store_config){.journal = m->journal}, &h, &m->store);
    if (r) snprintf(why, STORE_WHY_BYTES, "%.*s", (int)STORE_WHY_BYTES - 1, m->o->t->error.text);
    return r;
}

static bool co_members_open(struct offline *o) {
    bool all = true;
    for (uint8_t i = 0; i < o->c->conf->ioms; i++) {
        char why[STORE_WHY_BYTES], path[PATH_MAX];
        o->member[i] = (struct member){.o = o, .iom = i};
        err e = co_member_open(&o->member[i], why);
        conf_store_path(o->c->conf, i, path);
        if (e) warn("IOM %u: the store %s cannot be opened: %s%s", i, path, why[0] ? why : err_text(e), err_next(e));
        all &= !e;
    }
    return all;
}

static bool co_stores_verify(struct offline *o) {
    for (uint8_t i = 0; i < o->c->conf->ioms; i++) {
        struct member *m = &o->member[i];
        struct store_verify v = {.refs = record_refs, .fault = store_fault, .ctx = m};
        uint64_t faults = 0, blocks = 0;
        err e = co_store_verify(m->store, &v, &faults, &blocks);
        o->c->sum.faults += faults;
        o->c->sum.blocks += blocks;
        if (e) warn("IOM %u: the store could not be verified: %s%s", i, err_text(e), err_next(e));
        if (e) return false;
    }
    return true;
}

static uint64_t co_unsettled_in(struct store *s, enum tree_id tree) {
    static const uint8_t none[16];
    uint8_t value[RECORD_BYTES_MAX];
    uint32_t len;
    uint64_t n = 0;
    struct key k = key_make(KIND_UPDATE, none, 0);
    while (co_tree_seek(s, tree, &k, value, sizeof value, &len) == OK && key_kind(&k) == KIND_UPDATE) {
        n++;
        k = key_next(k);
    }
    return n;
}

static uint64_t co_unsettled(struct store *s) { return co_unsettled_in(s, TREE_LOCAL) + co_unsettled_in(s, TREE_STAND_IN); }

// Whose proxy stood in for it when the array stopped.
static uint8_t find_away(const struct offline *o) {
    uint8_t ioms = o->c->conf->ioms;
    for (uint8_t i = 0; i < ioms; i++) {
        uint64_t epoch, number;
        tree_note(o->member[proxy_of(&o->at.shape, (iom_id){i}).n].store, TREE_STAND_IN, &epoch, &number);
        if (number) return i;
    }
    return NO_IOM;
}

// ---- offline: the names, over all stores together
static void names_fault(void *ctx, const char *sentence) {
    struct totals *t = ctx;
    if (t->told++ < FAULTS_SHOWN) say("names: %s", sentence);
}

static bool co_names_verify(struct offline *o) {
    struct store *stores[ARRAY_IOMS_MAX];
    uint64_t objects = 0, faults = 0;
    for (uint8_t i = 0; i < o->c->conf->ioms; i++) stores[i] = o->member[i].store;
    err e = co_names_check(o->t->e, stores, &o->at.shape, o->c->away, names_fault, &o->c->sum, &objects, &faults);
    o->c->sum.faults += faults;
    if (e) warn("the names could not be verified: %s%s", o->t->error.text[0] ? o->t->error.text : err_text(e), err_next(e));
    return !e;
}

// ---- offline: the rows
static void drop_post(void *ctx, iom_id to, struct msg *m) { msg_free(m); }
static struct msg *make_msg(void *ctx, uint16_t type, uint32_t len) {
    return hub_msg(((struct member *)ctx)->hub, type, len);
}
static err co_ask_peer(void *ctx, iom_id to, struct msg *q, struct msg **reply) {
    return co_call(((struct member *)ctx)->peer[to.n], q, &(struct call_opts){0}, reply);
}
static err co_no_end(void *ctx, struct handle h, uint64_t end, uint32_t truncates, uint64_t *durable_end) {
    return ERR_STOPPED;
}
static void no_touch(void *ctx, struct handle h, uint64_t mtime_ns) {}

struct row_question {
    struct member *m;
    struct inbound *in;
};
static void row_question_task(void *arg) {
    struct row_question *q = arg;
    rows_call(q->m->rows, q->in);
    mem_free(q->m->o->t->e->mem, q);
}
static void on_call(void *ctx, struct inbound *in) {
    struct member *m = ctx;
    bool asks = in->m->type == MSG_RESOLVE && m->o->c->away != NO_IOM; // a stand-in, for versions
    if ((in->m->type != MSG_VERIFY && !asks) || !m->rows) {
        hub_reply(in, NULL, ERR_STOPPED);
        return;
    }
    struct row_question *q = mem_alloc(m->o->t->e->mem, sizeof *q);
    *q = (struct row_question){m, in};
    env_spawn(m->o->t->e, "check: rows asked", row_question_task, q);
}

static err rows_open(struct member *m) {
    const struct conf *c = m->o->c->conf;
    struct rows_config config = {.stand_in = m->iom == m->o->c->away};
    struct store *s = config.stand_in ? m->o->member[proxy_of(&m->o->at.shape, (iom_id){m->iom}).n].store : m->store;
    const struct store_ident *id = store_ident(m->store);
    struct env *e = m->o->t->e;
    struct hub_config h = {.self = {.kind = NODE_IOM, .iom = m->iom, .incarnation = store_incarnation(m->store)},
                           .events = {.call = on_call, .ctx = m}};
    memcpy(h.cluster, id->cluster, 16);
    memcpy(h.self.id, id->store, 16);
    m->hub = hub_create(e, &h);
    for (uint8_t i = 0; i < c->ioms; i++)
        if (i != m->iom) m->peer[i] = hub_peer(m->hub, (iom_id){i}, c->iom[i].at);
    struct rows_port port = {.ctx = m,
                             .post = drop_post,
                             .msg = make_msg,
                             .co_call = co_ask_peer,
                             .co_end_durable = co_no_end,
                             .touch = no_touch};
    m->rows = rows_create(e, s, (iom_id){m->iom}, &port, &config);
    return hub_listen(m->hub, c->iom[m->iom].at);
}

static bool co_rows_check(struct offline *o) {
    uint8_t ioms = o->c->conf->ioms;
    err e = OK;
    for (uint8_t i = 0; i < ioms && !e; i++) e = rows_open(&o->member[i]);
    for (uint8_t i = 0; i < ioms && !e; i++) {
        uint64_t rows = 0, faults = 0;
        e = co_rows_verify(o->member[i].rows, store_fault, &o->member[i], &rows, &faults);
        o->c->sum.rows += rows;
        o->c->sum.faults += faults;
    }
    if (e) warn("the rows could not be verified: %s%s", o->t->error.text[0] ? o->t->error.text : err_text(e), err_next(e));
    for (uint8_t i = 0; i < ioms; i++) {
        struct member *m = &o->member[i];
        if (m->rows) co_rows_stop(m->rows, false);
        if (m->rows) rows_destroy(m->rows);
        if (m->hub) hub_destroy(m->hub);
    }
    return !e;
}

// A store that was clean is closed as clean; another one stays as a crash left it.
static void co_members_close(struct offline *o) {
    for (uint8_t i = 0; i < o->c->conf->ioms; i++) {
        struct member *m = &o->member[i];
        err e = OK;
        if (m->store && store_was_clean(m->store)) e = co_store_close(m->store);
        else if (m->store) co_store_abandon(m->store);
        if (e) warn("IOM %u: its store could not be closed: %s%s", i, err_text(e), err_next(e));
        if (m->journal) co_disk_close(m->journal);
        if (m->disk) co_disk_close(m->disk);
    }
}

// Names and rows of an array that has not recovered may differ from what recovery will make of them.
static bool co_is_recovered(const struct offline *o) {
    uint64_t unsettled = 0;
    bool clean = true;
    for (uint8_t i = 0; i < o->c->conf->ioms; i++) {
        if (i == o->c->away) continue; // it catches up with what the others decided
        clean &= store_was_clean(o->member[i].store);
        unsettled += co_unsettled(o->member[i].store);
    }
    return clean && !unsettled;
}

static void co_check_offline(struct tool *t) {
    struct check *c = t->arg;
    struct offline *o = mem_alloc(t->e->mem, sizeof *o);
    *o = (struct offline){.t = t, .c = c};
    addresses_of(c->conf, &o->at);
    if (co_members_open(o) && co_stores_verify(o)) {
        c->away = find_away(o);
        if (c->away != NO_IOM)
            say("IOM %u has missed what was changed while it was away, and catches up when it is started: checked as far as it is here", c->away);
        c->unrecovered = !co_is_recovered(o);
        c->ran = c->unrecovered || (co_names_verify(o) && co_rows_check(o));
    }
    co_members_close(o);
    mem_free(t->e->mem, o);
}

// ---- the command
static int check(struct check *c) {
    bool running = ioms_any_run(c->conf);
    if (!running && (!sockets_choose(c->conf) || !socket_dirs_ensure(c->conf))) return 2; // nobody else's addresses: all is in this process
    tool_run(c->conf->cluster, running ? co_check_online : co_check_offline, c);
    if (!c->ran) return fail(2, "could not check%s; the reasons stand above", c->sum.faults ? " everything" : "");
    if (c->unrecovered && !c->sum.faults)
        return fail(2,
                    "the stores are sound (%llu blocks in use), but the array was not stopped cleanly: its names and rows can "
                    "be verified "
                    "once it has recovered (mendfs up, then mendfs check)",
                    (unsigned long long)c->sum.blocks);
    say("%llu rows verified, %llu blocks in use, %llu faults", (unsigned long long)c->sum.rows,
        (unsigned long long)c->sum.blocks, (unsigned long long)c->sum.faults);
    return c->sum.faults ? 1 : 0;
}

static int check_run(int argc, char **argv) {
    const char *dir = NULL, *rest[1];
    struct conf conf;
    struct check c = {.conf = &conf, .away = NO_IOM};
    const struct option_row options[] = {{"--dir", OPT_TEXT, &dir}, {0}};
    if (!args_parse(&cmd_check, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    if (!conf_need(dir, &conf)) return 2;
    int lock_fd = dir_lock(conf.dir);
    if (lock_fd < 0) return 2;
    int status = check(&c);
    close(lock_fd);
    return status;
}

const struct command cmd_check = {
    "check",
    "mendfs check [--dir DIR]",
    "Verifies every invariant (fsck), of a running array or of one that is stopped",
    "Running: every row's parity equals its data, and every checksum holds; best while nobody writes. Stopped: the "
    "stores' trees\n"
    "and allocators too, and all names. With an IOM away it checks what the others have, and says so. Nothing is changed. After a crash it has to run once first, as only\n"
    "recovery settles what was under way. Exit status: 0 clean, 1 faults (each is a line before the summary), 2 could "
    "not run.\n",
    check_run,
};
