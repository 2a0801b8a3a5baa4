#!/usr/bin/env bash
# crashsim replay, explore and clean as a user meets them: exit statuses, findings that can be shown
# again, bad input in one clear line, nothing left behind; --help and crashsim(1) name the same.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tmp"
export TMPDIR=$dir/tmp LC_ALL=C
crashsim=$KVFS_CRASHSIM
store=$KVFS_CRASHSIM_STORE
manual="$KVFS_SOURCE_DIR/crashsim/cmd/crashsim.1"
fail() {
    echo "$*" >&2
    exit 1
}
run() { # STATUS ARG...: into $said
    local status=$1 rc=0
    shift
    said=$("$crashsim" "$@" 2>&1 </dev/null) || rc=$?
    [ $rc = "$status" ] || fail "crashsim $*: status $rc, not $status: $said"
}
refused() { # WANTED-PATTERN ARG...
    local wanted=$1
    shift
    run 2 "$@"
    grep -q -- "$wanted" <<<"$said" || fail "crashsim $*: says '$said', not '$wanted'"
    [ "$(grep -c . <<<"$said")" = 1 ] || fail "crashsim $*: says more than a line: $said"
}
for flaw in none early ack; do
    "$store" record $flaw "$dir/$flaw" 12
done

# A right store passes all states; each flaw is found, shrunk, and shown again by its command.
run 0 explore "$dir/none" --states=150 -- "$store" check
grep -q '^150 states' <<<"$said" || fail "$said"
for flaw in early ack; do
    run 1 explore "$dir/$flaw" --states=150 -- "$store" check
    again=$(sed -n 's/^  again: crashsim //p' <<<"$said")
    [ -n "$again" ] || fail "no command: $said"
    rc=0
    eval "\"$crashsim\" $again" >/dev/null 2>&1 || rc=$?
    [ $rc = 1 ] || fail "$again: status $rc"
done
run 1 explore "$dir/early" --states=300 --json -- "$store" check
[ "$(jq -r '.violations[0].shrunk' <<<"$said")" = keep:1 ] || fail "not shrunk: $said"
[ "$(jq -r '.violations[0].kept | length' <<<"$said")" = 1 ] || fail "not listed: $said"
run 1 explore "$dir/early" --states=300 --findings=3 -j 2 -- "$store" check
[ "$(grep -c '^violation' <<<"$said")" = 3 ] || fail "not three: $said"

# Deterministic from the seed, whatever the jobs.
for jobs in 1 3; do
    run 0 explore "$dir/none" --states=120 --seed=5 --jobs=$jobs --json -- sh -c \
        "sha256sum <\"\$0\" >>'$dir/sums.$jobs'" {}
    sort "$dir/sums.$jobs" >"$dir/sorted.$jobs"
done
cmp "$dir/sorted.1" "$dir/sorted.3" || fail "the seed does not decide"
[ "$(sort -u "$dir/sorted.1" | wc -l)" = "$(jq .distinct <<<"$said")" ] || fail "distinct is not"

# A check that hangs, dies, leaves a process behind, or is none.
run 1 explore "$dir/none" --timeout=1 --shrink=0 -j1 -- sh -c 'sleep 100 & sleep 100'
grep -q 'time limit' <<<"$said" || fail "$said"
grep -q 'again: .* --timeout=1 --at' <<<"$said" || fail "its command has more time: $said"
run 1 explore "$dir/none" --shrink=0 -j1 -- sh -c 'kill -SEGV $$'
grep -q 'signal 11' <<<"$said" || fail "$said"
# One that takes too long once is made again alone; the others are not lost by it.
run 0 explore "$dir/none" --states=40 --timeout=1 --json -- sh -c "mkdir '$dir/once' 2>/dev/null || exit 0; sleep 100"
[ "$(jq -c '[.states, .slow]' <<<"$said")" = '[40,1]' ] || fail "slow once: $said"

mkdir "$dir/mnt"
# One that hangs while its state is mounted, and something that it started in a session of its own: the
# second time it finds neither.
run 0 explore "$dir/none" --states=4 --timeout=1 -j1 --json -- sh -c "
    flock -n '$dir/session' true || exit 4
    if [ \$(id -u) = 0 ] && [ -c /dev/loop-control ]; then
        mkfs.ext2 -qF {} && mount -o loop {} '$dir/mnt' || exit 3
    fi
    mkdir '$dir/hangs' || { umount -q '$dir/mnt'; exit 0; }
    setsid flock '$dir/session' sleep 1000"
[ "$(jq .slow <<<"$said")" = 1 ] || fail "hung and mounted: $said"

# JSON is UTF-8, whatever a check says.
run 1 explore "$dir/none" --shrink=0 -j1 --json -- sh -c 'printf "\303\244 \377 \300\200 \355\240\200 \360\237\230\200 \303"; exit 1'
[ "$(iconv -f UTF-8 -t UTF-8 <<<"$said" | jq -r '.violations[0].output')" = 'ä � �� ��� 😀 �' ] || fail "not UTF-8: $said"

# Each {} is the state's name.
run 0 explore "$dir/none" --states=3 -- sh -c 'cmp {} {} && [ "$CRASHSIM_STATE{}" = {}{} ]'

# What no disk may leave is counted apart, and so is what fails there.
run 0 explore "$dir/none" --states=100 --tear=4096 --json -- "$store" check
jq -e '.states > 50 and .spoilt == 0' <<<"$said" >/dev/null || fail "not spoilt: $said"
run 1 explore "$dir/none" --states=100 --tear=garbage --json -- "$store" check
jq -e '.violations == [] and (.spoilt_failures | length) == 1 and .spoilt > 0 and
    .states == ([.kinds[]] | add) and .kinds.random == 0' <<<"$said" >/dev/null || fail "spoilt: $said"
again=$(jq -r '.spoilt_failures[0].command' <<<"$said")
# shellcheck disable=SC2086 # words
run 1 ${again#crashsim }
grep -q 'apart from these, 1 spoilt' <<<"$said" || fail "again: $said"
refused 'cannot be run' explore "$dir/none" -j1 -q --json -- "$dir/no-such"
refused 'cannot be run: exit status 126$' explore "$dir/none" -j1 -q -- sh -c 'exit 126'

# Replay: marks, the recording's base untouched, what is there is not overwritten.
run 0 replay "$dir/none" --at=mark:3 --choice=drop-all -o "$dir/state" --marks="$dir/marks"
[ "$(tr '\n' ' ' <"$dir/marks")" = '1 2 3 ' ] || fail "marks: $(cat "$dir/marks")"
truncate -s 4M "$dir/base"
printf base | dd of="$dir/base" bs=1 seek=3000000 conv=notrunc status=none
sum=$(sha256sum <"$dir/base")
run 0 replay "$dir/none" --base="$dir/base" --choice=random/seed=3 --at=9 -o "$dir/other"
[ "$(dd if="$dir/other" bs=1 skip=3000000 count=4 status=none)" = base ] || fail "no base"
run 0 explore "$dir/none" --base="$dir/base" --states=50 -- "$store" check
[ "$sum" = "$(sha256sum <"$dir/base")" ] || fail "the base was written"
refused 'there already' replay "$dir/none" --choice=drop-all -o "$dir/state"
refused 'there already' replay "$dir/none" --choice=drop-all -o "$dir/new" --marks="$dir/marks"

# Bad input.
: >"$dir/empty"
head -c 5000 "$dir/none" >"$dir/short"
cp "$dir/none.side" "$dir/short.side"
head -c 5000 "$dir/none" >"$dir/bare"
cp "$dir/none" "$dir/foreign"
cp "$dir/none" "$dir/noise"
sed '5s/=/=x/' "$dir/none.side" >"$dir/noise.side"
cp "$dir/none" "$dir/other-log"
cp "$dir/early.side" "$dir/other-log.side"
truncate -s 8M "$dir/large"
refused 'No such file' replay "$dir/missing" -o "$dir/new"
refused 'Is a directory' replay "$dir" -o "$dir/new"
refused 'no recording' replay "$dir/empty" -o "$dir/new"
refused 'no log of dm-log-writes' replay "$store" -o "$dir/new"
refused 'truncated' replay "$dir/short" -o "$dir/new"
refused 'truncated' explore "$dir/bare" -- true
refused 'line 4 of the sidecar' explore "$dir/noise" -- true
refused 'is not of this recording' explore "$dir/other-log" -- true
refused 'no cut was recorded' replay "$dir/none" --at=cut -o "$dir/new"
refused "no mark 'x'" replay "$dir/none" --at=mark:x -o "$dir/new"
refused 'has 72 lines' replay "$dir/none" --at=73 --choice=drop-all -o "$dir/new"
refused 'no choice' replay "$dir/none" --at=9 --choice=all -o "$dir/new"
refused 'no such change' replay "$dir/none" --at=9 --choice=keep:7 -o "$dir/new"
refused 'from 0 to 2^64-1' explore "$dir/none" --seed=18446744073709551616 -- true
refused 'from 0 to 2^64-1' explore "$dir/none" --seed=-1 -- true
for option in states jobs seconds findings; do
    refused "$option takes a number from 1" explore "$dir/none" "--$option=0" -- true
done
refused 'takes a size' explore "$dir/none" --size=x -- true
refused 'larger than the disk' explore "$dir/none" --base="$dir/large" -- true
refused 'none, 512' explore "$dir/none" --tear=1024 -- true
refused 'check command is missing' explore "$dir/none" --
refused 'too few' explore
refused 'unknown command' explroe
refused 'No such file' explore "$dir/none" --tmp="$dir/nowhere" -- true
run 0 replay "$dir/foreign" --at=end --choice=drop-all -o "$dir/third"
[ ! -e "$dir/new" ] || fail "a refused replay left its file"

# A full disk: one line, nothing lost.
if mkdir "$dir/small" && mount -t tmpfs -o size=64k none "$dir/small" 2>/dev/null; then
    trap 'umount "$dir/small"; rm -rf "$dir"' EXIT
    refused 'No space\|no space' explore "$dir/none" --tmp="$dir/small" -- true
    refused 'No space\|no space' replay "$dir/none" --at=end --choice=drop-all -o "$dir/small/x"
    [ -z "$(ls "$dir/small")" ] || fail "a full disk keeps $(ls "$dir/small")"
fi

# Nobody reads on: it stops, and takes its folder with it.
rc=0
{ "$crashsim" explore "$dir/none" --findings=1000 --shrink=0 -j1 -- sh -c 'seq 1000; exit 1' 2>/dev/null || rc=$?
    [ $rc = 141 ] || echo "status $rc" >"$dir/said"; } | true
[ ! -e "$dir/said" ] || fail "a closed pipe: $(cat "$dir/said")"

# A killed run is found, with what it mounted and started, and nothing else is.
[ -z "$(ls "$TMPDIR")" ] || fail "left behind: $(ls "$TMPDIR")"
mkfifo "$dir/go"
"$crashsim" explore "$dir/none" -j1 -- sh -c "sleep 1000 & echo >'$dir/go'; wait" >/dev/null 2>&1 &
pid=$!
read -r _ <"$dir/go"
run 0 clean --tmp="$TMPDIR"
[ -z "$said" ] || fail "clean took a living run: $said"
kill -KILL $pid
wait $pid || true
# Not ours, each for one reason: names, contents, modes, a link; and one whose process lives.
gone=4194300 # no such process, as a rule; a lock or a line would be missing all the same
mkdir -m 700 "$TMPDIR"/{crashsim-keep,other,crashsim-2024-results,crashsim-$gone.abcdefg} \
    "$TMPDIR"/crashsim-$gone.{Nowner,Nalien,Nempty,Ndeath} "$TMPDIR/crashsim-$$.Nalive"
mkdir -m 755 "$TMPDIR/crashsim-$gone.Nmodes"
for f in "$TMPDIR"/crashsim-*[a-zA-Z]; do
    [[ $f = *.Ndeath || $f = "$TMPDIR/crashsim-$pid".* ]] || echo precious >"$f/data"
done
for f in "$TMPDIR"/crashsim-{2024-results,$gone.abcdefg,$gone.Nmodes}; do
    echo "run of crashsim $gone" >"$f/owner"
done
echo "run of crashsim 1" >"$TMPDIR/crashsim-$gone.Nalien/owner"
: >"$TMPDIR/crashsim-$gone.Nempty/owner"
: >"$TMPDIR/crashsim-$gone.Ndeath/owner"
ln -s other "$TMPDIR/crashsim-$gone.Nlinks"
foreign=$(cd "$TMPDIR" && find . -path "./crashsim-$pid.*" -prune -o ! -path '*.Ndeath*' -print | sort)
run 0 clean -n --tmp="$TMPDIR"
grep -q "^would remove .*/crashsim-$pid\." <<<"$said" || fail "not found: $said"
left=("$TMPDIR/crashsim-$pid".*)
mkdir "${left[0]}/mnt"
mount -t tmpfs none "${left[0]}/mnt" 2>/dev/null && : >"${left[0]}/mnt/file"
sleep 1000 &
victim=$!
echo "pid $victim $(cut -d' ' -f22 /proc/$victim/stat)" >>"${left[0]}/owner"
echo "pid $$ 12345" >>"${left[0]}/owner"
run 0 clean --json --tmp="$TMPDIR"
[ "$(jq .processes <<<"$said")" = 2 ] || fail "processes: $said" # and what the check had started
! wait $victim || fail "the process lives"
(cd "$TMPDIR" && echo *) >"$dir/left"
[ "$(cd "$TMPDIR" && find . | sort)" = "$foreign" ] || fail "left: $(cat "$dir/left")"

# A run that is dead while a child of it still holds the lock: waited for, and then taken down.
ending=$TMPDIR/crashsim-$gone.Nlocks
mkdir -m 700 "$ending"
echo "run of crashsim $gone 1" >"$ending/owner"
inode=$(stat -c %i "$ending/owner")
exec 9<>"$ending/owner"
flock 9
"$crashsim" clean --tmp="$TMPDIR" >"$dir/cleaned" 9<&- &
pid=$!
until grep -q -- "-> FLOCK .* $pid [^ ]*:$inode " /proc/locks; do # it waits
    kill -0 $pid 2>/dev/null || fail "clean did not wait: $(cat "$dir/cleaned")"
    read -r -t 0.02 <>"$dir/go" || true
done
exec 9<&-
wait $pid || fail "clean after waiting: $?"
{ [ "$(cat "$dir/cleaned")" = "removed $ending" ] && [ ! -e "$ending" ]; } || fail "not removed: $(cat "$dir/cleaned")"

# Every option of --help is in the manual, and every one of the manual in --help.
[ "$("$crashsim" --version)" = "crashsim $KVFS_VERSION" ] || fail "version"
commands=$("$crashsim" --help | sed -n 's/^  \([a-z]*\)  *[A-Z].*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 3 ] || fail "commands: $commands"
for command in $commands; do
    grep -q "^\.SS $command\$" "$manual" || fail "crashsim(1) has no section on $command"
    "$crashsim" "$command" --help | grep -o -- '--[a-z][a-z-]*' | sort -u >"$dir/help"
    sed -n "/^\.SS $command\$/,/^\.S[SH]/p" "$manual" | sed 's/\\-/-/g' |
        grep -A1 '^\.TP' | grep -o -- '--[a-z][a-z-]*' | sort -u >"$dir/man"
    grep -vx -- '--help' "$dir/help" | diff - <(grep -vx -- '--help' "$dir/man" || true) ||
        fail "crashsim(1) on $command"
done
