# shellcheck shell=bash disable=SC2034
# Sourced by the tests that put a real kernel on a disk of ours.
#
# A test calls serve_init (a private folder, a trap that undoes everything), then serve_start and
# serve_stop or serve_kill as often as it likes; the disk keeps its bytes in between.
#
# From the environment:
#   KVFS_PLUGIN, KVFS_BIN, KVFS_PRELOAD   what to test, set by CMake
#   KVFS_TEST_SERVER=kvfs|file                `file` tries a test itself against nbdkit's file plugin
#   KVFS_SEED                                 repeats the contents of a run that failed
#
# Only processes whose pid a function here has read are ended, and every wait is for an event (a pid
# that arrives in a pipe, a child that ends) under a time limit; nothing sleeps.
set -euo pipefail

work='' server='' server_job='' server_log='' server_params=() cleanups=()

say() { printf '%s\n' "$*"; }
skip() { printf 'skipped: %s\n' "$*"; exit 77; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# need TOOL...: skip the test where a tool is missing.
need()
{
    local tool
    for tool; do
        command -v "$tool" >/dev/null || skip "$tool is not installed"
    done
}

# The last thing registered is undone first; a failing undo does not stop the others.
on_exit() { cleanups+=("$1"); }

serve_cleanup()
{
    local status=$? i
    trap - EXIT INT TERM
    set +e
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
        ${cleanups[i]}
    done
    [[ -n $server ]] && serve_kill
    if [[ $status -ne 0 && $status -ne 77 && -s $work/server.err ]]; then
        say "--- what the server said:"
        tail -n 20 "$work/server.err"
    fi
    rm -rf --one-file-system "$work"
    exit "$status"
}

serve_init()
{
    PATH=$PATH:/usr/sbin:/sbin
    need nbdkit nbdinfo openssl sha256sum timeout
    seed=${KVFS_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
    say "seed $seed (repeat with KVFS_SEED=$seed)"
    work=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-test.XXXXXX")
    trap serve_cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    volume=$work/volume socket=$work/sock
    uri="nbd+unix:///disk0?socket=$socket"
    mkfifo "$work/ready"
}

# serve_plugin SIZE: the words that name the plugin and its disk, in $plugin.
serve_plugin()
{
    case ${KVFS_TEST_SERVER:-kvfs} in
    kvfs)
        if [[ ! -e $volume ]]; then
            "${KVFS_BIN:?}" format "$volume"
        fi
        plugin=("${KVFS_PLUGIN:?}" "volume=$volume" file=disk0 "create=$1")
        ;;
    file)
        mkdir -p "$volume"
        [[ -e $volume/disk0 ]] || truncate -s "$1" "$volume/disk0"
        plugin=(file "$volume/disk0")
        ;;
    *) die "KVFS_TEST_SERVER=$KVFS_TEST_SERVER: expected kvfs or file" ;;
    esac
}

# serve_start SIZE [nbdkit option...]: serve the disk, made SIZE large the first time, on $socket, and
# return when it listens.  What filters want to know is in server_params.  Further nbdkit options may say --filter, -i or -p instead of the socket.
serve_start()
{
    local size=$1 where=(-U "$socket") answer
    shift
    case " $* " in *' -p '*) where=() ;; esac
    serve_plugin "$size"
    rm -f "$socket"
    # The pid file is a pipe: nbdkit writes to it when it listens.  The other line comes only
    # when nbdkit has ended; it is opened both ways because nobody may be reading by then.
    exec 8<>"$work/ready"
    (
        exec 8<&-
        status=0
        LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -f -P "$work/ready" "${where[@]}" "$@" \
            "${plugin[@]}" ${server_log:+"logfile=$server_log"} "${server_params[@]}" || status=$?
        echo ended 1<>"$work/ready"
        exit "$status"
    ) 2>>"$work/server.err" &
    server_job=$!
    read -r -t 60 -u 8 answer || die "nbdkit neither listens nor ends"
    exec 8<&-
    [[ $answer != ended ]] || die "nbdkit ended at once"
    server=$answer
}

# serve_end SIGNAL STATUS: send it, wait for the end and judge it.
serve_end()
{
    local pid=$server status=0
    server=''
    kill -s "$1" "$pid" || die "the server died before its time"
    wait "$server_job" 2>/dev/null || status=$?
    [[ $status -eq $2 ]] || die "the server ended with status $status instead of $2"
}

serve_stop() { serve_end TERM 0; }
serve_kill() { serve_end KILL 137; }

# Bytes that SEED and the name alone decide, and that no codec can shrink: noise NAME COUNT
noise()
{
    openssl enc -aes-128-ctr -pass "pass:$seed/$1" -nosalt -md sha256 </dev/zero 2>/dev/null |
        head -c "$2" || true
}

# noise_tree DIR: a tree of a few MB: many small files, a big one, one with holes, links.
noise_tree()
{
    local d i
    mkdir -p "$1"
    for d in a b c; do
        mkdir -p "$1/$d/deep/er"
        noise "small $d" 65536 >"$work/pool"
        for ((i = 0; i < 24; i++)); do
            dd if="$work/pool" of="$1/$d/small$i" bs=1 skip=$((i * 1000)) count=$((i * 97 + 1)) \
                status=none
        done
        noise "mid $d" 300001 >"$1/$d/deep/er/mid"
        ln -s ../small1 "$1/$d/deep/link"
        ln "$1/$d/small2" "$1/$d/hard"
    done
    rm -f "$work/pool"
    noise big 3145729 >"$1/big"
    : >"$1/empty"
    noise island 5000 | dd of="$1/holes" bs=1000 seek=4000 status=none
    truncate -s 9M "$1/holes"
}

# tree_sums DIR: one line a file, of content and name, sorted.
tree_sums() { (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
