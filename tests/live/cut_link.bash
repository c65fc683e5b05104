# Shared by cut_link.sh and long/cut_links.sh: four IOMs over TCP, each in a network namespace of its own, and a bridge between them in one more, where the clients are:
#
#   hub: bridge 10.77.0.100 ──┬── iom0 ══ eth0 10.77.0.10, IOM 0
#   (mount, mendfs status)    ├── iom1 ══ eth0 10.77.0.11, IOM 1
#                             ├── iom2 ══ eth0 10.77.0.12, IOM 2
#                             └── iom3 ══ eth0 10.77.0.13, IOM 3
#
#   net_begin                      # after live_begin; skips where namespaces are not to be had. `mendfs` is run in the hub from then on
#   net_up                         # the array runs, mounted at $MNT
#   cut_both 2; mend_both 2        # the cable of IOM 2
#   cut_mute 2; mend_mute 2        # what IOM 2 sends is lost, what is sent to it arrives
#   cut_deaf 2; mend_deaf 2        # the other way round
#   cut_pair 1 3; mend_pair 1 3    # between those two alone; the clients reach both
#
# A namespace has no name and lives as long as its processes, which live_sweep ends as all that inherited LIVE_TMP. One way is cut by a wrong hardware address of the
# neighbour, which needs no packet filter. Connections are not closed by any of it: they are silent.

hub= spaces=()
net_begin() {
    local i
    [ "$(id -u)" = 0 ] && unshare --net true 2>/dev/null || live_skip "network namespaces are not allowed here (not root, or in a container)"
    command -v ip >/dev/null || live_skip "ip is missing (package iproute2)"
    space_begin && hub=$space
    for i in 0 1 2 3; do space_begin && spaces[i]=$space; done
    in_space "$hub" ip link add br0 type bridge 2>"$TMP/said" || live_skip "no bridges here: $(cat "$TMP/said")"
    for i in 0 1 2 3; do
        in_space "$hub" ip link add "iom$i" type veth peer name eth0 netns "${spaces[i]}" 2>"$TMP/said" || live_skip "no pairs of virtual devices here: $(cat "$TMP/said")"
        in_space "$hub" ip link set "iom$i" master br0 up
    done
    in_space "$hub" ip link set br0 up
    in_space "$hub" ip address add 10.77.0.100/24 dev br0
}
space_begin() { # a namespace, held by process $space
    unshare --net sleep infinity &
    space=$!
    disown # live_sweep ends it, and bash need not say so
    live_wait 5 space_is_there
    in_space "$space" ip link set lo up
}
space_is_there() { [ "$(readlink "/proc/$space/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
in_space() { # in_space PROCESS COMMAND...
    local of=$1
    shift
    nsenter --net="/proc/$of/ns/net" "$@"
}
mendfs() { in_space "$hub" "$MENDFS" "$@"; }

net_up() { # it is made where one namespace has all addresses, then each IOM gets its own
    local i
    for i in 0 1 2 3; do in_space "$hub" ip address add "10.77.0.1$i/24" dev br0; done
    live_up --at "10.77.0.1%:7000" --insecure
    live_down
    for i in 0 1 2 3; do
        in_space "$hub" ip address del "10.77.0.1$i/24" dev br0
        in_space "${spaces[i]}" ip address add "10.77.0.1$i/24" dev eth0
        in_space "${spaces[i]}" ip link set eth0 up
    done
    for i in 0 1 2 3; do in_space "${spaces[i]}" "$MENDFS" start-iom $i --dir "$DIR"; done
    mendfs mount "$MNT" --dir "$DIR"
    live_wait 20 live_healthy
}

astray=02:00:00:00:00:ff # nobody's
cut_both() { in_space "$hub" ip link set "iom$1" down; }
mend_both() { in_space "$hub" ip link set "iom$1" up; }
cut_way() { in_space "$1" ip neighbour replace "$2" lladdr $astray nud permanent dev "$3"; } # cut_way SPACE ADDRESS DEVICE: from there to that address
mend_way() { in_space "$1" ip neighbour del "$2" dev "$3"; }
ways_from() { # ways_from cut_way|mend_way ID
    local i
    for i in 0 1 2 3; do [ "$i" = "$2" ] || "$1" "${spaces[$2]}" "10.77.0.1$i" eth0; done
    "$1" "${spaces[$2]}" 10.77.0.100 eth0
}
ways_to() { # ways_to cut_way|mend_way ID
    local i
    for i in 0 1 2 3; do [ "$i" = "$2" ] || "$1" "${spaces[i]}" "10.77.0.1$2" eth0; done
    "$1" "$hub" "10.77.0.1$2" br0
}
cut_mute() { ways_from cut_way "$1"; }
mend_mute() { ways_from mend_way "$1"; }
cut_deaf() { ways_to cut_way "$1"; }
mend_deaf() { ways_to mend_way "$1"; }
ways_between() { # ways_between cut_way|mend_way ID ID
    "$1" "${spaces[$2]}" "10.77.0.1$3" eth0
    "$1" "${spaces[$3]}" "10.77.0.1$2" eth0
}
cut_pair() { ways_between cut_way "$1" "$2"; }
mend_pair() { ways_between mend_way "$1" "$2"; }

# ---- how long a client stood still: one that writes a block and reads another, each time anew, and notes when and how long
ticker_begin() {
    cat >"$TMP/ticker" <<'PERL'
use strict;
use Fcntl;
use IO::Handle;
use Time::HiRes qw(time sleep);
my ($path, $n) = ($ARGV[0], 0);
STDOUT->autoflush(1);
sysopen(my $f, $path, O_RDWR | O_CREAT) or die "open: $!\n";
syswrite($f, "\0" x (1 << 20)) == 1 << 20 or die "write: $!\n" for 1 .. 16;
while (1) {
    my $began = time;
    sysseek($f, 4096 * int rand 4096, 0);
    syswrite($f, "x" x 4096) == 4096 or die "write: $!\n";
    sysopen(my $r, $path, O_RDONLY) or die "open: $!\n";
    sysseek($r, 4096 * int rand 4096, 0);
    sysread($r, my $got, 4096) == 4096 or die "read: $!\n";
    close($r) or die "close: $!\n";
    printf("%.3f %.0f\n", time, (time - $began) * 1000);
    sleep 0.01;
}
PERL
    : >"$TMP/ticks"
    perl "$TMP/ticker" "$MNT/ticks" >"$TMP/ticks" 2>"$TMP/said.ticker" &
    ticker=$!
    ticker_moves
}
longest_since() { awk -v since="$1" '$1 >= since && $2 > most {most = $2} END {print most + 0}' "$TMP/ticks"; } # milliseconds; what ended after that time
ticked() { [ "$(wc -l <"$TMP/ticks")" -ge "$1" ] || ! kill -0 $ticker; }
ticker_moves() { live_wait 20 ticked $(($(wc -l <"$TMP/ticks") + 2)); } # what it is doing now is over, and noted
ticker_end() {
    kill -0 $ticker 2>/dev/null || fail "the client that ticks: $(cat "$TMP/said.ticker")"
    kill $ticker
    wait $ticker || true
}

# ---- one cut, from beginning to end, under a load that has begun
one_is_away() { # the array runs, and somebody stands in for exactly one
    local json
    json=$(live_status)
    [ "$(sqlite3 :memory: "select json_extract('$json', '\$.state') = 'running' and
                (select count(*) from json_each('$json', '\$.ioms') where json_extract(value, '\$.stand_in') is not null) = 1")" = 1 ]
}
goes_and_returns() { # goes_and_returns KIND ID [ID]: prints how long a client stood still
    local kind=$1 began pids goes returns healed
    shift
    pids=$(for i in 0 1 2 3; do live_iom $i pid; done)
    began=$EPOCHREALTIME
    "cut_$kind" "$@"
    if [ "$kind" = pair ]; then live_wait 20 one_is_away; else live_wait 20 stands_in "$1"; fi
    load_moves 20
    ticker_moves
    sleep "${stays_s:-0}" # of a long test: more is missed
    goes=$(longest_since "$began")
    began=$EPOCHREALTIME healed=$SECONDS
    "mend_$kind" "$@"
    live_wait 120 live_healthy
    load_moves 20
    ticker_moves
    returns=$(longest_since "$began")
    expect_eq "$(for i in 0 1 2 3; do live_iom $i pid; done)" "$pids" "processes after the link was mended"
    echo "cut $kind $*: a client stood still for $goes ms when it went, $returns ms when it returned, which took $((SECONDS - healed)) s"
}
