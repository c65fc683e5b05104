// What must be true of every state of the model, and how a state is told.
#include "row.h"

static const char *const fault_text[FAULT_COUNT] = {
    [FAULT_OTHER_VERSION] = "P gets a delta of another version than the one it is adding up",
    [FAULT_UNREADABLE] = "recovery needs a block that is not there any more",
    [FAULT_ASKED_IN_VAIN] = "recovery asks a participant for a change that it cannot give",
    [FAULT_LEFT] = "recovery ends, and an UPDATE is left",
    [FAULT_TORN] = "after recovery a block is none of those that it ever was",
    [FAULT_FIRM] = "after recovery a write is lost for which fsync was answered, or that had been seen (I3)",
    [FAULT_ANSWERED] = "a write is lost that was answered, though its D or its P kept its memory",
    [FAULT_PARITY] = "after recovery the parity is not that of its row",
    [FAULT_I2] = "no settled version is whole on disk (I2)",
    [FAULT_I6] = "with one member lost the others' disks do not give back what was fsynced (I6)",
    [FAULT_I6_ANSWERED] =
        "with one member lost, and the others stopped in order, a write is lost that was answered (I6, I7)",
};

static bool is_state_of(const struct member *m, set content) { // it was that once: so many of the first writes
    return !(content & (content + 1)) && !(content & (set)~m->written);
}

// ---- I2 -------------------------------------------------------------------------------------------------------------

static bool d_has(const struct d_image *d, uint8_t version, set content) {
    bool settled = d->version == version && d->content == content && d->block == BLOCK_GOOD;
    const struct record *u = &d->update;
    return settled || (u->there && u->version == version && u->content == content && u->block == BLOCK_GOOD);
}

// The row as P's durable CHUNK or UPDATE tells it: each member has the very block that this parity includes.
static bool whole(const struct state *s, bool next) {
    if ((next ? s->head[0].next_block : s->head[0].block) != BLOCK_GOOD) return false;
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct p_image *p = &s->m[k].p[0];
        if (!d_has(&s->m[k].d[0], next && p->part ? p->part_version : p->version, next ? p->next : p->content))
            return false;
    }
    return true;
}

// ---- I6: one member lost, the power of all others cut ---------------------------------------------------------------

static const struct record *good_update(const struct d_image *d) {
    return d->update.there && d->update.block == BLOCK_GOOD ? &d->update : NULL;
}

static bool keeps(const struct member *m, set content) {
    return is_state_of(m, content) && !(m->firm & (set)~content);
}

static bool row_without_p(const struct state *s, set out[]) {
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct d_image *d = &s->m[k].d[0];
        const struct record *u = good_update(d);
        if (!u && d->block != BLOCK_GOOD) return false;
        out[k] = u ? u->content : d->content;
    }
    return true;
}

static bool others_have(const struct state *s, unsigned lost) {
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct p_image *p = &s->m[k].p[0];
        const struct d_image *d = &s->m[k].d[0];
        const struct record *u = good_update(d);
        if (k == lost || !p->part) continue;
        if (d->version != p->part_version && !(u && u->version == p->part_version)) return false;
    }
    return true;
}

// (b) with one without for good: the parity stands for it. The others enter what the parity does not include.
static bool row_without_d(const struct state *s, unsigned lost, set out[]) {
    bool next = s->head[0].update && s->head[0].next_block == BLOCK_GOOD && others_have(s, lost);
    if (!next && s->head[0].block != BLOCK_GOOD) return false;
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct p_image *p = &s->m[k].p[0];
        uint8_t version = next && p->part ? p->part_version : p->version;
        out[k] = next ? p->next : p->content;
        if (k == lost) continue;
        const struct record *u = good_update(&s->m[k].d[0]);
        if (!d_has(&s->m[k].d[0], version, out[k])) return false;
        if (u && u->version != version) out[k] = u->content;
    }
    return true;
}

static bool survives_loss(const struct state *s) {
    set out[MEMBERS_MAX];
    for (unsigned lost = 0; lost <= bounds.members; lost++) {
        bool found = lost == bounds.members ? row_without_p(s, out) : row_without_d(s, lost, out);
        for (unsigned k = 0; k < bounds.members && found; k++) found = keeps(&s->m[k], out[k]);
        if (!found) return false;
    }
    return true;
}

// ---- the same when only the lost one lost its memory: all that was answered is there
// -----------------------------------

static bool only_loss(const struct state *s, unsigned lost) {
    for (unsigned k = 0; k < bounds.members; k++)
        if (k != lost && s->m[k].lost) return false;
    return lost == bounds.members || !s->p_lost;
}

static set with_held(const struct state *s, unsigned k, set content, uint8_t version) {
    for (unsigned h = 0; h < 2; h++) {
        const struct record *r = &s->m[k].p[0].held[h];
        if (r->there && r->block == BLOCK_GOOD && r->version > version) content ^= r->content;
    }
    return content;
}

static bool answered_survive(const struct state *s, unsigned lost) {
    set out[MEMBERS_MAX];
    bool found = lost == bounds.members ? row_without_p(s, out) : row_without_d(s, lost, out);
    for (unsigned k = 0; k < bounds.members && found; k++) {
        const struct member *m = &s->m[k];
        const struct p_image *p = &m->p[0];
        if (k != lost && m->d[0].second.there) out[k] = m->d[0].second.content;
        bool forward = p->part && out[k] == p->next;
        if (k == lost) out[k] = with_held(s, k, out[k], forward ? p->part_version : p->version);
        found = is_state_of(m, out[k]) && !(m->answered & (set)~out[k]);
    }
    return found;
}

enum fault check_all_down(const struct state *s) {
    for (unsigned lost = 0; lost <= bounds.members; lost++)
        if (only_loss(s, lost) && !answered_survive(s, lost)) return FAULT_I6_ANSWERED;
    return FAULT_NONE;
}

// ---- after recovery -------------------------------------------------------------------------------------------------

enum fault check_serving(const struct state *s) {
    const struct p_head *h = &s->head[s->p_images];
    if (!(h->block == BLOCK_GOOD || h->block == BLOCK_WRITTEN)) return FAULT_PARITY;
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct member *m = &s->m[k];
        const struct d_image *d = &m->d[m->images];
        const struct p_image *p = &m->p[s->p_images];
        if (d->block == BLOCK_BAD) return FAULT_UNREADABLE;
        if (!is_state_of(m, d->content)) return FAULT_TORN;
        if (m->firm & (set)~d->content) return FAULT_FIRM;
        if ((m->answered & (set)~d->content) && !(m->lost && s->p_lost)) return FAULT_ANSWERED;
        if (p->content != d->content || p->version != d->version) return FAULT_PARITY;
    }
    return FAULT_NONE;
}

const char *row_fault(const void *state) {
    const struct state *s = state;
    if (s->fault) return fault_text[s->fault];
    if (!whole(s, false) && !whole(s, true)) return fault_text[FAULT_I2];
    return survives_loss(s) ? NULL : fault_text[FAULT_I6];
}

bool row_may_end(const void *state) {
    const struct state *s = state;
    if (s->step != SERVICE || s->failing || s->p_state != P_IDLE) return false;
    for (unsigned k = 0; k < bounds.members; k++) {
        const struct member *m = &s->m[k];
        if (m->state != D_IDLE || m->newest != m->frozen || m->unanswered || m->outs) return false;
    }
    return true;
}

// ---- telling --------------------------------------------------------------------------------------------------------

static const char *block_name(uint8_t b) {
    return b == BLOCK_WRITTEN ? "?" : b == BLOCK_BAD ? "!" : "";
}

static void print_record(FILE *to, const char *name, const struct record *r) {
    if (r->there) fprintf(to, " %s v%u:%x%s", name, r->version, r->content, block_name(r->block));
}

static void print_member(FILE *to, const struct state *s, unsigned k) {
    static const char *const states[] = {"", " hardening", " hardened", " settling"};
    const struct member *m = &s->m[k];
    fprintf(to, "D%u", k);
    if (m->life == SERVES)
        fprintf(to, "(%x%s%s)", m->newest, states[m->state], m->pending ? " pending" : "");
    else
        fprintf(to, m->life == HOLDS ? "(stopping)" : "(down)");
    for (unsigned i = 0; i <= m->images; i++) {
        const struct d_image *d = &m->d[i];
        fprintf(to, "%s v%u:%x%s", i ? " |" : "", d->version, d->content, block_name(d->block));
        print_record(to, "UPDATE", &d->update);
        print_record(to, "SECOND", &d->second);
    }
    for (unsigned i = 0; i < m->outs; i++)
        fprintf(to, "%s%s", i ? "," : " -> ",
                m->out[i].kind == POST_DELTA    ? "delta"
                : m->out[i].kind == POST_FREEZE ? "FREEZE"
                                                : "HARDENED");
    if (m->told) fprintf(to, " <- SETTLED");
    fprintf(to, "; ");
}

static void print_acc(FILE *to, const char *name, unsigned k, const struct acc *a) {
    if (a->there)
        fprintf(to, " %s%u:%x%s%s", name, k, a->delta, a->taken ? " taken" : "", a->hardened ? " hardened" : "");
}

static void print_p_image(FILE *to, const struct state *s, unsigned i) {
    fprintf(to, i ? " |" : "");
    for (unsigned k = 0; k < bounds.members; k++) fprintf(to, " v%u:%x", s->m[k].p[i].version, s->m[k].p[i].content);
    fprintf(to, "%s", block_name(s->head[i].block));
    if (s->head[i].update) fprintf(to, " UPDATE");
    for (unsigned k = 0; k < bounds.members && s->head[i].update; k++)
        if (s->m[k].p[i].part)
            fprintf(to, " D%u v%u:%x%s", k, s->m[k].p[i].part_version, s->m[k].p[i].next,
                    block_name(s->head[i].next_block));
    for (unsigned k = 0; k < bounds.members; k++)
        for (unsigned h = 0; h < 2; h++) {
            char name[32];
            snprintf(name, sizeof name, "HELD%u%s", k, h == HELD_OPEN ? "open" : "frozen");
            print_record(to, name, &s->m[k].p[i].held[h]);
        }
}

void row_print(const void *state, FILE *to) {
    static const char *const states[] = {"", " forming", " hardened"};
    const struct state *s = state;
    for (unsigned k = 0; k < bounds.members; k++) print_member(to, s, k);
    fprintf(to, "P%s%s", s->p_life == SERVES ? "" : s->p_life == HOLDS ? "(stopping)" : "(down)", states[s->p_state]);
    for (unsigned k = 0; k < bounds.members; k++) {
        print_acc(to, "open", k, &s->m[k].open);
        print_acc(to, "frozen", k, &s->m[k].frozen_acc);
    }
    for (unsigned i = 0; i <= s->p_images; i++) print_p_image(to, s, i);
    fprintf(to, "\n");
}
