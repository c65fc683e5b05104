// The register's two alternating blocks: what a voter promised and accepted. A write goes to the older or damaged one
// and is flushed, so a torn write leaves the other with the value before. What is read is flushed, too: who wrote it may
// have died before it was, and nobody may answer by it, or write over the other block, before it is durable. They lie outside journal and allocator: a
// full store still votes. Used without an open store; the caller writes one at a time.
#include "store/inside.h"

static uint32_t register_crc(const struct register_block *r) {
    return crc32c(0, &r->len_bytes, sizeof *r - offsetof(struct register_block, len_bytes));
}

static bool register_valid(const struct register_block *r) {
    return memcmp(r->magic, REGISTER_MAGIC, sizeof r->magic) == 0 && le32_get(r->crc) == register_crc(r) &&
           le32_get(r->len_bytes) <= REGISTER_BYTES_MAX;
}
// Which of the two is the newest valid one; -1: none.
static err co_registers_load(struct disk *d, struct buf *buf, int *newest) {
    err e = co_disk_read(d, 2 * BLOCK_BYTES, buf->data, 2 * BLOCK_BYTES);
    if (e != OK) return e;
    const struct register_block *r = (const struct register_block *)buf->data;
    *newest = -1;
    for (int i = 0; i < 2; i++)
        if (register_valid(&r[i]) && (*newest < 0 || le64_get(r[i].generation) > le64_get(r[*newest].generation)))
            *newest = i;
    return OK;
}
err co_register_blocks_read(struct disk *d, uint8_t *buf, uint32_t *len_bytes) {
    struct buf *b = buf_new(d->env->mem, 2 * BLOCK_BYTES);
    int newest;
    err e = co_registers_load(d, b, &newest);
    *len_bytes = 0;
    if (e == OK && newest >= 0) {
        const struct register_block *r = (const struct register_block *)b->data + newest;
        *len_bytes = le32_get(r->len_bytes);
        memcpy(buf, r->value, *len_bytes);
    }
    buf_unref(b);
    return e == OK && *len_bytes ? co_disk_flush(d) : e;
}
err co_register_blocks_write(struct disk *d, const uint8_t *buf, uint32_t len_bytes) {
    ASSERT(len_bytes <= REGISTER_BYTES_MAX);
    struct buf *b = buf_new(d->env->mem, 2 * BLOCK_BYTES);
    struct register_block *r = (struct register_block *)b->data;
    int newest;
    err e = co_registers_load(d, b, &newest);
    if (e == OK) {
        uint64_t generation = newest < 0 ? 1 : le64_get(r[newest].generation) + 1;
        uint64_t slot = newest < 0 ? 0 : 1 - (uint64_t)newest;
        *r = (struct register_block){.len_bytes = le32_of(len_bytes), .generation = le64_of(generation)};
        memcpy(r->magic, REGISTER_MAGIC, sizeof r->magic);
        memcpy(r->value, buf, len_bytes);
        r->crc = le32_of(register_crc(r));
        e = co_disk_write(d, (2 + slot) * BLOCK_BYTES, b->data, BLOCK_BYTES);
    }
    if (e == OK) e = co_disk_flush(d);
    buf_unref(b);
    return e;
}
