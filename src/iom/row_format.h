// What rows keep on disk (TREE_LOCAL) and say to each other: the value formats of CHUNK, UPDATE, HELD and CNODE2, and the bodies of
// MSG_DELTA .. MSG_SETTLED, MSG_RESOLVE, MSG_VERIFY, MSG_GATHER.
//
// Keys are (kind, handle, number); number = segment, with these bits above it (a segment number is below 2^50):
//
//   KIND_UPDATE  bit 63      D's *second layer*: what lay over the version in flight when this IOM was told to stop (co_rows_stop)
//                bit 62      HELD: a delta that P held for a member that failed; bit 61: of the open version (else the frozen one), bits 56..59: k
//
//   struct row_chunk           offset      struct row_update          offset
//   role                       0           role                       0
//   n                          1           k (data), 0xff (parity)    1
//   rows present (le16)        2           rows (le16)                2
//   entries, ascending rows:   4           version (data, HELD)       4
//     data:   row_chunk_data  16 each      truncates                  10
//     parity: row_place 10,                parts, row count           14, 15
//             then n versions  6 each      end (data, after a stop)   16
//                                          row_place per row          24, 10 each
//                                          row_part per part          8 each (parity: the participants)
//
// at = ROW_AT_MISSING: the block is not here; it is put together from its row.
// A row that is not present is a hole that was never written: address 0, version 0. A hole that was punched is present, with address 0.
// A block that is lost (recovery had two bad blocks in a row) has a place whose checksum does not match: whoever reads it is told so.
// `end`: not 0 if the update was hardened at a stop, when the object's end could not be asked to be durable first: the highest byte it reaches. Recovery
// asks before it lets such an update enter the parity.
// The version of a row is that of the last freeze that touched it. D counts in steps of two; odd versions are those that P gave to what it held
// for a failed member.
#pragma once
#include "iom/records.h"
#include "layout/layout.h"
#include "store/store.h"
#include "wire/format.h"

#define ROW_AT_MISSING 0xffffffffffffull // row_place.at of a CHUNK: the block is not here (row_missing.c)

#define ROW_KEY_SECOND (1ull << 63)
#define ROW_KEY_HELD (1ull << 62)
#define ROW_KEY_HELD_OPEN (1ull << 61)
#define ROW_KEY_HELD_K_SHIFT 56
#define ROW_KEY_SEG ((1ull << ROW_KEY_HELD_K_SHIFT) - 1)

enum row_role { ROW_DATA = 1, ROW_PARITY = 2 };

struct row_place { le48 at; le32 crc; };
struct row_chunk_data { struct row_place place; le48 version; };
struct row_chunk { uint8_t role, n; le16 rows; uint8_t entries[]; };
struct row_part { le16 rows; le48 version_k; }; // version << 4 | k
struct row_update { uint8_t role, k; le16 rows; le48 version; le32 truncates; uint8_t parts, count; le64 end; uint8_t entries[]; };
static_assert(sizeof(struct row_place) == 10, "row_place");
static_assert(sizeof(struct row_chunk_data) == 16, "row_chunk_data");
static_assert(sizeof(struct row_chunk) == 4, "row_chunk");
static_assert(sizeof(struct row_part) == 8, "row_part");
static_assert(sizeof(struct row_update) == 24, "row_update");
#define ROW_PARTS_MAX ARRAY_IOMS_MAX
// The longest: a parity CHUNK of 16 rows with n = 7, or 8 rows with n = 15.
static_assert(sizeof(struct row_chunk) + 16 * (10 + 7 * 6) <= RECORD_BYTES_ATOMIC, "CHUNK");
static_assert(sizeof(struct row_chunk) + 8 * (10 + 15 * 6) <= RECORD_BYTES_ATOMIC, "CHUNK");
static_assert(sizeof(struct row_update) + 16 * 10 + ROW_PARTS_MAX * 8 <= RECORD_BYTES_ATOMIC, "UPDATE");

#define ROW_CNODE2_GONE 1u // of a stand-in: the object was deleted
#define ROW_CNODE2_ASKS 2u // it was cut while this IOM was away, and its segments have not all been asked for
#define ROW_CNODE2_ANEW 4u // without protection, in a replaced store: it was emptied since
#define ROW_CNODE2_HEARD 8u // of who asks: no discard was done here; `truncates` is what others told
struct row_cnode2 { struct wire_map map; le32 truncates; le32 flags; };
static_assert(sizeof(struct row_cnode2) == 32, "row_cnode2");

// KIND_CUT: the lowest segment that was discarded, the lowest byte of the object that was zeroed. All ones: none.
struct row_cut_record { le64 seg, off; le32 truncates, reserved; }; // truncates: the count by then

// KIND_DOUBT: the map, for CNODE2 may be gone before the others' parts are.
struct row_doubt { struct wire_map map; };

// ---- posts ----------------------------------------------------------------------------------------------------------
// D -> P. The payload is old xor new of [off, off + len) of D's part of the segment.
struct row_delta {
    struct envelope env;
    le64 no;                 // number of this delta from D to P, from 1
    struct wire_handle handle;
    struct wire_map map;
    le64 seg;
    le64 version;            // that it will be frozen at
    le32 truncates;
    le32 off;
    uint8_t k, reserved[3];
    le32 slot;
    uint8_t session[16];
    le64 seq;
    le64 end;                // highest byte of the object that the write reaches
};
struct row_refusal { le64 no; le32 result; };
struct row_delta_ack { struct envelope env; le64 upto; le32 refused; struct row_refusal refusal[]; }; // all up to `upto` are held, but the refused

// FREEZE, HARDENED: D -> P; SETTLED: P -> D; FREEZE with MARK_HINT: P -> D, asks D to freeze the segment now. An array each.
#define MARK_URGENT 1u // somebody waits for the row to settle
#define MARK_HINT 2u
struct row_mark {
    struct wire_handle handle;
    le64 seg;
    le48 version;
    le16 rows;
    le32 truncates;
    uint8_t k, flags;
    le16 reserved;
};
static_assert(sizeof(struct row_mark) == 40, "row_mark");
struct row_marks { struct envelope env; le32 count; le32 reserved; struct row_mark mark[]; };
#define ROW_MARKS_MAX ((uint32_t)((MSG_BODY_MAX - sizeof(struct row_marks)) / sizeof(struct row_mark)))

// ---- calls ----------------------------------------------------------------------------------------------------------
enum resolve_op {
    RESOLVE_STATE = 1,   // P -> D: what is durable of your part?            -> resolve_state; payload if wanted: contents (below)
    RESOLVE_TAKE = 2,    // P -> D: complete these rows at this version, durably: their blocks are the payload; `lost`: nobody has them any more
    RESOLVE_HELD = 3,    // P -> D: deltas (payload) that P held of yours at the stop: they are yours unless you have them
    RESOLVE_SETTLED = 4, // D -> P: what does your CHUNK include of mine?    -> resolve_decided
    RESOLVE_DECIDE = 5,  // D -> P: step (b) of the segment, if it is still to do; then the same
    RESOLVE_ENTER = 6,   // D -> P: step (c) of the segment; then the same
    RESOLVE_VERSIONS = 7, // D -> P: what do you include of mine, at this moment? In service too, and no lock is taken -> resolve_decided
};
struct req_resolve {
    struct envelope env;
    struct wire_handle handle;
    struct wire_map map;
    le64 seg;
    le64 version;      // TAKE, HELD
    le64 end;          // HELD
    le32 truncates;
    le16 rows;         // STATE: rows whose contents are wanted; TAKE, HELD: rows in the payload
    uint8_t op, k, what, reserved; // STATE: what (enum resolve_what)
    le16 lost;         // TAKE
    le32 reserved2;
    le64 want[SEG_BLOCKS_MAX]; // DELTA, AT: the version of each row
};
// Of the rows: UPDATE's blocks, which are at the versions wanted, xor the settled ones; or the blocks at the versions wanted, settled or not. What is not
// to be had is in bad_rows.
enum resolve_what { WHAT_NOTHING = 0, WHAT_DELTA = 1, WHAT_AT = 2 };
struct resolve_state {
    struct envelope env;
    le16 update_rows;  // rows of the UPDATE
    le16 good_rows;    // of these the blocks that are on disk (the checksum matches)
    le16 bad_rows;     // of the contents asked for: not to be had (their bytes in the payload mean nothing)
    uint8_t has_update, reserved;
    le32 truncates, reserved2; // the object's count here
    le64 update_version;
    le64 version[SEG_BLOCKS_MAX]; // of the CHUNK's rows
};
struct resolve_decided {
    struct envelope env;
    le32 truncates;
    uint8_t decided, reserved[3]; // SETTLED: P has no UPDATE of the segment, so (b) changes nothing there
    le64 version[SEG_BLOCKS_MAX]; // of the asking D, as the settled parity includes it
};

// D (or who stands in for it) -> P: the settled blocks of member k, put together from the others of their rows (row_gather.c). In the payload: `rows`.
struct req_gather { struct envelope env; struct wire_handle handle; struct wire_map map; le64 seg; le32 truncates; le16 rows; uint8_t k, reserved; };
struct rep_gather { struct envelope env; le16 rows, lost; le32 reserved; le64 version[SEG_BLOCKS_MAX]; }; // version: of k, as the settled parity includes it

// MSG_CENSUS: segments of which the asking IOM has a part and that have a CHUNK here, `from` one of them on; D's answer for P and P for D's (row_census.c).
// Payload: row_census_seg, CENSUS_MAX at most.
struct req_census { struct envelope env; uint8_t from[KEY_BYTES], reserved[7]; };
struct rep_census { struct envelope env; uint8_t next[KEY_BYTES], more, reserved[6]; };
struct row_census_seg { struct wire_handle handle; struct wire_map map; le64 seg; le32 truncates, reserved; };
static_assert(sizeof(struct row_census_seg) == 56, "row_census_seg");
#define CENSUS_MAX 1024u

// MSG_SEGMENTS: numbers of the segments of an object that have a CHUNK, from one on; payload: le64 each, SEGMENTS_MAX at most
struct req_segments { struct envelope env; struct wire_handle handle; le64 from; };
#define SEGMENTS_MAX 8192u
struct req_verify { struct envelope env; struct wire_handle handle; le64 seg; le16 rows; uint8_t k, mend, reserved[4]; }; // -> rep_verify_row and contents. mend: row_scrub.c
struct rep_verify_row { struct envelope env; le16 rows, bad_rows, mended_rows, missing; le64 version[SEG_BLOCKS_MAX]; };  // rows: not holes, in the payload;
                                                                                                                               // missing: to be built yet
#define VERIFY_GONE_ON UINT64_MAX // a version that no row has: what was read may belong to another
