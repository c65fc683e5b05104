// Steps: what an operation does to names and objects, each step at the starter of what it touches.
//
//   NAME    (directory, name) is `expect` now and shall be `target`         create, unlink, rename, link, mkdir, rmdir
//   OBJECT  link count, emptiness, parent                                   link, unlink, rmdir, rename
//   MAKE    a new object                                                    create, mkdir, symlink
//   RIGHT   the one right to move directories between parents               rename
//
// An operation whose steps are all here is one batch. One with steps elsewhere is an intent (intent.c), which checks,
// holds and applies them with the same functions.
#include "iom/name_inside.h"

struct step *steps_add(struct steps *s, enum step_kind kind, struct handle at) {
    ASSERT(s->len < INTENT_STEPS_MAX);
    struct step *t = &s->v[s->len++];
    *t = (struct step){.kind = kind, .at = at, .where = {at.starter}};
    return t;
}

static bool step_here(const struct names *n, const struct step *s) {
    return iom_eq(s->where, n->c.self);
}

// ---- holds
struct hold *steps_blocked(struct names *n, const struct step *s, const struct intent_id *but) {
    static const struct name none;
    if (map_count(&n->holds) == 0) return NULL;
    struct hold *h = NULL;
    switch (s->kind) {
    case STEP_NAME:
        h = hold_find(n, hold_key(HOLD_NAME, s->at, s->name), but);
        return h != NULL ? h : hold_find(n, hold_key(HOLD_EMPTY, s->at, none), but);
    case STEP_OBJECT:
        h = hold_find(n, hold_key(HOLD_OBJECT, s->at, none), but);
        if (h == NULL && (s->flags & STEP_EMPTY)) h = hold_find(n, hold_key(HOLD_DIR, s->at, none), but);
        return h;
    case STEP_MAKE: return NULL;
    case STEP_RIGHT: return hold_find(n, hold_key(HOLD_RIGHT, handle_root(), none), but);
    }
    return NULL;
}

static uint8_t step_hold_keys(const struct step *s, uint64_t key[2], enum hold_kind kind[2]) {
    static const struct name none;
    switch (s->kind) {
    case STEP_NAME:
        key[0] = hold_key(kind[0] = HOLD_NAME, s->at, s->name);
        key[1] = hold_key(kind[1] = HOLD_DIR, s->at, none);
        return 2;
    case STEP_OBJECT:
        key[0] = hold_key(kind[0] = HOLD_OBJECT, s->at, none);
        if (!(s->flags & STEP_EMPTY)) return 1;
        key[1] = hold_key(kind[1] = HOLD_EMPTY, s->at, none);
        return 2;
    case STEP_MAKE: // whoever was told of the object already waits until it is there
        key[0] = hold_key(kind[0] = HOLD_OBJECT, s->at, none);
        key[1] = hold_key(kind[1] = HOLD_EMPTY, s->at, none);
        return 2;
    case STEP_RIGHT: key[0] = hold_key(kind[0] = HOLD_RIGHT, handle_root(), none); return 1;
    }
    return 0;
}

static void step_hold(struct names *n, const struct step *s, const struct intent_id *id, bool local) {
    uint64_t key[2];
    enum hold_kind kind[2];
    uint8_t keys = step_hold_keys(s, key, kind);
    for (uint8_t i = 0; i < keys; i++) hold_take(n, key[i], kind[i], id, local);
}

static void step_free(struct names *n, const struct step *s, bool local) {
    uint64_t key[2];
    enum hold_kind kind[2];
    uint8_t keys = step_hold_keys(s, key, kind);
    for (uint8_t i = 0; i < keys; i++) hold_free(n, key[i], local);
}

void steps_hold(struct names *n, const struct steps *s, const struct intent_id *id, bool local) {
    for (uint8_t i = 0; i < s->len; i++)
        if (step_here(n, &s->v[i])) step_hold(n, &s->v[i], id, local);
}

void steps_free(struct names *n, const struct steps *s, bool local) {
    for (uint8_t i = 0; i < s->len; i++)
        if (step_here(n, &s->v[i])) step_free(n, &s->v[i], local);
}

err co_steps_hold(struct names *n, const struct steps *s, const struct intent_id *id, bool local) {
    for (uint8_t i = 0; i < s->len; i++) {
        const struct step *t = &s->v[i];
        if (!step_here(n, t)) continue;
        struct hold *h;
        err e = n->stopping ? ERR_STOPPED : OK;
        while (e == OK && (h = steps_blocked(n, t, id)) != NULL) e = co_hold_wait(n, h);
        if (e != OK) { // gives back what it took
            for (uint8_t j = 0; j < i; j++)
                if (step_here(n, &s->v[j])) step_free(n, &s->v[j], local);
            return e;
        }
        step_hold(n, t, id, local);
    }
    return OK;
}

// ---- preconditions
static err co_change_node(struct change *c, struct handle h, struct cnode **out) {
    for (uint8_t i = 0; i < c->len; i++)
        if (handle_eq(c->node[i].h, h)) return *out = &c->node[i], OK;
    ASSERT(c->len < CHANGE_NODES);
    err e = co_cnode_get(c->n, h, &c->node[c->len]);
    if (e != OK) return e;
    c->dirty[c->len] = false;
    *out = &c->node[c->len++];
    return OK;
}

static struct cnode *change_node(struct change *c, struct handle h) { // already loaded
    struct cnode *node = NULL;
    for (uint8_t i = 0; i < c->len && node == NULL; i++)
        if (handle_eq(c->node[i].h, h)) {
            node = &c->node[i];
            c->dirty[i] = true;
        }
    ASSERT(node != NULL);
    return node;
}

static err co_name_ready(struct change *c, const struct step *s, uint64_t *number) {
    struct cnode *dir;
    err e = co_change_node(c, s->at, &dir);
    if (e != OK) return e;
    if (dir->type != OBJ_DIR) return ERR_NOTDIR;
    if (dir->nlink == 0) return ERR_NOENT;
    struct dirent d;
    e = co_dirent_find(c->n, s->at, s->name, &d);
    if (e != OK && e != ERR_NOENT) return e;
    *number = d.number;
    if (!handle_eq(d.h, s->expect) && !mutant(MUTANT_EXPECT)) return ERR_CONFLICT;
    return *number == 0 && !handle_none(s->target) ? ERR_NOSPC : OK;
}

static err co_object_ready(struct change *c, const struct step *s) {
    struct cnode *node;
    err e = co_change_node(c, s->at, &node);
    if (e != OK) return e;
    if (node->nlink == 0) return ERR_STALE;
    if (s->nlink > 0 && node->type == OBJ_DIR) return ERR_PERM;
    if (s->nlink > 0 && node->nlink >= LINKS_MAX) return ERR_MLINK;
    if (!(s->flags & STEP_EMPTY)) return OK;
    if (node->type != OBJ_DIR) return ERR_NOTDIR;
    bool empty;
    e = co_dir_empty(c->n, s->at, &empty);
    return e == OK && !empty ? ERR_NOTEMPTY : e;
}

static err co_step_ready(struct change *c, const struct step *s, uint64_t *number) {
    switch (s->kind) {
    case STEP_NAME: return co_name_ready(c, s, number);
    case STEP_OBJECT: return co_object_ready(c, s);
    case STEP_MAKE:
    case STEP_RIGHT: return OK;
    }
    return OK;
}

static void change_start(struct change *c, struct names *n, const struct steps *s) {
    c->n = n;
    c->b = NULL;
    c->locks.len = c->len = c->orphans_len = 0;
    c->shown = handle_zero();
    c->committed = false;
    for (uint8_t i = 0; i < s->len; i++)
        if (step_here(n, &s->v[i]) && (s->v[i].kind == STEP_NAME || s->v[i].kind == STEP_OBJECT))
            lockset_add(&c->locks, s->v[i].at);
}

static struct hold *change_blocked(struct names *n, const struct steps *s, const struct intent_id *but) {
    struct hold *h = NULL;
    for (uint8_t i = 0; i < s->len && h == NULL; i++)
        if (step_here(n, &s->v[i])) h = steps_blocked(n, &s->v[i], but);
    return h;
}

err co_change_begin(struct change *c, struct names *n, const struct steps *s, const struct intent_id *but) {
    for (;;) {
        change_start(c, n, s);
        co_lockset_take(n, &c->locks);
        struct hold *h = change_blocked(n, s, but);
        if (h == NULL) break;
        lockset_release(n, &c->locks);
        err e = co_hold_wait(n, h);
        if (e != OK) return e;
    }
    err e = n->stopping ? ERR_STOPPED : OK;
    for (uint8_t i = 0; i < s->len && e == OK; i++)
        if (step_here(n, &s->v[i])) e = co_step_ready(c, &s->v[i], &c->number[i]);
    if (e != OK) lockset_release(n, &c->locks);
    return e;
}

// What was ready once and held since is ready still: no refusal can come of it now but from the disk.
err co_change_load(struct change *c, struct names *n, const struct steps *s) {
    change_start(c, n, s);
    co_lockset_take(n, &c->locks);
    err e = OK;
    for (uint8_t i = 0; i < s->len && e == OK; i++)
        if (step_here(n, &s->v[i])) e = co_step_ready(c, &s->v[i], &c->number[i]);
    if (e != OK) {
        LOG(n->env, TRACE_ERROR, "names: a step of a decided intent cannot be done: %s", err_name(e));
        lockset_release(n, &c->locks);
    }
    return e;
}

// ---- application
static void name_apply(struct change *c, const struct step *s, uint64_t number, uint64_t now) {
    struct key k = dirent_key(s->at, number);
    if (handle_none(s->target)) {
        batch_del(c->b, c->n->tree, &k);
    } else {
        union {
            struct rec_dirent r;
            uint8_t room[sizeof(struct rec_dirent) + NAME_BYTES_MAX];
        } val;
        uint32_t len = dirent_encode(&val.r, s->target, &s->map, s->type, s->name);
        batch_put(c->b, c->n->tree, &k, &val, len);
    }
    struct cnode *dir = change_node(c, s->at);
    dir->nlink = (uint32_t)((int64_t)dir->nlink + s->nlink);
    dir->mtime_ns = dir->ctime_ns = now;
    dir->change++;
}

static void object_apply(struct change *c, const struct step *s, uint64_t now) {
    struct cnode *node = change_node(c, s->at);
    node->nlink = s->flags & STEP_EMPTY ? 0 : (uint32_t)((int64_t)node->nlink + s->nlink);
    node->ctime_ns = now;
    node->change++;
    if (s->flags & STEP_PARENT) node->parent = s->target;
    c->shown = s->at;
}

static void make_apply(struct change *c, const struct step *s, uint64_t now) {
    ASSERT(c->len < CHANGE_NODES && !handle_none(s->at));
    struct cnode *node = &c->node[c->len];
    *node = (struct cnode){
        .h = s->at,
        .map = s->map,
        .atime_ns = now,
        .mtime_ns = now,
        .ctime_ns = now,
        .btime_ns = now,
        .change = 1,
        .mode = s->mode,
        .uid = s->uid,
        .gid = s->gid,
        .rdev = s->rdev,
        .type = s->type,
        .toughness = s->toughness,
        .size = s->size,
        .policy = s->policy,
        .nlink = s->type == OBJ_DIR ? 2 : 1,
        .parent = s->type == OBJ_DIR ? s->target : handle_zero(),
    };
    c->dirty[c->len++] = true;
    c->shown = s->at;
}

static void change_write(struct change *c) {
    for (uint8_t i = 0; i < c->len; i++) {
        struct cnode *node = &c->node[i];
        if (!c->dirty[i]) continue;
        if (node->nlink == 0) {
            if (!orphan_batch(c->n, c->b, node)) continue;
            c->orphans[c->orphans_len++] = node->h;
        }
        struct rec_cnode r;
        uint32_t len = cnode_encode(node, &r);
        struct key k = cnode_key(node->h);
        batch_put(c->b, c->n->tree, &k, &r, len);
    }
}

bool steps_take_away(const struct steps *s) {
    for (uint8_t i = 0; i < s->len; i++)
        if (s->v[i].kind == STEP_MAKE || (s->v[i].kind == STEP_NAME && !handle_none(s->v[i].target))) return false;
    return true;
}

void co_change_apply(struct change *c, const struct steps *s) {
    uint64_t now = env_wall_ns(c->n->env);
    c->b = batch_new(c->n->store);
    if (steps_take_away(s)) batch_urgent(c->b);
    for (uint8_t i = 0; i < s->len; i++) {
        const struct step *t = &s->v[i];
        if (!step_here(c->n, t)) continue;
        switch (t->kind) {
        case STEP_NAME: name_apply(c, t, c->number[i], now); break;
        case STEP_OBJECT: object_apply(c, t, now); break;
        case STEP_MAKE: make_apply(c, t, now); break;
        case STEP_RIGHT: break;
        }
    }
    change_write(c);
}

const struct cnode *change_shown(const struct change *c) {
    for (uint8_t i = 0; i < c->len; i++)
        if (!handle_none(c->shown) && handle_eq(c->node[i].h, c->shown)) return &c->node[i];
    return NULL;
}

void change_end(struct change *c) {
    lockset_release(c->n, &c->locks);
    for (uint8_t i = 0; i < c->orphans_len && c->committed; i++) orphan_note(c->n, c->orphans[i]);
}

// ---- on the wire and in INTENT records
static uint32_t step_encode(struct wire_step *w, const struct step *s) {
    *w = (struct wire_step){
        .kind = (uint8_t)s->kind,
        .flags = s->flags,
        .type = s->type,
        .name_len = (uint8_t)s->name.len,
        .nlink = (uint8_t)s->nlink,
        .toughness = s->toughness,
        .policy = s->policy,
        .mode = le32_of(s->mode),
        .uid = le32_of(s->uid),
        .gid = le32_of(s->gid),
        .rdev = le64_of(s->rdev),
    };
    wire_handle_put(&w->at, s->at);
    wire_handle_put(&w->expect, s->expect);
    wire_handle_put(&w->target, s->target);
    memcpy(w->map.b, &s->map, sizeof s->map);
    if (s->name.len > 0) memcpy(w->name, s->name.s, s->name.len);
    return (uint32_t)sizeof *w + s->name.len;
}

uint32_t steps_encode(uint8_t *out, const struct steps *s, iom_id where, uint8_t *count) {
    uint32_t len = 0;
    *count = 0;
    for (uint8_t i = 0; i < s->len; i++) {
        if (!iom_eq(s->v[i].where, where) || s->v[i].kind == STEP_RIGHT) continue;
        len += step_encode((struct wire_step *)(void *)(out + len), &s->v[i]);
        ++*count;
    }
    return len;
}

static err step_decode(struct step *s, const struct wire_step *w, iom_id self) {
    if (w->kind < STEP_NAME || w->kind > STEP_RIGHT) return ERR_FORMAT;
    *s = (struct step){
        .kind = w->kind,
        .flags = w->flags,
        .type = w->type,
        .nlink = (int8_t)w->nlink,
        .toughness = w->toughness,
        .policy = w->policy,
        .mode = le32_get(w->mode),
        .uid = le32_get(w->uid),
        .gid = le32_get(w->gid),
        .rdev = le64_get(w->rdev),
        .at = wire_handle_at(&w->at),
        .expect = wire_handle_at(&w->expect),
        .target = wire_handle_at(&w->target),
        .name = {w->name, w->name_len},
        .where = self,
    };
    bool has_map = s->kind == STEP_MAKE || (s->kind == STEP_NAME && !handle_none(s->target));
    if (s->kind == STEP_NAME && name_check(s->name) != OK) return ERR_FORMAT;
    return has_map ? refmap_at(&s->map, w->map.b) : OK;
}

// Names point into `p`.
err steps_decode(struct steps *s, uint8_t count, const uint8_t *p, uint32_t len, iom_id self) {
    s->len = 0;
    if (count > INTENT_STEPS_MAX) return ERR_FORMAT;
    for (uint8_t i = 0; i < count; i++) {
        const struct wire_step *w = (const void *)p;
        if (len < sizeof *w || len < sizeof *w + w->name_len) return ERR_FORMAT;
        err e = step_decode(&s->v[s->len++], w, self);
        if (e != OK) return e;
        p += sizeof *w + w->name_len;
        len -= (uint32_t)sizeof *w + w->name_len;
    }
    return OK;
}
