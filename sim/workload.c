// Random clients; see workload.h. Files: /fN, shared by two writers (the writer of parity p owns the blocks with number mod 2 = p), sized before the
// run, so that only contents are at stake; and one private file a writer (/pN), whose size changes too. Names: /dN, one namer each.
#include "sim/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

uint64_t below(struct workload *w, uint64_t n) { return world_random_below(w->array->world, n); }
struct env *client_env(struct client *c) { return node_env(c->w->mx[c->mx].node); }
struct mx *client_mx(struct client *c) { return c->w->mx[c->mx].mx; }

void must(struct client *c, const char *what, err e) {
    if (e) oracle_fault(c->w->oracle, "client %u: %s failed: %s", c->n, what, err_text(e));
}

// ---- files
static err co_open_file(struct client *c, const char *name, bool create, struct handle *h, struct mx_file **f) {
    struct mx_op op = {0};
    struct attr a;
    err e = create ? co_mx_create(client_mx(c), &op, handle_root(), name, S_IFREG | 0644, MX_O_CREATE, f, &a)
                   : co_mx_lookup(client_mx(c), &op, handle_root(), name, &a);
    if (!e && !create) e = co_mx_open(client_mx(c), &op, a.handle, 0, f, &a);
    if (!e) *h = a.handle;
    return e;
}

static void fill(struct workload *w, uint8_t *p, uint32_t len) {
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = world_random(w->array->world);
        memcpy(p + i, &v, MIN(8u, len - i));
    }
}

static err co_write_at(struct client *c, struct ofile *of, struct mx_file *f, uint64_t off, uint32_t len) {
    struct mx_op op = {0};
    struct buf *b = buf_new(client_env(c)->mem, len);
    fill(c->w, b->data, len);
    struct owrite ow = {.off = off, .len = len, .data = b->data};
    LOG(client_env(c), TRACE_DEBUG, "client %u writes %s [%llu, +%u): block %llu + %llu", c->n, ofile_label(of), (unsigned long long)off, len,
        (unsigned long long)(off / BLOCK_BYTES), (unsigned long long)(off % BLOCK_BYTES));
    ofile_write_begin(of, &ow);
    err e = co_mx_write(client_mx(c), &op, f, off, (struct slice){b, 0, len});
    ofile_write_end(of, &ow, e == OK);
    LOG(client_env(c), TRACE_DEBUG, "client %u wrote %s [%llu, +%u): %s", c->n, ofile_label(of), (unsigned long long)off, len, err_text(e));
    must(c, "a write", e);
    buf_unref(b);
    return e;
}

static void co_read_at(struct client *c, struct ofile *of, struct mx_file *f, uint64_t off, uint32_t len) {
    struct mx_op op = {0};
    uint32_t got = 0;
    uint8_t *p = mem_alloc(client_env(c)->mem, len);
    uint64_t crashes;
    err e;
    do { // what was read before a crash and what after it do not belong together
        crashes = oracle_crashes(c->w->oracle);
        e = co_mx_read(client_mx(c), &op, f, off, len, p, &got);
    } while (!e && crashes != oracle_crashes(c->w->oracle));
    must(c, "a read", e);
    LOG(client_env(c), TRACE_DEBUG, "client %u read %s [%llu, +%u) got %u, begins %02x%02x%02x%02x: %s", c->n, ofile_label(of), (unsigned long long)off, len, got, p[0],
        p[1], p[2], p[3], err_text(e));
    if (!e) ofile_read(of, off, len, got, p);
    mem_free(client_env(c)->mem, p);
}

static void co_fsync_file(struct client *c, struct ofile *of, struct mx_file *f) {
    struct mx_op op = {0};
    struct ofsync *s = ofile_fsync_begin(of);
    err e = co_mx_fsync(client_mx(c), &op, f, below(c->w, 2));
    LOG(client_env(c), TRACE_DEBUG, "client %u fsynced %s: %s", c->n, ofile_label(of), err_text(e));
    ofile_fsync_end(of, s, e == OK);
    if (e == ERR_IO && oracle_may_tell_eio(c->w->oracle)) return; // told once after a recovery
    must(c, "an fsync", e);
}

// After a crash the size must be known before a private file is used on: the look cuts the possibilities down.
static void co_look(struct client *c, struct ofile *of, struct handle h) {
    struct mx_op op = {0};
    struct attr a;
    uint64_t crashes;
    err e;
    do {
        crashes = oracle_crashes(c->w->oracle);
        e = co_mx_getattr(client_mx(c), &op, h, &a);
    } while (!e && crashes != oracle_crashes(c->w->oracle));
    must(c, "a getattr", e);
    if (!e) LOG(client_env(c), TRACE_DEBUG, "client %u sees %llu bytes in %s", c->n, (unsigned long long)a.size, ofile_label(of));
    if (!e) ofile_stat(of, a.size);
}

static void co_shared_op(struct client *c) {
    uint32_t blocks = c->w->o.blocks, parity = c->n % 2;
    uint64_t block = below(c->w, blocks / 2) * 2 + parity;
    uint32_t from = 0, len = BLOCK_BYTES;
    if (below(c->w, 3) == 0) {
        from = (uint32_t)below(c->w, BLOCK_BYTES);
        len = 1 + (uint32_t)below(c->w, BLOCK_BYTES - from);
    }
    switch (below(c->w, 8)) {
    case 0: case 1: case 2: case 3:
        c->doing = "write shared";
        (void)!co_write_at(c, c->shared, c->shared_f, block * BLOCK_BYTES + from, len);
        break;
    case 4: case 5: case 6:
        c->doing = "read shared";
        co_read_at(c, c->shared, c->shared_f, block * BLOCK_BYTES, BLOCK_BYTES);
        break;
    default:
        c->doing = "fsync shared";
        co_fsync_file(c, c->shared, c->shared_f);
    }
}

static void co_truncate_own(struct client *c) {
    uint64_t size = below(c->w, ofile_size(c->own) + 2 * BLOCK_BYTES);
    struct mx_setattr s = {.valid = SETATTR_SIZE, .size = size};
    struct mx_op op = {0};
    struct attr a;
    LOG(client_env(c), TRACE_DEBUG, "client %u truncates %s from %llu to %llu", c->n, ofile_label(c->own), (unsigned long long)ofile_size(c->own), (unsigned long long)size);
    ofile_truncate_begin(c->own, size);
    err e = co_mx_setattr(client_mx(c), &op, c->own_h, &s, &a);
    LOG(client_env(c), TRACE_DEBUG, "client %u truncated %s to %llu: %s", c->n, ofile_label(c->own), (unsigned long long)size, err_text(e));
    ofile_truncate_end(c->own, size, e == OK);
    must(c, "a truncate", e);
}

static void co_private_op(struct client *c) {
    co_look(c, c->own, c->own_h);
    uint64_t size = ofile_size(c->own);
    switch (below(c->w, 10)) {
    case 0:
        c->doing = "truncate own";
        co_truncate_own(c);
        return;
    case 1:
        c->doing = "fsync own";
        co_fsync_file(c, c->own, c->own_f);
        return;
    case 2: case 3: case 4:
        c->doing = "read own";
        co_read_at(c, c->own, c->own_f, below(c->w, PRIVATE_BLOCKS) * BLOCK_BYTES, (1 + (uint32_t)below(c->w, 24)) * BLOCK_BYTES);
        return;
    default: {
        c->doing = "write own";
        uint64_t off = below(c->w, 3) ? MIN(size, (PRIVATE_BLOCKS - 1) * (uint64_t)BLOCK_BYTES) : below(c->w, PRIVATE_BLOCKS * (uint64_t)BLOCK_BYTES);
        uint32_t len = 1 + (uint32_t)below(c->w, below(c->w, 4) ? 2 * BLOCK_BYTES : 40 * BLOCK_BYTES);
        len = (uint32_t)MIN((uint64_t)len, ORACLE_FILE_BLOCKS * (uint64_t)BLOCK_BYTES - off);
        (void)!co_write_at(c, c->own, c->own_f, off, len);
    }
    }
}

static bool co_prepare_writer(struct client *c) {
    char name[32];
    snprintf(name, sizeof name, "f%u", c->n / 2);
    c->shared = c->w->shared[c->n / 2];
    if (co_open_file(c, name, false, &c->shared_h, &c->shared_f)) return false;
    snprintf(name, sizeof name, "p%u", c->n);
    if (!c->own) c->own = ofile_new(c->w->oracle, name);
    return co_open_file(c, name, false, &c->own_h, &c->own_f) == OK;
}

static void co_writer(struct client *c) {
    if (!co_prepare_writer(c)) {
        oracle_fault(c->w->oracle, "client %u: its files, made and fsynced before, are not there", c->n);
        return;
    }
    for (; c->ops < c->w->o.ops; c->ops++, c->w->progress++)
        if (below(c->w, 3)) co_shared_op(c);
        else co_private_op(c);
}

// ---- the run of a client
static void client_task(void *arg) {
    struct client *c = arg;
    if (c->namer) co_namer(c);
    else co_writer(c);
    c->doing = "done";
    c->done = true;
}

static void co_final_look(struct client *c) {
    c->doing = "last look";
    if (c->namer) {
        co_check_names(c);
        return;
    }
    co_look(c, c->own, c->own_h);
    for (uint32_t at = 0; at < PRIVATE_BLOCKS * 2; at += 16) co_read_at(c, c->own, c->own_f, at * (uint64_t)BLOCK_BYTES, 16 * BLOCK_BYTES);
    for (uint32_t at = c->n % 2; at < c->w->o.blocks; at += 2) co_read_at(c, c->shared, c->shared_f, at * (uint64_t)BLOCK_BYTES, BLOCK_BYTES);
}

static void check_task(void *arg) {
    struct client *c = arg;
    co_final_look(c);
    c->doing = "checked";
    c->w->checked++;
}

// The first MX makes what the run begins with, and has it on disk.
static err co_make_file(struct client *c, const char *name, struct ofile *of, uint32_t blocks) {
    struct handle h;
    struct mx_file *f;
    err e = co_open_file(c, name, true, &h, &f);
    if (e) return e;
    if (blocks) {
        e = co_write_at(c, of, f, (blocks - 1) * (uint64_t)BLOCK_BYTES, BLOCK_BYTES);
        if (!e) co_fsync_file(c, of, f);
    }
    co_mx_release(client_mx(c), f);
    return e;
}

static err co_prepare(struct workload *w) {
    char name[32];
    struct client c = {.w = w, .n = 999};
    struct attr a;
    err e = OK;
    for (uint32_t i = 0; i < (w->o.writers + 1) / 2 && !e; i++) {
        snprintf(name, sizeof name, "f%u", i);
        w->shared[i] = ofile_new(w->oracle, name);
        e = co_make_file(&c, name, w->shared[i], w->o.blocks);
    }
    for (uint32_t i = 0; i < w->clients && !e; i++) {
        struct mx_op op = {0};
        snprintf(name, sizeof name, "%c%u", w->client[i].namer ? 'd' : 'p', w->client[i].n);
        if (w->client[i].namer) e = co_mx_mkdir(client_mx(&c), &op, handle_root(), name, S_IFDIR | 0755, &a);
        if (w->client[i].namer && !e) e = co_names_prepare(&c, a.handle);
        if (!w->client[i].namer) e = co_make_file(&c, name, NULL, 0);
    }
    struct mx_op op = {0};
    if (!e) e = co_mx_fsyncdir(client_mx(&c), &op, handle_root());
    return e;
}

static void mx_main(void *arg) {
    struct mx_node *m = arg;
    struct workload *w = m->w;
    struct mx_config c = array_mx_config(w->array);
    struct mx_op op = {0};
    m->mx = mx_create(node_env(m->node), &c);
    err e = co_mx_start(m->mx, &op);
    if (!e && m->n == 0) {
        e = co_prepare(w);
        w->prepared = true;
    }
    if (e) oracle_fault(w->oracle, "mx %u: does not start: %s", m->n, err_text(e));
    while (!w->prepared) co_sleep_until(node_env(m->node), env_now_ns(node_env(m->node)) + MSEC(1), "sim: until all is made");
    m->ready = true;
    for (uint32_t i = 0; i < w->clients && !e; i++)
        if (w->client[i].mx == m->n) env_spawn(node_env(m->node), "sim: client", client_task, &w->client[i]);
}

struct workload *workload_create(struct array *a, struct oracle *o, const struct workload_options *opt) {
    struct workload *w = calloc(1, sizeof *w);
    ASSERT(w && opt->writers + opt->namers <= CLIENTS_MAX && opt->mxs <= ARRAY_MX_MAX);
    w->array = a;
    w->oracle = o;
    w->o = *opt;
    w->clients = opt->writers + opt->namers;
    for (uint32_t i = 0; i < w->clients; i++) w->client[i] = (struct client){.w = w, .n = i, .mx = i % opt->mxs, .namer = i >= opt->writers, .doing = "not begun"};
    for (uint32_t i = 0; i < opt->mxs; i++) {
        char name[16];
        snprintf(name, sizeof name, "mx%u", i);
        w->mx[i] = (struct mx_node){.w = w, .n = i, .node = node_add(a->world, name)};
    }
    return w;
}

void workload_start(struct workload *w) {
    for (uint32_t i = 0; i < w->o.mxs; i++) node_start(w->mx[i].node, mx_main, &w->mx[i]);
}

bool workload_prepared(const struct workload *w) { return w->prepared; }

bool workload_done(const struct workload *w) {
    for (uint32_t i = 0; i < w->clients; i++)
        if (!w->client[i].done) return false;
    return true;
}

void workload_check(struct workload *w) {
    w->checked = 0;
    for (uint32_t i = 0; i < w->clients; i++) env_spawn(node_env(w->mx[w->client[i].mx].node), "sim: check", check_task, &w->client[i]);
}

bool workload_checked(const struct workload *w) { return w->checked == w->clients; }
uint64_t workload_progress(const struct workload *w) { return w->progress; }

static void dump_line(void *ctx, const char *text) { fprintf(stderr, "  %s\n", text); }

void workload_dump(const struct workload *w) {
    for (uint32_t i = 0; i < w->o.mxs; i++) {
        fprintf(stderr, "mx %u waits for:\n", i);
        env_dump(node_env(w->mx[i].node), dump_line, NULL);
    }
    for (uint32_t i = 0; i < w->clients; i++)
        fprintf(stderr, "client %u (mx %u): op %u, %s\n", i, w->client[i].mx, w->client[i].ops, w->client[i].doing);
}

void workload_destroy(struct workload *w) {
    for (uint32_t i = 0; i < w->clients; i++) free(w->client[i].names);
    free(w);
}
