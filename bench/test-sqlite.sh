#!/usr/bin/env bash
# bench/sqlite.sh runs: every cell of every peer has a number.  What they are is not judged here.
set -euo pipefail
[ -x "$KVFS_BINARY_DIR/bench/sqlload" ] || exit 77
folder=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-smoke.XXXXXX")
trap 'rm -rf "$folder"' EXIT
bash "$(dirname "$0")/sqlite.sh" --quick --seconds=0.05 --rows=1000 --build="$KVFS_BINARY_DIR" \
    --speedtest1= --dir="$folder" --out="$folder/out.json"
jq -e '(.cells | length) == 9 and ([.cells[][][].rate] | length == 36 and all(. > 0)) and
    ([.interface_us[][]] | length == 11 and all(. > 0))' "$folder/out.json" >/dev/null
# The mix in the manner of speedtest1 reads the same values through either VFS.
for name in "file:$folder/mix.db" "file:mix.db?vfs=kvfs&volume=$folder/mix&create=1&engine=lmdb"; do
    "$KVFS_BINARY_DIR/bench/sqlload" --rows=2000 --seconds=0.01 fill "$name"
    "$KVFS_BINARY_DIR/bench/sqlload" --rows=2000 --seconds=0.01 mix "$name" | jq -e '.rate > 0 and .sum != 0' >/dev/null
    "$KVFS_BINARY_DIR/bench/sqlload" --rows=2000 --seconds=0.01 mix "$name" | jq .sum >>"$folder/sums"
done
[ "$(sort -u "$folder/sums" | wc -l)" = 1 ]
