// Images of an array's disks, and what their stores say of rows; see atlas.h.
#include "sim/atlas.h"

#include "iom/row_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scan {
    struct atlas *t;
    const struct array *a;
    struct atlas_refused no;
    struct node *node;
    uint8_t iom;
    struct store *store;
    uint8_t *block;
    bool over;
};

static bool keep_nothing(void *ctx, const struct world_sector *s) { return false; }

static void place_add(struct atlas *t, const struct atlas_place *p) {
    if (t->len == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 512;
        t->place = realloc(t->place, t->cap * sizeof *t->place);
        ASSERT(t->place);
    }
    t->place[t->len++] = *p;
}

static void co_take_place(struct scan *s, struct atlas_place *p, struct spot spot) {
    if (!spot.at) return;
    struct block_io io = {{spot.at}, s->block, spot.crc};
    p->at = spot.at;
    p->bad = co_store_read_blocks(s->store, &io, 1, NULL) != OK || s->no.refused(s->no.ctx, s->iom, spot.at);
    place_add(s->t, p);
}

static bool co_map(struct scan *s, struct handle h, struct refmap *map) {
    uint8_t id[HANDLE_BYTES];
    struct row_cnode2 v;
    uint32_t len;
    handle_put(id, h);
    struct key k = key_make(KIND_CNODE2, id, 0);
    return co_tree_get(s->store, TREE_LOCAL, &k, &v, sizeof v, &len) == OK && len == sizeof v && refmap_at(map, v.map.b) == OK && geo_has_parity(map);
}

static void co_take_chunk(struct scan *s, struct atlas_place *p, const uint8_t *val, uint32_t len) {
    struct row_chunk head;
    if (len < sizeof head) return;
    memcpy(&head, val, sizeof head);
    uint32_t rows = le16_get(head.rows), each = (uint32_t)sizeof(struct row_place) + 6u * head.n;
    if (len != sizeof head + (uint32_t)__builtin_popcount(rows) * each) return;
    val += sizeof head;
    for (uint8_t b = 0; b < SEG_BLOCKS_MAX; b++) {
        if (!(rows >> b & 1)) continue;
        struct row_place place;
        memcpy(&place, val, sizeof place);
        p->row = b;
        if (p->role == ROW_DATA) p->off += b * (uint64_t)BLOCK_BYTES;
        co_take_place(s, p, (struct spot){le48_get(place.at), le32_get(place.crc)});
        if (p->role == ROW_DATA) p->off -= b * (uint64_t)BLOCK_BYTES;
        val += each;
    }
}

static void co_take_update(struct scan *s, struct atlas_place *p, const uint8_t *val, uint32_t len) {
    struct update u;
    uint64_t first = p->off;
    if (row_update_decode(&u, val, len) != OK) return;
    p->update = true;
    for (uint8_t b = 0; b < SEG_BLOCKS_MAX; b++) {
        if (!(u.rows >> b & 1)) continue;
        p->row = b;
        if (p->role == ROW_DATA) p->off = first + b * (uint64_t)BLOCK_BYTES;
        co_take_place(s, p, u.spot[b]);
    }
}

static void co_take_record(struct scan *s, const struct key *k, const uint8_t *val, uint32_t len) {
    struct atlas_place p = {.h = handle_at(key_id(k)), .seg = key_number(k) & ROW_KEY_SEG, .iom = s->iom, .off = ATLAS_NO_OFF};
    struct refmap map;
    if ((key_number(k) & ROW_KEY_HELD) || !co_map(s, p.h, &map)) return;
    uint8_t pos = refmap_position(&map, (iom_id){s->iom}), role = pos == NO_IOM ? GEO_NOTHING : geo_role(&map, geo_seg_stripe(&map, p.seg), pos);
    if (role == GEO_NOTHING) return;
    p.role = role == GEO_PARITY ? ROW_PARITY : ROW_DATA;
    if (p.role == ROW_DATA) p.off = geo_offset(&map, p.seg, role, 0);
    if (key_kind(k) == KIND_CHUNK) co_take_chunk(s, &p, val, len);
    else co_take_update(s, &p, val, len);
}

static void co_take_kind(struct scan *s, uint8_t kind) {
    static const uint8_t zero[16];
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (struct key k = key_make(kind, zero, 0);; k = key_next(k)) {
        if (co_tree_seek(s->store, TREE_LOCAL, &k, val, sizeof val, &len) != OK || key_kind(&k) != kind) return;
        co_take_record(s, &k, val, len);
    }
}

static void co_take_store(struct scan *s) {
    struct store_config c = {.cache_bytes = MIB(2)};
    struct disk *d, *journal;
    const struct sim_iom *i = &s->a->iom[s->iom];
    err e = co_array_disks_open(i, node_env(s->node), &d, &journal);
    c.journal = journal;
    if (!e) e = co_store_open(d, &c, NULL, &s->store);
    if (e) {
        snprintf(s->t->fault, sizeof s->t->fault, "IOM %u: its store, as it is without what is not flushed, cannot be opened: %s", s->iom, err_text(e));
        return;
    }
    co_take_kind(s, KIND_CHUNK);
    co_take_kind(s, KIND_UPDATE);
    co_store_abandon(s->store);
    if (journal) co_disk_close(journal);
    co_disk_close(d);
}

static void scan_main(void *arg) {
    struct scan *s = arg;
    struct buf *b = buf_new(node_env(s->node)->mem, BLOCK_BYTES);
    s->block = b->data;
    for (s->iom = 0; s->iom < s->a->ioms && !s->t->fault[0]; s->iom++) co_take_store(s);
    buf_unref(b);
    s->over = true;
}

static bool scanning(void *ctx) { return !((struct scan *)ctx)->over; }

static void image(struct world *to, struct world *from, const char *name) {
    if (name[0]) world_disk_image(world_disk_find(from, name), world_disk_add(to, name, BLOCK_BYTES));
}

static int by_row(const void *x, const void *y) {
    const struct atlas_place *a = x, *b = y;
    uint8_t i[HANDLE_BYTES], j[HANDLE_BYTES];
    handle_put(i, a->h);
    handle_put(j, b->h);
    int c = memcmp(i, j, HANDLE_BYTES);
    if (c) return c;
    if (a->seg != b->seg) return a->seg < b->seg ? -1 : 1;
    if (a->row != b->row) return a->row - b->row;
    if (a->iom != b->iom) return a->iom - b->iom;
    return a->at < b->at ? -1 : a->at > b->at;
}

void atlas_take(struct atlas *t, const struct array *a, struct atlas_refused no) {
    struct world *w = world_create(1, NULL);
    struct scan s = {.t = t, .a = a, .no = no, .node = node_add(w, "atlas")};
    *t = (struct atlas){0};
    world_keep_sectors(a->world, keep_nothing, NULL);
    for (uint8_t n = 0; n < a->ioms; n++) {
        image(w, a->world, a->iom[n].disk);
        image(w, a->world, a->iom[n].journal);
    }
    world_keep_sectors(a->world, NULL, NULL);
    node_start(s.node, scan_main, &s);
    ASSERT(world_run_while(w, scanning, &s, SEC(600)));
    world_destroy(w);
    if (t->fault[0]) t->len = 0;
    if (t->len) qsort(t->place, t->len, sizeof *t->place, by_row);
}

void atlas_free(struct atlas *t) {
    free(t->place);
    *t = (struct atlas){0};
}

bool atlas_same_row(const struct atlas_place *a, const struct atlas_place *b) { return handle_eq(a->h, b->h) && a->seg == b->seg && a->row == b->row; }
