// Coroutines: stacks, their recycling, and the switch between the one caller and the one coroutine that runs.
//
//     low addresses                                                        high
//     | guard page (no access) | <- stack grows down ........ | struct co |
//
// States: suspended (made or left) -> running (co_enter) -> suspended (co_leave) | ended (fn returned) -> destroyed.
// A coroutine is destroyed ended or suspended; what lay on its stack is gone without being unwound.
//
// Each thread keeps a few stacks of destroyed coroutines for the next ones. This and `current` are the only variables
// of the pure folders that outlive a call; neither can be seen by a node, so runs stay a value of their seed.
#include "base/co.h"
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifdef UNDER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define VALGRIND_STACK_REGISTER(from, to) 0u
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#define VALGRIND_MAKE_MEM_UNDEFINED(p, len) ((void)0)
#define VALGRIND_MAKE_MEM_NOACCESS(p, len) ((void)0)
#endif

#if !defined(__x86_64__) && !defined(CO_UCONTEXT)
#define CO_UCONTEXT
#endif
#ifdef CO_UCONTEXT
#include <ucontext.h>
typedef ucontext_t co_context;
#else
typedef void *co_context; // the stack pointer; all else lies on the stack
void co_switch(void **save_sp, void *to_sp);
void co_start(void);
#endif

#define GUARD_BYTES 4096u
#define POOL_MAX 256u // stacks kept; only pages once touched cost memory

struct co {
    co_context own, caller;
    void (*fn)(void *arg);
    void *arg;
    uint8_t *base; // of the mapping: the guard page
    unsigned valgrind_id;
    bool ended;
#ifdef UNDER_ASAN
    void *fake_stack; // ASan's, while suspended
    const void *caller_bottom;
    size_t caller_bytes;
#endif
};

struct parked {
    uint8_t *base;
    unsigned valgrind_id;
};
static _Thread_local struct {
    struct parked at[POOL_MAX];
    uint32_t len;
} pool;
static _Thread_local struct co *current;

// ---- stacks ---------------------------------------------------------------------------------------------------------

static uint8_t *stack_low(uint8_t *base) { return base + GUARD_BYTES; }

static struct parked stack_map(void) {
    // MAP_NORESERVE: a stack's pages count when they are touched.
    void *p = mmap(NULL, GUARD_BYTES + CO_STACK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    ASSERT(p != MAP_FAILED && "no room for a coroutine's stack (memory, or vm.max_map_count)");
    ASSERT(mprotect(p, GUARD_BYTES, PROT_NONE) == 0);
    uint8_t *low = stack_low(p);
    return (struct parked){p, VALGRIND_STACK_REGISTER(low, low + CO_STACK_BYTES - 1)};
}

static struct parked stack_get(void) {
    if (pool.len == 0) return stack_map();
    struct parked s = pool.at[--pool.len];
#ifdef UNDER_ASAN
    __asan_unpoison_memory_region(stack_low(s.base), CO_STACK_BYTES);
#endif
    VALGRIND_MAKE_MEM_UNDEFINED(stack_low(s.base), CO_STACK_BYTES);
    return s;
}

// A stack that is kept must not be touched by those who still hold a pointer into it: the checkers are told so.
static void stack_put(struct parked s) {
    if (pool.len < POOL_MAX) {
        pool.at[pool.len++] = s;
#ifdef UNDER_ASAN
        __asan_poison_memory_region(stack_low(s.base), CO_STACK_BYTES);
#endif
        VALGRIND_MAKE_MEM_NOACCESS(stack_low(s.base), CO_STACK_BYTES);
        return;
    }
#ifdef UNDER_ASAN
    __asan_unpoison_memory_region(stack_low(s.base), CO_STACK_BYTES); // else the next mapping here inherits the poison
#endif
    VALGRIND_STACK_DEREGISTER(s.valgrind_id);
    ASSERT(munmap(s.base, GUARD_BYTES + CO_STACK_BYTES) == 0);
}

// ---- what ASan must hear around a switch ----------------------------------------------------------------------------

#ifdef UNDER_ASAN
static size_t stack_bytes_of(const struct co *c) { return (size_t)((const uint8_t *)c - stack_low(c->base)); }
static void asan_before_enter(struct co *c, void **fake) {
    __sanitizer_start_switch_fiber(fake, stack_low(c->base), stack_bytes_of(c));
}
static void asan_after_enter(void *fake) { __sanitizer_finish_switch_fiber(fake, NULL, NULL); }
static void asan_before_leave(struct co *c) { // an ended coroutine gives its fake stack back
    __sanitizer_start_switch_fiber(c->ended ? NULL : &c->fake_stack, c->caller_bottom, c->caller_bytes);
}
static void asan_arrived(struct co *c) {
    __sanitizer_finish_switch_fiber(c->fake_stack, &c->caller_bottom, &c->caller_bytes);
}
// The fake stack of a coroutine that is killed where it stands: only ending there frees it, so ASan is led through an
// entry and an end without a step being run.
__attribute__((no_sanitize("address"), noinline)) static void asan_forget(struct co *c) {
    if (!c->fake_stack) return;
    void *fake, *bottom = stack_low(c->base), *killed = c->fake_stack;
    const void *caller_bottom;
    size_t caller_bytes;
    __sanitizer_start_switch_fiber(&fake, bottom, stack_bytes_of(c));
    __sanitizer_finish_switch_fiber(killed, &caller_bottom, &caller_bytes);
    __sanitizer_start_switch_fiber(NULL, caller_bottom, caller_bytes);
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
}
#else
static void asan_before_enter(struct co *c, void **fake) {}
static void asan_after_enter(void *fake) {}
static void asan_before_leave(struct co *c) {}
static void asan_arrived(struct co *c) {}
static void asan_forget(struct co *c) {}
#endif

// ---- the switch -----------------------------------------------------------------------------------------------------

static void switch_to(co_context *from, co_context *to) {
#ifdef CO_UCONTEXT
    ASSERT(swapcontext(from, to) == 0);
#else
    co_switch(from, *to);
#endif
}

static void co_main(void *arg) {
    struct co *c = arg;
    asan_arrived(c);
    c->fn(c->arg);
    c->ended = true;
    asan_before_leave(c);
    switch_to(&c->own, &c->caller);
    ASSERT(!"an ended coroutine was entered");
}

#ifdef CO_UCONTEXT
static void ucontext_main(unsigned low, unsigned high) { // makecontext passes ints alone
    co_main((void *)((uintptr_t)high << 32 | low));
}

static void context_init(struct co *c) {
    ASSERT(getcontext(&c->own) == 0);
    c->own.uc_stack.ss_sp = stack_low(c->base);
    c->own.uc_stack.ss_size = (size_t)((uint8_t *)c - stack_low(c->base));
    c->own.uc_link = NULL;
    uint64_t p = (uintptr_t)c;
    makecontext(&c->own, (void (*)(void))ucontext_main, 2, (unsigned)p, (unsigned)(p >> 32));
}
#else
static void context_init(struct co *c) {
    // What co_switch pops: r15 r14 r13 r12 rbx rbp, then the return address.
    uintptr_t *top = (uintptr_t *)((uintptr_t)c & ~(uintptr_t)15);
    uintptr_t *sp = top - 9; // so that sp + 7, the stack pointer after co_switch returned, is a multiple of 16
    sp[0] = sp[1] = sp[2] = 0;
    sp[3] = (uintptr_t)c;
    sp[4] = (uintptr_t)co_main;
    sp[5] = 0;
    sp[6] = (uintptr_t)co_start;
    sp[7] = sp[8] = 0; // the end for those who walk the stack
    c->own = sp;
}
#endif

struct co *co_create(void (*fn)(void *arg), void *arg) {
    struct parked s = stack_get();
    uintptr_t high = (uintptr_t)stack_low(s.base) + CO_STACK_BYTES;
    struct co *c = (struct co *)((high - sizeof(struct co)) & ~(uintptr_t)63);
    *c = (struct co){.fn = fn, .arg = arg, .base = s.base, .valgrind_id = s.valgrind_id};
    context_init(c);
    return c;
}

void co_enter(struct co *c) {
    ASSERT(!current && !c->ended);
    void *fake = NULL;
    current = c;
    asan_before_enter(c, &fake);
    switch_to(&c->caller, &c->own);
    asan_after_enter(fake);
    current = NULL;
}

void co_leave(void) {
    struct co *c = current;
    ASSERT(c);
    asan_before_leave(c);
    switch_to(&c->own, &c->caller);
    asan_arrived(c);
}

bool co_ended(const struct co *c) { return c->ended; }
struct co *co_current(void) { return current; }

void co_destroy(struct co *c) {
    ASSERT(c != current);
    if (!c->ended) asan_forget(c);
    stack_put((struct parked){c->base, c->valgrind_id});
}
