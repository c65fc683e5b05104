// The simulated world: many nodes, their disks and their network in one process and one thread; the second host of the
// node code beside src/host. One seed and one program give one run, to the last event.
//
//     static struct node *a;
//     static bool over;
//     static void node_main(void *arg) {            // a task of the node; everything of env.h works in it
//         struct disk *d;
//         if (disk_open(node_env(a), &(struct disk_open_args){"disk-a", true, GIB(8)}, &d) != OK) return;
//         ...
//         over = true;
//     }
//     static bool going(void *ctx) { return !over; }
//
//     struct world_options o = world_options_default();
//     struct world *w = world_create(42, &o);
//     a = node_add(w, "a");
//     node_start(a, node_main, NULL);
//     ASSERT(world_run_while(w, going, NULL, SEC(10)));  // false: ten seconds were not enough
//     node_power_cut(a);                                 // unflushed sectors are each kept or lost, torn
//     node_start(a, node_main_again, NULL);              // a new env, empty memory, the disk as the cut left it
//     ...
//     world_destroy(w);
//
// What is random: latencies, which sector survives, which suffix of a connection is lost, env_random. All of it comes
// from the seed. What is never used: the wall clock, addresses, the order of a hash table.
//
// A node:  off --node_start--> running <--pause/resume--> paused;  any --node_crash, node_power_cut--> off.
// A node that crashes from within (a hook called in its own disk_submit) is doomed at that very instant: what it still
// does until its stack has unwound reaches neither disk nor network.
//
// Disk: a write is visible to reads from its completion and durable from the completion of a flush submitted after
// that. node_crash settles what is in flight (each sector done or not) and keeps the rest, volatile as it was.
// node_power_cut also decides, for each unflushed sector of each of its disks, whether it is kept or falls back to its
// last flushed content.
// A disk belongs to the node that opened it last: that node's power cuts are the disk's.
//
// Network: connections are ordered; a message is lost only with all that follow it on its connection, and then the
// connection closes. A process that crashes closes its connections; a machine without power says nothing: the peer sees
// silence until it gives up on an unanswered message (net_give_up_ns) or the machine is back and refuses. A cut link
// holds messages back until it is healed (or the sender gives up). Addresses are "NODE" or "NODE:PORT"; a node listens
// at its own only.
#pragma once
#include "env/env.h"

struct world;
struct node;
struct world_disk;

// ---- the world ------------------------------------------------------------------------------------------------------
enum world_io_moment {
    WORLD_IO_SUBMITTED, // in flight: a cut now tears it
    WORLD_IO_COMPLETED, // done at the device, the node has not heard of it
};
struct world_io {
    struct node *node;
    struct world_disk *disk;
    enum disk_op op;
    enum world_io_moment moment;
    uint64_t off_bytes, len_bytes; // 0 for a flush
    uint64_t number;               // of this I/O in the world, from 1; the same at both moments
};

struct world_options {
    // Disk. A delay lies between min and max, small ones more often; an I/O takes that plus its length.
    uint64_t disk_min_ns, disk_max_ns; // read, write
    uint64_t flush_min_ns, flush_max_ns;
    uint64_t disk_ns_per_kib;
    uint32_t disk_depth;               // I/Os served at a time; others wait their turn
    uint32_t disk_spike_ppm;           // of all I/Os: take disk_spike_ns more
    uint64_t disk_spike_ns;
    uint32_t disk_destage_ppm; // an unflushed sector that is overwritten may have become durable before: chance of that
    // Network
    uint64_t net_min_ns, net_max_ns; // one way
    uint64_t net_ns_per_kib;         // of the sender's line, shared by all its connections
    uint32_t net_spike_ppm;
    uint64_t net_spike_ns;
    uint32_t net_reset_ppm;       // of all messages: their connection breaks, with a random suffix of either direction
    uint64_t net_connect_ns;      // connecting to a silent machine or over a cut link: ERR_TIMEOUT after this
    uint64_t net_give_up_ns;      // an unanswered message breaks the connection, at the sender, after this
    uint64_t net_power_notice_ns; // peers hear of a power cut after this; UINT64_MAX: never
    uint64_t net_heal_max_ns;     // what was held back by a cut link goes on at most this long after the healing
    // Nodes
    uint64_t turn_max_ns; // from an event to the turn in which the node's tasks run
    // Hooks; all may be NULL. They may call anything here except world_run_* and world_destroy.
    void (*on_io)(void *ctx, const struct world_io *io);
    void (*on_msg)(void *ctx, struct node *from, struct node *to, const struct msg *m); // before it is sent
    void *ctx;
    // Trace of all nodes, each line with virtual time and node; NULL: none.
    void (*trace)(void *ctx, const char *line);
    void *trace_ctx;
    enum trace_level trace_level;
};
struct world_options world_options_default(void); // an NVMe disk, a local 10 GbE network, no faults

struct world *world_create(uint64_t seed, const struct world_options *o); // o NULL: the defaults
void world_destroy(struct world *w);
struct world_options *world_options(struct world *w); // may be changed while it runs
uint64_t world_now_ns(const struct world *w);         // virtual, from 0
uint64_t world_random(struct world *w);
void world_reseed(struct world *w, uint64_t course); // other random numbers from now on
uint64_t world_random_below(struct world *w, uint64_t n);    // n > 0
bool world_chance(struct world *w, uint32_t ppm);
uint64_t world_digest(const struct world *w); // of all events so far: equal for equal runs
uint64_t world_events(const struct world *w);

bool world_run_step(struct world *w);                 // one event; false if there is none
void world_run_until(struct world *w, uint64_t t_ns); // then now is t_ns
// While pred holds; true as soon as it does not, false when the time has come or nothing is left to happen.
MUST_USE bool world_run_while(struct world *w, bool (*pred)(void *ctx), void *ctx, uint64_t limit_ns);

// A call of fn at a virtual time, outside all nodes: for a script of faults. Cannot be taken back.
void world_at(struct world *w, uint64_t t_ns, void (*fn)(void *arg), void *arg);

// ---- nodes ----------------------------------------------------------------------------------------------------------
#define WORLD_NODES_MAX 64
struct node *node_add(struct world *w, const char *name); // off
struct node *node_find(struct world *w, const char *name); // NULL if there is none
const char *node_name(const struct node *n);
uint32_t node_index(const struct node *n);
struct env *node_env(struct node *n);      // the same address for ever; valid while running
struct world *node_world(const struct node *n);
bool node_running(const struct node *n);   // or paused, and not doomed
bool node_paused(const struct node *n);
uint32_t node_starts(const struct node *n);
void node_start(struct node *n, void (*fn)(void *arg), void *arg); // of a node that is off
void node_crash(struct node *n);     // the process dies; of a node that is off: nothing
void node_power_cut(struct node *n); // the machine dies; also of a node whose process is dead already
void node_pause(struct node *n);     // SIGSTOP: its disk and its kernel go on, it does not
void node_resume(struct node *n);
void node_clock(struct node *n, int64_t jump_ns, int32_t rate_ppm); // monotonic: jumps only forward; runs faster by ppm
void node_wall_clock(struct node *n, int64_t offset_ns);

// Crash at the k-th I/O (from 1, from now on) that `n` - or any node, if NULL - submits or completes. With NULL all
// nodes crash together. One plan at a time: a later one replaces it; k = 0 takes it back.
enum world_crash { WORLD_CRASH_PROCESS, WORLD_CRASH_POWER };
void world_crash_at_io(struct world *w, struct node *n, uint64_t k, enum world_io_moment at, enum world_crash how);
bool world_crash_pending(const struct world *w); // false: it has happened

// ---- which sectors survive ------------------------------------------------------------------------------------------
#define SECTOR_BYTES 512u
struct world_sector {
    struct world_disk *disk;
    uint64_t off_bytes;
    uint32_t index;   // of those at risk in this crash: completed ones by offset, then those in flight by I/O number
    bool in_flight;   // its write had not completed
    bool changed;     // whether it is kept makes a difference
};
// Instead of the random numbers: true keeps the new content. NULL: back to random.
typedef bool (*world_keep_fn)(void *ctx, const struct world_sector *s);
void world_keep_sectors(struct world *w, world_keep_fn keep, void *ctx);
// A ready one for exhaustive tests: ctx is a struct world_mask; sectors beyond it are lost.
struct world_mask { const uint64_t *words; uint32_t len_bits; };
bool world_keep_mask(void *ctx, const struct world_sector *s);
uint32_t node_sectors_at_risk(const struct node *n); // if its power were cut now

// ---- disks ----------------------------------------------------------------------------------------------------------
struct world_disk_counts { uint64_t reads, writes, flushes, read_bytes, write_bytes, errors; };
struct world_disk *world_disk_add(struct world *w, const char *name, uint64_t size_bytes); // as disk_open with create
struct world_disk *world_disk_find(struct world *w, const char *name);
const char *world_disk_name(const struct world_disk *d);
uint64_t world_disk_size_bytes(const struct world_disk *d);
struct world_disk_counts world_disk_counts(const struct world_disk *d);
void world_disk_counts_reset(struct world_disk *d);
uint64_t world_disk_stored_bytes(const struct world_disk *d); // memory that its content takes
// What a read gives now; what is durable at once, whatever is in flight. Any alignment.
void world_disk_peek(struct world_disk *d, uint64_t off_bytes, void *p, uint32_t len_bytes);
void world_disk_poke(struct world_disk *d, uint64_t off_bytes, const void *p, uint32_t len_bytes);
uint64_t world_disk_hash(const struct world_disk *d);  // of what reads give now, over the whole disk
void world_disk_flip(struct world_disk *d, uint64_t off_bytes, unsigned bit); // bit rot
// ERR_IO for every such I/O that touches the range (a flush: for every flush), until mended. What a failed write leaves
// is any mix of old and new sectors.
void world_disk_break(struct world_disk *d, uint64_t off_bytes, uint64_t len_bytes, enum disk_op op);
void world_disk_mend(struct world_disk *d);
void world_disk_mend_range(struct world_disk *d, uint64_t off_bytes, uint64_t len_bytes); // only what was broken within it
void world_disk_hang(struct world_disk *d, bool hung); // nothing completes while hung
void world_disk_slow(struct world_disk *d, uint32_t times); // I/Os that begin from now on take so many times as long; 1: as ever
// It keeps every completed write over a power cut, whether flushed or not (whatever the node believes: that is
// disk_open_args). Set while nothing on it is volatile.
void world_disk_protect(struct world_disk *d, bool power_protected);
void world_disk_erase(struct world_disk *d);           // a new one; nobody has it open
// An image of `from` as a power cut now would leave it, chosen as in a cut (world_keep_sectors); `from` goes on. For
// tests that look at many crash states of one run. `to` may be a disk of another world; nobody has it open.
void world_disk_image(struct world_disk *from, struct world_disk *to);

// ---- network --------------------------------------------------------------------------------------------------------
void world_cut_link(struct node *from, struct node *to, bool one_way);
void world_heal_link(struct node *from, struct node *to); // both ways
void world_heal_all(struct world *w);
void node_slow_links(struct node *n, uint32_t times);     // what is sent to it and by it from now on takes so many times as long; 1: as ever
void world_isolate(struct node *n);                       // cuts it from all others, both ways
void world_reset_conns(struct node *a, struct node *b);   // breaks all connections between them, with random suffixes

struct world_msg_counts { uint64_t sent, body_bytes, payload_bytes; };
struct world_msg_counts world_msg_counts(const struct world *w, uint16_t type);
struct world_msg_counts world_msg_total(const struct world *w);
void world_msg_counts_reset(struct world *w);
