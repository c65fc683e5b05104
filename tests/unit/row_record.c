// The records of rows: what is put comes back, garbage is refused, the longest ones keep within a journal sector, and the blocks they name are told.
#include "iom/row_state.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct handle object = {.array = 0, .starter = 2, .generation = 9, .index = 77};

struct counted { uint64_t at[64]; uint32_t len; };
static void count(void *arg, block_addr at, uint32_t n) {
    struct counted *c = arg;
    for (uint32_t i = 0; i < n; i++) c->at[c->len++] = at.n + i;
}

static void a_data_chunk_comes_back(void **state) {
    (void)state;
    struct object o = {.h = object};
    struct dseg a = {.s = {.o = &o, .role = ROW_DATA, .blocks = 16}}, b = {.s = {.o = &o, .role = ROW_DATA, .blocks = 16}};
    uint8_t val[RECORD_BYTES_MAX];
    for (unsigned i = 0; i < 16; i += 3) {
        a.s.spot[i] = (struct spot){i == 6 ? 0 : (1ull << 40) + i, 0xdeadbe00u + i};
        a.row_version[i] = 2 + 2 * i;
    }
    uint32_t len = row_chunk_encode(&a.s, val);
    assert_int_equal(row_chunk_decode(&b.s, val, len), OK);
    assert_memory_equal(a.s.spot, b.s.spot, sizeof a.s.spot);
    assert_memory_equal(a.row_version, b.row_version, sizeof a.row_version);
    assert_int_equal(b.version, 32);
    struct key k = row_key(KIND_CHUNK, object, 5);
    struct counted c = {0};
    row_record_refs(&k, val, len, count, &c);
    assert_int_equal(c.len, 5); // six rows, one of them a hole
    assert_int_equal(row_chunk_decode(&b.s, val, len - 1), ERR_FORMAT);
    b.s.role = ROW_PARITY;
    struct pseg p = {.s = {.role = ROW_PARITY, .blocks = 16}, .n = 3};
    assert_int_equal(row_chunk_decode(&p.s, val, len), ERR_FORMAT);
}

static void the_longest_parity_chunks_fit_a_sector(void **state) {
    (void)state;
    static const struct { uint8_t n, blocks; } widest[] = {{7, 16}, {15, 8}};
    for (unsigned w = 0; w < 2; w++) {
        uint64_t versions[2][16 * 15] = {{0}};
        struct object o = {.h = object};
        struct pseg a = {.s = {.o = &o, .role = ROW_PARITY, .blocks = widest[w].blocks}, .n = widest[w].n, .versions = versions[0]}, b = a;
        b.versions = versions[1];
        for (unsigned i = 0; i < a.s.blocks; i++) {
            a.s.spot[i] = (struct spot){i + 1, i};
            for (unsigned k = 0; k < a.n; k++) versions[0][i * a.n + k] = (1ull << 43) + 2 * k;
        }
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len = row_chunk_encode(&a.s, val);
        assert_true(len <= RECORD_BYTES_ATOMIC);
        assert_int_equal(row_chunk_decode(&b.s, val, len), OK);
        assert_memory_equal(versions[0], versions[1], sizeof versions[0]);
    }
}

static void an_update_comes_back(void **state) {
    (void)state;
    struct update u = {.role = ROW_PARITY, .k = 0xff, .rows = 0xffff, .version = 12, .end = 1ull << 61, .truncates = 4, .parts = ROW_PARTS_MAX}, v;
    for (unsigned i = 0; i < 16; i++) {
        u.spot[i] = (struct spot){100 + i, ~i};
        u.part[i].k = (uint8_t)i;
        u.part[i].rows = (row_mask)(1u << i);
        u.part[i].version = (1ull << 44) - 2;
    }
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len = row_update_encode(&u, val);
    assert_true(len <= RECORD_BYTES_ATOMIC);
    assert_int_equal(row_update_decode(&v, val, len), OK);
    assert_int_equal(row_update_encode(&v, val + 850), len);
    assert_memory_equal(val, val + 850, len);
    struct key k = row_key(KIND_UPDATE, object, 5 | ROW_KEY_HELD);
    struct counted c = {0};
    row_record_refs(&k, val, len, count, &c);
    assert_int_equal(c.len, 16);
    for (uint32_t cut = 0; cut < len; cut++) assert_int_equal(row_update_decode(&v, val, cut), ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_data_chunk_comes_back),
        cmocka_unit_test(the_longest_parity_chunks_fit_a_sector),
        cmocka_unit_test(an_update_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
