// What one row of a file looks like on the disks of an array: images of them, as a power cut at this instant would
// leave them (world_keep_sectors says how), are opened on a node of their own. What the array runs on is not touched.
// It shares the formats with the rows' code, not its judgement.
#pragma once
#include "base/sum.h"
#include "iom/names_format.h"
#include "iom/row_state.h"
#include "sim/array.h"
#include "sim/audit_disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LOOK_IOMS_MAX 8
#define LOOK_REFS_MAX 2048

struct look_member {
    uint32_t updates;                 // UPDATE and HELD records, of any segment
    bool entry, entry_whole;          // an UPDATE of this segment with this row; and its block is on disk
    struct update update;             // of this segment, if there is one
    bool settled_whole;               // the block that CHUNK names is on disk (or the hole)
    struct spot place;                // that block
    uint64_t version[ARRAY_IOMS_MAX]; // of a data member: [0]; of the parity: of each k
    uint8_t block[BLOCK_BYTES];       // its content
    uint64_t ref[LOOK_REFS_MAX];      // blocks that records of rows refer to
    uint32_t refs;
    uint64_t free_blocks;
};
struct look {
    struct look_member m[LOOK_IOMS_MAX];
    uint64_t size;        // of the file, at its starter
    uint64_t rows_faults; // what audit_disk says: only at rest is it to be 0
    uint64_t rows;
    // what is to be looked at
    struct array *a;
    struct handle h;
    struct refmap map;
    uint64_t seg;
    unsigned row;
    bool over, tell;
    char fault[200]; // the first; told when the looking is over, for a task cannot be left in the middle
    struct mem *mem; // of the node that looks
};

static inline void look_fault(struct look *l, const char *what) {
    if (!l->fault[0]) snprintf(l->fault, sizeof l->fault, "%s", what);
}
static inline bool look_expect(struct look *l, bool ok, const char *what) {
    if (!ok) look_fault(l, what);
    return ok;
}

// ---- reading one store
struct look_refs {
    struct look *l;
    struct look_member *m;
    void (*emit)(void *arg, block_addr at, uint32_t n);
    void *arg;
};

static inline void look_ref(void *arg, block_addr at, uint32_t n) {
    struct look_refs *x = arg;
    x->emit(x->arg, at, n);
    for (uint32_t i = 0; i < n; i++)
        if (look_expect(x->l, x->m->refs < LOOK_REFS_MAX, "more blocks than the look has room for"))
            x->m->ref[x->m->refs++] = at.n + i;
}

static inline void look_refs_of(void *ctx, enum tree_id t, const struct key *k, const void *val, uint32_t len,
                                void (*emit)(void *arg, block_addr at, uint32_t n), void *arg) {
    struct look_refs *x = ctx;
    x->emit = emit;
    x->arg = arg;
    if (t == TREE_LOCAL) row_record_refs(k, val, len, look_ref, x);
}

static inline void look_store_fault(void *ctx, const char *sentence) {
    look_fault(((struct look_refs *)ctx)->l, sentence);
}

static inline bool co_look_block(struct mem *mem, struct store *s, struct spot at, uint8_t *to) {
    struct buf *buf = buf_new(mem, BLOCK_BYTES);
    struct block_io io = {{at.at}, buf->data, at.crc};
    err e = co_store_read_blocks(s, &io, 1, NULL);
    if (to && e == OK) memcpy(to, buf->data, BLOCK_BYTES);
    buf_unref(buf);
    return e == OK;
}

static inline void co_look_entry(struct look *l, struct store *s, struct look_member *m) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = row_key(KIND_UPDATE, l->h, l->seg);
    err e = co_tree_get(s, TREE_LOCAL, &k, val, sizeof val, &len);
    if (e == ERR_NOENT) return;
    if (e == OK) e = row_update_decode(&m->update, val, len);
    if (!look_expect(l, e == OK, "an UPDATE cannot be read")) return;
    m->entry = m->update.rows >> l->row & 1;
    m->entry_whole = m->entry && co_look_block(l->mem, s, m->update.spot[l->row], NULL);
}

static inline void co_look_updates(struct store *s, struct look_member *m) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (struct key k = {{KIND_UPDATE}};; k = key_next(k)) {
        err e = co_tree_seek(s, TREE_LOCAL, &k, val, sizeof val, &len);
        if (e != OK || key_kind(&k) != KIND_UPDATE) return;
        m->updates++;
    }
}

// The CHUNK, through the decoder of the rows: in a segment that nobody else knows.
static inline void co_look_chunk(struct look *l, uint8_t iom, struct store *s, struct look_member *m) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    uint64_t versions[ROWS_MAX * ARRAY_IOMS_MAX] = {0};
    struct object o = {.h = l->h, .map = l->map};
    struct dseg d = {.s = {.o = &o, .role = ROW_DATA, .blocks = geo_seg_blocks(&l->map)}};
    struct pseg p = {.s = {.o = &o, .role = ROW_PARITY, .blocks = geo_seg_blocks(&l->map)},
                     .n = geo_data(&l->map),
                     .versions = versions};
    uint8_t role = geo_role(&l->map, geo_seg_stripe(&l->map, l->seg), refmap_position(&l->map, (iom_id){iom}));
    m->settled_whole = true;
    if (role == GEO_NOTHING) return;
    struct seg *seg = role == GEO_PARITY ? &p.s : &d.s;
    struct key k = row_key(KIND_CHUNK, l->h, l->seg);
    err e = co_tree_get(s, TREE_LOCAL, &k, val, sizeof val, &len);
    if (e == ERR_NOENT) return;
    if (e == OK) e = row_chunk_decode(seg, val, len);
    if (!look_expect(l, e == OK, "a CHUNK cannot be read")) return;
    m->place = seg->spot[l->row];
    if (role == GEO_PARITY)
        memcpy(m->version, versions + l->row * p.n, p.n * sizeof versions[0]);
    else
        m->version[0] = d.row_version[l->row];
    m->settled_whole = co_look_block(l->mem, s, m->place, m->block);
}

static inline void co_look_size(struct look *l, struct store *s) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = row_key(KIND_CNODE, l->h, 0);
    err e = co_tree_get(s, TREE_META, &k, val, sizeof val, &len);
    if (look_expect(l, e == OK, "the starter does not know the file"))
        l->size = le64_get(((const struct rec_cnode *)(const void *)val)->size);
}

static inline void co_look_member(struct look *l, uint8_t iom, struct store *s) {
    struct look_member *m = &l->m[iom];
    struct look_refs refs = {l, m};
    struct store_verify v = {.refs = look_refs_of, .fault = look_store_fault, .ctx = &refs};
    uint64_t faults, reached;
    m->free_blocks = store_blocks_free(s);
    co_look_entry(l, s, m);
    co_look_updates(s, m);
    co_look_chunk(l, iom, s, m);
    if (iom == l->h.starter) co_look_size(l, s);
    // The allocator is exactly what records reach, whatever was cut: allocations and releases lie in the journal with
    // the update (B3).
    look_expect(l, co_store_verify(s, &v, &faults, &reached) == OK, "a store cannot be verified");
}

// ---- all of them
static inline void look_rows_fault(void *ctx, const char *sentence) {
    struct look *l = ctx;
    l->rows_faults++;
    if (l->tell) look_fault(l, sentence);
}

static inline void look_disk_name(char out[16], const char *what, uint8_t n) {
    snprintf(out, 16, "%s%u", what, n);
}

static inline void co_look_all(struct look *l, struct env *env, struct store *s[]) {
    err e = OK;
    for (uint8_t i = 0; i < l->a->ioms; i++) co_look_member(l, i, s[i]);
    e = co_audit_disk(env, s, &l->a->shape, look_rows_fault, l, &l->rows);
    look_expect(l, e == OK, "the rows on the disks cannot be compared");
}

static inline void co_look(void *arg) {
    struct look *l = arg;
    struct env *env = node_env(node_find(l->a->world, "looker"));
    struct store *s[LOOK_IOMS_MAX] = {0};
    struct disk *d[LOOK_IOMS_MAX];
    struct store_config c = {.cache_bytes = MIB(1)};
    bool all = true;
    l->mem = env->mem;
    for (uint8_t i = 0; i < l->a->ioms; i++) {
        char name[16];
        look_disk_name(name, "look", i);
        err e = disk_open(env, &(struct disk_open_args){.path = name}, &d[i]);
        ASSERT(e == OK);
        all &= look_expect(l, co_store_open(d[i], &c, NULL, &s[i]) == OK, "a store cannot be opened");
    }
    if (all) co_look_all(l, env, s);
    for (uint8_t i = 0; i < l->a->ioms; i++) {
        if (s[i]) co_store_abandon(s[i]);
        co_disk_close(d[i]);
    }
    l->over = true;
}

static inline bool looking(void *ctx) {
    return !((struct look *)ctx)->over;
}

static inline void look_copy_disks(struct array *a, const char *from, const char *to) {
    for (uint8_t i = 0; i < a->ioms; i++) {
        char x[16], y[16];
        look_disk_name(x, from, i);
        look_disk_name(y, to, i);
        if (!world_disk_find(a->world, y))
            world_disk_add(a->world, y, world_disk_size_bytes(world_disk_find(a->world, x)));
        world_disk_image(world_disk_find(a->world, x), world_disk_find(a->world, y));
    }
}

// l->a .. l->row are set. `at_rest`: the array has recovered, and every row of it is to be whole.
static inline void look_at(struct look *l, bool at_rest) {
    struct world *w = l->a->world;
    struct node *n = node_find(w, "looker");
    if (!n) n = node_add(w, "looker");
    struct look what = {.a = l->a, .h = l->h, .map = l->map, .seg = l->seg, .row = l->row, .tell = at_rest};
    *l = what;
    look_copy_disks(l->a, "disk", "look");
    node_start(n, co_look, l);
    assert_true(world_run_while(w, looking, l, world_now_ns(w) + SEC(60)));
    node_crash(n);
    if (l->fault[0]) fail_msg("what a cut would leave: %s", l->fault);
}

static inline bool look_refers(const struct look_member *m, uint64_t at) {
    for (uint32_t i = 0; i < m->refs; i++)
        if (m->ref[i] == at) return true;
    return false;
}
