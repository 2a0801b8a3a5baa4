#!/usr/bin/env bash
# bench/sqlite.sh runs: every cell of every peer has a number.  What they are is not judged here.
set -euo pipefail
[ -x "$KVFS_BINARY_DIR/bench/sqlload" ] || exit 77
folder=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-smoke.XXXXXX")
trap 'rm -rf "$folder"' EXIT
bash "$(dirname "$0")/sqlite.sh" --quick --seconds=0.05 --rows=1000 --build="$KVFS_BINARY_DIR" \
    --speedtest1= --dir="$folder" --out="$folder/out.json"
jq -e '(.cells | length) == 9 and ([.cells[][][].rate] | length == 36 and all(. > 0)) and
    ([.interface_us[][]] | length == 9 and all(. > 0))' "$folder/out.json" >/dev/null
