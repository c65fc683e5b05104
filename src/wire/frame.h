// The framing of messages on a byte stream: a header of 32 bytes, the body, the payload.
//
//   0   le32  magic          "MDF1"
//   4   le16  type           enum msg_type
//   6   le16  flags          the message's own; bit 15 is the frame's: a payload sum follows
//   8   le32  body_len       bytes, at most MSG_BODY_MAX
//  12   le32  payload_len    bytes, at most MSG_PAYLOAD_MAX
//  16   le32  sum            CRC32C of bytes 0..15, bytes 20..31 and the body
//  20   le32  payload_sum    CRC32C of the payload, or 0 with bit 15 clear
//  24   le64  sequence       the sender's count, or 0
//
// The header's sum is always there, so no length is believed before it is proven. The payload's is the sender's choice:
// a kernel's memory copy between two processes of one machine needs none, a cable does. There is one encoding of a
// message: bit 15 without a payload, or a payload sum without bit 15, is a fault.
#pragma once
#include "base/bytes.h"
#include "env/env.h"

#define FRAME_HEADER_BYTES 32u
#define FRAME_FLAG_SUMMED 0x8000u // not for the users of msg.flags
#define FRAME_SMALL_MAX (FRAME_HEADER_BYTES + MSG_BODY_MAX) // header and body of the largest message

struct frame_header {
    le32 magic;
    le16 type, flags;
    le32 body_len, payload_len;
    le32 sum, payload_sum;
    le64 sequence;
};
_Static_assert(sizeof(struct frame_header) == FRAME_HEADER_BYTES, "the header on the wire");

//   name, text: the one clear reason
#define FRAME_RESULTS(X)                                                         \
    X(FRAME_OK, "ok")                                                            \
    X(FRAME_MORE, "more bytes are needed")                                       \
    X(FRAME_BAD_MAGIC, "does not begin with the magic number of a message")      \
    X(FRAME_BODY_TOO_LONG, "announces a body longer than allowed")               \
    X(FRAME_PAYLOAD_TOO_LONG, "announces a payload longer than allowed")         \
    X(FRAME_BAD_FLAGS, "its flags contradict its payload")                       \
    X(FRAME_BAD_SUM, "the checksum of header and body does not match")           \
    X(FRAME_BAD_PAYLOAD_SUM, "the checksum of the payload does not match")
#define FRAME_ENUM(name, text) name,
enum frame_result { FRAME_RESULTS(FRAME_ENUM) FRAME_RESULT_COUNT };
const char *frame_result_text(enum frame_result r);

struct frame {
    uint16_t type, flags;      // the message's own flags
    uint32_t body_len, payload_len;
    bool payload_summed;
    uint32_t payload_sum;
    uint64_t sequence;
    const uint8_t *body;       // in the bytes given to frame_decode
};

// The header that goes before m->body and the payload. Neither may change until both are sent.
void frame_encode(struct frame_header *h, const struct msg *m, bool sum_payload, uint64_t sequence);

// Looks at the first len_bytes of a stream. FRAME_OK: header and body are whole and proven, the payload begins at
// FRAME_HEADER_BYTES + body_len. FRAME_MORE: right so far. Anything else: the stream is garbled for good.
MUST_USE enum frame_result frame_decode(const uint8_t *p, size_t len_bytes, struct frame *out);

// FRAME_OK or FRAME_BAD_PAYLOAD_SUM, once all of the payload is there.
MUST_USE enum frame_result frame_check_payload(const struct frame *f, const uint8_t *payload);
