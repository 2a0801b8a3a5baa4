#!/usr/bin/env bash
# What test-trace.sh says of LMDB and SQLite by their system calls, on a disk: ext4 on a loop device on nbdfuse
# on the filter, recorded, and its states mounted.  Careless modes are found out within STATES states,
# others show nothing in as many.
set -euo pipefail

bank=${KVFS_CRASHSIM_BANK:?} findings=${KVFS_FINDINGS:?} states=${STATES:-60}
fail() { echo "FAILED: $*" >&2; exit 1; }
[[ $(id -u) -eq 0 ]] || { echo "skipped: mounting needs root"; exit 77; }
[[ -c /dev/fuse && -c /dev/loop-control ]] || { echo "skipped: no /dev/fuse or loop"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
export BANK_WRITEBACK=1 # else what nobody syncs stays in the kernel, and a cut finds nothing half done

record() { # STORE MODE
    rm -rf "$work/disk"
    "$findings/record.sh" "$work/disk" "'$bank' $1 $2 write 0" "'$bank' $1 $2 write 8" 2>"$work/said" ||
        { cat "$work/said"; fail "$1 $2: no recording"; }
}
judge() { # STATUS WHAT STORE MODE: of what was recorded
    local got=0
    "$KVFS_CRASHSIM" explore "$work/disk/recording" --base="$work/disk/base.img" --tear=4096 \
        --states="$states" -- "$findings/mounted.sh" "$bank" "$3" "$4" check >"$work/out" 2>&1 || got=$?
    [[ $got -eq $1 ]] || { cat "$work/out"; fail "$3 $4: status $got, not $1"; }
    grep -q -- "$2" "$work/out" || { cat "$work/out"; fail "$3 $4: not '$2'"; }
    tail -n 1 "$work/out" | sed "s/^/$3 $4: /"
}
if [[ $KVFS_CRASHSIM_STORES == *lmdb* ]]; then
    record lmdb default
    judge 0 ' 0 violations' lmdb default
    record lmdb nosync
    judge 1 lost lmdb nosync
    judge 1 'violation 1' lmdb nosync+
fi
if [[ $KVFS_CRASHSIM_STORES == *sqlite* ]]; then
    record sqlite wal-full
    judge 0 ' 0 violations' sqlite wal-full
    record sqlite delete-extra
    judge 0 ' 0 violations' sqlite delete-extra
    record sqlite delete-full
    judge 1 'lost: commit \([0-9]*\) is the last' sqlite delete-full
    judge 0 ' 0 violations' sqlite delete-full+ # the last commit may be gone, as the manual says; no more
    record sqlite delete-off
    judge 1 'violation 1' sqlite delete-off+
    record sqlite wal-off
    judge 1 'violation 1' sqlite wal-off+
fi
