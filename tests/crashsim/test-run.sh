#!/usr/bin/env bash
# crashsim run and crashsim recovery: no scenario and no engine shows a violation, engines made
# careless do, and what is found is found again from its folder; a disk without cuts never fails
# the oracle; nothing is left behind.
#
# KVFS_CRASHSIM: the command; KVFS_SCALE: factor on the number of states; KVFS_SEED.
set -euo pipefail

fail() { echo "FAILED: $*" >&2; exit 1; }
skip() { echo "skipped: $*"; exit 77; }

crashsim=${KVFS_CRASHSIM:?}
scale=${KVFS_SCALE:-1}
seed=${KVFS_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
echo "seed $seed (repeat with KVFS_SEED=$seed)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
findings=$work/findings

# status WANTED ARG...: run it, and judge its exit status.
status()
{
    local wanted=$1 got=0
    shift
    "$crashsim" "$@" >"$work/out" 2>&1 || got=$?
    cat "$work/out"
    [[ $got -eq $wanted ]] || fail "crashsim $*: exit status $got instead of $wanted"
}
# A number of the JSON that status printed; of several engines the least.
field() { sed -n "s/^ *\"$1\":\([0-9.]*\),*$/\1/p" "$work/out" | sort -n | head -n 1; }

status 2 run
status 2 run no-such-scenario
status 2 run kvfs --engine=no-such-engine
status 2 run kvfs --states=many
status 2 run --replay="$work/nothing"
status 2 recovery --sizes=1X
status 2 recovery --engines=mem
[[ $(id -u) -eq 0 ]] || { status 77 run kvfs; skip "mounting needs root"; }
for tool in nbdkit nbdfuse mkfs.ext4 e2fsck; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[[ -c /dev/fuse && -c /dev/loop-control ]] || skip "no /dev/fuse or /dev/loop-control"
# Folders whose process is gone; those of other tests are there meanwhile.
leftovers()
{
    local folder pid
    for folder in /dev/shm/crashsim-*; do
        pid=${folder#/dev/shm/crashsim-}
        [[ ! -d $folder || -d /proc/${pid%%.*} ]] || echo "$folder"
    done
}
before=$(leftovers)

echo "--- every scenario"
scenarios='kvfs nbd guest recovery-of-recovery'
[[ -z ${KVFS_SQLITE:-} ]] || scenarios+=' sqlite'
for scenario in $scenarios; do
    status 0 run "$scenario" --states=$((8 * scale)) --seed="$seed" --findings="$findings" --json
    [[ $(field states) -ge $((8 * scale)) ]] || fail "$scenario: too few states"
    [[ $(field live_cuts) -ge 1 && $(field operations) -ge 1 ]] || fail "$scenario: nothing was done"
    [[ $(field undecided) -eq 0 ]] || fail "$scenario: undecided states prove nothing"
done

echo "--- every engine"
status 0 run kvfs --engine=all --states=$((3 * scale)) --seed="$seed" --findings="$findings"

echo "--- a disk without cuts"
status 0 run kvfs --plain --states=2 --seed="$seed" --findings="$findings"

echo "--- engines made careless are found, and found again"
status 1 run kvfs --engine=lmdb --engine-params=unsafe-nosync=1 --states=200 --first \
    --seed="$seed" --findings="$findings"
[[ -s $(echo "$findings"/kvfs-lmdb-*/state) ]] || fail "the finding was not kept"
cut=$(head -n 1 "$findings"/kvfs-lmdb-*-1/state)
status 1 run --replay="$(echo "$findings"/kvfs-lmdb-*-1)"
status 1 run --replay="$(echo "$findings"/kvfs-lmdb-*-1)" --state="$cut"
status 1 run kvfs --engine=log:lmdb --engine-params=unsafe-log-bug=no-flush --states=200 --first \
    --seed="$seed" --findings="$findings"

echo "--- the way back, timed"
status 0 recovery --engines=lmdb,log:lmdb --sizes=4M --cuts=2 --work=256K --json
[[ $(field cuts) -eq 2 ]] || fail "cuts are missing"
grep -q '"total"' "$work/out" || fail "no ratio"

[[ $(leftovers) == "$before" ]] || fail "a folder was left: $(leftovers)"
echo ok
