# What every live test uses: a folder of its own, mendfs started and stopped in it, assertions, and the cleaning up.
# Live tests run the real programs; scripts/run-tests runs them one by one, and each also runs by itself:
#
#   . "$(dirname "$0")/lib.sh"
#   live_begin                     # $TMP is ours, $DIR and $MNT lie in it; all goes when the script ends, however it ends
#   live_up --ioms 4               # mendfs up; files can be written under $MNT
#   echo hello >"$MNT/a"
#   live_down && live_up           # the same store again
#   expect_eq "$(cat "$MNT/a")" hello "content after a restart"
#
# Exit status: 0 passed, 77 skipped (live_skip), anything else failed. A command that fails ends the test.
# Every process started here inherits LIVE_TMP, which is how live_sweep knows its own.

MENDFS=${MENDFS:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/mendfs}

live_begin() {
    set -euE -o pipefail
    TMP=$(mktemp -d "${MENDFS_TEST_TMP:-/tmp}/live.XXXXXX") # short: paths of Unix sockets end at 107 bytes
    DIR=$TMP/dir MNT=$TMP/mnt
    export LIVE_TMP=$TMP
    trap 'echo "failed: line $LINENO of $0: $BASH_COMMAND" >&2' ERR
    trap 'live_end $?' EXIT
    trap 'exit 130' INT TERM HUP
    [ -x "$MENDFS" ] || live_skip "$MENDFS is not built"
    [ -w /dev/fuse ] || live_skip "no access to /dev/fuse"
    mkdir "$MNT"
}

live_end() {
    trap - EXIT ERR INT TERM HUP
    set +e
    [ "$1" = 0 ] || [ "$1" = 77 ] || live_logs
    cd /
    live_sweep "$TMP"
    exit "$1"
}

live_logs() { # the end of each daemon's log, for who reads about the failure
    local log
    for log in "$DIR"/log/*; do
        [ -f "$log" ] || continue
        echo "--- ${log##*/}"
        tail -n 15 "$log"
    done
}

live_skip() {
    echo "skipped: $*"
    exit 77
}

# ---- starting and stopping

mendfs() { "$MENDFS" "$@"; }
live_up() { mendfs up --dir "$DIR" --mount "$MNT" --size "${LIVE_SIZE:-256M}" "$@"; }
live_down() { mendfs down --dir "$DIR" "$@"; }
live_status() { mendfs status --dir "$DIR" --json || true; } # its exit status says how healthy the array is

live_iom() { # live_iom ID FIELD: what status says of an IOM: pid, state, stand_in; nothing for null
    local json
    json=$(live_status)
    sqlite3 :memory: "select json_extract(value, '\$.$2') from json_each('${json//\'/\'\'}', '\$.ioms')
                      where json_extract(value, '\$.id') = $1"
}
live_iom_is() { [ "$(live_iom "$1" state)" = "$2" ]; } # live_iom_is 2 failed
live_healthy() { mendfs status --dir "$DIR" >/dev/null; }

# Waits until a command succeeds: live_wait SECONDS COMMAND...
live_wait() {
    local limit=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $limit ] || fail "waited in vain for: $*"
        sleep 0.1
    done
}

# ---- assertions: each names what it expected

fail() {
    echo "failed: $*" >&2
    exit 1
}
expect_eq() { [ "$1" = "$2" ] || fail "${3:-comparison}: found '$1', expected '$2'"; }
expect_same() { cmp -- "$1" "$2" || fail "${3:-$1 and $2 differ}"; }
expect_fails() { ! "$@" || fail "should have failed: $*"; }
expect_within() { # expect_within SECONDS COMMAND...: succeeds, and in time
    local limit=$1
    shift
    timeout "$limit" "$@" || fail "within $limit s: $*"
}

says() { # says PATTERN STATUS COMMAND...: fails with that status, and the last line matches
    local pattern=$1 want=$2 status=0
    shift 2
    timeout 90 "$@" >"$TMP/said" 2>&1 || status=$?
    [ $status = "$want" ] || fail "exit status $status instead of $want: $* ($(cat "$TMP/said"))"
    tail -n 1 "$TMP/said" | grep -qE -- "$pattern" || fail "$* says '$(tail -n 1 "$TMP/said")', expected: $pattern"
}
said() { grep -qE -- "$1" "$TMP/said" || fail "nothing like '$1' in: $(cat "$TMP/said")"; }

# ---- cleaning up: nothing that was started or mounted under folder $1 is left, nor the folder

live_sweep() {
    local folder=$1 pid at
    [ -d "$folder" ] || return 0
    for pid in $(live_children "$folder"); do kill -KILL "$pid" 2>/dev/null; done # before anybody looks into a mount that may hang
    tac /proc/mounts | cut -d' ' -f2 | grep -F "$folder/" | while read -r at; do
        umount -l "$at" 2>/dev/null || fusermount3 -uz "$at"
    done
    for pid in $(live_pids "$folder"); do kill -KILL "$pid" 2>/dev/null; done # who was forked meanwhile
    rm -rf --one-file-system "$folder"
}

# Our processes under a folder: those whose LIVE_TMP lies there, and those of the pid files in it that still run mendfs.
live_children() {
    local environ pid
    grep -lzE "^LIVE_TMP=$1(/|\$)" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ pid environ; do
        echo "$pid"
    done
}
live_pids() {
    local folder=$1 pid
    live_children "$folder"
    find "$folder" -xdev -name '*.pid' -type f 2>/dev/null | while read -r at; do
        pid=$(grep -oE -m1 '[0-9]+' "$at") || continue
        case $(readlink "/proc/$pid/exe") in */mendfs | */mendfs\ *) echo "$pid" ;; esac
    done
}
