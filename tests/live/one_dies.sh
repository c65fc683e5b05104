#!/usr/bin/env bash
# kill -9 of each IOM in turn under a mixed load: clients get on without an error and with the right bytes, the next IOM stands in, `status` says so; started again, it
# catches up, rebuilds, and counts as up when it is whole. `check` is clean with one away, after its return, and of the stores alone.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/one_away.bash"
live_begin
live_up
expect_eq "$(live_iom 2 stand_in)" "" "stand-in of an IOM that is up"
head -c 8M /dev/urandom >"$TMP/random"
cp "$TMP/random" "$MNT/random"

for i in 0 1 2 3; do
    load_begin
    kill -KILL "$(live_iom $i pid)"
    live_wait 10 stands_in $i
    load_moves 20
    expect_eq "$(live_iom $i pid)" "" "pid of a dead IOM"
    status=0
    mendfs status --dir "$DIR" >"$TMP/status" || status=$?
    expect_eq $status 1 "exit status of status with one dead"
    grep -q "^IOM $i is away: IOM $(((i + 1) % 4)) stands in for it" "$TMP/status" || fail "status says: $(cat "$TMP/status")"
    cp "$TMP/random" "$MNT/random.$i"
    expect_same "$TMP/random" "$MNT/random.$((i ? i - 1 : 0))" "a file that was written before"
    if [ $i = 1 ]; then # one way to bring it back
        live_up >"$TMP/out"
        tail -n 1 "$TMP/out" | grep -q '^running: 4 IOMs' || fail "up with one dead says: $(tail -n 1 "$TMP/out")"
    else
        mendfs start-iom $i --dir "$DIR"
    fi
    load_moves 20
    live_wait 120 live_healthy
    expect_eq "$(live_iom $i state) $(live_iom $i stand_in)" "up " "state and stand-in of IOM $i, returned"
    load_end
    check_is_clean "after the return of IOM $i"
    for n in $(seq 0 $i); do expect_same "$TMP/random" "$MNT/random.$n" "a file written while IOM $n was dead"; done
done

# ---- it is dead when everything stops; the stores are checked without it, and it returns at the next start
kill -KILL "$(live_iom 2 pid)"
live_wait 10 stands_in 2
cp "$TMP/random" "$MNT/late"
sync "$MNT/late"
check_is_clean "with IOM 2 away"
grep -q '^IOM 2 is away' "$TMP/check" || fail "check does not say what it could not look at: $(cat "$TMP/check")"
expect_within 30 "$MENDFS" down --dir "$DIR"
check_is_clean "of the stores, IOM 2 behind"
grep -q '^IOM 2 has missed' "$TMP/check" || fail "check of the stores does not say that one is behind: $(cat "$TMP/check")"
live_up
expect_same "$TMP/random" "$MNT/late" "a file written before all was stopped"
live_wait 60 live_healthy
check_is_clean "after it is whole"
live_down
check_is_clean "of the stores, whole"
! grep -q missed "$TMP/check" || fail "check of whole stores says: $(cat "$TMP/check")"
