#!/usr/bin/env bash
# Leaves out one rule at a time (src/base/mutant.h) and lets the tests look for it; prints which rule, what found it, and after how many runs. One build
# knows all of them (-DMENDFS_MUTANTS) and MENDFS_MUTANT=NAME chooses. Exit 1 if one was not found, or if something is found where nothing is left out.
#
#   tests/sim/mutants.sh [MUTANT...]      CC=gcc; MUTANTS_DIR=DIR keeps the programs there
#
# What looks for them, the cheapest first; the first that finds one is told:
#   row_toy            rows alone in a small world, up to 3000 seeds      (of runs: the seed)
#   rot_stories        blocks that rot in unsettled rows                  (of runs: the stories that fail)
#   mend_stories       settled blocks that rot, in service                (likewise)
#   row_rot            row_toy --rot: settled blocks rot while clients work (of runs: the seed)
#   case_second_write  a second write to a block that is not settled      (of runs: the cases that fail)
#   store_crash        the crash test of the store, for I1 alone          (of runs: 1)
#   apart              all power cuts of an overwrite, journals on disks of their own   (of runs: recoveries)
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 2
: "${CC:=gcc}"
keep=${MUTANTS_DIR:-}
out=${keep:-$(mktemp -d)}
trap '[ -n "$keep" ] || rm -rf "$out"' EXIT
mkdir -p "$out/o" || exit 2

flags="-std=gnu17 -g -O2 -D_GNU_SOURCE -DMENDFS_MUTANTS -fno-strict-aliasing -Isrc -I."
units="rot_stories mend_stories case_second_write store_crash"
build() { # the objects that are older than their source or any header, then the programs
    local source object newest unit
    newest=$(find src sim tests -name '*.h' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    for source in src/{base,layout,env,wire,store,cluster,iom,mx}/*.c src/base/*.S sim/*.c tests/sim/{toystore,row_toy}.c $(printf 'tests/unit/%s.c ' $units); do
        object=$out/o/${source//\//_}.o
        [ "$object" -nt "$source" ] && [ "$object" -nt "$newest" ] && continue
        $CC $flags -c "$source" -o "$object" || return 1
    done
    local pure=("$out"/o/src_*.o) world=("$out"/o/sim_{world,disk,net,mutant}.c.o) sim=()
    local rows=("$out"/o/src_{base,env,layout}_*.o "$out"/o/src_iom_{row,resolve}*.o)
    for object in "$out"/o/sim_*.o; do [[ $object = */sim_main.c.o ]] || sim+=("$object"); done
    $CC "${pure[@]}" "${sim[@]}" "$out/o/sim_main.c.o" -lisal -o "$out/mendfs-sim" &&
        $CC "${rows[@]}" "${world[@]}" "$out"/o/tests_sim_*.o -lisal -o "$out/row_toy" || return 1
    for unit in $units; do
        $CC "${pure[@]}" "${sim[@]}" "$out/o/tests_unit_$unit.c.o" -lisal -lcmocka -o "$out/$unit" || return 1
    done
}

# A finder fails if it found something.
look() { # LIMIT_SECONDS COMMAND...; a mutant that hangs its finder is found as well
    local limit=$1
    shift
    (ulimit -v 6000000 -c 0 && exec timeout --kill-after=5 "$limit" "$@") >"$out/told" 2>&1
}
why() { # the line that says what broke
    grep -a -m1 -E "$1" "$out/told" | sed -E 's/^ *//; s/[^ ]*: (co_)?[a-z_]*: assertion failed/assertion failed/' | cut -c1-110
}
finder() { # NAME; prints runs, tab, what it said; fails if nothing was found
    local runs rot=()
    if [ "$1" = row_toy ] || [ "$1" = row_rot ]; then
        [ "$1" = row_toy ] || rot=(--rot)
        ! look 300 "$out/row_toy" "${rot[@]}" --first --seeds 3000 || return 1
        runs=$(sed -n 's/.*seed \([0-9]*\).*/\1/p' "$out/told" | head -n 1)
        printf '%s\t%s\n' "${runs:-1}" "$(why 'seed [0-9]|assertion')"
    elif [ "$1" = apart ]; then
        ! look 300 "$out/mendfs-sim" --enumerate overwrite --journals-apart --kinds power --bound 2 --first || return 1
        printf '%s\t%s\n' "$(sed -n 's/^\([0-9]*\) crash points,.*/\1/p' "$out/told")" "$(why '^power:|assertion')"
    else
        ! look 300 "$out/$1" || return 1
        runs=$(grep -a '^\[  FAILED  \]' "$out/told" | sed -E '/test\(s\)/d; s/.* //' | sort -u | wc -l)
        [ "$runs" -gt 0 ] || runs=1
        printf '%s\t%s\n' "$runs" "$(why '\[  FAILED  \]|assertion|error')"
    fi
}

row() { printf '%-8s %-5s %-70s %-17s %8s  %s\n' "$@"; }

try() { # MUTANT RULE WHAT; the rows' finders see nothing of the store's rules, and the other way round
    local f said finders="row_toy rot_stories case_second_write"
    case $1 in
    I1 | TORN) finders=store_crash ;;
    I3 | I6 | B_CHUNK) finders="rot_stories row_toy" ;; # the others first look at 3000 seeds in vain
    APART) finders=apart ;;
    I5) finders=case_second_write ;;
    GATHER | HOLD | BELIEVE) finders="mend_stories row_rot" ;;
    PUTTING) finders=row_rot ;;
    esac
    for f in $finders; do
        [[ " $broken " != *" $f "* ]] || continue
        said=$(MENDFS_MUTANT=$1 finder "$f") || continue
        row "$1" "$2" "$3" "$f" "${said%%$'\t'*}" "${said#*$'\t'}"
        return 0
    done
    row "$1" "$2" "$3" "NOT FOUND" "" ""
    return 1
}

build || { echo "mutants: does not build" && exit 2; }
MENDFS_MUTANT=list "$out/mendfs-sim" >"$out/list" || exit 2
for name in "$@"; do
    cut -f1 "$out/list" | grep -qxF -- "$name" && continue
    echo "mutants: there is no mutant $name; MENDFS_MUTANT=list $out/mendfs-sim tells all" >&2
    exit 2
done
unset MENDFS_MUTANT
broken=
for f in row_toy row_rot $units apart; do # nothing is left out: nothing may be found
    said=$(finder "$f") || continue
    echo "mutants: $f fails with nothing left out, so it finds nothing: ${said#*$'\t'}"
    broken="$broken $f"
done
row mutant rule "what is left out" "found by" "of runs" "what it said"
tried=0 missed=0
while IFS=$'\t' read -r name rule what; do
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    tried=$((tried + 1))
    try "$name" "$rule" "$what" </dev/null || missed=$((missed + 1))
done <"$out/list"
echo "$tried mutants, $missed not found, $SECONDS s"
[ "$tried" -gt 0 ] && [ "$missed" = 0 ] && [ -z "$broken" ]
