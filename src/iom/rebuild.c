// The rebuild: an IOM that has returned serves at once, and builds what it missed beside that. When nothing is missing any more it counts as whole again.
// A store that was replaced finds out first what that is (row_census.c).
#include "iom/iom_inside.h"

static void rebuild_task(void *arg) {
    struct instance *x = arg;
    struct iom *i = x->i;
    uint64_t begun_ns = env_now_ns(i->env);
    struct rows_stats s;
    i->building_ns = begun_ns;
    err e = co_rows_census(x->rows, i->ident.array_ioms);
    if (e == OK) e = co_rows_missing_count(x->rows);
    if (e == OK) e = co_rows_build(x->rows);
    rows_stats(x->rows, &s);
    if (e == OK) {
        LOG(i->env, TRACE_INFO, "IOM %u is whole again: %llu blocks in %llu ms", x->self.n, (unsigned long long)s.missing_total,
            (unsigned long long)((env_now_ns(i->env) - begun_ns) / MSEC(1)));
        member_rebuilt(i->member);
    } else if (e != ERR_STOPPED) LOG(i->env, TRACE_ERROR, "IOM %u cannot build what it missed: %s", x->self.n, err_text(e));
    i->building_ns = 0;
    if (--x->requests == 0) waitq_wake_all(i->env, &x->idle);
}

void rebuild_start(struct instance *x) {
    const struct cluster_map *m = register_latest(x->i->reg);
    if (!m || m->iom[x->self.n].state != MAP_IOM_REBUILDING) return;
    x->requests++;
    env_spawn(x->i->env, "iom: rebuild", rebuild_task, x);
}
