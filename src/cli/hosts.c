// Labels of hosts: taken from an argument, compared with what the array was made with, judged. See hosts.h.
#include "cli/hosts.h"
#include "cluster/register.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// ---- labels
bool host_valid(const char *label) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(label);
    return len > 0 && len < MAP_HOST_BYTES && strspn(label, allowed) == len;
}

void host_of_machine(char out[MAP_HOST_BYTES]) {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    snprintf(out, MAP_HOST_BYTES, "%.*s", MAP_HOST_BYTES - 1, name);
    if (!host_valid(out)) snprintf(out, MAP_HOST_BYTES, "localhost");
}

uint32_t hosts_given(const char *list) {
    uint32_t n = 1;
    for (; *list; list++) n += *list == ',';
    return n;
}

// The label of an IOM, cut out of a list that has enough of them.
static bool label_take(const char *list, uint8_t iom, char out[MAP_HOST_BYTES]) {
    for (uint8_t i = 0; i < iom; i++) list = strchr(list, ',') + 1;
    size_t len = strcspn(list, ",");
    snprintf(out, MAP_HOST_BYTES, "%.*s", (int)MIN(len, MAP_HOST_BYTES - 1u), list);
    if (len < MAP_HOST_BYTES && host_valid(out)) return true;
    return fail(0, "--hosts: the label of IOM %u, \"%.*s\", is none: 1 to %u letters, digits, dots, hyphens and underscores are expected", iom,
                (int)MIN(len, 60u), list, MAP_HOST_BYTES - 1);
}

static bool labels_take(const char *list, uint8_t ioms, char out[ARRAY_IOMS_MAX][MAP_HOST_BYTES]) {
    uint32_t given = hosts_given(list);
    if (given != ioms)
        return fail(0, "--hosts %.100s: %u labels for %u IOMs; give one for each, separated by commas, like a,a,b,b,c", list, given, ioms);
    for (uint8_t i = 0; i < ioms; i++)
        if (!label_take(list, i, out[i])) return false;
    return true;
}

bool hosts_set(struct conf *c, const char *list) {
    char label[ARRAY_IOMS_MAX][MAP_HOST_BYTES];
    for (uint8_t i = 0; i < c->ioms && !list; i++) host_of_machine(label[i]);
    if (list && !labels_take(list, c->ioms, label)) return false;
    for (uint8_t i = 0; i < c->ioms; i++) memcpy(c->iom[i].host, label[i], MAP_HOST_BYTES);
    return true;
}

bool hosts_fit(const struct conf *c, const char *list) {
    char label[ARRAY_IOMS_MAX][MAP_HOST_BYTES];
    if (!list) return true;
    if (!labels_take(list, c->ioms, label)) return false;
    for (uint8_t i = 0; i < c->ioms; i++)
        if (strcmp(label[i], c->iom[i].host))
            return fail(0, "IOM %u of the array in %s is on host %s, not %s; hosts are chosen when an array is made, so leave out --hosts", i, c->dir,
                        c->iom[i].host[0] ? c->iom[i].host : "(none)", label[i]);
    return true;
}

// ---- judging
const char *hosts_warning(const struct addresses *a, char out[HOSTS_WARNING_BYTES]) {
    uint8_t hosts = array_hosts(&a->shape), beside = NO_IOM;
    for (uint8_t i = 0; i < a->ioms && a->ioms > 1; i++)
        if (one_host(&a->shape, (iom_id){i}, proxy_of(&a->shape, (iom_id){i}))) beside = i;
    if (a->ioms < 2) return NULL;
    if (hosts == 1)
        snprintf(out, HOSTS_WARNING_BYTES,
                 "all %u IOMs are on one host%s%s: its death stops the array, and takes several members of each parity group", a->ioms,
                 a->host[0][0] ? ", " : "", a->host[0]);
    else if (hosts < 3)
        snprintf(out, HOSTS_WARNING_BYTES,
                 "the %u IOMs are on %u hosts: the death of one takes several members of each parity group; parity over hosts needs 3 of them",
                 a->ioms, hosts);
    else if (beside != NO_IOM)
        snprintf(out, HOSTS_WARNING_BYTES,
                 "IOM %u and its proxy, IOM %u, are both on host %s, which has more than half of all IOMs: its death takes both copies of some names",
                 beside, proxy_of(&a->shape, (iom_id){beside}).n, a->host[beside]);
    else return NULL;
    return out;
}

// ---- cluster.conf and the map
bool co_hosts_are_of_map(struct env *e, const struct conf *c, struct disk *d, char why[240]) {
    struct register_storage storage = register_storage_of_disk(d);
    struct cluster_map *m = mem_alloc(e->mem, sizeof *m);
    bool fit = true;
    err r = co_register_peek(e, &storage, m);
    for (uint8_t i = 0; i < c->ioms && fit && r == OK && m->ioms == c->ioms; i++) {
        const char *label = c->iom[i].host[0] ? c->iom[i].host : m->iom[0].host; // made before there were labels: all on one
        fit = !strcmp(label, m->iom[i].host);
        if (!fit)
            snprintf(why, 240, "cluster.conf has IOM %u on host %s, and the array was made with it on host %s; put that back", i, label, m->iom[i].host);
    }
    mem_free(e->mem, m);
    return fit;
}
