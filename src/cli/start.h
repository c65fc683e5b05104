// Starting and stopping the daemons of a cluster: what up, down, mount, start-iom and stop-iom share.
#pragma once
#include "cli/cli.h"
#include "cli/proc.h"

#define START_LIMIT_MS 60000u
#define STOP_LIMIT_MS 20000u
#define MX_MAX 64u

struct started {
    struct proc proc[ARRAY_IOMS_MAX];   // of those that run; pid 0: it does not
    bool fresh[ARRAY_IOMS_MAX];         // started now
    char why[ARRAY_IOMS_MAX][600];      // it does not run
    uint8_t running, failed;
};
void ioms_start(const struct conf *c, uint32_t wanted_mask, uint64_t deadline_ms, struct started *s);
void started_close(struct started *s);
bool iom_runs(const struct conf *c, uint8_t id); // its process, on this machine
// Of a command for one IOM, `ID [--dir DIR] [--force]`: the cluster, the IOM, the lock; a negative descriptor: has said why not, minus the exit status.
// Without `force` there is no --force.
int iom_command_begin(const struct command *cmd, int argc, char **argv, struct conf *c, uint8_t *id, bool *force);
bool ioms_any_run(const struct conf *c);

// Ends IOMs (those that run): SIGTERM, and SIGKILL after STOP_LIMIT_MS. The number that had to be killed; `ended`
// counts all.
uint32_t ioms_stop(const char *dir, uint32_t wanted_mask, uint32_t *ended);

// Makes a mount point free for us: OK to mount, mounted already and answers, or has said why not.
enum mount_point { MOUNT_POINT_FREE, MOUNT_POINT_SERVED, MOUNT_POINT_BAD };
enum mount_point mount_point_prepare(const struct conf *c, const char *at, bool make, bool nonempty);
// The same before anything is made or started, without touching what may hang: false when it can only fail; has said why.
bool mount_point_check(const struct conf *c, const char *at, bool nonempty);
// Starts the daemon of a mount and waits until it answers; says why not.
bool mount_start(const struct conf *c, const char *at, const char *o, uint64_t deadline_ms);
