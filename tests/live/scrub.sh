#!/usr/bin/env bash
# Blocks of stores are overwritten behind the array's back: what is read through the mount is right and gives no error, scrub finds and repairs the rest, and check
# is clean afterwards. Two bad blocks of one row: EIO, told by scrub and status, and everything else goes on.
. "$(dirname "$0")/lib.sh"
live_begin
LIVE_SIZE=64M

blocks() { # blocks WORD COUNT: each block says which it is, all over
    perl -e 'for my $n (0 .. $ARGV[1] - 1) { print substr(sprintf("%s %05d.", $ARGV[0], $n) x 400, 0, 4096) }' "$1" "$2"
}
index() { # "TEXT STORE OFFSET" of every block of the stores that says which it is, as it is now
    perl -e 'for my $store (@ARGV) {
        open(my $f, "<:raw", $store) or die;
        for (my $at = 0; read($f, my $block, 4096); $at += 4096) { print "$1 $store $at\n" if $block =~ /^((block|alone|twin) \d{5})\./ }
    }' "$DIR"/iom-*/store >"$TMP/index"
}
# A block may have other places that are free by now: what was the parity while it alone of its row was written, say.
rots() { # rots TEXT: wherever it is; rots TEXT once: in one store alone, of the two that have it
    local store at of=.
    [ "${2:-}" != once ] || of=$(grep "^$1 " "$TMP/index" | tail -n 1 | cut -d' ' -f3)
    grep -q "^$1 .*$of" "$TMP/index" || fail "no block says $1"
    grep "^$1 .*$of" "$TMP/index" | while read -r _ _ store at; do
        echo rotten | dd of="$store" bs=1 seek=$((at + 1000)) conv=notrunc,fsync status=none
    done
}
reads() { # reads FILE BLOCK: that one alone, past the kernel's cache
    dd if="$MNT/$1" of="$TMP/got" bs=4096 skip="$2" count=1 iflag=direct status=none &&
        dd if="$TMP/$1" bs=4096 skip="$2" count=1 status=none | cmp - "$TMP/got"
}
total() { # total FIELD: over all IOMs
    sqlite3 :memory: "select sum(json_extract(value, '\$.$1')) from json_each('$(live_status)', '\$.ioms')"
}

# ---- while the array is down: three blocks to be read, four for scrub, of which one is parity
# Where a row has but one block that is not zeros, its parity is that block.
live_up --cache 16M
blocks block 1024 >"$TMP/f"
{ blocks alone 16 && head -c 128K /dev/zero; } >"$TMP/p"
mkdir "$MNT/mirrored"
mendfs policy set "$MNT/mirrored" protection=mirror >/dev/null
blocks twin 32 >"$TMP/m"
cp "$TMP/f" "$TMP/p" "$MNT/"
cp "$TMP/m" "$MNT/mirrored/m"
sync "$MNT/f" "$MNT/p" "$MNT/mirrored/m"
says '^[0-9]+ rows scrubbed, 0 bad blocks found, 0 repaired, 0 not$' 0 "$MENDFS" scrub --dir "$DIR" --rate 64M
live_down
index
for n in 00003 00120 00555 00700 00900; do rots "block $n"; done
rots 'alone 00005' once # either it or its parity
rots 'twin 00007' once
live_up
for n in 3 120 555; do reads f $n || fail "block $n"; done
expect_eq "$(total mended_blocks) $(total bad_blocks) $(total lost_blocks)" "3 3 0" "blocks that were read"
grep -qh 'of IOM . was bad; rebuilt from its row' "$DIR"/log/iom-* || fail "no log tells of it"
says '^[0-9]+ rows scrubbed, 4 bad blocks found, 4 repaired, 0 not$' 0 "$MENDFS" scrub --dir "$DIR" --rate 64M
expect_eq "$(total mended_blocks) $(total lost_blocks)" "7 0" "blocks in all"
"$MENDFS" check --dir "$DIR"
expect_same "$TMP/f" "$MNT/f"

# ---- while it runs and is written
index
for n in 00010 00200 00400; do rots "block $n"; done
dd if=/dev/urandom of="$MNT/r" bs=16K count=500 conv=fsync status=none &
"$MENDFS" scrub --dir "$DIR" --background | grep -q 'all IOMs scrub' || fail "scrub in the background"
says ' 3 repaired, 0 not$' 0 "$MENDFS" scrub --dir "$DIR"
wait $!
live_down
live_up
expect_same "$TMP/f" "$MNT/f"
expect_same "$TMP/p" "$MNT/p"
expect_same "$TMP/m" "$MNT/mirrored/m"
live_down
"$MENDFS" check --dir "$DIR"

# ---- two of one row: chunks are of 16 blocks, so block 30 and block 46 are neighbours
index
rots 'block 00030'
rots 'block 00046'
rots 'block 00047'
live_up
expect_fails reads f 30 2>"$TMP/said"
said 'Input/output error'
reads f 47
reads f 31
dd if="$TMP/f" of="$MNT/f" bs=4096 skip=62 seek=62 count=1 conv=notrunc,fsync status=none # the third of that row
reads f 62
says ' 0 repaired, 2 not$' 1 "$MENDFS" scrub --dir "$DIR"
[ "$(total lost_blocks)" -ge 2 ] || fail "status counts $(total lost_blocks) lost blocks"
expect_fails "$MENDFS" check --dir "$DIR" >/dev/null
rm "$MNT/f"
live_wait 20 "$MENDFS" scrub --dir "$DIR" --rate 0 >/dev/null # what is deleted goes
says ' 0 bad blocks found, 0 repaired, 0 not$' 0 "$MENDFS" scrub --dir "$DIR" --rate 0
"$MENDFS" check --dir "$DIR"
live_down
says 'could not scrub' 2 "$MENDFS" scrub --dir "$DIR"
