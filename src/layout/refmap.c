// Referential maps: which IOMs an object spans, how they are made for a new object, and their form on disk and wire.
//
//   0 protection · 1 form · 2 span · 3 quantum_shift · 4 lowest · 5 starter · 6..21 member · 22..23 zero
//
// A map has one form in bytes only: what its form does not use is zero, and anything else is refused.
#include "layout/layout.h"

#include <assert.h>

static_assert(sizeof(struct refmap) == 6 + ARRAY_IOMS_MAX, "bytes only, no padding: compared and copied as bytes");
static_assert(sizeof(struct refmap) + 2 == REFMAP_BYTES, "two reserved bytes end the form on disk");

void refmap_put(uint8_t out[REFMAP_BYTES], const struct refmap *m) {
    memcpy(out, m, sizeof *m);
    memset(out + sizeof *m, 0, REFMAP_BYTES - sizeof *m);
}

err refmap_at(struct refmap *m, const uint8_t in[REFMAP_BYTES]) {
    struct refmap found;
    memcpy(&found, in, sizeof found);
    for (size_t i = sizeof found; i < REFMAP_BYTES; i++)
        if (in[i] != 0) return ERR_FORMAT;
    if (!refmap_valid(&found)) return ERR_FORMAT;
    *m = found;
    return OK;
}

bool refmap_eq(const struct refmap *a, const struct refmap *b) { return memcmp(a, b, sizeof *a) == 0; }

static uint8_t span_min(unsigned protection) { // 0: no such protection
    switch (protection) {
    case PROT_NONE: return 1;
    case PROT_MIRROR: return 2;
    case PROT_PARITY3:
    case PROT_PARITY: return 3;
    }
    return 0;
}

static bool members_valid(const struct refmap *m) {
    uint32_t seen = 0;
    for (uint8_t i = 0; i < m->span; i++) {
        if (m->member[i] >= ARRAY_IOMS_MAX || (seen >> m->member[i] & 1)) return false;
        seen |= 1u << m->member[i];
    }
    return true;
}

bool refmap_valid(const struct refmap *m) {
    uint8_t least = span_min(m->protection);
    if (least == 0 || m->span < least || m->span > ARRAY_IOMS_MAX || m->starter >= m->span) return false;
    if (m->quantum_shift < 12 || m->quantum_shift > 22) return false;
    if (m->form != MAP_STRIPED && m->form != MAP_EXPLICIT) return false;
    for (uint8_t i = m->form == MAP_EXPLICIT ? m->span : 0; i < ARRAY_IOMS_MAX; i++)
        if (m->member[i] != 0) return false;
    if (m->form == MAP_STRIPED) return m->lowest + m->span <= ARRAY_IOMS_MAX;
    return m->lowest == 0 && members_valid(m);
}

uint8_t refmap_position(const struct refmap *m, iom_id iom) {
    for (uint8_t i = 0; i < m->span; i++)
        if (iom_eq(refmap_member(m, i), iom)) return i;
    return NO_IOM;
}

// Lowers what the caller left open (span 0) to what an array of that size can do.
static enum protection protection_that_fits(enum protection p, uint8_t array_ioms) {
    if (array_ioms >= span_min(p)) return p;
    return array_ioms >= 2 ? PROT_MIRROR : PROT_NONE;
}

uint8_t refmap_span(const struct array_shape *s, enum protection p, uint8_t span) {
    uint8_t hosts = array_hosts(s), want = span == 0 ? s->ioms : span;
    bool enough = p != PROT_NONE && hosts >= span_min(p);
    return enough ? MIN(want, hosts) : want;
}

typedef uint32_t iom_mask;

static iom_mask of_host(const struct array_shape *s, iom_id iom) {
    iom_mask all = 0;
    for (uint8_t i = 0; i < s->ioms; i++)
        if (one_host(s, iom, (iom_id){i})) all |= 1u << i;
    return all;
}

static iom_id nth_of(iom_mask m, uint32_t n) {
    while (n-- > 0) m &= m - 1;
    return (iom_id){(uint8_t)__builtin_ctz(m)};
}

// No two on one host: each is drawn among all IOMs of the hosts that have none yet, so that a host with more of them is taken sooner.
static iom_mask members_apart(const struct array_shape *s, iom_id starter, uint8_t span, uint64_t spread) {
    iom_mask members = 1u << starter.n, left = ((1u << s->ioms) - 1) & ~of_host(s, starter);
    for (uint8_t i = 1; i < span; i++) {
        uint32_t n = (uint32_t)__builtin_popcount(left);
        iom_id next = nth_of(left, (uint32_t)(spread % n));
        spread /= n; // 15 draws: their product is below 2^41
        members |= 1u << next.n;
        left &= ~of_host(s, next);
    }
    return members;
}

// From the starter on, round the ring, so that maps of a small span load all IOMs alike.
static iom_mask members_round(const struct array_shape *s, iom_id starter, uint8_t span) {
    iom_mask members = 0;
    for (uint8_t i = 0; i < span; i++) members |= 1u << (starter.n + i) % s->ioms;
    return members;
}

static void place_members(struct refmap *m, const struct array_shape *s, iom_id starter, iom_mask members) {
    uint8_t lowest = (uint8_t)__builtin_ctz(members), n = 0;
    if (members >> lowest == (1u << m->span) - 1) {
        m->lowest = lowest;
        m->starter = (uint8_t)(starter.n - lowest);
        return;
    }
    m->form = MAP_EXPLICIT;
    for (uint8_t i = 0; i < s->ioms; i++) {
        uint8_t iom = (uint8_t)((starter.n + i) % s->ioms);
        if (members >> iom & 1) m->member[n++] = iom;
    }
}

err refmap_make(struct refmap *out, const struct array_shape *s, iom_id starter, enum protection p, uint8_t span,
                uint8_t quantum_shift, uint64_t spread) {
    if (s->ioms < 1 || s->ioms > ARRAY_IOMS_MAX || starter.n >= s->ioms || span > s->ioms) return ERR_INVAL;
    if (span_min(p) == 0) return ERR_INVAL;
    if (span == 0) p = protection_that_fits(p, s->ioms);
    struct refmap m = {
        .protection = (uint8_t)p,
        .form = MAP_STRIPED,
        .span = refmap_span(s, p, span),
        .quantum_shift = quantum_shift,
    };
    bool apart = p != PROT_NONE && array_hosts(s) >= span_min(p) && array_hosts(s) < s->ioms;
    place_members(&m, s, starter, apart ? members_apart(s, starter, m.span, spread) : members_round(s, starter, m.span));
    if (!refmap_valid(&m)) return ERR_INVAL; // span too small for the protection, or a quantum out of bounds
    *out = m;
    return OK;
}
