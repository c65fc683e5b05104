// Arguments: options by table, wherever they stand.
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

static const struct option_row *find(const struct option_row *rows, const char *arg, const char **value) {
    for (const struct option_row *r = rows; r->name; r++) {
        size_t len = strlen(r->name);
        if (strncmp(arg, r->name, len)) continue;
        *value = arg[len] == '=' ? arg + len + 1 : NULL;
        if (!arg[len] || *value) return r;
    }
    return NULL;
}

static bool number_parse(const char *text, uint64_t *out) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    *out = strtoull(text, &end, 10);
    return !*end;
}

static bool take_number(const struct option_row *r, const char *value) {
    uint64_t n;
    if (number_parse(value, &n) && n >= r->min && n <= r->max) {
        *(uint64_t *)r->to = n;
        return true;
    }
    fail(EXIT_USAGE, "%s %s: a number from %llu to %llu is expected", r->name, value, (unsigned long long)r->min,
         (unsigned long long)r->max);
    return false;
}

static bool take(const struct option_row *r, const char *value) {
    switch (r->kind) {
    case OPT_FLAG:
        *(bool *)r->to = true;
        return true;
    case OPT_TEXT:
        *(const char **)r->to = value;
        if (*value) return true;
        fail(EXIT_USAGE, "%s needs a value that is not empty", r->name);
        return false;
    case OPT_NUMBER:
        return take_number(r, value);
    case OPT_SIZE:
        if (size_parse(value, r->to)) return true;
        fail(EXIT_USAGE, "%s %s: a size is expected, like 512M or 8G", r->name, value);
        return false;
    }
    return false;
}

static bool wrong_count(const struct command *c, int found, int min) {
    fail(EXIT_USAGE, "%s: %s; usage: %s", c->name, found < min ? "an argument is missing" : "too many arguments",
         c->synopsis);
    return false;
}

static bool take_option(const struct command *c, const struct option_row *options, int argc, char **argv, int *i) {
    const char *value, *arg = argv[*i];
    const struct option_row *r = find(options, arg, &value);
    if (!r) {
        fail(EXIT_USAGE, "%s: there is no option %s; see: mendfs help %s", c->name, arg, c->name);
        return false;
    }
    if (r->kind == OPT_FLAG && value) {
        fail(EXIT_USAGE, "%s takes no value", r->name);
        return false;
    }
    if (r->kind != OPT_FLAG && !value) {
        if (*i + 1 >= argc) {
            fail(EXIT_USAGE, "%s needs a value; usage: %s", r->name, c->synopsis);
            return false;
        }
        value = argv[++*i];
    }
    return take(r, value);
}

bool args_parse(const struct command *c, int argc, char **argv, const struct option_row *options, const char **rest,
                int rest_min, int rest_max) {
    int found = 0;
    bool only_rest = false;
    for (int i = 0; i < argc; i++) {
        if (!only_rest && !strcmp(argv[i], "--")) only_rest = true;
        else if (!only_rest && argv[i][0] == '-' && argv[i][1]) {
            if (!take_option(c, options, argc, argv, &i)) return false;
        } else if (found == rest_max) return wrong_count(c, found + 1, rest_min);
        else rest[found++] = argv[i];
    }
    return found >= rest_min || wrong_count(c, found, rest_min);
}
