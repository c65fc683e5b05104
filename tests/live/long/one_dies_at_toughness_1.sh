#!/usr/bin/env bash
# kill -9 of one IOM after the other at random moments, ROUNDS times (100), while clients write that never call fsync: what a write has returned from at toughness 1 is not
# lost with one IOM. A witness (witness.c, write1) reads its blocks back as it goes, past the kernel's cache; the mixed load of one_dies.sh runs beside it. The one that was
# killed is started again under both, and the next is killed when the array is whole. `check` after each. It goes on with the next round where it stopped, and ends early,
# well, after MINUTES (35).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../one_away.bash"
live_begin
ROUNDS=${ROUNDS:-100} MINUTES=${MINUTES:-35}
rounds_begin
load_syncs=0
blocks=1024 entry_bytes=16 told=0
cc -std=gnu17 -O2 -Wall -Wextra -o "$TMP/witness" "$(dirname "$0")/../witness.c" -lpthread

verify() { "$TMP/witness" verify "$MNT/file" "$TMP/log" $blocks; }
log_bytes() { stat -c %s "$TMP/log"; }
logged() { [ "$(log_bytes)" -ge "$1" ] || ! kill -0 $writing; }
writes_on() { live_wait 30 logged $(($(log_bytes) + entry_bytes * $1)); } # writes_on ENTRIES: two a write
writer_begin() {
    : >>"$TMP/log"
    "$TMP/witness" write1 "$MNT/file" "$TMP/log" $blocks >"$TMP/told" 2>"$TMP/said" & # no function: it shall get the signal
    writing=$!
}
writer_end() {
    kill -TERM $writing 2>/dev/null || true
    wait $writing || fail "the writer: $(cat "$TMP/said")"
    told=$((told + $(cat "$TMP/told")))
}

LIVE_SIZE=512M
live_up
for ((round = first; round < first + ROUNDS && SECONDS < MINUTES * 60; round++)); do
    RANDOM=$round
    i=$((RANDOM % 4))
    load_begin
    writer_begin
    writes_on $((200 + RANDOM % 2000))
    kill -KILL "$(live_iom $i pid)"
    live_wait 15 stands_in $i
    writes_on $((200 + RANDOM % 2000))
    load_moves 20
    mendfs start-iom $i --dir "$DIR" >/dev/null
    live_wait 120 live_healthy
    writes_on 200
    writer_end
    load_end >/dev/null
    verify >"$TMP/seen" || fail "round $round: $(cat "$TMP/seen")"
    check_is_clean "after round $round"
    rounds_note "$round" "IOM $i; $(cat "$TMP/seen"); $(tail -n 1 "$TMP/check")"
done

# The witness can tell: a slice of another block, then a state from before the last acknowledged one
cp "$MNT/file.1" "$TMP/before"
dd if="$TMP/before" of="$MNT/file.1" bs=512 skip=8 seek=4 count=1 conv=notrunc status=none
says "[1-9][0-9]* wrong" 1 "$TMP/witness" verify "$MNT/file" "$TMP/log" $blocks
cp "$TMP/before" "$MNT/file.1"
verify >/dev/null
writer_begin
writes_on 2000
writer_end
cp "$TMP/before" "$MNT/file.1"
says "[1-9][0-9]* wrong" 1 "$TMP/witness" verify "$MNT/file" "$TMP/log" $blocks
live_down
check_is_clean "of the stores, in the end"
echo "rounds $first to $((round - 1)): $told acknowledged writes that nobody fsynced, 0 lost"
