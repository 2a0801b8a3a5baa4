#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# export: files, links, devices, pipes, standard output; one instant of a file that changes;
# nothing half written.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
ok format "$v"
random_file "$tmp/data" 5000001
truncate -s 40M "$tmp/in"
dd if="$tmp/data" of="$tmp/in" conv=notrunc bs=1M seek=20 status=none
ok import "$v" f "$tmp/in"

# Targets of every kind.
ok export "$v" f "$tmp/out"
cmp "$tmp/in" "$tmp/out" || fail "new file"
same "$(printf %o $((0666 & ~$(umask))))" "$(stat -c %a "$tmp/out")" "mode of a new file"
[ "$(stat -c %b "$tmp/out")" -lt 12000 ] || fail "holes were filled"
echo old >"$tmp/old"
chmod 640 "$tmp/old"
ln -s old "$tmp/link"
ok export "$v" f "$tmp/link"
[ -L "$tmp/link" ] || fail "the link was replaced"
cmp "$tmp/in" "$tmp/old" || fail "through a link"
same 640 "$(stat -c %a "$tmp/old")" "mode of a replaced file"
mkdir "$tmp/sub"
ln -s ../later "$tmp/sub/two"
ln -s sub/two "$tmp/dangling"
ok export "$v" f "$tmp/dangling"
same "sub/two ../later" "$(readlink "$tmp/dangling") $(readlink "$tmp/sub/two")" "dangling links stay"
cmp "$tmp/in" "$tmp/later" || fail "through links to what is not there yet"
(cd "$tmp" && rm later && "$KVFS_BIN" export v f dangling && cmp in later) || fail "relative dangling link"
ln -s round "$tmp/round"
refuses "round: Too many levels" export "$v" f "$tmp/round"
ln -s no/such/folder "$tmp/astray"
refuses "astray: No such file" export "$v" f "$tmp/astray"
(cd "$tmp" && "$KVFS_BIN" export v f here && cmp in here) || fail "relative target"
kvfs export "$v" f | cmp - "$tmp/in" || fail "pipe"
kvfs export "$v" f - | cmp - "$tmp/in" || fail "pipe by -"
{ echo before && kvfs export "$v" f && echo behind; } >"$tmp/out"
{ echo before && cat "$tmp/in" && echo behind; } | cmp - "$tmp/out" || fail "into an open file"
[ "$(stat -c %b "$tmp/out")" -lt 12000 ] || fail "holes were filled in standard output"
echo before >"$tmp/out"
kvfs export "$v" f - >>"$tmp/out"
{ echo before && cat "$tmp/in"; } | cmp - "$tmp/out" || fail "appended"
random_file "$tmp/out" 50000000
kvfs export "$v" f - 1<>"$tmp/out"
head -c 41943040 "$tmp/out" | cmp - "$tmp/in" || fail "old bytes show in holes"
ok export "$v" f /dev/null
ok create "$v" empty.disk --size=8M
ok export "$v" empty.disk "$tmp/out"
cmp -n 8388608 "$tmp/out" /dev/zero || fail "a disk that is one hole"
same "8388608 0" "$(stat -c '%s %b' "$tmp/out")"
ok import "$v" nothing - </dev/null
ok export "$v" nothing "$tmp/out"
same 0 "$(stat -c %s "$tmp/out")" "an empty file"

# A disk of exabytes is mostly a question of not asking for it.
ok create "$v" huge --size=7E
{ timeout 60 "$KVFS_BIN" export "$v" huge - 2>/dev/null || true; } | head -c 1000000 |
    cmp -n 1000000 - /dev/zero || fail "huge"

# A block device is overwritten, also where the file has holes.
if [ "$(id -u)" = 0 ] && command -v losetup >/dev/null; then
    random_file "$tmp/backing" 50331648
    if loop=$(losetup --show -f "$tmp/backing" 2>/dev/null); then
        status=0
        "$KVFS_BIN" export "$v" f "$loop" 2>"$tmp/stderr" || status=$?
        losetup -d "$loop"
        same 0 $status "block device"
        cmp -n 41943040 "$tmp/in" "$tmp/backing" || fail "block device contents"
        truncate -s 1M "$tmp/backing"
        loop=$(losetup --show -f "$tmp/backing")
        status=0
        "$KVFS_BIN" export "$v" f "$loop" >/dev/null 2>"$tmp/stderr" || status=$?
        losetup -d "$loop"
        one_line $status "has 1048576 bytes" "too small a device"
    fi
fi

# Refused, with nothing left behind and nothing lost.
refuses "nowhere" export "$v" nowhere "$tmp/new"
refuses "is a folder" export "$v" / "$tmp/new"
refuses "No such file" export "$v" f "$tmp/missing/new"
refuses "directory" export "$v" f "$tmp"
[ ! -e "$tmp/new" ] || fail "a refused export makes a file"
status=0
kvfs export "$v" f - 2>"$tmp/stderr" >/dev/full || status=$?
one_line $status "No space left" "/dev/full"
status=0
{ kvfs export "$v" f - 2>"$tmp/stderr" || echo $? >"$tmp/status"; } | head -c 1000 >/dev/null
one_line "$(cat "$tmp/status")" "standard output: Broken pipe" "a reader that goes away"
cat >"$tmp/int.py" <<'P'
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
p = subprocess.Popen([os.environ["KVFS_BIN"], "export", sys.argv[1], "f", "-"],
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
p.stdout.read(100000)   # it is in the middle, and stuck until somebody reads on
p.send_signal(signal.SIGINT)
err = p.stderr.read()
assert p.wait() == -signal.SIGINT, p.returncode
assert err == b"kvfs: export: interrupted\n", err
P
python3 "$tmp/int.py" "$v" || fail "SIGINT"

# Killed: the old file stays and nothing is beside it, where files without a name exist.
cat >"$tmp/kill.py" <<'P'
import os, subprocess, sys
v, folder = sys.argv[1:3]
try:
    os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
except OSError:
    sys.exit(0)
def at_work(pid):
    try:
        links = [os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)]
    except OSError:
        return False
    return any(link.startswith(folder + "/") for link in links)
for _ in range(20):
    with open(folder + "/out", "w") as file:
        file.write("old")
    p = subprocess.Popen([os.environ["KVFS_BIN"], "export", v, "f", folder + "/out"])
    while p.poll() is None and not at_work(p.pid):
        pass
    p.kill()
    p.wait()
    assert os.listdir(folder) == ["out"], os.listdir(folder)
    if os.path.getsize(folder + "/out") == 3:
        sys.exit(0)
sys.exit("never killed in the middle")
P
mkdir "$tmp/folder"
python3 "$tmp/kill.py" "$v" "$tmp/folder" || fail "SIGKILL"

# A full target: the old file stays, no temporary one.
if [ "$(id -u)" = 0 ] && mkdir "$tmp/small" && mount -t tmpfs -o size=1M none "$tmp/small"; then
    mounts+=("$tmp/small")
    echo old >"$tmp/small/out"
    refuses "out: No space left" export "$v" f "$tmp/small/out"
    same old "$(cat "$tmp/small/out")" "what was there"
    same out "$(ls -A "$tmp/small")" "left behind"
fi

# While somebody writes: one instant.  Every write makes all blocks of a file equal, so a mixture
# of two would show; a served disk is exported all the same.
needs nbdkit nbdsh
[ -e "${KVFS_PLUGIN:-}" ] || exit 77
ok create "$v" served --size=16M
LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -f -U "$tmp/sock" -P "$tmp/pid" "$KVFS_PLUGIN" "$v" file=served 2>"$tmp/nbdkit.err" &
server=$!
pids+=("$server")
await test -s "$tmp/pid"
nbdsh -u "nbd+unix:///?socket=$tmp/sock" -c "
import os
n = 0
while not os.path.exists('$tmp/stop'):
    n += 1
    h.pwrite(bytes([n % 251]) * 16777216, 0)
    h.flush()
    open('$tmp/count.new', 'w').write(str(n))
    os.rename('$tmp/count.new', '$tmp/count')
" &
writer=$!
pids+=("$writer")
await test -e "$tmp/count"
cat >"$tmp/slow.py" <<'P'
# Read a part, let two more flushes go by, read the rest: all bytes must be the same.
import os, subprocess, sys, time
def count():
    return int(open(sys.argv[2]).read())
p = subprocess.Popen([os.environ["KVFS_BIN"], "export", sys.argv[1], "served", "-"], stdout=subprocess.PIPE)
data = p.stdout.read(5 << 20)
begin = count()
end = time.time() + 60
while count() < begin + 2 and time.time() < end:
    time.sleep(0.01)
assert count() >= begin + 2, "the writer is stuck"
data += p.stdout.read()
assert p.wait() == 0
assert len(data) == 16 << 20, len(data)
assert len(set(data)) == 1, "bytes of different instants: %r" % sorted(set(data))
P
for _ in 1 2 3; do
    python3 "$tmp/slow.py" "$v" "$tmp/count" || fail "not one instant"
done
: >"$tmp/stop"
wait "$writer"
kill "$server"
wait "$server" || true
ok export "$v" served "$tmp/out"
same 1 "$(python3 -c 'import sys; print(len(set(open(sys.argv[1], "rb").read())))' "$tmp/out")" "at the end"
