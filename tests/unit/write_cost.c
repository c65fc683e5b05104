// What an overwrite of 4 KiB at toughness 2 costs, in a whole array: two blocks, two writes to journals, and no two
// flushes one after the other, wherever the journals lie. Where a device is power-protected it is not flushed at all.
#include "sim/array.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h> // wants what is above before it

#define IOMS 4
#define FLUSH_NS MSEC(20)
#define OVERWRITES 5

struct client {
    struct array *a;
    struct node *node;
    bool over;
    uint64_t took_ns[OVERWRITES];
    struct cost {
        uint64_t stores_flushed, journals_flushed, flushes, bytes;
    } cost[OVERWRITES];
};

static void count_one(struct world_disk *d, uint64_t *flushed, struct cost *c) {
    struct world_disk_counts n = world_disk_counts(d);
    *flushed += n.flushes > 0;
    c->flushes += n.flushes;
    c->bytes += n.write_bytes;
    world_disk_counts_reset(d);
}
static struct cost cost_since_last(struct client *c) {
    struct cost sum = {0};
    for (uint8_t n = 0; n < IOMS; n++) {
        const struct sim_iom *i = &c->a->iom[n];
        count_one(world_disk_find(c->a->world, i->disk), &sum.stores_flushed, &sum);
        if (i->journal[0]) count_one(world_disk_find(c->a->world, i->journal), &sum.journals_flushed, &sum);
    }
    return sum;
}

// Until what the last one left behind is done, too.
static void co_rest(struct client *c) {
    co_sleep_until(node_env(c->node), env_now_ns(node_env(c->node)) + SEC(4), "cost: rest");
    cost_since_last(c);
}
static void co_one(struct client *c, struct mx *m, struct mx_file *f, uint32_t n) {
    struct mx_op op = {0};
    struct buf *b = buf_new(node_env(c->node)->mem, BLOCK_BYTES);
    memset(b->data, (int)n + 1, BLOCK_BYTES);
    co_rest(c);
    uint64_t begin_ns = env_now_ns(node_env(c->node));
    assert_int_equal(co_mx_write(m, &op, f, n * 7 * BLOCK_BYTES, (struct slice){b, 0, BLOCK_BYTES}), OK);
    c->took_ns[n] = env_now_ns(node_env(c->node)) - begin_ns;
    c->cost[n] = cost_since_last(c);
    buf_unref(b);
}
static void client_main(void *arg) {
    struct client *c = arg;
    struct mx_config config = array_mx_config(c->a);
    struct mx *m = mx_create(node_env(c->node), &config);
    struct mx_op start = {0}, op = {0};
    struct mx_file *made, *f;
    struct attr attr;
    struct buf *b = buf_new(node_env(c->node)->mem, KIB(256));
    memset(b->data, 0xaa, KIB(256));
    assert_int_equal(co_mx_start(m, &start), OK);
    assert_int_equal(co_mx_create(m, &op, handle_root(), "f", S_IFREG | 0644, MX_O_CREATE, &made, &attr), OK);
    assert_int_equal(co_mx_write(m, &op, made, 0, (struct slice){b, 0, KIB(256)}), OK);
    assert_int_equal(co_mx_fsync(m, &op, made, false), OK);
    assert_int_equal(co_mx_open(m, &op, attr.handle, MX_O_SYNC, &f, &attr), OK);
    world_options(c->a->world)->flush_min_ns = world_options(c->a->world)->flush_max_ns = FLUSH_NS;
    for (uint32_t n = 0; n < OVERWRITES; n++) co_one(c, m, f, n);
    buf_unref(b);
    c->over = true;
}

static bool not_serving(void *ctx) {
    return !array_serving(ctx);
}
static bool not_over(void *ctx) {
    return !((struct client *)ctx)->over;
}

static void measure(bool apart, enum array_protects protects, struct client *c) {
    struct world *w = world_create(1, NULL);
    struct array_options o = {.ioms = IOMS, .store_bytes = MIB(64), .journal_apart = apart, .protects = protects};
    *c = (struct client){.a = array_create(w, &o), .node = node_add(w, "mx")};
    array_start(c->a);
    assert_true(world_run_while(w, not_serving, c->a, SEC(100)));
    node_start(c->node, client_main, c);
    assert_true(world_run_while(w, not_over, c, SEC(1000)));
    world_destroy(w);
    array_destroy(c->a);
}
static void costs(bool apart, enum array_protects protects, uint64_t stores, uint64_t journals) {
    struct client c;
    measure(apart, protects, &c);
    for (uint32_t n = 0; n < OVERWRITES; n++) {
        const struct cost *one = &c.cost[n];
        assert_int_equal(one->stores_flushed, stores);
        assert_int_equal(one->journals_flushed, journals);
        assert_int_equal(one->flushes, stores + journals); // each once
        assert_int_equal(one->bytes, 4 * BLOCK_BYTES);     // data, parity, and a unit of each one's journal
        assert_true(c.took_ns[n] < FLUSH_NS * 3 / 2);      // none after another
        if (stores + journals == 0) assert_true(c.took_ns[n] < FLUSH_NS / 2);
    }
}
static void test_journals_inside(void **state) {
    costs(false, ARRAY_PROTECTS_NONE, 2, 0);
    costs(false, ARRAY_PROTECTS_ALL, 0, 0);
}
static void test_journals_apart(void **state) {
    costs(true, ARRAY_PROTECTS_NONE, 2, 2);
    costs(true, ARRAY_PROTECTS_JOURNAL, 2, 0);
    costs(true, ARRAY_PROTECTS_STORE, 0, 2);
    costs(true, ARRAY_PROTECTS_ALL, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_journals_inside), cmocka_unit_test(test_journals_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
