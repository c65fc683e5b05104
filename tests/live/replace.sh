#!/usr/bin/env bash
# A store is lost for good: replace-iom gives its IOM an empty one, under a mixed load without an error; it is rebuilt from the others, all it had is there, and the store
# that was lost, should it turn up again, is refused. Each of the four in turn, so every voter of the register is replaced.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/one_away.bash"
live_begin
live_up
head -c 8M /dev/urandom >"$TMP/random"
cp "$TMP/random" "$MNT/random"
truncate -s 1G "$MNT/holes" # nothing of it is rebuilt
printf 'at its end' | dd of="$MNT/holes" bs=1 seek=1G conv=notrunc status=none
sync "$MNT/random" "$MNT/holes"

# ---- what is refused
says 'replaced: IOM 1 runs|IOM 1 runs \(pid [0-9]+\)' 1 "$MENDFS" replace-iom 1 --dir "$DIR"
says 'no IOM' 2 "$MENDFS" replace-iom 9 --dir "$DIR"
says 'needs|ID' 2 "$MENDFS" replace-iom --dir "$DIR"

# ---- each in turn
for i in 0 1 2 3; do
    load_begin
    kill -KILL "$(live_iom $i pid)"
    live_wait 10 stands_in $i
    [ $i != 1 ] || cp --sparse=always "$DIR/iom-$i/store" "$TMP/old" # it will turn up again
    rm "$DIR/iom-$i/store"
    load_moves 20
    mendfs replace-iom $i --dir "$DIR" >"$TMP/said"
    said "IOM $i has an empty store and is"
    load_moves 20
    live_wait 120 live_healthy
    expect_eq "$(live_iom $i state) $(live_iom $i stand_in)" "up " "state and stand-in of IOM $i, replaced"
    load_end
    check_is_clean "after the replacement of IOM $i"
done
expect_same "$TMP/random" "$MNT/random" "a file of before, every store of which is another now"
expect_eq "$(tail -c 10 "$MNT/holes")" "at its end" "the end of a sparse file"
live_down >/dev/null
check_is_clean "of the stores"
live_up
expect_same "$TMP/random" "$MNT/random" "a file of before, after a stop"

# ---- with another one away there is nothing to build from
kill -KILL "$(live_iom 2 pid)"
live_wait 10 stands_in 2
kill -KILL "$(live_iom 3 pid)"
says 'IOM 3 cannot be replaced now: IOM 2 is' 1 "$MENDFS" replace-iom 3 --dir "$DIR"
live_up >/dev/null
live_wait 120 live_healthy

# ---- the lost store turns up again
kill -KILL "$(live_iom 1 pid)"
live_wait 10 stands_in 1
mv "$DIR/iom-1/store" "$TMP/new"
mv "$TMP/old" "$DIR/iom-1/store"
mendfs start-iom 1 --dir "$DIR" || true # it runs until it hears of the map
refused() { grep -q "another store was put in its place" "$DIR/log/iom-1" && [ -z "$(live_iom 1 pid)" ]; }
live_wait 20 refused
live_iom_is 1 failed || fail "IOM 1 is $(live_iom 1 state) with its old store"
expect_same "$TMP/random" "$MNT/random" "a file, while an old store was offered"
mv "$TMP/new" "$DIR/iom-1/store"
mendfs start-iom 1 --dir "$DIR"
live_wait 120 live_healthy
check_is_clean "at last"
live_down
