// A register with a fault built in must be caught by the seeds that the right one passes:
// MENDFS_MUTANT_TWO_AT_ONCE.
#define MENDFS_MUTANT_TWO_AT_ONCE
#include "cluster/map.c"
#include "cluster/paxos.c" // both in place of the library's
#include "cluster_register_story.h"

static void is_found(void **state) {
    for (uint64_t seed = 1000; seed < 1000 + 400; seed++) {
        const char *fault = story_run(seed, (uint8_t)(2 + seed % 5), true, SEC(4));
        if (!fault || strstr(fault, "no progress")) continue; // that comes of voters that nobody can ask; what is wanted is a fork
        print_message("seed %llu: %s\n", (unsigned long long)seed, fault);
        return;
    }
    fail_msg("400 seeds saw nothing");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
