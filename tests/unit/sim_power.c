// Power-protected disks under a whole array: one that is what the setting says keeps its promises without a flush; one
// that is not loses what was fsynced, and the simulator finds that.
#include "sim/run.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h> // wants what is above before it

#define SEEDS 12

// A run that hangs ends in the midst of an fsync and leaves what the oracle had noted for it.
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

static uint32_t failing(bool lie) {
    uint32_t failed = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct run_options o = {.seed = seed, .faults = RUN_FAULTS_CRASH_ALL, .power_lie = lie};
        struct run_result r;
        sim_run(&o, &r);
        failed += r.failed;
        if (r.failed) printf("seed %llu%s: %s\n", (unsigned long long)seed, lie ? ", lied to" : "", r.why);
    }
    return failed;
}
static void test_the_setting_matters(void **state) {
    assert_int_equal(failing(false), 0);
    assert_in_range(failing(true), SEEDS / 2, SEEDS);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_setting_matters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
