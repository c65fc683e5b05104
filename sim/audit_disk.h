// Rows and objects as the stores alone tell them: a second opinion that shares nothing with the code of the rows but the formats and the geometry.
#pragma once
#include "store/store.h"

// Of every parity CHUNK: its block and the members' blocks match their checksums, the versions it includes are those of the members, and it is the xor of
// their data. Every CHUNK has its CNODE2 and both have their object at the starter; a CHUNK that no parity includes is a fault as well.
MUST_USE err co_audit_disk(struct env *e, struct store *const stores[], uint8_t ioms, void (*fault)(void *ctx, const char *sentence), void *ctx,
                           uint64_t *rows_checked);
