#!/usr/bin/env bash
# kill -9 of all IOMs at random moments, ROUNDS times (100), every second time of the mount too: a witness (witness.c) writes meanwhile, partly with O_SYNC, O_DSYNC,
# toughness 2 and fsync, and finds every block in a state that the promises allow; a mount that lived goes on by itself and its writer sees no error. `check` after each.
. "$(dirname "$0")/../lib.sh"
live_begin
ROUNDS=${ROUNDS:-100}
blocks=256
cc -std=gnu17 -O2 -Wall -Wextra -o "$TMP/witness" "$(dirname "$0")/../witness.c" -lpthread

pid_of_mount() { sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')"; }
logged() { [ "$(stat -c %s "$TMP/log")" -ge "$1" ]; } # bytes
told=0
live_up
for ((round = 1; round <= ROUNDS; round++)); do
    size=$(stat -c %s "$TMP/log" 2>/dev/null || echo 0)
    "$TMP/witness" write "$MNT/file" "$TMP/log" $blocks >"$TMP/told" 2>"$TMP/said" &
    writing=$!
    live_wait 20 logged $((size + 16 * (100 + RANDOM % 2000)))
    pids=$(for i in 0 1 2 3; do live_iom $i pid; done)
    [ $((round % 2)) = 0 ] || pids+=" $(pid_of_mount)"
    # shellcheck disable=SC2086 # one word each
    kill -KILL $pids
    live_up >"$TMP/up.out" || { cat "$TMP/up.out" && fail "up after the kill of round $round"; }
    if [ $((round % 2)) = 0 ]; then # the mount lived: its writer goes on
        live_wait 30 logged $(($(stat -c %s "$TMP/log") + 16 * 100))
        kill -TERM $writing
    fi
    wait $writing || { cat "$TMP/said" && fail "round $round: the writer saw an error"; }
    told=$((told + $(cat "$TMP/told")))
    "$TMP/witness" verify "$MNT/file" "$TMP/log" $blocks >"$TMP/seen" || fail "round $round: $(cat "$TMP/seen")"
    mendfs check --dir "$DIR" >"$TMP/check" || { cat "$TMP/check" && fail "check after round $round"; }
    echo "round $round: $(cat "$TMP/seen"); check: $(tail -n 1 "$TMP/check")"
done

# The witness can tell: a slice of another block, then a state from before the last durable one
dd if="$MNT/file.1" of="$MNT/file.1" bs=512 skip=8 seek=4 count=1 conv=notrunc status=none
expect_fails "$TMP/witness" verify "$MNT/file" "$TMP/log" $blocks
live_down
mendfs check --dir "$DIR"
echo "$ROUNDS kills of all, $told acknowledged writes, 0 lost, 0 mixed"
