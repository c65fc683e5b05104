#!/usr/bin/env bash
# One IOM after the other goes and comes back, ROUNDS times (50), under the mixed load of one_dies.sh, in all WAYS: killed, killed again while it rebuilds, hung, stopped
# cleanly, started again at once, dead over a stop of everything, its store lost and replaced, killed again while that is filled.
# No client sees an error or a wrong byte, and `check` is clean after each. It goes on with the next round where it stopped (build/test-long/next-one_dies), and ends early,
# well, after MINUTES (35).
# Used by one_hangs.sh too, with ways of its own.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../one_away.bash"
live_begin
ROUNDS=${ROUNDS:-50} MINUTES=${MINUTES:-35}
read -ra ways <<<"${WAYS:-killed killed_again hung stopped at_once dead_over_stop replaced replaced_again}"
rounds_begin
waits_a_while() { sleep "$((RANDOM % $1)).$((RANDOM % 10))"; }
hangs() { # $pid hangs until its stand-in has served for a while
    kill -STOP "$pid" && live_wait 15 stands_in "$i"
    load_moves 20 && waits_a_while 8
    kill -CONT "$pid"
}
start() { mendfs start-iom "$1" --dir "$DIR" >/dev/null; }

LIVE_SIZE=512M
live_up
head -c 64M /dev/urandom >"$TMP/ballast" # so that a rebuild takes a while when it was written anew
cp "$TMP/ballast" "$MNT/ballast"
sync "$MNT/ballast"
for ((round = first; round < first + ROUNDS && SECONDS < MINUTES * 60; round++)); do
    RANDOM=$round
    i=$((RANDOM % 4)) way=${ways[round % ${#ways[@]}]}
    load_begin
    waits_a_while 3
    pid=$(live_iom $i pid)
    case $way in
    killed) # killed, and away for a while
        kill -KILL "$pid" && live_wait 15 stands_in $i
        load_moves 20 && waits_a_while 8
        start $i
        ;;
    killed_again) # killed again while it rebuilds
        kill -KILL "$pid" && live_wait 15 stands_in $i
        head -c 32M /dev/urandom | dd of="$TMP/ballast" bs=1M iflag=fullblock conv=notrunc status=none
        dd if="$TMP/ballast" of="$MNT/ballast" bs=1M count=32 conv=notrunc status=none
        start $i
        live_wait 30 is_rebuilding $i
        pid=$(live_iom $i pid)
        kill -KILL "$pid" && live_wait 15 stands_in $i
        load_moves 20
        start $i
        ;;
    hung) hangs ;;
    hung_again) # again while it rebuilds
        hangs
        live_wait 30 is_rebuilding $i
        hangs
        ;;
    stopped) # stopped cleanly
        mendfs stop-iom $i --dir "$DIR" >/dev/null
        live_wait 15 stands_in $i
        load_moves 20 && waits_a_while 4
        start $i
        ;;
    at_once) # killed, and there again before or after it was missed
        kill -KILL "$pid"
        sleep "0.$((RANDOM % 4))"
        start $i
        ;;
    dead_over_stop) # dead when everything stops
        kill -KILL "$pid" && live_wait 15 stands_in $i
        load_moves 20
        load_end
        live_down >/dev/null
        check_is_clean "of the stores in round $round"
        live_up >/dev/null
        load_begin
        ;;
    replaced | replaced_again) # its store is lost
        kill -KILL "$pid" && live_wait 15 stands_in $i
        rm "$DIR/iom-$i/store"
        load_moves 20 && waits_a_while 4
        mendfs replace-iom $i --dir "$DIR" >/dev/null
        if [ $way = replaced_again ]; then # killed while its new one is filled
            waits_a_while 1
            kill -KILL "$(live_iom $i pid)" && live_wait 15 stands_in $i
            load_moves 20
            start $i
        fi
        ;;
    *) fail "there is no way $way" ;;
    esac
    load_moves 20
    live_wait 120 live_healthy
    [[ $way != hung* ]] || expect_eq "$(live_iom $i pid)" "$pid" "pid of the IOM that hung"
    load_end >/dev/null
    expect_same "$TMP/ballast" "$MNT/ballast" "the ballast"
    check_is_clean "after round $round"
    rounds_note "$round" "$way, IOM $i: $(tail -n 1 "$TMP/check")"
done
live_down
check_is_clean "of the stores, in the end"
echo "rounds $first to $((round - 1)): no client saw an error or a wrong byte"
