// A witness of what the file system promised: writes blocks of a file, keeps a log elsewhere of what it began and what
// it was told, and later looks whether the file agrees with the log.
//
//     witness write  FILE LOG BLOCKS     until SIGTERM or an error; prints how many writes were acknowledged
//     witness write1 FILE LOG BLOCKS     likewise, where no more than one server is lost at a time (below)
//     witness verify FILE LOG BLOCKS     prints what it saw, and notes it in LOG; exit 1: a promise is broken
//
// FILE stands for two: FILE.1 of the default toughness and FILE.2 of toughness 2, of BLOCKS blocks of 4096 bytes each.
// A block is eight slices of 512 bytes, each made from (file, block, slice, version). Four threads write, and each
// block belongs to one of them:
//
//     thread   file     writes                     durable when
//     0        FILE.1   some slices, O_SYNC        pwrite() returns
//     1        FILE.1   whole blocks               fsync() returns, after each 8
//     2        FILE.2   some slices                pwrite() returns (toughness 2)
//     3        FILE.1   whole blocks, O_DSYNC      pwrite() returns
//
// The state of a block after its write number v is the state before with the slices of that write at version v. Allowed
// is: the state last known to be durable, or that of any write begun since. What `verify` saw is durable (recovery ends
// on disk), and states between it and the writes begun later are void. Thread 1 writes whole blocks so that a crash
// which its own process survives (the IOMs died, the mount did not) makes no state that the log does not know.
//
// write1: both files have toughness 1, nobody has O_SYNC or calls fsync, and what pwrite() has returned from counts as
// durable. Every error is one. After each eight writes a thread reads those blocks back, past the kernel's cache.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { BLOCK = 4096, SLICES = 8, SLICE = BLOCK / SLICES, THREADS = 4, FSYNC_EVERY = 8 };
enum what { BEGUN, DURABLE, SEEN };

struct entry { // of LOG: appended whole, by one write()
    uint32_t what, block, version;
    uint16_t first, count; // BEGUN: the slices written
};
struct state { // of a block; all 0: never written
    uint32_t version, slice[SLICES];
};
struct block {
    struct state *allowed;  // [0] is the durable one; then those of the writes begun since, in order
    uint32_t n, room, last; // last: number of the last write begun
};

static char path[2][4096];
static int log_fd, blocks;
static struct block *known;
static bool one_at_a_time; // write1
static volatile sig_atomic_t stop;

static void die(const char *what, const char *of) {
    fprintf(stderr, "witness: %s: %s: %s\n", of, what, strerror(errno));
    exit(2);
}

// ---- content

static int file_of(int block) {
    return block % THREADS == 2;
}
static void fill(uint8_t *into, uint32_t block, uint32_t slice, uint32_t version) {
    uint64_t x = ((uint64_t)block << 32 | version) * 0x9e3779b97f4a7c15u + slice + 1;
    for (int i = 0; i < SLICE; i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(into + i, &x, 8);
    }
    if (!version) memset(into, 0, SLICE);
}
static void fill_state(uint8_t *into, uint32_t block, const struct state *s) {
    for (uint32_t i = 0; i < SLICES; i++) fill(into + i * SLICE, block, i, s->slice[i]);
}

// ---- the log

static void allow(struct block *b, struct state s) {
    if (b->n == b->room && !(b->allowed = realloc(b->allowed, (b->room = b->room * 2 + 1) * sizeof s)))
        die("memory", "states");
    b->allowed[b->n++] = s;
}
static void settle(struct block *b, uint32_t at) { // allowed[at] is durable: what came before it is void
    memmove(b->allowed, b->allowed + at, (b->n - at) * sizeof *b->allowed);
    b->n -= at;
}
static void take(struct entry e) {
    struct block *b = &known[e.block];
    uint32_t at = 0;
    if (e.what == BEGUN) {
        struct state s = b->allowed[b->n - 1];
        s.version = e.version;
        for (int i = e.first; i < e.first + e.count; i++) s.slice[i] = e.version;
        b->last = e.version;
        allow(b, s);
        return;
    }
    while (at < b->n && b->allowed[at].version != e.version) at++;
    if (at == b->n) die("a state that was not allowed", "log");
    settle(b, at);
    if (e.what == SEEN) b->n = 1;
}
static void note(struct entry e) {
    if (write(log_fd, &e, sizeof e) != sizeof e) die("write", "log");
    take(e);
}
static void replay(void) {
    struct entry e;
    known = calloc((size_t)blocks, sizeof *known);
    for (int i = 0; i < blocks; i++) allow(&known[i], (struct state){0});
    for (off_t at = 0; pread(log_fd, &e, sizeof e, at) == sizeof e; at += sizeof e) take(e);
}

// ---- writing

struct writer {
    pthread_t thread;
    int number;
    long acknowledged;
};
static int write_block(struct writer *w, int fd, int block, unsigned *random) { // 0, or the errno
    struct block *b = &known[block];
    int count = w->number % 2 ? SLICES : 1 + rand_r(random) % SLICES, first = rand_r(random) % (SLICES - count + 1);
    struct entry e = {BEGUN, (uint32_t)block, b->last + 1, (uint16_t)first, (uint16_t)count};
    uint8_t data[BLOCK];
    for (int i = 0; i < count; i++) fill(data + i * SLICE, e.block, (uint32_t)(first + i), e.version);
    note(e);
    if (pwrite(fd, data, (size_t)(count * SLICE), (off_t)block * BLOCK + first * SLICE) != count * SLICE)
        return errno == EIO && w->number != 2 && !one_at_a_time ? 0 : errno; // told of a loss in the file that it shares with thread 1
    w->acknowledged++;
    if (w->number != 1 || one_at_a_time) note((struct entry){DURABLE, e.block, e.version, 0, 0});
    return 0;
}
static int sync_blocks(int fd, const int written[FSYNC_EVERY], const uint32_t version[FSYNC_EVERY]) { // 0, or the errno
    if (fsync(fd)) return errno == EIO ? 0 : errno; // told once after a crash of all: what was not fsynced may be lost
    for (int i = 0; i < FSYNC_EVERY; i++)
        if (version[i] == known[written[i]].last) note((struct entry){DURABLE, (uint32_t)written[i], version[i], 0, 0});
    return 0;
}
static bool is_as_written(int direct, int block) {
    _Alignas(BLOCK) uint8_t found[BLOCK];
    uint8_t want[BLOCK];
    struct block *b = &known[block];
    if (pread(direct, found, BLOCK, (off_t)block * BLOCK) != BLOCK) die("read", path[file_of(block)]);
    fill_state(want, (uint32_t)block, &b->allowed[b->n - 1]);
    if (!memcmp(found, want, BLOCK)) return true;
    fprintf(stderr, "witness: block %d of %s is not as it was written (write %u)\n", block, path[file_of(block)], b->last);
    return false;
}
static void *write_on(void *arg) {
    static const int flags[THREADS] = {O_SYNC, 0, 0, O_DSYNC};
    struct writer *w = arg;
    unsigned random = (unsigned)(getpid() * THREADS + w->number);
    int fd = open(path[w->number == 2], O_RDWR | (one_at_a_time ? 0 : flags[w->number]));
    int direct = open(path[w->number == 2], O_RDONLY | O_DIRECT), e = fd < 0 || direct < 0 ? errno : 0;
    while (!e && !stop) {
        int written[FSYNC_EVERY];
        uint32_t version[FSYNC_EVERY];
        for (int i = 0; i < FSYNC_EVERY && !e; i++) {
            written[i] = rand_r(&random) % (blocks / THREADS) * THREADS + w->number;
            e = write_block(w, fd, written[i], &random);
            version[i] = known[written[i]].last;
        }
        for (int i = 0; i < FSYNC_EVERY && !e && one_at_a_time; i++)
            if (!is_as_written(direct, written[i])) e = EILSEQ;
        if (!e && w->number == 1 && !one_at_a_time) e = sync_blocks(fd, written, version);
    }
    if (e && e != ENOTCONN && e != ECONNABORTED) fprintf(stderr, "witness: thread %d: %s\n", w->number, strerror(e));
    return (void *)(intptr_t)e;
}
static void on_term(int sig) {
    (void)sig;
    stop = 1;
}
static int write_all(void) {
    struct writer w[THREADS];
    long acknowledged = 0;
    int bad = 0;
    for (int f = 0; f < 2; f++) {
        int fd = open(path[f], O_RDWR | O_CREAT, 0644);
        if (fd < 0 || ftruncate(fd, (off_t)blocks * BLOCK)) die("open", path[f]);
        if (fsetxattr(fd, "user.mendfs.toughness", f && !one_at_a_time ? "2" : "1", 1, 0)) die("toughness", path[f]);
        if (fsync(fd)) die("fsync", path[f]);
        close(fd);
    }
    signal(SIGTERM, on_term);
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct writer){.number = i};
        if (pthread_create(&w[i].thread, NULL, write_on, &w[i])) die("thread", "start");
    }
    for (int i = 0; i < THREADS; i++) {
        void *e;
        pthread_join(w[i].thread, &e);
        acknowledged += w[i].acknowledged;
        if (e && (intptr_t)e != ENOTCONN && (intptr_t)e != ECONNABORTED) bad = 1;
    }
    printf("%ld\n", acknowledged);
    return bad;
}

// ---- looking

static int verify_block(const int fd[2], int block, long *behind) {
    _Alignas(BLOCK) uint8_t found[BLOCK];
    uint8_t want[BLOCK];
    struct block *b = &known[block];
    if (pread(fd[file_of(block)], found, BLOCK, (off_t)block * BLOCK) != BLOCK) die("read", path[file_of(block)]);
    for (uint32_t at = b->n; at-- > 0;) {
        fill_state(want, (uint32_t)block, &b->allowed[at]);
        if (memcmp(found, want, BLOCK)) continue;
        *behind += b->n - 1 - at;
        note((struct entry){SEEN, (uint32_t)block, b->allowed[at].version, 0, 0});
        return 0;
    }
    fprintf(stderr,
            "witness: block %d of %s is in none of its %u allowed states (durable: write %u, begun: up to %u)\n", block,
            path[file_of(block)], b->n, b->allowed[0].version, b->last);
    return 1;
}
static int verify_all(void) {
    int fd[2], bad = 0;
    long behind = 0, durable = 0;
    for (int f = 0; f < 2; f++)
        if ((fd[f] = open(path[f], O_RDONLY | O_DIRECT)) < 0) die("open", path[f]);
    for (int i = 0; i < blocks; i++) durable += known[i].n == 1;
    for (int i = 0; i < blocks; i++) bad += verify_block(fd, i, &behind);
    printf("%d blocks: %d wrong; %ld of them known to the last write, %ld writes not done\n", blocks, bad, durable,
           behind);
    return bad != 0;
}

int main(int argc, char **argv) {
    if (argc != 5 || (blocks = atoi(argv[4])) < THREADS || blocks % THREADS) {
        fprintf(stderr, "use: witness write|write1|verify FILE LOG BLOCKS (a multiple of %d)\n", THREADS);
        return 2;
    }
    for (int f = 0; f < 2; f++) snprintf(path[f], sizeof path[f], "%s.%d", argv[2], f + 1);
    if ((log_fd = open(argv[3], O_RDWR | O_CREAT | O_APPEND, 0644)) < 0) die("open", argv[3]);
    replay();
    one_at_a_time = !strcmp(argv[1], "write1");
    if (one_at_a_time || !strcmp(argv[1], "write")) return write_all();
    return verify_all();
}
