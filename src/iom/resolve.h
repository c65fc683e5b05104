// Resolution: what its files share. The story is told in resolve.c.
#pragma once
#include "iom/row_state.h"

struct todo { struct handle h; uint64_t number; struct update u; };
MUST_USE err co_resolve_object(struct rows *r, struct handle h, struct object **o); // pinned; its map from CNODE2. ERR_FORMAT without one
struct contents { struct buf *buf; row_mask rows; };         // 4 KiB a row, ascending
uint8_t *resolve_row(const struct contents *c, unsigned b);
MUST_USE err co_resolve_call(struct rows *r, iom_id to, const struct object *o, const struct req_resolve *q, const struct contents *c, struct msg **reply);

// resolve_members.c: co_one for the members of a mask (bit k), at once. One that fails fails it; all have ended.
typedef err (*co_member_fn)(struct pseg *p, uint8_t k, void *arg);
MUST_USE err co_resolve_members(struct pseg *p, uint16_t members, co_member_fn co_one, void *arg);
static inline uint16_t resolve_all(const struct pseg *p) { return (uint16_t)((1u << p->n) - 1); }

// resolve_gather.c: what P puts together from its row. `sum`: contents at their rows; *lost: rows of which that is not to be had
struct asked { struct resolve_state st; }; // of one data member
MUST_USE err co_resolve_ask(struct pseg *p, uint16_t members, struct asked *v); // those of the mask, at once; v: by k
MUST_USE err co_gather_block(struct pseg *p, const struct update *u, uint8_t k, row_mask rows, struct buf *sum, row_mask *lost); // k's block that u includes
MUST_USE err co_gather_parity(struct pseg *p, const struct update *u, row_mask rows, struct buf *sum, row_mask *lost);           // the parity that u describes
MUST_USE err co_gather_members(struct pseg *p, const struct update *u, row_mask rows, struct buf *sum, row_mask *lost);          // the same without the old one
MUST_USE err co_resolve_add(struct pseg *p, uint8_t k, struct req_resolve *q, row_mask rows, struct buf *sum, row_mask *bad);      // sum ^= k's; q: what, want
void resolve_tell_lost(const struct seg *s, row_mask rows, const char *what); // counted and named
uint32_t resolve_crc_lost(const uint8_t *data);                               // of a block that is not to be believed
MUST_USE err co_resolve_read(struct rows *r, const struct spot *spot, row_mask rows, uint8_t *packed, row_mask *bad);

// resolve_parity.c: P's decisions about one segment; each takes the segment's lock
MUST_USE err co_resolve_decide(struct rows *r, struct object *o, uint64_t seg);                                            // (b)
MUST_USE err co_resolve_enter(struct rows *r, struct object *o, uint64_t seg);                                             // (c)
MUST_USE err co_resolve_versions(struct rows *r, struct object *o, uint64_t seg, uint8_t k, struct resolve_decided *out);
MUST_USE err co_resolve_decided(struct rows *r, struct object *o, uint64_t seg, struct resolve_decided *out); // out->decided
iom_id resolve_member(const struct object *o, uint64_t seg, uint8_t k);

// resolve_data.c: D's part
MUST_USE err co_resolve_good(struct rows *r, const struct update *u, row_mask *good);      // blocks that are on disk
MUST_USE err co_resolve_complete(struct dseg *d, const struct update *u, row_mask settled, row_mask drop); // these become CHUNK's, those are dropped
MUST_USE err co_resolve_take(struct dseg *d, const struct req_resolve *q, const struct contents *delta);
MUST_USE err co_resolve_held(struct dseg *d, const struct req_resolve *q, const struct contents *delta);
MUST_USE err co_resolve_layers(struct dseg *d);                                            // the second layer over the first
MUST_USE err co_resolve_state(struct dseg *d, const struct req_resolve *q, struct resolve_state *out, struct contents *c);
MUST_USE err co_resolve_finish_alone(struct rows *r, struct handle h, uint64_t number, const struct update *u); // without protection: what is on disk is completed
MUST_USE err co_rows_segments(struct rows *r, struct inbound *in, struct msg **reply); // MSG_SEGMENTS
struct dseg *resolve_dseg(struct rows *r, struct object *o, uint64_t seg); // pinned; NULL: no data member of it
