#!/usr/bin/env bash
# usage: chroot.sh bookworm|trixie [run|test [PRESET...]]
#
# Tries ./bootstrap in a clean Debian: debootstrap --variant=minbase, a fresh clone of the commit
# that is checked out, then `./bootstrap run` (a client writes, Ctrl-C, again, it is still there)
# and `./bootstrap test` with the PRESETs given, or all.  Nothing but one of them with `run` or
# `test`.  Root only.  The machine's own apt set-up (mirror, proxy, certificates) is used inside.
#
# All mounts live in a mount namespace and all processes in a process namespace of their own, so
# nothing stays behind, however this ends.
set -euo pipefail
suite=${1:?bookworm or trixie}
part=${2:-all}
[ $# -le 2 ] && presets=() || presets=("${@:3}")
source=$(realpath "$(dirname "$(realpath "$0")")/../..")

for tool in debootstrap git qemu-io unshare; do
    command -v $tool >/dev/null || { echo "chroot.sh: $tool is missing" && exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "chroot.sh: needs root" && exit 77; }
if [ "${KVFS_CHROOT_INSIDE:-}" != yes ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-chroot.XXXXXX")
    trap 'rm -rf --one-file-system "$work"' EXIT
    trap 'exit 143' INT TERM
    KVFS_CHROOT_INSIDE=yes KVFS_CHROOT_WORK=$work \
        unshare --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
    exit
fi

root=$KVFS_CHROOT_WORK/root
log=$KVFS_CHROOT_WORK/log
say() { echo "-- $suite: $*"; }
fail() {
    echo "FAILED: $*" >&2
    tail -30 "$log" >&2 || true
    exit 1
}
inside=(chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
    JOBS="${JOBS:-}" CI="${CI:-}")

# --- a clean Debian -----------------------------------------------------------------------------
mirror=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(LABEL) $(REPO_URI)' \
    'Created-By: Packages' 2>/dev/null | awk '$1 == "Debian" && $2 == "main" && $3 == "Debian" {
        print $4; exit }')
mirror=${mirror:-http://deb.debian.org/debian}
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
export http_proxy https_proxy
say "debootstrap from $mirror"
debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$log" 2>&1 || fail debootstrap
apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries)' >"$root/etc/apt/apt.conf.d/99host" ||
    true
cp /etc/resolv.conf /etc/hosts "$root/etc/"
mkdir -p "$root/etc/ssl/certs"
cp -rL /etc/ssl/certs/. "$root/etc/ssl/certs/" 2>/dev/null || true
echo "deb $mirror $suite main" >"$root/etc/apt/sources.list"
mount --bind "$root" "$root" # so that "/" is a mount point inside, as tests of mounts need
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/run"
git clone -q --no-hardlinks "$source" "$root/src"

# --- run ----------------------------------------------------------------------------------------
serve() { # start ./bootstrap run and wait until it says how to attach the disk
    rm -f "$KVFS_CHROOT_WORK/out"
    mkfifo "$KVFS_CHROOT_WORK/out"
    "${inside[@]}" bash -c 'cd /src && exec ./bootstrap run' >"$KVFS_CHROOT_WORK/out" 2>&1 &
    server=$!
    exec 8<"$KVFS_CHROOT_WORK/out"
    while IFS= read -r line <&8 || fail "./bootstrap run ended"; do
        echo "   $line" | tee -a "$log"
        [[ $line != *"mount -o loop"* ]] || break
    done
}
client() { # COMMAND: of qemu-io, through the Unix socket, from outside
    qemu-io -f raw -c "$1" "nbd+unix:///disk0?socket=$root/src/data.sock" >>"$log" 2>&1 ||
        fail "client: $1"
}
ctrl_c() {
    kill -INT "$server"
    wait "$server" || fail "status $? after Ctrl-C"
    exec 8<&-
}
try_run() {
    local before
    say "without root: nothing changes"
    before=$(cd "$root/src" && find . | sort | md5sum)
    chroot --userspec=65534:65534 "$root" bash -c 'cd /src && ./bootstrap run' >"$log" 2>&1 &&
        fail "ran without its packages"
    grep -q "apt-get install .* nbdkit" "$log" || fail "packages not named"
    [ "$before" = "$(cd "$root/src" && find . | sort | md5sum)" ] || fail "something was changed"
    say "run"
    serve
    client "write -P 0x5a 123456 65536"
    ctrl_c
    say "run again"
    SECONDS=0
    serve
    client "read -P 0x5a 123456 65536"
    ctrl_c
    [ $SECONDS -lt 60 ] || fail "the second run took $SECONDS s"
    say "run works"
}

# --- test ---------------------------------------------------------------------------------------
try_test() {
    local last
    say "test ${presets[*]}"
    "${inside[@]}" bash -c 'cd /src && exec ./bootstrap test "$@"' bash "${presets[@]}" </dev/null 2>&1 |
        tee "$log" || fail "./bootstrap test"
    last=$(tail -1 "$log")
    [[ $last =~ ^[0-9]+\ passed,\ 0\ failed,\ [0-9]+\ skipped$ ]] || fail "last line: $last"
    say "test works"
}

[ "$part" = test ] || try_run
[ "$part" = run ] || try_test
