// What every file may use: sizes, assertions, small helpers.
#pragma once
#include <assert.h> // static_assert alone; at run time ASSERT
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_BYTES 4096u // unit of allocation, checksum and parity
#define BLOCK_SHIFT 12

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)
#define USEC(n) ((uint64_t)(n) * 1000u)
#define MSEC(n) ((uint64_t)(n) * 1000000u)
#define SEC(n) ((uint64_t)(n) * 1000000000u)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define ROUND_UP(v, to) (((v) + (to)-1) / (to) * (to))
#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

// A programmer's error: always on, aborts with file, line and the text. Never for input or for what a disk returns.
#define ASSERT(c) ((c) ? (void)0 : assert_failed(#c, __FILE__, __LINE__, __func__))
_Noreturn void assert_failed(const char *what, const char *file, int line, const char *func);
