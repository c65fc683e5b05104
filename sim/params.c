// What the seed decides of a run, and what is decided otherwise; see params.h. A seed is to stay the run that it is:
// the order of the random numbers here does not change, and what is new takes none of them.
#include "sim/params.h"

#include "base/sum.h"
#include "sim/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_PARAM_ROW(name, least, most, plain, what) {#name, least, most, plain, what},
const struct run_param_info run_param_info[PARAMS] = {RUN_PARAMS(RUN_PARAM_ROW)};

static_assert(sizeof(struct run_params) == PARAMS * sizeof(uint64_t), "a parameter is a number of eight bytes");
uint64_t *run_param(struct run_params *p, enum run_param n) {
    return &((uint64_t *)(void *)p)[n];
}

// ---- the seed's
static void world_decide(struct world *w, struct run_params *p) {
    if (world_random_below(w, 3) == 0) p->reset_ppm = world_random_below(w, 2000);
    if (world_random_below(w, 3) == 0) p->spike_ppm = 10000;
}

static void array_decide(struct world *w, const struct run_options *o, struct run_params *p) {
    p->ioms = o->ioms ? o->ioms : 3 + world_random_below(w, 3);
    p->journal_kib = KIB(1) << world_random_below(w, 3);
    p->meta_kib = KIB(1 + world_random_below(w, 4));
    p->cache_kib = KIB(1) << world_random_below(w, 4);
    p->credit_kib = 128ull << world_random_below(w, 6);
    p->age_ms = 5 + world_random_below(w, 300);
}

// One array in three has its journals on disks of their own, one in four has power-protected disks. Not taken from the
// world's random numbers, so that the runs of all other seeds are what they were before there was this.
static void devices_decide(const struct run_options *o, struct run_params *p) {
    uint64_t dice = hash64(&o->seed, sizeof o->seed, 0x6a6f7572);
    p->apart = dice % 3 == 0;
    p->protects = dice / 3 % 4 == 0 ? 1 + dice / 12 % 3 : ARRAY_PROTECTS_NONE;
    if (p->protects != ARRAY_PROTECTS_NONE && !p->apart) p->protects = ARRAY_PROTECTS_ALL;
    if (!o->power_lie) return;
    p->apart = true;
    p->protects = ARRAY_PROTECTS_JOURNAL;
}

// One array in four is on several hosts, and all of mode host are. Likewise no random numbers of the world.
static void hosts_decide(const struct run_options *o, struct run_params *p) {
    uint64_t dice = hash64(&o->seed, sizeof o->seed, 0x686f7374), digit = 1;
    bool whole_hosts_die = o->faults == RUN_FAULTS_HOST;
    if (whole_hosts_die && !o->ioms) p->ioms = 3 + dice / 4 % 5;
    if (!whole_hosts_die && dice % 4) return;
    uint64_t hosts = 1 + dice / 32 % p->ioms;
    for (uint64_t i = 0; i < p->ioms; i++, digit *= 10) {
        p->hosts += digit * (hash64(&i, sizeof i, dice) % hosts);
    }
}

static void work_decide(struct world *w, struct run_params *p) {
    p->mxs = 1 + world_random_below(w, 2);
    p->writers = 2 + 2 * world_random_below(w, 3);
    p->namers = world_random_below(w, 4);
    p->passers = world_random_below(w, 3);
    p->loggers = world_random_below(w, 2) ? 0 : 2 + world_random_below(w, 3);
    p->brawlers = world_random_below(w, 2) ? 0 : 2 + world_random_below(w, 5);
    p->ops = 30 + world_random_below(w, 120);
    p->blocks = 8 + 2 * world_random_below(w, 60);
    p->policies = world_random_below(w, 3) != 0;
    p->syncs = world_random_below(w, 3) != 0;
}

// In one run of three, of several MXs then. Not taken from the world's random numbers either.
static void rivals_decide(const struct run_options *o, struct run_params *p) {
    uint64_t dice = hash64(&o->seed, sizeof o->seed, 0x72697661);
    if (dice % 3 == 0) p->rivals = 2 + dice / 3 % 4;
    if (o->set.given >> PARAM_rivals & 1) p->rivals = o->set.value[PARAM_rivals];
    if (p->rivals) p->mxs = MAX(p->mxs, 2 + dice / 12 % 2);
}

static void faults_decide(struct world *w, const struct run_options *o, struct run_params *p) {
    p->again = run_param_info[PARAM_again].most;
    if (o->faults == RUN_FAULTS_NONE) return;
    p->rounds = 1 + world_random_below(w, 5);
    if (world_random_below(w, 3) == 0) p->mx_deaths = 1 + world_random_below(w, 4);
}

void params_decide(struct world *w, const struct run_options *o, struct run_params *p) {
    *p = (struct run_params){0};
    world_decide(w, p);
    array_decide(w, o, p);
    devices_decide(o, p);
    hosts_decide(o, p);
    work_decide(w, p);
    rivals_decide(o, p);
    faults_decide(w, o, p);
    for (enum run_param n = 0; n < PARAMS; n++)
        if (o->set.given >> n & 1) *run_param(p, n) = o->set.value[n];
    if (p->dice) world_reseed(w, p->dice);
}

void params_of_seed(const struct run_options *o, struct run_params *p) {
    struct world *w = world_create(o->seed, NULL);
    params_decide(w, o, p);
    world_destroy(w);
}

bool params_possible(const struct run_params *p) {
    return p->writers + p->namers + 2 * p->passers + p->loggers + p->brawlers + p->rivals <= CLIENTS_MAX;
}

// ---- in words
static_assert(PARAMS <= PARAM_WORDS_MAX && PARAM_WORDS_MAX <= 64, "given has a bit for each");

static bool word_read(struct param_words *to, char *word) {
    char *value = strchr(word, '='), *end;
    if (!value) return false;
    *value++ = 0;
    for (enum run_param n = 0; n < PARAMS; n++) {
        const struct run_param_info *i = &run_param_info[n];
        if (strcmp(word, i->name)) continue;
        to->value[n] = strtoull(value, &end, 10);
        to->given |= 1ull << n;
        return *value >= '0' && *value <= '9' && !*end && to->value[n] >= i->least && to->value[n] <= i->most;
    }
    return false;
}

bool param_words_read(struct param_words *to, const char *s) {
    char words[1024], *save = NULL;
    if ((size_t)snprintf(words, sizeof words, "%s", s) >= sizeof words) return false;
    for (char *word = strtok_r(words, ",", &save); word; word = strtok_r(NULL, ",", &save))
        if (!word_read(to, word)) return false;
    return to->given != 0;
}

void param_words_write(const struct param_words *w, char *out, size_t cap) {
    size_t n = 0;
    out[0] = 0;
    for (enum run_param i = 0; i < PARAMS && n < cap; i++)
        if (w->given >> i & 1)
            n += (size_t)snprintf(out + n, cap - n, "%s%s=%llu", n ? "," : "", run_param_info[i].name,
                                  (unsigned long long)w->value[i]);
}

// ---- to what takes them
void params_to_world(const struct run_params *p, struct world_options *x) {
    x->net_reset_ppm = (uint32_t)p->reset_ppm;
    x->disk_spike_ppm = (uint32_t)p->spike_ppm;
    if (p->spike_ppm) x->disk_spike_ns = MSEC(20);
}

void params_to_array(const struct run_params *p, bool lies, struct array_options *a) {
    *a = (struct array_options){.ioms = (uint8_t)p->ioms,
                                .journal_apart = p->apart,
                                .protects = (enum array_protects)p->protects,
                                .lies = lies,
                                .store_bytes = MIB(64)};
    for (uint64_t i = 0, digits = p->hosts; i < p->ioms; i++, digits /= 10) a->host[i] = (uint8_t)(digits % 10);
    a->store.journal_bytes = KIB(p->journal_kib);
    a->store.cache_bytes = KIB(p->meta_kib);
    a->rows.cache_bytes = KIB(p->cache_kib);
    a->rows.credit_bytes = KIB(p->credit_kib);
    a->rows.flush_age_ns = MSEC(p->age_ms);
}

void params_to_work(const struct run_params *p, struct workload_options *w) {
    *w = (struct workload_options){.mxs = (uint32_t)p->mxs,
                                   .writers = (uint32_t)p->writers,
                                   .namers = (uint32_t)p->namers,
                                   .passers = (uint32_t)p->passers,
                                   .loggers = (uint32_t)p->loggers,
                                   .brawlers = (uint32_t)p->brawlers,
                                   .rivals = (uint32_t)p->rivals,
                                   .ops = (uint32_t)p->ops,
                                   .blocks = (uint32_t)p->blocks,
                                   .idle = (uint32_t)p->idle,
                                   .policies = p->policies,
                                   .syncs = p->syncs};
}
