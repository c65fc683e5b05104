// Tasks, queues, time, locks, groups, the disk wrappers and messages, over a world of a few lines.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "env/env.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- a little world: the clock goes to the next timer when nobody can run; a RAM disk completes when told -----------

struct world {
    struct env env;
    uint64_t now_ns, random;
    uint32_t wakes;
    struct list ios;
    uint32_t inflight;
    char log[4096]; // what happened, one letter or word each
};

static struct world *world_of(struct env *e) { return CONTAINER_OF(e, struct world, env); }

struct ram_disk {
    struct disk disk;
    uint8_t *bytes;
    bool fails, closed;
};

static uint64_t w_now(struct env *e) { return world_of(e)->now_ns; }
static uint64_t w_wall(struct env *e) { return world_of(e)->now_ns + SEC(1000); }
static uint64_t w_random(struct env *e) { return ++world_of(e)->random; }
static void w_wake(struct env *e) { world_of(e)->wakes++; }

static err w_disk_open(struct env *e, const struct disk_open_args *a, struct disk **out) {
    if (strcmp(a->path, "locked") == 0) return ERR_LOCKED;
    struct ram_disk *d = mem_alloc(e->mem, sizeof *d);
    d->disk.size_bytes = a->size_bytes;
    d->bytes = mem_alloc(e->mem, a->size_bytes);
    *out = &d->disk;
    return OK;
}
static void w_disk_submit(struct disk *d, struct disk_io *io) {
    struct world *w = world_of(d->env);
    struct ram_disk *r = (struct ram_disk *)d;
    io->result = r->fails ? ERR_IO : OK;
    for (uint32_t i = 0, off = 0; i < io->iov_len; off += io->iov[i].len_bytes, i++) {
        uint8_t *at = r->bytes + io->off_bytes + off;
        if (io->op == DISK_WRITE) memcpy(at, io->iov[i].base, io->iov[i].len_bytes);
        else if (io->op == DISK_READ) memcpy(io->iov[i].base, at, io->iov[i].len_bytes);
    }
    list_push_back(&w->ios, &io->node);
    w->inflight++;
}
static void w_disk_close(struct disk *d) {
    assert_int_equal(world_of(d->env)->inflight, 0);
    ((struct ram_disk *)d)->closed = true;
}
static uint32_t w_disk_inflight(const struct disk *d) { return world_of(d->env)->inflight; }

struct test_listener { struct listener l; uint32_t unlistened; };
struct test_conn { struct conn conn; uint32_t sent, closed; };
static struct test_listener the_listener;
static struct test_conn the_conn;
static err w_net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out) {
    if (strcmp(at, "taken") == 0) return ERR_BUSY;
    *out = &the_listener.l;
    return OK;
}
static void w_net_unlisten(struct env *e, struct listener *l) {
    assert_ptr_equal(l->env, e);
    the_listener.unlistened++;
}
static struct conn *w_net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx) {
    the_conn = (struct test_conn){.conn = {.env = e, .events = ev, .ctx = ctx}};
    return &the_conn.conn;
}
static void w_conn_send(struct conn *c, struct msg *m) {
    the_conn.sent++;
    msg_free(m);
}
static uint64_t w_conn_queued(const struct conn *c) { return 77; }
static void w_conn_close(struct conn *c) { the_conn.closed++; }

static const struct env_ops ops = {w_now, w_wall, w_random, w_wake, w_disk_open, w_disk_submit, w_disk_close,
                                   w_disk_inflight, w_net_listen, w_net_unlisten, w_net_connect, w_conn_send,
                                   w_conn_queued, w_conn_close};

static struct world w;
static struct env *const e = &w.env;

static int begin(void **state) {
    w = (struct world){.now_ns = 1000};
    list_init(&w.ios);
    env_init(e, &ops);
    return 0;
}
static int end(void **state) {
    env_fini(e);
    return 0;
}

static void note(const char *what) {
    assert_true(strlen(w.log) + strlen(what) + 1 < sizeof w.log);
    strcat(w.log, what);
}

static void run_ready(void) {
    for (int i = 0; env_run_ready(e, 1000); i++) assert_true(i < 1000);
}
static bool complete_one_io(void) {
    struct list *n = list_pop_front(&w.ios);
    if (!n) return false;
    struct disk_io *io = LIST_ENTRY(n, struct disk_io, node);
    w.inflight--;
    io->done(io);
    return true;
}
static void run_all(void) { // until nobody can run, no I/O is in flight and no timer is set
    for (;;) {
        run_ready();
        if (complete_one_io()) continue;
        uint64_t at_ns = env_next_timer_ns(e);
        if (at_ns == UINT64_MAX) return;
        w.now_ns = MAX(w.now_ns, at_ns);
        env_fire_timers(e, w.now_ns);
    }
}

// ---- the run queue --------------------------------------------------------------------------------------------------

static void note_twice(void *arg) {
    note(arg);
    co_yield(e);
    note(arg);
}

static void tasks_run_in_turn(void **state) {
    env_spawn(e, "a", note_twice, "a");
    env_spawn(e, "b", note_twice, "b");
    env_spawn(e, "c", note_twice, "c");
    assert_string_equal(w.log, "");
    run_ready();
    assert_string_equal(w.log, "abcabc");
    assert_true(list_empty(&e->tasks));
    assert_int_equal(mem_used_bytes(e->mem), 0);
}

static void turns_are_counted(void **state) {
    env_spawn(e, "a", note_twice, "a");
    env_spawn(e, "b", note_twice, "b");
    assert_false(env_run_ready(e, 0) == false);
    assert_true(env_run_ready(e, 3));
    assert_string_equal(w.log, "aba");
    assert_false(env_run_ready(e, 1));
    assert_string_equal(w.log, "abab");
}

static struct waitq q;

static void wait_and_note(void *arg) {
    co_wait(e, &q, "test");
    note(arg);
}

static void wake_is_told_to_the_world_once(void **state) {
    waitq_init(&q);
    env_spawn(e, "a", wait_and_note, "a");
    assert_int_equal(w.wakes, 1);
    env_spawn(e, "b", wait_and_note, "b"); // some were ready already
    assert_int_equal(w.wakes, 1);
    run_ready();
    waitq_wake_all(e, &q);
    assert_int_equal(w.wakes, 2);
    run_ready();
    waitq_wake_all(e, &q); // nobody waits
    assert_int_equal(w.wakes, 2);
    assert_string_equal(w.log, "ab");
}

static void wakes_from_inside(void *arg) {
    waitq_wake_all(e, &q);
    note("w");
}
static void wake_from_a_task_needs_no_telling(void **state) {
    waitq_init(&q);
    env_spawn(e, "a", wait_and_note, "a");
    run_ready();
    env_spawn(e, "w", wakes_from_inside, NULL);
    uint32_t before = w.wakes;
    run_ready();
    assert_int_equal(w.wakes, before);
    assert_string_equal(w.log, "wa"); // the waker runs on, the woken later
}

// ---- queues ---------------------------------------------------------------------------------------------------------

static void waiters_are_woken_in_order(void **state) {
    waitq_init(&q);
    const char *names[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) env_spawn(e, names[i], wait_and_note, (void *)names[i]);
    run_ready();
    waitq_wake_one(e, &q);
    run_ready();
    assert_string_equal(w.log, "a");
    waitq_wake_one(e, &q);
    waitq_wake_one(e, &q);
    run_ready();
    assert_string_equal(w.log, "abc");
    env_spawn(e, "e", wait_and_note, "e");
    run_ready();
    waitq_wake_all(e, &q);
    assert_true(waitq_empty(&q));
    run_ready();
    assert_string_equal(w.log, "abcde");
}

struct owner {
    struct waitq q;
};
static void wait_at_owner(void *arg) {
    struct owner *o = arg;
    note(co_wait_until(e, &o->q, w.now_ns + SEC(5), "owner") ? "w" : "t");
}
static void queue_may_be_freed_after_wake_all(void **state) {
    struct owner *o = mem_alloc(e->mem, sizeof *o);
    waitq_init(&o->q);
    env_spawn(e, "x", wait_at_owner, o);
    env_spawn(e, "y", wait_at_owner, o);
    run_ready();
    waitq_wake_all(e, &o->q);
    memset(o, 0xa5, sizeof *o);
    mem_free(e->mem, o);
    run_all();
    assert_string_equal(w.log, "ww");
    assert_int_equal(w.now_ns, 1000); // their timers went with the wake
}

static void queue_may_be_freed_after_time_out(void **state) {
    struct owner *o = mem_alloc(e->mem, sizeof *o);
    waitq_init(&o->q);
    env_spawn(e, "x", wait_at_owner, o);
    run_ready();
    env_fire_timers(e, w.now_ns += SEC(5));
    assert_true(waitq_empty(&o->q));
    memset(o, 0xa5, sizeof *o);
    mem_free(e->mem, o);
    run_all();
    assert_string_equal(w.log, "t");
}

// ---- a wake and the time race ---------------------------------------------------------------------------------------

static uint64_t wait_until_ns;
static void wait_until_and_note(void *arg) {
    note(arg);
    note(co_wait_until(e, &q, wait_until_ns, "race") ? "+" : "-");
}

static void the_time_comes_first(void **state) {
    waitq_init(&q);
    wait_until_ns = 2000;
    env_spawn(e, "a", wait_until_and_note, "a");
    run_ready();
    env_fire_timers(e, 1999);
    run_ready();
    assert_string_equal(w.log, "a");
    env_fire_timers(e, 2000);
    run_ready();
    assert_string_equal(w.log, "a-");
}

static void wake_then_time_in_one_turn(void **state) {
    waitq_init(&q);
    wait_until_ns = 2000;
    env_spawn(e, "a", wait_until_and_note, "a");
    run_ready();
    waitq_wake_one(e, &q);
    env_fire_timers(e, 2000);
    run_ready();
    assert_string_equal(w.log, "a+");
    assert_true(list_empty(&e->tasks)); // it ran once, not twice
}

static void time_then_wake_in_one_turn(void **state) {
    waitq_init(&q);
    wait_until_ns = 2000;
    env_spawn(e, "a", wait_until_and_note, "a");
    run_ready();
    wait_until_ns = UINT64_MAX;
    env_spawn(e, "b", wait_until_and_note, "b");
    run_ready();
    env_fire_timers(e, 2000); // a's time is over ...
    waitq_wake_one(e, &q);    // ... so this wake is b's and is not lost
    run_ready();
    assert_string_equal(w.log, "ab-+");
    assert_true(list_empty(&e->tasks));
}

static void many_wait_some_time_out(void **state) {
    waitq_init(&q);
    for (int i = 0; i < 100; i++) {
        wait_until_ns = i % 3 == 0 ? 2000 + (uint64_t)i : UINT64_MAX;
        env_spawn(e, "many", wait_until_and_note, "");
        run_ready();
    }
    env_fire_timers(e, 2050); // 0, 3, ... 48: 17 of them
    for (int i = 0; i < 50; i++) waitq_wake_one(e, &q);
    run_ready();
    env_fire_timers(e, 3000); // of those left only the ones with a time
    run_ready();
    int plus = 0, minus = 0;
    for (const char *c = w.log; *c; c++) plus += *c == '+', minus += *c == '-';
    assert_int_equal(plus, 50);
    // Woken: all 33 below 50 without a time, then 17 from 50 up (50..66). Left: 67..99; 69, 72, .. 99 have a time.
    assert_int_equal(minus, 17 + 11);
    waitq_wake_all(e, &q);
    run_ready();
    assert_true(list_empty(&e->tasks));
    assert_int_equal(e->heap_len, 0);
}

static void wait_until_past(void *arg) { note(co_wait_until(e, &q, 1, "past") ? "+" : "-"); }
static void a_time_that_is_past_still_waits_a_turn(void **state) {
    waitq_init(&q);
    env_spawn(e, "a", wait_until_past, NULL);
    run_ready();
    assert_string_equal(w.log, "");
    env_fire_timers(e, w.now_ns);
    run_ready();
    assert_string_equal(w.log, "-");
}

// ---- timers ---------------------------------------------------------------------------------------------------------

static void t_note(void *arg) { note(arg); }

static void timers_fire_by_time_then_by_setting(void **state) {
    static struct timer t[5];
    timer_set(e, &t[0], 300, t_note, "c");
    timer_set(e, &t[1], 100, t_note, "a");
    timer_set(e, &t[2], 200, t_note, "b");
    timer_set(e, &t[3], 300, t_note, "d");
    timer_set(e, &t[4], 301, t_note, "e");
    assert_int_equal(env_next_timer_ns(e), 100);
    env_fire_timers(e, 99);
    assert_string_equal(w.log, "");
    env_fire_timers(e, 300);
    assert_string_equal(w.log, "abcd");
    assert_int_equal(env_next_timer_ns(e), 301);
    timer_cancel(e, &t[4]);
    timer_cancel(e, &t[4]); // again: fine
    timer_cancel(e, &t[0]); // fired: fine
    assert_int_equal(env_next_timer_ns(e), UINT64_MAX);
}

static void set_again_moves_it(void **state) {
    static struct timer a, b;
    timer_set(e, &a, 100, t_note, "a");
    timer_set(e, &b, 100, t_note, "b");
    timer_set(e, &a, 100, t_note, "A"); // now after b
    env_fire_timers(e, 100);
    assert_string_equal(w.log, "bA");
}

static struct timer again, slow;
static void set_self_again(void *arg) {
    note("x");
    timer_set(e, &again, 0, set_self_again, NULL); // long past
}
static void timer_that_sets_itself_starves_nobody(void **state) {
    timer_set(e, &again, 10, set_self_again, NULL);
    timer_set(e, &slow, 50, t_note, "s");
    env_fire_timers(e, 100);
    assert_string_equal(w.log, "xs");
    env_fire_timers(e, 100);
    assert_string_equal(w.log, "xsx");
    timer_cancel(e, &again);
}

static void cancel_the_other(void *arg) {
    note("k");
    timer_cancel(e, arg);
}
static void timer_cancels_one_that_is_due_too(void **state) {
    static struct timer a, b;
    timer_set(e, &a, 10, cancel_the_other, &b);
    timer_set(e, &b, 20, t_note, "b");
    env_fire_timers(e, 100);
    assert_string_equal(w.log, "k");
}

// 500 timers set, moved and cancelled at random, against a sorted array.
#define RANDOM_TIMERS 500
static struct timer many[RANDOM_TIMERS];
static uint64_t last_at_ns, last_seq;
static uint32_t fired;
static void check_order(void *arg) {
    struct timer *t = arg;
    assert_true(t->at_ns > last_at_ns || (t->at_ns == last_at_ns && t->seq > last_seq));
    last_at_ns = t->at_ns;
    last_seq = t->seq;
    fired++;
}
static uint32_t random_state = 12345;
static uint32_t random_next(void) { return random_state = random_state * 1664525u + 1013904223u, random_state >> 8; }
static void random_timers_keep_order(void **state) {
    for (int round = 0; round < 20; round++) {
        memset(many, 0, sizeof many);
        for (int i = 0; i < 3 * RANDOM_TIMERS; i++) {
            struct timer *t = &many[random_next() % RANDOM_TIMERS];
            if (random_next() % 4 == 0) timer_cancel(e, t);
            else timer_set(e, t, 1 + random_next() % 300, check_order, t);
        }
        uint32_t set = 0;
        for (int i = 0; i < RANDOM_TIMERS; i++) set += many[i].index != 0;
        assert_int_equal(e->heap_len, set);
        last_at_ns = last_seq = fired = 0;
        for (uint64_t now_ns = 50; now_ns <= 300; now_ns += 50) {
            env_fire_timers(e, now_ns);
            assert_true(env_next_timer_ns(e) > now_ns);
        }
        assert_int_equal(fired, set);
    }
}

static void sleep_and_note(void *arg) {
    co_sleep_until(e, (uint64_t)(uintptr_t)arg, "sleep");
    note(w.now_ns == 2000 ? "2" : w.now_ns == 3000 ? "3" : "?");
}
static void sleepers_wake_at_their_time(void **state) {
    env_spawn(e, "s", sleep_and_note, (void *)(uintptr_t)3000);
    env_spawn(e, "s", sleep_and_note, (void *)(uintptr_t)2000);
    run_all();
    assert_string_equal(w.log, "23");
}

// ---- locks ----------------------------------------------------------------------------------------------------------

static struct co_lock lock;
static void lock_thrice(void *arg) {
    for (int i = 0; i < 3; i++) {
        co_lock(e, &lock, "lock");
        note(arg);
        co_yield(e); // the others come and queue
        co_yield(e);
        assert_true(lock.holder == e->running);
        co_unlock(e, &lock);
    }
}
static void locks_are_fair(void **state) {
    co_lock_init(&lock);
    env_spawn(e, "a", lock_thrice, "a");
    env_spawn(e, "b", lock_thrice, "b");
    env_spawn(e, "c", lock_thrice, "c");
    run_ready();
    assert_string_equal(w.log, "abcabcabc");
    assert_null(lock.holder);
}

static void lock_once(void *arg) {
    co_lock(e, &lock, "lock");
    note(arg);
    co_unlock(e, &lock);
}
static void unlock_and_lock_again(void *arg) {
    co_lock(e, &lock, "lock");
    co_yield(e); // b queues
    co_unlock(e, &lock);
    lock_once("a"); // b was promised it
}
static void unlocking_hands_over(void **state) {
    co_lock_init(&lock);
    env_spawn(e, "a", unlock_and_lock_again, NULL);
    env_spawn(e, "b", lock_once, "b");
    run_ready();
    assert_string_equal(w.log, "ba");
}

// ---- groups ---------------------------------------------------------------------------------------------------------

static struct group g;
static void wait_for_group(void *arg) { note(err_name(co_group_wait(e, &g, "group"))); }

static void groups_wait_for_all_and_tell_the_first_error(void **state) {
    group_init(&g);
    for (int i = 0; i < 3; i++) group_add(&g);
    env_spawn(e, "g", wait_for_group, NULL);
    run_ready();
    group_done(e, &g, OK);
    group_done(e, &g, ERR_NOSPC);
    run_ready();
    assert_string_equal(w.log, "");
    group_done(e, &g, ERR_IO);
    run_ready();
    assert_string_equal(w.log, "ERR_NOSPC");
}

static void an_empty_group_does_not_wait(void **state) {
    group_init(&g);
    env_spawn(e, "g", wait_for_group, NULL);
    env_run_ready(e, 1);
    assert_string_equal(w.log, "OK");
    assert_true(list_empty(&e->tasks));
}

static void a_group_that_grows_again_before_its_waiter_runs(void **state) {
    group_init(&g);
    group_add(&g);
    env_spawn(e, "g", wait_for_group, NULL);
    run_ready();
    group_done(e, &g, OK);
    group_add(&g);
    run_ready();
    assert_string_equal(w.log, "");
    group_done(e, &g, OK);
    run_ready();
    assert_string_equal(w.log, "OK");
}

// ---- the disk -------------------------------------------------------------------------------------------------------

static struct disk *disk_make(void) {
    struct disk *d = NULL;
    struct disk_open_args a = {.path = "d", .create = true, .size_bytes = 64 * BLOCK_BYTES};
    assert_int_equal(disk_open(e, &a, &d), OK);
    assert_ptr_equal(d->env, e);
    assert_int_equal(disk_size_bytes(d), 64 * BLOCK_BYTES);
    return d;
}

static void write_and_read(void *arg) {
    struct disk *d = arg;
    struct buf *out = buf_new(e->mem, 2 * BLOCK_BYTES), *in = buf_new(e->mem, 2 * BLOCK_BYTES);
    memset(out->data, 7, 2 * BLOCK_BYTES);
    memset(in->data, 0, 2 * BLOCK_BYTES);
    assert_int_equal(co_disk_write(d, 62 * BLOCK_BYTES, out->data, 2 * BLOCK_BYTES), OK); // up to the very end
    assert_int_equal(co_disk_flush(d), OK);
    assert_int_equal(co_disk_read(d, 62 * BLOCK_BYTES, in->data, 2 * BLOCK_BYTES), OK);
    assert_memory_equal(in->data, out->data, 2 * BLOCK_BYTES);
    assert_int_equal(co_disk_read(d, 63 * BLOCK_BYTES, in->data, 2 * BLOCK_BYTES), ERR_IO); // beyond the end
    assert_int_equal(co_disk_read(d, UINT64_MAX - BLOCK_BYTES + 1, in->data, BLOCK_BYTES), ERR_IO);
    ((struct ram_disk *)d)->fails = true;
    assert_int_equal(co_disk_write(d, 0, out->data, BLOCK_BYTES), ERR_IO);
    assert_int_equal(co_disk_flush(d), ERR_IO);
    buf_unref(out);
    buf_unref(in);
    note("done");
}
static void disk_wrappers_wait_and_tell_results(void **state) {
    env_spawn(e, "d", write_and_read, disk_make());
    run_all();
    assert_string_equal(w.log, "done");
}

static void a_locked_store_is_refused(void **state) {
    struct disk *d = NULL;
    struct disk_open_args a = {.path = "locked"};
    assert_int_equal(disk_open(e, &a, &d), ERR_LOCKED);
}

static void flush_it(void *arg) { assert_int_equal(co_disk_flush(arg), OK); }
static void close_it(void *arg) {
    co_disk_close(arg);
    note("closed");
}
static void close_waits_for_what_is_in_flight(void **state) {
    struct disk *d = disk_make();
    env_spawn(e, "f", flush_it, d);
    env_spawn(e, "c", close_it, d);
    run_ready();
    for (int i = 0; i < 5; i++) {
        env_fire_timers(e, w.now_ns = MAX(w.now_ns, env_next_timer_ns(e)));
        run_ready();
    }
    assert_string_equal(w.log, "");
    run_all();
    assert_string_equal(w.log, "closed");
    assert_true(((struct ram_disk *)d)->closed);
}

// ---- messages and the network ---------------------------------------------------------------------------------------

static void messages_own_their_payload(void **state) {
    uint64_t before = mem_used_bytes(e->mem);
    struct msg *m = msg_new(e->mem, 9, 100);
    for (int i = 0; i < 100; i++) assert_int_equal(m->body[i], 0);
    struct buf *b = buf_new(e->mem, 10000);
    memset(b->data, 3, 10000);
    msg_set_payload(m, (struct slice){b, 4096, 5000});
    msg_set_payload(m, (struct slice){b, 100, 5000}); // in its stead, from the same buf
    assert_int_equal(b->refs, 2);
    buf_unref(b);
    m->body[99] = 42;
    m->flags = 5;
    struct msg *c = msg_copy(e->mem, m, false);
    assert_int_equal(b->refs, 2);
    assert_ptr_equal(c->payload.buf, b);
    assert_int_equal(c->payload.off_bytes, 100);
    assert_int_equal(c->body[99], 42);
    msg_free(m);
    assert_int_equal(b->refs, 1);
    assert_int_equal(b->data[5099], 3);

    struct mem *other = mem_create();
    struct msg *deep = msg_copy(other, c, true);
    msg_free(c);
    msg_free(NULL);
    assert_int_equal(mem_used_bytes(e->mem), before);
    assert_int_equal(deep->type, 9);
    assert_int_equal(deep->flags, 5);
    assert_int_equal(deep->body_len, 100);
    assert_int_equal(deep->body[99], 42);
    assert_int_equal(deep->payload.len_bytes, 5000);
    assert_int_equal((uintptr_t)slice_data(deep->payload) % BLOCK_BYTES, 0);
    for (int i = 0; i < 5000; i++) assert_int_equal(slice_data(deep->payload)[i], 3);
    msg_set_payload(deep, (struct slice){0});
    assert_null(deep->payload.buf);
    msg_free(deep);
    assert_int_equal(mem_used_bytes(other), 0);
    mem_destroy(other);
}

static void network_calls_reach_the_world(void **state) {
    static const struct net_events events;
    struct listener *l = NULL;
    assert_int_equal(net_listen(e, "taken", &events, NULL, &l), ERR_BUSY);
    assert_int_equal(net_listen(e, "here", &events, NULL, &l), OK);
    the_listener.unlistened = 0;
    net_unlisten(l);
    assert_int_equal(the_listener.unlistened, 1);
    struct conn *c = net_connect(e, "there", &events, &w);
    assert_ptr_equal(c->ctx, &w);
    conn_send(c, msg_new(e->mem, 1, 0));
    assert_int_equal(the_conn.sent, 1);
    assert_int_equal(conn_queued_bytes(c), 77);
    conn_close(c);
    assert_int_equal(the_conn.closed, 1);
    assert_int_equal(env_wall_ns(e), w.now_ns + SEC(1000));
    assert_int_equal(env_random(e), 1);
    assert_int_equal(env_random(e), 2);
}

// ---- the end, and the dump ------------------------------------------------------------------------------------------

static void wait_in_freed_memory(void *arg) {
    struct waitq own;
    waitq_init(&own);
    co_wait_until(e, &own, SEC(9), "for ever");
    note("never");
}
static void fini_ends_tasks_where_they_stand(void **state) {
    waitq_init(&q);
    for (int i = 0; i < 50; i++) {
        env_spawn(e, "x", wait_in_freed_memory, NULL);
        env_spawn(e, "q", wait_and_note, "never");
        env_spawn(e, "s", sleep_and_note, (void *)(uintptr_t)SEC(5));
        env_spawn(e, "y", note_twice, "");
    }
    env_run_ready(e, 150);
    env_spawn(e, "new", note_twice, "never"); // never ran at all
    memset(&q, 0xa5, sizeof q);               // the queue is gone before the tasks are
    env_fini(e);
    assert_string_equal(w.log, "");
    begin(state); // for `end`
}

static void collect(void *ctx, const char *text) {
    note(text);
    note("\n");
}
static void the_dump_tells_what_tasks_wait_for(void **state) {
    waitq_init(&q);
    env_spawn(e, "first", wait_and_note, "");
    run_ready();
    env_spawn(e, "second", wait_and_note, "");
    w.now_ns += MSEC(1500);
    env_dump(e, collect, NULL);
    char *second = strchr(w.log, '\n');
    assert_non_null(second);
    *second++ = 0;
    assert_non_null(strstr(w.log, "first"));
    assert_non_null(strstr(w.log, "test"));
    assert_non_null(strstr(w.log, "1500.000 ms"));
    assert_non_null(strstr(second, "second"));
    assert_non_null(strstr(second, "(ready)"));
}

static uint32_t ended;
static void wait_and_count(void *arg) {
    co_wait(e, &q, "count");
    ended++;
}
static void ten_thousand_tasks(void **state) {
    waitq_init(&q);
    ended = 0;
    for (int i = 0; i < 10000; i++) env_spawn(e, "n", wait_and_count, NULL);
    run_ready();
    waitq_wake_all(e, &q);
    while (env_run_ready(e, 1000)) {}
    assert_int_equal(ended, 10000);
    assert_int_equal(mem_used_bytes(e->mem), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(tasks_run_in_turn),
        T(turns_are_counted),
        T(wake_is_told_to_the_world_once),
        T(wake_from_a_task_needs_no_telling),
        T(waiters_are_woken_in_order),
        T(queue_may_be_freed_after_wake_all),
        T(queue_may_be_freed_after_time_out),
        T(the_time_comes_first),
        T(wake_then_time_in_one_turn),
        T(time_then_wake_in_one_turn),
        T(many_wait_some_time_out),
        T(a_time_that_is_past_still_waits_a_turn),
        T(timers_fire_by_time_then_by_setting),
        T(set_again_moves_it),
        T(timer_that_sets_itself_starves_nobody),
        T(timer_cancels_one_that_is_due_too),
        T(random_timers_keep_order),
        T(sleepers_wake_at_their_time),
        T(locks_are_fair),
        T(unlocking_hands_over),
        T(groups_wait_for_all_and_tell_the_first_error),
        T(an_empty_group_does_not_wait),
        T(a_group_that_grows_again_before_its_waiter_runs),
        T(disk_wrappers_wait_and_tell_results),
        T(a_locked_store_is_refused),
        T(close_waits_for_what_is_in_flight),
        T(messages_own_their_payload),
        T(network_calls_reach_the_world),
        T(fini_ends_tasks_where_they_stand),
        T(the_dump_tells_what_tasks_wait_for),
        T(ten_thousand_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
