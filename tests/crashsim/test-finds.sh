#!/usr/bin/env bash
# test-finds.sh BUG SCENARIO ENGINE STATES: the planted bug is found by `crashsim run SCENARIO`
# within so many states.  BUG: of kvfs/testbug.h, or engine:PARAMETERS.
set -euo pipefail

bug=$1 scenario=$2 engine=$3 states=$4 params=() got=0
[[ $(id -u) -eq 0 ]] || { echo "skipped: mounting needs root"; exit 77; }
[[ -c /dev/fuse && -c /dev/loop-control ]] || { echo "skipped: no /dev/fuse or loop"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ $bug == engine:* ]]; then
    params=("--engine-params=${bug#engine:}")
else
    export KVFS_TEST_BUG=$bug
fi
"${KVFS_CRASHSIM:?}" run "$scenario" --engine="$engine" "${params[@]}" --states="$states" --first --shrink=0 \
    --seed="${KVFS_SEED:-1}" --findings="$work/findings" || got=$?
[[ $got -eq 1 ]] || { echo "FAILED: $bug was not found (exit status $got)" >&2; exit 1; }
