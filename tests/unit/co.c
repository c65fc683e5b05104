// The coroutine switch: order, registers kept, deep stacks, the guard page, ten thousand at once, killing, recycling.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/co.h"
#include "tests/unit/dies.h"
#include <stdio.h>
#include <string.h>

static char story[256];
static void note(const char *s) { strcat(story, s); }

static void two_steps(void *arg) {
    assert_non_null(co_current());
    note(arg);
    co_leave();
    note(arg);
}

static void steps_alternate(void **state) {
    story[0] = 0;
    assert_null(co_current());
    struct co *a = co_create(two_steps, "a"), *b = co_create(two_steps, "b");
    assert_string_equal(story, ""); // made is not run
    co_enter(a);
    assert_null(co_current());
    co_enter(b);
    note("|");
    assert_false(co_ended(a));
    co_enter(b);
    co_enter(a);
    assert_string_equal(story, "ab|ba");
    assert_true(co_ended(a) && co_ended(b));
    co_destroy(a);
    co_destroy(b);
}

static struct co *self;
static void look_at_self(void *arg) {
    assert_ptr_equal(co_current(), self);
    co_leave();
    assert_ptr_equal(co_current(), self);
}
static void current_is_the_one_that_runs(void **state) {
    self = co_create(look_at_self, NULL);
    co_enter(self);
    co_enter(self);
    assert_true(co_ended(self));
    co_destroy(self);
}

// Both sides hold more live values over a switch than there are registers, integers and floating point.
static volatile uint64_t seed_u = 3;
static volatile double seed_d = 0.5;
static void keep_values(void *arg) {
    uint64_t a = seed_u, b = a * 3, c = b * 5, d = c * 7, e = d * 11, f = e * 13, g = f * 17, h = g * 19;
    double x = seed_d, y = x * 1.5, z = y * 2.5;
    for (int i = 0; i < 100; i++) {
        co_leave();
        a += b, b += c, c += d, d += e, e += f, f += g, g += h, h += a;
        x += y, y += z, z += 1.0;
    }
    *(uint64_t *)arg = a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ (uint64_t)x ^ (uint64_t)y;
}
static void registers_are_kept(void **state) {
    uint64_t got[3] = {0, 0, 0};
    struct co *c[3];
    for (int i = 0; i < 3; i++) c[i] = co_create(keep_values, &got[i]);
    uint64_t p = seed_u, q = p * 23, r = q * 29, s = r * 31, t = s * 37, u = t * 41;
    double x = seed_d;
    for (int step = 0; step < 101; step++) {
        for (int i = 0; i < 3; i++) co_enter(c[(i + step) % 3]); // mixed
        p += q, q += r, r += s, s += t, t += u, u += p, x += 0.25;
    }
    uint64_t p2 = seed_u, q2 = p2 * 23, r2 = q2 * 29, s2 = r2 * 31, t2 = s2 * 37, u2 = t2 * 41;
    for (int step = 0; step < 101; step++) p2 += q2, q2 += r2, r2 += s2, s2 += t2, t2 += u2, u2 += p2;
    assert_true(p == p2 && q == q2 && r == r2 && s == s2 && t == t2 && u == u2 && x == 0.5 + 101 * 0.25);
    assert_true(got[0] != 0 && got[0] == got[1] && got[1] == got[2]);
    for (int i = 0; i < 3; i++) {
        assert_true(co_ended(c[i]));
        co_destroy(c[i]);
    }
}

// The compiler may use aligned vector stores on the stack, and variadic calls save vector registers there.
static void print_floats(void *arg) { snprintf(arg, 64, "%.2f %.1f %s %d", 1.25, 2.5, "x", 7); }
static void the_stack_is_aligned(void **state) {
    char text[64];
    struct co *c = co_create(print_floats, text);
    co_enter(c);
    assert_string_equal(text, "1.25 2.5 x 7");
    co_destroy(c);
}

// ---- depth ----------------------------------------------------------------------------------------------------------

// Recurses until `depth_bytes` of the stack are used, touching each frame. (ASan may put frames elsewhere: not these.)
static uint32_t __attribute__((noinline, no_sanitize("address"))) descend(volatile uint8_t *top, size_t depth_bytes) {
    volatile uint8_t frame[512];
    for (size_t i = 0; i < sizeof frame; i += 17) frame[i] = frame[sizeof frame - 1] = 0x5a;
    if ((size_t)(top - frame) >= depth_bytes) return frame[17];
    uint32_t below = descend(top, depth_bytes);
    return below + frame[511] - 0x5a; // no tail call
}
static size_t depth_bytes;
static uint32_t depth_result;
__attribute__((no_sanitize("address"))) static void go_deep(void *arg) {
    volatile uint8_t top = 0;
    depth_result = descend(&top, depth_bytes);
    co_leave();
    depth_result += descend(&top, depth_bytes);
}

static void nearly_all_of_the_stack_is_there(void **state) {
    depth_bytes = CO_STACK_BYTES - 12 * 1024; // what remains is for one more frame, checkers' red zones, libc
    depth_result = 0;
    struct co *c = co_create(go_deep, NULL);
    co_enter(c);
    co_enter(c);
    assert_int_equal(depth_result, 2 * 0x5a);
    co_destroy(c);
}

static struct co *faller;
static void fall_through_the_floor(void) {
    depth_bytes = CO_STACK_BYTES + 8192;
    co_enter(faller);
}
static void the_guard_page_ends_it(void **state) {
    // The kernel maps later stacks below earlier ones: without a guard the fall would land in a neighbour's.
    faller = co_create(go_deep, NULL);
    struct co *c[64];
    for (int i = 0; i < 64; i++) c[i] = co_create(two_steps, "");
    assert_dies(fall_through_the_floor);
    for (int i = 0; i < 64; i++) co_destroy(c[i]);
    co_destroy(faller);
}

// ---- numbers --------------------------------------------------------------------------------------------------------

static uint64_t counted;
static void count_thrice(void *arg) {
    uint64_t mine = (uintptr_t)arg;
    for (int i = 0; i < 3; i++) {
        counted += mine;
        co_leave();
    }
}
static void ten_thousand_at_once(void **state) {
    enum { N = 10000 };
    static struct co *c[N];
    counted = 0;
    for (uintptr_t i = 0; i < N; i++) c[i] = co_create(count_thrice, (void *)i);
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < N; i++) co_enter(c[i]);
    assert_int_equal(counted, 3ull * N * (N - 1) / 2);
    for (int i = 0; i < N; i++) {
        assert_true(co_ended(c[i]));
        co_destroy(c[i]);
    }
}

static void killed_where_they_stand(void **state) {
    story[0] = 0;
    for (int i = 0; i < 2000; i++) {
        struct co *never = co_create(two_steps, "-"), *half = co_create(two_steps, "");
        co_enter(half);
        co_destroy(never);
        co_destroy(half);
    }
    assert_string_equal(story, "");
}

static uintptr_t local_at;
static void tell_stack(void *arg) {
    volatile uint8_t local = 0;
    local_at = (uintptr_t)&local;
    memset((void *)&local, 1, 1);
}
static void stacks_are_recycled(void **state) {
    struct co *c = co_create(tell_stack, NULL);
    co_enter(c);
    uintptr_t first = (uintptr_t)c;
    co_destroy(c);
    for (int i = 0; i < 1000; i++) {
        c = co_create(tell_stack, NULL);
        assert_int_equal((uintptr_t)c, first);
        co_enter(c);
        assert_true(co_ended(c));
        co_destroy(c);
    }
}

// ---- misuse ---------------------------------------------------------------------------------------------------------

static void leave_outside(void) { co_leave(); }
static void do_nothing(void *arg) {}
static void enter_ended(void) {
    struct co *c = co_create(do_nothing, NULL);
    co_enter(c);
    co_enter(c);
}
static void destroy_running(void *arg) { co_destroy(co_current()); }
static void destroys_itself(void) { co_enter(co_create(destroy_running, NULL)); }
static void enter_another(void *arg) { co_enter(co_create(do_nothing, NULL)); }
static void enters_from_inside(void) { co_enter(co_create(enter_another, NULL)); }
static void misuse_aborts(void **state) {
    assert_dies(leave_outside);
    assert_dies(enter_ended);
    assert_dies(destroys_itself);
    assert_dies(enters_from_inside);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_alternate),
        cmocka_unit_test(current_is_the_one_that_runs),
        cmocka_unit_test(registers_are_kept),
        cmocka_unit_test(the_stack_is_aligned),
        cmocka_unit_test(nearly_all_of_the_stack_is_there),
        cmocka_unit_test(the_guard_page_ends_it),
        cmocka_unit_test(ten_thousand_at_once),
        cmocka_unit_test(killed_where_they_stand),
        cmocka_unit_test(stacks_are_recycled),
        cmocka_unit_test(misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
