// The model's recovery: the phases of src/iom/resolve.c, one step after the other, all of it from what is on disk.
// Steps of different members within a phase are taken together: a crash finds any part of them done, for each disk
// keeps what it likes of the batches that are not flushed.
#include "row.h"

static void step(struct explorer *x, struct state *t, enum step next, enum what what, unsigned k) {
    t->step = (uint8_t)next;
    explore_step(x, t, what, k, false);
}

// A sync flushes only if there is something of this incarnation to be flushed.
static void sync_d(struct member *m) {
    if (holds(RULE_FLUSHED) && m->lost != LOST_UNFLUSHED) d_flush(m);
}
static void sync_p(struct state *s) {
    if (holds(RULE_FLUSHED) && s->p_lost != LOST_UNFLUSHED) p_flush(s);
}
static bool readable(struct state *t, uint8_t block) {
    if (block == BLOCK_BAD) t->fault = FAULT_UNREADABLE;
    return block != BLOCK_BAD;
}
static bool good(uint8_t block) {
    return block == BLOCK_GOOD || block == BLOCK_WRITTEN;
}

// ---- (a) ------------------------------------------------------------------------------------------------------------

static bool included(struct state *s, unsigned k) {
    const struct record *u = &d_now(&s->m[k])->update;
    return u->there && u->version == p_of(s, k)->version && holds(RULE_A_NEVER);
}

static void complete(struct member *m) {
    struct d_image *d = d_batch(m);
    d->version = d->update.version;
    d->content = d->update.content;
    d->block = d->update.block;
    d->update = (struct record){0};
    d_release(m);
}

static void complete_included(struct state *t) {
    for (unsigned k = 0; k < bounds.members; k++)
        if (included(t, k)) complete(&t->m[k]);
}

static void settled(const struct state *s, struct explorer *x) {
    struct state t = *s;
    if (holds(RULE_A)) complete_included(&t);
    step(x, &t, STEP_PHASE_0, R_SETTLED, 0);
}

static void phase(const struct state *s, struct explorer *x) {
    struct state t = *s;
    for (unsigned k = 0; k < bounds.members; k++) sync_d(&t.m[k]);
    sync_p(&t);
    step(x, &t, t.step + 1, R_PHASE, 0);
}

// ---- (b) ------------------------------------------------------------------------------------------------------------

static bool has_block(struct state *s, unsigned k) {
    const struct p_image *p = p_of(s, k);
    const struct d_image *d = d_now(&s->m[k]);
    if (d->version == p->part_version && holds(RULE_VERSIONS)) return true;
    return d->update.there && d->update.version == p->part_version && good(d->update.block);
}

static unsigned lacking(struct state *s, unsigned *who) {
    unsigned n = 0;
    for (unsigned k = 0; k < bounds.members; k++) {
        if (!p_of(s, k)->part || has_block(s, k)) continue;
        n++;
        *who = k;
    }
    return n;
}

static void decide(const struct state *s, struct explorer *x) {
    struct state t = *s;
    unsigned who;
    if (!p_now(&t)->update) return step(x, &t, STEP_COMPLETE, R_DECIDE, 0);
    bool durable = good(p_now(&t)->next_block) || !holds(RULE_B_BLIND);
    bool forward = durable && holds(RULE_B) && (lacking(&t, &who) <= 1 || !holds(RULE_B_TWO));
    t.forward = forward ? FORWARD : BACK;
    if (!holds(RULE_C_FIRST)) return step(x, &t, STEP_COMPLETE, R_DECIDE, 0);
    step(x, &t, STEP_CONCLUDE, R_DECIDE, 0);
}

// xor of two parities, and of what the others changed: what is left must be `who`'s alone. A participant gives its
// change from UPDATE and CHUNK.
static set reconstruct(struct state *t, unsigned who) {
    set own = 0, others = 0;
    if (!readable(t, p_now(t)->block) || !readable(t, p_now(t)->next_block)) return 0;
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct p_image *p = p_of(t, k);
        const struct d_image *d = d_now(&t->m[k]);
        set delta = p->next ^ p->content;
        if (k == who) {
            own = delta;
            continue;
        }
        if (p->part && (!d->update.there || !good(d->update.block))) t->fault = FAULT_ASKED_IN_VAIN;
        if (p->part && readable(t, d->block)) delta ^= d->update.content ^ d->content;
        others |= delta;
    }
    return others ? own | FOREIGN : own;
}

static void take(struct state *t, unsigned who) {
    struct member *m = &t->m[who];
    uint8_t version = p_of(t, who)->part_version;
    set delta = reconstruct(t, who);
    if (t->fault || d_now(m)->version == version || !readable(t, d_now(m)->block)) return;
    struct d_image *d = d_batch(m);
    d->version = version;
    d->content ^= delta;
    d->block = holds(RULE_TAKE) ? BLOCK_GOOD : BLOCK_WRITTEN;
    if (d->update.version == version) d->update = (struct record){0};
    d_release(m);
}

static void conclude_parity(struct state *t, bool forward) {
    struct p_head *h = p_batch(t);
    p_release(t, !forward);
    if (forward) h->block = h->next_block;
    h->update = h->next_block = 0;
    for (unsigned k = 0; k < bounds.members; k++) {
        struct p_image *p = p_of(t, k);
        if (forward) p->content = p->next;
        if (forward && p->part) p->version = p->part_version;
        p->part = p->part_version = p->next = 0;
    }
}

static void conclude(const struct state *s, struct explorer *x) {
    struct state t = *s;
    unsigned who = 0;
    if (t.forward == FORWARD && lacking(&t, &who) && holds(RULE_B_GIVE)) {
        take(&t, who);
        t.forward = GIVEN;
        if (holds(RULE_TAKE_FIRST)) return step(x, &t, STEP_CONCLUDE, R_TAKE, who);
    } else {
        for (unsigned k = 0; k < bounds.members; k++)
            sync_d(&t.m[k]); // who took its block has answered when it was durable
    }
    conclude_parity(&t, t.forward != BACK);
    t.forward = BACK;
    step(x, &t, STEP_COMPLETE, R_CONCLUDE, 0);
}

static void complete_own(const struct state *s, struct explorer *x) {
    struct state t = *s;
    sync_p(&t);
    complete_included(&t);
    step(x, &t, STEP_PHASE_1, R_COMPLETE, 0);
}

// ---- what was held --------------------------------------------------------------------------------------------------

static void second_over_first(struct member *m) {
    struct d_image *d = d_batch(m);
    struct record low = d->update, high = d->second;
    bool low_good = low.there && good(low.block), high_good = good(high.block);
    d->second = (struct record){0};
    d->update = (struct record){0};
    if (!low_good && !high_good) return;
    d->update = (struct record){1, high.version, BLOCK_GOOD, high_good ? high.content : low.content};
}

// `late`: the members that lay their layers together only when what P held has come back.
static void layers(const struct state *s, unsigned late, enum step next, struct explorer *x) {
    struct state t = *s;
    for (unsigned k = 0; k < bounds.members && holds(RULE_LAYERS); k++)
        if (d_now(&t.m[k])->second.there && !(late >> k & 1)) second_over_first(&t.m[k]);
    for (unsigned k = 0; k < bounds.members && !holds(RULE_LAYERS); k++)
        if (d_now(&t.m[k])->second.there) d_batch(&t.m[k])->second = (struct record){0};
    step(x, &t, next, R_LAYERS, 0);
}

static void layers_some(const struct state *s, struct explorer *x) {
    unsigned with = 0;
    for (unsigned k = 0; k < bounds.members; k++) with |= (unsigned)(s->m[k].d[s->m[k].images].second.there != 0) << k;
    for (unsigned late = with;; late = (late - 1) & with) {
        layers(s, late, STEP_HELD, x);
        if (!late || holds(RULE_LAYERS_LAST)) return;
    }
}

static bool has_held(const struct d_image *d, const struct record *held) {
    if (!holds(RULE_HELD_KNOWN)) return false;
    return d->version >= held->version ||
           (d->update.there && good(d->update.block) && d->update.version >= held->version);
}

static void take_held(struct state *t, unsigned k, const struct record *held) {
    struct member *m = &t->m[k];
    const struct d_image *now = d_now(m);
    if (has_held(now, held)) return;
    bool over =
        now->update.there && good(now->update.block) && now->update.version > now->version && holds(RULE_HELD_BASE);
    if (!over && !readable(t, now->block)) return;
    struct d_image *d = d_batch(m);
    set base = over ? d->update.content : d->content;
    uint8_t version = d->update.there && d->update.version > held->version ? d->update.version : held->version;
    d->update = (struct record){1, version, BLOCK_GOOD, base ^ held->content};
}

static bool any_held(struct state *t, enum held which) {
    for (unsigned k = 0; k < bounds.members; k++)
        if (p_of(t, k)->held[which].there) return true;
    return false;
}

static void give_held(struct state *t, enum held which) {
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct record *r = &p_of(t, k)->held[which];
        if (r->there && good(r->block)) take_held(t, k, r);
    }
}

static void drop_held(struct state *t) {
    p_batch(t);
    for (unsigned k = 0; k < bounds.members; k++)
        for (unsigned which = 0; which < 2; which++) p_of(t, k)->held[which] = (struct record){0};
}

// With HELD_DROP left out P drops all of it as soon as it has been told, whatever is on disk there.
static void held(const struct state *s, struct explorer *x) {
    struct state t = *s;
    enum held first = holds(RULE_HELD_ORDER) ? HELD_FROZEN : HELD_OPEN, which = t.forward == BACK ? first : 1 - first;
    for (unsigned k = 0; k < bounds.members && t.forward != BACK; k++) sync_d(&t.m[k]); // D answers when it is durable
    if (t.forward == GIVEN) {
        t.forward = BACK;
        return layers(&t, 0, STEP_PHASE_2, x);
    }
    if (any_held(&t, which)) give_held(&t, which);
    t.forward = t.forward == BACK ? FORWARD : GIVEN;
    if (t.forward == GIVEN && !holds(RULE_HELD_DROP)) {
        drop_held(&t);
        p_flush(&t);
    }
    step(x, &t, STEP_HELD, R_HELD, 0);
}

static void drop(const struct state *s, struct explorer *x) {
    struct state t = *s;
    if (any_held(&t, HELD_FROZEN) || any_held(&t, HELD_OPEN)) drop_held(&t);
    sync_p(&t);
    step(x, &t, STEP_SERVE, R_DROP_HELD, 0);
}

// ---- (c) ------------------------------------------------------------------------------------------------------------

static bool enters(struct state *t, unsigned k) {
    const struct record *u = &d_now(&t->m[k])->update;
    if (!u->there || !holds(RULE_C) || (!good(u->block) && holds(RULE_C_BAD))) return false;
    return u->version != p_of(t, k)->version;
}

static void enter_member(struct state *t, unsigned k) {
    const struct d_image *d = d_now(&t->m[k]);
    struct p_image *p = p_of(t, k);
    if (!p->part) p->next = p->content; // else, with C_FIRST left out, it goes into the version in flight
    if (!enters(t, k) || !readable(t, d->block)) return;
    p->part = 1;
    p->part_version = d->update.version;
    p->next = p->content ^ d->update.content ^ d->content;
    if (!good(d->update.block)) p->next |= FOREIGN;
}

static void enter(const struct state *s, struct explorer *x) {
    struct state t = *s;
    bool any = p_now(&t)->update;
    for (unsigned k = 0; k < bounds.members; k++) any = any || enters(&t, k);
    if (!any || !readable(&t, p_now(&t)->block)) return step(x, &t, STEP_FINISH, R_ENTER, 0);
    struct p_head *h = p_batch(&t);
    h->update = holds(RULE_C_BARE);
    h->next_block = BLOCK_WRITTEN;
    for (unsigned k = 0; k < bounds.members; k++) enter_member(&t, k);
    if (holds(RULE_C_BARE)) return step(x, &t, STEP_ENTERED, R_ENTER, 0);
    conclude_parity(&t, true);
    step(x, &t, STEP_FINISH, R_ENTER, 0);
}

static void entered(const struct state *s, struct explorer *x) {
    struct state t = *s;
    sync_p(&t);
    conclude_parity(&t, true);
    step(x, &t, STEP_FINISH, R_CONCLUDE, 0);
}

static void finish(const struct state *s, struct explorer *x) {
    struct state t = *s;
    if (holds(RULE_C_BARE)) sync_p(&t);
    for (unsigned k = 0; k < bounds.members; k++) {
        if (!d_now(&t.m[k])->update.there) continue;
        if (included(&t, k))
            complete(&t.m[k]);
        else if (holds(RULE_C_REST))
            d_batch(&t.m[k])->update = (struct record){0};
    }
    step(x, &t, STEP_PHASE_4, R_FINISH, 0);
}

// ---- the end, and a crash on the way --------------------------------------------------------------------------------

static bool is_left(struct state *t) {
    bool left = p_now(t)->update;
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct d_image *d = d_now(&t->m[k]);
        left = left || d->update.there || d->second.there || p_of(t, k)->held[0].there || p_of(t, k)->held[1].there;
    }
    return left;
}

static void serve_member(struct member *m) {
    const struct d_image *d = d_now(m);
    m->life = SERVES;
    m->lost = 0;
    m->version = (uint8_t)((d->version + 1) & ~1);
    m->newest = m->frozen = d->content;
    m->written = m->answered = m->firm = d->content; // what is seen now stays
}

static void serve(const struct state *s, struct explorer *x) {
    struct state t = *s;
    t.fault = is_left(&t) ? FAULT_LEFT : (uint8_t)check_serving(&t);
    for (unsigned k = 0; k < bounds.members; k++) serve_member(&t.m[k]);
    t.p_life = SERVES;
    t.p_lost = t.failing = 0;
    step(x, &t, SERVICE, R_SERVE, 0);
}

static void crash_from(struct state *s, void *arg);
struct crashing {
    struct explorer *x;
    unsigned k;
};

static void crash_next(struct state *s, struct explorer *x, unsigned k) {
    struct crashing c = {x, k};
    if (k < bounds.members)
        d_outcomes(s, k, crash_from, &c);
    else
        p_outcomes(s, crash_from, &c);
}

static void crash_from(struct state *s, void *arg) {
    const struct crashing *c = arg;
    if (c->k < bounds.members) {
        crash_next(s, c->x, c->k + 1);
        return;
    }
    struct state t = *s;
    t.failures_left--;
    t.forward = BACK;
    t.step = STEP_SETTLED;
    explore_step(c->x, &t, CRASH_ALL, 0, true);
}

static void (*const do_step[])(const struct state *s, struct explorer *x) = {
    [STEP_SETTLED] = settled,       [STEP_PHASE_0] = phase, [STEP_DECIDE] = decide,      [STEP_CONCLUDE] = conclude,
    [STEP_COMPLETE] = complete_own, [STEP_PHASE_1] = phase, [STEP_LAYERS] = layers_some, [STEP_HELD] = held,
    [STEP_PHASE_2] = phase,         [STEP_ENTER] = enter,   [STEP_ENTERED] = entered,    [STEP_FINISH] = finish,
    [STEP_PHASE_4] = phase,         [STEP_DROP] = drop,     [STEP_SERVE] = serve,
};

void recovery_steps(const struct state *s, struct explorer *x) {
    do_step[s->step](s, x);
    struct state t = *s;
    if (t.failures_left && t.step != STEP_SETTLED) crash_next(&t, x, 0);
}
