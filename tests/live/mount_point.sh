#!/usr/bin/env bash
# Where may be mounted, what is refused before anything is made, and what is left when a mount fails.
. "$(dirname "$0")/lib.sh"
live_begin

says() { # says PATTERN COMMAND...: fails, and its last line matches
    local pattern=$1
    shift
    expect_fails timeout 60 "$@" >"$TMP/said" 2>&1
    tail -n 1 "$TMP/said" | grep -qE -- "$pattern" || fail "$* says '$(cat "$TMP/said")', expected: $pattern"
}
printf '#!/bin/sh\nexec "%s" up --dir "%s" --size 64M --mount "$@"\n' "$MENDFS" "$DIR" >"$TMP/at"
chmod +x "$TMP/at"
nothing_made() { [ ! -e "$TMP/deep" ] && [ ! -e "$DIR" ] || fail "an up that was refused leaves something: $(find "$TMP" -name deep -o -name dir)"; }

# ---- refused before anything is made: nothing runs then, and no folder is left
touch "$MNT/precious"
says "$MNT is not empty \(precious .*--nonempty" "$TMP/at" "$MNT"
nothing_made
says 'lies in the folder of the cluster' "$TMP/at" "$DIR/mnt"
nothing_made
says 'would hide the folder of the cluster' "$TMP/at" "$TMP"
nothing_made
says 'lies in the folder of the cluster' "$TMP/at" "$DIR"
nothing_made
says 'is not empty' "$MENDFS" up --dir "$TMP/deep/er/dir" --size 64M --mount "$MNT"
nothing_made
mkdir "$TMP/own"
says 'is not empty' "$MENDFS" up --dir "$TMP/own" --size 64M --mount "$MNT"
expect_eq "$(ls -A "$TMP/own")" "lock" "a folder that was there before stays"

# ---- --nonempty hides what lies there, for as long
"$TMP/at" "$MNT" --nonempty
[ ! -e "$MNT/precious" ] || fail "the mount does not hide what lies below"
echo in >"$MNT/a"

# ---- within a mount of ours neither mount points nor folders
mkdir "$MNT/sub" "$TMP/other"
says "lies on a mount of mendfs \($MNT\)" "$TMP/at" "$MNT/sub"
says "lies on a mount of mendfs \($MNT\)" "$MENDFS" mount "$MNT/sub" --dir "$DIR"
says "lies on a mount of mendfs \($MNT\)" "$MENDFS" up --dir "$MNT/sub/dir" --mount "$TMP/other"
says "lies on a mount of mendfs \($MNT\)" "$MENDFS" up --dir "$MNT" --mount "$TMP/other"
ln -s "$MNT/sub" "$TMP/link"
says "lies on a mount of mendfs \($MNT\)" "$MENDFS" up --dir "$TMP/link/dir" --mount "$TMP/other"
[ ! -e "$MNT/sub/dir" ] || fail "a refused up made a folder in the mount"
touch "$TMP/other/x"
says "$TMP/other is not empty" "$MENDFS" mount "$TMP/other" --dir "$DIR"
mendfs mount "$TMP/other" --dir "$DIR" --nonempty
expect_eq "$(cat "$TMP/other/a")" in "through a second mount"
rmdir "$MNT/sub"

# ---- a dead mount takes nothing; without a mount status says where writes go, and up finds what was written there
mx=$(sqlite3 :memory: "select json_extract('$(live_status)', '\$.mx[0].pid')")
umount "$TMP/other"
kill -KILL "$mx"
expect_fails bash -c "echo lost >'$MNT/b'" 2>/dev/null
"$TMP/at" "$MNT" --nonempty
umount "$MNT"
no_mount() { mendfs status --dir "$DIR" >"$TMP/status" && grep -q '^mount  none' "$TMP/status"; }
live_wait 10 no_mount
grep -q "written to $MNT now stays on this machine's disk" "$TMP/status" || fail "status says: $(cat "$TMP/status")"
rm "$MNT/precious"
echo astray >"$MNT/astray"
says "$MNT is not empty \(astray " "$TMP/at" "$MNT"
live_healthy || fail "a refused up stops what ran before"
expect_eq "$(cat "$MNT/astray")" astray "what was written to the bare folder"
rm "$MNT/astray"
"$TMP/at" "$MNT" >/dev/null
expect_eq "$(cat "$MNT/a")" in "content after all refusals"
live_down

# ---- the mount fails when the array runs already: up says what runs and what to do, and the folder it made goes again
if [ "$(id -u)" = 0 ]; then
    printf 'mount --bind /dev/null /dev/fuse\nexec "%s" up --dir "%s" --mount "%s/new/mnt"\n' "$MENDFS" "$DIR" "$TMP" >"$TMP/broken"
    mkdir "$TMP/new"
    says "the array runs .* not mounted at $TMP/new/mnt.*mendfs up --dir $DIR --mount .*mendfs down --dir $DIR" unshare -m bash "$TMP/broken"
    [ ! -e "$TMP/new/mnt" ] || fail "the mount point that was made for a failed mount is left"
    live_healthy || fail "the array does not run, although up says so"
    "$TMP/at" "$MNT" >/dev/null
    expect_eq "$(cat "$MNT/a")" in "content after a mount that failed"
    live_down
fi
