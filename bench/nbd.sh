#!/usr/bin/env bash
# nbd.sh: KVFS beside nbdkit's memory and file plugins and qemu-nbd qcow2.  README.md says how to
# read it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage()
{
    cat <<'TEXT'
usage: bench/nbd.sh [OPTION...]
  --rounds=N        rounds, in each of which every cell is run for every peer (3)
  --seconds=N       time of one cell (4)
  --quick           1 round, 2 s a cell, 10 s for the long ones
  --smoke           seconds in all, on small disks: only that it works
  --only=PATTERN    only the cells that make a number, or have a name, that matches the shell
                    pattern, with all their numbers; again for more
  --peers=A,B       only these of memory,file,qcow2,lmdb,kvfs
  --dir=DIR         where volumes and files lie (a new folder in it; default /var/tmp)
  --out=FILE        write JSON to it
  --build=DIR       the build tree (build/release); --engine=NAME, --cache=SIZE: of the volume
  --list            print the names of the numbers that would be made
TEXT
}

rounds=3 seconds=4s load_seconds=4 long_seconds=30 only=() peers=(memory file qcow2 lmdb kvfs) base=/var/tmp out=''
build=$here/../build/release engine='' cache='' disk=256M sequential=2G burst_ops=8192 hot=2M list=''
for word; do
    value=${word#*=}
    case $word in
    --rounds=*) rounds=$value ;;
    --seconds=*) seconds=${value}s load_seconds=$value ;;
    --quick) rounds=1 seconds=2s load_seconds=2 long_seconds=10 ;;
    --smoke) rounds=1 seconds=200ms load_seconds=0.2 long_seconds=1 disk=16M sequential=16M burst_ops=512 hot=1M ;;
    --only=*) only+=("$value") ;;
    --peers=*) IFS=, read -r -a peers <<<"$value" ;;
    --dir=*) base=$value ;;
    --out=*) out=$(realpath -m -- "$value") ;;
    --build=*) build=$value ;;
    --engine=*) engine=$value ;;
    --cache=*) cache=$value ;;
    --list) list=yes ;;
    --help) usage; exit 0 ;;
    *) usage >&2; echo "nbd.sh: unknown option $word" >&2; exit 2 ;;
    esac
done
refuse() { echo "nbd.sh: $*" >&2; exit 2; }
[[ $rounds =~ ^[1-9][0-9]{0,3}$ ]] || refuse "--rounds=$rounds: a number from 1 is wanted"
[[ $load_seconds =~ ^([1-9][0-9]{0,4}|0\.[0-9]+)$ ]] || refuse "--seconds=$load_seconds: a number from 1 is wanted"
[[ -d $base && -w $base ]] || refuse "--dir=$base: no folder that can be written"
[[ -z $out || (-d $(dirname "$out") && ! -d $out) ]] || refuse "--out=$out: the file cannot be made"
for word in "${peers[@]:-none}"; do
    [[ $word =~ ^(memory|file|qcow2|lmdb|kvfs)$ ]] || refuse "--peers: $word is none of memory,file,qcow2,lmdb,kvfs"
done

# --- cells: name, kind, and what makes it ---------------------------------------------------------
# NAME fio UNIT FIO-OPTION...; NAME load NBDLOAD-OPTION... (random writes of 4 KiB); the others name
# a function cell_<KIND>.

cells=(
    "randread_qd1 fio iops --rw=randread --bs=4k --iodepth=1"
    "randread_qd32 fio iops --rw=randread --bs=4k --iodepth=32"
    "randread_4conn fio iops --rw=randread --bs=4k --iodepth=8 --numjobs=4"
)
for every in noflush flush64 flush1; do
    flush=--fsync=${every#flush}
    [[ $every != noflush ]] || flush=''
    cells+=("randwrite_qd1_$every fio iops --rw=randwrite --bs=4k --iodepth=1 $flush")
    # fio sends more flushes than it is asked for where the depth is above 1 (nbdload.c says how
    # many more).
    flush=--flush-every=${every#flush}
    [[ $every != noflush ]] || flush=''
    cells+=("randwrite_qd32_$every load --depth=32 $flush")
done
cells+=(
    "randwrite_4conn_noflush load --depth=8 --connections=4"
    "randwrite_4conn_flush64 load --depth=8 --connections=4 --flush-every=64"
    "randwrite_4conn_flush1 load --depth=8 --connections=4 --flush-every=1"
    "randwrite_qd1_fua load --depth=1 --fua"
    "randwrite_long_flush64 long --depth=32 --flush-every=64"
    "seqread_128k fio bytes --rw=read --bs=128k --iodepth=16"
    "seqwrite_128k fio bytes --rw=write --bs=128k --iodepth=16"
    "burst burst"
    "hot hot"
    "sustained sustained"
    "sequential sequential"
    "space space"
)

# What the cells make that is not one number of their own name; test-smoke.sh holds it against a run.
declare -A numbers=(
    [burst]="burst_acked burst_flushed"
    [hot]="hot_flushed"
    [sustained]="sustained_flushed memory_own_max memory_own_end memory_file_max"
    [sequential]="sequential_write memory_sequential_own_max sequential_read"
    [space]="space_after_fill space_used_after_fill space_after_overwrite space_used_after_overwrite"
)

wanted() # CELL
{
    local pattern name
    [[ ${#only[@]} -gt 0 ]] || return 0
    for pattern in "${only[@]}"; do
        for name in "$1" ${numbers[$1]:-}; do
            # shellcheck disable=SC2053
            [[ $name != $pattern ]] || return 0
        done
    done
    return 1
}

names=()
for word in "${cells[@]%% *}"; do
    # shellcheck disable=SC2206 # one word a name
    ! wanted "$word" || names+=(${numbers[$word]:-$word})
done
[[ ${#names[@]} -gt 0 ]] || refuse "--only=${only[*]}: no cell is called so (--list names them)"
if [[ -n $list ]]; then
    printf '%s\n' "${names[@]}"
    exit 0
fi

# --- set-up --------------------------------------------------------------------------------------

build=$(cd "$build" && pwd) || { echo "nbd.sh: build first: cmake --preset release &&" \
    "cmake --build --preset release" >&2; exit 1; }
plugin=${KVFS_PLUGIN:-$build/plugin/nbdkit-kvfs-plugin.so}
kvfs=${KVFS_BIN:-$build/cli/kvfs}
load=$build/bench/nbdload
for file in "$load" "$plugin" "$kvfs"; do
    [[ -e $file ]] || { echo "nbd.sh: $file is missing" >&2; exit 1; }
done
# shellcheck source=bench/peers.sh
source "$here/peers.sh"

dir=$(mktemp -d "$base/kvfs-bench.XXXXXX")
mkfifo "$dir/never" # nobody writes to it: reading from it is waiting
finish()
{
    local status=$? peer
    trap - EXIT INT TERM
    set +e
    for peer in "${!pid_of[@]}"; do
        peer_stop "$peer"
    done
    rm -rf --one-file-system "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# A path in an NBD URI must fit a socket address.
[[ ${#dir} -lt 80 ]] || { echo "nbd.sh: --dir: the path is too long" >&2; exit 1; }

values=$dir/values.tsv
put() # PEER CELL UNIT VALUE
{
    printf '%s\t%s\t%s\t%s\t%s\n' "$round" "$@" >>"$values"
    [[ ! -t 2 ]] || printf '\r\e[Kround %s  %-26s %-8s %s' "$round" "$2" "$1" "$4" >&2
}

# Nothing of the last cell may still be going on in the next.
settle() { "$load" --write --ops=1 --seed="$RANDOM" "${uri_of[$1]}" >/dev/null; }

load_run() # PEER nbdload-OPTION...: its words in the associative array `got`
{
    local peer=$1 word
    shift
    declare -gA got=()
    for word in $("$load" --seed="$round" "$@" "${uri_of[$peer]}"); do
        got[${word%%=*}]=${word#*=}
    done
}

per_second() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.1f", n / s }'; }

# --- what a cell does ----------------------------------------------------------------------------

cell_fio() # PEER NAME UNIT FIO-OPTION...
{
    local peer=$1 name=$2 unit=$3
    shift 3
    # A cell that fails must fail the bench: `fio` tells by its status.
    (cd "$dir" && fio --name="$name" --ioengine=nbd "--uri=${uri_of[$peer]}" --size="$disk" \
        --time_based --runtime="$seconds" --thread --group_reporting --norandommap \
        --randseed="$round" --refill_buffers --output-format=json --output=fio.json "$@" \
        >fio.log 2>&1) || { cat "$dir/fio.log" >&2; exit 1; }
    put "$peer" "$name" "$unit" "$(python3 "$here/report.py" fio "$dir/fio.json" "$unit")"
    settle "$peer"
}

cell_load() # PEER NAME NBDLOAD-OPTION...
{
    local peer=$1 name=$2
    shift 2
    load_run "$peer" --write --random --seconds="$load_seconds" "$@"
    put "$peer" "$name" iops "$(per_second "${got[ops]}" "${got[acked_s]}")"
}

# The same for a long time: more than any log or cache takes.
cell_long() # PEER NAME NBDLOAD-OPTION...
{
    local load_seconds=$long_seconds
    cell_load "$@"
}

# So little that the overlay takes it: ten bursts, a flush after each.
cell_burst()
{
    load_run "$1" --write --random --ops="$burst_ops" --bursts=10
    put "$1" burst_acked iops "$(per_second "${got[ops]}" "${got[acked_s]}")"
    put "$1" burst_flushed iops "$(per_second "${got[ops]}" "${got[flushed_s]}")"
}

# The same few blocks again and again.
cell_hot()
{
    load_run "$1" --write --random --size="$hot" --seconds="$long_seconds"
    put "$1" hot_flushed iops "$(per_second "${got[ops]}" "${got[flushed_s]}")"
}

cell_sustained()
{
    load_run "$1" --write --random --seconds="$long_seconds" --watch="${pid_of[$1]}"
    put "$1" sustained_flushed iops "$(per_second "${got[ops]}" "${got[flushed_s]}")"
    put "$1" memory_own_max bytes "${got[own_max]}"
    put "$1" memory_own_end bytes "${got[own_end]}"
    put "$1" memory_file_max bytes "${got[file_max]}"
}

# On a disk of its own, from nothing.
cell_sequential()
{
    peer_drop "$1"
    peer_start "$1" sequential "$sequential"
    load_run "$1" --write --block=128K --depth=16 --watch="${pid_of[$1]}"
    put "$1" sequential_write bytes "$(per_second "${got[bytes]}" "${got[flushed_s]}")"
    put "$1" memory_sequential_own_max bytes "${got[own_max]}"
    load_run "$1" --block=128K --depth=16 --bursts=3
    put "$1" sequential_read bytes "$(per_second "${got[bytes]}" "${got[acked_s]}")"
    peer_drop "$1"
    disk_fresh "$1"
}

# Until a log that grew has become short again (after ten idle seconds), and all is folded.
log_rest() # PEER
{
    local i used
    for ((i = 0; i < 100; i++)); do
        used=$("$kvfs" df --json "${store_of[$1]}" |
            python3 -c 'import json, sys; v = json.load(sys.stdin); print(v["log_bytes"] > 4 << 20 or v["log_used_bytes"] > 0)')
        [[ $used == True ]] || return 0
        read -r -t 0.2 -u 9 _ || true
    done 9<>"$dir/never"
}

# On a disk of its own: every block once in random order, then every block once more.
cell_space()
{
    local bytes what
    [[ $1 != memory ]] || return 0
    peer_drop "$1"
    peer_start "$1" space "$disk"
    bytes=$(numfmt --from=iec "$disk")
    for what in fill overwrite; do
        load_run "$1" --write --random --seed=$((RANDOM + 1)) --watch="${pid_of[$1]}"
        [[ $1 != kvfs ]] || log_rest kvfs
        put "$1" "space_after_$what" ratio "$(awk -v a="$(peer_allocated "$1")" -v b="$bytes" \
            'BEGIN { printf "%.4f", a / b }')"
        if [[ $1 == kvfs || $1 == lmdb ]]; then
            put "$1" "space_used_after_$what" ratio "$("$kvfs" df --json "${store_of[$1]}" |
                python3 "$here/report.py" used "$bytes")"
        fi
    done
    peer_drop "$1"
    disk_fresh "$1"
}

# The disk of the other cells: full, so that nothing is new.
disk_fresh()
{
    peer_start "$1" disk "$disk"
    load_run "$1" --write --block=1M --depth=8
}

cell_run() # PEER CELL
{
    local peer=$1 name kind rest
    read -r name kind rest <<<"$2"
    # shellcheck disable=SC2086
    "cell_$kind" "$peer" "$name" $rest
}

# --- the rounds ----------------------------------------------------------------------------------

# All servers stand side by side; each cell goes round the peers, and who is first changes.
for ((round = 1; round <= rounds; round++)); do
    for peer in "${peers[@]}"; do
        disk_fresh "$peer"
    done
    turn=$round
    for cell in "${cells[@]}"; do
        wanted "${cell%% *}" || continue
        for ((i = 0; i < ${#peers[@]}; i++)); do
            cell_run "${peers[(i + turn) % ${#peers[@]}]}" "$cell"
        done
        turn=$((turn + 1))
    done
    for peer in "${peers[@]}"; do
        peer_drop "$peer"
    done
done
[[ ! -t 2 ]] || printf '\r\e[K' >&2

cache_bytes=$(numfmt --from=iec "${cache:-64M}")
python3 "$here/report.py" report "$values" --out="$out" --cache="$cache_bytes" \
    --setting "rounds=$rounds" --setting "cell_time=$seconds" --setting "long_seconds=$long_seconds" \
    --setting "disk=$disk" --setting "sequential=$sequential" --setting "burst_ops=$burst_ops" \
    --setting "hot=$hot" --setting "engine=${engine:-default}" \
    --setting "medium=$(df --output=source,fstype "$base" | tail -n 1 | xargs)"
