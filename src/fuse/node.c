// The inodes the kernel knows, with their handles and how often it looked them up.
#include "fuse/inside.h"

#include <sys/stat.h>

struct node *node_of(struct fuse_face *f, fuse_ino_t ino) { return map_get(&f->nodes, ino); }

struct node *node_seen(struct fuse_face *f, const struct attr *a) {
    uint64_t ino = handle_inode(a->handle);
    struct node *n = map_get(&f->nodes, ino);
    if (!n) {
        n = mem_alloc(f->env->mem, sizeof *n);
        map_put(&f->nodes, ino, n);
    }
    if (!handle_eq(n->handle, a->handle)) { // the index is used again by a newer object
        n->handle = a->handle;
        n->cached_change = 0;
        if (n->dir) n->dir->known = false;
    }
    n->nlookup++;
    return n;
}

void node_forget(struct fuse_face *f, fuse_ino_t ino, uint64_t nlookup) {
    struct node *n = map_get(&f->nodes, ino);
    if (!n || ino == FUSE_ROOT_ID) return;
    n->nlookup -= MIN(nlookup, n->nlookup);
    if (n->nlookup) return;
    map_del(&f->nodes, ino);
    mem_free(f->env->mem, n->dir);
    mem_free(f->env->mem, n);
}

// ---- directories
bool node_dir_fresh(struct fuse_face *f, fuse_ino_t ino, double *seconds) {
    struct node *n = node_of(f, ino);
    uint64_t limit_ns = (uint64_t)(FUSE_ATTR_SECONDS * (double)SEC(1));
    if (!n || !n->dir || !n->dir->known || n->dir->era != f->dirs_era) return false;
    uint64_t age_ns = env_now_ns(f->env) - n->dir->known_ns;
    *seconds = age_ns < limit_ns ? (double)(limit_ns - age_ns) / (double)SEC(1) : 0;
    return age_ns < limit_ns;
}

void node_dir_learn(struct fuse_face *f, const struct attr *a, uint64_t era) {
    struct node *n = node_of(f, handle_inode(a->handle));
    if (!S_ISDIR(a->mode) || !n || !handle_eq(n->handle, a->handle) || era != f->dirs_era) return;
    if (!n->dir) n->dir = mem_alloc(f->env->mem, sizeof *n->dir);
    if (n->dir->known && n->dir->era == era && n->dir->attr.change > a->change) return; // overtaken by what we made since
    *n->dir = (struct node_dir){.attr = *a, .known_ns = env_now_ns(f->env), .era = era, .known = true};
}

// Known on only if nothing came between: the change counter moved by that name alone. Else what is being asked now may be older than this name.
void node_dir_named(struct fuse_face *f, fuse_ino_t ino, const struct attr *made) {
    struct node *n = node_of(f, ino);
    struct attr *a = n && n->dir && n->dir->known && n->dir->era == f->dirs_era ? &n->dir->attr : NULL;
    if (a && made->dir_change && made->dir_change <= a->change) return; // it was in it already
    if (!a || made->dir_change != a->change + 1) {
        f->dirs_era++;
        return;
    }
    a->change = made->dir_change;
    a->mtime_ns = a->ctime_ns = made->dir_time_ns;
    a->nlink = made->dir_nlink;
    n->dir->known_ns = env_now_ns(f->env);
}

static struct timespec time_of(uint64_t ns) { return (struct timespec){.tv_sec = (time_t)(ns / SEC(1)), .tv_nsec = (long)(ns % SEC(1))}; }

void attr_to_stat(const struct attr *a, struct stat *st) {
    memset(st, 0, sizeof *st);
    st->st_ino = handle_inode(a->handle);
    st->st_mode = a->mode;
    st->st_nlink = a->nlink;
    st->st_uid = a->uid;
    st->st_gid = a->gid;
    st->st_rdev = a->rdev;
    st->st_size = (off_t)a->size;
    st->st_blksize = S_ISREG(a->mode) ? (blksize_t)refmap_quantum(&a->map) : (blksize_t)BLOCK_BYTES;
    st->st_blocks = (blkcnt_t)((a->used + 511) / 512);
    st->st_atim = time_of(a->atime_ns);
    st->st_mtim = time_of(a->mtime_ns);
    st->st_ctim = time_of(a->ctime_ns);
}

void attr_to_entry(struct fuse_face *f, const struct attr *a, struct fuse_entry_param *e) {
    memset(e, 0, sizeof *e);
    node_seen(f, a);
    attr_to_stat(a, &e->attr);
    e->ino = e->attr.st_ino;
    e->generation = a->handle.generation;
    e->attr_timeout = e->entry_timeout = FUSE_ATTR_SECONDS;
}
