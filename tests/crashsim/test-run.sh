#!/usr/bin/env bash
# crashsim run and crashsim recovery, with a disk and without: no scenario and no engine shows a violation, engines made
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
status 2 run kvfs --way=sideways
status 2 run kvfs --promise=anything
# What a script passes whose variable is empty, limits of nothing, a typing error behind the first
# engine: nothing is run, and each is told in one line.
refuse() { status 2 "$@"; [[ $(wc -l <"$work/out") -eq 1 ]] || fail "crashsim $*: not one line"; }
refuse run kvfs --engine=
refuse run kvfs --findings=
refuse run kvfs --states=0
refuse run kvfs --seconds=0
refuse run kvfs --jobs=0
refuse run kvfs --jobs=257
refuse run kvfs --judge-ms=0
refuse run kvfs --engine=lmdb,no-such-engine
refuse run kvfs --state=1
refuse run kvfs --replay="$work"
refuse run --replay="$work" --engine=lmdb
refuse recovery --engines=
refuse recovery --sizes=
status 0 run --list-engines --json
/usr/bin/python3 -c 'import json, sys; assert {"engine": "lmdb", "promise": "durable"} in json.load(sys.stdin)' \
    <"$work/out" || fail "list-engines --json"
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

echo "--- the simulator itself"
status 0 selftest --seed="$seed"
for check in model forgets bug sound memory; do
    grep -q "^$check *good" "$work/out" || fail "selftest says nothing of $check"
done
status 0 selftest --seed=0 --json
/usr/bin/python3 -c 'import json, sys; o = json.load(sys.stdin); assert o["good"] and o["seed"] == 0 and len(o["checks"]) >= 5' \
    <"$work/out" || fail "selftest --json"

coproc "$crashsim" selftest --seed="$seed"
pid=$COPROC_PID
exec {told}<&"${COPROC[0]}"
while read -r line <&"$told" && [[ $line != forgets* ]]; do :; done
kill -INT "$pid"
cat <&"$told" >"$work/out"
got=0
wait "$pid" || got=$?
[[ $got -eq 130 ]] || fail "selftest, interrupted: exit status $got"
if grep -q ' in 0 states\|^memory' "$work/out"; then
    fail "selftest tells of what was interrupted: $(cat "$work/out")"
fi

if [[ -n ${KVFS_SANITIZE:-} ]]; then
    echo "--- a little of each, with a sanitizer"
    [[ $(id -u) -eq 0 ]] || skip "mounting needs root"
    [[ -c /dev/fuse && -c /dev/loop-control ]] || skip "no /dev/fuse or /dev/loop-control"
    for scenario in kvfs nbd guest recovery-of-recovery ${KVFS_SQLITE:+sqlite}; do
        status 0 run "$scenario" --states=8 --seed="$seed" --findings="$findings"
        [[ $scenario == guest ]] ||
            status 0 run "$scenario" --way=trace --states=8 --seed="$seed" --findings="$findings"
    done
    status 0 recovery --engines=lmdb --sizes=4M --cuts=1 --unflushed=256K --json
    [[ $(leftovers) == "$before" ]] || fail "a folder was left: $(leftovers)"
    echo ok
    exit 0
fi

echo "--- without a disk"
scenarios='kvfs nbd recovery-of-recovery'
[[ -z ${KVFS_SQLITE:-} ]] || scenarios+=' sqlite'
for scenario in $scenarios; do
    status 0 run "$scenario" --way=trace --states=$((20 * scale)) --seed="$seed" --findings="$findings" --json
    [[ $(field states) -ge $((20 * scale)) && $(field not_judged) -eq 0 ]] || fail "$scenario: too few states"
    [[ $(field distinct) -ge 1 && $(field acknowledged) -ge 1 ]] || fail "$scenario: nothing was done"
    status 0 run "$scenario" --way=trace --plain --states=1 --seed="$seed" --findings="$findings"
done
status 1 run kvfs --way=trace --engine=lmdb --engine-params=unsafe-nosync=1 --states=400 --first \
    --seed="$seed" --findings="$findings/trace"
status 1 run --replay="$(echo "$findings"/trace/kvfs-lmdb-*-1)"
status 0 run --replay="$(echo "$findings"/trace/kvfs-lmdb-*-1)" --promise=none
status 1 run --replay="$(echo "$findings"/trace/kvfs-lmdb-*-1)" --json
/usr/bin/python3 -c 'import json, sys; assert json.load(sys.stdin)["verdict"] == "violation"' \
    <"$work/out" || fail "replay --json"
status 1 run nbd --way=trace --engine=lmdb --engine-params=unsafe-nosync=1 --states=400 --first \
    --seed="$seed" --findings="$findings/trace"

if "$crashsim" run --list-engines | grep -q '^rocksdb '; then
    echo "--- workloads over RocksDB write tables, or none, as the seed has it"
    for s in 1 2; do
        status 1 run kvfs --way=trace --engine=rocksdb --engine-params=unsafe-nosync=1 --states=400 --first \
            --shrink=0 --seed=$s --findings="$findings/tables$s"
    done
    tables() { grep -aoE '[0-9]+[.]sst' "$findings/tables$1"/kvfs-rocksdb-*-1/trace | sort -u | wc -l; }
    [[ $(tables 1) -gt 50 && $(tables 2) -lt 10 ]] || fail "$(tables 1) and $(tables 2) tables"
    rm -r "$findings"/tables?
    for param in memtable-bytes=65535 memtable-bytes=1073741825 memtable-bytes=70000x unsafe-nosync=2; do
        status 2 run kvfs --way=trace --engine=rocksdb --engine-params=unsafe-nosync=0,$param
        grep -q "parameter '$param' (there are" "$work/out" || fail "$param: $(cat "$work/out")"
    done
fi

echo "--- a finding is judged as it was kept, or not at all"
refused() # PATTERN ARG...: in one line
{
    local pattern=$1
    shift
    status 2 "$@"
    [[ $(grep -c . "$work/out") -eq 1 ]] || fail "crashsim $*: more than a line"
    grep -q -- "$pattern" "$work/out" || fail "crashsim $*: no '$pattern'"
}
cut_short() # FOLDER FILE: refused without the last line of FILE
{
    cp -a "$1" "$work/cut"
    head -n -1 "$1/$2" >"$work/cut/$2"
    refused "cut/$2 has .* when it was kept" run --replay="$work/cut"
    rm -r "$work/cut"
}
kept=$(echo "$findings"/trace/kvfs-lmdb-*-1)
cut_short "$kept" trace
refused 'no such change' run --replay="$kept" --state=5,keep:99999999
[[ -z $("$crashsim" run --replay="$kept" --state=5,keep:99999999 2>/dev/null) ]] || fail "an error on standard output"
refused 'no instant 99999999:' run --replay="$kept" --state=99999999,drop-all,512,1
careless=(run kvfs --way=trace --engine=lmdb --engine-params=unsafe-nosync=1 --shrink=0 --seed="$seed")
status 1 "${careless[@]}" --states=150 --findings="$work/it's here"
[[ $(grep -c '^    crashsim run --replay=' "$work/out") -eq $(find "$work/it's here" -name state | wc -l) ]] ||
    fail "not a command for each finding"
again=$(sed -n 's/^    crashsim //p' "$work/out" | tail -n 1)
got=0
eval "\"\$crashsim\" $again" || got=$?
[[ $got -eq 1 ]] || fail "crashsim $again: exit status $got"
: >"$work/file"
refused 'file: Not a directory' "${careless[@]}" --findings="$work/file"
refused 'file/x: Not a directory' "${careless[@]}" --findings="$work/file/x"

echo "--- a log that is never flushed loses commits, and keeps their order"
status 0 run kvfs --way=trace --engine=log:lmdb --engine-params=unsafe-log-bug=no-flush \
    --promise=ordered --states=$((40 * scale)) --seed="$seed" --findings="$findings"
status 1 run kvfs --way=trace --engine=lmdb --engine-params=unsafe-nosync=1 \
    --promise=ordered --states=400 --first --seed="$seed" --findings="$findings/ordered"

echo "--- a judge that has no time is asked again"
status 0 run kvfs --way=trace --judge-ms=1 --states=4 --seed="$seed" --findings="$findings" --json
[[ $(field judged_again) -ge 1 ]] || fail "none was judged again"

echo "--- a stranger, without root"
if [[ $(id -u) -eq 0 ]] && command -v setpriv >/dev/null; then
    mkdir -p "$work/nobody" && chmod 711 "$work" && chmod 777 "$work/nobody"
    stranger() {
        local got=0
        (cd "$work/nobody" && setpriv --reuid=65534 --regid=65534 --clear-groups \
            "$crashsim" "$@") >"$work/out" 2>&1 || got=$?
        cat "$work/out"
        return "$got"
    }
    if stranger --version; then
        stranger run kvfs --states=10 --seed="$seed" || fail "kvfs needs root: $?"
        grep -q 'files rebuilt from a trace' "$work/out" || fail "the way is not told"
        got=0
        stranger run guest --states=10 --findings=/proc/no || got=$?
        [[ $got -eq 77 ]] || fail "guest without root: $got instead of 77"
        grep -q 'guest needs root' "$work/out" || fail "what needs root is not told"
        got=0
        stranger run kvfs --way=disk --states=10 || got=$?
        [[ $got -eq 77 ]] || fail "a disk without root: $got instead of 77"
        got=0
        stranger run all --way=disk || got=$?
        [[ $got -eq 77 && $(wc -l <"$work/out") -eq 1 ]] || fail "all without root: $got, more than a line"
    fi
fi
[[ $(leftovers) == "$before" ]] || fail "a folder was left: $(leftovers)"
[[ $(id -u) -eq 0 ]] || skip "mounting needs root"
for tool in nbdkit nbdfuse mkfs.ext4 e2fsck; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[[ -c /dev/fuse && -c /dev/loop-control ]] || skip "no /dev/fuse or /dev/loop-control"
echo "--- a program that is missing is named, before anything begins"
mkdir "$work/bin"
for tool in nbdkit nbdfuse mkfs.ext4 rm cp; do
    ln -s "$(command -v "$tool")" "$work/bin"
done
for command in 'run all' 'run guest' 'run kvfs' recovery; do
    # shellcheck disable=SC2086 # words
    said=$(PATH=$work/bin "$crashsim" $command --json 2>&1) && fail "$command without e2fsck: $said" || got=$?
    [[ $got -eq 2 && $said == *'e2fsck is needed'* && $(grep -c crashsim: <<<"$said") -eq 1 ]] ||
        fail "$command without e2fsck: $got, $said"
done
echo "--- every scenario"
scenarios='kvfs nbd guest recovery-of-recovery'
[[ -z ${KVFS_SQLITE:-} ]] || scenarios+=' sqlite'
for scenario in $scenarios; do
    status 0 run "$scenario" --states=$((8 * scale)) --seed="$seed" --findings="$findings" --json
    [[ $(field states) -ge $((8 * scale)) ]] || fail "$scenario: too few states"
    [[ $(field distinct) -ge 1 ]] || fail "$scenario: no state differs from none"
    [[ $(field live_cuts) -ge 1 && $(field operations) -ge 1 ]] || fail "$scenario: nothing was done"
    [[ $(field undecided) -eq 0 ]] || fail "$scenario: undecided states prove nothing"
    [[ $(field not_judged) -eq 0 ]] || fail "$scenario: states were not judged"
done

echo "--- every engine"
status 0 run kvfs --engine=all --states=$((3 * scale)) --seed="$seed" --findings="$findings"

echo "--- a disk without cuts"
for scenario in kvfs nbd guest; do
    status 0 run "$scenario" --plain --states=2 --seed="$seed" --findings="$findings" --json
    [[ $(field states) -eq 2 && $(field distinct) -eq 2 ]] || fail "$scenario: the first states are not counted as distinct"
done

echo "--- engines made careless are found, and found again"
status 1 run kvfs --engine=lmdb --engine-params=unsafe-nosync=1 --states=200 --first \
    --seed="$seed" --findings="$findings"
[[ -s $(echo "$findings"/kvfs-lmdb-*/state) ]] || fail "the finding was not kept"
for scenario in $scenarios; do # its words reach whatever opens the volume
    status 1 run "$scenario" --engine=lmdb --engine-params=unsafe-nosync=1 --states=200 --first --shrink=0 \
        --seed="$seed" --findings="$findings/$scenario"
done
cut=$(head -n 1 "$findings"/kvfs-lmdb-*-1/state)
status 1 run --replay="$(echo "$findings"/kvfs-lmdb-*-1)"
status 1 run --replay="$(echo "$findings"/kvfs-lmdb-*-1)" --state="$cut"
cut_short "$(echo "$findings"/kvfs-lmdb-*-1)" recording.side
status 1 run kvfs --engine=log:lmdb --engine-params=unsafe-log-bug=no-flush --states=200 --first \
    --seed="$seed" --findings="$findings"

echo "--- no room below is no violation, and leaves nothing"
mkdir "$work/small"
if mount -t tmpfs -o size=24M none "$work/small"; then
    trap 'umount "$work/small"; rm -rf "$work"' EXIT
    for scenario in kvfs guest; do
        status 2 run "$scenario" --tmp="$work/small" --states=20 --seed="$seed" --findings="$findings/small"
    done
    [[ -z $(ls "$work/small") && ! -e $findings/small ]] || fail "something was left where there was no room"
    umount "$work/small"
    mount -t tmpfs -o size=8M none "$work/small"
    for scenario in kvfs nbd; do # the workload itself, before there is any state
        status 2 run "$scenario" --way=trace --engine=lmdb --tmp="$work/small" --states=20 --seed=1 --findings="$findings/small"
        [[ $(grep -c crashsim: "$work/out") -eq 1 ]] || fail "$scenario says more than a line"
    done
    status 2 selftest --seed=1 --tmp="$work/small"
    { grep -q '^sound *cannot: the folder is full' "$work/out" && ! grep -q FAILED "$work/out"; } || fail "selftest in a full folder"
    [[ -z $(ls "$work/small") && ! -e $findings/small ]] || fail "something was left where there was no room"
    umount "$work/small"
    mount -t tmpfs -o size=64k none "$work/small"
    refused 'mkfs.ext4 failed: .* is full$' recovery --engines=lmdb --cuts=1 -q --tmp="$work/small"
    status 1 "${careless[@]}" --states=400 --first --findings="$work/small" --json # what was found cannot be kept
    { grep -q '"kept":false' "$work/out" && grep -q '"command":"crashsim run kvfs .*--seed=' "$work/out"; } ||
        fail "not kept, and not told so"
    grep -q 'not kept: copying .* No space left' "$work/out" || fail "why it is not kept is not told"
    [[ -z $(ls "$work/small") ]] || fail "half a finding was left"
    umount "$work/small"
    trap 'rm -rf "$work"' EXIT
fi

echo "--- the way back, timed"
status 0 recovery --engines=lmdb,log:lmdb --sizes=4M --cuts=2 --unflushed=0K,256K --json
[[ $(field cuts) -eq 2 ]] || fail "cuts are missing"
/usr/bin/python3 -c 'import json, sys; o = json.load(sys.stdin); c = o["cells"]
assert len(c) == 4 and {x["unflushed"] for x in c} == {0, 262144} and len(o["ratios"]) == 2
for x in c:
    assert len(x["crash"]["total"]["raw_ms"]) == 2
    assert x["crash"]["mount_alone"]["raw_ms"][0] < x["crash"]["total"]["raw_ms"][0]' <"$work/out" ||
    fail "recovery --json"

[[ $(leftovers) == "$before" ]] || fail "a folder was left: $(leftovers)"
echo ok
