// The end of a programmer's error: says where, and aborts. The one place of the pure folders that writes to stderr.
#include "base/common.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void assert_failed(const char *what, const char *file, int line, const char *func) {
    char text[512];
    int n = snprintf(text, sizeof text, "%s:%d: %s: assertion failed: %s\n", file, line, func, what);
    size_t len = n < 0 ? 0 : MIN((size_t)n, sizeof text - 1);
    // write() and not stdio: whatever broke may have broken stdio's buffers too. Nothing can be done if it fails.
    if (write(STDERR_FILENO, text, len) < 0) abort();
    abort();
}
