#!/usr/bin/env bash
# The bench runs: every cell of every peer has its numbers.  What they are is not judged here.
set -euo pipefail
for tool in nbdkit qemu-nbd fio python3; do
    command -v "$tool" >/dev/null || exit 77
done
out=$(mktemp "${TMPDIR:-/tmp}/kvfs-smoke.XXXXXX")
trap 'rm -f "$out"' EXIT
bash "$(dirname "$0")/nbd.sh" --smoke --build="$KVFS_BINARY_DIR" --out="$out"
python3 "$(dirname "$0")/report.py" check "$out"
# The names printed are those that --list tells and --only takes.
listed() { bash "$(dirname "$0")/nbd.sh" --list "$@"; }
printed=$(python3 -c 'import json, sys; print(*json.load(open(sys.argv[1]))["cells"], sep="\n")' "$out")
diff <(sort <<<"$printed") <(listed | sort)
for name in $printed; do
    grep -qx "$name" <<<"$(listed --only="$name")"
done
[ "$(listed --only=sequential_write | wc -l)" = 3 ]

# So do the engines beside one another.
python3 "$(dirname "$0")/engines.py" --quick --build="$KVFS_BINARY_DIR" --engines=lmdb --out="$out"
jq -e '[.rows[] | .fill, .overwrite, .read, .space, .adapter.fill] | length == 15 and all(. > 0)' \
    "$out" >/dev/null
