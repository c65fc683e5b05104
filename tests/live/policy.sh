#!/usr/bin/env bash
# policy get tells what holds and where it comes from; what is set on a folder holds for what is made in it from then on.
. "$(dirname "$0")/lib.sh"
live_begin
LIVE_SIZE=64M
live_up

expect_policy() { # expect_policy PATH LINE...
    local path=$1
    shift
    printf '%s\n' "$@" | expect_same - <(mendfs policy get "$path") "policy of $path: $(mendfs policy get "$path" | tr '\n' ';')"
}

expect_policy "$MNT" "toughness=1 (default)" "protection=parity (default)" "quantum=64K (default)" "span=all (default)"
mkdir "$MNT/d"
expect_policy "$MNT/d" "toughness=1 (default)" "protection=parity (default)" "quantum=64K (default)" "span=all (default)"
mendfs policy set "$MNT/d" toughness=2 quantum=128K >"$TMP/out"
grep -q '^quantum=128K (own)$' "$TMP/out" || fail "policy set does not show what it set"
expect_policy "$MNT/d" "toughness=2 (own)" "protection=parity (default)" "quantum=128K (own)" "span=all (default)"
mkdir "$MNT/d/e"
mendfs policy set "$MNT/d/e" protection=mirror >/dev/null
expect_policy "$MNT/d/e" "toughness=2 (inherited)" "protection=mirror (own)" "quantum=128K (inherited)" "span=all (default)"
echo x >"$MNT/d/f"
expect_policy "$MNT/d/f" "toughness=2 (own)" "protection=parity (fixed when the file was made)" \
    "quantum=128K (fixed when the file was made)" "span=4 (fixed when the file was made)"
(cd "$MNT/d" && expect_policy e "toughness=2 (inherited)" "protection=mirror (own)" "quantum=128K (inherited)" "span=all (default)")
mkfifo "$MNT/fifo"
expect_fails mendfs policy get "$MNT/fifo" 2>"$TMP/err"
grep -q 'neither a file nor a folder' "$TMP/err" || fail "policy of a FIFO: $(cat "$TMP/err")"

# ---- refusals name the setting and what is possible
refused() { # refused PATTERN PATH SETTING
    expect_fails mendfs policy set "$2" "$3" 2>"$TMP/err"
    grep -qE -- "$1" "$TMP/err" || fail "policy set $2 $3 says: $(cat "$TMP/err"), expected: $1"
}
refused 'span=9 of .*not so many IOMs' "$MNT/d" span=9
refused 'protection=none of .*fixed when it was made; set it on a folder' "$MNT/d/f" protection=none
refused 'quantum=96K.*power of two' "$MNT/d" quantum=96K
live_down
mendfs check --dir "$DIR"
