#!/usr/bin/env bash
# A stopped array (two of four IOMs missing): what clients begin waits, whatever it is; a client that waits may be killed or interrupted at any time, is not
# disturbed by harmless signals, and goes on by itself when the array runs again. Status says who is missing. What is mounted can be unmounted. With eio-after an
# operation fails after its time, and the mount works again when the array does.
. "$(dirname "$0")/lib.sh"
live_begin
B=$TMP/mnt2 E=$TMP/mnt3

# client NAME OP PATH: opens what it needs, says it is ready, waits for its word, does it. Its exit status and "$TMP/NAME.said" tell how it went.
cat >"$TMP/client" <<'PERL'
use strict;
use Fcntl;
use IO::Handle;
my ($op, $path, $ready) = @ARGV;
my $f;
if ($op =~ /^(read|write|fsync)$/) { sysopen($f, $path, O_RDWR) or die "before: $!\n" }
if ($op eq "fsync") { syswrite($f, "dirty\n") == 6 or die "before: $!\n" }
open(my $r, ">", $ready) or die; close($r);
<STDIN>;
my $got = "";
my $ok = $op eq "read" ? defined(sysread($f, $got, 100))
       : $op eq "write" ? defined(syswrite($f, "after\n"))
       : $op eq "fsync" ? $f->sync
       : $op eq "stat" ? (stat($path))[7] // undef
       : $op eq "open" ? open($f, "<", $path)
       : $op eq "make" ? sysopen($f, $path, O_WRONLY | O_CREAT | O_EXCL)
       : die "what is $op?\n";
print $ok ? "done $got" : "$!\n";
exit($ok ? 0 : 1);
PERL
declare -A pid=()
client() {
    rm -f "$TMP/$1.ready" "$TMP/$1.go"
    mkfifo "$TMP/$1.go"
    env --default-signal=INT perl "$TMP/client" "$2" "$3" "$TMP/$1.ready" <>"$TMP/$1.go" >"$TMP/$1.said" 2>&1 &
    pid[$1]=$!
    live_wait 10 test -f "$TMP/$1.ready"
}
go() { echo >"$TMP/$1.go"; }
waits() { grep -q fuse "/proc/${pid[$1]}/stack" 2>/dev/null; } # in the kernel, for an answer
goes_on() { # goes_on NAME [SAID]: ends well
    wait "${pid[$1]}" || fail "$1 got an error: $(cat "$TMP/$1.said")"
    [ -z "${2:-}" ] || expect_eq "$(cat "$TMP/$1.said")" "$2" "what $1 got"
}
is_gone() { ! grep -qs '^State:[[:space:]]*[A-Y]' "/proc/$1/status"; }
ends_at_once() { # ends_at_once NAME SIGNAL
    local status=0 began=${EPOCHREALTIME/./} took
    kill "-$2" "${pid[$1]}"
    wait "${pid[$1]}" || status=$?
    took=$(((${EPOCHREALTIME/./} - began) / 1000))
    expect_eq $status $((128 + $(kill -l "$2"))) "exit status of $1 after SIG$2"
    [ $took -lt 1500 ] || fail "$1 took $took ms to end by SIG$2"
}

ops=(read write fsync stat open make)
prepare() { # prepare ROUND: files that only the other mount knows, so that nothing of them is cached here
    local op
    mkdir "$B/$1" "$B/$1/doomed" "$B/$1/int" # each its own files: who waits for the kernel's lock of an inode cannot be killed on any file system
    for op in read write fsync stat open; do echo before | tee "$B/$1/$op" "$B/$1/doomed/$op" >"$B/$1/int/$op"; done
    sync -f "$B/$1/read"
    stat "$MNT/$1/doomed" "$MNT/$1/int" >/dev/null # the folders are known; listing them would tell the kernel the attributes of what lies there, for a second
}
all_begin() { # all_begin ROUND
    local op
    for op in "${ops[@]}"; do
        client "$op" "$op" "$MNT/$1/$op"
        client "doomed.$op" "$op" "$MNT/$1/doomed/$op"
        client "int.$op" "$op" "$MNT/$1/int/$op"
    done
}
all_wait() {
    local op
    for op in "${ops[@]}"; do go "$op" && go "doomed.$op" && go "int.$op"; done
    for op in "${ops[@]}"; do live_wait 10 waits "$op" && live_wait 10 waits "doomed.$op" && live_wait 10 waits "int.$op"; done
    for op in "${ops[@]}"; do kill -WINCH "${pid[$op]}"; done
    for op in "${ops[@]}"; do ends_at_once "doomed.$op" KILL && ends_at_once "int.$op" INT; done
    for op in "${ops[@]}"; do waits "$op" || fail "$op does not wait any more: $(cat "$TMP/$op.said")"; done
}
# Where memory was lost an fsync of what was written before says so, once: that is its answer, not the stop's.
lost() { ! wait "${pid[fsync]}" && grep -q 'Input/output error' "$TMP/fsync.said"; }
all_go_on() { # all_go_on ROUND [lost]
    goes_on read "done before"
    local op
    for op in write stat open make; do goes_on $op; done
    if [ -n "${2:-}" ]; then lost || fail "fsync of what was in the memory of two killed IOMs says: $(cat "$TMP/fsync.said")"; else goes_on fsync; fi
    expect_eq "$(cat "$B/$1/write")" after "what the client wrote that had waited"
    [ -n "${2:-}" ] || expect_eq "$(head -n 1 "$B/$1/fsync")" dirty "what was written before and fsynced over the stop"
    [ -f "$B/$1/make" ] || fail "the file that was made over the stop is not there"
}
status_is() { # status_is EXIT PATTERN
    local status=0
    mendfs status --dir "$DIR" >"$TMP/status" || status=$?
    [ $status = "$1" ] && grep -qE "$2" "$TMP/status"
}

# Until an IOM has noticed, it still answers what needs it alone.
have_stopped() { # have_stopped ID...: status says so, and each of these
    local i
    live_wait 10 status_is 2 '^not serving: the array is stopped'
    for i in "$@"; do live_wait 10 live_iom_is "$i" returning; done
}

live_up
mkdir "$B" "$E"
mendfs mount "$B" --dir "$DIR"

# ---- who would stop the array with one IOM is told which other one it is that is not whole, and nothing happens: that one is stopped, then it hangs, then it rebuilds
mendfs stop-iom 1 --dir "$DIR"
live_wait 10 status_is 1 '^degraded: the array is running'
says 'IOM 3 is not stopped: IOM 1 is failed, and .* all clients wait; start that one first \(mendfs start-iom 1\) .*--force' 1 "$MENDFS" stop-iom 3 --dir "$DIR"
says 'IOM 1 does not run' 0 "$MENDFS" stop-iom 1 --dir "$DIR"
dd if=/dev/urandom of="$MNT/missed" bs=1M count=32 status=none
sync "$MNT/missed"
mendfs start-iom 1 --dir "$DIR"
says 'IOM 3 is not stopped: IOM 1 is (returning|rebuilding), and .* all clients wait; wait until `mendfs status` says healthy' 1 "$MENDFS" stop-iom 3 --dir "$DIR"
live_wait 60 live_healthy
hung=$(live_iom 1 pid)
kill -STOP "$hung"
says 'IOM 2 is not stopped: IOM 1 is failed' 1 "$MENDFS" stop-iom 2 --dir "$DIR" # found failed or not yet: it does not answer
kill -CONT "$hung"
live_wait 60 live_healthy
rm "$MNT/missed"

# ---- two IOMs are stopped cleanly, one after the other: it goes on without the first, not without the second. The first alone does not make it go on: it has missed something
prepare one
all_begin one
mendfs stop-iom 1 --dir "$DIR"
live_wait 10 status_is 1 '^degraded: the array is running'
mendfs stop-iom 3 --dir "$DIR" --force
have_stopped 0 2
all_wait
mendfs start-iom 1 --dir "$DIR"
sleep 2
status_is 2 '^not serving' || fail "with one IOM still missing that has all, status says: $(cat "$TMP/status")"
waits fsync || fail "an fsync went on with that IOM still missing: $(cat "$TMP/fsync.said")" # it alone needs all: the others may have been answered
mendfs start-iom 3 --dir "$DIR"
all_go_on one
live_wait 60 live_healthy

# ---- two of four are killed at once; with one of them back it goes on
prepare two
all_begin two
one=$(live_iom 1 pid) two=$(live_iom 2 pid)
kill -KILL "$one" "$two"
have_stopped 0 3
for i in 1 2; do
    expect_eq "$(live_iom $i pid)" "" "pid of a killed IOM"
    grep -qE "^ +$i  -  +(failed|stopped) " "$TMP/status" || fail "status does not say that IOM $i is missing: $(cat "$TMP/status")"
done
for i in 0 3; do grep -qE "^ +$i  [0-9]+ " "$TMP/status" || fail "status does not say that IOM $i runs: $(cat "$TMP/status")"; done
all_wait
expect_within 10 umount "$B"
live_wait 10 is_gone "$two"
mendfs start-iom 2 --dir "$DIR"
live_wait 20 status_is 1 '^degraded: the array is running'
mendfs mount "$B" --dir "$DIR"
all_go_on two lost
mendfs start-iom 1 --dir "$DIR"
live_wait 60 live_healthy

# ---- eio-after
mendfs mount "$E" --dir "$DIR" -o eio-after=2
MNT=$E
prepare three
for op in "${ops[@]}"; do client "$op" "$op" "$E/three/$op"; done
mendfs stop-iom 3 --dir "$DIR"
mendfs stop-iom 1 --dir "$DIR" --force
have_stopped 0 2
began=${EPOCHREALTIME/./}
for op in "${ops[@]}"; do go "$op"; done # that each waits shows in when it ends: it may be over before anybody looks
for op in "${ops[@]}"; do
    ! wait "${pid[$op]}" || fail "$op succeeded with eio-after on a stopped array: $(cat "$TMP/$op.said")"
    grep -q 'Input/output error' "$TMP/$op.said" || fail "$op with eio-after says: $(cat "$TMP/$op.said")"
done
took=$(((${EPOCHREALTIME/./} - began) / 1000))
[ $took -ge 2000 ] && [ $took -lt 15000 ] || # each request of the kernel's has its 2 s, and a system call may make several fail "with eio-after=2 operations ended after $took ms"
expect_within 10 umount "$B"
mendfs start-iom 3 --dir "$DIR"
mendfs start-iom 1 --dir "$DIR"
live_wait 60 live_healthy
expect_eq "$(cat "$E/three/read")" before "through the mount that gave errors, afterwards"
echo again >"$E/three/make2"
MNT=$TMP/mnt
expect_eq "$(cat "$MNT/three/make2")" again "written there, read here"

# ---- down while it is stopped and clients wait
client last stat "$MNT/three/never"
mendfs stop-iom 0 --dir "$DIR"
mendfs stop-iom 3 --dir "$DIR" --force
have_stopped 1 2
go last
live_wait 10 waits last
expect_within 60 "$MENDFS" down --force --dir "$DIR"
live_wait 10 is_gone "${pid[last]}"
live_up
expect_eq "$(cat "$MNT/three/make2")" again "content after a down of a stopped array"
live_down
mendfs check --dir "$DIR"
