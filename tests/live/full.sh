#!/usr/bin/env bash
# A full store: what df promises can be written, at ENOSPC df shows no room, the others' files stay readable, deleting frees; check counts the same
# blocks online and offline, and no reserve among them.
. "$(dirname "$0")/lib.sh"
live_begin

avail_kib() { df -k --output=avail "$MNT" | tail -n 1; }
used_kib() { df -k --output=used "$MNT" | tail -n 1; }
fill() { # fill FILE: until there is no room; prints the bytes that went in
    dd if=/dev/zero of="$1" bs=64k conv=fsync 2>"$TMP/dd" && fail "a file grew without end"
    grep -q 'No space left' "$TMP/dd" || fail "dd ended otherwise: $(cat "$TMP/dd")"
    stat -c %s "$1"
}

LIVE_SIZE=64M
live_up
[ "$(used_kib)" -lt 1000 ] || fail "an empty array shows $(used_kib) KiB in use"
used=$(live_iom 0 used_bytes)
[ "$used" -lt 1000000 ] || fail "an IOM of an empty array shows $used bytes in use"
head -c 1M /dev/urandom >"$TMP/r"
cp "$TMP/r" "$MNT/keep"
sync "$MNT/keep"

promised=$(($(avail_kib) * 1024))
got=$(fill "$MNT/big")
left=$(avail_kib)
[ "$left" -lt 3000 ] || fail "df shows $left KiB of room at ENOSPC"
[ "$got" -gt $((promised / 100 * 95)) ] || fail "df promised $promised bytes, $got went in"
expect_same "$TMP/r" "$MNT/keep" "a file beside the one that filled the store"
fill "$MNT/small" >/dev/null
left=$(avail_kib)
[ "$left" -lt 1500 ] || fail "df shows $left KiB of room at the second ENOSPC"

umount "$MNT"
mendfs check --dir "$DIR" | tee "$TMP/online"
live_down
mendfs check --dir "$DIR" | tee "$TMP/offline"
blocks() { sed -n 's/.* \([0-9]*\) blocks in use.*/\1/p' "$1"; }
apart=$(($(blocks "$TMP/online") - $(blocks "$TMP/offline"))) # of what each start and stop itself writes
[ ${apart#-} -le 32 ] || fail "check counts $(blocks "$TMP/online") blocks online and $(blocks "$TMP/offline") offline"

live_up
rm "$MNT/big" "$MNT/small"
has_room() { [ "$(avail_kib)" -gt $((promised / 1024 - 3000)) ]; }
live_wait 20 has_room
cp "$TMP/r" "$MNT/again"
expect_same "$TMP/r" "$MNT/again" "a file written after deleting"
live_down
mendfs check --dir "$DIR"
