#!/usr/bin/env bash
# Runs every seed that once failed (tests/sim/seeds): seeds.sh [MENDFS-SIM]. Exit 1 if one fails now; each failing run is told with what it was before.
set -u
here=$(cd "$(dirname "$0")" && pwd)
sim=${1:-$here/../../build/mendfs-sim}
run=0 failed=0
while read -r seed faults why; do
    case $seed in '' | '#'*) continue ;; esac
    options=()
    while [[ $why == --* ]]; do
        options+=("${why%% *}")
        why=${why#* }
    done
    run=$((run + 1))
    told=$(timeout 120 "$sim" --seed "$seed" --faults "$faults" "${options[@]}" 2>&1) && continue
    failed=$((failed + 1))
    echo "seed $seed (--faults $faults ${options[*]}) fails again; it once was: $why"
    printf '%s\n' "$told" | head -n 1
done <"$here/seeds"
echo "$run seeds that once failed, $failed fail"
[ "$run" -gt 0 ] && [ "$failed" = 0 ]
