#!/usr/bin/env bash
# planted.sh PROGRAM BUG: the program's cases must find the planted bug, by an assertion and not
# by a crash; with `none` they must find nothing.
set -euo pipefail
status=0
out=$(KVFS_TEST_BUG=$2 "$1" 2>&1) || status=$?
if [ "$2" = none ]; then
    [ $status = 0 ] || { echo "$out" && echo "FAILED without a bug" && exit 1; }
    exit 0
fi
[ $status -lt 100 ] || { echo "$out" && echo "FAILED: crashed with status $status" && exit 1; }
grep -F '[  FAILED  ]' <<<"$out" || { echo "$out" && echo "FAILED: $2 was not found" && exit 1; }
