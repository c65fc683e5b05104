// The framing of messages: its bytes, fixed for ever by a golden header, and one clear reason for each fault.
#include "wire/frame.h"
#include "base/sum.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct mem *mem;

static int setup(void **state) {
    mem = mem_create();
    return 0;
}

static int teardown(void **state) {
    mem_destroy(mem);
    return 0;
}

static struct msg *message(const char *body, const char *payload) {
    struct msg *m = msg_new(mem, 0x0102, (uint32_t)strlen(body));
    m->flags = 0x0304;
    memcpy(m->body, body, strlen(body));
    if (payload) {
        m->payload = (struct slice){buf_new(mem, (uint32_t)strlen(payload)), 0, (uint32_t)strlen(payload)};
        memcpy(slice_data(m->payload), payload, strlen(payload));
    }
    return m;
}

// A whole frame as the wire carries it; returns its length.
static size_t wire(uint8_t *out, const struct msg *m, bool sum) {
    struct frame_header h;
    frame_encode(&h, m, sum, 7);
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, m->body, m->body_len);
    if (m->payload.len_bytes) memcpy(out + sizeof h + m->body_len, slice_data(m->payload), m->payload.len_bytes);
    return sizeof h + m->body_len + m->payload.len_bytes;
}

// Gives a frame, altered by hand, the right sum again, so that only what was altered is wrong.
static void sum_again(uint8_t *p, uint32_t body_len) {
    uint32_t sum = crc32c_plain(crc32c_plain(0, p, 16), p + 20, 12 + body_len);
    for (int i = 0; i < 4; i++) p[16 + i] = (uint8_t)(sum >> 8 * i);
}

static void the_golden_header(void **state) {
    static const uint8_t golden[FRAME_HEADER_BYTES] = {
        'M', 'D', 'F', '1', 0x02, 0x01, 0x04, 0x83, 5, 0, 0, 0, 9, 0, 0, 0,
        0x94, 0x28, 0x64, 0xda, 0x83, 0x92, 0x06, 0xe3, 7, 0, 0, 0, 0, 0, 0, 0};
    uint8_t p[128];
    struct msg *m = message("hello", "123456789"); // CRC32C of these nine digits: e3069283, RFC 3720
    assert_int_equal(wire(p, m, true), FRAME_HEADER_BYTES + 5 + 9);
    assert_memory_equal(p, golden, sizeof golden);
    msg_free(m);
}

static void what_is_encoded_is_decoded(void **state) {
    uint8_t p[128];
    struct frame f;
    for (int sum = 0; sum < 2; sum++) {
        struct msg *m = message("body", "payload");
        size_t len = wire(p, m, sum);
        assert_int_equal(frame_decode(p, len, &f), FRAME_OK);
        assert_int_equal(f.type, 0x0102);
        assert_int_equal(f.flags, 0x0304);
        assert_int_equal(f.sequence, 7);
        assert_int_equal(f.payload_summed, sum);
        assert_int_equal(f.payload_len, 7);
        assert_memory_equal(f.body, "body", 4);
        assert_int_equal(frame_check_payload(&f, (const uint8_t *)"payload"), FRAME_OK);
        assert_int_equal(frame_check_payload(&f, (const uint8_t *)"paYload"), sum ? FRAME_BAD_PAYLOAD_SUM : FRAME_OK);
        msg_free(m);
    }
}

static void every_beginning_asks_for_more(void **state) {
    uint8_t p[128];
    struct frame f;
    struct msg *m = message("twenty bytes of body", NULL);
    size_t len = wire(p, m, true);
    for (size_t n = 0; n < len; n++) assert_int_equal(frame_decode(p, n, &f), FRAME_MORE);
    assert_int_equal(frame_decode(p, len, &f), FRAME_OK);
    msg_free(m);
}

static void every_flipped_bit_is_found(void **state) {
    uint8_t p[128];
    struct frame f;
    struct msg *m = message("some body", "some payload");
    size_t len = wire(p, m, true);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum frame_result r = frame_decode(p, len, &f);
        if (r == FRAME_OK) r = frame_check_payload(&f, p + FRAME_HEADER_BYTES + f.body_len);
        assert_int_not_equal(r, FRAME_OK);
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    msg_free(m);
}

static void each_fault_has_its_reason(void **state) {
    uint8_t p[128];
    struct frame f;
    assert_int_equal(frame_decode((const uint8_t *)"GET / HTTP/1.1", 14, &f), FRAME_BAD_MAGIC);
    assert_int_equal(frame_decode((const uint8_t *)"G", 1, &f), FRAME_BAD_MAGIC);

    struct msg *m = message("body", NULL);
    size_t len = wire(p, m, true);
    struct { size_t at; uint8_t value; enum frame_result r; } faults[] = {
        {8, 5, FRAME_MORE}, {10, 1, FRAME_BODY_TOO_LONG}, {15, 1, FRAME_PAYLOAD_TOO_LONG},
        {7, 0x83, FRAME_BAD_FLAGS}, {20, 1, FRAME_BAD_FLAGS}};
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        uint8_t was = p[faults[i].at];
        p[faults[i].at] = faults[i].value;
        sum_again(p, 4);
        assert_int_equal(frame_decode(p, len, &f), faults[i].r);
        p[faults[i].at] = was;
    }
    sum_again(p, 4);
    assert_int_equal(frame_decode(p, len, &f), FRAME_OK);
    msg_free(m);
}

static void the_largest_fit_and_one_more_does_not(void **state) {
    uint8_t h[FRAME_HEADER_BYTES];
    struct frame f;
    struct msg *m = msg_new(mem, 1, 0);
    wire(h, m, false);
    uint32_t limit = MSG_PAYLOAD_MAX;
    for (uint32_t over = 0; over < 2; over++) {
        le32 v = le32_of(limit + over);
        memcpy(h + 12, &v, 4);
        sum_again(h, 0);
        assert_int_equal(frame_decode(h, sizeof h, &f), over ? FRAME_PAYLOAD_TOO_LONG : FRAME_OK);
    }
    msg_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_header),
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(every_beginning_asks_for_more),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(each_fault_has_its_reason),
        cmocka_unit_test(the_largest_fit_and_one_more_does_not),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
