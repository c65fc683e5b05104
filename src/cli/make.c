// Making a cluster: its folder, its first map, its stores. cluster.conf says "made": false until all stores stand, so
// that an interrupted making is known and begun anew.
#include "base/sum.h"
#include "cli/make.h"
#include "cli/tool.h"
#include "cluster/register.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

void random_id(uint8_t id[16]) {
    ssize_t n = getrandom(id, 16, 0);
    ASSERT(n == 16);
}

// ---- the folder
static bool may_lie_there(const char *name) {
    return !strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, "lock") || !strcmp(name, "lost+found") ||
           !strcmp(name, "cluster.conf.new");
}

bool folder_is_free(const char *dir) {
    DIR *d = opendir(dir);
    const char *found = NULL;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        if (!may_lie_there(e->d_name)) found = e->d_name;
    if (!d) fail(1, "the folder %s cannot be read: %s", dir, strerror(errno));
    else if (found && !strncmp(found, "iom-", 4))
        fail(1, "%s holds stores but no cluster.conf: put that file back, or choose another --dir", dir);
    else if (found) fail(1, "%s is not empty (%s) and holds no cluster; choose another --dir", dir, found);
    if (d) closedir(d);
    return d && !found;
}

bool folder_make_private(const char *dir) {
    char conf[PATH_MAX];
    struct stat st;
    path_make(conf, "%s/cluster.conf", dir);
    if (stat(dir, &st) == 0 && access(conf, F_OK) && !folder_is_free(dir))
        return false; // somebody's folder stays as it is
    if (!dir_make(dir, 0700)) return false;
    if (stat(dir, &st) || !S_ISDIR(st.st_mode)) return fail(0, "%s is no folder", dir);
    if (st.st_uid != geteuid()) return fail(0, "the folder %s belongs to another user; choose another --dir", dir);
    if (!(st.st_mode & 077) || chmod(dir, 0700) == 0) return true;
    return fail(0, "the folder %s cannot be made private (mode 0700): %s", dir, strerror(errno));
}

bool conf_new(struct conf *c, const char *dir, uint8_t ioms, uint64_t size_bytes, const char *mount) {
    *c = (struct conf){.ioms = ioms, .cache_bytes = CACHE_BYTES_DEFAULT};
    path_make(c->dir, "%s", dir);
    path_make(c->mount, "%s", mount);
    random_id(c->cluster);
    for (uint8_t i = 0; i < ioms; i++) {
        c->iom[i].size_bytes = size_bytes / BLOCK_BYTES * BLOCK_BYTES;
        path_make(c->iom[i].store, "iom-%u/store", i);
    }
    return sockets_choose(c);
}

static bool room_is_there(const struct conf *c) {
    struct statvfs fs;
    uint64_t need = 0;
    for (uint8_t i = 0; i < c->ioms; i++) need += c->iom[i].size_bytes;
    if (statvfs(c->dir, &fs) || (uint64_t)fs.f_bavail * fs.f_frsize >= need) return true;
    return fail(0, "%u stores of %llu MiB need %llu MiB, and %s has %llu MiB free; choose a smaller --size", c->ioms,
                (unsigned long long)(c->iom[0].size_bytes >> 20), (unsigned long long)(need >> 20), c->dir,
                (unsigned long long)((uint64_t)fs.f_bavail * fs.f_frsize >> 20));
}

// ---- journals on devices of their own
// Nobody's file or device is written over. What an interrupted making left is gone by then (cluster_unmake).
static bool device_is_free(const char *path) {
    uint8_t head[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
    int why = errno;
    if (fd >= 0) close(fd);
    if (n < 0) return fail(0, "the journal's device %s cannot be read: %s", path, strerror(why));
    if (is_zero(head, (size_t)n)) return true;
    return fail(0,
                "the journal's device %s is not empty; choose another --journal or, if nothing on it is needed, wipe it: "
                "dd if=/dev/zero of=%s bs=1M count=1",
                path, path);
}

static bool journal_is_free(const char *path) {
    struct stat st;
    if (stat(path, &st)) {
        if (errno == ENOENT) return true;
        return fail(0, "the journal %s cannot be used: %s", path, strerror(errno));
    }
    if (S_ISBLK(st.st_mode)) return device_is_free(path);
    return fail(0,
                S_ISREG(st.st_mode) ? "the journal %s exists already; choose another --journal, or remove it if nothing "
                                      "needs it"
                                    : "the journal %s is neither a file nor a block device; choose another --journal",
                path);
}

static bool journals_are_free(const struct conf *c) {
    for (uint8_t i = 0; i < c->ioms; i++)
        if (c->iom[i].journal[0] && !journal_is_free(c->iom[i].journal)) return false;
    return true;
}

void journal_remove(const char *path) {
    struct stat st;
    if (path[0] && stat(path, &st) == 0 && S_ISREG(st.st_mode)) unlink(path);
}

// ---- stores
struct making {
    const struct conf *c;
    struct cluster_map first;
    struct store_ident ident[ARRAY_IOMS_MAX];
    bool ok;
};

static void first_map(struct making *m) {
    struct map_first_iom ioms[ARRAY_IOMS_MAX];
    for (uint8_t i = 0; i < m->c->ioms; i++) {
        struct store_ident *id = &m->ident[i];
        *id = (struct store_ident){.iom = i, .array_ioms = m->c->ioms};
        memcpy(id->cluster, m->c->cluster, 16);
        random_id(id->store);
        ioms[i] = (struct map_first_iom){.at = m->c->iom[i].at, .host = m->c->iom[i].host};
        memcpy(ioms[i].store, id->store, 16);
    }
    cluster_map_first(&m->first, m->c->cluster, ioms, m->c->ioms);
}

static err co_fill(struct disk *d, struct disk *journal, void *arg, uint8_t i) {
    const struct making *m = arg;
    uint8_t block[REGISTER_RECORD_BYTES_MAX];
    uint32_t len = register_first_block(&m->first, block);
    struct store_config sc = {.journal = journal};
    err e = co_store_format(d, &m->ident[i], &sc);
    return e ? e : co_register_blocks_write(d, block, len);
}

static bool is_device(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

static err journal_open(struct tool *t, const struct conf_iom *i, struct disk **out) {
    struct disk_open_args a = {.path = i->journal, .create = !is_device(i->journal)};
    a.size_bytes = store_journal_device_bytes(i->size_bytes, 0);
    *out = NULL;
    err e = i->journal[0] ? disk_open(t->e, &a, out) : OK;
    if (e) fail(1, "the journal %s cannot be made: %s", i->journal, t->error.text[0] ? t->error.text : err_text(e));
    return e;
}

err co_store_make(struct tool *t, const struct conf *c, uint8_t i, store_filler *co_filler, void *arg) {
    const struct conf_iom *ci = &c->iom[i];
    char path[PATH_MAX], folder[PATH_MAX];
    conf_store_path(c, i, path);
    path_make(folder, "%s", path);
    *strrchr(folder, '/') = 0;
    if (!dir_make(folder, 0700)) return ERR_IO;
    unlink(path);
    struct disk_open_args a = {.path = path, .create = true, .size_bytes = ci->size_bytes};
    struct disk *d, *journal;
    err e = disk_open(t->e, &a, &d);
    if (e) {
        fail(1, "the store %s cannot be made: %s", path, t->error.text[0] ? t->error.text : err_text(e));
        return e;
    }
    e = journal_open(t, ci, &journal);
    if (!e) {
        e = co_filler(d, journal, arg, i);
        if (e == ERR_TOOSMALL && journal)
            fail(1, "the journal's device %s is too small: it needs 1032K at least", ci->journal);
        else if (e)
            fail(1, "the store %s cannot be made: %s", path, t->error.text[0] ? t->error.text : err_text(e));
    }
    if (journal) co_disk_close(journal);
    co_disk_close(d);
    return e;
}

static void co_make_stores(struct tool *t) {
    struct making *m = t->arg;
    for (uint8_t i = 0; i < m->c->ioms; i++)
        if (co_store_make(t, m->c, i, co_fill, m)) return; // over what an interrupted making left: nothing was ever served from it
    m->ok = true;
}

// After a failure nothing stays that takes room.
void cluster_unmake(const struct conf *c) {
    for (uint8_t i = 0; i < c->ioms; i++) {
        char path[PATH_MAX];
        journal_remove(c->iom[i].journal);
        conf_store_path(c, i, path);
        unlink(path);
        *strrchr(path, '/') = 0;
        rmdir(path);
    }
    char path[PATH_MAX];
    path_make(path, "%s/cluster.conf", c->dir);
    unlink(path);
}

bool cluster_make(struct conf *c) {
    struct making m = {.c = c};
    char size[24];
    if (c->iom[0].size_bytes < STORE_BYTES_MIN)
        return fail(0, "--size %s is too small for a store; the minimum is %lluM",
                    size_text(c->iom[0].size_bytes, size), (unsigned long long)(STORE_BYTES_MIN >> 20));
    if (!room_is_there(c) || !journals_are_free(c) || !conf_save(c)) return false;
    first_map(&m);
    tool_run(c->cluster, co_make_stores, &m);
    c->made = m.ok;
    if (m.ok && conf_save(c)) return true;
    cluster_unmake(c);
    return false;
}
