#!/usr/bin/env bash
# One IOM after the other goes and comes back, ROUNDS times (50), under the mixed load of one_dies.sh, in all ways: killed, killed again while it rebuilds, hung, stopped
# cleanly, started again at once, dead over a stop of everything. No client sees an error or a wrong byte, and `check` is clean after each. It goes on with the next round
# where it stopped (build/test-long/next-one_dies), and ends early, well, after MINUTES (35).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../one_away.bash"
live_begin
ROUNDS=${ROUNDS:-50} MINUTES=${MINUTES:-35}
note=${TEST_LONG_DIR:-$(cd "$(dirname "$0")/../../.." && pwd)/build/test-long}/next-one_dies
mkdir -p "${note%/*}"
first=$(cat "$note" 2>/dev/null || echo 0)
stopped=
trap '[ -z "$stopped" ] || kill -CONT $stopped 2>/dev/null; live_end $?' EXIT
waits_a_while() { sleep "$((RANDOM % $1)).$((RANDOM % 10))"; }
is_rebuilding() { live_iom_is "$1" rebuilding || live_healthy; }
start() { mendfs start-iom "$1" --dir "$DIR" >/dev/null; }

LIVE_SIZE=512M
live_up
head -c 64M /dev/urandom >"$MNT/ballast" # so that a rebuild takes a while when it was written anew
sync "$MNT/ballast"
for ((round = first; round < first + ROUNDS && SECONDS < MINUTES * 60; round++)); do
    RANDOM=$round
    i=$((RANDOM % 4)) way=$((round % 6))
    load_begin
    waits_a_while 3
    pid=$(live_iom $i pid)
    case $way in
    0) # killed, and away for a while
        kill -KILL "$pid" && live_wait 15 stands_in $i
        load_moves 20 && waits_a_while 8
        start $i
        ;;
    1) # killed again while it rebuilds
        kill -KILL "$pid" && live_wait 15 stands_in $i
        dd if=/dev/urandom of="$MNT/ballast" bs=1M count=32 conv=notrunc status=none
        start $i
        live_wait 30 is_rebuilding $i
        pid=$(live_iom $i pid)
        kill -KILL "$pid" && live_wait 15 stands_in $i
        load_moves 20
        start $i
        ;;
    2) # hung
        stopped=$pid
        kill -STOP "$pid" && live_wait 15 stands_in $i
        load_moves 20 && waits_a_while 8
        kill -CONT "$pid"
        stopped=
        ;;
    3) # stopped cleanly
        mendfs stop-iom $i --dir "$DIR" >/dev/null
        live_wait 15 stands_in $i
        load_moves 20 && waits_a_while 4
        start $i
        ;;
    4) # killed, and there again before or after it was missed
        kill -KILL "$pid"
        sleep "0.$((RANDOM % 4))"
        start $i
        ;;
    5) # dead when everything stops
        kill -KILL "$pid" && live_wait 15 stands_in $i
        load_moves 20
        load_end
        live_down >/dev/null
        check_is_clean "of the stores in round $round"
        live_up >/dev/null
        load_begin
        ;;
    esac
    load_moves 20
    live_wait 120 live_healthy
    load_end >/dev/null
    check_is_clean "after round $round"
    echo "round $round, way $way, IOM $i: $(tail -n 1 "$TMP/check")"
    echo $((round + 1)) >"$note"
done
live_down
check_is_clean "of the stores, in the end"
echo "rounds $first to $((round - 1)): no client saw an error or a wrong byte"
