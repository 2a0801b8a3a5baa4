#!/usr/bin/env bash
# test-shrink.sh: the first violation of `crashsim run` is made smaller, and its folder replays that.
set -euo pipefail

crashsim=${KVFS_CRASHSIM:?} seed=${KVFS_SEED:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED (KVFS_SEED=$seed): $*" >&2; exit 1; }
# status WANTED ARG...: run it, and judge its exit status.
status()
{
    local wanted=$1 got=0
    shift
    "$crashsim" "$@" >"$work/out" 2>&1 || got=$?
    cat "$work/out"
    [[ $got -eq $wanted ]] || fail "crashsim $*: exit status $got instead of $wanted"
}
# shrunk NAME [ARG...]: what `crashsim run ARG...` finds is shrunk, and fails when it is replayed; if it keeps (or
# drops) anything, then without that it is no violation.
shrunk()
{
    local name=$1 dir
    shift
    status 1 run kvfs --engine=lmdb --states=400 --first --seed="$seed" --findings="$work/$name" --json "$@"
    dir=$(ls -d "$work/$name"/*-1)
    state=$(head -n 1 "$dir/state")
    /usr/bin/python3 - "$state" "$dir" <"$work/out" 3<&0 <<'END' || fail "$name: not shrunk: $state"
import json, os, re, sys
o = json.load(os.fdopen(3))[0]
s = o["shrunk"]
changes = s.get("kept", s.get("dropped"))
assert s["repeated"] and s["state"] == sys.argv[1] and 1 <= s["judgings"] <= 200
assert re.fullmatch(r"\d+,(keep|drop):.*", s["state"]) and len(changes) <= s["open"]
assert (changes == []) == s["state"].endswith(":")
assert sys.argv[2] in o["command"]
END
    grep -q '^found as --state=' "$dir/state" || fail "$name: the first state is not told"
    read -r -a again < <(sed -n 's/^crashsim //p' "$dir/state")
    status 1 "${again[@]}"
    status 1 "${again[@]}" --state="$(sed -n 's/^found as --state=//p' "$dir/state")"
    [[ $state == *: ]] || status 0 "${again[@]}" --state="${state%%:*}:"
    status 2 "${again[@]}" --state="${state%%,*},keep:99999999"
    status 2 "${again[@]}" --state="${state%%,*},keep:x"
}

echo "--- by calls: a meta page without its pages, alone"
shrunk trace --way=trace --engine-params=unsafe-nosync=1 --promise=ordered
[[ $state != *: ]] || fail "nothing of it was needed: $state"
status 1 run kvfs --way=trace --engine=lmdb --engine-params=unsafe-nosync=1 --states=400 --first --shrink=0 \
    --seed="$seed" --findings="$work/whole"
! grep -q '^found as' "$work"/whole/*-1/state || fail "--shrink=0 shrinks"

[[ $(id -u) -eq 0 ]] || { echo "skipped: mounting needs root"; exit 77; }
[[ -c /dev/fuse && -c /dev/loop-control ]] || { echo "skipped: no /dev/fuse or loop"; exit 77; }
echo "--- on a disk"
export KVFS_TEST_BUG=flush-early
shrunk disk
echo ok
