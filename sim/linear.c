// The search for an order; see linear.h.
//
// A *point* of the search is what has had its turn and the state that it left. From a point every operation may go next that began before the first
// end of one that has not had its turn. One that only looks, and sees what is, goes next whatever else may (its turn now hinders nobody's, and nobody's
// changes it), unless something lost had to come before it. Points that were seen before are left alone: they are known by a hash of 64 bits.
#include "sim/linear.h"

#include "base/sum.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 256u // operations between two quiet instants
#define WORDS (WINDOW / 64)
#define POINTS_MAX 400000u // of one search: more and the check says that it could not tell, which is a fault of the workload's
#define OBJECTS LINEAR_NOBODYS
#define STILL UINT64_MAX // has not ended
#define ANYTHING 0xffffu // in what a name may lead to after a crash

struct point {
    uint64_t turn[WORDS]; // bit n: that operation has had its turn
    struct linear_state s;
};
static_assert(sizeof(struct point) == WORDS * 8 + sizeof(struct linear_state), "no padding: points are compared by bytes");
struct points {
    struct point *v;
    uint32_t n, room;
};
struct set { // of hashes, none of them 0
    uint64_t *v;
    uint32_t n, room;
};
struct linear {
    struct linear_op *op[WINDOW];
    uint32_t ops;
    struct points now; // in which it may be since the last quiet instant; the turns are of what is lost
    struct points work, found;
    struct set seen;
    struct set could; // what each name led to since what is durable
    uint64_t clock;
    uint16_t nobodys;
    bool made[OBJECTS]; // it is known by whom, or what is known of it came from him
    bool is_cut;        // what is now is not known
    struct linear_counts counts;
    uint32_t searched; // points of this search
    uint32_t furthest; // turns at the point with the most of them, and who stood against going on
    const struct linear_op *against;
    char why[256];
};

static void *get(size_t n) {
    void *p = calloc(1, n);
    ASSERT(p);
    return p;
}

struct linear *linear_create(void) { return get(sizeof(struct linear)); }

void linear_destroy(struct linear *l) {
    for (uint32_t i = 0; i < l->ops; i++) free(l->op[i]);
    free(l->now.v);
    free(l->work.v);
    free(l->found.v);
    free(l->seen.v);
    free(l->could.v);
    free(l);
}

const char *linear_why(const struct linear *l) { return l->why; }
struct linear_counts linear_counts(const struct linear *l) { return l->counts; }

PRINTF_LIKE(2, 3) static bool stands_against(struct linear *l, const char *fmt, ...) { // the first is told; always false
    va_list ap;
    va_start(ap, fmt);
    if (!l->why[0]) vsnprintf(l->why, sizeof l->why, fmt, ap);
    va_end(ap);
    return false;
}

// ---- sets and lists
static bool set_has(const struct set *s, uint64_t key) {
    if (!s->room) return false;
    for (uint32_t i = (uint32_t)key & (s->room - 1); s->v[i]; i = (i + 1) & (s->room - 1))
        if (s->v[i] == key) return true;
    return false;
}

static void set_put(struct set *s, uint64_t key) {
    uint32_t i = (uint32_t)key & (s->room - 1);
    while (s->v[i]) i = (i + 1) & (s->room - 1);
    s->v[i] = key;
    s->n++;
}

static bool set_add(struct set *s, uint64_t key) { // false: it was there
    if (set_has(s, key)) return false;
    if (2 * (s->n + 1) > s->room) {
        struct set was = *s;
        *s = (struct set){.room = was.room ? 2 * was.room : 1024};
        s->v = get(s->room * sizeof *s->v);
        for (uint32_t i = 0; i < was.room; i++)
            if (was.v[i]) set_put(s, was.v[i]);
        free(was.v);
    }
    set_put(s, key);
    return true;
}

static void set_clear(struct set *s) {
    if (s->n) memset(s->v, 0, s->room * sizeof *s->v);
    s->n = 0;
}

static void points_add(struct points *p, const struct point *x) {
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 64;
        p->v = realloc(p->v, p->room * sizeof *p->v);
        ASSERT(p->v);
    }
    p->v[p->n++] = *x;
}

static void points_add_new(struct points *p, const struct point *x) {
    for (uint32_t i = 0; i < p->n; i++)
        if (!memcmp(&p->v[i], x, sizeof *x)) return;
    points_add(p, x);
}

// ---- operations
struct linear_op *linear_invoke(struct linear *l, const struct linear_op *what) {
    ASSERT(l->ops < WINDOW && what->name < LINEAR_NAMES && what->to_name < LINEAR_NAMES);
    struct linear_op *o = l->op[l->ops++] = get(sizeof *o);
    *o = *what;
    o->began = ++l->clock;
    o->ended = STILL;
    l->counts.ops++;
    return o;
}

static void made(struct linear *l, uint16_t object) {
    ASSERT(object > 0 && object < OBJECTS);
    l->made[object] = true;
}

static void listed(struct linear *l, const struct linear_op *o, const struct linear_answer *a) { // a look at each name
    for (uint16_t n = 0; n < LINEAR_NAMES; n++) {
        if (a->seen[n] > 1) stands_against(l, "a readdir of %u shows %c %u times", o->dir, 'a' + n, a->seen[n]);
        struct linear_op look = {.kind = LINEAR_LOOKUP, .client = o->client, .dir = o->dir, .name = n};
        struct linear_op *x = linear_invoke(l, &look);
        x->began = o->began;
        x->ended = o->ended;
        x->e = a->seen[n] ? OK : ERR_NOENT;
        x->found = a->listed[n];
        x->found_dir = a->listed_dirs >> n & 1;
    }
}

void linear_return(struct linear *l, struct linear_op *o, const struct linear_answer *a) {
    ASSERT(o->ended == STILL && !o->lost);
    o->ended = ++l->clock;
    o->e = a->e;
    o->links = a->links;
    if (a->e) return;
    o->found = a->object;
    o->found_dir = a->is_dir;
    if (o->kind == LINEAR_MAKE) made(l, a->object);
    if (o->kind != LINEAR_LIST) return;
    listed(l, o, a);
    linear_drop(l, o);
}

void linear_drop(struct linear *l, struct linear_op *o) {
    uint32_t i = 0;
    while (l->op[i] != o) i++;
    memmove(&l->op[i], &l->op[i + 1], (--l->ops - i) * sizeof o);
    free(o);
}

struct linear_op *linear_lost(struct linear *l, struct linear_op *o) {
    if (o->kind >= LINEAR_LOOKUP) {
        linear_drop(l, o);
        return NULL;
    }
    o->lost = true;
    o->e = OK;
    if (o->kind == LINEAR_MAKE) o->found = LINEAR_NOBODYS + l->nobodys++ % (ANYTHING - LINEAR_NOBODYS);
    return o;
}

void linear_straddles(struct linear *l, struct linear_op *o) {
    o = linear_lost(l, o);
    if (o) o->straddles = true;
}

void linear_over(struct linear *l, struct linear_op *o) {
    o->ended = ++l->clock;
    if (l->is_cut) linear_drop(l, o);
}

// ---- what names led to
static uint64_t lead_key(uint16_t dir, uint32_t name, uint16_t object) {
    uint64_t key[3] = {dir, name, object >= LINEAR_NOBODYS ? ANYTHING : object};
    return hash64(key, sizeof key, 0) | 1;
}

static uint64_t known_key(uint16_t dir) { return lead_key(dir, LINEAR_NAMES, 0); }

static void leads(struct linear *l, const struct linear_state *s) {
    for (uint32_t i = 0; i < s->dirs; i++) set_add(&l->could, known_key(s->dir[i].id));
    for (uint32_t i = 0; i < s->dirs; i++)
        for (uint32_t n = 0; n < LINEAR_NAMES; n++) set_add(&l->could, lead_key(s->dir[i].id, n, s->dir[i].at[n]));
}

static void all_leads(struct linear *l) {
    set_clear(&l->could);
    for (uint32_t i = 0; i < l->now.n; i++) leads(l, &l->now.v[i].s);
}

// ---- the search
static bool has_turned(const struct point *p, uint32_t i) { return p->turn[i / 64] >> i % 64 & 1; }
static void turns(struct point *p, uint32_t i) { p->turn[i / 64] |= 1ull << i % 64; }

struct limits { // of who may go next
    uint64_t first_end;  // of those that must have their turn and have not
    uint64_t last_begin; // of those that have had it: what was over by then is too late
    uint64_t lost_end;   // of lost ones that are not too late
    const struct linear_op *first;
};

static struct limits limits_of(const struct linear *l, const struct point *p) {
    struct limits m = {.first_end = STILL, .lost_end = STILL};
    for (uint32_t i = 0; i < l->ops; i++) {
        const struct linear_op *o = l->op[i];
        if (has_turned(p, i)) m.last_begin = MAX(m.last_begin, o->began);
        else if (!o->lost && o->ended < m.first_end) {
            m.first_end = o->ended;
            m.first = o;
        }
    }
    for (uint32_t i = 0; i < l->ops; i++)
        if (l->op[i]->lost && !has_turned(p, i) && l->op[i]->ended > m.last_begin) m.lost_end = MIN(m.lost_end, l->op[i]->ended);
    return m;
}

static bool may_go(const struct linear_op *o, const struct limits *m) {
    return o->began < m->first_end && (!o->lost || o->ended > m->last_begin);
}

// All that looks and sees what is.
static void look_around(const struct linear *l, struct point *p) {
    for (bool some = true; some;) {
        struct limits m = limits_of(l, p);
        some = false;
        for (uint32_t i = 0; i < l->ops; i++) {
            struct linear_op *o = l->op[i];
            if (has_turned(p, i) || !linear_looks(o) || o->lost || !may_go(o, &m) || o->began > m.lost_end) continue;
            if (!linear_step(&p->s, o)) continue;
            turns(p, i);
            some = true;
        }
    }
}

static void how_far(struct linear *l, const struct point *p, const struct linear_op *next) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < WORDS; i++) n += (uint32_t)__builtin_popcountll(p->turn[i]);
    if (n < l->furthest || (n == l->furthest && l->against)) return;
    l->furthest = n;
    l->against = next;
}

static void go_on(struct linear *l, struct point *p) {
    look_around(l, p);
    if (!set_add(&l->seen, hash64(p, sizeof *p, 0) | 1)) return;
    l->searched++;
    struct limits m = limits_of(l, p);
    how_far(l, p, m.first);
    if (!m.first) points_add(&l->found, p);
    for (uint32_t i = 0; i < l->ops; i++) {
        const struct linear_op *o = l->op[i];
        if (has_turned(p, i) || !may_go(o, &m)) continue;
        if (!m.first && o->ended == STILL) continue; // it may as well go after this quiet instant
        struct point next = *p;
        if (!linear_step(&next.s, o)) continue;
        turns(&next, i);
        leads(l, &next.s);
        points_add(&l->work, &next);
    }
}

static void no_order(struct linear *l) {
    char what[128] = "";
    uint32_t must = 0;
    for (uint32_t i = 0; i < l->ops; i++) must += !l->op[i]->lost;
    if (l->against) linear_tell(l->against, what, sizeof what);
    stands_against(l, "no order of what clients did at once to these names explains it: client %u had %s; %u of %u operations have an order",
                   l->against ? l->against->client : 0, what, l->furthest, must);
}

// What is still lost stands first in the next window, with its turns.
static void next_window(struct linear *l) {
    uint32_t kept = 0, from[WINDOW];
    l->now.n = 0;
    for (uint32_t i = 0; i < l->ops; i++) {
        if (l->op[i]->lost && l->op[i]->ended == STILL) {
            from[kept] = i;
            l->op[kept++] = l->op[i];
        } else free(l->op[i]);
    }
    l->ops = kept;
    for (uint32_t p = 0; p < l->found.n; p++) {
        struct point x = {.s = l->found.v[p].s};
        for (uint32_t i = 0; i < kept; i++)
            if (has_turned(&l->found.v[p], from[i])) turns(&x, i);
        points_add_new(&l->now, &x);
    }
}

static void search_begins(struct linear *l) {
    for (uint32_t i = 0; i < l->ops; i++) {
        struct linear_op *o = l->op[i];
        ASSERT(o->lost || o->ended != STILL);
        o->claims = o->kind == LINEAR_LOOKUP && !o->e && !l->made[o->found];
    }
    set_clear(&l->seen);
    l->work.n = l->found.n = l->searched = l->furthest = 0;
    l->against = NULL;
    for (uint32_t i = 0; i < l->now.n; i++) points_add(&l->work, &l->now.v[i]);
}

static void search(struct linear *l) {
    while (l->work.n && l->searched < POINTS_MAX) {
        struct point p = l->work.v[--l->work.n];
        go_on(l, &p);
    }
    l->counts.settled++;
    l->counts.states += l->searched;
    l->counts.most_states = MAX(l->counts.most_states, l->searched);
}

bool linear_settle(struct linear *l) {
    if (l->why[0]) return false;
    ASSERT(!l->is_cut && l->now.n);
    search_begins(l);
    search(l);
    if (l->work.n) return stands_against(l, "%u operations at once are too many to look for their order", l->ops);
    if (!l->found.n) {
        no_order(l);
        return false;
    }
    for (uint32_t i = 0; i < l->ops; i++)
        if (l->op[i]->claims) made(l, l->op[i]->found); // in each order it is found out from whom
    next_window(l);
    return true;
}

void linear_durable(struct linear *l) { all_leads(l); }

// ---- over a crash
static void leads_anywhere(struct linear *l, const struct linear_op *o) {
    bool two = o->kind == LINEAR_RENAME;
    set_add(&l->could, lead_key(o->dir, o->name, ANYTHING));
    if (two) set_add(&l->could, lead_key(o->to_dir, o->to_name, ANYTHING));
}

bool linear_cut(struct linear *l) {
    if (l->is_cut) return true;
    if (!linear_settle(l)) return false;
    l->is_cut = true;
    for (uint32_t i = l->ops; i-- > 0;) {
        leads_anywhere(l, l->op[i]);
        if (l->op[i]->straddles) linear_drop(l, l->op[i]);
    }
    return true;
}

static bool may_lead(const struct linear *l, uint16_t dir, uint32_t name, uint16_t object) {
    return !set_has(&l->could, known_key(dir)) || set_has(&l->could, lead_key(dir, name, ANYTHING)) || set_has(&l->could, lead_key(dir, name, object));
}

static bool all_may_lead(struct linear *l, const struct linear_state *s) {
    for (uint32_t i = 0; i < s->dirs; i++)
        for (uint32_t n = 0; n < LINEAR_NAMES; n++)
            if (!may_lead(l, s->dir[i].id, n, s->dir[i].at[n]))
                return stands_against(l, "after a crash %u/%c leads to object %u, and never did since it was durable", s->dir[i].id, 'a' + n, s->dir[i].at[n]);
    return true;
}

bool linear_found(struct linear *l, const struct linear_state *s) {
    struct point p = {.s = *s};
    if (l->why[0]) return false; // and nothing was cut
    ASSERT(l->ops == 0 && (l->is_cut || !l->now.n));
    if (l->is_cut && !all_may_lead(l, s)) return false;
    for (uint32_t i = 0; i < s->dirs; i++)
        for (uint32_t n = 0; n < LINEAR_NAMES; n++)
            if (s->dir[i].at[n]) made(l, s->dir[i].at[n]);
    l->is_cut = false;
    l->now.n = 0;
    points_add(&l->now, &p);
    all_leads(l);
    return true;
}

uint32_t linear_dirs(const struct linear *l) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < l->now.n; i++) most = MAX(most, l->now.v[i].s.dirs);
    return most;
}

void linear_tell_all(const struct linear *l, void (*line)(void *ctx, const char *text), void *ctx) {
    for (uint32_t i = 0; i < l->ops; i++) {
        char what[128], text[192];
        linear_tell(l->op[i], what, sizeof what);
        snprintf(text, sizeof text, "%llu to %llu: client %u: %s", (unsigned long long)l->op[i]->began, (unsigned long long)l->op[i]->ended, l->op[i]->client, what);
        line(ctx, text);
    }
}
