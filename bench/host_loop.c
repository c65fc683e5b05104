// What a message and a disk I/O cost on this machine: round trips between two processes, 4 KiB writes, flushes; per
// second, and system calls for each.
// gcc -O2 -g -std=gnu17 -D_GNU_SOURCE -Isrc bench/host_loop.c src/host/*.c src/wire/frame.c src/env/*.c src/base/*.[cS]
//     -lisal -lpthread -o host_loop && ./host_loop DIR
#include "host/loop.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct loop *loop;
static struct env *env;
static uint64_t stop_at_ns, ops;

static void report(const char *what, uint64_t began_ns, const struct host_counters *before) {
    struct host_counters now;
    loop_counters(loop, &now);
    double s = (double)(env_now_ns(env) - began_ns) / 1e9;
    printf("%-52s %9.0f /s  %7.1f us  %5.2f syscalls  %5.2f disk calls  %5.2f wakes\n", what, (double)ops / s,
           1e6 * s / (double)ops, (double)(now.syscalls - before->syscalls) / (double)ops,
           (double)(now.disk_calls - before->disk_calls) / (double)ops,
           (double)(now.wakes - before->wakes) / (double)ops);
    fflush(stdout);
}

static void run(const char *what, uint64_t for_ns, void (*start)(void *arg), void *arg) {
    struct host_counters before;
    loop_counters(loop, &before);
    uint64_t began_ns = env_now_ns(env);
    stop_at_ns = began_ns + for_ns;
    ops = 0;
    start(arg);
    loop_run(loop);
    report(what, began_ns, &before);
}

// ---- messages -------------------------------------------------------------------------------------------------------
static void opened(struct conn *c) { loop_stop(loop); }
static void nothing(struct conn *c) {}
static void closed(struct conn *c, err why) { loop_stop(loop); }
static void echo(struct conn *c, struct msg *m) { conn_send(c, m); }
static int outstanding;
static void again(struct conn *c, struct msg *m) {
    ops++;
    if (env_now_ns(env) < stop_at_ns) {
        conn_send(c, m);
        return;
    }
    msg_free(m);
    if (--outstanding == 0) loop_stop(loop);
}
static const struct net_events server_events = {nothing, echo, closed}, client_events = {opened, again, closed};

static pid_t start_server(const char *at) {
    pid_t pid = fork();
    if (pid) return pid;
    loop = loop_create();
    struct listener *l;
    if (net_listen(loop_env(loop), at, &server_events, NULL, &l) != OK) _exit(1);
    loop_run(loop); // until the client goes
    loop_destroy(loop);
    _exit(0);
}

struct flight {
    struct conn *conn;
    int len;
    uint32_t payload_len;
};

static void take_off(void *arg) {
    struct flight *f = arg;
    outstanding = f->len;
    for (int i = 0; i < f->len; i++) {
        struct msg *m = msg_new(env->mem, 1, 64 - 32);
        if (f->payload_len) {
            m->payload = (struct slice){buf_new(env->mem, f->payload_len), 0, f->payload_len};
            memset(slice_data(m->payload), i, f->payload_len);
        }
        conn_send(f->conn, m);
    }
}

static void bench_net(const char *at) {
    pid_t pid = start_server(at);
    usleep(100000);
    loop = loop_create();
    env = loop_env(loop);
    struct conn *c = net_connect(env, at, &client_events, NULL);
    loop_run(loop);
    static const struct { int len; uint32_t payload_len; } flights[] = {
        {1, 0}, {32, 0}, {1, 4096}, {8, 65536}, {4, 1 << 20}};
    for (size_t i = 0; i < ARRAY_LEN(flights); i++) {
        char what[200];
        snprintf(what, sizeof what, "%.9s round trips, %2d in flight, %u bytes", at, flights[i].len,
                 flights[i].payload_len ? flights[i].payload_len : 64);
        run(what, SEC(1), take_off, &(struct flight){c, flights[i].len, flights[i].payload_len});
    }
    conn_close(c);
    loop_destroy(loop);
    waitpid(pid, NULL, 0);
}

// ---- disk -----------------------------------------------------------------------------------------------------------
#define STORE_BYTES MIB(512)
#define DEPTH_MAX 64

static struct disk_io ios[DEPTH_MAX];
static struct disk *disk;
static uint64_t next_block;
static bool scattered;
static int batch_len, batch_done;

static void submit_one(struct disk_io *io) {
    uint64_t block = scattered ? env_random(env) : next_block++;
    io->off_bytes = block % (STORE_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
    disk_submit(disk, io);
}

static void disk_done(struct disk_io *io) {
    ASSERT(io->result == OK);
    ops++;
    if (++batch_done < batch_len && !scattered) return;
    if (env_now_ns(env) >= stop_at_ns) { // in order: nothing is in flight now; scattered: drain
        if (batch_done == batch_len || --outstanding == 0) loop_stop(loop);
        return;
    }
    if (scattered) {
        batch_done = 0;
        submit_one(io);
        return;
    }
    batch_done = 0;
    for (int i = 0; i < batch_len; i++) submit_one(&ios[i]);
}

static void start_writes(void *arg) {
    outstanding = batch_len = *(int *)arg;
    batch_done = 0;
    if (scattered) batch_len = DEPTH_MAX + 1;
    struct buf *b = buf_new(env->mem, BLOCK_BYTES);
    memset(b->data, 1, BLOCK_BYTES);
    for (int i = 0; i < outstanding; i++) {
        ios[i] = (struct disk_io){.op = DISK_WRITE, .iov_len = 1, .done = disk_done};
        ios[i].iov[0].base = b->data;
        ios[i].iov[0].len_bytes = BLOCK_BYTES;
        submit_one(&ios[i]);
    }
}

static void co_write_and_flush(void *arg) {
    struct buf *b = buf_new(env->mem, BLOCK_BYTES);
    memset(b->data, 2, BLOCK_BYTES);
    for (; env_now_ns(env) < stop_at_ns; ops++) {
        err e = co_disk_write(disk, next_block++ % (STORE_BYTES / BLOCK_BYTES) * BLOCK_BYTES, b->data, BLOCK_BYTES);
        ASSERT(e == OK);
        e = co_disk_flush(disk);
        ASSERT(e == OK);
    }
    if (--outstanding == 0) loop_stop(loop);
}

static void start_flushers(void *arg) {
    outstanding = *(int *)arg;
    for (int i = 0; i < outstanding; i++) env_spawn(env, "flusher", co_write_and_flush, NULL);
}

static void bench_disk(const char *path) {
    loop = loop_create();
    env = loop_env(loop);
    struct disk_open_args a = {.path = path, .create = true, .size_bytes = STORE_BYTES};
    err e = disk_open(env, &a, &disk);
    ASSERT(e == OK);
    static int depths[] = {1, 8, 32};
    for (int pass = 0; pass < 2; pass++) {
        char what[200];
        const char *place = pass ? "written before" : "fresh";
        for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
            scattered = true;
            snprintf(what, sizeof what, "4 KiB writes, scattered, %2d in flight, %s", depths[i], place);
            run(what, SEC(1), start_writes, &depths[i]);
        }
        for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
            scattered = false;
            snprintf(what, sizeof what, "4 KiB writes, in order, batches of %2d, %s", depths[i], place);
            run(what, SEC(1), start_writes, &depths[i]);
        }
        for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
            snprintf(what, sizeof what, "4 KiB write + flush, %2d tasks, %s", depths[i], place);
            run(what, SEC(1), start_flushers, &depths[i]);
        }
    }
    loop_destroy(loop);
    unlink(path);
}

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : "/tmp";
    char at[500], path[500];
    snprintf(at, sizeof at, "unix:%s/host-loop-%d.sock", dir, (int)getpid());
    snprintf(path, sizeof path, "%s/host-loop-%d.store", dir, (int)getpid());
    bench_net(at);
    bench_net("127.0.0.1:29871");
    bench_disk(path);
    return 0;
}
