#!/usr/bin/env bash
# What POSIX promises of files and folders, through the mount.
. "$(dirname "$0")/lib.sh"
live_begin
live_up
cd "$MNT"

# ---- rename over, also of what is open
echo old >a
echo new >b
exec 3<a
mv b a
expect_eq "$(cat a)" new "rename over"
expect_eq "$(cat <&3)" old "the file that was renamed over, still open"
exec 3<&-
mkdir empty full
touch full/x
expect_fails mv -T empty full 2>/dev/null
expect_fails rmdir full 2>/dev/null
mkdir other
mv -T other empty
mv full empty/moved
[ -f empty/moved/x ] || fail "a renamed folder keeps what is in it"
expect_fails mv empty empty/moved/under 2>/dev/null

# ---- hard links
ln a link
expect_eq "$(stat -c %h a)" 2 "links"
expect_eq "$(stat -c %i a)" "$(stat -c %i link)" "inode of a link"
echo more >>link
expect_eq "$(tail -n 1 a)" more "content through the other name"
ln a empty/link
rm a
expect_eq "$(stat -c %h link)" 2 "links after unlink"
expect_fails ln a b 2>/dev/null

# ---- unlink of an open file
exec 3<>open 4<open
rm open
echo "still here" >&3
expect_eq "$(cat <&4)" "still here" "an unlinked open file"
expect_eq "$(stat -Lc %h /proc/$$/fd/3)" 0 "links of an unlinked open file"
exec 3>&- 4<&-

# ---- sparse files, holes, sizes beyond 2^40
truncate -s 2T sparse
printf end | dd of=sparse bs=1 seek=$((2 ** 40)) conv=notrunc status=none
expect_eq "$(stat -c %s sparse)" $((2 ** 41)) "size of a sparse file"
expect_eq "$(dd if=sparse bs=1 skip=$((2 ** 40)) count=3 status=none)" end "bytes beyond 2^40"
dd if=sparse bs=4096 skip=$((2 ** 27)) count=2 status=none | cmp -n 8192 - /dev/zero
[ "$(df -k --output=used . | tail -n 1)" -lt 100000 ] || fail "a sparse file fills the store: $(df -k .)"
rm sparse

# ---- truncate: shorter, longer, zeros between
head -c 200000 /dev/urandom >"$TMP/r"
cp "$TMP/r" t
truncate -s 70001 t
truncate -s 140000 t
{ head -c 70001 "$TMP/r" && head -c 69999 /dev/zero; } >"$TMP/want"
expect_same "$TMP/want" t "cut and grown"
: >t
expect_eq "$(stat -c %s t)" 0 "O_TRUNC"
fallocate -l 100000 t 2>/dev/null && expect_eq "$(stat -c %s t)" 100000 "fallocate"

# ---- append, by two at once: every line is whole
append() { for i in $(seq 1 150); do echo "$1 $i ................................" >>log; done; }
append one &
append two
wait $!
expect_eq "$(wc -l <log)" 300 "lines of two who append"
expect_eq "$(grep -cE '^(one|two) [0-9]+ \.{32}$' log)" 300 "whole lines of two who append"

# ---- extended attributes
setfattr -n user.colour -v blue log
setfattr -n user.long -v "$(printf '%03000d' 7)" log
expect_eq "$(getfattr --only-values -n user.colour log)" blue "xattr"
expect_eq "$(getfattr --only-values -n user.long log | wc -c)" 3000 "a long xattr"
expect_eq "$(getfattr log | grep -c '^user\.')" 2 "listed xattrs"
setfattr -x user.colour log
expect_fails getfattr -n user.colour log 2>/dev/null

# ---- symbolic links, special files, modes, times
long=$(printf 'x%.0s' $(seq 1 1000))
ln -s "$long" sym
expect_eq "$(readlink sym)" "$long" "a long symbolic link"
ln -sf log sym2
expect_eq "$(stat -Lc %i sym2)" "$(stat -c %i log)" "through a symbolic link"
mkfifo fifo
[ -p fifo ] || fail "no FIFO"
[ "$(id -u)" != 0 ] || { mknod null c 1 3 && [ "$(stat -c %t,%T null)" = 1,3 ]; } || fail "device node"
chmod 4751 log
expect_eq "$(stat -c %a log)" 4751 "mode"
[ "$(id -u)" != 0 ] || { chown 12:34 log && expect_eq "$(stat -c %u:%g log)" 12:34 "owner"; }
touch -d '2001-02-03 04:05:06.123456789 UTC' log
expect_eq "$(TZ=UTC stat -c %y log)" "2001-02-03 04:05:06.123456789 +0000" "mtime to the nanosecond"
before=$(stat -c %Z log)
sleep 1.1
chmod 600 log
[ "$(stat -c %Z log)" -gt "$before" ] || fail "ctime moves with chmod"

# ---- names of 255 bytes, not 256
name=$(printf 'n%.0s' $(seq 1 255))
echo ok >"$name"
expect_eq "$(cat "$name")" ok "name of 255 bytes"
expect_fails touch "${name}n" 2>/dev/null
expect_fails cat nowhere/x 2>/dev/null
expect_fails cat log/x 2>/dev/null

# ---- O_DIRECT, O_SYNC, mmap shared
head -c 1M /dev/urandom >"$TMP/r"
dd if="$TMP/r" of=direct bs=64k oflag=direct status=none
dd if=direct of="$TMP/back" bs=128k iflag=direct status=none
expect_same "$TMP/r" "$TMP/back" "O_DIRECT"
dd if="$TMP/r" of=sync bs=256k oflag=sync status=none
expect_same "$TMP/r" sync "O_SYNC"
fio --name=mmap --filename="$MNT/mmap" --ioengine=mmap --rw=randwrite --bs=4k --size=4m --verify=crc32c --fsync=64 \
    --thread --minimal >"$TMP/fio" || fail "fio over mmap: $(cat "$TMP/fio")"
fio --name=mix --filename="$MNT/mix" --ioengine=psync --rw=randrw --bsrange=512-96k --size=8m --verify=crc32c --thread \
    --minimal >"$TMP/fio" || fail "fio: $(cat "$TMP/fio")"

# ---- locks
(flock -x 9 && touch "$TMP/locked" && sleep 1) 9>lock &
live_wait 5 test -f "$TMP/locked"
expect_fails flock -n lock true
wait $!
flock -n lock true

# ---- a folder's own attributes show every change at once, whatever changed it
mkdir own other
was=$(stat -c %y own)
changed() { [ "$(stat -c %y own)" != "$was" ] || fail "mtime of a folder after: $1"; was=$(stat -c %y own); }
for n in 1 2 3; do
    touch own/file-$n && changed touch
    mkdir own/dir-$n && changed mkdir
    expect_eq "$(stat -c %h own)" $((n + 2)) "links of a folder with $n folders"
done
ln own/file-1 own/link && changed ln
mv own/link other/ && changed "mv away"
mv other/link own/ && changed "mv back"
rm own/link && changed rm
rmdir own/dir-3 && changed rmdir
chmod 2750 own && touch own/file-4 && expect_eq "$(stat -c '%a %h' own)" "2750 4" "mode and links of a folder"
rm -r own other

# ---- a folder of 5,000
mkdir many
(cd many && seq -f 'file-%05g' 1 5000 | xargs touch)
expect_eq "$(ls many | wc -l)" 5000 "entries"
expect_eq "$(ls many | sort -u | sed -n '1p;$p' | tr '\n' ' ')" "file-00001 file-05000 " "first and last of many"
rm many/file-0[0-3]*
expect_eq "$(ls many | wc -l)" 1001 "entries after unlink of most"
rm -r many
expect_fails ls many 2>/dev/null

# ---- statfs; all of it once more after a restart
[ "$(df -k --output=size "$MNT" | tail -n 1)" -gt 100000 ] || fail "df: $(df -k "$MNT")"
find . -type f -exec md5sum {} + | sort >"$TMP/sums"
find . -printf '%p %y %m %U:%G %n %s %T@ %l\n' | sort >"$TMP/list"
cd /
live_down
live_up
cd "$MNT"
find . -type f -exec md5sum {} + | sort | expect_same "$TMP/sums" - "contents after a restart"
find . -printf '%p %y %m %U:%G %n %s %T@ %l\n' | sort | expect_same "$TMP/list" - "attributes after a restart"
cd /
live_down
mendfs check --dir "$DIR"
