// Records of a tree in pages, as one IOM sends them to another: struct wire_record (names_format.h), one after the other, in key order.
#pragma once
#include "store/store.h"
#include "iom/names_format.h"

#define PAGE_OF_RECORDS_BYTES (192u << 10)
// What there is from *from on, as far as it fits `out` (PAGE_OF_RECORDS_BYTES). *more: there is more, from *next on.
MUST_USE err co_records_page(struct store *s, enum tree_id t, const struct key *from, uint8_t *out, uint32_t *len_bytes, struct key *next, bool *more);
const struct wire_record *record_next(const uint8_t **p, const uint8_t *end); // NULL: the end, or garbage (then *p != end)
