// The messages between nodes: numbers and bodies. Every body starts with struct envelope (peer.h). All integers are le.
#pragma once
#include "wire/peer.h"

#define MSG_REPLY 0x8000
#define MSG_POST_FIRST 0x400 // below: calls and casts; from here on: posts
enum msg_type {
    // greeting
    MSG_HELLO = 1, MSG_WELCOME = 2, MSG_REFUSE = 3, MSG_POST_ACK = 4,
    // casts between IOMs (cluster/)
    MSG_HEARTBEAT = 0x10, MSG_HEARTBEAT_ACK, MSG_PAXOS_PREPARE, MSG_PAXOS_PROMISE, MSG_PAXOS_ACCEPT, MSG_PAXOS_ACCEPTED,
    MSG_PAXOS_CHOSEN,
    // any node -> IOM, any epoch
    MSG_GET_MAP = 0x20, MSG_STATUS, MSG_CONTROL,
    // MX -> starter (names and attributes)
    MSG_SESSION_OPEN = 0x100, MSG_SESSION_RENEW, MSG_SESSION_CLOSE,
    MSG_LOOKUP, MSG_GETATTR, MSG_SETATTR, MSG_CREATE, MSG_MKDIR, MSG_SYMLINK, MSG_READLINK, MSG_LINK, MSG_UNLINK, MSG_RMDIR, MSG_RENAME,
    MSG_READDIR, MSG_OPEN, MSG_RELEASE, MSG_RAISE, MSG_SYNC_META, MSG_STATFS,
    MSG_SETXATTR, MSG_GETXATTR, MSG_LISTXATTR, MSG_REMOVEXATTR,
    // MX -> data member
    MSG_READ = 0x200, MSG_WRITE, MSG_FSYNC,
    // IOM -> IOM calls
    MSG_DISCARD = 0x300, MSG_ZERO, MSG_END_DURABLE, MSG_TOUCH, MSG_RESERVE, MSG_COMMIT, MSG_ABORT, MSG_INTENT_QUERY, MSG_MIRROR_SYNC,
    MSG_MIRROR_STATE, MSG_RESOLVE, MSG_VERIFY, MSG_GATHER, MSG_MISSED, MSG_SEGMENTS, MSG_CENSUS,
    // IOM -> IOM posts
    MSG_MIRROR = 0x400, MSG_MIRROR_ACK,
    MSG_DELTA, MSG_DELTA_ACK, MSG_FREEZE, MSG_HARDENED, MSG_SETTLED, // the update protocol (row.c)
};

// ---- requests of MXs ------------------------------------------------------------------------------------------------
// Exactly once: (session, slot, seq). A slot holds one request at a time; its seq grows by one with each new request; a retry repeats all three.
// Requests that change nothing carry seq 0.
struct req_head {
    struct envelope env;
    uint8_t session[16];
    le32 slot;
    le64 seq;
    le32 uid, gid; // owner of what is created; checks are the MX's (kernel default_permissions, NFS access)
};
struct wire_handle { uint8_t b[HANDLE_BYTES]; };
struct wire_map { uint8_t b[REFMAP_BYTES]; };

enum object_type { OBJ_FILE = 1, OBJ_DIR, OBJ_SYMLINK, OBJ_FIFO, OBJ_SOCKET, OBJ_CHARDEV, OBJ_BLOCKDEV };

struct wire_attr {
    struct wire_handle handle;
    struct wire_map map;
    le32 mode;       // POSIX, type bits included
    le32 nlink, uid, gid;
    le64 size;       // bytes
    le64 used;       // bytes in blocks as far as the starter knows (size rounded up where it does not)
    le64 atime_ns, mtime_ns, ctime_ns, btime_ns;
    le64 change;     // grows with every change of data, names or attributes
    le64 rdev;
    le32 truncates;  // count of truncates: writes and raises carry it
    uint8_t toughness, reserved[3];
};

// SESSION_RENEW; payload: handles of what is open. creates: of slots whose CREATE with `open` has not been answered.
struct wire_slot { le32 slot; le64 seq; };
struct req_renew { struct req_head h; struct wire_slot creates[]; };
struct req_name { struct req_head h; struct wire_handle dir; le16 name_len; uint8_t name[]; };  // LOOKUP, UNLINK, RMDIR
struct req_handle { struct req_head h; struct wire_handle handle; };                              // GETATTR, READLINK, OPEN, RELEASE (payload = more handles), SYNC_META, LISTXATTR
struct req_create {                                                                               // CREATE, MKDIR, SYMLINK (payload = target)
    struct req_head h; struct wire_handle dir; le32 mode; le64 rdev; uint8_t open, reserved[3]; // open: also count as opened by the session
    le16 name_len; uint8_t name[];
};
#define SETATTR_MODE 1u
#define SETATTR_UID 2u
#define SETATTR_GID 4u
#define SETATTR_SIZE 8u
#define SETATTR_ATIME 16u
#define SETATTR_MTIME 32u
struct req_setattr { struct req_head h; struct wire_handle handle; le32 valid; le32 mode, uid, gid; le64 size, atime_ns, mtime_ns; };
struct req_link { struct req_head h; struct wire_handle handle, dir; le16 name_len; uint8_t name[]; };
#define RENAME_FLAG_NOREPLACE 1u
#define RENAME_FLAG_EXCHANGE 2u
struct req_rename { struct req_head h; struct wire_handle dir, to_dir; le32 flags; le16 name_len, to_len; uint8_t names[]; }; // sent to dir's starter
struct req_readdir { struct req_head h; struct wire_handle dir; le64 cookie; le32 max_bytes; uint8_t plus, reserved[3]; };
struct req_raise { struct req_head h; struct wire_handle handle; le64 end; le64 mtime_ns; le32 truncates; uint8_t durable, append, again, reserved; le64 place; };
    // size = max(size, end); append: size += end, atomically (seq != 0: exactly once), rep_size.size is the new one. durable: answered when (creation and) this size are durable at starter and proxy. A lower count: ERR_TRUNCATED
    // again: an append to which `place` was given before the last recovery that may have lost it
struct req_xattr { struct req_head h; struct wire_handle handle; le32 flags; le16 name_len; uint8_t name[]; }; // value = payload; flags: 1 create, 2 replace

struct rep_attr {
    struct envelope env; struct wire_attr attr; uint8_t has_attr, reserved[3];
    le32 dir_nlink; le64 dir_change, dir_time_ns; // CREATE, MKDIR, SYMLINK, LINK: the directory after it, mtime = ctime; dir_change 0: not told
};
    // LOOKUP of an object whose starter is another IOM: has_attr 0, handle, map and mode's type bits alone; the MX asks the starter
struct rep_size { struct envelope env; le64 size, durable_size; le32 truncates; le64 change; }; // RAISE, SYNC_META; change = the counter afterwards
struct rep_statfs { struct envelope env; le64 blocks, blocks_free, objects, blocks_used; };   // of this IOM, 4 KiB blocks; free: what new data can have
// READDIR: the payload is a row of these, 8-byte aligned; cookie of the entry = where to go on after it; eof in the envelope's reply body
struct wire_dirent { le64 cookie; struct wire_handle handle; struct wire_map map; uint8_t type, has_attr; le16 name_len, entry_len; struct wire_attr attr; uint8_t name[]; };
struct rep_readdir { struct envelope env; uint8_t eof, reserved[7]; };
// Cookies: 1 and 2 are "." and ".." and never sent by an IOM (the MX makes them); DIRENT cookies are 3 and more and stable for ever.

// ---- data -----------------------------------------------------------------------------------------------------------
// [off, off+len) of the object, as far as it lies on the addressed member: pieces in ascending order, one after the other in the payload.
struct req_read { struct req_head h; struct wire_handle handle; struct wire_map map; le64 off; le32 len; le32 reserved; };
struct req_write {
    struct req_head h; struct wire_handle handle; struct wire_map map; le64 off; le32 len;
    le32 truncates;       // lower than the member's: ERR_TRUNCATED
    le64 durable_end;     // what the MX knows to be the object's durable size at this count (0 = nothing): blocks below it may harden
    uint8_t toughness;
    uint8_t raise;        // the addressed member is the object's starter too: with the data it does what a RAISE to off+len does, and answers rep_size
    uint8_t reserved[6];
    le64 mtime_ns;        // of that raise
};
struct req_fsync { struct req_head h; struct wire_handle handle; struct wire_map map; le64 durable_end; le32 truncates; };
    // answered when every row of the object that this member holds dirty or unsettled is settled (I3)

// ---- between IOMs ---------------------------------------------------------------------------------------------------
struct req_discard { struct envelope env; struct wire_handle handle; struct wire_map map; le64 from_seg; le32 truncates; uint8_t gone, reserved[3]; };
    // drops every segment >= from_seg, updates under way included (gone: the object is deleted, its secondary CNODE goes too); durable when answered
struct req_zero { struct envelope env; struct wire_handle handle; struct wire_map map; le64 off, len; le32 truncates; };
    // this member's part of the range reads as zeros from now on; through the update protocol; answered when settled
struct req_end_durable { struct envelope env; struct wire_handle handle; le64 end; le32 truncates; };  // to the starter; reply rep_size
struct req_touch { struct envelope env; struct wire_handle handle; le64 mtime_ns; };                    // data changed: mtime, ctime, change+1
