// What the files of the workload share.
#pragma once
#include "sim/workload.h"

#define CLIENTS_MAX 32
#define PRIVATE_BLOCKS 40u

struct client {
    struct workload *w;
    uint32_t n, mx;
    bool namer, done;
    uint32_t ops;
    const char *doing;
    uint64_t crash_at; // crashes when the present operation began
    struct ofile *shared, *own;
    struct handle shared_h, own_h;
    struct mx_file *shared_f, *own_f;
    struct onames *names;
};
struct mx_node {
    struct workload *w;
    uint32_t n;
    struct node *node;
    struct mx *mx;
    bool ready;
};
struct workload {
    struct array *array;
    struct oracle *oracle;
    struct workload_options o;
    struct mx_node mx[ARRAY_MX_MAX];
    struct client client[CLIENTS_MAX];
    uint32_t clients;
    struct ofile *shared[CLIENTS_MAX];
    bool checking, prepared;
    uint32_t checked;
    uint64_t progress;
};


uint64_t below(struct workload *w, uint64_t n);
struct env *client_env(struct client *c);
struct mx *client_mx(struct client *c);
void must(struct client *c, const char *what, err e); // an error here is a broken promise

// ---- names (workload_names.c)
MUST_USE err co_names_prepare(struct client *c, struct handle dir); // what a namer's directory begins with
void co_namer(struct client *c);
void co_check_names(struct client *c);
