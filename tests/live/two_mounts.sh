#!/usr/bin/env bash
# Two mounts of one array: who opens sees what was closed before, on whichever side; one name space.
. "$(dirname "$0")/lib.sh"
live_begin
live_up
B=$TMP/mnt2
mkdir "$B"
expect_eq "$(mendfs mount "$B" --dir "$DIR")" "mounted at $B" "what mount says"
expect_fails mendfs mount "$B" --dir "$DIR" 2>/dev/null
expect_eq "$(sqlite3 :memory: "select json_array_length('$(live_status)', '\$.mx')")" 2 "mounts in status"

# ---- close-to-open, there and back, growing and shrinking, inline and in chunks
for size in 10 3000 70000 500000 20; do
    head -c $size /dev/urandom >"$TMP/r"
    cp "$TMP/r" "$MNT/f"
    expect_same "$TMP/r" "$B/f" "written here, read there ($size)"
    head -c $size /dev/urandom >"$TMP/r"
    cp "$TMP/r" "$B/f"
    expect_same "$TMP/r" "$MNT/f" "written there, read here ($size)"
done
for n in $(seq 1 20); do
    if [ $((n % 2)) = 0 ]; then echo "$n" >>"$MNT/turns"; else echo "$n" >>"$B/turns"; fi
done
expect_same "$MNT/turns" "$B/turns" "appended in turns"
seq 1 20 | expect_same - "$B/turns" "appended in turns"

# ---- appending at once: no line is lost
append() { for n in $(seq 1 100); do echo "$2 $n" >>"$1/log"; done; }
append "$MNT" a &
append "$B" b
wait $!
expect_eq "$(sort -u "$MNT/log" | wc -l)" 200 "lines of two who append through two mounts"

# ---- a page at a time in one file, each side its own pages
truncate -s 400k "$MNT/pages"
side() { # side FOLDER FIRST LETTER
    local n
    for n in $(seq "$2" 2 99); do
        head -c 4096 /dev/zero | tr '\0' "$3" | dd of="$1/pages" bs=4096 seek="$n" conv=notrunc status=none
    done
}
side "$MNT" 0 a &
side "$B" 1 b
wait $!
for n in $(seq 0 99); do head -c 4096 /dev/zero | tr '\0' "$([ $((n % 2)) = 0 ] && echo a || echo b)"; done >"$TMP/want"
expect_same "$TMP/want" "$MNT/pages" "pages of both sides, here"
expect_same "$TMP/want" "$B/pages" "pages of both sides, there"

# ---- names
mkdir -p "$MNT/x/y"
touch "$B/x/y/z"
live_wait 5 test -f "$MNT/x/y/z"
mv "$MNT/x/y/z" "$MNT/x/w"
live_wait 5 test -f "$B/x/w"
live_wait 5 test ! -e "$B/x/y/z"
rm "$B/x/w"
live_wait 5 test ! -e "$MNT/x/w"
race() { mkdir "$1/race" 2>/dev/null && echo won; }
rmdir "$B/x/y"
won=$({ race "$MNT" & race "$B"; wait; } | grep -c won)
expect_eq "$won" 1 "winners of two mkdir of one name"

# ---- unlinked through one mount while open through the other
echo "kept" >"$MNT/open"
exec 3<"$B/open"
rm "$MNT/open"
expect_eq "$(cat <&3)" kept "unlinked there, open here"
exec 3<&-

# ---- the second mount goes by itself
umount "$B"
live_healthy || fail "umount of the second mount stopped more than that"
expect_same "$TMP/want" "$MNT/pages" "through the first mount afterwards"
live_down
