#!/usr/bin/env bash
# ./bootstrap: what it refuses, each in one line and before it changes anything; and how it counts.
# Runs in a copy of its own with tools that only pretend, so nothing is built or installed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() {
    echo "FAILED: $*" >&2
    cat "$tmp/out" >&2
    exit 1
}
chmod 755 "$tmp"
mkdir -p "$tmp/tree/tests" "$tmp/tools" "$tmp/place/folder"
cd "$tmp"
cp -r "$KVFS_SOURCE_DIR/bootstrap" "$KVFS_SOURCE_DIR/bench" tree
touch place/file
state() { find tree place | sort; }

# says STATUS TEXT COMMAND...: it ends so, with one line that has the text, and leaves no trace
says() {
    local want=$1 text=$2 status=0 before
    shift 2
    before=$(state)
    (cd place && "$@") >out 2>&1 </dev/null || status=$?
    [ $status = "$want" ] || fail "$*: status $status"
    grep -qF -- "$text" out || fail "$*: not said: $text"
    [ "$(grep -c . out)" = "${lines:-1}" ] || fail "$*: more than one line"
    [ "$(state)" = "$before" ] || fail "$*: something was changed"
}
unset JOBS CI
export KVFS_PACKAGES=skip
bootstrap=$tmp/tree/bootstrap

# --- what is typed wrongly ------------------------------------------------------------------------
for port in 0 65536 99999 18446744073709551617 -1 x '' '1 2' 0x50; do
    says 2 "--port=$port: a TCP port is" "$bootstrap" run "--port=$port"
done
says 2 "unknown option --prot=1" "$bootstrap" run --prot=1
says 2 "unknown option -x" "$bootstrap" run -x
says 2 "more than one VOLUME: a b" "$bootstrap" run a b
says 2 "VOLUME is empty" "$bootstrap" run ""
says 1 "place/file is no folder" "$bootstrap" run file
says 1 "place/file is no folder" "$bootstrap" run file/volume
says 1 "place/nowhere is no folder" "$bootstrap" run nowhere/volume
says 1 "place/-no/where is no folder" "$bootstrap" run -- "-no/where/my volume"
says 2 "test: nosuch is none of" "$bootstrap" test dev nosuch
says 2 "test: --all is none of" "$bootstrap" test --all
says 2 "minimal coverage nightly" "$bootstrap" test nosuch
for preset in dev asan tsan fuzz tidy minimal coverage nightly; do
    "$bootstrap" --help | grep -A3 'bootstrap test' | grep -qw "$preset" || fail "--help: no preset $preset"
done
says 2 "nightly: takes no arguments" "$bootstrap" nightly dev
says 2 "packages: all is none of" "$bootstrap" packages all
says 2 "no command nosuch" "$bootstrap" nosuch
says 2 "JOBS=0:" env JOBS=0 "$bootstrap" test
says 2 "--rounds: 0: a number from 1" "$bootstrap" bench --rounds=0
says 2 "unknown option" "$bootstrap" bench check --nosuch
says 2 "unrecognized arguments: --fast" "$bootstrap" bench --fast
says 2 "not allowed with argument" "$bootstrap" bench --quick --long
says 1 "--out=file/a: cannot be written" "$bootstrap" bench --out=file/a
says 1 "--resume: there is no run in nowhere" "$bootstrap" bench --resume --out=nowhere
says 2 "there is no engine a" "$bootstrap" bench --engines=lmdb,a
says 2 "no cell is called so" "$bootstrap" bench --only=nosuch

# --- packages and rights --------------------------------------------------------------------------
# pretend NAME: the script that comes in stands for that program
pretend() {
    { echo '#!/bin/bash' && cat; } >"tools/$1"
    chmod 755 "tools/$1"
}
pretend dpkg-query <<<'exit 1' # knows no package
needed=$("$bootstrap" packages run | tr '\n' ' ')
user=()
if [ "$(id -u)" = 0 ]; then
    user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
lines=2 says 1 "apt-get install --no-install-recommends ${needed% }" "${user[@]}" \
    env KVFS_PACKAGES= PATH="$tmp/tools:$PATH" "$bootstrap" run
mkdir bare # a system with neither dpkg nor apt, then one with dpkg alone
for program in bash dirname realpath id uname; do
    ln -s "$(command -v $program)" bare
done
says 1 "no dpkg here.  Needed are (by their Debian names; then set KVFS_PACKAGES=skip): $(
    "$bootstrap" packages | paste -sd' ')" /usr/bin/env KVFS_PACKAGES= PATH="$tmp/bare" \
    "$bootstrap" test
cp tools/dpkg-query bare
lines=2 says 1 "apt-get install --no-install-recommends ${needed% }" \
    /usr/bin/env KVFS_PACKAGES= PATH="$tmp/bare" "$bootstrap" run
if [ "$(id -u)" = 0 ]; then
    mkdir place/owned
    says 1 "place/owned cannot be written" "${user[@]}" "$bootstrap" run owned
    says 1 "place cannot be written" "${user[@]}" "$bootstrap" run volume
    chmod 777 place
    says 1 "tree/build cannot be written" "${user[@]}" "$bootstrap" run volume
    says 1 "tree/build cannot be written" "${user[@]}" "$bootstrap" test dev
    mkdir tree/build && chmod 777 tree/build && mkdir tree/build/release
    says 1 "tree/build/release cannot be written" "${user[@]}" "$bootstrap" run volume
    rm -r tree/build
fi

# --- counting -------------------------------------------------------------------------------------
pretend cmake <<<'[[ $* != *tidy* ]] || { echo "error: as if"; exit 1; }' # one preset does not build
pretend ctest <<'TEXT'
preset=$2
while [ $1 != --output-junit ]; do shift; done
case $preset in
dev) cases='<testcase name="unit/a" status="run"></testcase>
    <testcase name="unit/b" status="fail"><failure message="x"/><system-out>status="run"</system-out></testcase>' ;;
asan) cases='<testcase name="unit/a" status="run"/>
    <testcase name="unit/c" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>' ;;
tsan) exit 8 ;; # no test was found
minimal) cases='<testcase name="unit/d" status="notrun"><skipped message="Unable to find executable"/></testcase>' ;;
*) cases='<testcase name="unit/e" status="run"/>' ;;
esac
echo "<testsuite>$cases</testsuite>" >"$2"
[ $preset != dev ] || exit 8
TEXT
counts() { # STATUS LINE PRESET...
    local want=$1 line=$2 status=0
    shift 2
    PATH="$tmp/tools:$PATH" "$bootstrap" test "$@" >out 2>&1 || status=$?
    [ "$(tail -1 out)" = "$line" ] || fail "test $*: not: $line"
    [ $status = "$want" ] || fail "test $*: status $status"
}
echo 'unit/other  a reason' >tree/tests/skips.txt
counts 0 "1 passed, 0 failed, 0 skipped" fuzz
counts 1 "0 passed, 1 failed, 0 skipped" tidy
counts 1 "0 passed, 1 failed, 0 skipped" tsan
counts 0 "1 passed, 0 failed, 1 skipped" asan
CI=true counts 1 "1 passed, 0 failed, 1 skipped" asan
echo 'unit/c  a reason' >>tree/tests/skips.txt
CI=true counts 0 "1 passed, 0 failed, 1 skipped" asan
counts 1 "3 passed, 4 failed, 1 skipped"
for entry in "tidy build" "dev unit/b" "tsan ctest (exit status 8)" "minimal unit/d"; do
    grep -qxF "failed:  $entry" out || fail "not named: $entry"
done
echo ok
