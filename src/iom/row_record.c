// CHUNK, UPDATE and CNODE2 between their records (row_format.h) and memory.
#include "iom/row_state.h"

struct key row_key(uint8_t kind, struct handle h, uint64_t number) {
    uint8_t id[HANDLE_BYTES];
    handle_put(id, h);
    return key_make(kind, id, number);
}

static struct row_place place_of(struct spot s) { return (struct row_place){le48_of(s.at), le32_of(s.crc)}; }
static struct spot spot_of(struct row_place p) { return (struct spot){le48_get(p.at), le32_get(p.crc)}; }

// ---- CHUNK ----------------------------------------------------------------------------------------------------------

static bool p_present(const struct pseg *p, unsigned b) {
    if (p->s.spot[b].at) return true;
    for (uint8_t k = 0; k < p->n; k++)
        if (p->versions[b * p->n + k]) return true;
    return false;
}

static uint8_t *put_row(const struct seg *s, unsigned b, uint8_t *at) {
    struct row_place place = place_of(s->spot[b]);
    memcpy(at, &place, sizeof place);
    at += sizeof place;
    if (s->role == ROW_DATA) {
        le48 v = le48_of(((const struct dseg *)s)->row_version[b]);
        memcpy(at, &v, sizeof v);
        return at + sizeof v;
    }
    const struct pseg *p = (const struct pseg *)s;
    for (uint8_t k = 0; k < p->n; k++, at += sizeof(le48)) {
        le48 v = le48_of(p->versions[b * p->n + k]);
        memcpy(at, &v, sizeof v);
    }
    return at;
}

uint32_t row_chunk_encode(const struct seg *s, uint8_t *out) {
    row_mask rows = 0;
    uint8_t *at = out + sizeof(struct row_chunk);
    for (unsigned b = 0; b < s->blocks; b++) {
        bool present = s->role == ROW_DATA ? ((const struct dseg *)s)->row_version[b] != 0 : p_present((const struct pseg *)s, b);
        if (!present) continue;
        rows |= (row_mask)(1u << b);
        at = put_row(s, b, at);
    }
    struct row_chunk head = {s->role, s->role == ROW_PARITY ? ((const struct pseg *)s)->n : 1, le16_of(rows)};
    memcpy(out, &head, sizeof head);
    return rows ? (uint32_t)(at - out) : 0;
}

static const uint8_t *get_row(struct seg *s, unsigned b, const uint8_t *at) {
    struct row_place place;
    memcpy(&place, at, sizeof place);
    s->spot[b] = spot_of(place);
    at += sizeof place;
    le48 v;
    if (s->role == ROW_DATA) {
        struct dseg *d = row_d(s);
        memcpy(&v, at, sizeof v);
        d->row_version[b] = le48_get(v);
        d->version = MAX(d->version, (le48_get(v) + 1) & ~1ull);
        d->settled = d->version;
        return at + sizeof v;
    }
    struct pseg *p = row_p(s);
    for (uint8_t k = 0; k < p->n; k++, at += sizeof v) {
        memcpy(&v, at, sizeof v);
        p->versions[b * p->n + k] = le48_get(v);
    }
    return at;
}

err row_chunk_decode(struct seg *s, const uint8_t *val, uint32_t len) {
    struct row_chunk head;
    if (len < sizeof head) return ERR_FORMAT;
    memcpy(&head, val, sizeof head);
    uint8_t n = s->role == ROW_PARITY ? row_p(s)->n : 1;
    row_mask rows = le16_get(head.rows);
    uint32_t row_bytes = (uint32_t)sizeof(struct row_place) + 6u * n;
    if (head.role != s->role || head.n != n || rows >> s->blocks || len != sizeof head + row_count(rows) * row_bytes) return ERR_FORMAT;
    const uint8_t *at = val + sizeof head;
    ROW_FOR(rows, b) at = get_row(s, b, at);
    return OK;
}

err row_chunk_versions(const uint8_t *val, uint32_t len, uint8_t role, uint8_t columns, uint8_t blocks, uint64_t *out) {
    struct row_chunk head;
    if (len < sizeof head) return ERR_FORMAT;
    memcpy(&head, val, sizeof head);
    row_mask rows = le16_get(head.rows);
    uint32_t row_bytes = (uint32_t)sizeof(struct row_place) + 6u * columns;
    if (head.role != role || head.n != columns || rows >> blocks || len != sizeof head + row_count(rows) * row_bytes) return ERR_FORMAT;
    const uint8_t *at = val + sizeof head;
    ROW_FOR(rows, b) {
        at += sizeof(struct row_place);
        for (uint8_t k = 0; k < columns; k++, at += sizeof(le48)) {
            le48 v;
            memcpy(&v, at, sizeof v);
            out[b * columns + k] = le48_get(v);
        }
    }
    return OK;
}

void row_batch_chunk(struct batch *b, const struct seg *s) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len = row_chunk_encode(s, val);
    struct key k = row_key(KIND_CHUNK, s->o->h, s->n);
    if (len) batch_put(b, s->r->tree, &k, val, len);
    else batch_del(b, s->r->tree, &k);
}

// ---- UPDATE ---------------------------------------------------------------------------------------------------------

uint32_t row_update_encode(const struct update *u, uint8_t *out) {
    struct row_update head = {.role = u->role, .k = u->k, .rows = le16_of(u->rows), .version = le48_of(u->version),
                              .truncates = le32_of(u->truncates), .parts = u->parts, .count = (uint8_t)row_count(u->rows), .end = le64_of(u->end)};
    memcpy(out, &head, sizeof head);
    uint8_t *at = out + sizeof head;
    ROW_FOR(u->rows, b) {
        struct row_place place = place_of(u->spot[b]);
        memcpy(at, &place, sizeof place);
        at += sizeof place;
    }
    for (uint8_t i = 0; i < u->parts; i++) {
        struct row_part part = {le16_of(u->part[i].rows), le48_of(u->part[i].version << 4 | u->part[i].k)};
        memcpy(at, &part, sizeof part);
        at += sizeof part;
    }
    return (uint32_t)(at - out);
}

err row_update_decode(struct update *u, const uint8_t *val, uint32_t len) {
    struct row_update head;
    if (len < sizeof head) return ERR_FORMAT;
    memcpy(&head, val, sizeof head);
    *u = (struct update){.role = head.role, .k = head.k, .rows = le16_get(head.rows), .version = le48_get(head.version),
                         .truncates = le32_get(head.truncates), .parts = head.parts, .end = le64_get(head.end)};
    uint32_t count = row_count(u->rows);
    if (u->parts > ROW_PARTS_MAX || head.count != count ||
        len != sizeof head + count * sizeof(struct row_place) + u->parts * sizeof(struct row_part))
        return ERR_FORMAT;
    const uint8_t *at = val + sizeof head;
    ROW_FOR(u->rows, b) {
        struct row_place place;
        memcpy(&place, at, sizeof place);
        u->spot[b] = spot_of(place);
        at += sizeof place;
    }
    for (uint8_t i = 0; i < u->parts; i++) {
        struct row_part part;
        memcpy(&part, at, sizeof part);
        uint64_t vk = le48_get(part.version_k);
        u->part[i].k = vk & 15;
        u->part[i].version = vk >> 4;
        u->part[i].rows = le16_get(part.rows);
        at += sizeof part;
    }
    return OK;
}

err co_row_update_get(struct rows *r, struct handle h, uint64_t number, struct update *u) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = row_key(KIND_UPDATE, h, number);
    err e = co_tree_get(r->store, r->tree, &k, val, sizeof val, &len);
    return e == OK ? row_update_decode(u, val, len) : e;
}

void row_batch_update(struct rows *r, struct batch *b, struct handle h, uint64_t number, const struct update *u) {
    uint8_t val[RECORD_BYTES_MAX];
    struct key k = row_key(KIND_UPDATE, h, number);
    uint32_t len = row_update_encode(u, val);
    ASSERT(len <= RECORD_BYTES_ATOMIC);
    batch_put(b, r->tree, &k, val, len);
}

// ---- CNODE2, blocks -------------------------------------------------------------------------------------------------

static void batch_cnode2(struct batch *b, const struct object *o, uint32_t truncates, bool gone) {
    bool heard = !truncates && o->truncates;
    uint32_t flags = (gone ? ROW_CNODE2_GONE : 0) | (o->asks ? ROW_CNODE2_ASKS : 0) | (o->anew ? ROW_CNODE2_ANEW : 0) | (heard ? ROW_CNODE2_HEARD : 0);
    struct row_cnode2 v = {.truncates = le32_of(heard ? o->truncates : truncates), .flags = le32_of(flags)};
    refmap_put(v.map.b, &o->map);
    struct key k = row_key(KIND_CNODE2, o->h, 0);
    batch_put(b, o->r->tree, &k, &v, sizeof v);
}

void row_batch_cnode2(struct batch *b, struct object *o) { batch_cnode2(b, o, o->swept, o->gone && !o->sweeping); }
void row_batch_cnode2_swept(struct batch *b, struct object *o, uint32_t truncates) { batch_cnode2(b, o, truncates, o->gone); }

void row_batch_stored(struct batch *b, struct seg *s) {
    struct object *o = s->o;
    s->storing = o->stored ? 0 : o->swept + 1;
    if (s->storing) row_batch_cnode2(b, o);
}

err co_row_stored(struct seg *s) {
    uint32_t put = s->storing;
    s->storing = 0;
    return put ? co_row_cnode2_stored(s->o, put - 1) : OK;
}

err co_row_cnode2_stored(struct object *o, uint32_t put) {
    if (o->gone) return OK;
    if (put == o->swept) o->stored = true;
    if (put == o->swept || !o->stored) return OK;
    struct batch *b = batch_new(o->r->store); // a discard's was put first, and an older one lies over it now
    lsn at;
    row_batch_cnode2(b, o);
    batch_urgent(b);
    return co_batch_commit(b, &at);
}

void row_batch_free(struct batch *b, const struct spot *spot, row_mask rows) {
    uint64_t at = 0;
    uint32_t len = 0;
    ROW_FOR(rows, i) {
        if (!spot[i].at || spot[i].at == ROW_AT_MISSING) continue;
        if (len && spot[i].at == at + len) {
            len++;
            continue;
        }
        if (len) batch_free(b, (block_addr){at}, len);
        at = spot[i].at;
        len = 1;
    }
    if (len) batch_free(b, (block_addr){at}, len);
}

static void emit_places(const uint8_t *at, unsigned count, uint32_t stride, void (*emit)(void *arg, block_addr at, uint32_t n), void *arg) {
    for (unsigned i = 0; i < count; i++, at += stride) {
        struct row_place place;
        memcpy(&place, at, sizeof place);
        if (le48_get(place.at) && le48_get(place.at) != ROW_AT_MISSING) emit(arg, (block_addr){le48_get(place.at)}, 1);
    }
}

void row_record_refs(const struct key *k, const void *val, uint32_t len, void (*emit)(void *arg, block_addr at, uint32_t n), void *arg) {
    const uint8_t *v = val;
    if (key_kind(k) == KIND_UPDATE) {
        struct update u;
        if (row_update_decode(&u, val, len) != OK) return;
        emit_places(v + sizeof(struct row_update), row_count(u.rows), sizeof(struct row_place), emit, arg);
    } else if (key_kind(k) == KIND_CHUNK) {
        struct row_chunk head;
        if (len < sizeof head) return;
        memcpy(&head, v, sizeof head);
        unsigned count = row_count(le16_get(head.rows));
        uint32_t stride = (uint32_t)sizeof(struct row_place) + 6u * head.n;
        if (len == sizeof head + count * stride) emit_places(v + sizeof head, count, stride, emit, arg);
    }
}
