// Objects and names as records: CNODE, DIRENT and the counter of indexes; their forms in memory, on disk and on the
// wire.
//
// Indexes are taken from the counter in blocks, so that a creation needs no record of its own for them. A service that
// starts takes a new block, and the generation of what it gives is its epoch's low half: whatever an all-crash took
// back, no (index, generation) is given twice.
#include "iom/name_inside.h"

#include "base/sum.h"

#include <sys/stat.h>

struct key cnode_key(struct handle h) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, h);
    return key_make(KIND_CNODE, id, 0);
}

struct key dirent_key(struct handle dir, uint64_t number) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, dir);
    return key_make(KIND_DIRENT, id, number);
}

uint32_t cnode_encode(const struct cnode *c, struct rec_cnode *out) {
    *out = (struct rec_cnode){
        .format = NAMES_FORMAT,
        .type = c->type,
        .toughness = c->toughness,
        .flags = c->flags,
        .policy = c->policy,
        .mode = le32_of(c->mode),
        .nlink = le32_of(c->nlink),
        .uid = le32_of(c->uid),
        .gid = le32_of(c->gid),
        .truncates = le32_of(c->truncates),
        .size = le64_of(c->size),
        .atime_ns = le64_of(c->atime_ns),
        .mtime_ns = le64_of(c->mtime_ns),
        .ctime_ns = le64_of(c->ctime_ns),
        .btime_ns = le64_of(c->btime_ns),
        .change = le64_of(c->change),
        .rdev = le64_of(c->rdev),
        .tail_from = le64_of(c->tail_from),
        .tail_to = le64_of(c->tail_to),
    };
    if (!handle_none(c->parent)) wire_handle_put(&out->parent, c->parent);
    refmap_put(out->map.b, &c->map);
    return c->tail_to ? sizeof *out : CNODE_BYTES;
}

err cnode_decode(struct cnode *c, struct handle h, const void *val, uint32_t len) {
    struct rec_cnode r = {0};
    if (len != CNODE_BYTES && len != sizeof r) return ERR_FORMAT;
    memcpy(&r, val, len);
    if (r.format != NAMES_FORMAT || r.type < OBJ_FILE || r.type > OBJ_BLOCKDEV) return ERR_FORMAT;
    *c = (struct cnode){
        .h = h,
        .parent = wire_handle_at(&r.parent),
        .size = le64_get(r.size),
        .atime_ns = le64_get(r.atime_ns),
        .mtime_ns = le64_get(r.mtime_ns),
        .ctime_ns = le64_get(r.ctime_ns),
        .btime_ns = le64_get(r.btime_ns),
        .change = le64_get(r.change),
        .rdev = le64_get(r.rdev),
        .tail_from = le64_get(r.tail_from),
        .tail_to = le64_get(r.tail_to),
        .mode = le32_get(r.mode),
        .nlink = le32_get(r.nlink),
        .uid = le32_get(r.uid),
        .gid = le32_get(r.gid),
        .truncates = le32_get(r.truncates),
        .type = r.type,
        .toughness = r.toughness,
        .flags = r.flags,
        .policy = r.policy,
    };
    return refmap_at(&c->map, r.map.b);
}

uint32_t dirent_encode(struct rec_dirent *out, struct handle h, const struct refmap *m, uint8_t type, struct name nm) {
    ASSERT(nm.len >= 1 && nm.len <= NAME_BYTES_MAX);
    wire_handle_put(&out->handle, h);
    refmap_put(out->map.b, m);
    out->type = type;
    out->name_len = (uint8_t)nm.len;
    memcpy(out->name, nm.s, nm.len);
    return (uint32_t)(sizeof *out + nm.len);
}

err dirent_decode(struct dirent *d, const struct key *k, const void *val, uint32_t len) {
    const struct rec_dirent *r = val;
    if (len < sizeof *r || len != sizeof *r + r->name_len || r->name_len == 0) return ERR_FORMAT;
    d->number = key_number(k);
    d->h = wire_handle_at(&r->handle);
    d->type = r->type;
    d->name_len = r->name_len;
    memcpy(d->name, r->name, r->name_len);
    return refmap_at(&d->map, r->map.b);
}

err co_cnode_get(struct names *n, struct handle h, struct cnode *c) {
    if (!handle_valid(h) || h.starter != n->c.self.n) return ERR_STALE;
    struct key k = cnode_key(h);
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    err e = co_tree_get(n->store, n->tree, &k, val, sizeof val, &len);
    if (e == ERR_NOENT) return ERR_STALE;
    return e == OK ? cnode_decode(c, h, val, len) : e;
}

err co_cnode_live(struct names *n, struct handle h, struct cnode *c) {
    err e = co_cnode_get(n, h, c);
    if (e == OK && c->nlink == 0 && !object_open(n, h)) return ERR_STALE;
    return e;
}

err co_cnode_kept(struct names *n, struct handle h, struct cnode *c) {
    err e = co_cnode_get(n, h, c);
    return e == OK && c->nlink == 0 && !object_open(n, h) ? co_orphan_kept(n, h) : e;
}

// 61 bits of the hash, never zero, above two bits for the collision: cookies are 4 and more and below 2^63.
uint64_t name_hash(struct name nm) {
    uint64_t h = hash64(nm.s, nm.len, 0) >> 3;
    return (h == 0 ? 1 : h) << 2;
}

err name_check(struct name nm) {
    if (nm.len == 0) return ERR_INVAL;
    if (nm.len > NAME_BYTES_MAX) return ERR_NAMETOOLONG;
    if (memchr(nm.s, '/', nm.len) != NULL || memchr(nm.s, 0, nm.len) != NULL) return ERR_INVAL;
    if (nm.s[0] == '.' && (nm.len == 1 || (nm.len == 2 && nm.s[1] == '.'))) return ERR_INVAL;
    return OK;
}

// Names of one hash stand next to each other: one seek finds the name or that it is not there. A deletion leaves a hole
// among them, which the next name of that hash takes.
err co_dirent_find(struct names *n, struct handle dir, struct name nm, struct dirent *d) {
    uint64_t hash = name_hash(nm), next = hash, free_number = 0;
    for (;;) {
        struct key k = dirent_key(dir, next), first = dirent_key(dir, hash);
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len;
        err e = co_tree_seek(n->store, n->tree, &k, val, sizeof val, &len);
        if (e != OK && e != ERR_NOENT) return e;
        bool same = e == OK && memcmp(k.b, first.b, 17) == 0 && (key_number(&k) & ~3ull) == hash;
        uint64_t at = same ? key_number(&k) : hash + 4;
        if (free_number == 0 && at > next) free_number = next;
        if (!same) break;
        e = dirent_decode(d, &k, val, len);
        if (e != OK) return e;
        if (d->name_len == nm.len && memcmp(d->name, nm.s, nm.len) == 0) return OK;
        next = at + 1;
        if (next == hash + 4) break;
    }
    d->number = free_number;
    d->h = handle_zero();
    return ERR_NOENT;
}

err co_dir_empty(struct names *n, struct handle dir, bool *empty) {
    struct key k = dirent_key(dir, 0), first = k;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    err e = co_tree_seek(n->store, n->tree, &k, val, sizeof val, &len);
    *empty = e == ERR_NOENT || (e == OK && memcmp(k.b, first.b, 17) != 0);
    return e == ERR_NOENT ? OK : e;
}

static struct key counter_key(void) {
    static const uint8_t zero[16];
    return key_make(KIND_SYSTEM, zero, 0);
}

static err co_index_block(struct names *n) {
    struct key k = counter_key();
    struct rec_counter r;
    uint32_t len;
    uint64_t next = ROOT_INDEX + 1;
    err e = co_tree_get(n->store, n->tree, &k, &r, sizeof r, &len);
    if (e == OK && len == sizeof r)
        next = le64_get(r.next);
    else if (e != ERR_NOENT)
        return e == OK ? ERR_FORMAT : e;
    if (next + INDEX_BLOCK > HANDLE_INDEX_END) return ERR_NOSPC;
    r = (struct rec_counter){.next = le64_of(next + INDEX_BLOCK)};
    struct batch *b = batch_new(n->store);
    batch_put(b, n->tree, &k, &r, sizeof r);
    uint64_t number;
    e = co_mirror_commit(n, b, &number);
    if (e != OK) return e;
    n->index_next = next;
    n->index_end = next + INDEX_BLOCK;
    return OK;
}

err co_handle_new(struct names *n, struct handle *h) {
    err e = OK;
    co_lock(n->env, &n->index_lock, "index");
    if (n->index_next == n->index_end) e = co_index_block(n);
    if (e == OK)
        *h = (struct handle){.starter = n->c.self.n, .generation = (uint32_t)n->epoch, .index = n->index_next++};
    co_unlock(n->env, &n->index_lock);
    return e;
}

struct refmap dir_map(const struct names *n, iom_id starter) {
    struct array_shape one_host;
    struct refmap m;
    array_shape_make(&one_host, n->c.array.ioms, NULL); // it has no parity groups: hosts are nothing to it
    err e = refmap_make(&m, &one_host, starter, PROT_PARITY, 0, 16, 0);
    ASSERT(e == OK);
    return m;
}

static uint32_t mode_type_bits(uint8_t type) {
    switch ((enum object_type)type) {
    case OBJ_FILE: return S_IFREG;
    case OBJ_DIR: return S_IFDIR;
    case OBJ_SYMLINK: return S_IFLNK;
    case OBJ_FIFO: return S_IFIFO;
    case OBJ_SOCKET: return S_IFSOCK;
    case OBJ_CHARDEV: return S_IFCHR;
    case OBJ_BLOCKDEV: return S_IFBLK;
    }
    return 0;
}

void attr_fill(struct wire_attr *a, const struct cnode *c) {
    *a = (struct wire_attr){
        .mode = le32_of((c->mode & 07777) | mode_type_bits(c->type)),
        .nlink = le32_of(c->nlink),
        .uid = le32_of(c->uid),
        .gid = le32_of(c->gid),
        .size = le64_of(c->size),
        .used = le64_of(ROUND_UP(c->size, (uint64_t)BLOCK_BYTES)),
        .atime_ns = le64_of(c->atime_ns),
        .mtime_ns = le64_of(c->mtime_ns),
        .ctime_ns = le64_of(c->ctime_ns),
        .btime_ns = le64_of(c->btime_ns),
        .change = le64_of(c->change),
        .rdev = le64_of(c->rdev),
        .truncates = le32_of(c->truncates),
        .toughness = c->toughness,
    };
    wire_handle_put(&a->handle, c->h);
    refmap_put(a->map.b, &c->map);
}
