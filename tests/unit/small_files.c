// What small files cost and what others see of them, told one story at a time: a whole array and two gateways in the simulated world.
#include "sim/array.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define IOMS 4
#define FILES 20

struct gateway {
    struct node *node;
    struct mx *mx;
};
struct story {
    struct world *w;
    struct array *a;
    struct gateway g[2];
    void (*co_tell)(struct story *s);
    bool busy;
    struct handle made[FILES];
};

static bool busy(void *ctx) { return ((struct story *)ctx)->busy; }
static bool not_serving(void *ctx) { return !array_serving(((struct story *)ctx)->a); }
static void until(struct story *s, bool (*pred)(void *ctx)) { assert_true(world_run_while(s->w, pred, s, world_now_ns(s->w) + SEC(100))); }

// ---- what gateways do, in the story's task. It runs on the first one's node; both share the world's clock.
static void co_must(err e) { ASSERT(e == OK); }
static uint64_t calls(struct gateway *g) {
    struct mx_stats st;
    mx_stats(g->mx, &st);
    return st.calls;
}
static void co_idle(struct story *s, uint64_t ns) { co_sleep_until(node_env(s->g[0].node), env_now_ns(node_env(s->g[0].node)) + ns, "story: idle"); }

static struct mx_file *co_make(struct gateway *g, const char *name, struct attr *a) {
    struct mx_op op = {0};
    struct mx_file *f;
    co_must(co_mx_create(g->mx, &op, handle_root(), name, S_IFREG | 0644, MX_O_CREATE, &f, a));
    return f;
}

static void co_put(struct gateway *g, struct mx_file *f, uint64_t off, const char *text) {
    struct mx_op op = {0};
    struct buf *b = buf_new(node_env(g->node)->mem, (uint32_t)strlen(text));
    memcpy(b->data, text, strlen(text));
    co_must(co_mx_write(g->mx, &op, f, off, (struct slice){b, 0, (uint32_t)strlen(text)}));
    buf_unref(b);
}

static void co_close(struct gateway *g, struct mx_file *f) {
    struct mx_op op = {0};
    co_must(co_mx_flush(g->mx, &op, f));
    co_mx_release(g->mx, f);
}

static struct attr co_look(struct gateway *g, struct handle h) {
    struct mx_op op = {0};
    struct attr a;
    co_must(co_mx_getattr(g->mx, &op, h, &a));
    return a;
}

static void co_expect(struct gateway *g, struct mx_file *f, const char *text) {
    struct mx_op op = {0};
    uint8_t got[64];
    uint32_t len;
    co_must(co_mx_read(g->mx, &op, f, 0, sizeof got, got, &len));
    ASSERT(len == strlen(text) && !memcmp(got, text, len));
}

// ---- the stories

// Creating, writing and closing takes two messages and a share of a third. Everything is at the starter then: nothing of it changes afterwards.
static void co_write_brings_the_size(struct story *s) {
    struct attr made, seen, later;
    struct mx_file *f = co_make(&s->g[0], "f", &made);
    uint64_t before = calls(&s->g[0]);
    co_put(&s->g[0], f, 0, "small");
    co_close(&s->g[0], f);
    ASSERT(calls(&s->g[0]) == before + 1);
    seen = co_look(&s->g[1], made.handle);
    ASSERT(seen.size == 5 && seen.change == made.change + 1 && seen.mtime_ns > made.mtime_ns);
    co_idle(s, SEC(3)); // hardened, touches told
    later = co_look(&s->g[1], made.handle);
    ASSERT(later.change == seen.change && later.mtime_ns == seen.mtime_ns && later.ctime_ns == seen.ctime_ns);
}

// What overwrites does not make the file longer: the starter hears of it at the close, and the change counter moves.
static void co_overwrite_is_told_at_close(struct story *s) {
    struct attr made, before, after;
    struct mx_file *f = co_make(&s->g[0], "f", &made);
    co_put(&s->g[0], f, 0, "small");
    before = co_look(&s->g[1], made.handle);
    co_put(&s->g[0], f, 1, "M");
    ASSERT(co_look(&s->g[0], made.handle).mtime_ns > before.mtime_ns); // one's own write shows at once
    co_close(&s->g[0], f);
    after = co_look(&s->g[1], made.handle);
    ASSERT(after.size == 5 && after.change > before.change && after.mtime_ns > before.mtime_ns);
}

// Times set after a write are not overwritten by what the write still has to say.
static void co_times_set_stay(struct story *s) {
    struct attr a;
    struct mx_op op = {0};
    struct mx_setattr set = {.valid = SETATTR_MTIME, .mtime_ns = SEC(7)};
    struct mx_file *f = co_make(&s->g[0], "f", &a);
    struct handle h = a.handle;
    co_put(&s->g[0], f, 0, "small");
    co_must(co_mx_setattr(s->g[0].mx, &op, h, &set, &a));
    co_close(&s->g[0], f);
    co_idle(s, SEC(3));
    ASSERT(co_look(&s->g[1], h).mtime_ns == SEC(7));
}

static void co_name_tells_its_directory(struct story *s) {
    struct attr made, again, dir;
    struct mx_op op = {0};
    co_close(&s->g[0], co_make(&s->g[0], "f", &made));
    dir = co_look(&s->g[1], handle_root());
    ASSERT(made.dir_change == dir.change && made.dir_time_ns == dir.mtime_ns && made.dir_time_ns == dir.ctime_ns && made.dir_nlink == dir.nlink);
    co_must(co_mx_mkdir(s->g[0].mx, &op, handle_root(), "d", 0755, &again)); // perhaps another IOM's
    dir = co_look(&s->g[1], handle_root());
    ASSERT(again.dir_change == made.dir_change + 1 && again.dir_change == dir.change && again.dir_nlink == dir.nlink);
}

static void co_closes_are_told_together(struct story *s) {
    struct attr a;
    struct mx_file *f[FILES];
    char name[8];
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        f[i] = co_make(&s->g[0], name, &a);
        s->made[i] = a.handle;
    }
    uint64_t before = calls(&s->g[0]);
    for (int i = 0; i < FILES; i++) co_close(&s->g[0], f[i]);
    co_idle(s, SEC(1));
    ASSERT(calls(&s->g[0]) == before + 1);
    for (int i = 0; i < FILES; i++) { // none of them is held open by anybody: gone with their names
        struct mx_op op = {0};
        snprintf(name, sizeof name, "f%d", i);
        co_must(co_mx_unlink(s->g[1].mx, &op, handle_root(), name));
        ASSERT(co_mx_getattr(s->g[1].mx, &op, s->made[i], &a) == ERR_STALE);
    }
}

// The close that was not told yet is not told at all when the file is opened again: a name removed elsewhere does not take the file away.
static void co_reopened_file_stays(struct story *s) {
    struct attr a;
    struct mx_op op = {0}, other = {0};
    struct mx_file *f = co_make(&s->g[0], "f", &a);
    struct handle h = a.handle;
    co_put(&s->g[0], f, 0, "small");
    co_close(&s->g[0], f);
    co_must(co_mx_open(s->g[0].mx, &op, h, 0, &f, &a));
    co_idle(s, SEC(1));
    co_must(co_mx_unlink(s->g[1].mx, &other, handle_root(), "f"));
    co_idle(s, SEC(3));
    co_expect(&s->g[0], f, "small");
    co_close(&s->g[0], f);
    co_idle(s, SEC(1));
    ASSERT(co_mx_getattr(s->g[1].mx, &other, h, &a) == ERR_STALE);
}

static void co_closed_and_removed_is_gone(struct story *s) {
    struct attr a;
    struct mx_op op = {0};
    struct mx_file *f = co_make(&s->g[0], "f", &a);
    co_put(&s->g[0], f, 0, "small");
    co_close(&s->g[0], f);
    co_must(co_mx_unlink(s->g[0].mx, &op, handle_root(), "f"));
    ASSERT(co_mx_getattr(s->g[1].mx, &op, a.handle, &a) == ERR_STALE); // and not kept for an open file
}

// ---- telling
static void tell_task(void *arg) {
    struct story *s = arg;
    s->co_tell(s);
    s->busy = false;
}

static void start_task(void *arg) {
    struct story *s = arg;
    for (int i = 0; i < 2; i++) {
        struct mx_config config = array_mx_config(s->a);
        struct mx_op op = {0};
        s->g[i].mx = mx_create(node_env(s->g[0].node), &config);
        co_must(co_mx_start(s->g[i].mx, &op));
    }
    tell_task(s);
}

static void told(void (*co_tell)(struct story *s)) {
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct world_options x = world_options_default();
        struct array_options o = {.ioms = IOMS, .store_bytes = MIB(64), .store = {.journal_bytes = MIB(2)}};
        struct story s = {.w = world_create(seed, &x), .co_tell = co_tell, .busy = true};
        s.a = array_create(s.w, &o);
        array_start(s.a);
        until(&s, not_serving);
        s.g[0].node = s.g[1].node = node_add(s.w, "mx");
        node_start(s.g[0].node, start_task, &s);
        until(&s, busy);
        world_destroy(s.w);
        array_destroy(s.a);
    }
}

#define STORY(name) \
    static void name(void **state) { told(co_##name); }
STORY(write_brings_the_size)
STORY(overwrite_is_told_at_close)
STORY(times_set_stay)
STORY(name_tells_its_directory)
STORY(closes_are_told_together)
STORY(reopened_file_stays)
STORY(closed_and_removed_is_gone)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_brings_the_size),    cmocka_unit_test(overwrite_is_told_at_close), cmocka_unit_test(times_set_stay),
        cmocka_unit_test(name_tells_its_directory), cmocka_unit_test(closes_are_told_together),   cmocka_unit_test(reopened_file_stays),
        cmocka_unit_test(closed_and_removed_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
