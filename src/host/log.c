// The log of a node: lines with a wall-clock prefix to stderr or to a file of bounded size.
#include "host/host.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

void log_init(struct log_file *f) { *f = (struct log_file){.fd = STDERR_FILENO}; }

void log_fini(struct log_file *f) {
    if (f->path) close(f->fd);
    free(f->path);
    log_init(f);
}

static int open_append(const char *path) { return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640); }

err log_open(struct log_file *f, const char *path, uint64_t max_bytes) {
    int fd = open_append(path);
    if (fd < 0) return err_of_errno(errno);
    struct stat st;
    uint64_t size_bytes = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    char *copy = strdup(path);
    ASSERT(copy);
    log_fini(f);
    *f = (struct log_file){.fd = fd, .path = copy, .size_bytes = size_bytes, .max_bytes = max_bytes};
    return OK;
}

// A file that cannot be replaced goes on growing rather than losing lines; the next line tries again.
static void rotate(struct log_file *f) {
    char old[4096];
    if ((size_t)snprintf(old, sizeof old, "%s.1", f->path) >= sizeof old || rename(f->path, old) != 0) return;
    int fd = open_append(f->path);
    if (fd < 0) return;
    close(f->fd);
    f->fd = fd;
    f->size_bytes = 0;
}

static int format_prefix(char *out, size_t out_len, enum trace_level level) {
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(out, out_len, "%Y-%m-%dT%H:%M:%S", &tm);
    return (int)n + snprintf(out + n, out_len - n, ".%06ldZ %c ", ts.tv_nsec / 1000, "EWID"[level]);
}

void log_write(void *log, enum trace_level level, const char *line) {
    struct log_file *f = log;
    char prefix[64];
    int prefix_len = format_prefix(prefix, sizeof prefix, level);
    char newline = '\n';
    struct iovec iov[] = {{prefix, (size_t)prefix_len}, {(void *)(uintptr_t)line, strlen(line)}, {&newline, 1}};
    // One call, so that lines of several processes on one stderr do not mix. A log that cannot be written is no reason
    // to stop serving.
    ssize_t n = writev(f->fd, iov, ARRAY_LEN(iov));
    if (n > 0) f->size_bytes += (uint64_t)n;
    if (f->path && f->size_bytes >= f->max_bytes) rotate(f);
}

bool log_allowed(struct loop *l, struct log_limit *limit, uint32_t *hidden) {
    uint64_t now_ns = env_now_ns(&l->env);
    if (now_ns < limit->next_ns) {
        limit->hidden++;
        return false;
    }
    *hidden = limit->hidden;
    *limit = (struct log_limit){.next_ns = now_ns + SEC(1)};
    return true;
}
