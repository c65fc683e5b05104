// Stripe geometry: offset of an object to (stripe, segment, member) and back. Pictures in layout.h.
//
// Everything but the number of data chunks and the span is a power of two; the divisions by those two are
// multiplications with a reciprocal, for geo_locate runs for every write.
#include "layout/layout.h"

#include <assert.h>

// ceil(2^60 / d). a * RECIPROCAL[d] / 2^60 exceeds a / d by less than a * d / (d * 2^60), which is below 1 / d, and so
// cannot reach the next integer, as long as a * d < 2^60: for every stripe and chunk of an object, and up to 2^56.
#define RECIPROCAL_SHIFT 60
#define R(d) (((1ull << RECIPROCAL_SHIFT) + (d)-1) / (d))
static const uint64_t RECIPROCAL[ARRAY_IOMS_MAX + 1] = {0,    R(1), R(2),  R(3),  R(4),  R(5),  R(6),  R(7), R(8),
                                                        R(9), R(10), R(11), R(12), R(13), R(14), R(15), R(16)};

static inline uint64_t div_small(uint64_t a, uint8_t d) { // any a; d 1..16
    if (a >> 56) return a / d;
    return (uint64_t)((unsigned __int128)a * RECIPROCAL[d] >> RECIPROCAL_SHIFT);
}

static inline uint8_t mod_small(uint64_t a, uint8_t d) { return (uint8_t)(a - div_small(a, d) * d); }

static inline uint8_t wrap(unsigned position, uint8_t span) { // position < 2 * span
    return (uint8_t)(position >= span ? position - span : position);
}

uint8_t geo_data(const struct refmap *m) {
    if (m->protection == PROT_NONE) return m->span;
    return m->protection == PROT_MIRROR ? 1 : (uint8_t)(m->span - 1);
}

bool geo_has_parity(const struct refmap *m) { return m->protection != PROT_NONE; }

// Member position of data chunk 0; the other data chunks, and the mirror's copy, are at the next positions in order.
static inline uint8_t first_pos(const struct refmap *m, uint64_t stripe) {
    if (m->protection == PROT_NONE || m->protection == PROT_PARITY3) return m->starter;
    uint8_t turn = mod_small(stripe, m->span);
    if (m->protection == PROT_MIRROR) return wrap(m->starter + turn, m->span);
    return wrap(m->starter + m->span - turn, m->span);
}

// A stripe reads: n data chunks in order, then the parity (a mirror's copy), round the ring of members.
static inline uint8_t parity_after(const struct refmap *m, uint8_t first) {
    return geo_has_parity(m) ? wrap(first + geo_data(m), m->span) : NO_IOM;
}

uint8_t geo_parity_pos(const struct refmap *m, uint64_t stripe) { return parity_after(m, first_pos(m, stripe)); }

uint8_t geo_data_pos(const struct refmap *m, uint64_t stripe, uint8_t k) {
    ASSERT(k < geo_data(m));
    return wrap(first_pos(m, stripe) + k, m->span);
}

uint8_t geo_role(const struct refmap *m, uint64_t stripe, uint8_t position) {
    if (position >= m->span) return GEO_NOTHING;
    uint8_t k = wrap(position + m->span - first_pos(m, stripe), m->span);
    if (k < geo_data(m)) return k;
    return geo_has_parity(m) && k == geo_data(m) ? GEO_PARITY : GEO_NOTHING;
}

static inline unsigned seg_shift(const struct refmap *m) { // log2 of a segment's bytes within one chunk
    unsigned most = BLOCK_SHIFT + (geo_data(m) <= 7 ? 4 : 3);
    return MIN(m->quantum_shift, most);
}
static_assert(SEG_BLOCKS_MAX == 1 << 4, "a segment is 16 rows, or 8 of wide stripes");

uint8_t geo_seg_blocks(const struct refmap *m) { return (uint8_t)(1u << (seg_shift(m) - BLOCK_SHIFT)); }

uint32_t geo_segs_per_chunk(const struct refmap *m) { return 1u << (m->quantum_shift - seg_shift(m)); }

uint64_t geo_seg_stripe(const struct refmap *m, uint64_t seg) { return seg >> (m->quantum_shift - seg_shift(m)); }

struct place geo_locate(const struct refmap *m, uint64_t off_bytes) {
    uint8_t n = geo_data(m);
    uint64_t chunk = off_bytes >> m->quantum_shift;
    uint64_t in_chunk = off_bytes & (refmap_quantum(m) - 1);
    unsigned shift = seg_shift(m);
    struct place p = {.stripe = div_small(chunk, n)};
    p.k = (uint8_t)(chunk - p.stripe * n);
    p.seg = (p.stripe << (m->quantum_shift - shift)) + (in_chunk >> shift);
    p.seg_off_bytes = (uint32_t)(in_chunk & ((1u << shift) - 1));
    p.run_bytes = (1u << shift) - p.seg_off_bytes;
    uint8_t first = first_pos(m, p.stripe);
    p.data = refmap_member(m, wrap(first + p.k, m->span));
    p.parity = geo_has_parity(m) ? refmap_member(m, parity_after(m, first)) : (iom_id){NO_IOM};
    return p;
}

uint64_t geo_offset(const struct refmap *m, uint64_t seg, uint8_t k, uint32_t seg_off_bytes) {
    unsigned shift = seg_shift(m);
    uint64_t seg_in_chunk = seg & (geo_segs_per_chunk(m) - 1);
    uint64_t chunk = geo_seg_stripe(m, seg) * geo_data(m) + k;
    return (chunk << m->quantum_shift) + (seg_in_chunk << shift) + seg_off_bytes;
}

uint64_t geo_segs_of_size(const struct refmap *m, uint64_t size_bytes) {
    uint8_t n = geo_data(m);
    uint64_t chunks = (size_bytes >> m->quantum_shift) + ((size_bytes & (refmap_quantum(m) - 1)) != 0);
    return div_small(chunks + n - 1, n) << (m->quantum_shift - seg_shift(m));
}
