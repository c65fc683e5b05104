// Names and attributes: what the kernel asks, as operations of the MX.
#include "fuse/inside.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

static struct fuse_face *face(fuse_req_t req) { return fuse_req_userdata(req); }

static void reply_entry(struct fcall *c, err e, const struct attr *a) {
    struct fuse_entry_param entry;
    if (e) {
        reply_err(c, e);
        return;
    }
    attr_to_entry(c->f, a, &entry);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (fuse_reply_entry(c->req, &entry)) node_forget(c->f, entry.ino, 1);
}

// Of an operation that gave an object a name in directory `ino`.
static void reply_named(struct fcall *c, fuse_ino_t ino, err e, const struct attr *a) {
    if (e) c->f->dirs_era++; // perhaps done all the same
    else node_dir_named(c->f, ino, a);
    reply_entry(c, e, a);
}

// Of one that may have changed directories in another way.
static void reply_changed(struct fcall *c, err e) {
    c->f->dirs_era++;
    reply_err(c, e);
}

static void reply_attr(struct fcall *c, err e, const struct attr *a, double seconds) {
    struct stat st;
    if (e) {
        reply_err(c, e);
        return;
    }
    attr_to_stat(a, &st);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    fuse_reply_attr(c->req, &st, seconds);
}

// ---- lookup, forget
static void co_lookup(struct fcall *c) {
    struct attr a;
    reply_entry(c, co_mx_lookup(c->f->mx, &c->op, c->h, c->name, &a), &a);
}
static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct fcall *c = fcall_new(face(req), req, co_lookup);
    c->ino = parent;
    fcall_name(c, name, NULL);
    fcall_go(c);
}
static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup) {
    node_forget(face(req), ino, nlookup);
    fuse_reply_none(req);
}
static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *v) {
    for (size_t i = 0; i < count; i++) node_forget(face(req), v[i].ino, v[i].nlookup);
    fuse_reply_none(req);
}

// ---- attributes
// A directory whose attributes are known is told here.
static bool is_known(struct fcall *c) {
    double seconds;
    if (!node_dir_fresh(c->f, c->ino, &seconds)) return false;
    reply_attr(c, OK, &node_of(c->f, c->ino)->dir->attr, seconds);
    return true;
}

// umount(8) looks at the mount point first (stat, statfs), and is to work while the array is stopped: what was last is told then.
static void co_getattr_root(struct fcall *c) {
    struct fuse_face *f = c->f;
    struct attr a;
    if (is_known(c)) return;
    uint64_t era = f->dirs_era;
    if (f->root_seen) fcall_limit(c, FUSE_ROOT_WAIT_NS);
    err e = co_mx_getattr(f->mx, &c->op, c->h, &a);
    if (!e) node_dir_learn(f, &a, era);
    if (e == ERR_INTR && c->late) {
        a = f->root;
        e = OK;
    }
    if (!e) f->root = a;
    f->root_seen |= !e;
    reply_attr(c, e, &a, FUSE_ATTR_SECONDS);
}
static void co_getattr(struct fcall *c) {
    struct attr a;
    if (is_known(c)) return;
    uint64_t era = c->f->dirs_era;
    err e = co_mx_getattr(c->f->mx, &c->op, c->h, &a);
    if (!e) node_dir_learn(c->f, &a, era);
    reply_attr(c, e, &a, FUSE_ATTR_SECONDS);
}
static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct fcall *c = fcall_new(face(req), req, ino == FUSE_ROOT_ID ? co_getattr_root : co_getattr);
    c->ino = ino;
    fcall_go(c);
}

static uint64_t ns_of(struct timespec t) { return (uint64_t)t.tv_sec * SEC(1) + (uint64_t)t.tv_nsec; }

static void co_setattr(struct fcall *c) {
    struct mx_setattr s = {.mode = c->st.st_mode, .uid = c->st.st_uid, .gid = c->st.st_gid, .size = (uint64_t)c->st.st_size};
    uint64_t now = env_wall_ns(c->f->env);
    struct attr a;
    if (c->flags & FUSE_SET_ATTR_MODE) s.valid |= SETATTR_MODE;
    if (c->flags & FUSE_SET_ATTR_UID) s.valid |= SETATTR_UID;
    if (c->flags & FUSE_SET_ATTR_GID) s.valid |= SETATTR_GID;
    if (c->flags & FUSE_SET_ATTR_SIZE) s.valid |= SETATTR_SIZE;
    if (c->flags & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) s.valid |= SETATTR_ATIME;
    if (c->flags & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) s.valid |= SETATTR_MTIME;
    s.atime_ns = c->flags & FUSE_SET_ATTR_ATIME_NOW ? now : ns_of(c->st.st_atim);
    s.mtime_ns = c->flags & FUSE_SET_ATTR_MTIME_NOW ? now : ns_of(c->st.st_mtim);
    err e = s.valid ? co_mx_setattr(c->f->mx, &c->op, c->h, &s, &a) : co_mx_getattr(c->f->mx, &c->op, c->h, &a);
    if (e || S_ISDIR(a.mode)) c->f->dirs_era++;
    reply_attr(c, e, &a, FUSE_ATTR_SECONDS);
}
static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi) {
    struct fcall *c = fcall_new(face(req), req, co_setattr);
    c->ino = ino;
    c->st = *st;
    c->flags = to_set;
    fcall_go(c);
}

static void co_readlink(struct fcall *c) {
    char target[4097];
    err e = co_mx_readlink(c->f->mx, &c->op, c->h, target, sizeof target);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (e) fuse_reply_err(c->req, err_errno(e));
    else fuse_reply_readlink(c->req, target);
}
static void on_readlink(fuse_req_t req, fuse_ino_t ino) {
    struct fcall *c = fcall_new(face(req), req, co_readlink);
    c->ino = ino;
    fcall_go(c);
}

// ---- making and removing
static void co_mknod(struct fcall *c) {
    struct attr a;
    reply_named(c, c->ino, co_mx_mknod(c->f->mx, &c->op, c->h, c->name, c->mode, c->rdev, &a), &a);
}
static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev) {
    struct fcall *c = fcall_new(face(req), req, co_mknod);
    c->ino = parent;
    c->mode = mode;
    c->rdev = rdev;
    fcall_name(c, name, NULL);
    fcall_go(c);
}
static void co_mkdir(struct fcall *c) {
    struct attr a;
    reply_named(c, c->ino, co_mx_mkdir(c->f->mx, &c->op, c->h, c->name, c->mode, &a), &a);
}
static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
    struct fcall *c = fcall_new(face(req), req, co_mkdir);
    c->ino = parent;
    c->mode = S_IFDIR | (mode & 07777);
    fcall_name(c, name, NULL);
    fcall_go(c);
}
static void co_symlink(struct fcall *c) {
    struct attr a;
    reply_named(c, c->ino, co_mx_symlink(c->f->mx, &c->op, c->h, c->name, c->name2, &a), &a);
}
static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name) {
    struct fcall *c = fcall_new(face(req), req, co_symlink);
    c->ino = parent;
    fcall_name(c, name, target);
    fcall_go(c);
}
static void co_link(struct fcall *c) {
    struct attr a;
    reply_named(c, c->ino2, co_mx_link(c->f->mx, &c->op, c->h, c->h2, c->name, &a), &a);
}
static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name) {
    struct fcall *c = fcall_new(face(req), req, co_link);
    c->ino = ino;
    c->ino2 = parent;
    fcall_name(c, name, NULL);
    fcall_go(c);
}
static void co_unlink(struct fcall *c) { reply_changed(c, co_mx_unlink(c->f->mx, &c->op, c->h, c->name)); }
static void co_rmdir(struct fcall *c) { reply_changed(c, co_mx_rmdir(c->f->mx, &c->op, c->h, c->name)); }
static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, void (*co_run)(struct fcall *c)) {
    struct fcall *c = fcall_new(face(req), req, co_run);
    c->ino = parent;
    fcall_name(c, name, NULL);
    fcall_go(c);
}
static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) { remove_name(req, parent, name, co_unlink); }
static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) { remove_name(req, parent, name, co_rmdir); }

static void co_rename(struct fcall *c) { reply_changed(c, co_mx_rename(c->f->mx, &c->op, c->h, c->name, c->h2, c->name2, (uint32_t)c->flags)); }
static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t parent2, const char *name2, unsigned flags) {
    if (flags & ~(RENAME_FLAG_NOREPLACE | RENAME_FLAG_EXCHANGE)) { // RENAME_WHITEOUT
        fuse_reply_err(req, EINVAL);
        return;
    }
    struct fcall *c = fcall_new(face(req), req, co_rename);
    c->ino = parent;
    c->ino2 = parent2;
    c->flags = (int)flags;
    fcall_name(c, name, name2);
    fcall_go(c);
}

// ---- directories. Nothing is kept at opendir: cookies are stable for ever.
static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { fuse_reply_open(req, fi); }
static void on_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { fuse_reply_err(req, 0); }

struct fill {
    struct fcall *c;
    char *p;
    size_t used, cap;
    bool plus;
};

static mode_t mode_of_type(uint8_t type) {
    switch ((enum object_type)type) {
    case OBJ_FILE: return S_IFREG;
    case OBJ_DIR: return S_IFDIR;
    case OBJ_SYMLINK: return S_IFLNK;
    case OBJ_FIFO: return S_IFIFO;
    case OBJ_SOCKET: return S_IFSOCK;
    case OBJ_CHARDEV: return S_IFCHR;
    case OBJ_BLOCKDEV: return S_IFBLK;
    }
    return 0;
}

// With plus, an entry that brings attributes counts as looked up; one without (its object is another IOM's) is told by name alone: inode 0 of the
// entry makes the kernel look it up when it is needed.
static bool fill_entry(void *arg, const struct mx_dirent *d) {
    struct fill *w = arg;
    char name[256];
    struct fuse_entry_param e = {.attr = {.st_ino = handle_inode(d->handle), .st_mode = mode_of_type(d->type)}};
    memcpy(name, d->name, d->name_len);
    name[d->name_len] = 0;
    bool looked_up = w->plus && d->has_attr && d->cookie > 2;
    if (looked_up) attr_to_entry(w->c->f, &d->attr, &e);
    size_t need = w->plus ? fuse_add_direntry_plus(w->c->req, w->p + w->used, w->cap - w->used, name, &e, (off_t)d->cookie)
                          : fuse_add_direntry(w->c->req, w->p + w->used, w->cap - w->used, name, &e.attr, (off_t)d->cookie);
    if (need > w->cap - w->used) {
        if (looked_up) node_forget(w->c->f, e.ino, 1);
        return false;
    }
    w->used += need;
    return true;
}

static void co_readdir(struct fcall *c) {
    struct buf *b = buf_new(c->f->env->mem, (uint32_t)c->size);
    struct fill w = {.c = c, .p = (char *)b->data, .cap = c->size, .plus = c->flags};
    bool eof;
    err e = co_mx_readdir(c->f->mx, &c->op, c->h, c->off, w.plus, fill_entry, &w, &eof);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (e && !w.used) fuse_reply_err(c->req, err_errno(e));
    else fuse_reply_buf(c->req, w.p, w.used);
    buf_unref(b);
}
static void readdir_call(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus) {
    struct fcall *c = fcall_new(face(req), req, co_readdir);
    c->ino = ino;
    c->size = MIN(size, (size_t)1 << 20);
    c->off = (uint64_t)off;
    c->flags = plus;
    fcall_go(c);
}
static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) { readdir_call(req, ino, size, off, false); }
static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) { readdir_call(req, ino, size, off, true); }

// ---- extended attributes. The kernel asks for security.capability before every write: file capabilities are not kept, so that it is answered here.
static bool never_kept(const char *name) { return !strcmp(name, "security.capability") || !strncmp(name, "system.posix_acl_", 17); }

static void co_setxattr(struct fcall *c) {
    reply_changed(c, co_mx_setxattr(c->f->mx, &c->op, c->h, c->name, c->data.buf ? slice_data(c->data) : NULL, c->data.len_bytes, c->flags));
}
static void on_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags) {
    if (never_kept(name) || size > 65536) {
        fuse_reply_err(req, size > 65536 ? E2BIG : EOPNOTSUPP);
        return;
    }
    struct fcall *c = fcall_new(face(req), req, co_setxattr);
    c->ino = ino;
    c->flags = flags;
    if (size) {
        c->data = (struct slice){buf_new(c->f->env->mem, (uint32_t)size), 0, (uint32_t)size};
        memcpy(c->data.buf->data, value, size);
    }
    fcall_name(c, name, NULL);
    fcall_go(c);
}

static void reply_xattr(struct fcall *c, err e, const struct buf *b, uint32_t len) {
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (e) fuse_reply_err(c->req, err_errno(e));
    else if (!c->size) fuse_reply_xattr(c->req, len);
    else fuse_reply_buf(c->req, (const char *)b->data, len);
}
static void co_getxattr(struct fcall *c) {
    uint32_t cap = (uint32_t)MIN(c->size, (size_t)65536), len = 0;
    struct buf *b = buf_new(c->f->env->mem, MAX(cap, 1u));
    err e = co_mx_getxattr(c->f->mx, &c->op, c->h, c->name, b->data, cap, &len);
    reply_xattr(c, e, b, len);
    buf_unref(b);
}
static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size) {
    if (never_kept(name)) {
        fuse_reply_err(req, ENODATA);
        return;
    }
    struct fcall *c = fcall_new(face(req), req, co_getxattr);
    c->ino = ino;
    c->size = size;
    fcall_name(c, name, NULL);
    fcall_go(c);
}
static void co_listxattr(struct fcall *c) {
    uint32_t cap = (uint32_t)MIN(c->size, (size_t)65536), len = 0;
    struct buf *b = buf_new(c->f->env->mem, MAX(cap, 1u));
    err e = co_mx_listxattr(c->f->mx, &c->op, c->h, (char *)b->data, cap, &len);
    reply_xattr(c, e, b, len);
    buf_unref(b);
}
static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size) {
    struct fcall *c = fcall_new(face(req), req, co_listxattr);
    c->ino = ino;
    c->size = size;
    fcall_go(c);
}
static void co_removexattr(struct fcall *c) { reply_changed(c, co_mx_removexattr(c->f->mx, &c->op, c->h, c->name)); }
static void on_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name) {
    struct fcall *c = fcall_new(face(req), req, co_removexattr);
    c->ino = ino;
    fcall_name(c, name, NULL);
    fcall_go(c);
}

static void co_statfs(struct fcall *c) {
    struct fuse_face *f = c->f;
    struct mx_statfs s;
    if (f->space_seen) fcall_limit(c, FUSE_ROOT_WAIT_NS);
    err e = co_mx_statfs(f->mx, &c->op, &s);
    if (e == ERR_INTR && c->late) {
        s = f->space;
        e = OK;
    }
    if (!e) f->space = s;
    f->space_seen |= !e;
    struct statvfs v = {.f_bsize = BLOCK_BYTES, .f_frsize = BLOCK_BYTES, .f_blocks = s.blocks, .f_bfree = s.free_blocks, .f_bavail = s.avail_blocks, .f_namemax = 255};
    v.f_ffree = v.f_favail = s.avail_blocks; // an object needs less than a block of metadata
    v.f_files = s.objects + s.avail_blocks;
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (e) fuse_reply_err(c->req, err_errno(e));
    else fuse_reply_statfs(c->req, &v);
}
static void on_statfs(fuse_req_t req, fuse_ino_t ino) {
    struct fcall *c = fcall_new(face(req), req, co_statfs);
    c->ino = ino ? ino : FUSE_ROOT_ID;
    fcall_go(c);
}

void fuse_ops_names(struct fuse_lowlevel_ops *o) {
    o->lookup = on_lookup;
    o->forget = on_forget;
    o->forget_multi = on_forget_multi;
    o->getattr = on_getattr;
    o->setattr = on_setattr;
    o->readlink = on_readlink;
    o->mknod = on_mknod;
    o->mkdir = on_mkdir;
    o->symlink = on_symlink;
    o->link = on_link;
    o->unlink = on_unlink;
    o->rmdir = on_rmdir;
    o->rename = on_rename;
    o->opendir = on_opendir;
    o->releasedir = on_releasedir;
    o->readdir = on_readdir;
    o->readdirplus = on_readdirplus;
    o->setxattr = on_setxattr;
    o->getxattr = on_getxattr;
    o->listxattr = on_listxattr;
    o->removexattr = on_removexattr;
    o->statfs = on_statfs;
}
