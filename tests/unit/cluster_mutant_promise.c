// A register with a fault built in must be caught by the seeds that the right one passes:
// MENDFS_MUTANT_PROMISE_NOT_FLUSHED.
#define MENDFS_MUTANT_PROMISE_NOT_FLUSHED
#include "cluster/paxos.c" // in place of the library's
#include "cluster_register_story.h"

static void is_found(void **state) {
    for (uint64_t seed = 0; seed < 1500; seed++) {
        const char *fault = story_run(seed, (uint8_t)(3 + seed % 4), false, SEC(4));
        if (!fault) continue;
        print_message("seed %llu: %s\n", (unsigned long long)seed, fault);
        return;
    }
    fail_msg("1500 seeds saw nothing");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
