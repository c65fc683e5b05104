// Making a cluster on this machine (make.c).
#pragma once
#include "cli/cli.h"

bool folder_make_private(const char *dir); // 0700 and ours; says why not
bool folder_is_free(const char *dir);      // a cluster may be made there; says why not
bool conf_new(struct conf *c, const char *dir, uint8_t ioms, uint64_t size_bytes, const char *mount); // in memory
bool cluster_make(struct conf *c);         // stores and cluster.conf; says why not, and then leaves nothing
void cluster_unmake(const struct conf *c); // what a making that failed or was interrupted left; nothing was ever served from it
