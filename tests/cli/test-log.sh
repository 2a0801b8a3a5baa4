#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# An intent log before an engine: names, a volume through all commands, the log put before a
# volume that has none and taken away again, what df tells, a lost file `volume`.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
random_file "$tmp/data" 3000320
bytes() { kvfs export "$v" disk - | cmp - "$tmp/data" || fail "bytes: $1"; }

# Names.
for name in log:log:lmdb log:/x log:./lmdb; do
    refuses "a log takes another engine by its name" format "$v" --engine="$name"
done
refuses "say which engine" format "$v" --engine=log
refuses "'nosuch' is not built in" format "$v" --engine=log:nosuch
refuses "forgets everything" format "$v" --engine=log:mem
refuses "name is too long" format "$v" --engine="log:$(printf '%060d' 0)"
grep -q '^log .*log:ENGINE' <<<"$engines" || fail "engines: $engines"
[ ! -e "$v" ] || fail "a refused format leaves a folder"

# A volume that begins with one.
ok format "$v" --engine=log:lmdb
same $'engine lmdb\nlog on' "$(tail -n 2 "$v/volume")"
ok import "$v" disk "$tmp/data"
bytes "imported"
same "log:lmdb" "$(kvfs df --json "$v" | json "j['engine']")"
same True "$(kvfs df --json "$v" | json "j['log_bytes'] >= 4 << 20 - 12 and j['log_commits'] > 0")"
kvfs df "$v" | grep -q '^intent log ' || fail "df: $(kvfs df "$v")"
refuses "has engine log:lmdb, not lmdb" copy "$v" "$v" --engine=lmdb
kvfs check "$v" >"$tmp/out" || fail "check: $(cat "$tmp/out")"
kvfs compact "$v" >/dev/null || fail "compact"
bytes "compacted"

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
kvfs check --repair "$v" >"$tmp/out" || fail "check with the log again: $(cat "$tmp/out")"
bytes "with the log again"

# Away, and back, and what is so already.
same on "$(kvfs log "$v")" "on"
ok log "$v" off
ok log "$v" off
same off "$(kvfs log "$v")" "off"
for name in log log.lock; do
    [ ! -e "$v/$name" ] || fail "$(ls "$v")"
done
grep -qx "log off" "$v/volume" || fail "$(cat "$v/volume")"
same "lmdb" "$(kvfs df --json "$v" | json "j['engine']")"
! kvfs df "$v" | grep -q '^intent log' || fail "df tells of a log that is gone"
kvfs check "$v" >"$tmp/out" || fail "check without: $(cat "$tmp/out")"
bytes "without"
ok log "$v" on
bytes "with, nothing logged yet"
kvfs rm "$v" disk
ok import "$v" disk "$tmp/data"
bytes "with"
same True "$(kvfs log --json "$v" | json "j['log'] and j['engine'] == 'log:lmdb'")" "--json"

# Bad words, no volume, in use.
kvfs log "$v" maybe >"$tmp/out" 2>"$tmp/stderr" && fail "'maybe' is taken"
grep -q "on or off" "$tmp/stderr" || fail "$(cat "$tmp/stderr")"
refuses "not a kvfs volume" log "$tmp" off
refuses "No such file" log "$tmp/none" off
mkfifo "$tmp/pipe"
"$KVFS_BIN" import "$v" held "$tmp/pipe" >/dev/null 2>&1 &
holder=$!
exec 7>"$tmp/pipe"
refuses "in use by process $holder" log "$v" off
exec 7>&-
wait "$holder" || fail "the holder's import"
same on "$(kvfs log "$v")" "still on"

# nbdkit puts it before the engine as well.
if command -v nbdkit >/dev/null && [ -n "${KVFS_PLUGIN:-}" ]; then
    ok log "$v" off
    nbdkit -U - "$KVFS_PLUGIN" "$v" file=disk log=on --run true || fail "nbdkit log=on"
    same on "$(kvfs log "$v")" "nbdkit log=on"
    nbdkit -U - "$KVFS_PLUGIN" "$v" file=disk log=off --run true || fail "nbdkit log=off"
    same off "$(kvfs log "$v")" "nbdkit log=off"
    bytes "after nbdkit"
    # engine= is judged first, and names the engine behind the log.
    if nbdkit -U - "$KVFS_PLUGIN" "$v" file=disk engine=sqlite log=on --run true 2>"$tmp/stderr"; then
        fail "nbdkit engine=sqlite log=on"
    fi
    grep -q "has engine lmdb, not sqlite" "$tmp/stderr" || fail "$(cat "$tmp/stderr")"
    same off "$(kvfs log "$v")" "refused and changed all the same"
    for name in lmdb lmdb log:lmdb; do
        nbdkit -U - "$KVFS_PLUGIN" "$v" file=disk engine=$name log=on --run true ||
            fail "nbdkit engine=$name log=on"
        same on "$(kvfs log "$v")" "nbdkit engine=$name log=on"
    done
    nbdkit -U - "$KVFS_PLUGIN" "$v" file=disk engine=lmdb log=off --run true ||
        fail "nbdkit engine=lmdb log=off"
    same off "$(kvfs log "$v")" "nbdkit engine=lmdb log=off"
    if nbdkit -U - "$KVFS_PLUGIN" "$v" file=disk engine=./x.so log=on --run true 2>"$tmp/stderr"; then
        fail "nbdkit engine=./x.so log=on"
    fi
    ok log "$v" on
    ok mkdir "$v" folder # the log is there when somebody writes
fi

# The file `volume` is damaged: the folder tells that there was a log.
cp "$v/volume" "$tmp/volume"
echo junk >"$v/volume"
status=0
kvfs check --repair "$v" >"$tmp/out" || status=$?
same 1 "$status" "repaired"
cmp "$tmp/volume" "$v/volume" || fail "rebuilt: $(cat "$v/volume" "$tmp/out")"
bytes "rebuilt"
kvfs check "$v" >"$tmp/out" || fail "check at the end: $(cat "$tmp/out")"

# The ring is lost: everything refuses, and a repair begins another and says so, once.
repaired() { # ABOUT
    status=0
    kvfs check --repair "$v" >"$tmp/out" || status=$?
    same 1 "$status" "$1: $(cat "$tmp/out")"
    same 1 "$(grep -c '^log: is lost, .*; begun anew, empty$' "$tmp/out")" "$1: $(cat "$tmp/out")"
    cmp "$tmp/volume" "$v/volume" || fail "$1: $(cat "$v/volume" "$tmp/out")"
    bytes "$1"
    kvfs check "$v" >"$tmp/out" || fail "check after $1: $(cat "$tmp/out")"
    ok mkdir "$v" "after $1"
}
mv "$v/log" "$tmp/lost"
refuses "log of this store is missing" log "$v" off
status=0
kvfs check "$v" >"$tmp/out" || status=$?
same 4 "$status" "check without its log"
[ ! -e "$v/log" ] || fail "a check makes a log"
repaired "a lost log"
cp "$at/log" "$v/log"
repaired "another store's log"
rm "$v/log"
echo junk >"$v/volume"
repaired "no log and no file 'volume'"
grep -q "^file 'volume': " "$tmp/out" && fail "repaired, and still: $(cat "$tmp/out")"
cp "$tmp/lost" "$v/log"
refuses "log of this store is missing" ls "$v" # what was lost is not taken for the new one
repaired "the lost log again"

ok log "$v" off
[ ! -e "$v/log" ] || fail "off, and there is a log"
bytes "off at the end"
echo junk >"$v/volume"
kvfs check --repair "$v" >"$tmp/out" || true
grep -qx "log off" "$v/volume" || fail "a log that was taken away: $(cat "$v/volume")"
