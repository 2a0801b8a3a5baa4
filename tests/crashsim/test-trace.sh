#!/usr/bin/env bash
# crashsim trace, and explore of what it recorded: which states of files there may be and which not;
# stores that keep what they promise pass, those that do not are found out.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tmp"
export TMPDIR=$dir/tmp LC_ALL=C
crashsim=$KVFS_CRASHSIM
bank=$KVFS_CRASHSIM_BANK
racers=$KVFS_CRASHSIM_RACERS
fail() {
    echo "$*" >&2
    exit 1
}
strace -o /dev/null true 2>/dev/null || { # nothing can be traced here
    echo "ptrace is not allowed"
    exit 77
}

# --- the model: all states of a few calls, each as one line of text ---------------------------------
states() { # BEFORE COMMAND: into $dir/states, sorted
    rm -rf "$dir/w" "$dir/trace" "$dir/states"
    mkdir "$dir/w"
    (cd "$dir/w" && eval "$1")
    "$crashsim" trace -o "$dir/trace" -C "$dir/w" -- sh -c "cd '$dir/w' && $2"
    cat >"$dir/show" <<'SHOW'
cd "$1" || exit 1
all=
for f in *; do
    [ ! -f "$f" ] || all="$all$f=$(tr '\0' 0 <"$f") "
    [ ! -d "$f" ] || all="$all$f/ "
done
echo "${all% }" >>"$STATES"
SHOW
    STATES=$dir/states "$crashsim" explore "$dir/trace" -q -j1 --states=100 -- sh "$dir/show" >/dev/null
    sort -u -o "$dir/states" "$dir/states"
}
there() {
    grep -qxF -- "$1" "$dir/states" || fail "no state '$1' among: $(cat "$dir/states")"
}
among() { # STATE...: no others
    local others
    others=$(printf '%s\n' "$@" | sort -u | comm -13 - "$dir/states")
    [ -z "$others" ] || fail "'$others' is not among '$*'"
}
# Two writes into one sector: the second never without the first.
states : 'printf aaaa >f; printf bbbb >>f'
among '' f= f=0000 f=00000000 f=aaaa f=aaaa0000 f=aaaabbbb
there ''
there f=aaaa
there f=aaaabbbb
# Neither rename nor close syncs: an old file may become an empty one.
states 'printf old >f' 'printf new >t; mv t f'
among 'f=' f=000 f=new f=old 'f=old t=' 'f=old t=000' 'f=old t=new'
there f=
there f=new
there 'f=old t=new'
# With fsync it does not.
states 'printf old >f' 'printf new | dd of=t conv=fsync status=none; mv t f'
there f=old
there f=new
grep -q 'f=0\|f= ' "$dir/states" && fail "lost what was synced: $(cat "$dir/states")"
# What is written behind a truncation is not where the old bytes were.
states 'printf older >f' ': >f; printf new >f'
among 'f=' f=000 f=new f=older
there f=
there f=older
# Names survive in order.
states : 'mkdir a; mv a b; mkdir c'
among '' a/ b/ 'b/ c/'
there a/
there b/
# sync makes all durable.
states : 'printf 1 >a; sync; printf 2 >b'
grep -v 'a=1' "$dir/states" | grep -q b && fail "what was synced is gone: $(cat "$dir/states")"
there a=1
there 'a=1 b=2'

# --- many at once: what the trace says in the end is what is there ------------------------------------
for seed in ${SEED:-1 2 3}; do
    rm -rf "$dir/w" "$dir/trace" "$dir/state"
    mkdir "$dir/w"
    "$crashsim" trace -o "$dir/trace" -C "$dir/w" -- "$racers" "$dir/w" "$seed"
    "$crashsim" replay "$dir/trace" --at=end --choice=drop: -o "$dir/state" >/dev/null
    diff -rq "$dir/w" "$dir/state" || fail "racers with seed $seed left what the trace does not say"
    rm -rf "$dir/state"
done
# msync is of its pages: what lies in them is durable, of a write across their border that part, and the
# rest is not.
page() { # MODE STATUS BYTE LETTER: the byte of file pages, in all states behind the end
    local rc=0 said
    # shellcheck disable=SC2016 # for the check
    said=$("$crashsim" explore "$dir/page" -q --at=end --states=200 --shrink=0 -- sh -c \
        'test "$(head -c "$1" "$3/pages" | tail -c 1)" = "$2"' check "$3" "$4" {}) || rc=$?
    [ $rc = "$2" ] || fail "msync of a $1: byte $3: $rc: $said"
}
for mode in page pages; do
    rm -rf "$dir/w" "$dir/page"
    mkdir "$dir/w"
    truncate -s 8192 "$dir/w/pages"
    "$crashsim" trace -o "$dir/page" -C "$dir/w" -- "$racers" "$dir/w" $mode
    lost=$([ $mode = pages ] || echo 1)
    page $mode 0 1 a
    page $mode 0 4000 a
    page $mode 0 4001 w
    page $mode "${lost:-0}" 4097 w
    page $mode "${lost:-0}" 4201 b
    page $mode "${lost:-0}" 8192 b
done
# Many open writes that share sectors: each state costs about as much as they are (with the square of
# them the test would not end in its time).
"$crashsim" trace -o "$dir/many" -C "$dir/w" -- "$racers" "$dir/w" many
said=$("$crashsim" explore "$dir/many" --states=40 --json -- true)
[ "$(jq -c '[.states, .open_max]' <<<"$said")" = '[40,20001]' ] || fail "many: $said"
# A limit leaves no part of a recording out, also where each cut has many states.
"$crashsim" trace -o "$dir/parts" -C "$dir/w" -- sh -c '
    cd "$1" && for i in $(seq 40); do for k in $(seq 10); do echo $i.$k >>parts; done; sync parts; done' sh "$dir/w"
AT=$dir/at "$crashsim" explore "$dir/parts" --states=60 -- sh -c 'echo $CRASHSIM_AT >>"$AT"'
awk '{ seen[int(4 * $1 / 440)] = 1 } END { exit !(seen[0] && seen[1] && seen[2] && seen[3]) }' "$dir/at" ||
    fail "60 states of 40 cuts: only behind $(sort -nu "$dir/at" | tr '\n' ' ')"
rc=0
said=$("$crashsim" trace -o "$dir/long" -C "$dir/w" -- "$racers" "$dir/w" long 2>&1) || rc=$?
[ $rc = 2 ] || fail "a long write: $rc: $said"
grep -q 'could not be read' <<<"$said" || fail "a long write: $said"

# --- stores ------------------------------------------------------------------------------------------
judge() { # STATUS WHAT STORE MODE
    local rc=0
    rm -rf "$dir/w" "$dir/trace"
    mkdir "$dir/w"
    (cd "$dir/w" && "$bank" "$3" "$4" write 0 &&
        "$crashsim" trace -o "$dir/trace" -- "$bank" "$3" "$4" write 12) || fail "$3 $4: no trace"
    said=$("$crashsim" explore "$dir/trace" --states="${STATES:-120}" -- "$bank" "$3" "$4" check 2>&1) ||
        rc=$?
    [ $rc = "$1" ] || fail "$3 $4: status $rc, not $1: $said"
    grep -q -- "$2" <<<"$said" || fail "$3 $4: not '$2' but $said"
    tail -1 <<<"$said" | sed "s/^/$3 $4: /"
}
if [[ $KVFS_CRASHSIM_STORES == *lmdb* ]]; then
    judge 0 ' 0 violations' lmdb default
    judge 0 ' 0 violations' lmdb writemap
    judge 1 lost lmdb nosync
    judge 1 'violation 1' lmdb nosync+
fi
if [[ $KVFS_CRASHSIM_STORES == *sqlite* ]]; then
    judge 0 ' 0 violations' sqlite wal-full
    judge 0 ' 0 violations' sqlite delete-extra
    judge 0 ' 0 violations' sqlite delete-full+ # it may lose the last commit, as its manual says
    judge 1 lost sqlite delete-full
    judge 1 'violation 1' sqlite delete-off+
    judge 1 'violation 1' sqlite wal-off+
    again=$(sed -n 's/^  again: crashsim //p' <<<"$said")
    rc=0
    eval "\"$crashsim\" $again" >/dev/null 2>&1 || rc=$?
    [ $rc = 1 ] || fail "$again: status $rc"
    choice=$(sed -n 's/.*\(--at=[0-9]* --choice=[^ ]*\).*/\1/p' <<<"$again")
    # shellcheck disable=SC2086 # two words
    "$crashsim" replay "$dir/trace" $choice -o "$dir/state" >/dev/null
    "$bank" sqlite wal-off+ check "$dir/state" 2>/dev/null && fail "replay made another state"
fi

# --- a command that mounts what it serves itself: the tracer does not wait for who waits for it ---
if command -v nbdkit nbdfuse fusermount3 >/dev/null && [ -c /dev/fuse ] && [ "$(id -u)" = 0 ]; then
    mkdir "$dir/served" "$dir/served/data" "$dir/served/mnt"
    cat >"$dir/served/command" <<'SERVED'
cd "$1" || exit 1
nbdfuse -P pid mnt/disk [ nbdkit memory 1M ] &
until [ -s pid ]; do sleep 0.05; done
true >mnt/none || true # nbdfuse refuses it
printf 1 1<>mnt/disk
printf 1 >data/a
fusermount3 -u mnt
wait
SERVED
    timeout -s KILL 50 "$crashsim" trace -o "$dir/served/trace" -C "$dir/served/data" -- \
        sh "$dir/served/command" "$dir/served" 2>"$dir/said" ||
        { [ ! -s "$dir/served/pid" ] || kill -9 "$(cat "$dir/served/pid")"; fail "served: $(cat "$dir/said")"; }
fi

# --- bad input ---------------------------------------------------------------------------------------
refused() { # WANTED-PATTERN ARG...
    local wanted=$1 said rc=0
    shift
    said=$("$crashsim" "$@" 2>&1 </dev/null) || rc=$?
    [ $rc = 2 ] || fail "crashsim $*: status $rc: $said"
    grep -q -- "$wanted" <<<"$said" || fail "crashsim $*: says '$said', not '$wanted'"
    [ "$(grep -c . <<<"$said")" = 1 ] || fail "crashsim $*: says more than a line: $said"
}
states : 'printf 1 >a'
head -c -1 "$dir/trace" >"$dir/short"
sed '2s/parent=0/parent=9/' "$dir/trace" >"$dir/wrong"
sed '3s/^a$/../' "$dir/trace" | sed '2s/n=1/n=2/' >"$dir/out"
refused 'truncated' explore "$dir/short" -- true
refused 'what cannot be' explore "$dir/wrong" -- true
refused 'what cannot be' explore "$dir/out" -- true
refused 'its own base' explore "$dir/trace" --base="$dir/short" -- true
refused 'File exists' trace -o "$dir/short" -C "$dir/w" -- true
refused 'No such file' trace -o "$dir/new" -C "$dir/none" -- true
refused 'out=TRACE is missing' trace -- true
for command in "$dir/no-such" "$dir"; do
    rm -f "$dir/new"
    refused 'cannot be run or traced' trace -o "$dir/new" -C "$dir/w" -- "$command"
    [ ! -e "$dir/new" ] || fail "$command: a trace of nothing"
done
rm -f "$dir/new"
rc=0
said=$("$crashsim" trace -o "$dir/new" -C "$dir/w" -- false 2>&1) || rc=$?
[ $rc = 2 ] || fail "false: $rc: $said"
grep -q 'exit status 1' <<<"$said" || fail "false: $said"
# What did not end well says so, and is explored all the same; what was not seen in whole is not.
ended() { # STATUS WANTED COMMAND: explore of its trace says so in one line, and in JSON
    local rc=0 said
    rm -f "$dir/new"
    "$crashsim" trace -o "$dir/new" -C "$dir/w" -- sh -c "cd '$dir/w' && $3" 2>"$dir/said" && fail "$3: no error"
    [ "$1" != 2 ] || { refused "$2" explore "$dir/new" -- true; return; }
    said=$("$crashsim" explore "$dir/new" --json -- true 2>"$dir/said") || rc=$?
    [ $rc = "$1" ] || fail "$3: explore: status $rc: $said"
    [ "$(grep -c . "$dir/said")" = 1 ] || fail "$3: explore: $(cat "$dir/said")"
    grep -q "the command $2" "$dir/said" || fail "$3: explore: $(cat "$dir/said")"
    [ "$(jq -r .ended <<<"$said")" = "$2" ] || fail "$3: explore: $said"
    [ "$(jq -r .states <<<"$said")" -gt 2 ] || fail "$3: explore: $said"
}
ended 0 'ended with exit status 3' 'printf 1 >b; printf 2 >c; exit 3'
ended 0 'was ended by signal 9' 'printf 1 >b; kill -9 $$'
ended 2 'no state of it is sound: the command did what a trace does not know' "touch '$dir/outside'; mv '$dir/outside' b"
states : 'printf 1 >a'
said=$("$crashsim" explore "$dir/trace" --json -- true 2>&1)
[ "$(jq -r .ended <<<"$said")" = '' ] || fail "an end in order: $said"
[ -z "$(ls "$TMPDIR")" ] || fail "left behind: $(ls "$TMPDIR")"
