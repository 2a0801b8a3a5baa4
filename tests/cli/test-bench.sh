#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# kvfs bench: every load has its numbers, and the volume is afterwards what it was before, also
# after a signal at any time.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
needs jq

v=$tmp/v
ok format "$v"
ok create "$v" mine --size=1M
before=$(kvfs ls -lR "$v")
unchanged() {
    same "$before" "$(kvfs ls -lR "$v")" "names after $1"
    kvfs check --json "$v" >"$tmp/check" || fail "check after $1"
    # The root and `mine`: no orphan, and none of the scratch file's blocks.
    jq -e '.found == 0 and .inodes == 2 and .blocks == 0' "$tmp/check" >/dev/null ||
        fail "something stays after $1: $(cat "$tmp/check")"
}

ok bench "$v" --size=1M --seconds=0.1 --json >"$tmp/json"
jq -e '(.cells | length) == 13 and .size_bytes == 1048576 and .durable and
    ([.cells[].name] | unique | length) == 13 and
    (.cells[0] | .name == "fill" and .ops == 256) and
    all(.cells[]; .ops > 0 and .rate > 0 and .rate_drained > 0 and .seconds > 0 and
        (.latency_ns | .p50 > 0 and .p50 <= .p99 and .p99 <= .p999 and .p999 <= .max)) and
    all(.cells[] | select(.op == "read" or .flush == 0); .flushes == 0) and
    all(.cells[] | select(.flush == 1); .flushes == .ops)' "$tmp/json" >/dev/null ||
    fail "json: $(cat "$tmp/json")"
unchanged "a bench"

# Killed or asked to stop behind so many loads.  Those that follow last two seconds and more.
stopped() { # SIGNAL LOADS
    : >"$tmp/out"
    env --default-signal=INT "$KVFS_BIN" bench "$v" --size=1M --seconds=0.4 >"$tmp/out" \
        2>"$tmp/stderr" &
    pid=$!
    pids+=("$pid")
    until [ -s "$tmp/out" ] && [ "$(grep -cE '^(fill|rand|seq)' "$tmp/out")" -ge "$2" ]; do
        kill -0 "$pid" 2>/dev/null || fail "ended too early"
        read -rt 0.02 <> <(:) || true # one look in so much time
    done
    kill -"$1" "$pid" || fail "over before SIG$1"
    status=0
    wait "$pid" 2>/dev/null || status=$?
    same $((128 + $(kill -l "$1"))) $status "status after SIG$1 behind $2 loads"
    # Whoever has it open for writing reclaims the orphan, a piece at a time.
    for ((i = 0; i < 50; i++)); do
        if [ "$1" != KILL ] || kvfs check --json "$v" | jq -e '.blocks == 0' >/dev/null; then
            break
        fi
        ok mkdir "$v" sweep
        ok rm -r "$v" sweep
    done
    unchanged "SIG$1 behind $2 loads"
}
stopped INT 0
stopped INT 1
stopped INT 8
stopped TERM 2
stopped KILL 0
stopped KILL 3

refuses "No such file" bench "$tmp/none"
refuses "space" bench "$v" --size=1P
for bad in --size=0 --size=100K --size=x --seconds=0 --seconds=x --seconds=-1 --seconds=3601 --seconds=0.01 --seconds=nan; do
    status=0
    kvfs bench "$v" "$bad" >"$tmp/out" 2>"$tmp/stderr" || status=$?
    same 2 $status "status of $bad"
    same 1 "$(wc -l <"$tmp/stderr")" "lines of $bad"
    [ ! -s "$tmp/out" ] || fail "$bad: output"
done
unchanged "what was refused"

# In use by an engine for one process.
if [[ $engines == *$'\n'rocksdb\ * ]]; then
    ok format "$tmp/one" --engine=rocksdb
    ok create "$tmp/one" mine --size=1M
    : >"$tmp/out"
    env --default-signal=INT "$KVFS_BIN" bench "$tmp/one" --size=1M --seconds=60 >"$tmp/out" 2>&1 &
    pid=$!
    pids+=("$pid")
    until [ -s "$tmp/out" ]; do
        kill -0 "$pid" || fail "ended too early"
        read -rt 0.02 <> <(:) || true
    done
    refuses "process $pid" bench "$tmp/one" --size=1M
    kill -INT "$pid"
    wait "$pid" || true
fi

# Not writable.
if [ "$(id -u)" = 0 ] && mkdir "$tmp/ro" && mount --bind "$v" "$tmp/ro" 2>/dev/null; then
    mounts+=("$tmp/ro")
    mount -o remount,bind,ro "$tmp/ro"
    refuses "[Rr]ead-only" bench "$tmp/ro" --size=1M
fi
