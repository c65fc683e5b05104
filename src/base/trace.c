// Formats a trace line and hands it to the node's sink.
#include "base/trace.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TRACE_LINE_BYTES 512

void trace_line(struct trace *t, enum trace_level level, const char *fmt, ...) {
    if (!t->sink) return;
    char line[TRACE_LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0) return;
    if ((size_t)n >= sizeof line) memcpy(line + sizeof line - 4, "...", 4); // cut, and it shows
    t->sink(t->ctx, level, line);
}
