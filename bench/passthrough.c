// A FUSE file system that passes everything on to a local directory: what FUSE itself costs, so that mendfs is compared
// with that and not with a file system in the kernel.
//
//     passthrough DIR MNT         runs in the foreground until MNT is unmounted or a signal ends it
//
// As like the FUSE face of mendfs as can be: libfuse's low-level protocol, one thread, requests of 1 MiB, no splice, the same
// capabilities, the kernel's cache kept from one open to the next, attributes and names believed for a second. An inode is
// an O_PATH descriptor; the kernel knows it by the address of its struct.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define BELIEVE_SECONDS 1.0
#define BUCKETS 65536u

struct inode {
    int fd;
    dev_t dev;
    ino_t ino;
    uint64_t nlookup;
    struct inode *next;
};
static struct inode root, *bucket[BUCKETS];
static char *io_buf; // of a read or a listing

// ---- inodes
static struct inode *inode_of(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? &root : (struct inode *)(uintptr_t)ino; }
static int fd_of(fuse_ino_t ino) { return inode_of(ino)->fd; }
static struct inode **slot_of(dev_t dev, ino_t ino) {
    struct inode **at = &bucket[(ino * 0x9e3779b97f4a7c15u >> 32) % BUCKETS];
    while (*at && ((*at)->ino != ino || (*at)->dev != dev)) at = &(*at)->next;
    return at;
}

static void proc_path(fuse_ino_t ino, char out[32]) { snprintf(out, 32, "/proc/self/fd/%d", fd_of(ino)); }

// Opens it, or finds what is open already; counts a lookup. 0 or errno.
static int look_up(fuse_ino_t parent, const char *name, struct fuse_entry_param *e) {
    *e = (struct fuse_entry_param){.attr_timeout = BELIEVE_SECONDS, .entry_timeout = BELIEVE_SECONDS};
    int fd = openat(fd_of(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    if (fstat(fd, &e->attr)) {
        int eno = errno;
        close(fd);
        return eno;
    }
    struct inode **at = slot_of(e->attr.st_dev, e->attr.st_ino), *i = *at;
    if (i) {
        close(fd);
    } else {
        i = *at = malloc(sizeof *i);
        if (!i) abort();
        *i = (struct inode){.fd = fd, .dev = e->attr.st_dev, .ino = e->attr.st_ino};
    }
    i->nlookup++;
    e->ino = (uintptr_t)i;
    return 0;
}

static void forget(fuse_ino_t ino, uint64_t nlookup) {
    struct inode *i = inode_of(ino);
    if (i == &root || (i->nlookup -= nlookup)) return;
    *slot_of(i->dev, i->ino) = i->next;
    close(i->fd);
    free(i);
}

// ---- names and attributes
static void reply(fuse_req_t req, int result) { fuse_reply_err(req, result < 0 ? errno : 0); }

static void reply_entry(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct fuse_entry_param e;
    int eno = look_up(parent, name, &e);
    if (eno) fuse_reply_err(req, eno);
    else fuse_reply_entry(req, &e);
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup) {
    forget(ino, nlookup);
    fuse_reply_none(req);
}
static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *v) {
    for (size_t i = 0; i < count; i++) forget(v[i].ino, v[i].nlookup);
    fuse_reply_none(req);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct stat st;
    if (fstatat(fd_of(ino), "", &st, AT_EMPTY_PATH)) fuse_reply_err(req, errno);
    else fuse_reply_attr(req, &st, BELIEVE_SECONDS);
}

static int set_times(const char *path, const struct stat *st, int what) {
    struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    if (what & FUSE_SET_ATTR_ATIME) t[0] = st->st_atim;
    if (what & FUSE_SET_ATTR_MTIME) t[1] = st->st_mtim;
    if (what & FUSE_SET_ATTR_ATIME_NOW) t[0].tv_nsec = UTIME_NOW;
    if (what & FUSE_SET_ATTR_MTIME_NOW) t[1].tv_nsec = UTIME_NOW;
    return utimensat(AT_FDCWD, path, t, 0);
}

static int set_attr(fuse_ino_t ino, const struct stat *st, int what) {
    char path[32];
    proc_path(ino, path);
    uid_t uid = what & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1;
    gid_t gid = what & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1;
    if (what & FUSE_SET_ATTR_MODE && chmod(path, st->st_mode)) return -1;
    if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) && fchownat(fd_of(ino), "", uid, gid, AT_EMPTY_PATH)) return -1;
    if (what & FUSE_SET_ATTR_SIZE && truncate(path, st->st_size)) return -1;
    return what & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME) ? set_times(path, st, what) : 0;
}
static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int what, struct fuse_file_info *fi) {
    if (set_attr(ino, st, what)) fuse_reply_err(req, errno);
    else on_getattr(req, ino, fi);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino) {
    char target[4097];
    ssize_t n = readlinkat(fd_of(ino), "", target, sizeof target - 1);
    if (n < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    target[n] = 0;
    fuse_reply_readlink(req, target);
}

static void made(fuse_req_t req, int result, fuse_ino_t parent, const char *name) {
    if (result) fuse_reply_err(req, errno);
    else reply_entry(req, parent, name);
}
static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev) {
    made(req, mknodat(fd_of(parent), name, mode, rdev), parent, name);
}
static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
    made(req, mkdirat(fd_of(parent), name, mode), parent, name);
}
static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name) {
    made(req, symlinkat(target, fd_of(parent), name), parent, name);
}
static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name) {
    char path[32];
    proc_path(ino, path);
    made(req, linkat(AT_FDCWD, path, fd_of(parent), name, AT_SYMLINK_FOLLOW), parent, name);
}
static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) { reply(req, unlinkat(fd_of(parent), name, 0)); }
static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) {
    reply(req, unlinkat(fd_of(parent), name, AT_REMOVEDIR));
}
static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t parent2, const char *name2,
                      unsigned flags) {
    reply(req, renameat2(fd_of(parent), name, fd_of(parent2), name2, flags));
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size) {
    fuse_reply_err(req, ENODATA); // the kernel asks for security.capability before a write; mendfs has none either
}
static void on_statfs(fuse_req_t req, fuse_ino_t ino) {
    struct statvfs v;
    if (fstatvfs(ino ? fd_of(ino) : root.fd, &v)) fuse_reply_err(req, errno);
    else fuse_reply_statfs(req, &v);
}

// ---- directories
static DIR *dir_of(const struct fuse_file_info *fi) { return (DIR *)(uintptr_t)fi->fh; }

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    int fd = openat(fd_of(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        fuse_reply_err(req, errno);
        return;
    }
    fi->fh = (uintptr_t)d;
    fuse_reply_open(req, fi);
}
static void on_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    closedir(dir_of(fi));
    fuse_reply_err(req, 0);
}

// Bytes taken; more than there is room for: the entry does not fit.
static size_t add_entry(fuse_req_t req, fuse_ino_t ino, char *at, size_t room, const struct dirent *d, bool plus) {
    struct fuse_entry_param e = {.attr = {.st_ino = d->d_ino, .st_mode = (mode_t)d->d_type << 12}};
    bool dots = !strcmp(d->d_name, ".") || !strcmp(d->d_name, "..");
    if (!plus) return fuse_add_direntry(req, at, room, d->d_name, &e.attr, d->d_off);
    bool known = !dots && !look_up(ino, d->d_name, &e);
    size_t need = fuse_add_direntry_plus(req, at, room, d->d_name, &e, d->d_off);
    if (known && need > room) forget(e.ino, 1);
    return need;
}
static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi, bool plus) {
    DIR *d = dir_of(fi);
    size_t used = 0, need;
    if (telldir(d) != off) seekdir(d, off);
    for (struct dirent *entry; (entry = readdir(d)); used += need) {
        need = add_entry(req, ino, io_buf + used, size - used, entry, plus);
        if (need > size - used) break; // the next listing begins there: off tells it
    }
    fuse_reply_buf(req, io_buf, used);
}
static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    list(req, ino, size, off, fi, false);
}
static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    list(req, ino, size, off, fi, true);
}
static void on_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) {
    reply(req, fsync(dirfd(dir_of(fi))));
}

// ---- files
static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    char path[32];
    proc_path(ino, path);
    int fd = open(path, (fi->flags & ~O_NOFOLLOW) | O_CLOEXEC);
    if (fd < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    fi->fh = (uint64_t)fd;
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}
static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi) {
    struct fuse_entry_param e;
    int fd = openat(fd_of(parent), name, (fi->flags | O_CREAT | O_CLOEXEC) & ~O_NOFOLLOW, mode);
    int eno = fd < 0 ? errno : look_up(parent, name, &e);
    if (eno) {
        if (fd >= 0) close(fd);
        fuse_reply_err(req, eno);
        return;
    }
    fi->fh = (uint64_t)fd;
    fi->keep_cache = 1;
    fuse_reply_create(req, &e, fi);
}
static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    ssize_t n = pread((int)fi->fh, io_buf, size, off);
    if (n < 0) fuse_reply_err(req, errno);
    else fuse_reply_buf(req, io_buf, (size_t)n);
}
static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi) {
    ssize_t n = pwrite((int)fi->fh, data, size, off);
    if (n < 0) fuse_reply_err(req, errno);
    else fuse_reply_write(req, (size_t)n);
}
static void on_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { fuse_reply_err(req, 0); }
static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) {
    reply(req, datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}
static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    close((int)fi->fh);
    fuse_reply_err(req, 0);
}

// ---- the session
static void on_init(void *arg, struct fuse_conn_info *conn) {
    conn->max_write = 1u << 20;
    conn->max_readahead = 1u << 20;
    conn->max_background = 64;
    conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                              FUSE_CAP_SPLICE_MOVE | FUSE_CAP_HANDLE_KILLPRIV);
    conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO |
                                   FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                                   FUSE_CAP_EXPORT_SUPPORT);
}

static const struct fuse_lowlevel_ops ops = {
    .init = on_init,         .forget = on_forget,   .forget_multi = on_forget_multi,
    .lookup = reply_entry,   .getattr = on_getattr, .setattr = on_setattr,
    .readlink = on_readlink, .mknod = on_mknod,     .mkdir = on_mkdir,
    .symlink = on_symlink,   .link = on_link,       .unlink = on_unlink,
    .rmdir = on_rmdir,       .rename = on_rename,   .getxattr = on_getxattr,
    .statfs = on_statfs,     .opendir = on_opendir, .releasedir = on_releasedir,
    .readdir = on_readdir,   .fsyncdir = on_fsyncdir, .readdirplus = on_readdirplus,
    .open = on_open,         .create = on_create,   .read = on_read,
    .write = on_write,       .flush = on_flush,     .fsync = on_fsync,
    .release = on_release,
};

static void raise_descriptors(void) { // one for every inode that the kernel knows; as many as we are given
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r)) return;
    if (!setrlimit(RLIMIT_NOFILE, &(struct rlimit){1u << 20, 1u << 20})) return;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r)) perror("passthrough: setrlimit");
}

int main(int argc, char **argv) {
    char *options[] = {argv[0], (char *)"-o", (char *)"fsname=passthrough,subtype=passthrough,default_permissions", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, options);
    if (argc != 3 || (root.fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fprintf(stderr, "passthrough DIR MNT: serves DIR, a directory, at MNT\n");
        return 2;
    }
    umask(0);
    raise_descriptors();
    io_buf = aligned_alloc(4096, 1u << 20);
    struct fuse_session *s = fuse_session_new(&args, &ops, sizeof ops, NULL);
    if (!io_buf || !s || fuse_set_signal_handlers(s) || fuse_session_mount(s, argv[2])) return 1;
    int result = fuse_session_loop(s);
    fuse_session_unmount(s);
    fuse_session_destroy(s);
    return result < 0;
}
