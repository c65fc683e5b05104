// The disk of the real world: an image file, its lock, direct I/O by threads, flushes, and what goes wrong.
#include "host/loop.h"
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define STORE_BYTES MIB(16)

static struct loop *loop;
static struct env *env;
static char dir[256], store[300];

static int setup(void **state) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/host-disk-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(store, sizeof store, "%s/store", dir);
    loop = loop_create();
    env = loop_env(loop);
    alarm(60);
    return 0;
}

static int teardown(void **state) {
    loop_destroy(loop);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static struct disk *open_store(void) {
    struct disk *d = NULL;
    struct disk_open_args a = {.path = store, .create = true, .size_bytes = STORE_BYTES};
    assert_int_equal(disk_open(env, &a, &d), OK);
    return d;
}

static void run_task(void (*fn)(void *arg), void *arg) {
    env_spawn(env, "test", fn, arg);
    loop_run(loop);
}

static void close_store(void *arg) {
    co_disk_close(arg);
    loop_stop(loop);
}

static struct buf *filled(uint32_t len_bytes, int value) {
    struct buf *b = buf_new(env->mem, len_bytes);
    memset(b->data, value, len_bytes);
    return b;
}

// ---- opening --------------------------------------------------------------------------------------------------------
static void an_image_has_its_size_at_once_and_is_never_shrunk(void **state) {
    struct disk *d = open_store();
    struct stat st;
    assert_int_equal(disk_size_bytes(d), STORE_BYTES);
    assert_int_equal(stat(store, &st), 0);
    assert_int_equal(st.st_size, STORE_BYTES);
    assert_int_equal(st.st_mode & 0777, 0600);
    run_task(close_store, d);

    struct disk_open_args smaller = {.path = store, .create = true, .size_bytes = MIB(1)};
    assert_int_equal(disk_open(env, &smaller, &d), OK);
    assert_int_equal(disk_size_bytes(d), STORE_BYTES);
    run_task(close_store, d);

    struct disk_open_args larger = {.path = store, .create = true, .size_bytes = 2 * STORE_BYTES};
    assert_int_equal(disk_open(env, &larger, &d), OK);
    assert_int_equal(disk_size_bytes(d), 2 * STORE_BYTES);
    run_task(close_store, d);
}

static void what_cannot_be_opened_says_why(void **state) {
    struct disk *d;
    struct disk_open_args a = {.path = store};
    assert_int_equal(disk_open(env, &a, &d), ERR_NOENT);
    a.create = true;
    assert_int_equal(disk_open(env, &a, &d), ERR_TOOSMALL);
    assert_int_not_equal(access(store, F_OK), 0); // nothing is left behind
    a.path = "/dev/null";
    assert_int_equal(disk_open(env, &a, &d), ERR_INVAL);
    a.path = dir;
    assert_int_equal(disk_open(env, &a, &d), ERR_ISDIR);
}

static void a_store_larger_than_the_file_system_is_refused_at_once(void **state) {
    struct disk *d;
    struct disk_open_args a = {.path = store, .create = true, .size_bytes = GIB(1) << 20};
    assert_int_equal(disk_open(env, &a, &d), ERR_NOSPC);
    assert_int_not_equal(access(store, F_OK), 0);
}

// ---- the lock -------------------------------------------------------------------------------------------------------
static err lock_in_child(void) {
    pid_t pid = fork();
    if (pid == 0) {
        int fd;
        _exit(host_lock_take(store, &fd));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return (err)WEXITSTATUS(status);
}

static void an_open_store_is_locked_against_all_others(void **state) {
    struct disk *d = open_store(), *other;
    struct disk_open_args a = {.path = store};
    assert_int_equal(lock_in_child(), ERR_LOCKED);
    assert_int_equal(disk_open(env, &a, &other), ERR_LOCKED); // also within the process
    run_task(close_store, d);
    assert_int_equal(lock_in_child(), OK);
}

static void a_lock_dies_with_its_process(void **state) {
    struct disk *d = open_store();
    run_task(close_store, d);
    int told[2];
    assert_int_equal(pipe(told), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd;
        err e = host_lock_take(store, &fd);
        if (write(told[1], &e, sizeof e) < 0) _exit(1);
        for (;;) pause();
    }
    err e;
    int fd;
    assert_int_equal(read(told[0], &e, sizeof e), sizeof e);
    assert_int_equal(e, OK);
    assert_int_equal(host_lock_take(store, &fd), ERR_LOCKED);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(host_lock_take(store, &fd), OK);
    host_lock_release(fd);
    close(told[0]);
    close(told[1]);
}

// ---- reading and writing --------------------------------------------------------------------------------------------
static void write_flush_read(void *arg) {
    struct disk *d = arg;
    struct buf *out = filled(65536, 0), *in = filled(65536, 0xee);
    for (uint32_t i = 0; i < 65536; i++) out->data[i] = (uint8_t)(i / 7 * 31);
    assert_int_equal(co_disk_write(d, MIB(1), out->data, 65536), OK);
    assert_int_equal(co_disk_flush(d), OK);
    assert_int_equal(co_disk_read(d, MIB(1), in->data, 65536), OK);
    assert_memory_equal(in->data, out->data, 65536);
    assert_int_equal(co_disk_read(d, STORE_BYTES - BLOCK_BYTES, in->data, BLOCK_BYTES), OK); // the last block
    assert_int_equal(in->data[0], 0);
    buf_unref(in);
    buf_unref(out);
    co_disk_close(d);
    loop_stop(loop);
}

static void what_is_written_is_read(void **state) {
    run_task(write_flush_read, open_store());
    uint8_t p[14];
    int fd = open(store, O_RDONLY);
    assert_int_equal(pread(fd, p, sizeof p, MIB(1)), sizeof p);
    assert_int_equal(p[13], 31);
    close(fd);
}

// ---- power-protected devices
static int flags_of_store(void) { // of our own descriptor of it
    struct stat want, have;
    assert_int_equal(stat(store, &want), 0);
    for (int fd = 3; fd < 100; fd++)
        if (fstat(fd, &have) == 0 && have.st_ino == want.st_ino && have.st_dev == want.st_dev)
            return fcntl(fd, F_GETFL);
    fail_msg("the store is not open");
    return 0;
}

// What an image file's own file system knows of it is durable with each write instead.
static void a_power_protected_image_is_written_through_and_not_flushed(void **state) {
    struct disk *d;
    struct host_counters before, after;
    struct disk_open_args a = {.path = store, .create = true, .size_bytes = STORE_BYTES, .power_protected = true};
    loop_counters(loop, &before);
    assert_int_equal(disk_open(env, &a, &d), OK);
    assert_int_equal(flags_of_store() & O_DSYNC, O_DSYNC);
    run_task(write_flush_read, d);
    loop_counters(loop, &after);
    assert_int_equal(after.disk_flushes, before.disk_flushes);
    assert_int_equal(after.disk_calls - before.disk_calls, 3); // one write, two reads
    d = open_store();
    assert_int_equal(flags_of_store() & O_DSYNC, 0);
    run_task(write_flush_read, d);
    loop_counters(loop, &before);
    assert_int_equal(before.disk_flushes - after.disk_flushes, 1);
}

#define MANY 256
static struct disk_io ios[MANY];
static int done_len;
static bool inside_submit;

static void count_done(struct disk_io *io) {
    assert_false(inside_submit);
    assert_int_equal(io->result, OK);
    if (++done_len == *(int *)io->arg) loop_stop(loop);
}

// One task submits all of `len` at once; block i of the store gets or gives block i of b.
struct many {
    struct disk *d;
    enum disk_op op;
    struct buf *b;
    int len;
    uint32_t step; // blocks from one I/O to the next
};

static void submit_many(void *arg) {
    struct many *m = arg;
    inside_submit = true;
    for (int i = 0; i < m->len; i++) {
        ios[i] = (struct disk_io){.op = m->op, .done = count_done, .arg = &m->len};
        if (m->op != DISK_FLUSH) {
            ios[i].off_bytes = (uint64_t)i * m->step * BLOCK_BYTES;
            ios[i].iov_len = 1;
            ios[i].iov[0].base = m->b->data + (size_t)i * BLOCK_BYTES;
            ios[i].iov[0].len_bytes = BLOCK_BYTES;
        }
        disk_submit(m->d, &ios[i]);
    }
    inside_submit = false;
}

static uint64_t calls_of_many(struct many m) {
    struct host_counters before, after;
    done_len = 0;
    loop_counters(loop, &before);
    run_task(submit_many, &m);
    loop_counters(loop, &after);
    assert_int_equal(done_len, m.len);
    return after.disk_calls - before.disk_calls;
}

static void scattered_writes_all_arrive_and_neighbours_share_a_call(void **state) {
    struct disk *d = open_store();
    struct buf *out = filled(MANY * BLOCK_BYTES, 0), *in = filled(MANY * BLOCK_BYTES, 0xee);
    for (uint32_t i = 0; i < MANY * BLOCK_BYTES; i++) out->data[i] = (uint8_t)(i / BLOCK_BYTES + i % 251);
    assert_int_equal(calls_of_many((struct many){d, DISK_WRITE, out, MANY, 3}), MANY);
    assert_int_equal(calls_of_many((struct many){d, DISK_READ, in, MANY, 3}), MANY);
    assert_memory_equal(in->data, out->data, MANY * BLOCK_BYTES);

    memset(in->data, 0xee, MANY * BLOCK_BYTES);
    assert_int_equal(calls_of_many((struct many){d, DISK_WRITE, out, MANY, 1}), 1);
    assert_int_equal(calls_of_many((struct many){d, DISK_READ, in, MANY, 1}), 1);
    assert_memory_equal(in->data, out->data, MANY * BLOCK_BYTES);

    assert_true(calls_of_many((struct many){d, DISK_FLUSH, NULL, MANY, 0}) <= 2);
    buf_unref(in);
    buf_unref(out);
    run_task(close_store, d);
}

static void gather_and_scatter(void *arg) {
    struct disk *d = arg;
    struct buf *b = filled(DISK_IOV_MAX * BLOCK_BYTES, 0);
    for (int i = 0; i < DISK_IOV_MAX; i++) memset(b->data + i * BLOCK_BYTES, i + 1, BLOCK_BYTES);
    struct disk_io *io = &ios[0];
    *io = (struct disk_io){.op = DISK_WRITE, .iov_len = DISK_IOV_MAX, .done = count_done, .arg = &(int){1}};
    for (int i = 0; i < DISK_IOV_MAX; i++) { // backwards in memory
        io->iov[i].base = b->data + (DISK_IOV_MAX - 1 - i) * BLOCK_BYTES;
        io->iov[i].len_bytes = BLOCK_BYTES;
    }
    done_len = -1; // count_done then does not stop the loop
    disk_submit(d, io);
    while (done_len < 0) co_sleep_until(env, env_now_ns(env) + USEC(100), "done");
    struct buf *in = filled(DISK_IOV_MAX * BLOCK_BYTES, 0);
    assert_int_equal(co_disk_read(d, 0, in->data, DISK_IOV_MAX * BLOCK_BYTES), OK);
    for (int i = 0; i < DISK_IOV_MAX; i++) assert_int_equal(in->data[i * BLOCK_BYTES], DISK_IOV_MAX - i);
    buf_unref(in);
    buf_unref(b);
    loop_stop(loop);
}

static void an_io_of_many_parts(void **state) {
    struct disk *d = open_store();
    run_task(gather_and_scatter, d);
    run_task(close_store, d);
}

// ---- what goes wrong ------------------------------------------------------------------------------------------------
static err outside_result;
static void outside_done(struct disk_io *io) {
    assert_false(inside_submit);
    outside_result = io->result;
    loop_stop(loop);
}

static void beyond_the_end(void *arg) {
    struct disk *d = arg;
    struct buf *b = filled(2 * BLOCK_BYTES, 1);
    ios[0] = (struct disk_io){.op = DISK_WRITE, .iov_len = 1, .done = outside_done};
    ios[0].off_bytes = STORE_BYTES - BLOCK_BYTES;
    ios[0].iov[0].base = b->data;
    ios[0].iov[0].len_bytes = 2 * BLOCK_BYTES;
    inside_submit = true;
    disk_submit(d, &ios[0]);
    inside_submit = false;
    buf_unref(b);
}

static void read_of_what_was_cut(void *arg) {
    struct buf *b = filled(BLOCK_BYTES, 0);
    assert_int_equal(co_disk_read(arg, MIB(8), b->data, BLOCK_BYTES), ERR_IO);
    assert_int_equal(co_disk_read(arg, 0, b->data, BLOCK_BYTES), OK);
    buf_unref(b);
    loop_stop(loop);
}

static void failed_ios_are_errors_not_ends(void **state) {
    struct disk *d = open_store();
    outside_result = OK;
    run_task(beyond_the_end, d);
    assert_int_equal(outside_result, ERR_IO);
    struct stat st;
    assert_int_equal(stat(store, &st), 0);
    assert_int_equal(st.st_size, STORE_BYTES);

    assert_int_equal(truncate(store, MIB(4)), 0); // by somebody's hand
    run_task(read_of_what_was_cut, d);
    run_task(close_store, d);
}

// In a child with a mount namespace of its own, where a file system of one megabyte holds a store of sixteen, not
// reserved. 77: this system does not allow it.
static void fill_small_file_system(void *arg) {
    struct buf *b = filled(MIB(1), 5);
    err first = co_disk_write(arg, 0, b->data, KIB(256));
    err later = co_disk_write(arg, MIB(8), b->data, MIB(1));
    err flushed = co_disk_flush(arg);
    _exit(first == OK && later == ERR_NOSPC && flushed == OK ? 0 : 1);
}

static _Noreturn void run_on_small_file_system(void) {
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) _exit(77);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) _exit(77);
    if (mount("none", dir, "tmpfs", 0, "size=1m") != 0) _exit(77);
    int fd = open(store, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, STORE_BYTES) != 0) _exit(77);
    close(fd);
    struct disk *d;
    struct disk_open_args a = {.path = store};
    if (disk_open(env, &a, &d) != OK) _exit(2);
    run_task(fill_small_file_system, d);
    _exit(3);
}

static void a_full_file_system_is_no_space(void **state) {
    pid_t pid = fork();
    if (pid == 0) {
        loop = loop_create(); // the parent's threads and epoll are not for a child
        env = loop_env(loop);
        run_on_small_file_system();
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void writes_for_ever(void *arg) {
    struct buf *b = filled(65536, 7);
    for (;;) assert_int_equal(co_disk_write(arg, 0, b->data, 65536), OK);
}

static void stop(void *arg) { loop_stop(loop); }

static void a_loop_ends_with_ios_in_flight(void **state) {
    struct disk *d = open_store();
    for (int i = 0; i < 16; i++) env_spawn(env, "writer", writes_for_ever, d);
    struct timer t = {0};
    timer_set(env, &t, env_now_ns(env) + MSEC(10), stop, NULL);
    loop_run(loop);
    loop_destroy(loop);
    loop = NULL;
    int fd;
    assert_int_equal(host_lock_take(store, &fd), OK);
    host_lock_release(fd);
}

static void direct_io_or_not_the_bytes_are_the_same(void **state) {
    if (access("/dev/shm", W_OK) != 0) skip();
    snprintf(store, sizeof store, "/dev/shm/host-disk-%d", (int)getpid());
    struct disk *d = open_store();
    run_task(write_flush_read, d);
    unlink(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_image_has_its_size_at_once_and_is_never_shrunk, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_opened_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(a_store_larger_than_the_file_system_is_refused_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(an_open_store_is_locked_against_all_others, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lock_dies_with_its_process, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_written_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_power_protected_image_is_written_through_and_not_flushed, setup, teardown),
        cmocka_unit_test_setup_teardown(scattered_writes_all_arrive_and_neighbours_share_a_call, setup, teardown),
        cmocka_unit_test_setup_teardown(an_io_of_many_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(failed_ios_are_errors_not_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_file_system_is_no_space, setup, teardown),
        cmocka_unit_test_setup_teardown(a_loop_ends_with_ios_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(direct_io_or_not_the_bytes_are_the_same, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
