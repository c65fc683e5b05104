#!/usr/bin/env bash
# SIGSTOP of each IOM in turn, for longer than it takes to be found failed, under a mixed load: clients get on without an error and with the right bytes; after SIGCONT it
# comes back by itself, the same process, and counts as up when it is whole. A pause that is too short to be a failure changes nothing, nor does one of all.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/one_away.bash"
live_begin
live_up
epoch() { sqlite3 :memory: "select json_extract('$(live_status)', '\$.epoch')"; }

for i in 0 1 2 3; do
    load_begin
    pid=$(live_iom $i pid)
    kill -STOP "$pid"
    live_wait 15 stands_in $i
    load_moves 20
    begin=${EPOCHREALTIME/./}
    mendfs status --dir "$DIR" --json >/dev/null || true
    took=$(((${EPOCHREALTIME/./} - begin) / 1000))
    [ $took -lt 1000 ] || fail "status took $took ms with a hung IOM"
    expect_eq "$(live_iom $i pid)" "$pid" "pid of a hung IOM"
    kill -CONT "$pid"
    live_wait 120 live_healthy
    expect_eq "$(live_iom $i state) $(live_iom $i pid)" "up $pid" "state and pid of the IOM that hung"
    load_moves 20
    load_end
    check_is_clean "after IOM $i hung"
done

# ---- not failed: a quarter of a second
before=$(epoch)
pid=$(live_iom 1 pid)
kill -STOP "$pid"
sleep 0.25
kill -CONT "$pid"
sleep 1
expect_eq "$(epoch)" "$before" "epoch after a short pause"

# ---- all of them, as if the machine had been suspended: none finds another failed, and they go on
before=$(epoch)
pids=()
for i in 0 1 2 3; do pids+=("$(live_iom $i pid)"); done
load_begin
kill -STOP "${pids[@]}"
sleep 5
kill -CONT "${pids[@]}"
load_moves 20
load_end
live_wait 20 live_healthy
expect_eq "$(epoch)" "$before" "epoch after all hung"

# ---- down with one that hangs
kill -STOP "$pid"
expect_within 40 "$MENDFS" down --dir "$DIR"
live_up
live_wait 60 live_healthy
live_down
check_is_clean "in the end"
