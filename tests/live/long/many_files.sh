#!/usr/bin/env bash
# Memory stays bounded: 1,000,000 small files (FILES) on four IOMs whose cache is 64 MiB (CACHE_MIB). At every tenth of them, and after reading all of them again
# after a restart, the resident memory of each daemon is printed; an IOM that has more than its cache and ROOM_MIB for all else (code, pools, messages
# in flight, what the allocator keeps) fails the test. README.md promises 96 MiB for all else, under any load; many small files need 15.
. "$(dirname "$0")/../lib.sh"
live_begin

FILES=${FILES:-1000000}
CACHE_MIB=${CACHE_MIB:-64}
ROOM_MIB=${ROOM_MIB:-32}
THREADS=${THREADS:-8}
limit_kib=$(((CACHE_MIB + ROOM_MIB) * 1024))
[ $((FILES % 10000)) = 0 ] || fail "FILES is a multiple of 10000"

rss_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"; }

started() {
    for i in 0 1 2 3; do
        iom_pid[i]=$(live_iom $i pid)
        expect_eq "$(live_iom $i cache_bytes)" $((CACHE_MIB << 20)) "cache of IOM $i"
    done
    mx_pid=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
}

look() { # look WHAT
    local i kib line="$1, $SECONDS s:" over=
    for i in 0 1 2 3; do
        kib=$(rss_kib "${iom_pid[$i]}")
        line+=" IOM $i $((kib / 1024)) MiB,"
        [ "$kib" -le $limit_kib ] || over+=" IOM $i has $kib KiB, more than $limit_kib;"
    done
    echo "$line MX $(($(rss_kib "$mx_pid") / 1024)) MiB"
    [ -z "$over" ] || fail "$over"
}

gcc -O2 -pthread -o "$TMP/many_files" "$(dirname "$0")/many_files.c"
LIVE_SIZE=${LIVE_SIZE:-4G}
live_up --cache ${CACHE_MIB}M
started
SECONDS=0
look "0 files"
for ((made = 0; made < FILES; made += FILES / 10)); do
    "$TMP/many_files" make "$MNT" $made $((FILES / 10)) "$THREADS"
    look "$((made + FILES / 10)) files"
done
took=$SECONDS

# All of it is there, and read by others than who wrote it: after a restart, which keeps the cache that was asked for.
live_down
live_up
started
"$TMP/many_files" verify "$MNT" 0 "$FILES" "$THREADS"
look "$FILES files read again"
expect_eq "$(find "$MNT/d0" -type f | wc -l)" 1000 "files of the first directory"
live_down
mendfs check --dir "$DIR"
echo "$FILES files within $CACHE_MIB + $ROOM_MIB MiB an IOM, made in $took s"
