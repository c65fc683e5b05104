#!/usr/bin/env bash
# Starting and stopping: up, write, down, up, still there; whatever is left over from daemons that died is recognised.
. "$(dirname "$0")/lib.sh"
live_begin
is_gone() { ! grep -qs '^State:[[:space:]]*[A-Y]' "/proc/$1/status"; } # a zombie, which nobody has buried yet, is gone too

# ---- nothing is there yet
expect_eq "$(live_down)" "stopped already: there is no cluster in $DIR" "down before anything was made"
status=0
mendfs status --dir "$DIR" 2>"$TMP/err" || status=$?
expect_eq $status 2 "exit status of status without a cluster"
grep -q "no cluster in" "$TMP/err" || fail "status says: $(cat "$TMP/err")"

# ---- up, write, down, up
live_up --ioms 4 >"$TMP/out"
expect_eq "$(tail -n 1 "$TMP/out")" "running: 4 IOMs, mounted at $MNT" "last line of up"
live_healthy || fail "not healthy after up"
echo hello >"$MNT/a"
mkdir "$MNT/d"
head -c 300000 /dev/urandom >"$TMP/random"
cp "$TMP/random" "$MNT/d/random"
expect_eq "$(stat -c %a "$DIR")" 700 "mode of DIR"

pids=$(for i in 0 1 2 3; do live_iom $i pid; done)
live_up >/dev/null
expect_eq "$(for i in 0 1 2 3; do live_iom $i pid; done)" "$pids" "pids after up on what runs"

live_down >"$TMP/out"
expect_eq "$(tail -n 1 "$TMP/out")" "stopped: 4 IOMs and 1 mounts" "last line of down"
expect_fails mountpoint -q "$MNT"
for pid in $pids; do is_gone "$pid" || fail "IOM process $pid is still there after down"; done
expect_eq "$(live_down)" "stopped already: nothing of $DIR runs" "down twice"
expect_eq "$(live_iom 2 pid)" "" "pid of a stopped IOM"
expect_eq "$(live_iom 2 state)" stopped "state of a stopped IOM"

live_up
expect_eq "$(cat "$MNT/a")" hello "content after down and up"
expect_same "$TMP/random" "$MNT/d/random"

# ---- one IOM by itself
mendfs stop-iom 1 --dir "$DIR"
expect_eq "$(live_iom 1 pid)" "" "pid after stop-iom"
expect_fails live_healthy
mendfs start-iom --dir="$DIR" 1
mendfs start-iom 1 --dir "$DIR" >"$TMP/out"
grep -q "IOM 1 runs already" "$TMP/out" || fail "start-iom twice says: $(cat "$TMP/out")"
live_wait 20 live_healthy
expect_eq "$(cat "$MNT/a")" hello "content after stop-iom and start-iom"

# ---- what daemons that died leave behind: pid files, sockets, a dead mount
mx=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
kill -KILL "$mx" $(for i in 0 1 2 3; do live_iom $i pid; done)
live_wait 10 is_gone "$mx"
expect_fails ls "$MNT" 2>/dev/null
status=0
timeout 2 "$MENDFS" status --dir "$DIR" >/dev/null || status=$?
expect_eq $status 2 "exit status of status when all are dead"
[ -S "$DIR/run/iom-0.sock" ] || fail "a killed IOM leaves its socket"
live_up
expect_eq "$(cat "$MNT/a")" hello "content after kill -9 of all"

# A pid file whose pid belongs to another process by now is not believed, and that process is left alone.
live_down
sleep 60 &
other=$!
printf '{\n "pid": %d,\n "start": 1,\n "boot": "x",\n "kind": "iom",\n "at": "unix:x"\n}\n' $other >"$DIR/run/iom-0.pid"
expect_eq "$(live_iom 0 pid)" "" "pid from a foreign pid file"
live_up
kill -0 $other || fail "a process that is not ours was ended"
kill $other

# ---- a busy mount is named and nothing stops; --force detaches it
(cd "$MNT" && exec sleep 60) &
busy=$!
stands_there() { [ "$(readlink /proc/$busy/cwd)" = "$MNT" ]; }
live_wait 5 stands_there
expect_fails live_down 2>"$TMP/err"
grep -q "$MNT is busy, used by .*pid $busy" "$TMP/err" || fail "down says of a busy mount: $(cat "$TMP/err")"
live_healthy || fail "something was stopped although the mount is busy"
live_down --force
expect_fails mountpoint -q "$MNT"
kill $busy

# ---- umount by hand ends that MX and nothing else
live_up
mx=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
umount "$MNT"
live_wait 10 is_gone "$mx"
live_healthy || fail "umount stopped more than the mount"
live_up
expect_eq "$(cat "$MNT/a")" hello "content after umount by hand and up"

# ---- commands at the same time wait for each other
live_down
live_up >"$TMP/out1" &
one=$!
live_up >"$TMP/out2"
wait $one
tail -qn 1 "$TMP/out1" "$TMP/out2" | sort -u | grep -qx "running: 4 IOMs, mounted at $MNT" || fail "two ups at once"
expect_eq "$(grep -c " $MNT " /proc/mounts)" 1 "mounts at MNT after two ups at once"

# ---- stopped and hung daemons: status answers within its second, down works
stuck=$(live_iom 2 pid)
kill -STOP "$stuck"
begin=${EPOCHREALTIME/./}
mendfs status --dir "$DIR" --json >"$TMP/json" || true
took=$(((${EPOCHREALTIME/./} - begin) / 1000))
[ $took -lt 1000 ] || fail "status took $took ms with a hung IOM"
expect_eq "$(live_iom 2 state)" failed "state of a hung IOM"
expect_eq "$(live_iom 2 pid)" "$stuck" "pid of a hung IOM"
live_wait 10 bash -c "! '$MENDFS' status --dir '$DIR' >/dev/null"
expect_within 40 "$MENDFS" down --force --dir "$DIR"
is_gone "$stuck" || fail "the hung IOM is still there after down"
live_up
expect_eq "$(cat "$MNT/a")" hello "content after a hung IOM was stopped"
live_down
