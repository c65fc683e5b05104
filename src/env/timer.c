// Timers of a node: a binary heap of pointers, ordered by time and then by the order of setting.
//
// heap[0] is the next to fire; heap[i] is not before heap[(i - 1) / 2]; heap[i]->index == i + 1.
#include "env/env.h"

static bool before(const struct timer *a, const struct timer *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void place(struct env *e, uint32_t i, struct timer *t) {
    e->heap[i] = t;
    t->index = i + 1;
}

static void sift_up(struct env *e, uint32_t i, struct timer *t) {
    for (; i > 0 && before(t, e->heap[(i - 1) / 2]); i = (i - 1) / 2) place(e, i, e->heap[(i - 1) / 2]);
    place(e, i, t);
}

static void sift_down(struct env *e, uint32_t i, struct timer *t) {
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= e->heap_len) break;
        if (child + 1 < e->heap_len && before(e->heap[child + 1], e->heap[child])) child++;
        if (!before(e->heap[child], t)) break;
        place(e, i, e->heap[child]);
        i = child;
    }
    place(e, i, t);
}

static void heap_grow(struct env *e) {
    if (e->heap_len < e->heap_cap) return;
    e->heap_cap = e->heap_cap ? 2 * e->heap_cap : 64;
    e->heap = mem_realloc(e->mem, e->heap, e->heap_cap * sizeof e->heap[0]);
}

void timer_set(struct env *e, struct timer *t, uint64_t at_ns, void (*fn)(void *arg), void *arg) {
    timer_cancel(e, t);
    // While timers fire, a new one never comes before those that are due: env_fire_timers stops at the first new one.
    *t = (struct timer){.at_ns = MAX(at_ns, e->firing_ns), .seq = ++e->timer_seq, .fn = fn, .arg = arg};
    heap_grow(e);
    sift_up(e, e->heap_len++, t);
}

void timer_cancel(struct env *e, struct timer *t) {
    if (t->index == 0) return;
    uint32_t i = t->index - 1;
    ASSERT(i < e->heap_len && e->heap[i] == t);
    t->index = 0;
    struct timer *last = e->heap[--e->heap_len];
    if (last == t) return;
    if (before(last, t)) sift_up(e, i, last);
    else sift_down(e, i, last);
}

uint64_t env_next_timer_ns(const struct env *e) { return e->heap_len ? e->heap[0]->at_ns : UINT64_MAX; }

void env_fire_timers(struct env *e, uint64_t now_ns) {
    ASSERT(!e->firing_ns);
    uint64_t last_seq = e->timer_seq;
    e->firing_ns = now_ns;
    while (e->heap_len && e->heap[0]->at_ns <= now_ns && e->heap[0]->seq <= last_seq) {
        struct timer *t = e->heap[0];
        timer_cancel(e, t);
        t->fn(t->arg); // may set it again, or free it
    }
    e->firing_ns = 0;
}
