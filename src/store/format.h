// What lies on one IOM's disk, byte for byte: superblock, register block, allocator map block, journal sector, tree
// page. All integers are little-endian byte arrays; reserved bytes are zero; FORMAT_VERSION counts changes of this
// file. A store with its journal inside is still of version 1, byte for byte.
//
//   block  what                      size in blocks
//   0, 1   superblock, two copies    2        written one after the other, never both in flight
//   2, 3   register block, two       2        the embedded Paxos; outside journal and allocator
//   4      allocator map A, then B   2 * map_blocks
//   ...    journal ring              journal_sectors / 4
//   ...    blocks                    the rest: tree pages and data, under the allocator
//
// With a journal on a device of its own (version 2) the ring lies there instead, behind the journal's head:
//
//   0, 1   journal head, two copies  2        that of incarnation n is written at n % 2 first
//   2      journal ring              journal_sectors / 4
//
//   superblock                       | journal sector (1024)           | tree page (4096)
//   0    magic "mendfs S"            | 0   crc32c of bytes 4..1023     | 0   magic 0x7067
//   8    crc32c (field as zero)      | 4   used: bytes of payload      | 2   tree
//   12   version                     | 6   first: where in the payload | 3   level, 0 = leaf
//   16   generation                  |     the first batch begins      | 4   count
//   24   cluster, store              | 8   sequence                    | 6   heap: lowest byte in use
//   56   iom, array_ioms, map_copy,  | 16  incarnation                 | 8   garbage: dead bytes above heap
//        clean                       | 24  resumes + flag START        | 10  reserved
//   60   map_crc                     | 32  payload                     | 16  slots (leaf), entries (inner)
//   64   geometry                    |
//   120  incarnation, replay, retain | allocator map block: 0 crc32c of bytes 4.. · 4 index · 8 generation · 16 bits
//   160  roots of the trees          | register block: 0 magic · 8 crc32c · 12 length · 16 generation · 24 value
//   320  journal: its id, 0 = inside | journal head: 0 magic · 8 crc32c · 12 version · 16 incarnation · 24 cluster,
//   store,
//                                    |   journal · 72 iom, array_ioms · 80 sectors of the ring
//
// Checksums of journal sectors and map blocks start from the store's id (those of sectors on a device of their own from
// the journal's, too), so that what an earlier store left on the same device is never taken for this one's. A tree page
// carries no checksum: its parent (or the superblock) does.
#pragma once
#include "base/bytes.h"
#include "base/common.h"
#include "store/store.h"

#define FORMAT_VERSION 2u
#define FORMAT_JOURNAL_INSIDE 1u
#define FORMAT_JOURNAL_APART 2u
#define SUPER_MAGIC "mendfs S"
#define JHEAD_MAGIC "mendfs J"
#define REGISTER_MAGIC "mendfs R"

struct super_root {
    le64 addr; // block; 0 = the tree is empty
    le32 crc;
    uint8_t levels, rest[3];
    le64 records, note_epoch, note_number;
};
struct super_block {
    uint8_t magic[8];
    le32 crc, version;
    le64 generation;
    uint8_t cluster[16], store[16];
    uint8_t iom, array_ioms, map_copy, clean;
    le32 map_crc; // crc32c of the le32 checksums of the current map copy's blocks, in order: a lost map write is seen
    le64 blocks, map_at[2], map_blocks, journal_at, journal_sectors;
    le64 data_at;
    le64 incarnation;
    le64 replay_seq;                             // batches that begin in this sector or later are not in the trees yet
    le64 retain_seq;                             // replay reads from here: replay_seq or before it
    le64 retain_incarnation, replay_incarnation; // whose sectors are expected there
    struct super_root roots[TREE_COUNT];
    uint8_t journal[16]; // the id of the journal on its own device; all zero: it lies in the store
    uint8_t rest[BLOCK_BYTES - 176 - 40 * TREE_COUNT];
};
static_assert(offsetof(struct super_block, generation) == 16, "superblock");
static_assert(offsetof(struct super_block, iom) == 56, "superblock");
static_assert(offsetof(struct super_block, blocks) == 64, "superblock");
static_assert(offsetof(struct super_block, incarnation) == 120, "superblock");
static_assert(offsetof(struct super_block, roots) == 160, "superblock");
static_assert(offsetof(struct super_block, journal) == 320, "superblock");
static_assert(sizeof(struct super_root) == 40, "root");
static_assert(sizeof(struct super_block) == BLOCK_BYTES, "superblock");

struct register_block {
    uint8_t magic[8];
    le32 crc, len_bytes;
    le64 generation;
    uint8_t value[BLOCK_BYTES - 24];
};
static_assert(sizeof(struct register_block) == BLOCK_BYTES, "register block");
static_assert(REGISTER_BYTES_MAX <= BLOCK_BYTES - 24, "register block");

// Says whose journal this is and who opened it last; the superblock has the same incarnation, or the one before if the
// power failed between the two.
struct journal_head {
    uint8_t magic[8];
    le32 crc, version;
    le64 incarnation;
    uint8_t cluster[16], store[16], journal[16];
    uint8_t iom, array_ioms, reserved[6];
    le64 sectors;
    uint8_t rest[BLOCK_BYTES - 88];
};
static_assert(offsetof(struct journal_head, iom) == 72, "journal head");
static_assert(sizeof(struct journal_head) == BLOCK_BYTES, "journal head");
#define JHEAD_BLOCKS 2u // then the ring

#define MAP_WORDS 510u // of 64 bits, in one map block
#define MAP_BITS (MAP_WORDS * 64u)
struct map_block {
    le32 crc, index;
    le64 generation; // of the checkpoint that wrote it
    le64 words[MAP_WORDS];
};
static_assert(sizeof(struct map_block) == BLOCK_BYTES, "map block");

#define JSECTOR_BYTES 1024u
#define JSECTOR_PAYLOAD 992u
#define JUNIT_SECTORS (BLOCK_BYTES / JSECTOR_BYTES) // what a flush begins anew
#define JSECTOR_FIRST_NONE 0xffffu
#define JSECTOR_START (UINT64_C(1) << 63) // in `resumes`: first sector of an incarnation
struct journal_sector {
    le32 crc;
    le16 used, first;
    le64 sequence, incarnation;
    le64 resumes; // JSECTOR_START | the sequence that would have come next: what lies between is a torn tail. Else 0
    uint8_t payload[JSECTOR_PAYLOAD];
};
static_assert(sizeof(struct journal_sector) == JSECTOR_BYTES, "sector");

// The payloads of consecutive sectors, joined, are batches; a batch is a begin and then `len` bytes of entries. An
// entry that fits a sector never crosses into the next (`used` then ends early); only longer ones do.
//   begin  BEGIN len(4)              note   NOTE tree(1) epoch(8) number(8)
//   tree   TREE tree(1)              the puts and dels that follow are of this tree
//   put    PUT key(25) len(2) value  del    DEL key(25)
//   alloc  ALLOC addr(6) blocks(4)   free   FREE addr(6) blocks(4)
enum entry { ENTRY_PUT = 1, ENTRY_DEL, ENTRY_ALLOC, ENTRY_FREE, ENTRY_NOTE, ENTRY_TREE, ENTRY_BEGIN };
#define ENTRY_BEGIN_BYTES 5u
#define ENTRY_NOTE_BYTES 18u
#define ENTRY_TREE_BYTES 2u
#define ENTRY_PUT_BYTES (1u + KEY_BYTES + 2u) // and the value
#define ENTRY_DEL_BYTES (1u + KEY_BYTES)
#define ENTRY_BLOCKS_BYTES 11u
static_assert(ENTRY_PUT_BYTES + RECORD_BYTES_ATOMIC <= JSECTOR_PAYLOAD, "B3");

// Leaf: `count` slots (le16 offset of a cell), in key order; cells (key, le16 length, value) fill the page from its
// end. Inner: `count` entries in key order; an entry's key is the least its child may hold, except that the first
// entry's child holds all that is less, too.
#define TPAGE_MAGIC 0x7067u
#define TPAGE_HEAD 16u
#define TPAGE_SPACE (BLOCK_BYTES - TPAGE_HEAD)
#define CELL_HEAD (KEY_BYTES + 2u)
struct tpage_head {
    le16 magic;
    uint8_t tree, level;
    le16 count, heap, garbage;
    uint8_t rest[6];
};
struct inner_entry {
    uint8_t key[KEY_BYTES];
    le48 addr;
    le32 crc;
};
#define INNER_MAX (TPAGE_SPACE / (uint32_t)sizeof(struct inner_entry))
static_assert(sizeof(struct tpage_head) == TPAGE_HEAD, "page");
static_assert(sizeof(struct inner_entry) == 35, "entry");
static_assert(2 * (2 + CELL_HEAD + RECORD_BYTES_MAX) <= TPAGE_SPACE, "two records fit a page");
