#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# format, engines, df, check, compact; resize; who holds a volume that is served.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v

# format
ok format "$v"
same "" "$(kvfs ls "$v")"
refuses "." format "$v"
ok mkdir "$v" precious
refuses "." format "$v"
same precious "$(kvfs ls "$v")"
uuid=$(kvfs df --json "$v" | json "j['uuid']")
ok format --force "$v"
same "" "$(kvfs ls "$v")" "formatted anew"
[ "$uuid" != "$(kvfs df --json "$v" | json "j['uuid']")" ] || fail "the same uuid"
ln -s v "$tmp/link"
ok mkdir "$v" precious
ok format --force "$tmp/link"
[ -L "$tmp/link" ] || fail "the link was replaced"
same "" "$(kvfs ls "$v")" "formatted anew by way of a link"
kvfs check "$tmp/link" >"$tmp/out" || fail "check after a format by way of a link: $(cat "$tmp/out")"
ok format --engine=lmdb --block-size=512 "$tmp/w"
same "lmdb 512" "$(kvfs df --json "$tmp/w" | json "j['engine'] + ' ' + str(j['block_size_bytes'])")"
mkdir "$tmp/used"
echo text >"$tmp/used/text"
refuses "." format "$tmp/used"
refuses "." format --force "$tmp/used"
same text "$(ls -A "$tmp/used")" "a folder of other things"
refuses "." format "$tmp/no/parent"
refuses "." format "$tmp/used/text"
refuses "nonesuch" format --engine=nonesuch "$tmp/new"
refuses "power of two" format --block-size=3000 "$tmp/new"
refuses "power of two" format --block-size=256 "$tmp/new"
refuses "power of two" format --block-size=128K "$tmp/new"
refuses "engine mem forgets everything" format --engine=mem "$tmp/new"
refuses "engine mem forgets everything" copy --engine=mem "$v" "$tmp/new"
[ ! -e "$tmp/new" ] || fail "a refused format leaves a folder"
refuses "folder of another volume" format "$v/inside"
refuses "folder of another volume" copy "$v" "$v/inside"
[ ! -e "$v/inside" ] || fail "a volume in a volume's folder"
# A user's own file of that name marks nothing.
mkdir "$tmp/own"
for text in hello kvfs-volume "kvfs-volume x" ""; do
    echo "$text" >"$tmp/own/volume"
    ok format "$tmp/own/x"
    rm -r "$tmp/own/x"
done
echo "kvfs-volume 99" >"$tmp/own/volume"
refuses "folder of another volume" format "$tmp/own/x"
echo hello >"$tmp/own/volume"
echo text >"$tmp/own/precious"
refuses "is no volume" format "$tmp/own"
refuses "is no volume" format --force "$tmp/own"
: >"$tmp/own/volume.new"
refuses "is no volume" format --force "$tmp/own"
rm "$tmp/own/volume.new"
same "hello text" "$(cat "$tmp/own/volume" "$tmp/own/precious" | xargs)" "a folder that is no volume"
rm "$tmp/own/volume" "$tmp/own/precious"
mkfifo "$tmp/own/volume"
ok format "$tmp/own/x"

# engines
kvfs engines >"$tmp/out"
grep -q '^lmdb .*durable.*many ' "$tmp/out" || fail "engines: $(cat "$tmp/out")"
kvfs engines --json | json "[e['block_size_bytes'] for e in j if e['name'] == 'lmdb'][0] in (2048, 4096, 8192, 16384)" | grep -qx True || fail "engines --json"
same "" "$(find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'kvfs-engines-*' -newer "$tmp/out" 2>/dev/null)" "left behind"

# df
random_file "$tmp/data" 2000000
ok import "$v" f "$tmp/data"
kvfs df "$v" >"$tmp/out"
grep -q '^engine  *log:lmdb' "$tmp/out" || fail "df: $(cat "$tmp/out")"
grep -A1 '^holders:' "$tmp/out" | grep -qx '  none' || fail "df: holders"
kvfs df --json "$v" | json "j['used_bytes'] >= 2000000 and j['avail_bytes'] > 0 and j['data_records'] > 100
    and j['inodes'] == 2 and j['holders'] == []" | grep -qx True || fail "df --json: $(kvfs df --json "$v")"

# check
kvfs check "$v" >"$tmp/out" 2>"$tmp/stderr" || fail "check: $(cat "$tmp/out")"
same 1 "$(wc -l <"$tmp/out")"
grep -q ': clean: ' "$tmp/out" || fail "$(cat "$tmp/out")"
same "clean 0 []" "$(kvfs check --json "$v" | json "' '.join([j['state'], str(j['found']), str(j['findings'])])")"
kvfs check --repair "$v" >/dev/null || fail "check --repair of a clean volume"
# With --json one object always: the same members, and the error where it could not be done.
unfinished() { # VOLUME PATTERN
    local status=0
    kvfs check --json "$1" >"$tmp/out" 2>"$tmp/stderr" || status=$?
    same 8 $status "check --json $1"
    one_line $status "$2" "check --json $1"
    same "unfinished True blocks,error,findings,found,inodes,records,repaired,state" "$(json \
        "' '.join([j['state'], str(j['found'] == len(j['findings']) == 0), ','.join(sorted(j))])" <"$tmp/out")"
    same "$(sed 's/^kvfs: check: //' "$tmp/stderr")" "$(json "j['error']" <"$tmp/out")" "one reason"
}
for edit in 's/lmdb/nonesuch/' 's/^kvfs-volume 1$/kvfs-volume 99/'; do
    cp -a "$v" "$tmp/odd"
    sed -i "$edit" "$tmp/odd/volume"
    unfinished "$tmp/odd" "nonesuch|format"
    rm -r "$tmp/odd"
done
unfinished "$tmp/missing" "missing"
# One cause is one finding.
where() {
    kvfs check --json "$tmp/odd" | json "str(j['found']) + ' ' + ' '.join(f['where'] for f in j['findings'])"
}
for size in 0 3000; do
    cp -a "$v" "$tmp/odd"
    truncate -s $size "$tmp/odd/data.mdb"
    same "1 store" "$(where)" "a store of $size bytes"
    rm "$tmp/odd/data.mdb"
    same "1 store" "$(where)" "no store"
    rm -r "$tmp/odd"
done
# An array after an error: what was found before, and nothing for nothing.
for command in ls stat; do
    refuses "nowhere" $command --json "$v" nowhere
    status=0
    kvfs $command --json "$v" f nowhere >"$tmp/out" 2>"$tmp/stderr" || status=$?
    same 1 $status
    same "['f']" "$(json "[e['path'] for e in j]" <"$tmp/out")" "$command: what was found before"
done
ok mkdir "$v" hollow
same "[]" "$(kvfs ls --json "$v" hollow)" "an empty folder"
ok rm -r "$v" hollow
# One name for the volume in all that check says, however it was called.
cp -a "$v" "$tmp/hurt"
truncate -s 3000 "$tmp/hurt/data.mdb"
(cd "$tmp" && ! "$KVFS_BIN" check hurt) >"$tmp/out" 2>&1 || true
grep -q "$tmp/hurt" "$tmp/out" || fail "check of damage: $(cat "$tmp/out")"
same 0 "$(sed "s|$tmp/hurt||g" "$tmp/out" | grep -c hurt)" "relative paths in: $(cat "$tmp/out")"
status=0
kvfs check "$tmp/missing" 2>"$tmp/stderr" >"$tmp/out" || status=$?
same 8 $status
one_line $status "." "check of nothing"

# resize
ok create "$v" disk --size=1M
ok resize "$v" disk 2M
ok resize "$v" disk +1M
same 3145728 "$(kvfs stat --json "$v" disk | json "j[0]['size_bytes']")"
ok resize "$v" disk +0
same 3145728 "$(kvfs stat --json "$v" disk | json "j[0]['size_bytes']")" "size after +0"
head -c 100 "$tmp/data" >"$tmp/in"
ok import "$v" odd "$tmp/in"
ok resize "$v" odd +0
refuses "odd: 101 bytes are not a multiple" resize "$v" odd +1
ok resize "$v" odd +412
same 512 "$(kvfs stat --json "$v" odd | json "j[0]['size_bytes']")" "a size made round"
ok rm "$v" odd
refuses "/: is a folder, not a file" resize "$v" / +0
refuses "'nowhere': no such" resize "$v" nowhere +0
refuses "loses the rest" resize "$v" disk 1M
same 3145728 "$(kvfs stat --json "$v" disk | json "j[0]['size_bytes']")" "a refused size"
ok resize --shrink "$v" disk 1M
same 1048576 "$(kvfs stat --json "$v" disk | json "j[0]['size_bytes']")"
refuses "beyond" resize "$v" disk +9223372036854774784
refuses "multiple of 512" resize "$v" disk 1000
refuses "size 0" resize --shrink "$v" disk 0
refuses "not a size" resize "$v" disk +-5
refuses "." resize "$v" nowhere 1M
refuses "." resize "$v" / 1M
# What was cut off does not come back.
head -c 1048576 "$tmp/data" >"$tmp/in"
ok import --force "$v" disk "$tmp/in"
ok resize --shrink "$v" disk 512
ok resize "$v" disk 1M
{ head -c 512 "$tmp/in" && head -c 1048064 /dev/zero; } >"$tmp/want"
kvfs export "$v" disk - | cmp - "$tmp/want" || fail "old bytes behind a shrunk end"

# compact: tells what it needs, shrinks, keeps every byte.
ok rm "$v" f
ok import "$v" g "$tmp/data"
same compact "$(kvfs compact -n "$v" | grep -o 'needs [0-9.]* [KM]*i*B' >/dev/null && echo compact)" "dry run"
before=$(du -k "$v" | cut -f1)
kvfs compact "$v" >"$tmp/out" 2>"$tmp/stderr" || fail "compact"
grep -q 'needs .* of free space' "$tmp/out" || fail "compact: $(cat "$tmp/out")"
[ "$(du -k "$v" | cut -f1)" -le "$before" ] || fail "compact makes it larger"
kvfs export "$v" g - | cmp - "$tmp/data" || fail "compact loses bytes"
if [ "$(id -u)" = 0 ]; then # a dry run only reads
    mkdir "$tmp/ro"
    if mount --bind "$v" "$tmp/ro" && mount -o remount,ro,bind "$tmp/ro"; then
        mounts+=("$tmp/ro")
        same True "$(kvfs compact -n --json "$tmp/ro" | json "j['need_bytes'] > 0 and not j['compacted']")" "read-only"
        umount "$tmp/ro"
    fi
    if command -v setpriv >/dev/null; then
        chmod 755 "$tmp" "$v"
        chmod a+r "$v"/*
        same True "$(cd / && setpriv --reuid=65534 --regid=65534 --clear-groups \
            "$KVFS_BIN" compact -n --json "$v" | json "j['need_bytes'] > 0")" "without the right to write"
    fi
fi
kvfs compact --json "$v" | json "j['compacted'] and j['need_bytes'] > 0" | grep -qx True || fail "compact --json"
kvfs check "$v" >"$tmp/out" || fail "check after compact: $(cat "$tmp/out")"

# Served: reading goes on, growing too, a second writer and compact are told who holds it.
needs nbdkit nbdsh
[ -e "${KVFS_PLUGIN:-}" ] || exit 77
LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -f -U "$tmp/sock" -P "$tmp/pid" "$KVFS_PLUGIN" "$v" file=disk 2>"$tmp/nbdkit.err" &
server=$!
pids+=("$server")
await test -s "$tmp/pid"
uri="nbd+unix:///?socket=$tmp/sock"
nbdsh -u "$uri" -c "
import os, time
h.pwrite(b'x' * 4096, 0)
h.flush()
open('$tmp/connected', 'w')
while not os.path.exists('$tmp/stop'): time.sleep(0.02)
" &
client=$!
pids+=("$client")
await test -e "$tmp/connected"
same "$(printf 'x%.0s' $(seq 16))" "$(kvfs export "$v" disk - 2>/dev/null | head -c 16)" "reading what was flushed"
kvfs check "$v" >"$tmp/out" || fail "check while served: $(cat "$tmp/out")"
kvfs df "$v" | grep -q "lease .*process $server (nbdkit" || fail "df names no holder: $(kvfs df "$v")"
same "$server" "$(kvfs df --json "$v" | json "j['holders'][0]['pid']")"
busy="the file is being written by process $server \\(nbdkit"
refuses "disk: $busy" import --force "$v" disk "$tmp/in"
refuses "disk: $busy" rm "$v" disk
refuses "/disk: $busy" rm "$v" /disk
refuses "disk: $busy" resize --shrink "$v" disk 512
ok create "$v" other --size=1M
refuses "disk: $busy" mv "$v" other disk
ok mkdir "$v" in
ok mv "$v" disk in
ok create "$v" disk --size=1M
refuses "in/disk: $busy" mv "$v" disk in
refuses "in/disk: $busy" rm -r "$v" in
ok rm "$v" disk
ok mv "$v" in/disk disk
LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -f -U "$tmp/sock2" -P "$tmp/pid2" "$KVFS_PLUGIN" "$v" 2>"$tmp/nbdkit2.err" &
second=$!
pids+=("$second")
await test -s "$tmp/pid2"
! nbdsh -u "nbd+unix:///disk?socket=$tmp/sock2" -c 'h.get_size()' 2>/dev/null || fail "two writers"
grep -Eq "export 'disk': $busy" "$tmp/nbdkit2.err" || fail "nbdkit's log: $(cat "$tmp/nbdkit2.err")"
kill "$second"
wait "$second" || true
refuses "$server|nbdkit" compact "$v"
kvfs compact --dry-run "$v" | grep -q 'needs .* of free space' || fail "a dry run while served"
refuses "$server|nbdkit" format --force "$v"
status=0
kvfs check --repair "$v" 2>"$tmp/stderr" >"$tmp/out" || status=$?
same 8 $status "check --repair while served"
one_line $status "$server|nbdkit" "check --repair while served"
ok import "$v" beside "$tmp/in"
kvfs export "$v" beside - | cmp - "$tmp/in" || fail "another file's writer"
ok resize "$v" disk 4M
: >"$tmp/stop"
wait "$client"
same 4194304 "$(nbdsh -u "$uri" -c 'print(h.get_size())')" "size for the next connection"
# A disk that is offered but has no client may go; who comes later is told.
ok mv "$v" disk kept
ok create "$v" disk --size=1M
ok rm "$v" disk
! nbdsh -u "$uri" -c 'h.get_size()' 2>/dev/null || fail "a removed disk is served"
grep -q "export: 'disk': no such entry" "$tmp/nbdkit.err" || fail "nbdkit's log: $(cat "$tmp/nbdkit.err")"
ok mv "$v" kept disk
kill "$server"
wait "$server" || true
same "$(printf 'x%.0s' $(seq 16))" "$(kvfs export "$v" disk - 2>/dev/null | head -c 16)" "after all that"
kvfs df "$v" | grep -A1 '^holders:' | grep -qx '  none' || fail "a holder that is gone"
