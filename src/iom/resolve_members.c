// Resolution: what P asks of several members of its row goes to all of them at once. They are independent: each answers for its own part, and what is made
// of the answers (sums of blocks, masks, states by k) does not depend on their order.
#include "iom/resolve.h"

struct by_member {
    struct pseg *p;
    co_member_fn co_one;
    void *arg;
    struct group done;
    struct one { struct by_member *all; uint8_t k; } one[ARRAY_IOMS_MAX];
};

static void co_member(void *arg) {
    struct one *x = arg;
    struct by_member *all = x->all;
    struct rows *r = all->p->s.r;
    group_done(r->env, &all->done, all->co_one(all->p, x->k, all->arg));
    row_task_end(r);
}

// The last one needs no task of its own.
err co_resolve_members(struct pseg *p, uint16_t members, co_member_fn co_one, void *arg) {
    struct rows *r = p->s.r;
    struct by_member *all = mem_alloc(r->env->mem, sizeof *all);
    *all = (struct by_member){.p = p, .co_one = co_one, .arg = arg};
    group_init(&all->done);
    err e = OK;
    for (uint8_t k = 0; members; k++, members >>= 1) {
        if (!(members & 1)) continue;
        if (members == 1) {
            e = co_one(p, k, arg);
            break;
        }
        all->one[k] = (struct one){all, k};
        group_add(&all->done);
        row_spawn(r, "resolve: a member", co_member, &all->one[k]);
    }
    err others = co_group_wait(r->env, &all->done, "resolve: the members of a row");
    mem_free(r->env->mem, all);
    return e == OK ? others : e;
}
