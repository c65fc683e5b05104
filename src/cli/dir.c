// The folder of a cluster: where it is, making it, its lock, where sockets go, where mounts go.
#include "cli/cli.h"
#include "base/sum.h"
#include "cli/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOCKET_PATH_MAX 102u // with "unix:" before it and a zero after it: what an address of the cluster map holds

void path_make(char out[PATH_MAX], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, PATH_MAX, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0 && n < PATH_MAX); // dir_resolve and mount_resolve keep what they are made of short
}

static const char *home(void) {
    const char *h = getenv("HOME");
    return h && h[0] == '/' && strlen(h) < DIR_LEN_MAX / 2 ? h : "/tmp";
}

static void dir_default(char out[PATH_MAX]) {
    if (geteuid() == 0) path_make(out, "/var/lib/mendfs");
    else path_make(out, "%s/.local/share/mendfs", home());
}

void mount_default(char out[PATH_MAX]) {
    if (geteuid() == 0) path_make(out, "/mnt/mendfs");
    else path_make(out, "%s/mendfs", home());
}

// The longest part of a path that exists, resolved; the rest, which does not exist yet, as it is.
static bool resolve_existing(const char *path, char out[PATH_MAX]) {
    char head[PATH_MAX];
    size_t len = strlen(path);
    while (true) {
        memcpy(head, path, len);
        head[len] = 0;
        if (realpath(len ? head : "/", out)) break;
        if (errno != ENOENT || !len) return false;
        while (len && path[len - 1] == '/') len--;
        while (len && path[len - 1] != '/') len--;
    }
    const char *rest = path + len;
    while (*rest == '/') rest++;
    size_t have = strlen(out);
    if (!*rest) return true;
    if (have + 1 + strlen(rest) >= DIR_LEN_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    snprintf(out + have, PATH_MAX - have, have == 1 ? "%s" : "/%s", rest);
    return true;
}

static bool path_absolute(const char *path, char out[PATH_MAX]) {
    char cwd[PATH_MAX] = "";
    errno = ENAMETOOLONG;
    if (path[0] != '/' && !getcwd(cwd, sizeof cwd)) return false;
    if (strlen(path) + strlen(cwd) + 2 >= DIR_LEN_MAX) return false;
    path_make(out, "%s%s%s", cwd, path[0] == '/' ? "" : "/", path);
    size_t len = strlen(out);
    while (len > 1 && out[len - 1] == '/') out[--len] = 0;
    return true;
}

// What lies on a mount of mendfs may hang with it: nobody looks there. Of a cluster's own parts none may.
static bool is_on_mount(const char *what, const char *path) {
    struct mount_entry e;
    if (!mount_holds(path, &e)) return false;
    fail(1, "the %s %s lies on a mount of mendfs (%s), and would wait for what waits for it; choose another place", what, path, e.at);
    return true;
}

bool dir_resolve(const char *dir, char out[PATH_MAX]) {
    char given[PATH_MAX], absolute[PATH_MAX];
    if (dir && strlen(dir) < DIR_LEN_MAX) path_make(given, "%s", dir);
    else dir_default(given);
    bool ok = (!dir || strlen(dir) < DIR_LEN_MAX) && path_absolute(given, absolute);
    if (ok && is_on_mount("folder", absolute)) return false;
    if (ok && resolve_existing(absolute, out) && strlen(out) < DIR_LEN_MAX) return !is_on_mount("folder", out);
    fail(1, "the folder %.100s cannot be used: %s", dir ? dir : given, strerror(errno));
    return false;
}

bool mount_resolve(const char *at, char out[PATH_MAX]) {
    char absolute[PATH_MAX], parent[PATH_MAX];
    if (!path_absolute(at, absolute)) {
        fail(1, "the mount point %.100s cannot be used: %s", at, strerror(errno));
        return false;
    }
    char *slash = strrchr(absolute, '/');
    path_make(parent, "%.*s", (int)(slash == absolute ? 1 : slash - absolute), absolute);
    struct mount_entry e;
    if (mount_find(absolute, &e) || !slash[1] || !strcmp(slash, "/.") || !strcmp(slash, "/..")) {
        path_make(out, "%s", absolute);
        return true;
    }
    if (is_on_mount("mount point", absolute)) return false;
    char real[PATH_MAX];
    if (!resolve_existing(parent, real)) {
        fail(1, "the mount point %s cannot be used: %s: %s", at, parent, strerror(errno));
        return false;
    }
    path_make(out, "%s/%s", strcmp(real, "/") ? real : "", slash + 1);
    struct stat st; // what is no mount point may be looked at
    if (mount_find(out, &e)) return true;
    if (is_on_mount("mount point", out)) return false;
    if (lstat(out, &st) || !S_ISLNK(st.st_mode)) return true;
    if (realpath(out, real)) path_make(out, "%s", real);
    return mount_find(out, &e) || !is_on_mount("mount point", out);
}

bool dir_make(const char *path, unsigned mode) {
    char part[PATH_MAX];
    for (const char *p = path + 1;; p++) {
        if (*p && *p != '/') continue;
        path_make(part, "%.*s", (int)(p - path), path);
        if (mkdir(part, *p ? 0755 : mode) && errno != EEXIST) {
            fail(1, "the folder %s cannot be made: %s", part, strerror(errno));
            return false;
        }
        if (!*p) return true;
    }
}

static bool is_same_file(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int dir_lock(const char *dir) {
    char path[PATH_MAX];
    path_make(path, "%s/lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return fail(-1, "%s cannot be opened: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        warn("waiting for another mendfs command that works on %s", dir);
        while (flock(fd, LOCK_EX))
            if (errno != EINTR) return fail(-1, "%s cannot be locked: %s", path, strerror(errno));
    }
    if (is_same_file(fd, path)) return fd;
    close(fd);
    return dir_lock(dir); // an `up` that was refused took it away with what else it had made
}

// ---- sockets
static bool socket_dir_fits(const char *path) { return strlen(path) + strlen("/iom-99.sock") <= SOCKET_PATH_MAX; }

static bool writable(const char *path) { return access(path, W_OK | X_OK) == 0; }

static bool socket_dir_choose(const char *dir, char out[PATH_MAX]) {
    path_make(out, "%s/run", dir);
    if (socket_dir_fits(out)) return true;
    const char *runtime = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
    if (runtime && runtime[0] == '/' && strlen(runtime) < DIR_LEN_MAX && writable(runtime)) {
        path_make(out, "%s/mendfs-%016llx", runtime, (unsigned long long)hash64(dir, strlen(dir), 0));
        if (socket_dir_fits(out)) return true;
    }
    fail(1,
         "the path %s is too long for sockets (of %u bytes at most, with their names), and %s is no writable short "
         "folder to "
         "put them in; choose a shorter --dir",
         dir, SOCKET_PATH_MAX, runtime ? runtime : "XDG_RUNTIME_DIR, which is not set,");
    return false;
}

bool sockets_choose(struct conf *c) {
    char folder[PATH_MAX];
    if (!socket_dir_choose(c->dir, folder)) return false;
    for (uint8_t i = 0; i < c->ioms; i++) snprintf(c->iom[i].at, sizeof c->iom[i].at, "unix:%.90s/iom-%u.sock", folder, i % 100u);
    return true;
}

static bool is_private(const char *path) {
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077)) return true;
    fail(1, "the folder of the sockets, %s, must belong to this user alone (mode 0700); remove it and try again", path);
    return false;
}

bool socket_dirs_ensure(const struct conf *c) {
    for (uint8_t i = 0; i < c->ioms; i++) {
        if (strncmp(c->iom[i].at, "unix:/", 6)) continue;
        char path[PATH_MAX];
        path_make(path, "%s", c->iom[i].at + 5);
        *strrchr(path, '/') = 0;
        if (!path[0]) continue;
        if (!dir_make(path, 0700) || !is_private(path)) return false;
    }
    return true;
}

void socket_dirs_remove(const struct conf *c) {
    char own[PATH_MAX], path[PATH_MAX];
    path_make(own, "%s/run/", c->dir);
    for (uint8_t i = 0; i < c->ioms; i++) {
        path_make(path, "%s", c->iom[i].at + strlen("unix:"));
        if (strncmp(c->iom[i].at, "unix:/", 6) || !strncmp(path, own, strlen(own)) || !strstr(path, "/mendfs-"))
            continue;
        unlink(path); // of an IOM that was killed
        *strrchr(path, '/') = 0;
        rmdir(path);  // when the last socket is gone
    }
}
