// Encoding and decoding of the frame header; see frame.h for the format.
#include "wire/frame.h"
#include "base/sum.h"

static const uint8_t frame_magic[4] = {'M', 'D', 'F', '1'};

const char *frame_result_text(enum frame_result r) {
#define FRAME_TEXT(name, text) text,
    static const char *const texts[] = {FRAME_RESULTS(FRAME_TEXT)};
    ASSERT((size_t)r < ARRAY_LEN(texts));
    return texts[r];
}

static uint32_t header_sum(const struct frame_header *h, const void *body, uint32_t body_len) {
    const uint8_t *p = (const uint8_t *)h;
    size_t after = offsetof(struct frame_header, payload_sum);
    uint32_t sum = crc32c(0, p, offsetof(struct frame_header, sum));
    sum = crc32c(sum, p + after, sizeof *h - after);
    return body_len ? crc32c(sum, body, body_len) : sum;
}

void frame_encode(struct frame_header *h, const struct msg *m, bool sum_payload, uint64_t sequence) {
    ASSERT(m->body_len <= MSG_BODY_MAX && m->payload.len_bytes <= MSG_PAYLOAD_MAX);
    ASSERT(!(m->flags & FRAME_FLAG_SUMMED));
    bool summed = sum_payload && m->payload.len_bytes;
    memcpy(&h->magic, frame_magic, sizeof frame_magic);
    h->type = le16_of(m->type);
    h->flags = le16_of(m->flags | (summed ? FRAME_FLAG_SUMMED : 0));
    h->body_len = le32_of(m->body_len);
    h->payload_len = le32_of(m->payload.len_bytes);
    h->payload_sum = le32_of(summed ? crc32c(0, slice_data(m->payload), m->payload.len_bytes) : 0);
    h->sequence = le64_of(sequence);
    h->sum = le32_of(header_sum(h, m->body, m->body_len));
}

static enum frame_result check_fields(const struct frame *f) {
    if (f->body_len > MSG_BODY_MAX) return FRAME_BODY_TOO_LONG;
    if (f->payload_len > MSG_PAYLOAD_MAX) return FRAME_PAYLOAD_TOO_LONG;
    if (f->payload_summed ? !f->payload_len : f->payload_sum) return FRAME_BAD_FLAGS;
    return FRAME_OK;
}

enum frame_result frame_decode(const uint8_t *p, size_t len_bytes, struct frame *out) {
    // What speaks another protocol is known by its first bytes, without waiting for 32 of them.
    if (len_bytes && memcmp(p, frame_magic, MIN(len_bytes, sizeof frame_magic))) return FRAME_BAD_MAGIC;
    if (len_bytes < FRAME_HEADER_BYTES) return FRAME_MORE;
    struct frame_header h;
    memcpy(&h, p, sizeof h);
    uint16_t flags = le16_get(h.flags);
    *out = (struct frame){
        .type = le16_get(h.type),
        .flags = (uint16_t)(flags & ~FRAME_FLAG_SUMMED),
        .body_len = le32_get(h.body_len),
        .payload_len = le32_get(h.payload_len),
        .payload_summed = flags & FRAME_FLAG_SUMMED,
        .payload_sum = le32_get(h.payload_sum),
        .sequence = le64_get(h.sequence),
        .body = p + FRAME_HEADER_BYTES,
    };
    enum frame_result r = check_fields(out);
    if (r != FRAME_OK) return r;
    if (len_bytes - FRAME_HEADER_BYTES < out->body_len) return FRAME_MORE;
    return le32_get(h.sum) == header_sum(&h, out->body, out->body_len) ? FRAME_OK : FRAME_BAD_SUM;
}

enum frame_result frame_check_payload(const struct frame *f, const uint8_t *payload) {
    if (!f->payload_summed) return FRAME_OK;
    return crc32c(0, payload, f->payload_len) == f->payload_sum ? FRAME_OK : FRAME_BAD_PAYLOAD_SUM;
}
