// The scripts: each is the smallest story of one kind. Chunk k of a file begins at k * 64 KiB; block 0 of the chunks 0
// .. n-1 are one row.
#include "sim/script.h"

#include <string.h>

#define CHUNK KIB(64)

static void co_make_beside(struct actor *a) { // the audit expects rows wherever something was written
    co_file_make(a, 1, 0, "g");
    co_file_write(a, 1, 0, BLOCK_BYTES, 1);
    co_file_sync(a, 1);
}
static void co_make_written(struct actor *a, uint32_t blocks) { // blocks of chunk 0 and of chunk 1, durable
    co_file_make(a, 0, 0, "f");
    co_file_write(a, 0, 0, blocks * BLOCK_BYTES, 1);
    co_file_write(a, 0, CHUNK, blocks * BLOCK_BYTES, 2);
    co_file_sync(a, 0);
}
static void co_one_block(struct actor *a) {
    co_make_written(a, 1);
}
static void co_three_blocks(struct actor *a) {
    co_make_written(a, 3);
}
static void co_empty_file(struct actor *a) {
    co_make_beside(a);
    co_file_make(a, 0, 0, "f");
}

// ---- rows
static void co_overwrite(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_sync(a, 0);
}

static void co_row_first(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_sync(a, 0);
}
static void co_row_second(struct actor *a) {
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 4);
    co_file_sync(a, 0);
}

// Both members freeze for the same version of the row.
static void co_pair(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 4);
    co_file_sync(a, 0);
    co_file_write(a, 0, 0, BLOCK_BYTES, 5);
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 6);
    co_file_sync(a, 0);
}

static void co_fresh_row_first(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_sync(a, 0);
}
static void co_fresh_row_second(struct actor *a) {
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 4);
    co_file_write(a, 0, 2 * CHUNK, BLOCK_BYTES, 5);
    co_file_sync(a, 0);
}

static void co_append_twice(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_sync(a, 0);
    co_file_write(a, 0, BLOCK_BYTES, 2 * BLOCK_BYTES, 4);
    co_file_sync(a, 0);
}

// The second write comes while the first is on its way to disk: for the other client's fsync. All writes are one
// client's: of two that wait through one recovery, either may be the last.
static void co_twice_first(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_pause(a, USEC(600));
    co_file_write(a, 0, 0, BLOCK_BYTES, 4);
    co_pause(a, USEC(400));
    co_file_write(a, 0, 0, BLOCK_BYTES, 5);
    co_file_sync(a, 0);
}
static void co_twice_second(struct actor *a) {
    co_pause(a, USEC(400));
    co_file_sync(a, 0);
}

// Writes of a few bytes to one block: one frozen, on its way to disk, the next ones on top of it.
static void co_bytes_first(struct actor *a) {
    co_file_write(a, 0, 0, 8, 3);
    co_pause(a, USEC(600));
    co_file_write(a, 0, BLOCK_BYTES - 8, 8, 4);
    co_pause(a, USEC(200));
    co_file_write(a, 0, BLOCK_BYTES - 16, 8, 5);
}
static void co_bytes_second(struct actor *a) {
    co_pause(a, USEC(400));
    co_file_sync(a, 0);
}

// Nobody asks for it: what is written goes to disk by its age; the neighbour's fsync comes in between.
static void co_aged_first(struct actor *a) {
    for (uint8_t i = 0; i < 3; i++) {
        co_file_write(a, 0, 0, BLOCK_BYTES, (uint8_t)(3 + i));
        co_pause(a, MSEC(8));
    }
}
static void co_aged_second(struct actor *a) {
    co_pause(a, MSEC(9));
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 7);
    co_file_sync(a, 0);
}

static void co_parts(struct actor *a) {
    co_file_write(a, 0, BLOCK_BYTES - 100, 300, 3); // of two blocks
    co_file_write(a, 0, 0, 4, 4);
    co_file_sync(a, 0);
    co_file_write(a, 0, CHUNK - 8, 16, 5); // of two chunks
    co_file_sync(a, 0);
}

// ---- sizes
// The truncate comes while what was written before is on its way to disk, for somebody else's fsync.
static void co_cut(struct actor *a) {
    co_file_write(a, 0, BLOCK_BYTES, 2 * BLOCK_BYTES, 3);
    co_pause(a, USEC(300));
    co_file_cut(a, 0, BLOCK_BYTES + 5);
    co_file_write(a, 0, BLOCK_BYTES + 4, 2, 4);
    co_file_sync(a, 0);
}
static void co_cut_beside(struct actor *a) {
    co_pause(a, USEC(250));
    co_file_sync(a, 0);
}

static void co_cut_and_grow(struct actor *a) {
    co_file_cut(a, 0, 5);
    co_file_write(a, 0, CHUNK + BLOCK_BYTES, BLOCK_BYTES, 3); // what lies between is zeros
    co_file_sync(a, 0);
}

// The same, of a file of which nothing is on disk yet: what the rows hold of it comes there with the cut still under way.
static void co_cut_new(struct actor *a) {
    co_file_write(a, 0, 0, 2 * BLOCK_BYTES, 3);
    co_file_write(a, 0, 3 * CHUNK, BLOCK_BYTES, 4);
    co_pause(a, USEC(300));
    co_file_cut(a, 0, BLOCK_BYTES + 5);
    co_file_write(a, 0, 4 * CHUNK, BLOCK_BYTES, 5);
    co_file_sync(a, 0);
}

static void co_far(struct actor *a) {
    co_file_write(a, 0, 3 * CHUNK + 2 * BLOCK_BYTES, BLOCK_BYTES, 3);
    co_file_sync(a, 0);
}

// ---- toughness and protection
static void co_tough2(struct actor *a) {
    co_one_block(a);
    co_file_policy(a, 0, "toughness", "2");
}
static void co_tough2_act(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_write(a, 0, CHUNK + BLOCK_BYTES, BLOCK_BYTES, 4); // grows
    co_file_write(a, 0, 0, BLOCK_BYTES, 5);
}

// File 0 is fast; what its neighbour in the row had fsynced hangs on the same parity.
static void co_tough0(struct actor *a) {
    co_one_block(a);
    co_file_policy(a, 0, "toughness", "0");
}
static void co_tough0_first(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_write(a, 0, 0, BLOCK_BYTES, 4);
}
static void co_tough0_second(struct actor *a) {
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 5);
    co_file_sync(a, 0);
}

static void co_protected(struct actor *a, const char *how) {
    uint32_t d = stage_place(a->stage, 0, "d");
    co_name_dir(a, 1, d);
    co_dir_policy(a, 1, "protection", how);
    co_file_make(a, 0, 1, "f");
    co_file_write(a, 0, 0, BLOCK_BYTES, 1);
    co_file_write(a, 0, CHUNK, BLOCK_BYTES, 2);
    co_file_sync(a, 0);
    co_make_beside(a);
    co_places_sync(a);
}
static void co_mirrored(struct actor *a) {
    co_protected(a, "mirror");
}
static void co_unprotected(struct actor *a) {
    co_protected(a, "none");
}
static void co_dedicated(struct actor *a) {
    co_protected(a, "parity3");
}

static void co_overwrite_and_grow(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_file_sync(a, 0);
    co_file_write(a, 0, CHUNK, 2 * BLOCK_BYTES, 4);
    co_file_sync(a, 0);
}

// ---- names: directories lie at IOMs of their own, so that what goes across has more than one
enum { AT_D, AT_E, AT_A, AT_B, AT_OTHER }; // /d, /e, d/a, e/b, d/c: in the order in which co_two_dirs numbers them
static void co_two_dirs(struct actor *a) {
    struct stage *s = a->stage;
    (void)stage_place(s, 0, "d");
    (void)stage_place(s, 0, "e");
    (void)stage_place(s, 1, "a");
    (void)stage_place(s, 2, "b");
    (void)stage_place(s, 1, "c");
    co_name_dir(a, 1, AT_D);
    co_name_dir(a, 2, AT_E);
    co_name_file(a, 0, AT_A);
    co_places_sync(a);
}
static void co_two_dirs_two_files(struct actor *a) {
    co_two_dirs(a);
    co_name_file(a, 1, AT_B);
    co_places_sync(a);
}
static void co_file_alone(struct actor *a) {
    co_make_beside(a);
    co_name_file(a, 0, stage_place(a->stage, 0, "f"));
    co_places_sync(a);
}
static void co_root_only(struct actor *a) {
    (void)stage_place(a->stage, 0, "d");
    (void)stage_place(a->stage, 1, "a");
    co_places_sync(a);
}

static void co_rename(struct actor *a) {
    co_name_move(a, AT_A, AT_B);
    co_places_sync(a);
    co_name_drop(a, AT_B);
    co_places_sync(a);
}
static void co_rename_over(struct actor *a) {
    co_name_move(a, AT_A, AT_B);
    co_places_sync(a);
}
static void co_link_and_unlink(struct actor *a) {
    co_name_file(a, 0, AT_B);
    co_places_sync(a);
    co_name_drop(a, AT_A);
    co_places_sync(a);
}
static void co_mkdir_and_create(struct actor *a) {
    co_name_dir(a, 1, 0);
    co_places_sync(a);
    co_name_file(a, 0, 1);
    co_places_sync(a);
}
// A file goes while what was written to it first is on its way to disk, by its age.
static void co_drop_new(struct actor *a) {
    co_file_write(a, 0, 0, BLOCK_BYTES, 3);
    co_pause(a, USEC(14900)); // the age is 15 ms (enumerate.c)
    co_name_drop(a, 0);
    co_file_close(a, 0);
    co_places_sync(a);
}
static void co_rmdir(struct actor *a) {
    co_name_drop(a, AT_E);
    co_places_sync(a);
}

static const struct script scripts[] = {
    {"overwrite", "a block is written over and fsynced", co_one_block, {co_overwrite}},
    {"row",
     "two clients write over two blocks of one row, each with fsync",
     co_one_block,
     {co_row_first, co_row_second}},
    {"pair", "two blocks of one row are written over, one fsync for both, twice", co_one_block, {co_pair}},
    {"fresh-row",
     "two clients write blocks of one row that were never written",
     co_empty_file,
     {co_fresh_row_first, co_fresh_row_second}},
    {"append", "an append and fsync, twice", co_empty_file, {co_append_twice}},
    {"twice",
     "a block is written over again and again before it is settled",
     co_one_block,
     {co_twice_first, co_twice_second}},
    {"bytes",
     "a few bytes of a block are written while others of it are on their way to disk",
     co_one_block,
     {co_bytes_first, co_bytes_second}},
    {"aged", "writes that nobody fsyncs, and a neighbour's fsync", co_one_block, {co_aged_first, co_aged_second}},
    {"parts", "parts of blocks, over the bounds of blocks and chunks", co_three_blocks, {co_parts}},
    {"cut", "a truncate in the middle of a block that is on its way to disk", co_three_blocks, {co_cut, co_cut_beside}},
    {"cut-new", "a truncate of a file that comes to disk for the first time", co_empty_file, {co_cut_new, co_cut_beside}},
    {"cut-grow", "a truncate, then a write beyond the end", co_three_blocks, {co_cut_and_grow}},
    {"far", "a write far beyond the end", co_one_block, {co_far}},
    {"tough2", "writes at toughness 2", co_tough2, {co_tough2_act}},
    {"tough0",
     "writes at toughness 0, and a neighbour's fsync",
     co_tough0,
     {co_tough0_first, co_tough0_second},
     .weak = true},
    {"mirror", "a mirrored file", co_mirrored, {co_overwrite_and_grow}},
    {"none", "a file without protection", co_unprotected, {co_overwrite_and_grow}, .weak = true},
    {"parity3", "a file with dedicated parity", co_dedicated, {co_overwrite_and_grow}},
    {"mkdir", "mkdir, create in it", co_root_only, {co_mkdir_and_create}},
    {"rmdir", "rmdir", co_two_dirs, {co_rmdir}},
    {"drop-new", "an unlink of a file that comes to disk for the first time", co_file_alone, {co_drop_new}},
    {"rename", "a rename across directories, then unlink", co_two_dirs, {co_rename}},
    {"rename-over", "a rename across directories over a file", co_two_dirs_two_files, {co_rename_over}},
    {"link", "a link across directories, then unlink of the first name", co_two_dirs, {co_link_and_unlink}},
};

const struct script *script_at(uint32_t i) {
    return i < ARRAY_LEN(scripts) ? &scripts[i] : NULL;
}

const struct script *script_find(const char *name) {
    for (uint32_t i = 0; i < ARRAY_LEN(scripts); i++)
        if (!strcmp(scripts[i].name, name)) return &scripts[i];
    return NULL;
}
