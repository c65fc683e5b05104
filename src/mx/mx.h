// The memory translator (FIG. 3, 11): turns a client's operations into requests to the IOMs, by the referential map. The one API of fuse, nfs, the
// simulator's workload and tests. It holds nothing that cannot be lost: sessions and slots live at the IOMs.
// Every operation waits through a stopped or recovering array and goes on by itself (same slot, same sequence) until it is done,
// the caller cancels it (ERR_INTR), or `eio_after_ns` has passed (ERR_IO).
#pragma once
#include "layout/layout.h"
#include "wire/format.h"

struct mx;
struct mx_config {
    uint8_t cluster[16];
    uint8_t array_ioms;              // addresses known at start; the map may tell others
    char at[ARRAY_IOMS_MAX][108];
    uint64_t eio_after_ns;           // 0 = wait for ever
};
struct mx_cred { uint32_t uid, gid; };
struct mx_op {                       // per operation, on the caller's stack; zeroed = defaults
    struct mx_cred cred;
    bool cancelled;                  // set with mx_cancel
    bool ready;                      // internal: `waiting` is initialised
    struct waitq waiting;            // internal: where its calls and pauses wait, for mx_cancel
    uint64_t since_ns;               // internal: when it began
};
struct attr {                        // host form of wire_attr
    struct handle handle;
    struct refmap map;
    uint32_t mode, nlink, uid, gid;
    uint64_t size, used, atime_ns, mtime_ns, ctime_ns, btime_ns, change, rdev;
    uint32_t truncates;
    uint8_t toughness;
    uint64_t dir_change, dir_time_ns; // of what was just made or linked: the directory's change counter, mtime and ctime after that; 0 = not told
    uint32_t dir_nlink;
};
struct mx *mx_create(struct env *e, const struct mx_config *c);
MUST_USE err co_mx_start(struct mx *m, struct mx_op *op);  // has the map and sessions; waits for a running array
void co_mx_stop(struct mx *m);                             // closes sessions if the array answers within a second
void mx_destroy(struct mx *m);
void mx_cancel(struct mx *m, struct mx_op *op);            // from another task: op's operation returns ERR_INTR soon

MUST_USE err co_mx_lookup(struct mx *m, struct mx_op *op, struct handle dir, const char *name, struct attr *out);
MUST_USE err co_mx_getattr(struct mx *m, struct mx_op *op, struct handle h, struct attr *out);
struct mx_setattr { uint32_t valid; uint32_t mode, uid, gid; uint64_t size, atime_ns, mtime_ns; }; // SETATTR_* of wire/format.h
MUST_USE err co_mx_setattr(struct mx *m, struct mx_op *op, struct handle h, const struct mx_setattr *s, struct attr *out);
MUST_USE err co_mx_mknod(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, uint64_t rdev, struct attr *out);
MUST_USE err co_mx_mkdir(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, struct attr *out);
MUST_USE err co_mx_symlink(struct mx *m, struct mx_op *op, struct handle dir, const char *name, const char *target, struct attr *out);
MUST_USE err co_mx_readlink(struct mx *m, struct mx_op *op, struct handle h, char *out, uint32_t cap); // NUL-terminated
MUST_USE err co_mx_link(struct mx *m, struct mx_op *op, struct handle h, struct handle dir, const char *name, struct attr *out);
MUST_USE err co_mx_unlink(struct mx *m, struct mx_op *op, struct handle dir, const char *name);
MUST_USE err co_mx_rmdir(struct mx *m, struct mx_op *op, struct handle dir, const char *name);
MUST_USE err co_mx_rename(struct mx *m, struct mx_op *op, struct handle dir, const char *name, struct handle to_dir, const char *to, uint32_t flags);
// In blocks as usable after parity. `free_blocks`: what no object has; `avail_blocks`: what a new file over all IOMs can have, which ends when the fullest is full.
struct mx_statfs { uint64_t blocks, free_blocks, avail_blocks, objects; };
MUST_USE err co_mx_statfs(struct mx *m, struct mx_op *op, struct mx_statfs *out);

struct mx_dirent { uint64_t cookie; struct handle handle; uint8_t type; bool has_attr; struct attr attr; const char *name; uint32_t name_len; };
// Calls `entry` for entries after `cookie` (0 = start; "." and ".." are cookies 1 and 2, made here) until it returns false or the directory ends.
MUST_USE err co_mx_readdir(struct mx *m, struct mx_op *op, struct handle dir, uint64_t cookie, bool plus,
                           bool (*entry)(void *arg, const struct mx_dirent *d), void *arg, bool *eof);

MUST_USE err co_mx_setxattr(struct mx *m, struct mx_op *op, struct handle h, const char *name, const void *val, uint32_t len, int flags); // flags as setxattr(2)
MUST_USE err co_mx_getxattr(struct mx *m, struct mx_op *op, struct handle h, const char *name, void *val, uint32_t cap, uint32_t *len);
MUST_USE err co_mx_listxattr(struct mx *m, struct mx_op *op, struct handle h, char *out, uint32_t cap, uint32_t *len); // NUL-separated
MUST_USE err co_mx_removexattr(struct mx *m, struct mx_op *op, struct handle h, const char *name);

// ---- open files. One struct mx_file per open(2); several may share the object (its state is kept once per object in the MX).
struct mx_file;
#define MX_O_SYNC 1u   // every write at toughness 2
#define MX_O_CREATE 2u
#define MX_O_EXCL 4u
#define MX_O_TRUNC 8u
MUST_USE err co_mx_open(struct mx *m, struct mx_op *op, struct handle h, uint32_t flags, struct mx_file **out, struct attr *attr);
MUST_USE err co_mx_create(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, uint32_t flags, struct mx_file **out, struct attr *attr);
MUST_USE err co_mx_read(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, uint32_t len, uint8_t *dst, uint32_t *got); // short only at the end of file
MUST_USE err co_mx_write(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, struct slice data);     // all or an error
MUST_USE err co_mx_append(struct mx *m, struct mx_op *op, struct mx_file *f, struct slice data, uint64_t *at);    // O_APPEND, atomic among the writers of this MX and others
MUST_USE err co_mx_flush(struct mx *m, struct mx_op *op, struct mx_file *f);                // close(2): times and change counter reach the starter
MUST_USE err co_mx_fsync(struct mx *m, struct mx_op *op, struct mx_file *f, bool data_only); // I3; ERR_IO once for each open file if writes to the object may have been lost in an all-crash
MUST_USE err co_mx_fsyncdir(struct mx *m, struct mx_op *op, struct handle dir); // names made and removed in it are on disk
void co_mx_release(struct mx *m, struct mx_file *f);
// The object's change counter as far as only this MX's own writes have moved it since `opened_at`; 0 when somebody else's change came between.
uint64_t mx_file_own_change(const struct mx_file *f, uint64_t opened_at);
struct handle mx_file_handle(const struct mx_file *f);
struct mx_stats { uint64_t calls, retries, bytes_read, bytes_written; };
void mx_stats(const struct mx *m, struct mx_stats *out);
