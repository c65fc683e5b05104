// The common part of the daemons: lock and pid file, log, and telling whoever started it how it went.
#include "cli/tool.h"
#include "cli/proc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void tell(struct node_daemon *d, const char *line) {
    if (d->ready_fd < 0) return;
    dprintf(d->ready_fd, "%s\n", line);
    close(d->ready_fd);
    d->ready_fd = -1;
}

int daemon_fail(struct node_daemon *d, const char *fmt, ...) {
    char text[560];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tell(d, text);
    return fail(1, "%s", text);
}

void daemon_ready(struct node_daemon *d) { tell(d, "ok"); }

static bool take_lock(struct node_daemon *d) {
    d->lock_fd = run_lock(d->dir, d->name);
    if (d->lock_fd >= 0) return true;
    struct proc p;
    bool runs = proc_find(d->dir, d->name, &p);
    if (runs) daemon_fail(d, "%s runs already (pid %d)", d->name, (int)p.pid);
    else daemon_fail(d, "%s/run/%s.lock cannot be taken: %s", d->dir, d->name, strerror(errno));
    proc_close(&p);
    return false;
}

static bool folder_begin(struct node_daemon *d, const char *kind, const char *at) {
    char path[PATH_MAX];
    path_make(path, "%s/run", d->dir);
    bool ok = dir_make(path, 0700);
    path_make(path, "%s/log", d->dir);
    ok = ok && dir_make(path, 0700);
    if (!ok) return daemon_fail(d, "the folders of %s cannot be made; is it this user's, and writable?", d->dir), false;
    if (d->lock_fd < 0 && !take_lock(d)) return false;
    return pid_file_write(d->dir, d->name, kind, at) ||
           (daemon_fail(d, "the pid file of %s cannot be written; is there room in %s?", d->name, d->dir), false);
}

bool daemon_begin(struct node_daemon *d, const char *kind, const char *at) {
    prctl(PR_SET_NAME, "mendfs"); // it was started as /proc/self/exe
    if (d->dir[0] && !folder_begin(d, kind, at)) return false;
    d->l = loop_create();
    if (d->dir[0]) {
        char path[PATH_MAX];
        path_make(path, "%s/log/%s", d->dir, d->name);
        err e = loop_log_file(d->l, path, 0);
        if (e) return daemon_fail(d, "the log %s cannot be opened: %s", path, err_text(e)), false;
    }
    last_error_keep(loop_env(d->l), &d->error, false);
    return true;
}

void daemon_end(struct node_daemon *d) {
    loop_destroy(d->l);
    if (!d->dir[0] || d->lock_fd < 0) return;
    pid_file_remove(d->dir, d->name);
    close(d->lock_fd);
}
