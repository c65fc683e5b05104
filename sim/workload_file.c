// Files of the clients: policies of their folders, and each operation on a file with what the oracle is told before and
// after it.
#include "sim/client.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// ---- policies
static const char *const protection_names[] = {
    [PROT_NONE] = "none", [PROT_MIRROR] = "mirror", [PROT_PARITY3] = "parity3", [PROT_PARITY] = "parity"};
static const uint8_t protections[] = {PROT_PARITY, PROT_PARITY, PROT_PARITY3, PROT_MIRROR, PROT_NONE};
static const uint8_t span_least[] = {[PROT_NONE] = 1, [PROT_MIRROR] = 2, [PROT_PARITY3] = 3, [PROT_PARITY] = 3};

struct policy policy_random(struct workload *w) {
    struct policy p = {.set = below(w, 3) != 0, .protection = protections[below(w, ARRAY_LEN(protections))]};
    uint8_t ioms = w->array->ioms, least = span_least[p.protection];
    p.quantum_shift = (uint8_t)(12 + below(w, 9)); // 4 KiB to 1 MiB
    p.span = least < ioms ? (uint8_t)(least + below(w, ioms - least + 1u)) : 0;
    p.toughness = below(w, 2) ? 1 : (uint8_t)below(w, 3);
    if (ioms < least || (p.protection == PROT_NONE && w->o.protected_only)) p.protection = PROT_MIRROR;
    if (p.protection == PROT_MIRROR && p.span && p.span < 2) p.span = 2;
    if (!w->o.policies) p.set = false;
    return p;
}

static err co_policy_set(struct client *c, struct handle h, const char *what, const char *value) {
    struct mx_op op = {0};
    char name[32];
    snprintf(name, sizeof name, "user.mendfs.%s", what);
    return co_mx_setxattr(client_mx(c), &op, h, name, value, (uint32_t)strlen(value), 0);
}

static err co_policies_set(struct client *c, struct handle dir, const struct policy *p) {
    char text[16];
    err e = co_policy_set(c, dir, "protection", protection_names[p->protection]);
    snprintf(text, sizeof text, "%u", p->span);
    if (!e && p->span) e = co_policy_set(c, dir, "span", text);
    snprintf(text, sizeof text, "%uK", 1u << (p->quantum_shift - 10));
    if (!e) e = co_policy_set(c, dir, "quantum", text);
    snprintf(text, sizeof text, "%u", p->toughness);
    return e ? e : co_policy_set(c, dir, "toughness", text);
}

err co_folder_make(struct client *c, const char *name, const struct policy *p, struct handle *dir) {
    struct mx_op op = {0};
    struct attr a;
    err e = co_mx_mkdir(client_mx(c), &op, handle_root(), name, S_IFDIR | 0755, &a);
    *dir = a.handle;
    return !e && p->set ? co_policies_set(c, *dir, p) : e;
}

// Hosts that are enough for the protection bound the members of a file with redundancy: no two of them are on one.
static uint8_t span_expected(const struct array *a, const struct policy *p) {
    uint32_t seen = 0;
    for (uint8_t i = 0; i < a->ioms; i++) seen |= 1u << a->shape.host[i];
    uint8_t hosts = (uint8_t)__builtin_popcount(seen), asked = p->span ? p->span : a->ioms;
    return p->protection != PROT_NONE && hosts >= span_least[p->protection] ? MIN(asked, hosts) : asked;
}

static void inherited(struct client *c, const struct policy *p, const struct attr *a) {
    const struct refmap *m = &a->map;
    if (!p->set) return;
    if (m->protection != p->protection || m->quantum_shift != p->quantum_shift || m->span != span_expected(c->w->array, p) ||
        a->toughness != p->toughness)
        oracle_fault(c->w->oracle,
                     "client %u: a file has protection %u, quantum 2^%u, span %u, toughness %u; its folder says %u, "
                     "2^%u, %u, %u",
                     c->n, m->protection, m->quantum_shift, m->span, a->toughness, p->protection, p->quantum_shift,
                     span_expected(c->w->array, p), p->toughness);
}

err co_file_in(struct client *c, struct handle dir, const struct policy *p, struct handle *h, struct mx_file **f) {
    struct mx_op op = {0};
    struct attr a;
    err e = co_mx_create(client_mx(c), &op, dir, "f", S_IFREG | 0644, MX_O_CREATE, f, &a);
    if (e) return e;
    inherited(c, p, &a);
    *h = a.handle;
    return OK;
}

err co_file_find(struct client *c, const char *dir, uint32_t flags, struct handle *h, struct mx_file **f,
                 struct attr *a) {
    struct mx_op op = {0};
    err e = co_mx_lookup(client_mx(c), &op, handle_root(), dir, a);
    if (!e) e = co_mx_lookup(client_mx(c), &op, a->handle, "f", a);
    if (!e) e = co_mx_open(client_mx(c), &op, a->handle, flags, f, a);
    if (!e) *h = a->handle;
    return e;
}

// ---- writing
static void fill(struct workload *w, uint8_t *p, uint32_t len) {
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = world_random(w->array->world);
        memcpy(p + i, &v, MIN(8u, len - i));
    }
}

static void write_begin(struct client *c, struct ofile *of, const struct fwrite *what, const uint8_t *data) {
    uint8_t *mine = malloc(what->len); // the node's memory goes with the MX
    ASSERT(mine);
    memcpy(mine, data, what->len);
    c->write = (struct owrite){.off = what->off,
                               .len = what->len,
                               .data = mine,
                               .durable = what->toughness == 2 && what->toughness_known,
                               .fast = what->toughness == 0 || !what->toughness_known};
    ofile_write_begin(of, &c->write);
    c->under_way = of;
    c->writes = true;
    c->appends = what->append;
}

static void write_over(struct client *c) {
    free((void *)(uintptr_t)c->write.data);
    c->under_way = NULL;
    c->writes = false;
}

// An append over a crash may have found another end than was seen before it: then nothing need be where it was
// expected.
static void append_elsewhere(struct client *c, struct ofile *of, uint64_t at) {
    struct owrite w = c->write;
    bool may = w.crash != oracle_crashes(c->w->oracle) && at <= w.off;
    if (!may && !ofile_forgotten(of))
        oracle_fault(c->w->oracle, "client %u: an append to %s went to %llu, its end was %llu", c->n, ofile_label(of),
                     (unsigned long long)at, (unsigned long long)w.off);
    ofile_write_end(of, &c->write, false);
    uint64_t crash = w.crash;
    w.off = at;
    ofile_write_begin(of, &w);
    w.crash = crash; // it straddles the crash
    ofile_write_end(of, &w, true);
}

// Answered at toughness 0 before the parity's IOM has said that it has room: done or not.
bool may_be_refused(struct client *c, struct ofile *of, const struct owrite *w) {
    if (!w->fast || !c->w->o.fillers) return false;
    ofile_told_early(of);
    return true;
}

err co_write_at(struct client *c, struct ofile *of, struct mx_file *f, struct fwrite what) {
    struct mx_op op = {0};
    uint64_t at = what.off;
    struct buf *b = buf_new(client_env(c)->mem, what.len);
    fill(c->w, b->data, what.len);
    LOG(client_env(c), TRACE_DEBUG, "client %u %s %s [%llu, +%u) toughness %u%s: block %llu + %llu", c->n,
        what.append ? "appends to" : "writes", ofile_label(of), (unsigned long long)what.off, what.len, what.toughness,
        what.toughness_known ? "" : "?", (unsigned long long)(what.off / BLOCK_BYTES),
        (unsigned long long)(what.off % BLOCK_BYTES));
    write_begin(c, of, &what, b->data);
    begins(c);
    err e = what.append ? co_mx_append(client_mx(c), &op, f, (struct slice){b, 0, what.len}, &at)
                        : co_mx_write(client_mx(c), &op, f, at, (struct slice){b, 0, what.len});
    if (!e && at != what.off)
        append_elsewhere(c, of, at);
    else
        ofile_write_end(of, &c->write, e == OK && !may_be_refused(c, of, &c->write));
    write_over(c);
    LOG(client_env(c), TRACE_DEBUG, "client %u wrote %s [%llu, +%u): %s", c->n, ofile_label(of), (unsigned long long)at,
        what.len, err_text(e));
    must_io(c, "a write", e, ofile_handle(of), what.off, what.len);
    buf_unref(b);
    return e;
}

void co_truncate_file(struct client *c, struct ofile *of, struct handle h, uint64_t size) {
    struct mx_setattr s = {.valid = SETATTR_SIZE, .size = size};
    struct mx_op op = {0};
    struct attr a;
    LOG(client_env(c), TRACE_DEBUG, "client %u truncates %s from %llu to %llu", c->n, ofile_label(of),
        (unsigned long long)ofile_size(of), (unsigned long long)size);
    ofile_truncate_begin(of, size);
    c->under_way = of;
    c->truncates = true;
    c->truncate_to = size;
    begins(c);
    err e = co_mx_setattr(client_mx(c), &op, h, &s, &a);
    c->under_way = NULL;
    c->truncates = false;
    LOG(client_env(c), TRACE_DEBUG, "client %u truncated %s to %llu: %s", c->n, ofile_label(of),
        (unsigned long long)size, err_text(e));
    ofile_truncate_end(of, size, e == OK);
    if (e != ERR_IO || !excused(c, e, ofile_handle(of), size, UINT64_MAX - size - BLOCK_BYTES)) must(c, "a truncate", e);
}

void co_fsync_file(struct client *c, struct ofile *of, struct mx_file *f) {
    struct mx_op op = {0};
    c->under_way = of;
    c->fsync = ofile_fsync_begin(of);
    err e = co_mx_fsync(client_mx(c), &op, f, below(c->w, 2));
    LOG(client_env(c), TRACE_DEBUG, "client %u fsynced %s: %s", c->n, ofile_label(of), err_text(e));
    ofile_fsync_end(of, c->fsync, e == OK);
    c->fsync = NULL;
    c->under_way = NULL;
    if (e == ERR_IO && ofile_may_tell_eio(of)) return; // told once after a recovery
    if (e == ERR_NOSPC && ofile_may_tell_late(of)) return;
    must(c, "an fsync", e);
}

void client_died(struct client *c) {
    c->ready = false;
    if (c->kind == CLIENT_NAMER) names_client_died(c);
    if (c->kind == CLIENT_RIVAL) rival_client_died(c);
    if (!c->under_way) return;
    if (c->writes) {
        if (c->appends && c->write.crash != oracle_crashes(c->w->oracle))
            ofile_forget(c->under_way); // where it went nobody knows
        ofile_write_lost(c->under_way, &c->write);
        write_over(c);
    }
    if (c->truncates) ofile_truncate_lost(c->under_way, c->truncate_to);
    if (c->fsync) ofile_fsync_end(c->under_way, c->fsync, false);
    c->truncates = false;
    c->fsync = NULL;
    c->under_way = NULL;
}

// ---- looking
void co_read_at(struct client *c, struct ofile *of, struct mx_file *f, uint64_t off, uint32_t len) {
    struct mx_op op = {0};
    uint32_t got = 0;
    uint8_t *p = mem_alloc(client_env(c)->mem, len);
    uint64_t losses;
    err e;
    do { // what was read before a crash and what after it do not belong together
        losses = oracle_losses(c->w->oracle);
        e = co_mx_read(client_mx(c), &op, f, off, len, p, &got);
    } while (!e && losses != oracle_losses(c->w->oracle));
    must_io(c, "a read", e, ofile_handle(of), off, len);
    LOG(client_env(c), TRACE_DEBUG, "client %u read %s [%llu, +%u) got %u, begins %02x%02x%02x%02x: %s", c->n,
        ofile_label(of), (unsigned long long)off, len, got, p[0], p[1], p[2], p[3], err_text(e));
    if (!e) ofile_read(of, off, len, got, p);
    mem_free(client_env(c)->mem, p);
}

void co_read_all(struct client *c, struct ofile *of, struct mx_file *f) {
    for (uint64_t at = 0; at < ofile_size(of); at += 32 * BLOCK_BYTES) co_read_at(c, of, f, at, 32 * BLOCK_BYTES);
}

// After a crash the size must be known before a file is used on: the look cuts the possibilities down.
void co_look(struct client *c, struct ofile *of, struct handle h) {
    struct mx_op op = {0};
    struct attr a;
    uint64_t losses;
    err e;
    do {
        losses = oracle_losses(c->w->oracle);
        e = co_mx_getattr(client_mx(c), &op, h, &a);
    } while (!e && losses != oracle_losses(c->w->oracle));
    must(c, "a getattr", e);
    if (!e)
        LOG(client_env(c), TRACE_DEBUG, "client %u sees %llu bytes in %s", c->n, (unsigned long long)a.size,
            ofile_label(of));
    if (!e) ofile_stat(of, a.size);
}
