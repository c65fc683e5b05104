#!/usr/bin/env bash
# kill -9 of all IOMs and the MX while fio writes, ROUNDS times (20). Before each kill a file was written and fsynced: all of those are there, to the last byte,
# in every later round. The file that is overwritten during the kill was whole before: each block of it is old or new, and whole (fio's checksum in the block
# itself; which of the two it is, is not asked).
. "$(dirname "$0")/../lib.sh"
live_begin
ROUNDS=${ROUNDS:-20}
command -v fio >/dev/null || live_skip "fio is not installed"

job() { # job FILE OPTIONS...: fio over one file of the mount, quiet; its exit status
    local file=$1
    shift
    (cd "$TMP" && fio --name="$file" --filename="$MNT/$file" --ioengine=psync --verify=crc32c --verify_fatal=1 --fallocate=none --minimal "$@" \
        >"$TMP/fio.out" 2>&1)
}
must() { job "$@" || { cat "$TMP/fio.out" && fail "fio: $*"; }; }
durable() { must "durable$1" --rw=write --bs=64k --size=2m --do_verify=0 --end_fsync=1 --randseed="$1"; }
verify_durable() { must "durable$1" --rw=read --bs=64k --size=2m --verify_only=1 --randseed="$1"; }
overwritten=(--size=4m --bs=4k)
verify_overwritten() { must overwritten --rw=read --verify_only=1 "${overwritten[@]}"; }

live_up
must overwritten --rw=write --do_verify=0 --end_fsync=1 "${overwritten[@]}"

# fio sees a block that is not whole: half of one from another place
cp "$MNT/overwritten" "$MNT/control"
dd if="$MNT/overwritten" of="$MNT/control" bs=2048 skip=9 seek=101 count=1 conv=notrunc status=none
expect_fails job control --rw=read --verify_only=1 "${overwritten[@]}" 2>/dev/null

for ((round = 1; round <= ROUNDS; round++)); do
    durable $round
    { # its mount goes away under it
        job overwritten --rw=randwrite --do_verify=0 --norandommap=1 --time_based=1 --runtime=60 --randseed=$((1000 + round)) \
            --fsync=$((1 + RANDOM % 64)) "${overwritten[@]}" || true
    } &
    writing=$!
    sleep "$((RANDOM % 3)).$((RANDOM % 10))"
    mx=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
    pids=$(for i in 0 1 2 3; do live_iom $i pid; done)
    # shellcheck disable=SC2086 # one word each
    kill -KILL $pids "$mx"
    wait $writing
    live_up >"$TMP/up.out" || { cat "$TMP/up.out" && fail "up after the kill of round $round"; }
    for ((before = 1; before <= round; before++)); do verify_durable $before; done
    verify_overwritten
    echo "round $round: $round fsynced files whole, the overwritten one old or new"
done
live_down
mendfs check --dir "$DIR"
echo "$ROUNDS kills survived"
