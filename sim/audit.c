// The audit of an array at rest; see audit.h. Two nodes of their own do it: "auditor" asks the running IOMs, as `mendfs check` does, and "checker" opens
// the stores when nobody else has them.
//
//   rows     a rest, so that nothing is under way that nobody waits for (a clean stop in the midst of it leaves work to the next start, by design); CONTROL_SYNC
//            to all, then CONTROL_VERIFY to all: what is in the IOMs' memory and on their disks, told by their own code
//   stores   each store was closed cleanly; nothing is left to resolve; names over all stores (names_check); rows and objects straight from the records
//            (audit_disk.c), without the rows' code; trees, checksums, allocator = reachability (store_verify)
#include "sim/audit.h"

#include "iom/row_format.h"
#include "sim/audit_disk.h"
#include "wire/peer.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_NS SEC(600) // virtual
#define TRIES 20u         // of a question whose connection broke
#define REST_NS SEC(3)    // longer than what names do late by themselves (times of written files, orphans)
#define DEAD_MX_NS SEC(70) // longer than a session's lease: what an MX that died had open and unlinked goes when that ends

struct audit {
    struct array *a;
    struct oracle *o;
    struct node *node;
    struct hub *hub;
    struct group all;
    uint64_t faults, rows;
    bool over;
};

static struct node *audit_node(struct array *a, const char *name) {
    struct node *n = node_find(a->world, name);
    return n ? n : node_add(a->world, name);
}

static bool auditing(void *ctx) { return !((struct audit *)ctx)->over; }

static void dump_line(void *ctx, const char *text) { fprintf(stderr, "  %s\n", text); }

static void tell_hang(struct audit *u, const char *what) {
    oracle_fault(u->o, "hangs: %s does not come to an end", what);
    for (uint8_t n = 0; n < u->a->ioms && world_options(u->a->world)->trace; n++) {
        if (!node_running(u->a->iom[n].node)) continue;
        fprintf(stderr, "%s waits for:\n", u->a->iom[n].name);
        env_dump(node_env(u->a->iom[n].node), dump_line, NULL);
    }
}

// Runs fn on the audit's node to its end, and ends the node.
static bool audit_run(struct audit *u, const char *what, void (*fn)(void *arg)) {
    uint64_t before = oracle_faults(u->o);
    node_start(u->node, fn, u);
    if (!world_run_while(u->a->world, auditing, u, world_now_ns(u->a->world) + LIMIT_NS)) tell_hang(u, what);
    node_crash(u->node);
    return oracle_faults(u->o) == before;
}

static bool known(const struct audit *u, const char *sentence) { return u->a->known && u->a->known(u->a->known_ctx, sentence); }

// ---- asking the running array
struct question {
    struct audit *u;
    uint8_t iom;
    enum control_op op;
};

static void tell_lines(struct audit *u, uint8_t iom, struct slice s) {
    const uint8_t *p = s.len_bytes ? slice_data(s) : NULL, *end = p ? p + s.len_bytes : NULL;
    while (p < end) {
        const uint8_t *nl = memchr(p, '\n', (size_t)(end - p));
        int len = (int)((nl ? nl : end) - p);
        char line[256];
        snprintf(line, sizeof line, "%.*s", len, (const char *)p);
        if (!known(u, line)) oracle_fault(u->o, "IOM %u: %s", iom, line);
        p += len + 1;
    }
}

static void take_verified(struct question *q, const struct msg *reply) {
    const struct rep_verify *r = (const struct rep_verify *)reply->body;
    if (reply->body_len < sizeof *r) {
        oracle_fault(q->u->o, "IOM %u: its answer to VERIFY is too short", q->iom);
        return;
    }
    q->u->rows += le64_get(r->rows);
    tell_lines(q->u, q->iom, reply->payload);
    if (le64_get(r->faults) && !reply->payload.len_bytes) oracle_fault(q->u->o, "IOM %u: counts %llu faults and names none", q->iom, (unsigned long long)le64_get(r->faults));
}

static err co_control(struct question *q, struct msg **reply) {
    struct hub *h = q->u->hub;
    err e = ERR_CONN;
    for (uint32_t i = 0; i < TRIES && (e == ERR_CONN || e == ERR_REFUSED || e == ERR_RESTARTED); i++) {
        struct msg *m = hub_msg(h, MSG_CONTROL, sizeof(struct req_control));
        ((struct req_control *)m->body)->op = (uint8_t)q->op;
        e = co_call(hub_peer(h, (iom_id){q->iom}, q->u->a->iom[q->iom].name), m, &(struct call_opts){0}, reply);
    }
    return e;
}

static void co_question(void *arg) {
    struct question *q = arg;
    struct msg *reply = NULL;
    err e = co_control(q, &reply);
    if (e) oracle_fault(q->u->o, "IOM %u: cannot %s its rows: %s", q->iom, q->op == CONTROL_SYNC ? "settle" : "verify", err_text(e));
    else if (q->op == CONTROL_VERIFY) take_verified(q, reply);
    msg_free(reply);
    group_done(node_env(q->u->node), &q->u->all, e);
}

static err co_ask_all(struct audit *u, enum control_op op) {
    struct question q[ARRAY_IOMS_MAX];
    group_init(&u->all);
    for (uint8_t n = 0; n < u->a->ioms; n++) {
        q[n] = (struct question){u, n, op};
        group_add(&u->all);
        env_spawn(node_env(u->node), "audit: one IOM", co_question, &q[n]);
    }
    return co_group_wait(node_env(u->node), &u->all, "audit: answers of the IOMs");
}

static void rows_main(void *arg) {
    struct audit *u = arg;
    struct hub_config h = {.self = {.kind = NODE_TOOL, .iom = NO_IOM, .id = "auditor"}};
    memcpy(h.cluster, u->a->cluster, 16);
    u->hub = hub_create(node_env(u->node), &h);
    uint64_t rest_ns = u->a->mx_died ? DEAD_MX_NS : REST_NS;
    co_sleep_until(node_env(u->node), env_now_ns(node_env(u->node)) + rest_ns, "audit: until late work is done");
    if (co_ask_all(u, CONTROL_SYNC) == OK && co_ask_all(u, CONTROL_SYNC) == OK && co_ask_all(u, CONTROL_VERIFY) == OK && !u->rows && oracle_counts(u->o).protected_writes)
        oracle_fault(u->o, "clients wrote protected data, but no IOM has a row to verify");
    hub_destroy(u->hub);
    u->over = true;
}

bool audit_rows(struct array *a, struct oracle *o) {
    struct audit u = {.a = a, .o = o, .node = audit_node(a, "auditor")};
    return audit_run(&u, "the verification of all rows", rows_main);
}

// ---- the stores
struct member {
    struct audit *u;
    uint8_t iom;
    struct disk *disk, *journal;
    struct store *store;
};

static void names_fault(void *ctx, const char *sentence) { oracle_fault(((struct audit *)ctx)->o, "names: %s", sentence); }
static void rows_fault(void *ctx, const char *sentence) {
    struct audit *u = ctx;
    if (!known(u, sentence)) oracle_fault(u->o, "rows on disk: %s", sentence);
}
static void store_fault(void *ctx, const char *sentence) {
    struct member *m = ctx;
    oracle_fault(m->u->o, "IOM %u: store: %s", m->iom, sentence);
}

static void record_refs(void *ctx, enum tree_id t, const struct key *k, const void *val, uint32_t len, void (*emit)(void *arg, block_addr at, uint32_t n),
                        void *arg) {
    if (t == TREE_LOCAL || t == TREE_STAND_IN) row_record_refs(k, val, len, emit, arg);
}

static err co_member_open(struct member *m) {
    struct store_config c = {.cache_bytes = MIB(4)};
    err e = co_array_disks_open(&m->u->a->iom[m->iom], node_env(m->u->node), &m->disk, &m->journal);
    c.journal = m->journal;
    if (!e) e = co_store_open(m->disk, &c, NULL, &m->store);
    if (!e && !store_was_clean(m->store)) oracle_fault(m->u->o, "IOM %u: its clean stop left a store that is not clean", m->iom);
    return e;
}

static void co_member_close(struct member *m) {
    if (m->store) co_store_abandon(m->store);
    if (m->journal) co_disk_close(m->journal);
    if (m->disk) co_disk_close(m->disk);
}

// What a clean stop leaves is settled: no update, nothing held for another.
static void co_updates_check(struct member *m) {
    static const uint8_t zero[16];
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (struct key k = key_make(KIND_UPDATE, zero, 0);; k = key_next(k)) {
        err e = co_tree_seek(m->store, TREE_LOCAL, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (!e && key_kind(&k) != KIND_UPDATE)) return;
        if (e) oracle_fault(m->u->o, "IOM %u: its records cannot be read: %s", m->iom, err_text(e));
        if (e) return;
        struct handle h = handle_at(key_id(&k));
        bool held = key_number(&k) & ROW_KEY_HELD;
        oracle_fault(m->u->o, "IOM %u: %s is left after a clean stop: object %u/%llx segment %llu", m->iom, held ? "a HELD record" : "an UPDATE", h.starter,
                     (unsigned long long)h.index, (unsigned long long)(key_number(&k) & ROW_KEY_SEG));
    }
}

static void co_store_check(struct member *m) {
    struct store_verify v = {.refs = record_refs, .fault = store_fault, .ctx = m};
    uint64_t faults, blocks;
    err e = co_store_verify(m->store, &v, &faults, &blocks);
    if (e) oracle_fault(m->u->o, "IOM %u: its store cannot be verified: %s", m->iom, err_text(e));
}

static void co_all_check(struct audit *u, struct member *m) {
    struct store *s[ARRAY_IOMS_MAX];
    uint64_t objects, faults;
    for (uint8_t n = 0; n < u->a->ioms; n++) s[n] = m[n].store;
    for (uint8_t n = 0; n < u->a->ioms; n++) co_updates_check(&m[n]);
    err e = co_names_check(node_env(u->node), s, &u->a->shape, NO_IOM, names_fault, u, &objects, &faults);
    if (e) oracle_fault(u->o, "names: cannot be checked: %s", err_text(e));
    e = co_audit_disk(node_env(u->node), s, &u->a->shape, rows_fault, u, &u->rows);
    if (e) oracle_fault(u->o, "rows on disk: cannot be checked: %s", err_text(e));
    if (!u->rows && oracle_counts(u->o).protected_writes) oracle_fault(u->o, "clients wrote data, but no store has a row");
    for (uint8_t n = 0; n < u->a->ioms; n++) co_store_check(&m[n]);
}

static void stores_main(void *arg) {
    struct audit *u = arg;
    struct member m[ARRAY_IOMS_MAX];
    bool all = true;
    for (uint8_t n = 0; n < u->a->ioms; n++) {
        m[n] = (struct member){.u = u, .iom = n};
        err e = co_member_open(&m[n]);
        if (e) oracle_fault(u->o, "IOM %u: its store cannot be opened: %s", n, err_text(e));
        all &= !e;
    }
    if (all) co_all_check(u, m);
    for (uint8_t n = 0; n < u->a->ioms; n++) co_member_close(&m[n]);
    u->over = true;
}

bool audit_stores(struct array *a, struct oracle *o) {
    struct audit u = {.a = a, .o = o, .node = audit_node(a, "checker")};
    return audit_run(&u, "the check of the stores", stores_main);
}
