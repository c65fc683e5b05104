// Exclusion: short locks by object, and the holds of intents and truncates.
//
//   lock   guards read-modify-write of an object's records; taken in order of keys, given back before any message is waited for
//   hold   stands from an intent's reservation to its end; its record brings it back after a restart
//
// Holds are taken in order of (starter, handle, name) over all IOMs, so they cannot lock each other up; nobody waits
// for a hold with a lock taken. Two things whose keys hash alike share a lock or a hold: somebody waits for nothing,
// never the other way round.
#include "iom/name_inside.h"

#include "base/sum.h"

struct name_lock {
    struct co_lock lock;
    uint32_t users;
};

void lockset_add(struct lockset *s, struct handle h) {
    uint64_t key = handle_hash(h);
    uint8_t i = s->len;
    for (uint8_t j = 0; j < s->len; j++)
        if (s->key[j] == key) return;
    ASSERT(s->len < CHANGE_NODES);
    for (; i > 0 && s->key[i - 1] > key; i--) s->key[i] = s->key[i - 1];
    s->key[i] = key;
    s->len++;
}

void co_lockset_take(struct names *n, struct lockset *s) {
    for (uint8_t i = 0; i < s->len; i++) {
        struct name_lock *l = map_get(&n->locks, s->key[i]);
        if (l == NULL) {
            l = mem_alloc(n->mem, sizeof *l);
            co_lock_init(&l->lock);
            map_put(&n->locks, s->key[i], l);
        }
        l->users++;
        co_lock(n->env, &l->lock, "object lock");
    }
}

void lockset_release(struct names *n, struct lockset *s) {
    for (uint8_t i = 0; i < s->len; i++) {
        struct name_lock *l = map_get(&n->locks, s->key[i]);
        co_unlock(n->env, &l->lock);
        if (--l->users > 0) continue;
        map_del(&n->locks, s->key[i]);
        mem_free(n->mem, l);
    }
    s->len = 0;
}

uint64_t hold_key(enum hold_kind kind, struct handle h, struct name nm) {
    struct {
        uint64_t kind, object, name;
    } of = {kind, handle_hash(h), nm.len == 0 ? 0 : hash64(nm.s, nm.len, 1)};
    return hash64(&of, sizeof of, 2);
}

struct hold *hold_find(struct names *n, uint64_t key, const struct intent_id *but) {
    struct hold *h = map_get(&n->holds, key);
    if (h == NULL || h->holders == 0) return NULL;
    if (but != NULL && h->holders == 1 && memcmp(but, &h->id, sizeof *but) == 0) return NULL;
    return h;
}

void hold_take(struct names *n, uint64_t key, enum hold_kind kind, const struct intent_id *id, bool local) {
    struct hold *h = map_get(&n->holds, key);
    if (h == NULL) {
        h = mem_alloc(n->mem, sizeof *h);
        h->key = key;
        h->kind = kind;
        waitq_init(&h->freed);
        map_put(&n->holds, key, h);
    }
    h->id = *id;
    h->holders++;
    if (local) h->local++;
}

static void hold_drop_unused(struct names *n, struct hold *h) {
    if (h->holders > 0 || h->waiters > 0) return;
    map_del(&n->holds, h->key);
    mem_free(n->mem, h);
}

void hold_free(struct names *n, uint64_t key, bool local) {
    struct hold *h = map_get(&n->holds, key);
    ASSERT(h != NULL && h->holders > 0);
    h->holders--;
    if (local) h->local--;
    waitq_wake_all(n->env, &h->freed);
    hold_drop_unused(n, h);
}

err co_hold_wait(struct names *n, struct hold *h) {
    h->waiters++;
    if (!n->stopping) co_wait(n->env, &h->freed, "held by an intent");
    h->waiters--;
    hold_drop_unused(n, h);
    return n->stopping ? ERR_STOPPED : OK;
}

// What keeps a reader off: a hold decided elsewhere, of which this IOM may not have heard the end yet.
static struct hold *hold_unknown(struct names *n, enum hold_kind kind, struct handle h, struct name nm) {
    struct hold *held = hold_find(n, hold_key(kind, h, nm), NULL);
    return held != NULL && held->local < held->holders ? held : NULL;
}

static struct hold *object_unknown(struct names *n, struct handle h) {
    static const enum hold_kind kinds[] = {HOLD_OBJECT, HOLD_DIR, HOLD_TRUNCATE};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct hold *held = hold_unknown(n, kinds[i], h, (struct name){0});
        if (held != NULL) return held;
    }
    return NULL;
}

bool object_looked_at(struct names *n, struct handle h) {
    return map_count(&n->holds) == 0 || object_unknown(n, h) == NULL;
}

err co_look_object(struct names *n, struct handle h) {
    while (map_count(&n->holds) > 0) {
        struct hold *held = object_unknown(n, h);
        if (held == NULL) break;
        err e = co_hold_wait(n, held);
        if (e != OK) return e;
    }
    return n->stopping ? ERR_STOPPED : OK;
}

err co_look_name(struct names *n, struct handle dir, struct name nm) {
    while (map_count(&n->holds) > 0 && !mutant(MUTANT_LOOK)) {
        struct hold *held = hold_unknown(n, HOLD_NAME, dir, nm);
        if (held == NULL) break;
        err e = co_hold_wait(n, held);
        if (e != OK) return e;
    }
    return n->stopping ? ERR_STOPPED : OK;
}
