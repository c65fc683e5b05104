// Rows and objects as the stores alone tell them; see audit_disk.h.
#include "sim/audit_disk.h"

#include "base/sum.h"
#include "iom/row_format.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct disk_audit {
    struct env *env;
    struct store *const *stores;
    const struct array_shape *array;
    uint8_t ioms;
    void (*fault)(void *ctx, const char *sentence);
    void *ctx;
    uint64_t rows;
    uint8_t *sum, *block; // a row's xor, a block of it
};

// A CHUNK, with an entry for every row; absent ones are zero.
struct chunk_row {
    uint64_t at, version[ARRAY_IOMS_MAX];
    uint32_t crc;
};
struct chunk {
    uint8_t role, n; // role 0: there is none
    struct chunk_row row[SEG_BLOCKS_MAX];
};

static void PRINTF_LIKE(4, 5) tell(struct disk_audit *a, struct handle h, uint64_t seg, const char *fmt, ...) {
    char text[240];
    int n = snprintf(text, sizeof text, "object %u/%llx segment %llu: ", h.starter, (unsigned long long)h.index, (unsigned long long)seg);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    a->fault(a->ctx, text);
}

// ---- records
static bool chunk_decode(struct chunk *c, const uint8_t *val, uint32_t len) {
    struct row_chunk head;
    memset(c, 0, sizeof *c);
    if (len < sizeof head) return false;
    memcpy(&head, val, sizeof head);
    uint32_t rows = le16_get(head.rows), each = (uint32_t)sizeof(struct row_place) + 6u * head.n;
    if (!head.n || head.n > ARRAY_IOMS_MAX || len != sizeof head + (uint32_t)__builtin_popcount(rows) * each) return false;
    c->role = head.role;
    c->n = head.n;
    val += sizeof head;
    for (unsigned b = 0; b < SEG_BLOCKS_MAX; b++) {
        if (!(rows >> b & 1)) continue;
        struct row_place place;
        memcpy(&place, val, sizeof place);
        c->row[b].at = le48_get(place.at);
        c->row[b].crc = le32_get(place.crc);
        for (uint8_t k = 0; k < c->n; k++) {
            le48 v;
            memcpy(&v, val + sizeof place + 6u * k, sizeof v);
            c->row[b].version[k] = le48_get(v);
        }
        val += each;
    }
    return true;
}

static err co_chunk_get(struct disk_audit *a, uint8_t iom, const struct key *k, struct chunk *c) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    memset(c, 0, sizeof *c);
    err e = co_tree_get(a->stores[iom], TREE_LOCAL, k, val, sizeof val, &len);
    if (e == ERR_NOENT) return OK;
    if (!e && !chunk_decode(c, val, len)) e = ERR_FORMAT;
    return e;
}

// ERR_NOENT: this member has no CNODE2 of the object, or the starter no CNODE (told).
static err co_object_map(struct disk_audit *a, uint8_t iom, struct handle h, uint64_t seg, struct refmap *map) {
    uint8_t id[HANDLE_BYTES], val[RECORD_BYTES_MAX];
    struct row_cnode2 v;
    uint32_t len;
    handle_put(id, h);
    struct key k = key_make(KIND_CNODE2, id, 0), own = key_make(KIND_CNODE, id, 0);
    err e = co_tree_get(a->stores[iom], TREE_LOCAL, &k, &v, sizeof v, &len);
    if (e == ERR_NOENT) tell(a, h, seg, "IOM %u has a CHUNK without a CNODE2", iom);
    if (e) return e;
    if (len != sizeof v || refmap_at(map, v.map.b)) return ERR_FORMAT;
    if (h.starter >= a->ioms) return ERR_FORMAT;
    e = co_tree_get(a->stores[h.starter], TREE_META, &own, val, sizeof val, &len);
    if (e == ERR_NOENT) tell(a, h, seg, "IOM %u keeps a part of it, but its starter does not know it", iom);
    return e;
}

// ---- a row
static err co_add_block(struct disk_audit *a, uint8_t iom, const struct chunk_row *r, struct handle h, uint64_t seg, unsigned b) {
    uint32_t bad = 0;
    if (!r->at) return OK;
    struct block_io io = {{r->at}, a->block, r->crc};
    err e = co_store_read_blocks(a->stores[iom], &io, 1, &bad);
    if (bad) {
        tell(a, h, seg, "row %u: the block of IOM %u does not match its checksum", b, iom);
        return OK;
    }
    if (!e) xor_into(a->sum, a->block, BLOCK_BYTES);
    return e;
}

static err co_row(struct disk_audit *a, struct handle h, uint64_t seg, const struct refmap *map, uint8_t parity_iom, const struct chunk *parity,
                  const struct chunk *data, unsigned b) {
    uint64_t stripe = geo_seg_stripe(map, seg);
    memset(a->sum, 0, BLOCK_BYTES);
    err e = co_add_block(a, parity_iom, &parity->row[b], h, seg, b);
    for (uint8_t k = 0; k < geo_data(map) && !e; k++) {
        uint8_t iom = refmap_member(map, geo_data_pos(map, stripe, k)).n;
        uint64_t has = data[k].row[b].version[0], included = parity->row[b].version[k];
        if (has != included)
            tell(a, h, seg, "row %u: IOM %u has version %llu, the parity at IOM %u includes %llu", b, iom, (unsigned long long)has, parity_iom,
                 (unsigned long long)included);
        e = co_add_block(a, iom, &data[k].row[b], h, seg, b);
    }
    if (!e && !is_zero(a->sum, BLOCK_BYTES)) tell(a, h, seg, "row %u: the parity at IOM %u is not the xor of the data", b, parity_iom);
    a->rows++;
    return e;
}

static err co_segment(struct disk_audit *a, struct handle h, uint64_t seg, const struct refmap *map, const struct key *k, uint8_t parity_iom) {
    uint64_t stripe = geo_seg_stripe(map, seg);
    struct chunk *c = mem_alloc(a->env->mem, (ARRAY_IOMS_MAX + 1) * sizeof *c);
    err e = co_chunk_get(a, parity_iom, k, &c[ARRAY_IOMS_MAX]);
    for (uint8_t i = 0; i < geo_data(map) && !e; i++) e = co_chunk_get(a, refmap_member(map, geo_data_pos(map, stripe, i)).n, k, &c[i]);
    for (unsigned b = 0; b < geo_seg_blocks(map) && !e; b++) e = co_row(a, h, seg, map, parity_iom, &c[ARRAY_IOMS_MAX], c, b);
    mem_free(a->env->mem, c);
    return e;
}

// ---- all of them
// Every segment is checked once: from its parity, or, where that is missing, from whoever has a part of it.
static err co_chunk(struct disk_audit *a, uint8_t iom, const struct key *k) {
    struct handle h = handle_at(key_id(k));
    uint64_t seg = key_number(k);
    struct refmap map;
    struct chunk parity;
    err e = co_object_map(a, iom, h, seg, &map);
    if (e) return e == ERR_NOENT ? OK : e;
    uint8_t pos = refmap_position(&map, (iom_id){iom}), role = pos == NO_IOM ? GEO_NOTHING : geo_role(&map, geo_seg_stripe(&map, seg), pos);
    if (role == GEO_NOTHING) tell(a, h, seg, "IOM %u has a CHUNK, but is no member of it", iom);
    if (role == GEO_NOTHING || !geo_has_parity(&map)) return OK;
    uint8_t parity_iom = refmap_member(&map, geo_parity_pos(&map, geo_seg_stripe(&map, seg))).n;
    if (parity_iom == iom) return co_segment(a, h, seg, &map, k, iom);
    e = co_chunk_get(a, parity_iom, k, &parity);
    return !e && !parity.role ? co_segment(a, h, seg, &map, k, parity_iom) : e;
}

typedef err (*record_fn)(struct disk_audit *a, uint8_t iom, const struct key *k);

static err co_each(struct disk_audit *a, uint8_t iom, uint8_t kind, record_fn co_fn) {
    static const uint8_t zero[16];
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    for (struct key k = key_make(kind, zero, 0);; k = key_next(k)) {
        err e = co_tree_seek(a->stores[iom], TREE_LOCAL, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (!e && key_kind(&k) != kind)) return OK;
        if (!e) e = co_fn(a, iom, &k);
        if (e) return e;
    }
}

static uint8_t hosts_of(const struct array_shape *s) {
    uint8_t n = 0;
    for (uint8_t i = 0; i < s->ioms; i++) {
        uint8_t k = 0;
        while (s->host[k] != s->host[i]) k++;
        n += k == i;
    }
    return n;
}

static bool on_one_host(const struct disk_audit *a, iom_id x, iom_id y) { return a->array->host[x.n] == a->array->host[y.n]; }

// Of one stripe: each data member against its parity and the data members after it.
static void hosts_check(struct disk_audit *a, struct handle h, const struct refmap *map, uint64_t stripe) {
    iom_id parity = refmap_member(map, geo_parity_pos(map, stripe));
    for (uint8_t k = 0; k < geo_data(map); k++) {
        iom_id d = refmap_member(map, geo_data_pos(map, stripe, k));
        bool shared = on_one_host(a, d, parity);
        for (uint8_t l = (uint8_t)(k + 1); l < geo_data(map); l++) shared |= on_one_host(a, d, refmap_member(map, geo_data_pos(map, stripe, l)));
        if (shared) tell(a, h, stripe * geo_segs_per_chunk(map), "IOM %u is not the only member on its host", d.n);
    }
}

static err co_cnode2(struct disk_audit *a, uint8_t iom, const struct key *k) {
    struct refmap map;
    err e = co_object_map(a, iom, handle_at(key_id(k)), 0, &map);
    if (e) return e == ERR_NOENT ? OK : e;
    uint8_t least = map.protection == PROT_MIRROR ? 2 : 3;
    for (uint64_t stripe = 0; geo_has_parity(&map) && hosts_of(a->array) >= least && stripe < map.span; stripe++)
        hosts_check(a, handle_at(key_id(k)), &map, stripe);
    return OK;
}

err co_audit_disk(struct env *e, struct store *const stores[], const struct array_shape *array, void (*fault)(void *ctx, const char *sentence), void *ctx,
                  uint64_t *rows_checked) {
    struct disk_audit a = {.env = e, .stores = stores, .array = array, .ioms = array->ioms, .fault = fault, .ctx = ctx};
    struct buf *b = buf_new(e->mem, 2 * BLOCK_BYTES);
    err r = OK;
    a.sum = b->data;
    a.block = b->data + BLOCK_BYTES;
    for (uint8_t n = 0; n < a.ioms && !r; n++) {
        r = co_each(&a, n, KIND_CHUNK, co_chunk);
        if (!r) r = co_each(&a, n, KIND_CNODE2, co_cnode2);
    }
    buf_unref(b);
    *rows_checked = a.rows;
    return r;
}
