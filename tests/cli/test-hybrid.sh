#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# Two engines as one: which names are taken, a volume through all commands and served, copies
# to other engines and back, halves that are missing or another volume's, a second process.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
other=lmdb
for one in sqlite rocksdb; do
    [[ $engines != *$'\n'$one\ * ]] || other=$one
done
pair=hybrid:lmdb+$other
v=$tmp/v
random_file "$tmp/data" 3000320

# Names.
for name in hybrid: hybrid:lmdb hybrid:lmdb+ hybrid:+lmdb hybrid:lmdb+lmdb+lmdb hybrid:lmdb+hybrid \
    hybrid:hybrid:lmdb+lmdb+lmdb hybrid:lmdb+/x hybrid:./lmdb+lmdb "hybrid:lmdb +lmdb" hybrid:LMDB+lmdb; do
    refuses "hybrid takes two engines by their plain names" format "$v" --engine="$name"
done
refuses "which two.*hybrid:META\+DATA" format "$v" --engine=hybrid
refuses "'nosuch' is not built in" format "$v" --engine=hybrid:lmdb+nosuch
refuses "one of the two forgets everything" format "$v" --engine=hybrid:mem+lmdb
refuses "forgets everything" format "$v" --engine=hybrid:mem+mem
long=hybrid:lmdb+$(printf '%060d' 0)
refuses "name is too long" format "$v" --engine="$long"
[ ! -e "$v" ] || fail "a refused format leaves a folder"
grep -q '^hybrid .*hybrid:META+DATA' <<<"$engines" || fail "engines: $engines"
same True "$(kvfs engines --json | json "[e['caps'] for e in j if e['name'] == 'hybrid'] == [[]]")"
same True "$(kvfs engines --json | json "len({tuple(e) for e in j}) == 1")" "each engine has the same members"
same '[None]' "$(kvfs engines --json | json "[e['value_max_bytes'] for e in j if e['name'] == 'hybrid']")"

# A volume.
ok format "$v" --engine="$pair"
grep -qx "engine $pair" "$v/volume" || fail "$(cat "$v/volume")"
same "$pair" "$(cat "$v/hybrid")" "the store's own file"
ok import "$v" disk "$tmp/data"
kvfs export "$v" disk - | cmp - "$tmp/data" || fail "bytes"
same "$pair" "$(kvfs df --json "$v" | json "j['engine']")"
kvfs check "$v" >"$tmp/out" || fail "check: $(cat "$tmp/out")"
kvfs check --repair "$v" >"$tmp/out" || fail "check --repair: $(cat "$tmp/out")"
kvfs compact "$v" >/dev/null || fail "compact"
kvfs check "$v" >"$tmp/out" || fail "check after compact: $(cat "$tmp/out")"
[[ -d $v/META && -d $v/DATA ]] || fail "$(ls "$v")"

# To other engines and back.
at=$v
for engine in lmdb "hybrid:$other+lmdb" "$other" "$pair"; do
    kvfs copy --engine="$engine" "$at" "$tmp/to-${engine//[:+]/-}" >"$tmp/out" || fail "copy: $(cat "$tmp/out")"
    at=$tmp/to-${engine//[:+]/-}
    same "$engine" "$(kvfs df --json "$at" | json "j['engine']")"
    kvfs export "$at" disk - | cmp - "$tmp/data" || fail "bytes with $engine"
done

# Another pair than the volume's; the file that names it.
cp "$v/volume" "$tmp/kept"
sed -i "s/^engine .*/engine hybrid:lmdb+lmdb/" "$v/volume"
if [ "$other" != lmdb ]; then
    refuses "the store is one of ${pair//+/\\+}, not of hybrid:lmdb\+lmdb" ls "$v"
fi
cp "$tmp/kept" "$v/volume"
cp "$v/hybrid" "$tmp/kept"
echo "hybrid:/tmp/x+lmdb" >"$v/hybrid"
refuses "plain names" ls "$v"
echo "nonsense" >"$v/hybrid"
refuses "does not name two engines" ls "$v"
rm "$v/hybrid"
refuses "store of the volume is missing" ls "$v"
cp "$tmp/kept" "$v/hybrid"

# Halves that are gone, or another volume's.
for half in META DATA; do
    mv "$v/$half" "$tmp/half"
    refuses "$v/$half: the .* store is missing" ls "$v"
    status=0
    kvfs check "$v" >"$tmp/out" 2>&1 || status=$?
    same 4 $status "check without $half"
    grep -q "$half: the .* store is missing" "$tmp/out" || fail "check: $(cat "$tmp/out")"
    cp -r "$at/$half" "$v/$half"
    refuses "META and DATA belong to different stores" ls "$v"
    rm -r "${v:?}/$half"
    mv "$tmp/half" "$v/$half"
done
kvfs export "$v" disk - | cmp - "$tmp/data" || fail "bytes afterwards"

# Damage is told by the engine that has it.
cp -r "$v" "$tmp/damaged"
python3 - "$tmp/damaged/META/data.mdb" <<'EOF'
import sys
with open(sys.argv[1], 'r+b') as f:
    f.seek(2 * 4096)
    rest = len(f.read())
    f.seek(2 * 4096)
    f.write(b'\xa5' * rest)
EOF
status=0
kvfs check "$tmp/damaged" >"$tmp/out" 2>&1 || status=$?
same 4 $status "check of a damaged half: $(cat "$tmp/out")"

# Served: two processes would be one too many.
needs nbdkit nbdinfo nbdcopy
[ -e "${KVFS_PLUGIN:-}" ] || exit 77
LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -U "$tmp/socket" -P "$tmp/pid" -f "$KVFS_PLUGIN" "$v" \
    engine="$pair" file=disk 2>"$tmp/nbdkit" &
pids+=($!)
await test -s "$tmp/pid"
same 3000320 "$(nbdinfo --size "nbd+unix:///?socket=$tmp/socket")" "size"
refuses "held by process $(cat "$tmp/pid")" ls "$v"
nbdcopy "nbd+unix:///?socket=$tmp/socket" - | cmp - "$tmp/data" || fail "served bytes"
kill -KILL "$(cat "$tmp/pid")"
wait "${pids[0]}" 2>/dev/null || true
kvfs check "$v" >"$tmp/out" || fail "check after a kill: $(cat "$tmp/out")"
