// Who runs: pid files and what stands behind them.
#include "cli/proc.h"
#include "host/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static size_t read_text(const char *path, char *out, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, cap - 1);
    if (fd >= 0) close(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

// In ticks since the machine started; 0: there is no such process, or it is a zombie.
static long long start_time(pid_t pid) {
    char path[64], text[1024], state;
    long long start;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (!read_text(path, text, sizeof text)) return 0;
    char *p = strrchr(text, ')'); // the name before it may hold anything
    if (!p || sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld", &state,
                     &start) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : start;
}

static void boot_id(char out[64]) {
    read_text("/proc/sys/kernel/random/boot_id", out, 64);
    out[strcspn(out, "\n")] = 0;
}

static void copy_text(char *to, size_t cap, const char *from) {
    size_t len = MIN(strlen(from), cap - 1);
    memcpy(to, from, len);
    to[len] = 0;
}

#define DYING_LIMIT_MS 10000 // a killed process may still wait for its disk

// ---- finding
static bool pid_file_read(const char *dir, const char *name, struct proc *p, long long *start) {
    char path[PATH_MAX], boot[64];
    const char *kind, *at, *its_boot;
    json_int_t pid, began;
    path_make(path, "%s/run/%s.pid", dir, name);
    *p = (struct proc){.fd = -1};
    copy_text(p->name, sizeof p->name, name);
    json_t *j = json_load_file(path, 0, NULL);
    bool ok = j && !json_unpack(j, "{s:I, s:I, s:s, s:s, s:s}", "pid", &pid, "start", &began, "boot", &its_boot, "kind",
                                &kind, "at", &at);
    if (ok) {
        boot_id(boot);
        copy_text(p->kind, sizeof p->kind, kind);
        copy_text(p->at, sizeof p->at, at);
        ok = !strcmp(boot, its_boot) && pid > 0 && pid <= INT_MAX;
        p->pid = ok ? (pid_t)pid : 0;
        *start = began;
    }
    json_decref(j);
    return ok;
}

bool proc_find(const char *dir, const char *name, struct proc *p) {
    long long start;
    if (pid_file_read(dir, name, p, &start)) {
        p->fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
        if (p->fd >= 0 && start_time(p->pid) == start)
            return true; // in this order: the pid cannot change hands any more
        proc_close(p);
    }
    p->pid = 0;
    return false;
}

void proc_close(struct proc *p) {
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
}

bool proc_kill(const struct proc *p, int signo) { return syscall(SYS_pidfd_send_signal, p->fd, signo, NULL, 0) == 0; }

static int by_name(const void *a, const void *b) {
    const struct proc *x = a, *y = b;
    return strverscmp(x->name, y->name);
}

uint32_t proc_find_mx(const char *dir, struct proc *list, uint32_t cap, bool alive_only) {
    char path[PATH_MAX], name[32];
    uint32_t n = 0;
    unsigned number;
    path_make(path, "%s/run", dir);
    DIR *d = opendir(path);
    for (struct dirent *e; d && n < cap && (e = readdir(d));) {
        int end = 0;
        if (sscanf(e->d_name, "mx-%6u.pid%n", &number, &end) != 1 || !end || e->d_name[end]) continue;
        snprintf(name, sizeof name, "mx-%u", number);
        if (proc_find(dir, name, &list[n]) || !alive_only) n++;
    }
    if (d) closedir(d);
    qsort(list, n, sizeof *list, by_name);
    return n;
}

bool proc_ended(const struct proc *p) {
    struct pollfd f = {.fd = p->fd, .events = POLLIN};
    return !p->pid || poll(&f, 1, 0) > 0;
}

static bool wait_one(const struct proc *p, uint64_t deadline_ms) {
    while (!proc_ended(p)) {
        uint64_t now = now_ms();
        if (now >= deadline_ms) return false;
        struct pollfd f = {.fd = p->fd, .events = POLLIN};
        poll(&f, 1, (int)MIN(deadline_ms - now, 60000));
    }
    return true;
}

bool proc_wait(const struct proc *list, uint32_t n, uint64_t limit_ms) {
    uint64_t deadline_ms = now_ms() + limit_ms;
    bool all = true;
    for (uint32_t i = 0; i < n; i++) all &= wait_one(&list[i], deadline_ms);
    return all;
}

// ---- this process's own files
bool pid_file_write(const char *dir, const char *name, const char *kind, const char *at) {
    char path[PATH_MAX], next[PATH_MAX], boot[64];
    path_make(path, "%s/run/%s.pid", dir, name);
    path_make(next, "%s/run/%s.pid.new", dir, name);
    boot_id(boot);
    json_t *j = json_pack("{s:I, s:I, s:s, s:s, s:s}", "pid", (json_int_t)getpid(), "start",
                          (json_int_t)start_time(getpid()), "boot", boot, "kind", kind, "at", at);
    bool ok = j && json_dump_file(j, next, JSON_INDENT(1)) == 0 && rename(next, path) == 0;
    if (!ok) fail(1, "%s cannot be written: %s", path, j ? strerror(errno) : "a path is not UTF-8");
    json_decref(j);
    return ok;
}

void pid_file_remove(const char *dir, const char *name) {
    char path[PATH_MAX];
    path_make(path, "%s/run/%s.pid", dir, name);
    unlink(path);
}

// A process that was killed keeps its locks until the last of its threads is gone; its first one is a zombie long before, and then it counts as
// not running. True: it was there and is gone now.
static bool wait_for_the_dying(const char *dir, const char *name, uint64_t limit_ms) {
    struct proc p;
    long long start;
    if (!pid_file_read(dir, name, &p, &start)) return false;
    p.fd = (int)syscall(SYS_pidfd_open, p.pid, 0);
    if (p.fd < 0) return true;
    bool dying = start_time(p.pid) == 0, gone = dying && proc_wait(&p, 1, limit_ms);
    proc_close(&p);
    return gone;
}

int run_lock(const char *dir, const char *name) {
    char path[PATH_MAX];
    path_make(path, "%s/run/%s.lock", dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    err e = host_lock_fd(fd);
    if (e == ERR_LOCKED && wait_for_the_dying(dir, name, DYING_LIMIT_MS)) e = host_lock_fd(fd);
    if (!e) return fd;
    close(fd);
    errno = err_errno(e);
    return -1;
}
