// What the subcommands share: the table's row, what they say, their arguments, the folder of a cluster.
//
//   DIR (0700)              everything of one cluster on this machine
//     cluster.conf          JSON: who belongs to it (conf.c)
//     lock                  held by up, down, start-iom and stop-iom, so that they wait for each other
//     iom-N/store           an IOM's store
//     run/NAME.pid          a daemon that runs; NAME is iom-N or mx-N
//     run/NAME.lock         held by that daemon for life
//     run/iom-N.sock        where an IOM listens
//     log/NAME              its log, of bounded size
#pragma once
#include "base/common.h"
#include "base/err.h"
#include "cluster/map.h"

#include <limits.h>

#define CLI_VERSION "0.1.0"
#define EXIT_USAGE 2

// One subcommand. The help text is its contract with who types it: synopsis, one line, and the rest.
struct command {
    const char *name, *synopsis, *brief, *help;
    int (*run)(int argc, char **argv); // argv without the command's name; the exit status
};
const struct command *command_find(const char *name); // NULL: there is none
extern const struct command *const commands[];        // NULL-terminated, in the order of `mendfs help`

extern const struct command cmd_up, cmd_down, cmd_status, cmd_iom, cmd_mount, cmd_start_iom, cmd_stop_iom, cmd_policy,
    cmd_check, cmd_watch, cmd_nfs, cmd_replace_iom, cmd_scrub, cmd_export, cmd_version, cmd_help;

// ---- saying (say.c). Errors are sentences that name the thing, the cause and the next step; the last line is the
// error.
int fail(int status, const char *fmt, ...) PRINTF_LIKE(2, 3); // "mendfs: " and the sentence to stderr; returns status
void say(const char *fmt, ...) PRINTF_LIKE(1, 2);             // a line to stdout
void warn(const char *fmt, ...) PRINTF_LIKE(1, 2);            // a line to stderr
const char *err_next(err e);                                  // "; the next step" after err_text, or nothing
const char *size_text(uint64_t bytes, char out[24]);          // 512M, 8G: as size_parse reads it; exact
bool size_parse(const char *text, uint64_t *bytes);

// ---- arguments (args.c). Options may stand anywhere: --name VALUE, --name=VALUE, --flag; "--" ends them.
struct option_row {
    const char *name; // "--dir", "-o"
    enum { OPT_FLAG, OPT_TEXT, OPT_NUMBER, OPT_SIZE } kind;
    void *to;         // bool, const char *, uint64_t, uint64_t; what it holds before is the default
    uint64_t min, max; // of OPT_NUMBER
};
// Takes the options out of argv and leaves the rest in `rest`. Says what is wrong and returns false.
bool args_parse(const struct command *c, int argc, char **argv, const struct option_row *options, const char **rest,
                int rest_min, int rest_max);

// ---- the folder and its cluster.conf (conf.c, dir.c)
struct conf_iom {
    char store[PATH_MAX]; // absolute, or relative to DIR
    char journal[PATH_MAX]; // absolute; of the journal's own file or device; empty: it lies in the store
    uint64_t size_bytes;
    char at[108];         // "unix:PATH" or "HOST:PORT"
    char host[MAP_HOST_BYTES]; // label: what dies together (hosts.h). Empty for all IOMs: made before there were labels, all on one
};
// Which devices are power-protected: they keep what they have accepted and are not flushed (B6).
enum protects { PROTECTS_NONE, PROTECTS_JOURNAL, PROTECTS_STORE, PROTECTS_ALL, PROTECTS_COUNT };
const char *protects_name(enum protects p);
bool protects_parse(const char *text, enum protects *out); // says why not
struct conf {
    char dir[PATH_MAX];   // absolute
    uint8_t cluster[16];
    bool made;            // every store has been made; before that nothing was ever served
    uint8_t ioms;
    struct conf_iom iom[ARRAY_IOMS_MAX];
    uint64_t cache_bytes; // of each IOM
    char mount[PATH_MAX];
    enum protects protects;
    uint64_t heartbeat_ms, silence_ms; // of failure detection; 0: the default. The same for all IOMs of an array
    bool insecure;        // its IOMs may listen at addresses that others reach too
};
#define HEARTBEAT_MS_DEFAULT 100u
#define SILENCE_MS_DEFAULT 1500u
#define TIME_MS_MAX 3600000u
bool times_fit(uint64_t heartbeat_ms, uint64_t silence_ms, char why[240]); // 0: the default
#define DIR_LEN_MAX 3000u // so that every path in it fits PATH_MAX
void path_make(char out[PATH_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);
bool dir_resolve(const char *dir, char out[PATH_MAX]); // NULL: the default; absolute, need not exist; says why not
void mount_default(char out[PATH_MAX]);
// The absolute path of a mount point without looking at what is mounted there, which may be dead or hung. Says why not.
bool mount_resolve(const char *at, char out[PATH_MAX]);
bool dir_make(const char *path, unsigned mode);              // with its parents; says why not
int dir_lock(const char *dir);                               // waits; a descriptor, -1: has said why not
enum conf_found { CONF_FOUND, CONF_NONE, CONF_BAD };         // BAD: has said why
enum conf_found conf_load(const char *dir, struct conf *c);
bool conf_need(const char *dir_option, struct conf *c);      // dir_resolve and conf_load; without one: says so, false
bool conf_save(const struct conf *c);                        // atomically and durably; says why not
void conf_store_path(const struct conf *c, uint8_t iom, char out[PATH_MAX]);
// Every IOM at a Unix socket in DIR/run, or in a short folder if that is too long. Says why not.
bool sockets_choose(struct conf *c);
bool socket_dirs_ensure(const struct conf *c);               // those short folders are gone after a reboot
void socket_dirs_remove(const struct conf *c);               // the short folders, once no IOM runs
// Nobody but this machine reaches it. Nodes do not authenticate each other yet: whoever reaches one has all data.
bool address_is_private(const char *at);
// "HOST:PORT" or "[V6]:PORT", HOST in numbers: nodes resolve no names.
bool address_is_numeric(const char *at);
#define ADDRESS_PORT_MAX 64535u // a stand-in listens 1000 above its proxy
// What an IOM keeps in memory of its store: a quarter of it pages of its trees, the rest data and parity.
#define CACHE_BYTES_DEFAULT MIB(256)
#define CACHE_BYTES_MIN MIB(16)
bool cache_fits(uint64_t cache_bytes, uint8_t ioms);         // so many of them on this machine; says why not
void hex_of(const uint8_t id[16], char out[33]);
void source_of(const struct conf *c, char out[32]);          // what /proc/mounts shows as the device of our mounts
