// What world.c, disk.c and net.c share and nobody else sees: the event queue, a node, the random numbers.
//
// An event is a member of the thing it happens to (a node's turn, an I/O, a pipe of a connection) and stands in the
// queue at most once. Order: time, then the order in which events were set. Whoever frees a thing clears its events,
// so nothing of a dead node ever fires; ASSERTs at the places of delivery hold that.
#pragma once
#include "base/sum.h"
#include "sim/world.h"
#include <stdlib.h>
#include <string.h>

struct event {
    uint32_t index; // in the heap, plus one; 0 = not set
    uint64_t at_ns; // while set
    void (*fire)(struct world *w, struct event *ev);
};
void event_set(struct world *w, struct event *ev, uint64_t at_ns); // moves it if it is set
void event_clear(struct world *w, struct event *ev);

// Between local (monotonic) and virtual time: a line through (virtual_ns, local_ns).
struct local_clock {
    uint64_t virtual_ns, local_ns;
    int32_t rate_ppm;
};

enum node_state { NODE_OFF, NODE_RUNNING, NODE_PAUSED };
enum node_doom { DOOM_NONE, DOOM_PROCESS, DOOM_POWER };

struct node {
    struct env env; // alive unless NODE_OFF
    struct world *world;
    char *name;
    uint32_t index, starts;
    enum node_state state;
    enum node_doom doom; // set while its code is on the stack; it dies when that has returned
    bool powered;        // the machine answers: false from a power cut to the next start
    uint32_t entered;    // depth of calls into its code
    struct event turn;
    uint64_t turn_end_ns; // its last turn took until then
    struct local_clock clock;
    int64_t wall_offset_ns;
    uint64_t rng;

    struct list finished_ios; // done at the device, not yet told

    struct list conns, listeners;
    uint64_t line_free_ns; // its network line is busy until then
    uint64_t cut_to;       // bit i: nothing gets from here to node i
    uint32_t slow_links;   // messages take so many times as long; 0: as ever
};

struct crash_plan {
    struct node *node;
    uint64_t k; // 0: none
    enum world_io_moment at;
    enum world_crash how;
};

struct world {
    struct world_options opt;
    uint64_t seed, now_ns, seq, rng, digest, events;
    struct heap_slot {
        uint64_t at_ns, seq;
        struct event *ev;
    } *heap;
    uint32_t heap_len, heap_cap;
    bool running; // inside an event

    struct node *nodes[WORLD_NODES_MAX];
    uint32_t nodes_len;
    struct list disks, wires, calls;

    uint64_t io_number;
    struct list idle_ios; // for reuse
    struct list idle_packets;
    struct crash_plan plan;
    world_keep_fn keep;
    void *keep_ctx;

    struct world_msg_counts *msg_counts; // by type
    struct world_msg_counts msg_total;
};

static inline struct node *node_of_env(struct env *e) { return CONTAINER_OF(e, struct node, env); }

// Every call into a node's code (its tasks, callbacks, hooks on its behalf) stands between these two. The leave that
// brings it to zero carries out a doom, or sets the node's next turn. True if the node lives on.
void node_enter(struct node *n);
bool node_leave(struct node *n);
static inline bool node_hears(const struct node *n) { return n->state != NODE_OFF && n->doom == DOOM_NONE; }

static inline uint64_t rng_next(uint64_t *state) { // splitmix64
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
uint64_t world_delay_ns(struct world *w, uint64_t min_ns, uint64_t max_ns, uint32_t spike_ppm, uint64_t spike_ns);

static inline void world_mix(struct world *w, uint64_t x) {
    uint64_t d = (w->digest ^ x) * 0x9E3779B97F4A7C15u;
    w->digest = d ^ d >> 29;
}

void *world_alloc(size_t len_bytes); // zeroed, never NULL; free()
char *world_strdup(const char *s);

// disk.c
void world_disks_free(struct world *w);
void node_disks_die(struct node *n, bool power); // settles what is in flight, gives the locks back
void node_disks_resume(struct node *n);
err sim_disk_open(struct env *e, const struct disk_open_args *a, struct disk **out);
void sim_disk_submit(struct disk *d, struct disk_io *io);
void sim_disk_close(struct disk *d);
uint32_t sim_disk_inflight(const struct disk *d);
void world_io_moment(struct world *w, const struct world_io *io); // hook, plan, digest (world.c)

// net.c
void world_net_free(struct world *w);
void node_net_die(struct node *n, bool power);
void node_net_power_on(struct node *n);
void world_net_changed(struct world *w); // a node paused or resumed: what waits for it stops or goes on
err sim_net_listen(struct env *e, const char *at, const struct net_events *ev, void *ctx, struct listener **out);
void sim_net_unlisten(struct env *e, struct listener *l);
struct conn *sim_net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx);
void sim_conn_send(struct conn *c, struct msg *m);
uint64_t sim_conn_queued_bytes(const struct conn *c);
void sim_conn_close(struct conn *c);
