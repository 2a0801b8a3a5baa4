#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# copy: one file, a folder, a whole volume; links, attributes and holes; nothing half copied.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
a=$tmp/a b=$tmp/b
ok format "$a" --block-size=1024
random_file "$tmp/data" 3000001
truncate -s 20M "$tmp/sparse"
dd if="$tmp/data" of="$tmp/sparse" conv=notrunc bs=1M seek=9 status=none
ok import "$a" disk0 "$tmp/sparse"
ok mkdir -p "$a" tree/sub/deeper tree/empty
ok import "$a" tree/one "$tmp/data"
ok ln "$a" tree/one tree/sub/two
ok ln "$a" tree/one three
ok ln -s "$a" "../nowhere/at all" tree/soft
ok import --block-size=4096 "$a" tree/sub/small - <<<"hello"
ok create "$a" tree/huge --size=1P
odd=$'tree/\xff odd\n'
ok import "$a" "$odd" - <<<"odd"
# What a copy must keep of each inode; inode numbers and change times are its own.
listing() { # VOLUME [PATH]
    kvfs ls -R --json -l "$1" "${2:-/}" | json "'\n'.join(sorted(str([
        {k: e[k] for k in e if k not in ('ino', 'path_hex')}]) for e in j))"
}

# A file, into a volume that is made.
kvfs copy "$a:disk0" "$b:disk0b" >"$tmp/out" 2>"$tmp/stderr" || fail "copy of a file"
grep -q '^copied and verified: 1 names, 1 files' "$tmp/out" || fail "$(cat "$tmp/out")"
kvfs export "$b" disk0b - | cmp - "$tmp/sparse" || fail "bytes of a file"
same 1024 "$(kvfs df --json "$b" | json "j['block_size_bytes']")" "block size of the new volume"
same 1024 "$(kvfs stat --json "$b" disk0b | json "j[0]['block_size_bytes']")" "block size"
[ "$(kvfs stat -u --json "$b" disk0b | json "j[0]['used_bytes']")" -lt 3100000 ] || fail "holes"
same "$(kvfs stat --json "$a" disk0 | json "j[0]['mtime_ns']")" \
    "$(kvfs stat --json "$b" disk0b | json "j[0]['mtime_ns']")" "time"
same "$(kvfs stat --json "$a" disk0 | json "j[0]['mode']")" \
    "$(kvfs stat --json "$b" disk0b | json "j[0]['mode']")" "mode"

# Into one that is there: into the root, into a folder, under a name; never over something.
ok copy "$a:disk0" "$b" >/dev/null
ok mkdir "$b" folder
ok copy "$a:disk0" "$b:folder" >/dev/null
ok copy "$a:/tree/one" "$b:folder/renamed" >/dev/null
same $'disk0\nrenamed' "$(kvfs ls "$b" folder)"
refuses "exists" copy "$a:disk0" "$b"
refuses "exists" copy "$a:three" "$b:folder/renamed"
refuses "nowhere" copy "$a:nowhere" "$b"
refuses "" copy "$a:disk0" "$b:missing/x"
refuses "exists" copy "$a" "$b"
same "$(kvfs export "$a" tree/one - | sha256sum)" "$(kvfs export "$b" folder/renamed - | sha256sum)"
! kvfs ls "$b" | grep '^\.kvfs-' || fail "a staging folder is left"

# A folder.
ok copy "$a:tree" "$b:folder" >/dev/null
listing "$a" tree | sed "s/'nlink': [0-9]*//" >"$tmp/l1"
listing "$b" folder/tree | sed "s/'nlink': [0-9]*//; s/folder.tree/tree/g" >"$tmp/l2"
diff "$tmp/l1" "$tmp/l2" || fail "a folder's copy differs"
same "$(kvfs stat --json "$b" folder/tree/one | json "j[0]['ino']")" \
    "$(kvfs stat --json "$b" folder/tree/sub/two | json "j[0]['ino']")" "hard links are one file"
same 2 "$(kvfs stat --json "$b" folder/tree/one | json "j[0]['nlink']")" "links inside the folder"

# Inside one volume, and a folder into itself.
ok copy "$a:disk0" "$a:again" >/dev/null
kvfs export "$a" again - | cmp - "$tmp/sparse" || fail "copy inside a volume"
ok rm "$a" again
ok copy "$a:tree" "$a:tree" >/dev/null
same "$(kvfs ls "$a" tree | grep -axv tree)" "$(kvfs ls "$a" tree/tree)" "a folder in itself"
ok rm -r "$a" tree/tree

# A symbolic link is copied itself, one that leads nowhere too.
ok ln -s "$a" three good
ok copy "$a:good" "$b:link" >/dev/null
ok copy "$a:tree/soft" "$b" >/dev/null
same "three ../nowhere/at all" "$(kvfs stat --json "$b" link soft | json "' '.join(e['target'] for e in j)")" "links"
ok rm "$a" good

# A whole volume.
kvfs copy --json "$a" "$tmp/c" >"$tmp/out" 2>"$tmp/stderr" || fail "whole volume"
same "True 12" "$(json "j['verified'], j['names']" <"$tmp/out" | tr -d '(),')" "counts"
listing "$a" >"$tmp/l1"
listing "$tmp/c" >"$tmp/l2"
diff "$tmp/l1" "$tmp/l2" || fail "the volume's copy differs"
for f in disk0 three "$odd"; do
    same "$(kvfs export "$a" "$f" - | sha256sum)" "$(kvfs export "$tmp/c" "$f" - | sha256sum)" "$f"
done
same 3 "$(kvfs stat --json "$tmp/c" three | json "j[0]['nlink']")" "links"
kvfs check "$tmp/c" >"$tmp/out" || fail "check of the copy: $(cat "$tmp/out")"
kvfs check "$b" >"$tmp/out" || fail "check: $(cat "$tmp/out")"
same "" "$(find "$tmp" -name '*kvfs-copy*')" "temporary volumes"
# A colon in the name of a folder that exists is part of it.
ok format "$tmp/x:y"
ok copy "$a:three" "$tmp/x:y:n:m" >/dev/null
same "n:m" "$(kvfs ls "$tmp/x:y")"

# Refused or interrupted: no volume, no name.
refuses "no-engine" copy --engine=no-engine "$a" "$tmp/new"
refuses "" copy "$tmp/missing" "$tmp/new"
refuses "" copy "$a:nowhere" "$tmp/new"
refuses "" copy "$a:disk0" "$tmp/new:no/such"
same "" "$(ls -d "$tmp"/new* 2>/dev/null)" "half-made volume"
cat >"$tmp/int.py" <<'P'
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
a, new = sys.argv[1:3]
p = subprocess.Popen([os.environ["KVFS_BIN"], "copy", a, new], stderr=subprocess.PIPE)
while p.poll() is None and not any(n.startswith("int.kvfs-copy") for n in os.listdir(os.path.dirname(new))):
    pass
p.send_signal(signal.SIGINT)
err = p.stderr.read()
if p.wait() == 0:
    sys.exit(0)  # it was quicker
assert p.returncode == -signal.SIGINT, p.returncode
assert err == b"kvfs: copy: interrupted\n", err
assert not [n for n in os.listdir(os.path.dirname(new)) if n == "int" or n.startswith("int.kvfs")]
P
random_file "$tmp/data" 30000000
ok import "$a" more "$tmp/data"
python3 "$tmp/int.py" "$a" "$tmp/int" || fail "SIGINT"

# Killed: the next copy to the same place removes what is left, and nothing that is in use.
cat >"$tmp/kill.py" <<'P'
import os, subprocess, sys
a, new = sys.argv[1:3]
folder, name = os.path.split(new)
def left():
    return [n for n in os.listdir(folder) if n.startswith(name + ".kvfs-copy-")]
for _ in range(20):
    p = subprocess.Popen([os.environ["KVFS_BIN"], "copy", a, new], stdout=subprocess.DEVNULL)
    while p.poll() is None and not left():
        pass
    p.kill()
    p.wait()
    if left() and not os.path.exists(new):
        sys.exit(0)
    subprocess.run(["rm", "-rf", new])
sys.exit("never killed in the middle")
P
python3 "$tmp/kill.py" "$a" "$tmp/k" || fail "SIGKILL"
mkdir "$tmp/k.kvfs-copy-1-0" "$tmp/k.kvfs-copy-mine" "$tmp/kk.kvfs-copy-1-0"
mkfifo "$tmp/release"
flock "$tmp/k.kvfs-copy-1-0" cat "$tmp/release" &
exec 8>"$tmp/release"
locked() { ! flock -n "$tmp/k.kvfs-copy-1-0" true; }
await locked
ok copy "$a" "$tmp/k" >/dev/null
same "k.kvfs-copy-1-0 k.kvfs-copy-mine kk.kvfs-copy-1-0" "$(cd "$tmp" && echo k*.kvfs-copy-*)" "one at work, two of others"
exec 8>&-
wait
rm -r "$tmp/k"
ok copy "$a:three" "$tmp/k:x" >/dev/null
same "k.kvfs-copy-mine kk.kvfs-copy-1-0" "$(cd "$tmp" && echo k*.kvfs-copy-*)" "left behind"
# The same inside a volume that was there.
cat >"$tmp/kill2.py" <<'P'
import os, subprocess, sys
a, b = sys.argv[1:3]
kvfs = os.environ["KVFS_BIN"]
def left():
    return ".kvfs-copy-" in subprocess.run([kvfs, "ls", b], capture_output=True, text=True, check=True).stdout
for _ in range(20):
    p = subprocess.Popen([kvfs, "copy", a + ":more", b + ":killed"], stdout=subprocess.DEVNULL)
    while p.poll() is None and not left():
        pass
    p.kill()
    p.wait()
    if left():
        sys.exit(0)
    subprocess.run([kvfs, "rm", b, "killed"], check=True)
sys.exit("never killed in the middle")
P
python3 "$tmp/kill2.py" "$a" "$b" || fail "SIGKILL inside a volume"
ok rm -f "$b" killed
ok copy "$a:more" "$b:killed" >/dev/null
! kvfs ls "$b" | grep '^\.kvfs-' || fail "a staging folder is left for ever"
