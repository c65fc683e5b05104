// The loop itself: timers, signals, watched descriptors, tasks that never rest, the log.
#include "host/loop.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct loop *loop;
static struct env *env;
static char dir[256];

static int setup(void **state) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/host-loop-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    loop = loop_create();
    env = loop_env(loop);
    alarm(60); // a loop that never stops fails the test
    return 0;
}

static int teardown(void **state) {
    loop_destroy(loop);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static char *path_of(const char *name) {
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void stop(void *arg) { loop_stop(loop); }

// ---- timers ---------------------------------------------------------------------------------------------------------
static int fired[3], fired_len;
static uint64_t due_ns[3];
static bool early;

static void on_timer(void *arg) {
    int i = (int)(intptr_t)arg;
    early |= env_now_ns(env) < due_ns[i];
    fired[fired_len++] = i;
    if (fired_len == 3) loop_stop(loop);
}

static void timers_fire_in_order_and_never_early(void **state) {
    static const uint64_t after_ns[] = {MSEC(6), USEC(300), MSEC(2)};
    struct timer t[3] = {0};
    fired_len = 0;
    uint64_t began_ns = env_now_ns(env);
    for (int i = 0; i < 3; i++) {
        due_ns[i] = began_ns + after_ns[i];
        timer_set(env, &t[i], due_ns[i], on_timer, (void *)(intptr_t)i);
    }
    loop_run(loop);
    assert_int_equal(fired[0], 1);
    assert_int_equal(fired[1], 2);
    assert_int_equal(fired[2], 0);
    assert_false(early);
    assert_true(env_now_ns(env) - began_ns < SEC(2)); // a loaded machine
}

static void sleeper(void *arg) {
    for (int i = 0; i < 50; i++) co_sleep_until(env, env_now_ns(env) + USEC(100), "a tenth of a millisecond");
    loop_stop(loop);
}

static void an_idle_loop_sleeps_with_a_precision_below_a_millisecond(void **state) {
    uint64_t began_ns = env_now_ns(env);
    env_spawn(env, "sleeper", sleeper, NULL);
    loop_run(loop);
    struct host_counters c;
    loop_counters(loop, &c);
    assert_true(env_now_ns(env) - began_ns >= MSEC(5));
    assert_true(c.polls < 500); // it slept, it did not spin
}

// ---- signals --------------------------------------------------------------------------------------------------------
static int terms;
static void on_term(void *arg) {
    terms++;
    loop_stop(loop);
}

static void a_signal_arrives_on_the_loop(void **state) {
    loop_on_signal(loop, SIGTERM, on_term, NULL);
    loop_on_signal(loop, SIGINT, on_term, NULL);
    kill(getpid(), SIGTERM);
    assert_int_equal(terms, 0);
    loop_run(loop);
    assert_int_equal(terms, 1);
    kill(getpid(), SIGINT);
    loop_run(loop);
    assert_int_equal(terms, 2);
}

static void a_child_gets_its_signals_back(void **state) {
    loop_on_signal(loop, SIGTERM, on_term, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        loop_unblock_signals();
        for (;;) pause();
    }
    usleep(20000);
    kill(pid, SIGTERM);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static bool file_contains(const char *path, const char *text) {
    static char all[65536];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(all, 1, sizeof all - 1, f);
    all[n] = 0;
    fclose(f);
    return strstr(all, text) != NULL;
}

static void waits_for_ever(void *arg) {
    struct waitq q;
    waitq_init(&q);
    co_wait(env, &q, "godot");
}

static void sigusr1_writes_what_tasks_wait_for(void **state) {
    char log[300];
    snprintf(log, sizeof log, "%s", path_of("log"));
    assert_int_equal(loop_log_file(loop, log, 0), OK);
    struct timer t = {0};
    env_spawn(env, "vladimir", waits_for_ever, NULL);
    kill(getpid(), SIGUSR1);
    timer_set(env, &t, env_now_ns(env) + MSEC(20), stop, NULL);
    loop_run(loop);
    assert_true(file_contains(log, "vladimir"));
    assert_true(file_contains(log, "godot"));
}

// ---- watches --------------------------------------------------------------------------------------------------------
static struct watch *pipe_watch;
static int pipe_fd[2], pipe_calls;

static void on_pipe(void *arg, uint32_t events) {
    char c;
    assert_true(events & EPOLLIN);
    assert_int_equal(read(pipe_fd[0], &c, 1), 1);
    if (++pipe_calls < 3) return; // two bytes more wait: level-triggered, so we are called again
    loop_unwatch(pipe_watch);
    loop_stop(loop);
}

static void a_foreign_descriptor_is_watched(void **state) {
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(loop_watch(loop, pipe_fd[0], EPOLLIN, on_pipe, NULL, &pipe_watch), OK);
    assert_int_equal(write(pipe_fd[1], "abcd", 4), 4);
    pipe_calls = 0;
    loop_run(loop);
    assert_int_equal(pipe_calls, 3);

    struct timer t = {0};
    timer_set(env, &t, env_now_ns(env) + MSEC(5), stop, NULL);
    loop_run(loop);
    assert_int_equal(pipe_calls, 3); // unwatched is unwatched

    int fd = open(path_of("plain"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(loop_watch(loop, fd, EPOLLIN, on_pipe, NULL, &pipe_watch), ERR_PERM);
    close(fd);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

static bool resting;
static void never_rests(void *arg) {
    while (!resting) co_yield(env);
}

static void tasks_that_never_rest_do_not_keep_others_waiting(void **state) {
    resting = false;
    for (int i = 0; i < 100; i++) env_spawn(env, "restless", never_rests, NULL);
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(loop_watch(loop, pipe_fd[0], EPOLLIN, on_pipe, NULL, &pipe_watch), OK);
    assert_int_equal(write(pipe_fd[1], "abc", 3), 3);
    pipe_calls = 0;
    loop_run(loop);
    assert_int_equal(pipe_calls, 3);
    resting = true;
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

// ---- the log and the rest -------------------------------------------------------------------------------------------
static void the_log_is_bounded(void **state) {
    char log[300], old[304];
    snprintf(log, sizeof log, "%s", path_of("log"));
    snprintf(old, sizeof old, "%s.1", log);
    assert_int_equal(loop_log_file(loop, log, 10000), OK);
    for (int i = 0; i < 1000; i++) LOG(env, TRACE_INFO, "line %d of a thousand that are alike", i);
    LOG(env, TRACE_DEBUG, "not at this level");
    struct stat st;
    assert_int_equal(stat(log, &st), 0);
    assert_true(st.st_size < 10200);
    assert_int_equal(stat(old, &st), 0);
    assert_true(st.st_size >= 10000 && st.st_size < 10200);
    LOG(env, TRACE_WARN, "the last line");
    assert_true(file_contains(log, "Z W the last line\n"));
    assert_false(file_contains(log, "not at this level"));
    assert_int_equal(loop_log_file(loop, path_of("no/such/directory"), 0), ERR_NOENT);
}

static void random_numbers_differ(void **state) {
    uint64_t seen[100];
    for (int i = 0; i < 100; i++) {
        seen[i] = env_random(env);
        for (int k = 0; k < i; k++) assert_int_not_equal(seen[i], seen[k]);
    }
    assert_true(env_wall_ns(env) > SEC(1700000000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timers_fire_in_order_and_never_early, setup, teardown),
        cmocka_unit_test_setup_teardown(an_idle_loop_sleeps_with_a_precision_below_a_millisecond, setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_arrives_on_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_child_gets_its_signals_back, setup, teardown),
        cmocka_unit_test_setup_teardown(sigusr1_writes_what_tasks_wait_for, setup, teardown),
        cmocka_unit_test_setup_teardown(a_foreign_descriptor_is_watched, setup, teardown),
        cmocka_unit_test_setup_teardown(tasks_that_never_rest_do_not_keep_others_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(the_log_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(random_numbers_differ, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
