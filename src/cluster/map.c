// The cluster map: encode, decode, and the first one.
#include "cluster/map.h"
#include "base/sum.h"
#include <stdio.h>

#define MAP_FORMAT 1

struct map_head {
    uint8_t magic[4];
    le16 format, len;
    le32 sum;
    uint8_t state, ioms, voters, chosen_by;
    uint8_t cluster[16];
    le64 version, epoch, recoveries, stamp;
};
_Static_assert(sizeof(struct map_head) == 64, "the head of an encoded map");
#define ENTRY_LOST 0x80u // in state: map_iom.lost
struct map_entry {
    uint8_t store[16];
    le64 incarnation;
    uint8_t state, proxy, at_len, host_len;
};
_Static_assert(sizeof(struct map_entry) == 28, "an IOM in an encoded map");
struct voter_entry { uint8_t store[16], iom; };
_Static_assert(sizeof(struct voter_entry) == 17, "a voter in an encoded map");

static const uint8_t map_magic[4] = {'M', 'M', 'A', 'P'};

static uint32_t map_sum(const uint8_t *p, uint32_t len_bytes) {
    static const uint8_t zero[4];
    uint32_t at = offsetof(struct map_head, sum), sum = crc32c(0, p, at);
    sum = crc32c(sum, zero, sizeof zero);
    return crc32c(sum, p + at + 4, len_bytes - at - 4);
}

static uint8_t *put_iom(uint8_t *p, const struct map_iom *m) {
    struct map_entry e = {.incarnation = le64_of(m->incarnation),
                          .state = (uint8_t)(m->state | (m->lost ? ENTRY_LOST : 0)),
                          .proxy = m->proxy,
                          .at_len = (uint8_t)strnlen(m->at, sizeof m->at),
                          .host_len = (uint8_t)strnlen(m->host, sizeof m->host)};
    memcpy(e.store, m->store, 16);
    memcpy(p, &e, sizeof e);
    memcpy(p + sizeof e, m->at, e.at_len);
    memcpy(p + sizeof e + e.at_len, m->host, e.host_len);
    return p + sizeof e + e.at_len + e.host_len;
}

static uint8_t *put_voters(uint8_t *p, const struct map_voter *v, uint8_t count) {
    for (uint8_t i = 0; i < count; i++, p += sizeof(struct voter_entry)) {
        memcpy(p, v[i].store, 16);
        p[16] = v[i].iom;
    }
    return p;
}

uint32_t cluster_map_encode(const struct cluster_map *m, uint8_t out[CLUSTER_MAP_BYTES_MAX]) {
    ASSERT(!cluster_map_fault(m));
    struct map_head h = {.format = le16_of(MAP_FORMAT), .state = m->state, .ioms = m->ioms, .voters = m->voters,
                         .chosen_by = m->chosen_by.count, .version = le64_of(m->version), .epoch = le64_of(m->epoch),
                         .recoveries = le64_of(m->recoveries), .stamp = le64_of(m->stamp)};
    memcpy(h.magic, map_magic, 4);
    memcpy(h.cluster, m->cluster, 16);
    uint8_t *p = out + sizeof h;
    for (uint8_t i = 0; i < m->ioms; i++) p = put_iom(p, &m->iom[i]);
    p = put_voters(p, m->voter, m->voters);
    p = put_voters(p, m->chosen_by.at, m->chosen_by.count);
    uint32_t len = (uint32_t)(p - out);
    h.len = le16_of((uint16_t)len);
    memcpy(out, &h, sizeof h);
    h.sum = le32_of(map_sum(out, len));
    memcpy(out, &h, sizeof h);
    return len;
}

static err bad(const char **why, const char *text, err e) {
    if (why) *why = text;
    return e;
}

static const uint8_t *take_iom(struct map_iom *m, const uint8_t *p, const uint8_t *end) {
    struct map_entry e;
    if ((size_t)(end - p) < sizeof e) return NULL;
    memcpy(&e, p, sizeof e);
    p += sizeof e;
    if (end - p < e.at_len + e.host_len || e.at_len >= sizeof m->at || e.host_len >= sizeof m->host) return NULL;
    memcpy(m->store, e.store, 16);
    m->incarnation = le64_get(e.incarnation);
    m->state = e.state & (uint8_t)~ENTRY_LOST;
    m->lost = e.state & ENTRY_LOST;
    m->proxy = e.proxy;
    memcpy(m->at, p, e.at_len);
    memcpy(m->host, p + e.at_len, e.host_len);
    if (strlen(m->at) != e.at_len || strlen(m->host) != e.host_len) return NULL; // a zero within
    return p + e.at_len + e.host_len;
}

static err check_head(const struct map_head *h, const uint8_t *p, uint32_t len_bytes, const char **why) {
    if (memcmp(h->magic, map_magic, 4)) return bad(why, "it does not begin as a map", ERR_FORMAT);
    if (le16_get(h->format) > MAP_FORMAT) return bad(why, "it is of a newer format", ERR_VERSION);
    if (le16_get(h->format) != MAP_FORMAT) return bad(why, "it is of an unknown format", ERR_FORMAT);
    if (le16_get(h->len) != len_bytes) return bad(why, "its length is not what it says", ERR_FORMAT);
    if (le32_get(h->sum) != map_sum(p, len_bytes)) return bad(why, "its checksum does not match", ERR_CHECKSUM);
    if (h->ioms > ARRAY_IOMS_MAX || h->voters > MAP_VOTERS_MAX || h->chosen_by > MAP_VOTERS_MAX)
        return bad(why, "it counts more members than there can be", ERR_FORMAT);
    return OK;
}

static const uint8_t *take_voters(struct map_voter *v, uint8_t count, const uint8_t *p) {
    for (uint8_t i = 0; i < count; i++, p += sizeof(struct voter_entry)) {
        memcpy(v[i].store, p, 16);
        v[i].iom = p[16];
    }
    return p;
}

err cluster_map_decode(struct cluster_map *m, const uint8_t *p, uint32_t len_bytes, const char **why) {
    struct map_head h;
    if (len_bytes < sizeof h || len_bytes > CLUSTER_MAP_BYTES_MAX) return bad(why, "its length cannot be", ERR_FORMAT);
    memcpy(&h, p, sizeof h);
    err r = check_head(&h, p, len_bytes, why);
    if (r != OK) return r;
    *m = (struct cluster_map){.version = le64_get(h.version),
                              .epoch = le64_get(h.epoch),
                              .recoveries = le64_get(h.recoveries),
                              .stamp = le64_get(h.stamp),
                              .state = h.state,
                              .ioms = h.ioms,
                              .voters = h.voters,
                              .chosen_by = {.count = h.chosen_by}};
    memcpy(m->cluster, h.cluster, 16);
    const uint8_t *end = p + len_bytes;
    p += sizeof h;
    for (uint8_t i = 0; i < m->ioms; i++)
        if (!(p = take_iom(&m->iom[i], p, end))) return bad(why, "an IOM's entry is cut or too long", ERR_FORMAT);
    if ((size_t)(end - p) != (h.voters + h.chosen_by) * sizeof(struct voter_entry))
        return bad(why, "its voters are cut", ERR_FORMAT);
    p = take_voters(m->voter, m->voters, p);
    take_voters(m->chosen_by.at, m->chosen_by.count, p);
    const char *fault = cluster_map_fault(m);
    return fault ? bad(why, fault, ERR_FORMAT) : OK;
}

static const char *iom_fault(const struct cluster_map *m, uint8_t i) {
    const struct map_iom *a = &m->iom[i];
    if (a->state < MAP_IOM_UP || a->state > MAP_IOM_REBUILDING) return "an IOM is in no known state";
    if (m->ioms == 1 ? a->proxy != NO_IOM : a->proxy >= m->ioms) return "an IOM has a proxy that does not exist";
    if (a->proxy == i) return "an IOM is its own proxy";
    if (!a->at[0]) return "an IOM has no address";
    for (uint8_t k = 0; k < i; k++) {
        if (!memcmp(a->store, m->iom[k].store, 16)) return "two IOMs have one store";
        if (a->proxy == m->iom[k].proxy) return "two IOMs have one proxy";
    }
    return NULL;
}

static const char *voters_fault(const struct cluster_map *m) {
    for (uint8_t i = 0; i < m->voters; i++) {
        const struct map_voter *v = &m->voter[i];
        if (v->iom >= m->ioms) return "a voter is no IOM";
        if (memcmp(v->store, m->iom[v->iom].store, 16)) return "a voter is not the store of its IOM";
        for (uint8_t k = 0; k < i; k++)
            if (m->voter[k].iom == v->iom) return "an IOM votes twice";
    }
    return NULL;
}

static const char *choosers_fault(const struct cluster_map *m) {
    struct map_voters v = cluster_map_voters(m);
    if (!m->chosen_by.count) return NULL;
    for (uint8_t i = 0; i < m->chosen_by.count; i++) {
        if (m->chosen_by.at[i].iom >= m->ioms) return "one of those who chose it is no IOM";
        for (uint8_t k = 0; k < i; k++)
            if (m->chosen_by.at[k].iom == m->chosen_by.at[i].iom ||
                !memcmp(m->chosen_by.at[k].store, m->chosen_by.at[i].store, 16))
                return "an IOM chose it twice";
    }
    return map_voters_one_apart(&v, &m->chosen_by) ? NULL : "more than one voter is another than those who chose it";
}

const char *cluster_map_fault(const struct cluster_map *m) {
    if (m->state < ARRAY_STOPPED || m->state > ARRAY_RUNNING) return "the array is in no known state";
    if (!m->version || !m->epoch) return "version or epoch is 0";
    if (!m->ioms || m->ioms > ARRAY_IOMS_MAX) return "the number of IOMs cannot be";
    if (!m->voters || m->voters > MAP_VOTERS_MAX || m->voters > m->ioms) return "the number of voters cannot be";
    for (uint8_t i = 0; i < m->ioms; i++) {
        const char *fault = iom_fault(m, i);
        if (fault) return fault;
    }
    uint8_t not_up = 0;
    for (uint8_t i = 0; i < m->ioms; i++) not_up += m->iom[i].state != MAP_IOM_UP;
    if (m->state != ARRAY_STOPPED && not_up > 1) return "it goes on with more than one IOM that is not up";
    const char *fault = voters_fault(m);
    return fault ? fault : choosers_fault(m);
}

// ---- voters ---------------------------------------------------------------------------------------------------------
int map_voters_find(const struct map_voters *v, const uint8_t store[16]) {
    for (uint8_t i = 0; i < v->count; i++)
        if (!memcmp(v->at[i].store, store, 16)) return i;
    return -1;
}

static uint8_t in_both(const struct map_voters *a, const struct map_voters *b) {
    uint8_t n = 0;
    for (uint8_t i = 0; i < a->count; i++) n += map_voters_find(b, a->at[i].store) >= 0;
    return n;
}

bool map_voters_same(const struct map_voters *a, const struct map_voters *b) {
    return a->count == b->count && in_both(a, b) == a->count;
}

bool map_voters_one_apart(const struct map_voters *a, const struct map_voters *b) {
#ifdef MENDFS_MUTANT_TWO_AT_ONCE
    return true;
#endif
    return MAX(a->count, b->count) == MIN(a->count, b->count) + 1 && in_both(a, b) == MIN(a->count, b->count);
}

struct map_voters cluster_map_voters(const struct cluster_map *m) {
    struct map_voters v = {.count = m->voters};
    memcpy(v.at, m->voter, m->voters * sizeof m->voter[0]);
    return v;
}

struct map_voters cluster_map_choosers(const struct cluster_map *m) {
    return m->chosen_by.count ? m->chosen_by : cluster_map_voters(m);
}

// ---- hosts ----------------------------------------------------------------------------------------------------------
static uint8_t host_number(const struct cluster_map *m, uint8_t iom) { // the first IOM with its label
    uint8_t i = 0;
    while (strcmp(m->iom[i].host, m->iom[iom].host) != 0) i++;
    return i;
}

void cluster_map_shape(const struct cluster_map *m, struct array_shape *out) {
    *out = (struct array_shape){.ioms = m->ioms};
    for (uint8_t i = 0; i < m->ioms; i++) {
        out->host[i] = host_number(m, i);
        out->proxy[i] = m->iom[i].proxy;
    }
}

// ---- the first map --------------------------------------------------------------------------------------------------
static bool is_voter(const struct cluster_map *m, uint8_t iom) {
    for (uint8_t i = 0; i < m->voters; i++)
        if (m->voter[i].iom == iom) return true;
    return false;
}

static bool host_votes(const struct cluster_map *m, const char *host) {
    for (uint8_t i = 0; i < m->voters; i++)
        if (!strcmp(m->iom[m->voter[i].iom].host, host)) return true;
    return false;
}

static void choose_proxies(struct cluster_map *m) {
    struct array_shape labels, ring;
    cluster_map_shape(m, &labels);
    array_shape_make(&ring, m->ioms, labels.host);
    for (uint8_t i = 0; i < m->ioms; i++) m->iom[i].proxy = ring.proxy[i];
}

static uint8_t next_voter(const struct cluster_map *m) {
    for (int any_host = 0; any_host < 2; any_host++)
        for (uint8_t i = 0; i < m->ioms; i++)
            if (m->iom[i].state == MAP_IOM_UP && !is_voter(m, i) && (any_host || !host_votes(m, m->iom[i].host)))
                return i;
    return NO_IOM;
}

bool cluster_map_add_voter(struct cluster_map *m) {
    uint8_t want = m->ioms >= 5 ? 5 : m->ioms >= 3 ? 3 : m->ioms, i = next_voter(m);
    if (m->voters >= want || i == NO_IOM) return false;
    memcpy(m->voter[m->voters].store, m->iom[i].store, 16);
    m->voter[m->voters++].iom = i;
    return true;
}

static void put_text(char *to, size_t cap, const char *text) {
    size_t len = strlen(text);
    ASSERT(len < cap);
    memcpy(to, text, len + 1);
}

void cluster_map_first(struct cluster_map *m, const uint8_t cluster[16], const struct map_first_iom *ioms,
                       uint8_t count) {
    ASSERT(count >= 1 && count <= ARRAY_IOMS_MAX);
    *m = (struct cluster_map){.version = 1, .epoch = 1, .state = ARRAY_STOPPED, .ioms = count};
    memcpy(m->cluster, cluster, 16);
    for (uint8_t i = 0; i < count; i++) {
        struct map_iom *a = &m->iom[i];
        memcpy(a->store, ioms[i].store, 16);
        a->state = MAP_IOM_UP;
        put_text(a->at, sizeof a->at, ioms[i].at);
        put_text(a->host, sizeof a->host, ioms[i].host);
    }
    choose_proxies(m);
    while (cluster_map_add_voter(m)) {}
    ASSERT(!cluster_map_fault(m));
}

// ---- another store --------------------------------------------------------------------------------------------------
static void remove_voter(struct cluster_map *m, int at) {
    ASSERT(m->voters > 1);
    m->voters--;
    memmove(&m->voter[at], &m->voter[at + 1], (m->voters - (unsigned)at) * sizeof m->voter[0]);
}

void cluster_map_replace(struct cluster_map *m, uint8_t iom, const uint8_t store[16]) {
    struct map_iom *a = &m->iom[iom];
    int votes = cluster_map_voter(m, a->store);
    ASSERT(iom < m->ioms && a->state == MAP_IOM_FAILED);
    if (votes >= 0) remove_voter(m, votes);
    memcpy(a->store, store, 16);
}

// ---- words ----------------------------------------------------------------------------------------------------------
static unsigned port_of(const char *digits) {
    unsigned n = 0;
    for (; *digits >= '0' && *digits <= '9'; digits++) n = 10 * n + (unsigned)(*digits - '0');
    return n;
}

const char *cluster_map_stand_in(const struct cluster_map *m, uint8_t iom, char out[MAP_ADDRESS_BYTES]) {
    const char *at = m->iom[m->iom[iom].proxy].at, *colon = strrchr(at, ':');
    if (!strncmp(at, "unix:", 5)) snprintf(out, MAP_ADDRESS_BYTES, "%s+", at);
    else if (colon) snprintf(out, MAP_ADDRESS_BYTES, "%.*s:%u", (int)(colon - at), at, (unsigned)port_of(colon + 1) + 1000);
    else snprintf(out, MAP_ADDRESS_BYTES, "%s:1", at);
    return out;
}

const char *array_state_name(uint8_t s) {
    static const char *const names[] = {"unknown", "stopped", "recovering", "running"};
    return names[s < ARRAY_LEN(names) ? s : 0];
}

const char *map_iom_state_name(uint8_t s) {
    static const char *const names[] = {"unknown", "up", "failed", "returning", "rebuilding"};
    return names[s < ARRAY_LEN(names) ? s : 0];
}

int cluster_map_voter(const struct cluster_map *m, const uint8_t store[16]) {
    for (uint8_t i = 0; i < m->voters; i++)
        if (!memcmp(m->voter[i].store, store, 16)) return i;
    return -1;
}
