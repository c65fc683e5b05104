#!/usr/bin/env bash
# Shrinks runs that must fail (--power-lie): shrink.sh [MENDFS-SIM]. The command line that comes of it fails again, in the
# same way and with the same numbers, and is smaller; without the lie it passes, so it is the lie that it still shows. And
# a run that does not fail is not shrunk.
set -u
here=$(cd "$(dirname "$0")" && pwd)
sim=${1:-$here/../../build/mendfs-sim}
shrunk=0 smaller=0

die() { printf '%s\n' "$*" && exit 1; }
kind() { sed -E 's/[[:alnum:]]*[0-9][[:alnum:]]*/#/g'; }
field() { printf '%s\n' "$told" | sed -nE "s/^$1//p"; }

told=$("$sim" --seed 1 --faults crash-all --shrink) || die "seed 1 does not fail, and --shrink does: $told"
[[ $told == *"does not fail"* ]] || die "of a good run --shrink said: $told"

for seed in 1 2 3 4 5 6 7 8; do
    [ $shrunk -lt 3 ] || break
    "$sim" --seed $seed --faults crash-all --power-lie >/dev/null && continue
    told=$("$sim" --seed $seed --faults crash-all --power-lie --shrink --seconds 60 --tries 24) && die "seed $seed fails, and --shrink says that it does not"
    read -r ops events < <(field 'from .* to ' | sed -E 's/^([0-9]+), ([0-9]+), .*/\1 \2/')
    read -r ops_before events_before < <(field 'from ' | sed -E 's/^([0-9]+) operations, ([0-9]+) events.*/\1 \2/')
    command=$(printf '%s\n' "$told" | tail -n 1)
    [[ $command == "mendfs-sim --seed $seed --faults crash-all --power-lie"* ]] || die "no command line: $told"
    words=${command#mendfs-sim }
    # shellcheck disable=SC2086 # several words
    again=$("$sim" $words) && die "passes: $command"
    [[ $again == *" failed: $(field 'failed: ')"* ]] || die "$command was to say: $(field 'failed: ')
it said: $again"
    [ "$(field 'failed: ' | kind)" = "$(field 'kind: ' | kind)" ] || die "another kind of failure: $told"
    [[ $again == *"$ops operations, $events events"* ]] || die "$command was to take $ops operations, $events events: $again"
    # shellcheck disable=SC2086
    honest=$("$sim" ${words/ --power-lie/}) || die "fails without the lie as well: $command: $honest"
    [ "$events" -le "$events_before" ] || die "$command is longer than it was: $told"
    [[ $command != *--set=* ]] || [ $((ops * 2)) -gt "$ops_before" ] || smaller=$((smaller + 1))
    shrunk=$((shrunk + 1))
    echo "seed $seed: $ops_before operations, $events_before events; shrunk: $ops, $events: $command"
done
[ $shrunk = 3 ] || die "of eight runs that are lied to only $shrunk fail"
[ $smaller -gt 0 ] || die "none of three became half as long"
