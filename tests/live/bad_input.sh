#!/usr/bin/env bash
# What users and machines get wrong: every error names the thing and the cause, nothing hangs, nothing is lost.
. "$(dirname "$0")/lib.sh"
live_begin

printf '#!/bin/sh\nexec "%s" up --dir "%s" --mount "%s" --size 64M "$@"\n' "$MENDFS" "$DIR" "$MNT" >"$TMP/up"
chmod +x "$TMP/up"

# ---- arguments
says 'there is no command frobnicate' 2 "$MENDFS" frobnicate
says 'a command is missing' 2 "$MENDFS"
says 'no option --frob' 2 "$MENDFS" up --frob
says '--dir needs a value' 2 "$MENDFS" up --dir
says 'a number from 3 to 16' 2 "$MENDFS" up --dir "$DIR" --ioms 2
says 'a size is expected' 2 "$MENDFS" up --dir "$DIR" --size lots
says 'too small.*minimum' 1 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 1M
says 'free; choose a smaller --size' 1 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 900T
says 'not yet in this version' 2 "$MENDFS" up --dir "$DIR" --nfs 2049
says 'heartbeat-ms 300 and --silence-ms 1500 do not fit together: .*nine heartbeats' 1 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --heartbeat-ms 300
says 'heartbeat-ms 100 and --silence-ms 899 do not fit together: .*nine heartbeats' 1 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --silence-ms 899
says 'heartbeat-ms 3 and --silence-ms 1500 do not fit together: heartbeats are at least 4 ms apart' 1 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --heartbeat-ms 3
says '--silence-ms 0: a number from 1 to 3600000 is expected' 2 "$MENDFS" up --dir "$DIR" --silence-ms 0
says '--silence-ms 3600001: a number from 1 to 3600000 is expected' 2 "$MENDFS" up --dir "$DIR" --silence-ms 3600001
says '--heartbeat-ms 1s: a number from 1 to 3600000 is expected' 2 "$MENDFS" iom --dir "$DIR" --id 1 --heartbeat-ms 1s
says 'not yet in this version' 2 "$MENDFS" export
says 'there is no cluster' 2 "$MENDFS" scrub --dir "$TMP"
says 'a size is expected' 2 "$MENDFS" scrub --dir "$TMP" --rate fast
[ ! -e "$DIR/cluster.conf" ] || fail "an up that failed leaves a cluster"
says 'not empty .* holds no cluster' 1 "$MENDFS" up --dir /usr --mount "$MNT"
says 'there is no cluster' 1 "$MENDFS" start-iom 1 --dir "$TMP"
says 'is no directory' 1 "$MENDFS" up --dir "$DIR" --size 64M --mount /etc/passwd
"$MENDFS" down --dir "$DIR"
"$MENDFS" help up | grep -q -- --ioms || fail "help up"
for command in $("$MENDFS" help | sed -n 's/^  \([a-z-]*\)  .*/\1/p' | grep -v mendfs); do "$MENDFS" help "$command" >/dev/null; done

# ---- what fits the cluster that is there
"$TMP/up" >/dev/null
says 'has 4 IOMs' 1 "$TMP/up" --ioms 5
says 'changed while no IOM runs' 1 "$TMP/up" --silence-ms 3000
says 'heartbeat-ms 100 and --silence-ms 500 do not fit together' 1 "$MENDFS" iom --dir "$DIR" --id 1 --silence-ms 500
says 'are of 64M each' 1 "$MENDFS" up --dir "$DIR" --size 128M
says 'there is no IOM 4' 2 "$MENDFS" start-iom 4 --dir "$DIR"
says 'is on no mount' 1 "$MENDFS" policy get "$TMP"
says 'toughness=3: ' 2 "$MENDFS" policy set "$MNT" toughness=3
says 'runs already' 1 "$MENDFS" iom --dir "$DIR" --id 1
says 'open to the network' 1 "$MENDFS" iom --id 1 --store "$DIR/iom-1/store" --listen 0.0.0.0:7000

# ---- a full store: ENOSPC, the others' files stay readable, deleting frees
head -c 1M /dev/urandom >"$TMP/r"
cp "$TMP/r" "$MNT/keep"
says '' 1 dd if=/dev/zero of="$MNT/big" bs=1M count=1000 conv=fsync
said 'No space left'
expect_same "$TMP/r" "$MNT/keep" "a file beside the one that filled the store"
rm "$MNT/big"
fits() { cp "$TMP/r" "$MNT/again" 2>/dev/null && sync "$MNT/again" 2>/dev/null; }
live_wait 20 fits
expect_same "$TMP/r" "$MNT/again" "a file written after deleting"
"$MENDFS" check --dir "$DIR"
"$MENDFS" down --dir "$DIR"

# ---- a socket that another process has
other=$TMP/other
mkdir "$TMP/mnt2"
"$MENDFS" up --dir "$other" --mount "$TMP/mnt2" --size 64M >/dev/null
"$MENDFS" down --dir "$other" >/dev/null
"$MENDFS" iom --id 2 --store "$other/iom-2/store" --listen "unix:$DIR/run/iom-2.sock" 2>"$TMP/thief" &
thief=$!
live_wait 5 test -S "$DIR/run/iom-2.sock"
says '^running: 4 IOMs \(IOM 2 is failed\)' 0 "$TMP/up"
said 'IOM 2 does not run: .*(another process listens|listen)'
kill $thief
wait $thief || true
"$TMP/up" >/dev/null # with IOM 2 behind no other may be missing
live_wait 60 live_healthy

# ---- files of another cluster, files that are gone, files that are no stores: the array goes on without that IOM
"$MENDFS" down --dir "$DIR" >/dev/null
mv "$DIR/iom-1/store" "$TMP/store"
says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
said 'IOM 1 does not run: .*missing'
"$MENDFS" down --dir "$DIR" >/dev/null
cp --sparse=always "$other/iom-1/store" "$DIR/iom-1/store"
says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
said 'IOM 1 does not run: .*belongs to another cluster'
"$MENDFS" down --dir "$DIR" >/dev/null
cp --sparse=always "$DIR/iom-0/store" "$DIR/iom-1/store"
says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
said 'IOM 1 does not run: .*store of another IOM'
"$MENDFS" down --dir "$DIR" >/dev/null
head -c 64M /dev/zero >"$DIR/iom-1/store"
says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
said 'IOM 1 does not run: .*cannot be used'
"$MENDFS" down --dir "$DIR" >/dev/null
mv "$TMP/store" "$DIR/iom-1/store"

# ---- one copy of the superblock damaged: used past and mended; both: refused
dd if=/dev/urandom of="$DIR/iom-1/store" bs=4096 count=1 conv=notrunc status=none
"$TMP/up" >/dev/null
expect_same "$TMP/r" "$MNT/keep" "content over a damaged superblock copy"
"$MENDFS" down --dir "$DIR" >/dev/null
dd if=/dev/urandom of="$DIR/iom-1/store" bs=4096 seek=1 count=1 conv=notrunc status=none
"$TMP/up" >/dev/null
expect_same "$TMP/r" "$MNT/keep" "content over the other superblock copy damaged"
"$MENDFS" down --dir "$DIR" >/dev/null
cp --sparse=always "$DIR/iom-1/store" "$TMP/store"
dd if=/dev/urandom of="$DIR/iom-1/store" bs=4096 count=2 conv=notrunc status=none
says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
"$MENDFS" down --dir "$DIR" >/dev/null
says 'could not check' 2 "$MENDFS" check --dir "$DIR"
mv "$TMP/store" "$DIR/iom-1/store"

# ---- a store whose disk gives back other bytes: the cause and what to do, from every command that meets it
cp --sparse=always "$DIR/iom-1/store" "$TMP/store"
dd if=/dev/urandom of="$DIR/iom-1/store" bs=4096 seek=2000 count=4000 conv=notrunc status=none
says '^running: 4 IOMs \(IOM 1 is failed\)' 0 "$TMP/up"
said 'IOM 1 does not run: .*(checksum does not match|is damaged).*; its disk gave back other bytes .*mendfs check'
"$MENDFS" down --dir "$DIR" >/dev/null
says '[1-9][0-9]* faults' 1 "$MENDFS" check --dir "$DIR" # the others have run without it: what is damaged is told, and all else verified
said 'IOM 1: .*(checksum does not match|is a damaged)'
said 'IOM 1 has missed what was changed'
mv "$TMP/store" "$DIR/iom-1/store"

# ---- cluster.conf: damaged, or of a folder that was moved
cp "$DIR/cluster.conf" "$TMP/conf"
sed -i 's/"ioms"/"oims"/' "$DIR/cluster.conf"
says 'cluster.conf cannot be used' 1 "$TMP/up"
echo '{' >"$DIR/cluster.conf"
says 'cluster.conf cannot be read' 1 "$TMP/up"
sed 's/"format": 1/"silence_ms": 500, &/' "$TMP/conf" >"$DIR/cluster.conf"
says 'cluster.conf cannot be used: "heartbeat_ms" and "silence_ms" do not fit together' 1 "$TMP/up"
cp "$TMP/conf" "$DIR/cluster.conf"
says 'heartbeat-ms 100 and --silence-ms 500 do not fit together' 1 "$TMP/up" --silence-ms 500
expect_same "$TMP/conf" "$DIR/cluster.conf" "cluster.conf after times that do not fit"
sed 's/"format": 1/"format": 99/' "$TMP/conf" >"$DIR/cluster.conf"
says 'another format' 1 "$TMP/up"
cp "$TMP/conf" "$DIR/cluster.conf"
mv "$DIR" "$TMP/moved"
says 'move it back' 1 "$MENDFS" up --dir "$TMP/moved" --mount "$MNT"
mv "$TMP/moved" "$DIR"
mv "$DIR/cluster.conf" "$TMP/conf"
says 'stores but no cluster.conf|not empty' 1 "$TMP/up"
mv "$TMP/conf" "$DIR/cluster.conf"

# ---- mount points
says 'does not exist' 1 "$MENDFS" mount "$TMP/nowhere/at/all" --dir "$DIR"
if [ "$(id -u)" = 0 ]; then
    mount -t tmpfs none "$MNT"
    says 'something else is mounted' 1 "$TMP/up"
    umount "$MNT"
    # No /dev/fuse, in a mount namespace with a /dev of its own.
    cat >"$TMP/no-fuse" <<'SH'
mkdir "$TMP/dev"
for node in null zero urandom random; do touch "$TMP/dev/$node" && mount --bind "/dev/$node" "$TMP/dev/$node"; done
mount --rbind "$TMP/dev" /dev
"$TMP/up"
SH
    TMP=$TMP says 'dev/fuse is missing' 1 unshare -m bash "$TMP/no-fuse"
fi

# ---- and after all that it is as it was
"$MENDFS" down --dir "$DIR" >/dev/null
"$TMP/up"
expect_same "$TMP/r" "$MNT/keep" "content after everything"
expect_same "$TMP/r" "$MNT/again" "content after everything"
"$MENDFS" down --dir "$DIR"
"$MENDFS" check --dir "$DIR"

# ---- a path too long for sockets
if [ "$(id -u)" = 0 ] && [ -w /run ]; then
    long=$TMP/$(printf 'l%.0s' $(seq 1 120))
    "$MENDFS" up --dir "$long" --mount "$MNT" --size 64M >/dev/null
    echo far >"$MNT/a"
    expect_eq "$(cat "$MNT/a")" far "with sockets in a short folder"
    at=$(dirname "$(sed -n 's/.*"unix:\(.*\)".*/\1/p' "$long/cluster.conf" | head -n 1)")
    "$MENDFS" down --dir "$long"
    [ ! -e "$at" ] || fail "down leaves the sockets' folder $at"
fi
