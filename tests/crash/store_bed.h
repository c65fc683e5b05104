// A bed for tests of the store: one simulated node with one disk, or a second one for the journal, and scripts that run
// in a task of it.
#pragma once
#include "base/sum.h"
#include "sim/world.h"
#include "store/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants what is above before it

struct bed {
    struct world *w;
    struct node *n;
    void (*script)(struct bed *b);
    bool over;
    struct disk *d;
    bool journal_apart;   // on "journal", else in the store
    bool protected_disks; // the store believes that its devices keep what they have accepted
    struct store *s;
    struct store_config config; // .journal is open while the disk is
    struct store_hooks hooks;
    uint64_t size_bytes;
    void *user;
};
static const struct store_ident bed_ident = {"cluster-cluster", "store-of-a-test", 2, 4};

static inline void bed_trace(void *ctx, const char *line) {
    fprintf(stderr, "%s\n", line);
}
static inline void bed_init(struct bed *b, uint64_t seed, uint64_t size_bytes) {
    struct world_options o = world_options_default();
    if (getenv("BED_TRACE")) {
        o.trace = bed_trace;
        o.trace_level = TRACE_DEBUG;
    }
    *b = (struct bed){.w = world_create(seed, &o), .size_bytes = size_bytes};
    b->n = node_add(b->w, "iom");
}
static inline void bed_fini(struct bed *b) {
    world_destroy(b->w);
}
static inline void bed_task(void *arg) {
    struct bed *b = arg;
    b->script(b);
    b->over = true;
}
static inline bool bed_going(void *ctx) {
    return !((struct bed *)ctx)->over && node_running(((struct bed *)ctx)->n);
}
// Runs the script in a new life of the node; false if it died on the way.
static inline bool bed_run(struct bed *b, void (*script)(struct bed *b)) {
    b->script = script;
    b->over = false;
    b->d = NULL;
    b->s = NULL;
    node_start(b->n, bed_task, b);
    bool in_time = world_run_while(b->w, bed_going, b, world_now_ns(b->w) + SEC(100000));
    ASSERT(in_time);
    bool survived = node_running(b->n);
    if (survived) node_crash(b->n);
    return survived && b->over;
}
// Within scripts:
static inline struct env *bed_env(struct bed *b) {
    return node_env(b->n);
}
#define BED_JOURNAL_BYTES (MIB(1) + 2 * BLOCK_BYTES)
static inline err co_bed_disk(struct bed *b) {
    b->config.journal = NULL;
    err e = disk_open(bed_env(b), &(struct disk_open_args){"disk", true, b->size_bytes, b->protected_disks}, &b->d);
    if (e != OK || !b->journal_apart) return e;
    struct disk_open_args j = {"journal", true, BED_JOURNAL_BYTES, b->protected_disks};
    return disk_open(bed_env(b), &j, &b->config.journal);
}
static inline void co_bed_disk_close(struct bed *b) {
    if (b->config.journal) co_disk_close(b->config.journal);
    b->config.journal = NULL;
    co_disk_close(b->d);
}
static inline void co_bed_format(struct bed *b) {
    err e = co_bed_disk(b);
    ASSERT(e == OK);
    e = co_store_format(b->d, &bed_ident, &b->config);
    ASSERT(e == OK);
    co_bed_disk_close(b);
}
static inline err co_bed_open(struct bed *b) {
    err e = co_bed_disk(b);
    return e == OK ? co_store_open(b->d, &b->config, &b->hooks, &b->s) : e;
}
static inline void co_bed_close(struct bed *b) {
    err e = co_store_close(b->s);
    ASSERT(e == OK);
    co_bed_disk_close(b);
}
