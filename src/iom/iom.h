// The I/O manager (FIG. 3, 5): one instance owns one store and serves it: names, rows, its proxy's duty for its ward, its vote. iom_main is the life
// of a node: open the store, ready, recovery phases, serve, stop, again. The process, the simulator and the tests start the same function.
#pragma once
#include "cluster/map.h"
#include "env/env.h"
#include "iom/names.h"
#include "iom/row.h"

// What its world counts, for status. A world that counts nothing leaves it out.
struct iom_counters { uint64_t msgs_in, msgs_out, net_bytes_in, net_bytes_out, syscalls, wakes, disk_calls, slow_turns, longest_turn_ns, disk_writes, disk_flushes, disk_bytes_written; };
struct iom_config {
    char disk_path[256];
    char journal_path[256];     // of the journal's own device; empty: it lies in the store
    bool store_protected, journal_protected; // that device keeps what it has accepted (power-protected): it is not flushed. Inside: the store's counts
    char listen[108];           // "unix:PATH", "HOST:PORT", or the node's name in the simulator
    struct store_config store;
    struct rows_config rows;
    uint64_t heartbeat_ns, silence_ns; // 0 = defaults of member.h; the same for all IOMs of an array
    bool stand_ins;             // the array goes on with one IOM missing, if it has three at least: two are no majority without each other
    uint32_t disk_errors;              // so many I/Os that its devices answer with an error within disk_errors_ns, and it stops itself; 0 = defaults of iom.c
    uint64_t disk_errors_ns;
    void (*ended)(void *ctx, err why); // iom_main is about to return
    void (*serving)(void *ctx, bool on); // for readiness (up) and the oracle
    void (*counters)(void *ctx, struct iom_counters *out); // may be NULL
    void *ctx;
};
struct iom;
// The task of the node; arg = struct iom_config (kept by the caller). Returns when asked to stop or when the store cannot be used (why is logged).
void iom_main(void *arg_env_and_config);
struct iom_start { struct env *env; const struct iom_config *config; struct iom *iom; /* set by iom_main */ };
const struct cluster_map *iom_map(const struct iom *i); // the newest that it knows; NULL: none
void iom_ask_stop(struct iom *i); // clean stop: others are told, all is hardened, checkpoint, ended(OK)

// An empty store for IOM id->iom, whose old one is lost; `known` and c->incarnation as CONTROL_REPLACE answers. The IOM started on it returns and builds itself anew.
MUST_USE err co_iom_replacement_make(struct disk *d, const struct store_ident *id, const struct store_config *c, const struct cluster_map *known);

// Reply of MSG_STATUS
struct wire_status {
    struct envelope env;
    le64 incarnation, map_version, map_epoch, recoveries;
    uint8_t iom, array_ioms, array_state, phase; // enum array_state of map.h
    uint8_t serving, journal_apart, protected, reserved; // protected: WIRE_PROTECTED_*
    le64 blocks_total, blocks_free, objects;
    le64 rows_dirty_bytes, rows_cache_bytes, store_cache_bytes, mem_bytes;
    le64 writes, reads, deltas_sent, settled, journal_flushes, journal_bytes, data_blocks_written, data_blocks_read, bad_blocks;
    struct { le64 incarnation, silent_ms; uint8_t state, reserved[7]; } member[ARRAY_IOMS_MAX]; // as this IOM sees the others
    le64 msgs_in, msgs_out, net_bytes_in, net_bytes_out, syscalls, wakes, disk_calls, slow_turns, longest_turn_ns; // struct iom_counters
    le64 mem_spare_bytes;
    le64 disk_writes, disk_flushes, disk_bytes_written; // of struct iom_counters, too
    le64 cache_limit_bytes; // of rows and store together, as configured; what they use: above
    le64 mended_blocks, lost_blocks; // bad_blocks: did not read; of these rebuilt from their rows; not to be had
    struct { uint8_t running, reserved[3]; le32 result; le64 done, total, rows, bytes, rate, found, mended, lost, skipped, elapsed_ns; } scrub; // rows_scrub
    le64 blocks_used;       // blocks_free is less than the rest: what is kept for deletes, settling, recovery
    le64 missing_total, missing_done, building_ms; // while it rebuilds: blocks, and for how long already; total 0 until they are counted
};
#define WIRE_PROTECTED_STORE 1u
#define WIRE_PROTECTED_JOURNAL 2u
// Body of MSG_CONTROL
enum control_op { CONTROL_STOP = 1, CONTROL_VERIFY = 2, CONTROL_SYNC = 3, CONTROL_SCRUB = 4, CONTROL_REPLACE = 5 };
struct req_control {
    struct envelope env;
    uint8_t op, iom, reserved[6]; // iom, store: REPLACE
    le64 rate;                    // SCRUB, bytes a second; it is begun when answered
    uint8_t store[16];            // the id of its new store. ERR_BUSY: that IOM is not failed, or another is not whole. ERR_TIMEOUT, ERR_CONFLICT: to be asked again
};
struct rep_replace { struct envelope env; le64 incarnation; }; // for struct store_config; payload: the map (cluster_map_encode)
struct rep_verify { struct envelope env; le64 rows, blocks, faults; }; // payload: sentences, one a line
