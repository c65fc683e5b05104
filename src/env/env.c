// A node's beginning and end, its clock and random numbers, and the dump of what its tasks wait for.
#include "env/env.h"
#include "env/task.h"
#include <stdio.h>

void env_init(struct env *e, const struct env_ops *ops) {
    *e = (struct env){.ops = ops, .mem = mem_create()};
    list_init(&e->ready);
    list_init(&e->tasks);
}

void env_fini(struct env *e) {
    ASSERT(!e->running);
    // No list is kept in order here: queues may lie in memory that is gone, and all of the rest goes with e->mem.
    LIST_FOR(&e->tasks, n) co_destroy(LIST_ENTRY(n, struct task, all)->co);
    mem_destroy(e->mem);
    *e = (struct env){0};
}

uint64_t env_now_ns(struct env *e) { return e->ops->now_ns(e); }
uint64_t env_wall_ns(struct env *e) { return e->ops->wall_ns(e); }
uint64_t env_random(struct env *e) { return e->ops->random(e); }

void env_dump(struct env *e, void (*line)(void *ctx, const char *text), void *ctx) {
    uint64_t now_ns = env_now_ns(e);
    LIST_FOR(&e->tasks, n) {
        const struct task *t = LIST_ENTRY(n, struct task, all);
        char text[160];
        snprintf(text, sizeof text, "%-20s %-30s %10.3f ms", t->name,
                 t->label ? t->label : t == e->running ? "(running)" : "(ready)", (double)(now_ns - t->since_ns) / 1e6);
        line(ctx, text);
    }
}
