#!/usr/bin/env bash
# One seed is one run, to the last event: determinism.sh [MENDFS-SIM]. The same seeds in two processes give the same digests, and a seed alone gives what it gives
# behind others (nothing is carried over). Addresses differ from process to process, so code that depends on them shows here.
set -u
here=$(cd "$(dirname "$0")" && pwd)
sim=${1:-$here/../../build/mendfs-sim}
first=1001 seeds=4
digests() { "$sim" --digest "$@" | grep ' digest '; }

for faults in none restart crash-all host; do
    once=$(digests --seed $first --seeds $seeds --faults $faults)
    again=$(MALLOC_PERTURB_=165 digests --seed $first --seeds $seeds --faults $faults)
    alone=$(digests --seed $((first + seeds - 1)) --faults $faults)
    [ "$(printf '%s\n' "$once" | wc -l)" = $seeds ] || { echo "no digests: '$once'" && exit 1; }
    [ "$once" = "$again" ] || { printf 'two runs of the same seeds (--faults %s) differ:\n%s\n---\n%s\n' $faults "$once" "$again" && exit 1; }
    [ "$(printf '%s\n' "$once" | tail -n 1)" = "$alone" ] || { printf 'a seed alone (--faults %s) differs:\n%s\n---\n%s\n' $faults "$once" "$alone" && exit 1; }
    [ "$(printf '%s\n' "$once" | cut -d' ' -f4 | sort -u | wc -l)" = $seeds ] || { printf 'different seeds give the same run:\n%s\n' "$once" && exit 1; }
done
echo "the digests of $((4 * seeds)) runs are the same"
