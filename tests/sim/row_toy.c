// Four IOMs' rows over toy stores in the simulated world: random writes, zeroes, cuts and fsyncs, power cuts at any I/O and again during
// recovery, and an oracle that knows every state each block has had since it was last durable.
//
//   row_toy [--seed S] [--seeds N] [--exhaustive] [--rot] [--first] [--trace] [--quiet]        exit 1 and the failing seed if a promise broke
//
// What must hold after recovery: what was fsynced or written at toughness 2 is there; any other block is in one of the states it had since; bytes
// beyond the durable end are zeros; each parity block is the xor of its row; no UPDATE is left; every allocated block is named by a record.
//
// --rot: while clients work a named block of a protected object rots, and when it is mended or given up the next: nobody reads an error, and nothing else is
// different. In the last cycle, while the power is off a named block rots, or two. Recovery goes through; what still reads is as above (with two: a state that the block
// had once), a block that does not read, and what is lost with it, is told by its checksum.
#include "base/sum.h"
#include "iom/row.h"
#include "iom/row_format.h"
#include "sim/world.h"
#include "tests/sim/toystore.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES 4
#define OBJECTS 3
#define BLOCKS 96u // of an object
#define CELL 64u
#define CELLS (BLOCK_BYTES / CELL)
#define TASKS 3 // clients a node

struct state { uint32_t cell[CELLS]; }; // the write that each cell comes from; 0 = zeros
struct history {
    struct state *s;
    uint32_t len, cap, durable; // s[durable..len) are possible
    uint32_t acked;             // s[acked..len) if only one member fails: what was answered at toughness 1, or shown by a read
    bool busy;
    bool cut;                   // under discard: zeros are possible too
};
struct model_object {
    struct handle h;
    struct refmap map;
    uint32_t truncates, known; // known: told to clients
    uint64_t durable_end;
    struct history block[BLOCKS];
};
struct cutting { bool on; uint32_t object, count; uint64_t from_seg; uint32_t done, closed; }; // members that have discarded; and zeroed

struct sim;
struct net_call { struct list node; uint64_t xid; struct msg *reply; struct waitq q; };
struct iom {
    struct sim *sim;
    uint8_t i;
    struct node *node;
    struct toy *toy;
    struct env *env;
    struct rows *rows;
    struct conn *out[NODES];
    struct list calls;
    uint64_t xid;
    uint32_t clients;
    bool idle;   // its main task asks nothing more
    bool cutter; // the task that does its part of truncates runs
};
enum stage { STAGE_RECOVER, STAGE_WORK, STAGE_DRAIN, STAGE_OVER };
#define ROTTED_MAX 256u
struct rotted { uint8_t iom; uint64_t at; uint32_t crc; }; // crc: of what is there since
struct sim {
    uint64_t seed, rng;
    struct world *world;
    struct iom iom[NODES];
    struct model_object object[OBJECTS];
    struct cutting cutting;
    enum stage stage;
    bool work_after;          // recovery is followed by work (else by the end)
    uint32_t phase, phase_done, drained, tag, ops, ops_max;
    uint64_t ios, crash_at;   // 0: never
    uint64_t crash_again;     // so many I/Os after the single failure: all
    bool crashed, failed;
    bool single;              // the crash is of one member; the others are told to stop
    uint8_t victim;
    bool stop;                // they are being told
    bool held;                // they have put all on disk
    bool acked_counts;
    uint32_t stopped;
    uint64_t seq, refused;
    bool at_messages;         // the sending of a message is a moment for a crash too
    bool tight;               // little room on the disks: writes are refused
    uint32_t hot;             // clients touch the first so many blocks
    bool trace, quiet, nocrash;
    bool rot;                 // blocks rot in the last cycle
    bool rot_live;            // and while clients work, in the others
    struct rotted rotted[ROTTED_MAX]; // those, since the beginning
    uint32_t rotted_len;
    unsigned rotten;          // so many have
    uint64_t unreadable;
};
static uint64_t unreadable_blocks; // of all seeds
static uint64_t rotted_live, mended_live, scrubbed; // likewise
static uint64_t refused_writes; // of all seeds
static struct sim *sim_now; // for the one who prints

static uint64_t rnd(struct sim *s) {
    uint64_t z = s->rng += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static uint64_t below(struct sim *s, uint64_t n) { return rnd(s) % n; }
static bool chance(struct sim *s, unsigned percent) { return below(s, 100) < percent; }

static void fail(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fail(struct sim *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (!s->quiet && !s->failed) {
        printf("seed %llu crash at %llu: ", (unsigned long long)s->seed, (unsigned long long)s->crash_at);
        vprintf(fmt, ap);
        printf("\n");
    }
    va_end(ap);
    s->failed = true;
}

// ---- the oracle's blocks --------------------------------------------------------------------------------------------

static void put_cells(uint8_t *to, uint32_t tag, uint32_t object, uint64_t off, uint32_t len) { // multiples of CELL
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = tag ? ((uint64_t)tag << 32 | object << 28) ^ ((off + i) * 0x9E3779B1u & 0xfffffffu) : 0;
        memcpy(to + i, &v, 8);
    }
}
static void state_bytes(const struct state *s, uint32_t object, uint64_t block, uint8_t *out) {
    for (uint32_t c = 0; c < CELLS; c++) put_cells(out + c * CELL, s->cell[c], object, block * BLOCK_BYTES + c * CELL, CELL);
}
static void push_state(struct history *h, const struct state *s) {
    if (h->len == h->cap) h->s = realloc(h->s, (h->cap = h->cap ? 2 * h->cap : 4) * sizeof h->s[0]);
    h->s[h->len++] = *s;
}
static void write_model(struct model_object *o, uint64_t off, uint32_t len, uint32_t tag) {
    for (uint64_t at = off; at < off + len;) {
        struct history *h = &o->block[at >> BLOCK_SHIFT];
        struct state s = h->s[h->len - 1];
        uint64_t end = MIN(off + len, (at | (BLOCK_BYTES - 1)) + 1);
        for (; at < end; at += CELL) s.cell[at % BLOCK_BYTES / CELL] = tag;
        push_state(h, &s);
    }
}
static void reset_history(struct history *h, const struct state *s) {
    struct state copy = *s;
    h->len = h->durable = h->acked = 0;
    push_state(h, &copy);
    h->busy = h->cut = false;
}

// ---- the network: posts and calls -----------------------------------------------------------------------------------

static void on_message(struct conn *c, struct msg *m) {
    struct iom *n = c->ctx;
    struct envelope *env = (void *)m->body;
    if (m->type & MSG_REPLY) {
        LIST_FOR(&n->calls, l) {
            struct net_call *call = LIST_ENTRY(l, struct net_call, node);
            if (call->xid != le64_get(env->seq)) continue;
            call->reply = m;
            waitq_wake_all(n->env, &call->q);
            return;
        }
        msg_free(m);
    } else if (m->type == MSG_RESOLVE || m->type == MSG_VERIFY || m->type == MSG_GATHER) {
        struct inbound *in = mem_alloc(n->env->mem, sizeof *in);
        in->m = m;
        in->xid = le64_get(env->seq);
        in->conn = c;
        list_init(&in->node);
        if (n->rows) {
            rows_call(n->rows, in);
        } else {
            hub_reply(in, NULL, ERR_STOPPED);
        }
    } else if (n->rows) {
        rows_receive(n->rows, (iom_id){(uint8_t)le32_get(env->reserved)}, m);
    } else {
        msg_free(m);
    }
}
static void on_opened(struct conn *c) { (void)c; }
static void on_closed(struct conn *c, err why) { (void)c, (void)why; }
static const struct net_events net_events = {on_opened, on_message, on_closed};

struct msg *inbound_reply(struct inbound *in, uint32_t body_len) { return msg_new(in->m->mem, in->m->type | MSG_REPLY, body_len); }
void hub_reply(struct inbound *in, struct msg *reply, err result) {
    if (!reply) reply = inbound_reply(in, sizeof(struct envelope));
    struct envelope *env = (void *)reply->body;
    env->seq = le64_of(in->xid);
    env->result = le32_of(result);
    conn_send(in->conn, reply);
    struct mem *mem = in->m->mem;
    msg_free(in->m);
    mem_free(mem, in);
}
static struct msg *port_msg(void *ctx, uint16_t type, uint32_t body_len) { return msg_new(((struct iom *)ctx)->env->mem, type, body_len); }
static void port_post(void *ctx, iom_id to, struct msg *m) {
    struct iom *n = ctx;
    ((struct envelope *)(void *)m->body)->reserved = le32_of(n->i);
    ASSERT(to.n != n->i && to.n < NODES);
    conn_send(n->out[to.n], m);
}
static err port_ask(struct iom *n, iom_id to, struct msg *req, struct msg **reply) {
    struct net_call call = {.xid = ++n->xid};
    waitq_init(&call.q);
    list_push_back(&n->calls, &call.node);
    ((struct envelope *)(void *)req->body)->seq = le64_of(call.xid);
    ASSERT(to.n != n->i && to.n < NODES);
    conn_send(n->out[to.n], req);
    while (!call.reply && n->rows) co_wait(n->env, &call.q, "call");
    list_remove(&call.node);
    *reply = NULL;
    if (!call.reply) return ERR_STOPPED; // this one stops: the other may be dead
    err e = (err)le32_get(((struct envelope *)(void *)call.reply->body)->result);
    *reply = e == OK ? call.reply : NULL;
    if (e != OK) msg_free(call.reply);
    return e;
}
static err port_call(void *ctx, iom_id to, struct msg *req, struct msg **reply) { // as iom_port.c: while only the other has stopped it is asked again
    struct iom *n = ctx;
    err e;
    while ((e = port_ask(n, to, msg_copy(n->env->mem, req, false), reply)) == ERR_STOPPED && n->rows) co_sleep_until(n->env, env_now_ns(n->env) + USEC(100), "call again");
    msg_free(req);
    return e;
}
static err port_end(void *ctx, struct handle h, uint64_t end, uint32_t truncates, uint64_t *durable_end) {
    struct iom *n = ctx;
    struct model_object *o = &n->sim->object[h.index - 2];
    co_sleep_until(n->env, env_now_ns(n->env) + below(n->sim, USEC(200)), "end");
    bool being_cut = n->sim->cutting.on && n->sim->cutting.object == h.index - 2; // then its new end is the answer
    if (truncates < o->truncates) return ERR_TRUNCATED;
    if (!being_cut) o->durable_end = MAX(o->durable_end, end);
    *durable_end = o->durable_end;
    return OK;
}
static void port_touch(void *ctx, struct handle h, uint64_t mtime_ns) { (void)ctx, (void)h, (void)mtime_ns; }

// ---- clients --------------------------------------------------------------------------------------------------------

struct op { uint64_t off; uint32_t len; };
static bool mine(struct iom *n, struct model_object *o, uint64_t block) { return geo_locate(&o->map, block * BLOCK_BYTES).data.n == n->i; }
static bool claim(struct iom *n, struct model_object *o, struct op *op, bool claimed) { // all blocks here are free / are set free
    for (uint64_t b = op->off >> BLOCK_SHIFT; b <= (op->off + op->len - 1) >> BLOCK_SHIFT; b++)
        if (claimed && mine(n, o, b) && o->block[b].busy) return false;
    for (uint64_t b = op->off >> BLOCK_SHIFT; b <= (op->off + op->len - 1) >> BLOCK_SHIFT; b++)
        if (mine(n, o, b)) o->block[b].busy = claimed;
    return true;
}
static struct op pick(struct sim *s) {
    struct op op;
    switch (below(s, 4)) {
        case 0: op = (struct op){below(s, s->hot) * BLOCK_BYTES, BLOCK_BYTES}; break;
        case 1: op = (struct op){below(s, s->hot * CELLS - 8) * CELL, (uint32_t)(1 + below(s, 8)) * CELL}; break;
        case 2: op = (struct op){below(s, s->hot) * BLOCK_BYTES, (uint32_t)(1 + below(s, 24)) * BLOCK_BYTES}; break;
        default: op = (struct op){below(s, s->hot * CELLS) * CELL, (uint32_t)(1 + below(s, 300)) * CELL};
    }
    op.len = (uint32_t)MIN(op.len, s->hot * BLOCK_BYTES - op.off);
    return op;
}
// This member's pieces: calls fn for each.
static uint32_t gather(struct iom *n, struct model_object *o, struct op op, uint32_t tag, uint8_t *to, bool model) {
    uint32_t got = 0;
    for (uint64_t at = op.off; at < op.off + op.len;) {
        struct place p = geo_locate(&o->map, at);
        uint32_t len = (uint32_t)MIN(p.run_bytes, op.off + op.len - at);
        if (p.data.n == n->i) {
            if (to) put_cells(to + got, tag, (uint32_t)(o - n->sim->object), at, len);
            if (model) write_model(o, at, len, tag);
            got += len;
        }
        at += len;
    }
    return got;
}
static void durable_upto(struct iom *n, struct model_object *o, struct op op, const uint32_t *upto) {
    for (uint64_t b = op.off >> BLOCK_SHIFT, i = 0; b <= (op.off + op.len - 1) >> BLOCK_SHIFT; b++, i++)
        if (mine(n, o, b)) o->block[b].durable = MAX(o->block[b].durable, upto[i]);
}
static void acked_upto(struct iom *n, struct model_object *o, struct op op, const uint32_t *upto) {
    for (uint64_t b = op.off >> BLOCK_SHIFT, i = 0; b <= (op.off + op.len - 1) >> BLOCK_SHIFT; b++, i++)
        if (mine(n, o, b)) o->block[b].acked = MAX(o->block[b].acked, upto[i]);
}
static bool bad(struct sim *s, err e) { return e != OK && !(e == ERR_STOPPED && s->stop); }
static void newest_of(struct model_object *o, struct op op, uint32_t *upto) {
    for (uint64_t b = op.off >> BLOCK_SHIFT, i = 0; b <= (op.off + op.len - 1) >> BLOCK_SHIFT; b++, i++) upto[i] = o->block[b].len - 1;
}
static void client_read(struct iom *n, struct model_object *o, struct op op) {
    struct sim *s = n->sim;
    uint32_t bytes = gather(n, o, op, 0, NULL, false), got, done = 0, upto[BLOCKS];
    if (!bytes || s->cutting.on || !claim(n, o, &op, true)) return;
    struct buf *buf = buf_new(n->env->mem, bytes);
    newest_of(o, op, upto);
    err e = co_rows_read(n->rows, o->h, &o->map, op.off, op.len, buf->data, bytes, &got);
    if (bad(s, e) || (e == OK && got != bytes)) fail(s, "read: %s, %u of %u bytes", err_text(e), got, bytes);
    if (e == OK) acked_upto(n, o, op, upto);
    for (uint64_t at = op.off; e == OK && at < op.off + op.len && !s->cutting.on; at += CELL) {
        if (!mine(n, o, at >> BLOCK_SHIFT)) continue;
        struct history *h = &o->block[at >> BLOCK_SHIFT];
        uint8_t want[CELL];
        put_cells(want, h->s[h->len - 1].cell[at % BLOCK_BYTES / CELL], (uint32_t)(o - s->object), at, CELL);
        if (memcmp(want, buf->data + done, CELL)) fail(s, "read shows other bytes than were written: object %u offset %llu", (unsigned)(o - s->object), (unsigned long long)at);
        done += CELL;
    }
    buf_unref(buf);
    claim(n, o, &op, false);
}
// A truncate: all members discard from a segment on; then the count is told. It begins when nobody writes the object.
static void start_cut(struct sim *s, uint32_t object) {
    struct model_object *o = &s->object[object];
    if (s->cutting.on) return;
    for (uint32_t b = 0; b < BLOCKS; b++)
        if (o->block[b].busy) return;
    s->cutting = (struct cutting){true, object, ++o->truncates, below(s, 4) * geo_segs_per_chunk(&o->map) + below(s, geo_segs_per_chunk(&o->map) + 1), 0, 0};
    o->durable_end = geo_offset(&o->map, s->cutting.from_seg, 0, 0); // as a truncate makes its size durable before anything else, also where it was not yet
}
// A refused write: each block is as it was, or new (its segment was not among the refused). Looks which.
static void client_refused(struct iom *n, struct model_object *o, struct op op) {
    struct sim *s = n->sim;
    uint32_t object = (uint32_t)(o - s->object), got;
    struct buf *buf = buf_new(n->env->mem, BLOCK_BYTES);
    for (uint64_t b = op.off >> BLOCK_SHIFT; b <= (op.off + op.len - 1) >> BLOCK_SHIFT; b++) {
        struct history *h = &o->block[b];
        uint8_t is_new[BLOCK_BYTES], was[BLOCK_BYTES];
        if (!mine(n, o, b)) continue;
        if (co_rows_read(n->rows, o->h, &o->map, b * BLOCK_BYTES, BLOCK_BYTES, buf->data, BLOCK_BYTES, &got) != OK) break; // stopped
        state_bytes(&h->s[h->len - 1], object, b, is_new);
        state_bytes(&h->s[h->len - 2], object, b, was);
        if (!memcmp(buf->data, is_new, BLOCK_BYTES)) continue;
        if (memcmp(buf->data, was, BLOCK_BYTES)) fail(s, "a refused write left other bytes: object %u block %llu", object, (unsigned long long)b);
        struct state old = h->s[h->len - 2];
        push_state(h, &old);
        s->refused++;
    }
    buf_unref(buf);
}
static void client_write(struct iom *n, struct model_object *o, struct op op) {
    struct sim *s = n->sim;
    uint32_t tag = ++s->tag, bytes = gather(n, o, op, 0, NULL, false), upto[BLOCKS];
    if (!bytes || s->cutting.on || !claim(n, o, &op, true)) return;
    struct buf *buf = buf_new(n->env->mem, bytes);
    gather(n, o, op, tag, buf->data, true);
    newest_of(o, op, upto);
    struct row_write w = {.h = o->h, .map = o->map, .off = op.off, .len = op.len, .data = {buf, 0, bytes}, .truncates = o->known,
                          .durable_end = chance(s, 50) ? o->durable_end : 0, .toughness = (uint8_t)(chance(s, 15) ? 2 : s->tight || chance(s, 80)), .slot = 1, .seq = ++s->seq};
    w.session[0] = n->i + 1;
    w.slot = (uint32_t)s->seq; // never the same: repeats are tested apart
    err e = co_rows_write(n->rows, &w);
    buf_unref(buf);
    if (e == OK && w.toughness == 2) durable_upto(n, o, op, upto);
    if (e == OK && w.toughness) acked_upto(n, o, op, upto);
    bool full = e == ERR_NOSPC && s->tight;
    if (full && n->rows) client_refused(n, o, op);
    else if (!full && bad(s, e) && e != ERR_TRUNCATED) fail(s, "write: %s", err_text(e));
    claim(n, o, &op, false);
    if (!w.toughness && chance(s, 20)) start_cut(s, (uint32_t)(o - s->object)); // while its delta is under way
    if (!w.toughness && n->rows) client_read(n, o, op);
}
static void client_fsync(struct iom *n, struct model_object *o) {
    struct op all = {0, BLOCKS * BLOCK_BYTES};
    uint32_t upto[BLOCKS], count = o->truncates;
    if (n->sim->cutting.on) return;
    newest_of(o, all, upto);
    for (uint32_t b = 0; b < BLOCKS; b++) // what is being written now may have been counted, but not begun
        if (o->block[b].busy) upto[b] = o->block[b].durable;
    err e = co_rows_fsync(n->rows, o->h, chance(n->sim, 50) ? o->durable_end : 0, o->known);
    if (bad(n->sim, e)) fail(n->sim, "fsync: %s", err_text(e));
    if (e == OK && count == o->truncates && !n->sim->cutting.on) durable_upto(n, o, all, upto);
}
static void client_zero(struct iom *n, struct model_object *o, struct op op) {
    struct sim *s = n->sim;
    uint32_t upto[BLOCKS];
    if (!gather(n, o, op, 0, NULL, false) || s->cutting.on || !claim(n, o, &op, true)) return;
    gather(n, o, op, 0, NULL, true);
    newest_of(o, op, upto);
    err e = co_rows_zero(n->rows, o->h, &o->map, op.off, op.len, o->known);
    if (e == OK) durable_upto(n, o, op, upto);
    bool full = e == ERR_NOSPC && s->tight;
    if (full && n->rows) client_refused(n, o, op);
    else if (!full && bad(s, e) && e != ERR_TRUNCATED) fail(s, "zero: %s", err_text(e));
    claim(n, o, &op, false);
}

static uint64_t cut_size(const struct model_object *o, const struct cutting *c) { return geo_offset(&o->map, c->from_seg, 0, 0); }
static bool is_cut(const struct sim *s, const struct model_object *o, uint32_t b) { return (uint64_t)b * BLOCK_BYTES >= cut_size(o, &s->cutting); }
static void end_cut(struct sim *s) {
    struct model_object *o = &s->object[s->cutting.object];
    for (uint32_t b = 0; b < BLOCKS; b++)
        if (is_cut(s, o, b)) reset_history(&o->block[b], &(struct state){{0}});
    o->known = o->truncates;
    s->cutting.on = false;
}
// The member's part: discards, and when all have, zeroes the rest of the stripe, which ends the cut.
static void co_cut_here(struct iom *n) {
    struct sim *s = n->sim;
    struct cutting c = s->cutting;
    uint32_t me = 1u << n->i, all = (1u << NODES) - 1;
    bool zero = c.done == all;
    if (!c.on || ((zero ? c.closed : c.done) & me)) return;
    struct model_object *o = &s->object[c.object];
    uint64_t size = cut_size(o, &c), stripe = geo_data(&o->map) * refmap_quantum(&o->map);
    err e = zero ? co_rows_zero(n->rows, o->h, &o->map, size, size ? ROUND_UP(size, stripe) - size : 0, c.count)
                 : co_rows_discard(n->rows, o->h, &o->map, c.from_seg, c.count, false);
    if (bad(s, e)) fail(s, "%s: %s", zero ? "zero" : "discard", err_text(e));
    if (e != OK) return;
    *(zero ? &s->cutting.closed : &s->cutting.done) |= me;
    if (s->cutting.closed == all) end_cut(s);
}

static void pause(struct iom *n) { co_sleep_until(n->env, env_now_ns(n->env) + USEC(20), "barrier"); }

static void stats_taken(struct iom *n, const struct rows *r);
static void cutter(void *arg) {
    struct iom *n = arg;
    for (; n->sim->stage == STAGE_WORK && n->rows && !n->sim->stop; pause(n)) co_cut_here(n);
    n->cutter = false;
}

// Beside all else; at the end of one nothing may be lost.
static void scrub_seen(struct iom *n, const struct rows *r) {
    struct rows_scrub x;
    rows_scrub_look(r, &x);
    if (x.lost) fail(n->sim, "IOM %u: scrub finds %llu blocks that are lost", n->i, (unsigned long long)x.lost);
    scrubbed += x.rows;
}
static void scrub(struct iom *n) {
    struct rows_scrub x;
    rows_scrub_look(n->rows, &x);
    if (x.running) return;
    scrub_seen(n, n->rows);
    if (rows_scrub_start(n->rows, 0) != OK) fail(n->sim, "scrub does not begin");
}

static void client(void *arg) {
    struct iom *n = arg;
    struct sim *s = n->sim;
    while (s->stage == STAGE_WORK && n->rows) {
        struct model_object *o = &s->object[below(s, OBJECTS)];
        uint64_t dice = below(s, 100);
        if (++s->ops > s->ops_max) break;
        if (s->rot_live && chance(s, 2)) scrub(n);
        if (dice < 55) client_write(n, o, pick(s));
        else if (dice < 75) client_read(n, o, pick(s));
        else if (dice < 85) client_fsync(n, o);
        else if (dice < 92) client_zero(n, o, pick(s));
        else if (dice < 94) start_cut(s, (uint32_t)(o - s->object));
        else co_sleep_until(n->env, env_now_ns(n->env) + below(s, MSEC(1)), "idle");
        if (chance(s, 20)) co_sleep_until(n->env, env_now_ns(n->env) + below(s, USEC(300)), "idle");
    }
    n->clients--;
}

// ---- a node ---------------------------------------------------------------------------------------------------------

static void co_recover(struct iom *n) {
    struct sim *s = n->sim;
    for (uint32_t phase = 0; phase <= ROWS_RECOVERY_PHASES + 1; phase++) {
        while (s->phase < phase) pause(n);
        if (phase == 0) co_cut_here(n); // the starter repeats the discard that was under way
        else if (phase == ROWS_RECOVERY_PHASES + 1) co_cut_here(n);
        else {
            err e = co_rows_recover(n->rows, phase - 1);
            if (e != OK) fail(s, "recovery phase %u: %s", phase - 1, err_text(e));
        }
        if (++s->phase_done == NODES) s->phase_done = 0, s->phase++;
    }
    while (s->phase < ROWS_RECOVERY_PHASES + 2) pause(n);
}

// From here on nobody is answered, and calls of its own end.
static struct rows *rows_leave(struct iom *n) {
    struct rows *r = n->rows;
    n->rows = NULL;
    LIST_FOR(&n->calls, l) waitq_wake_all(n->env, &LIST_ENTRY(l, struct net_call, node)->q);
    return r;
}

static void co_stop(void *arg) {
    struct iom *n = arg;
    struct sim *s = n->sim;
    while (!s->stop) pause(n);
    co_sleep_until(n->env, env_now_ns(n->env) + below(s, USEC(400)), "hears of the failure");
    struct rows *r = rows_leave(n);
    co_rows_stop(r, true);
    s->stage = STAGE_DRAIN;
    while (n->clients || n->cutter || !n->idle) pause(n);
    stats_taken(n, r);
    rows_destroy(r);
    if (++s->stopped == NODES - 1) s->held = s->crashed = true;
}

static void node_main(void *arg) {
    struct iom *n = arg;
    struct sim *s = n->sim;
    n->env = node_env(n->node);
    n->rows = NULL;
    n->clients = 0;
    n->idle = n->cutter = false;
    list_init(&n->calls);
    struct listener *l;
    if (net_listen(n->env, node_name(n->node), &net_events, n, &l) != OK) abort();
    co_sleep_until(n->env, env_now_ns(n->env) + MSEC(2), "all listen");
    for (uint8_t i = 0; i < NODES; i++)
        if (i != n->i) n->out[i] = net_connect(n->env, node_name(s->iom[i].node), &net_events, n);
    static const struct rows_port fns = {.post = port_post, .msg = port_msg, .co_call = port_call, .co_end_durable = port_end, .touch = port_touch};
    struct rows_port port = fns;
    port.ctx = n;
    struct rows_config c = {.cache_bytes = chance(s, 50) ? MIB(1) : KIB(128), .credit_bytes = chance(s, 50) ? KIB(64) : 0, .flush_age_ns = USEC(below(s, 1500))};
    n->rows = rows_create(n->env, toy_open(n->env, n->toy), (iom_id){n->i}, &port, &c);
    co_sleep_until(n->env, env_now_ns(n->env) + MSEC(2), "all are connected");
    co_recover(n);
    if (s->work_after) {
        s->stage = STAGE_WORK;
        env_spawn(n->env, "stop", co_stop, n);
        n->cutter = true;
        env_spawn(n->env, "cutter", cutter, n);
        for (int i = 0; i < TASKS; i++) {
            n->clients++;
            env_spawn(n->env, "client", client, n);
        }
        while ((n->clients || s->cutting.on) && !s->stop) pause(n);
        for (uint32_t i = 0; i < OBJECTS && !s->stop; i++) client_fsync(n, &s->object[i]);
        n->idle = true;
        while (s->stop) co_sleep_until(n->env, env_now_ns(n->env) + SEC(1), "stopped");
    }
    if (++s->drained == NODES) s->stage = STAGE_DRAIN;
    while (s->drained < NODES || s->stop) pause(n);
    co_sleep_until(n->env, env_now_ns(n->env) + MSEC(20), "the last settled messages");
    while (n->cutter) pause(n);
    if (s->work_after) {
        struct rows *r = rows_leave(n);
        co_rows_stop(r, false);
        stats_taken(n, r);
        rows_destroy(r);
    }
    if (++s->drained == 2 * NODES) s->stage = STAGE_OVER;
}

// ---- what is on the disks -------------------------------------------------------------------------------------------

struct found { bool present; uint64_t at; uint32_t crc; uint64_t version[ARRAY_IOMS_MAX]; };
static struct found find_row(struct toy *t, struct handle h, uint64_t seg, unsigned row) {
    uint8_t id[16];
    handle_put(id, h);
    struct key want = key_make(KIND_CHUNK, id, seg), k = want;
    const uint8_t *val;
    uint32_t len;
    struct found f = {0};
    if (!toy_seek(t, TREE_LOCAL, &k, &val, &len) || memcmp(k.b, want.b, KEY_BYTES)) return f;
    const struct row_chunk *c = (const void *)val;
    unsigned before = (unsigned)__builtin_popcount(le16_get(c->rows) & ((1u << row) - 1));
    if (!(le16_get(c->rows) >> row & 1)) return f;
    const uint8_t *at = c->entries + before * (sizeof(struct row_place) + 6u * c->n);
    struct row_place p;
    memcpy(&p, at, sizeof p);
    f.present = true;
    f.at = le48_get(p.at);
    f.crc = le32_get(p.crc);
    for (uint8_t i = 0; i < c->n; i++) {
        le48 v;
        memcpy(&v, at + sizeof p + 6u * i, sizeof v);
        f.version[i] = le48_get(v);
    }
    return f;
}
static const uint8_t zeros[BLOCK_BYTES];
static const uint8_t *row_bytes(struct sim *s, struct toy *t, struct found f) {
    if (!f.at) return zeros;
    const uint8_t *b = toy_block(t, f.at);
    if (b && store_crc_block(b) == f.crc) return b;
    if (s->rotten) s->unreadable++;
    else fail(s, "a settled block is not what its checksum says");
    return s->rotten ? NULL : zeros;
}
static bool add_row(uint8_t *sum, const uint8_t *bytes) {
    if (bytes) xor_into(sum, bytes, BLOCK_BYTES);
    return bytes != NULL;
}

struct reach { uint8_t *seen; struct sim *s; };
static void reached(void *arg, block_addr at, uint32_t n) {
    struct reach *r = arg;
    for (uint32_t i = 0; i < n; i++)
        if (r->seen[at.n + i]++) fail(r->s, "block %llu is named twice", (unsigned long long)at.n + i);
}
static void check_store(struct sim *s, struct iom *n) {
    struct reach r = {calloc(1, toy_blocks(n->toy)), s};
    struct key k = {{0}};
    const uint8_t *val;
    for (uint32_t len; toy_seek(n->toy, TREE_LOCAL, &k, &val, &len); k = key_next(k)) {
        row_record_refs(&k, val, len, reached, &r);
        if (key_kind(&k) == KIND_UPDATE) fail(s, "an UPDATE is left at IOM %u", n->i);
    }
    for (uint32_t b = 1; b < toy_blocks(n->toy); b++)
        if (toy_allocated(n->toy, b) != r.seen[b]) fail(s, "IOM %u: block %u is %s", n->i, b, r.seen[b] ? "named but free" : "leaked");
    free(r.seen);
}
static void check_rows(struct sim *s, struct model_object *o) {
    unsigned blocks = geo_seg_blocks(&o->map);
    if (!geo_has_parity(&o->map)) return;
    uint64_t segs = geo_segs_of_size(&o->map, BLOCKS * BLOCK_BYTES);
    for (uint64_t seg = 0; seg < segs; seg++)
        for (unsigned row = 0; row < blocks; row++) {
            uint64_t stripe = geo_seg_stripe(&o->map, seg);
            struct iom *p = &s->iom[refmap_member(&o->map, geo_parity_pos(&o->map, stripe)).n];
            struct found fp = find_row(p->toy, o->h, seg, row);
            uint8_t sum[BLOCK_BYTES] = {0};
            bool whole = add_row(sum, row_bytes(s, p->toy, fp));
            for (uint8_t k = 0; k < geo_data(&o->map); k++) {
                struct iom *d = &s->iom[refmap_member(&o->map, geo_data_pos(&o->map, stripe, k)).n];
                struct found fd = find_row(d->toy, o->h, seg, row);
                whole = add_row(sum, row_bytes(s, d->toy, fd)) && whole;
                if (fd.version[0] != fp.version[k]) fail(s, "object %u segment %llu row %u: IOM %u is at version %llu, the parity at IOM %u includes %llu", (unsigned)(o - s->object),
                    (unsigned long long)seg, row, d->i, (unsigned long long)fd.version[0], p->i, (unsigned long long)fp.version[k]);
            }
            if (whole && !is_zero(sum, BLOCK_BYTES)) fail(s, "object %u segment %llu row %u: the parity is not the xor of the row", (unsigned)(o - s->object), (unsigned long long)seg, row);
        }
}
static void check_block(struct sim *s, struct model_object *o, uint32_t b) {
    struct place p = geo_locate(&o->map, b * BLOCK_BYTES);
    struct iom *d = &s->iom[p.data.n];
    const uint8_t *is = row_bytes(s, d->toy, find_row(d->toy, o->h, p.seg, p.seg_off_bytes >> BLOCK_SHIFT));
    uint32_t object = (uint32_t)(o - s->object);
    struct history *h = &o->block[b];
    if (!is) return;
    if (s->rotten > 1 || (s->rotten && !geo_has_parity(&o->map))) h->durable = 0; // as if it had never come to disk
    for (uint32_t i = h->len; i > MAX(h->durable, s->acked_counts && geo_has_parity(&o->map) ? h->acked : 0); i--) {
        uint8_t was[BLOCK_BYTES];
        state_bytes(&h->s[i - 1], object, b, was);
        if (memcmp(was, is, BLOCK_BYTES)) continue;
        uint64_t beyond = MAX(o->durable_end, (uint64_t)b * BLOCK_BYTES) - (uint64_t)b * BLOCK_BYTES;
        if (beyond < BLOCK_BYTES && !is_zero(is + beyond, BLOCK_BYTES - beyond)) fail(s, "object %u block %u: bytes beyond the durable end", object, b);
        reset_history(h, &h->s[i - 1]);
        return;
    }
    bool earlier = false;
    for (uint32_t i = 0; i < h->durable; i++) {
        uint8_t was[BLOCK_BYTES];
        state_bytes(&h->s[i], object, b, was);
        earlier = earlier || !memcmp(was, is, BLOCK_BYTES);
    }
    fail(s, "object %u block %u (IOM %u segment %llu): %s%s", object, b, d->i, (unsigned long long)p.seg, earlier ? "older than what was durable" : "a state it never had", s->acked_counts ? " (or acknowledged, only one having failed)" : "");
}
static void check_disks(struct sim *s) {
    for (int i = 0; i < NODES; i++) check_store(s, &s->iom[i]);
    for (int i = 0; i < OBJECTS; i++) check_rows(s, &s->object[i]);
    for (int i = 0; i < OBJECTS; i++)
        for (uint32_t b = 0; b < BLOCKS; b++) check_block(s, &s->object[i], b);
}

// ---- rot ------------------------------------------------------------------------------------------------------------

struct named { struct toy *t; uint64_t *at; uint32_t len; };
static void name_block(void *arg, block_addr at, uint32_t n) {
    struct named *v = arg;
    for (uint32_t i = 0; i < n; i++)
        if (toy_block(v->t, at.n + i)) v->at[v->len++] = at.n + i;
}
// A block of an IOM that has any; those of updates half of the time.
static void rot_one(struct sim *s) {
    struct toy *t = s->iom[below(s, NODES)].toy;
    struct named v = {t, calloc(toy_blocks(t), sizeof v.at[0]), 0};
    struct key k = {{0}};
    const uint8_t *val;
    bool updates = chance(s, 70);
    for (uint32_t len; toy_seek(t, TREE_LOCAL, &k, &val, &len); k = key_next(k))
        if (!updates || key_kind(&k) == KIND_UPDATE) row_record_refs(&k, val, len, name_block, &v);
    if (v.len) {
        uint64_t at = v.at[below(s, v.len)];
        if (s->trace) printf("block %llu rots, one of %u%s\n", (unsigned long long)at, v.len, updates ? " of updates" : "");
        toy_rot(t, at);
        s->rotten++;
    }
    free(v.at);
}

// ---- rot while clients work -----------------------------------------------------------------------------------------

static bool still_rotten(struct sim *s, const struct rotted *x) {
    struct toy *t = s->iom[x->iom].toy;
    return toy_allocated(t, x->at) && toy_block(t, x->at) && store_crc_block(toy_block(t, x->at)) == x->crc;
}
static uint32_t count_rotten(struct sim *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->rotted_len; i++) n += still_rotten(s, &s->rotted[i]);
    return n;
}
static void rot_live(struct sim *s) {
    uint8_t iom = (uint8_t)below(s, NODES);
    struct toy *t = s->iom[iom].toy;
    if (s->rotted_len == ROTTED_MAX || count_rotten(s)) return;
    struct named v = {t, calloc(toy_blocks(t), sizeof v.at[0]), 0};
    struct key k = {{0}};
    const uint8_t *val;
    for (uint32_t len; toy_seek(t, TREE_LOCAL, &k, &val, &len); k = key_next(k)) {
        struct handle h = handle_at(key_id(&k));
        if (h.index - 2 < OBJECTS && geo_has_parity(&s->object[h.index - 2].map)) row_record_refs(&k, val, len, name_block, &v);
    }
    uint64_t at = v.len ? v.at[below(s, v.len)] : 0;
    free(v.at);
    if (!at || !toy_settled(t, at)) return;
    toy_rot(t, at);
    if (s->trace) printf("%.6f block %llu of IOM %u rots\n", (double)world_now_ns(s->world) / 1e9, (unsigned long long)at, iom);
    s->rotted[s->rotted_len++] = (struct rotted){iom, at, store_crc_block(toy_block(t, at))};
    rotted_live++;
}
// A cut may bring back places that were given up. For the look at the disks all are as they were before; then one of them is rotten again.
static struct rotted *rot_ends(struct sim *s) {
    struct rotted *one = NULL;
    for (uint32_t i = 0; i < s->rotted_len; i++) {
        struct rotted *x = &s->rotted[i];
        if (!still_rotten(s, x)) continue;
        toy_rot(s->iom[x->iom].toy, x->at);
        one = x;
    }
    return one;
}
static void stats_taken(struct iom *n, const struct rows *r) {
    struct rows_stats st;
    rows_stats(r, &st);
    mended_live += st.mended_blocks;
    scrub_seen(n, r);
}

// ---- runs -----------------------------------------------------------------------------------------------------------

static void on_io(void *ctx) {
    struct sim *s = ctx;
    if (s->rot_live && s->stage == STAGE_WORK && !s->crashed && chance(s, 30)) rot_live(s);
    if (++s->ios != s->crash_at) return;
    if (s->single && s->stage == STAGE_WORK && !s->drained) {
        s->stop = true;
        toy_stop(s->iom[s->victim].toy);
        node_power_cut(s->iom[s->victim].node);
        if (s->crash_again) s->crash_at = s->ios + s->crash_again;
        s->single = false;
        return;
    }
    s->crashed = true;
    for (int i = 0; i < NODES; i++) toy_stop(s->iom[i].toy);
    for (int i = 0; i < NODES; i++) node_power_cut(s->iom[i].node);
}
static void on_msg(void *ctx, struct node *from, struct node *to, const struct msg *m) {
    (void)from, (void)to, (void)m;
    struct sim *s = ctx;
    if (s->at_messages && !s->crashed) on_io(s);
}
static void on_trace(void *ctx, const char *line) {
    (void)ctx;
    printf("%s\n", line);
}
static void dump_line(void *ctx, const char *text) {
    (void)ctx;
    printf("    %s\n", text);
}
static bool going(void *ctx) {
    struct sim *s = ctx;
    return !s->crashed && s->stage != STAGE_OVER && !s->failed;
}

static void setup(struct sim *s, uint64_t seed) {
    s->seed = s->rng = seed;
    struct world_options o = world_options_default();
    o.trace = s->trace ? on_trace : NULL;
    o.trace_level = TRACE_DEBUG;
    o.on_msg = on_msg;
    o.ctx = s;
    s->at_messages = chance(s, 40);
    s->tight = chance(s, 20);
    if (chance(s, 50)) o.net_max_ns = USEC(20 + below(s, 500));
    s->hot = (uint32_t[]){6, 12, 24, BLOCKS}[below(s, 4)];
    s->world = world_create(seed, &o);
    for (uint8_t i = 0; i < NODES; i++) {
        struct iom *n = &s->iom[i];
        char name[8] = {'n', (char)('0' + i)};
        n->sim = s;
        n->i = i;
        n->node = node_add(s->world, name);
        n->toy = toy_new(&(struct toy_options){.seed = rnd(s),   .blocks = s->tight ? 100 + (uint32_t)below(s, 60) : 2048, .slow = chance(s, 40) ? 1 + (uint32_t)below(s, 20) : 1, .on_io = on_io, .ctx = s});
    }
    for (uint32_t i = 0; i < OBJECTS; i++) {
        struct model_object *m = &s->object[i];
        static const uint8_t prot[] = {PROT_PARITY, PROT_PARITY, PROT_PARITY3, PROT_MIRROR, PROT_NONE};
        m->h = (struct handle){.array = 0, .starter = (uint8_t)(i % NODES), .generation = 7, .index = i + 2};
        uint8_t p = i == 0 ? PROT_PARITY : prot[below(s, ARRAY_LEN(prot))];
        m->map = (struct refmap){.protection = p, .span = NODES, .quantum_shift = (uint8_t)(12 + below(s, 3) * 2), .starter = (uint8_t)(i % NODES)};
        for (uint32_t b = 0; b < BLOCKS; b++) reset_history(&m->block[b], &(struct state){{0}});
    }
}
static void teardown(struct sim *s) {
    world_destroy(s->world);
    for (int i = 0; i < NODES; i++) toy_free(s->iom[i].toy);
    for (int i = 0; i < OBJECTS; i++)
        for (uint32_t b = 0; b < BLOCKS; b++) free(s->object[i].block[b].s);
}
static void start(struct sim *s, bool work, uint64_t crash_in) {
    s->stage = STAGE_RECOVER;
    s->work_after = work;
    s->phase = s->phase_done = s->drained = s->ops = 0;
    s->crashed = s->stop = s->held = false;
    s->stopped = 0;
    s->crash_at = crash_in ? s->ios + crash_in : 0;
    s->cutting.done = s->cutting.closed = 0;
    for (int i = 0; i < NODES; i++) node_start(s->iom[i].node, node_main, &s->iom[i]);
}
static void run(struct sim *s) { // until it is over or the power is gone
    if (world_run_while(s->world, going, s, world_now_ns(s->world) + SEC(20)) && !s->failed) return;
    if (!s->failed) {
        fail(s, "stuck in stage %d, phase %u", s->stage, s->phase);
        for (int i = 0; i < NODES && !s->quiet; i++)
            if (node_running(s->iom[i].node)) env_dump(node_env(s->iom[i].node), dump_line, s);
    }
}
static void power_off(struct sim *s, enum toy_cut how) {
    for (int i = 0; i < NODES; i++) {
        node_power_cut(s->iom[i].node);
        toy_power_cut(s->iom[i].toy, how);
        for (int j = 0; j < OBJECTS; j++)
            for (uint32_t b = 0; b < BLOCKS; b++) s->object[j].block[b].busy = false;
    }
}
// Work cut at I/O k (0: not), recoveries cut `nested` times at random, then one that is let through; all is looked at.
static void cycle(struct sim *s, uint64_t crash_in, unsigned nested, enum toy_cut how, bool rots) {
    s->victim = (uint8_t)below(s, NODES);
    s->rotten = 0;
    s->rot_live = s->rot && !rots;
    start(s, true, crash_in);
    run(s);
    for (bool first = true; !s->failed; first = false) {
        power_off(s, how);
        if (first) s->rotten = count_rotten(s);
        if (first) s->acked_counts = s->held && !rots && !s->rotten;
        if (first && rots) rot_one(s);
        if (first && rots && chance(s, 40)) rot_one(s);
        start(s, false, nested ? 1 + below(s, 80) : 0);
        if (nested) nested--;
        run(s);
        if (!s->crashed) break;
    }
    struct rotted *again = rot_ends(s);
    if (!s->failed) check_disks(s);
    if (again) toy_rot(s->iom[again->iom].toy, again->at);
    s->acked_counts = s->single = false;
    power_off(s, TOY_CUT_ALL);
}
static bool seed_random(uint64_t seed, bool rot, bool trace, bool quiet) {
    struct sim *s = sim_now = calloc(1, sizeof *s);
    s->rot = rot;
    s->trace = trace;
    s->quiet = quiet;
    setup(s, seed);
    s->nocrash = getenv("NOCRASH") != NULL;
    s->ops_max = 60 + (uint32_t)below(s, 300);
    for (int i = 0; i < 3 && !s->failed && s->rotten < 2; i++) { // with two in a row blocks may be lost
        s->single = !s->nocrash && chance(s, 50);
        s->crash_again = s->single && chance(s, 20) ? 1 + below(s, 30) : 0;
        cycle(s, s->nocrash ? 0 : 1 + below(s, 4 * s->ops_max), s->nocrash ? 0 : (unsigned)below(s, 4), s->nocrash ? TOY_CUT_ALL : TOY_CUT_RANDOM, s->rot && i == 2);
    }
    bool ok = !s->failed;
    refused_writes += s->refused;
    unreadable_blocks += s->unreadable;
    teardown(s);
    free(s);
    return ok;
}
// Every I/O of one short run, with three ways of surviving each.
static bool seed_exhaustive(uint64_t seed, bool quiet, uint64_t *runs) {
    for (uint64_t k = 1;; k++) {
        bool over = false;
        for (int how = TOY_CUT_RANDOM; how <= TOY_CUT_ALL; how++) {
            struct sim *s = sim_now = calloc(1, sizeof *s);
            s->quiet = quiet;
            setup(s, seed);
            s->ops_max = 40;
            cycle(s, k, 0, (enum toy_cut)how, false);
            over = over || s->ios < k;
            bool ok = !s->failed;
            teardown(s);
            free(s);
            ++*runs;
            if (!ok) return false;
        }
        if (over) return true;
    }
}

int main(int argc, char **argv) {
    uint64_t seed = 1, seeds = 1, failed = 0, runs = 0;
    bool exhaustive = false, rot = false, trace = false, quiet = false, first = false;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seed") && i + 1 < argc) seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--seeds") && i + 1 < argc) seeds = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--exhaustive")) exhaustive = true;
        else if (!strcmp(argv[i], "--rot")) rot = true;
        else if (!strcmp(argv[i], "--trace")) trace = true;
        else if (!strcmp(argv[i], "--quiet")) quiet = true;
        else if (!strcmp(argv[i], "--first")) first = true;
        else return 2;
    }
    uint64_t first_bad = 0;
    for (uint64_t i = seed; i < seed + seeds; i++) {
        bool ok = exhaustive ? seed_exhaustive(i, quiet, &runs) : seed_random(i, rot, trace, quiet);
        if (ok) continue;
        if (!failed++) first_bad = i;
        if (first) break;
    }
    if (failed) printf("first failing seed %llu\n", (unsigned long long)first_bad);
    if (exhaustive) printf("%llu crash points\n", (unsigned long long)runs);
    if (refused_writes) printf("%llu blocks refused for want of space\n", (unsigned long long)refused_writes);
    if (rot) printf("%llu blocks rotted while clients worked, %llu were mended, %llu rows scrubbed\n", (unsigned long long)rotted_live, (unsigned long long)mended_live,
                    (unsigned long long)scrubbed);
    if (rot) printf("%llu rows or blocks do not read\n", (unsigned long long)unreadable_blocks);
    printf("%llu seeds, %llu failed\n", (unsigned long long)seeds, (unsigned long long)failed);
    return failed ? 1 : 0;
}
