#!/usr/bin/env bash
# Bad input is refused in one clear line, and leaves nothing behind; --help, the manual and the
# parser know the same parameters.
set -euo pipefail
command -v nbdkit >/dev/null || exit 77

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
manual="$KVFS_SOURCE_DIR/crashsim/filter/nbdkit-crashsim-filter.1"
nbdkit_() {
    LD_PRELOAD=${KVFS_PRELOAD:-} ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" nbdkit "$@"
}
fail() {
    echo "$*" >&2
    exit 1
}
refused() { # WANTED-PATTERN ARG...: nbdkit does not start, and says so in one line
    local wanted=$1 said
    shift
    if said=$(nbdkit_ -f -U - --filter="$KVFS_CRASHSIM_FILTER" memory 1M "$@" --run true 2>&1); then
        fail "taken: $*"
    fi
    grep -q -- "$wanted" <<<"$said" || fail "$*: says '$said', not '$wanted'"
    [ "$(grep -c . <<<"$said")" = 1 ] || fail "$*: says more than a line: $said"
}

refused 'random or subset' crashsim-survive=all
refused 'byte or garbage' crashsim-tear=1024
refused 'a number from 0' crashsim-seed=18446744073709551616
refused 'a number from 0' crashsim-seed=-1
refused 'a number from 1' crashsim-cut-after-writes=0
refused 'a number from 1' crashsim-cut-within=x
refused 'native or none' crashsim-fua=emulate
refused 'a rate' crashsim-eio-read=2
refused 'sd, usb-ssd' crashsim-latency=floppy
refused 'OFFSET,LENGTH' crashsim-rot=5
refused 'from 0 to 100' crashsim-jitter=101
refused 'printable' "crashsim-cut-mark="
refused 'at most 107 bytes' crashsim-control="$dir/$(printf 'x%.0s' {1..120})"
: >"$dir/file"
refused 'there is a file' crashsim-control="$dir/file"
refused 'File exists' crashsim-record="$dir/file"
refused 'No such file' crashsim-record="$dir/none/file"
refused 'the same file' crashsim-record="$dir/x" crashsim-control="$dir/x"
# Rot behind the end of the disk, whose size is known once it is open.
for rot in 1048576,1 1048575,2 9223372036854775806,1; do
    said=$(nbdkit_ -f -U - --filter="$KVFS_CRASHSIM_FILTER" memory 1M crashsim-rot=0,1048576 crashsim-rot=$rot \
        crashsim-record="$dir/x" 2>&1) && fail "taken: crashsim-rot=$rot"
    [ "${said##*error: }" = "crashsim-rot=$rot: the disk ends at 1048576" ] ||
        fail "crashsim-rot=$rot says '$said'"
done
set -- "$dir"/*
[ "$*" = "$dir/file" ] || fail "left behind: $*"

cat >"$dir/ctl.sh" <<'CTL'
fail() {
    echo "$*" >&2
    exit 1
}
ctl() { # STATUS WANTED ARG...
    local status=$1 wanted=$2 said rc=0
    shift 2
    said=$("$KVFS_CRASHSIMCTL" "$@" 2>&1) || rc=$?
    [ $rc = "$status" ] || fail "crashsimctl $*: status $rc: $said"
    grep -q -- "$wanted" <<<"$said" || fail "crashsimctl $*: says '$said', not '$wanted'"
    [ "$status" = 0 ] || [ "$(grep -c . <<<"$said")" = 1 ] || fail "crashsimctl $*: $said"
}
CTL
# shellcheck source=/dev/null
. "$dir/ctl.sh"
export dir
ctl 0 usage: --help
ctl 2 'SOCKET and a command'
ctl 2 'none of cut' "$dir/c" fly
ctl 2 'not understood' "$dir/c" stats more
ctl 2 'one NAME' "$dir/c" mark
ctl 1 'No such file' "$dir/c" stats
ctl 2 'a?b: not understood' "$dir/c" stats $'a\nb'
ctl 2 'no spaces' "$dir/c" cut '--seed=1 tear=none'

# A socket that a killed server left is replaced, one of a server that runs is not.
cat >"$dir/live.sh" <<'LIVE'
set -euo pipefail
# shellcheck source=/dev/null
. "$dir/ctl.sh"
ctl 1 'no such mode' "$dir/c" cut --survive=all
ctl 1 'does not know' "$dir/c" cut --fast=1
ctl 1 'a number from 1' "$dir/c" cut --after-writes=0
ctl 1 'a number from 0' "$dir/c" cut --seed=99999999999999999999
ctl 1 'printable' "$dir/c" mark $'a\tb'
ctl 1 'the power is on' "$dir/c" power-on
ctl 0 '"power": "on"' "$dir/c" stats --json
if nbdkit -f -U - --filter="$KVFS_CRASHSIM_FILTER" memory 1M crashsim-control="$dir/c" \
    --run true 2>"$dir/said"; then
    fail 'a second server took the same socket'
fi
grep -q 'another server' "$dir/said" || fail "$(cat "$dir/said")"
ctl 0 'open=0' "$dir/c" cut
ctl 1 'off already' "$dir/c" cut
ctl 1 'off already' "$dir/c" mark x
ctl 0 '' "$dir/c" power-on
ctl 0 '' "$dir/c" cut --at-mark='two words' --survive=drop-all
ctl 0 '' "$dir/c" mark two
ctl 0 'power=on' "$dir/c" stats
ctl 0 '' "$dir/c" mark 'two words'
ctl 0 'cut_survive=drop-all' "$dir/c" stats
ctl 0 '' "$dir/c" power-on
LIVE
python3 - "$dir/c" <<'PY'
import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])
PY
[ -S "$dir/c" ]
nbdkit_ -f -U - --filter="$KVFS_CRASHSIM_FILTER" memory 1M crashsim-control="$dir/c" \
    --run "bash '$dir/live.sh'"
[ ! -e "$dir/c" ] || fail 'the control socket was left'

# Over a plugin with exports: nothing is said where nothing is wrong.
if [ -e "$KVFS_BINARY_DIR/cli/kvfs" ] && [ -e "$KVFS_BINARY_DIR/plugin/nbdkit-kvfs-plugin.so" ]; then
    "$KVFS_BINARY_DIR/cli/kvfs" format "$dir/volume" >/dev/null
    "$KVFS_BINARY_DIR/cli/kvfs" create "$dir/volume" disk --size=1M
    said=$(nbdkit_ -f -U - --filter="$KVFS_CRASHSIM_FILTER" "$KVFS_BINARY_DIR/plugin/nbdkit-kvfs-plugin.so" \
        volume="$dir/volume" file=disk --run true 2>&1) || fail "over kvfs: $said"
    [ -z "$said" ] || fail "over kvfs: $said"
fi

# Another export than the one that is served.
command -v nbdinfo >/dev/null || exit 0
if nbdkit_ -f -U - --filter="$KVFS_CRASHSIM_FILTER" memory 1M \
    --run 'nbdinfo "nbd+unix:///other?socket=$unixsocket"' >"$dir/said" 2>&1; then
    fail 'another export was served'
fi
grep -q 'default export alone' "$dir/said" || fail "$(cat "$dir/said")"

help=$(nbdkit_ --filter="$KVFS_CRASHSIM_FILTER" memory --help | sed -n 's/^\(crashsim-[a-z-]*\)=.*/\1/p' | sort)
entries=$(sed -n '/^\.SH PARAMETERS/,/^\.SH CRASHSIMCTL/p' "$manual" | sed 's/\\-/-/g' |
    sed -n 's/^\.B[IR]* *\(crashsim-[a-z-]*\)=.*/\1/p' | sort)
[ -n "$help" ] || fail 'no parameters in --help'
[ "$help" = "$entries" ] || fail "--help has: $help; the manual has: $entries"
