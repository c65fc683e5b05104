// A node's memory: every allocation of one node hangs on one `struct mem`, so that a node that is killed (simulator)
// or closed gives all of it back, and what a node holds is counted. Aborts only if the machine itself is out of memory;
// limits are the business of those who reserve (credit, cache size, pool sizes), who ask before they allocate.
#pragma once
#include "base/common.h"
#include "base/list.h"

struct mem;
struct mem *mem_create(void);
void mem_destroy(struct mem *m);                      // frees everything that is left in it
void *mem_alloc(struct mem *m, size_t len_bytes);     // zeroed, 16-byte aligned, never NULL
void *mem_realloc(struct mem *m, void *p, size_t len_bytes); // new bytes are not zeroed
void mem_free(struct mem *m, void *p);                // NULL is fine
char *mem_strdup(struct mem *m, const char *s);
uint64_t mem_used_bytes(const struct mem *m);         // live allocations and bufs
uint64_t mem_spare_bytes(const struct mem *m);        // free bufs and up to 1 MiB of small allocations, kept for the next

// Refcounted data buffers, page-aligned for direct I/O, cached by size class (4 KiB, 64 KiB, 256 KiB, 1 MiB+64 KiB).
// A buf stays in its node: a reference never goes to another node's mem (msg_copy deep). Built with ASan nothing is
// cached, so that a use after the last unref is seen.
// Pages new from the machine cost more to clear than to fill, so free ones are kept: what is in use and what is spare are together never above
// the peak of what was in use (or this), so that whoever bounds the use bounds it all. Another class's spare goes before new pages come.
#define MEM_SPARE_MIN_BYTES (4u << 20)
struct buf_slab;
struct buf {
    struct mem *mem;
    uint8_t *data;      // cap_bytes long, aligned to BLOCK_BYTES
    uint32_t cap_bytes;
    uint32_t refs;
    struct list node;       // the holder's, free to use while there is a single holder
    struct buf_slab *slab;  // mem.c's
};
struct buf *buf_new(struct mem *m, uint32_t len_bytes); // one reference; content undefined; at most BUF_MAX_BYTES
struct buf *buf_ref(struct buf *b);
void buf_unref(struct buf *b);                          // NULL is fine
#define BUF_MAX_BYTES ((1u << 20) + (1u << 16))

// A part of a buffer. Owns one reference where a struct says so.
struct slice {
    struct buf *buf;
    uint32_t off_bytes, len_bytes;
};
static inline uint8_t *slice_data(struct slice s) { return s.buf->data + s.off_bytes; }
