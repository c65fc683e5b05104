// Properties of handles, referential maps and stripe geometry, over every protection, span, quantum, starter and form.
// The reference is the definition taken literally: a table of who holds what, filled chunk by chunk.
#include "layout/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

// ---- every map there is, up to which IOMs the members are

static const enum protection PROTECTIONS[] = {PROT_NONE, PROT_MIRROR, PROT_PARITY3, PROT_PARITY};

static struct refmap map_of(enum protection p, uint8_t span, uint8_t quantum_shift, uint8_t starter, enum map_form form) {
    struct refmap m = {.protection = (uint8_t)p,
                       .form = (uint8_t)form,
                       .span = span,
                       .quantum_shift = quantum_shift,
                       .starter = starter};
    if (form == MAP_STRIPED) m.lowest = (uint8_t)((ARRAY_IOMS_MAX - span) / 2);
    else
        for (uint8_t i = 0; i < span; i++) m.member[i] = (uint8_t)((5 + 7 * i) % ARRAY_IOMS_MAX); // distinct: 7 is odd
    return m;
}

static void for_each_map(void (*check)(const struct refmap *m)) {
    unsigned maps = 0;
    for (size_t p = 0; p < ARRAY_LEN(PROTECTIONS); p++)
        for (uint8_t span = 1; span <= ARRAY_IOMS_MAX; span++)
            for (uint8_t quantum = 12; quantum <= 22; quantum++)
                for (uint8_t starter = 0; starter < span; starter++)
                    for (int form = MAP_STRIPED; form <= MAP_EXPLICIT; form++) {
                        struct refmap m = map_of(PROTECTIONS[p], span, quantum, starter, (enum map_form)form);
                        if (!refmap_valid(&m)) continue;
                        check(&m);
                        maps++;
                    }
    assert_int_equal(maps, 2 * 11 * (136 + 135 + 133 + 133)); // spans from 1, 2, 3, 3 to 16, each with all its starters
}

// ---- geometry against its definition

static void data_chunks_and_parity_of_a_stripe_are_at_distinct_members(const struct refmap *m) {
    for (uint64_t t = 0; t < 3u * m->span; t++) {
        unsigned data = 0, parity = 0, nothing = 0;
        for (uint8_t pos = 0; pos < m->span; pos++) {
            uint8_t role = geo_role(m, t, pos);
            if (role == GEO_PARITY) {
                assert_int_equal(geo_parity_pos(m, t), pos);
                parity++;
            } else if (role == GEO_NOTHING) {
                nothing++;
            } else {
                assert_in_range(role, 0, geo_data(m) - 1);
                assert_int_equal(geo_data_pos(m, t, role), pos);
                data++;
            }
        }
        // As many roles as chunks, each found again from its position: so the positions are distinct.
        assert_int_equal(data, geo_data(m));
        assert_int_equal(parity, geo_has_parity(m) ? 1 : 0);
        assert_int_equal(nothing, m->protection == PROT_MIRROR ? m->span - 2 : 0);
        assert_int_equal(geo_role(m, t, m->span), GEO_NOTHING);
        if (!geo_has_parity(m)) assert_int_equal(geo_parity_pos(m, t), NO_IOM);
    }
}

static void chunks_are_where_the_definition_says(const struct refmap *m) {
    for (uint64_t t = 0; t < 40; t++) {
        unsigned s = m->span, turn = (unsigned)(t % s);
        switch ((enum protection)m->protection) {
        case PROT_NONE:
            for (uint8_t k = 0; k < s; k++) assert_int_equal(geo_data_pos(m, t, k), (m->starter + k) % s);
            break;
        case PROT_MIRROR:
            assert_int_equal(geo_data_pos(m, t, 0), (m->starter + turn) % s);
            assert_int_equal(geo_parity_pos(m, t), (m->starter + turn + 1) % s);
            break;
        case PROT_PARITY3:
            assert_int_equal(geo_parity_pos(m, t), (m->starter + s - 1) % s);
            for (uint8_t k = 0; k + 1u < s; k++) assert_int_equal(geo_data_pos(m, t, k), (m->starter + k) % s);
            break;
        case PROT_PARITY: {
            unsigned parity = (m->starter + 2 * s - 1 - turn) % s;
            assert_int_equal(geo_parity_pos(m, t), parity);
            for (uint8_t k = 0; k + 1u < s; k++) assert_int_equal(geo_data_pos(m, t, k), (parity + 1 + k) % s);
            break;
        }
        }
    }
}

static void consecutive_chunks_visit_the_members_in_turn(const struct refmap *m) {
    uint64_t quantum = refmap_quantum(m);
    uint8_t at = refmap_position(m, geo_locate(m, 0).data);
    assert_int_equal(at, m->starter);
    for (uint64_t chunk = 1; chunk < 4u * m->span; chunk++) {
        uint8_t next = refmap_position(m, geo_locate(m, chunk * quantum).data);
        bool skips_parity = m->protection == PROT_PARITY3 && chunk % geo_data(m) == 0;
        assert_int_equal(next, (at + (skips_parity ? 2 : 1)) % m->span);
        at = next;
    }
}

static void parity_rotates_evenly(const struct refmap *m) {
    unsigned held[ARRAY_IOMS_MAX] = {0};
    if (!geo_has_parity(m)) return;
    for (uint64_t t = 0; t < 5u * m->span; t++) held[geo_parity_pos(m, t)]++;
    for (uint8_t pos = 0; pos < m->span; pos++) {
        unsigned share = m->protection == PROT_PARITY3 ? (pos == (m->starter + m->span - 1) % m->span ? 5u * m->span : 0) : 5;
        assert_int_equal(held[pos], share);
    }
}

// Walks the object from segment to segment: each must be the next place of its chunk, none may be met twice or left out.
static void every_byte_has_exactly_one_home(const struct refmap *m) {
    uint8_t n = geo_data(m);
    uint32_t seg_bytes = geo_seg_blocks(m) * BLOCK_BYTES, per_chunk = geo_segs_per_chunk(m);
    assert_int_equal((uint64_t)seg_bytes * per_chunk, refmap_quantum(m));
    assert_in_range(geo_seg_blocks(m), 1, n <= 7 ? SEG_BLOCKS_MAX : SEG_BLOCKS_MAX / 2);
    uint64_t off = 0;
    for (uint64_t t = 0; t < 3; t++)
        for (uint8_t k = 0; k < n; k++)
            for (uint32_t i = 0; i < per_chunk; i++) {
                struct place p = geo_locate(m, off);
                if (p.stripe != t || p.k != k || p.seg != t * per_chunk + i || p.seg_off_bytes != 0 || p.run_bytes != seg_bytes)
                    fail_msg("offset %llu is out of place", (unsigned long long)off);
                assert_int_equal(geo_seg_stripe(m, p.seg), t);
                off += p.run_bytes;
            }
    assert_int_equal(off, 3ull * n * refmap_quantum(m));
}

static void check_place(const struct refmap *m, uint64_t off) {
    struct place p = geo_locate(m, off);
    uint32_t seg_bytes = geo_seg_blocks(m) * BLOCK_BYTES;
    assert_int_equal(p.stripe, off / refmap_quantum(m) / geo_data(m));
    assert_int_equal(p.k, off / refmap_quantum(m) % geo_data(m));
    assert_true(p.seg_off_bytes < seg_bytes);
    assert_int_equal(p.seg_off_bytes + p.run_bytes, seg_bytes);
    assert_int_equal(geo_offset(m, p.seg, p.k, p.seg_off_bytes), off);
    assert_int_equal(geo_seg_stripe(m, p.seg), p.stripe);
    assert_int_equal(p.data.n, refmap_member(m, geo_data_pos(m, p.stripe, p.k)).n);
    if (geo_has_parity(m)) assert_int_equal(p.parity.n, refmap_member(m, geo_parity_pos(m, p.stripe)).n);
    else assert_int_equal(p.parity.n, NO_IOM);
    // The last byte of the run is in the same segment, the next one is not.
    struct place last = geo_locate(m, off + p.run_bytes - 1), next = geo_locate(m, off + p.run_bytes);
    assert_true(last.seg == p.seg && last.k == p.k && last.run_bytes == 1);
    assert_true(next.seg != p.seg || next.k != p.k);
}

static uint64_t random_state;
static uint64_t random_next(void) { // xorshift64*: the same numbers in every run
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1du;
}

static void offset_inverts_locate_at_any_size(const struct refmap *m) {
    static const uint64_t EDGES[] = {0, 1, 4095, 4096, 65535, 65536, (1ull << 40) - 1, 1ull << 40, 1ull << 61};
    for (size_t i = 0; i < ARRAY_LEN(EDGES); i++) check_place(m, EDGES[i]);
    for (int back = 0; back < 3; back++) check_place(m, OBJECT_BYTES_MAX - (uint64_t)back * 4095);
    for (int i = 0; i < 20; i++) check_place(m, random_next() >> (2 + random_next() % 50));
}

static void size_covers_whole_stripes(const struct refmap *m) {
    uint64_t stripe_bytes = refmap_quantum(m) * geo_data(m), per = geo_segs_per_chunk(m);
    assert_int_equal(geo_segs_of_size(m, 0), 0);
    for (uint64_t t = 0; t < 5; t++) {
        assert_int_equal(geo_segs_of_size(m, t * stripe_bytes + 1), (t + 1) * per);
        assert_int_equal(geo_segs_of_size(m, (t + 1) * stripe_bytes), (t + 1) * per);
    }
    uint64_t last = geo_locate(m, OBJECT_BYTES_MAX - 1).stripe;
    assert_int_equal(geo_segs_of_size(m, OBJECT_BYTES_MAX), (last + 1) * per);
}

static void positions_and_members_agree(const struct refmap *m) {
    unsigned members = 0;
    for (uint8_t iom = 0; iom < ARRAY_IOMS_MAX; iom++) {
        uint8_t pos = refmap_position(m, (iom_id){iom});
        if (pos == NO_IOM) continue;
        assert_int_equal(refmap_member(m, pos).n, iom);
        members++;
    }
    assert_int_equal(members, m->span);
    assert_int_equal(refmap_position(m, (iom_id){NO_IOM}), NO_IOM);
}

static void survives_encoding(const struct refmap *m) {
    uint8_t bytes[REFMAP_BYTES], again[REFMAP_BYTES];
    struct refmap back;
    refmap_put(bytes, m);
    assert_int_equal(refmap_at(&back, bytes), OK);
    assert_true(refmap_eq(m, &back));
    refmap_put(again, &back);
    assert_memory_equal(bytes, again, REFMAP_BYTES);
}

#define FOR_EACH_MAP(property) \
    static void test_##property(void **state) { for_each_map(property); }
FOR_EACH_MAP(data_chunks_and_parity_of_a_stripe_are_at_distinct_members)
FOR_EACH_MAP(chunks_are_where_the_definition_says)
FOR_EACH_MAP(consecutive_chunks_visit_the_members_in_turn)
FOR_EACH_MAP(parity_rotates_evenly)
FOR_EACH_MAP(every_byte_has_exactly_one_home)
FOR_EACH_MAP(size_covers_whole_stripes)
FOR_EACH_MAP(positions_and_members_agree)
FOR_EACH_MAP(survives_encoding)

static void test_offset_inverts_locate_at_any_size(void **state) {
    random_state = 0x6d656e646673;
    for_each_map(offset_inverts_locate_at_any_size);
}

static void test_the_picture_of_the_header(void **state) {
    struct refmap m = {.protection = PROT_PARITY, .span = 4, .quantum_shift = 16};
    static const char *const PICTURE[4][4] = {
        {"D0", "D1", "D2", "P"}, {"D4", "D5", "P", "D3"}, {"D8", "P", "D6", "D7"}, {"P", "D9", "D10", "D11"}};
    for (uint64_t t = 0; t < 4; t++)
        for (uint8_t pos = 0; pos < 4; pos++) {
            uint8_t role = geo_role(&m, t, pos);
            char text[8] = "P";
            if (role != GEO_PARITY) snprintf(text, sizeof text, "D%u", (unsigned)(t * 3 + role));
            assert_string_equal(text, PICTURE[t][pos]);
        }
}

// Numbers that only a damaged message can carry must still give a member position, not a wild one.
static void test_absurd_stripe_numbers_stay_in_bounds(void **state) {
    static const uint64_t STRIPES[] = {1ull << 56, (1ull << 56) - 1, 1ull << 60, UINT64_MAX - 1, UINT64_MAX};
    for (uint8_t span = 3; span <= ARRAY_IOMS_MAX; span++)
        for (size_t i = 0; i < ARRAY_LEN(STRIPES); i++) {
            struct refmap m = map_of(PROT_PARITY, span, 12, (uint8_t)(span - 1), MAP_STRIPED);
            assert_int_equal(geo_parity_pos(&m, STRIPES[i]), (2u * span - 2 - STRIPES[i] % span) % span);
        }
}

// ---- maps

static void test_refmap_golden_bytes(void **state) {
    struct refmap striped = {
        .protection = PROT_PARITY, .form = MAP_STRIPED, .span = 4, .quantum_shift = 16, .lowest = 2, .starter = 3};
    static const uint8_t STRIPED[REFMAP_BYTES] = {5, 0, 4, 16, 2, 3};
    struct refmap given = {.protection = PROT_MIRROR,
                           .form = MAP_EXPLICIT,
                           .span = 3,
                           .quantum_shift = 20,
                           .starter = 1,
                           .member = {7, 15, 0}};
    static const uint8_t GIVEN[REFMAP_BYTES] = {1, 1, 3, 20, 0, 1, 7, 15, 0};
    uint8_t bytes[REFMAP_BYTES];
    memset(bytes, 0xff, sizeof bytes);
    refmap_put(bytes, &striped);
    assert_memory_equal(bytes, STRIPED, REFMAP_BYTES);
    refmap_put(bytes, &given);
    assert_memory_equal(bytes, GIVEN, REFMAP_BYTES);
    struct refmap back;
    assert_int_equal(refmap_at(&back, GIVEN), OK);
    assert_true(refmap_eq(&back, &given));
}

static void refuse(struct refmap m, const char *why) {
    uint8_t bytes[REFMAP_BYTES];
    struct refmap out, before;
    memset(&out, 0xa5, sizeof out);
    before = out;
    refmap_put(bytes, &m);
    if (refmap_valid(&m) || refmap_at(&out, bytes) != ERR_FORMAT) fail_msg("accepted: %s", why);
    assert_memory_equal(&out, &before, sizeof out);
}

static void test_refmap_refuses_garbage(void **state) {
    struct refmap striped = map_of(PROT_PARITY, 4, 16, 1, MAP_STRIPED), given = map_of(PROT_PARITY, 4, 16, 1, MAP_EXPLICIT), m;
    assert_true(refmap_valid(&striped) && refmap_valid(&given));
#define REFUSE(base, change) (m = (base), m.change, refuse(m, #base ": " #change))
    REFUSE(striped, protection = 2);
    REFUSE(striped, protection = 4);
    REFUSE(striped, protection = 255);
    REFUSE(striped, form = 2);
    REFUSE(striped, span = 0);
    REFUSE(striped, span = 2);
    REFUSE(striped, span = 17);
    REFUSE(striped, span = 255);
    REFUSE(striped, quantum_shift = 11);
    REFUSE(striped, quantum_shift = 23);
    REFUSE(striped, quantum_shift = 255);
    REFUSE(striped, starter = 4);
    REFUSE(striped, starter = 255);
    REFUSE(striped, lowest = 13); // the last member would be IOM 16
    REFUSE(striped, lowest = 255);
    REFUSE(striped, member[0] = 1);
    REFUSE(striped, member[15] = 1);
    REFUSE(given, lowest = 1);
    REFUSE(given, member[1] = given.member[3]); // twice
    REFUSE(given, member[2] = 16);
    REFUSE(given, member[2] = NO_IOM);
    REFUSE(given, member[4] = 1); // beyond the span
    REFUSE(given, span = 6); // two members would be IOM 0
#undef REFUSE
    uint8_t bytes[REFMAP_BYTES] = {0};
    assert_int_equal(refmap_at(&m, bytes), ERR_FORMAT); // no map at all
    for (int i = REFMAP_BYTES - 2; i < REFMAP_BYTES; i++) {
        refmap_put(bytes, &striped);
        bytes[i] = 1;
        assert_int_equal(refmap_at(&m, bytes), ERR_FORMAT);
    }
}

// Whatever bytes come: refused, or exactly what would be written for the map that was read.
static void test_refmap_has_one_form_in_bytes(void **state) {
    random_state = 42;
    unsigned accepted = 0;
    for (int i = 0; i < 300000; i++) {
        struct refmap m = map_of(PROTECTIONS[random_next() % 4], (uint8_t)(1 + random_next() % 16), 16, 0,
                                 (enum map_form)(random_next() % 2));
        uint8_t bytes[REFMAP_BYTES], again[REFMAP_BYTES];
        refmap_put(bytes, &m);
        bytes[random_next() % REFMAP_BYTES] = (uint8_t)(random_next() >> (random_next() % 8) & 31);
        if (refmap_at(&m, bytes) != OK) continue;
        refmap_put(again, &m);
        assert_memory_equal(bytes, again, REFMAP_BYTES);
        accepted++;
    }
    assert_in_range(accepted, 1000, 299000);
}

static struct array_shape on_one_host(uint8_t ioms) {
    struct array_shape s;
    array_shape_make(&s, ioms, NULL);
    return s;
}

static void test_refmap_make_gives_the_starter_the_first_chunk(void **state) {
    for (uint8_t array = 1; array <= ARRAY_IOMS_MAX; array++)
        for (size_t p = 0; p < ARRAY_LEN(PROTECTIONS); p++)
            for (uint8_t span = 0; span <= array + 1; span++) {
                unsigned chunks[ARRAY_IOMS_MAX] = {0}, made = 0;
                struct array_shape shape = on_one_host(array);
                for (uint8_t starter = 0; starter < array; starter++) {
                    struct refmap m;
                    if (refmap_make(&m, &shape, (iom_id){starter}, PROTECTIONS[p], span, 16, random_next()) != OK) continue;
                    made++;
                    assert_true(refmap_valid(&m));
                    assert_int_equal(m.span, span == 0 ? array : span);
                    if (span != 0) assert_int_equal(m.protection, PROTECTIONS[p]);
                    assert_int_equal(geo_locate(&m, 0).data.n, starter);
                    bool wraps = m.span < array && starter + m.span > array;
                    assert_int_equal(m.form, wraps ? MAP_EXPLICIT : MAP_STRIPED);
                    for (uint8_t pos = 0; pos < m.span; pos++) chunks[refmap_member(&m, pos).n]++;
                }
                static const uint8_t LEAST[] = {1, 2, 3, 3};
                bool fits = span == 0 || (span >= LEAST[p] && span <= array);
                assert_int_equal(made, fits ? array : 0); // all starters or none
                // Objects started all over the array load all its members alike, and nobody else.
                for (uint8_t i = 0; i < ARRAY_IOMS_MAX; i++) assert_int_equal(chunks[i], chunks[0] * (i < array));
            }
}

static err make(struct refmap *m, uint8_t ioms, iom_id starter, enum protection p, uint8_t span, uint8_t quantum_shift) {
    struct array_shape s = {.ioms = ioms};
    if (ioms >= 1 && ioms <= ARRAY_IOMS_MAX) s = on_one_host(ioms);
    return refmap_make(m, &s, starter, p, span, quantum_shift, 0);
}

static void test_refmap_make_lowers_protection_only_if_the_span_is_left_open(void **state) {
    struct refmap m;
    iom_id first = {0};
    assert_int_equal(make(&m, 3, first, PROT_PARITY, 0, 16), OK);
    assert_int_equal(m.protection, PROT_PARITY);
    assert_int_equal(make(&m, 2, first, PROT_PARITY, 0, 16), OK);
    assert_int_equal(m.protection, PROT_MIRROR);
    assert_int_equal(make(&m, 1, first, PROT_PARITY3, 0, 16), OK);
    assert_int_equal(m.protection, PROT_NONE);
    assert_int_equal(make(&m, 1, first, PROT_MIRROR, 0, 16), OK);
    assert_int_equal(m.protection, PROT_NONE);
    assert_int_equal(make(&m, 2, first, PROT_PARITY, 2, 16), ERR_INVAL);
    assert_int_equal(make(&m, 1, first, PROT_MIRROR, 1, 16), ERR_INVAL);
}

static void test_refmap_make_refuses(void **state) {
    struct refmap m, before;
    memset(&m, 0x5a, sizeof m);
    before = m;
    assert_int_equal(make(&m, 0, (iom_id){0}, PROT_NONE, 0, 16), ERR_INVAL);
    assert_int_equal(make(&m, 17, (iom_id){0}, PROT_NONE, 0, 16), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){4}, PROT_NONE, 0, 16), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){NO_IOM}, PROT_NONE, 0, 16), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){0}, (enum protection)2, 0, 16), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){0}, (enum protection)256, 0, 16), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){0}, PROT_PARITY, 5, 16), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){0}, PROT_PARITY, 4, 11), ERR_INVAL);
    assert_int_equal(make(&m, 4, (iom_id){0}, PROT_PARITY, 4, 23), ERR_INVAL);
    assert_memory_equal(&m, &before, sizeof m);
}

// ---- hosts
#define LABELLED_MAX 6 // IOMs of which every way to be on hosts is tried

static void for_each_labelling(void (*check)(const struct array_shape *s)) {
    for (uint8_t ioms = 1; ioms <= LABELLED_MAX; ioms++) {
        unsigned ways = 1;
        for (uint8_t i = 0; i < ioms; i++) ways *= ioms;
        for (unsigned way = 0; way < ways; way++) {
            uint8_t host[LABELLED_MAX];
            struct array_shape s;
            for (unsigned i = 0, digits = way; i < ioms; i++, digits /= ioms) host[i] = (uint8_t)(digits % ioms);
            array_shape_make(&s, ioms, host);
            assert_memory_equal(s.host, host, ioms);
            check(&s);
        }
    }
}

static unsigned hosts_counted(const struct array_shape *s) {
    unsigned seen = 0;
    for (uint8_t i = 0; i < s->ioms; i++) seen |= 1u << s->host[i];
    return (unsigned)__builtin_popcount(seen);
}

static unsigned apart_in(const struct array_shape *s, const uint8_t proxy[]) {
    unsigned n = 0;
    for (uint8_t i = 0; i < s->ioms; i++) n += s->host[i] != s->host[proxy[i]];
    return n;
}

static bool is_one_ring(const struct array_shape *s) { // home again after all of them, not before
    iom_id at = {0};
    for (uint8_t i = 0; i < s->ioms; i++) {
        iom_id next = proxy_of(s, at);
        if (next.n >= s->ioms || iom_eq(next, at) || !iom_eq(ward_of(s, next), at)) return false;
        at = next;
        if ((at.n == 0) != (i + 1 == s->ioms)) return false;
    }
    return true;
}

// The best of all ways to give each IOM a proxy that is another's of nobody else: a ring is one of them.
static unsigned best_apart(const struct array_shape *s, uint8_t proxy[], uint8_t i, unsigned taken) {
    unsigned best = 0;
    if (i == s->ioms) return apart_in(s, proxy);
    for (uint8_t p = 0; p < s->ioms; p++) {
        if (p == i || taken >> p & 1) continue;
        proxy[i] = p;
        unsigned found = best_apart(s, proxy, (uint8_t)(i + 1), taken | 1u << p);
        best = MAX(best, found);
    }
    return best;
}

static void proxies_are_apart_as_far_as_can_be(const struct array_shape *s) {
    uint8_t proxy[LABELLED_MAX], natural[LABELLED_MAX];
    if (s->ioms == 1) {
        assert_int_equal(s->proxy[0], NO_IOM);
        return;
    }
    assert_true(is_one_ring(s));
    unsigned best = best_apart(s, proxy, 0, 0);
    assert_int_equal(apart_in(s, s->proxy), best);
    for (uint8_t i = 0; i < s->ioms; i++) natural[i] = (uint8_t)((i + 1) % s->ioms);
    if (apart_in(s, natural) == best) assert_memory_equal(s->proxy, natural, s->ioms);
}

static void test_proxies_are_on_other_hosts_as_far_as_can_be(void **state) { for_each_labelling(proxies_are_apart_as_far_as_can_be); }

static void test_proxies_form_one_ring(void **state) {
    for (uint8_t array = 2; array <= ARRAY_IOMS_MAX; array++) {
        struct array_shape s = on_one_host(array);
        assert_true(is_one_ring(&s));
        for (uint8_t i = 0; i < array; i++) assert_int_equal(proxy_of(&s, (iom_id){i}).n, (i + 1) % array);
    }
    for (unsigned n = 0; n < 20000; n++) { // larger ones on hosts by chance
        uint8_t ioms = (uint8_t)(2 + random_next() % (ARRAY_IOMS_MAX - 1)), host[ARRAY_IOMS_MAX], size[ARRAY_IOMS_MAX] = {0}, most = 0;
        uint8_t hosts = (uint8_t)(1 + random_next() % ioms);
        for (uint8_t i = 0; i < ioms; i++) {
            host[i] = (uint8_t)(random_next() % hosts);
            size[host[i]]++;
            most = MAX(most, size[host[i]]);
        }
        struct array_shape s;
        array_shape_make(&s, ioms, host);
        assert_true(is_one_ring(&s));
        assert_int_equal(apart_in(&s, s.proxy), 2 * most <= ioms ? ioms : 2 * (ioms - most));
    }
    struct array_shape alone = on_one_host(1);
    assert_int_equal(proxy_of(&alone, (iom_id){0}).n, NO_IOM);
    assert_int_equal(ward_of(&alone, (iom_id){0}).n, NO_IOM);
}

static void no_group_has_two_members_on_one_host(const struct array_shape *s) {
    static const uint8_t LEAST[] = {[PROT_NONE] = 1, [PROT_MIRROR] = 2, [PROT_PARITY3] = 3, [PROT_PARITY] = 3};
    unsigned hosts = hosts_counted(s);
    assert_int_equal(array_hosts(s), hosts);
    for (size_t p = 0; p < ARRAY_LEN(PROTECTIONS); p++)
        for (uint8_t span = 0; span <= s->ioms; span++)
            for (uint8_t starter = 0; starter < s->ioms; starter++) {
                struct refmap m;
                enum protection prot = PROTECTIONS[p];
                err e = refmap_make(&m, s, (iom_id){starter}, prot, span, 16, random_next());
                assert_int_equal(e, span == 0 || span >= LEAST[prot] ? OK : ERR_INVAL);
                if (e != OK) continue;
                prot = (enum protection)m.protection;
                bool enough = prot != PROT_NONE && hosts >= LEAST[prot];
                uint8_t want = span ? span : s->ioms;
                assert_int_equal(m.span, enough ? MIN(want, hosts) : want);
                assert_int_equal(geo_locate(&m, 0).data.n, starter);
                unsigned on[LABELLED_MAX] = {0};
                for (uint8_t i = 0; i < m.span; i++) {
                    assert_in_range(refmap_member(&m, i).n, 0, s->ioms - 1);
                    if (++on[s->host[refmap_member(&m, i).n]] > 1) assert_false(enough);
                }
            }
}

static void test_no_group_has_two_members_on_one_host(void **state) { for_each_labelling(no_group_has_two_members_on_one_host); }

// Over many objects each IOM of a host has as much as the others of it, and where hosts are chosen, larger ones are taken sooner.
static void test_members_are_spread_over_the_ioms_of_a_host(void **state) {
    static const uint8_t HOSTS[] = {0, 0, 0, 1, 1, 2, 3, 3};
    unsigned full[8] = {0}, three[8] = {0}, objects = 8 * 3000;
    struct array_shape s;
    array_shape_make(&s, 8, HOSTS);
    for (unsigned n = 0; n < objects; n++) {
        struct refmap m;
        struct handle h = {.starter = (uint8_t)(n % 8), .index = 1 + n / 8, .generation = 1};
        assert_int_equal(refmap_make(&m, &s, (iom_id){h.starter}, PROT_PARITY, 0, 16, handle_hash(h)), OK);
        assert_int_equal(m.span, 4);
        for (uint8_t i = 0; i < m.span; i++) full[refmap_member(&m, i).n]++;
        assert_int_equal(refmap_make(&m, &s, (iom_id){h.starter}, PROT_PARITY, 3, 16, handle_hash(h)), OK);
        assert_int_equal(m.span, 3);
        for (uint8_t i = 0; i < m.span; i++) three[refmap_member(&m, i).n]++;
    }
    for (uint8_t i = 0; i < 8; i++) {
        unsigned on_host = 0;
        for (uint8_t k = 0; k < 8; k++) on_host += HOSTS[k] == HOSTS[i];
        assert_in_range(full[i], objects / on_host * 95 / 100, objects / on_host * 105 / 100);
    }
    assert_true(three[0] + three[1] + three[2] > three[6] + three[7] && three[3] + three[4] > three[5]);
}

// Two IOMs a host, the IOMs of one next to each other: members that follow each other are said so.
static void test_the_form_of_members_over_hosts(void **state) {
    static const uint8_t HOSTS[] = {0, 0, 1, 2};
    struct array_shape s;
    array_shape_make(&s, 4, HOSTS);
    struct refmap m;
    assert_int_equal(refmap_make(&m, &s, (iom_id){2}, PROT_PARITY, 0, 16, 1), OK); // of 0 and 1 the second: 1, 2, 3
    assert_int_equal(m.form, MAP_STRIPED);
    assert_int_equal(m.lowest, 1);
    assert_int_equal(m.starter, 1);
    assert_int_equal(refmap_make(&m, &s, (iom_id){2}, PROT_PARITY, 0, 16, 0), OK); // the first: 2, 3, 0
    assert_int_equal(m.form, MAP_EXPLICIT);
    static const uint8_t MEMBERS[] = {2, 3, 0};
    assert_memory_equal(m.member, MEMBERS, 3);
}

// ---- handles

static void test_handle_golden_bytes(void **state) {
    struct handle h = {.array = 0x0102, .starter = 0x03, .generation = 0xa1b2c3d4, .index = 0x0000112233445566};
    static const uint8_t GOLDEN[HANDLE_BYTES] = {0x01, 0x02, 0x03, 0x00, 0x00, 0x00, 0x11, 0x22,
                                                 0x33, 0x44, 0x55, 0x66, 0xa1, 0xb2, 0xc3, 0xd4};
    uint8_t bytes[HANDLE_BYTES];
    handle_put(bytes, h);
    assert_memory_equal(bytes, GOLDEN, HANDLE_BYTES);
    assert_true(handle_eq(handle_at(GOLDEN), h));
    assert_int_equal(handle_inode(h), 0x0102ull << 51 | 3ull << 47 | 0x112233445566);
}

static void test_root(void **state) {
    struct handle h = handle_root();
    assert_true(handle_valid(h));
    assert_int_equal(handle_inode(h), 1);
    assert_int_equal(h.generation, 1);
}

static struct handle random_handle(void) { // near the limits as often as not, and often close to each other
    return (struct handle){
        .array = (uint16_t)(random_next() % (random_next() % 2 ? HANDLE_ARRAYS : 2)),
        .starter = (uint8_t)(random_next() % ARRAY_IOMS_MAX),
        .generation = (uint32_t)(random_next() >> (32 + random_next() % 32)),
        .index = 1 + (random_next() & (HANDLE_INDEX_END - 1)) % ((HANDLE_INDEX_END - 1) >> random_next() % 47),
    };
}

static int compare(uint64_t a, uint64_t b) { return (a > b) - (a < b); }
static int sign(int v) { return (v > 0) - (v < 0); }

static void test_handle_bytes_sort_as_handles(void **state) {
    random_state = 7;
    for (int i = 0; i < 200000; i++) {
        struct handle a = random_handle(), b = random_handle();
        if (i % 3 == 0) b.array = a.array, b.starter = a.starter;
        if (i % 9 == 0) b.index = a.index;
        if (i % 27 == 0) b.generation = a.generation;
        int order = compare(a.array, b.array);
        if (order == 0) order = compare(a.starter, b.starter);
        if (order == 0) order = compare(a.index, b.index);
        if (order == 0) order = compare(a.generation, b.generation);
        uint8_t x[HANDLE_BYTES], y[HANDLE_BYTES];
        handle_put(x, a);
        handle_put(y, b);
        assert_int_equal(sign(memcmp(x, y, HANDLE_BYTES)), order);
        assert_int_equal(handle_eq(a, b), order == 0);
        assert_true(handle_valid(a) && handle_eq(handle_at(x), a));
        if (order == 0) assert_int_equal(handle_hash(a), handle_hash(b));
        bool same_object = a.array == b.array && a.starter == b.starter && a.index == b.index;
        assert_int_equal(handle_inode(a) == handle_inode(b), same_object);
        assert_true(handle_inode(a) != 0 && handle_inode(a) >> 63 == 0);
    }
}

static void test_handle_refuses_garbage(void **state) {
    struct handle h = handle_root();
    uint8_t bytes[HANDLE_BYTES] = {0};
    assert_false(handle_valid(handle_at(bytes)));
    memset(bytes, 0xff, sizeof bytes);
    assert_false(handle_valid(handle_at(bytes)));
    handle_put(bytes, h);
    assert_true(handle_valid(handle_at(bytes)));
    bytes[3] = 1;
    assert_false(handle_valid(handle_at(bytes)));
    h = handle_root(), h.array = HANDLE_ARRAYS;
    assert_false(handle_valid(h));
    h = handle_root(), h.starter = ARRAY_IOMS_MAX;
    assert_false(handle_valid(h));
    h = handle_root(), h.index = 0;
    assert_false(handle_valid(h));
    h = handle_root(), h.index = HANDLE_INDEX_END;
    assert_false(handle_valid(h));
    h.index--;
    assert_true(handle_valid(h));
}

// Buckets by the low bits, as a hash table takes them: neighbours in every field must not crowd.
static void test_handle_hash_spreads(void **state) {
    for (int field = 0; field < 3; field++) {
        unsigned bucket[256] = {0};
        for (uint32_t i = 0; i < 256 * 64; i++) {
            struct handle h = handle_root();
            if (field == 0) h.index = 1 + i;
            if (field == 1) h.generation = i;
            if (field == 2) h.starter = (uint8_t)(i % 16), h.array = (uint16_t)(i / 16);
            bucket[handle_hash(h) & 255]++;
        }
        for (int b = 0; b < 256; b++) assert_in_range(bucket[b], 24, 120); // 64 expected, 5 and 7 standard deviations
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_picture_of_the_header),
        cmocka_unit_test(test_chunks_are_where_the_definition_says),
        cmocka_unit_test(test_data_chunks_and_parity_of_a_stripe_are_at_distinct_members),
        cmocka_unit_test(test_consecutive_chunks_visit_the_members_in_turn),
        cmocka_unit_test(test_parity_rotates_evenly),
        cmocka_unit_test(test_every_byte_has_exactly_one_home),
        cmocka_unit_test(test_offset_inverts_locate_at_any_size),
        cmocka_unit_test(test_size_covers_whole_stripes),
        cmocka_unit_test(test_absurd_stripe_numbers_stay_in_bounds),
        cmocka_unit_test(test_positions_and_members_agree),
        cmocka_unit_test(test_survives_encoding),
        cmocka_unit_test(test_refmap_golden_bytes),
        cmocka_unit_test(test_refmap_refuses_garbage),
        cmocka_unit_test(test_refmap_has_one_form_in_bytes),
        cmocka_unit_test(test_refmap_make_gives_the_starter_the_first_chunk),
        cmocka_unit_test(test_refmap_make_lowers_protection_only_if_the_span_is_left_open),
        cmocka_unit_test(test_refmap_make_refuses),
        cmocka_unit_test(test_proxies_form_one_ring),
        cmocka_unit_test(test_proxies_are_on_other_hosts_as_far_as_can_be),
        cmocka_unit_test(test_no_group_has_two_members_on_one_host),
        cmocka_unit_test(test_members_are_spread_over_the_ioms_of_a_host),
        cmocka_unit_test(test_the_form_of_members_over_hosts),
        cmocka_unit_test(test_handle_golden_bytes),
        cmocka_unit_test(test_root),
        cmocka_unit_test(test_handle_bytes_sort_as_handles),
        cmocka_unit_test(test_handle_refuses_garbage),
        cmocka_unit_test(test_handle_hash_spreads),
    };
    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
