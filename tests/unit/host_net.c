// Messages over real sockets: order, payloads, peers that close, lie, stammer or crowd, and socket files left behind.
#include "host/loop.h"
#include "wire/frame.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct loop *loop;
static struct env *env;
static char dir[256], at_unix[320];

static int setup(void **state) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/host-net-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(at_unix, sizeof at_unix, "unix:%s/sock", dir);
    loop = loop_create();
    env = loop_env(loop);
    alarm(120);
    return 0;
}

static int teardown(void **state) {
    loop_destroy(loop);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static void stop(void *arg) { loop_stop(loop); }

static void run_for(uint64_t ns) {
    struct timer t = {0};
    timer_set(env, &t, env_now_ns(env) + ns, stop, NULL);
    loop_run(loop);
    timer_cancel(env, &t);
}

// ---- an end of a connection that writes down what happens to it -----------------------------------------------------
struct end {
    struct conn *conn;
    int opened, closed;
    err why;
    uint32_t msgs;
    void (*on_message)(struct end *x, struct msg *m); // NULL: counts and frees
    bool stop_on_close;
    bool of_many; // several connections in turn, or at once
    bool nobody;  // closed, and whoever had listened there is dead
};
static bool inside_call; // of the code under test: nothing may be delivered

static void end_opened(struct conn *c) {
    struct end *x = c->ctx;
    assert_false(inside_call);
    x->conn = c;
    x->opened++;
}

static void end_message(struct conn *c, struct msg *m) {
    struct end *x = c->ctx;
    assert_false(inside_call);
    assert_true(x->of_many || !x->closed);
    x->msgs++;
    if (x->on_message)
        x->on_message(x, m);
    else
        msg_free(m);
}

static void end_closed(struct conn *c, err why) {
    struct end *x = c->ctx;
    assert_false(inside_call);
    x->closed++;
    x->why = why;
    x->nobody = c->nobody;
    conn_close(c);                       // too late, and harmless
    conn_send(c, msg_new(env->mem, 1, 0)); // dropped silently
    if (x->stop_on_close) loop_stop(loop);
}

static const struct net_events end_events = {end_opened, end_message, end_closed};

static struct listener *listen_at(const char *at, struct end *server, char *connect_at, size_t len) {
    struct listener *l = NULL;
    assert_int_equal(net_listen(env, at, &end_events, server, &l), OK);
    if (host_listener_port(l))
        snprintf(connect_at, len, "127.0.0.1:%u", host_listener_port(l));
    else
        snprintf(connect_at, len, "%s", at);
    return l;
}

static struct conn *connect_to(const char *at, struct end *client) {
    inside_call = true;
    client->conn = net_connect(env, at, &end_events, client);
    inside_call = false;
    assert_non_null(client->conn);
    return client->conn;
}

static int raw_connect(const char *at) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool is_unix = strncmp(at, "unix:", 5) == 0;
    if (is_unix)
        snprintf(un.sun_path, sizeof un.sun_path, "%.100s", at + 5);
    else
        in.sin_port = htons((uint16_t)atoi(strrchr(at, ':') + 1));
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    int r = is_unix ? connect(fd, (struct sockaddr *)&un, sizeof un) : connect(fd, (struct sockaddr *)&in, sizeof in);
    assert_int_equal(r, 0);
    return fd;
}

// ---- ten thousand messages both ways --------------------------------------------------------------------------------
#define MANY 10000u
#define WINDOW 64u

static uint32_t payload_len_of(uint32_t i) {
    static const uint32_t small[] = {0, 1, 4095, 4096, 0, 0, 17, 5000};
    return i % 100 == 99 ? 1u << 20 : i % 20 == 7 ? 65536 : small[i % ARRAY_LEN(small)];
}

static void send_numbered(struct conn *c, uint32_t i) {
    uint32_t len = payload_len_of(i);
    struct msg *m = msg_new(env->mem, (uint16_t)(i % 1000), 4 + i % 300);
    m->flags = (uint16_t)(i % 0x8000);
    memcpy(m->body, &i, 4);
    if (len) {
        struct buf *b = buf_new(env->mem, len);
        memset(b->data, (int)(i % 251), len);
        b->data[len - 1] = (uint8_t)(i % 241 + 1);
        msg_set_payload(m, (struct slice){b, 0, len});
        buf_unref(b);
    }
    inside_call = true;
    conn_send(c, m);
    inside_call = false;
}

static void check_numbered(const struct msg *m, uint32_t i) {
    uint32_t got, len = payload_len_of(i);
    memcpy(&got, m->body, 4);
    assert_int_equal(got, i);
    assert_int_equal(m->type, i % 1000);
    assert_int_equal(m->flags, i % 0x8000);
    assert_int_equal(m->body_len, 4 + i % 300);
    assert_int_equal(m->payload.len_bytes, len);
    if (!len) return;
    const uint8_t *p = slice_data(m->payload);
    assert_int_equal((uintptr_t)p % BLOCK_BYTES, 0);
    assert_int_equal(p[len - 1], i % 241 + 1);
    if (len == 1) return;
    assert_int_equal(p[0], i % 251);
    if (len > 2) assert_memory_equal(p, p + 1, len - 2);
}

static uint32_t sent_len;

static void echo(struct end *x, struct msg *m) {
    check_numbered(m, x->msgs - 1);
    conn_send(x->conn, m);
}

static void check_echo(struct end *x, struct msg *m) {
    check_numbered(m, x->msgs - 1);
    msg_free(m);
    if (sent_len < MANY) send_numbered(x->conn, sent_len++);
    if (x->msgs == MANY) loop_stop(loop);
}

static void many_messages(const char *at) {
    char connect_at[400];
    struct end server = {.on_message = echo}, client = {.on_message = check_echo};
    struct listener *l = listen_at(at, &server, connect_at, sizeof connect_at);
    struct conn *c = connect_to(connect_at, &client);
    for (sent_len = 0; sent_len < WINDOW;) send_numbered(c, sent_len++); // before it is open
    assert_true(conn_queued_bytes(c) > WINDOW * FRAME_HEADER_BYTES);
    loop_run(loop);
    assert_int_equal(server.msgs, MANY);
    assert_int_equal(conn_queued_bytes(c), 0);
    assert_int_equal(client.opened + server.opened, 2);
    assert_int_equal(client.closed + server.closed, 0);
    struct host_counters count;
    loop_counters(loop, &count);
    assert_int_equal(count.msgs_in, 2 * MANY);
    assert_int_equal(count.net_bytes_in, count.net_bytes_out);
    assert_true(count.net_writes < MANY); // several messages in a call

    server.stop_on_close = true;
    conn_close(c);
    loop_run(loop);
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.why, ERR_CONN);
    assert_int_equal(client.closed, 0);
    net_unlisten(l);
}

static void messages_keep_their_order_over_unix_sockets(void **state) { many_messages(at_unix); }
static void messages_keep_their_order_over_tcp(void **state) { many_messages("127.0.0.1:0"); }

// ---- a peer that does not read --------------------------------------------------------------------------------------
static void what_a_peer_does_not_read_waits_in_the_queue(void **state) {
    char connect_at[400];
    struct end server = {0};
    struct listener *l = listen_at(at_unix, &server, connect_at, sizeof connect_at);
    int fd = raw_connect(connect_at);
    run_for(MSEC(5));
    for (uint32_t i = 0; i < 20; i++) send_numbered(server.conn, 99); // a megabyte each
    run_for(MSEC(20));
    uint64_t queued_bytes = conn_queued_bytes(server.conn);
    assert_true(queued_bytes > MIB(10));
    struct host_counters before, after;
    loop_counters(loop, &before);
    run_for(MSEC(20));
    loop_counters(loop, &after);
    assert_true(after.turns - before.turns < 10); // it does not spin meanwhile
    assert_int_equal(conn_queued_bytes(server.conn), queued_bytes);
    close(fd);
    run_for(MSEC(20));
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.why, ERR_CONN);
    net_unlisten(l);
}

// ---- ends -----------------------------------------------------------------------------------------------------------
static void close_at_third(struct end *x, struct msg *m) {
    msg_free(m);
    if (x->msgs == 3) conn_close(x->conn); // what came with it in the same read is not delivered
}

static void no_message_after_conn_close(void **state) {
    char connect_at[400];
    struct end server = {.on_message = close_at_third}, client = {.stop_on_close = true};
    struct listener *l = listen_at("127.0.0.1:0", &server, connect_at, sizeof connect_at);
    struct conn *c = connect_to(connect_at, &client);
    for (uint32_t i = 0; i < 6; i++) send_numbered(c, 0);
    loop_run(loop);
    assert_int_equal(server.msgs, 3);
    assert_int_equal(server.closed, 0);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.why, ERR_CONN);
    net_unlisten(l);
}

static void reply_and_close(struct end *x, struct msg *m) {
    conn_send(x->conn, m);
    conn_close(x->conn);
}

static void what_was_said_before_closing_arrives(void **state) {
    char connect_at[400];
    struct end server = {.on_message = reply_and_close}, client = {.stop_on_close = true};
    struct listener *l = listen_at(at_unix, &server, connect_at, sizeof connect_at);
    send_numbered(connect_to(connect_at, &client), 7);
    loop_run(loop);
    assert_int_equal(client.msgs, 1);
    assert_int_equal(client.closed, 1);
    net_unlisten(l);
}

static bool expect_connect(const char *at, err why) {
    struct end client = {.stop_on_close = true};
    struct conn *c = connect_to(at, &client);
    send_numbered(c, 3);
    loop_run(loop);
    assert_int_equal(client.opened, 0);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.why, why);
    return client.nobody;
}

static void where_nobody_listens_the_connection_ends_refused(void **state) {
    char connect_at[400];
    struct end server = {0};
    assert_false(expect_connect(at_unix, ERR_REFUSED));
    assert_false(expect_connect("unix:/no/such/directory/sock", ERR_REFUSED)); // the file says nothing, it is gone
    struct listener *l = listen_at("127.0.0.1:0", &server, connect_at, sizeof connect_at);
    net_unlisten(l);
    assert_false(expect_connect(connect_at, ERR_REFUSED)); // TCP: whoever has spoken
    expect_connect("127.0.0.1", ERR_INVAL);
    expect_connect("some.host.name:80", ERR_INVAL); // never a resolver's wait
    expect_connect("unix:", ERR_INVAL);
}

static void a_connection_closed_before_it_opened_says_nothing(void **state) {
    char connect_at[400];
    struct end server = {0}, client = {0};
    struct listener *l = listen_at(at_unix, &server, connect_at, sizeof connect_at);
    conn_close(connect_to(connect_at, &client));
    conn_close(connect_to("unix:/no/such/directory/sock", &client));
    run_for(MSEC(5));
    assert_int_equal(client.opened + client.closed, 0);
    net_unlisten(l);
}

// ---- garbage --------------------------------------------------------------------------------------------------------
// The bytes of a valid frame: four of body, a hundred of payload.
static size_t frame_of(uint8_t *out, uint32_t i, bool sum) {
    struct msg *m = msg_new(env->mem, 5, 4);
    memcpy(m->body, &i, 4);
    m->payload = (struct slice){buf_new(env->mem, 100), 0, 100};
    memset(slice_data(m->payload), 'p', 100);
    struct frame_header h;
    frame_encode(&h, m, sum, 0);
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, m->body, 4);
    memcpy(out + sizeof h + 4, slice_data(m->payload), 100);
    msg_free(m);
    return sizeof h + 4 + 100;
}

// Sends the bytes to a server, closes if asked, and tells how the server's end ended.
static void expect_end(const char *at, const uint8_t *p, size_t len, bool closes, uint32_t msgs, err why) {
    char connect_at[400];
    struct end server = {.stop_on_close = true};
    struct listener *l = listen_at(at, &server, connect_at, sizeof connect_at);
    int fd = raw_connect(connect_at);
    assert_int_equal(write(fd, p, len), len);
    if (closes) close(fd);
    loop_run(loop);
    assert_int_equal(server.opened, 1);
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.msgs, msgs);
    assert_int_equal(server.why, why);
    if (!closes) {
        char c;
        ssize_t n = read(fd, &c, 1);
        assert_true(n == 0 || (n < 0 && errno == ECONNRESET)); // the sender is told
        close(fd);
    }
    net_unlisten(l);
}

static void garbage_ends_the_connection_and_nothing_else(void **state) {
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    uint8_t p[300];
    for (int tcp = 0; tcp < 2; tcp++) {
        const char *at = tcp ? "127.0.0.1:0" : at_unix;
        expect_end(at, (const uint8_t *)http, sizeof http, false, 0, ERR_FORMAT);
        expect_end(at, (const uint8_t *)"G", 1, false, 0, ERR_FORMAT);
        size_t len = frame_of(p, 1, true);
        memcpy(p + len, "xyz", 3);
        expect_end(at, p, len + 3, false, 1, ERR_FORMAT); // what came before the garbage counts
        p[len - 1] ^= 1;
        expect_end(at, p, len, false, 0, ERR_FORMAT); // the payload's sum
        p[34] ^= 1;
        expect_end(at, p, len, false, 0, ERR_FORMAT); // the body's
    }
}

static void a_frame_cut_short_is_a_lost_connection(void **state) {
    uint8_t p[300];
    size_t len = frame_of(p, 1, true);
    for (size_t n = 0; n < len; n += 15) expect_end(at_unix, p, n, true, 0, ERR_CONN);
    expect_end(at_unix, p, len, true, 1, ERR_CONN);
}

struct stammer {
    int fd;
    size_t len;
    uint8_t bytes[1000];
};

static void co_stammer(void *arg) {
    struct stammer *s = arg;
    for (size_t i = 0; i < s->len; i++) {
        assert_int_equal(write(s->fd, s->bytes + i, 1), 1);
        co_sleep_until(env, env_now_ns(env) + USEC(20), "the next byte");
    }
    loop_stop(loop);
}

static void byte_by_byte_is_as_good_as_at_once(void **state) {
    char connect_at[400];
    struct end server = {0};
    struct stammer s = {0};
    struct listener *l = listen_at(at_unix, &server, connect_at, sizeof connect_at);
    s.fd = raw_connect(connect_at);
    for (uint32_t i = 0; i < 5; i++) s.len += frame_of(s.bytes + s.len, i, i % 2);
    env_spawn(env, "stammer", co_stammer, &s);
    loop_run(loop);
    run_for(MSEC(5));
    assert_int_equal(server.msgs, 5);
    assert_int_equal(server.closed, 0);
    close(s.fd);
    net_unlisten(l);
}

static void a_crowd_that_never_speaks_makes_room(void **state) {
    char connect_at[400];
    struct end server = {.of_many = true}, client = {0};
    host_set_conns_max(loop, 4);
    struct listener *l = listen_at("127.0.0.1:0", &server, connect_at, sizeof connect_at);
    send_numbered(connect_to(connect_at, &client), 1);
    run_for(MSEC(20));
    assert_int_equal(server.msgs, 1); // this one has spoken
    int fds[12];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) fds[i] = raw_connect(connect_at);
    run_for(MSEC(20));
    assert_int_equal(client.closed, 0);
    assert_int_equal(server.closed, 9); // 3 of 12 remain beside it
    struct host_counters count;
    loop_counters(loop, &count);
    assert_int_equal(count.conns_refused, 9);

    struct end late = {0};
    send_numbered(connect_to(connect_at, &late), 2);
    send_numbered(client.conn, 1);
    run_for(MSEC(20));
    assert_int_equal(late.closed + client.closed, 0); // it is let in, and the one that spoke stays
    assert_int_equal(server.msgs, 3);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) close(fds[i]);
    net_unlisten(l);
}

// ---- socket files ---------------------------------------------------------------------------------------------------
static pid_t listening_process(int backlog, bool stays) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%.100s", at_unix + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int failed = bind(fd, (struct sockaddr *)&un, sizeof un) || listen(fd, backlog);
    if (stays && !failed) raise(SIGSTOP);
    _exit(failed);
}

// Who is only stopped is refused too once its backlog is full; that proves nothing.
static void nobody_is_where_a_process_was_killed(void **state) {
    pid_t pid = listening_process(0, true);
    int status;
    waitpid(pid, &status, WUNTRACED);
    assert_true(WIFSTOPPED(status));
    int fd = raw_connect(at_unix); // fills the backlog of none
    assert_false(expect_connect(at_unix, ERR_REFUSED));
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_true(expect_connect(at_unix, ERR_REFUSED));
    close(fd);
}

static void a_socket_file_of_a_dead_process_is_removed(void **state) {
    pid_t pid = listening_process(1, false);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(access(at_unix + 5, F_OK), 0);
    char connect_at[400];
    struct end server = {0};
    struct listener *l = listen_at(at_unix, &server, connect_at, sizeof connect_at);
    close(raw_connect(connect_at));
    run_for(MSEC(5));
    assert_int_equal(server.opened, 1);
    net_unlisten(l);
    assert_int_not_equal(access(at_unix + 5, F_OK), 0);
}

static void an_address_in_use_is_busy(void **state) {
    char connect_at[400];
    struct end server = {0};
    struct listener *l = listen_at(at_unix, &server, connect_at, sizeof connect_at), *other;
    assert_int_equal(net_listen(env, at_unix, &end_events, NULL, &other), ERR_BUSY);
    run_for(MSEC(5)); // the probe came and went
    assert_int_equal(server.closed, server.opened);
    close(raw_connect(connect_at)); // and the first is still there
    net_unlisten(l);

    l = listen_at("127.0.0.1:0", &server, connect_at, sizeof connect_at);
    assert_int_equal(net_listen(env, connect_at, &end_events, NULL, &other), ERR_BUSY);
    net_unlisten(l);
}

static void a_file_that_is_no_socket_stays(void **state) {
    int fd = open(at_unix + 5, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "mine", 4), 4);
    close(fd);
    struct listener *l;
    assert_int_equal(net_listen(env, at_unix, &end_events, NULL, &l), ERR_EXIST);
    struct stat st;
    assert_int_equal(stat(at_unix + 5, &st), 0);
    assert_int_equal(st.st_size, 4);
}

static void a_long_path_is_no_obstacle(void **state) {
    char at[600], connect_at[600];
    int n = snprintf(at, sizeof at, "%s/", dir);
    for (int i = 0; i < 150; i++) at[n++] = 'd';
    at[n] = 0;
    assert_int_equal(mkdir(at, 0700), 0);
    char full[700];
    snprintf(full, sizeof full, "unix:%s/sock", at);
    struct end server = {0}, client = {0};
    struct listener *l = listen_at(full, &server, connect_at, sizeof connect_at);
    send_numbered(connect_to(full, &client), 0);
    run_for(MSEC(5));
    assert_int_equal(server.msgs, 1);
    conn_close(client.conn);
    net_unlisten(l);
}

static void addresses_are_made_numeric(void **state) {
    char out[200];
    assert_int_equal(host_resolve(env, "localhost:1234", out, sizeof out), OK);
    assert_true(strcmp(out, "127.0.0.1:1234") == 0 || strcmp(out, "[::1]:1234") == 0);
    assert_int_equal(host_resolve(env, "[::1]:80", out, sizeof out), OK);
    assert_string_equal(out, "[::1]:80");
    assert_int_equal(host_resolve(env, "unix:/a", out, sizeof out), OK);
    assert_string_equal(out, "unix:/a");
    assert_int_equal(host_resolve(env, "nonsense", out, sizeof out), ERR_INVAL);
}

static void a_loop_ends_in_the_middle_of_everything(void **state) {
    char connect_at[400];
    struct end server = {0}, client = {0};
    listen_at("127.0.0.1:0", &server, connect_at, sizeof connect_at);
    struct conn *c = connect_to(connect_at, &client);
    for (uint32_t i = 0; i < 500; i++) send_numbered(c, i);
    run_for(USEC(500));
    connect_to(connect_at, &client);
    connect_to(at_unix, &client);
    loop_destroy(loop);
    loop = NULL;
    assert_int_equal(client.closed + server.closed, 0);
}

static int descriptors(void) {
    int n = 0;
    for (int fd = 0; fd < 1000; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void a_loop_leaves_no_descriptor_behind(void **state) {
    char connect_at[400], store[400];
    int before = descriptors();
    struct loop *first = loop;
    loop = loop_create();
    env = loop_env(loop);
    struct end server = {0}, client = {0};
    struct disk *d;
    struct disk_open_args a = {.path = store, .create = true, .size_bytes = MIB(1)}, again = {.path = store};
    snprintf(store, sizeof store, "%s/store", dir);
    listen_at(at_unix, &server, connect_at, sizeof connect_at);
    listen_at("127.0.0.1:0", &server, connect_at, sizeof connect_at);
    connect_to(connect_at, &client);
    connect_to(at_unix, &client);
    connect_to("unix:/no/such/directory/sock", &client);
    assert_int_equal(disk_open(env, &a, &d), OK);
    assert_int_equal(disk_open(env, &again, &d), ERR_LOCKED);
    run_for(MSEC(5));
    assert_int_equal(client.opened + server.opened, 4);
    loop_destroy(loop);
    loop = first;
    assert_int_equal(descriptors(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(messages_keep_their_order_over_unix_sockets, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_keep_their_order_over_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_peer_does_not_read_waits_in_the_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(no_message_after_conn_close, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_said_before_closing_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(where_nobody_listens_the_connection_ends_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connection_closed_before_it_opened_says_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_ends_the_connection_and_nothing_else, setup, teardown),
        cmocka_unit_test_setup_teardown(a_frame_cut_short_is_a_lost_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(byte_by_byte_is_as_good_as_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crowd_that_never_speaks_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_is_where_a_process_was_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_socket_file_of_a_dead_process_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_in_use_is_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_socket_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_path_is_no_obstacle, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses_are_made_numeric, setup, teardown),
        cmocka_unit_test_setup_teardown(a_loop_leaves_no_descriptor_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(a_loop_ends_in_the_middle_of_everything, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
