// The hub in the simulated world: greetings, calls, posts and casts over connections that break, nodes that die.
#include "sim/world.h"
#include "wire/format.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

#define POST_TYPE MSG_DELTA
#define ODD_TYPE MSG_STATUS // taken in every epoch

struct post_body { struct envelope env; le64 n; };

// One IOM of the test: answers calls with their payload's length in `result`-free bodies, checks the order of posts.
struct side {
    struct node *node;
    struct hub *hub;
    uint8_t iom;
    uint64_t incarnation, epoch;
    const char *at;
    uint64_t got[3];        // posts taken from each IOM, the last number
    uint64_t calls, casts, gone;
    bool hold;              // calls are not answered
    struct inbound *held;
    struct peer *to;
};
static struct side side[3];
static struct world *w;
static bool done;
static uint32_t lines_told;
static char last_line[256];

static const char *const at[3] = {"a", "b", "c"};
static bool going(void *ctx) { return !done; }
static struct env *env_of(struct side *s) { return node_env(s->node); }

static void on_call(void *ctx, struct inbound *in) {
    struct side *s = ctx;
    s->calls++;
    if (s->hold) {
        s->held = in;
        return;
    }
    struct msg *r = inbound_reply(in, sizeof(struct post_body));
    ((struct post_body *)r->body)->n = ((struct post_body *)in->m->body)->n;
    hub_reply(in, r, OK);
}

static void on_post(void *ctx, iom_id from, struct msg *m) {
    struct side *s = ctx;
    assert_int_equal(le64_get(((struct post_body *)m->body)->n), s->got[from.n] + 1);
    s->got[from.n]++;
    msg_free(m);
}

static void on_cast(void *ctx, const struct node_name *from, struct msg *m) {
    ((struct side *)ctx)->casts++;
    msg_free(m);
}

static void on_gone(void *ctx, const struct node_name *who) { ((struct side *)ctx)->gone++; }
static bool on_any(void *ctx, uint16_t type) { return type == ODD_TYPE; }

static struct hub_config config_of(struct side *s) {
    struct hub_config c = {.cluster = "one cluster",
                           .self = {.kind = NODE_IOM, .iom = s->iom, .incarnation = s->incarnation},
                           .events = {on_call, on_post, on_cast, on_gone, on_any, s}};
    c.self.id[0] = (uint8_t)(s->iom + 1);
    return c;
}

static void serve(void *arg) {
    struct side *s = arg;
    struct hub_config c = config_of(s);
    s->hub = hub_create(env_of(s), &c);
    hub_set_epoch(s->hub, s->epoch);
    assert_int_equal(hub_listen(s->hub, s->at), OK);
}

static void keep_line(void *ctx, const char *line) {
    lines_told++;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static void begin(uint64_t seed, uint32_t reset_ppm) {
    struct world_options o = world_options_default();
    o.net_reset_ppm = reset_ppm;
    o.trace = keep_line;
    o.trace_level = TRACE_WARN;
    w = world_create(seed, &o);
    done = false;
    lines_told = 0;
    for (uint8_t i = 0; i < 3; i++) {
        side[i] = (struct side){.node = node_add(w, at[i]), .iom = i, .incarnation = 1, .epoch = 7, .at = at[i]};
        node_start(side[i].node, serve, &side[i]);
    }
    world_run_until(w, MSEC(1));
}

static struct msg *body(struct side *s, uint16_t type, uint64_t n) {
    struct msg *m = hub_msg(s->hub, type, sizeof(struct post_body));
    ((struct post_body *)m->body)->n = le64_of(n);
    return m;
}

static err co_ask(struct side *s, struct peer *p, uint16_t type, uint64_t n, const struct call_opts *o) {
    struct msg *reply;
    err r = co_call(p, body(s, type, n), o, &reply);
    if (r == OK) assert_int_equal(le64_get(((struct post_body *)reply->body)->n), n);
    else assert_null(reply);
    msg_free(reply);
    return r;
}

static void run(void (*fn)(void *), struct side *s, uint64_t limit_ns) {
    env_spawn(env_of(s), "test", fn, s);
    assert_true(world_run_while(w, going, NULL, world_now_ns(w) + limit_ns));
    done = false;
}

// ---- greetings and calls --------------------------------------------------------------------------------------------
static void ask_things(void *arg) {
    struct side *s = arg;
    struct peer *b = hub_peer(s->hub, (iom_id){1}, "b");
    assert_int_equal(co_ask(s, b, MSG_READ, 42, NULL), OK);
    assert_true(peer_connected(b));
    assert_int_equal(co_ask(s, hub_peer(s->hub, (iom_id){2}, "b"), MSG_READ, 1, NULL), ERR_INVAL); // b is not IOM 2
    assert_non_null(strstr(last_line, "b refuses us"));
    assert_int_equal(co_ask(s, hub_peer(s->hub, (iom_id){2}, "c"), MSG_READ, 1, NULL), OK);        // moved
    assert_int_equal(co_ask(s, hub_peer_at(s->hub, "nowhere"), MSG_READ, 1, NULL), ERR_REFUSED);
    assert_int_equal(co_ask(s, hub_peer_at(s->hub, "a"), MSG_READ, 1, NULL), ERR_INVAL); // ourselves
    assert_int_equal(co_ask(s, hub_peer_at(s->hub, "b"), MSG_READ, 5, NULL), OK);
    done = true;
}

static void greetings_and_calls(void **state) {
    begin(1, 0);
    run(ask_things, &side[0], SEC(10));
    assert_int_equal(side[1].calls, 2);
    world_destroy(w);
}

static void ask_as_stranger(void *arg) {
    struct side *s = arg;
    struct hub_config c = config_of(s);
    c.cluster[0] = 'x';
    s->hub = hub_create(env_of(s), &c);
    lines_told = 0;
    for (int i = 0; i < 5; i++)
        assert_int_equal(co_ask(s, hub_peer(s->hub, (iom_id){1}, "b"), MSG_READ, 1, NULL), ERR_CLUSTER);
    assert_int_equal(lines_told, 2); // one line at each side, not one for each attempt
    done = true;
}

static void another_cluster_is_refused(void **state) {
    begin(2, 0);
    node_crash(side[0].node);
    node_start(side[0].node, ask_as_stranger, &side[0]);
    assert_true(world_run_while(w, going, NULL, SEC(10)));
    assert_int_equal(side[1].calls, 0);
    world_destroy(w);
}

static void ask_in_epochs(void *arg) {
    struct side *s = arg;
    struct peer *b = hub_peer(s->hub, (iom_id){1}, "b");
    hub_set_epoch(s->hub, 6);
    assert_int_equal(co_ask(s, b, MSG_READ, 1, NULL), ERR_EPOCH);
    assert_int_equal(co_ask(s, b, ODD_TYPE, 1, NULL), OK);
    side[1].hold = true;
    hub_set_epoch(s->hub, 7);
    struct call_opts o = {.deadline_ns = env_now_ns(env_of(s)) + MSEC(50)};
    assert_int_equal(co_ask(s, b, MSG_READ, 1, &o), ERR_TIMEOUT);
    hub_reply(side[1].held, NULL, ERR_NOENT); // too late: nobody waits for it
    bool cancelled = true;
    struct waitq q;
    waitq_init(&q);
    o = (struct call_opts){.cancelled = &cancelled, .cancel = &q};
    assert_int_equal(co_ask(s, b, MSG_READ, 1, &o), ERR_INTR);
    side[1].hold = false;
    assert_int_equal(co_ask(s, b, MSG_READ, 1, NULL), OK);
    done = true;
}

static void epochs_deadlines_cancelling(void **state) {
    begin(3, 0);
    run(ask_in_epochs, &side[0], SEC(10));
    world_destroy(w);
}

static void ask_as_mx(void *arg) {
    struct side *s = arg;
    struct hub_config c = config_of(s);
    c.self = (struct node_name){.kind = NODE_MX, .iom = NO_IOM, .id = "a session"};
    s->hub = hub_create(env_of(s), &c);
    hub_set_epoch(s->hub, 7);
    assert_int_equal(co_ask(s, hub_peer(s->hub, (iom_id){1}, "b"), MSG_READ, 1, NULL), OK);
    done = true;
}

static void who_is_no_iom_has_no_stream(void **state) {
    begin(6, 0);
    node_crash(side[0].node);
    node_start(side[0].node, ask_as_mx, &side[0]);
    assert_true(world_run_while(w, going, NULL, SEC(10)));
    assert_int_equal(side[1].calls, 1);
    assert_int_equal(lines_told, 0); // nobody complains of a stream that cannot be resumed
    world_destroy(w);
}

// ---- a peer that dies -----------------------------------------------------------------------------------------------
static void crash_b(void *arg) {
    side[1].held = NULL;
    node_crash(side[1].node);
}

static void restart_b(void *arg) {
    side[1].hold = false;
    side[1].incarnation++;
    node_start(side[1].node, serve, &side[1]);
}

static void ask_the_dying(void *arg) {
    struct side *s = arg;
    struct peer *b = hub_peer(s->hub, (iom_id){1}, "b");
    assert_int_equal(co_ask(s, b, MSG_READ, 1, NULL), OK);
    side[1].hold = true;
    uint64_t t = world_now_ns(w);
    world_at(w, t + MSEC(3), crash_b, NULL);
    world_at(w, t + MSEC(500), restart_b, NULL);
    assert_int_equal(co_ask(s, b, MSG_READ, 1, NULL), ERR_CONN);
    err r;
    int asked = 0;
    do r = co_ask(s, b, MSG_READ, 2, NULL), asked++;
    while (r == ERR_REFUSED);
    assert_int_equal(r, ERR_RESTARTED);
    assert_in_range(asked, 3, 30); // the backoff holds the loop back
    assert_int_equal(co_ask(s, b, MSG_READ, 3, NULL), OK);
    done = true;
}

static void calls_to_one_that_dies(void **state) {
    begin(4, 0);
    run(ask_the_dying, &side[0], SEC(10));
    world_destroy(w);
}

// ---- deaths ---------------------------------------------------------------------------------------------------------
static uint64_t dead_incarnation, dead_ns;
static uint64_t known_b(void *ctx, uint8_t iom) { return iom == 1 ? side[1].casts : 0; } // stands for what was heard
static void b_is_dead(void *ctx, uint8_t iom, uint64_t incarnation) {
    assert_int_equal(iom, 1);
    dead_incarnation = incarnation;
    dead_ns = world_now_ns(w);
}

static void cast_b(struct side *s) { hub_cast(hub_peer(s->hub, (iom_id){1}, "b"), body(s, MSG_HEARTBEAT, 0)); }
static void watch_b(void *arg) {
    struct side *s = arg;
    hub_tell_deaths(s->hub, &(struct hub_deaths){.known = known_b, .dead = b_is_dead, .ctx = s});
    cast_b(s);
}
static void cast_b_now(void *arg) { cast_b(arg); }
static void cast_b_to_a(void *arg) {
    struct side *s = arg;
    hub_cast(hub_peer(s->hub, (iom_id){0}, "a"), body(s, MSG_HEARTBEAT, 0));
}

// A killed process is found dead at once, though nobody sends it anything; one that is paused, cut off or without power is not.
static void a_death_is_looked_for(void **state) {
    begin(12, 0);
    dead_incarnation = 0;
    env_spawn(env_of(&side[0]), "test", watch_b, &side[0]);
    world_run_until(w, MSEC(10));
    assert_int_equal(side[1].casts, 1); // kept until there was a connection
    node_pause(side[1].node);
    world_reset_conns(side[0].node, side[1].node);
    world_run_until(w, MSEC(30));
    node_resume(side[1].node);
    world_run_until(w, MSEC(60));
    assert_int_equal(dead_incarnation, 0);
    crash_b(NULL);
    world_run_until(w, MSEC(80));
    assert_int_equal(dead_incarnation, 1); // what was known when the attempt began
    assert_true(dead_ns < MSEC(62));
    // A machine that lost its power has begun nothing else when it is back: a new attempt does not wait for the old one.
    dead_incarnation = 0;
    node_power_cut(side[1].node);
    world_run_until(w, MSEC(300));
    env_spawn(env_of(&side[0]), "test", cast_b_now, &side[0]);
    world_run_until(w, MSEC(400));
    restart_b(NULL);
    env_spawn(env_of(&side[1]), "test", cast_b_to_a, &side[1]);
    world_run_until(w, MSEC(410));
    env_spawn(env_of(&side[0]), "test", cast_b_now, &side[0]);
    world_run_until(w, MSEC(420));
    assert_int_equal(side[1].casts, 2);
    assert_int_equal(dead_incarnation, 0);
    world_destroy(w);
}

// ---- posts ----------------------------------------------------------------------------------------------------------
#define POSTS 3000u

static void post_many(void *arg) {
    struct side *s = arg;
    struct env *e = env_of(s);
    uint8_t to = s->iom ? 0 : 1;
    s->to = hub_peer(s->hub, (iom_id){to}, at[to]);
    for (uint64_t n = 1; n <= POSTS; n++) {
        struct msg *m = body(s, POST_TYPE, n);
        if (n % 50 == 0) {
            struct buf *b = buf_new(e->mem, 4096);
            memset(b->data, 1, 4096);
            msg_set_payload(m, (struct slice){b, 0, 4096});
            buf_unref(b);
        }
        hub_post(s->to, m);
        if (n % 7 == 0) co_sleep_until(e, env_now_ns(e) + env_random(e) % USEC(300), "between posts");
    }
}

static bool posts_under_way(void *ctx) {
    for (int i = 0; i < 2; i++)
        if (side[i].got[!i] < POSTS || !side[i].to || peer_post_backlog_bytes(side[i].to)) return true;
    return false;
}

static void pause_b(void *arg) { node_pause(side[1].node); }
static void resume_b(void *arg) { node_resume(side[1].node); }

static void posts_arrive_once_in_order(void **state) {
    for (uint64_t seed = 0; seed < 12; seed++) {
        begin(seed, seed ? 20000 : 0);
        for (int i = 0; i < 2; i++) env_spawn(env_of(&side[i]), "posts", post_many, &side[i]);
        if (seed % 3 == 1) world_at(w, MSEC(20), pause_b, NULL);
        if (seed % 3 == 1) world_at(w, MSEC(1500), resume_b, NULL);
        assert_true(world_run_while(w, posts_under_way, NULL, SEC(60)));
        if (!seed) assert_int_equal(world_msg_counts(w, POST_TYPE).sent, 2 * POSTS);
        if (!seed) assert_in_range(world_msg_counts(w, MSG_POST_ACK).sent, 1, POSTS / 20); // most acks ride
        world_destroy(w);
    }
}

// The other side comes into the epoch later: nothing is lost and no connection breaks; then it restarts within the
// epoch: the stream is silent until the next one.
static void wait_ms(struct side *s, uint64_t ms) {
    co_sleep_until(env_of(s), env_now_ns(env_of(s)) + MSEC(ms), "a while");
}

static void post_over_epochs(void *arg) {
    struct side *s = arg;
    struct peer *b = hub_peer(s->hub, (iom_id){1}, "b");
    hub_set_epoch(s->hub, 8);
    struct msg *old = body(s, POST_TYPE, 1);
    hub_set_epoch(s->hub, 9);
    hub_post(b, old); // of an older epoch: dropped
    for (uint64_t n = 1; n <= 10; n++) hub_post(b, body(s, POST_TYPE, n));
    wait_ms(s, 100);
    assert_int_equal(side[1].got[0], 0);
    hub_set_epoch(side[1].hub, 9);
    wait_ms(s, 100);
    assert_int_equal(side[1].got[0], 10);
    assert_int_equal(peer_post_backlog_bytes(b), 0);

    side[1].incarnation++;
    hub_set_incarnation(side[1].hub, side[1].incarnation);
    for (uint64_t n = 11; n <= 20; n++) hub_post(b, body(s, POST_TYPE, n));
    wait_ms(s, 100);
    assert_int_equal(side[1].got[0], 10);
    assert_int_equal(peer_post_backlog_bytes(b), 0);
    side[1].got[0] = 0;
    hub_set_epoch(s->hub, 10);
    hub_set_epoch(side[1].hub, 10);
    for (uint64_t n = 1; n <= 10; n++) hub_post(b, body(s, POST_TYPE, n));
    wait_ms(s, 100);
    assert_int_equal(side[1].got[0], 10);
    done = true;
}

static void posts_and_epochs(void **state) {
    begin(5, 0);
    run(post_over_epochs, &side[0], SEC(10));
    world_destroy(w);
}

// A machine without power closes nothing. What is posted in the epoch after its return arrives, although nothing was sent on the dead connection.
static void greet_a(void *arg) { hub_cast(hub_peer(side[1].hub, (iom_id){0}, "a"), body(&side[1], MSG_HEARTBEAT, 1)); }

static void post_over_a_power_cut(void *arg) {
    struct side *s = arg;
    struct peer *b = hub_peer(s->hub, (iom_id){1}, "b");
    hub_post(b, body(s, POST_TYPE, 1));
    wait_ms(s, 20);
    assert_int_equal(side[1].got[0], 1);
    node_power_cut(side[1].node);
    wait_ms(s, 20);
    side[1].incarnation++;
    side[1].epoch = 8;
    side[1].got[0] = 0;
    node_start(side[1].node, serve, &side[1]);
    wait_ms(s, 20);
    env_spawn(env_of(&side[1]), "greets", greet_a, NULL);
    wait_ms(s, 100);
    hub_set_epoch(s->hub, 8);
    for (uint64_t n = 1; n <= 10; n++) hub_post(b, body(s, POST_TYPE, n));
    wait_ms(s, 400);
    assert_int_equal(side[1].got[0], 10);
    done = true;
}

static void posts_after_a_silent_death(void **state) {
    begin(6, 0);
    run(post_over_a_power_cut, &side[0], SEC(10));
    world_destroy(w);
}

// ---- calls and casts over broken connections, and nothing leaks -----------------------------------------------------
static uint32_t answered, failed, open_callers;

static void ask_many(void *arg) {
    struct side *s = arg;
    for (int i = 0; i < 100; i++) {
        err r = co_ask(s, hub_peer(s->hub, (iom_id){1}, "b"), MSG_READ, (uint64_t)i, NULL);
        if (r == OK) answered++;
        else failed++, assert_true(r == ERR_CONN || r == ERR_REFUSED);
        hub_cast(hub_peer(s->hub, (iom_id){1}, "b"), body(s, MSG_HEARTBEAT, 1));
    }
    if (!--open_callers) done = true;
}

static void all_calls_end(void **state) {
    for (uint64_t seed = 10; seed < 20; seed++) {
        begin(seed, 30000);
        struct env *e = env_of(&side[0]);
        answered = failed = 0;
        open_callers = 8;
        for (int i = 0; i < 8; i++) env_spawn(e, "calls", ask_many, &side[0]);
        assert_true(world_run_while(w, going, NULL, SEC(60)));
        assert_int_equal(answered + failed, 800);
        assert_true(failed > 0 && answered > 400 && side[1].casts > 0 && side[1].gone > 0);
        world_options(w)->net_reset_ppm = 0;
        world_run_until(w, world_now_ns(w) + SEC(10));
        hub_destroy(side[0].hub);
        hub_destroy(side[1].hub);
        world_run_until(w, world_now_ns(w) + SEC(10)); // the tasks of the nodes are over: all is given back
        for (int i = 0; i < 2; i++) { // all but the heap of timers
            e = env_of(&side[i]);
            assert_int_equal(mem_used_bytes(e->mem), e->heap_cap * sizeof *e->heap);
        }
        world_destroy(w);
    }
}

// ---- garbage --------------------------------------------------------------------------------------------------------
static uint32_t closed_on_us;
static uint16_t garbage_type;
static uint32_t garbage_len;
static void raw_opened(struct conn *c) { conn_send(c, msg_new(c->env->mem, garbage_type, garbage_len)); }
static void raw_message(struct conn *c, struct msg *m) { msg_free(m); }
static void raw_closed(struct conn *c, err why) { closed_on_us++; }
static const struct net_events raw = {raw_opened, raw_message, raw_closed};
static void raw_connect(void *arg) { net_connect(env_of(arg), "b", &raw, NULL); }

static void garbage_closes(void **state) {
    begin(6, 0);
    static const struct {
        uint16_t type;
        uint32_t len;
    } cases[] = {{MSG_HELLO, 0}, {MSG_HELLO, 71}, {MSG_HELLO, 72}, {MSG_READ, 100}};
    closed_on_us = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        garbage_type = cases[i].type;
        garbage_len = cases[i].len;
        node_crash(side[2].node);
        node_start(side[2].node, raw_connect, &side[2]);
        world_run_until(w, world_now_ns(w) + MSEC(100));
        assert_int_equal(closed_on_us, i + 1);
    }
    world_destroy(w);
}

static void ask_too_short(void *arg) {
    struct side *s = arg;
    struct peer *b = hub_peer(s->hub, (iom_id){1}, "b");
    struct msg *m = hub_msg(s->hub, MSG_READ, sizeof(struct envelope)), *reply;
    m->body_len--;
    assert_int_equal(co_call(b, m, NULL, &reply), ERR_CONN);
    assert_non_null(strstr(last_line, "does not belong there"));
    done = true;
}

static void short_body_closes(void **state) {
    begin(7, 0);
    run(ask_too_short, &side[0], SEC(10));
    world_destroy(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greetings_and_calls), cmocka_unit_test(another_cluster_is_refused),
        cmocka_unit_test(who_is_no_iom_has_no_stream),
        cmocka_unit_test(epochs_deadlines_cancelling), cmocka_unit_test(calls_to_one_that_dies),
        cmocka_unit_test(a_death_is_looked_for),
        cmocka_unit_test(posts_arrive_once_in_order), cmocka_unit_test(posts_and_epochs), cmocka_unit_test(posts_after_a_silent_death),
        cmocka_unit_test(all_calls_end), cmocka_unit_test(garbage_closes), cmocka_unit_test(short_body_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
