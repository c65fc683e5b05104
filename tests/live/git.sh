#!/usr/bin/env bash
# git: init, commits, clone, gc, fsck.
. "$(dirname "$0")/lib.sh"
live_begin
live_up
export HOME=$TMP GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org

cd "$MNT"
git init -q repo
cd repo
mkdir -p src/deep/er
for n in $(seq 1 12); do
    for f in a b c; do head -c $((n * 700)) /dev/urandom | base64 >"src/$f$n"; done
    seq 1 $((n * 100)) >src/deep/er/grows
    git add .
    git commit -qm "number $n"
done
git mv src/a1 src/renamed
git commit -qam rename
git checkout -qb branch HEAD~5
echo branch >src/branch
git add . && git commit -qm branch
git checkout -q -
git merge -q -m merge branch
expect_eq "$(git status --porcelain)" "" "status"
cd ..
git clone -q repo clone
diff -r --exclude=.git repo clone
git -C repo gc -q --prune=now
git -C repo fsck --full --strict
git -C clone fsck --full --strict
head=$(git -C repo rev-parse HEAD)
cd /
live_down
live_up
expect_eq "$(git -C "$MNT/repo" rev-parse HEAD)" "$head" "HEAD after a restart"
git -C "$MNT/repo" fsck --full --strict
expect_eq "$(git -C "$MNT/clone" status --porcelain)" "" "status after a restart"
live_down
