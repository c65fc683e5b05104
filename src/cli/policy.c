// mendfs policy: how a file or folder of a mount is protected. What a folder has, new entries in it inherit.
#include "cli/cli.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif
#define PREFIX "user.mendfs."

static bool one_of(const char *value, const char *const words[]) {
    for (; *words; words++)
        if (!strcmp(value, *words)) return true;
    return false;
}

static bool is_toughness(const char *v) { return one_of(v, (const char *const[]){"0", "1", "2", NULL}); }
static bool is_protection(const char *v) {
    return one_of(v, (const char *const[]){"none", "mirror", "parity", "parity3", NULL});
}
static bool is_quantum(const char *v) {
    uint64_t n;
    return size_parse(v, &n) && n >= BLOCK_BYTES && !(n & (n - 1)) && n <= MIB(4);
}
static bool is_span(const char *v) {
    char *end;
    unsigned long n = strtoul(v, &end, 10);
    return *v >= '0' && *v <= '9' && !*end && n >= 1 && n <= ARRAY_IOMS_MAX;
}

static const struct policy {
    const char *name, *values, *standard; // what an entry has for which nobody said anything
    bool (*valid)(const char *value);
} policies[] = {
    {"toughness", "0 (fast), 1 (in two memories) or 2 (on disk)", "1", is_toughness},
    {"protection", "none, mirror, parity or parity3", "parity", is_protection},
    {"quantum", "a power of two from 4K to 4M", "64K", is_quantum},
    {"span", "a number of IOMs", "all", is_span},
};

static bool is_mount(const char *path) {
    struct statfs fs;
    if (statfs(path, &fs)) return fail(0, "%s: %s", path, strerror(errno));
    if (fs.f_type == FUSE_SUPER_MAGIC) return true;
    return fail(0, "%s is on no mount of mendfs; name a path below one (mendfs status lists them)", path);
}

#define VALUE_BYTES 128
// What is said of an entry itself; empty: nothing.
static bool value_read(const char *path, const struct policy *p, char value[VALUE_BYTES]) {
    char name[64];
    snprintf(name, sizeof name, PREFIX "%s", p->name);
    ssize_t n = getxattr(path, name, value, VALUE_BYTES - 1);
    value[MAX(n, 0)] = 0;
    return n >= 0 || errno == ENODATA;
}

// The folder that an entry lies in, if it lies on the same mount.
static bool folder_of(const char *path, const struct stat *st, char out[PATH_MAX]) {
    struct stat above;
    if (!realpath(path, out)) return false;
    char *slash = strrchr(out, '/');
    slash[slash == out] = 0;
    return stat(out, &above) == 0 && above.st_dev == st->st_dev && above.st_ino != st->st_ino;
}

// A folder takes over its parent's policy when it is made. Where the two are still alike it counts as inherited.
static const char *origin(const struct policy *p, const struct stat *st, const char *value, const char *above) {
    if (S_ISREG(st->st_mode)) return strcmp(p->name, "toughness") ? "fixed when the file was made" : "own";
    if (!*value) return "default";
    return !strcmp(value, above) ? "inherited" : "own";
}

// A folder may ask for more members than there are hosts for: of a parity group no two lie on one, if there are hosts enough.
static void tell_span(const char *path, const struct stat *st) {
    static const struct policy hosts_of = {.name = "hosts"}, protection_of = {.name = "protection"}, span_of = {.name = "span"};
    char hosts[VALUE_BYTES], protection[VALUE_BYTES], span[VALUE_BYTES];
    if (!S_ISDIR(st->st_mode) || !value_read(path, &hosts_of, hosts) || !value_read(path, &protection_of, protection) || !value_read(path, &span_of, span))
        return;
    unsigned long have = strtoul(hosts, NULL, 10), want = strtoul(span, NULL, 10);
    unsigned long least = !strcmp(protection, "mirror") ? 2 : 3;
    if (!strcmp(protection, "none") || have < least || want <= have) return;
    warn("span=%lu of %s: the IOMs are on %lu hosts, and no two members of a file with redundancy lie on one, so new files get span=%lu", want, path, have,
         have);
}

static int policy_get(const char *path) {
    char folder[PATH_MAX], value[VALUE_BYTES], above[VALUE_BYTES];
    struct stat st;
    if (stat(path, &st)) return fail(1, "%s cannot be looked at: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return fail(1, "%s is neither a file nor a folder: it has no data, and no policy", path);
    bool has_above = folder_of(path, &st, folder);
    for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
        const struct policy *p = &policies[i];
        if (!value_read(path, p, value)) return fail(1, "%s of %s cannot be read: %s", p->name, path, strerror(errno));
        if (!has_above || !value_read(folder, p, above)) above[0] = 0;
        say("%s=%s (%s)", p->name, *value ? value : p->standard, origin(p, &st, value, above));
    }
    tell_span(path, &st);
    return 0;
}

static int set_failed(const char *path, const char *name, const char *setting) {
    struct stat st;
    int eno = errno;
    if (eno != EINVAL) return fail(1, "%s of %s cannot be set: %s", setting, path, strerror(eno));
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode) && strcmp(name, "toughness"))
        return fail(1, "%s of %s cannot be set: it was fixed when it was made; set it on a folder and copy the file there", setting,
                    path);
    return fail(1,
                "%s of %s cannot be set: the array has not so many IOMs, or it does not go with the other settings; see: mendfs policy "
                "get %s",
                setting, path, path);
}

static int policy_set_one(const char *path, const char *setting) {
    const char *equals = strchr(setting, '=');
    size_t len = equals ? (size_t)(equals - setting) : strlen(setting);
    for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
        const struct policy *p = &policies[i];
        char name[64];
        if (strlen(p->name) != len || strncmp(p->name, setting, len)) continue;
        if (!equals || !p->valid(equals + 1)) return fail(EXIT_USAGE, "%s: %s is expected", setting, p->values);
        snprintf(name, sizeof name, PREFIX "%s", p->name);
        if (setxattr(path, name, equals + 1, strlen(equals + 1), 0) == 0) return 0;
        return set_failed(path, p->name, setting);
    }
    return fail(EXIT_USAGE, "%s: there are toughness=, protection=, quantum= and span=", setting);
}

static int policy_run(int argc, char **argv) {
    const char *dir, *rest[2 + ARRAY_LEN(policies)] = {0};
    const struct option_row options[] = {{"--dir", OPT_TEXT, &dir}, {0}};
    if (!args_parse(&cmd_policy, argc, argv, options, rest, 2, ARRAY_LEN(rest))) return EXIT_USAGE;
    bool get = !strcmp(rest[0], "get");
    if ((!get && strcmp(rest[0], "set")) || get == (rest[2] != NULL))
        return fail(EXIT_USAGE, "policy: usage: %s", cmd_policy.synopsis);
    if (!is_mount(rest[1])) return 1;
    if (get) return policy_get(rest[1]);
    for (size_t i = 2; i < ARRAY_LEN(rest) && rest[i]; i++) {
        int status = policy_set_one(rest[1], rest[i]);
        if (status) return status;
    }
    return policy_get(rest[1]);
}

const struct command cmd_policy = {
    "policy",
    "mendfs policy get PATH | set PATH [toughness=0|1|2] [protection=none|mirror|parity|parity3] [quantum=SIZE] "
    "[span=N]",
    "Tells or sets how a file or folder of a mount is protected",
    "A folder's policy is inherited by what is made in it from then on. Protection, quantum and span of a file are "
    "fixed when it is\n"
    "made; its toughness may change. `get` tells each value that holds and where it comes from: own (set here), inherited (as in "
    "the\n"
    "folder above), or default. toughness: what has happened when write() returns: 0 nothing certain, 1 (default) "
    "the update is\n"
    "in the memory of two IOMs, 2 it is on disk. Where the IOMs are on several hosts (mendfs up --hosts), but not each on its own, the span of a file with "
    "redundancy\n"
    "is the number of hosts at most. They are extended attributes, user.mendfs.NAME, and may be set as such.\n",
    policy_run,
};
