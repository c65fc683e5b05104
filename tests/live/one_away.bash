# Shared by the tests in which an IOM goes and comes back: a mixed load that sees no error and no wrong byte meanwhile, and rounds that go on where they stopped.
#
#   load_begin                     # clients in the background, in $MNT/load
#   ...                            # something happens to an IOM
#   load_moves 2                   # each client has got on since, in 2 s at most each
#   load_end                       # all have ended well, and what they left is right, through another mount too

load_kinds=(blocks append names tree)
load_syncs=1 # 0: nobody calls fsync

load_write() { # the program of the clients, once
    cat >"$TMP/load" <<'PERL'
use strict;
use warnings;
use Fcntl;
use IO::Handle;
use Digest::MD5 qw(md5_hex);
my ($kind, $dir, $stop, $progress, $round, $sums, $syncs) = @ARGV;
open(my $moves, ">>", $progress) or die "$progress: $!\n";
$moves->autoflush(1);
open(my $left, ">", $sums) or die "$sums: $!\n";
my $n = 0;
sub moved { print $moves "." }
sub on { return !-e $stop }
sub all { my ($f, $data) = @_; my $at = 0; while ($at < length $data) { my $got = syswrite($f, $data, length($data) - $at, $at) // die "write: $!\n"; $at += $got } }
sub text { my ($what, $len) = @_; return substr("$what " x (1 + $len / (1 + length $what)), 0, $len) }
sub synced { my ($f) = @_; !$syncs or $f->sync or die "fsync: $!\n" }
sub spit { my ($at, $data, $sync) = @_; sysopen(my $f, $at, O_WRONLY | O_CREAT | O_TRUNC) or die "$at: $!\n"; all($f, $data); !$sync or synced($f); close($f) or die "close of $at: $!\n" }
sub left { my ($name, $data) = @_; print $left md5_hex($data) . "  $name\n" } # as md5sum has it
sub slurp { my ($at) = @_; sysopen(my $f, $at, O_RDONLY) or die "$at: $!\n"; my $data = ""; while (1) { my $got = sysread($f, $data, 1 << 20, length $data) // die "read of $at: $!\n"; last if !$got } return $data }

if ($kind eq "blocks") { # writes one block of a file, reads another: each is what was written last
    my $blocks = 200;
    sysopen(my $f, "$dir/blocks", O_RDWR | O_CREAT | O_TRUNC) or die "open: $!\n";
    my @has;
    for my $b (0 .. $blocks - 1) { $has[$b] = "block $b of round $round"; all($f, text($has[$b], 4096)) }
    while (on()) {
        my ($b, $c) = (int rand $blocks, int rand $blocks);
        $has[$b] = "block $b version " . ++$n . " of round $round";
        sysseek($f, $b * 4096, 0) // die "seek: $!\n";
        all($f, text($has[$b], 4096));
        synced($f) if $n % 16 == 0;
        sysopen(my $r, "$dir/blocks", O_RDONLY) or die "open: $!\n"; # what another opens is not what this kernel keeps
        sysseek($r, $c * 4096, 0) // die "seek: $!\n";
        my $got = "";
        while (length $got < 4096) { sysread($r, $got, 4096 - length $got, length $got) or die "read: $!\n" }
        $got eq text($has[$c], 4096) or die "block $c is not '$has[$c]' but '" . substr($got, 0, 60) . "'\n";
        moved();
    }
    left("blocks", join("", map { text($_, 4096) } @has));
} elsif ($kind eq "append") { # appends lines; none is lost, none stands twice
    my $want = "";
    sysopen(my $f, "$dir/append", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND) or die "open: $!\n";
    while (on()) {
        my $line = text("line " . ++$n . " of round $round", 20 + $n % 300) . "\n";
        all($f, $line);
        $want .= $line;
        synced($f) if $n % 8 == 0;
        die "the log has " . (-s "$dir/append") . " bytes instead of " . length($want) . "\n" if -s "$dir/append" != length $want;
        moved();
        select(undef, undef, undef, 0.002);
    }
    slurp("$dir/append") eq $want or die "the log is not what was appended\n";
    left("append", $want);
} elsif ($kind eq "names") { # makes, renames over, links, removes
    mkdir "$dir/names" or die "mkdir: $!\n";
    my @has;
    while (on()) {
        my $data = text("file " . ++$n . " of round $round", 10 + $n * 37 % 9000);
        spit("$dir/names/new", $data, $n % 4 == 0);
        rename("$dir/names/new", "$dir/names/" . $n % 50) or die "rename: $!\n";
        $has[$n % 50] = $data;
        slurp("$dir/names/" . $n % 50) eq $data or die "file $n is not what was renamed there\n";
        link("$dir/names/" . $n % 50, "$dir/names/linked") or die "link: $!\n";
        unlink("$dir/names/linked") or die "unlink: $!\n";
        mkdir "$dir/names/d$n" or die "mkdir: $!\n";
        rmdir "$dir/names/d" . ($n - 20) or die "rmdir: $!\n" if $n > 20;
        moved();
    }
    opendir(my $d, "$dir/names") or die "opendir: $!\n";
    my $have = grep { !/^\.\.?$/ } readdir $d;
    my $want = ($n < 50 ? $n : 50) + ($n < 20 ? $n : 20);
    $have == $want or die "the folder has $have names instead of $want\n";
    defined $has[$_] and left("names/$_", $has[$_]) for 0 .. 49;
} elsif ($kind eq "tree") { # unpacks a tree, compares it, deletes it
    while (on()) {
        my $at = "$dir/tree" . ++$n;
        mkdir $at or die "mkdir: $!\n";
        for my $i (0 .. 60) {
            mkdir "$at/" . int($i / 10) or die "mkdir: $!\n" if $i % 10 == 0;
            spit("$at/" . int($i / 10) . "/$i", text("file $i of tree $n", $i * 997 % 30000), 0);
            utime(1e9 + $i, 1e9 + $i, "$at/" . int($i / 10) . "/$i") or die "utime: $!\n";
        }
        for my $i (0 .. 60) {
            slurp("$at/" . int($i / 10) . "/$i") eq text("file $i of tree $n", $i * 997 % 30000) or die "file $i of tree $n is not what was written\n";
            (stat("$at/" . int($i / 10) . "/$i"))[9] == 1e9 + $i or die "file $i of tree $n has another time\n";
        }
        moved();
        system("rm", "-r", "$dir/tree" . ($n - 1)) == 0 or die "rm failed\n" if $n > 1;
    }
    left("tree$n/" . int($_ / 10) . "/$_", text("file $_ of tree $n", $_ * 997 % 30000)) for 0 .. 60;
}
PERL
}

declare -A load_pid=() load_seen=()
load_round=0
load_begin() {
    local kind
    [ -f "$TMP/load" ] || load_write
    load_round=$((load_round + 1))
    rm -rf "$TMP/stop" "$MNT/load"
    mkdir "$MNT/load"
    for kind in "${load_kinds[@]}"; do
        : >"$TMP/moves.$kind"
        perl "$TMP/load" "$kind" "$MNT/load" "$TMP/stop" "$TMP/moves.$kind" $load_round "$TMP/left.$kind" "$load_syncs" 2>"$TMP/said.$kind" &
        load_pid[$kind]=$!
    done
    load_pid[fio]=
    if command -v fio >/dev/null; then
        (cd "$TMP" && exec fio --name=load --filename="$MNT/load/fio" --ioengine=psync --rw=randrw --bs=4k-16k --size=4m --verify=crc32c --verify_fatal=1 \
            --fallocate=none --loops=100000 --fsync=$((32 * load_syncs)) --rate_iops=150 --minimal >"$TMP/fio.out" 2>&1) &
        load_pid[fio]=$!
    fi
    for kind in "${load_kinds[@]}"; do live_wait 20 load_has_moved "$kind"; done
}

load_has_moved() { [ "$(stat -c %s "$TMP/moves.$1")" -gt "${load_seen[$1]:-0}" ] || ! kill -0 "${load_pid[$1]}"; }
load_moves() { # load_moves SECONDS: each client does something within that time from now
    local kind
    for kind in "${load_kinds[@]}"; do load_seen[$kind]=$(stat -c %s "$TMP/moves.$kind"); done
    for kind in "${load_kinds[@]}"; do live_wait "$1" load_has_moved "$kind"; done
    for kind in "${load_kinds[@]}"; do load_seen[$kind]=0; done
}

load_end() {
    local kind failed=
    if [ -n "${load_pid[fio]}" ]; then
        kill -0 "${load_pid[fio]}" 2>/dev/null || failed="fio: $(tail -n 5 "$TMP/fio.out")"
        kill -INT "${load_pid[fio]}" 2>/dev/null || true # it ends with the operation under way, and 0 or "terminated"
        wait "${load_pid[fio]}" || true
        ! grep -qiE 'verify:|bad |error|err= *[1-9]' "$TMP/fio.out" || failed="fio: $(grep -iE 'verify:|bad |error|err= *[1-9]' "$TMP/fio.out" | head -n 3)"
    fi
    touch "$TMP/stop"
    for kind in "${load_kinds[@]}"; do wait "${load_pid[$kind]}" || failed+="$kind: $(cat "$TMP/said.$kind"); "; done
    [ -z "$failed" ] || fail "a client: $failed"
    [ -d "$TMP/other" ] || mkdir "$TMP/other"
    mendfs mount "$TMP/other" --dir "$DIR"
    for kind in "${load_kinds[@]}"; do
        (cd "$TMP/other/load" && md5sum --quiet -c "$TMP/left.$kind") >"$TMP/sums" 2>&1 || fail "what the client '$kind' left, through another mount: $(head -n 5 "$TMP/sums")"
    done
    live_unmount "$TMP/other"
}
live_unmount() { umount "$1" 2>/dev/null || fusermount3 -u "$1"; }

stands_in() { # stands_in ID: the next of the four stands in for it, and status says so
    [ "$(live_iom "$1" stand_in)" = $((($1 + 1) % 4)) ] && live_iom_is "$1" failed
}
is_rebuilding() { live_iom_is "$1" rebuilding || live_healthy; } # or has done so already
check_is_clean() { # check_is_clean WHEN
    mendfs check --dir "$DIR" >"$TMP/check" 2>&1 || fail "check $1: $(tail -n 5 "$TMP/check")"
    grep -q ' 0 faults$' "$TMP/check" || fail "check $1 says: $(tail -n 1 "$TMP/check")"
}

# ---- rounds of a long test, which a later run goes on with
rounds_begin() { # sets $first, the round to begin with
    rounds_at=${TEST_LONG_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/test-long}/next-$(basename "$0" .sh)
    mkdir -p "${rounds_at%/*}"
    first=$(cat "$rounds_at" 2>/dev/null || echo 0)
}
rounds_note() { # rounds_note ROUND WHAT: that round is over
    echo "round $1: $2"
    echo $(($1 + 1)) >"$rounds_at.new"
    mv "$rounds_at.new" "$rounds_at"
}
