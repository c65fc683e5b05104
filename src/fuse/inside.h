// What the files of the FUSE face share.
#pragma once
#include "base/map.h"
#include "fuse/fuse.h"

#include <fuse_lowlevel.h>

#define FUSE_CALLS_MAX 256u       // requests under way; beyond it the kernel's queue waits
#define FUSE_READS_PER_TURN 32     // before others have their turn
#define FUSE_DEATH_LOOK_NS MSEC(200)
#define FUSE_ROOT_WAIT_NS SEC(1)  // how long the top folder's attributes and the room are asked for before the last ones are told
#define FUSE_ATTR_SECONDS 1.0     // how long the kernel may believe attributes and names: what another mount did shows after it at the latest
#define FUSE_WRITE_HEADER 80u     // fuse_in_header + fuse_write_in: where a write's data begins in its request

// The attributes of a directory as far as only this mount's new names have changed them since they were asked for. The kernel forgets a directory's attributes
// with every name it makes there and asks anew: so it asks us alone, and believes nothing older than it would have believed without.
struct node_dir {
    struct attr attr;
    uint64_t known_ns, era;       // when the starter last told of it; face.dirs_era then
    bool known;
};
struct node {                     // an inode the kernel knows
    struct handle handle;
    uint64_t nlookup;
    uint64_t cached_change;       // change counter at which the kernel's pages were filled; 0 = none
    struct node_dir *dir;         // of a directory whose attributes the kernel asked for
};
struct fuse_face {
    struct loop *loop;
    struct env *env;
    struct mx *mx;
    struct fuse_session *session;
    struct fuse_options options;
    struct watch *watch;
    struct map nodes;             // inode -> struct node
    uint64_t dirs_era;            // grows with every operation that may change directories otherwise than by a new name
    struct buf *rx;               // where the next request goes
    uint32_t calls;
    bool paused, ended, mounted;
    struct attr root;             // of the top folder, as last seen
    struct mx_statfs space;
    bool root_seen, space_seen;
};

// One request of the kernel, from its arrival to the reply. The arguments an operation needs are in its own words; names are copies.
struct fcall {
    struct fuse_face *f;
    fuse_req_t req;
    struct mx_op op;
    void (*co_run)(struct fcall *c);
    pid_t pid;                    // the thread that waits
    struct timer limit;           // fcall_limit
    bool late;                    // it had passed
    struct timer dying;           // after a signal: looks whether that thread is to die
    fuse_ino_t ino, ino2;
    struct handle h, h2;
    char *name, *name2;
    struct fuse_file_info fi;
    bool has_fi;
    uint64_t off;
    size_t size;
    int flags;
    uint32_t mode;
    uint64_t rdev;
    struct stat st;
    struct slice data;            // a write's or an xattr's bytes: owns a reference
};
struct fcall *fcall_new(struct fuse_face *f, fuse_req_t req, void (*co_run)(struct fcall *c));
void fcall_name(struct fcall *c, const char *name, const char *name2); // copies
void fcall_go(struct fcall *c);
void fcall_limit(struct fcall *c, uint64_t ns);            // cancels it when it takes longer
void fcall_watch_exit(struct fcall *c);                    // cancels it when its caller is exiting, which no interrupt tells
void reply_err(struct fcall *c, err e);                    // OK too

// ---- nodes
struct node *node_of(struct fuse_face *f, fuse_ino_t ino);                   // NULL: the kernel names what we do not know
struct node *node_seen(struct fuse_face *f, const struct attr *a);           // one lookup more
void node_forget(struct fuse_face *f, fuse_ino_t ino, uint64_t nlookup);
void attr_to_stat(const struct attr *a, struct stat *st);
void attr_to_entry(struct fuse_face *f, const struct attr *a, struct fuse_entry_param *e); // counts a lookup
bool node_dir_fresh(struct fuse_face *f, fuse_ino_t ino, double *seconds); // its attributes are known, and may be believed for that long
void node_dir_learn(struct fuse_face *f, const struct attr *a, uint64_t era); // era: dirs_era before they were asked for
void node_dir_named(struct fuse_face *f, fuse_ino_t ino, const struct attr *made); // an object got a name in it


// ---- operations
void fuse_ops_names(struct fuse_lowlevel_ops *o);
void fuse_ops_files(struct fuse_lowlevel_ops *o);
