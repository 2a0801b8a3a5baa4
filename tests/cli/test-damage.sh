#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# Volumes that are damaged, foreign or too new: errors, never a crash, never wrong bytes; what is
# damaged is named and the rest stays readable.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
mangle=$KVFS_BINARY_DIR/tests/cli/kvfs_mangle
good=$tmp/good v=$tmp/v
ok format "$good" --engine=lmdb # whose pages are what is damaged here
random_file "$tmp/one" 300000
random_file "$tmp/two" 400000
ok import "$good" one "$tmp/one"
ok mkdir "$good" folder
ok import "$good" folder/two "$tmp/two"
ok ln -s "$good" folder/two soft
ok ln "$good" one folder/hard
ok create "$good" disk --size=1T
# shellcheck disable=SC2012
names=$(kvfs ls -R --json "$good" | json "len(j)")
fresh() {
    rm -rf "$v"
    cp -a --sparse=always "$good" "$v"
}

# Run a command on damage: success, or a proper refusal.  Its status is $status.
survives() {
    status=0
    timeout 60 "$KVFS_BIN" "$@" >"$tmp/stdout" 2>"$tmp/stderr" || status=$?
    [ $status -lt 124 ] || fail "kvfs $*: status $status"
    [ $status = 0 ] || [ "$1" = ls ] || [ ! -s "$tmp/stderr" ] || one_line $status "." "kvfs $*"
    ! grep -qv '^kvfs: ' "$tmp/stderr" || fail "kvfs $*: odd words on stderr"
}
# `check` either names the damage or says why it cannot look.
complains() { # PATTERN
    survives check "$v"
    if [ $status = 8 ]; then
        one_line $status "$1" "check"
    else
        same 4 $status "check's status"
        grep -Eqi "$1" "$tmp/stdout" || fail "check does not say '$1': $(cat "$tmp/stdout")"
    fi
}
# A file's bytes: right, or refused.  Counts in $wrong_refused.
bytes() { # NAME WANT
    survives export "$v" "$1" "$tmp/out"
    if [ $status = 0 ]; then
        cmp "$tmp/out" "$2" || fail "$1: wrong bytes exported"
        return 0
    fi
    refused=$((refused + 1))
}
poke() { # all that reads
    refused=0
    bytes one "$tmp/one"
    bytes folder/two "$tmp/two"
    survives ls -lR "$v"
    survives stat "$v" one soft folder disk
    survives df "$v"
    survives check "$v"
    check_status=$status
    cp "$tmp/stdout" "$tmp/check"
    ! grep '^:' "$tmp/check" || fail "check says nowhere"
}

# A damaged block: whoever reads by path is told the path, of a file and in a tree.
named() { # ABOUT
    local name
    for name in one folder/two; do
        survives export "$v" $name "$tmp/out"
        [ $status = 0 ] || one_line $status "^kvfs: export: $name: .*block .*checksum" "$1: export"
    done
    survives copy "$v:folder" "$tmp/copied"
    one_line $status "^kvfs: copy: folder/(two|hard): .*block .*checksum" "$1: copy of a folder"
    survives copy "$v" "$tmp/copied"
    one_line $status "^kvfs: copy: /(one|folder/two|folder/hard): .*block" "$1: copy of all"
    survives copy "$v:one" "$tmp/copied"
    [ $status = 0 ] || one_line $status "^kvfs: copy: one: .*block" "$1: copy of a file"
    rm -rf "$tmp/copied"
    if [ -e "${KVFS_PLUGIN:-}" ] && command -v nbdkit >/dev/null && command -v nbdcopy >/dev/null; then
        for name in one folder/two; do
            LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -r -U - "$KVFS_PLUGIN" "$v" file=$name \
                --run "nbdcopy \"\$uri\" '$tmp/out'" >"$tmp/log" 2>&1 && continue
            grep -Eq "export '$name': .*block .*checksum" "$tmp/log" ||
                fail "$1: nbdkit says $(cat "$tmp/log")"
        done
    fi
}

# The text file `volume`: another format, another engine, another uuid, rubbish, nothing.
edit() { # SED-SCRIPT PATTERN
    fresh
    sed -i "$1" "$v/volume"
    ! cmp -s "$v/volume" "$good/volume" || fail "'$1' changes nothing in $(cat "$v/volume")"
    for c in ls df compact; do
        refuses "$2" $c "$v"
    done
    complains "$2"
    refuses "$2" export "$v" one "$tmp/never"
    refuses "$2" mkdir "$v" new
    refuses "$2" import "$v" new "$tmp/one"
    [ ! -e "$tmp/never" ] || fail "something half made"
    cmp -s "$v/data.mdb" "$good/data.mdb" || fail "'$1': the store was written"
}
edit 's/^kvfs-volume 1$/kvfs-volume 99/' "format|newer|version"
edit 's/lmdb/nonesuch/' "nonesuch"
edit 's/lmdb/mem/' "mem|engine|store"
edit 's/\([0-9a-f]\{8\}-\)/00000000-/' "two volumes"
edit '1,$s/.*/rubbish/' "volume"
edit '1,$d' "volume"
edit '1s/^/\x00/' "volume"
fresh
head -c 3000000 /dev/urandom >"$v/volume"
refuses "volume" ls "$v"
fresh
rm "$v/volume"
refuses "volume" ls "$v"
refuses "." mkdir "$v" new
fresh
rm "$v/data.mdb"
refuses "." ls "$v"
refuses "." mkdir "$v" new
[ ! -e "$v/data.mdb" ] || fail "an empty store was made"

# The superblock, with a good checksum.
too_new() { # FIELD VALUE PATTERN
    fresh
    "$mangle" "$v" super "$1" "$2"
    refuses "$3" ls "$v"
    refuses "$3" mkdir "$v" new
    complains "$3"
}
too_new format 99 "format|newer|version"
too_new incompat 0x8000000000000000 "feature"
too_new engine rocksdb "rocksdb|engine"
fresh
"$mangle" "$v" super ro_compat 1
same "$names" "$(kvfs ls -R --json "$v" | json "len(j)")" "reading with a feature for writers"
refuses "feature" mkdir "$v" new

# One flipped bit in each META record in turn, and in some DATA records: check names it; reads are
# right or refused; flipped back, all is well.
fresh
"$mangle" "$v" list >"$tmp/records"
metas=$(grep -c '^META' "$tmp/records")
datas=$(grep -c '^DATA' "$tmp/records")
echo "$metas META and $datas DATA records"
[ "$metas" -gt 15 ] || fail "few records: $(cat "$tmp/records")"
[ "$datas" -gt 100 ] || fail "few records: $(cat "$tmp/records")"
RANDOM=$seed
for ((i = 0; i < metas; i++)); do
    bit=$((RANDOM * 32768 + RANDOM))
    about="META record $i, bit $bit: $(grep "^META $i " "$tmp/records")"
    "$mangle" "$v" flip META $i $bit
    poke
    [ $check_status = 4 ] || [ $check_status = 8 ] || fail "$about: check answers $check_status"
    "$mangle" "$v" flip META $i $bit
done
for i in 0 $((datas - 1)) $((RANDOM % datas)) $((RANDOM % datas)) $((RANDOM % datas)); do
    bit=$((RANDOM * 32768 + RANDOM))
    about="DATA record $i, bit $bit"
    "$mangle" "$v" flip DATA "$i" $bit
    poke
    same 4 $check_status "$about: check"
    grep -q 'block' "$tmp/check" || fail "$about: check says $(cat "$tmp/check")"
    same 1 $refused "$about: files refused"
    named "$about"
    "$mangle" "$v" flip DATA "$i" $bit
done
poke
same "0 0" "$refused $check_status" "everything flipped back"

# A truncated store.
size=$(stat -c %s "$good/data.mdb")
for left in 0 1 100 4096 8191 8192 12288 $((size / 4)) $((size / 2)) $((size - 4096)) $((size - 1)); do
    fresh
    truncate -s $left "$v/data.mdb"
    poke
    # LMDB reserves space behind its last page: to lose some of that is no damage.
    case $check_status in
    0) [ $refused = 0 ] && [ "$left" -gt 700000 ] ;;
    4 | 8) ;;
    *) false ;;
    esac || fail "truncated to $left: check answers $check_status, $refused files are refused"
    survives mkdir "$v" new
    survives import "$v" new "$tmp/one"
done

# Flipped bits in the store's pages, below what the engine guards.
pages=$((size / 4096))
noticed=0
reads_refused=0
for round in $(seq $((12 * ${KVFS_SCALE:-1}))); do
    fresh
    page=$((RANDOM % pages))
    python3 - "$v/data.mdb" $page "$seed-$round" <<'P'
import random, sys
r = random.Random(sys.argv[3])
with open(sys.argv[1], "r+b") as f:
    # headers and pointers lie at the start of a page: hit them often
    for _ in range(8):
        at = int(sys.argv[2]) * 4096 + r.choice([r.randrange(64), r.randrange(4096)])
        f.seek(at)
        b = f.read(1)[0]
        f.seek(at)
        f.write(bytes([b ^ (1 << r.randrange(8))]))
P
    poke
    [ $check_status = 0 ] || noticed=$((noticed + 1))
    reads_refused=$((reads_refused + refused))
    survives mkdir "$v" new
    survives import "$v" new "$tmp/one"
    survives rm "$v" folder/hard
    survives check --repair "$v"
    survives check "$v"
    bytes one "$tmp/one"
    survives compact "$v"
    bytes one "$tmp/one"
done

echo "of $round pages: $noticed noticed by check, $reads_refused files refused"
[ $noticed -gt 0 ] || fail "no round of flipped pages was noticed"

# A tree that cannot be entered at all: check says which.
entered=0
python3 - "$good/data.mdb" >"$tmp/trees" <<'P'
import struct, sys
data = open(sys.argv[1], "rb").read()
for n in range(2, len(data) // 4096):
    if struct.unpack_from("=QHH", data, 4096 * n) in ((n, 0, 1), (n, 0, 2)):
        print(n)
P
while read -r page; do
    fresh
    printf '\x5a' | dd of="$v/data.mdb" bs=1 seek=$((page * 4096)) conv=notrunc status=none
    survives check "$v"
    ! grep '^:' "$tmp/stdout" || fail "page $page: check says nowhere"
    ! grep -Eq '^(META|DATA): the first records cannot be read' "$tmp/stdout" || entered=$((entered + 1))
done <"$tmp/trees"
[ $entered -gt 0 ] || fail "no damaged root in $(wc -l <"$tmp/trees") pages of trees"

# One flipped bit in a page of a tree: a record that cannot be found must not read as zeros.
lost=0
for round in $(seq $((40 * ${KVFS_SCALE:-1}))); do
    fresh
    python3 - "$v/data.mdb" "$seed-$round" <<'P'
import random, struct, sys
r = random.Random(sys.argv[2])
with open(sys.argv[1], "r+b") as f:
    data = f.read()
    trees = [n for n in range(2, len(data) // 4096)
             if struct.unpack_from("=QHH", data, 4096 * n) in ((n, 0, 1), (n, 0, 2))]
    at = 4096 * r.choice(trees) + r.randrange(4096)
    f.seek(at)
    f.write(bytes([data[at] ^ 1 << r.randrange(8)]))
P
    refused=0
    bytes one "$tmp/one"
    bytes folder/two "$tmp/two"
    lost=$((lost + refused))
done
echo "of $round flipped bits in trees: $lost files refused"
[ $lost -gt 0 ] || fail "no flipped bit in a tree was noticed"

# --repair: what it claims is so.
fresh
index=$(grep '^META' "$tmp/records" | grep -n " 4300 \| 4301 " | head -1 | cut -d: -f1)
if [ -n "$index" ]; then # a counter
    "$mangle" "$v" flip META $((index - 1)) 20
    survives check "$v"
    same 4 $status "a damaged counter"
    survives check --repair "$v"
    same 1 $status "repairing a counter"
    survives check "$v"
    same 0 $status "after repairing"
    bytes one "$tmp/one"
    bytes folder/two "$tmp/two"
fi
