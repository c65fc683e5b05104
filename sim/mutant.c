// Which rule is left out, in a build with -DMENDFS_MUTANTS: the environment says so, MENDFS_MUTANT=I2. `list` tells all
// of them. See base/mutant.h.
#include "base/mutant.h"

#ifdef MENDFS_MUTANTS
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mutant mendfs_mutant = MUTANT_NONE;

#define MUTANT_ROW(name, rule, what) {#name, rule, what},
static const struct { const char *name, *rule, *what; } mutants[] = {MUTANTS(MUTANT_ROW)};

__attribute__((constructor)) static void mutant_choose(void) {
    const char *name = getenv("MENDFS_MUTANT");
    if (name == NULL) return;
    bool list = strcmp(name, "list") == 0;
    for (unsigned i = 0; i < ARRAY_LEN(mutants); i++) {
        if (list) printf("%s\t%s\t%s\n", mutants[i].name, mutants[i].rule, mutants[i].what);
        if (strcmp(name, mutants[i].name) == 0) mendfs_mutant = (enum mutant)(i + 1);
    }
    if (list) exit(0);
    if (mendfs_mutant != MUTANT_NONE) return;
    fprintf(stderr, "MENDFS_MUTANT: there is no mutant %s; MENDFS_MUTANT=list tells all\n", name);
    exit(2);
}
#endif
