// The one table of operating errors: name, class, errno, nfsstat3, text. Results of type `err` must be looked at.
#pragma once
#include "base/common.h"

enum err_class {
    ERRC_OK,
    ERRC_CALLER,  // the request is wrong or refused; a retry gives the same answer (POSIX errors)
    ERRC_AGAIN,   // not now: conn lost, epoch changed, array stopped, no credit; the caller retries with the same slot
    ERRC_CORRUPT, // what was read is not what was written
    ERRC_IO,      // a device failed
};

//   name, class, errno, nfsstat3, text
#define ERR_TABLE(X)                                                                  \
    X(OK, OK, 0, 0, "ok")                                                             \
    X(ERR_PERM, CALLER, EPERM, 1, "operation not permitted")                          \
    X(ERR_NOENT, CALLER, ENOENT, 2, "no such file or directory")                      \
    X(ERR_IO, IO, EIO, 5, "input/output error")                                       \
    X(ERR_ACCES, CALLER, EACCES, 13, "permission denied")                             \
    X(ERR_EXIST, CALLER, EEXIST, 17, "file exists")                                   \
    X(ERR_XDEV, CALLER, EXDEV, 18, "cross-device link")                               \
    X(ERR_NOTDIR, CALLER, ENOTDIR, 20, "not a directory")                             \
    X(ERR_ISDIR, CALLER, EISDIR, 21, "is a directory")                                \
    X(ERR_INVAL, CALLER, EINVAL, 22, "invalid argument")                              \
    X(ERR_FBIG, CALLER, EFBIG, 27, "file too large")                                  \
    X(ERR_NOSPC, CALLER, ENOSPC, 28, "no space left in the store")                    \
    X(ERR_ROFS, CALLER, EROFS, 30, "read-only file system")                           \
    X(ERR_MLINK, CALLER, EMLINK, 31, "too many links")                                \
    X(ERR_NAMETOOLONG, CALLER, ENAMETOOLONG, 63, "name too long")                     \
    X(ERR_NOTEMPTY, CALLER, ENOTEMPTY, 66, "directory not empty")                     \
    X(ERR_STALE, CALLER, ESTALE, 70, "stale handle: the object is gone")              \
    X(ERR_NODATA, CALLER, ENODATA, 10006, "no such attribute")                        \
    X(ERR_RANGE, CALLER, ERANGE, 10006, "buffer too small")                           \
    X(ERR_2BIG, CALLER, E2BIG, 10006, "attribute too large")                          \
    X(ERR_NOTSUP, CALLER, EOPNOTSUPP, 10004, "operation not supported")               \
    X(ERR_INTR, CALLER, EINTR, 10006, "interrupted")                                  \
    X(ERR_NOMEM, AGAIN, ENOMEM, 10008, "a memory limit is reached")                   \
    X(ERR_CONN, AGAIN, EIO, 10008, "the connection to the peer was lost")             \
    X(ERR_REFUSED, AGAIN, EIO, 10008, "nobody listens at the peer's address")         \
    X(ERR_TIMEOUT, AGAIN, ETIMEDOUT, 10008, "timed out")                              \
    X(ERR_EPOCH, AGAIN, EIO, 10008, "the message belongs to another epoch")           \
    X(ERR_STOPPED, AGAIN, EIO, 10008, "the array is stopped or recovering")           \
    X(ERR_RESTARTED, AGAIN, EIO, 10008, "the peer is a new incarnation")              \
    X(ERR_BUSY, AGAIN, EBUSY, 10008, "busy, try again")                               \
    X(ERR_TRUNCATED, AGAIN, EIO, 10008, "the write carries an old count of truncates") \
    X(ERR_SESSION, AGAIN, EIO, 10008, "unknown or expired session")                   \
    X(ERR_CONFLICT, AGAIN, EIO, 10008, "the register holds another value")            \
    X(ERR_CHECKSUM, CORRUPT, EIO, 5, "checksum does not match")                       \
    X(ERR_FORMAT, CORRUPT, EIO, 5, "not in the format of this version")               \
    X(ERR_VERSION, CORRUPT, EIO, 5, "made by another version of the format")          \
    X(ERR_CLUSTER, CORRUPT, EIO, 5, "belongs to another cluster")                     \
    X(ERR_JOURNAL, CORRUPT, EIO, 5, "the journal does not go with the store")         \
    X(ERR_LOCKED, CALLER, EBUSY, 5, "the store is in use by another process")         \
    X(ERR_TOOSMALL, CALLER, ENOSPC, 28, "the store is too small")                     \
    X(ERR_MEMBER_REPLACED, CALLER, EIO, 5, "another store has its place in the array")

#define ERR_ENUM(name, class, no, nfs, text) name,
typedef enum err { ERR_TABLE(ERR_ENUM) ERR_COUNT } err;

const char *err_name(err e);
const char *err_text(err e);
enum err_class err_class(err e);
int err_errno(err e);       // a positive errno value, 0 for OK
uint32_t err_nfsstat3(err e);
err err_of_errno(int eno);  // nearest; ERR_IO for what the table does not know
static inline bool err_again(err e) { return err_class(e) == ERRC_AGAIN; }
