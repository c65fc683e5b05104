// Making a cluster on this machine (make.c).
#pragma once
#include "cli/cli.h"
#include "cli/tool.h"

bool folder_make_private(const char *dir); // 0700 and ours; says why not
bool folder_is_free(const char *dir);      // a cluster may be made there; says why not
bool conf_new(struct conf *c, const char *dir, uint8_t ioms, uint64_t size_bytes, const char *mount); // in memory
bool cluster_make(struct conf *c);         // stores and cluster.conf; says why not, and then leaves nothing
void cluster_unmake(const struct conf *c); // what a making that failed or was interrupted left; nothing was ever served from it
void random_id(uint8_t id[16]);
void journal_remove(const char *path);     // if it is a file; devices stay
// The store of IOM i, made anew over what is there, and filled by co_filler; says why not. `journal` NULL: it lies in the store.
typedef err store_filler(struct disk *d, struct disk *journal, void *arg, uint8_t i);
MUST_USE err co_store_make(struct tool *t, const struct conf *c, uint8_t i, store_filler *co_filler, void *arg);
