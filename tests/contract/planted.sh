#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The contract suite must find bugs: for each one that faulty.c can have, the
# case named beside it has to go red, and without a bug it has to be green.
#
# usage: planted.sh TEST_CONTRACT FAULTY_MODULE ENGINE...
set -u
suite=$1 module=$2
shift 2
engines=" $* "
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
wrong=0 planted=0

run() { # BUG CASE [NAME=VALUE...]
    local bug=$1 case=$2
    shift 2
    env FAULTY_BUG="$bug" "$@" "$suite" --engine="$module" --case="$case" >"$out/log" 2>&1
}

green() {
    if ! run none "$@"; then
        echo "without a bug the suite fails: $*"
        cat "$out/log"
        wrong=$((wrong + 1))
    fi
}

# Red means: the case failed, by a check of its own or by the crash of its process.  Bugs that
# need two threads to meet depend on the machine's load: they may hide for some runs.
red() {
    local status tries=1 try
    [[ $2 == threads__* ]] && tries=20
    planted=$((planted + 1))
    for ((try = 1; try <= tries; try++)); do
        run "$@"
        status=$?
        [ $status -eq 1 ] && grep -q '\[  FAILED  \]' "$out/log" && return
    done
    echo "a planted bug was not found in $tries runs (status $status): $*"
    tail -15 "$out/log"
    wrong=$((wrong + 1))
}

green '*' FAULTY_INNER=mem
for case in 'reopen__*' 'random__reopened*' 'readonly__*'; do
    green "$case" FAULTY_PERSISTENT=1
done

red always-creates       'open__no_store*'
red params-ignored       'open__unknown*'
red order-reversed       'apply__same_key_many*'
red order-reversed       'random__batches*'
red missing-del-fails    'apply__same_key_many*'
red range-end-ignored    'del_range__all*'
red range-end-ignored    'random__batches*'
red range-end-inclusive  'del_range__all*'
red expects-ignored      'expect__false*'
red one-expect-ignored   'expect__false*'
red one-expect-ignored   'random__batches*'
red expect-late          'expect__true*'
red refused-changes      'expect__false*'
red expect-races         'threads__writers*'
red torn                 'threads__readers*'
red keyspaces-apart      'threads__readers*'
red snapshot-moves       'snapshot__many*'
red snapshot-moves       'random__batches*'
red snapshot-moves       'threads__readers*'
red snapshot-moves       'snapshot__moves*'
red scan-end-inclusive   'scan__all*'
red scan-start-exclusive 'scan__all*'
red reverse-skips-last   'scan__all*'
red reverse-skips-last   'cursor__several*'
red scan-offset-ignored  'values__all*'
red offset-ignored       'values__all*'
red writes-past-value    'values__all*'
red absent-is-empty      'random__batches*'
red error-code           'random__batches*'
red second-piece-lost    'values__all*'
red empty-deletes        'values__all*'
red long-values-cut      'values__all*'
red limits-too-small     'values__beyond*'
red never-full           'full__*'
red full-for-ever        'full__*'
red always-room          'full__*'
red hog                  'del_range__a_million*'
red crash                'del_range__all*'
red miscounts            'apply__empty*'
red sync-fails           'sync__*'
red false-alarm          'values__all*'
red not-interrupted      'verify__*'
red lost-last            'reopen__*' FAULTY_PERSISTENT=1
red lost-last            'random__reopened*' FAULTY_PERSISTENT=1
red readonly-writes      'readonly__*' FAULTY_PERSISTENT=1
red none                 'crash__*' FAULTY_PERSISTENT=1 # mem claims to be persistent
if [[ $engines == *" lmdb "* ]]; then
    for case in 'crash__*' 'processes__reading*' 'processes__writing*' 'reopen__*'; do
        green "$case" FAULTY_INNER=lmdb
    done
    red torn             'crash__*' FAULTY_INNER=lmdb
    red torn             'processes__reading*' FAULTY_INNER=lmdb
    red lost-last        'reopen__*' FAULTY_INNER=lmdb
    red expect-races     'processes__writing*' FAULTY_INNER=lmdb
fi

# Bugs of the hybrid engine's own.
red_hybrid() { # PAIR BUG CASE
    local tries
    planted=$((planted + 1))
    for ((tries = 0; tries < 20; tries++)); do
        "$suite" --engine="hybrid:$1" --params="unsafe-pause=1,unsafe-bug=$2" --case="$3" \
            >"$out/log" 2>&1 && continue
        grep -q '\[  FAILED  \]' "$out/log" && return
    done
    echo "a planted bug of the hybrid engine was not found: $*"
    tail -15 "$out/log"
    wrong=$((wrong + 1))
}
red_hybrid mem+mem no-gate 'threads__readers*'
if [[ $engines == *" lmdb "* ]]; then
    red_hybrid lmdb+lmdb no-intent 'crash__*'
    red_hybrid lmdb+lmdb data-first 'crash__*'
fi

# Bugs of the log engine's own; the others of it need a power cut (tests/unit/test_log_power.c).
red_log() { # BUG CASE
    planted=$((planted + 1))
    "$suite" --engine=log:lmdb --params="log-size=65536,log-piece=1,unsafe-log-bug=$1" \
        --case="$2" >"$out/log" 2>&1
    [ $? -eq 1 ] && grep -q '\[  FAILED  \]' "$out/log" && return
    echo "a planted bug of the log engine was not found: $*"
    tail -15 "$out/log"
    wrong=$((wrong + 1))
}
if [[ $engines == *" lmdb "* ]]; then
    red_log stale 'random__batches*'
    red_log lost-range 'random__batches*'
    red_log lost-range 'random__reopened*'
fi

echo "$planted planted bugs, $wrong not as they should be"
[ $wrong -eq 0 ]
