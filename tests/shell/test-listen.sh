#!/usr/bin/env bash
# kvfs-listen: one server on two sockets; a taken port is left out; an idle client does not keep
# the server from ending; a stale socket is replaced and a live one is not.
set -euo pipefail
for tool in nbdkit nbdinfo qemu-io; do
    command -v $tool >/dev/null || exit 77
done
listen=$KVFS_BINARY_DIR/tools/kvfs-listen
tmp=$(mktemp -d)
pids=()
cleanup() {
    for p in "${pids[@]}"; do
        kill "$p" 2>/dev/null || true
    done
    rm -rf "$tmp"
}
trap cleanup EXIT
fail() {
    echo "FAILED: $*" >&2
    cat "$tmp"/*.err >&2 || true
    exit 1
}
mkfifo -m 666 "$tmp/ready"
chmod 755 "$tmp"
exec 9<>"$tmp/ready" # both ends, so that opening it never waits
port=$((20000 + RANDOM % 10000))

start() { # NAME PORT: serve until told to end; waits until the server answers
    "$listen" -r 'echo "$@" >'"$tmp/ready" "unix:$tmp/$1.sock" "tcp:127.0.0.1:$2" -- \
        nbdkit memory 1M 2>"$tmp/$1.err" &
    server=$!
    pids+=("$server")
    read -r -t 60 served <&9 || fail "$1 is not served"
}
ends() { # PID: SIGINT, and a clean end
    kill -INT "$1"
    wait "$1" || fail "status $? instead of 0"
}

while start one $port && [[ $served != *tcp:* ]]; do # somebody else's port
    ends "$server"
    port=$((port + 1))
done
one=$server
[ "$(nbdinfo --size "nbd+unix:///?socket=$tmp/one.sock")" = 1048576 ] || fail "unix"
[ "$(nbdinfo --size "nbd://127.0.0.1:$port")" = 1048576 ] || fail "tcp"

# The port is taken: only the Unix socket is served, and that is said.
start two "$port"
[ "$served" = "unix:$tmp/two.sock" ] || fail "served: $served"
grep -q "tcp:127.0.0.1:$port: Address already in use; not served there" "$tmp/two.err" ||
    fail "not said"
ends "$server"
[ ! -e "$tmp/two.sock" ] || fail "socket left behind"

# A live socket is not taken over.
if "$listen" "unix:$tmp/one.sock" -- nbdkit memory 1M 2>"$tmp/three.err"; then
    fail "live socket taken over"
fi

# An idle client on each socket: it has read once and waits for commands.
idle() { # NAME URI
    mkfifo "$tmp/$1.in" "$tmp/$1.out"
    qemu-io -f raw "$2" <"$tmp/$1.in" >"$tmp/$1.out" 2>&1 &
    pids+=($!)
    exec {in}>"$tmp/$1.in" {out}<"$tmp/$1.out" # both stay open: no EOF, no SIGPIPE
    echo "read 0 512" >&"$in"
    while read -r line <&"$out" || fail "client $1 ended"; do
        [[ $line != *"read 512/512"* ]] || break
    done
}
idle six "nbd+unix:///?socket=$tmp/one.sock"
idle seven "nbd://127.0.0.1:$port"
ends "$one"
[ ! -e "$tmp/one.sock" ] || fail "socket left behind"

# A stale socket, as a killed server leaves it.
start four "$port"
nbdkit=$(pgrep -P "$server")
kill -KILL "$server"
wait "$server" 2>/dev/null || true
tail --pid="$nbdkit" -f /dev/null # it is told to end with kvfs-listen, but that takes a moment
[ -S "$tmp/four.sock" ] || fail "no stale socket to try"
start four "$port"
ends "$server"

# Without rights a server that has just ended looks like one that cannot be looked into: it ends
# without a word about clients.
as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
[ "$(id -u)" = 0 ] && "${as_nobody[@]}" test -x "$listen" || as_nobody=()
mkdir -m 777 "$tmp/public"
for _ in {1..5}; do
    "${as_nobody[@]}" "$listen" -r 'echo >'"$tmp/ready" "unix:$tmp/public/six.sock" -- \
        nbdkit memory 1M 2>"$tmp/nobody.err" &
    server=$!
    pids+=("$server")
    read -r -t 60 served <&9 || fail "not served without rights"
    ends "$server"
    ! grep kvfs-listen "$tmp/nobody.err" || fail "nothing was wrong"
done

# A port that is none.
for bad in 0 65536 99999 x ''; do
    if "$listen" "tcp:127.0.0.1:$bad" -- nbdkit memory 1M 2>"$tmp/port.err"; then
        fail "port '$bad' was taken"
    fi
    grep -q "tcp:127.0.0.1:$bad: Invalid argument" "$tmp/port.err" || fail "port '$bad'"
done

# A server that does not start.
if "$listen" "unix:$tmp/five.sock" -- nbdkit nosuchplugin 2>/dev/null; then
    fail "a server that failed gave status 0"
fi
echo ok
