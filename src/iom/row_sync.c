// Everything this IOM holds as D to disk, and settled: what a clean stop and tests of a quiet array ask for first.
#include "iom/row_state.h"

err co_rows_sync(struct rows *r) {
    struct waitlist w = {0};
    if (r->stopping) return ERR_STOPPED;
    r->inside++;
    MAP_FOR(&r->objects, it) {
        struct object *o = it.value;
        LIST_FOR(&o->unsettled, n) row_wait_add(r, &w, LIST_ENTRY(n, struct dseg, unsettled));
    }
    err e = co_row_wait(r, &w);
    row_tell_touches(r);
    if (e == OK) e = co_store_sync(r->store, store_now(r->store)); // the settling too: nothing is left to resolve
    r->inside--;
    waitq_wake_all(r->env, &r->stop_q);
    return e;
}
