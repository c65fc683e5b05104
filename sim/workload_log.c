// Loggers append whole blocks to /log/f, all at once, through several MXs. No two appends get one place, none lies
// beyond the end, and what was appended reads as it was written.
//
// Where an append will go is known only when it returns, so the oracle hears of it then. A crash may take appends back
// with the size; their places are given anew.
#include "sim/client.h"

#include <stdlib.h>
#include <string.h>

#define APPEND_BLOCKS 2u
#define STRADDLE_NS MSEC(200)

struct log_file {
    struct ofile *of;
    struct policy policy;
    uint64_t
        taken[ORACLE_FILE_BLOCKS]; // losses (plus one) at the time of the append that has this block; 0: none known
    bool ever[ORACLE_FILE_BLOCKS];
};

err co_log_prepare(struct client *c) {
    struct handle dir, h;
    struct mx_file *f;
    struct mx_op op = {0};
    struct log_file *l = c->w->log = calloc(1, sizeof *l);
    ASSERT(l);
    l->policy = policy_random(c->w);
    l->of = ofile_new(c->w->oracle, "log");
    if (l->policy.set && l->policy.protection == PROT_NONE) ofile_unprotected(l->of);
    err e = co_folder_make(c, "log", &l->policy, &dir);
    if (!e) e = co_file_in(c, dir, &l->policy, &h, &f);
    if (e) return e;
    co_mx_release(client_mx(c), f);
    return co_mx_fsyncdir(client_mx(c), &op, dir);
}

struct handle log_handle(const struct workload *w) { return ofile_handle(w->log->of); }

static bool co_log_open(struct client *c) {
    struct attr a;
    if (c->ready) return true;
    err e = co_file_find(c, "log", 0, &c->own_h, &c->own_f, &a);
    must(c, "opening the log", e);
    if (!e) ofile_found(c->w->log->of, c->own_h);
    return c->ready = !e;
}

// An answer that comes soon after a crash may be of before it.
static bool of_this_epoch(struct client *c, uint64_t losses) {
    struct array *a = c->w->array;
    return losses == oracle_losses(c->w->oracle) ||
           (!c->w->o.late && world_now_ns(a->world) > a->started_ns + STRADDLE_NS && world_options(a->world)->net_spike_ppm == 0);
}

static void took(struct client *c, struct owrite *w, uint64_t losses) {
    struct log_file *l = c->w->log;
    bool known = of_this_epoch(c, losses);
    uint64_t now = oracle_losses(c->w->oracle) + 1;
    for (uint64_t b = w->off / BLOCK_BYTES; b < (w->off + w->len) / BLOCK_BYTES; b++) {
        if (known && l->taken[b] == now)
            oracle_fault(c->w->oracle, "two appends got block %llu of the log", (unsigned long long)b);
        l->taken[b] = known ? now : 0;
        l->ever[b] = true;
    }
}

static bool co_append(struct client *c) { // false: the log is full
    struct log_file *l = c->w->log;
    struct mx_op op = {0};
    uint32_t len = (1 + (uint32_t)below(c->w, APPEND_BLOCKS)) * BLOCK_BYTES;
    uint64_t at = 0, crash = oracle_crashes(c->w->oracle), losses = oracle_losses(c->w->oracle);
    struct buf *b = buf_new(client_env(c)->mem, len);
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = world_random(c->w->array->world);
        memcpy(b->data + i, &v, 8);
    }
    begins(c);
    err e = co_mx_append(client_mx(c), &op, c->own_f, (struct slice){b, 0, len}, &at);
    LOG(client_env(c), TRACE_DEBUG, "client %u appended [%llu, +%u): %s", c->n, (unsigned long long)at, len,
        err_text(e));
    bool sorry = excused(c, e, c->own_h, 0, UINT64_MAX / 2); // where it was to go is not known
    if (!sorry) must(c, "an append", e);
    bool fits = at + len <= ORACLE_FILE_BLOCKS * (uint64_t)BLOCK_BYTES;
    if (!e && at % BLOCK_BYTES)
        oracle_fault(c->w->oracle, "an append of whole blocks went to %llu", (unsigned long long)at);
    if (!e && fits && at % BLOCK_BYTES == 0) {
        uint8_t toughness = l->policy.set ? l->policy.toughness : 1;
        struct owrite w = {.off = at, .len = len, .data = b->data, .durable = toughness == 2, .fast = toughness == 0};
        ofile_write_begin(l->of, &w);
        w.crash = crash;
        w.losses = losses;
        ofile_write_end(l->of, &w, !may_be_refused(c, l->of, &w));
        took(c, &w, losses);
    }
    buf_unref(b);
    return sorry || (fits && !e);
}

// One block that has been appended since the last crash, so that nobody writes there now.
static void co_read_logged(struct client *c) {
    struct log_file *l = c->w->log;
    struct mx_op op = {0};
    uint8_t data[BLOCK_BYTES];
    uint32_t got;
    uint64_t losses = oracle_losses(c->w->oracle), b = below(c->w, ORACLE_FILE_BLOCKS);
    while (b > 0 && l->taken[b] != losses + 1) b--;
    if (l->taken[b] != losses + 1) return;
    struct attr a;
    err e = co_mx_getattr(client_mx(c), &op, c->own_h, &a); // another MX may have made it longer
    if (!e) e = co_mx_read(client_mx(c), &op, c->own_f, b * BLOCK_BYTES, BLOCK_BYTES, data, &got);
    must_io(c, "a read of the log", e, c->own_h, b * BLOCK_BYTES, BLOCK_BYTES);
    if (e || losses != oracle_losses(c->w->oracle)) return;
    if (got != BLOCK_BYTES)
        oracle_fault(c->w->oracle, "client %u: %u bytes of block %llu of the log, which was appended", c->n, got,
                     (unsigned long long)b);
    else
        ofile_read_block(l->of, b, data);
}

void co_logger(struct client *c) {
    if (!co_log_open(c)) return;
    for (; c->ops < c->w->o.ops; c->ops++, c->w->progress++) {
        c->doing = "log";
        switch (below(c->w, 6)) {
        case 0:
        case 1:
        case 2:
            if (!co_append(c)) return;
            break;
        case 3: co_fsync_file(c, c->w->log->of, c->own_f); break;
        default: co_read_logged(c);
        }
    }
}

void co_log_check(struct client *c) {
    struct log_file *l = c->w->log;
    struct mx_op op = {0};
    struct attr a;
    uint8_t data[BLOCK_BYTES];
    if (!co_log_open(c)) return;
    err e = co_mx_getattr(client_mx(c), &op, c->own_h, &a);
    must(c, "a getattr of the log", e);
    for (uint64_t b = 0; b < MIN(a.size / BLOCK_BYTES, (uint64_t)ORACLE_FILE_BLOCKS) && !e; b++) {
        uint32_t got;
        e = co_mx_read(client_mx(c), &op, c->own_f, b * BLOCK_BYTES, BLOCK_BYTES, data, &got);
        must_io(c, "a read of the log", e, c->own_h, b * BLOCK_BYTES, BLOCK_BYTES);
        if (!e && l->ever[b]) ofile_read_block(l->of, b, data);
        e = OK;
    }
}
