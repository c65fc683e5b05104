// The hash map: a dense array of entries in order of insertion, and an open-addressing table of their numbers.
//
//   index:    | 0 | 3 | 0 | 1 | 2 | ...   linear probing from the key's hash; deletion moves followers back, no marks
//   entries:  | k,v | k,NULL (deleted) | k,v | ...      when full: compacted if a quarter are holes, else doubled
#include "base/map.h"
#include "base/sum.h"
#include <string.h>

#define FIRST_CAP 8u

static uint32_t stride(const struct map *m) { return m->key_bytes + (uint32_t)sizeof(void *); }
static uint8_t *key_at(const struct map *m, uint32_t n) { return m->entries + (size_t)n * stride(m); }
static void *value_at(const struct map *m, uint32_t n) {
    void *v;
    memcpy(&v, key_at(m, n) + m->key_bytes, sizeof v);
    return v;
}
static void value_set(struct map *m, uint32_t n, void *v) { memcpy(key_at(m, n) + m->key_bytes, &v, sizeof v); }

static uint32_t hash_of(const struct map *m, const void *key) {
    return (uint32_t)hash64(key, m->key_bytes, 0) & m->index_mask;
}

static void init(struct map *m, struct mem *mem, uint32_t key_bytes) {
    *m = (struct map){.mem = mem, .key_bytes = key_bytes};
}
void map_init(struct map *m, struct mem *mem) { init(m, mem, sizeof(uint64_t)); }
void map_init_key32(struct map *m, struct mem *mem) { init(m, mem, MAP_KEY32_BYTES); }

void map_fini(struct map *m) {
    mem_free(m->mem, m->entries);
    mem_free(m->mem, m->index);
    *m = (struct map){0};
}

void map_clear(struct map *m) {
    m->count = m->first = m->used = 0;
    if (m->index) memset(m->index, 0, sizeof m->index[0] * ((size_t)m->index_mask + 1));
}

// The place of the key in the index, or the empty place where it would go.
static uint32_t find(const struct map *m, const void *key) {
    uint32_t i = hash_of(m, key);
    while (m->index[i] && memcmp(key_at(m, m->index[i] - 1), key, m->key_bytes) != 0) i = (i + 1) & m->index_mask;
    return i;
}

static void compact(struct map *m) {
    uint32_t to = 0;
    for (uint32_t n = m->first; n < m->used; n++) {
        if (!value_at(m, n)) continue;
        if (to != n) memcpy(key_at(m, to), key_at(m, n), stride(m));
        to++;
    }
    m->first = 0;
    m->used = to;
}

static void grow(struct map *m) {
    ASSERT(m->cap < UINT32_MAX / 4);
    m->cap = m->cap ? 2 * m->cap : FIRST_CAP;
    m->entries = mem_realloc(m->mem, m->entries, (size_t)m->cap * stride(m));
    m->index = mem_realloc(m->mem, m->index, sizeof m->index[0] * 2 * m->cap);
    m->index_mask = 2 * m->cap - 1; // at most half full
}

static void make_room(struct map *m) {
    if (m->used < m->cap) return;
    uint32_t holes = m->used - m->count;
    compact(m);
    if (holes < m->cap / 4 || m->cap == 0) grow(m);
    memset(m->index, 0, sizeof m->index[0] * ((size_t)m->index_mask + 1));
    for (uint32_t n = 0; n < m->used; n++) m->index[find(m, key_at(m, n))] = n + 1;
}

static void *get(const struct map *m, const void *key) {
    if (m->count == 0) return NULL;
    uint32_t i = find(m, key);
    return m->index[i] ? value_at(m, m->index[i] - 1) : NULL;
}

static void *put(struct map *m, const void *key, void *value) {
    ASSERT(value && m->key_bytes);
    if (m->index) {
        uint32_t at = m->index[find(m, key)];
        if (at) {
            void *old = value_at(m, at - 1);
            value_set(m, at - 1, value);
            return old;
        }
    }
    make_room(m);
    memcpy(key_at(m, m->used), key, m->key_bytes);
    value_set(m, m->used, value);
    m->index[find(m, key)] = ++m->used;
    m->count++;
    return NULL;
}

// Empties place i: followers whose way from their hash leads over i move into it.
static void index_close(struct map *m, uint32_t i) {
    for (uint32_t j = (i + 1) & m->index_mask; m->index[j]; j = (j + 1) & m->index_mask) {
        uint32_t home = hash_of(m, key_at(m, m->index[j] - 1));
        if (((j - home) & m->index_mask) < ((j - i) & m->index_mask)) continue;
        m->index[i] = m->index[j];
        i = j;
    }
    m->index[i] = 0;
}

static void *del(struct map *m, const void *key) {
    if (m->count == 0) return NULL;
    uint32_t i = find(m, key), n = m->index[i];
    if (!n) return NULL;
    void *old = value_at(m, n - 1);
    index_close(m, i);
    value_set(m, n - 1, NULL);
    m->count--;
    while (m->first < m->used && !value_at(m, m->first)) m->first++; // so that a queue's head stays cheap to find
    return old;
}

void *map_get(const struct map *m, uint64_t key) {
    ASSERT(m->key_bytes == sizeof key);
    return get(m, &key);
}
void *map_put(struct map *m, uint64_t key, void *value) {
    ASSERT(m->key_bytes == sizeof key);
    return put(m, &key, value);
}
void *map_del(struct map *m, uint64_t key) {
    ASSERT(m->key_bytes == sizeof key);
    return del(m, &key);
}
void *map_get_key32(const struct map *m, const void *key) {
    ASSERT(m->key_bytes == MAP_KEY32_BYTES);
    return get(m, key);
}
void *map_put_key32(struct map *m, const void *key, void *value) {
    ASSERT(m->key_bytes == MAP_KEY32_BYTES);
    return put(m, key, value);
}
void *map_del_key32(struct map *m, const void *key) {
    ASSERT(m->key_bytes == MAP_KEY32_BYTES);
    return del(m, key);
}

bool map_next(const struct map *m, struct map_it *it) {
    uint32_t n = MAX(it->next, m->first);
    while (n < m->used && !value_at(m, n)) n++;
    if (n >= m->used) return false;
    it->next = n + 1;
    it->value = value_at(m, n);
    it->key = 0;
    it->key32 = key_at(m, n);
    if (m->key_bytes == sizeof it->key) memcpy(&it->key, key_at(m, n), sizeof it->key);
    return true;
}
