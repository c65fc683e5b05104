// Brawlers: all of them at the same few names in /arena and /arena/s, at once and through several MXs. They create,
// write, cut, rename over, link and remove what others have open. What each block holds tells of which file and where
// in it it is, so whatever order things took: a read gives what some client wrote to that very place of that file, or
// zeros, never bytes of another file and never garbage.
#include "sim/client.h"

#include "base/sum.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ARENA_NAMES 4u
#define ARENA_BLOCKS 24u
#define MAGIC 0x6272617765723a29ull
#define WORDS (BLOCK_BYTES / 8)
#define HEAD_BYTES 32u // magic, object, block, tag

err co_brawl_prepare(struct client *c) {
    struct mx_op op = {0};
    struct attr a;
    struct policy p = policy_random(c->w);
    c->w->arena_careless = (p.set && p.toughness == 0) || (p.set && p.protection == PROT_NONE);
    err e = co_folder_make(c, "arena", &p, &c->w->arena);
    if (!e) e = co_mx_mkdir(client_mx(c), &op, c->w->arena, "s", S_IFDIR | 0755, &a);
    return e ? e : co_mx_fsyncdir(client_mx(c), &op, c->w->arena);
}

// ---- what a block holds
static void block_fill(uint8_t *p, struct handle h, uint64_t block, uint64_t tag) {
    uint64_t w[WORDS] = {MAGIC, handle_hash(h), block, tag};
    for (uint32_t i = HEAD_BYTES / 8; i < WORDS; i++) w[i] = hash64(w, HEAD_BYTES, i);
    memcpy(p, w, BLOCK_BYTES);
}

// A block as it was written, or cut (zeros from somewhere on), or never written.
static bool block_sound(const uint8_t *p, struct handle h, uint64_t block) {
    uint8_t want[BLOCK_BYTES];
    uint64_t tag;
    uint32_t end = BLOCK_BYTES, same = 0;
    while (end > 0 && !p[end - 1]) end--;
    memcpy(&tag, p + HEAD_BYTES - 8, 8);
    block_fill(want, h, block, tag);
    while (same < BLOCK_BYTES && p[same] == want[same]) same++;
    return same >= end;
}

// ---- names and files
struct victim {
    struct handle dir;
    const char *name;
};
static bool co_pick(struct client *c, struct victim *v) {
    static const char *const names[ARENA_NAMES] = {"a", "b", "c", "d"};
    struct mx_op op = {0};
    struct attr a;
    *v = (struct victim){c->w->arena, names[below(c->w, ARENA_NAMES)]};
    if (below(c->w, 3)) return true;
    err e = co_mx_lookup(client_mx(c), &op, c->w->arena, "s", &a);
    must(c, "finding /arena/s", e);
    v->dir = a.handle;
    return !e;
}

// Others are at it, too: what is gone or is there already is no fault.
static void may(struct client *c, const char *what, err e) {
    LOG(client_env(c), TRACE_DEBUG, "client %u: %s: %s", c->n, what, err_text(e));
    if (e != ERR_NOENT && e != ERR_EXIST && e != ERR_STALE) must(c, what, e);
}

static void may_grow(struct client *c, const char *what, err e) {
    if (!excused_full(c, e)) may(c, what, e);
}

static void co_let_go(struct client *c) {
    if (c->own_f)
        LOG(client_env(c), TRACE_DEBUG, "client %u: lets object %u/%llx go", c->n, c->own_h.starter,
            (unsigned long long)c->own_h.index);
    if (c->own_f) co_mx_release(client_mx(c), c->own_f);
    c->own_f = NULL;
}

// What it has open is there, with a name or without, unless a crash took its making back.
static void must_have(struct client *c, const char *what, err e, uint64_t off, uint64_t len) {
    if (e != ERR_STALE || c->opened_crash == oracle_crashes(c->w->oracle))
        (len ? must_io(c, what, e, c->own_h, off, len) : must(c, what, e));
    else
        co_let_go(c);
}

static void co_take(struct client *c, bool create) {
    struct mx_op op = {0};
    struct attr a;
    struct victim v;
    if (!co_pick(c, &v)) return;
    co_let_go(c);
    uint32_t flags = below(c->w, 6) || c->w->checking ? 0 : MX_O_TRUNC;
    if (below(c->w, 4) == 0) flags |= MX_O_SYNC;
    struct mx_file *f = NULL;
    uint64_t crash = oracle_crashes(c->w->oracle);
    begins(c);
    err e = create ? co_mx_create(client_mx(c), &op, v.dir, v.name, S_IFREG | 0644, flags | MX_O_CREATE, &f, &a)
                   : co_mx_lookup(client_mx(c), &op, v.dir, v.name, &a);
    if (!e && !create) e = co_mx_open(client_mx(c), &op, a.handle, flags, &f, &a);
    bool sorry = (create && excused_full(c, e)) || ((flags & MX_O_TRUNC) && excused(c, e, (struct handle){0}, 0, UINT64_MAX / 2)); // of which file is not known
    if (!sorry) may(c, "opening what others fight for", e);
    c->own_f = e ? NULL : f;
    c->opened_crash = crash;
    c->own_h = a.handle;
    LOG(client_env(c), TRACE_DEBUG, "client %u: has %s open, object %u/%llx", c->n, c->own_f ? v.name : "nothing",
        a.handle.starter, (unsigned long long)a.handle.index);
}

static void co_brawl_write(struct client *c) {
    struct mx_op op = {0};
    uint32_t blocks = 1 + (uint32_t)below(c->w, 6);
    uint64_t first = below(c->w, ARENA_BLOCKS), at = first * BLOCK_BYTES;
    struct buf *b = buf_new(client_env(c)->mem, blocks * BLOCK_BYTES);
    for (uint32_t i = 0; i < blocks; i++)
        block_fill(b->data + i * BLOCK_BYTES, c->own_h, first + i, world_random(c->w->array->world));
    begins(c);
    err e = co_mx_write(client_mx(c), &op, c->own_f, at, (struct slice){b, 0, blocks * BLOCK_BYTES});
    LOG(client_env(c), TRACE_DEBUG, "client %u: writes object %u/%llx block %llu + %u: %s", c->n, c->own_h.starter,
        (unsigned long long)c->own_h.index, (unsigned long long)(at / BLOCK_BYTES), blocks, err_text(e));
    must_have(c, "a write of what others cut", e, at, blocks * BLOCK_BYTES);
    buf_unref(b);
}

static void block_unsound(struct client *c, const uint8_t *p, struct handle h, uint64_t block) {
    uint64_t head[4];
    uint8_t want[BLOCK_BYTES];
    uint32_t same = 0, end = BLOCK_BYTES;
    memcpy(head, p, sizeof head);
    block_fill(want, h, block, head[3]);
    while (same < BLOCK_BYTES && p[same] == want[same]) same++;
    while (end > 0 && !p[end - 1]) end--;
    oracle_fault(c->w->oracle,
                 "client %u: block %llu of object %u/%llx in the arena holds what nobody wrote there: %s%s, sound up "
                 "to %u of %u bytes (%016llx)",
                 c->n, (unsigned long long)block, h.starter, (unsigned long long)h.index,
                 head[1] == handle_hash(h) ? "" : "another file's, ", head[2] == block ? "" : "of another place", same,
                 end, (unsigned long long)head[0]);
}

static void co_brawl_read(struct client *c) {
    struct mx_op op = {0};
    uint32_t got, len = (1 + (uint32_t)below(c->w, 8)) * BLOCK_BYTES;
    uint64_t first = below(c->w, ARENA_BLOCKS);
    uint8_t *p = mem_alloc(client_env(c)->mem, len);
    struct handle h = c->own_h;
    err e = co_mx_read(client_mx(c), &op, c->own_f, first * BLOCK_BYTES, len, p, &got);
    must_have(c, "a read of what others write", e, first * BLOCK_BYTES, len);
    for (uint32_t i = 0; !e && (i + 1) * BLOCK_BYTES <= got; i++)
        if (!block_sound(p + i * BLOCK_BYTES, h, first + i)) block_unsound(c, p + i * BLOCK_BYTES, h, first + i);
    mem_free(client_env(c)->mem, p);
}

static void co_brawl_cut(struct client *c) {
    struct mx_op op = {0};
    struct attr a;
    struct mx_setattr s = {.valid = SETATTR_SIZE,
                           .size = below(c->w, 3) ? below(c->w, ARENA_BLOCKS * (uint64_t)BLOCK_BYTES) : 0};
    err e = co_mx_setattr(client_mx(c), &op, c->own_h, &s, &a);
    must_have(c, "a truncate of what others write", e, s.size, e == ERR_IO ? UINT64_MAX / 2 : 0);
}

static void co_brawl_fsync(struct client *c) {
    struct mx_op op = {0};
    begins(c);
    err e = co_mx_fsync(client_mx(c), &op, c->own_f, below(c->w, 2));
    if (e == ERR_NOSPC && excused_full(c, e)) return; // told once of a write at toughness 0, which the arena may have
    bool told = oracle_may_tell_eio(c->w->oracle) || (c->w->arena_careless && oracle_losses(c->w->oracle));
    if (e != ERR_IO || !told) must_have(c, "an fsync of what others write", e, 0, 0);
}

static void co_brawl_name(struct client *c, uint64_t what) {
    struct mx_op op = {0};
    struct attr a;
    struct victim v, to;
    if (!co_pick(c, &v) || !co_pick(c, &to)) return;
    LOG(client_env(c), TRACE_DEBUG, "client %u: name operation %u on %u/%s and %u/%s", c->n, (unsigned)what,
        v.dir.starter, v.name, to.dir.starter, to.name);
    begins(c);
    if (what == 0)
        may(c, "an unlink in the arena", co_mx_unlink(client_mx(c), &op, v.dir, v.name));
    else if (what == 1)
        may_grow(c, "a rename in the arena", co_mx_rename(client_mx(c), &op, v.dir, v.name, to.dir, to.name, 0));
    else if (c->own_f)
        may_grow(c, "a link in the arena", co_mx_link(client_mx(c), &op, c->own_h, to.dir, to.name, &a));
}

static void co_brawl_op(struct client *c) {
    uint64_t what = below(c->w, 16);
    if (what < 3 || (what < 12 && !c->own_f))
        co_take(c, what != 1);
    else if (what < 6)
        co_brawl_write(c);
    else if (what < 8)
        co_brawl_read(c);
    else if (what < 10)
        co_brawl_cut(c);
    else if (what < 11)
        co_brawl_fsync(c);
    else if (what < 12)
        co_let_go(c);
    else
        co_brawl_name(c, what < 14 ? 0 : what - 13);
}

void co_brawler(struct client *c) {
    c->own_f = NULL; // of an MX that died
    c->ready = true;
    c->doing = "brawl";
    for (; c->ops < c->w->o.ops; c->ops++, c->w->progress++) co_brawl_op(c);
}

static bool on_entry(void *arg, const struct mx_dirent *d) {
    ++*(uint32_t *)arg;
    return true;
}

// Every name that is left leads to a file that can be read; what nobody has open any more goes by itself.
void co_brawl_check(struct client *c) {
    struct mx_op op = {0};
    uint32_t entries = 0;
    bool eof = false;
    if (!c->ready) c->own_f = NULL;
    co_let_go(c);
    must(c, "listing the arena", co_mx_readdir(client_mx(c), &op, c->w->arena, 0, true, on_entry, &entries, &eof));
    for (uint32_t n = 0; n < 2 * ARENA_NAMES; n++) {
        co_take(c, false);
        if (c->own_f) co_brawl_read(c);
    }
    co_let_go(c);
}
