// Processes of a cluster: who runs, starting daemons, waiting for them, ending them. A process is named by its pid and
// its start time together (a pid alone may be somebody else's by now) and held by a pidfd.
#pragma once
#include "cli/cli.h"

#include <sys/types.h>

// ---- pid files: JSON, {"pid": first of all, "start":, "boot":, "kind":, "at":}
struct proc {
    pid_t pid;
    int fd;             // a pidfd: readable when it has ended; the holder closes it
    char name[32];      // iom-N, mx-N
    char kind[16];      // iom, fuse
    char at[PATH_MAX];  // of an MX: its mount point; of an IOM: its address
};
bool proc_find(const char *dir, const char *name,
               struct proc *p); // that very process runs; else p->pid is 0 and the rest as the file says
void proc_close(struct proc *p);
bool proc_kill(const struct proc *p, int signo);                   // false: it has ended
uint32_t proc_find_mx(const char *dir, struct proc *list, uint32_t cap, bool alive_only); // by number
bool proc_wait(const struct proc *list, uint32_t n,
               uint64_t limit_ms); // all have ended (those with pid 0 count as ended)
bool proc_ended(const struct proc *p);
bool pid_file_write(const char *dir, const char *name, const char *kind,
                    const char *at); // of this process; says why not
void pid_file_remove(const char *dir, const char *name);
int run_lock(const char *dir,
             const char *name); // a descriptor; -1: another process has it, or it cannot be had (errno)

uint64_t now_ms(void); // monotonic

// ---- starting daemons
struct child {
    struct proc p;
    int ready_fd;
    char said[600];     // the line it wrote when it was ready or failed
    uint32_t said_len;
    bool done, ok;
    uint64_t log_from;  // where its part of the log begins
};
// Starts this very program as a daemon with these arguments and --ready-fd; its stderr goes to the log. Says why not.
bool child_start(const char *dir, const char *name, const char *const args[], struct child *c);
// Waits until each has said "ok" or failed; `said` is then the error as a sentence. Who is late is killed.
void child_wait(const char *dir, struct child *list, uint32_t n, uint64_t deadline_ms);
// The last error in the log of NAME from an offset on, or its last line; false: nothing there.
bool log_last_error(const char *dir, const char *name, uint64_t from, char *out, size_t cap);
