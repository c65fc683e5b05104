// Building: what is missing here (row_missing.c) gets a place again. (FIG. 14; design R5, R6)
//
// A task walks the records, some segments at a time, and has what is missing in each mended (row_mend.c): beside service, which mends on demand what it meets
// first. The versions stay: they are those of the contents. A block is on disk before the record names it, and the record before it counts as built.
//
// Clients go first. While a read, a write or a delta has come in the last QUIET_NS, one task builds, and rests after a
// segment for a multiple of the time that took: what is busy, be it a disk, a processor or a network, makes the
// building slower, and so the rests longer. A rest ends, so the rebuild does too. With nobody there all tasks build,
// one segment after the other.
#include "iom/resolve.h"

#define RETRY_NS MSEC(20)
#define QUIET_NS MSEC(50)
#define BESIDE_CLIENTS 1u // tasks
#define RESTS 2u          // as long as building took, so many times
#define REST_MAX_NS MSEC(100)

// ---- the walk -------------------------------------------------------------------------------------------------------
struct builder {
    struct rows *r;
    struct key next; // of the records
    bool end; // nothing is left, or one of the tasks failed
    uint32_t workers; // begun
    struct group g;
};

static bool has_missing(const uint8_t *val, uint32_t len, uint32_t *blocks) {
    struct row_chunk head;
    if (len < sizeof head) return false;
    memcpy(&head, val, sizeof head);
    uint32_t stride = (uint32_t)sizeof(struct row_place) + 6u * head.n, count = row_count(le16_get(head.rows));
    if (len != sizeof head + count * stride) return false;
    *blocks = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct row_place place;
        memcpy(&place, val + sizeof head + i * stride, sizeof place);
        *blocks += le48_get(place.at) == ROW_AT_MISSING;
    }
    return *blocks > 0;
}

// The next segment with something missing; ERR_NOENT: there is none.
static err co_next(struct builder *b, struct key *k, uint32_t *blocks) {
    struct rows *r = b->r;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    while (!b->end) {
        struct key at = b->next;
        err e = co_tree_seek(r->store, r->tree, &at, val, sizeof val, &len);
        if (e != OK && e != ERR_NOENT) return e;
        if (memcmp(at.b, b->next.b, KEY_BYTES) < 0) continue; // another worker went on meanwhile
        if (e == ERR_NOENT || key_kind(&at) != KIND_CHUNK) {
            b->end = true;
            break;
        }
        b->next = key_next(at);
        if (!has_missing(val, len, blocks)) continue;
        *k = at;
        return OK;
    }
    return ERR_NOENT;
}

static err co_build_seg(struct rows *r, const struct key *k) {
    struct object *o;
    err e = co_resolve_object(r, handle_at(key_id(k)), &o);
    if (e != OK) return e == ERR_FORMAT ? OK : e; // deleted meanwhile
    struct seg *s = row_seg_of(o, key_number(k));
    if (s) e = co_row_seg_load(s);
    while (s && e == OK && !s->dead && !r->stopping) {
        row_mask missing = row_missing(s->spot, (row_mask)((1u << s->blocks) - 1));
        if (!missing) break;
        e = co_row_mend(s, missing);
        bool some = missing & (row_mask)~row_missing(s->spot, missing);
        if (e == OK && !some) co_wait_until(r->env, &s->q, env_now_ns(r->env) + RETRY_NS, "row build: tries again"); // it was being written, or there was no place
    }
    if (e == ERR_IO) e = OK; // not to be had: told
    if (s) row_seg_unpin(s);
    row_object_unpin(o);
    return e;
}

// ---- giving way -----------------------------------------------------------------------------------------------------
static bool clients_are_there(const struct rows *r) {
    return r->client_ns && env_now_ns(r->env) - r->client_ns < QUIET_NS;
}

static void co_rest(struct rows *r, uint64_t ns) {
    uint64_t until_ns = env_now_ns(r->env) + ns;
    while (!r->stopping && env_now_ns(r->env) < until_ns)
        co_wait_until(r->env, &r->build_q, until_ns, "row build: gives way to clients");
}

// ---- the tasks ------------------------------------------------------------------------------------------------------
static void co_worker(void *arg) {
    struct builder *b = arg;
    struct rows *r = b->r;
    bool steady = b->workers++ < BESIDE_CLIENTS;
    struct key k;
    uint32_t blocks;
    err e = OK;
    while (e == OK && !r->stopping) {
        while (!steady && !b->end && !r->stopping && clients_are_there(r)) co_rest(r, QUIET_NS);
        uint64_t begun_ns = env_now_ns(r->env);
        if ((e = co_next(b, &k, &blocks)) != OK) break;
        e = co_build_seg(r, &k);
        r->missing_done += blocks;
        if (clients_are_there(r)) co_rest(r, MIN((env_now_ns(r->env) - begun_ns) * RESTS, REST_MAX_NS));
    }
    b->end = true; // also if it cannot go on: nobody waits for quiet any more
    group_done(r->env, &b->g, e == ERR_NOENT ? OK : e);
    row_task_end(r);
}

err co_rows_missing_count(struct rows *r) {
    struct builder b = {.r = r, .next = {{KIND_CHUNK}}};
    struct key k;
    uint32_t blocks;
    err e;
    r->missing_total = r->missing_done = 0;
    while ((e = co_next(&b, &k, &blocks)) == OK) r->missing_total += blocks;
    return e == ERR_NOENT ? OK : e;
}

err co_rows_build(struct rows *r) {
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    struct builder *b = mem_alloc(r->env->mem, sizeof *b);
    *b = (struct builder){.r = r, .next = {{KIND_CHUNK}}};
    group_init(&b->g);
    for (uint32_t i = 0; i < ROW_BUILDERS; i++) {
        group_add(&b->g);
        row_spawn(r, "row build", co_worker, b);
    }
    err e = co_group_wait(r->env, &b->g, "row build: workers");
    mem_free(r->env->mem, b);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store)); // only then it counts (R6)
    if (r->stopping) e = ERR_STOPPED;
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
