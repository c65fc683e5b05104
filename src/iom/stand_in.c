// The stand-in: the service of an IOM that is not there, by its proxy. (FIG. 11-13)
//
//   proxy's process     own service  ── TREE_META, TREE_LOCAL, TREE_WARD ──┐
//                       stand-in     ── TREE_WARD, TREE_STAND_IN ──────────┴── one store: one journal, one allocator
//
// The same code as everywhere: names over the copy of the ward's tree, rows over a tree of their own. It takes part in the update protocol as the member
// that it stands in for, with blocks and journal entries of its own, so nothing of that protocol knows that anybody is missing: what is acknowledged is in two
// memories (where those would be one process, on disk), what is settled is on two disks. What it has no record of is in the store that is missing:
// that is put together from the row (row_missing.c).
//
// TREE_STAND_IN grows from the failure to the return: it is what the missing IOM has missed (catch_up.c). Its note says whether it does (number 1): from the
// first recovery without the ward until the ward has taken it over, durably. 0: it is over, and what is left there is to be dropped: the rows have it all.
// The stand-in has a hub of its own, for one epoch; who answers for whom: iom_peers_redirect.
#include "iom/iom_inside.h"

#define RECORDS_A_BATCH 200u

bool stand_in_is_here(const struct iom *i) { return i->guest.hub != NULL; }

// ---- the tree -------------------------------------------------------------------------------------------------------
static void free_one(void *arg, block_addr at, uint32_t n) { batch_free(arg, at, n); }

static err co_commit(struct batch *b) {
    lsn at;
    batch_urgent(b);
    return co_batch_commit(b, &at);
}

static err co_drop_records(struct store *s) {
    struct key k = {{0}};
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    while (tree_records(s, TREE_STAND_IN) > 0) {
        struct batch *b = batch_new(s);
        err e = OK;
        for (uint32_t n = 0; n < RECORDS_A_BATCH; n++, k = key_next(k)) {
            e = co_tree_seek(s, TREE_STAND_IN, &k, val, sizeof val, &len);
            if (e != OK) break;
            row_record_refs(&k, val, len, free_one, b);
            batch_del(b, TREE_STAND_IN, &k);
        }
        if (e != OK && e != ERR_NOENT) return batch_drop(b), e;
        e = co_commit(b);
        if (e != OK) return e;
    }
    return OK;
}

static bool noted(const struct store *s) {
    uint64_t epoch, number;
    tree_note(s, TREE_STAND_IN, &epoch, &number);
    return number != 0;
}

static err co_note(struct store *s, bool on) {
    struct batch *b = batch_new(s);
    batch_note(b, TREE_STAND_IN, on, on);
    err e = co_commit(b);
    return e == OK ? co_store_sync(s, store_now(s)) : e;
}

static err co_tree_begin(struct iom *i) {
    if (noted(i->store)) return OK; // it goes on
    err e = co_drop_records(i->store);
    return e == OK ? co_note(i->store, true) : e;
}

err co_stand_in_forget(struct iom *i) {
    err e = noted(i->store) ? co_note(i->store, false) : OK;
    return e == OK ? co_drop_records(i->store) : e;
}

// ---- the service ----------------------------------------------------------------------------------------------------
static int ward_missing(const struct iom *i, const struct cluster_map *m) {
    for (uint8_t n = 0; n < m->ioms; n++) {
        bool missing = m->iom[n].state == MAP_IOM_FAILED || m->iom[n].state == MAP_IOM_RETURNING;
        if (missing && m->iom[n].proxy == i->own.self.n) return n;
    }
    return -1;
}

// Its id is neither the missing store's, which may come back beside it, nor ours.
static void guest_id(const struct iom *i, const struct map_iom *missing, uint8_t out[16]) {
    for (unsigned b = 0; b < 16; b++) out[b] = missing->store[b] ^ i->ident.store[b] ^ 0x5a;
}

err co_stand_in_up(struct iom *i, const struct cluster_map *m) {
    struct instance *x = &i->guest;
    int ward = ward_missing(i, m);
    char at[MAP_ADDRESS_BYTES];
    if (ward < 0 || x->hub) return OK;
    err e = co_tree_begin(i);
    if (e != OK) return e;
    struct hub_config h = {.self = {.kind = NODE_IOM, .iom = (uint8_t)ward, .incarnation = store_incarnation(i->store)}, .events = iom_hub_events(x)};
    memcpy(h.cluster, i->ident.cluster, sizeof h.cluster);
    guest_id(i, &m->iom[ward], h.self.id);
    x->self = (iom_id){(uint8_t)ward};
    x->hub = hub_create(i->env, &h);
    hub_set_epoch(x->hub, m->epoch);
    iom_peers_of_map(x, m);
    instance_create(x);
    cluster_map_stand_in(m, (uint8_t)ward, at);
    e = hub_listen(x->hub, at);
    if (e != OK) LOG(i->env, TRACE_ERROR, "IOM %u cannot stand in for IOM %d: it cannot listen at %s: %s", i->own.self.n, ward, at, err_text(e));
    else LOG(i->env, TRACE_WARN, "IOM %u stands in for IOM %d (epoch %llu)", i->own.self.n, ward, (unsigned long long)m->epoch);
    return e;
}

err co_stand_in_down(struct iom *i, bool harden) {
    struct instance *x = &i->guest;
    if (!x->hub) return OK;
    err held = co_instance_end(x, harden);
    hub_destroy(x->hub);
    instance_init(x, i);
    return held;
}
