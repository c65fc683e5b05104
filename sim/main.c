// mendfs-sim: one seed, one run of a whole array under faults, its promises checked by an oracle.
//
//     mendfs-sim --seed S [--seeds N] [--seconds T] [--faults none|restart|crash-all|kill-all|one|away|any|host] [--strict] [--hazards LIST|all|none] [--power-lie] [--trace] [--digest] [--ioms N]
//                [--set NAME=VALUE,...]
//     mendfs-sim --seed S ... --shrink [--seconds T] [--tries N]
//
// Runs seeds S..S+N-1; T is wall-clock seconds after which no new seed starts. Exit 1 and the failing seeds if a promise broke. The last line is
// "N seeds, M failed". --set decides parameters of the run (params.h) otherwise than the seed; --shrink looks for the smallest run that fails as the seed does (shrink.c). --enumerate SCRIPT: every crash of a small script (enumerate.c). A failing seed run again with --trace tells its story on stderr. --digest tells a number of each run, equal for equal runs.
#include "sim/enumerate.h"
#include "sim/params.h"
#include "sim/shrink.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int usage(const char *why) {
    if (why) fprintf(stderr, "mendfs-sim: %s\n", why);
    fprintf(stderr, "usage: mendfs-sim --seed S [--seeds N] [--seconds T] [--faults none|restart|crash-all|kill-all|one|away|any|host] [--strict] [--ioms N] [--trace]\n"
                    "                  [--digest] [--power-lie] [--set NAME=VALUE,...] [--hazards LIST|all|none]\n"
                    "       mendfs-sim --seed S ... --shrink [--seconds T] [--tries N]\n"
                    "  none       no faults\n"
                    "  restart    clean stops of all\n"
                    "  crash-all  power cuts of all IOMs at one instant\n"
                    "  kill-all   their processes die instead\n"
                    "  one        one IOM at a time loses power, dies, stands still or is cut off; with --strict nothing acknowledged may be lost\n"
                    "  away       likewise, and the others go on without it; nothing acknowledged may be lost, no client is told of an error\n"
                    "  any        likewise, and while it is away or returns all lose their power, or another one does\n"
                    "  host       all IOMs of a host fail at once, and come back together or one after the other; with --strict nothing acknowledged may be lost\n"
                    "             where hosts are enough\n"
                    "  --hazards: of rot, eio, slow, hang, delay, full, clock these and no others; else the seed decides (with away, any and host: none)\n"
                    "  --power-lie: the IOMs believe that their journals' disks are power-protected, and they are not; with crash-all some seeds must fail\n"
                    "  --set: what the seed would decide:\n");
    for (uint32_t n = 0; n < PARAMS; n++)
        fprintf(stderr, "    %-11s %5llu to %-10llu  %s\n", run_param_info[n].name, (unsigned long long)run_param_info[n].least, (unsigned long long)run_param_info[n].most, run_param_info[n].what);
    fprintf(stderr, "  --shrink: the smallest run that fails as this one does, within T seconds (60) and N tries\n");
    return 2;
}

static bool number(const char *s, uint64_t *out) {
    char *end;
    *out = strtoull(s, &end, 10);
    return *s && !*end && *s != '-';
}

static uint64_t wall_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

static bool set_possible(const struct run_options *o) {
    struct run_params p;
    params_of_seed(o, &p);
    return params_possible(&p);
}

struct totals { uint64_t seeds, failed, crashes, events, ops, uncertain, rolled_back; struct hazard_counts hazards; };

static void run_one(const struct run_options *o, bool digest, struct totals *t) {
    struct run_result r;
    sim_run(o, &r);
    if (digest) printf("seed %llu digest %016llx of %llu events\n", (unsigned long long)o->seed, (unsigned long long)r.digest, (unsigned long long)r.events);
    t->seeds++;
    t->crashes += r.crashes;
    t->events += r.events;
    t->ops += r.ops;
    t->uncertain += r.uncertain_blocks;
    t->rolled_back += r.rolled_back;
    for (uint32_t i = 0; i < HAZARDS; i++) t->hazards.injected[i] += r.hazards.injected[i];
    t->hazards.told_eio += r.hazards.told_eio;
    t->hazards.told_nospc += r.hazards.told_nospc;
    if (!r.failed) return;
    t->failed++;
    printf("seed %llu (--faults %s) failed: %s\n", (unsigned long long)o->seed, run_faults_name(o->faults), r.why);
    fflush(stdout);
}

static void print_hazards(const struct hazard_counts *c) {
    printf("; injected:");
    for (uint32_t i = 0; i < HAZARDS; i++) printf("%s %llu %s", i ? "," : "", (unsigned long long)c->injected[i], hazard_name[i]);
    printf("; told: %llu EIO, %llu ENOSPC\n", (unsigned long long)c->told_eio, (unsigned long long)c->told_nospc);
}

int main(int argc, char **argv) {
    static const struct option longs[] = {{"seed", 1, 0, 's'}, {"seeds", 1, 0, 'n'}, {"seconds", 1, 0, 't'}, {"faults", 1, 0, 'f'},
                                          {"ioms", 1, 0, 'i'}, {"trace", 0, 0, 'v'}, {"digest", 0, 0, 'd'}, {"strict", 0, 0, 'x'}, {"power-lie", 0, 0, 'p'},
                                          {"hazards", 1, 0, 'z'}, {"set", 1, 0, 'w'}, {"shrink", 0, 0, 'k'}, {"tries", 1, 0, 'y'}, {"help", 0, 0, 'h'}, {0}};
    struct run_options o = {.seed = 0, .faults = RUN_FAULTS_CRASH_ALL, .hazards = HAZARDS_BY_SEED};
    uint64_t seeds = 1, seconds = 0, ioms = 0, tries = UINT64_MAX;
    bool have_seed = false, digest = false, shrink = false;
    struct totals t = {0};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--enumerate")) return enumerate_main(argc, argv);
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 's': have_seed = true; if (!number(optarg, &o.seed)) return usage("--seed takes a number"); break;
        case 'n': if (!number(optarg, &seeds)) return usage("--seeds takes a number"); break;
        case 't': if (!number(optarg, &seconds)) return usage("--seconds takes a number"); break;
        case 'i': if (!number(optarg, &ioms) || ioms < 1 || ioms > 8) return usage("--ioms takes a number from 1 to 8"); break;
        case 'f': if (!run_faults_of(optarg, &o.faults)) return usage("--faults takes none, restart, crash-all, kill-all, one, away, any or host"); break;
        case 'z': if (!hazards_of(optarg, &o.hazards)) return usage("--hazards takes rot,eio,slow,hang,delay,full,clock or some of them, all, or none"); break;
        case 'v': o.trace = true; break;
        case 'd': digest = true; break;
        case 'x': o.strict = true; break;
        case 'p': o.power_lie = true; break;
        case 'w': if (!param_words_read(&o.set, optarg)) return usage("--set takes NAME=VALUE,... of the names below"); break;
        case 'k': shrink = true; break;
        case 'y': if (!number(optarg, &tries)) return usage("--tries takes a number"); break;
        default: return usage(NULL);
        }
    }
    if (!have_seed || optind < argc) return usage(have_seed ? "there is an argument too many" : "--seed is missing");
    o.ioms = (uint8_t)ioms;
    if (!set_possible(&o)) return usage("--set: there are more clients than 32");
    if (shrink) return shrink_main(&o, seconds ? seconds : 60, tries);
    uint64_t end = seconds ? wall_seconds() + seconds : UINT64_MAX;
    for (uint64_t n = 0; n < seeds && wall_seconds() < end; n++, o.seed++) run_one(&o, digest, &t);
    printf("%llu operations, %llu events, %llu crashes of the array, %llu blocks uncertain after them, %llu found older than the newest", (unsigned long long)t.ops,
           (unsigned long long)t.events, (unsigned long long)t.crashes, (unsigned long long)t.uncertain, (unsigned long long)t.rolled_back);
    print_hazards(&t.hazards);
    printf("%llu seeds, %llu failed\n", (unsigned long long)t.seeds, (unsigned long long)t.failed);
    return t.failed != 0;
}
