// The model's service: writes, deltas, freezing, hardening, settling. (src/iom/row_data.c, row_harden.c, row_parity.c,
// row_settle.c)
#include "row.h"

static void step(struct explorer *x, const struct state *s, enum what what, unsigned k) {
    explore_step(x, s, what, k, false);
}

static void post(struct member *m, uint8_t kind, uint8_t version, set delta) {
    if (m->outs < POSTS_MAX) m->out[m->outs++] = (struct post){kind, version, delta};
}

static struct post take_post(struct member *m, unsigned i) {
    struct post p = m->out[i];
    memmove(&m->out[i], &m->out[i + 1], (m->outs - i - 1) * sizeof m->out[0]);
    m->out[--m->outs] = (struct post){0};
    return p;
}

static set in_flight(const struct member *m) { // deltas that P has not got
    set all = 0;
    for (unsigned i = 0; i < m->outs; i++) all |= m->out[i].delta;
    return all;
}

static bool is_dirty(const struct member *m) {
    return m->newest != m->frozen;
}

// ---- D --------------------------------------------------------------------------------------------------------------

static void d_write(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    if (!t.writes_left || m->outs > POSTS_MAX - 3 || (m->pending && holds(RULE_PENDING))) return;
    set bit = (set)(m->newest + 1) & (set)~m->newest;
    if (!is_dirty(m)) m->pending = 1;
    t.writes_left--;
    m->newest |= bit;
    m->written |= bit;
    m->unanswered++;
    post(m, POST_DELTA, (uint8_t)(m->version + 2), bit);
    if (!holds(RULE_ACK)) m->answered |= bit;
    explore_step(x, &t, D_WRITE, k, true);
}

static void d_answered(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    unsigned left = (unsigned)__builtin_popcount(in_flight(m));
    if (t.p_life != SERVES || left >= m->unanswered || m->refused) return;
    m->unanswered = (uint8_t)left;
    m->answered |= m->newest & (set)~in_flight(m);
    if (!left) m->pending = 0;
    step(x, &t, D_ANSWERED, k);
}

// What was refused is the newest write: nothing was written over it meanwhile.
static void d_take_back(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    if (!m->refused || t.p_life != SERVES) return;
    m->newest &= (set)~m->refused;
    m->written &= (set)~m->refused;
    m->answered |= m->newest & (set)~in_flight(m);
    m->unanswered = (uint8_t)__builtin_popcount(in_flight(m));
    m->refused = m->pending = 0;
    step(x, &t, D_TAKE_BACK, k);
}

static void d_freeze(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    bool may = m->state == D_IDLE || (m->state == D_HARDENED_ && !holds(RULE_FREEZE_ONE));
    if (!may || !is_dirty(m) || (m->pending && holds(RULE_PENDING)) || m->outs > POSTS_MAX - 3) return;
    m->state = D_HARDENING_;
    m->version += 2;
    m->frozen = m->newest;
    struct d_image *d = d_batch(m);
    d->update = (struct record){1, m->version, BLOCK_WRITTEN, m->frozen};
    if (!holds(RULE_I2)) d->block = BLOCK_BAD;
    post(m, POST_FREEZE, m->version, 0);
    if (!holds(RULE_D_FLUSH)) post(m, POST_HARDENED, m->version, 0);
    step(x, &t, D_FREEZE, k);
}

static void d_hardened(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    if (m->state != D_HARDENING_) return;
    d_flush(m);
    m->state = D_HARDENED_;
    if (t.p_life == SERVES && holds(RULE_D_FLUSH)) post(m, POST_HARDENED, m->version, 0);
    step(x, &t, D_HARDENED, k);
}

static void d_told_settled(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    bool early =
        m->state == D_HARDENING_ && (!holds(RULE_I4) || !holds(RULE_D_FLUSH)); // with these left out: kept until then
    if (!m->told || early) return;
    if (m->state == D_HARDENED_ && m->version == m->told) m->state = D_SETTLING;
    m->told = 0;
    step(x, &t, D_TOLD_SETTLED, k);
}

static void d_settle(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    if (m->state != D_SETTLING) return;
    struct d_image *d = d_batch(m);
    d->version = m->version;
    d->content = d->update.content;
    d->block = d->update.block;
    d->update = (struct record){0};
    d_release(m);
    m->state = D_IDLE;
    m->firm |= m->frozen;
    step(x, &t, D_SETTLE, k);
}

// ---- P: what it is told ---------------------------------------------------------------------------------------------

static void p_delta(struct state *t, unsigned k, struct post p) {
    struct acc *a = &t->m[k].open;
    if (a->there && a->version != p.version) t->fault = FAULT_OTHER_VERSION;
    a->there = 1;
    a->version = p.version;
    a->delta ^= p.delta;
}

static void p_freeze(struct state *t, unsigned k, struct post p) {
    struct member *m = &t->m[k];
    if (!m->open.there || m->frozen_acc.there || m->open.version != p.version) return;
    m->frozen_acc = m->open;
    m->open = (struct acc){0};
    if (!holds(RULE_MERGE) && t->p_state == P_HARDENED_) m->frozen_acc.taken = 1;
}

static void p_told_hardened(struct state *t, unsigned k, struct post p) {
    struct acc *a = &t->m[k].frozen_acc;
    if (a->there && a->version == p.version) a->hardened = 1;
}

static void p_receive(const struct state *s, unsigned k, unsigned i, struct explorer *x) {
    struct state t = *s;
    struct post p = take_post(&t.m[k], i);
    if (t.breaks_left) t.m[k].last = p;
    if (p.kind == POST_DELTA) p_delta(&t, k, p);
    if (p.kind == POST_FREEZE) p_freeze(&t, k, p);
    if (p.kind == POST_HARDENED) p_told_hardened(&t, k, p);
    step(x, &t, p.kind == POST_DELTA ? P_DELTA : p.kind == POST_FREEZE ? P_FREEZE : P_TOLD_HARDENED, k);
}

static void p_refuse(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    if (!t.refusals_left || !m->outs || m->out[0].kind != POST_DELTA || m->open.there || m->refused) return;
    t.refusals_left--;
    m->refused = take_post(m, 0).delta;
    explore_step(x, &t, P_REFUSE, k, true);
}

// ---- P: versions ----------------------------------------------------------------------------------------------------

static void p_form(const struct state *s, struct explorer *x) {
    struct state t = *s;
    bool any = false;
    for (unsigned k = 0; k < bounds.members; k++) any = any || t.m[k].frozen_acc.there;
    if (t.p_state != P_IDLE || !any) return;
    struct p_head *h = p_batch(&t);
    h->update = 1;
    h->next_block = BLOCK_WRITTEN;
    if (!holds(RULE_I2)) h->block = BLOCK_BAD;
    for (unsigned k = 0; k < bounds.members; k++) {
        struct acc *a = &t.m[k].frozen_acc;
        struct p_image *p = p_of(&t, k);
        p->part = a->there;
        p->part_version = a->version;
        p->next = p->content ^ a->delta;
        a->taken = a->there;
        if (holds(RULE_ONE_EACH)) continue;
        p->next ^= t.m[k].open.delta;
        t.m[k].open.delta = 0;
    }
    t.p_state = P_FORMING;
    step(x, &t, P_FORM, 0);
}

static void p_hardened(const struct state *s, struct explorer *x) {
    struct state t = *s;
    if (t.p_state != P_FORMING) return;
    if (holds(RULE_P_FLUSH)) p_flush(&t);
    t.p_state = P_HARDENED_;
    for (unsigned k = 0; k < bounds.members && !holds(RULE_I3); k++)
        if (t.m[k].frozen_acc.taken && t.m[k].life == SERVES) t.m[k].firm |= t.m[k].frozen;
    step(x, &t, P_HARDENED, 0);
}

static void p_settle_member(struct state *t, unsigned k) {
    struct member *m = &t->m[k];
    struct p_image *p = p_of(t, k);
    p->content = p->next;
    if (m->frozen_acc.taken) {
        p->version = m->frozen_acc.version;
        if (m->life == SERVES) m->told = p->version;
        m->frozen_acc = (struct acc){0};
    }
    p->part = p->part_version = p->next = 0;
}

static bool p_may_settle(const struct state *s) {
    for (unsigned k = 0; k < bounds.members; k++)
        if (s->m[k].frozen_acc.taken && !s->m[k].frozen_acc.hardened && holds(RULE_I4)) return false;
    return s->p_state == P_HARDENED_;
}

static void p_settle(const struct state *s, struct explorer *x) {
    struct state t = *s;
    if (!p_may_settle(s)) return;
    struct p_head *h = p_batch(&t);
    h->block = h->next_block;
    h->update = h->next_block = 0;
    for (unsigned k = 0; k < bounds.members; k++) p_settle_member(&t, k);
    p_release(&t, false);
    t.p_state = P_IDLE;
    step(x, &t, P_SETTLE, 0);
}

// ---- broken connections ---------------------------------------------------------------------------------------------

// All that D does not know to be taken is sent again. P knows by the numbers what it has.
static void break_connection(const struct state *s, unsigned k, struct explorer *x) {
    struct state t = *s;
    struct member *m = &t.m[k];
    if (!t.breaks_left || t.p_life != SERVES || m->life != SERVES || (!m->outs && !m->last.kind)) return;
    t.breaks_left--;
    if (!holds(RULE_RESEND)) {
        memset(m->out, 0, sizeof m->out);
        m->outs = 0;
    }
    if (!holds(RULE_NUMBERS) && m->last.kind && m->outs < POSTS_MAX) {
        memmove(&m->out[1], &m->out[0], m->outs * sizeof m->out[0]);
        m->out[0] = m->last;
        m->outs++;
    }
    m->last = (struct post){0};
    if (!t.breaks_left)
        for (unsigned i = 0; i < bounds.members; i++) t.m[i].last = (struct post){0};
    explore_step(x, &t, BREAK, k, true);
}

static void d_steps(const struct state *s, unsigned k, struct explorer *x) {
    d_write(s, k, x);
    d_answered(s, k, x);
    d_take_back(s, k, x);
    d_freeze(s, k, x);
    d_hardened(s, k, x);
    d_told_settled(s, k, x);
    d_settle(s, k, x);
}

void service_steps(const struct state *s, struct explorer *x) {
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct member *m = &s->m[k];
        if (m->life == SERVES) d_steps(s, k, x);
        if (s->p_life != SERVES) continue;
        unsigned reach = holds(RULE_ORDER) ? 1 : m->outs;
        for (unsigned i = 0; i < reach && i < m->outs; i++) p_receive(s, k, i, x);
        p_refuse(s, k, x);
        break_connection(s, k, x);
    }
    if (s->p_life != SERVES) return;
    p_form(s, x);
    p_hardened(s, x);
    p_settle(s, x);
}
