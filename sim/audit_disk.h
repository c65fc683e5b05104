// Rows and objects as the stores alone tell them: a second opinion that shares nothing with the code of the rows but the formats and the geometry.
#pragma once
#include "layout/layout.h"
#include "store/store.h"

// Of every parity CHUNK: its block and the members' blocks match their checksums, the versions it includes are those of the members, and it is the xor of
// their data. Every CHUNK has its CNODE2 and both have their object at the starter; a CHUNK that no parity includes is a fault as well. No stripe has two
// members on one host, if there are as many hosts as the protection needs members at least.
MUST_USE err co_audit_disk(struct env *e, struct store *const stores[], const struct array_shape *array, void (*fault)(void *ctx, const char *sentence), void *ctx,
                           uint64_t *rows_checked);
