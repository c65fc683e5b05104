// What stories of a whole array share: an array of four IOMs and two clients in the simulated world, what clients do, what the array does. One story at a time.
#pragma once
#include "sim/array.h"
#include "sim/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define FILE_BYTES MIB(1)
#define IOMS 4

struct client {
    struct story *story;
    struct node *node;
    struct mx *mx;
    struct mx_file *file;
    err (*co_task)(struct client *c); // one at a time
    bool busy;
    err why; // how the last one ended
    // what its task is to do, and what it saw
    uint64_t off, size, after_ns;
    uint32_t len, got;
    uint8_t byte;
    const char *protection;
    uint64_t size_seen, free_seen;
};
struct story {
    struct world *w;
    struct array *a;
    struct client c[2]; // c[0] makes the file and has it open, as has c[1]
    struct attr file;   // as it was made
    uint8_t read[FILE_BYTES];
};

// ---- time
static inline bool busy(void *ctx) { return ((struct client *)ctx)->busy; }
static inline bool not_serving(void *ctx) { return !array_serving(((struct story *)ctx)->a); }
static inline bool not_over(void *ctx) { return !array_over(((struct story *)ctx)->a); }
static inline void until(struct story *s, bool (*pred)(void *ctx), void *ctx) { assert_true(world_run_while(s->w, pred, ctx, world_now_ns(s->w) + SEC(100))); }
static inline void idle(struct story *s, uint64_t ns) { world_run_until(s->w, world_now_ns(s->w) + ns); }

// ---- what clients do: tasks of their nodes. The story looks at their errors outside.
static inline err co_client_start(struct client *c) {
    struct mx_config config = array_mx_config(c->story->a);
    struct mx_op start = {0}, op = {0};
    struct attr a, *file = &c->story->file;
    c->mx = mx_create(node_env(c->node), &config);
    err e = co_mx_start(c->mx, &start);
    if (e != OK) return e;
    return c == c->story->c ? co_mx_create(c->mx, &op, handle_root(), "f", S_IFREG | 0644, MX_O_CREATE, &c->file, file)
                            : co_mx_open(c->mx, &op, file->handle, 0, &c->file, &a);
}

static inline err co_write(struct client *c) {
    struct mx_op op = {0};
    struct buf *b = buf_new(node_env(c->node)->mem, c->len);
    memset(b->data, c->byte, c->len);
    err e = co_mx_write(c->mx, &op, c->file, c->off, (struct slice){b, 0, c->len});
    buf_unref(b);
    return e;
}

// The story's file is another from then on, with this protection.
static inline err co_make_another(struct client *c) {
    struct mx_op set = {0}, op = {0};
    err e = co_mx_setxattr(c->mx, &set, handle_root(), "user.mendfs.protection", c->protection, (uint32_t)strlen(c->protection), 0);
    return e == OK ? co_mx_create(c->mx, &op, handle_root(), "g", S_IFREG | 0644, MX_O_CREATE, &c->file, &c->story->file) : e;
}

static inline err co_fsync(struct client *c) {
    struct mx_op op = {0};
    return co_mx_fsync(c->mx, &op, c->file, false);
}

static inline err co_read(struct client *c) {
    struct mx_op op = {0};
    return co_mx_read(c->mx, &op, c->file, c->off, c->len, c->story->read, &c->got);
}

static inline err co_truncate(struct client *c) {
    struct env *e = node_env(c->node);
    struct mx_op op = {0};
    struct attr a;
    struct mx_setattr set = {.valid = SETATTR_SIZE, .size = c->size};
    if (c->after_ns != 0) co_sleep_until(e, env_now_ns(e) + c->after_ns, "story: a while");
    return co_mx_setattr(c->mx, &op, c->story->file.handle, &set, &a);
}

static inline err co_stat(struct client *c) {
    struct mx_op op = {0};
    struct attr a = {0};
    err e = co_mx_getattr(c->mx, &op, c->story->file.handle, &a);
    c->size_seen = a.size;
    return e;
}

static inline err co_statfs(struct client *c) {
    struct mx_op op = {0};
    struct mx_statfs s;
    err e = co_mx_statfs(c->mx, &op, &s);
    c->free_seen = s.avail_blocks;
    return e;
}

static inline err co_close(struct client *c) {
    co_mx_release(c->mx, c->file);
    return OK;
}

static inline err co_unlink(struct client *c) {
    struct mx_op unlink = {0}, sync = {0};
    err e = co_mx_unlink(c->mx, &unlink, handle_root(), "f");
    return e == OK ? co_mx_fsyncdir(c->mx, &sync, handle_root()) : e;
}

static inline void client_main(void *arg) {
    struct client *c = arg;
    c->why = c->co_task(c);
    c->busy = false;
}

// ---- the same, from outside: begun, or begun and waited for
static inline void begins(struct client *c, err (*co_fn)(struct client *c)) {
    assert_false(c->busy);
    c->co_task = co_fn;
    c->busy = true;
    env_spawn(node_env(c->node), "story", client_main, c);
}

static inline void ends(struct client *c) {
    until(c->story, busy, c);
    assert_int_equal(c->why, OK);
}

static inline void does(struct client *c, err (*co_fn)(struct client *c)) {
    begins(c, co_fn);
    ends(c);
}

static inline void write_begins(struct client *c, uint64_t off, uint32_t len, uint8_t byte) {
    c->off = off;
    c->len = len;
    c->byte = byte;
    begins(c, co_write);
}

static inline void writes(struct client *c, uint64_t off, uint32_t len, uint8_t byte) { write_begins(c, off, len, byte), ends(c); }

static inline void truncate_begins(struct client *c, uint64_t size, uint64_t after_ns) {
    c->size = size;
    c->after_ns = after_ns;
    begins(c, co_truncate);
}

static inline void truncates(struct client *c, uint64_t size) { truncate_begins(c, size, 0), ends(c); }

static inline void reads(struct client *c, uint64_t off, uint32_t len, uint32_t from, uint8_t byte) {
    c->off = off;
    c->len = len;
    does(c, co_read);
    assert_int_equal(c->got, len);
    for (uint32_t i = from; i < len; i++) assert_int_equal(c->story->read[i], byte);
}

static inline void makes_another(struct client *c, const char *protection) { c->protection = protection, does(c, co_make_another); }
static inline uint64_t size_of_file(struct client *c) { return does(c, co_stat), c->size_seen; }
static inline uint64_t free_blocks(struct client *c) { return does(c, co_statfs), c->free_seen; }

// ---- what the array does
static inline void stopped_and_started(struct story *s) {
    array_ask_stop(s->a);
    until(s, not_over, s);
    array_off(s->a);
    array_start(s->a);
    until(s, not_serving, s);
}

// Those that run have to say again that they serve: the array recovers.
static inline void recovers(struct story *s) {
    for (uint8_t i = 0; i < s->a->ioms; i++) s->a->iom[i].serving = false;
    array_start(s->a);
    until(s, not_serving, s);
}

static inline void one_dies_and_is_back(struct story *s, uint8_t n) {
    node_crash(s->a->iom[n].node);
    for (uint8_t i = 0; i < s->a->ioms; i++) s->a->iom[i].serving = false;
    idle(s, MSEC(20));
    recovers(s);
}

static inline uint64_t faults_of_check(struct story *s) { // as `mendfs check` counts them, and what it finds on the way there
    struct oracle *o = oracle_create();
    audit_rows(s->a, o);
    uint64_t n = oracle_faults(o);
    if (n && getenv("STORY_TRACE")) fprintf(stderr, "check: %s\n", oracle_first_fault(o));
    oracle_destroy(o);
    return n;
}

// ---- begin and end
static inline void client_begins(struct story *s, uint8_t n, const char *name) {
    struct client *c = &s->c[n];
    *c = (struct client){.story = s, .node = node_add(s->w, name), .co_task = co_client_start, .busy = true};
    node_start(c->node, client_main, c);
    ends(c);
}

static inline void story_told(void *ctx, const char *line) {
    (void)ctx;
    fprintf(stderr, "%s\n", line);
}

static inline void story_begin_as(struct story *s, uint64_t seed, bool stand_ins) {
    struct world_options x = world_options_default();
    if (getenv("STORY_TRACE")) x.trace = story_told, x.trace_level = TRACE_DEBUG;
    struct array_options o = {.ioms = IOMS, .store_bytes = MIB(64), .store = {.journal_bytes = MIB(2)}, .stand_ins = stand_ins};
    o.rows = (struct rows_config){.flush_age_ns = MSEC(300), .credit_bytes = KIB(128), .cache_bytes = MIB(8)};
    s->w = world_create(seed, &x);
    s->a = array_create(s->w, &o);
    array_start(s->a);
    until(s, not_serving, s);
    client_begins(s, 0, "mx0");
    client_begins(s, 1, "mx1");
}

static inline void story_begin(struct story *s, uint64_t seed) { story_begin_as(s, seed, false); }

static inline void file_is_written(struct story *s) {
    writes(&s->c[0], 0, FILE_BYTES, 1);
    does(&s->c[0], co_fsync);
}

static inline void story_end(struct story *s) {
    world_destroy(s->w);
    array_destroy(s->a);
    memset(s, 0, sizeof *s); // what leaked is not to be hidden by what points at it here
}
