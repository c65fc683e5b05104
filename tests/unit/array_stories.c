// Truncates beside faults, told one story at a time: a whole array and two clients in the simulated world. Each of these once lost or changed bytes, or hung.
#include "sim/array.h"

#include <setjmp.h>
#include <stdarg.h>
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
static bool busy(void *ctx) { return ((struct client *)ctx)->busy; }
static bool not_serving(void *ctx) { return !array_serving(((struct story *)ctx)->a); }
static bool not_over(void *ctx) { return !array_over(((struct story *)ctx)->a); }
static void until(struct story *s, bool (*pred)(void *ctx), void *ctx) { assert_true(world_run_while(s->w, pred, ctx, world_now_ns(s->w) + SEC(100))); }
static void idle(struct story *s, uint64_t ns) { world_run_until(s->w, world_now_ns(s->w) + ns); }

// ---- what clients do: tasks of their nodes. The story looks at their errors outside.
static err co_client_start(struct client *c) {
    struct mx_config config = array_mx_config(c->story->a);
    struct mx_op start = {0}, op = {0};
    struct attr a, *file = &c->story->file;
    c->mx = mx_create(node_env(c->node), &config);
    err e = co_mx_start(c->mx, &start);
    if (e != OK) return e;
    return c == c->story->c ? co_mx_create(c->mx, &op, handle_root(), "f", S_IFREG | 0644, MX_O_CREATE, &c->file, file)
                            : co_mx_open(c->mx, &op, file->handle, 0, &c->file, &a);
}

static err co_write(struct client *c) {
    struct mx_op op = {0};
    struct buf *b = buf_new(node_env(c->node)->mem, c->len);
    memset(b->data, c->byte, c->len);
    err e = co_mx_write(c->mx, &op, c->file, c->off, (struct slice){b, 0, c->len});
    buf_unref(b);
    return e;
}

static err co_fsync(struct client *c) {
    struct mx_op op = {0};
    return co_mx_fsync(c->mx, &op, c->file, false);
}

static err co_read(struct client *c) {
    struct mx_op op = {0};
    return co_mx_read(c->mx, &op, c->file, c->off, c->len, c->story->read, &c->got);
}

static err co_truncate(struct client *c) {
    struct env *e = node_env(c->node);
    struct mx_op op = {0};
    struct attr a;
    struct mx_setattr set = {.valid = SETATTR_SIZE, .size = c->size};
    if (c->after_ns != 0) co_sleep_until(e, env_now_ns(e) + c->after_ns, "story: a while");
    return co_mx_setattr(c->mx, &op, c->story->file.handle, &set, &a);
}

static err co_stat(struct client *c) {
    struct mx_op op = {0};
    struct attr a = {0};
    err e = co_mx_getattr(c->mx, &op, c->story->file.handle, &a);
    c->size_seen = a.size;
    return e;
}

static err co_statfs(struct client *c) {
    struct mx_op op = {0};
    struct mx_statfs s;
    err e = co_mx_statfs(c->mx, &op, &s);
    c->free_seen = s.avail_blocks;
    return e;
}

static err co_close(struct client *c) {
    co_mx_release(c->mx, c->file);
    return OK;
}

static err co_unlink(struct client *c) {
    struct mx_op unlink = {0}, sync = {0};
    err e = co_mx_unlink(c->mx, &unlink, handle_root(), "f");
    return e == OK ? co_mx_fsyncdir(c->mx, &sync, handle_root()) : e;
}

static void client_main(void *arg) {
    struct client *c = arg;
    c->why = c->co_task(c);
    c->busy = false;
}

// ---- the same, from outside: begun, or begun and waited for
static void begins(struct client *c, err (*co_fn)(struct client *c)) {
    assert_false(c->busy);
    c->co_task = co_fn;
    c->busy = true;
    env_spawn(node_env(c->node), "story", client_main, c);
}

static void ends(struct client *c) {
    until(c->story, busy, c);
    assert_int_equal(c->why, OK);
}

static void does(struct client *c, err (*co_fn)(struct client *c)) {
    begins(c, co_fn);
    ends(c);
}

static void write_begins(struct client *c, uint64_t off, uint32_t len, uint8_t byte) {
    c->off = off;
    c->len = len;
    c->byte = byte;
    begins(c, co_write);
}

static void writes(struct client *c, uint64_t off, uint32_t len, uint8_t byte) { write_begins(c, off, len, byte), ends(c); }

static void truncate_begins(struct client *c, uint64_t size, uint64_t after_ns) {
    c->size = size;
    c->after_ns = after_ns;
    begins(c, co_truncate);
}

static void truncates(struct client *c, uint64_t size) { truncate_begins(c, size, 0), ends(c); }

static void reads(struct client *c, uint64_t off, uint32_t len, uint32_t from, uint8_t byte) {
    c->off = off;
    c->len = len;
    does(c, co_read);
    assert_int_equal(c->got, len);
    for (uint32_t i = from; i < len; i++) assert_int_equal(c->story->read[i], byte);
}

static uint64_t size_of_file(struct client *c) { return does(c, co_stat), c->size_seen; }
static uint64_t free_blocks(struct client *c) { return does(c, co_statfs), c->free_seen; }

// ---- what the array does
static void stopped_and_started(struct story *s) {
    array_ask_stop(s->a);
    until(s, not_over, s);
    array_off(s->a);
    array_start(s->a);
    until(s, not_serving, s);
}

// Those that run have to say again that they serve: the array recovers.
static void recovers(struct story *s) {
    for (uint8_t i = 0; i < s->a->ioms; i++) s->a->iom[i].serving = false;
    array_start(s->a);
    until(s, not_serving, s);
}

static void one_dies_and_is_back(struct story *s, uint8_t n) {
    node_crash(s->a->iom[n].node);
    for (uint8_t i = 0; i < s->a->ioms; i++) s->a->iom[i].serving = false;
    idle(s, MSEC(20));
    recovers(s);
}

// ---- begin and end
static void client_begins(struct story *s, uint8_t n, const char *name) {
    struct client *c = &s->c[n];
    *c = (struct client){.story = s, .node = node_add(s->w, name), .co_task = co_client_start, .busy = true};
    node_start(c->node, client_main, c);
    ends(c);
}

static void story_begin(struct story *s, uint64_t seed) {
    struct world_options x = world_options_default();
    struct array_options o = {.ioms = IOMS, .store_bytes = MIB(64), .store = {.journal_bytes = MIB(2)}};
    o.rows = (struct rows_config){.flush_age_ns = MSEC(300), .credit_bytes = KIB(128), .cache_bytes = MIB(8)};
    s->w = world_create(seed, &x);
    s->a = array_create(s->w, &o);
    array_start(s->a);
    until(s, not_serving, s);
    client_begins(s, 0, "mx0");
    client_begins(s, 1, "mx1");
}

static void file_is_written(struct story *s) {
    writes(&s->c[0], 0, FILE_BYTES, 1);
    does(&s->c[0], co_fsync);
}

static void story_end(struct story *s) {
    world_destroy(s->w);
    array_destroy(s->a);
    memset(s, 0, sizeof *s); // what leaked is not to be hidden by what points at it here
}

// ---- the stories

// A write goes out in several pieces; a truncate discards while some are with the IOMs and some are not. A piece that waited for
// its row over the discard was once taken afterwards: the file grew again with nobody writing.
static void a_write_straddles_a_discard(uint64_t seed) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, seed);
    file_is_written(&s);
    stopped_and_started(&s);
    (void)size_of_file(&c[1]);
    uint64_t cut = world_random_below(s.w, 900000), after_ns = world_random_below(s.w, MSEC(6));
    write_begins(&c[0], 13, FILE_BYTES - 100, 2);
    truncate_begins(&c[1], cut, after_ns);
    ends(&c[0]);
    ends(&c[1]);
    uint64_t size = size_of_file(&c[1]);
    assert_true(size == cut || size == 13 + FILE_BYTES - 100); // either was the last
    idle(&s, SEC(3));
    assert_int_equal(size_of_file(&c[1]), size);
    truncates(&c[1], FILE_BYTES); // what is beyond it reads as zeros
    idle(&s, SEC(1));
    does(&c[0], co_fsync);
    reads(&c[0], 0, FILE_BYTES, (uint32_t)size, 0);
    story_end(&s);
}
static void straddle_4(void **state) { a_write_straddles_a_discard(4); }
static void straddle_75(void **state) { a_write_straddles_a_discard(75); }

// The file has been truncated once and written again. A bystander dies (a stop: what is held is written down), later once more, with a write between them that
// brings rows back without their object loaded: the count of truncates in CNODE2 once went back to 0. Then a write that is acknowledged by data and parity
// is in the memory of both; the IOM of its data dies, and parity alone must give it back.
static void an_acknowledged_write_after_two_stops(uint64_t seed) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin(&s, seed);
    file_is_written(&s);
    truncates(c, 0);
    file_is_written(&s);
    idle(&s, SEC(2));
    const struct place first = geo_locate(&s.file.map, 0);
    uint8_t bystander = 0, victim = first.parity.n;
    while (bystander == victim || bystander == first.data.n) bystander++;
    one_dies_and_is_back(&s, bystander);
    idle(&s, SEC(1));
    writes(c, 0, 4096, 5);
    one_dies_and_is_back(&s, bystander);
    idle(&s, SEC(1));
    uint64_t off = 0;
    while (geo_locate(&s.file.map, off).data.n != victim) off += 4096;
    writes(c, off, 4096, 6);
    idle(&s, MSEC(20));
    one_dies_and_is_back(&s, victim);
    reads(c, off, 4096, 0, 6);
    story_end(&s);
}

static void two_stops_1(void **state) { an_acknowledged_write_after_two_stops(1); }
static void two_stops_2(void **state) { an_acknowledged_write_after_two_stops(2); }

// A truncate cannot end, one of its members does not answer; meanwhile the file loses its name, and nobody has it open. Then the array crashes. Recovery has the
// orphan and the open truncate: once, clearing the orphan waited for the truncate, which waited for recovery.
static void begin_unlink_beside_truncate(struct story *s, void (*stop_member)(struct node *n), uint64_t *free_before) {
    struct client *c = s->c;
    story_begin(s, 1);
    *free_before = free_blocks(&c[0]);
    file_is_written(s);
    idle(s, SEC(1));
    assert_true(free_blocks(&c[0]) < *free_before);
    does(&c[0], co_close);
    does(&c[1], co_close);
    idle(s, SEC(1));
    stop_member(s->a->iom[2].node);
    truncate_begins(&c[1], 5 * 4096, 0);
    idle(s, MSEC(100));
    assert_true(c[1].busy);
    does(&c[0], co_unlink);
}

static void end_unlink_beside_truncate(struct story *s, uint64_t free_before) {
    recovers(s);
    until(s, busy, &s->c[1]); // the truncate has its answer, whichever
    idle(s, SEC(5));
    assert_int_equal(free_blocks(&s->c[0]), free_before); // the object is cleared away
    story_end(s);
}

static void unlink_beside_truncate_power_cut(void **state) {
    static struct story s;
    uint64_t free_before;
    begin_unlink_beside_truncate(&s, node_pause, &free_before);
    array_power_cut(s.a);
    idle(&s, MSEC(100));
    end_unlink_beside_truncate(&s, free_before);
}

static void unlink_beside_truncate_one_dies(void **state) {
    static struct story s;
    uint64_t free_before;
    begin_unlink_beside_truncate(&s, node_crash, &free_before);
    end_unlink_beside_truncate(&s, free_before);
}

// A member is dead when the truncate comes, and its client sleeps through the recovery, which does the truncate to its end. Another client writes and fsyncs.
// Then the first wakes and asks again: it was once done a second time, and took what the other had been promised.
static void a_truncate_is_done_once(void **state) {
    static struct story s;
    struct client *c = s.c;
    story_begin(&s, 1);
    file_is_written(&s);
    idle(&s, SEC(1));
    node_crash(s.a->iom[2].node);
    truncate_begins(&c[1], 0, 0);
    idle(&s, MSEC(50));
    assert_true(c[1].busy);
    node_pause(c[1].node);
    recovers(&s);
    assert_int_equal(size_of_file(&c[0]), 0);
    writes(&c[0], 0, 4096, 7);
    does(&c[0], co_fsync);
    assert_int_equal(size_of_file(&c[0]), 4096);
    node_resume(c[1].node);
    ends(&c[1]);
    assert_int_equal(size_of_file(&c[0]), 4096);
    reads(&c[0], 0, 4096, 0, 7);
    story_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(straddle_4),  cmocka_unit_test(straddle_75), cmocka_unit_test(two_stops_1),
        cmocka_unit_test(two_stops_2), cmocka_unit_test(unlink_beside_truncate_power_cut),
        cmocka_unit_test(unlink_beside_truncate_one_dies), cmocka_unit_test(a_truncate_is_done_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
