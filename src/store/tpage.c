// Tree pages: slotted leaves and arrays of children, worked on in place in their on-disk form, so that a page is never
// encoded or decoded. A leaf's removed cells stay as garbage until an insertion needs their space.
#include "store/tpage.h"

static struct inner_entry *entries(const uint8_t *p) {
    return (struct inner_entry *)(uintptr_t)(p + TPAGE_HEAD);
}
static le16 *slots(const uint8_t *p) {
    return (le16 *)(uintptr_t)(p + TPAGE_HEAD);
}
static const uint8_t *cell(const uint8_t *p, uint32_t i) {
    return p + le16_get(slots(p)[i]);
}
static uint32_t value_len(const uint8_t *c) {
    return c[KEY_BYTES] | (uint32_t)c[KEY_BYTES + 1] << 8;
}

void tpage_init(uint8_t *p, uint8_t tree, uint8_t level) {
    memset(p, 0, BLOCK_BYTES);
    *tpage_head(p) =
        (struct tpage_head){.magic = le16_of(TPAGE_MAGIC), .tree = tree, .level = level, .heap = le16_of(BLOCK_BYTES)};
}

static bool leaf_check(const uint8_t *p, uint32_t count) {
    uint32_t heap = le16_get(tpage_head(p)->heap), garbage = le16_get(tpage_head(p)->garbage);
    if (heap > BLOCK_BYTES || TPAGE_HEAD + 2 * count > heap) return false;
    uint32_t live = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = le16_get(slots(p)[i]);
        if (at < heap || at + CELL_HEAD > BLOCK_BYTES) return false;
        uint32_t len = value_len(p + at);
        if (len > RECORD_BYTES_MAX || at + CELL_HEAD + len > BLOCK_BYTES) return false;
        if (i > 0 && key_cmp(cell(p, i - 1), p + at) >= 0) return false;
        live += CELL_HEAD + len;
    }
    return live + garbage == BLOCK_BYTES - heap;
}
static bool inner_check(const uint8_t *p, uint32_t count) {
    if (count == 0 || count > INNER_MAX) return false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t addr = le48_get(entries(p)[i].addr);
        if (addr == 0 || addr >> 47 != 0) return false; // bit 47 names pages in memory, never on disk
        if (i > 1 && key_cmp(entries(p)[i - 1].key, entries(p)[i].key) >= 0) return false;
    }
    return true;
}
bool tpage_check(const uint8_t *p, uint8_t tree, uint8_t level) {
    const struct tpage_head *h = tpage_head(p);
    if (le16_get(h->magic) != TPAGE_MAGIC || h->tree != tree || h->level != level) return false;
    return level == 0 ? leaf_check(p, le16_get(h->count)) : inner_check(p, le16_get(h->count));
}

// ---- leaves
uint32_t leaf_find(const uint8_t *p, const uint8_t *key, bool *found) {
    uint32_t lo = 0, hi = tpage_count(p);
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        int c = key_cmp(cell(p, mid), key);
        if (c == 0) return *found = true, mid;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}
const uint8_t *leaf_key(const uint8_t *p, uint32_t i) {
    return cell(p, i);
}
const uint8_t *leaf_value(const uint8_t *p, uint32_t i, uint32_t *len) {
    const uint8_t *c = cell(p, i);
    *len = value_len(c);
    return c + CELL_HEAD;
}
uint32_t leaf_live_bytes(const uint8_t *p) {
    return 2 * tpage_count(p) + BLOCK_BYTES - le16_get(tpage_head(p)->heap) - le16_get(tpage_head(p)->garbage);
}

static void leaf_compact(uint8_t *p) {
    uint8_t old[BLOCK_BYTES];
    memcpy(old, p, BLOCK_BYTES);
    uint32_t heap = BLOCK_BYTES;
    for (uint32_t i = 0; i < tpage_count(old); i++) {
        const uint8_t *c = cell(old, i);
        uint32_t len = CELL_HEAD + value_len(c);
        heap -= len;
        memcpy(p + heap, c, len);
        slots(p)[i] = le16_of((uint16_t)heap);
    }
    memset(p + TPAGE_HEAD + 2 * tpage_count(p), 0, heap - TPAGE_HEAD - 2 * tpage_count(p));
    tpage_head(p)->heap = le16_of((uint16_t)heap);
    tpage_head(p)->garbage = le16_of(0);
}
bool leaf_insert(uint8_t *p, uint32_t i, const uint8_t *key, const void *val, uint32_t len) {
    struct tpage_head *h = tpage_head(p);
    uint32_t count = tpage_count(p), cell_len = CELL_HEAD + len;
    if (leaf_live_bytes(p) + leaf_cell_bytes(len) > TPAGE_SPACE) return false;
    if (le16_get(h->heap) < TPAGE_HEAD + 2 * count + leaf_cell_bytes(len)) leaf_compact(p);
    uint32_t at = le16_get(h->heap) - cell_len;
    memcpy(p + at, key, KEY_BYTES);
    p[at + KEY_BYTES] = (uint8_t)len;
    p[at + KEY_BYTES + 1] = (uint8_t)(len >> 8);
    if (len > 0) memcpy(p + at + CELL_HEAD, val, len);
    memmove(&slots(p)[i + 1], &slots(p)[i], 2 * (count - i));
    slots(p)[i] = le16_of((uint16_t)at);
    h->heap = le16_of((uint16_t)at);
    h->count = le16_of((uint16_t)(count + 1));
    return true;
}
void leaf_remove(uint8_t *p, uint32_t i) {
    struct tpage_head *h = tpage_head(p);
    uint32_t count = tpage_count(p), at = le16_get(slots(p)[i]), len = CELL_HEAD + value_len(cell(p, i));
    if (at == le16_get(h->heap))
        h->heap = le16_of((uint16_t)(at + len)); // the youngest cell: no garbage
    else
        h->garbage = le16_of((uint16_t)(le16_get(h->garbage) + len));
    memmove(&slots(p)[i], &slots(p)[i + 1], 2 * (count - 1 - i));
    h->count = le16_of((uint16_t)(count - 1));
}

// How many of the records stay in the left page so that both halves, the new one counted in, come nearest to equal.
// A record at the end of the page goes to the new page alone: ascending keys leave full pages behind.
uint32_t leaf_split_point(const uint8_t *p, uint32_t at, uint32_t len, bool *left) {
    uint32_t count = tpage_count(p);
    *left = false;
    if (at == count) return count;
    uint32_t total = leaf_live_bytes(p) + leaf_cell_bytes(len), sum = 0;
    for (uint32_t m = 0;; m++) { // m of the records, the new one among them, are left so far: sum bytes
        uint32_t next;
        if (m == at)
            next = leaf_cell_bytes(len);
        else
            next = leaf_cell_bytes(value_len(cell(p, m < at ? m : m - 1)));
        if (2 * sum + next >= total) { // one more would be farther from the half
            *left = at < m;
            return *left ? m - 1 : m;
        }
        sum += next;
    }
}
void leaf_move(uint8_t *from, uint32_t first, uint8_t *to) {
    uint32_t count = tpage_count(from);
    for (uint32_t i = first; i < count; i++) {
        const uint8_t *c = cell(from, i);
        bool fits = leaf_insert(to, tpage_count(to), c, c + CELL_HEAD, value_len(c));
        ASSERT(fits);
    }
    tpage_head(from)->count = le16_of((uint16_t)first);
    leaf_compact(from);
}

// ---- inner pages
uint32_t inner_find(const uint8_t *p, const uint8_t *key) {
    uint32_t lo = 1, hi = tpage_count(p); // entry 0 takes all that is less than entry 1
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (key_cmp(entries(p)[mid].key, key) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo - 1;
}
struct child inner_child(const uint8_t *p, uint32_t i) {
    return (struct child){le48_get(entries(p)[i].addr), le32_get(entries(p)[i].crc)};
}
const uint8_t *inner_key(const uint8_t *p, uint32_t i) {
    return entries(p)[i].key;
}
void inner_set_child(uint8_t *p, uint32_t i, struct child c) {
    entries(p)[i].addr = le48_of(c.addr);
    entries(p)[i].crc = le32_of(c.crc);
}
void inner_set_key(uint8_t *p, uint32_t i, const uint8_t *key) {
    memcpy(entries(p)[i].key, key, KEY_BYTES);
}

static void set_count(uint8_t *p, uint32_t count) {
    tpage_head(p)->count = le16_of((uint16_t)count);
}

void inner_insert(uint8_t *p, uint32_t i, const uint8_t *key, struct child c) {
    uint32_t count = tpage_count(p);
    memmove(&entries(p)[i + 1], &entries(p)[i], (count - i) * sizeof(struct inner_entry));
    inner_set_key(p, i, key);
    inner_set_child(p, i, c);
    set_count(p, count + 1);
}
void inner_remove(uint8_t *p, uint32_t i) {
    uint32_t count = tpage_count(p);
    memmove(&entries(p)[i], &entries(p)[i + 1], (count - 1 - i) * sizeof(struct inner_entry));
    memset(&entries(p)[count - 1], 0, sizeof(struct inner_entry));
    set_count(p, count - 1);
}
void inner_move(uint8_t *from, uint32_t first, uint8_t *to) {
    uint32_t n = tpage_count(from) - first, have = tpage_count(to);
    ASSERT(have + n <= INNER_MAX);
    memcpy(&entries(to)[have], &entries(from)[first], n * sizeof(struct inner_entry));
    memset(&entries(from)[first], 0, n * sizeof(struct inner_entry));
    set_count(to, have + n);
    set_count(from, first);
}
