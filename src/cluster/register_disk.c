// The register's storage in a real store: its two register blocks.
#include "cluster/register.h"
#include "store/store.h"

_Static_assert(REGISTER_RECORD_BYTES_MAX <= REGISTER_BYTES_MAX, "a record fits the store's register block");

static err co_blocks_read(void *ctx, uint8_t *buf, uint32_t *len_bytes) {
    return co_register_blocks_read(ctx, buf, len_bytes);
}
static err co_blocks_write(void *ctx, const uint8_t *buf, uint32_t len_bytes) {
    return co_register_blocks_write(ctx, buf, len_bytes);
}

struct register_storage register_storage_of_disk(struct disk *d) {
    return (struct register_storage){co_blocks_read, co_blocks_write, d};
}
