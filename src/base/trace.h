// Terse trace: a line a call, to the sink of the node (simulator: one file for all; host: log/NAME). Off costs a branch.
#pragma once
#include "base/common.h"

enum trace_level { TRACE_ERROR, TRACE_WARN, TRACE_INFO, TRACE_DEBUG };
struct trace {
    enum trace_level level;
    void (*sink)(void *ctx, enum trace_level level, const char *line); // one line, no newline
    void *ctx;
};
void trace_line(struct trace *t, enum trace_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);
#define TRACE(t, lvl, ...) ((lvl) <= (t)->level ? trace_line((t), (lvl), __VA_ARGS__) : (void)0)
