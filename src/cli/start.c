// Starting and stopping IOMs and mounts as processes of their own.
#include "cli/start.h"
#include "cli/mounts.h"
#include "fuse/fuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static void iom_name(uint8_t i, char out[32]) { snprintf(out, 32, "iom-%u", i); }

// ---- IOMs
static bool iom_spawn(const struct conf *c, uint8_t i, struct child *child) {
    char name[32], id[8];
    iom_name(i, name);
    snprintf(id, sizeof id, "%u", i);
    const char *args[] = {"iom", "--dir", c->dir, "--id", id, NULL};
    return child_start(c->dir, name, args, child);
}

static bool folders_make(const char *dir) {
    char path[PATH_MAX];
    path_make(path, "%s/run", dir);
    if (!dir_make(path, 0700)) return false;
    path_make(path, "%s/log", dir);
    return dir_make(path, 0700);
}

static void note_failed(struct started *s, uint8_t i, const char *why) {
    snprintf(s->why[i], sizeof s->why[i], "%s", why);
    s->failed++;
}

void ioms_start(const struct conf *c, uint32_t wanted_mask, uint64_t deadline_ms, struct started *s) {
    struct child child[ARRAY_IOMS_MAX];
    uint8_t of[ARRAY_IOMS_MAX], n = 0;
    char name[32];
    *s = (struct started){0};
    bool ready = folders_make(c->dir) && socket_dirs_ensure(c);
    for (uint8_t i = 0; i < c->ioms; i++) {
        s->proc[i].fd = -1;
        if (!(wanted_mask >> i & 1)) continue;
        iom_name(i, name);
        if (proc_find(c->dir, name, &s->proc[i])) continue;
        if (ready && iom_spawn(c, i, &child[n])) of[n++] = i;
        else note_failed(s, i, "it could not be started; see above");
    }
    child_wait(c->dir, child, n, deadline_ms);
    for (uint8_t k = 0; k < n; k++) {
        s->fresh[of[k]] = child[k].ok;
        if (child[k].ok) s->proc[of[k]] = child[k].p;
        else {
            note_failed(s, of[k], child[k].said);
            proc_close(&child[k].p);
        }
    }
    for (uint8_t i = 0; i < c->ioms; i++) s->running += s->proc[i].pid != 0;
}

bool iom_runs(const struct conf *c, uint8_t id) {
    char name[32];
    struct proc p;
    iom_name(id, name);
    bool found = proc_find(c->dir, name, &p);
    proc_close(&p);
    return found;
}

bool ioms_any_run(const struct conf *c) {
    bool any = false;
    for (uint8_t i = 0; i < c->ioms; i++) any |= iom_runs(c, i);
    return any;
}

void started_close(struct started *s) {
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++)
        if (s->proc[i].pid) proc_close(&s->proc[i]);
}

static uint32_t kill_late(const char *dir, struct proc *list, uint32_t n) {
    uint32_t killed = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (proc_ended(&list[i])) continue;
        warn("%s (pid %d) did not end within %u s and is killed; it recovers at the next start", list[i].name,
             (int)list[i].pid, STOP_LIMIT_MS / 1000);
        proc_kill(&list[i], SIGKILL);
        killed++;
    }
    if (killed && !proc_wait(list, n, 5000)) warn("a killed process hangs in the kernel: its disk does not answer");
    for (uint32_t i = 0; i < n; i++)
        if (proc_ended(&list[i])) pid_file_remove(dir, list[i].name);
    return killed;
}

uint32_t ioms_stop(const char *dir, uint32_t wanted_mask, uint32_t *ended) {
    struct proc list[ARRAY_IOMS_MAX];
    uint32_t n = 0;
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) {
        char name[32];
        iom_name(i, name);
        if (wanted_mask >> i & 1 && proc_find(dir, name, &list[n])) n++;
    }
    for (uint32_t i = 0; i < n; i++) {
        proc_kill(&list[i], SIGTERM);
        proc_kill(&list[i], SIGCONT); // one that was stopped hears it too
    }
    proc_wait(list, n, STOP_LIMIT_MS);
    uint32_t killed = kill_late(dir, list, n);
    for (uint32_t i = 0; i < n; i++) proc_close(&list[i]);
    *ended = n;
    return killed;
}

// ---- mounts
static bool mx_serves(const struct conf *c, const char *at) {
    static struct proc list[MX_MAX]; // large
    uint32_t n = proc_find_mx(c->dir, list, MX_MAX, true);
    bool found = false;
    for (uint32_t i = 0; i < n; i++) {
        found |= !strcmp(list[i].at, at);
        proc_close(&list[i]);
    }
    return found;
}

// The first entry of a folder; false: it is empty, or cannot be read.
static bool folder_entry(const char *path, char name[NAME_MAX + 1]) {
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        found = strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
        if (found) snprintf(name, NAME_MAX + 1, "%s", e->d_name);
    }
    if (d) closedir(d);
    return found;
}

// A folder that is nobody's mount point. What was written there while nothing was mounted would be hidden, and missed.
static bool folder_takes_mount(const char *at, bool nonempty) {
    struct stat st;
    char name[NAME_MAX + 1];
    if (stat(at, &st)) return fail(0, "the mount point %s cannot be used: %s", at, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return fail(0, "the mount point %s cannot be used: it is no directory", at);
    if (nonempty || !folder_entry(at, name)) return true;
    return fail(0,
                "the mount point %s is not empty (%s lies there, on the disk of this machine) and would hide what is in it; move that "
                "away, choose another mount point, or add --nonempty",
                at, name);
}

static enum mount_point mount_point_free(const char *at, bool make, bool nonempty) {
    if (access(at, F_OK) && errno == ENOENT) {
        if (make) return dir_make(at, 0755) ? MOUNT_POINT_FREE : MOUNT_POINT_BAD;
        fail(1, "the mount point %s does not exist; make it: mkdir -p %s", at, at);
        return MOUNT_POINT_BAD;
    }
    return folder_takes_mount(at, nonempty) ? MOUNT_POINT_FREE : MOUNT_POINT_BAD;
}

static bool is_apart(const char *dir, const char *at) {
    if (path_is_below(at, dir))
        return fail(0, "the mount point %s lies in the folder of the cluster, %s; choose another mount point", at, dir);
    if (path_is_below(dir, at))
        return fail(0, "the mount point %s would hide the folder of the cluster, %s; choose another mount point", at, dir);
    return true;
}

static bool taken_by_others(const struct conf *c, const struct mount_entry *e) {
    char source[32];
    source_of(c, source);
    if (mount_is(e, source)) return false;
    fail(1, "something else is mounted at %s already (%s of type %s); choose another mount point, or unmount it", e->at,
         e->source, e->type);
    return true;
}

bool mount_point_check(const struct conf *c, const char *at, bool nonempty) {
    struct mount_entry e;
    const char *lacking = fuse_lacking();
    if (!is_apart(c->dir, at)) return false;
    if (lacking) return fail(0, "cannot mount %s: %s", at, lacking);
    if (mount_find(at, &e)) return !taken_by_others(c, &e);
    return (access(at, F_OK) && errno == ENOENT) || folder_takes_mount(at, nonempty);
}

// A dead mount of ours is taken away; that of another cluster, or anything else, is left alone.
static enum mount_point mount_point_taken(const struct conf *c, const struct mount_entry *e) {
    if (taken_by_others(c, e)) return MOUNT_POINT_BAD;
    enum mount_health h = mx_serves(c, e->at) ? mount_probe(e->at, 10000) : MOUNT_DEAD;
    if (h == MOUNT_ANSWERS) return MOUNT_POINT_SERVED;
    if (h == MOUNT_DEAD && unmount_now(e->at, true, 5000) == 0) return MOUNT_POINT_FREE;
    fail(1,
         h == MOUNT_DEAD
             ? "the mount at %s is dead and cannot be unmounted; try: umount -l %s"
             : "the mount at %s does not answer within 10 s; `mendfs down --force` ends it (then: mendfs up). It is %s",
         e->at, e->at);
    return MOUNT_POINT_BAD;
}

enum mount_point mount_point_prepare(const struct conf *c, const char *at, bool make, bool nonempty) {
    struct mount_entry e;
    for (int tries = 0; tries < 16 && mount_find(at, &e); tries++) { // dead ones may lie one on another
        enum mount_point p = mount_point_taken(c, &e);
        if (p != MOUNT_POINT_FREE) return p;
        warn("unmounted a dead mount at %s", at);
    }
    return mount_point_free(at, make, nonempty);
}

// The first number whose daemon does not run. The lock is ours until the daemon has its own.
static int number_choose(const char *dir, char name[32], int *lock_fd) {
    char path[PATH_MAX];
    path_make(path, "%s/run/mx.lock", dir);
    *lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*lock_fd < 0 || flock(*lock_fd, LOCK_EX)) return fail(-1, "%s cannot be locked: %s", path, strerror(errno));
    for (int n = 0; n < (int)MX_MAX; n++) {
        snprintf(name, 32, "mx-%d", n);
        int fd = run_lock(dir, name);
        if (fd < 0) continue;
        close(fd);
        return n;
    }
    return fail(-1, "there are %u mounts already and more are not possible; unmount one", MX_MAX);
}

static bool mount_wait(const struct conf *c, const char *at, struct child *child, uint64_t deadline_ms) {
    struct mount_entry e;
    child_wait(c->dir, child, 1, deadline_ms);
    if (child->ok && mount_probe(at, 10000) == MOUNT_ANSWERS) return true;
    fail(1, "%s is not mounted: %s", at, child->ok ? "the mount does not answer; see its log" : child->said);
    char source[32];
    source_of(c, source);
    if (!child->ok) pid_file_remove(c->dir, child->p.name);
    if (!child->ok && mount_find(at, &e) && mount_is(&e, source) && unmount_now(at, true, 5000))
        warn("what is left of it at %s cannot be unmounted; try: umount -l %s", at, at);
    return false;
}

bool mount_start(const struct conf *c, const char *at, const char *o, uint64_t deadline_ms) {
    char name[32], number[16];
    int lock_fd = -1, n = folders_make(c->dir) ? number_choose(c->dir, name, &lock_fd) : -1;
    bool ok = false;
    if (n >= 0) {
        snprintf(number, sizeof number, "%d", n);
        const char *args[] = {"mount", "--foreground",  "--dir", c->dir, "--number", number,
                              at,      o ? "-o" : NULL, o,       NULL};
        struct child child;
        ok = child_start(c->dir, name, args, &child) && mount_wait(c, at, &child, deadline_ms);
        if (child.p.pid > 0) proc_close(&child.p);
    }
    if (lock_fd >= 0) close(lock_fd);
    return ok;
}
