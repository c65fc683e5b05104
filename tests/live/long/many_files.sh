#!/usr/bin/env bash
# Memory stays bounded: 1,000,000 small files (FILES) on four IOMs. At every tenth of them the resident memory of each daemon is printed; an IOM that has more than
# its caches (256 MiB, src/cli/iom.c) and ROOM_MIB for all else (code, pools, messages in flight, what the allocator keeps) fails the test.
. "$(dirname "$0")/../lib.sh"
live_begin

FILES=${FILES:-1000000}
CACHE_MIB=256
ROOM_MIB=${ROOM_MIB:-96}
limit_kib=$(((CACHE_MIB + ROOM_MIB) * 1024))

rss_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"; }

look() { # look FILES_SO_FAR
    local i kib line="$1 files, $SECONDS s:" over=
    for i in 0 1 2 3; do
        kib=$(rss_kib "${iom_pid[$i]}")
        line+=" IOM $i $((kib / 1024)) MiB,"
        [ "$kib" -le $limit_kib ] || over+=" IOM $i has $kib KiB, more than $limit_kib;"
    done
    echo "$line MX $(($(rss_kib "$mx_pid") / 1024)) MiB"
    [ -z "$over" ] || fail "$over"
}

# Every other file is empty, the rest have 100 bytes; a thousand to a directory, so that all IOMs have some.
fill() { # fill DIRECTORY COUNT
    local n
    mkdir "$MNT/$1"
    for ((n = 0; n < $2; n += 2)); do
        : >"$MNT/$1/$n"
        printf '%s' "$hundred" >"$MNT/$1/$((n + 1))"
    done
}

LIVE_SIZE=${LIVE_SIZE:-4G}
live_up
for i in 0 1 2 3; do iom_pid[i]=$(live_iom $i pid); done
mx_pid=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
printf -v hundred '%0100d' 7
SECONDS=0
look 0
for ((made = 0; made < FILES; made += 1000)); do
    fill "d$((made / 1000))" $((FILES - made < 1000 ? FILES - made : 1000))
    [ $(((made + 1000) % (FILES / 10))) != 0 ] || look $((made + 1000))
done

# All of it is there, and read by others than who wrote it: after a restart.
live_down
live_up
for ((n = 0; n < FILES; n += FILES / 100 + 1)); do
    at=$MNT/d$((n / 1000))/$((n % 1000))
    expect_eq "$(cat "$at")" "$([ $((n % 2)) = 0 ] || echo "$hundred")" "content of $at"
done
expect_eq "$(find "$MNT/d0" -type f | wc -l)" "$((FILES < 1000 ? FILES : 1000))" "files of the first directory"
live_down
mendfs check --dir "$DIR"
echo "$FILES files within $((CACHE_MIB + ROOM_MIB)) MiB an IOM"
