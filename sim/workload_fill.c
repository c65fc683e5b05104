// Fillers: each makes files in /gN and writes until a store is full, and then makes room: it truncates one or removes it, and fills again. What was
// acknowledged is there all the time; a write that is told ENOSPC is done in part, block by block. In the end they remove everything, and there is room.
//
// A file has a name that no other ever had: so what a crash takes back, a name made or removed, is done again and nobody mistakes one for another.
#include "sim/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILES 8u
#define BALLAST_BYTES MIB(8) // in each store
#define FILL_BLOCKS 64u // a write's most
#define FILE_BLOCKS (ORACLE_FILE_BLOCKS - FILL_BLOCKS)
#define ROOM_NS SEC(100) // until what was removed is free again: an MX that died had it open for a session's lease

enum slot_state { SLOT_EMPTY, SLOT_MAKING, SLOT_THERE, SLOT_GOING };
struct slot {
    enum slot_state state;
    uint32_t number; // of its name
    struct ofile *of;
    struct handle h;
    struct mx_file *f; // open on the present MX
};
struct fill {
    struct slot slot[FILES];
    uint32_t names;
    struct handle dir;
};

// Half of every store, so that the rest is soon full. Nobody reads it.
static err co_ballast(struct client *c, uint32_t n) {
    struct policy p = {.set = true, .protection = PROT_NONE, .quantum_shift = 16, .span = c->w->array->ioms, .toughness = 1};
    struct mx_op op = {0};
    struct handle dir, h;
    struct mx_file *f;
    char name[16];
    snprintf(name, sizeof name, "b%u", n);
    err e = co_folder_make(c, name, &p, &dir);
    if (!e) e = co_file_in(c, dir, &p, &h, &f);
    if (e) return e;
    struct buf *b = buf_new(client_env(c)->mem, MIB(1));
    memset(b->data, 0xba, MIB(1));
    for (uint64_t at = 0; at < BALLAST_BYTES * p.span / c->w->o.fillers && !e; at += MIB(1)) e = co_mx_write(client_mx(c), &op, f, at, (struct slice){b, 0, MIB(1)});
    if (!e) e = co_mx_fsync(client_mx(c), &op, f, false);
    buf_unref(b);
    co_mx_release(client_mx(c), f);
    return e;
}

err co_fill_prepare(struct client *c, uint32_t n) {
    char name[16];
    struct handle dir;
    struct policy none = {0};
    snprintf(name, sizeof name, "g%u", n);
    err e = co_ballast(c, n);
    return e ? e : co_folder_make(c, name, &none, &dir);
}

static void slot_name(const struct slot *s, char out[16]) { snprintf(out, 16, "f%u", s->number); }

// The name and what it leads to are on disk when this returns OK, whatever failed meanwhile.
static err co_make(struct client *c, struct slot *s) {
    struct mx_op op = {0};
    struct attr a;
    char name[16];
    uint64_t losses;
    slot_name(s, name);
    do {
        losses = oracle_losses(c->w->oracle);
        begins(c);
        err e = co_mx_create(client_mx(c), &op, c->fill->dir, name, S_IFREG | 0644, MX_O_CREATE, &s->f, &a);
        if (e) return e;
        e = co_mx_fsyncdir(client_mx(c), &op, c->fill->dir);
        if (e) return e;
    } while (losses != oracle_losses(c->w->oracle));
    s->h = a.handle;
    ofile_found(s->of, s->h);
    s->state = SLOT_THERE;
    return OK;
}

static void co_begin_file(struct client *c, struct slot *s) {
    char label[32];
    if (s->state == SLOT_EMPTY) {
        s->number = c->fill->names++;
        snprintf(label, sizeof label, "g%u/f%u", c->n, s->number);
        s->of = ofile_new(c->w->oracle, label);
        s->state = SLOT_MAKING;
    }
    err e = co_make(c, s);
    if (!excused_full(c, e)) must(c, "making a file", e);
}

// Removing needs no room.
static void co_remove(struct client *c, struct slot *s) {
    struct mx_op op = {0};
    char name[16];
    uint64_t losses;
    err e;
    slot_name(s, name);
    if (s->state == SLOT_THERE) ofile_forget(s->of);
    s->state = SLOT_GOING;
    if (s->f) co_mx_release(client_mx(c), s->f);
    s->f = NULL;
    do {
        losses = oracle_losses(c->w->oracle);
        e = co_mx_unlink(client_mx(c), &op, c->fill->dir, name);
        if (!e || e == ERR_NOENT) e = co_mx_fsyncdir(client_mx(c), &op, c->fill->dir);
        must(c, "removing a file", e);
    } while (!e && losses != oracle_losses(c->w->oracle));
    s->state = SLOT_EMPTY;
}

static bool co_fill_open(struct client *c) {
    char name[16];
    struct mx_op op = {0};
    struct attr a;
    if (c->ready) return true;
    if (!c->fill) c->fill = calloc(1, sizeof *c->fill);
    ASSERT(c->fill);
    snprintf(name, sizeof name, "g%u", c->n);
    err e = co_mx_lookup(client_mx(c), &op, handle_root(), name, &a);
    c->fill->dir = a.handle;
    for (uint32_t i = 0; i < FILES && !e; i++) {
        struct slot *s = &c->fill->slot[i];
        s->f = NULL;
        if (s->state == SLOT_THERE) e = co_mx_open(client_mx(c), &op, s->h, 0, &s->f, &a);
    }
    must(c, "opening what it filled, made and synced before,", e);
    return c->ready = !e;
}

static void co_make_room(struct client *c, struct slot *s) {
    if (below(c->w, 2)) {
        co_remove(c, s);
        return;
    }
    co_look(c, s->of, s->h);
    co_truncate_file(c, s->of, s->h, below(c->w, 3) ? 0 : below(c->w, ofile_size(s->of) + 1));
}

static void co_fill_op(struct client *c) {
    struct slot *s = &c->fill->slot[below(c->w, FILES)];
    if (s->state == SLOT_GOING) co_remove(c, s);
    if (s->state != SLOT_THERE) co_begin_file(c, s);
    if (s->state != SLOT_THERE) return;
    co_look(c, s->of, s->h);
    uint64_t size = ofile_size(s->of);
    uint32_t len = (1 + (uint32_t)below(c->w, FILL_BLOCKS)) * BLOCK_BYTES;
    switch (below(c->w, 12)) {
    case 0: co_read_at(c, s->of, s->f, below(c->w, size / BLOCK_BYTES + 1) * BLOCK_BYTES, len); break;
    case 1: co_fsync_file(c, s->of, s->f); break;
    case 2: co_make_room(c, s); break;
    default:
        if (size > FILE_BLOCKS * (uint64_t)BLOCK_BYTES) size = below(c->w, FILE_BLOCKS) * BLOCK_BYTES;
        if (co_write_at(c, s->of, s->f, (struct fwrite){.off = size, .len = len, .toughness = 1, .toughness_known = true}) == ERR_NOSPC && below(c->w, 2)) co_make_room(c, s);
    }
}

void co_filler(struct client *c) {
    if (!co_fill_open(c)) return;
    c->doing = "fill";
    for (; c->ops < c->w->o.ops + FILES * 8; c->ops++, c->w->progress++) co_fill_op(c);
}

// All is as it was written; and when it is gone, a file can be written, to the end of its blocks.
void co_fill_check(struct client *c) {
    if (!co_fill_open(c)) return;
    for (uint32_t i = 0; i < FILES; i++) {
        struct slot *s = &c->fill->slot[i];
        if (s->state == SLOT_THERE) co_look(c, s->of, s->h);
        if (s->state == SLOT_THERE) co_read_all(c, s->of, s->f);
    }
    for (uint32_t i = 0; i < FILES; i++)
        if (c->fill->slot[i].state != SLOT_EMPTY) co_remove(c, &c->fill->slot[i]);
    struct slot *s = &c->fill->slot[0];
    uint64_t until_ns = world_now_ns(c->w->array->world) + ROOM_NS;
    err e = ERR_NOSPC;
    while (e && world_now_ns(c->w->array->world) < until_ns) {
        co_client_pause(c, MSEC(200));
        if (s->state != SLOT_THERE) co_begin_file(c, s);
        if (s->state == SLOT_THERE) e = co_write_at(c, s->of, s->f, (struct fwrite){.off = 0, .len = FILL_BLOCKS * BLOCK_BYTES, .toughness = 1, .toughness_known = true});
    }
    must(c, "a write where everything was removed", e);
    if (!e) co_fsync_file(c, s->of, s->f);
}
