// What a client may rely on, kept beside the run and compared with what it reads.
//
// Blocks: every 4 KiB block of a file has a row of *versions*, the contents that writes gave it, oldest first. The first is what is durable for
// certain (fsynced, or seen after a crash), the last what was written last. Without a crash a read gives the last one: read your writes. After a crash of
// all IOMs ("uncertain") it gives one of them, never anything else: old or new, block by block, and what was fsynced is there. What was
// seen once after a crash stays: the row is cut down to it.
//
// Toughness: a write answered at toughness 2 is durable from its answer on. When one IOM alone fails and nothing else may be lost (oracle_failure), what was
// answered at toughness 0, and what is written to unprotected files, may be gone; all else may not.
//
// A client may die with its MX in the midst of an operation (ofile_*_lost): what it touches is as before or as after.
//
// Sizes likewise: between the smallest and the largest size since the last fsync. Names: each name leads to one of the objects it led to since its
// directory was last synced, or to nothing if that was so; an object that was renamed is found under exactly one of its names.
#pragma once
#include "base/common.h"
#include "layout/layout.h"

struct oracle;
struct oracle *oracle_create(void);
void oracle_destroy(struct oracle *o);
void oracle_crash(struct oracle *o);                     // all IOMs lost their memory at this instant
uint64_t oracle_crashes(const struct oracle *o);
void oracle_failure(struct oracle *o);                   // one IOM lost its memory, and only what it alone had may be gone
uint64_t oracle_losses(const struct oracle *o);          // crashes and failures: what was read before one and what after it do not belong together
void oracle_recovery(struct oracle *o);                  // the array stopped and recovered: an fsync may be told EIO, even if nothing was lost
bool oracle_may_tell_eio(const struct oracle *o);
void oracle_fault(struct oracle *o, const char *fmt, ...) PRINTF_LIKE(2, 3); // a promise broke
uint64_t oracle_faults(const struct oracle *o);
const char *oracle_first_fault(const struct oracle *o);
// protected_writes: those of other files than unprotected ones, which have no rows.
struct oracle_counts { uint64_t reads, writes, protected_writes, fsyncs, names, uncertain_blocks, rolled_back; };
struct oracle_counts oracle_counts(const struct oracle *o);

// ---- files
#define ORACLE_FILE_BLOCKS 512
struct ofile;
struct ofile *ofile_new(struct oracle *o, const char *label); // empty, durable; freed with the oracle
const char *ofile_label(const struct ofile *f);
void ofile_found(struct ofile *f, struct handle h);           // which object it is
struct handle ofile_handle(const struct ofile *f);
uint64_t ofile_size(const struct ofile *f);                   // as it must be seen without a crash
void ofile_forget(struct ofile *f);                           // it was lost or removed: nothing is expected of it any more
bool ofile_forgotten(const struct ofile *f);
bool ofile_may_tell_eio(const struct ofile *f);               // likewise, or it was careless and one IOM failed
void ofile_told_early(struct ofile *f);                       // a write at toughness 0 was answered, and may yet be refused: fsync tells it once
bool ofile_may_tell_late(struct ofile *f);                    // and is this that fsync?
void ofile_unprotected(struct ofile *f);                      // no other IOM has a copy of what is not on disk
bool ofile_size_known(const struct ofile *f);                 // no crash since it was seen

struct owrite { uint64_t off, op, crash, losses; uint32_t len; const uint8_t *data; bool durable, fast, grows; }; // durable: toughness 2; fast: toughness 0
void ofile_write_begin(struct ofile *f, struct owrite *w);    // within one operation of one client; data stays until the end
void ofile_write_end(struct ofile *f, struct owrite *w, bool ok);
void ofile_write_lost(struct ofile *f, struct owrite *w);     // instead of the end: the client died, and the write is over, done or not
void ofile_truncate_begin(struct ofile *f, uint64_t size);
void ofile_truncate_end(struct ofile *f, uint64_t size, bool ok);
void ofile_truncate_lost(struct ofile *f, uint64_t size);
// fsync: what was acknowledged when it began is durable when it succeeds.
struct ofsync;
struct ofsync *ofile_fsync_begin(struct ofile *f);
void ofile_fsync_end(struct ofile *f, struct ofsync *s, bool ok);
// A read of [off, off+got) while nobody writes these blocks; asked = length asked for (short only at the end).
void ofile_read(struct ofile *f, uint64_t off, uint32_t asked, uint32_t got, const uint8_t *data);
void ofile_read_block(struct ofile *f, uint64_t block, const uint8_t data[BLOCK_BYTES]); // likewise, the size being of no interest
void ofile_stat(struct ofile *f, uint64_t size);              // while nobody changes the size
