// Random clients; see workload.h. Each file lies in a folder of its own in the root, as FOLDER/f, and has that folder's policies.
//   /sN  shared by two writers (the writer of parity p owns the blocks with number mod 2 = p), sized before the run, so that only contents are at stake
//   /pN  private, one a writer, whose size changes too
//   /dN  a namer's names      /hN  a file that two passers hand on      /log  what loggers append to      /arena  of the brawlers
//   /rivals  of the rivals
#include "sim/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define QUIET_NS SEC(3) // by then what a dead MX asked for has been done, or never will be
#define LATE_QUIET_NS SEC(60) // the same where disks hang and links are late

uint64_t below(struct workload *w, uint64_t n) { return world_random_below(w->array->world, n); }
struct env *client_env(struct client *c) { return node_env(c->w->mx[c->mx].node); }
struct mx *client_mx(struct client *c) { return c->w->mx[c->mx].mx; }

void must(struct client *c, const char *what, err e) {
    if (e) oracle_fault(c->w->oracle, "client %u: %s failed: %s", c->n, what, err_text(e));
}

void begins(struct client *c) { c->since_ns = world_now_ns(c->w->array->world); }

bool excused(struct client *c, err e, struct handle h, uint64_t off, uint64_t len) {
    const struct workload_options *o = &c->w->o;
    return e && o->excuse && o->excuse(o->excuse_ctx, e, h, off, len, c->since_ns);
}

bool excused_full(struct client *c, err e) { return e == ERR_NOSPC && excused(c, e, (struct handle){0}, 0, 0); }

void must_io(struct client *c, const char *what, err e, struct handle h, uint64_t off, uint64_t len) {
    if (e && !excused(c, e, h, off, len)) must(c, what, e);
}

void co_client_pause(struct client *c, uint64_t ns) { co_sleep_until(client_env(c), env_now_ns(client_env(c)) + ns, "sim: client's pause"); }

// ---- the writer
static uint8_t toughness_of(const struct policy *p) { return p->set ? p->toughness : 1; }

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
        (void)!co_write_at(c, c->shared, c->shared_f, (struct fwrite){block * BLOCK_BYTES + from, len, c->shared_toughness, true, false});
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

// Known only if it is on disk before the next crash: an older toughness may be back after that.
static void co_change_toughness(struct client *c) {
    struct mx_op op = {0};
    char value[2] = {(char)('0' + below(c->w, 3)), 0};
    uint64_t losses = oracle_losses(c->w->oracle);
    c->own_toughness_known = false;
    begins(c);
    err e = co_mx_setxattr(client_mx(c), &op, c->own_h, "user.mendfs.toughness", value, 1, 0);
    if (!excused_full(c, e)) must(c, "setting the toughness", e);
    c->own_toughness = (uint8_t)(value[0] - '0');
    co_fsync_file(c, c->own, c->own_f);
    c->own_toughness_known = !e && losses == oracle_losses(c->w->oracle);
    LOG(client_env(c), TRACE_DEBUG, "client %u: toughness of %s is %u%s", c->n, ofile_label(c->own), c->own_toughness, c->own_toughness_known ? "" : "?");
}

static void co_write_own(struct client *c) {
    uint64_t size = ofile_size(c->own);
    struct fwrite w = {.toughness = c->own_toughness, .toughness_known = c->own_toughness_known};
    struct mx_file *f = c->own_f;
    w.off = below(c->w, 3) ? MIN(size, (PRIVATE_BLOCKS - 1) * (uint64_t)BLOCK_BYTES) : below(c->w, PRIVATE_BLOCKS * (uint64_t)BLOCK_BYTES);
    w.len = 1 + (uint32_t)below(c->w, below(c->w, 4) ? 2 * BLOCK_BYTES : 40 * BLOCK_BYTES);
    if (c->w->o.syncs && below(c->w, 4) == 0) {
        f = c->own_sync_f;
        w.toughness = 2;
        w.toughness_known = true;
    }
    w.append = c->w->o.syncs && size < PRIVATE_BLOCKS * (uint64_t)BLOCK_BYTES && ofile_size_known(c->own) && below(c->w, 4) == 0;
    if (w.append) w.off = size;
    w.len = (uint32_t)MIN((uint64_t)w.len, ORACLE_FILE_BLOCKS * (uint64_t)BLOCK_BYTES - w.off);
    (void)!co_write_at(c, c->own, f, w);
}

static void co_private_op(struct client *c) {
    co_look(c, c->own, c->own_h);
    switch (below(c->w, 10 + c->w->o.syncs)) {
    case 0:
        c->doing = "truncate own";
        co_truncate_file(c, c->own, c->own_h, below(c->w, ofile_size(c->own) + 2 * BLOCK_BYTES));
        return;
    case 1:
        c->doing = "fsync own";
        co_fsync_file(c, c->own, c->own_f);
        return;
    case 2: case 3: case 4:
        c->doing = "read own";
        co_read_at(c, c->own, c->own_f, below(c->w, PRIVATE_BLOCKS) * BLOCK_BYTES, (1 + (uint32_t)below(c->w, 24)) * BLOCK_BYTES);
        return;
    case 10:
        c->doing = "toughness of own";
        co_change_toughness(c);
        return;
    default:
        c->doing = "write own";
        co_write_own(c);
    }
}

static bool co_writer_ready(struct client *c) {
    char name[32];
    struct mx_op op = {0};
    struct attr a;
    snprintf(name, sizeof name, "s%u", c->group);
    c->shared = c->w->shared[c->group];
    c->shared_toughness = toughness_of(&c->w->shared_policy[c->group]);
    if (co_file_find(c, name, 0, &c->shared_h, &c->shared_f, &a)) return false;
    snprintf(name, sizeof name, "p%u", c->n);
    if (!c->own) {
        c->own = ofile_new(c->w->oracle, name);
        c->own_toughness = toughness_of(&c->w->own_policy[c->n]);
        c->own_toughness_known = true;
        if (c->w->own_policy[c->n].set && c->w->own_policy[c->n].protection == PROT_NONE) ofile_unprotected(c->own);
    }
    ofile_found(c->shared, c->shared_h);
    if (co_file_find(c, name, 0, &c->own_h, &c->own_f, &a)) return false;
    ofile_found(c->own, c->own_h);
    return co_mx_open(client_mx(c), &op, c->own_h, MX_O_SYNC, &c->own_sync_f, &a) == OK;
}

static bool co_writer_open(struct client *c) {
    c->ready = c->ready || co_writer_ready(c);
    if (!c->ready) oracle_fault(c->w->oracle, "client %u: its files, made and fsynced before, are not there", c->n);
    return c->ready;
}

static void co_writer(struct client *c) {
    if (!co_writer_open(c)) return;
    for (; c->ops < c->w->o.ops; c->ops++, c->w->progress++)
        if (below(c->w, 3)) co_shared_op(c);
        else co_private_op(c);
}

static void co_writer_check(struct client *c) {
    if (!co_writer_open(c)) return;
    co_look(c, c->own, c->own_h);
    for (uint32_t at = 0; at < PRIVATE_BLOCKS * 2; at += 16) co_read_at(c, c->own, c->own_f, at * (uint64_t)BLOCK_BYTES, 16 * BLOCK_BYTES);
    for (uint32_t at = c->n % 2; at < c->w->o.blocks; at += 2) co_read_at(c, c->shared, c->shared_f, at * (uint64_t)BLOCK_BYTES, BLOCK_BYTES);
}

// ---- the run of a client
static void co_work(struct client *c) {
    switch (c->kind) {
    case CLIENT_WRITER: co_writer(c); break;
    case CLIENT_NAMER: co_namer(c); break;
    case CLIENT_PASSER: co_passer(c); break;
    case CLIENT_LOGGER: co_logger(c); break;
    case CLIENT_BRAWLER: co_brawler(c); break;
    case CLIENT_FILLER: co_filler(c); break;
    case CLIENT_RIVAL: co_rival(c); break;
    }
}

static void client_task(void *arg) {
    struct client *c = arg;
    uint64_t now_ns = world_now_ns(c->w->array->world);
    if (c->done) return;
    if (c->quiet_ns > now_ns) co_client_pause(c, c->quiet_ns - now_ns);
    if (!(c->w->o.idle >> c->n & 1)) co_work(c);
    c->doing = "done";
    c->done = true;
}

static void co_final_look(struct client *c) {
    switch (c->kind) {
    case CLIENT_WRITER: co_writer_check(c); break;
    case CLIENT_NAMER: co_check_names(c); break;
    case CLIENT_PASSER: co_pass_check(c); break;
    case CLIENT_LOGGER: co_log_check(c); break;
    case CLIENT_BRAWLER: co_brawl_check(c); break;
    case CLIENT_FILLER: co_fill_check(c); break;
    case CLIENT_RIVAL: co_rival_check(c); break;
    }
}

static void check_task(void *arg) {
    struct client *c = arg;
    c->doing = "last look";
    co_final_look(c);
    c->doing = "checked";
    c->w->checked++;
}

// ---- what the run begins with: the first MX makes it, and has it on disk
static err co_make_shared(struct client *c, uint32_t i) {
    char name[32];
    struct workload *w = c->w;
    struct handle dir, h;
    struct mx_file *f;
    struct policy *p = &w->shared_policy[i];
    *p = policy_random(w);
    snprintf(name, sizeof name, "s%u", i);
    w->shared[i] = ofile_new(w->oracle, name);
    if (p->set && p->protection == PROT_NONE) ofile_unprotected(w->shared[i]);
    err e = co_folder_make(c, name, p, &dir);
    if (!e) e = co_file_in(c, dir, p, &h, &f);
    if (e) return e;
    e = co_write_at(c, w->shared[i], f, (struct fwrite){(w->o.blocks - 1) * (uint64_t)BLOCK_BYTES, BLOCK_BYTES, toughness_of(p), true, false});
    if (!e) co_fsync_file(c, w->shared[i], f);
    co_mx_release(client_mx(c), f);
    return e;
}

static err co_make_own(struct client *c, struct client *of) {
    char name[32];
    struct handle dir, h;
    struct mx_file *f;
    struct mx_op op = {0};
    struct policy *p = &c->w->own_policy[of->n];
    *p = policy_random(c->w);
    snprintf(name, sizeof name, "p%u", of->n);
    err e = co_folder_make(c, name, p, &dir);
    if (!e) e = co_file_in(c, dir, p, &h, &f);
    if (e) return e;
    co_mx_release(client_mx(c), f);
    return co_mx_fsyncdir(client_mx(c), &op, dir);
}

static err co_make_names(struct client *c, struct client *of) {
    char name[32];
    struct handle dir;
    struct policy none = {0};
    snprintf(name, sizeof name, "d%u", of->n);
    err e = co_folder_make(c, name, &none, &dir);
    return e ? e : co_names_prepare(c, dir);
}

static err co_prepare_client(struct client *c, struct client *of) {
    switch (of->kind) {
    case CLIENT_WRITER: {
        err e = of->n % 2 ? OK : co_make_shared(c, of->group);
        return e ? e : co_make_own(c, of);
    }
    case CLIENT_NAMER: return co_make_names(c, of);
    case CLIENT_PASSER: return c->w->passed[of->group] ? OK : co_pass_prepare(c, of->group);
    case CLIENT_LOGGER: return c->w->log ? OK : co_log_prepare(c);
    case CLIENT_BRAWLER: return handle_valid(c->w->arena) && c->w->arena.index ? OK : co_brawl_prepare(c);
    case CLIENT_FILLER: return co_fill_prepare(c, of->n);
    case CLIENT_RIVAL: return c->w->rivals ? OK : co_rivals_prepare(c);
    }
    return OK;
}

static err co_prepare(struct workload *w) {
    struct client c = {.w = w, .n = 999};
    struct mx_op op = {0};
    err e = OK;
    for (uint32_t i = 0; i < w->clients && !e; i++) e = co_prepare_client(&c, &w->client[i]);
    return e ? e : co_mx_fsyncdir(client_mx(&c), &op, handle_root());
}

static void mx_main(void *arg) {
    struct mx_node *m = arg;
    struct workload *w = m->w;
    struct mx_config c = array_mx_config(w->array);
    struct mx_op op = {0};
    m->mx = mx_create(node_env(m->node), &c);
    err e = co_mx_start(m->mx, &op);
    if (!e && m->n == 0 && !w->prepared) {
        e = co_prepare(w);
        w->prepared = true;
    }
    if (e) oracle_fault(w->oracle, "mx %u: does not start: %s", m->n, err_text(e));
    while (!w->prepared) co_sleep_until(node_env(m->node), env_now_ns(node_env(m->node)) + MSEC(1), "sim: until all is made");
    for (uint32_t i = 0; i < w->clients && !e; i++)
        if (w->client[i].mx == m->n) env_spawn(node_env(m->node), "sim: client", client_task, &w->client[i]);
}

static void client_add(struct workload *w, enum client_kind kind, uint32_t group) {
    struct client *c = &w->client[w->clients];
    *c = (struct client){.w = w, .n = w->clients, .mx = w->clients % w->o.mxs, .kind = kind, .group = group, .doing = "not begun"};
    w->clients++;
}

struct workload *workload_create(struct array *a, struct oracle *o, const struct workload_options *opt) {
    struct workload *w = calloc(1, sizeof *w);
    ASSERT(w && opt->writers + opt->namers + 2 * opt->passers + opt->loggers + opt->brawlers + opt->rivals + opt->fillers <= CLIENTS_MAX && opt->mxs <= ARRAY_MX_MAX);
    w->array = a;
    w->oracle = o;
    w->o = *opt;
    for (uint32_t i = 0; i < opt->writers; i++) client_add(w, CLIENT_WRITER, i / 2);
    for (uint32_t i = 0; i < opt->namers; i++) client_add(w, CLIENT_NAMER, 0);
    for (uint32_t i = 0; i < 2 * opt->passers; i++) client_add(w, CLIENT_PASSER, i / 2);
    for (uint32_t i = 0; i < opt->loggers; i++) client_add(w, CLIENT_LOGGER, 0);
    for (uint32_t i = 0; i < opt->brawlers; i++) client_add(w, CLIENT_BRAWLER, 0);
    for (uint32_t i = 0; i < opt->rivals; i++) client_add(w, CLIENT_RIVAL, 0);
    for (uint32_t i = 0; i < opt->fillers; i++) client_add(w, CLIENT_FILLER, 0);
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
    w->checking = true;
    for (uint32_t i = 0; i < w->clients; i++) env_spawn(node_env(w->mx[w->client[i].mx].node), "sim: check", check_task, &w->client[i]);
}

bool workload_checked(const struct workload *w) { return w->checked == w->clients; }
uint64_t workload_progress(const struct workload *w) { return w->progress; }

bool workload_uncut(void *arg, struct handle h) {
    const struct workload *w = arg;
    for (uint32_t i = 0; i < SHARED_MAX; i++)
        if (w->shared[i] && handle_eq(ofile_handle(w->shared[i]), h)) return true;
    return w->log && handle_eq(log_handle(w), h);
}

// ---- MXs that die
uint32_t workload_mxs(const struct workload *w) { return w->o.mxs; }

void workload_mx_dies(struct workload *w, uint32_t mx) {
    struct mx_node *m = &w->mx[mx];
    if (!w->prepared || !node_running(m->node)) return;
    node_crash(m->node);
    w->array->mx_died = true;
    for (uint32_t i = 0; i < w->clients; i++) {
        struct client *c = &w->client[i];
        if (c->mx != mx) continue;
        client_died(c);
        c->quiet_ns = world_now_ns(w->array->world) + (w->o.late ? LATE_QUIET_NS : QUIET_NS);
    }
}

void workload_mx_comes_back(struct workload *w, uint32_t mx) {
    struct mx_node *m = &w->mx[mx];
    if (!node_running(m->node)) node_start(m->node, mx_main, m);
}

static void dump_line(void *ctx, const char *text) { fprintf(stderr, "  %s\n", text); }

void workload_dump(const struct workload *w) {
    for (uint32_t i = 0; i < w->o.mxs; i++) {
        if (!node_running(w->mx[i].node)) continue;
        fprintf(stderr, "mx %u waits for:\n", i);
        env_dump(node_env(w->mx[i].node), dump_line, NULL);
    }
    for (uint32_t i = 0; i < w->clients; i++)
        fprintf(stderr, "client %u (mx %u): op %u, %s\n", i, w->client[i].mx, w->client[i].ops, w->client[i].doing);
}

void workload_destroy(struct workload *w) {
    for (uint32_t i = 0; i < w->clients; i++) {
        free(w->client[i].names);
        free(w->client[i].fill);
        if (w->client[i].writes) free((void *)(uintptr_t)w->client[i].write.data);
        free(w->client[i].fsync);
    }
    free(w->log);
    rivals_destroy(w);
    free(w);
}
