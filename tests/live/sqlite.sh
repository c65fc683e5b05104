#!/usr/bin/env bash
# SQLite in both its journal modes: locks, fsync, shared memory of the write-ahead log, two processes at once.
. "$(dirname "$0")/lib.sh"
live_begin
live_up

for mode in delete wal; do
    db=$MNT/$mode.db
    expect_eq "$(sqlite3 "$db" "pragma journal_mode=$mode")" $mode "journal mode"
    sqlite3 "$db" "create table t(who text, n integer, filler blob); create index i on t(n)"
    insert() {
        local n
        for n in $(seq 1 25); do
            echo ".timeout 20000"
            echo "begin immediate; insert into t select '$1', $n * 40 + value, randomblob(300) from generate_series(1, 40); commit;"
        done | sqlite3 -bail "$db"
    }
    insert one &
    one=$!
    insert two
    wait $one
    expect_eq "$(sqlite3 "$db" 'select count(*) from t')" 2000 "rows ($mode)"
    expect_eq "$(sqlite3 "$db" 'pragma integrity_check')" ok "integrity ($mode)"
    sqlite3 "$db" "begin; update t set n = -n; rollback; delete from t where who = 'two' and n > 500; vacuum"
    sqlite3 "$db" "select who, n, hex(filler) from t order by who, n" >"$TMP/$mode"
done
live_down
live_up
for mode in delete wal; do
    sqlite3 "$MNT/$mode.db" "select who, n, hex(filler) from t order by who, n" | expect_same "$TMP/$mode" - "rows after a restart ($mode)"
    expect_eq "$(sqlite3 "$MNT/$mode.db" 'pragma integrity_check')" ok "integrity after a restart ($mode)"
done
live_down
