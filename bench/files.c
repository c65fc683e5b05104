// What bench/run does to files and names that fio does not do: timed loops of system calls.
//
//     files WHAT PATH COUNT [BYTES]     prints "SECONDS COUNT P50_US P99_US" of what it did, by its own clock
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PER_DIR 100 // names a directory
#define MIB 1048576u

static const char *path;
static long count, bytes;
static char *data, name[4200], name2[4200];
static double *taken_us;

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}
static void need(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s: %s: %s\n", what, name[0] ? name : path, strerror(errno));
    exit(1);
}
static void write_whole(int fd, const char *from, size_t len) {
    ssize_t n = write(fd, from, len);
    if (n >= 0 && (size_t)n < len) errno = EIO;
    need(n == (ssize_t)len, "write");
}

// ---- one file: PATH
static int file;
static void file_open(int flags) { need((file = open(path, flags, 0644)) >= 0, "open"); }
static void write_begin(void) { file_open(O_WRONLY | O_CREAT | O_TRUNC); }
static void read_begin(void) { file_open(O_RDONLY); }
static void append_begin(void) { file_open(O_WRONLY | O_CREAT | O_APPEND); }
static void write_one(long i) { write_whole(file, data + i % 16 * 4096, (size_t)bytes); }
static void read_one(long i) { need(read(file, data, (size_t)bytes) == bytes, "read"); }
static void append_one(long i) {
    write_one(i);
    need(!fsync(file), "fsync");
}
static void sync_end(void) {
    need(!fsync(file), "fsync");
    need(!close(file), "close");
}
static void close_end(void) { need(!close(file), "close"); }

// ---- many names under PATH
static void nothing(void) {}
static char *small_name(char *out, long i, char kind) {
    snprintf(out, sizeof name, "%s/d%ld/%c%ld", path, i / PER_DIR, kind, i);
    return out;
}
static void dirs_begin(void) {
    for (long i = 0; i * PER_DIR < count; i++) {
        snprintf(name, sizeof name, "%s/d%ld", path, i);
        need(!mkdir(name, 0755) || errno == EEXIST, "mkdir");
    }
}
static void create_one(long i) {
    int fd = open(small_name(name, i, 'f'), O_WRONLY | O_CREAT | O_EXCL, 0644);
    need(fd >= 0, "create");
    write_whole(fd, data, (size_t)bytes);
    need(!close(fd), "close");
}
static void read_file(long i) {
    int fd = open(small_name(name, i, 'f'), O_RDONLY);
    need(fd >= 0, "open");
    need(read(fd, data, MIB) == bytes, "read");
    close(fd);
}
static void mkdir_one(long i) { need(!mkdir(small_name(name, i, 'm'), 0755), "mkdir"); }
static void rmdir_one(long i) { need(!rmdir(small_name(name, i, 'm')), "rmdir"); }
static void rename_one(long i) { need(!rename(small_name(name, i, 'f'), small_name(name2, i, 'g')), "rename"); }
static void move_one(long i) { // to another directory
    long dirs = (count + PER_DIR - 1) / PER_DIR;
    snprintf(name2, sizeof name2, "%s/d%ld/h%ld", path, (i / PER_DIR + 1) % dirs, i);
    need(!rename(small_name(name, i, 'g'), name2), "rename");
}
static void unlink_one(long i) { need(!unlink(small_name(name, i, 'f')), "unlink"); }

static const struct task {
    const char *what;
    void (*begin)(void), (*one)(long i), (*end)(void);
} tasks[] = {
    {"write", write_begin, write_one, sync_end}, {"read", read_begin, read_one, close_end},
    {"append", append_begin, append_one, close_end}, {"create", dirs_begin, create_one, nothing},
    {"read-files", nothing, read_file, nothing},  {"mkdir", dirs_begin, mkdir_one, nothing},
    {"rmdir", nothing, rmdir_one, nothing},      {"rename", nothing, rename_one, nothing},
    {"move", nothing, move_one, nothing},        {"unlink", nothing, unlink_one, nothing},
};

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void run(const struct task *t) {
    t->begin();
    double began = now_us(), last = began;
    for (long i = 0; i < count; i++) {
        t->one(i);
        double now = now_us();
        taken_us[i] = now - last;
        last = now;
    }
    t->end();
    double seconds = (now_us() - began) / 1e6;
    qsort(taken_us, (size_t)count, sizeof *taken_us, by_size);
    printf("%.6f %ld %.1f %.1f\n", seconds, count, taken_us[count / 2], taken_us[count * 99 / 100]);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    path = argv[2];
    count = atol(argv[3]);
    bytes = argc > 4 ? atol(argv[4]) : 4096;
    data = aligned_alloc(4096, 2 * MIB);
    taken_us = calloc((size_t)count, sizeof *taken_us);
    if (count <= 0 || bytes < 0 || bytes > (long)MIB || !data || !taken_us) return 2;
    uint64_t x = 88172645463325252u; // xorshift: bytes that do not compress
    for (size_t i = 0; i < 2 * MIB; i += 8, x ^= x << 13, x ^= x >> 7, x ^= x << 17) memcpy(data + i, &x, 8);
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (!strcmp(tasks[i].what, argv[1])) {
            run(&tasks[i]);
            return 0;
        }
    fprintf(stderr, "files: does not know %s\n", argv[1]);
    return 2;
}
