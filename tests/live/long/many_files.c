// Many small files by several threads, a thousand to a directory: even ones are empty, odd ones hold 100 bytes that say which file it is.
//
//     many_files make|verify ROOT FROM COUNT [THREADS]     makes, or reads and compares, files FROM..FROM+COUNT-1; FROM is a multiple of 1000
//
// Each thread takes the next directory that nobody has. Exit 1 and a sentence at the first thing that is not as it should be.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PER_DIR 1000
#define BYTES 100
#define THREADS_MAX 64

static const char *root;
static long first, end;
static int verify;
static atomic_long next_dir;

static void need(int good, const char *what, const char *path) {
    if (good) return;
    fprintf(stderr, "many_files: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static size_t content(long file, char out[BYTES + 1]) {
    snprintf(out, BYTES + 1, "%0*ld", BYTES, file);
    return file % 2 ? BYTES : 0;
}

static void make_file(int dir, const char *name, const char *bytes, size_t len) {
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    need(fd >= 0, "cannot make", name);
    need(!len || write(fd, bytes, len) == (ssize_t)len, "cannot write", name);
    need(!close(fd), "cannot close", name);
}

static void verify_file(int dir, const char *name, const char *bytes, size_t len) {
    char found[2 * BYTES];
    int fd = openat(dir, name, O_RDONLY);
    need(fd >= 0, "cannot open", name);
    ssize_t n = read(fd, found, sizeof found);
    errno = EILSEQ;
    need(n == (ssize_t)len && !memcmp(found, bytes, len), "other content in", name);
    close(fd);
}

static void do_dir(long d) {
    char path[PATH_MAX], name[32], bytes[BYTES + 1];
    snprintf(path, sizeof path, "%s/d%ld", root, d);
    need(verify || !mkdir(path, 0755), "cannot make", path);
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    need(dir >= 0, "cannot open", path);
    for (long f = d * PER_DIR; f < (d + 1) * PER_DIR && f < end; f++) {
        size_t len = content(f, bytes);
        snprintf(name, sizeof name, "%ld", f % PER_DIR);
        if (verify) verify_file(dir, name, bytes, len);
        else make_file(dir, name, bytes, len);
    }
    close(dir);
}

static void *work(void *arg) {
    (void)arg;
    for (long d; (d = atomic_fetch_add(&next_dir, 1)) * PER_DIR < end;) do_dir(d);
    return NULL;
}

int main(int argc, char **argv) {
    long threads = argc > 5 ? atol(argv[5]) : 8;
    if (argc < 5 || threads < 1 || threads > THREADS_MAX) return 2;
    verify = !strcmp(argv[1], "verify");
    root = argv[2];
    first = atol(argv[3]);
    end = first + atol(argv[4]);
    if ((!verify && strcmp(argv[1], "make")) || first < 0 || first % PER_DIR || end <= first) return 2;
    next_dir = first / PER_DIR;
    pthread_t t[THREADS_MAX];
    for (long i = 0; i < threads; i++) need(!pthread_create(&t[i], NULL, work, NULL), "cannot start", "a thread");
    for (long i = 0; i < threads; i++) pthread_join(t[i], NULL);
    return 0;
}
