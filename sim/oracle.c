// The oracle of file contents; see oracle.h.
#include "sim/oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct version {
    struct version *next; // newer
    uint64_t number; // among those of its block
    struct version *base; // what the write was laid over
    bool over_all;        // whatever was there before: a whole block over one that is not known
    uint64_t crash;  // crashes of all before it came about (of a write that outlived one: before its end)
    uint64_t op;     // which write
    bool keep;     // cut_down_to's
    bool acked;    // its write was acknowledged
    bool fast;     // at toughness 0
    bool readable; // after a crash: may be seen (a write acknowledged since then rules out what does not contain it)
    uint8_t data[BLOCK_BYTES];
};
struct oblock {
    struct version *oldest, *newest; // oldest is durable for certain
    bool uncertain;                  // a crash came after the newest was pushed: a read shows which one it is
};
struct ofile {
    struct oracle *oracle;
    struct ofile *next;
    char label[64];
    struct handle handle;
    struct oblock block[ORACLE_FILE_BLOCKS];
    uint64_t truncating, truncating_crash; // the truncate under way
    uint64_t size, low, high; // seen without a crash; limits after one
    uint32_t resizing;        // changes of size that are under way
    bool size_uncertain, gone, unprotected, told_early, fast; // fast: it has been written at toughness 0
    bool size_straddles; // a change of size that was under way at the last crash ended after it: what is seen need not be durable
};
struct oracle {
    struct ofile *files;
    uint64_t ops;
    uint64_t crashes, failures, faults;
    bool recovered;
    char first[512];
    struct oracle_counts counts;
};
struct ofsync {
    uint64_t crash, size;
    uint64_t upto[ORACLE_FILE_BLOCKS]; // number of the newest acknowledged one
};

static void *get(size_t n) {
    void *p = calloc(1, n);
    ASSERT(p);
    return p;
}

struct oracle *oracle_create(void) { return get(sizeof(struct oracle)); }

static void drop_versions(struct oblock *b, struct version *keep) {
    for (struct version *v = keep; v; v = v->next)
        if (v->base && v->base->number < keep->number) v->base = NULL;
    while (b->oldest && b->oldest != keep) {
        struct version *v = b->oldest;
        b->oldest = v->next;
        free(v);
    }
    if (!b->oldest) b->newest = NULL;
}

void oracle_destroy(struct oracle *o) {
    for (struct ofile *f = o->files, *next; f; f = next) {
        next = f->next;
        for (uint32_t i = 0; i < ORACLE_FILE_BLOCKS; i++) drop_versions(&f->block[i], NULL);
        free(f);
    }
    free(o);
}

void oracle_fault(struct oracle *o, const char *fmt, ...) {
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (!o->faults++) memcpy(o->first, line, sizeof line);
}

uint64_t oracle_faults(const struct oracle *o) { return o->faults; }
uint64_t oracle_crashes(const struct oracle *o) { return o->crashes; }
uint64_t oracle_losses(const struct oracle *o) { return o->crashes + o->failures; }
void oracle_recovery(struct oracle *o) { o->recovered = true; }
bool oracle_may_tell_eio(const struct oracle *o) { return o->recovered || o->crashes; }
bool ofile_may_tell_eio(const struct ofile *f) { return oracle_may_tell_eio(f->oracle) || (f->oracle->failures && (f->fast || f->unprotected)); }
const char *oracle_first_fault(const struct oracle *o) { return o->first; }
struct oracle_counts oracle_counts(const struct oracle *o) { return o->counts; }

static void make_uncertain(struct oracle *o, struct oblock *b) {
    for (struct version *v = b->oldest; v; v = v->next) v->readable = true;
    b->uncertain = true;
    o->counts.uncertain_blocks++;
}

void oracle_crash(struct oracle *o) {
    o->crashes++;
    for (struct ofile *f = o->files; f; f = f->next) {
        f->size_uncertain = f->low != f->high || f->size_uncertain;
        for (uint32_t i = 0; i < ORACLE_FILE_BLOCKS; i++)
            if (f->block[i].oldest != f->block[i].newest) make_uncertain(o, &f->block[i]);
    }
}

// What an IOM alone had is lost: the content falls back at most to what two of them had. (Where the content was open already, all of it stays open.)
static void fall_back(struct ofile *f, struct oblock *b) {
    struct version *firm = b->oldest;
    for (struct version *v = b->oldest; v; v = v->next)
        if (v->acked && !v->fast && !f->unprotected && !b->uncertain) firm = v;
    drop_versions(b, firm);
    if (b->oldest != b->newest) make_uncertain(f->oracle, b);
}

void oracle_failure(struct oracle *o) {
    o->failures++;
    for (struct ofile *f = o->files; f; f = f->next)
        for (uint32_t i = 0; i < ORACLE_FILE_BLOCKS; i++)
            if (f->block[i].oldest) fall_back(f, &f->block[i]);
}

// ---- files
struct ofile *ofile_new(struct oracle *o, const char *label) {
    struct ofile *f = get(sizeof *f);
    f->oracle = o;
    snprintf(f->label, sizeof f->label, "%s", label);
    f->next = o->files;
    o->files = f;
    return f;
}

const char *ofile_label(const struct ofile *f) { return f->label; }
void ofile_found(struct ofile *f, struct handle h) { f->handle = h; }
struct handle ofile_handle(const struct ofile *f) { return f->handle; }
uint64_t ofile_size(const struct ofile *f) { return f->size; }
void ofile_forget(struct ofile *f) { f->gone = true; }
bool ofile_forgotten(const struct ofile *f) { return f->gone; }
void ofile_unprotected(struct ofile *f) { f->unprotected = true; }
void ofile_told_early(struct ofile *f) { f->told_early = true; }
bool ofile_may_tell_late(struct ofile *f) {
    bool may = f->told_early;
    f->told_early = false;
    return may;
}
bool ofile_size_known(const struct ofile *f) { return !f->size_uncertain; }

static const uint8_t zeros[BLOCK_BYTES];

static void need_first(struct oblock *b) { // before the first write a block reads as zeros
    if (b->oldest) return;
    b->oldest = b->newest = get(sizeof(struct version));
    b->oldest->acked = b->oldest->readable = true;
}

static void push(struct oracle *o, struct oblock *b, const uint8_t *data, struct version *base, uint64_t op) {
    struct version *v = get(sizeof *v);
    memcpy(v->data, data, BLOCK_BYTES);
    v->number = b->newest->number + 1;
    v->base = base;
    v->crash = o->crashes;
    v->op = op;
    v->readable = true;
    b->newest->next = v;
    b->newest = v;
}

// The content after a write of [from, to) of a block. If the base is uncertain every version is a possible base: each gets a successor.
static void push_write(struct oracle *o, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    uint8_t content[BLOCK_BYTES];
    struct version *last = b->newest, *v = b->uncertain ? b->oldest : b->newest;
    if (b->uncertain && to - from == BLOCK_BYTES) { // one stands for the successors of all
        push(o, b, data, NULL, op);
        b->newest->over_all = true;
        return;
    }
    for (;; v = v->next) {
        if (v->readable || !b->uncertain) { // what has been ruled out since the last crash is not what lies there
            memcpy(content, v->data, BLOCK_BYTES);
            memcpy(content + from, data, to - from);
            push(o, b, content, v, op);
        }
        if (v == last) return;
    }
}

typedef void block_fn(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op);

static void write_blocks(struct ofile *f, const struct owrite *w, block_fn *fn) {
    for (uint64_t at = w->off; at < w->off + w->len;) {
        uint64_t end = MIN((at / BLOCK_BYTES + 1) * BLOCK_BYTES, w->off + w->len);
        ASSERT(at / BLOCK_BYTES < ORACLE_FILE_BLOCKS);
        fn(f, &f->block[at / BLOCK_BYTES], (uint32_t)(at % BLOCK_BYTES), (uint32_t)((end - 1) % BLOCK_BYTES + 1), w->data + (at - w->off), w->op);
        at = end;
    }
}

static void begin_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    need_first(b);
    push_write(f->oracle, b, from, to, data, op);
}

void ofile_write_begin(struct ofile *f, struct owrite *w) {
    f->fast = f->fast || w->fast;
    f->oracle->counts.writes++;
    f->oracle->counts.protected_writes += !f->unprotected;
    w->op = ++f->oracle->ops;
    w->crash = f->oracle->crashes;
    w->losses = oracle_losses(f->oracle);
    write_blocks(f, w, begin_block);
    w->grows = w->off + w->len > f->size;
    f->resizing += w->grows;
    f->high = MAX(f->high, w->off + w->len);
}

// Acknowledged, or its client died. When a crash came in between, the acknowledgement may be of before it: then the write may be lost, or it was done again
// afterwards.
static void straddle_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    b->uncertain = true; // every version may be what it was laid over
    push_write(f->oracle, b, from, to, data, op);
    for (struct version *v = b->oldest; v; v = v->next)
        if (v->op == op) v->crash = f->oracle->crashes;
}

// Acknowledged, all of it since the last crash. If the base is still open: until the next crash only what contains the write may be read.
static void end_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    b->newest->acked = true;
    if (!b->uncertain) return;
    for (struct version *v = b->oldest; v; v = v->next) v->readable = v->readable && !memcmp(v->data + from, data, to - from);
}

// An error over a crash says nothing about what reached the disks.
static void fail_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) { make_uncertain(f->oracle, b); }

// The operation is over without an answer (its client is dead), or with an error. No crash, so each block is as it was just before or as it was to be.
static void lose_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    struct version *before = NULL;
    if (b->uncertain) return; // both are among what is possible
    for (struct version *v = b->oldest; v; v = v->next) {
        v->readable = v->op == op;
        if (v->op != op) before = v;
    }
    if (before) before->readable = true;
    b->uncertain = true;
}

static void fast_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    for (struct version *v = b->oldest; v; v = v->next) v->fast |= v->op == op;
}

// Acknowledged at toughness 2: whatever comes, it contains the write.
static void durable_block(struct ofile *f, struct oblock *b, uint32_t from, uint32_t to, const uint8_t *data, uint64_t op) {
    if (!b->uncertain) {
        drop_versions(b, b->newest);
        return;
    }
    struct version *row = NULL;
    for (struct version *v = b->oldest; v; v = v->next) v->keep = !memcmp(v->data + from, data, to - from);
    for (struct version *v = b->oldest; v; v = v->next)
        if (v->base && !v->base->keep) v->base = NULL;
    for (struct version *v = b->oldest, *next; v; v = next) {
        next = v->next;
        if (!v->keep) {
            free(v);
            continue;
        }
        if (row) row->next = v;
        else b->oldest = v;
        v->next = NULL;
        v->keep = false;
        row = v;
    }
    ASSERT(row);
    b->newest = row;
}

void ofile_write_end(struct ofile *f, struct owrite *w, bool ok) {
    bool crashed = w->crash != f->oracle->crashes, fragile = w->fast || f->unprotected;
    bool straddles = crashed || (fragile && w->losses != oracle_losses(f->oracle));
    write_blocks(f, w, !ok ? crashed ? fail_block : lose_block : straddles ? straddle_block : end_block);
    if (w->fast) write_blocks(f, w, fast_block);
    if (crashed) f->size_straddles = true;
    f->resizing -= w->grows;
    if (!ok && w->off + w->len > f->size) f->size_uncertain = f->size_straddles = true;
    if (!ok) return;
    f->size = MAX(f->size, w->off + w->len); // (uncertain anyhow, if it straddles)
    if (!w->durable) return;
    write_blocks(f, w, durable_block);
    if (!f->resizing) f->low = MAX(f->low, w->off + w->len);
}

void ofile_write_lost(struct ofile *f, struct owrite *w) {
    write_blocks(f, w, w->crash != f->oracle->crashes ? straddle_block : lose_block);
    f->resizing -= w->grows;
    if (w->off + w->len > f->size) f->size_uncertain = f->size_straddles = true;
}

void ofile_truncate_begin(struct ofile *f, uint64_t size) {
    f->truncating = ++f->oracle->ops;
    f->truncating_crash = f->oracle->crashes;
    f->resizing++;
    for (uint64_t i = size / BLOCK_BYTES; i < ORACLE_FILE_BLOCKS; i++) {
        struct oblock *b = &f->block[i];
        uint32_t from = i == size / BLOCK_BYTES ? (uint32_t)(size % BLOCK_BYTES) : 0;
        if (!b->oldest) continue;
        push_write(f->oracle, b, from, BLOCK_BYTES, zeros, f->truncating);
    }
    f->low = MIN(f->low, size);
    f->high = MAX(f->high, size);
}

void ofile_truncate_end(struct ofile *f, uint64_t size, bool ok) {
    bool straddles = f->truncating_crash != f->oracle->crashes;
    if (straddles) f->size_straddles = true;
    f->resizing--;
    for (uint64_t i = size / BLOCK_BYTES; i < ORACLE_FILE_BLOCKS; i++)
        if (f->block[i].oldest) {
            uint32_t from = i == size / BLOCK_BYTES ? (uint32_t)(size % BLOCK_BYTES) : 0;
            (!ok ? straddles ? fail_block : lose_block : straddles ? straddle_block : end_block)(f, &f->block[i], from, BLOCK_BYTES, zeros, f->truncating);
        }
    if (!ok) f->size_uncertain = f->size_straddles = true;
    if (straddles || !ok) return; // the size is to be looked at
    f->size = size;
    f->size_uncertain = false;
}

void ofile_truncate_lost(struct ofile *f, uint64_t size) {
    bool straddles = f->truncating_crash != f->oracle->crashes; // it may have been done over what the crash left
    for (uint64_t i = size / BLOCK_BYTES; i < ORACLE_FILE_BLOCKS; i++) {
        uint32_t from = i == size / BLOCK_BYTES ? (uint32_t)(size % BLOCK_BYTES) : 0;
        if (f->block[i].oldest) (straddles ? straddle_block : lose_block)(f, &f->block[i], from, BLOCK_BYTES, zeros, f->truncating);
    }
    f->resizing--;
    f->size_uncertain = f->size_straddles = true;
}

struct ofsync *ofile_fsync_begin(struct ofile *f) {
    struct ofsync *s = get(sizeof *s);
    s->crash = f->oracle->crashes;
    s->size = f->size;
    for (uint32_t i = 0; i < ORACLE_FILE_BLOCKS; i++)
        for (struct version *v = f->block[i].uncertain ? NULL : f->block[i].oldest; v; v = v->next) // uncertain: which one it makes durable is not known
            if (v->acked) s->upto[i] = v->number;
    return s;
}

void ofile_fsync_end(struct ofile *f, struct ofsync *s, bool ok) {
    bool whole = ok && s->crash == f->oracle->crashes;
    f->oracle->counts.fsyncs += whole;
    for (uint32_t i = 0; whole && i < ORACLE_FILE_BLOCKS; i++) {
        struct oblock *b = &f->block[i];
        // a block whose content is not known for certain has no one version that became durable
        while (!b->uncertain && b->oldest != b->newest && b->oldest->number < s->upto[i]) drop_versions(b, b->oldest->next);
    }
    // while somebody changes the size, either may be what is on disk
    if (whole && !f->size_uncertain && !f->resizing && f->size == s->size) f->low = f->high = f->size;
    free(s);
}

// What is seen is a version and what was written over it since the crash: that version is durable, the writes are not. Several versions may look the same
// (a whole block written over a base that was not looked at): all of them and what they lie over stay possible after the next crash.
static void keep_with_bases(struct oracle *o, struct oblock *b, struct version *v) {
    for (;; v = v->base) {
        v->keep = true;
        if (v->crash != o->crashes) return;
        for (struct version *older = b->oldest; v->over_all && older != v; older = older->next) older->keep = true;
        if (v->base == NULL) return;
    }
}

static void cut_down_to(struct oracle *o, struct oblock *b, struct version *seen) {
    struct version *row = NULL;
    for (struct version *v = b->oldest; v; v = v->next)
        if (v->readable && !memcmp(v->data, seen->data, BLOCK_BYTES)) keep_with_bases(o, b, v);
    for (struct version *v = b->oldest, *next; v; v = next) {
        next = v->next;
        if (!v->keep) {
            free(v);
            continue;
        }
        if (row) row->next = v;
        else b->oldest = v;
        v->over_all &= v->crash == o->crashes;
        if (v->crash != o->crashes) v->base = NULL; // what it lay over is of no interest any more
        v->next = NULL;
        v->keep = false;
        v->readable = v->acked = true;
        row = v;
    }
    b->newest = row;
    b->uncertain = false;
}

// For the reader of a failure: which version comes nearest, and where it differs.
static void tell_nearest(struct ofile *f, uint64_t i, uint32_t from, uint32_t len, const uint8_t *data) {
    uint32_t n = 0, which = 0, best = UINT32_MAX, a = 0, z = 0;
    for (struct version *v = f->block[i].oldest; v; v = v->next, n++) {
        uint32_t first = 0, end = len, wrong = 0;
        for (uint32_t at = 0; at < len; at++) wrong += v->data[from + at] != data[at];
        while (first < len && v->data[from + first] == data[first]) first++;
        while (end > first && v->data[from + end - 1] == data[end - 1]) end--;
        if (wrong >= best) continue;
        best = wrong;
        which = n + 1000 * !v->readable;
        a = first;
        z = end;
    }
    oracle_fault(f->oracle, "%s: block %llu reads as nothing that was written since it was durable (of %u versions %u is nearest, it differs within [%u, %u))", f->label,
                 (unsigned long long)i, n, which, a, z);
}

static void read_block(struct ofile *f, uint64_t i, uint32_t from, uint32_t len, const uint8_t *data) {
    struct oblock *b = &f->block[i];
    if (!b->oldest) {
        if (memcmp(data, zeros, len)) oracle_fault(f->oracle, "%s: block %llu was never written and does not read as zeros", f->label, (unsigned long long)i);
        return;
    }
    if (!b->uncertain) {
        if (memcmp(b->newest->data + from, data, len))
            oracle_fault(f->oracle, "%s: block %llu does not read as it was written last (no crash since)", f->label, (unsigned long long)i);
        return;
    }
    struct version *seen = NULL;
    for (struct version *v = b->oldest; v; v = v->next)
        if (v->readable && !memcmp(v->data + from, data, len)) seen = v;
    if (!seen) {
        tell_nearest(f, i, from, len, data);
        return;
    }
    if (len < BLOCK_BYTES) return; // a part of a block does not tell which version it is
    if (seen != b->newest) f->oracle->counts.rolled_back++;
    cut_down_to(f->oracle, b, seen);
}

void ofile_stat(struct ofile *f, uint64_t size) {
    if (f->gone) { // but who writes on goes by it
        f->size = size;
        return;
    }
    if (!f->size_uncertain) {
        if (size != f->size)
            oracle_fault(f->oracle, "%s: has %llu bytes where %llu were written (no crash since)", f->label, (unsigned long long)size, (unsigned long long)f->size);
        return;
    }
    if (size < f->low || size > f->high)
        oracle_fault(f->oracle, "%s: has %llu bytes after a crash, between %llu and %llu are possible", f->label, (unsigned long long)size,
                     (unsigned long long)f->low, (unsigned long long)f->high);
    f->size = size;
    if (!f->size_straddles) f->low = f->high = size;
    f->size_uncertain = f->size_straddles = false;
}

void ofile_read(struct ofile *f, uint64_t off, uint32_t asked, uint32_t got, const uint8_t *data) {
    if (f->gone) return;
    f->oracle->counts.reads++;
    if (!f->size_uncertain && got != (off < f->size ? MIN((uint64_t)asked, f->size - off) : 0))
        oracle_fault(f->oracle, "%s: a read of %u bytes at %llu gave %u, the size is %llu", f->label, asked, (unsigned long long)off, got, (unsigned long long)f->size);
    for (uint64_t at = off; at < off + got;) {
        uint64_t end = MIN((at / BLOCK_BYTES + 1) * BLOCK_BYTES, off + got);
        read_block(f, at / BLOCK_BYTES, (uint32_t)(at % BLOCK_BYTES), (uint32_t)(end - at), data + (at - off));
        at = end;
    }
}

void ofile_read_block(struct ofile *f, uint64_t block, const uint8_t data[BLOCK_BYTES]) {
    f->oracle->counts.reads++;
    if (!f->gone) read_block(f, block, 0, BLOCK_BYTES, data);
}
