#!/usr/bin/env bash
# nightly.sh [--distinct=N] [--engines=A,B] [--demand=A,B] [--json=FILE] [--seed=N]
#            [--findings=FOLDER] [--crashsim=COMMAND]
#
# Judge at least N (10,000) distinct crash states of each engine that declares DURABLE, the log
# before each of them included, over all scenarios of `crashsim run`, and print a table.  Distinct
# means other bytes in the engine's files.  Root.  Exit status 0: no violation, 1: violations, or
# a demand below was missed, 2: usage or trouble, 77: needs root.  An engine that fails does not
# keep the others from being judged.  FILE gets an object an engine.
#
# Demanded of each engine besides: at least N/50 cuts (200 of 10,000), no kind of state above one
# half, and that the workload passed through what --demand names: counters of `crashsim run --json`,
# by default durable commits, commits that a full cache began, growth, deleted forks, holes and
# cuts while recovering and, with a log, folds and wraps of its ring; of few states (below 1,000)
# none.
set -euo pipefail

distinct=10000 engines='' demand='' json='' seed='' findings=crashsim-findings crashsim=''
here=$(dirname "$(readlink -f "$0")")
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; }
for arg; do
    case $arg in
    --distinct=*) distinct=${arg#*=} ;;
    --engines=*) engines=${arg#*=} ;;
    --demand=*) demand=${arg#*=} ;;
    --json=*) json=${arg#*=} ;;
    --seed=*) seed=${arg#*=} ;;
    --findings=*) findings=${arg#*=} ;;
    --crashsim=*) crashsim=${arg#*=} ;;
    --help) usage; exit 0 ;;
    *) echo "nightly.sh: $arg is not understood; try --help" >&2; exit 2 ;;
    esac
done
[[ $distinct =~ ^[1-9][0-9]*$ ]] || { echo "nightly.sh: --distinct=N" >&2; exit 2; }
[[ -z $seed || $seed =~ ^[0-9]{1,18}$ ]] || { echo "nightly.sh: --seed=N" >&2; exit 2; }
[[ $(id -u) -eq 0 ]] || { echo "nightly.sh: needs root" >&2; exit 77; }
if [[ -z $crashsim ]]; then
    for crashsim in "$here"/../build/{release,nightly,dev}/crashsim/crashsim crashsim; do
        command -v "$crashsim" >/dev/null && break
    done
fi
command -v "$crashsim" >/dev/null || { echo "nightly.sh: no $crashsim" >&2; exit 2; }
seed=$((10#${seed:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')})) # 08 is no octal number
if [[ -z $engines ]]; then
    plain=$("$crashsim" run --list-engines | awk '$2 == "durable" { print $1 }')
    engines=$(paste -sd, <<<"$plain")
fi
work=$(mktemp -d)
child=''
# An interrupt goes to the run, which takes its disks down; then to us.
# shellcheck disable=SC2317 # traps call it
stop() { [[ -z $child ]] || { kill -TERM "$child" 2>/dev/null; wait "$child" || true; }; }
trap 'rm -rf "$work"' EXIT
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM HUP
[[ -z $json ]] || : >"$json" || exit 2
scenarios=(kvfs recovery-of-recovery kvfs nbd kvfs guest kvfs)
"$crashsim" run --help | grep -q '^  sqlite' && scenarios+=(sqlite)

# bar DONE OF TEXT: on a terminal only.
bar()
{
    local full=$(($1 * 40 / $2)) cells left=''
    [[ -t 2 ]] || return 0
    ((full <= 40)) || full=40
    printf -v cells '%*s' "$full" ''
    ((all_have == 0)) || left=$(((all_want - all_have) * (SECONDS - all_begin) / all_have))
    [[ -z $left ]] || printf -v left ', %d:%02d:%02d left' $((left / 3600)) $((left / 60 % 60)) $((left % 60))
    printf '\r\033[K[%-40s] %s%s' "${cells// /#}" "$3" "$left" >&2
}

# The lines "key":number of what `crashsim run --json` printed, added up and judged; a line of the
# table, and one for FILE.
summary()
{
    awk -v engine="$engine" -v seconds="$1" -v failed="$2" -v want="$distinct" -v demand="$demand" \
        -v json="$json" '
        match($0, /"[a-z_-]+":[0-9.]+/) {
            split(substr($0, RSTART, RLENGTH), f, /[":]+/)
            sum[section f[2]] += f[3]
        }
        /"second_cuts":/ { section = "second_" }
        /}/ { section = "" }
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
            for (k in sum)
                if (k ~ /^second_/ && k !~ /orphans|folds/)
                    sum["second_cuts"] += sum[k]
            if (demand == "" && want >= 1000) {
                demand = "commits_durable,commits_of_pressure,store_growth_bytes,fork_deleting," \
                    "holes_pending,second_cuts"
                if (engine ~ /^log:/)
                    demand = demand ",log_folds,log_wraps"
            }
            m = split(demand, need, ",")
            for (k = 1; k <= m; k++)
                if (bad == "" && sum[need[k]] == 0)
                    bad = "never passed through " need[k]
            printf "%-26s %8d %9d %7d %9.1f %8d %s\n", engine, sum["states"], sum["distinct"], \
                sum["cuts"], (seconds > 0 ? sum["states"] / seconds : 0), seconds, \
                (bad == "" ? "good" : bad)
            for (k = 1; k <= n; k++)
                print "    " said[k]
            if (json != "") {
                gsub(/["\\]/, "", bad)
                printf "{\"engine\":\"%s\",\"seconds\":%d,\"verdict\":\"%s\"", engine, seconds, \
                    (bad == "" ? "good" : bad) >> json
                m = split("states distinct duplicates cuts live_cuts violations not_judged " \
                    "drop-all keep-all prefix leave-one-out only-one random commits " \
                    "commits_durable commits_of_pressure cache_half_full fork_deleting " \
                    "holes_pending store_growth_bytes log_folds log_wraps second_cuts " \
                    "second_orphans second_folds", keys, " ")
                for (k = 1; k <= m; k++)
                    printf ",\"%s\":%.0f", keys[k], sum[keys[k]] >> json
                print "}" >> json
            }
            exit (bad != "" ? 1 : 0)
        }' "$work/all"
}

echo "seed $seed, $distinct distinct states of each engine"
printf '%-26s %8s %9s %7s %9s %8s %s\n' engine states distinct cuts states/s seconds verdict
status=0 round=0 all_begin=$SECONDS all_done=0 all_have=0
all_want=$(($(tr ',' '\n' <<<"$engines" | wc -l) * distinct))
for engine in ${engines//,/ }; do
    : >"$work/all"
    have=0 begin=$SECONDS failed='' tried=0
    while ((have < distinct)) || ((tried < ${#scenarios[@]} && distinct >= 1000)); do
        scenario=${scenarios[round % ${#scenarios[@]}]} got=0
        round=$((round + 1)) tried=$((tried + 1))
        all_have=$((all_done + have))
        bar "$have" "$distinct" "$engine: $have of $distinct, $scenario"
        "$crashsim" run "$scenario" --engine="$engine" --states=$((distinct < 1000 ? distinct : 1000)) --seed=$((seed + round)) \
            --findings="$findings" --json --quiet >"$work/one" 2>"$work/err" &
        child=$!
        wait "$child" || got=$?
        child=''
        cat "$work/one" >>"$work/all"
        if [[ $got -gt 1 ]]; then
            cat "$work/err" >&2
            failed="crashsim run $scenario: exit status $got"
            break
        fi
        have=$(sed -n 's/^ *"distinct":\([0-9]*\),*$/\1/p' "$work/all" |
            awk '{ n += $1 } END { print n + 0 }')
    done
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
    all_done=$((all_done + distinct))
    summary $((SECONDS - begin)) "$failed" || status=$((status > 1 ? status : 1))
    [[ -z $failed ]] || status=2
done
exit $status
