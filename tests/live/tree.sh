#!/usr/bin/env bash
# A real tree of many small and some large files: copied, compared, mounted anew, compared again, removed.
. "$(dirname "$0")/lib.sh"
live_begin
tree=/usr/include
[ -d $tree ] || live_skip "there is no $tree to copy"
LIVE_SIZE=512M
live_up

used() { df -k --output=used "$MNT" | tail -n 1; }
before=$(used)
cp -a $tree "$MNT/copy"
diff -r --no-dereference $tree "$MNT/copy"
expect_eq "$(cd "$MNT/copy" && find . | wc -l)" "$(cd $tree && find . | wc -l)" "names in the copy"

umount "$MNT"
live_up
diff -r --no-dereference $tree "$MNT/copy"
live_down
live_up
diff -r --no-dereference $tree "$MNT/copy"
(cd $tree && find . -printf '%p %y %m %s %l\n' | sort) >"$TMP/want"
(cd "$MNT/copy" && find . -printf '%p %y %m %s %l\n' | sort) | diff "$TMP/want" - | grep -v ' d ' | grep '^[<>]' && fail "attributes differ"
mendfs check --dir "$DIR"

rm -r "$MNT/copy"
expect_eq "$(ls -A "$MNT")" "" "names after the copy is removed"
space_is_back() { [ "$(used)" -le $((before + 8192)) ]; }
live_wait 20 space_is_back
live_down
mendfs check --dir "$DIR"
