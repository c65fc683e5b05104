// What lies in the mirrored records of an IOM, and what IOMs say to each other about names. All integers are le;
// reserved bytes are zero.
//
//   KIND_SYSTEM   id 0, number 0          rec_counter    the next block of indexes
//   KIND_CNODE    id handle               rec_cnode      an object whose starter this IOM is (+ inline data, none yet)
//   KIND_DIRENT   id directory, number    rec_dirent     number = 61-bit hash of the name << 2 | collision: below 2^63, a readdir cookie
//   KIND_XATTR    id handle, number       rec_xattr      number = 48-bit hash of the name << 16 | collision << 12 | part
//   KIND_SYMLINK  id handle, number part  bytes of the target, SYMLINK_PART_BYTES a part
//   KIND_SESSION  id session              rec_session
//   KIND_SLOT     id session, number slot rec_slot       the last request of the slot and its whole reply
//   KIND_INTENT   id intent, number role  rec_intent_owner (role 0), rec_intent_part (roles 1..), rec_truncate (ROLE_TRUNCATE, id = handle)
//   KIND_ORPHAN   id handle               rec_orphan     no name left; GOING: its data is being discarded, nobody opens it any more
#pragma once
#include "iom/records.h"
#include "wire/format.h"

#define NAMES_FORMAT 1
#define NAME_BYTES_MAX 255u
#define SYMLINK_BYTES_MAX 4095u
#define SYMLINK_PART_BYTES 1600u
#define XATTR_PART_BYTES 1400u
#define XATTR_BYTES_MAX 65536u
#define LINKS_MAX 65000u
#define INDEX_BLOCK 1024u // indexes taken from the counter at a time

struct rec_counter { le64 next; le64 reserved; };

// What the children of a directory inherit; 0xff = not set here (the system's default), so a zero span or toughness can
// be meant.
struct rec_policy { uint8_t toughness, protection, quantum_shift, span; };
#define POLICY_UNSET 0xff

#define CNODE_HAS_XATTR 1u
#define CNODE_RAISED 2u // a size has come from a write: members may hold chunks
// The tail: bytes beyond the size, by which a recovery made the file longer since members had them: the starter and its copy had forgotten who wrote them. An append
// that a place in it was given to before has it still; see name_raise.c.
struct rec_cnode {
    uint8_t format, type, toughness, flags;
    struct rec_policy policy;
    le32 mode, nlink, uid, gid, truncates, inline_bytes;
    le64 size, atime_ns, mtime_ns, ctime_ns, btime_ns, change, rdev;
    struct wire_handle parent; // of a directory; zeros for all others
    struct wire_map map;
    le64 tail_from, tail_to; // not there where nothing was found
};
#define CNODE_BYTES 128u // without a tail
struct rec_dirent { struct wire_handle handle; struct wire_map map; uint8_t type, name_len; uint8_t name[]; };
struct rec_xattr { le32 value_len; uint8_t name_len, reserved[3]; uint8_t bytes[]; }; // part 0: name, then value; other parts: value
struct rec_session { uint8_t format, reserved[7]; };
struct rec_slot { le64 seq; le32 result; uint8_t has_reply, reserved[3]; uint8_t reply[]; }; // the reply's body after the envelope
enum orphan_state { ORPHAN_HELD = 1, ORPHAN_GOING = 2 };
struct rec_orphan { uint8_t state, reserved[7]; };

#define ROLE_OWNER 0u
#define ROLE_TRUNCATE 0x100u
// asked: the request, with its session, slot and sequence, so that recovery does all of it, once, and a retry finds its reply.
struct rec_truncate { struct wire_handle handle; struct wire_map map; le64 size; le32 truncates; le32 reserved; le64 now_ns; struct req_setattr asked; };

// ---- intents: an operation over several IOMs is a list of steps, each at the starter of what it touches
enum step_kind {
    STEP_NAME = 1, // in directory `at`: name is `expect` now (zeros: absent) and shall be `target` (zeros: absent)
    STEP_OBJECT,   // object `at`: nlink changes, must be an empty directory, goes to another parent (`target`)
    STEP_MAKE,     // a new object at this IOM; `at` is given by the participant
    STEP_RIGHT,    // the one right to move directories between parents
};
#define STEP_EMPTY 1u  // object: an empty directory, to be removed
#define STEP_PARENT 2u // object: parent becomes `target`
struct wire_step {
    uint8_t kind, flags, type, name_len; // type of the target or of what is made
    uint8_t nlink;                       // change of the directory's (name) or object's count, two's complement
    uint8_t toughness, reserved[2];
    struct rec_policy policy;
    le32 mode, uid, gid;
    le64 rdev;
    struct wire_handle at, expect, target;
    struct wire_map map;
    uint8_t name[];
};
struct intent_id { uint8_t b[16]; }; // owner (1), zeros (3), counter (4, be), epoch (8, be)
struct rec_intent_owner { uint8_t format, steps, reserved[2]; le16 parts; le16 right_part; uint8_t session[16]; le32 slot; le64 seq; };
    // parts: bit i = IOM i is a participant (part 1); right_part: bit i = IOM i gave the right (part 2)
struct rec_intent_part { uint8_t format, steps, reserved[6]; uint8_t bytes[]; }; // wire_steps one after the other
#define PART_STEPS 1u
#define PART_RIGHT 2u

struct req_reserve { struct envelope env; struct intent_id id; uint8_t part, steps, reserved[6]; uint8_t bytes[]; };
struct rep_reserve { struct envelope env; struct wire_attr attr; uint8_t has_attr, reserved[7]; }; // of the object step, as it will be
struct req_intent { struct envelope env; struct intent_id id; uint8_t part, reserved[7]; };        // COMMIT, ABORT, INTENT_QUERY
enum intent_fate { INTENT_UNKNOWN = 0, INTENT_OPEN = 1, INTENT_DECIDED = 2 };
struct rep_intent { struct envelope env; uint8_t fate, reserved[7]; };

// ---- the mirror
#define MIRROR_SYNC 1u // acknowledge when durable
struct post_mirror { // MSG_MIRROR: number 0 = no batch, only flags and `durable`
    struct envelope env;
    le64 epoch, number;
    le64 durable; // batches up to here are durable at the owner
    le32 flags, ops_len;
    uint8_t ops[]; // here if they fit, else the payload
};
struct post_mirror_ack { struct envelope env; le64 number, durable; }; // both cumulative: in memory, on disk

enum mirror_op { MIRROR_STATE = 1, MIRROR_FETCH, MIRROR_APPLY, MIRROR_TREE_READ, MIRROR_TREE_WRITE, MIRROR_DONE };
#define MIRROR_LAST 1u // TREE_WRITE: no record follows `to`
struct req_mirror_state {
    struct envelope env;
    uint8_t op, flags, reserved[6];
    le64 epoch, number;                   // FETCH: what follows this; APPLY, TREE_WRITE with LAST, DONE: this batch
    uint8_t from[KEY_BYTES], to[KEY_BYTES]; // TREE_*: first key; WRITE: the records are all there is in [from, to)
    uint8_t pad[6];
};
struct rep_mirror_state { struct envelope env; le64 epoch, number; uint8_t more, empty, reserved[6]; uint8_t next[KEY_BYTES], pad[7]; };
// Payloads. FETCH: wire_batch one after the other. APPLY: ops of one batch. TREE_*: wire_record one after the other.
struct wire_batch { le64 epoch, number; le32 ops_len; uint8_t ops[]; };
struct wire_record { uint8_t key[KEY_BYTES]; le16 len; uint8_t val[]; };

static_assert(offsetof(struct rec_cnode, tail_from) == CNODE_BYTES && sizeof(struct rec_cnode) == CNODE_BYTES + 16, "8 + 24 + 56 + 40");
static_assert(sizeof(struct rec_dirent) == 42 && sizeof(struct rec_slot) == 16 && sizeof(struct wire_step) == 104, "no padding");
static_assert(sizeof(struct req_mirror_state) == 104 && sizeof(struct rep_mirror_state) == 80, "no padding");
static_assert(sizeof(struct wire_step) * 4 + NAME_BYTES_MAX * 2 + 8 < RECORD_BYTES_MAX, "an intent's part fits a record");
