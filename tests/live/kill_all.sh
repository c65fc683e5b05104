#!/usr/bin/env bash
# kill -9 of all IOMs and the MX in the middle of writing: what was fsynced is there, everything else is old or new, block by block.
. "$(dirname "$0")/lib.sh"
live_begin
blocks=40

block() { yes "block $1 version $2" | head -c 4096 || true; }

# Overwrites blocks of one file in turn and makes small files; notes what it begins and what was acknowledged by fsync.
writer() { # writer ROUND
    local n v=$((($1 - 1) * 1000))
    while true; do
        v=$((v + 1)) n=$((RANDOM % blocks))
        echo "$n $v" >>"$TMP/begun"
        block $n $v | dd of="$MNT/file" bs=4096 seek=$n conv=notrunc,fsync iflag=fullblock status=none 2>/dev/null || return 0
        echo "$n $v" >>"$TMP/acked"
        block s $v | head -c $((v % 300 + 1)) | dd of="$MNT/small/$v" conv=fsync status=none 2>/dev/null || return 0
        echo "$v" >>"$TMP/acked.small"
    done
}

verify() {
    local n v acked begun
    for n in $(seq 0 $((blocks - 1))); do
        acked=$(awk -v n="$n" '$1 == n { v = $2 } END { print v + 0 }' "$TMP/acked")
        dd if="$MNT/file" bs=4096 skip="$n" count=1 status=none >"$TMP/block"
        v=$(sed -n '1s/.*version //p' "$TMP/block")
        begun=$(grep -cx "$n $v" "$TMP/begun" || true)
        [ "$v" = 0 ] || [ "$begun" -gt 0 ] || fail "block $n holds version '$v', which was never written"
        [ "$v" -ge "$acked" ] || fail "block $n holds version $v, but $acked was fsynced"
        block "$n" "$v" | expect_same - "$TMP/block" "block $n of version $v is not whole"
    done
    while read -r v; do
        block s "$v" | head -c $((v % 300 + 1)) | expect_same - "$MNT/small/$v" "small file $v, which was fsynced"
    done <"$TMP/acked.small"
}

live_up
mkdir "$MNT/small"
for n in $(seq 0 $((blocks - 1))); do block "$n" 0; done >"$MNT/file"
sync "$MNT/file" "$MNT/small" "$MNT"
: >"$TMP/begun" >"$TMP/acked" >"$TMP/acked.small"

for round in 1 2 3; do
    before=$(wc -l <"$TMP/acked")
    writer $round &
    writing=$!
    enough() { [ "$(wc -l <"$TMP/acked")" -ge $((before + 20 + round * 7)) ]; }
    live_wait 20 enough
    mx=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
    pids=$(for i in 0 1 2 3; do live_iom $i pid; done)
    # shellcheck disable=SC2086 # one word each
    kill -KILL $pids "$mx"
    wait $writing
    live_up
    verify
done
live_down
mendfs check --dir "$DIR"
live_up
verify
live_down
