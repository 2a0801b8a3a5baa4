#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# usage: test-ring.sh ENGINE...
# A volume is copied round all engines that are built in, and home: every byte, hole, link, time
# and attribute is as it was.  The volume knows its engine; another one's name is refused.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
start=$tmp/start
ok format "$start" --engine="$1" --block-size=4096
random_file "$tmp/data" 3000001
truncate -s 40M "$tmp/sparse"
dd if="$tmp/data" of="$tmp/sparse" conv=notrunc bs=1M seek=9 status=none
ok import "$start" disk "$tmp/sparse"
ok import --block-size=512 "$start" small "$tmp/data"
ok import --block-size=65536 "$start" large "$tmp/sparse"
ok mkdir -p "$start" tree/empty
ok ln "$start" small tree/twin
ok ln -s "$start" "../nowhere/at all" tree/soft
ok create "$start" tree/huge --size=1P
ok import "$start" $'tree/\xff odd\n' - <<<"odd"

listing() { # VOLUME: names, types, sizes, blocks in use, links, modes, owners, times
    kvfs ls -R --json -l "$1" / | json "'\n'.join(sorted(str([
        {k: e[k] for k in e if k not in ('ino', 'path_hex')}]) for e in j))"
}
sums() { # VOLUME
    local name
    for name in disk small large tree/twin $'tree/\xff odd\n'; do
        kvfs export "$1" "$name" - | sha256sum
    done
}
listing "$start" >"$tmp/listing"
sums "$start" >"$tmp/sums"

at=$start
n=0
for engine in "${@:2}" "$1"; do
    n=$((n + 1))
    next=$tmp/v$n
    kvfs copy --engine="$engine" "$at" "$next" >"$tmp/out" 2>"$tmp/stderr" ||
        fail "copy to $engine: $(cat "$tmp/stderr")"
    grep -q '^copied and verified' "$tmp/out" || fail "copy to $engine: $(cat "$tmp/out")"
    grep -qx "engine ${engine#log:}" "$next/volume" || fail "$(cat "$next/volume")"
    same "$engine" "$(kvfs df --json "$next" | json "j['engine']")" "engine"
    listing "$next" | diff "$tmp/listing" - || fail "a listing differs in $engine"
    sums "$next" | cmp "$tmp/sums" - || fail "bytes differ in $engine"
    used=$(kvfs stat -u --json "$next" disk | json "j[0]['used_bytes']")
    [ "$used" -lt 3100000 ] || fail "$engine: holes are filled: $used"
    kvfs check "$next" >"$tmp/out" || fail "check in $engine: $(cat "$tmp/out")"
    [ "$at" = "$start" ] || rm -rf "$at"
    at=$next
done

# nbdkit finds the engine by itself, and refuses another one by both names.
command -v nbdkit >/dev/null || exit 0
serve() { # VOLUME ARGUMENT...
    local volume=$1
    shift
    LD_PRELOAD=${KVFS_PRELOAD:-} timeout 60 nbdkit -U - -r "$KVFS_PLUGIN" "$volume" file=disk "$@" \
        --run 'nbdcopy "$uri" -' 2>"$tmp/stderr"
}
for engine in "$@"; do
    v=$tmp/nbd
    ok copy --engine="$engine" "$at" "$v" >/dev/null
    if [ -z "${KVFS_PRELOAD:-}" ] && command -v nbdcopy >/dev/null; then
        serve "$v" | cmp - "$tmp/sparse" || fail "nbdkit over $engine: $(cat "$tmp/stderr")"
    fi
    for other in "$@"; do
        [ "$other" != "$engine" ] || continue
        ! serve "$v" engine="$other" >/dev/null || fail "engine=$other serves a volume of $engine"
        for word in "$engine" "$other"; do
            grep -qF "$word" "$tmp/stderr" ||
                fail "engine=$other on $engine: $(cat "$tmp/stderr")"
        done
        same 1 "$(wc -l <"$tmp/stderr")" "lines on stderr"
    done
    rm -rf "$v"
done
