// The disks of the model: images, flushes, and what a crash leaves.
#include "row.h"

struct d_image *d_now(struct member *m) {
    return &m->d[m->images];
}

static void flush_block(uint8_t *block) {
    if (*block == BLOCK_WRITTEN) *block = BLOCK_GOOD;
}

void d_flush(struct member *m) {
    struct d_image *now = d_now(m);
    flush_block(&now->block);
    flush_block(&now->update.block);
    flush_block(&now->second.block);
    m->d[0] = *now;
    memset(&m->d[1], 0, sizeof m->d - sizeof m->d[0]);
    m->images = 0;
}

struct d_image *d_batch(struct member *m) {
    if (m->images == IMAGES_MAX - 1) d_flush(m); // others of this store may flush at any time
    m->d[m->images + 1] = m->d[m->images];
    m->images++;
    if (m->lost) m->lost = LOST; // the next flush covers all
    return d_now(m);
}

struct p_head *p_now(struct state *s) {
    return &s->head[s->p_images];
}
struct p_image *p_of(struct state *s, unsigned k) {
    return &s->m[k].p[s->p_images];
}

static void keep_p(struct state *s, unsigned image) {
    s->head[0] = s->head[image];
    memset(&s->head[1], 0, sizeof s->head - sizeof s->head[0]);
    for (unsigned k = 0; k < bounds.members; k++) {
        struct member *m = &s->m[k];
        m->p[0] = m->p[image];
        memset(&m->p[1], 0, sizeof m->p - sizeof m->p[0]);
    }
    s->p_images = 0;
}

void p_flush(struct state *s) {
    flush_block(&p_now(s)->block);
    flush_block(&p_now(s)->next_block);
    for (unsigned k = 0; k < bounds.members; k++)
        for (unsigned h = 0; h < 2; h++) flush_block(&p_of(s, k)->held[h].block);
    keep_p(s, s->p_images);
}

struct p_head *p_batch(struct state *s) {
    if (s->p_images == IMAGES_MAX - 1) p_flush(s);
    s->head[s->p_images + 1] = s->head[s->p_images];
    for (unsigned k = 0; k < bounds.members; k++) s->m[k].p[s->p_images + 1] = s->m[k].p[s->p_images];
    s->p_images++;
    if (s->p_lost) s->p_lost = LOST;
    return p_now(s);
}

void d_release(struct member *m) {
    for (unsigned i = 0; i < m->images && !holds(RULE_I1); i++) m->d[i].block = BLOCK_BAD;
}

void p_release(struct state *s, bool next) {
    for (unsigned i = 0; i < s->p_images && !holds(RULE_I1); i++)
        if (!next)
            s->head[i].block = BLOCK_BAD;
        else if (s->head[i].update)
            s->head[i].next_block = BLOCK_BAD;
}

// ---- crashes --------------------------------------------------------------------------------------------------------

// Each of the blocks that were written is there or not.
static void each_block(struct state *s, uint8_t **block, unsigned n, void (*fn)(struct state *s, void *arg),
                       void *arg) {
    uint8_t *written[3 + 2 * MEMBERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++)
        if (*block[i] == BLOCK_WRITTEN) written[count++] = block[i];
    for (unsigned kept = 0; kept < 1u << count; kept++) {
        for (unsigned i = 0; i < count; i++) *written[i] = kept >> i & 1 ? BLOCK_GOOD : BLOCK_BAD;
        fn(s, arg);
    }
}

void d_outcomes(const struct state *s, unsigned k, void (*fn)(struct state *s, void *arg), void *arg) {
    for (unsigned i = 0; i <= s->m[k].images; i++) {
        struct state t = *s;
        struct member *m = &t.m[k];
        m->d[0] = m->d[i];
        memset(&m->d[1], 0, sizeof m->d - sizeof m->d[0]);
        m->images = 0;
        uint8_t *block[] = {&m->d[0].block, &m->d[0].update.block, &m->d[0].second.block};
        each_block(&t, block, 3, fn, arg);
    }
}

void p_outcomes(const struct state *s, void (*fn)(struct state *s, void *arg), void *arg) {
    for (unsigned i = 0; i <= s->p_images; i++) {
        struct state t = *s;
        keep_p(&t, i);
        uint8_t *block[2 + 2 * MEMBERS_MAX] = {&t.head[0].block, &t.head[0].next_block};
        unsigned n = 2;
        for (unsigned k = 0; k < bounds.members; k++)
            for (unsigned h = 0; h < 2; h++) block[n++] = &t.m[k].p[0].held[h].block;
        each_block(&t, block, n, fn, arg);
    }
}
