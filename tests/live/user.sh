#!/usr/bin/env bash
# An ordinary user: with fusermount3, and in a user and mount namespace of its own.
. "$(dirname "$0")/lib.sh"
live_begin
own=$TMP/own
mkdir "$own"

cat >"$own/story" <<'SH'
set -eu
cd "$OWN"
export HOME=$OWN/home
mkdir -p "$HOME" mnt
at=$HOME/mendfs dir=() mount=() # the defaults of an ordinary user
[ "$(id -u)" != 0 ] || { dir=(--dir "$HOME/.local/share/mendfs") && mount=(--mount "$at"); } # root in its own namespace
"$MENDFS" up --size 64M "${dir[@]}" "${mount[@]}"
echo mine >"$at/a"
[ "$(cat "$at/a")" = mine ]
"$MENDFS" status "${dir[@]}"
"$MENDFS" mount "$OWN/mnt" -o eio-after=10 "${dir[@]}"
[ "$(cat "$OWN/mnt/a")" = mine ]
"$MENDFS" down "${dir[@]}"
"$MENDFS" up "${dir[@]}"
[ "$(cat "$at/a")" = mine ]
"$MENDFS" down "${dir[@]}"
"$MENDFS" check "${dir[@]}"
rm -r "$HOME"
SH
DIR=$own/home/.local/share/mendfs # for the logs, should it fail
export OWN=$own MENDFS

if [ "$(id -u)" != 0 ]; then
    bash "$own/story"
    exit 0
fi

# As root: become nobody, with a /dev/fuse that everybody may open, as on a desktop.
command -v setpriv >/dev/null || live_skip "setpriv is missing"
cat >"$TMP/as-user" <<'SH'
set -eu
mknod -m 666 "$OWN/fuse" c 10 229
mount --bind "$OWN/fuse" /dev/fuse
chmod 755 "$LIVE_TMP"
chown -R 65534:65534 "$OWN/story" "$OWN"
cp "$MENDFS" "$OWN/mendfs" # where the build lies others may not look
export MENDFS=$OWN/mendfs
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
SH
parent=$(dirname "$TMP")
[ "$(stat -c %a "$parent" | tail -c 2)" != 0 ] || chmod 711 "$parent"
unshare -m true 2>"$TMP/err" || live_skip "no mount namespaces here: $(cat "$TMP/err")"

done=0
if [ -u "$(command -v fusermount3)" ]; then
    unshare -m bash "$TMP/as-user" bash "$own/story"
    done=$((done + 1))
    rm -f "$own/fuse" "$own/mendfs"
fi
if unshare -m setpriv --reuid=65534 --regid=65534 --clear-groups unshare -Urm true 2>"$TMP/err"; then
    unshare -m bash "$TMP/as-user" unshare -Urm bash "$own/story"
    done=$((done + 1))
fi
[ $done -gt 0 ] || live_skip "fusermount3 is not setuid root, and this machine forbids user namespaces: $(cat "$TMP/err")"
