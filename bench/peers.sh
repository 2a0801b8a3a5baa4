# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by nbd.sh: the servers that are compared, each with a disk of its own in $dir.
#
#   memory   nbdkit's memory plugin: what NBD itself costs
#   file     nbdkit's file plugin on a plain file
#   qcow2    qemu-nbd on a qcow2 image, cache=writeback
#   lmdb     this project without the intent log
#   kvfs     this project
#
# peer_start NAME DISK BYTES makes the disk (it must not exist) and sets pid_of[NAME], uri_of[NAME]
# and store_of[NAME] (what is measured for space).  Only processes started here are ended.

declare -A pid_of uri_of store_of

peer_nbdkit() # NAME PLUGIN-WORD...
{
    local name=$1 pid
    shift
    # The pid file is a pipe: nbdkit writes to it when it listens.
    mkfifo "$dir/$name.pid"
    exec 8<>"$dir/$name.pid"
    LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -f -U "$dir/$name.sock" -P "$dir/$name.pid" "$@" \
        8<&- 2>>"$dir/$name.log" &
    read -r -t 60 -u 8 pid || { echo "nbd.sh: nbdkit does not listen:" >&2; cat "$dir/$name.log" >&2; return 1; }
    exec 8<&-
    pid_of[$name]=$pid
}

peer_start()
{
    local name=$1 store=$dir/$1.$2 bytes=$3
    rm -f "$dir/$name.sock" "$dir/$name.pid"
    store_of[$name]=$store
    uri_of[$name]="nbd+unix:///disk0?socket=$dir/$name.sock"
    case $name in
    memory)
        store_of[$name]=''
        peer_nbdkit memory memory "$bytes"
        ;;
    file)
        truncate -s "$bytes" "$store"
        peer_nbdkit file file "$store"
        ;;
    qcow2)
        qemu-img create -q -f qcow2 "$store" "$bytes"
        # It returns when it listens.
        qemu-nbd --fork --pid-file="$dir/qcow2.pid" --socket="$dir/qcow2.sock" --persistent \
            --shared=8 --export-name=disk0 --format=qcow2 --cache=writeback "$store"
        pid_of[$name]=$(<"$dir/qcow2.pid")
        ;;
    kvfs | lmdb)
        local of=$engine
        [[ $name == kvfs ]] || of=lmdb
        "$kvfs" format "$store" ${of:+"--engine=$of"} >/dev/null
        peer_nbdkit "$name" "$plugin" "volume=$store" file=disk0 "create=$bytes" \
            ${cache:+"cache=$cache"}
        ;;
    *) echo "nbd.sh: no such peer: $name" >&2; return 1 ;;
    esac
}

peer_stop()
{
    local name=$1 pid=${pid_of[$1]:-}
    [[ -n $pid ]] || return 0
    unset "pid_of[$name]"
    kill "$pid" 2>/dev/null || return 0
    if ! wait "$pid" 2>/dev/null; then
        # qemu-nbd is not our child: it has ended when its program is gone (init may be slow to
        # take notice).
        while readlink "/proc/$pid/exe" >/dev/null; do
            read -r -t 0.02 -u 8 _ || true
        done 8<>"$dir/never"
    fi
}

peer_drop() # stop, and give the disk's space back
{
    peer_stop "$1"
    [[ -z ${store_of[$1]:-} ]] || rm -rf --one-file-system "${store_of[$1]}"
    unset "store_of[$1]"
}

# Bytes that the peer's disk takes on the medium.
peer_allocated() { du -s --block-size=1 "${store_of[$1]}" | cut -f 1; }
