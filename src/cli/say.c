// What commands say, and sizes as people write them.
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void line(FILE *to, const char *prefix, const char *fmt, va_list ap) {
    fflush(stdout);
    fputs(prefix, to);
    vfprintf(to, fmt, ap);
    fputc('\n', to);
    fflush(to);
}

int fail(int status, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    line(stderr, "mendfs: ", fmt, ap);
    va_end(ap);
    return status;
}

void say(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    line(stdout, "", fmt, ap);
    va_end(ap);
}

void warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    line(stderr, "", fmt, ap);
    va_end(ap);
}

const char *err_next(err e) {
    switch (err_class(e)) {
    case ERRC_CORRUPT:
        return "; its disk gave back other bytes than were written: look at that disk (dmesg); mendfs check "
               "(after mendfs down) tells what is damaged";
    case ERRC_IO: return "; look at that disk (dmesg)";
    case ERRC_AGAIN: return "; see who runs with: mendfs status";
    case ERRC_OK:
    case ERRC_CALLER: break;
    }
    return "";
}

static const char units[] = "KMGTP";

const char *size_text(uint64_t bytes, char out[24]) {
    int unit = -1;
    while (bytes && bytes % 1024 == 0 && unit + 1 < (int)sizeof units - 1) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, 24, unit < 0 ? "%llu" : "%llu%c", (unsigned long long)bytes, unit < 0 ? ' ' : units[unit]);
    return out;
}

bool size_parse(const char *text, uint64_t *bytes) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = 0;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
        if (end[0] == 'i' && end[1] == 'B') end += 2;
    }
    if (*end || n > UINT64_MAX >> shift) return false;
    *bytes = n << shift;
    return true;
}
