// Copy-on-write B+trees over the page cache: descending, reading, changing.
//
// Reads and preparations descend from the root; where a page is not in memory they load it and start again from the
// root, for nothing seen before the wait need be true after it. Changes never wait: co_batch_pages has brought in all
// that they touch. A change makes the path from the root dirty (tcache_dirty), so a dirty page's ancestors are dirty.
//
// A record that goes leaves its leaf as it is. When the batch is through, leaves that became small are looked at again
// (tree_shrink): an empty one is removed with all ancestors that become empty, and a small one joined with a neighbour
// under the same parent that is in memory. So no empty page outlives its batch, and no read is ever made to merge.
#include "store/inside.h"

#define LEAF_SMALL (TPAGE_SPACE / 4)
#define LEAF_JOINED_MAX (TPAGE_SPACE * 3 / 4)
#define INNER_SMALL (INNER_MAX / 4)
#define INNER_JOINED_MAX (INNER_MAX * 3 / 4)

bool tree_descend(struct store *s, enum tree_id t, const uint8_t *key, struct path *p, struct miss *m) {
    struct tree *tr = &s->trees[t];
    struct child c = tr->root;
    p->depth = 0;
    p->above = NULL;
    for (uint32_t level = tr->levels; level-- > 0;) {
        struct tframe *f = tcache_get(s, c.addr);
        if (f == NULL) {
            *m = (struct miss){c, (uint8_t)t, (uint8_t)level};
            return false;
        }
        p->step[p->depth].f = f;
        if (level > 0) {
            uint32_t i = inner_find(f->data, key);
            p->step[p->depth].i = i;
            if (i + 1 < tpage_count(f->data)) p->above = inner_key(f->data, i + 1);
            c = inner_child(f->data, i);
        }
        p->depth++;
    }
    return true;
}

// ---- reading
static err co_tree_path(struct store *s, enum tree_id t, const uint8_t *key, struct path *p) {
    struct miss m;
    while (!tree_descend(s, t, key, p, &m)) {
        err e = co_tcache_load(s, &m);
        if (e != OK) return e;
    }
    return OK;
}
static err copy_value(const uint8_t *leaf, uint32_t i, void *val, uint32_t cap, uint32_t *len) {
    uint32_t n;
    const uint8_t *v = leaf_value(leaf, i, &n);
    if (len) *len = n;
    if (n > cap) return ERR_RANGE;
    if (n > 0) memcpy(val, v, n);
    return OK;
}
err co_tree_get(struct store *s, enum tree_id t, const struct key *k, void *val, uint32_t cap, uint32_t *len) {
    struct path p;
    err e = co_tree_path(s, t, k->b, &p);
    if (e != OK) return e;
    if (p.depth == 0) return ERR_NOENT;
    bool found;
    const uint8_t *leaf = p.step[p.depth - 1].f->data;
    uint32_t i = leaf_find(leaf, k->b, &found);
    return found ? copy_value(leaf, i, val, cap, len) : ERR_NOENT;
}
err co_tree_seek(struct store *s, enum tree_id t, struct key *k, void *val, uint32_t cap, uint32_t *len) {
    struct key at = *k;
    for (;;) {
        struct path p;
        err e = co_tree_path(s, t, at.b, &p);
        if (e != OK) return e;
        if (p.depth == 0) return ERR_NOENT;
        bool found;
        const uint8_t *leaf = p.step[p.depth - 1].f->data;
        uint32_t i = leaf_find(leaf, at.b, &found);
        if (i < tpage_count(leaf)) {
            memcpy(k->b, leaf_key(leaf, i), KEY_BYTES);
            return copy_value(leaf, i, val, cap, len);
        }
        if (p.above == NULL) return ERR_NOENT;
        memcpy(at.b, p.above, KEY_BYTES);
    }
}
uint64_t tree_records(const struct store *s, enum tree_id t) {
    return s->trees[t].records;
}
void tree_note(const struct store *s, enum tree_id t, uint64_t *epoch, uint64_t *number) {
    *epoch = s->trees[t].note_epoch;
    *number = s->trees[t].note_number;
}

struct key key_make(uint8_t kind, const uint8_t id[16], uint64_t number) {
    struct key k;
    k.b[0] = kind;
    memcpy(k.b + 1, id, 16);
    be64_put(k.b + 17, number);
    return k;
}
struct key key_next(struct key k) {
    for (int i = KEY_BYTES - 1; i >= 0; i--)
        if (++k.b[i] != 0) return k;
    memset(k.b, 0xff, KEY_BYTES); // there is none: the greatest key stays
    return k;
}

// ---- putting
static struct child child_of(const struct tframe *f) {
    return (struct child){tframe_id(f), 0};
}

static void set_root(struct store *s, enum tree_id t, struct child c) {
    s->trees[t].root = c;
}

static void path_dirty(struct store *s, enum tree_id t, struct path *p) {
    if (p->step[p->depth - 1].f->state == TFRAME_DIRTY) return; // so are its ancestors
    for (uint32_t d = 0; d < p->depth; d++) {
        struct tframe *f = p->step[d].f;
        if (f->state == TFRAME_DIRTY) continue;
        f = p->step[d].f = tcache_dirty(s, f);
        if (d == 0)
            set_root(s, t, child_of(f));
        else
            inner_set_child(p->step[d - 1].f->data, p->step[d - 1].i, child_of(f));
    }
}

static void new_root(struct store *s, enum tree_id t, struct tframe *left, const uint8_t *key, struct tframe *right) {
    static const uint8_t least[KEY_BYTES];
    struct tree *tr = &s->trees[t];
    ASSERT(tr->levels < TREE_LEVELS_MAX);
    struct tframe *root = tcache_new(s, (uint8_t)t, tr->levels);
    inner_insert(root->data, 0, least, child_of(left));
    inner_insert(root->data, 1, key, child_of(right));
    set_root(s, t, child_of(root));
    tr->levels++;
}
// `right` has come into being beside the page at depth d; its least key is `key`.
static void add_sibling(struct store *s, enum tree_id t, struct path *p, uint32_t d, const uint8_t *key,
                        struct tframe *right) {
    uint8_t separator[KEY_BYTES];
    memcpy(separator, key, KEY_BYTES);
    for (; d > 0; d--) {
        struct tframe *f = p->step[d - 1].f;
        uint32_t count = tpage_count(f->data), at = p->step[d - 1].i + 1;
        if (count < INNER_MAX) {
            inner_insert(f->data, at, separator, child_of(right));
            return;
        }
        struct tframe *half = tcache_new(s, (uint8_t)t, (uint8_t)tpage_level(f->data));
        uint32_t keep = at == count ? count : count / 2; // as with leaves: ascending keys leave full pages
        inner_move(f->data, keep, half->data);
        if (at > keep || keep == count)
            inner_insert(half->data, at - keep, separator, child_of(right));
        else
            inner_insert(f->data, at, separator, child_of(right));
        memcpy(separator, inner_key(half->data, 0), KEY_BYTES);
        right = half;
    }
    new_root(s, t, p->step[0].f, separator, right);
}
static void leaf_split(struct store *s, enum tree_id t, struct path *p, uint32_t at, const uint8_t *key,
                       const uint8_t *val, uint32_t len) {
    struct tframe *left = p->step[p->depth - 1].f, *right = tcache_new(s, (uint8_t)t, 0);
    bool goes_left;
    uint32_t keep = leaf_split_point(left->data, at, len, &goes_left);
    leaf_move(left->data, keep, right->data);
    bool fits =
        goes_left ? leaf_insert(left->data, at, key, val, len) : leaf_insert(right->data, at - keep, key, val, len);
    ASSERT(fits);
    add_sibling(s, t, p, p->depth - 1, leaf_key(right->data, 0), right);
}

void tree_put(struct store *s, enum tree_id t, const uint8_t *key, const uint8_t *val, uint32_t len) {
    struct tree *tr = &s->trees[t];
    if (tr->levels == 0) {
        set_root(s, t, child_of(tcache_new(s, (uint8_t)t, 0)));
        tr->levels = 1;
    }
    struct path p;
    struct miss m;
    bool there = tree_descend(s, t, key, &p, &m), found;
    ASSERT(there);
    path_dirty(s, t, &p);
    uint8_t *leaf = p.step[p.depth - 1].f->data;
    uint32_t i = leaf_find(leaf, key, &found);
    if (found) {
        uint32_t had;
        uint8_t *v = (uint8_t *)(uintptr_t)leaf_value(leaf, i, &had);
        if (had == len) {
            memcpy(v, val, len);
            return;
        }
        leaf_remove(leaf, i);
    } else
        tr->records++;
    if (!leaf_insert(leaf, i, key, val, len)) leaf_split(s, t, &p, i, key, val, len);
}

// ---- deleting
bool tree_del(struct store *s, enum tree_id t, const uint8_t *key) {
    struct path p;
    struct miss m;
    bool there = tree_descend(s, t, key, &p, &m), found;
    ASSERT(there);
    if (p.depth == 0) return false;
    uint32_t i = leaf_find(p.step[p.depth - 1].f->data, key, &found);
    if (!found) return false;
    path_dirty(s, t, &p);
    leaf_remove(p.step[p.depth - 1].f->data, i);
    s->trees[t].records--;
    return leaf_live_bytes(p.step[p.depth - 1].f->data) < LEAF_SMALL;
}

// Removes the empty page at depth d and what becomes empty above it.
static void remove_empty(struct store *s, enum tree_id t, struct path *p, uint32_t d) {
    for (;; d--) {
        tcache_drop(s, p->step[d].f);
        if (d == 0) {
            s->trees[t].root = (struct child){0};
            s->trees[t].levels = 0;
            return;
        }
        inner_remove(p->step[d - 1].f->data, p->step[d - 1].i);
        if (tpage_count(p->step[d - 1].f->data) > 0) return;
    }
}
static bool may_join(const uint8_t *a, const uint8_t *b) {
    if (tpage_level(a) > 0) return tpage_count(a) + tpage_count(b) <= INNER_JOINED_MAX;
    return leaf_live_bytes(a) + leaf_live_bytes(b) <= LEAF_JOINED_MAX;
}
// Joins children i and i+1 of the dirty page `parent`, if both are in memory and small enough.
static bool join(struct store *s, struct tframe *parent, uint32_t i) {
    struct tframe *a = tcache_get(s, inner_child(parent->data, i).addr);
    struct tframe *b = tcache_get(s, inner_child(parent->data, i + 1).addr);
    if (a == NULL || b == NULL || !may_join(a->data, b->data)) return false;
    a = tcache_dirty(s, a);
    b = tcache_dirty(s, b);
    inner_set_child(parent->data, i, child_of(a));
    if (tpage_level(a->data) == 0) {
        leaf_move(b->data, 0, a->data);
    } else {
        inner_set_key(b->data, 0, inner_key(parent->data, i + 1)); // its own first key may be out of date
        inner_move(b->data, 0, a->data);
    }
    inner_remove(parent->data, i + 1);
    tcache_drop(s, b);
    return true;
}
// The root with one child gives way to it.
static void lower_root(struct store *s, enum tree_id t) {
    struct tree *tr = &s->trees[t];
    while (tr->levels > 1) {
        struct tframe *f = tcache_get(s, tr->root.addr);
        if (f == NULL || tpage_count(f->data) > 1) return;
        set_root(s, t, inner_child(f->data, 0));
        tr->levels--;
        tcache_drop(s, f);
    }
}
void tree_shrink(struct store *s, enum tree_id t, const uint8_t *key) {
    struct path p;
    struct miss m;
    if (!tree_descend(s, t, key, &p, &m) || p.depth == 0) return;
    struct tframe *leaf = p.step[p.depth - 1].f;
    if (leaf->state != TFRAME_DIRTY) return; // an earlier key's work; this is a neighbour
    if (tpage_count(leaf->data) == 0) remove_empty(s, t, &p, p.depth - 1);
    for (uint32_t d = p.depth - 1; d > 0 && s->trees[t].levels > 0; d--) {
        struct tframe *parent = p.step[d - 1].f, *f;
        if (parent->state != TFRAME_DIRTY || tpage_count(parent->data) == 0) continue; // removed just now
        uint32_t i = MIN(p.step[d - 1].i, tpage_count(parent->data) - 1);
        f = tcache_get(s, inner_child(parent->data, i).addr);
        if (f == NULL ||
            (d == p.depth - 1 ? leaf_live_bytes(f->data) >= LEAF_SMALL : tpage_count(f->data) >= INNER_SMALL))
            continue;
        if (i + 1 < tpage_count(parent->data) && join(s, parent, i)) continue;
        if (i > 0) join(s, parent, i - 1);
    }
    lower_root(s, t);
}
