// The FUSE face of an MX: one mount, libfuse's low-level protocol on the node's own event loop, one coroutine a request.
#pragma once
#include "host/loop.h"
#include "mx/mx.h"

struct fuse_face;
struct fuse_options {
    const char *mountpoint;
    bool allow_other;      // root mounts: everybody may use it, the kernel checks permissions (default_permissions always)
    bool writeback;        // the kernel's write-back cache: fast, and write() then promises nothing
    const char *source;    // what /proc/mounts shows as device; NULL: "mendfs"
    void (*ended)(void *arg); // somebody unmounted it: the MX may end
    void *arg;
};
// What this machine lacks for any mount of this user, with the next step; NULL: nothing.
const char *fuse_lacking(void);
// Mounts and serves. An error has been logged as one sentence with its next step (no /dev/fuse, no fusermount3, mount point not there or busy).
MUST_USE err fuse_face_start(struct loop *l, struct mx *m, const struct fuse_options *o, struct fuse_face **out);
uint32_t fuse_face_busy(const struct fuse_face *f);     // requests under way
// Unmounts. ERR_BUSY: somebody uses it (a file is open, a shell stands in it) and `detach` is false: still mounted.
MUST_USE err fuse_face_unmount(struct fuse_face *f, bool detach);
void fuse_face_destroy(struct fuse_face *f);            // after it was unmounted; no request is under way
