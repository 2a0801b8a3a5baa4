# shellcheck shell=bash
# What the tests of the kvfs command share.  Sourced first; gives $tmp (removed
# at the end, with every mount and process begun through here), kvfs, and the
# assertions below.
set -euo pipefail
export LC_ALL=C TZ=UTC
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-cli-XXXXXX")
pids=()
mounts=()
lib_cleanup() {
    local status=$? p
    for p in ${pids[@]+"${pids[@]}"}; do
        kill -KILL "$p" 2>/dev/null || true
    done
    for p in ${mounts[@]+"${mounts[@]}"}; do
        umount -l "$p" 2>/dev/null || true
    done
    rm -rf "$tmp"
    [ $status = 0 ] || [ $status = 77 ] || echo "ended with status $status"
    exit $status
}
trap lib_cleanup EXIT

fail() {
    echo "FAILED (line ${BASH_LINENO[0]}, ${BASH_LINENO[1]:-}): $*" >&2
    [ ! -s "$tmp/stderr" ] || sed 's/^/  stderr: /' "$tmp/stderr" >&2
    exit 1
}
kvfs() {
    "$KVFS_BIN" "$@"
}
needs() { # TOOL...
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || {
            echo "skipped: $tool is missing"
            exit 77
        }
    done
}
needs python3
engines=$("$KVFS_BIN" engines)
[[ $engines == *$'\n'lmdb\ * ]] || {
    echo "skipped: no LMDB"
    exit 77
}

same() { # WANT GOT [ABOUT]
    [ "$1" = "$2" ] || fail "${3:-value}: wanted '$1', got '$2'"
}
# Succeeds and says nothing on stderr.
ok() {
    local status=0
    "$KVFS_BIN" "$@" 2>"$tmp/stderr" || status=$?
    [ $status = 0 ] || fail "kvfs $*: status $status"
    [ ! -s "$tmp/stderr" ] || fail "kvfs $*: talks on stderr"
}
# Fails as a program should: a status of its own (no signal, no abort), nothing
# on stdout, one line on stderr that begins with "kvfs: " and holds PATTERN.
refuses() { # PATTERN COMMAND...
    local pattern=$1 status=0
    shift
    "$KVFS_BIN" "$@" >"$tmp/stdout" 2>"$tmp/stderr" || status=$?
    one_line "$status" "$pattern" "kvfs $*"
    [ ! -s "$tmp/stdout" ] || fail "kvfs $*: prints all the same: $(head -c 200 "$tmp/stdout")"
}
one_line() { # STATUS PATTERN ABOUT: judges $tmp/stderr
    [ "$1" -gt 0 ] || fail "$3: succeeds"
    [ "$1" -lt 126 ] || fail "$3: status $1"
    same 1 "$(wc -l <"$tmp/stderr")" "$3: lines on stderr"
    grep -q '^kvfs: ' "$tmp/stderr" || fail "$3: no 'kvfs: ' before the error"
    grep -Eqi -e "$2" "$tmp/stderr" || fail "$3: the error does not say '$2'"
}
# Wait for a condition, without trusting any time but an upper bound.
await() { # COMMAND...
    local n=0
    until "$@"; do
        n=$((n + 1))
        [ $n -lt 1200 ] || fail "waited in vain for: $*"
        sleep 0.05
    done
}
nbdsh() { # with the system's python, whose module it is
    PATH=/usr/bin:/bin command nbdsh "$@"
}
random_file() { # PATH BYTES: repeatable with KVFS_SEED
    python3 -c 'import random, sys
sys.stdout.buffer.write(random.Random(sys.argv[1]).randbytes(int(sys.argv[2])))' \
        "$seed-$2" "$2" >"$1"
}
json() { # EXPRESSION over the parsed JSON `j` on stdin
    python3 -c 'import json, sys
j = json.load(sys.stdin)
print(eval("(" + sys.argv[1] + ")"))' "$1"
}
seed=${KVFS_SEED:-$RANDOM}
echo "seed $seed (KVFS_SEED=$seed repeats it)"
