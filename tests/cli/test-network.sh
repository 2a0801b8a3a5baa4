#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# A volume on a network file system (a preloaded statfs says so) is refused, unless --force.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
good=$tmp/good
v=$tmp/nfs/v
random_file "$tmp/data" 100000
ok format "$good"
ok import "$good" f "$tmp/data"
mkdir "$tmp/nfs"
cp -a "$good" "$v"
preload=${KVFS_PRELOAD:+$KVFS_PRELOAD }$KVFS_BINARY_DIR/tests/cli/libkvfs_fake_nfs.so
cat >"$tmp/kvfs" <<WRAPPER
#!/bin/sh
FAKE_NFS='$tmp/nfs' LD_PRELOAD='$preload' exec '$KVFS_BIN' "\$@"
WRAPPER
chmod +x "$tmp/kvfs"
KVFS_BIN=$tmp/kvfs
why="network file system.*NFS"
ok ls "$good" >/dev/null

both() { # COMMAND...: refused without --force, done with it
    refuses "$why" "$@"
    ok "$@" --force >/dev/null
}
both ls "$v"
both stat "$v" f
both df "$v"
both check "$v"
both check --repair "$v"
both export "$v" f "$tmp/out"
cmp "$tmp/data" "$tmp/out" || fail "bytes"
both create "$v" disk --size=1M
both resize "$v" disk 2M
both mkdir "$v" folder
both mv "$v" disk folder
both ln "$v" f g
both rm "$v" g
both import "$v" h "$tmp/data"
both compact "$v"
both copy "$v:f" "$good:f2"
both copy "$good:f" "$v:f2"
refuses "$why" copy "$good" "$tmp/nfs/new"
refuses "$why" format "$tmp/nfs/new"
[ ! -e "$tmp/nfs/new" ] || fail "half a volume"
ok format --force "$tmp/nfs/new"
refuses "$why" ls "$tmp/nfs/new"
