// Blocks of rows to and from their places: settled contents into memory, places for new ones, lists of writes.
#include "iom/row_state.h"

// ---- reading --------------------------------------------------------------------------------------------------------

// As co_store_read_blocks; what is missing is bad.
err co_row_read_places(struct rows *r, struct block_io *v, uint32_t n, uint32_t *bad_mask) {
    uint32_t missing = 0;
    *bad_mask = 0;
    for (uint32_t i = 0; i < n; i++)
        if (v[i].at.n == ROW_AT_MISSING) {
            missing |= 1u << i;
            v[i].at.n = 0;
        }
    err e = n ? co_store_read_blocks(r->store, v, n, bad_mask) : OK;
    if (!missing) return e;
    *bad_mask |= missing;
    return e == OK ? ERR_IO : e;
}

// Brings the settled contents of `rows` into the clean layer. A row whose place changed meanwhile (settled or cut) is not taken: the caller looks again.
static err co_read_rows(struct seg *s, row_mask rows, row_mask *bad) {
    struct rows *r = s->r;
    struct spot spot[ROWS_MAX];
    struct content c[ROWS_MAX];
    struct block_io io[ROWS_MAX];
    uint32_t n = 0, bad_bits = 0;
    memcpy(spot, s->spot, sizeof spot);
    ROW_FOR(rows, b) {
        c[n] = row_own_block(r);
        io[n] = (struct block_io){{spot[b].at}, row_content_data(&c[n]), spot[b].crc};
        n++;
    }
    err e = co_row_read_places(r, io, n, &bad_bits);
    uint32_t i = 0;
    *bad = 0;
    ROW_FOR(rows, b) {
        bool same = row_spot_same(&s->spot[b], &spot[b]) && !s->dead;
        if (bad_bits >> i & 1) {
            if (same) *bad |= (row_mask)(1u << b);
            buf_unref(c[i].buf);
        } else if (!same || (s->clean.mask >> b & 1)) {
            buf_unref(c[i].buf);
        } else {
            row_layer_set(&s->clean, b, c[i]);
            r->clean_bytes += BLOCK_BYTES;
        }
        i++;
    }
    return bad_bits ? OK : e; // what is bad is told by the mask
}

err co_row_read_contents(struct seg *s, row_mask rows, row_mask *bad) {
    *bad = 0;
    for (;;) {
        row_mask todo = 0;
        ROW_FOR(rows & ~s->clean.mask & ~*bad, b) if (s->spot[b].at) todo |= (row_mask)(1u << b);
        if (!todo || s->dead) break;
        row_mask worse;
        err e = co_read_rows(s, todo, &worse);
        if (e != OK) return e;
        *bad |= worse;
    }
    if (!*bad) return OK;
    s->r->stats.bad_blocks += row_count(*bad & (row_mask)~row_missing(s->spot, *bad)); // named by who mends them, or cannot
    return ERR_IO;
}

// ---- places ---------------------------------------------------------------------------------------------------------

err co_row_alloc(struct rows *r, uint32_t blocks, struct runs *out) {
    *out = (struct runs){0};
    while (blocks > 0) {
        block_addr at;
        uint32_t got;
        err e = co_store_alloc(r->store, blocks, true, &at, &got);
        if (e != OK) {
            row_runs_unalloc(r, out);
            row_runs_free(r, out);
            return e;
        }
        if (out->len == out->cap) {
            out->cap = out->cap ? 2 * out->cap : 4;
            out->run = mem_realloc(r->env->mem, out->run, out->cap * sizeof out->run[0]);
        }
        out->run[out->len++] = (struct run){at.n, got};
        blocks -= got;
    }
    return OK;
}

block_addr row_runs_take(struct runs *v) {
    ASSERT(v->next < v->len);
    block_addr at = {v->run[v->next].at + v->used};
    if (++v->used == v->run[v->next].len) {
        v->next++;
        v->used = 0;
    }
    return at;
}

void row_runs_name(struct batch *b, const struct runs *v) {
    for (uint32_t i = 0; i < v->len; i++) batch_alloc(b, (block_addr){v->run[i].at}, v->run[i].len);
}

void row_runs_unalloc(struct rows *r, struct runs *v) {
    for (uint32_t i = 0; i < v->len; i++) store_unalloc(r->store, (block_addr){v->run[i].at}, v->run[i].len);
}

void row_runs_free(struct rows *r, struct runs *v) {
    mem_free(r->env->mem, v->run);
    *v = (struct runs){0};
}

void row_writes_add(struct rows *r, struct writes *w, block_addr at, uint8_t *data, uint32_t crc) {
    if (w->len == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->io = mem_realloc(r->env->mem, w->io, w->cap * sizeof w->io[0]);
    }
    w->io[w->len++] = (struct block_io){at, data, crc};
}

void row_writes_free(struct rows *r, struct writes *w) {
    mem_free(r->env->mem, w->io);
    *w = (struct writes){0};
}
