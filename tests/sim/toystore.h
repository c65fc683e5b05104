// A toy store: the part of store.h that rows use, over plain arrays, with the durability of the real one and none of its speed. It lives outside the
// node (as a disk does), so that a node can be killed and opened again, and its states after a power cut can be chosen: any prefix of the batches that
// no sync has covered, any subset of the blocks that none has covered, torn ones too. Freed blocks are reused as soon as I1 allows, lowest first.
#pragma once
#include "env/env.h"
#include "store/store.h"

struct toy;
struct toy_options {
    uint64_t seed;
    uint32_t blocks;
    uint32_t slow;                // writes and syncs take so many times longer; 0 = 1
    void (*on_io)(void *ctx); // at the beginning and the end of every write and sync: the place for a power cut
    void *ctx;
};
enum toy_cut { TOY_CUT_RANDOM, TOY_CUT_NOTHING, TOY_CUT_ALL }; // what survives of what no sync has covered
struct toy *toy_new(const struct toy_options *o);
void toy_free(struct toy *t);
void toy_stop(struct toy *t);                             // from now on nothing reaches it: the node is doomed, but its task still runs
void toy_power_cut(struct toy *t, enum toy_cut how);      // the node is off
struct store *toy_open(struct env *e, struct toy *t);     // in the node's memory: gone with it
struct toy_counts { uint64_t batches, batch_bytes, syncs, blocks_written, blocks_read; };
struct toy_counts toy_counts(const struct toy *t);

// For the oracle, without a node: the trees and blocks as they are now (after a cut: as they survived).
bool toy_seek(const struct toy *t, enum tree_id tree, struct key *k, const uint8_t **val, uint32_t *len); // first key >= *k
const uint8_t *toy_block(const struct toy *t, uint64_t at);
bool toy_allocated(const struct toy *t, uint64_t at);
uint32_t toy_blocks(const struct toy *t);
void toy_rot(struct toy *t, uint64_t at); // flips a bit; again, and it is as it was
bool toy_settled(const struct toy *t, uint64_t at); // written, and nothing of it is at risk
