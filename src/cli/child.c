// Starting daemons: this very program once more, apart from the terminal, with a pipe by which it tells when it is
// ready.
#include "cli/proc.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_FD 3
#define ARGS_MAX 24

static void log_path(const char *dir, const char *name, char out[PATH_MAX]) { path_make(out, "%s/log/%s", dir, name); }

// Between fork and exec: system calls only.
static _Noreturn void become(int ready_fd, int log_fd, char *const argv[]) {
    loop_unblock_signals();
    setsid();
    int null_fd = open("/dev/null", O_RDONLY);
    bool ok = chdir("/") == 0 && null_fd >= 0 && dup2(log_fd, 9) == 9 && dup2(ready_fd, READY_FD + 1) == READY_FD + 1;
    ok = ok && dup2(null_fd, 0) == 0 && dup2(9, 1) == 1 && dup2(9, 2) == 2 && dup2(READY_FD + 1, READY_FD) == READY_FD;
    syscall(SYS_close_range, READY_FD + 1, ~0u, 0);
    if (ok) execv("/proc/self/exe", argv);
    dprintf(2, "the daemon cannot be started: %s\n", strerror(errno));
    _exit(127);
}

static bool open_log(const char *dir, const char *name, struct child *c, int *fd) {
    char path[PATH_MAX];
    struct stat st;
    log_path(dir, name, path);
    *fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (*fd >= 0 && fstat(*fd, &st) == 0) {
        c->log_from = (uint64_t)st.st_size;
        return true;
    }
    fail(1, "the log %s cannot be opened: %s", path, strerror(errno));
    return false;
}

static bool spawn(struct child *c, int log_fd, char *const argv[]) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return false;
    int high = fcntl(ends[1], F_DUPFD_CLOEXEC, 10); // out of the way of those that become() makes
    int log_high = fcntl(log_fd, F_DUPFD_CLOEXEC, 10);
    c->p.pid = high < 0 || log_high < 0 ? -1 : fork();
    if (!c->p.pid) become(high, log_high, argv);
    int eno = errno;
    if (high >= 0) close(high);
    if (log_high >= 0) close(log_high);
    close(ends[1]);
    c->ready_fd = ends[0];
    c->p.fd = c->p.pid > 0 ? (int)syscall(SYS_pidfd_open, c->p.pid, 0) : -1;
    if (c->p.pid > 0 && c->p.fd >= 0) return true;
    close(ends[0]);
    errno = eno;
    return false;
}

bool child_start(const char *dir, const char *name, const char *const args[], struct child *c) {
    char *argv[ARGS_MAX] = {(char *)(uintptr_t)"mendfs"};
    int n = 1, log_fd;
    for (; *args; args++) {
        ASSERT(n < ARGS_MAX - 3);
        argv[n++] = (char *)(uintptr_t)*args;
    }
    argv[n++] = (char *)(uintptr_t)"--ready-fd";
    argv[n++] = (char *)(uintptr_t)"3";
    *c = (struct child){.p.fd = -1, .ready_fd = -1};
    snprintf(c->p.name, sizeof c->p.name, "%s", name);
    if (!open_log(dir, name, c, &log_fd)) return false;
    bool ok = spawn(c, log_fd, argv);
    close(log_fd);
    if (!ok) fail(1, "the daemon %s cannot be started: %s", name, strerror(errno));
    return ok;
}

// ---- waiting
static void finish(const char *dir, struct child *c) {
    c->done = true;
    c->said[c->said_len] = 0;
    c->ok = !strcmp(c->said, "ok");
    if (!c->said_len) {
        char last[400];
        if (log_last_error(dir, c->p.name, c->log_from, last, sizeof last))
            snprintf(c->said, sizeof c->said, "it ended: %s", last);
        else snprintf(c->said, sizeof c->said, "it ended without a word; see its log");
    }
    close(c->ready_fd);
    if (!c->ok) {
        proc_kill(&c->p, SIGKILL); // it is about to end anyway, with what it could not do
        waitpid(c->p.pid, NULL, 0);
    }
}

static void hear(const char *dir, struct child *c) {
    ssize_t n = read(c->ready_fd, c->said + c->said_len, sizeof c->said - 1 - c->said_len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n > 0) {
        c->said_len += (uint32_t)n;
        char *end = memchr(c->said, '\n', c->said_len);
        if (end) c->said_len = (uint32_t)(end - c->said);
        else if (c->said_len < sizeof c->said - 1) return;
    }
    finish(dir, c);
}

static void too_late(const char *dir, struct child *c) {
    char last[400];
    bool has = log_last_error(dir, c->p.name, c->log_from, last, sizeof last);
    snprintf(c->said, sizeof c->said, "it was not ready in time and was killed%s%s", has ? "; its log says: " : "",
             has ? last : "");
    c->said_len = (uint32_t)strlen(c->said);
    finish(dir, c);
}

void child_wait(const char *dir, struct child *list, uint32_t n, uint64_t deadline_ms) {
    while (true) {
        struct pollfd polls[ARRAY_IOMS_MAX + 1];
        struct child *of[ARRAY_IOMS_MAX + 1];
        uint32_t waits = 0;
        uint64_t now = now_ms();
        for (uint32_t i = 0; i < n; i++) {
            if (!list[i].done && now >= deadline_ms) too_late(dir, &list[i]);
            if (list[i].done) continue;
            of[waits] = &list[i];
            polls[waits++] = (struct pollfd){.fd = list[i].ready_fd, .events = POLLIN};
        }
        if (!waits) return;
        if (poll(polls, waits, (int)(deadline_ms - now)) < 0) continue;
        for (uint32_t i = 0; i < waits; i++)
            if (polls[i].revents) hear(dir, of[i]);
    }
}

// ---- logs
// A line of the log: "2026-01-31T10:20:30.000000Z E text".
static const char *error_text(const char *line) {
    const char *z = strchr(line, 'Z');
    return z && z - line < 32 && !strncmp(z, "Z E ", 4) ? z + 4 : NULL;
}

static const char *bare_text(const char *line) {
    const char *z = strchr(line, 'Z');
    return z && z - line < 32 && z[1] == ' ' && z[2] && z[3] == ' ' ? z + 4 : line;
}

bool log_last_error(const char *dir, const char *name, uint64_t from, char *out, size_t cap) {
    char path[PATH_MAX], text[16384];
    log_path(dir, name, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    off_t size = lseek(fd, 0, SEEK_END);
    off_t at = MAX((off_t)from <= size ? (off_t)from : 0, size - (off_t)sizeof text + 1);
    ssize_t n = pread(fd, text, sizeof text - 1, at);
    close(fd);
    if (n <= 0) return false;
    text[n] = 0;
    const char *last = NULL, *last_error = NULL;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        last = bare_text(line);
        if (error_text(line)) last_error = error_text(line);
    }
    if (last) snprintf(out, cap, "%s", last_error ? last_error : last);
    return last != NULL;
}
