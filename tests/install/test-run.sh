#!/usr/bin/env bash
# ./bootstrap run: builds, makes a volume and serves it; the lines it prints work as they stand;
# Ctrl-C ends clean with a client connected; the next run finds everything again.
set -euo pipefail
[ -z "${KVFS_SANITIZE:-}" ] || exit 77 # it has a build of its own
for tool in nbdkit qemu-img qemu-io nbdfuse fusermount3 mkfs.ext4; do
    command -v $tool >/dev/null || exit 77
done
tmp=$(mktemp -d)
server='' client=''
cleanup() {
    cd /
    ! mountpoint -q "$tmp/mnt" || umount -l "$tmp/mnt"
    ! mountpoint -q "$tmp/nbd" || fusermount3 -uz "$tmp/nbd"
    for p in $client $server; do
        kill -KILL "$p" 2>/dev/null || true
    done
    rm -rf --one-file-system "$tmp"
}
trap cleanup EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
cd "$tmp"
export KVFS_PACKAGES=skip # what is missing would have been noticed above
unset KVFS_PLUGIN KVFS_BIN
mkfifo out
port=$((20000 + RANDOM % 10000))
volume="a volume"

serve() { # VOLUME: run until the recipes are printed; they are then in FILE recipes
    "$KVFS_SOURCE_DIR/bootstrap" run --port=$port "$1" >out 2>&1 &
    server=$!
    exec 8<out
    : >recipes
    while IFS= read -r line <&8 || fail "./bootstrap run ended"; do
        echo "$line" | tee -a recipes
        [[ $line != *"mount -o loop"* ]] || break
    done
}
recipe() { # PATTERN [N]: the n-th line printed that matches, without its comment
    sed -n "s/^ *\(.*$1[^#]*\).*/\1/p" recipes | sed -n "${2:-1}p"
}
ends() { # SIGNAL
    kill "-$1" "$server"
    wait "$server" || fail "status $? after SIG$1"
    server=''
    exec 8<&-
}
attach() { # N: with the n-th nbdfuse recipe, and mount
    eval "$(recipe nbdfuse "$1" | sed 's/ *&$//') &"
    client=$!
    for _ in {1..200}; do
        [ ! -e nbd/nbd ] || break
        sleep 0.05
    done
    [ -e nbd/nbd ] || fail "nbdfuse shows no disk"
    [ "$2" != format ] || mkfs.ext4 -q nbd/nbd
    eval "$(recipe "mount -o loop")"
}
detach() {
    eval "$(sed -n 's/.*nbdfuse; *ends with: //p' recipes)"
    wait "$client" || true
    client=''
}

serve "$volume"
if ! grep -q "through TCP" recipes; then
    grep -q "not served there" recipes || fail "neither TCP nor a reason"
    echo "port $port is taken; going on with the socket"
fi
for n in 1 2; do
    line=$(recipe "qemu-img info" $n)
    [ -n "$line" ] || { [ $n = 2 ] && continue; }
    eval "$line" | grep -q "virtual size: 1 GiB" || fail "$line"
done
if [ "$(id -u)" = 0 ] && [ -c /dev/fuse ] && [ -e /dev/loop-control ]; then
    attach 1 format
    cp -r "$KVFS_SOURCE_DIR/kvfs" mnt/
    detach
else
    echo "no root, /dev/fuse or loop devices: the mount lines were not tried"
fi

# A second run on the same volume, and one more on another volume and the same port.
if KVFS_PACKAGES=skip "$KVFS_SOURCE_DIR/bootstrap" run --port=$port "$volume" >two 2>&1; then
    fail "two servers on one volume"
fi
grep -q "$volume.sock: Address already in use" two || fail "not said: $(cat two)"

# Ctrl-C while a client is connected and has just written.
mkfifo commands answers
qemu-io -f raw "nbd+unix:///disk0?socket=$tmp/a%20volume.sock" <commands >answers 2>&1 &
client=$!
exec 7>commands 6<answers
echo "write -P 0x77 900M 1M" >&7
while read -r line <&6 || fail "the client ended"; do
    [[ $line != *"wrote 1048576/1048576"* ]] || break
done
ends INT
exec 7>&- 6<&-
wait "$client" || true
client=''

SECONDS=0
serve "$volume"
qemu-io -f raw -c "read -P 0x77 900M 1M" "nbd+unix:///disk0?socket=$tmp/a%20volume.sock" |
    grep -q "read 1048576/1048576" || fail "what was written before Ctrl-C is gone"
if [ -d mnt ]; then
    n=2
    [ -n "$(recipe nbdfuse 2)" ] || n=1
    attach $n keep
    diff -r "$KVFS_SOURCE_DIR/kvfs" mnt/kvfs || fail "the copied tree differs"
    detach
fi
ends TERM
echo ok
