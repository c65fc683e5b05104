// Open files: what the kernel asks, as operations of the MX.
//
// Caching is close-to-open: the kernel keeps an object's pages from one open to the next only while the object's change counter is the one at which they were
// filled. cached_change moves on with what this mount itself wrote as long as nobody else's change came between (mx_file_own_change).
#include "fuse/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static struct fuse_face *face(fuse_req_t req) { return fuse_req_userdata(req); }
static struct mx_file *file_of(const struct fcall *c) { return (struct mx_file *)(uintptr_t)c->fi.fh; }

static uint32_t open_flags(int flags) {
    uint32_t f = 0;
    if (flags & O_DSYNC) f |= MX_O_SYNC; // O_SYNC contains it
    if (flags & O_TRUNC) f |= MX_O_TRUNC;
    if (flags & O_EXCL) f |= MX_O_EXCL;
    return f;
}

static struct fcall *file_call(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, void (*co_run)(struct fcall *c)) {
    struct fcall *c = fcall_new(face(req), req, co_run);
    c->ino = ino;
    if (fi) {
        c->fi = *fi;
        c->has_fi = true;
    }
    return c;
}

// ---- open and create
static void opened(struct fcall *c, struct mx_file *file, const struct attr *a, struct node *n) {
    c->fi.fh = (uint64_t)(uintptr_t)file;
    c->fi.keep_cache = n->cached_change != 0 && n->cached_change == a->change;
    n->cached_change = a->change;
}

static void co_face_open(struct fcall *c) {
    struct mx_file *file;
    struct attr a;
    err e = co_mx_open(c->f->mx, &c->op, c->h, open_flags(c->fi.flags), &file, &a);
    if (e) {
        reply_err(c, e);
        return;
    }
    struct node *n = node_of(c->f, c->ino);
    ASSERT(n); // the kernel holds it while it opens it
    opened(c, file, &a, n);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (fuse_reply_open(c->req, &c->fi)) co_mx_release(c->f->mx, file);
}
static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { fcall_go(file_call(req, ino, fi, co_face_open)); }

static void co_face_create(struct fcall *c) {
    struct mx_file *file;
    struct attr a;
    struct fuse_entry_param entry;
    err e = co_mx_create(c->f->mx, &c->op, c->h, c->name, c->mode, open_flags(c->fi.flags) | MX_O_CREATE, &file, &a);
    if (e) {
        c->f->dirs_era++;
        reply_err(c, e);
        return;
    }
    node_dir_named(c->f, c->ino, &a);
    attr_to_entry(c->f, &a, &entry);
    opened(c, file, &a, node_of(c->f, entry.ino));
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (!fuse_reply_create(c->req, &entry, &c->fi)) return;
    node_forget(c->f, entry.ino, 1);
    co_mx_release(c->f->mx, file);
}
static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi) {
    struct fcall *c = file_call(req, parent, fi, co_face_create);
    c->mode = S_IFREG | (mode & 07777);
    fcall_name(c, name, NULL);
    fcall_go(c);
}

// ---- read and write
static void co_face_read(struct fcall *c) {
    uint32_t got = 0;
    struct buf *b = buf_new(c->f->env->mem, (uint32_t)c->size);
    err e = co_mx_read(c->f->mx, &c->op, file_of(c), c->off, (uint32_t)c->size, b->data, &got);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (e) fuse_reply_err(c->req, err_errno(e));
    else fuse_reply_buf(c->req, (const char *)b->data, got);
    buf_unref(b);
}
static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    struct fcall *c = file_call(req, ino, fi, co_face_read);
    c->size = MIN(size, (size_t)1 << 20);
    c->off = (uint64_t)off;
    fcall_go(c);
}

// O_APPEND: where the bytes go is the starter's word, so that writers through several mounts do not overwrite each other. The kernel puts its page where it
// believed the end to be; when that was wrong its pages are dropped.
static err co_write_append(struct fcall *c) {
    uint64_t at;
    err e = co_mx_append(c->f->mx, &c->op, file_of(c), c->data, &at);
    if (!e && at != c->off) {
        struct node *n = node_of(c->f, c->ino);
        if (n) n->cached_change = 0; // the next open begins with an empty cache
    }
    return e;
}
static void co_face_write(struct fcall *c) {
    err e = c->fi.flags & O_APPEND && !c->fi.writepage ? co_write_append(c) : co_mx_write(c->f->mx, &c->op, file_of(c), c->off, c->data);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    if (e) fuse_reply_err(c->req, err_errno(e));
    else fuse_reply_write(c->req, c->data.len_bytes);
}
static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi) {
    struct fcall *c = file_call(req, ino, fi, co_face_write);
    struct buf *rx = c->f->rx;
    c->off = (uint64_t)off;
    if (size >= BLOCK_BYTES && (const uint8_t *)data >= rx->data && (const uint8_t *)data + size <= rx->data + rx->cap_bytes) {
        c->data = (struct slice){buf_ref(rx), (uint32_t)((const uint8_t *)data - rx->data), (uint32_t)size};
    } else {
        c->data = (struct slice){buf_new(c->f->env->mem, MAX((uint32_t)size, 1u)), 0, (uint32_t)size};
        memcpy(c->data.buf->data, data, size);
    }
    fcall_go(c);
}

// ---- flush, fsync, release
// After the starter knows of this mount's writes the kernel's pages are those of the new change counter, if nobody else moved it.
static void co_face_flush(struct fcall *c) {
    fcall_watch_exit(c); // who was killed waits for this while it exits, and is not interrupted any more
    err e = co_mx_flush(c->f->mx, &c->op, file_of(c));
    struct node *n = node_of(c->f, c->ino);
    uint64_t change = n && n->cached_change ? mx_file_own_change(file_of(c), n->cached_change) : 0;
    if (change) n->cached_change = change;
    reply_err(c, e);
}
static void on_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { fcall_go(file_call(req, ino, fi, co_face_flush)); }

static void co_face_fsync(struct fcall *c) { reply_err(c, co_mx_fsync(c->f->mx, &c->op, file_of(c), c->flags)); }
static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) {
    struct fcall *c = file_call(req, ino, fi, co_face_fsync);
    c->flags = datasync;
    fcall_go(c);
}
static void co_face_fsyncdir(struct fcall *c) { reply_err(c, co_mx_fsyncdir(c->f->mx, &c->op, c->h)); }
static void on_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) { fcall_go(file_call(req, ino, fi, co_face_fsyncdir)); }

static void co_face_release(struct fcall *c) {
    co_mx_release(c->f->mx, file_of(c));
    reply_err(c, OK);
}
static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { fcall_go(file_call(req, ino, fi, co_face_release)); }

static void on_init(void *arg, struct fuse_conn_info *conn) {
    struct fuse_face *f = arg;
    conn->max_write = 1u << 20;
    conn->max_readahead = 1u << 20;
    conn->max_background = 64;
    conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_HANDLE_KILLPRIV);
    conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS |
                                   FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_EXPORT_SUPPORT);
    if (f->options.writeback) conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
}

void fuse_ops_files(struct fuse_lowlevel_ops *o) {
    o->init = on_init;
    o->open = on_open;
    o->create = on_create;
    o->read = on_read;
    o->write = on_write;
    o->flush = on_flush;
    o->fsync = on_fsync;
    o->fsyncdir = on_fsyncdir;
    o->release = on_release;
}
