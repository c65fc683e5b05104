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

// Members from the starter on, round the ring, so that maps of a small span load all IOMs alike.
static void place_members(struct refmap *m, uint8_t array_ioms, iom_id starter) {
    if (m->span == array_ioms) {
        m->starter = starter.n;
    } else if (starter.n + m->span <= array_ioms) {
        m->lowest = starter.n;
    } else {
        m->form = MAP_EXPLICIT;
        for (uint8_t i = 0; i < m->span; i++) m->member[i] = (uint8_t)((starter.n + i) % array_ioms);
    }
}

err refmap_make(struct refmap *out, uint8_t array_ioms, iom_id starter, enum protection p, uint8_t span,
                uint8_t quantum_shift) {
    if (array_ioms < 1 || array_ioms > ARRAY_IOMS_MAX || starter.n >= array_ioms || span > array_ioms) return ERR_INVAL;
    if (span_min(p) == 0) return ERR_INVAL;
    if (span == 0) p = protection_that_fits(p, array_ioms);
    struct refmap m = {
        .protection = (uint8_t)p,
        .form = MAP_STRIPED,
        .span = span == 0 ? array_ioms : span,
        .quantum_shift = quantum_shift,
    };
    place_members(&m, array_ioms, starter);
    if (!refmap_valid(&m)) return ERR_INVAL; // span too small for the protection, or a quantum out of bounds
    *out = m;
    return OK;
}

iom_id proxy_of(iom_id iom, uint8_t array_ioms) {
    ASSERT(iom.n < array_ioms);
    if (array_ioms == 1) return (iom_id){NO_IOM};
    return (iom_id){(uint8_t)(iom.n + 1 == array_ioms ? 0 : iom.n + 1)};
}

iom_id ward_of(iom_id iom, uint8_t array_ioms) {
    ASSERT(iom.n < array_ioms);
    if (array_ioms == 1) return (iom_id){NO_IOM};
    return (iom_id){(uint8_t)(iom.n == 0 ? array_ioms - 1 : iom.n - 1)};
}
