// The disk as tasks see it: straight-line calls over disk_submit.
#include "env/env.h"

err disk_open(struct env *e, const struct disk_open_args *a, struct disk **out) {
    err r = e->ops->disk_open(e, a, out);
    if (r == OK) {
        (*out)->env = e;
        (*out)->power_protected = a->power_protected;
        (*out)->failed = NULL;
    }
    return r;
}

uint64_t disk_size_bytes(const struct disk *d) { return d->size_bytes; }

static bool aligned(uint64_t v) { return v % BLOCK_BYTES == 0; }

void disk_submit(struct disk *d, struct disk_io *io) {
    ASSERT(io->iov_len <= DISK_IOV_MAX && aligned(io->off_bytes) && io->done);
    ASSERT(io->op == DISK_FLUSH || io->iov_len > 0);
    for (uint32_t i = 0; i < io->iov_len; i++)
        ASSERT(aligned((uintptr_t)io->iov[i].base) && aligned(io->iov[i].len_bytes) && io->iov[i].len_bytes > 0);
    d->env->ops->disk_submit(d, io);
}

void disk_told(struct disk *d, const struct disk_io *io) {
    if (io->result != OK && d->failed) d->failed(d->ctx, io->op);
}

#define CLOSE_POLL_NS USEC(100) // the end of a disk's life is no place that hurries

void co_disk_close(struct disk *d) {
    struct env *e = d->env;
    while (e->ops->disk_inflight(d) > 0) co_sleep_until(e, env_now_ns(e) + CLOSE_POLL_NS, "disk close: in flight");
    e->ops->disk_close(d);
}

struct call {
    struct disk_io io;
    struct disk *disk;
    struct env *env;
    bool done;
    struct waitq q;
};

static void call_done(struct disk_io *io) {
    struct call *c = io->arg;
    c->done = true;
    disk_told(c->disk, io);
    waitq_wake_one(c->env, &c->q);
}

// The I/O lies on the stack of the task that waits for it: see env_fini for a node that dies meanwhile.
static void call_begin(struct disk *d, struct call *c) {
    c->disk = d;
    c->env = d->env;
    c->done = false;
    waitq_init(&c->q);
    c->io.done = call_done;
    c->io.arg = c;
    c->io.result = OK;
    list_init(&c->io.node);
    disk_submit(d, &c->io);
}

static err co_call_end(struct call *c, const char *label) {
    while (!c->done) co_wait(c->env, &c->q, label);
    return c->io.result;
}

static err co_transfer(struct disk *d, enum disk_op op, uint64_t off_bytes, void *p, uint32_t len_bytes,
                       const char *label) {
    if (len_bytes > d->size_bytes || off_bytes > d->size_bytes - len_bytes) return ERR_IO;
    struct call c;
    c.io.op = op;
    c.io.off_bytes = off_bytes;
    c.io.iov_len = 1;
    c.io.iov[0].base = p;
    c.io.iov[0].len_bytes = len_bytes;
    call_begin(d, &c);
    return co_call_end(&c, label);
}

err co_disk_read(struct disk *d, uint64_t off_bytes, void *p, uint32_t len_bytes) {
    return co_transfer(d, DISK_READ, off_bytes, p, len_bytes, "disk read");
}

err co_disk_write(struct disk *d, uint64_t off_bytes, const void *p, uint32_t len_bytes) {
    void *source = (void *)(uintptr_t)p; // only read by a write
    return co_transfer(d, DISK_WRITE, off_bytes, source, len_bytes, "disk write");
}

static void flush_begin(struct disk *d, struct call *c) {
    c->io.op = DISK_FLUSH;
    c->io.off_bytes = 0;
    c->io.iov_len = 0;
    call_begin(d, c);
}

err co_disk_flush(struct disk *d) {
    return co_disk_flush_both(d, NULL);
}

err co_disk_flush_both(struct disk *a, struct disk *b) {
    struct call c[2];
    bool first = !a->power_protected, second = b && b != a && !b->power_protected;
    if (first) flush_begin(a, &c[0]);
    if (second) flush_begin(b, &c[1]);
    err e = first ? co_call_end(&c[0], "disk flush") : OK, f = second ? co_call_end(&c[1], "disk flush") : OK;
    return e != OK ? e : f;
}
