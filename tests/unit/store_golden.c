// The bytes on disk of formats 1 and 2: a superblock, a journal sector, a leaf, an inner page, a register block and (2)
// the head of a journal on its own device, as a fixed script leaves them. If this fails, the format has changed: raise
// FORMAT_VERSION and add a golden file beside the old ones.
//   GOLDEN_WRITE=FOLDER  writes what is there now, in the form of tests/golden/store_v1.h, as FOLDER/store_v1.h and so
//   on
#include "store/inside.h"
#include "tests/crash/store_bed.h"
struct golden_line {
    int block;
    unsigned off;
    const char *hex;
};
#include "tests/golden/store_v1.h"
#include "tests/golden/store_v2.h"

#define BLOCKS 6
static struct golden_block {
    const char *name; // NULL: this format has none
    uint8_t bytes[BLOCK_BYTES];
} blocks[BLOCKS];

static void co_put(struct store *s, uint64_t n, uint32_t len) {
    uint8_t v[256];
    for (uint32_t i = 0; i < len; i++) v[i] = (uint8_t)(n + i);
    struct batch *b = batch_new(s);
    struct key k = key_make(1, (const uint8_t *)"golden-golden-go", n);
    batch_put(b, TREE_META, &k, v, len);
    if (n == 3) batch_note(b, TREE_META, 7, 99);
    lsn at;
    assert_int_equal(co_batch_commit(b, &at), OK);
}
static void keep(struct bed *b, int i, const char *name, const char *disk, uint64_t block) {
    blocks[i].name = name;
    world_disk_peek(world_disk_find(b->w, disk), block * BLOCK_BYTES, blocks[i].bytes, BLOCK_BYTES);
}
static void script(struct bed *b) {
    co_bed_format(b);
    assert_int_equal(co_bed_open(b), OK);
    for (uint64_t n = 0; n < 4; n++) co_put(b->s, n, 20);
    struct batch *ba = batch_new(b->s);
    struct key k = key_make(1, (const uint8_t *)"golden-golden-go", 2);
    block_addr at;
    uint32_t got;
    assert_int_equal(co_store_alloc(b->s, 2, false, &at, &got), OK);
    batch_del(ba, TREE_META, &k);
    batch_alloc(ba, at, 2);
    batch_free(ba, (block_addr){at.n + 1}, 1);
    lsn l;
    assert_int_equal(co_batch_commit(ba, &l), OK);
    assert_int_equal(co_store_sync(b->s, store_now(b->s)), OK);
    keep(b, 0, "journal", b->journal_apart ? "journal" : "disk", b->s->j.at_block + 64 / JUNIT_SECTORS);
    for (uint64_t n = 10; n < 60; n++) co_put(b->s, n, 200);
    assert_int_equal(co_register_blocks_write(b->d, (const uint8_t *)"promise", 7), OK);
    assert_int_equal(co_store_checkpoint(b->s), OK);
    keep(b, 1, "superblock", "disk", 0);
    keep(b, 2, "inner", "disk", le64_get(((struct super_block *)blocks[1].bytes)->roots[0].addr));
    keep(b, 3, "leaf", "disk", inner_child(blocks[2].bytes, 0).addr);
    keep(b, 4, "register", "disk", 2);
    if (b->journal_apart) keep(b, 5, "journal head", "journal", 1);
    co_bed_close(b);
}

// Only what is not zero, as runs at offsets.
static void write_golden(const char *folder, int version) {
    char path[4096];
    snprintf(path, sizeof path, "%s/store_v%d.h", folder, version);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "// Bytes of format %d, written by tests/unit/store_golden.c: block, offset, bytes; all others are "
            "zero.\n#pragma once\n",
            version);
    fprintf(f, "static const struct golden_line golden_v%d[] = {\n", version);
    for (int i = 0; i < BLOCKS; i++)
        for (uint32_t at = 0; at < BLOCK_BYTES; at += 32) {
            if (is_zero(blocks[i].bytes + at, 32)) continue;
            fprintf(f, "    {%d, %u, \"", i, at);
            for (uint32_t k = 0; k < 32; k++) fprintf(f, "%02x", blocks[i].bytes[at + k]);
            fprintf(f, "\"},\n");
        }
    fprintf(f, "};\n");
    fclose(f);
}
static void compare(const struct golden_line *lines, size_t len) {
    static uint8_t want[BLOCKS][BLOCK_BYTES];
    memset(want, 0, sizeof want);
    for (size_t i = 0; i < len; i++)
        for (uint32_t k = 0; k < 32; k++) {
            unsigned byte;
            assert_int_equal(sscanf(lines[i].hex + 2 * k, "%2x", &byte), 1);
            want[lines[i].block][lines[i].off + k] = (uint8_t)byte;
        }
    for (int i = 0; i < BLOCKS; i++)
        for (uint32_t at = 0; at < BLOCK_BYTES; at++)
            if (blocks[i].bytes[at] != want[i][at])
                fail_msg("%s: byte %u is %02x, was %02x", blocks[i].name, at, blocks[i].bytes[at], want[i][at]);
}
static void check(int version, const struct golden_line *lines, size_t len) {
    struct bed b;
    bed_init(&b, 1, MIB(16));
    b.config = (struct store_config){.journal_bytes = MIB(1), .cache_bytes = MIB(1)};
    b.journal_apart = version == 2;
    memset(blocks, 0, sizeof blocks);
    assert_true(bed_run(&b, script));
    bed_fini(&b);
    if (getenv("GOLDEN_WRITE"))
        write_golden(getenv("GOLDEN_WRITE"), version);
    else
        compare(lines, len);
}
static void test_journal_inside(void **state) {
    check(1, golden_v1, ARRAY_LEN(golden_v1));
}
static void test_journal_apart(void **state) {
    check(2, golden_v2, ARRAY_LEN(golden_v2));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_journal_inside), cmocka_unit_test(test_journal_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
