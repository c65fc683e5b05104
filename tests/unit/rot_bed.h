// What stories of rotten blocks share: the members of a row, what lies in the stores while the array is off, and how a
// block rots.
#pragma once
#include "iom/row_format.h"
#include "tests/unit/story.h"

#define CHUNK KIB(64)

// The members of stripe 0 (one segment, number 0): D[k] holds the file's bytes from k * CHUNK on.
struct row {
    uint8_t d[3], p;
};
static inline struct row row_of(const struct story *s) {
    struct row r = {.p = geo_locate(&s->file.map, 0).parity.n};
    for (unsigned k = 0; k < 3; k++) r.d[k] = geo_locate(&s->file.map, k * CHUNK).data.n;
    return r;
}

// ---- what lies in the stores while the array is off
struct look {
    struct story *s;
    struct node *node;
    struct sim_iom *iom;
    struct key key;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len; // 0: no such record
    bool over;
};
static inline bool looking(void *ctx) {
    return !((struct look *)ctx)->over;
}

static inline void look_main(void *arg) {
    struct look *l = arg;
    struct disk *d;
    struct store *st;
    assert_int_equal(disk_open(node_env(l->node), &(struct disk_open_args){.path = l->iom->disk}, &d), OK);
    assert_int_equal(co_store_open(d, &l->iom->config.store, NULL, &st), OK);
    err e = co_tree_get(st, TREE_LOCAL, &l->key, l->val, sizeof l->val, &l->len);
    if (e == ERR_NOENT)
        l->len = 0;
    else
        assert_int_equal(e, OK);
    co_store_abandon(st);
    co_disk_close(d);
    l->over = true;
}

static inline struct look look_at_number(struct story *s, uint8_t iom, uint8_t kind, uint64_t number) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, s->file.handle);
    struct look l = {.s = s, .node = s->a->iom[iom].node, .iom = &s->a->iom[iom], .key = key_make(kind, id, number)};
    node_start(l.node, look_main, &l);
    until(s, looking, &l);
    node_crash(l.node);
    return l;
}

static inline struct look look_at(struct story *s, uint8_t iom, uint8_t kind) {
    return look_at_number(s, iom, kind, 0);
}

static inline bool has_update(struct story *s, uint8_t iom) {
    return look_at(s, iom, KIND_UPDATE).len != 0;
}

static inline void place_rots(struct story *s, uint8_t iom, const uint8_t *at) {
    struct row_place place;
    memcpy(&place, at, sizeof place);
    assert_true(le48_get(place.at) != 0);
    world_disk_flip(world_disk_find(s->w, s->a->iom[iom].disk), le48_get(place.at) * BLOCK_BYTES + 77, 3);
}

// The first block of its UPDATE, or of its CHUNK, of segment 0: row 0 in all stories.
static inline void update_rots(struct story *s, uint8_t iom) {
    struct look l = look_at(s, iom, KIND_UPDATE);
    assert_true(l.len > sizeof(struct row_update));
    place_rots(s, iom, l.val + sizeof(struct row_update));
}
static inline void chunk_rots(struct story *s, uint8_t iom) {
    struct look l = look_at(s, iom, KIND_CHUNK);
    assert_true(l.len > sizeof(struct row_chunk));
    place_rots(s, iom, l.val + sizeof(struct row_chunk));
}

// After a recovery the first fsync of a client that wrote before may say EIO: it cannot know what was kept.
static inline void recovery_is_told(struct client *c) {
    begins(c, co_fsync);
    until(c->story, busy, c);
}

static inline struct row quiet_row(struct story *s) { // written, settled, and nothing of it in memory; still off
    story_begin(s, 1);
    file_is_written(s);
    idle(s, SEC(2));
    array_ask_stop(s->a);
    until(s, not_over, s);
    array_off(s->a);
    return row_of(s);
}

static inline void starts(struct story *s) {
    array_start(s->a);
    until(s, not_serving, s);
    recovery_is_told(&s->c[0]);
}

static inline void reads_eio(struct client *c, uint64_t off) {
    c->off = off;
    c->len = 4096;
    begins(c, co_read);
    until(c->story, busy, c);
    assert_int_equal(c->why, ERR_IO);
}
