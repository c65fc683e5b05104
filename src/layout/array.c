// The shape of an array: its hosts, and the ring in which each IOM is the proxy of another (C1).
//
// A ring of n IOMs has most neighbours on different hosts if the host with the most IOMs, m of them, is not twice in a row as long as
// others are left to stand between: then all n, or 2 * (n - m) where m is more than half. Going round by hosts, the largest first,
// over every other place and then over those left out does that:
//
//   hosts  a a a b b c     places  0 2 4, then 1 3 5     ring  a b a b a c
//
// (One host's places follow each other in that order. Two of them are neighbours in the ring only if one lies on the first lap and one
// on the second, so if the host has half of all places or more; the largest alone can, and it begins at place 0: half of an even n ends
// exactly where the first lap does.)
#include "layout/layout.h"

static uint8_t host_size(const struct array_shape *s, uint8_t iom) {
    uint8_t n = 0;
    for (uint8_t i = 0; i < s->ioms; i++) n += s->host[i] == s->host[iom];
    return n;
}

uint8_t array_hosts(const struct array_shape *s) {
    uint8_t n = 0;
    for (uint8_t i = 0; i < s->ioms; i++) {
        bool first = true;
        for (uint8_t k = 0; k < i; k++) first &= s->host[k] != s->host[i];
        n += first;
    }
    return n;
}

// ---- the ring
static uint8_t most_apart(const struct array_shape *s) { // of any ring
    uint8_t most = 0;
    for (uint8_t i = 0; i < s->ioms; i++) most = MAX(most, host_size(s, i));
    return (uint8_t)(2 * most <= s->ioms ? s->ioms : 2 * (s->ioms - most));
}

static uint8_t apart(const struct array_shape *s) { // whose proxy is on another host
    uint8_t n = 0;
    for (uint8_t i = 0; i < s->ioms; i++) n += !one_host(s, (iom_id){i}, (iom_id){s->proxy[i]});
    return n;
}

// IOMs host by host, the largest first; hosts of one size, and IOMs of one host, by number.
static void by_hosts(const struct array_shape *s, uint8_t order[ARRAY_IOMS_MAX]) {
    bool taken[ARRAY_IOMS_MAX] = {false};
    for (uint8_t n = 0; n < s->ioms;) {
        uint8_t best = NO_IOM;
        for (uint8_t i = 0; i < s->ioms; i++)
            if (!taken[i] && (best == NO_IOM || host_size(s, i) > host_size(s, best))) best = i;
        for (uint8_t i = best; i < s->ioms; i++) {
            if (s->host[i] != s->host[best]) continue;
            taken[i] = true;
            order[n++] = i;
        }
    }
}

static void ring_of(struct array_shape *s, const uint8_t at[ARRAY_IOMS_MAX]) {
    for (uint8_t i = 0; i < s->ioms; i++) s->proxy[at[i]] = at[i + 1 == s->ioms ? 0 : i + 1];
}

void array_shape_make(struct array_shape *s, uint8_t ioms, const uint8_t *host) {
    uint8_t order[ARRAY_IOMS_MAX], at[ARRAY_IOMS_MAX];
    ASSERT(ioms >= 1 && ioms <= ARRAY_IOMS_MAX);
    *s = (struct array_shape){.ioms = ioms};
    if (host != NULL) memcpy(s->host, host, ioms);
    for (uint8_t i = 0; i < ioms; i++) at[i] = i;
    ring_of(s, at);
    if (ioms == 1) s->proxy[0] = NO_IOM;
    if (ioms == 1 || apart(s) == most_apart(s)) return;
    by_hosts(s, order);
    for (uint8_t i = 0, place = 0; i < ioms; i++, place += 2) {
        if (i > 0 && place >= ioms && place % 2 == 0) place = 1;
        at[place] = order[i];
    }
    ring_of(s, at);
}

iom_id proxy_of(const struct array_shape *s, iom_id iom) {
    ASSERT(iom.n < s->ioms);
    return (iom_id){s->proxy[iom.n]};
}

iom_id ward_of(const struct array_shape *s, iom_id iom) {
    ASSERT(iom.n < s->ioms);
    for (uint8_t i = 0; i < s->ioms; i++)
        if (s->proxy[i] == iom.n) return (iom_id){i};
    return (iom_id){NO_IOM};
}
