// Fuzz target: a file (or stdin) is a byte stream; frames are decoded one after another, as a connection does it. What
// is accepted must encode to the same bytes again, and every shorter beginning of it must ask for more.
// afl-clang-fast -g -D_GNU_SOURCE -Isrc tests/fuzz/frame.c src/wire/frame.c src/env/*.c src/base/*.[cS] -lisal
//     -o fuzz-frame
// libFuzzer: clang -fsanitize=fuzzer,address -DFUZZ_LIBFUZZER and the same files.
#include "wire/frame.h"
#include <stdio.h>

static void check_again(struct mem *mem, const struct frame *f, const uint8_t *p, const uint8_t *payload) {
    struct msg *m = msg_new(mem, f->type, f->body_len);
    m->flags = f->flags;
    memcpy(m->body, f->body, f->body_len);
    if (f->payload_len) {
        m->payload = (struct slice){buf_new(mem, f->payload_len), 0, f->payload_len};
        memcpy(slice_data(m->payload), payload, f->payload_len);
    }
    struct frame_header h;
    frame_encode(&h, m, f->payload_summed, f->sequence);
    ASSERT(memcmp(&h, p, sizeof h) == 0);
    msg_free(m);
}

static void check_shorter(const uint8_t *p, size_t small) {
    struct frame f;
    for (size_t n = 0; n < small; n += 1 + n / 8) {
        enum frame_result r = frame_decode(p, n, &f);
        ASSERT(r == FRAME_MORE);
    }
}

static void decode_stream(struct mem *mem, const uint8_t *p, size_t len) {
    struct frame f;
    while (frame_decode(p, len, &f) == FRAME_OK) {
        size_t small = FRAME_HEADER_BYTES + f.body_len;
        check_shorter(p, small);
        if (len - small < f.payload_len || frame_check_payload(&f, p + small) != FRAME_OK) return;
        check_again(mem, &f, p, p + small);
        p += small + f.payload_len;
        len -= small + f.payload_len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len) {
    struct mem *mem = mem_create();
    decode_stream(mem, p, len);
    mem_destroy(mem);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
int main(int argc, char **argv) {
    static uint8_t input[4 << 20];
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : stdin;
    if (!f) {
        perror(argv[1]);
        return 2;
    }
    size_t len = fread(input, 1, sizeof input, f);
    if (argc > 1) fclose(f);
    return LLVMFuzzerTestOneInput(input, len);
}
#endif
