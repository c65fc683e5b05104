#!/usr/bin/env bash
# Links between IOMs are cut and mended, ROUNDS times (100), under the mixed load of one_dies.sh, in all ways of cut_link.bash: an IOM's cable, one way of it, the other way,
# the link between two IOMs alone; then an IOM's again while it rebuilds. No client sees an error or a wrong byte, the array is whole again by itself, with the same
# processes, and `check` is clean after each. It goes on with the next round where it stopped (build/test-long/next-cut_links), and ends early, well, after MINUTES (35).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../one_away.bash"
. "$(dirname "$0")/../cut_link.bash"
live_begin
ROUNDS=${ROUNDS:-100} MINUTES=${MINUTES:-35}
ways=(both mute deaf pair both_again)
rounds_begin
net_begin
LIVE_SIZE=512M
net_up
head -c 64M /dev/urandom >"$TMP/ballast" # so that a rebuild takes a while when it was written anew
cp "$TMP/ballast" "$MNT/ballast"
sync "$MNT/ballast"
for ((round = first; round < first + ROUNDS && SECONDS < MINUTES * 60; round++)); do
    RANDOM=$round
    i=$((RANDOM % 4)) j=$((RANDOM % 3)) way=${ways[round % ${#ways[@]}]} stays_s=$((RANDOM % 8))
    j=$((j < i ? j : j + 1)) # another than i
    ticker_begin
    load_begin
    case $way in
    pair) goes_and_returns pair $i $j ;;
    both_again)
        cut_both $i
        live_wait 20 stands_in $i
        head -c 32M /dev/urandom | dd of="$TMP/ballast" bs=1M iflag=fullblock conv=notrunc status=none
        dd if="$TMP/ballast" of="$MNT/ballast" bs=1M count=32 conv=notrunc status=none
        mend_both $i
        live_wait 30 is_rebuilding $i
        goes_and_returns both $i
        ;;
    *) goes_and_returns "$way" $i ;;
    esac
    ticker_end
    load_end >/dev/null
    expect_same "$TMP/ballast" "$MNT/ballast" "the ballast"
    check_is_clean "after round $round"
    rounds_note "$round" "$way: $(tail -n 1 "$TMP/check")"
done
live_down
check_is_clean "of the stores, in the end"
echo "rounds $first to $((round - 1)): no client saw an error or a wrong byte"
