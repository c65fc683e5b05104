// Mounts as the kernel knows them. Nothing here touches what is mounted from this process, for a dead mount gives
// errors and a hung one never returns: children of a bounded life do.
#pragma once
#include "cli/cli.h"

#include <sys/types.h>

struct mount_entry {
    char at[PATH_MAX], type[64], source[256];
};
bool mount_find(const char *at, struct mount_entry *e);                      // the topmost at that very path
uint32_t mount_find_all(const char *source, struct mount_entry *list,
                        uint32_t cap);                          // newest first: the order of unmounting
bool path_is_below(const char *path, const char *at);          // or the same; by the names alone
bool mount_holds(const char *path, struct mount_entry *e);     // lies on a mount of mendfs, of any cluster; by its name alone
bool mount_is(const struct mount_entry *e, const char *source); // one of ours, of the cluster with this source

enum mount_health { MOUNT_ANSWERS, MOUNT_DEAD, MOUNT_HANGS };
enum mount_health mount_probe(const char *at, uint64_t limit_ms);

// Unmounting, by a child. detach: at once from the tree of names; who has files open there keeps them.
pid_t unmount_begin(const char *at, bool detach); // the child; <0: errno
int unmount_result(int wait_status);              // 0 or an errno value
int unmount_now(const char *at, bool detach, uint64_t limit_ms); // ETIMEDOUT: it hangs
// Who keeps it busy: "pid 12 (bash), pid 13 (vi)"; empty: nobody that can be seen.
void mount_users(const char *at, char *out, size_t cap);
