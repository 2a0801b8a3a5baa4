#!/usr/bin/env bash
# The evaluation from end to end over two engines, tiny, and its report in a browser.
set -euo pipefail
for tool in gnuplot chromium fio nbdkit; do
    command -v "$tool" >/dev/null || exit 77
done
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-eval.XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$here/eval.py" --tiny --engines=lmdb,log:lmdb --build="$KVFS_BINARY_DIR" --out="$folder/out"
"$here/eval.py" check "$folder/out" | grep -q ' complete$'
jq -e '[.cells[] | select(.status == "measured")] | length >= 20' "$folder/out/results.json" >/dev/null
jq -e '[.cells[] | select(.status == "failed")] | length == 0' "$folder/out/results.json" >/dev/null ||
    { jq '.cells[] | select(.status == "failed") | [.name, .engine, .reason]' -c "$folder/out/results.json" >&2; exit 1; }
[ ! -e "$folder/out/work" ]
bash "$here/test-eval-report.sh" "$folder/out/report.html" "$KVFS_BINARY_DIR/bench/report.png"
