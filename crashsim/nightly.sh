#!/usr/bin/env bash
# nightly.sh [--distinct=N] [--engines=A,B] [--seed=N] [--findings=FOLDER] [--crashsim=COMMAND]
#
# Judge at least N (10,000) distinct crash states of each engine that declares DURABLE, the log
# before each of them included, over all scenarios of `crashsim run`, and print a table.  Distinct
# means other bytes in the engine's files.  Root.  Exit status 0: no violation, 1: violations, or
# a demand below was missed, 2: usage or trouble, 77: needs root.
#
# Demanded of each engine besides: at least N/50 cuts (200 of 10,000), no kind of state above one
# half, and that the workload passed through durable commits, growth, deleted forks, holes and,
# with a log, folds and wraps of its ring.
set -euo pipefail

distinct=10000 engines='' seed='' findings=crashsim-findings crashsim=''
here=$(dirname "$(readlink -f "$0")")
usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }
for arg; do
    case $arg in
    --distinct=*) distinct=${arg#*=} ;;
    --engines=*) engines=${arg#*=} ;;
    --seed=*) seed=${arg#*=} ;;
    --findings=*) findings=${arg#*=} ;;
    --crashsim=*) crashsim=${arg#*=} ;;
    --help) usage; exit 0 ;;
    *) echo "nightly.sh: $arg is not understood; try --help" >&2; exit 2 ;;
    esac
done
[[ $distinct =~ ^[1-9][0-9]*$ ]] || { echo "nightly.sh: --distinct=N" >&2; exit 2; }
[[ $(id -u) -eq 0 ]] || { echo "nightly.sh: needs root" >&2; exit 77; }
if [[ -z $crashsim ]]; then
    for crashsim in "$here"/../build/{release,nightly,dev}/crashsim/crashsim crashsim; do
        command -v "$crashsim" >/dev/null && break
    done
fi
command -v "$crashsim" >/dev/null || { echo "nightly.sh: no $crashsim" >&2; exit 2; }
seed=${seed:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
if [[ -z $engines ]]; then
    plain=$("$crashsim" run --list-engines | awk '$2 == "durable" { print $1 }')
    engines=$(paste -sd, <<<"$plain")
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scenarios=(kvfs recovery-of-recovery kvfs nbd kvfs guest kvfs)
"$crashsim" run --help | grep -q '^  sqlite' && scenarios+=(sqlite)

# bar DONE OF TEXT: on a terminal only.
bar()
{
    local full=$(($1 * 40 / $2)) cells
    [[ -t 2 ]] || return 0
    ((full <= 40)) || full=40
    printf -v cells '%*s' "$full" ''
    printf '\r\033[K[%-40s] %s' "${cells// /#}" "$3" >&2
}

echo "seed $seed, $distinct distinct states of each engine"
printf '%-26s %8s %9s %7s %9s %8s %s\n' engine states distinct cuts states/s seconds verdict
status=0 round=0
for engine in ${engines//,/ }; do
    : >"$work/all"
    have=0 begin=$SECONDS failed=''
    while ((have < distinct)); do
        scenario=${scenarios[round % ${#scenarios[@]}]} got=0
        round=$((round + 1))
        bar "$have" "$distinct" "$engine: $have of $distinct, $scenario"
        "$crashsim" run "$scenario" --engine="$engine" --states=$((distinct < 1000 ? distinct : 1000)) --seed=$((seed + round)) \
            --findings="$findings" --json --quiet >"$work/one" 2>"$work/err" || got=$?
        if [[ $got -gt 1 ]]; then
            cat "$work/err" >&2
            failed="crashsim run $scenario: exit status $got"
            break
        fi
        cat "$work/one" >>"$work/all"
        have=$(sed -n 's/^ *"distinct":\([0-9]*\),*$/\1/p' "$work/all" |
            awk '{ n += $1 } END { print n + 0 }')
    done
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
    awk -v engine="$engine" -v seconds=$((SECONDS - begin)) -v failed="$failed" -v want="$distinct" '
        match($0, /"[a-z_-]+":[0-9.]+/) {
            split(substr($0, RSTART, RLENGTH), f, /[":]+/)
            sum[f[2]] += f[3]
        }
        /"(first|command)":/ { sub(/^ */, ""); said[++n] = $0 }
        END {
            bad = failed
            if (sum["violations"] > 0)
                bad = sum["violations"] " violations"
            if (bad == "" && sum["cuts"] < want / 50)
                bad = "too few cuts"
            split("drop-all keep-all prefix leave-one-out only-one random", kinds, " ")
            for (k in kinds)
                if (bad == "" && sum[kinds[k]] > sum["states"] / 2)
                    bad = "more than half are " kinds[k]
            needed = "commits_durable store_growth_bytes fork_deleting holes_pending"
            if (engine ~ /^log:/)
                needed = needed " log_folds log_wraps"
            m = split(needed, need, " ")
            for (k = 1; k <= m; k++)
                if (bad == "" && want >= 1000 && sum[need[k]] == 0)
                    bad = "never passed through " need[k]
            printf "%-26s %8d %9d %7d %9.1f %8d %s\n", engine, sum["states"], sum["distinct"], \
                sum["cuts"], (seconds > 0 ? sum["states"] / seconds : 0), seconds, \
                (bad == "" ? "good" : bad)
            for (k = 1; k <= n; k++)
                print "    " said[k]
            exit (bad != "" ? 1 : 0)
        }' "$work/all" || status=1
done
exit $status
