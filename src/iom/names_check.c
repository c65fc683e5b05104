// The check of all names of an array: every entry has its object, every object its entries, and every tree its twin at
// the proxy.
//
//   1  all DIRENTs: names per object, subdirectories per directory, the directory each directory is in
//   2  all CNODEs: link counts, parents, types; what has no name is an ORPHAN; the way up from every directory ends at the root
//   3  what was named but is not there; parts of objects that are not there; intents that nobody ended
//   4  TREE_META of each IOM and TREE_WARD of its proxy, record by record
#include "iom/name_inside.h"

#include <stdarg.h>
#include <stdio.h>

struct checked { // an object as the entries and its CNODE tell it
    struct handle h, named_in, parent;
    uint32_t names, subdirs;
    uint8_t named_type;
    bool found, dir, orphan, up_known;
};
struct check {
    struct env *env;
    struct store *const *stores;
    const struct array_shape *array;
    uint8_t ioms, away;
    struct map objects; // by handle hash
    void (*fault)(void *ctx, const char *sentence);
    void *ctx;
    uint64_t faults, found;
};

static void PRINTF_LIKE(2, 3) check_fault(struct check *c, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->faults++;
    if (c->fault != NULL) c->fault(c->ctx, text);
}

#define H_FMT "object %llu of IOM %u (generation %u)"
#define H_ARG(h) (unsigned long long)(h).index, (h).starter, (h).generation

static struct checked *check_object(struct check *c, struct handle h) {
    struct checked *o = map_get(&c->objects, handle_hash(h));
    if (o != NULL) return o;
    o = mem_alloc(c->env->mem, sizeof *o);
    o->h = h;
    map_put(&c->objects, handle_hash(h), o);
    return o;
}

typedef void (*record_fn)(struct check *c, uint8_t iom, const struct key *k, const uint8_t *val, uint32_t len);

static err co_each_record(struct check *c, enum record_kind kind, record_fn fn) {
    static const uint8_t zero[16];
    for (uint8_t i = 0; i < c->ioms; i++) {
        struct store *s = c->stores[i == c->away ? proxy_of(c->array, (iom_id){i}).n : i];
        enum tree_id tree = i == c->away ? TREE_WARD : TREE_META;
        for (struct key k = key_make((uint8_t)kind, zero, 0);; k = key_next(k)) {
            uint8_t val[RECORD_BYTES_MAX];
            uint32_t len;
            err e = co_tree_seek(s, tree, &k, val, sizeof val, &len);
            if (e == ERR_NOENT || (e == OK && key_kind(&k) != kind)) break;
            if (e != OK) return e;
            fn(c, i, &k, val, len);
        }
    }
    return OK;
}

// ---- 1
static void check_dirent(struct check *c, uint8_t iom, const struct key *k, const uint8_t *val, uint32_t len) {
    struct dirent d;
    struct handle dir = handle_at(key_id(k));
    if (dirent_decode(&d, k, val, len) != OK || !handle_valid(d.h) || d.h.starter >= c->ioms) {
        check_fault(c, "IOM %u: an entry of directory " H_FMT " cannot be read", iom, H_ARG(dir));
        return;
    }
    if ((d.number & ~3ull) != name_hash((struct name){d.name, d.name_len}))
        check_fault(c, "IOM %u: the entry %.*s of directory " H_FMT " stands in the wrong place", iom, d.name_len,
                    (const char *)d.name, H_ARG(dir));
    struct checked *o = check_object(c, d.h);
    if (o->names > 0 && o->named_type != d.type) check_fault(c, H_FMT " has names of two types", H_ARG(d.h));
    o->names++;
    o->named_in = dir;
    o->named_type = d.type;
    struct checked *in = check_object(c, dir);
    if (d.type == OBJ_DIR) in->subdirs++;
    in->dir = true;
}

static void check_orphan(struct check *c, uint8_t iom, const struct key *k, const uint8_t *val, uint32_t len) {
    (void)iom, (void)val, (void)len;
    check_object(c, handle_at(key_id(k)))->orphan = true;
}

// ---- 2
static void check_directory(struct check *c, struct checked *o, const struct cnode *node) {
    bool root = handle_eq(o->h, handle_root());
    o->parent = node->parent;
    if (root) return;
    if (o->names != 1)
        check_fault(c, "directory " H_FMT " has %u names", H_ARG(o->h), o->names);
    else if (!handle_eq(node->parent, o->named_in))
        check_fault(c, "directory " H_FMT " names another parent than it is in", H_ARG(o->h));
}

static void check_cnode(struct check *c, uint8_t iom, const struct key *k, const uint8_t *val, uint32_t len) {
    struct cnode node;
    struct handle h = handle_at(key_id(k));
    if (h.starter != iom || cnode_decode(&node, h, val, len) != OK) {
        check_fault(c, "IOM %u: the record of " H_FMT " cannot be read", iom, H_ARG(h));
        return;
    }
    struct checked *o = check_object(c, h);
    bool dir = node.type == OBJ_DIR;
    o->found = true;
    c->found++;
    if (o->names > 0 && o->named_type != node.type)
        check_fault(c, H_FMT " is named as another type than it is", H_ARG(h));
    if (o->dir && !dir) check_fault(c, H_FMT " has entries but is no directory", H_ARG(h));
    o->dir = dir;
    if (node.nlink == 0) {
        if (o->names > 0) check_fault(c, H_FMT " has %u names but counts none", H_ARG(h), o->names);
        if (!o->orphan) check_fault(c, H_FMT " has no name and nobody will delete it", H_ARG(h));
        return;
    }
    if (o->orphan) check_fault(c, H_FMT " is to be deleted but counts %u names", H_ARG(h), node.nlink);
    if (o->names == 0 && !handle_eq(h, handle_root())) check_fault(c, H_FMT " cannot be reached", H_ARG(h));
    uint32_t want = dir ? 2 + o->subdirs : o->names;
    if (node.nlink != want) check_fault(c, H_FMT " counts %u names, there are %u", H_ARG(h), node.nlink, want);
    if (dir) check_directory(c, o, &node);
}

static void check_ways_up(struct check *c) {
    MAP_FOR(&c->objects, it) {
        struct checked *o = it.value;
        uint64_t steps = 0;
        if (!o->found || !o->dir || o->names == 0) continue;
        while (o != NULL && !o->up_known && !handle_eq(o->h, handle_root()) && steps++ <= map_count(&c->objects))
            o = map_get(&c->objects, handle_hash(o->parent));
        struct checked *from = it.value;
        if (o == NULL || steps > map_count(&c->objects))
            check_fault(c, "directory " H_FMT " is not below the root", H_ARG(from->h));
        else
            from->up_known = true;
    }
}

// ---- 3
static void check_missing(struct check *c) {
    MAP_FOR(&c->objects, it) {
        struct checked *o = it.value;
        if (o->found) continue;
        if (o->names > 0)
            check_fault(c, H_FMT " has %u names but is not there", H_ARG(o->h), o->names);
        else if (o->orphan)
            check_fault(c, H_FMT " is to be deleted but is not there", H_ARG(o->h));
        else
            check_fault(c, "directory " H_FMT " has entries but is not there", H_ARG(o->h));
    }
}

static void check_part_of(struct check *c, uint8_t iom, const struct key *k, const uint8_t *val, uint32_t len) {
    (void)val, (void)len;
    struct handle h = handle_at(key_id(k));
    struct checked *o = map_get(&c->objects, handle_hash(h));
    if (o == NULL || !o->found) check_fault(c, "IOM %u: a part of " H_FMT ", which is not there", iom, H_ARG(h));
}

static void check_intent(struct check *c, uint8_t iom, const struct key *k, const uint8_t *val, uint32_t len) {
    (void)val, (void)len;
    check_fault(c, "IOM %u: an operation over several IOMs (role %llu) has not ended", iom,
                (unsigned long long)key_number(k));
}

// ---- 4
static err co_check_mirror(struct check *c, uint8_t iom) {
    uint8_t proxy = proxy_of(c->array, (iom_id){iom}).n;
    if (iom == c->away || proxy == c->away) return OK; // the one here is the only one that is up to date
    struct key k = {{0}}, twin;
    uint64_t epoch[2], number[2];
    tree_note(c->stores[iom], TREE_META, &epoch[0], &number[0]);
    tree_note(c->stores[proxy], TREE_WARD, &epoch[1], &number[1]);
    if (epoch[0] != epoch[1] || number[0] != number[1])
        check_fault(c, "the copy of IOM %u's names is at batch %llu, they are at %llu", iom,
                    (unsigned long long)number[1], (unsigned long long)number[0]);
    for (;; k = key_next(k)) {
        uint8_t val[2][RECORD_BYTES_MAX];
        uint32_t len[2];
        twin = k;
        err e = co_tree_seek(c->stores[iom], TREE_META, &k, val[0], RECORD_BYTES_MAX, &len[0]);
        err t = co_tree_seek(c->stores[proxy], TREE_WARD, &twin, val[1], RECORD_BYTES_MAX, &len[1]);
        if (e == ERR_NOENT && t == ERR_NOENT) return OK;
        if ((e != OK && e != ERR_NOENT) || (t != OK && t != ERR_NOENT)) return e != OK && e != ERR_NOENT ? e : t;
        if (e == t && memcmp(k.b, twin.b, KEY_BYTES) == 0 && len[0] == len[1] && memcmp(val[0], val[1], len[0]) == 0)
            continue;
        check_fault(c, "the copy of IOM %u's names differs at a record of kind %u", iom,
                    key_kind(e == OK ? &k : &twin));
        return OK;
    }
}

err co_names_check(struct env *e, struct store *const stores[], const struct array_shape *array, uint8_t away,
                   void (*fault)(void *ctx, const char *sentence), void *ctx, uint64_t *objects, uint64_t *faults) {
    struct check c = {.env = e, .stores = stores, .array = array, .ioms = array->ioms, .away = away, .fault = fault, .ctx = ctx};
    map_init(&c.objects, e->mem);
    check_object(&c, handle_root())->dir = true;
    err r = co_each_record(&c, KIND_DIRENT, check_dirent);
    if (r == OK) r = co_each_record(&c, KIND_ORPHAN, check_orphan);
    if (r == OK) r = co_each_record(&c, KIND_CNODE, check_cnode);
    if (r == OK) r = co_each_record(&c, KIND_XATTR, check_part_of);
    if (r == OK) r = co_each_record(&c, KIND_SYMLINK, check_part_of);
    if (r == OK) r = co_each_record(&c, KIND_INTENT, check_intent);
    if (r == OK) check_ways_up(&c);
    if (r == OK) check_missing(&c);
    for (uint8_t i = 0; i < array->ioms && array->ioms > 1 && r == OK; i++) r = co_check_mirror(&c, i);
    MAP_FOR(&c.objects, it) mem_free(e->mem, it.value);
    map_fini(&c.objects);
    *objects = c.found;
    *faults = c.faults;
    return r;
}
