// Exactly once: the last sequence of each (session, slot) that wrote here. A repeated write is known and not done again; one that comes while the
// first is under way waits for it. A slot takes any higher sequence and refuses lower ones.
#include "iom/row_state.h"

#define SLOTS_MAX 65536u // the least recently used is forgotten

struct slot {
    struct list lru;
    uint8_t key[MAP_KEY32_BYTES];
    uint64_t seq;  // last done, or under way
    bool busy, done;
    uint32_t waiting;
    struct waitq q;
};

static struct slot *slot_of(struct rows *r, const uint8_t session[16], uint32_t number) {
    uint8_t key[MAP_KEY32_BYTES] = {0};
    memcpy(key, session, 16);
    le32 n = le32_of(number);
    memcpy(key + 16, &n, sizeof n);
    struct slot *s = map_get_key32(&r->slots, key);
    if (s) list_remove(&s->lru);
    if (!s) {
        s = mem_alloc(r->env->mem, sizeof *s);
        memcpy(s->key, key, sizeof key);
        waitq_init(&s->q);
        map_put_key32(&r->slots, key, s);
    }
    list_push_back(&r->slot_lru, &s->lru);
    return s;
}

static void trim(struct rows *r) {
    if (map_count(&r->slots) <= SLOTS_MAX) return;
    struct slot *s = LIST_ENTRY(r->slot_lru.next, struct slot, lru);
    if (s->busy || s->waiting) return;
    list_remove(&s->lru);
    map_del_key32(&r->slots, s->key);
    mem_free(r->env->mem, s);
}

err co_row_slot_begin(struct rows *r, const uint8_t session[16], uint32_t number, uint64_t seq, struct row_claim *c, bool *done) {
    *done = false;
    c->slot = NULL;
    if (!seq) return OK; // no identity: a tool
    struct slot *s = slot_of(r, session, number);
    s->waiting++;
    while (s->busy && !r->stopping) co_wait(r->env, &s->q, "row: the same write is under way");
    s->waiting--;
    if (r->stopping) return ERR_STOPPED;
    if (seq < s->seq) return ERR_SESSION;
    if (seq == s->seq && s->done) {
        *done = true;
        return OK;
    }
    s->seq = seq;
    s->busy = true;
    s->done = false;
    c->slot = s;
    trim(r);
    return OK;
}

void row_slot_end(struct rows *r, struct row_claim *c, err result) {
    struct slot *s = c->slot;
    if (!s) return;
    s->busy = false;
    s->done = result == OK;
    waitq_wake_all(r->env, &s->q);
}

void row_slots_wake(struct rows *r) {
    MAP_FOR(&r->slots, it) waitq_wake_all(r->env, &((struct slot *)it.value)->q);
}
