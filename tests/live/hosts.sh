#!/usr/bin/env bash
# Labels of hosts: taken, kept, shown; proxies and files over hosts; the death of an IOM, and of a whole host; what is no label.
. "$(dirname "$0")/lib.sh"
live_begin
LIVE_SIZE=64M
printf '#!/bin/sh\nexec "%s" up --dir "%s" --mount "%s" --size 64M "$@"\n' "$MENDFS" "$DIR" "$MNT" >"$TMP/up"
chmod +x "$TMP/up"
top() { # top FIELD: what status says of the array
    local json
    json=$(live_status)
    sqlite3 :memory: "select json_extract('${json//\'/\'\'}', '\$.$1')"
}
each() { # each FIELD: of all IOMs, one after the other
    local i
    for i in "${ids[@]}"; do live_iom "$i" "$1"; done | tr '\n' ' '
}

# ---- what is no label
says 'labels for 4 IOMs; give one for each' 1 "$TMP/up" --ioms 4 --hosts a,b,c
says 'labels for 3 IOMs' 1 "$TMP/up" --ioms 3 --hosts a,b,c,d
says '2 labels; an array has 3 to 16 IOMs' 1 "$TMP/up" --hosts a,b
says 'the label of IOM 1, "", is none: 1 to 31' 1 "$TMP/up" --hosts a,,c
says 'the label of IOM 2, "c d", is none' 1 "$TMP/up" --hosts "a,b,c d"
says 'the label of IOM 0, "x{32}", is none' 1 "$TMP/up" --hosts "$(printf 'x%.0s' $(seq 32)),b,c"
says 'hosts needs a value' 2 "$TMP/up" --hosts
[ ! -e "$DIR/cluster.conf" ] || fail "an up that failed leaves a cluster"

# ---- five IOMs on three hosts: proxies elsewhere, files over three of them
ids=(0 1 2 3 4)
"$TMP/up" --hosts a,a,b,b,c >"$TMP/said" 2>&1
expect_eq "$(tail -n 1 "$TMP/said")" "running: 5 IOMs, mounted at $MNT" "up with as many IOMs as labels"
expect_eq "$(grep -c warning "$TMP/said" || true)" 0 "warnings of hosts that are enough"
expect_eq "$(each host)" "a a b b c " "hosts in status --json"
host=(a a b b c)
for i in "${ids[@]}"; do
    [ "${host[i]}" != "${host[$(live_iom $i proxy)]}" ] || fail "IOM $i and its proxy are on one host"
done
expect_eq "$(top hosts) $(top hosts_warning)" "3 " "hosts, and no warning"
"$MENDFS" status --dir "$DIR" >"$TMP/said"
said '^  2 .* up +b +[0-9]'
"$MENDFS" status --at "unix:$DIR/run/iom-3.sock" >"$TMP/said" || true # the map's labels, not cluster.conf's
said '^  4 .* c +[0-9]'
echo x >"$MNT/f"
expect_eq "$(getfattr --only-values -n user.mendfs.span "$MNT/f")" 3 "members of a file"
mkdir "$MNT/wide"
"$MENDFS" policy set "$MNT/wide" span=5 >"$TMP/said" 2>&1
said 'span=5 of .*: the IOMs are on 3 hosts, .* so new files get span=3'
says 'hosts of .*cannot be set|there are toughness=' 2 "$MENDFS" policy set "$MNT/wide" hosts=9
echo x >"$MNT/wide/f"
expect_eq "$(getfattr --only-values -n user.mendfs.span "$MNT/wide/f")" 3 "members of a file of a wider policy"
"$MENDFS" policy set "$MNT/wide" protection=none >"$TMP/said" 2>&1
expect_eq "$(grep -c hosts "$TMP/said" || true)" 0 "a file without redundancy may span all"

# ---- one IOM dies: its proxy, on the other host, stands in for it
mkdir "$MNT/d"
for n in $(seq 1 12); do
    head -c $((n * 50000)) /dev/urandom >"$TMP/$n"
    dd if="$TMP/$n" of="$MNT/d/$n" bs=64K conv=fsync status=none
done
verify() { for n in $(seq 1 12); do expect_same "$TMP/$n" "$MNT/d/$n" "file $n, $1"; done; }
proxy=$(live_iom 1 proxy)
kill -KILL "$(live_iom 1 pid)"
stands_in() { [ "$(live_iom 1 stand_in)" = "$proxy" ]; }
live_wait 20 stands_in
"$MENDFS" status --dir "$DIR" >"$TMP/said" || true
said "IOM 1 is away: IOM $proxy stands in for it"
verify "while an IOM is away"
"$MENDFS" check --dir "$DIR"
"$TMP/up" >/dev/null
live_wait 60 live_healthy

# ---- a whole host dies: the array waits, and goes on when its IOMs are back
# shellcheck disable=SC2046 # one word each
kill -KILL $(live_iom 2 pid) $(live_iom 3 pid)
"$TMP/up" >/dev/null
live_wait 60 live_healthy
verify "after a host of two IOMs died"
live_down >/dev/null
"$MENDFS" check --dir "$DIR"

# ---- the labels stay what they were
says 'IOM 1 of the array in .* is on host a, not b' 1 "$TMP/up" --hosts a,b,b,b,c
says '3 labels for 5 IOMs' 1 "$TMP/up" --hosts a,b,c
cp "$DIR/cluster.conf" "$TMP/conf"
sed -i 's/"host": "c"/"host": "d"/' "$DIR/cluster.conf"
says 'could not be started' 1 "$TMP/up"
said 'cluster.conf has IOM 4 on host d, and the array was made with it on host c; put that back'
says 'could not check' 2 "$MENDFS" check --dir "$DIR"
sed 's/"host": "c"/"host": "c d"/' "$TMP/conf" >"$DIR/cluster.conf"
says 'cannot be used: the "host" of an IOM.s entry is no label' 1 "$TMP/up"
sed '0,/,[[:space:]]*$/!b' "$TMP/conf" | sed '/"host": "c"/d; s/\("at": ".*iom-4.sock"\),/\1/' >"$DIR/cluster.conf"
says 'some IOMs. entries have a "host" and some have none' 1 "$TMP/up"
cp "$TMP/conf" "$DIR/cluster.conf"
"$TMP/up" --hosts a,a,b,b,c >/dev/null
verify "after all that"
live_down >/dev/null

# ---- hosts that are not enough: a warning when it is made, and in status
DIR=$TMP/two
says '^running: 4' 0 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --hosts a,a,b,b
said '^warning: the 4 IOMs are on 2 hosts: the death of one takes several members'
"$MENDFS" status --dir "$DIR" >"$TMP/said"
said '^hosts: the 4 IOMs are on 2 hosts'
[[ $(top hosts_warning) == "the 4 IOMs are on 2 hosts"* ]] || fail "no warning in status --json: $(top hosts_warning)"
echo x >"$MNT/f"
expect_eq "$(getfattr --only-values -n user.mendfs.span "$MNT/f")" 4 "members of a file where hosts are not enough"
"$MENDFS" up --dir "$DIR" --mount "$MNT" >"$TMP/said" 2>&1
expect_eq "$(grep -c warning "$TMP/said" || true)" 0 "the warning is given once"
live_down >/dev/null
DIR=$TMP/crowded
says '^running: 5' 0 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --hosts a,a,a,b,c
said '^warning: IOM [0-2] and its proxy, IOM [0-2], are both on host a'
live_down >/dev/null
DIR=$TMP/one
says '^running: 3' 0 "$MENDFS" up --dir "$DIR" --mount "$MNT" --size 64M --ioms 3
said '^warning: all 3 IOMs are on one host, '
live_down
