// A store's device: an image file or a block device, read and written with direct I/O by four threads.
//
//   submitted (loop) -> queue | flushes (lock) -> a thread: one call of the kernel -> done (lock) -> collected (loop)
//
// - What is submitted within a slice of tasks goes to the threads together, under one lock and at most one wake-up; a
//   thread that finds more than it takes wakes the next.
// - A thread takes as many neighbours in the queue as continue one another and makes one call of them.
// - One fdatasync runs at a time and covers all flushes that waited when it began (each was submitted after the
//   completions that it must cover).
// - The loop is woken only when it sleeps, and once, however many complete.
// - Nobody is woken by a holder of the lock: who wakes wants it at once, and would go back to sleep for it.
// - A power-protected device gets no fdatasync (env.h); an image file on one is written with O_DSYNC, because its file
//   system keeps apart which places of the file have ever been written, and that has to be durable with them.
// - After a failed flush no later one succeeds: the kernel may have dropped what it could not write and would then
//   call the rest clean. Whoever opens the store anew finds out by its checksums what is there.
#include "host/host.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define DISK_THREADS 4
#define RUN_IOV_MAX 256
#define RUN_BYTES_MAX MIB(1)

struct host_disk {
    struct disk disk;
    struct loop *loop;
    struct list node;        // loop.disks
    struct grave grave;
    char *path;
    int fd;
    uint32_t inflight;       // submitted and not yet collected
    struct list submitted;   // not yet seen by the threads

    pthread_mutex_t lock;    // what follows
    pthread_cond_t work;
    struct list queue;       // reads and writes
    struct list flushes;
    struct list done;
    bool flushing, flush_failed, ending;
    uint32_t idle;           // threads that wait for work
    uint64_t calls, bytes_read, bytes_written, wakes;

    atomic_bool has_done;
    uint32_t threads_len;
    pthread_t threads[DISK_THREADS];
};

static uint64_t io_bytes(const struct disk_io *io) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < io->iov_len; i++) sum += io->iov[i].len_bytes;
    return sum;
}

// ---- in the threads -------------------------------------------------------------------------------------------------
// Neighbours of one kind that continue one another.
struct run {
    struct list ios;
    enum disk_op op;
    uint64_t off_bytes, len_bytes;
    uint32_t iov_len;
};

static bool run_takes(const struct run *r, const struct disk_io *io) {
    return io->op == r->op && io->off_bytes == r->off_bytes + r->len_bytes && r->iov_len + io->iov_len <= RUN_IOV_MAX &&
           r->len_bytes + io_bytes(io) <= RUN_BYTES_MAX;
}

static void run_take(struct run *r, struct disk_io *io) {
    list_remove(&io->node);
    list_push_back(&r->ios, &io->node);
    r->len_bytes += io_bytes(io);
    r->iov_len += io->iov_len;
}

static void run_gather(struct run *r, struct list *queue) {
    struct disk_io *io = LIST_ENTRY(queue->next, struct disk_io, node);
    list_init(&r->ios);
    r->op = io->op;
    r->off_bytes = io->off_bytes;
    r->len_bytes = r->iov_len = 0;
    do run_take(r, io);
    while (!list_empty(queue) && run_takes(r, io = LIST_ENTRY(queue->next, struct disk_io, node)));
}

static uint32_t iov_of(const struct disk_io *io, struct iovec *iov) {
    for (uint32_t i = 0; i < io->iov_len; i++) iov[i] = (struct iovec){io->iov[i].base, io->iov[i].len_bytes};
    return io->iov_len;
}

// Drops the first n bytes of what *iov lists.
static void iov_advance(struct iovec **iov, uint32_t *iov_len, size_t n) {
    while (*iov_len && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        ++*iov;
        --*iov_len;
    }
    if (!n) return;
    (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
    (*iov)->iov_len -= n;
}

static err err_of_io(int eno) { return eno == ENOSPC || eno == EDQUOT ? ERR_NOSPC : ERR_IO; }

// All of it or an error; the kernel may stop short or be interrupted anywhere.
static err transfer(int fd, enum disk_op op, struct iovec *iov, uint32_t iov_len, uint64_t off_bytes, uint64_t *calls) {
    while (iov_len) {
        ssize_t n = op == DISK_READ ? preadv(fd, iov, (int)iov_len, (off_t)off_bytes)
                                    : pwritev(fd, iov, (int)iov_len, (off_t)off_bytes);
        ++*calls;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_of_io(errno);
        if (n == 0) return ERR_IO; // the file was cut under us
        off_bytes += (uint64_t)n;
        iov_advance(&iov, &iov_len, (size_t)n);
    }
    return OK;
}

static err transfer_one(int fd, struct disk_io *io, uint64_t *calls) {
    struct iovec iov[DISK_IOV_MAX];
    uint32_t iov_len = iov_of(io, iov);
    return transfer(fd, io->op, iov, iov_len, io->off_bytes, calls);
}

static uint64_t run_transfer(int fd, struct run *r) {
    struct iovec iov[RUN_IOV_MAX];
    uint32_t iov_len = 0;
    uint64_t calls = 0;
    LIST_FOR(&r->ios, n) iov_len += iov_of(LIST_ENTRY(n, struct disk_io, node), iov + iov_len);
    err e = transfer(fd, r->op, iov, iov_len, r->off_bytes, &calls);
    bool alone = r->ios.next == r->ios.prev;
    LIST_FOR(&r->ios, n) {
        struct disk_io *io = LIST_ENTRY(n, struct disk_io, node);
        // A bad sector is the fault of one of them only.
        io->result = e == OK || alone ? e : transfer_one(fd, io, &calls);
    }
    return calls;
}

static void list_splice_back(struct list *to, struct list *from) {
    if (list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

// With the lock held, which is given up meanwhile.
static void complete(struct host_disk *d, struct list *ios, uint64_t calls) {
    list_splice_back(&d->done, ios);
    d->calls += calls;
    atomic_store(&d->has_done, true);
    if (!atomic_exchange(&d->loop->asleep, false)) return;
    d->wakes++;
    pthread_mutex_unlock(&d->lock);
    ssize_t n = write(d->loop->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    ASSERT(n == sizeof(uint64_t));
    pthread_mutex_lock(&d->lock);
}

// Gives up the lock before work that takes long; what is left in the queue is another thread's.
static void leave_rest(struct host_disk *d) {
    bool help = !list_empty(&d->queue) && d->idle;
    pthread_mutex_unlock(&d->lock);
    if (help) pthread_cond_signal(&d->work);
}

static void work_on_run(struct host_disk *d) {
    struct run r;
    run_gather(&r, &d->queue);
    leave_rest(d);
    uint64_t calls = run_transfer(d->fd, &r);
    pthread_mutex_lock(&d->lock);
    *(r.op == DISK_READ ? &d->bytes_read : &d->bytes_written) += r.len_bytes;
    complete(d, &r.ios, calls);
}

static void work_on_flushes(struct host_disk *d) {
    struct list ios;
    list_init(&ios);
    list_splice_back(&ios, &d->flushes);
    d->flushing = true;
    leave_rest(d);
    int r;
    do r = fdatasync(d->fd);
    while (r != 0 && errno == EINTR);
    err e = r == 0 ? OK : err_of_io(errno);
    pthread_mutex_lock(&d->lock);
    d->flushing = false;
    d->flush_failed |= e != OK;
    if (d->flush_failed && e == OK) e = ERR_IO;
    LIST_FOR(&ios, n) LIST_ENTRY(n, struct disk_io, node)->result = e;
    complete(d, &ios, 1);
}

static void *thread_main(void *arg) {
    struct host_disk *d = arg;
    pthread_mutex_lock(&d->lock);
    while (!d->ending) {
        if (!list_empty(&d->flushes) && !d->flushing) {
            work_on_flushes(d);
        } else if (!list_empty(&d->queue)) {
            work_on_run(d);
        } else {
            d->idle++;
            pthread_cond_wait(&d->work, &d->lock);
            d->idle--;
        }
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

// ---- on the loop ----------------------------------------------------------------------------------------------------
static struct host_disk *host_disk_of(const struct disk *d) { return CONTAINER_OF(d, struct host_disk, disk); }

static bool io_inside(const struct host_disk *d, const struct disk_io *io) {
    uint64_t len_bytes = io_bytes(io);
    return len_bytes <= d->disk.size_bytes && io->off_bytes <= d->disk.size_bytes - len_bytes;
}

// An address beyond the end comes from damaged records; it is an error of this I/O, not of the program.
static void complete_outside(struct host_disk *d, struct disk_io *io) {
    io->result = ERR_IO;
    pthread_mutex_lock(&d->lock);
    list_push_back(&d->done, &io->node);
    atomic_store(&d->has_done, true);
    pthread_mutex_unlock(&d->lock);
}

void host_disk_submit(struct disk *disk, struct disk_io *io) {
    struct host_disk *d = host_disk_of(disk);
    struct host_counters *count = &d->loop->count;
    list_init(&io->node);
    d->inflight++;
    switch (io->op) {
    case DISK_READ: count->disk_reads++; break;
    case DISK_WRITE: count->disk_writes++; break;
    case DISK_FLUSH: count->disk_flushes++; break;
    }
    if (io->op != DISK_FLUSH && !io_inside(d, io))
        complete_outside(d, io);
    else
        list_push_back(&d->submitted, &io->node);
}

static void disk_hand_over(struct host_disk *d) {
    pthread_mutex_lock(&d->lock);
    for (struct list *n; (n = list_pop_front(&d->submitted));)
        list_push_back(LIST_ENTRY(n, struct disk_io, node)->op == DISK_FLUSH ? &d->flushes : &d->queue, n);
    bool help = d->idle;
    pthread_mutex_unlock(&d->lock);
    if (help) pthread_cond_signal(&d->work);
}

void disks_submit(struct loop *l) {
    LIST_FOR(&l->disks, n) {
        struct host_disk *d = LIST_ENTRY(n, struct host_disk, node);
        if (!list_empty(&d->submitted)) disk_hand_over(d);
    }
}

bool disks_completed(const struct loop *l) {
    LIST_FOR(&l->disks, n) if (atomic_load(&LIST_ENTRY(n, struct host_disk, node)->has_done)) return true;
    return false;
}

static void log_failed(struct host_disk *d, const struct disk_io *io) {
    static const char *const names[] = {"read", "write", "flush"};
    LOG(d->disk.env, TRACE_ERROR, "store %s: %s of %llu bytes at %llu failed: %s", d->path, names[io->op],
        io->op == DISK_FLUSH ? 0 : (unsigned long long)io_bytes(io), (unsigned long long)io->off_bytes,
        err_text(io->result));
}

static void disk_count(struct host_disk *d) { // with the lock held
    struct host_counters *count = &d->loop->count;
    count->disk_calls += d->calls;
    count->syscalls += d->calls + d->wakes;
    count->wakes += d->wakes;
    count->disk_bytes_read += d->bytes_read;
    count->disk_bytes_written += d->bytes_written;
    d->calls = d->wakes = d->bytes_read = d->bytes_written = 0;
}

static void disk_collect(struct host_disk *d) {
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&d->lock);
    list_splice_back(&done, &d->done);
    disk_count(d);
    atomic_store(&d->has_done, false);
    pthread_mutex_unlock(&d->lock);
    for (struct list *n; (n = list_pop_front(&done));) {
        struct disk_io *io = LIST_ENTRY(n, struct disk_io, node);
        d->inflight--;
        if (io->result != OK) log_failed(d, io);
        io->done(io);
    }
}

// A done may open another disk, but closing one waits in a task: the list only grows meanwhile.
void disks_collect(struct loop *l) {
    LIST_FOR(&l->disks, n) {
        struct host_disk *d = LIST_ENTRY(n, struct host_disk, node);
        if (atomic_load(&d->has_done)) disk_collect(d);
    }
}

uint32_t host_disk_inflight(const struct disk *disk) { return host_disk_of(disk)->inflight; }

// ---- opening --------------------------------------------------------------------------------------------------------
// O_DIRECT is set after opening: with O_CREAT a file system that refuses it would leave an empty file behind.
static int open_file(const struct disk_open_args *a, bool *made) {
    struct stat st;
    bool is_device = stat(a->path, &st) == 0 && S_ISBLK(st.st_mode);
    int flags = is_device ? O_EXCL : a->power_protected ? O_DSYNC : 0; // O_EXCL: also against mounts of it
    *made = false;
    int fd = open(a->path, O_RDWR | O_CLOEXEC | flags);
    if (fd >= 0 || errno != ENOENT || !a->create) return fd;
    fd = open(a->path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL | flags, 0600);
    *made = fd >= 0;
    return fd;
}

static err size_of(int fd, bool *is_device, uint64_t *size_bytes) {
    struct stat st;
    if (fstat(fd, &st) != 0) return err_of_errno(errno);
    *is_device = S_ISBLK(st.st_mode);
    if (!*is_device && !S_ISREG(st.st_mode)) return ERR_INVAL;
    if (*is_device) return ioctl(fd, BLKGETSIZE64, size_bytes) == 0 ? OK : err_of_errno(errno);
    *size_bytes = (uint64_t)st.st_size;
    return OK;
}

// Asked first: a file system may fill itself up, under everybody's feet, before it finds that it was too much.
static bool has_room(struct env *e, const char *path, int fd, uint64_t more_bytes) {
    struct statvfs vfs;
    if (fstatvfs(fd, &vfs) != 0) return true;
    uint64_t free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (more_bytes <= free_bytes) return true;
    LOG(e, TRACE_ERROR, "store %s: %llu MiB more are needed, its file system has %llu MiB free", path,
        (unsigned long long)(more_bytes >> 20), (unsigned long long)(free_bytes >> 20));
    return false;
}

// Room that the file system has promised. Never posix_fallocate: where the file system cannot, it writes it all full.
static err grow(struct env *e, const char *path, int fd, uint64_t size_bytes) {
    int r;
    do r = fallocate(fd, 0, 0, (off_t)size_bytes);
    while (r != 0 && errno == EINTR);
    if (r != 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
        LOG(e, TRACE_WARN, "store %s: this file system cannot reserve space; the store may run into a full disk", path);
        r = ftruncate(fd, (off_t)size_bytes);
    }
    return r == 0 && fsync(fd) == 0 ? OK : err_of_errno(errno);
}

static err sync_parent(const char *path) {
    char dir[4096];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    if (len >= sizeof dir) return ERR_NAMETOOLONG;
    memcpy(dir, path, len);
    dir[len] = 0;
    int fd = open(len ? dir : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_of_errno(errno);
    err e = fsync(fd) == 0 ? OK : err_of_errno(errno);
    close(fd);
    return e;
}

static err set_size(struct env *e, const struct disk_open_args *a, int fd, bool made, uint64_t *size_bytes) {
    bool is_device = false;
    err r = size_of(fd, &is_device, size_bytes);
    if (r != OK) return r;
    if (a->create && *size_bytes < a->size_bytes) {
        if (is_device) return ERR_TOOSMALL;
        if (!has_room(e, a->path, fd, a->size_bytes - *size_bytes)) return ERR_NOSPC;
        *size_bytes = a->size_bytes;
        r = grow(e, a->path, fd, *size_bytes);
        if (r == OK && made) r = sync_parent(a->path);
        if (r != OK) return r;
    }
    *size_bytes = *size_bytes / BLOCK_BYTES * BLOCK_BYTES;
    return *size_bytes ? OK : ERR_TOOSMALL;
}

static bool try_direct(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) return false;
    void *p = NULL;
    int r = posix_memalign(&p, BLOCK_BYTES, BLOCK_BYTES);
    ASSERT(r == 0);
    bool works = pread(fd, p, BLOCK_BYTES, 0) >= 0 || errno != EINVAL; // some take the flag and refuse the I/O
    free(p);
    if (!works) fcntl(fd, F_SETFL, flags);
    return works;
}

static void start_threads(struct host_disk *d) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the loop's
    for (; d->threads_len < DISK_THREADS; d->threads_len++)
        if (pthread_create(&d->threads[d->threads_len], NULL, thread_main, d) != 0) break;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static struct host_disk *disk_new(struct loop *l, const char *path, int fd, uint64_t size_bytes) {
    struct host_disk *d = mem_alloc(l->env.mem, sizeof *d);
    d->disk = (struct disk){.env = &l->env, .size_bytes = size_bytes};
    d->loop = l;
    d->path = mem_strdup(l->env.mem, path);
    d->fd = fd;
    list_init(&d->submitted);
    list_init(&d->queue);
    list_init(&d->flushes);
    list_init(&d->done);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    list_push_back(&l->disks, &d->node);
    start_threads(d);
    return d;
}

static void end_threads(struct host_disk *d) {
    pthread_mutex_lock(&d->lock);
    d->ending = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (uint32_t i = 0; i < d->threads_len; i++) pthread_join(d->threads[i], NULL);
    d->threads_len = 0;
}

static void disk_free(struct host_disk *d) {
    end_threads(d);
    disk_count(d);
    list_remove(&d->node);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->work);
    close(d->fd);
    mem_free(d->loop->env.mem, d->path);
    loop_bury(d->loop, &d->grave, d);
}

err host_disk_open(struct env *e, const struct disk_open_args *a, struct disk **out) {
    bool made;
    int fd = open_file(a, &made);
    if (fd < 0) return errno == EBUSY ? ERR_LOCKED : err_of_errno(errno);
    uint64_t size_bytes = 0;
    err r = host_lock_fd(fd);
    if (r == OK) r = set_size(e, a, fd, made, &size_bytes);
    if (r != OK) {
        if (made && r != ERR_LOCKED) unlink(a->path);
        close(fd);
        return r;
    }
    if (!try_direct(fd))
        LOG(e, TRACE_WARN, "store %s: this file system refuses direct I/O; it goes through the page cache", a->path);
    struct host_disk *d = disk_new(loop_of(e), a->path, fd, size_bytes);
    if (!d->threads_len) {
        LOG(e, TRACE_ERROR, "store %s: no thread can be started for it", a->path);
        disk_free(d);
        return ERR_NOMEM;
    }
    *out = &d->disk;
    return OK;
}

void host_disk_close(struct disk *disk) {
    struct host_disk *d = host_disk_of(disk);
    ASSERT(d->inflight == 0);
    disk_free(d);
}

void disks_close(struct loop *l) {
    while (!list_empty(&l->disks)) disk_free(LIST_ENTRY(l->disks.next, struct host_disk, node));
}
