// The fault atlas: where on the disks every block of every protected row lies, and whether it is good there. Read from images of the disks as a power cut at
// this instant would leave them without anything that is not flushed, in a world of its own: the array goes on, and not one of its random numbers is used.
//
// What the images refer to may be damaged on the real disks: a block that durable records name has been given to nobody else (store.h, I1).
#pragma once
#include "iom/row_format.h"
#include "sim/array.h"

#define ATLAS_NO_OFF UINT64_MAX
struct atlas_place {
    struct handle h;
    uint64_t seg;
    uint8_t row, iom;
    uint8_t role;  // enum row_role
    bool update;   // of an UPDATE, else of the CHUNK
    bool bad;      // its content does not match its checksum, or cannot be read
    uint64_t at;   // block of the store
    uint64_t off;  // of a data block: where it begins in its file; parity: ATLAS_NO_OFF
};
struct atlas {
    struct atlas_place *place; // sorted by handle, segment, row: a row's places lie side by side
    uint32_t len, cap;
    char fault[160]; // a store that cannot be opened as it is: then there are no places
};
// Reads that the real disk would refuse; the images know nothing of them.
struct atlas_refused {
    bool (*refused)(void *ctx, uint8_t iom, uint64_t at);
    void *ctx;
};
void atlas_take(struct atlas *t, const struct array *a, struct atlas_refused no); // from outside all nodes (world_at, or between two runs of the world)
void atlas_free(struct atlas *t);
bool atlas_same_row(const struct atlas_place *a, const struct atlas_place *b);
