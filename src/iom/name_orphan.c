// Objects without a name.
//
//   last name gone ── nobody has it open ──────────────> ORPHAN going ── durable ── DISCARD at all members ── records deleted, CNODE last
//                  └─ open, or sessions not yet heard ─> ORPHAN held  ── last one closes, or has expired ── ORPHAN going ...
//
// What has no data and no attributes of its own (an empty directory, a link, a device) that nobody has open goes with
// its last name, in that batch. Discards destroy, so they wait until ORPHAN is durable: a crash that takes the unlink
// back finds the data. They run in the background, a few objects at a time; the unlink has long been answered.
#include "iom/name_inside.h"

#define WORKERS_MAX 8u
#define RECORDS_A_BATCH 64u

struct orphan {
    struct list node;
    struct handle h;
};

void orphans_init(struct names *n) {
    list_init(&n->orphans);
    map_init(&n->orphans_known, n->mem);
    waitq_init(&n->orphan_idle);
    n->orphan_workers = 0;
    n->orphans_waiting = false;
}

void orphans_fini(struct names *n) {
    MAP_FOR(&n->orphans_known, it) mem_free(n->mem, it.value);
    map_fini(&n->orphans_known);
}

static struct key orphan_key(struct handle h) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, h);
    return key_make(KIND_ORPHAN, id, 0);
}

static void orphan_put(const struct names *n, struct batch *b, struct handle h, enum orphan_state state) {
    struct rec_orphan rec = {.state = (uint8_t)state};
    struct key k = orphan_key(h);
    batch_put(b, n->tree, &k, &rec, sizeof rec);
}

err co_orphan_kept(struct names *n, struct handle h) {
    struct rec_orphan rec;
    uint32_t len;
    struct key k = orphan_key(h);
    err e = co_tree_get(n->store, n->tree, &k, &rec, sizeof rec, &len);
    return e == ERR_NOENT || (e == OK && rec.state == ORPHAN_GOING) ? ERR_BUSY : e;
}

static void symlink_del(const struct names *n, struct batch *b, const struct cnode *c) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, c->h);
    for (uint32_t part = 0; part * SYMLINK_PART_BYTES < c->size; part++) {
        struct key k = key_make(KIND_SYMLINK, id, part);
        batch_del(b, n->tree, &k);
    }
}

bool orphan_batch(struct names *n, struct batch *b, struct cnode *c) {
    bool wanted = object_open(n, c->h) || !sessions_settled(n);
    if (!wanted && c->type != OBJ_FILE && !(c->flags & CNODE_HAS_XATTR)) {
        struct key k = cnode_key(c->h);
        if (c->type == OBJ_SYMLINK) symlink_del(n, b, c);
        batch_del(b, n->tree, &k);
        return false;
    }
    orphan_put(n, b, c->h, wanted ? ORPHAN_HELD : ORPHAN_GOING);
    return true;
}

// ---- the end of one object
static err co_orphan_going(struct names *n, struct handle h,
                           struct cnode *c) { // ERR_BUSY: not yet. ERR_STALE: not an orphan
    struct lockset locks = {.len = 0};
    struct rec_orphan rec;
    struct key k = orphan_key(h);
    uint32_t len;
    lockset_add(&locks, h);
    co_lockset_take(n, &locks);
    for (struct hold *held; (held = truncate_open(n, h)) != NULL;) { // also one that began while the lock was waited for
        lockset_release(n, &locks);
        err e = co_hold_wait(n, held);
        if (e != OK) return e;
        lockset_add(&locks, h);
        co_lockset_take(n, &locks);
    }
    err e = co_cnode_get(n, h, c);
    if (e == OK) e = co_tree_get(n->store, n->tree, &k, &rec, sizeof rec, &len);
    if (e == ERR_NOENT) e = ERR_STALE;
    if (e == OK && rec.state != ORPHAN_GOING && (object_open(n, h) || !sessions_settled(n))) e = ERR_BUSY;
    if (e == OK && rec.state != ORPHAN_GOING) {
        struct batch *b = batch_new(n->store);
        uint64_t number;
        batch_urgent(b);
        orphan_put(n, b, h, ORPHAN_GOING);
        e = co_mirror_commit(n, b, &number);
    }
    lockset_release(n, &locks);
    return e == OK ? co_mirror_durable(n, n->mirror.number) : e;
}

static err co_xattrs_del(struct names *n, struct handle h) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, h);
    struct key k = key_make(KIND_XATTR, id, 0), first = k;
    for (bool more = true; more;) {
        struct batch *b = batch_new(n->store);
        batch_urgent(b);
        for (uint32_t i = 0; i < RECORDS_A_BATCH && more; i++, k = key_next(k)) {
            uint8_t val[RECORD_BYTES_MAX];
            uint32_t len;
            err e = co_tree_seek(n->store, n->tree, &k, val, sizeof val, &len);
            if (e != OK && e != ERR_NOENT) return batch_drop(b), e;
            more = e == OK && memcmp(k.b, first.b, 17) == 0;
            if (more) batch_del(b, n->tree, &k);
        }
        uint64_t number;
        err e = OK;
        if (batch_empty(b))
            batch_drop(b);
        else
            e = co_mirror_commit(n, b, &number);
        if (e != OK) return e;
    }
    return OK;
}

static err co_orphan_delete(struct names *n, struct handle h) {
    struct cnode c;
    err e = co_orphan_going(n, h, &c);
    if (e == OK && c.type == OBJ_FILE) e = co_members_discard(n, h, &c.map, 0, c.truncates + 1, true);
    if (e == OK && (c.flags & CNODE_HAS_XATTR)) e = co_xattrs_del(n, h);
    if (e != OK) return e;
    struct key k = cnode_key(h), o = orphan_key(h);
    struct batch *b = batch_new(n->store);
    batch_urgent(b);
    if (c.type == OBJ_SYMLINK) symlink_del(n, b, &c);
    batch_del(b, n->tree, &k);
    batch_del(b, n->tree, &o);
    uint64_t number;
    return co_mirror_commit(n, b, &number);
}

// ---- the workers
static void co_orphan_work(struct names *n, void *arg) {
    (void)arg;
    while (!list_empty(&n->orphans) && !n->stopping) {
        struct orphan *o = LIST_ENTRY(list_pop_front(&n->orphans), struct orphan, node);
        err e = co_orphan_delete(n, o->h);
        if (e != OK && e != ERR_BUSY && e != ERR_STALE && e != ERR_STOPPED)
            LOG(n->env, TRACE_WARN, "names: a deleted object could not be cleared away: %s", err_name(e));
        map_del(&n->orphans_known, handle_hash(o->h));
        mem_free(n->mem, o);
    }
    n->orphan_workers--;
    waitq_wake_all(n->env, &n->orphan_idle);
}

void orphan_note(struct names *n, struct handle h) {
    if (n->stopping || object_open(n, h) || map_get(&n->orphans_known, handle_hash(h)) != NULL) return;
    if (!sessions_settled(n)) n->orphans_waiting = true;
    if (truncate_open(n, h) != NULL) { // its turn comes later: a recovery waits for the workers and only then ends truncates
        n->orphans_waiting = true;
        return;
    }
    struct orphan *o = mem_alloc(n->mem, sizeof *o);
    o->h = h;
    list_push_back(&n->orphans, &o->node);
    map_put(&n->orphans_known, handle_hash(h), o);
    if (n->orphan_workers >= WORKERS_MAX) return;
    n->orphan_workers++;
    names_task(n, "orphans", co_orphan_work, NULL);
}

// ---- after a restart
static err co_orphans_scan(struct names *n, void (*found)(struct names *n, struct handle h, enum orphan_state state)) {
    static const uint8_t zero[16];
    struct key k = key_make(KIND_ORPHAN, zero, 0);
    for (;; k = key_next(k)) {
        struct rec_orphan rec;
        uint32_t len;
        err e = co_tree_seek(n->store, n->tree, &k, &rec, sizeof rec, &len);
        if (e == ERR_NOENT || e == ERR_RANGE || (e == OK && key_kind(&k) != KIND_ORPHAN)) return OK;
        if (e != OK) return e;
        found(n, handle_at(key_id(&k)), (enum orphan_state)rec.state);
    }
}

static void orphan_waits(struct names *n, struct handle h, enum orphan_state state) {
    (void)h;
    n->orphans_waiting |= state == ORPHAN_HELD;
}

err co_orphans_load(struct names *n) {
    return co_orphans_scan(n, orphan_waits);
}

static void orphan_goes(struct names *n, struct handle h, enum orphan_state state) {
    if (state != ORPHAN_GOING) return;
    if (truncate_open(n, h) != NULL) n->orphans_waiting = true; // the truncate ends after the rows: later
    else orphan_note(n, h);
}

err co_orphans_recover(struct names *n) {
    err e = co_orphans_scan(n, orphan_goes);
    while (n->orphan_workers > 0) co_wait(n->env, &n->orphan_idle, "orphans under way");
    return e == OK && n->stopping ? ERR_STOPPED : e;
}

static void orphan_any(struct names *n, struct handle h, enum orphan_state state) {
    (void)state;
    orphan_note(n, h);
}

void co_orphans_settle(struct names *n) {
    n->orphans_waiting = false;
    if (co_orphans_scan(n, orphan_any) != OK) n->orphans_waiting = true; // next second
}
