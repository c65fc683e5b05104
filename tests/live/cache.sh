#!/usr/bin/env bash
# --cache: bounds, kept for later starts of all kinds, changed by another up, shown by status.
. "$(dirname "$0")/lib.sh"
live_begin
export LIVE_SIZE=64M

says() { # says PATTERN COMMAND...: fails, and its last line matches
    local pattern=$1
    shift
    expect_fails "$@" >"$TMP/said" 2>&1
    tail -n 1 "$TMP/said" | grep -qE -- "$pattern" || fail "$* says '$(cat "$TMP/said")', expected: $pattern"
}
caches() { for i in 0 1 2 3; do live_iom $i cache_bytes; done | sort -u; }

says '--cache 1M is too small: .* 16M' live_up --cache 1M
says '--cache 0 is too small: .* 16M' live_up --cache 0
says '--cache 900T is more than this machine has memory for 4 IOMs; choose at most' live_up --cache 900T
says '--cache much: a size is expected' live_up --cache much
[ ! -e "$DIR" ] || fail "an up that was refused leaves $DIR: $(ls -A "$DIR")"
says '--cache 1M is too small' mendfs iom --dir "$DIR" --id 0 --cache 1M

live_up --cache 16M
expect_eq "$(caches)" $((16 << 20)) "cache after up --cache 16M"
mendfs status --dir "$DIR" | grep -qE '^ +0 .* 16M +unix:' || fail "status does not show the cache: $(mendfs status --dir "$DIR")"
mendfs stop-iom 2 --dir "$DIR"
mendfs start-iom 2 --dir "$DIR"
live_wait 20 live_healthy
expect_eq "$(caches)" $((16 << 20)) "cache after start-iom"

# Small caches with many writers: what is dirty and what is held for others still moves.
cd "$TMP"
fio --name=small --directory="$MNT" --rw=randwrite --bs=16k --size=8m --numjobs=4 --end_fsync=1 --verify=crc32c --thread --minimal >"$TMP/fio" ||
    fail "fio over small caches: $(cat "$TMP/fio")"

# Another size: for who starts from then on.
live_up --cache 32M >"$TMP/out"
grep -q 'keep theirs until' "$TMP/out" || fail "up with another cache says: $(cat "$TMP/out")"
expect_eq "$(caches)" $((16 << 20)) "cache of IOMs that run already"
live_down
live_up
expect_eq "$(caches)" $((32 << 20)) "cache after down and up"
live_down
mendfs check --dir "$DIR"

# A cluster.conf of before there was a choice has the default.
sed -i '/"cache":/d' "$DIR/cluster.conf"
live_up
expect_eq "$(caches)" $((256 << 20)) "cache by default"
live_down
