// A whole array in the simulated world: n IOMs (the real iom_main), any number of MXs (the real mx.h), started, cut and started again.
#pragma once
#include "iom/iom.h"
#include "mx/mx.h"
#include "sim/world.h"

#define ARRAY_MX_MAX 4
struct sim_iom {
    struct array *array;
    uint8_t n;
    struct node *node;
    char name[16], disk[16], journal[16]; // journal empty: it lies in the store
    struct iom_config config;
    struct iom_start start;
    bool serving;   // says iom_config.serving
    bool over;      // iom_main returned by itself, with
    err why;
};
struct array {
    struct world *world;
    uint8_t cluster[16];
    uint8_t ioms;
    struct array_shape shape;
    uint64_t started_ns; // the last time that one of them was
    bool mx_died;        // and left a session behind
    struct sim_iom iom[ARRAY_IOMS_MAX];
    void (*on_serving)(void *ctx); // an IOM begins to serve; may be NULL
    void (*on_stopped)(void *ctx); // an IOM that served does so no more, and lives; may be NULL
    void *ctx;
    bool (*known)(void *known_ctx, const char *sentence); // what an audit finds is what was done to the disks; NULL: nothing was
    void *known_ctx;
};
// Which devices are power-protected. The IOMs believe what `protects` says; the disks are so unless `lies`.
enum array_protects { ARRAY_PROTECTS_NONE, ARRAY_PROTECTS_JOURNAL, ARRAY_PROTECTS_STORE, ARRAY_PROTECTS_ALL };
struct array_options {
    uint8_t ioms;
    uint8_t host[ARRAY_IOMS_MAX]; // of each IOM: a number; all 0: they are on one
    bool journal_apart; // each IOM's journal on a disk of its own
    enum array_protects protects;
    bool lies;
    uint64_t store_bytes;
    struct store_config store;
    struct rows_config rows;
    uint32_t disk_errors; // iom_config's
    bool stand_ins;     // the array goes on with one missing
};
// The disks of an IOM, opened as it opens them, by any node; *journal NULL: there is none. co_store_open wants it in store_config.
MUST_USE err co_array_disks_open(const struct sim_iom *i, struct env *e, struct disk **d, struct disk **journal);
struct array *array_create(struct world *w, const struct array_options *o); // formatted, not started; never fails (ASSERT)
void array_destroy(struct array *a);
void array_start_one(struct sim_iom *i);                 // if it is off
void array_start(struct array *a);                       // every IOM that is off
void array_power_cut(struct array *a);                   // all at one instant
void array_kill(struct array *a);                        // likewise, the processes only: what the OS has is kept
void array_iom_dies(struct sim_iom *i, bool power);      // one of them
// Its store is lost: an empty one takes its place (replace.c), and then it may be started. It is off, and all others run, or will. false: not by then.
bool array_replace(struct sim_iom *i, uint64_t deadline_ns);
void array_ask_stop(struct array *a);                    // clean stop of all
bool array_serving(const struct array *a);               // all of them
bool array_serving_but(const struct array *a, const struct sim_iom *but);
bool array_whole(const struct array *a);                 // likewise, and none has anything left to build
bool array_over(const struct array *a);                  // iom_main of all has returned
void array_off(struct array *a);                         // ends the processes (what is left of them)
struct mx_config array_mx_config(const struct array *a); // for mx_create on a node of the same world
