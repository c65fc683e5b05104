// cluster.conf: who belongs to the cluster of a folder, as JSON. Written by `up` before the stores are made ("made":
// false) and once more when they all are, each time as a whole; read strictly.
//
//   { "format": 1, "made": true, "dir": DIR, "cluster": 32 hex digits, "mount": MNT, "cache": bytes (absent: the default),
//     "ioms": [ { "store": "iom-0/store", "size": bytes, "at": "unix:DIR/run/iom-0.sock" }, ... ] }
//
// and, where they are not the default, "power_protected": "journal", "store" or "all", "heartbeat_ms" and "silence_ms",
// "insecure": true, and in an IOM's entry "journal": PATH, of its own device, and "at": "HOST:PORT". "host": LABEL in each
// IOM's entry is what the array was made with, and stays so.
//
// The stores hold the addresses too (in the cluster map), so the folder stays where it was made.
#include "cli/cli.h"
#include "cli/hosts.h"
#include "cluster/member.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONF_FORMAT 1

void hex_of(const uint8_t id[16], char out[33]) {
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", id[i]);
}

static bool hex_parse(const char *text, uint8_t id[16]) {
    if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32) return false;
    for (int i = 0; i < 16; i++) {
        unsigned v;
        if (sscanf(text + 2 * i, "%2x", &v) != 1) return false;
        id[i] = (uint8_t)v;
    }
    return true;
}

void source_of(const struct conf *c, char out[32]) {
    char hex[33];
    hex_of(c->cluster, hex);
    snprintf(out, 32, "mendfs:%.16s", hex);
}

void conf_store_path(const struct conf *c, uint8_t iom, char out[PATH_MAX]) {
    const char *s = c->iom[iom].store;
    if (s[0] == '/') path_make(out, "%s", s);
    else path_make(out, "%s/%s", c->dir, s);
}

static const char *const protects_names[PROTECTS_COUNT] = {"none", "journal", "store", "all"};
const char *protects_name(enum protects p) { return protects_names[p]; }

static bool protects_find(const char *text, enum protects *out) {
    for (int p = 0; p < PROTECTS_COUNT; p++) {
        if (strcmp(text, protects_names[p])) continue;
        *out = (enum protects)p;
        return true;
    }
    return false;
}

bool protects_parse(const char *text, enum protects *out) {
    if (protects_find(text, out)) return true;
    return fail(0, "--power-protected %.40s: none, journal, store or all is expected", text);
}

bool address_is_private(const char *at) {
    static const char *const prefixes[] = {"unix:", "127.", "[::1]:", "localhost:"};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (!strncmp(at, prefixes[i], strlen(prefixes[i]))) return true;
    return false;
}

bool address_is_numeric(const char *at) {
    char host[108];
    uint8_t raw[16];
    unsigned port;
    int end = 0;
    const char *colon = strrchr(at, ':');
    if (!colon || sscanf(colon + 1, "%5u%n", &port, &end) != 1 || colon[1 + end] || !port || port > ADDRESS_PORT_MAX) return false;
    snprintf(host, sizeof host, "%.*s", (int)MIN(colon - at, 100), at);
    size_t len = strlen(host);
    if (len < 2 || host[0] != '[' || host[len - 1] != ']') return inet_pton(AF_INET, host, raw) == 1;
    host[len - 1] = 0;
    return inet_pton(AF_INET6, host + 1, raw) == 1;
}

bool cache_fits(uint64_t cache_bytes, uint8_t ioms) {
    char want[24], most[24];
    uint64_t room = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / ioms;
    size_text(cache_bytes, want);
    if (cache_bytes < CACHE_BYTES_MIN)
        return fail(0, "--cache %s is too small: an IOM needs %lluM at least", want,
                    (unsigned long long)(CACHE_BYTES_MIN >> 20));
    if (cache_bytes <= room) return true;
    return fail(0, "--cache %s is more than this machine has memory for %u IOMs; choose at most %s", want, ioms,
                size_text(room >> 20 << 20, most));
}

bool times_fit(uint64_t heartbeat_ms, uint64_t silence_ms, char why[240]) {
    const char *fault = member_config_fault(&(struct member_config){.heartbeat_ns = MSEC(heartbeat_ms), .silence_ns = MSEC(silence_ms)});
    if (!fault) return true;
    snprintf(why, 240, "--heartbeat-ms %llu and --silence-ms %llu do not fit together: %s; choose a heartbeat of at least 4 ms and a "
                       "silence of at least nine heartbeats",
             (unsigned long long)(heartbeat_ms ? heartbeat_ms : HEARTBEAT_MS_DEFAULT),
             (unsigned long long)(silence_ms ? silence_ms : SILENCE_MS_DEFAULT), fault);
    return false;
}

// ---- reading
static bool text_take(const char *from, char *to, size_t cap) {
    size_t len = strlen(from);
    if (!len || len >= cap) return false;
    memcpy(to, from, len + 1);
    return true;
}

static const char *iom_parse(json_t *j, struct conf_iom *i) {
    static char why[JSON_ERROR_TEXT_LENGTH + 32];
    const char *store, *at, *journal = NULL, *host = NULL;
    json_int_t size;
    json_error_t e;
    if (json_unpack_ex(j, &e, JSON_STRICT, "{s:s, s:I, s:s, s?s, s?s}", "store", &store, "size", &size, "at", &at, "journal",
                       &journal, "host", &host)) {
        snprintf(why, sizeof why, "an IOM's entry: %s", e.text);
        return why;
    }
    if (!text_take(store, i->store, DIR_LEN_MAX / 3) || !text_take(at, i->at, sizeof i->at) || size <= 0)
        return "an IOM's entry has an empty or overlong value";
    if (journal && (!text_take(journal, i->journal, DIR_LEN_MAX) || journal[0] != '/'))
        return "the \"journal\" of an IOM's entry is no absolute path";
    if (host && (!host_valid(host) || !text_take(host, i->host, sizeof i->host)))
        return "the \"host\" of an IOM's entry is no label of 1 to 31 letters, digits, dots, hyphens and underscores";
    i->size_bytes = (uint64_t)size;
    return NULL;
}

static const char *ioms_parse(json_t *list, struct conf *c) {
    size_t n = json_array_size(list);
    if (n < 1 || n > ARRAY_IOMS_MAX) return "\"ioms\" has no entries, or too many";
    for (c->ioms = 0; c->ioms < n; c->ioms++) {
        const char *why = iom_parse(json_array_get(list, c->ioms), &c->iom[c->ioms]);
        if (why) return why;
        if (!c->iom[c->ioms].host[0] != !c->iom[0].host[0]) return "some IOMs' entries have a \"host\" and some have none";
    }
    return NULL;
}

static bool same_folder(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static const char *conf_parse(json_t *j, struct conf *c) {
    static char why[PATH_MAX + JSON_ERROR_TEXT_LENGTH];
    json_t *list;
    json_error_t e;
    int format, made, insecure = 0;
    const char *cluster, *mount, *dir, *protects = NULL;
    json_int_t cache = CACHE_BYTES_DEFAULT, heartbeat = 0, silence = 0;
    if (json_unpack(j, "{s:i}", "format", &format)) return "it has no format number";
    if (format != CONF_FORMAT)
        return "it is of another format than this version of mendfs writes; use the version that made it";
    if (json_unpack_ex(j, &e, JSON_STRICT, "{s:i, s:b, s:s, s:s, s:s, s?I, s:o, s?s, s?I, s?I, s?b}", "format", &format, "made", &made, "dir",
                       &dir, "cluster", &cluster, "mount", &mount, "cache", &cache, "ioms", &list, "power_protected", &protects,
                       "heartbeat_ms", &heartbeat, "silence_ms", &silence, "insecure", &insecure)) {
        snprintf(why, sizeof why, "%s", e.text);
        return why;
    }
    if (protects && !protects_find(protects, &c->protects))
        return "\"power_protected\" is not none, journal, store or all";
    if (!hex_parse(cluster, c->cluster)) return "\"cluster\" is not 32 hexadecimal digits";
    if (!text_take(mount, c->mount, DIR_LEN_MAX) || mount[0] != '/') return "\"mount\" is no absolute path";
    if (!same_folder(dir, c->dir)) {
        snprintf(why, sizeof why, "the folder was made as %.3000s; move it back there", dir);
        return why;
    }
    if (cache < (json_int_t)CACHE_BYTES_MIN) return "\"cache\" is below 16M";
    if (heartbeat < 0 || silence < 0 || heartbeat > TIME_MS_MAX || silence > TIME_MS_MAX || !times_fit((uint64_t)heartbeat, (uint64_t)silence, why))
        return "\"heartbeat_ms\" and \"silence_ms\" do not fit together";
    c->heartbeat_ms = (uint64_t)heartbeat;
    c->silence_ms = (uint64_t)silence;
    c->cache_bytes = (uint64_t)cache;
    c->made = made;
    c->insecure = insecure;
    return ioms_parse(list, c);
}

enum conf_found conf_load(const char *dir, struct conf *c) {
    char path[PATH_MAX];
    json_error_t e;
    path_make(path, "%s/cluster.conf", dir);
    *c = (struct conf){0};
    path_make(c->dir, "%s", dir);
    if (access(path, F_OK) && (errno == ENOENT || errno == ENOTDIR)) return CONF_NONE;
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (!j) {
        fail(1, "%s cannot be read: %s (line %d)", path, e.text, e.line);
        return CONF_BAD;
    }
    const char *why = conf_parse(j, c);
    if (why) fail(1, "%s cannot be used: %s", path, why);
    json_decref(j);
    return why ? CONF_BAD : CONF_FOUND;
}

bool conf_need(const char *dir_option, struct conf *c) {
    char dir[PATH_MAX];
    if (!dir_resolve(dir_option, dir)) return false;
    enum conf_found found = conf_load(dir, c);
    if (found == CONF_NONE) fail(1, "there is no cluster in %s; `mendfs up --dir %s` makes one", dir, dir);
    if (found == CONF_FOUND && !c->made)
        fail(1, "the cluster in %s is not made yet: `mendfs up` was interrupted; run it again", dir);
    return found == CONF_FOUND && c->made;
}

// ---- writing
static json_t *conf_json(const struct conf *c) {
    char hex[33];
    hex_of(c->cluster, hex);
    json_t *list = json_array();
    for (uint8_t i = 0; i < c->ioms; i++) {
        const char *journal = c->iom[i].journal, *host = c->iom[i].host;
        json_array_append_new(list, json_pack("{s:s, s:I, s:s, s:s*, s:s*}", "store", c->iom[i].store, "size",
                                              (json_int_t)c->iom[i].size_bytes, "at", c->iom[i].at, "journal",
                                              *journal ? journal : NULL, "host", *host ? host : NULL));
    }
    json_t *j = json_pack("{s:i, s:b, s:s, s:s, s:s, s:I, s:o, s:s*}", "format", CONF_FORMAT, "made", c->made, "dir", c->dir,
                          "cluster", hex, "mount", c->mount, "cache", (json_int_t)c->cache_bytes, "ioms", list, "power_protected",
                          c->protects ? protects_name(c->protects) : NULL);
    if (j && c->heartbeat_ms) json_object_set_new(j, "heartbeat_ms", json_integer((json_int_t)c->heartbeat_ms));
    if (j && c->silence_ms) json_object_set_new(j, "silence_ms", json_integer((json_int_t)c->silence_ms));
    if (j && c->insecure) json_object_set_new(j, "insecure", json_true());
    return j;
}

static bool sync_folder(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0;
    close(fd);
    return ok;
}

static bool write_whole(const char *path, json_t *j) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    bool ok = json_dumpfd(j, fd, JSON_INDENT(2)) == 0 && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    return close(fd) == 0 && ok;
}

bool conf_save(const struct conf *c) {
    char path[PATH_MAX], next[PATH_MAX];
    path_make(path, "%s/cluster.conf", c->dir);
    path_make(next, "%s/cluster.conf.new", c->dir);
    json_t *j = conf_json(c);
    if (!j) {
        fail(1, "%s cannot be written: the path of the folder or of the mount is not UTF-8", path);
        return false;
    }
    bool ok = write_whole(next, j) && rename(next, path) == 0 && sync_folder(c->dir);
    if (!ok) fail(1, "%s cannot be written: %s", path, strerror(errno));
    json_decref(j);
    return ok;
}
