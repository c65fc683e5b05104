// The test of a register with a fault built in: the seeds that the right one passes must catch it. Each is a program of its own, which defines its fault and includes
// the register's source in place of the library's.
#pragma once
#include "cluster_register_story.h"

// `forks`: a run that only stops proves nothing, for that comes of voters that nobody can ask; what is wanted is a fork.
struct mutant_hunt { uint64_t first, seeds; bool voters_change, forks; };
static const struct mutant_hunt hunt;

static void is_found(void **state) {
    for (uint64_t seed = hunt.first; seed < hunt.first + hunt.seeds; seed++) {
        const char *fault = story_run(seed, (uint8_t)(hunt.voters_change ? 2 + seed % 5 : 3 + seed % 4), hunt.voters_change, SEC(4));
        if (!fault || (hunt.forks && strstr(fault, "no progress"))) continue;
        print_message("seed %llu: %s\n", (unsigned long long)seed, fault);
        return;
    }
    fail_msg("%llu seeds saw nothing", (unsigned long long)hunt.seeds);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
