// What the simulated world promises to the code above it and to those who write tests against it.
#include "sim/world.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BLOCKS 16u
#define DISK_BYTES GIB(8)

static uint8_t page[BLOCKS * BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));

// A story: the main task of a node does its steps; the test runs the world until it says `over`.
struct story {
    struct world *w;
    struct node *a, *b, *c;
    struct disk *disk;
    bool over;
    uint64_t n, count, seen[512];
    err result;
};

static bool not_over(void *ctx) { return !((struct story *)ctx)->over; }

static void tell(struct story *s, struct node *n, void (*fn)(void *arg)) {
    s->over = false;
    node_start(n, fn, s);
    assert_true(world_run_while(s->w, not_over, s, world_now_ns(s->w) + SEC(100)));
}

static struct story story_new(uint64_t seed) {
    struct world *w = world_create(seed, NULL);
    return (struct story){.w = w, .a = node_add(w, "a"), .b = node_add(w, "b"), .c = node_add(w, "c")};
}

static void open_disk(struct story *s, struct node *n, const char *name) {
    struct disk_open_args args = {name, true, DISK_BYTES};
    assert_int_equal(disk_open(node_env(n), &args, &s->disk), OK);
}

static void co_fill(struct story *s, uint64_t block, uint8_t value) {
    uint8_t data[2 * BLOCK_BYTES], *p = data + (BLOCK_BYTES - (uintptr_t)data % BLOCK_BYTES) % BLOCK_BYTES;
    memset(p, value, BLOCK_BYTES);
    assert_int_equal(co_disk_write(s->disk, block * BLOCK_BYTES, p, BLOCK_BYTES), OK);
}

static uint8_t sector_at(struct story *s, uint64_t sector) { // all 512 bytes are one value
    uint8_t got[SECTOR_BYTES];
    world_disk_peek(world_disk_find(s->w, "d"), sector * SECTOR_BYTES, got, sizeof got);
    for (uint32_t i = 1; i < sizeof got; i++) assert_int_equal(got[i], got[0]);
    return got[0];
}

// ---- disk -----------------------------------------------------------------------------------------------------------
static void co_write_flush_write(void *arg) { // block 0: 1 flushed, then 2 not; block 1: 3 not
    struct story *s = arg;
    open_disk(s, s->a, "d");
    co_fill(s, 0, 1);
    assert_int_equal(co_disk_flush(s->disk), OK);
    co_fill(s, 0, 2);
    co_fill(s, 1, 3);
    s->over = true;
}

static void flushed_content_survives_and_the_rest_is_torn(void **state) {
    uint32_t kept = 0, lost = 0, mixed = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct story s = story_new(seed);
        tell(&s, s.a, co_write_flush_write);
        assert_int_equal(node_sectors_at_risk(s.a), 16);
        node_power_cut(s.a);
        uint32_t k = 0;
        for (uint64_t i = 0; i < 8; i++) {
            uint8_t v = sector_at(&s, i);
            assert_true(v == 1 || v == 2);
            k += v == 2;
            v = sector_at(&s, 8 + i);
            assert_true(v == 0 || v == 3);
        }
        kept += k;
        lost += 8 - k;
        mixed += k > 0 && k < 8;
        assert_int_equal(node_sectors_at_risk(s.a), 0);
        world_destroy(s.w);
    }
    assert_in_range(kept, 100, 300);
    assert_in_range(lost, 100, 300);
    assert_true(mixed > 30);
}

static void a_mask_says_which_sectors_survive(void **state) {
    for (uint64_t mask = 0; mask < 1u << 16; mask += 977) {
        struct story s = story_new(mask);
        tell(&s, s.a, co_write_flush_write);
        struct world_mask m = {&mask, 64};
        world_keep_sectors(s.w, world_keep_mask, &m);

        struct world *other = world_create(1, NULL); // first as an image beside it, then in earnest
        struct world_disk *image = world_disk_add(other, "image", 0);
        world_disk_image(world_disk_find(s.w, "d"), image);
        node_power_cut(s.a);
        for (uint64_t i = 0; i < 16; i++) {
            uint8_t expect = mask >> i & 1 ? (i < 8 ? 2 : 3) : (i < 8 ? 1 : 0), got;
            assert_int_equal(sector_at(&s, i), expect);
            world_disk_peek(image, i * SECTOR_BYTES + 7, &got, 1);
            assert_int_equal(got, expect);
        }
        world_destroy(other);
        world_destroy(s.w);
    }
}

static void a_process_that_dies_leaves_what_it_wrote(void **state) {
    struct story s = story_new(7);
    tell(&s, s.a, co_write_flush_write);
    node_crash(s.a);
    for (uint64_t i = 0; i < 16; i++) assert_int_equal(sector_at(&s, i), i < 8 ? 2 : 3);
    assert_int_equal(node_sectors_at_risk(s.a), 16); // still volatile
    node_power_cut(s.a);                             // of a dead process' machine
    uint32_t lost = 0;
    for (uint64_t i = 0; i < 16; i++) lost += sector_at(&s, i) != (i < 8 ? 2 : 3);
    assert_in_range(lost, 1, 15);
    world_destroy(s.w);
}

static void io_done(struct disk_io *io) {
    struct story *s = io->arg;
    s->count++;
}

static struct disk_io ios[BLOCKS + 1];
static void submit(struct story *s, struct disk_io *io, enum disk_op op, uint64_t block, uint8_t *p) {
    *io = (struct disk_io){.op = op, .off_bytes = block * BLOCK_BYTES, .iov_len = p != NULL, .done = io_done, .arg = s};
    io->iov[0].base = p;
    io->iov[0].len_bytes = BLOCK_BYTES;
    disk_submit(s->disk, io);
}

static void co_submit_all(void *arg) {
    struct story *s = arg;
    open_disk(s, s->a, "d");
    for (uint32_t i = 0; i < BLOCKS; i++) {
        memset(page + i * BLOCK_BYTES, (int)i + 1, BLOCK_BYTES);
        submit(s, &ios[i], DISK_WRITE, i, page + i * BLOCK_BYTES);
    }
    assert_int_equal(s->count, 0); // never from within disk_submit
    s->over = true;
}

static void writes_in_flight_are_torn_by_either_crash(void **state) {
    for (int power = 0; power < 2; power++) {
        struct story s = story_new(11);
        world_options(s.w)->disk_depth = 4; // the rest waits for its turn, and is in flight as well
        tell(&s, s.a, co_submit_all);
        assert_int_equal(node_sectors_at_risk(s.a), BLOCKS * 8);
        if (power) node_power_cut(s.a);
        else node_crash(s.a);
        uint32_t done = 0;
        for (uint64_t i = 0; i < BLOCKS * 8; i++) {
            assert_true(sector_at(&s, i) == 0 || sector_at(&s, i) == i / 8 + 1);
            done += sector_at(&s, i) != 0;
        }
        assert_in_range(done, 30, 98);
        if (power) assert_int_equal(node_sectors_at_risk(s.a), 0);
        else assert_true(node_sectors_at_risk(s.a) > 0);
        world_run_until(s.w, SEC(1));
        assert_int_equal(s.count, 0); // nothing of the dead is told
        world_destroy(s.w);
    }
}

// A flush covers the writes completed before it was submitted: not the later one, even if that completes first.
static void co_flush_and_overtake(void *arg) {
    struct story *s = arg;
    world_options(s->w)->flush_min_ns = MSEC(5);
    world_options(s->w)->flush_max_ns = MSEC(6);
    open_disk(s, s->a, "d");
    co_fill(s, 0, 1);
    submit(s, &ios[0], DISK_FLUSH, 0, NULL);
    co_fill(s, 0, 2);
    assert_int_equal(s->count, 0);
    while (s->n == 1 && s->count == 0) co_sleep_until(node_env(s->a), env_now_ns(node_env(s->a)) + USEC(50), "flush");
    s->over = true;
}

static void a_flush_covers_what_was_complete_when_it_was_submitted(void **state) {
    bool seen[3] = {false};
    for (uint64_t seed = 0; seed < 30; seed++) { // cut while it is in flight: anything may be left
        struct story s = story_new(seed);
        tell(&s, s.a, co_flush_and_overtake);
        node_power_cut(s.a);
        for (uint64_t i = 0; i < 8; i++) seen[sector_at(&s, i)] = true;
        world_destroy(s.w);
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    for (uint64_t seed = 0; seed < 30; seed++) { // after it: 1 is the least
        struct story s = story_new(seed);
        s.n = 1;
        tell(&s, s.a, co_flush_and_overtake);
        assert_int_equal(node_sectors_at_risk(s.a), 8);
        node_power_cut(s.a);
        for (uint64_t i = 0; i < 8; i++) assert_true(sector_at(&s, i) >= 1);
        world_destroy(s.w);
    }
}

static void co_open_b(void *arg) {
    struct story *s = arg;
    struct disk *d;
    struct disk_open_args args = {"d", false, 0};
    s->result = disk_open(node_env(s->b), &args, &d);
    s->over = true;
}

static void the_lock_is_held_by_the_living(void **state) {
    struct story s = story_new(1);
    tell(&s, s.b, co_open_b);
    assert_int_equal(s.result, ERR_NOENT);
    tell(&s, s.a, co_write_flush_write);
    node_crash(s.b);
    tell(&s, s.b, co_open_b);
    assert_int_equal(s.result, ERR_LOCKED);
    node_pause(s.a); // who stands still keeps it
    node_crash(s.b);
    tell(&s, s.b, co_open_b);
    assert_int_equal(s.result, ERR_LOCKED);
    node_crash(s.a);
    node_crash(s.b);
    tell(&s, s.b, co_open_b);
    assert_int_equal(s.result, OK);
    world_destroy(s.w);
}

static void co_close(void *arg) {
    struct story *s = arg;
    open_disk(s, s->a, "d");
    submit(s, &ios[0], DISK_WRITE, 0, page);
    co_disk_close(s->disk);
    assert_int_equal(s->count, 1);
    open_disk(s, s->a, "d");
    s->over = true;
}

static void closing_waits_and_unlocks(void **state) {
    struct story s = story_new(1);
    tell(&s, s.a, co_close);
    world_destroy(s.w);
}

static void co_faults(void *arg) {
    struct story *s = arg;
    open_disk(s, s->a, "d");
    struct world_disk *d = world_disk_find(s->w, "d");
    co_fill(s, 5, 9);
    world_disk_break(d, 5 * BLOCK_BYTES, BLOCK_BYTES, DISK_READ);
    assert_int_equal(co_disk_read(s->disk, 4 * BLOCK_BYTES, page, 4 * BLOCK_BYTES), ERR_IO);
    assert_int_equal(co_disk_read(s->disk, 6 * BLOCK_BYTES, page, BLOCK_BYTES), OK);
    world_disk_mend(d);
    world_disk_flip(d, 5 * BLOCK_BYTES + 100, 3);
    assert_int_equal(co_disk_read(s->disk, 4 * BLOCK_BYTES, page, 4 * BLOCK_BYTES), OK);
    assert_int_equal(page[0], 0); // never written
    assert_int_equal(page[BLOCK_BYTES + 99], 9);
    assert_int_equal(page[BLOCK_BYTES + 100], 9 ^ 8);
    assert_int_equal(co_disk_read(s->disk, DISK_BYTES, page, BLOCK_BYTES), ERR_IO);
    struct world_disk_counts n = world_disk_counts(d);
    assert_int_equal(n.writes, 1);
    assert_int_equal(n.reads, 2);
    assert_int_equal(n.errors, 1);
    assert_int_equal(n.read_bytes, 5 * BLOCK_BYTES);
    assert_true(world_disk_stored_bytes(d) <= 2 * BLOCK_BYTES); // of 8 GiB
    s->over = true;
}

static void bad_ranges_and_bit_rot(void **state) {
    struct story s = story_new(3);
    tell(&s, s.a, co_faults);
    world_destroy(s.w);
}

static void co_order(void *arg) {
    struct story *s = arg;
    open_disk(s, s->a, "d");
    uint64_t at = env_now_ns(node_env(s->a));
    for (uint32_t i = 0; i < BLOCKS; i++) submit(s, &ios[i], DISK_READ, i, page + i * BLOCK_BYTES);
    while (s->count < BLOCKS) co_sleep_until(node_env(s->a), env_now_ns(node_env(s->a)) + USEC(10), "reads");
    s->n = env_now_ns(node_env(s->a)) - at;
    s->over = true;
}

static void the_depth_bounds_what_is_served_at_a_time(void **state) {
    struct story s = story_new(3), t = story_new(3);
    world_options(t.w)->disk_depth = 1;
    tell(&s, s.a, co_order);
    tell(&t, t.a, co_order);
    assert_true(t.n > 4 * s.n);
    world_destroy(s.w);
    world_destroy(t.w);
}

static void a_hung_disk_completes_nothing_until_it_goes_on(void **state) {
    struct story s = story_new(3);
    tell(&s, s.a, co_submit_all);
    world_disk_hang(world_disk_find(s.w, "d"), true);
    world_run_until(s.w, SEC(10));
    assert_int_equal(s.count, 0);
    world_disk_hang(world_disk_find(s.w, "d"), false);
    world_run_until(s.w, SEC(11));
    assert_int_equal(s.count, BLOCKS);
    world_destroy(s.w);
}

// ---- crashes at a chosen I/O ----------------------------------------------------------------------------------------
static void co_three_writes(void *arg) { // block 0 := 1, 2, 3, each flushed: I/Os 1 to 6
    struct story *s = arg;
    open_disk(s, s->a, "d");
    for (uint8_t v = 1; v <= 3; v++) {
        co_fill(s, 0, v);
        assert_int_equal(co_disk_flush(s->disk), OK);
        s->n = v;
    }
    s->over = true;
}

static bool still_to_crash(void *ctx) { return world_crash_pending(((struct story *)ctx)->w); }

static void power_is_cut_at_every_io(void **state) {
    for (uint64_t k = 1; k <= 6; k++) {
        for (int moment = 0; moment < 2; moment++) {
            struct story s = story_new(k);
            uint64_t none = 0;
            struct world_mask lose_all = {&none, 64};
            world_keep_sectors(s.w, world_keep_mask, &lose_all);
            world_crash_at_io(s.w, s.a, k, moment ? WORLD_IO_COMPLETED : WORLD_IO_SUBMITTED, WORLD_CRASH_POWER);
            node_start(s.a, co_three_writes, &s);
            assert_true(world_run_while(s.w, still_to_crash, &s, SEC(10)));
            assert_false(node_running(s.a));
            uint64_t flushes_done = moment ? k / 2 : (k - 1) / 2;
            assert_int_equal(sector_at(&s, 0), flushes_done);
            assert_true(s.n == (k - 1) / 2); // what the node knew
            world_destroy(s.w);
        }
    }
}

static void co_submit_and_say(void *arg) { // dies in the submit; what comes after it reaches nobody
    struct story *s = arg;
    open_disk(s, s->a, "d");
    submit(s, &ios[0], DISK_WRITE, 0, page);
    assert_false(node_running(s->a));
    submit(s, &ios[1], DISK_WRITE, 1, page);
    s->over = true;
    co_sleep_until(node_env(s->a), env_now_ns(node_env(s->a)) + SEC(1), "never");
    fail();
}

static void idle(void *arg) {}

static void the_doomed_reach_nobody(void **state) {
    struct story s = story_new(1);
    uint64_t all = UINT64_MAX;
    struct world_mask keep_all = {&all, 64};
    memset(page, 7, sizeof page);
    world_keep_sectors(s.w, world_keep_mask, &keep_all);
    world_crash_at_io(s.w, NULL, 1, WORLD_IO_SUBMITTED, WORLD_CRASH_POWER);
    node_start(s.b, idle, &s);
    tell(&s, s.a, co_submit_and_say);
    assert_false(node_running(s.a));
    assert_false(node_running(s.b)); // all at once
    assert_int_equal(sector_at(&s, 0), 7);
    assert_int_equal(sector_at(&s, 8), 0);
    world_run_until(s.w, SEC(5));
    world_destroy(s.w);
}

struct hook { struct story *s; uint64_t submitted, completed, last_number; uint32_t msgs; };
static void crash_at_fourth_completion(void *ctx, const struct world_io *io) {
    struct hook *h = ctx;
    assert_ptr_equal(io->node, h->s->a);
    assert_string_equal(world_disk_name(io->disk), "d");
    assert_int_equal(io->op, io->number % 2 ? DISK_WRITE : DISK_FLUSH);
    assert_int_equal(io->len_bytes, io->number % 2 ? BLOCK_BYTES : 0);
    h->last_number = io->number;
    if (io->moment == WORLD_IO_SUBMITTED) h->submitted++;
    else if (++h->completed == 4) node_crash(io->node);
}

static bool a_runs(void *ctx) { return node_running(((struct story *)ctx)->a); }

static void the_io_hook_sees_all_and_may_crash(void **state) {
    struct story s = story_new(1);
    struct hook h = {&s};
    world_options(s.w)->on_io = crash_at_fourth_completion;
    world_options(s.w)->ctx = &h;
    node_start(s.a, co_three_writes, &s);
    assert_true(world_run_while(s.w, a_runs, &s, SEC(10)));
    assert_int_equal(h.submitted, 4);
    assert_int_equal(h.last_number, 4);
    assert_int_equal(s.n, 1); // the second flush was done, but nobody heard
    assert_int_equal(sector_at(&s, 0), 2);
    assert_int_equal(node_sectors_at_risk(s.a), 0);
    world_run_until(s.w, SEC(20));
    world_destroy(s.w);
}

static void co_poll_clock(void *arg) {
    struct story *s = arg;
    uint64_t end_ns = env_now_ns(node_env(s->a)) + USEC(100);
    while (env_now_ns(node_env(s->a)) < end_ns) co_sleep_until(node_env(s->a), 0, "the past");
    s->over = true;
}

static void who_polls_the_clock_meets_the_future(void **state) {
    struct story s = story_new(1);
    tell(&s, s.a, co_poll_clock);
    world_destroy(s.w);
}

// ---- network --------------------------------------------------------------------------------------------------------
static err closed_why[2]; // by side: 0 connected, 1 accepted
static uint32_t closed_count[2], opened_count[2];

static void note_opened(struct conn *c) { opened_count[c->accepted]++; }
static void note_message(struct conn *c, struct msg *m) {
    struct story *s = c->ctx;
    assert_ptr_equal(m->mem, c->env->mem);
    assert_true(s->count < ARRAY_LEN(s->seen));
    s->seen[s->count++] = m->type;
    if (m->payload.len_bytes) assert_int_equal(slice_data(m->payload)[m->payload.len_bytes - 1], (uint8_t)m->type);
    msg_free(m);
}
static void note_closed(struct conn *c, err why) {
    closed_why[c->accepted] = why;
    closed_count[c->accepted]++;
}
static const struct net_events noting = {note_opened, note_message, note_closed};

static void forget_conns(void) {
    memset(closed_count, 0, sizeof closed_count);
    memset(opened_count, 0, sizeof opened_count);
}

static void listen_b(void *arg) {
    struct story *s = arg;
    struct listener *l;
    assert_int_equal(net_listen(node_env(s->b), "b", &noting, s, &l), OK);
    assert_int_equal(net_listen(node_env(s->b), "b", &noting, s, &l), ERR_BUSY);
    assert_int_equal(net_listen(node_env(s->b), "a", &noting, s, &l), ERR_INVAL);
}

static struct conn *conn_ab;
static void connect_a(void *arg) {
    struct story *s = arg;
    conn_ab = net_connect(node_env(s->a), "b", &noting, s);
}

static void send_ab(struct story *s, uint32_t count, uint32_t payload_bytes) {
    struct mem *mem = node_env(s->a)->mem;
    for (uint32_t i = 0; i < count; i++) {
        struct msg *m = msg_new(mem, (uint16_t)(s->n++ & 0xffff), 16);
        if (payload_bytes) {
            struct slice p = {buf_new(mem, payload_bytes), 0, payload_bytes};
            memset(slice_data(p), (int)m->type, payload_bytes);
            msg_set_payload(m, p);
            buf_unref(p.buf);
        }
        conn_send(conn_ab, m);
    }
}

static struct story story_connected(uint64_t seed) {
    struct story s = story_new(seed);
    forget_conns();
    return s;
}

static void start_ab(struct story *s) { // s at its last address
    node_start(s->b, listen_b, s);
    world_run_until(s->w, world_now_ns(s->w) + MSEC(1));
    node_start(s->a, connect_a, s);
    world_run_until(s->w, world_now_ns(s->w) + MSEC(5));
    assert_int_equal(opened_count[0], 1);
    assert_int_equal(opened_count[1], 1);
}

static void assert_prefix(const struct story *s) {
    for (uint64_t i = 0; i < s->count; i++) assert_int_equal(s->seen[i], i);
}

static void run_ms(struct story *s, uint64_t ms) { world_run_until(s->w, world_now_ns(s->w) + MSEC(ms)); }

static void connect_and_send_early(void *arg) {
    connect_a(arg);
    send_ab(arg, 10, 4096);
}

static void messages_arrive_in_order(void **state) {
    struct story s = story_connected(5);
    node_start(s.b, listen_b, &s);
    run_ms(&s, 1);
    node_start(s.a, connect_and_send_early, &s);
    world_options(s.w)->net_spike_ppm = 200000;
    run_ms(&s, 500);
    send_ab(&s, 90, 4096);
    assert_true(conn_queued_bytes(conn_ab) > 90 * 4096);
    run_ms(&s, 500);
    assert_int_equal(conn_queued_bytes(conn_ab), 0);
    assert_int_equal(s.count, 100);
    assert_prefix(&s);
    assert_int_equal(world_msg_total(s.w).sent, 100);
    assert_int_equal(world_msg_counts(s.w, 7).sent, 1);
    assert_int_equal(world_msg_counts(s.w, 7).payload_bytes, 4096);
    assert_int_equal(mem_used_bytes(node_env(s.b)->mem) < 4096, 1); // received messages were freed
    world_destroy(s.w);
}

static void a_reset_loses_a_suffix_and_closes_both(void **state) {
    uint32_t lossy = 0, lossless = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct story s = story_connected(seed);
        start_ab(&s);
        send_ab(&s, 10, 0);
        world_reset_conns(s.a, s.b);
        send_ab(&s, 5, 0); // nobody ever gets these
        run_ms(&s, 100);
        assert_prefix(&s);
        assert_true(s.count <= 10);
        lossy += s.count < 10;
        lossless += s.count == 10;
        assert_int_equal(closed_count[0], 1);
        assert_int_equal(closed_count[1], 1);
        assert_int_equal(closed_why[0], ERR_CONN);
        world_destroy(s.w);
    }
    assert_true(lossy > 20 && lossless > 0);
}

static void random_resets_keep_prefixes(void **state) {
    uint32_t closed = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct story s = story_connected(seed);
        start_ab(&s);
        world_options(s.w)->net_reset_ppm = 20000;
        for (int i = 0; i < 100 && closed_count[0] == 0; i++) {
            send_ab(&s, 1, 0);
            world_run_until(s.w, world_now_ns(s.w) + USEC(20));
        }
        run_ms(&s, 100);
        assert_prefix(&s);
        assert_int_equal(closed_count[0], closed_count[1]);
        closed += closed_count[0];
        world_destroy(s.w);
    }
    assert_in_range(closed, 10, 20);
}

static void nobody_listens(void **state) {
    struct story s = story_connected(1);
    node_start(s.a, connect_a, &s); // b is off, but its machine answers
    run_ms(&s, 10);
    assert_int_equal(closed_count[0], 1);
    assert_int_equal(closed_why[0], ERR_REFUSED);

    node_power_cut(s.b); // now it does not
    node_crash(s.a);
    node_start(s.a, connect_a, &s);
    run_ms(&s, 2900);
    assert_int_equal(closed_count[0], 1);
    run_ms(&s, 200);
    assert_int_equal(closed_count[0], 2);
    assert_int_equal(closed_why[0], ERR_TIMEOUT);
    world_destroy(s.w);
}

static void a_process_that_dies_closes_its_connections(void **state) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct story s = story_connected(seed);
        start_ab(&s);
        send_ab(&s, 20, 0);
        node_crash(s.a);
        run_ms(&s, 10);
        assert_prefix(&s);
        assert_int_equal(closed_count[1], 1);
        assert_int_equal(closed_why[1], ERR_CONN);
        assert_int_equal(closed_count[0], 0);
        world_destroy(s.w);
    }
}

static void a_machine_without_power_is_silent(void **state) {
    struct story s = story_connected(4);
    start_ab(&s);
    node_power_cut(s.b);
    run_ms(&s, 60000);
    assert_int_equal(closed_count[0], 0); // nothing was said, nothing is known
    send_ab(&s, 1, 0);
    run_ms(&s, 14000);
    assert_int_equal(closed_count[0], 0);
    run_ms(&s, 2000);
    assert_int_equal(closed_count[0], 1); // given up
    world_destroy(s.w);

    s = story_connected(5);
    start_ab(&s);
    node_power_cut(s.b);
    send_ab(&s, 1, 0);
    run_ms(&s, 100);
    node_start(s.b, listen_b, &s); // the machine is back and knows no such connection
    run_ms(&s, 100);
    assert_int_equal(closed_count[0], 1);
    assert_int_equal(s.count, 0);
    world_destroy(s.w);
}

static void power_cut_with_notice(void **state) {
    struct story s = story_connected(4);
    start_ab(&s);
    world_options(s.w)->net_power_notice_ns = MSEC(300);
    node_power_cut(s.b);
    run_ms(&s, 200);
    assert_int_equal(closed_count[0], 0);
    run_ms(&s, 200);
    assert_int_equal(closed_count[0], 1);
    world_destroy(s.w);
}

static struct conn *accepted;
static void keep_accepted(struct conn *c) { accepted = c; }
static void answer_to_a(struct conn *c, struct msg *m) {
    struct story *s = c->ctx;
    s->n++;
    msg_free(m);
}
static const struct net_events keeping = {keep_accepted, answer_to_a, note_closed};
static void listen_b_keeping(void *arg) {
    struct story *s = arg;
    struct listener *l;
    assert_int_equal(net_listen(node_env(s->b), "b", &keeping, s, &l), OK);
}

static void a_link_cut_one_way_holds_that_way_only(void **state) {
    struct story s = story_connected(4);
    node_start(s.b, listen_b_keeping, &s);
    run_ms(&s, 1);
    node_start(s.a, connect_a, &s);
    run_ms(&s, 5);
    world_cut_link(s.a, s.b, true);
    uint64_t n = 0;
    for (int i = 0; i < 3; i++) {
        conn_send(conn_ab, msg_new(node_env(s.a)->mem, 1, 0));
        conn_send(accepted, msg_new(node_env(s.b)->mem, (uint16_t)i, 0));
    }
    run_ms(&s, 1000);
    assert_int_equal(s.count, 3); // at a
    assert_int_equal(s.n, n);     // at b
    world_heal_link(s.a, s.b);
    run_ms(&s, 1000);
    assert_int_equal(s.n, 3);
    assert_int_equal(closed_count[0] + closed_count[1], 0);
    world_isolate(s.b);
    conn_send(conn_ab, msg_new(node_env(s.a)->mem, 1, 0));
    run_ms(&s, 16000); // a gives up; b cannot hear of it
    assert_int_equal(closed_count[0], 1);
    assert_int_equal(closed_count[1], 0);
    world_heal_all(s.w);
    conn_send(accepted, msg_new(node_env(s.b)->mem, 1, 0));
    run_ms(&s, 1000);
    assert_int_equal(closed_count[1], 1); // its message met nobody
    assert_int_equal(s.n, 3);
    world_destroy(s.w);
}

static void who_is_paused_hears_everything_later(void **state) {
    struct story s = story_connected(4);
    node_start(s.b, listen_b, &s);
    run_ms(&s, 1);
    node_pause(s.b);
    node_start(s.a, connect_a, &s);
    run_ms(&s, 1000);
    assert_int_equal(opened_count[0], 1); // its kernel accepts
    assert_int_equal(opened_count[1], 0);
    send_ab(&s, 10, 0);
    run_ms(&s, 30000);
    assert_int_equal(s.count, 0);
    node_resume(s.b);
    run_ms(&s, 1);
    assert_int_equal(opened_count[1], 1);
    assert_int_equal(s.count, 10);
    assert_prefix(&s);
    node_pause(s.b);
    send_ab(&s, 10, 0);
    run_ms(&s, 10);
    node_crash(s.b); // dies standing
    run_ms(&s, 10);
    assert_int_equal(s.count, 10);
    assert_int_equal(closed_count[0], 1);
    world_destroy(s.w);
}

static void a_paused_node_hears_of_its_io_when_it_goes_on(void **state) {
    struct story s = story_new(3);
    tell(&s, s.a, co_submit_all);
    node_pause(s.a);
    run_ms(&s, 1000);
    assert_int_equal(s.count, 0);
    for (uint64_t i = 0; i < BLOCKS * 8; i++) assert_int_equal(sector_at(&s, i), i / 8 + 1); // the device went on
    node_resume(s.a);
    run_ms(&s, 1);
    assert_int_equal(s.count, BLOCKS);
    world_destroy(s.w);
}

static void crash_sender_at_third(void *ctx, struct node *from, struct node *to, const struct msg *m) {
    struct hook *h = ctx;
    assert_string_equal(node_name(to), "b");
    if (++h->msgs == 3) node_crash(from);
}

static void the_message_hook_may_crash_the_sender(void **state) {
    struct story s = story_connected(4);
    struct hook h = {&s};
    world_options(s.w)->on_msg = crash_sender_at_third;
    world_options(s.w)->ctx = &h;
    node_start(s.b, listen_b, &s);
    run_ms(&s, 1);
    node_start(s.a, connect_and_send_early, &s);
    run_ms(&s, 100);
    assert_false(node_running(s.a));
    assert_int_equal(h.msgs, 3); // it sent no more
    assert_true(s.count <= 2);
    assert_prefix(&s);
    assert_int_equal(closed_count[1], 1);
    world_destroy(s.w);
}

static void note_line(void *ctx, const char *line) { snprintf(ctx, 200, "%s", line); }
static void co_log(void *arg) {
    struct story *s = arg;
    LOG(node_env(s->b), TRACE_INFO, "hello %d", 7);
    s->over = true;
}

static void a_line_of_the_trace_names_time_and_node(void **state) {
    char line[200] = "";
    struct world_options o = world_options_default();
    o.trace = note_line;
    o.trace_ctx = line;
    struct world *w = world_create(1, &o);
    struct story s = {.w = w, .b = node_add(w, "iom7")};
    world_run_until(w, SEC(3));
    tell(&s, s.b, co_log);
    assert_non_null(strstr(line, "     3.0000"));
    assert_non_null(strstr(line, " I iom7     hello 7"));
    world_destroy(w);
}

static void close_ab(void *ctx) { conn_close(conn_ab); }

static void who_closes_hears_no_more(void **state) {
    struct story s = story_connected(4);
    start_ab(&s);
    world_at(s.w, world_now_ns(s.w) + MSEC(1), close_ab, NULL);
    run_ms(&s, 100);
    assert_int_equal(closed_count[0], 0);
    assert_int_equal(closed_count[1], 1);
    world_destroy(s.w);
}

static void crash_b(void *arg) {
    struct story *s = arg;
    node_power_cut(s->b);
    node_start(s->b, listen_b, s);
    s->over = true;
    co_sleep_until(node_env(s->a), UINT64_MAX, "for ever");
}

static void a_task_may_crash_another_node(void **state) {
    struct story s = story_connected(4);
    node_start(s.b, listen_b, &s);
    run_ms(&s, 1);
    tell(&s, s.a, crash_b);
    assert_int_equal(node_starts(s.b), 2);
    assert_true(node_running(s.b));
    run_ms(&s, 1);
    world_destroy(s.w);
}

// ---- time -----------------------------------------------------------------------------------------------------------
static void co_sleep_a_second(void *arg) {
    struct story *s = arg;
    uint64_t at_ns = env_now_ns(node_env(s->a)) + SEC(1);
    co_sleep_until(node_env(s->a), at_ns, "a second");
    assert_true(env_now_ns(node_env(s->a)) >= at_ns);
    s->over = true;
}

static void clocks_run_at_their_own_rate(void **state) {
    struct story s = story_new(4);
    node_clock(s.a, 0, 100000); // ten percent fast
    tell(&s, s.a, co_sleep_a_second);
    assert_in_range(world_now_ns(s.w), 909090909, 909100000);
    node_crash(s.a);
    uint64_t from_ns = world_now_ns(s.w);
    node_clock(s.a, 0, -100000);
    tell(&s, s.a, co_sleep_a_second);
    assert_in_range(world_now_ns(s.w) - from_ns, 1111111111, 1111120000);
    world_destroy(s.w);
}

static char calls[8];
static void call_note(void *arg) { strcat(calls, arg); }

static void what_is_set_for_one_time_happens_in_that_order(void **state) {
    struct world *w = world_create(1, NULL);
    const char *letters[] = {"c", "a", "d", "b", "e"};
    calls[0] = 0;
    for (uint32_t i = 0; i < 5; i++) world_at(w, SEC(1) + (i == 4 ? 0 : 1), call_note, (void *)(uintptr_t)letters[i]);
    world_run_until(w, SEC(1));
    assert_string_equal(calls, "e");
    assert_true(world_run_step(w));
    world_run_until(w, SEC(2));
    assert_string_equal(calls, "ecadb");
    assert_false(world_run_step(w));
    world_destroy(w);
}

// ---- determinism ------------------------------------------------------------------------------------------
// Every node writes, flushes, and sends what its random numbers say; links, disks and processes fail meanwhile.
struct mill { struct world *w; struct node *n[5]; uint64_t received, done; };
static struct mill *the_mill;

static void mill_opened(struct conn *c) {}
static void mill_closed(struct conn *c, err why) {
    struct conn **slot = c->ctx;
    if (slot) *slot = NULL;
}
static void mill_message(struct conn *c, struct msg *m) {
    the_mill->received++;
    msg_free(m);
}
static const struct net_events mill_events = {mill_opened, mill_message, mill_closed};

static void mill_send(struct env *e, struct conn **slot) {
    static const char *names[] = {"n0", "n1", "n2", "n3", "n4"};
    if (*slot == NULL) *slot = net_connect(e, names[env_random(e) % 5], &mill_events, slot);
    struct msg *m = msg_new(e->mem, (uint16_t)(env_random(e) % 8), 64);
    memcpy(m->body, &the_mill->received, 8);
    conn_send(*slot, m);
}

static void mill_main(void *arg) {
    struct node *n = arg;
    struct env *e = node_env(n);
    struct listener *l;
    struct disk *d;
    uint8_t *p = buf_new(e->mem, 2 * BLOCK_BYTES)->data;
    struct conn **slots = mem_alloc(e->mem, 3 * sizeof *slots);
    memset(p, (int)node_index(n), 2 * BLOCK_BYTES);
    if (net_listen(e, node_name(n), &mill_events, NULL, &l) != OK) fail();
    if (disk_open(e, &(struct disk_open_args){node_name(n), true, GIB(1)}, &d) != OK) fail();
    for (;;) {
        for (uint64_t i = env_random(e) % 12; i > 0; i--) mill_send(e, &slots[env_random(e) % 3]);
        err r = co_disk_write(d, env_random(e) % 1000 * BLOCK_BYTES, p, BLOCK_BYTES);
        if (r == OK && env_random(e) % 4 == 0) r = co_disk_flush(d);
        if (r == OK && env_random(e) % 16 == 0) co_sleep_until(e, env_now_ns(e) + USEC(300), "rest");
        assert_int_equal(r, OK);
        the_mill->done++;
    }
}

static void mill_fault(void *arg) {
    struct mill *m = arg;
    struct node *n = m->n[world_random_below(m->w, 5)], *o = m->n[world_random_below(m->w, 5)];
    switch (world_random_below(m->w, 7)) {
    case 0: node_crash(n); break;
    case 1: node_power_cut(n); break;
    case 2: if (node_running(n)) node_pause(n); break;
    case 3: if (n != o) world_cut_link(n, o, true); break;
    case 4: world_reset_conns(n, o); break;
    case 5: world_heal_all(m->w); break;
    case 6: if (node_paused(n)) node_resume(n); break;
    }
    if (!node_running(o)) node_start(o, mill_main, o);
    world_at(m->w, world_now_ns(m->w) + MSEC(3), mill_fault, m);
}

static uint64_t mill_run(uint64_t seed, bool faults, uint64_t t_ns, uint64_t *events) {
    struct mill m = {.w = world_create(seed, NULL)};
    the_mill = &m;
    for (uint32_t i = 0; i < 5; i++) {
        char name[] = {'n', (char)('0' + i), 0};
        m.n[i] = node_add(m.w, name);
        node_start(m.n[i], mill_main, m.n[i]);
    }
    if (faults) {
        world_options(m.w)->net_reset_ppm = 2000;
        world_options(m.w)->net_spike_ppm = 1000;
        world_options(m.w)->disk_destage_ppm = 300000;
        world_at(m.w, MSEC(3), mill_fault, &m);
    }
    world_run_until(m.w, t_ns);
    assert_true(m.received > 100 && m.done > 100);
    uint64_t digest = world_digest(m.w);
    *events += world_events(m.w);
    world_destroy(m.w);
    return digest;
}

static void one_seed_is_one_run(void **state) {
    uint64_t events = 0, previous = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        uint64_t digest = mill_run(seed, true, MSEC(400), &events);
        assert_int_equal(digest, mill_run(seed, true, MSEC(400), &events));
        assert_int_not_equal(digest, previous);
        previous = digest;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flushed_content_survives_and_the_rest_is_torn),
        cmocka_unit_test(a_mask_says_which_sectors_survive),
        cmocka_unit_test(a_process_that_dies_leaves_what_it_wrote),
        cmocka_unit_test(writes_in_flight_are_torn_by_either_crash),
        cmocka_unit_test(a_flush_covers_what_was_complete_when_it_was_submitted),
        cmocka_unit_test(the_lock_is_held_by_the_living),
        cmocka_unit_test(closing_waits_and_unlocks),
        cmocka_unit_test(bad_ranges_and_bit_rot),
        cmocka_unit_test(the_depth_bounds_what_is_served_at_a_time),
        cmocka_unit_test(a_hung_disk_completes_nothing_until_it_goes_on),
        cmocka_unit_test(power_is_cut_at_every_io),
        cmocka_unit_test(the_doomed_reach_nobody),
        cmocka_unit_test(the_io_hook_sees_all_and_may_crash),
        cmocka_unit_test(who_polls_the_clock_meets_the_future),
        cmocka_unit_test(messages_arrive_in_order),
        cmocka_unit_test(a_reset_loses_a_suffix_and_closes_both),
        cmocka_unit_test(random_resets_keep_prefixes),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(a_process_that_dies_closes_its_connections),
        cmocka_unit_test(a_machine_without_power_is_silent),
        cmocka_unit_test(power_cut_with_notice),
        cmocka_unit_test(a_link_cut_one_way_holds_that_way_only),
        cmocka_unit_test(who_is_paused_hears_everything_later),
        cmocka_unit_test(a_paused_node_hears_of_its_io_when_it_goes_on),
        cmocka_unit_test(who_closes_hears_no_more),
        cmocka_unit_test(the_message_hook_may_crash_the_sender),
        cmocka_unit_test(a_line_of_the_trace_names_time_and_node),
        cmocka_unit_test(a_task_may_crash_another_node),
        cmocka_unit_test(clocks_run_at_their_own_rate),
        cmocka_unit_test(what_is_set_for_one_time_happens_in_that_order),
        cmocka_unit_test(one_seed_is_one_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
