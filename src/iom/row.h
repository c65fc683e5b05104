// The update protocol of one IOM (FIG. 1, 2, 15, 16): data and parity change together or not at all. Both sides, D (data) and P (parity), of
// every segment this IOM is a member of. Everything durable goes through store.h (TREE_LOCAL: CHUNK, UPDATE, secondary CNODE); everything said
// goes through `rows_port.post`, an ordered stream per pair of IOMs and epoch.
#pragma once
#include "layout/layout.h"
#include "store/store.h"
#include "wire/format.h"

struct rows;
struct rows_config { // 0 = default
    uint64_t cache_bytes;        // clean and dirty segment contents, accumulators included; default 64 MiB
    uint64_t dirty_bytes;        // beyond this writers wait and the flusher hurries; default cache/2
    uint64_t credit_bytes;       // accumulators P grants to each D; default 8 MiB
    uint64_t flush_age_ns;       // dirty blocks are frozen after this; default 300 ms
    bool stand_in;               // of an IOM that is not there, over the store of its proxy: what it has no record of is not here (row_missing.c)
};
struct rows_port {
    void *ctx;
    // D <-> P messages MSG_DELTA .. MSG_SETTLED; owns m; `to` is never oneself
    void (*post)(void *ctx, iom_id to, struct msg *m);
    struct msg *(*msg)(void *ctx, uint16_t type, uint32_t body_len); // body_len includes the envelope, which the hub fills
    // A call to another IOM's rows (MSG_RESOLVE, MSG_VERIFY, MSG_GATHER): owns req; *reply to be freed
    err (*co_call)(void *ctx, iom_id to, struct msg *req, struct msg **reply);
    // Makes a size >= end durable at the object's starter (or learns that it is): *durable_end is then what may harden. ERR_TRUNCATED, ERR_BUSY: the
    // object was cut or deleted meanwhile; the blocks will be discarded. ERR_STALE: nobody knows it any more. May be this IOM itself.
    err (*co_end_durable)(void *ctx, struct handle h, uint64_t end, uint32_t truncates, uint64_t *durable_end);
    // Data of the object changed here (gathered, about once a second and at fsync/flush): mtime, change counter of the starter
    void (*touch)(void *ctx, struct handle h, uint64_t mtime_ns);
};
struct rows *rows_create(struct env *e, struct store *s, iom_id self, const struct rows_port *port, const struct rows_config *c);
// Before phase 0: the service that shares this one's memory (a stand-in and its host): what those two alone hold is one copy, and goes to disk before it is
// acknowledged (I7). NO_IOM: none.
void rows_beside(struct rows *r, iom_id other);
void rows_destroy(struct rows *r);       // drops memory; nothing is written (tasks of its own have been told to end and are awaited by co_rows_stop)
void rows_cancel(struct rows *r);        // all that waits in rows ends with ERR_STOPPED, a phase of recovery too; co_rows_stop follows
err co_rows_stop(struct rows *r, bool harden); // ends its tasks; an error: not all that was held is on disk; harden: then everything held is made durable as far as that needs nobody else (D: what is
                                                // dirty, as UPDATEs; P: what it holds of each D, as HELD records), nothing is completed, no old place released

// ---- service (array running)
// Reads this member's part of [off, off+len) into dst (ascending pieces, contiguous in dst; `dst_cap` bytes). Holes are zeros. *got = bytes of this member.
MUST_USE err co_rows_read(struct rows *r, struct handle h, const struct refmap *m, uint64_t off, uint32_t len, uint8_t *dst, uint32_t dst_cap, uint32_t *got);
struct row_write {
    struct handle h;
    struct refmap map;
    uint64_t off;
    uint32_t len;
    struct slice data;       // this member's pieces, ascending; the rows keep references instead of copies where they can
    uint32_t truncates;
    uint64_t durable_end;
    uint8_t toughness;       // 0, 1, 2: what has happened when it returns
    uint8_t session[16]; uint32_t slot; uint64_t seq; // (session, slot, seq) of the write; a repeated one is known and not done again
    uint64_t mtime_ns;
    bool told;               // the object's starter hears of the write by itself: no touch
    void (*applied)(void *arg); // NULL, or called once the bytes are what a read finds here; what only joins or repeats another write does not
    void *arg;
};
MUST_USE err co_rows_write(struct rows *r, const struct row_write *w); // ERR_NOSPC, ERR_TRUNCATED, ERR_IO, ERR_STOPPED
MUST_USE err co_rows_fsync(struct rows *r, struct handle h, uint64_t durable_end, uint32_t truncates); // I3, this member's part
MUST_USE err co_rows_sync(struct rows *r); // the same for all that is dirty here; starters are told of what changed
MUST_USE err co_rows_zero(struct rows *r, struct handle h, const struct refmap *m, uint64_t off, uint64_t len, uint32_t truncates); // whole blocks become holes; settled on return
MUST_USE err co_rows_discard(struct rows *r, struct handle h, const struct refmap *m, uint64_t from_seg, uint32_t truncates, bool gone); // durable on return; idempotent
void rows_receive(struct rows *r, iom_id from, struct msg *m); // a post; owns m; never waits
void rows_call(struct rows *r, struct inbound *in);            // MSG_RESOLVE, MSG_VERIFY, MSG_GATHER, MSG_SEGMENTS from another IOM: answers it

// ---- recovery (resolve.c): what is left of updates after a stop or a power cut is decided. Phases with a barrier of all members between them;
// idempotent, restartable; co_call, and in phase 3 co_end_durable, work meanwhile
#define ROWS_RECOVERY_PHASES 6
MUST_USE err co_rows_recover(struct rows *r, uint32_t phase);  // 0 .. ROWS_RECOVERY_PHASES-1; after the last all is settled and durable

// Once in each service: starters are asked about objects of which a stop put the first record (row_doubt.c); what they do not know is discarded everywhere.
MUST_USE err co_rows_doubts(struct rows *r);

// ---- the return of one that was away (catch_up.c), between its stand-in's end and service
MUST_USE err co_rows_unsettled(struct rows *r); // its own updates were decided without it: remembers their segments
MUST_USE err co_rows_missed(struct rows *r, const struct key *k, const void *val, uint32_t len); // a CNODE2 or CHUNK of the stand-in; ERR_FORMAT
MUST_USE err co_rows_recheck(struct rows *r);   // the segments remembered; then its own updates, and what it held, go
// ---- a store that was replaced (row_census.c, replace.c)
MUST_USE err co_rows_blank_make(struct store *s);      // marks a store that was just made. Not synced
bool rows_blank(const struct rows *r);                 // it does not know yet what it lacks
MUST_USE err co_rows_blank_since(struct rows *r, uint64_t epoch); // it comes in this one. Durable on return; once is enough
MUST_USE err co_rows_census(struct rows *r, uint8_t ioms); // beside service, all others being there: afterwards a record tells all that is missing; durable
// ---- building what is missing (row_missing.c)
MUST_USE err co_rows_missing_count(struct rows *r);    // of the records: for progress, before building
MUST_USE err co_rows_build(struct rows *r);            // all of it, beside service; what is not to be had is told and left

// ---- check and figures
// Verifies on a quiet array every row whose parity chunk is here: parity equals the data of all members, checksums hold. One sentence per fault.
MUST_USE err co_rows_verify(struct rows *r, void (*fault)(void *ctx, const char *sentence), void *ctx, uint64_t *rows_verified, uint64_t *faults);
// Scrub, beside clients (row_scrub.c): reads all rows whose parity is here and what lies here without protection, and mends. Until the end, or a stop.
struct rows_scrub {
    bool running;
    err result;                  // of the last one, if none runs
    uint64_t done, total;        // segments
    uint64_t rows, bytes, rate;  // looked at, read (here and at the others), bytes a second (0: no limit)
    uint64_t found, mended, lost; // blocks
    uint64_t skipped;            // rows that were never at rest
    uint64_t elapsed_ns;
};
MUST_USE err rows_scrub_start(struct rows *r, uint64_t bytes_per_s); // OK also if one runs
void rows_scrub_look(const struct rows *r, struct rows_scrub *out);
void row_record_refs(const struct key *k, const void *val, uint32_t len, void (*emit)(void *arg, block_addr at, uint32_t n), void *arg); // blocks a CHUNK/UPDATE record holds
struct rows_stats { uint64_t writes, reads, deltas_sent, deltas_received, freezes, settled, rolled_forward, undone, dirty_bytes, cache_bytes;
                    uint64_t bad_blocks, mended_blocks, lost_blocks; // did not read; of these rebuilt; of these found not to be had (each time anew)
                    uint64_t built, missing_total, missing_done; }; // blocks that were missing (row_build.c)
void rows_stats(const struct rows *r, struct rows_stats *out);
