// Arrays in the simulated world; see array.h.
#include "sim/array.h"

#include "cluster/register.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- making the stores: what `mendfs up` does
struct format {
    struct sim_iom *i;
    struct array *a;
    const struct store_config *store;
    uint8_t first[REGISTER_RECORD_BYTES_MAX];
    uint32_t first_len;
    bool done;
    err result;
};

static void store_id(const struct array *a, uint8_t n, uint8_t out[16]) {
    memcpy(out, a->cluster, 16);
    out[0] ^= (uint8_t)(0x50 + n);
}

err co_array_disks_open(const struct sim_iom *i, struct env *e, struct disk **d, struct disk **journal) {
    *d = *journal = NULL;
    err r = disk_open(e, &(struct disk_open_args){.path = i->disk, .power_protected = i->config.store_protected}, d);
    if (r || !i->journal[0]) return r;
    return disk_open(e, &(struct disk_open_args){.path = i->journal, .power_protected = i->config.journal_protected}, journal);
}

static err co_format(struct format *f) {
    struct disk *d, *journal;
    struct store_config c = *f->store;
    struct store_ident id = {.iom = f->i->n, .array_ioms = f->a->ioms};
    memcpy(id.cluster, f->a->cluster, 16);
    store_id(f->a, f->i->n, id.store);
    err e = co_array_disks_open(f->i, node_env(f->i->node), &d, &journal);
    if (e) return e;
    c.journal = journal;
    e = co_store_format(d, &id, &c);
    if (!e) e = co_register_blocks_write(d, f->first, f->first_len);
    if (journal) co_disk_close(journal);
    co_disk_close(d);
    return e;
}

static void format_main(void *arg) {
    struct format *f = arg;
    f->result = co_format(f);
    f->done = true;
}

static bool formatting(void *ctx) { return !((struct format *)ctx)->done; }

static void format_one(struct array *a, struct sim_iom *i, const struct array_options *o, const struct cluster_map *first) {
    struct format *f = calloc(1, sizeof *f);
    ASSERT(f);
    *f = (struct format){.i = i, .a = a, .store = &o->store};
    f->first_len = register_first_block(first, f->first);
    node_start(i->node, format_main, f);
    ASSERT(world_run_while(a->world, formatting, f, world_now_ns(a->world) + SEC(60)));
    ASSERT(f->result == OK);
    node_crash(i->node);
    free(f);
    i->config.store_protected = o->protects & ARRAY_PROTECTS_STORE; // what is made is flushed, whatever the disk
    i->config.journal_protected = o->protects & ARRAY_PROTECTS_JOURNAL;
}

static void add_disks(struct world *w, struct sim_iom *i, const struct array_options *o) {
    bool store = o->protects & ARRAY_PROTECTS_STORE, journal = o->protects & ARRAY_PROTECTS_JOURNAL;
    snprintf(i->disk, sizeof i->disk, "disk%u", i->n);
    strcpy(i->config.disk_path, i->disk);
    world_disk_protect(world_disk_add(w, i->disk, o->store_bytes), store && !o->lies);
    if (!o->journal_apart) return;
    snprintf(i->journal, sizeof i->journal, "journal%u", i->n);
    strcpy(i->config.journal_path, i->journal);
    uint64_t bytes = store_journal_device_bytes(o->store_bytes, o->store.journal_bytes);
    world_disk_protect(world_disk_add(w, i->journal, bytes), journal && !o->lies);
}

static void on_ended(void *ctx, err why) {
    struct sim_iom *i = ctx;
    i->over = true;
    i->why = why;
    i->serving = false;
}
static void on_serving(void *ctx, bool on) {
    struct sim_iom *i = ctx;
    i->serving = on;
    if (on && i->array->on_serving) i->array->on_serving(i->array->ctx);
    if (!on && i->array->on_stopped) i->array->on_stopped(i->array->ctx);
}

static const char *host_label(uint8_t number, char out[MAP_HOST_BYTES]) {
    snprintf(out, MAP_HOST_BYTES, number ? "sim%u" : "sim", number);
    return out;
}

struct array *array_create(struct world *w, const struct array_options *o) {
    struct array *a = calloc(1, sizeof *a);
    struct map_first_iom first[ARRAY_IOMS_MAX] = {0};
    char label[ARRAY_IOMS_MAX][MAP_HOST_BYTES];
    struct cluster_map map;
    ASSERT(a);
    a->world = w;
    a->ioms = o->ioms;
    for (uint8_t b = 0; b < 16; b++) a->cluster[b] = (uint8_t)world_random(w);
    for (uint8_t n = 0; n < o->ioms; n++) {
        struct sim_iom *i = &a->iom[n];
        *i = (struct sim_iom){.array = a, .n = n, .config = {.store = o->store, .rows = o->rows, .stand_ins = o->stand_ins, .disk_errors = o->disk_errors, .ended = on_ended, .serving = on_serving, .ctx = i}};
        snprintf(i->name, sizeof i->name, "iom%u", n);
        strcpy(i->config.listen, i->name);
        i->node = node_add(w, i->name);
        add_disks(w, i, o);
        store_id(a, n, first[n].store);
        first[n].at = i->name;
        first[n].host = host_label(o->host[n], label[n]);
    }
    cluster_map_first(&map, a->cluster, first, o->ioms);
    cluster_map_shape(&map, &a->shape);
    for (uint8_t n = 0; n < o->ioms; n++) format_one(a, &a->iom[n], o, &map);
    return a;
}

void array_destroy(struct array *a) { free(a); }

void array_start_one(struct sim_iom *i) {
    if (node_running(i->node)) return;
    i->serving = i->over = false;
    i->start = (struct iom_start){.env = node_env(i->node), .config = &i->config};
    node_start(i->node, iom_main, &i->start);
    i->array->started_ns = world_now_ns(i->array->world);
}

void array_start(struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++) array_start_one(&a->iom[n]);
}

void array_iom_dies(struct sim_iom *i, bool power) {
    if (power) node_power_cut(i->node);
    else node_crash(i->node);
    i->serving = false;
}

void array_power_cut(struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++) array_iom_dies(&a->iom[n], true);
}

void array_kill(struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++) array_iom_dies(&a->iom[n], false);
}

void array_ask_stop(struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++)
        if (node_running(a->iom[n].node) && a->iom[n].start.iom) iom_ask_stop(a->iom[n].start.iom);
}

bool array_serving(const struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++)
        if (!a->iom[n].serving) return false;
    return true;
}

bool array_serving_but(const struct array *a, const struct sim_iom *but) {
    for (uint8_t n = 0; n < a->ioms; n++)
        if (!a->iom[n].serving && &a->iom[n] != but) return false;
    return true;
}

bool array_whole(const struct array *a) {
    if (!array_serving(a)) return false;
    for (uint8_t n = 0; n < a->ioms; n++) {
        const struct cluster_map *m = a->iom[n].start.iom ? iom_map(a->iom[n].start.iom) : NULL;
        if (!m || m->state != ARRAY_RUNNING) return false;
        for (uint8_t i = 0; i < m->ioms; i++)
            if (m->iom[i].state != MAP_IOM_UP) return false;
    }
    return true;
}

bool array_over(const struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++)
        if (!a->iom[n].over) return false;
    return true;
}

void array_off(struct array *a) {
    for (uint8_t n = 0; n < a->ioms; n++) node_crash(a->iom[n].node);
}

struct mx_config array_mx_config(const struct array *a) {
    struct mx_config c = {.array_ioms = a->ioms};
    memcpy(c.cluster, a->cluster, 16);
    for (uint8_t n = 0; n < a->ioms; n++) snprintf(c.at[n], sizeof c.at[n], "%s", a->iom[n].name);
    return c;
}
