#!/bin/bash
# Builds row_toy with each rule of src/iom/row_mutant.h left out and lets the simulator look for it. Prints which seed found which; exit 1 if one was not found.
#   tests/sim/mutants.sh [MUTANT...]          SEEDS=6000 seeds a mutant; CC=gcc
set -u
cd "$(dirname "$0")/../.."
: "${CC:=gcc}" "${SEEDS:=6000}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=gnu17 -g -O1 -D_GNU_SOURCE -fno-strict-aliasing -Isrc -I."
mutants=("$@")
[ $# -gt 0 ] || mapfile -t mutants < <(grep -o '^    MUTANT_[A-Z0-9_]*' src/iom/row_mutant.h | tr -d ' ' | grep -v MUTANT_NONE)
for f in src/base/*.c src/base/*.S src/env/*.c src/layout/*.c sim/world.c sim/disk.c sim/net.c tests/sim/toystore.c tests/sim/row_toy.c; do
    $CC $flags -c "$f" -o "$out/$(echo "$f" | tr / _).o" || exit 2
done
missed=0
for m in MUTANT_NONE "${mutants[@]}"; do
    # all in one translation run: what depends on the rule is the rows alone
    $CC $flags -DMENDFS_MUTANT="$m" src/iom/row*.c src/iom/resolve*.c "$out"/*.o -lisal -o "$out/row_toy" || exit 2
    line=$(timeout 300 "$out/row_toy" --first --seeds "$SEEDS" 2>&1 | grep -E ' seeds,|seed [0-9]|assert' | head -1)
    if [ "$m" = MUTANT_NONE ]; then
        echo "$m: ${line}"
        echo "$line" | grep -q ' 0 failed' || exit 1
    elif echo "$line" | grep -q ' 0 failed'; then
        echo "$m: NOT FOUND in $SEEDS seeds"
        missed=$((missed + 1))
    else
        echo "$m: $line"
    fi
done
echo "${#mutants[@]} mutants, $missed not found"
[ "$missed" -eq 0 ]
