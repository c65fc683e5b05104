// The coroutine switch alone (hand-written for x86-64, ucontext elsewhere; guard page below each stack; ASan and
// valgrind are told of the switches). Run queue, timers and waiting live in env/.
#pragma once
#include "base/common.h"

struct co;
#define CO_STACK_BYTES (256u << 10)

struct co *co_create(void (*fn)(void *arg), void *arg); // stacks are recycled
void co_enter(struct co *c);   // from outside any coroutine: runs it until it leaves or ends
void co_leave(void);           // from inside: back to whoever entered
bool co_ended(const struct co *c);
struct co *co_current(void);   // NULL outside
void co_destroy(struct co *c); // ended or suspended (a killed node); never the running one
