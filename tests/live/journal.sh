#!/usr/bin/env bash
# Journals on files of their own: kill -9 of everything; journals that are missing, swapped, old, cut or not wanted are refused by name; the
# power-protected setting is kept and shown; nothing is lost by any of it.
. "$(dirname "$0")/lib.sh"
live_begin
LIVE_SIZE=64M
journals=$TMP/fast

printf '#!/bin/sh\nexec "%s" up --dir "%s" --mount "%s" "$@"\n' "$MENDFS" "$DIR" "$MNT" >"$TMP/up"
chmod +x "$TMP/up"
refused() { # refused PATTERN: IOM 1 does not come up, and the array without it; afterwards it is down
    says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
    said "IOM 1 does not run: .*$1"
    live_down >/dev/null
}
journal() { echo "$journals/iom-$1.journal"; }

# ---- arguments
says 'an absolute path is needed' 1 "$TMP/up" --size 64M --journal fast
says 'one % at most' 1 "$TMP/up" --size 64M --journal /a%b%c
says 'none, journal, store or all' 2 "$TMP/up" --size 64M --power-protected maybe
says 'inside the stores.*say all' 1 "$TMP/up" --size 64M --power-protected journal
mkdir "$journals"
echo precious >"$(journal 2)"
says 'iom-2.journal exists already' 1 "$TMP/up" --size 64M --journal "$journals"
expect_eq "$(cat "$(journal 2)")" precious "a file where a journal should go"
[ ! -e "$DIR/cluster.conf" ] && [ ! -e "$(journal 0)" ] || fail "an up that failed leaves something"
rm "$(journal 2)"

# ---- work, kill -9 of all, work
live_up --journal "$journals"
expect_eq "$(live_iom 3 journal) $(live_iom 3 power_protected)" "apart none" "status"
mkdir "$MNT/d"
for n in $(seq 1 40); do
    head -c $((n * 777)) /dev/urandom >"$TMP/$n"
    dd if="$TMP/$n" of="$MNT/d/$n" bs=64K conv=fsync status=none
done
kill_all() {
    local mx
    mx=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
    # shellcheck disable=SC2046 # one word each
    kill -KILL $(for i in 0 1 2 3; do live_iom $i pid; done) "$mx"
}
verify() { for n in $(seq 1 40); do expect_same "$TMP/$n" "$MNT/d/$n" "file $n, $1"; done; }
kill_all
"$TMP/up"
verify "fsynced before kill -9 of everything"
live_down
"$MENDFS" check --dir "$DIR"

# ---- what does not belong together
mv "$(journal 1)" "$TMP/j1"
refused "the journal $journals/iom-1.journal cannot be opened: it is missing; put it back"
cp "$(journal 2)" "$(journal 1)"
refused "the journal .* cannot be used: it is the journal of IOM 2, and the store is that of IOM 1; give each its own"
says 'could not check' 2 "$MENDFS" check --dir "$DIR"
said 'its journal .*iom-1.journal: it is the journal of IOM 2'
cp "$TMP/j1" "$(journal 1)"
truncate -s 1M "$(journal 1)"
refused 'it is shorter than the journal that was made on it; put back the whole'
head -c 9M /dev/zero >"$(journal 1)"
refused 'there is no mendfs journal on it; give the file or device that was made for this store'
cp "$TMP/j1" "$(journal 1)"
"$TMP/up" >/dev/null # from here on the copy in $TMP is an older one
live_down >/dev/null
mv "$(journal 1)" "$TMP/j1.now"
cp "$TMP/j1" "$(journal 1)"
refused 'it is an older copy: the store was opened [0-9]+ times without it; put back the journal that was last used'
mv "$TMP/j1.now" "$(journal 1)"
mv "$(journal 2)" "$TMP/j2" # IOM 1 has missed something: with another one missing the array waits
says '1 of its 4 IOMs could not be started.*IOM 1 was away before' 1 "$TMP/up"
live_down >/dev/null
mv "$TMP/j2" "$(journal 2)"
"$TMP/up" >/dev/null
live_wait 60 live_healthy
live_down >/dev/null
mv "$(journal 2)" "$TMP/j2"
ln "$(journal 3)" "$(journal 2)" # one file for two of them
"$TMP/up" >"$TMP/said" 2>&1 || said '[12] of its 4 IOMs could not be started' # which of them is first, or neither
said 'iom-2.journal.* (is in use by another process|is the journal of IOM 3)'
live_down >/dev/null
mv "$TMP/j2" "$(journal 2)"

# ---- a store without its journal, a journal that is not wanted
at=unix:$TMP/alone.sock
says 'on a device of its own, and none is given: say where, with --journal' 1 \
    "$MENDFS" iom --id 1 --store "$DIR/iom-1/store" --listen "$at"
says "the journal of IOM 0 is $journals/iom-0.journal, not $TMP/iom-0.journal" 1 "$TMP/up" --journal "$TMP"
inner=$TMP/inner
mkdir "$TMP/mnt2"
"$MENDFS" up --dir "$inner" --mount "$TMP/mnt2" --size 64M >/dev/null
"$MENDFS" down --dir "$inner" >/dev/null
says 'its journal lies inside it, and another one is given: leave out the journal' 1 \
    "$MENDFS" iom --id 1 --store "$inner/iom-1/store" --listen "$at" --journal "$(journal 1)"
says 'have their journals inside' 1 "$MENDFS" up --dir "$inner" --journal "$journals"
says 'say all' 1 "$MENDFS" up --dir "$inner" --power-protected journal

# ---- the power-protected setting, and a pattern in place of a folder
"$TMP/up" --journal "$journals/iom-%.journal" --power-protected all >"$TMP/said"
said 'power-protected from the next start of each IOM on: all'
expect_eq "$(live_iom 0 journal) $(live_iom 0 power_protected)" "apart all" "status"
before=$(live_iom 0 disk_flushes)
verify "after journals that were refused"
dd if="$TMP/40" of="$MNT/d/41" bs=4096 conv=fsync status=none
expect_eq "$(live_iom 0 disk_flushes)" "$before" "flushes of devices that need none"
kill_all
"$TMP/up" --power-protected none >/dev/null
expect_eq "$(live_iom 2 power_protected)" none "status"
verify "kept by devices that were not flushed"
expect_same "$TMP/40" "$MNT/d/41" "a file of that time"
live_down
"$MENDFS" check --dir "$DIR"

# ---- block devices, by links in a folder
devices=()
detach() { # one that is still open goes with its last user
    local d
    for d in "${devices[@]}"; do losetup -d "$d"; done
}
[ "$(id -u)" = 0 ] && [ -b /dev/loop0 ] || exit 0
trap 'status=$?; detach; live_end $status' EXIT
mkdir "$TMP/links"
for n in 0 1 2; do
    truncate -s 4M "$TMP/device-$n"
    at=$(losetup -f --show "$TMP/device-$n") || { echo "no loop devices: journals on block devices are not looked at" && exit 0; }
    devices+=("$at")
    ln -s "$at" "$TMP/links/iom-$n.journal"
done
DIR=$TMP/on-devices
echo somebody >"${devices[1]}"
says 'device .*iom-1.journal is not empty; choose another' 1 \
    "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --ioms 3 --journal "$TMP/links"
dd if=/dev/zero of="${devices[1]}" bs=4096 count=1 conv=fsync status=none
live_up --ioms 3 --journal "$TMP/links" --power-protected journal
head -c 3M /dev/urandom >"$TMP/r"
dd if="$TMP/r" of="$MNT/r" bs=64K conv=fsync status=none
kill_all
live_up
expect_same "$TMP/r" "$MNT/r" "a file after kill -9, journals on devices"
live_down
"$MENDFS" check --dir "$DIR"
