#!/usr/bin/env bash
# A stopped array: clients wait, may be killed meanwhile, are not disturbed by harmless signals, and go on by themselves when it runs again.
. "$(dirname "$0")/lib.sh"
live_begin
live_up
echo before >"$MNT/file"
mendfs stop-iom 1 --dir "$DIR"
(echo after >"$MNT/file") &
waiting=$!
(echo never >"$MNT/other") &
doomed=$!
waits() { [ "$(awk '/^State/ { print $2 }' "/proc/$1/status")" != R ] && grep -q fuse "/proc/$1/stack" 2>/dev/null; }
live_wait 10 waits $doomed
kill -WINCH $waiting
kill -KILL $doomed
wait $doomed && fail "a killed client is said to have ended well"
kill -0 $waiting || fail "a client that only waits has ended"
mendfs start-iom 1 --dir "$DIR"
wait $waiting || fail "a waiting client got an error"
[ "$(cat "$MNT/file")" = after ] || fail "what the waiting client wrote is not there"
live_down
mendfs check --dir "$DIR"
