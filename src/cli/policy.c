// mendfs policy: how a file or folder of a mount is protected. What a folder has, new entries in it inherit.
#include "cli/cli.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    return size_parse(v, &n) && n >= BLOCK_BYTES && n % BLOCK_BYTES == 0 && n <= MIB(64);
}
static bool is_span(const char *v) {
    char *end;
    unsigned long n = strtoul(v, &end, 10);
    return *v >= '0' && *v <= '9' && !*end && n >= 1 && n <= ARRAY_IOMS_MAX;
}

static const struct policy {
    const char *name, *values;
    bool (*valid)(const char *value);
} policies[] = {
    {"toughness", "0 (fast), 1 (in two memories) or 2 (on disk)", is_toughness},
    {"protection", "none, mirror, parity or parity3", is_protection},
    {"quantum", "a size in blocks of 4K, like 64K", is_quantum},
    {"span", "a number of IOMs", is_span},
};

static bool is_mount(const char *path) {
    struct statfs fs;
    if (statfs(path, &fs)) return fail(0, "%s: %s", path, strerror(errno));
    if (fs.f_type == FUSE_SUPER_MAGIC) return true;
    return fail(0, "%s is on no mount of mendfs; name a path below one (mendfs status lists them)", path);
}

static int policy_get(const char *path) {
    for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
        char name[64], value[128];
        snprintf(name, sizeof name, PREFIX "%s", policies[i].name);
        ssize_t n = getxattr(path, name, value, sizeof value - 1);
        if (n < 0 && errno != ENODATA)
            return fail(1, "%s of %s cannot be read: %s", policies[i].name, path, strerror(errno));
        value[MAX(n, 0)] = 0;
        say("%s=%s", policies[i].name, n < 0 ? "default" : value);
    }
    return 0;
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
        return fail(1, "%s of %s cannot be set: %s", setting, path, strerror(errno));
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
    "made; its toughness may change. toughness: what has happened when write() returns: 0 nothing certain, 1 (default) "
    "the update is\n"
    "in the memory of two IOMs, 2 it is on disk. They are extended attributes, user.mendfs.NAME, and may be set as "
    "such.\n",
    policy_run,
};
