// The model's failures: crashes of single members, and the stop of the others. (src/iom/row_stop.c)
//
// From the moment when something fails (or a stop is asked for) each node goes in its own time: it crashes, or stops in
// order, and until then works on. Then all are down and recovery begins.
#include "row.h"

void close_connection(struct state *s, unsigned k) {
    struct member *m = &s->m[k];
    m->told = 0;
    m->last = (struct post){0};
    if (!holds(RULE_EPOCH)) return;
    memset(m->out, 0, sizeof m->out);
    m->outs = 0;
}

void d_forget(struct member *m) {
    m->state = D_IDLE;
    m->version = m->unanswered = m->pending = m->refused = 0;
    m->newest = m->frozen = 0;
}

void p_forget(struct state *s) {
    s->p_state = P_IDLE;
    for (unsigned k = 0; k < bounds.members; k++) s->m[k].open = s->m[k].frozen_acc = (struct acc){0};
}

static bool all_down(const struct state *s) {
    for (unsigned k = 0; k < bounds.members; k++)
        if (s->m[k].life != DOWN) return false;
    return s->p_life == DOWN;
}

struct going {
    struct explorer *x;
    enum what what;
    unsigned k;
};

static void gone(struct state *t, const struct going *g) {
    if (all_down(t)) {
        t->step = STEP_SETTLED;
        if (!t->fault) t->fault = (uint8_t)check_all_down(t);
    }
    explore_step(g->x, t, g->what, g->k, g->what == CRASH);
}

// ---- stops ----------------------------------------------------------------------------------------------------------

static void d_down(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    d_flush(m);
    m->life = DOWN;
    d_forget(m);
    close_connection(&t, k);
    gone(&t, &(struct going){x, STOP_DOWN, k});
}

static void d_stop(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    bool dirty = m->newest != m->frozen && holds(RULE_STOP) && (m->state == D_IDLE || holds(RULE_SECOND));
    if (m->state == D_HARDENING_) d_flush(m); // its round is waited for
    if (!dirty) return d_down(&t, k, x);
    struct record held = {1, (uint8_t)(m->version + 2), BLOCK_WRITTEN, m->newest};
    struct d_image *d = d_batch(m);
    if (m->state == D_IDLE)
        d->update = held;
    else
        d->second = held;
    m->life = HOLDS;
    d_forget(m);
    close_connection(&t, k);
    explore_step(x, &t, STOP_HOLD, k, false);
}

static bool p_settling(const struct state *s) { // all parts are on disk
    for (unsigned k = 0; k < bounds.members; k++)
        if (s->m[k].frozen_acc.taken && !s->m[k].frozen_acc.hardened) return false;
    return s->p_state == P_HARDENED_;
}

static struct record frozen_of(const struct state *s, unsigned k) {
    const struct acc *f = &s->m[k].frozen_acc;
    if (!f->there || (f->taken && p_settling(s))) return (struct record){0};
    return (struct record){1, f->version, BLOCK_WRITTEN, f->delta};
}

static struct record open_of(const struct state *s, unsigned k) {
    const struct acc *o = &s->m[k].open;
    uint8_t below = holds(RULE_HELD_ODD) ? 1 : 0;
    return o->there ? (struct record){1, (uint8_t)(o->version - below), BLOCK_WRITTEN, o->delta} : (struct record){0};
}

static void p_down(const struct state *s, struct explorer *x) {
    struct state t = *s;
    p_flush(&t);
    t.p_life = DOWN;
    p_forget(&t);
    for (unsigned k = 0; k < bounds.members; k++) close_connection(&t, k);
    gone(&t, &(struct going){x, STOP_DOWN, bounds.members});
}

// The records of what is frozen, or of what is open, or both. False: there is nothing.
static bool p_puts(struct state *t, const struct state *s, bool frozen, bool open) {
    bool any = false;
    for (unsigned k = 0; k < bounds.members; k++)
        any = any || (frozen && frozen_of(s, k).there) || (open && open_of(s, k).there);
    if (!any || !holds(RULE_HELD)) return false;
    p_batch(t);
    for (unsigned k = 0; k < bounds.members; k++) {
        if (frozen) p_of(t, k)->held[HELD_FROZEN] = frozen_of(s, k);
        if (open) p_of(t, k)->held[HELD_OPEN] = open_of(s, k);
    }
    return true;
}

static void p_stop(const struct state *s, struct explorer *x) {
    struct state t = *s;
    bool again = s->p_life == HOLDS, together = !holds(RULE_HELD_SYNC);
    if (t.p_state == P_FORMING || again) p_flush(&t);
    bool all = again || together, put = p_puts(&t, s, !again, all);
    if (!put && !all) put = p_puts(&t, s, false, all = true);
    if (!put) return p_down(&t, x);
    t.p_life = HOLDS;
    t.p_state = P_IDLE;
    for (unsigned k = 0; k < bounds.members; k++) {
        t.m[k].frozen_acc = (struct acc){0};
        if (all) t.m[k].open = (struct acc){0};
        close_connection(&t, k);
    }
    explore_step(x, &t, STOP_HOLD, bounds.members, false);
}

// ---- crashes --------------------------------------------------------------------------------------------------------

static void d_crashed(struct state *t, void *arg) {
    const struct going *g = arg;
    struct state u = *t;
    struct member *m = &u.m[g->k];
    m->lost = m->images && !holds(RULE_REPLAY) ? LOST_UNFLUSHED : LOST;
    m->life = DOWN;
    d_forget(m);
    close_connection(&u, g->k);
    gone(&u, g);
}

static void p_crashed(struct state *t, void *arg) {
    const struct going *g = arg;
    struct state u = *t;
    u.p_lost = u.p_images && !holds(RULE_REPLAY) ? LOST_UNFLUSHED : LOST;
    u.p_life = DOWN;
    p_forget(&u);
    for (unsigned k = 0; k < bounds.members; k++) close_connection(&u, k);
    gone(&u, g);
}

// Left out: it comes back at once, nobody notices, and it serves from what is on its disk.
static void d_unnoticed(struct state *t, void *arg) {
    const struct going *g = arg;
    struct state u = *t;
    struct member *m = &u.m[g->k];
    d_forget(m);
    m->version = d_now(m)->version;
    m->newest = m->frozen = d_now(m)->content;
    if (m->answered & (set)~m->newest) u.fault = FAULT_ANSWERED;
    gone(&u, g);
}

static void crashes(const struct state *s, struct explorer *x) {
    for (unsigned k = 0; k < bounds.members; k++) {
        struct going g = {x, CRASH, k};
        if (s->m[k].life == DOWN) continue;
        d_outcomes(s, k, d_crashed, &g);
        if (!holds(RULE_I9) && s->m[k].life == SERVES) d_unnoticed((struct state[]){*s}, &g);
        if (!holds(RULE_REPLAY))
            d_crashed((struct state[]){*s}, &g); // a process died: what it wrote is there, and still not durable
    }
    struct going g = {x, CRASH, bounds.members};
    if (s->p_life == DOWN) return;
    p_outcomes(s, p_crashed, &g);
    if (!holds(RULE_REPLAY)) p_crashed((struct state[]){*s}, &g);
}

void stop_steps(const struct state *s, struct explorer *x) {
    if (!s->failing) {
        struct state t = *s;
        if (!t.failures_left) return;
        t.failures_left--;
        t.failing = 1;
        explore_step(x, &t, FAILS, 0, true);
        return;
    }
    crashes(s, x);
    for (unsigned k = 0; k < bounds.members; k++) {
        if (s->m[k].life == SERVES) d_stop(s, k, x);
        if (s->m[k].life == HOLDS) d_down(s, k, x);
    }
    if (s->p_life != DOWN) p_stop(s, x);
}
