// The table of mounts, probing one, unmounting one, who uses one.
#include "cli/mounts.h"
#include "cli/proc.h"
#include "host/loop.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- the table
static void unescape(char *s) { // space, tab, newline and backslash stand as octal
    char *to = s;
    for (; *s; s++) {
        unsigned v;
        if (s[0] == '\\' && isdigit(s[1]) && sscanf(s + 1, "%3o", &v) == 1) {
            *to++ = (char)v;
            s += 3;
        } else *to++ = *s;
    }
    *to = 0;
}

// "36 35 98:0 /root /at rw,noatime master:1 - type source options"
static bool parse(char *line, struct mount_entry *e) {
    char *dash = strstr(line, " - ");
    if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", e->at) != 1) return false;
    if (sscanf(dash + 3, "%63s %255s", e->type, e->source) != 2) return false;
    unescape(e->at);
    unescape(e->source);
    return true;
}

static void each_mount(bool (*fn)(void *arg, const struct mount_entry *e), void *arg) {
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t cap = 0;
    struct mount_entry e;
    while (f && getline(&line, &cap, f) > 0)
        if (parse(line, &e) && !fn(arg, &e)) break;
    free(line);
    if (f) fclose(f);
}

bool path_is_below(const char *path, const char *at) {
    size_t len = strlen(at);
    return !strncmp(path, at, len) && (!path[len] || path[len] == '/' || at[len - 1] == '/');
}

struct find { const char *at; struct mount_entry *e; bool found; };
static bool find_at(void *arg, const struct mount_entry *e) {
    struct find *f = arg;
    if (strcmp(e->at, f->at)) return true;
    *f->e = *e; // a later one lies on top
    f->found = true;
    return true;
}

bool mount_find(const char *at, struct mount_entry *e) {
    struct find f = {at, e, false};
    each_mount(find_at, &f);
    return f.found;
}

bool mount_is(const struct mount_entry *e, const char *source) {
    return !strcmp(e->source, source) && !strncmp(e->type, "fuse", 4);
}

static bool find_holder(void *arg, const struct mount_entry *e) {
    struct find *f = arg;
    if (strcmp(e->type, "fuse.mendfs") || !path_is_below(f->at, e->at)) return true;
    *f->e = *e;
    f->found = true;
    return false;
}

bool mount_holds(const char *path, struct mount_entry *e) {
    struct find f = {path, e, false};
    each_mount(find_holder, &f);
    return f.found;
}

struct find_all { const char *source; struct mount_entry *list; uint32_t n, cap; };
static bool find_source(void *arg, const struct mount_entry *e) {
    struct find_all *f = arg;
    if (!mount_is(e, f->source)) return true;
    memmove(f->list + 1, f->list, f->n * sizeof *f->list);
    f->list[0] = *e;
    return ++f->n < f->cap;
}

uint32_t mount_find_all(const char *source, struct mount_entry *list, uint32_t cap) {
    struct find_all f = {source, list, 0, cap};
    each_mount(find_source, &f);
    return f.n;
}

// ---- children that may hang: they hold nothing of ours, so that nobody waits for them
static void let_go(void) {
    int null_fd = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null_fd >= 0; fd++) dup2(null_fd, fd);
    syscall(SYS_close_range, 3, ~0u, 0);
    loop_unblock_signals();
}

// The wait status; false: still there after the limit (then it is told to end, and left).
static bool reap(pid_t pid, uint64_t limit_ms, int *status) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t deadline = now_ms() + limit_ms, now;
    while ((now = now_ms()) < deadline && poll(&p, 1, (int)(deadline - now)) <= 0) {}
    bool ended = waitpid(pid, status, WNOHANG) == pid;
    if (!ended) kill(pid, SIGKILL);
    if (fd >= 0) close(fd);
    return ended;
}

enum mount_health mount_probe(const char *at, uint64_t limit_ms) {
    pid_t pid = fork();
    if (pid == 0) {
        struct statfs fs;
        struct stat st;
        let_go();
        _exit(stat(at, &st) == 0 && statfs(at, &fs) == 0 ? 0 : errno == ENOTCONN ? 1 : 0);
    }
    int status;
    if (pid < 0 || !reap(pid, limit_ms, &status)) return MOUNT_HANGS;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? MOUNT_ANSWERS : MOUNT_DEAD;
}

// ---- unmounting
#define UNMOUNT_FAILED 255

static _Noreturn void unmount_child(const char *at, bool detach) {
    let_go();
    if (geteuid() == 0) {
        _exit(umount2(at, UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0)) == 0 ? 0 : errno < UNMOUNT_FAILED ? errno : EIO);
    }
    execlp("fusermount3", "fusermount3", detach ? "-quz" : "-qu", "--", at, (char *)NULL);
    _exit(ENOENT);
}

pid_t unmount_begin(const char *at, bool detach) {
    pid_t pid = fork();
    if (pid == 0) unmount_child(at, detach);
    return pid;
}

// fusermount3 says only that it failed; of a mount that is there and ours, busy is what remains.
int unmount_result(int wait_status) {
    if (!WIFEXITED(wait_status)) return EIO;
    int code = WEXITSTATUS(wait_status);
    return geteuid() != 0 && code == 1 ? EBUSY : code;
}

int unmount_now(const char *at, bool detach, uint64_t limit_ms) {
    int status;
    pid_t pid = unmount_begin(at, detach);
    if (pid < 0) return errno;
    return reap(pid, limit_ms, &status) ? unmount_result(status) : ETIMEDOUT;
}

// ---- who uses it
static bool link_is_below(const char *link, const char *at) { // reading a link of /proc does not touch what it names
    char to[PATH_MAX];
    ssize_t n = readlink(link, to, sizeof to - 1);
    if (n <= 0) return false;
    to[n] = 0;
    return path_is_below(to, at);
}

static bool files_below(const char *pid, const char *at) {
    char path[PATH_MAX], link[PATH_MAX];
    bool found = false;
    path_make(path, "/proc/%.20s/fd", pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        path_make(link, "/proc/%.20s/fd/%.20s", pid, e->d_name);
        found = link_is_below(link, at);
    }
    if (d) closedir(d);
    return found;
}

static bool maps_below(const char *pid, const char *at) {
    char path[PATH_MAX], *line = NULL;
    size_t cap = 0;
    bool found = false;
    path_make(path, "/proc/%.20s/maps", pid);
    FILE *f = fopen(path, "re");
    while (f && !found && getline(&line, &cap, f) > 0) {
        char *file = strchr(line, '/');
        if (!file) continue;
        file[strcspn(file, "\n")] = 0;
        found = path_is_below(file, at);
    }
    free(line);
    if (f) fclose(f);
    return found;
}

static bool uses(const char *pid, const char *at) {
    static const char *const links[] = {"cwd", "root", "exe"};
    char link[PATH_MAX];
    for (size_t i = 0; i < ARRAY_LEN(links); i++) {
        path_make(link, "/proc/%.20s/%s", pid, links[i]);
        if (link_is_below(link, at)) return true;
    }
    return files_below(pid, at) || maps_below(pid, at);
}

static void add_user(const char *pid, char *out, size_t cap) {
    char path[PATH_MAX], name[64] = "";
    size_t len = strlen(out);
    path_make(path, "/proc/%.20s/comm", pid);
    FILE *f = fopen(path, "re");
    if (f && fgets(name, sizeof name, f)) name[strcspn(name, "\n")] = 0;
    if (f) fclose(f);
    snprintf(out + len, cap - len, "%spid %s (%s)", len ? ", " : "", pid, name);
}

void mount_users(const char *at, char *out, size_t cap) {
    int found = 0;
    out[0] = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && found < 5 && (e = readdir(d));) {
        if (!isdigit(e->d_name[0]) || !uses(e->d_name, at)) continue;
        add_user(e->d_name, out, cap);
        found++;
    }
    if (d) closedir(d);
}
