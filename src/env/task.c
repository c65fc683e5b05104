// Tasks: the run queue, waiting on queues and on time, locks, groups.
#include "env/task.h"

// ---- the run queue --------------------------------------------------------------------------------------------------

static void make_ready(struct env *e, struct task *t) {
    bool first = list_empty(&e->ready);
    list_push_back(&e->ready, &t->node);
    if (first && !e->running && e->ops->wake) e->ops->wake(e);
}

static void task_main(void *arg) {
    struct task *t = arg;
    t->fn(t->arg);
}

struct task *env_spawn(struct env *e, const char *name, void (*fn)(void *arg), void *arg) {
    struct task *t = mem_alloc(e->mem, sizeof *t);
    *t = (struct task){.env = e, .name = name, .fn = fn, .arg = arg, .since_ns = env_now_ns(e)};
    t->co = co_create(task_main, t);
    list_init(&t->node);
    list_push_back(&e->tasks, &t->all);
    make_ready(e, t);
    return t;
}

static void run(struct env *e, struct task *t) {
    t->label = NULL;
    e->running = t;
    co_enter(t->co);
    e->running = NULL;
    if (!co_ended(t->co)) return;
    co_destroy(t->co);
    list_remove(&t->all);
    mem_free(e->mem, t);
}

bool env_run_ready(struct env *e, uint32_t max_turns) {
    ASSERT(!e->running);
    for (uint32_t i = 0; i < max_turns; i++) {
        struct list *n = list_pop_front(&e->ready);
        if (!n) return false;
        run(e, LIST_ENTRY(n, struct task, node));
    }
    return !list_empty(&e->ready);
}

// ---- waiting --------------------------------------------------------------------------------------------------------

static struct task *running(struct env *e) {
    ASSERT(e->running && co_current() == e->running->co);
    return e->running;
}

static void leave(struct env *e, struct task *t, const char *label) {
    t->label = label;
    t->since_ns = env_now_ns(e);
    co_leave();
}

static void time_came(void *arg) {
    struct task *t = arg;
    list_remove(&t->node); // from the waitq, if it waits on one
    t->timed_out = true;
    make_ready(t->env, t);
}

void waitq_init(struct waitq *q) { list_init(&q->waiters); }

void co_wait(struct env *e, struct waitq *q, const char *label) {
    struct task *t = running(e);
    list_push_back(&q->waiters, &t->node);
    leave(e, t, label);
}

bool co_wait_until(struct env *e, struct waitq *q, uint64_t at_ns, const char *label) {
    struct task *t = running(e);
    t->timed_out = false;
    if (at_ns != UINT64_MAX) timer_set(e, &t->timer, at_ns, time_came, t);
    list_push_back(&q->waiters, &t->node);
    leave(e, t, label);
    return !t->timed_out;
}

void co_sleep_until(struct env *e, uint64_t at_ns, const char *label) {
    struct task *t = running(e);
    timer_set(e, &t->timer, at_ns, time_came, t);
    leave(e, t, label);
}

void co_yield(struct env *e) {
    struct task *t = running(e);
    make_ready(e, t);
    leave(e, t, NULL);
}

static struct task *take_first(struct env *e, struct waitq *q) {
    struct list *n = list_pop_front(&q->waiters);
    if (!n) return NULL;
    struct task *t = LIST_ENTRY(n, struct task, node);
    ASSERT(t->env == e);
    timer_cancel(e, &t->timer);
    make_ready(e, t);
    return t;
}

void waitq_wake_one(struct env *e, struct waitq *q) { take_first(e, q); }

void waitq_wake_all(struct env *e, struct waitq *q) {
    while (take_first(e, q)) {}
}

// ---- locks ----------------------------------------------------------------------------------------------------------

void co_lock_init(struct co_lock *l) {
    l->holder = NULL;
    waitq_init(&l->q);
}

void co_lock(struct env *e, struct co_lock *l, const char *label) {
    struct task *t = running(e);
    ASSERT(l->holder != t);
    if (!l->holder) l->holder = t;
    else co_wait(e, &l->q, label); // co_unlock makes it the holder before it wakes it
    ASSERT(l->holder == t);
}

void co_unlock(struct env *e, struct co_lock *l) {
    ASSERT(l->holder == running(e));
    l->holder = take_first(e, &l->q);
}

// ---- groups ---------------------------------------------------------------------------------------------------------

void group_init(struct group *g) {
    g->pending = 0;
    g->first_error = OK;
    waitq_init(&g->q);
}

void group_add(struct group *g) {
    ASSERT(g->pending < UINT32_MAX);
    g->pending++;
}

void group_done(struct env *e, struct group *g, err result) {
    ASSERT(g->pending > 0);
    if (g->first_error == OK) g->first_error = result;
    if (--g->pending == 0) waitq_wake_all(e, &g->q);
}

err co_group_wait(struct env *e, struct group *g, const char *label) {
    while (g->pending > 0) co_wait(e, &g->q, label);
    return g->first_error;
}

struct workers {
    struct env *env;
    err (*co_fn)(void *arg);
    void *arg;
    struct group done;
};

static void worker(void *arg) {
    struct workers *w = arg;
    group_done(w->env, &w->done, w->co_fn(w->arg));
}

err co_workers(struct env *e, const char *name, uint32_t workers, err (*co_fn)(void *arg), void *arg) {
    struct workers w = {.env = e, .co_fn = co_fn, .arg = arg};
    group_init(&w.done);
    for (uint32_t i = 0; i < workers; i++) {
        group_add(&w.done);
        env_spawn(e, name, worker, &w);
    }
    return co_group_wait(e, &w.done, name);
}
