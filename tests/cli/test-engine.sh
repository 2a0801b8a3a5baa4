#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# An engine in a file: found by its name afterwards, or no volume is made with it; what is said
# where it is missing; code is loaded from one folder only.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
module=$KVFS_BINARY_DIR/tests/contract/libkvfs-engine-x.so
v=$tmp/v
mkdir "$tmp/e" "$tmp/none"
cp "$module" "$tmp/e/"
random_file "$tmp/data" 300000

# Nobody could open such a volume: refused, with the place of the file, and nothing is left.
export KVFS_ENGINE_DIR=$tmp/none
refuses "$tmp/none/libkvfs-engine-x\\.so" format "$v" --engine="$module"
refuses "no $tmp/none/libkvfs-engine-x\\.so" format "$v" --engine=x
unset KVFS_ENGINE_DIR
refuses "/kvfs/libkvfs-engine-x\\.so" format "$v" --engine="$module"
[ ! -e "$v" ] || fail "a refused format leaves a folder"
mkdir "$v"
refuses "/kvfs/libkvfs-engine-x\\.so" format "$v" --engine="$module"
same "" "$(ls -A "$v")" "left behind"

# In its folder, by path or by name.
export KVFS_ENGINE_DIR=$tmp/e
ok format "$v" --engine="$module"
grep -qx 'engine x' "$v/volume" || fail "$(cat "$v/volume")"
ok format "$tmp/w" --engine=x
for one in "$v" "$tmp/w"; do
    ok import "$one" disk "$tmp/data"
    ok resize "$one" disk +32
    kvfs export "$one" disk - | head -c 300000 | cmp - "$tmp/data" || fail "bytes"
    kvfs check "$one" >"$tmp/out" || fail "check: $(cat "$tmp/out")"
    kvfs check --repair "$one" >"$tmp/out" || fail "check --repair: $(cat "$tmp/out")"
    same x "$(kvfs df --json "$one" | json "j['engine']")"
done
kvfs compact "$v" >/dev/null || fail "compact"
kvfs copy --engine=x "$v" "$tmp/copy" >/dev/null || fail "copy"
same disk "$(kvfs ls "$tmp/copy")"
# The engine's own words.
: >"$v/x-closed"
refuses "engine x is closed" ls "$v"
rm "$v/x-closed"

# A file by the name of another engine; a folder that depends on where one stands.
cp "$module" "$tmp/e/libkvfs-engine-y.so"
refuses "libkvfs-engine-y.so: calls itself 'x', not 'y'" format "$tmp/new" --engine=y
cp "$v/volume" "$tmp/kept"
sed -i 's/^engine x$/engine y/' "$v/volume"
refuses "calls itself 'x'" ls "$v"
cp "$tmp/kept" "$v/volume"
(cd "$tmp" && KVFS_ENGINE_DIR=e refuses "KVFS_ENGINE_DIR=e: not an absolute" ls "$v")

# A volume names an engine and no file: its owner's code is not loaded.
for name in "$tmp/e/libkvfs-engine-x.so" ../e/libkvfs-engine-x.so x/../x; do
    sed "s|^engine x\$|engine $name|" "$tmp/kept" >"$v/volume"
    refuses "'volume' is damaged in line 3" ls "$v"
    status=0
    "$KVFS_BIN" check "$v" >"$tmp/out" 2>"$tmp/stderr" || status=$?
    same 4 $status "check of a volume whose engine is '$name'"
done
cp "$tmp/kept" "$v/volume"

# Without the file.
KVFS_ENGINE_DIR=$tmp/none
for c in ls df compact; do
    refuses "$v: engine 'x' is not built in .*no $tmp/none/libkvfs-engine-x.so|libkvfs-engine-x.so" \
        $c "$v"
done
status=0
kvfs check "$v" >"$tmp/out" 2>"$tmp/stderr" || status=$?
same 8 $status "check without the engine"
one_line $status "engine 'x' is not built in" "check without the engine"

# Served.
needs nbdkit nbdinfo
[ -e "${KVFS_PLUGIN:-}" ] || exit 77
serve() {
    LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -U - "$KVFS_PLUGIN" "$@" file=disk \
        --run 'nbdinfo --size "$uri"' 2>"$tmp/stderr"
}
! serve "$v" >/dev/null || fail "served without its engine"
grep -q "engine 'x' is not built in" "$tmp/stderr" || fail "nbdkit without the engine"
! grep -q "to make a volume" "$tmp/stderr" || fail "a volume is there already"
! serve "$tmp/nowhere" >/dev/null || fail "nothing is served"
grep -q "to make a volume" "$tmp/stderr" || fail "nbdkit without a volume"
same 300032 "$(serve "$v" engine="$module")" "size, with the engine by its path"
export KVFS_ENGINE_DIR=$tmp/e
same 300032 "$(serve "$v")" "size, with the engine by its name"
same 300032 "$(serve "$v" engine=x)" "size, with the engine's name"
