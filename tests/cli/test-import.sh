#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# import: files, sparse files, devices, pipes; nothing half made whatever ends it.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
ok format "$v"
back() { # FILE NAME: what was imported comes back
    kvfs export "$v" "$2" - | cmp - "$1" || fail "$2 differs"
    same "$(stat -c %s "$1")" "$(kvfs stat --json "$v" "$2" | json "j[0]['size_bytes']")" "size of $2"
}
used() {
    kvfs stat -u --json "$v" "$1" | json "j[0]['used_bytes']"
}

# Sizes around every edge, from a file and from a pipe.
random_file "$tmp/big" 9000001
for n in 0 1 511 512 4095 4096 4097 65536 4194303 4194304 4194305 9000001; do
    head -c "$n" "$tmp/big" >"$tmp/in"
    ok import "$v" "f$n" "$tmp/in"
    back "$tmp/in" "f$n"
    # shellcheck disable=SC2002 # a pipe is the point
    cat "$tmp/in" | kvfs import "$v" "p$n" || fail "pipe of $n"
    back "$tmp/in" "p$n"
    ok import "$v" "s$n" - <"$tmp/in"
    back "$tmp/in" "s$n"
done
(
    exec 3<"$tmp/big"
    head -c 1000 <&3 >/dev/null || true
    python3 -c 'import os; os.lseek(3, 5000, 0)'
    kvfs import "$v" rest - <&3
) || fail "standard input that was read from before"
tail -c +5001 "$tmp/big" >"$tmp/in"
back "$tmp/in" rest

# Holes, and zeros that are none, take no space; the end of the size may be a hole.
truncate -s 3G "$tmp/sparse"
printf head | dd of="$tmp/sparse" conv=notrunc status=none
head -c 300000 "$tmp/big" | dd of="$tmp/sparse" conv=notrunc bs=1M seek=1500 status=none
ok import "$v" sparse "$tmp/sparse"
same $((3 << 30)) "$(kvfs stat --json "$v" sparse | json "j[0]['size_bytes']")"
[ "$(used sparse)" -lt 400000 ] || fail "sparse file takes $(used sparse) bytes"
ok export "$v" sparse "$tmp/sparse.out"
cmp -n 100000000 -i 1500000000 "$tmp/sparse" "$tmp/sparse.out" || fail "sparse contents"
same "$(stat -c %s "$tmp/sparse")" "$(stat -c %s "$tmp/sparse.out")"
[ "$(stat -c %b "$tmp/sparse.out")" -lt 2000 ] || fail "export fills holes"
{ head -c 5000000 /dev/zero && printf x && head -c 5000000 /dev/zero; } >"$tmp/in"
# shellcheck disable=SC2002
cat "$tmp/in" | kvfs import "$v" zeros
back "$tmp/in" zeros
[ "$(used zeros)" -le 65536 ] || fail "zeros from a pipe take $(used zeros) bytes"
ok import --block-size=512 "$v" small "$tmp/in"
same 512 "$(kvfs stat --json "$v" small | json "j[0]['block_size_bytes']")"
same 512 "$(used small)"

# What is there is not replaced, unless --force says so, and then whole.
before=$(kvfs export "$v" f4097 - | sha256sum)
refuses "force replaces" import "$v" f4097 "$tmp/big"
refuses "force replaces" import "$v" f4097 - </dev/null
same "$before" "$(kvfs export "$v" f4097 - | sha256sum)"
ok import --force "$v" f4097 "$tmp/big"
back "$tmp/big" f4097
ok mkdir "$v" folder
refuses "folder" import --force "$v" folder "$tmp/big"
refuses "" import "$v" missing/f "$tmp/big"
refuses "$tmp/nothing: No such" import "$v" new "$tmp/nothing"
refuses "directory" import "$v" new "$tmp"
ok import "$v" version /proc/version # size 0, but not empty
kvfs export "$v" version - | cmp - /proc/version || fail "/proc"
ok rm "$v" version
refuses "power of two" import --block-size=3000 "$v" new "$tmp/big"
! kvfs ls "$v" | grep -qx new || fail "a refused import leaves a name"
# A source that becomes shorter than it said.
cat >"$tmp/shrink.py" <<'P'
import os, subprocess, sys
path = sys.argv[1]
with open(path, "wb") as f:
    f.truncate(64 << 20)
    f.seek(0)
    f.write(b"x" * (64 << 20))
p = subprocess.Popen([os.environ["KVFS_BIN"], "import", sys.argv[2], "shrunk", path],
                     stderr=subprocess.PIPE)
os.truncate(path, 1000)
sys.stderr.buffer.write(p.stderr.read())
sys.exit(p.wait())
P
status=0
python3 "$tmp/shrink.py" "$tmp/in" "$v" 2>"$tmp/stderr" || status=$?
if [ $status != 0 ]; then # it may have come too late
    one_line $status "became shorter" "shrinking source"
fi

# Interrupted in the middle: nothing stays, other files are as they were, and the process dies of
# the signal.
half_made() { kvfs ls "$v" | grep -q '^\.kvfs-import-'; }
head -c 4096 "$tmp/big" >"$tmp/in"
for sig in TERM HUP; do # bash begins background jobs with SIGINT ignored: see below
    mkfifo "$tmp/fifo"
    "$KVFS_BIN" import --force "$v" f4096 "$tmp/fifo" 2>"$tmp/stderr" &
    pid=$!
    pids+=("$pid")
    exec 3>"$tmp/fifo"
    cat "$tmp/big" >&3
    await half_made
    kill -"$sig" "$pid"
    status=0
    wait "$pid" || status=$?
    exec 3>&-
    rm "$tmp/fifo"
    same $((128 + $(kill -l "$sig"))) $status "status after SIG$sig"
    same "kvfs: import: interrupted" "$(cat "$tmp/stderr")"
    ! half_made || fail "SIG$sig leaves a temporary file"
    back "$tmp/in" f4096
done
cat >"$tmp/int.py" <<'P'
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
p = subprocess.Popen([os.environ["KVFS_BIN"], "import", sys.argv[1], "interrupted"],
                     stdin=subprocess.PIPE, stderr=subprocess.PIPE)
p.stdin.write(b"x" * (9 << 20))
p.stdin.flush()
p.send_signal(signal.SIGINT)
err = p.stderr.read()
assert p.wait() == -signal.SIGINT, p.returncode
assert err == b"kvfs: import: interrupted\n", err
P
python3 "$tmp/int.py" "$v" || fail "SIGINT"
! kvfs ls "$v" | grep -q 'interrupted\|^\.kvfs-' || fail "SIGINT leaves something"

# Killed: what is left is removed by the next import into that folder.
mkfifo "$tmp/fifo"
"$KVFS_BIN" import "$v" killed "$tmp/fifo" &
pid=$!
pids+=("$pid")
exec 3>"$tmp/fifo"
cat "$tmp/big" >&3
await half_made
kill -KILL "$pid"
wait "$pid" || true
exec 3>&-
half_made || fail "no temporary file to test with"
! kvfs ls "$v" | grep -qx killed || fail "a killed import shows a name"
ok import "$v" after "$tmp/big"
! half_made || fail "the temporary file of a dead process stays"
back "$tmp/big" after
kvfs check "$v" >"$tmp/out" || fail "check: $(cat "$tmp/out")"

# A bar on a terminal, once a second has passed; none elsewhere, none with --quiet.
needs script
bar() { grep -aq 'import .*MiB.*/s' "$tmp/tty"; }
feed() { # bytes until the bar shows up, a minute at most
    for _ in $(seq 1200); do
        head -c 100000 "$tmp/big"
        ! bar || break
        sleep 0.05
    done
}
: >"$tmp/tty"
script -qfec "'$KVFS_BIN' import '$v' bar '$tmp/fifo'" /dev/null >"$tmp/tty" 2>&1 </dev/null &
pid=$!
pids+=("$pid")
feed >"$tmp/fifo"
wait "$pid" || fail "import on a terminal"
bar || fail "no bar: $(tail -c 300 "$tmp/tty")"
