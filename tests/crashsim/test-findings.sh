#!/usr/bin/env bash
# test-findings.sh NAME STATES: the flaw that crashsim/findings/NAME tells of is there still.
# Each recording that is kept fails as its page says, by the command that stands there; and the same
# program, recorded anew, is found out within STATES states: by its system calls, and on a disk with an ext4.
#
# KVFS_CRASHSIM, KVFS_FINDINGS: the command, and the folder of the findings; KVFS_PROGRAM: NAME's.
set -euo pipefail

name=$1 states=$2
kept=${KVFS_FINDINGS:?}/$name program=${KVFS_PROGRAM:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
export RUST_BACKTRACE=0 TMPDIR=$work # panics in one line
expected=$(grep -v '^#' "$kept/expected")

# explore WHAT TEXT-PATTERN... -- ARG...: it has to find a violation for each pattern.
explore() {
    local what=$1 wanted=() got=0 text
    shift
    while [[ $1 != -- ]]; do
        wanted+=("$1")
        shift
    done
    shift
    "$KVFS_CRASHSIM" explore "$@" >"$work/out" 2>&1 || got=$?
    for text in "${wanted[@]}"; do
        grep -q -- "$text" "$work/out" || { cat "$work/out"; fail "$what: no '$text'"; }
    done
    [[ $got -eq 1 ]] || { cat "$work/out"; fail "$what: exit status $got"; }
    tail -n 1 "$work/out" | sed "s|^|$name, $what: |"
}

mounts() { [[ $(id -u) -eq 0 && -c /dev/fuse && -c /dev/loop-control ]]; }
check() { # WHAT: the check of its states
    if [[ $1 == trace ]]; then
        check=("$program" check)
    else
        check=("$kept/../mounted.sh" "$program" check)
    fi
}

# Each line of `expected`: trace or disk, the cut, the choice, what is said.
tar -C "$work" -xJf "$kept/disk.tar.xz"
while read -r what at choice text; do
    grep -q -- "--at=$at --choice=$choice" "$kept/README.md" ||
        fail "README.md does not tell of --at=$at --choice=$choice"
    [[ $choice == anew ]] || check "$what"
    case $what in
    trace) explore "kept trace" "$text" -- "$kept/trace" --at="$at" --choice="$choice" -- "${check[@]}" ;;
    disk)
        mounts || continue
        explore "kept disk" "$text" -- "$work/recording" --base="$work/base.img" --at="$at" \
            --choice="$choice" -- "${check[@]}"
        ;;
    esac
done <<<"$expected"

anew() { # WHAT RECORDING ARG...
    local what=$1 wanted
    shift
    mapfile -t wanted < <(sed -n "s/^$what [^ ]* [^ ]* //p" <<<"$expected")
    check "$what"
    explore "$what anew" "${wanted[@]}" -- "$@" --states="$states" --findings=1000 --shrink=0 \
        -- "${check[@]}"
}
mkdir "$work/files"
(cd "$work/files" && "$program" write 1)
"$KVFS_CRASHSIM" trace -o "$work/trace" -C "$work/files" -- sh -c "cd '$work/files' && '$program' write 3"
anew trace "$work/trace"
mounts || { echo "skipped: mounting needs root, /dev/fuse and /dev/loop-control"; exit 77; }
"$kept/../record.sh" "$work/disk" "'$program' write 1" "'$program' write 3" 2>"$work/said" ||
    { cat "$work/said"; fail "record.sh"; }
anew disk "$work/disk/recording" --base="$work/disk/base.img" --tear=4096
