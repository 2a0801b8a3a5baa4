#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# Absurd arguments, full disks, read-only media, a vanished folder: one line, and nothing lost.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
ok format "$v"
random_file "$tmp/data" 1000000
ok import "$v" kept "$tmp/data"
sum=$(kvfs export "$v" kept - | sha256sum)

# Sizes
for size in 0 513 1000 -1 -512 '' abc 4KB 1.5G 0x200 ' 512' '512 ' 512X K 99999999T 8E 16E 9999999E \
    9223372036854775807 18446744073709551616 99999999999999999999999; do
    refuses "size|multiple" create "$v" new --size="$size"
done
refuses "missing" create "$v" new
for block in 3000 0 256 1000 131072 -512 x 4KB; do
    refuses "power of two" create "$v" new --size=1M --block-size="$block"
done
same kept "$(kvfs ls "$v")" "names after refused sizes"
n=0
for size in 512 4K 4KiB 1M 10g 1T 1P 1E 7E 9223372036854775296; do
    ok create "$v" "d$n" --size="$size"
    n=$((n + 1))
done
same "512 4096 4096 1048576 10737418240 1099511627776 1125899906842624 1152921504606846976 8070450532247928832 9223372036854775296" \
    "$(kvfs ls -l --json "$v" | json "' '.join(str(e['size_bytes']) for e in j if e['path'][1:2] == 'd')")"
[ "$(du -k "$v" | cut -f1)" -lt 8192 ] || fail "thin disks take space" # 4 MiB are the log
for block in 512 1K 2048 64K; do
    ok create "$v" "b$block" --size=1M --block-size="$block"
done

# Names
long=$(printf 'n%.0s' $(seq 255))
ok create "$v" "$long" --size=512
refuses "name|long" create "$v" "${long}x" --size=512
refuses "name|long" mkdir "$v" "${long}x"
refuses "name|long" mv "$v" kept "${long}x"
refuses "name|long" import "$v" "${long}x" "$tmp/data"
refuses "name|long" ln "$v" kept "${long}x"
refuses "name|long" ln -s "$v" kept "${long}x"
refuses "." create "$v" "no/such/folder" --size=512
refuses "." create "$v" "kept/below" --size=512
for name in "" / . .. a/.. ///; do
    refuses "." create "$v" "$name" --size=512
    refuses "." import "$v" "$name" "$tmp/data"
    refuses "." mkdir "$v" "$name"
    refuses "." rm "$v" "$name"
    refuses "." rm -r "$v" "$name"
done
refuses "." ln -s "$v" "$(printf 'n%.0s' $(seq 4096))" toolong
same "$sum" "$(kvfs export "$v" kept - | sha256sum)"
kvfs check "$v" >"$tmp/out" || fail "check: $(cat "$tmp/out")"

# No volume at all, for every command.
every() { # PATTERN VOLUME: all commands refuse
    local pattern=$1 w=$2
    refuses "$pattern" ls "$w"
    refuses "$pattern" stat "$w" kept
    refuses "$pattern" df "$w"
    refuses "$pattern" check "$w"
    refuses "$pattern" export "$w" kept "$tmp/never"
    refuses "$pattern" copy "$w" "$tmp/never"
    changing "$pattern" "$w"
    refuses "$pattern" compact "$w"
    [ ! -e "$tmp/never" ] || fail "something half made"
}
changing() { # PATTERN VOLUME: commands that write refuse
    local pattern=$1 w=$2
    refuses "$pattern" create "$w" new --size=1M
    refuses "$pattern" mkdir "$w" new
    refuses "$pattern" rm "$w" kept
    refuses "$pattern" mv "$w" kept new
    refuses "$pattern" ln "$w" kept new
    refuses "$pattern" resize "$w" kept 2M
    refuses "$pattern" import "$w" new "$tmp/data"
    refuses "$pattern" copy "$v:kept" "$w:new"
}
mkdir "$tmp/empty" "$tmp/other"
echo text >"$tmp/other/text"
echo file >"$tmp/file"
every "$tmp/empty" "$tmp/empty"
every "$tmp/other" "$tmp/other"
every "$tmp/file" "$tmp/file"
refuses "$tmp/missing" ls "$tmp/missing"
refuses "$tmp/missing" create "$tmp/missing" new --size=1M
refuses "$tmp/missing" import "$tmp/missing" new "$tmp/data"
refuses "$tmp/missing" check "$tmp/missing"
refuses "$tmp/missing" compact "$tmp/missing"
same "" "$(ls -A "$tmp/empty")" "an empty folder stays empty"
same text "$(ls -A "$tmp/other")" "a foreign folder stays as it is"
[ ! -e "$tmp/missing" ] || fail "a volume appeared"

# The folder vanishes in the middle of an import: no claim that it is done.
cp -a "$v" "$tmp/gone"
mkfifo "$tmp/fifo"
"$KVFS_BIN" import "$tmp/gone" new "$tmp/fifo" 2>"$tmp/stderr" &
pid=$!
pids+=("$pid")
exec 3>"$tmp/fifo"
cat "$tmp/data" "$tmp/data" "$tmp/data" "$tmp/data" "$tmp/data" >&3
begun() { kvfs ls "$tmp/gone" | grep -q '^\.kvfs-import-'; }
await begun
rm -rf "$tmp/gone"
exec 3>&-
status=0
wait "$pid" || status=$?
one_line $status "." "import into a folder that vanished"
[ ! -e "$tmp/gone" ] || fail "half a volume came back"

# A limit on the size of files is an error like a full disk, not a death that leaves things behind.
limited() { # COMMAND...: refused with files of at most 512 KiB
    status=0
    (ulimit -f 512 && exec "$KVFS_BIN" "$@") 2>"$tmp/stderr" || status=$?
    one_line $status "large|space" "ulimit: $*"
}
mkdir "$tmp/target"
limited export "$v" kept "$tmp/target/out"
same "" "$(ls -A "$tmp/target")" "left behind"
same "$sum" "$(kvfs export "$v" kept - | sha256sum)"

[ "$(id -u)" = 0 ] || {
    echo "skipped the rest: not root"
    exit 0
}

# Not allowed: another user, who may read but not write.
if command -v setpriv >/dev/null; then
    chmod 755 "$tmp"
    cp -a "$v" "$tmp/foreign"
    chmod -R a+rX "$tmp/foreign"
    as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    nobody() {
        "${as_nobody[@]}" "$KVFS_BIN" "$@"
    }
    if "${as_nobody[@]}" test -x "$KVFS_BIN"; then
        same "$sum" "$(nobody export "$tmp/foreign" kept - | sha256sum)" "reading as another user"
        for c in "mkdir $tmp/foreign new" "rm $tmp/foreign kept" "format --force $tmp/foreign" \
            "format $tmp/nobodys" "create $tmp/foreign new --size=1M"; do
            status=0
            # shellcheck disable=SC2086
            nobody $c >"$tmp/out" 2>"$tmp/stderr" || status=$?
            one_line $status "permission|read-only|not permitted" "nobody: $c"
        done
    fi
fi

# A full disk in the middle: the import is refused, what was there stays, deleting makes room.
# Then the same medium read-only.
mkdir "$tmp/m"
medium() { # NAME SIZE-MIB
    if [ "$1" = tmpfs ]; then
        mount -t tmpfs -o size="$2M" none "$tmp/m"
    else
        truncate -s "$2M" "$tmp/image" && mkfs.ext4 -q -F "$tmp/image" && mount -o loop "$tmp/image" "$tmp/m"
    fi 2>"$tmp/mount.err" && mounts+=("$tmp/m")
}
random_file "$tmp/large" 40000000
for kind in tmpfs ext4; do
    [ $kind = tmpfs ] || command -v mkfs.ext4 >/dev/null || continue
    if ! medium $kind 24; then
        echo "no $kind here: $(cat "$tmp/mount.err")"
        continue
    fi
    w=$tmp/m/v
    ok format "$w"
    ok import "$w" kept "$tmp/data"
    refuses "space|full" import "$w" large "$tmp/large"
    same kept "$(kvfs ls "$w")" "$kind: names after a full disk"
    same "$sum" "$(kvfs export "$w" kept - | sha256sum)" "$kind: bytes after a full disk"
    kvfs check "$w" >"$tmp/out" || fail "$kind: check after a full disk: $(cat "$tmp/out")"
    refuses "space|full" import --force "$w" kept "$tmp/large"
    same "$sum" "$(kvfs export "$w" kept - | sha256sum)" "$kind: what --force would replace"
    status=0
    head -c 40000000 "$tmp/large" | "$KVFS_BIN" import "$w" large 2>"$tmp/stderr" || status=$?
    one_line $status "space|full" "$kind: pipe into a full disk"
    status=0
    "$KVFS_BIN" copy "$v" "$tmp/m/copy" >"$tmp/out" 2>"$tmp/stderr" || status=$?
    if [ $status != 0 ]; then # the medium may hold it
        one_line $status "space|full" "$kind: copy to a full disk"
        [ ! -e "$tmp/m/copy" ] || fail "$kind: half a volume"
    fi
    rm -rf "$tmp/m/copy"
    same "" "$(find "$tmp/m" -name '*kvfs-*')" "$kind: left behind"
    # Once full to the brim, removing still works and makes room.
    n=0
    while head -c 500000 "$tmp/large" | "$KVFS_BIN" import "$w" "fill$n" 2>"$tmp/stderr"; do
        n=$((n + 1))
        [ $n -lt 200 ] || fail "$kind: never full"
    done
    one_line 1 "space|full" "$kind: filling"
    [ $n -gt 3 ] || fail "$kind: full after $n files"
    ok rm "$w" fill0 fill1 fill2
    again() { head -c 500000 "$tmp/large" | "$KVFS_BIN" import "$w" again 2>"$tmp/stderr"; }
    await again
    head -c 500000 "$tmp/large" | cmp - <(kvfs export "$w" again -) || fail "$kind: after making room"
    same "$sum" "$(kvfs export "$w" kept - | sha256sum)" "$kind: bytes at the end"
    # A format on a full medium leaves nothing.
    dd if=/dev/zero of="$tmp/m/ballast" bs=64k 2>/dev/null || true
    dd if=/dev/zero of="$tmp/m/ballast2" bs=1k 2>/dev/null || true
    # LMDB leaks its environment's path when mapping the lock table fails.
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 refuses "space|full" format "$tmp/m/new"
    [ ! -e "$tmp/m/new" ] || fail "$kind: half a volume after format"
    rm "$tmp/m/ballast" "$tmp/m/ballast2"

    mount -o remount,ro "$tmp/m"
    same "$sum" "$(kvfs export "$w" kept - | sha256sum)" "$kind: export from a read-only medium"
    kvfs ls -l "$w" >/dev/null || fail "$kind: ls on a read-only medium"
    kvfs df "$w" >/dev/null || fail "$kind: df on a read-only medium"
    kvfs check "$w" >"$tmp/out" || fail "$kind: check on a read-only medium: $(cat "$tmp/out")"
    changing "read-only" "$w"
    refuses "read-only" format "$tmp/m/new"
    refuses "read-only" format --force "$w"
    refuses "read-only" compact "$w"
    umount "$tmp/m"
done
