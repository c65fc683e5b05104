// Records of a tree in pages: see pages.h.
#include "iom/pages.h"

err co_records_page(struct store *s, enum tree_id t, const struct key *from, uint8_t *out, uint32_t *len_bytes, struct key *next, bool *more) {
    struct key k = *from;
    *len_bytes = 0;
    for (;;) {
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t val_len;
        err e = co_tree_seek(s, t, &k, val, sizeof val, &val_len);
        *more = e == OK;
        if (e == ERR_NOENT) return OK;
        if (e != OK) return e;
        *next = k;
        if (*len_bytes + sizeof(struct wire_record) + val_len > PAGE_OF_RECORDS_BYTES) return OK;
        struct wire_record *w = (void *)(out + *len_bytes);
        memcpy(w->key, k.b, KEY_BYTES);
        w->len = le16_of((uint16_t)val_len);
        memcpy(w->val, val, val_len);
        *len_bytes += (uint32_t)sizeof *w + val_len;
        k = key_next(k);
    }
}

const struct wire_record *record_next(const uint8_t **p, const uint8_t *end) {
    const struct wire_record *w = (const void *)*p;
    if ((size_t)(end - *p) < sizeof *w || (size_t)(end - *p) < sizeof *w + le16_get(w->len)) return NULL;
    *p += sizeof *w + le16_get(w->len);
    return w;
}
