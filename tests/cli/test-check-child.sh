#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# An engine that crashes on a store: a finding with its name, status 4, and one JSON object.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
KVFS_ENGINE_DIR=$KVFS_BINARY_DIR/tests/core
export KVFS_ENGINE_DIR
random_file "$tmp/data" 300000
ok format "$v" --engine=mad
ok import "$v" disk "$tmp/data"
for stage in open verify close; do
    for way in segv abort exit; do
        for repair in "" --repair; do
            status=0
            # shellcheck disable=SC2086 # an empty word is none
            KVFS_MAD="$stage $way" "$KVFS_BIN" check $repair "$v" >"$tmp/out" 2>"$tmp/err" ||
                status=$?
            same 4 $status "$stage $way: status"
            same "" "$(cat "$tmp/err")" "$stage $way: stderr"
            grep -Eq "^store: the engine mad (crashed|ended its process) .*(ing) it" "$tmp/out" ||
                fail "$stage $way: $(cat "$tmp/out")"
            status=0
            # shellcheck disable=SC2086
            KVFS_MAD="$stage $way" "$KVFS_BIN" check --json $repair "$v" >"$tmp/out" 2>"$tmp/err" ||
                status=$?
            same 4 $status "$stage $way: status with --json"
            same "damaged 1 store True" "$(json \
                "j['state'], j['found'], j['findings'][0]['where'], 'engine mad' in j['findings'][0]['what']" \
                <"$tmp/out" | tr -d "(),'")"
        done
    done
done
kvfs check "$v" >"$tmp/out" || fail "a sound check: $(cat "$tmp/out")"
kvfs export "$v" disk - | cmp - "$tmp/data" || fail "bytes"

# A store that does not open is damage, also to an engine that works in no second child,
# and a volume that is only looked at has the room that it has.
for engine in sqlite rocksdb jammdb sled; do
    "$KVFS_BIN" engines | grep -q "^$engine " || continue
    w=$tmp/$engine
    ok format "$w" --engine=$engine
    kvfs df --json "$w" >"$tmp/out" || fail "$engine: df: $(cat "$tmp/err")"
    same True "$(json "j['avail_bytes'] > 0" <"$tmp/out")" "$engine: room, or none told"
    [ $engine = sled ] || continue
    rm "$w/sled/conf"
    status=0
    "$KVFS_BIN" check "$w" >"$tmp/out" 2>"$tmp/err" || status=$?
    same 4 $status "$engine: status of a store without its conf"
    same "" "$(cat "$tmp/err")" "$engine: stderr"
    grep -q "^store: cannot be opened: .*conf: missing" "$tmp/out" || fail "$(cat "$tmp/out")"
done
