#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# A log in front of an engine: which names are taken, a volume through all commands, copies to
# other engines and back, a log that is missing or another volume's.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
random_file "$tmp/data" 3000320

# Names.
for name in log:log:lmdb log:/x log:./lmdb; do
    refuses "a log takes another engine by its name" format "$v" --engine="$name"
done
refuses "which engine the log is for" format "$v" --engine=log
refuses "'nosuch' is not built in" format "$v" --engine=log:nosuch
refuses "forgets everything" format "$v" --engine=log:mem
refuses "name is too long" format "$v" --engine="log:$(printf '%060d' 0)"
[ ! -e "$v" ] || fail "a refused format leaves a folder"
grep -q '^log .*log:ENGINE' <<<"$engines" || fail "engines: $engines"

# A volume.
ok format "$v" --engine=log:lmdb
grep -qx "engine log:lmdb" "$v/volume" || fail "$(cat "$v/volume")"
ok import "$v" disk "$tmp/data"
kvfs export "$v" disk - | cmp - "$tmp/data" || fail "bytes"
kvfs check "$v" >"$tmp/out" || fail "check: $(cat "$tmp/out")"
kvfs check --repair "$v" >"$tmp/out" || fail "check --repair: $(cat "$tmp/out")"
kvfs compact "$v" >/dev/null || fail "compact"
kvfs check "$v" >"$tmp/out" || fail "check after compact: $(cat "$tmp/out")"

# To other engines and back.
at=$v
for engine in lmdb log:lmdb; do
    kvfs copy --engine="$engine" "$at" "$tmp/to-${engine//:/-}" >"$tmp/out" ||
        fail "copy: $(cat "$tmp/out")"
    at=$tmp/to-${engine//:/-}
    same "$engine" "$(kvfs df --json "$at" | json "j['engine']")"
    kvfs export "$at" disk - | cmp - "$tmp/data" || fail "bytes with $engine"
done

# Another volume's log, and none.
cp "$v/log" "$tmp/kept"
cp "$at/log" "$v/log"
refuses "log of this store is missing" ls "$v"
refuses "log of this store is missing" import "$v" more "$tmp/data"
rm "$v/log"
refuses "log of this store is missing" ls "$v"
cp "$tmp/kept" "$v/log"
kvfs check "$v" >"$tmp/out" || fail "check with the log again: $(cat "$tmp/out")"
kvfs export "$v" disk - | cmp - "$tmp/data" || fail "bytes with the log again"
