// Close-to-open: a pair of passers, mostly on two MXs, has one file. Who is at turn opens it, finds exactly what the
// other left when it closed it, works on it, closes it and hands it on. So the oracle sees one client at a time.
#include "sim/client.h"

#include <stdio.h>
#include <string.h>

#define PASSED_BLOCKS 24u

err co_pass_prepare(struct client *c, uint32_t group) {
    char name[32];
    struct handle dir, h;
    struct mx_file *f;
    struct mx_op op = {0};
    struct policy *p = &c->w->shared_policy[SHARED_MAX / 2 + group];
    *p = policy_random(c->w);
    snprintf(name, sizeof name, "h%u", group);
    c->w->passed[group] = ofile_new(c->w->oracle, name);
    if (p->set && p->protection == PROT_NONE) ofile_unprotected(c->w->passed[group]);
    err e = co_folder_make(c, name, p, &dir);
    if (!e) e = co_file_in(c, dir, p, &h, &f);
    if (e) return e;
    co_mx_release(client_mx(c), f);
    return co_mx_fsyncdir(client_mx(c), &op, dir);
}

// What open(2) says of the size is what the other left, and so is what is read then.
static bool co_open_passed(struct client *c) {
    char name[32];
    struct attr a;
    uint64_t losses;
    snprintf(name, sizeof name, "h%u", c->group);
    c->own = c->w->passed[c->group];
    do {
        if (c->ready) co_mx_release(client_mx(c), c->own_f);
        c->ready = false;
        losses = oracle_losses(c->w->oracle);
        err e = co_file_find(c, name, 0, &c->own_h, &c->own_f, &a);
        must(c, "opening a file that was closed by another", e);
        if (e) return false;
        c->ready = true;
        ofile_found(c->own, c->own_h);
    } while (losses != oracle_losses(c->w->oracle));
    LOG(client_env(c), TRACE_DEBUG, "client %u opened %s: %llu bytes", c->n, name, (unsigned long long)a.size);
    ofile_stat(c->own, a.size);
    return true;
}

static void co_passed_op(struct client *c) {
    const struct policy *p = &c->w->shared_policy[SHARED_MAX / 2 + c->group];
    struct fwrite w = {.toughness = p->set ? p->toughness : 1, .toughness_known = true};
    co_look(c, c->own, c->own_h);
    w.off = below(c->w, PASSED_BLOCKS * (uint64_t)BLOCK_BYTES);
    w.len = 1 + (uint32_t)below(c->w, 3 * BLOCK_BYTES);
    w.append = below(c->w, 3) == 0 && ofile_size(c->own) < PASSED_BLOCKS * (uint64_t)BLOCK_BYTES;
    if (w.append) w.off = ofile_size(c->own);
    switch (below(c->w, 6)) {
    case 0: co_truncate_file(c, c->own, c->own_h, below(c->w, ofile_size(c->own) + BLOCK_BYTES)); break;
    case 1: co_fsync_file(c, c->own, c->own_f); break;
    default: (void)!co_write_at(c, c->own, c->own_f, w);
    }
}

static void co_close_passed(struct client *c) {
    struct mx_op op = {0};
    must(c, "closing a file", co_mx_flush(client_mx(c), &op, c->own_f));
    co_mx_release(client_mx(c), c->own_f);
    c->ready = false;
}

static bool other_done(const struct client *c) {
    for (uint32_t i = 0; i < c->w->clients; i++) {
        const struct client *o = &c->w->client[i];
        if (o->kind == CLIENT_PASSER && o->group == c->group && o != c) return o->done;
    }
    return true;
}
static bool my_turn(const struct client *c) {
    return c->w->turn[c->group] % 2 == c->n % 2 || other_done(c);
}

void co_passer(struct client *c) {
    for (; c->ops < c->w->o.ops / 4; c->ops++, c->w->progress++) {
        c->doing = "waits for its turn";
        while (!my_turn(c)) co_client_pause(c, MSEC(2));
        c->doing = "works on what was handed on";
        if (!co_open_passed(c)) return;
        co_read_all(c, c->own, c->own_f);
        for (uint64_t n = 1 + below(c->w, 4); n > 0; n--) co_passed_op(c);
        co_close_passed(c);
        c->w->turn[c->group]++;
    }
}

void co_pass_check(struct client *c) {
    if (!co_open_passed(c)) return;
    co_read_all(c, c->own, c->own_f);
    co_close_passed(c);
}
