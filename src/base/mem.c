// A node's memory: tracked allocations, and page-aligned data buffers recycled by size class.
//
//   allocation:  | list node, length, owner | what the caller sees ... |      all linked in mem->allocs
//                small ones (messages, requests, tasks) are rounded up to SMALL_STEP and wait for the next of their size
//                when they are freed, SMALL_SPARE_BYTES in all
//   buf:         one slab = the `struct buf`s of one class and their pages; a class of small bufs has many in a slab,
//                because single aligned pages would cost the heap twice their size
//
//   slab states: full (in no list but `slabs`), partly free (front of the class's `avail`), wholly free (its back;
//                kept as long as bufs in use and spare slabs together are not above the peak of what was in use)
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifndef UNDER_ASAN
#define UNDER_ASAN 0
#endif

struct alloc {
    struct list node;
    size_t len_bytes;
    struct mem *mem; // a pointer freed at the wrong node is found at once
};
static_assert(sizeof(struct alloc) % 16 == 0, "what follows the header is 16-byte aligned");

#define SMALL_STEP 64u
#define SMALL_MAX 1024u // with the header
#define SMALL_SPARE_BYTES (1u << 20)

struct buf_slab {
    struct list all;   // in mem->slabs
    struct list avail; // in the class's list while it has a free buf
    struct list free;  // of buf.node
    uint8_t *pages;
    uint32_t class, free_count, buf_count;
    struct buf bufs[];
};

struct size_class {
    uint32_t buf_bytes, bufs_per_slab;
};
// Under ASan every buf is an allocation of its own and is really freed.
static const struct size_class classes[] = {
    {4u << 10, UNDER_ASAN ? 1 : 64},
    {64u << 10, 1},
    {256u << 10, 1},
    {BUF_MAX_BYTES, 1},
};
#define CLASS_COUNT ARRAY_LEN(classes)

struct mem {
    struct list allocs;
    struct list small[SMALL_MAX / SMALL_STEP + 1]; // free ones, by their size in steps
    uint64_t small_bytes;            // of those
    struct list slabs;
    struct list avail[CLASS_COUNT];
    uint64_t spare_bytes;            // of wholly free slabs
    uint64_t bufs_bytes, bufs_peak_bytes; // in use
    uint64_t used_bytes;
};

static void *or_abort(void *p) {
    if (!p) abort(); // the machine is out of memory: limits were to be kept before (mem.h)
    return p;
}

struct mem *mem_create(void) {
    struct mem *m = or_abort(calloc(1, sizeof *m));
    list_init(&m->allocs);
    list_init(&m->slabs);
    for (size_t i = 0; i < ARRAY_LEN(m->small); i++) list_init(&m->small[i]);
    for (size_t i = 0; i < CLASS_COUNT; i++) list_init(&m->avail[i]);
    return m;
}

static void slab_free(struct buf_slab *s) {
    list_remove(&s->all);
    list_remove(&s->avail);
    free(s->pages);
    free(s);
}

static void free_all(struct list *allocs) {
    LIST_FOR_SAFE(allocs, n) free(LIST_ENTRY(n, struct alloc, node));
}

void mem_destroy(struct mem *m) {
    free_all(&m->allocs);
    for (size_t i = 0; i < ARRAY_LEN(m->small); i++) free_all(&m->small[i]);
    LIST_FOR_SAFE(&m->slabs, n) slab_free(LIST_ENTRY(n, struct buf_slab, all));
    free(m);
}

uint64_t mem_used_bytes(const struct mem *m) { return m->used_bytes; }

uint64_t mem_spare_bytes(const struct mem *m) { return m->spare_bytes + m->small_bytes; }

// ---- allocations ----------------------------------------------------------------------------------------------------

static void *alloc_link(struct mem *m, struct alloc *a, size_t len_bytes) {
    a->len_bytes = len_bytes;
    a->mem = m;
    list_push_back(&m->allocs, &a->node);
    m->used_bytes += len_bytes;
    return a + 1;
}

static struct alloc *alloc_unlink(struct mem *m, void *p) {
    struct alloc *a = (struct alloc *)p - 1;
    ASSERT(a->mem == m);
    list_remove(&a->node);
    m->used_bytes -= a->len_bytes;
    return a;
}

// With the header; a small one is as large as any of its size in steps, also after mem_realloc, so that it may serve for any of them.
static size_t full_bytes(size_t len_bytes) {
    ASSERT(len_bytes <= SIZE_MAX / 2);
    size_t full = sizeof(struct alloc) + len_bytes;
    return UNDER_ASAN || full > SMALL_MAX ? full : (full + SMALL_STEP - 1) / SMALL_STEP * SMALL_STEP;
}

static struct alloc *small_take(struct mem *m, size_t full, size_t len_bytes) {
    if (full > SMALL_MAX || list_empty(&m->small[full / SMALL_STEP])) return NULL;
    struct alloc *a = LIST_ENTRY(list_pop_front(&m->small[full / SMALL_STEP]), struct alloc, node);
    m->small_bytes -= full;
    memset(a + 1, 0, len_bytes);
    return a;
}

static bool small_keep(struct mem *m, struct alloc *a) {
    size_t full = full_bytes(a->len_bytes);
    if (UNDER_ASAN || full > SMALL_MAX || m->small_bytes + full > SMALL_SPARE_BYTES) return false;
    list_push_front(&m->small[full / SMALL_STEP], &a->node);
    m->small_bytes += full;
    return true;
}

void *mem_alloc(struct mem *m, size_t len_bytes) {
    size_t full = full_bytes(len_bytes);
    struct alloc *a = small_take(m, full, len_bytes);
    return alloc_link(m, a ? a : or_abort(calloc(1, full)), len_bytes);
}

void *mem_realloc(struct mem *m, void *p, size_t len_bytes) {
    struct alloc *a = p ? alloc_unlink(m, p) : NULL;
    return alloc_link(m, or_abort(realloc(a, full_bytes(len_bytes))), len_bytes);
}

void mem_free(struct mem *m, void *p) {
    if (!p) return;
    struct alloc *a = alloc_unlink(m, p);
    a->mem = NULL; // a second free is met by the assertion
    if (!small_keep(m, a)) free(a);
}

char *mem_strdup(struct mem *m, const char *s) {
    size_t len = strlen(s) + 1;
    return memcpy(mem_alloc(m, len), s, len);
}

// ---- bufs -----------------------------------------------------------------------------------------------------------

static uint32_t class_of(uint32_t len_bytes) {
    ASSERT(len_bytes <= BUF_MAX_BYTES);
    uint32_t c = 0;
    while (classes[c].buf_bytes < len_bytes) c++;
    return c;
}

// The new slab is in no `avail` list yet; all its bufs are free.
static struct buf_slab *slab_new(struct mem *m, uint32_t class) {
    const struct size_class *c = &classes[class];
    struct buf_slab *s = or_abort(calloc(1, sizeof *s + c->bufs_per_slab * sizeof s->bufs[0]));
    s->pages = or_abort(aligned_alloc(BLOCK_BYTES, (size_t)c->bufs_per_slab * c->buf_bytes));
    s->class = class;
    s->free_count = s->buf_count = c->bufs_per_slab;
    list_init(&s->free);
    list_init(&s->avail);
    list_push_back(&m->slabs, &s->all);
    for (uint32_t i = 0; i < s->buf_count; i++) {
        uint8_t *data = s->pages + (size_t)i * c->buf_bytes;
        s->bufs[i] = (struct buf){.mem = m, .data = data, .cap_bytes = c->buf_bytes, .slab = s};
        list_push_back(&s->free, &s->bufs[i].node);
    }
    return s;
}

static uint64_t slab_bytes(uint32_t class) { return (uint64_t)classes[class].bufs_per_slab * classes[class].buf_bytes; }

// Whether bytes more in slabs would leave us within what was in use at the peak.
static bool within_peak(const struct mem *m, uint64_t more_bytes) {
    return m->bufs_bytes + m->spare_bytes + more_bytes <= MAX(m->bufs_peak_bytes, (uint64_t)MEM_SPARE_MIN_BYTES);
}

static struct buf_slab *spare_slab(struct mem *m, uint32_t class) {
    if (list_empty(&m->avail[class])) return NULL;
    struct buf_slab *s = LIST_ENTRY(m->avail[class].prev, struct buf_slab, avail);
    return s->free_count == s->buf_count ? s : NULL;
}

// What another class has spare makes room for a new slab, the large ones first.
static void give_back(struct mem *m, uint64_t room_bytes) {
    for (uint32_t class = CLASS_COUNT; class-- && m->spare_bytes;)
        for (struct buf_slab *s; !within_peak(m, room_bytes) && (s = spare_slab(m, class));) {
            m->spare_bytes -= slab_bytes(class);
            slab_free(s);
        }
}

static struct buf_slab *slab_with_room(struct mem *m, uint32_t class) {
    struct list *avail = &m->avail[class];
    if (!list_empty(avail)) return LIST_ENTRY(avail->next, struct buf_slab, avail);
    give_back(m, slab_bytes(class));
    struct buf_slab *s = slab_new(m, class);
    list_push_front(avail, &s->avail);
    m->spare_bytes += slab_bytes(class);
    return s;
}

struct buf *buf_new(struct mem *m, uint32_t len_bytes) {
    struct buf_slab *s = slab_with_room(m, class_of(len_bytes));
    if (s->free_count == s->buf_count) m->spare_bytes -= slab_bytes(s->class);
    if (--s->free_count == 0) list_remove(&s->avail);
    struct buf *b = LIST_ENTRY(list_pop_front(&s->free), struct buf, node);
    b->refs = 1;
    m->used_bytes += b->cap_bytes;
    m->bufs_bytes += b->cap_bytes;
    m->bufs_peak_bytes = MAX(m->bufs_peak_bytes, m->bufs_bytes);
    return b;
}

struct buf *buf_ref(struct buf *b) {
    ASSERT(b->refs > 0 && b->refs < UINT32_MAX);
    b->refs++;
    return b;
}

static void slab_take_back(struct mem *m, struct buf_slab *s, struct buf *b) {
    list_push_front(&s->free, &b->node); // its pages are likely still in the processor's cache
    if (s->free_count++ == 0) list_push_front(&m->avail[s->class], &s->avail);
    if (s->free_count < s->buf_count) return;
    if (UNDER_ASAN || !within_peak(m, slab_bytes(s->class))) {
        slab_free(s);
        return;
    }
    m->spare_bytes += slab_bytes(s->class);
    list_remove(&s->avail);
    // Slabs in part use come first, so that the others can become wholly free. One buf a slab: the warmest first.
    if (s->buf_count == 1) list_push_front(&m->avail[s->class], &s->avail);
    else list_push_back(&m->avail[s->class], &s->avail);
}

void buf_unref(struct buf *b) {
    if (!b) return;
    ASSERT(b->refs > 0);
    if (--b->refs > 0) return;
    struct mem *m = b->mem;
    m->used_bytes -= b->cap_bytes;
    m->bufs_bytes -= b->cap_bytes;
    slab_take_back(m, b->slab, b);
}
