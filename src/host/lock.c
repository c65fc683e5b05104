// The lock of a store: an open-file-description lock on the whole file, so that it dies with its process and is not
// lost when some other descriptor of the same file is closed, as POSIX's process-owned locks are.
#include "host/host.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

err host_lock_fd(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &whole) == 0) return OK;
    return errno == EAGAIN || errno == EACCES ? ERR_LOCKED : err_of_errno(errno);
}

err host_lock_take(const char *path, int *out_fd) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return err_of_errno(errno);
    err e = host_lock_fd(fd);
    if (e != OK) {
        close(fd);
        return e;
    }
    *out_fd = fd;
    return OK;
}

void host_lock_release(int fd) { close(fd); }
