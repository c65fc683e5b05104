// The audit of the simulator sees what it is there for: a small run passes it; the same run with one thing damaged afterwards does not, and the fault says what.
#include "sim/audit.h"
#include "sim/workload.h"

#include "iom/row_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct story {
    struct world *w;
    struct array *a;
    struct oracle *o;
    struct workload *work;
    // damage done to the store of one IOM, as its own node
    uint8_t iom;
    void (*co_damage)(struct story *s, struct store *st);
    bool over;
};

static bool not_serving(void *ctx) { return !array_serving(((struct story *)ctx)->a); }
static bool not_over(void *ctx) { return !array_over(((struct story *)ctx)->a); }
static bool working(void *ctx) { return !workload_done(((struct story *)ctx)->work); }
static bool damaging(void *ctx) { return !((struct story *)ctx)->over; }

static void until(struct story *s, bool (*pred)(void *ctx)) { assert_true(world_run_while(s->w, pred, s, world_now_ns(s->w) + SEC(100))); }

// Four IOMs, two writers and a namer, until they are done. What clients do is random; the damage finds its place by itself.
static void story_begin(struct story *s) {
    struct world_options x = world_options_default();
    struct array_options a = {.ioms = 4, .store_bytes = MIB(32), .store = {.journal_bytes = MIB(1), .cache_bytes = MIB(2)}};
    struct workload_options w = {.mxs = 1, .writers = 2, .namers = 1, .ops = 60, .blocks = 40};
    *s = (struct story){.w = world_create(7, &x), .o = oracle_create()};
    s->a = array_create(s->w, &a);
    s->work = workload_create(s->a, s->o, &w);
    array_start(s->a);
    workload_start(s->work);
    until(s, not_serving);
    until(s, working);
}

static void story_stop(struct story *s) {
    array_ask_stop(s->a);
    until(s, not_over);
    array_off(s->a);
}

static void story_end(struct story *s) {
    workload_destroy(s->work);
    world_destroy(s->w);
    array_destroy(s->a);
    oracle_destroy(s->o);
}

// ---- damage
static void damage_main(void *arg) {
    struct story *s = arg;
    struct disk *d;
    struct store *st;
    struct sim_iom *i = &s->a->iom[s->iom];
    assert_int_equal(disk_open(node_env(i->node), &(struct disk_open_args){.path = i->disk}, &d), OK);
    assert_int_equal(co_store_open(d, &i->config.store, NULL, &st), OK);
    s->co_damage(s, st);
    assert_int_equal(co_store_close(st), OK);
    co_disk_close(d);
    s->over = true;
}

static void damage(struct story *s, uint8_t iom, void (*co_fn)(struct story *s, struct store *st)) {
    s->iom = iom;
    s->co_damage = co_fn;
    s->over = false;
    node_start(s->a->iom[iom].node, damage_main, s);
    until(s, damaging);
    node_crash(s->a->iom[iom].node);
}

static void co_commit(struct batch *b) {
    lsn at;
    assert_int_equal(co_batch_commit(b, &at), OK);
}

static struct key co_first(struct store *st, enum tree_id t, uint8_t kind, uint8_t *val, uint32_t *len) {
    static const uint8_t zero[16];
    struct key k = key_make(kind, zero, 0);
    assert_int_equal(co_tree_seek(st, t, &k, val, RECORD_BYTES_MAX, len), OK);
    assert_int_equal(key_kind(&k), kind);
    return k;
}

// A CHUNK of data with a block: at least one row that is not a hole.
static struct key co_chunk_find(struct store *st, uint8_t *val, uint32_t *len, uint64_t *at) {
    for (struct key k = co_first(st, TREE_LOCAL, KIND_CHUNK, val, len);; k = key_next(k)) {
        assert_int_equal(co_tree_seek(st, TREE_LOCAL, &k, val, RECORD_BYTES_MAX, len), OK);
        assert_int_equal(key_kind(&k), KIND_CHUNK);
        struct row_chunk_data row;
        memcpy(&row, val + sizeof(struct row_chunk), sizeof row);
        *at = le48_get(row.place.at);
        if (val[0] == ROW_DATA && *at) return k;
    }
}

static void co_flip(struct story *s, struct store *st) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    uint64_t at;
    (void)co_chunk_find(st, val, &len, &at);
    world_disk_flip(world_disk_find(s->w, s->a->iom[s->iom].disk), at * BLOCK_BYTES + 77, 3);
}

static void co_forget_chunk(struct story *s, struct store *st) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    uint64_t at;
    struct key k = co_chunk_find(st, val, &len, &at);
    struct batch *b = batch_new(st);
    batch_del(b, TREE_LOCAL, &k);
    co_commit(b);
}

static void co_leak(struct story *s, struct store *st) {
    block_addr at;
    uint32_t got;
    assert_int_equal(co_store_alloc(st, 1, false, &at, &got), OK);
    struct batch *b = batch_new(st);
    batch_alloc(b, at, 1);
    co_commit(b);
}

static void co_leave_update(struct story *s, struct store *st) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct row_update u = {.role = ROW_DATA};
    struct key c = co_first(st, TREE_LOCAL, KIND_CHUNK, val, &len), k = key_make(KIND_UPDATE, key_id(&c), key_number(&c));
    struct batch *b = batch_new(st);
    batch_put(b, TREE_LOCAL, &k, &u, sizeof u);
    co_commit(b);
}

static void co_forget_name(struct story *s, struct store *st) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = co_first(st, TREE_META, KIND_DIRENT, val, &len);
    struct batch *b = batch_new(st);
    batch_del(b, TREE_META, &k);
    co_commit(b);
}

static void co_forget_cnode2(struct story *s, struct store *st) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = co_first(st, TREE_LOCAL, KIND_CNODE2, val, &len);
    struct batch *b = batch_new(st);
    batch_del(b, TREE_LOCAL, &k);
    co_commit(b);
}

// ---- the tests
static void expect_fault(struct story *s, const char *words) {
    if (!strstr(oracle_first_fault(s->o), words)) print_error("the first fault is \"%s\"\n", oracle_first_fault(s->o));
    assert_non_null(strstr(oracle_first_fault(s->o), words));
}

static void a_sound_array_passes(void **state) {
    struct story s;
    story_begin(&s);
    assert_true(audit_rows(s.a, s.o));
    story_stop(&s);
    assert_true(audit_stores(s.a, s.o));
    assert_string_equal(oracle_first_fault(s.o), "");
    story_end(&s);
}

static void damage_is_seen(void (*co_fn)(struct story *s, struct store *st), uint8_t iom, const char *words) {
    struct story s;
    story_begin(&s);
    assert_true(audit_rows(s.a, s.o));
    story_stop(&s);
    damage(&s, iom, co_fn);
    assert_false(audit_stores(s.a, s.o));
    expect_fault(&s, words);
    story_end(&s);
}

static void a_rotten_block(void **state) { damage_is_seen(co_flip, 1, "does not match its checksum"); }
static void a_missing_chunk(void **state) { damage_is_seen(co_forget_chunk, 1, "IOM 1 has version 0, the parity"); }
static void a_leaked_block(void **state) { damage_is_seen(co_leak, 2, "is allocated and nothing refers to it"); }
static void an_update_left(void **state) { damage_is_seen(co_leave_update, 3, "an UPDATE is left after a clean stop"); }
static void a_missing_name(void **state) { damage_is_seen(co_forget_name, 0, "names: "); }
static void a_missing_cnode2(void **state) { damage_is_seen(co_forget_cnode2, 2, "has a CHUNK without a CNODE2"); }

// The same block, while the array runs: the IOMs' own verification reads the disk.
static void a_rotten_block_of_a_running_array(void **state) {
    struct story s;
    story_begin(&s);
    assert_true(audit_rows(s.a, s.o));
    story_stop(&s);
    damage(&s, 1, co_flip);
    array_start(s.a);
    until(&s, not_serving);
    assert_false(audit_rows(s.a, s.o));
    expect_fault(&s, "checksum does not match");
    story_end(&s);
}

// Sound otherwise, but two of the four were on one host all the while, and that takes two members of each file.
static void members_on_one_host(void **state) {
    static const uint8_t HOSTS[] = {0, 1, 1, 2};
    struct story s;
    story_begin(&s);
    assert_true(audit_rows(s.a, s.o));
    story_stop(&s);
    memcpy(s.a->shape.host, HOSTS, sizeof HOSTS);
    assert_false(audit_stores(s.a, s.o));
    expect_fault(&s, "is not the only member on its host");
    story_end(&s);
}

static void an_array_that_does_not_serve(void **state) {
    struct story s;
    story_begin(&s);
    array_ask_stop(s.a);
    assert_false(audit_rows(s.a, s.o));
    expect_fault(&s, "cannot settle its rows");
    story_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_array_passes), cmocka_unit_test(a_rotten_block),  cmocka_unit_test(a_missing_chunk),
        cmocka_unit_test(a_leaked_block),       cmocka_unit_test(an_update_left),  cmocka_unit_test(a_missing_name),
        cmocka_unit_test(members_on_one_host),  cmocka_unit_test(a_missing_cnode2),     cmocka_unit_test(a_rotten_block_of_a_running_array), cmocka_unit_test(an_array_that_does_not_serve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
