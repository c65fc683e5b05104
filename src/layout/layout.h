// Where the bytes of an object live: handles, referential maps (FIG. 4) and stripe geometry. Pure functions only.
//
//   file ── chunks of one quantum ── n = span-1 data chunks and one parity chunk make a stripe (rotating parity):
//
//            member 0   member 1   member 2   member 3            starter 0, span 4
//   stripe 0   D0         D1         D2         P
//   stripe 1   D4         D5         P          D3                parity of stripe t at member (starter - 1 - t) mod span,
//   stripe 2   D8         P          D6         D7                data k at the next members in order: consecutive chunks
//   stripe 3   P          D9         D10        D11               visit all members in turn
//
// A *row* is block b of all chunks of a stripe. A *segment* is up to 16 consecutive rows of one stripe: the unit in which an
// IOM keeps addresses (one CHUNK record) and in which updates are versioned (row.c). Segments are numbered through the
// stripes: seg = stripe * segs_per_chunk + (row in chunk / seg_blocks).
#pragma once
#include "base/bytes.h"
#include "base/common.h"
#include "base/err.h"

#define ARRAY_IOMS_MAX 16
#define SEG_BLOCKS_MAX 16
#define NO_IOM 0xff
typedef struct { uint8_t n; } iom_id; // position in the array, 0..15; NO_IOM for none
static inline bool iom_eq(iom_id a, iom_id b) { return a.n == b.n; }

// ---- handles (FIG. 7, 8): the starter's primary table is indexed straight by `index`; `generation` tells stale ones apart
struct handle {
    uint16_t array;
    uint8_t starter; // iom_id.n
    uint32_t generation;
    uint64_t index;  // below 2^47
};
#define HANDLE_BYTES 16
#define HANDLE_ARRAYS 4096u                // so that an inode number stays below 2^63
#define HANDLE_INDEX_END (1ull << 47)      // index 0 is never given: all zeros is no handle
void handle_put(uint8_t out[HANDLE_BYTES], struct handle h); // big-endian (array, starter, 0, index, generation): memcmp order
struct handle handle_at(const uint8_t in[HANDLE_BYTES]);     // of any bytes; not handle_valid if handle_put never makes them
bool handle_eq(struct handle a, struct handle b);
bool handle_valid(struct handle h);              // array, starter and index within their limits
uint64_t handle_inode(struct handle h);          // array, starter and index packed: unique among living objects; the root's is 1
uint64_t handle_hash(struct handle h);
#define ROOT_INDEX 1
struct handle handle_root(void);                 // array 0, starter 0, index ROOT_INDEX, generation 1

// ---- referential maps: immutable, made at creation, cached freely
enum protection { PROT_NONE = 0, PROT_MIRROR = 1, PROT_PARITY3 = 3, PROT_PARITY = 5 }; // RAID levels 0, 1, 3, 5
enum map_form { MAP_STRIPED = 0, MAP_EXPLICIT = 1 };
struct refmap {
    uint8_t protection;   // enum protection
    uint8_t form;         // enum map_form
    uint8_t span;         // members; NONE 1..16, MIRROR 2..16, PARITY* 3..16
    uint8_t quantum_shift; // log2 of the quantum in bytes: 12 (4 KiB) .. 22 (4 MiB); default 16
    uint8_t lowest;       // striped form: members are IOMs lowest .. lowest+span-1 ...
    uint8_t starter;      // ... and this member position (0..span-1) holds data chunk 0
    uint8_t member[ARRAY_IOMS_MAX]; // explicit form: IOM of each member position, all distinct
}; // what a form does not use is zero: equal maps have equal bytes
#define REFMAP_BYTES 24
void refmap_put(uint8_t out[REFMAP_BYTES], const struct refmap *m); // the form on disk and wire
MUST_USE err refmap_at(struct refmap *m, const uint8_t in[REFMAP_BYTES]); // ERR_FORMAT for what refmap_valid refuses; *m is then untouched
bool refmap_valid(const struct refmap *m);
bool refmap_eq(const struct refmap *a, const struct refmap *b);
static inline iom_id refmap_member(const struct refmap *m, uint8_t position) { // IOM of a member position
    ASSERT(position < m->span);
    return (iom_id){m->form == MAP_EXPLICIT ? m->member[position] : (uint8_t)(m->lowest + position)};
}
uint8_t refmap_position(const struct refmap *m, iom_id iom);          // NO_IOM if it is no member

// ---- geometry
static inline uint64_t refmap_quantum(const struct refmap *m) { return 1ull << m->quantum_shift; }
uint8_t geo_data(const struct refmap *m);          // n: data chunks a stripe: span (none), 1 (mirror), span-1 (parity)
bool geo_has_parity(const struct refmap *m);       // everything but NONE; a mirror's second copy counts as the parity of n = 1
uint8_t geo_parity_pos(const struct refmap *m, uint64_t stripe);             // member position of the parity chunk; NO_IOM if none
uint8_t geo_data_pos(const struct refmap *m, uint64_t stripe, uint8_t k);    // member position of data chunk k, k < geo_data
uint8_t geo_role(const struct refmap *m, uint64_t stripe, uint8_t position); // k, or GEO_PARITY, or GEO_NOTHING (mirror, span > 2)
#define GEO_PARITY 0xfe
#define GEO_NOTHING 0xff
// mirror: data of stripe t at (starter + t) mod span, its copy at the next. parity3: parity at (starter - 1) mod span always.

uint8_t geo_seg_blocks(const struct refmap *m);    // rows a segment: min(quantum in blocks, 16 if n <= 7 else 8): a CHUNK stays < 900 bytes
uint32_t geo_segs_per_chunk(const struct refmap *m);
uint64_t geo_seg_stripe(const struct refmap *m, uint64_t seg);

// Where byte `off` of the object is, and how many bytes from there on lie in the same segment of the same chunk.
struct place {
    uint64_t stripe, seg;
    uint8_t k;              // data chunk of the stripe
    iom_id data, parity;    // parity NO_IOM without protection
    uint32_t seg_off_bytes; // within the segment of that chunk: 0 .. seg_blocks*4096-1
    uint32_t run_bytes;     // to the end of the segment
};
struct place geo_locate(const struct refmap *m, uint64_t off_bytes);
uint64_t geo_offset(const struct refmap *m, uint64_t seg, uint8_t k, uint32_t seg_off_bytes); // the inverse: byte in the object
uint64_t geo_segs_of_size(const struct refmap *m, uint64_t size_bytes); // segments whose stripe holds any byte below size: whole stripes
#define OBJECT_BYTES_MAX ((1ull << 62) - 1)

// ---- the array: who dies together, who stands in for whom
struct array_shape {
    uint8_t ioms;
    uint8_t host[ARRAY_IOMS_MAX];  // IOMs with one number are on one host
    uint8_t proxy[ARRAY_IOMS_MAX]; // of each IOM: a ring of them all; NO_IOM in an array of one
};
// The ring of a new array. As many IOMs as can be have their proxy on another host; where the next one (the first, of the last) is
// as good, it is that. host[0..ioms-1]: any numbers below 255; NULL: all are on one host.
void array_shape_make(struct array_shape *s, uint8_t ioms, const uint8_t *host);
uint8_t array_hosts(const struct array_shape *s);             // how many
iom_id proxy_of(const struct array_shape *s, iom_id iom);     // C1; NO_IOM in an array of one
iom_id ward_of(const struct array_shape *s, iom_id iom);      // whose proxy it is; likewise
static inline bool one_host(const struct array_shape *s, iom_id a, iom_id b) { return s->host[a.n] == s->host[b.n]; }

// ---- maps of new objects
// How many members an object of that protection gets that asks for `span` (0: as many as there can be). Where there are hosts enough for
// the protection (mirror 2, parity 3) no two members are on one host, so it is at most the number of hosts.
uint8_t refmap_span(const struct array_shape *s, enum protection p, uint8_t span);
// The map for a new object: protection, span (as above), quantum; starter IOM = where its directory is.
// A protection that the array is too small for is lowered only for span 0 (2 IOMs: mirror, 1: none); else ERR_INVAL.
// The starter holds data chunk 0. With fewer hosts than IOMs, but enough, each host that is a member takes part with one IOM, chosen by
// `spread` (any hash of the object): over many objects a host's IOMs have as much of them. Else a span below the array's covers the IOMs from
// the starter on. Members that do not follow each other are named one by one: explicit form.
MUST_USE err refmap_make(struct refmap *out, const struct array_shape *s, iom_id starter, enum protection p, uint8_t span,
                         uint8_t quantum_shift, uint64_t spread);
