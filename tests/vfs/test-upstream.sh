#!/usr/bin/env bash
# SQLite's own test programs, from Debian's source package, built against the stock library and run
# on a volume: test-upstream.sh build | speedtest1 | kvtest | threadtest3 | mptest [long]
set -euo pipefail
# shellcheck source=tests/cli/lib.sh
. "$KVFS_SOURCE_DIR/tests/cli/lib.sh"
here=$KVFS_SOURCE_DIR/tests/vfs
built=$KVFS_BINARY_DIR/sqlite-programs
what=$1
long=${2:-}

build() {
    local status=0 src cc=${CC:-cc}
    src=$(bash "$here/sqlite-source.sh" "$KVFS_BINARY_DIR/sqlite-source") || status=$?
    [ $status = 0 ] || exit $status
    rm -rf "$built"
    mkdir "$built"
    ln -s "$src/mptest" "$built/scripts"
    cd "$built"
    sed 's/, \([0-9]*\)0000 }/, \1000 }/' "$src/test/threadtest3.c" >threadtest3.c # a tenth as long
    cp "$src/test/threadtest3.c" threadtest3_long.c
    flags=(-O1 -g -w "-I$src/test" "-I$src/src")
    "$cc" "${flags[@]}" -Wall -c "$here/upstream_main.c"
    "$cc" "${flags[@]}" -c "$src/src/test_multiplex.c"
    for p in "$src/test/speedtest1.c" "$src/test/kvtest.c" "$src/mptest/mptest.c" threadtest3.c \
        threadtest3_long.c; do
        o=$(basename "$p" .c)
        "$cc" "${flags[@]}" -Dmain=upstream_main -c "$p" -o "$o.o"
        "$cc" "$o.o" upstream_main.o test_multiplex.o -o "$o" -lsqlite3 -lpthread -lm
    done
}

kvfs_run() { # PROGRAM ARG...: with the VFS, in an empty folder
    local program=$built/$1
    shift
    LD_PRELOAD=${KVFS_PRELOAD:-} ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 \
        UPSTREAM_EXTENSION=$KVFS_SQLITE "$program" "$@"
}
only_in_volume() { # NAME...: these are in the volume, and here is nothing
    same "$*" "$(kvfs ls "$KVFS_VOLUME" | tr '\n' ' ' | sed 's/ $//')" "files of the volume"
    same "" "$(ls "$tmp/here")" "files outside"
}

speedtest1() { # the same results as on the stock VFS
    local size=4 n=0 want got options
    [ -z "$long" ] || size=50
    for options in "" "--nosync --pagesize 512 --cachesize 20 --autovacuum" \
        "--nosync --incrvacuum --without-rowid --journal persist --shrink-memory" \
        "--pagesize 65536 --exclusive --big-transactions --temp 9" \
        "--nosync --utf16be --primarykey --journal memory --reprepare"; do
        n=$((n + 1))
        # shellcheck disable=SC2086
        want=$("$built/speedtest1" --verify --size $size $options "$tmp/stock$n" | grep Hash)
        # shellcheck disable=SC2086
        got=$(kvfs_run speedtest1 --vfs kvfs --verify --size $size $options "$n.db" | grep Hash)
        same "$want" "$got" "hash with options '$options'"
    done
    for options in orm cte; do
        # shellcheck disable=SC2086
        want=$("$built/speedtest1" --verify --testset $options --size $size "$tmp/stock$options" | grep Hash)
        got=$(kvfs_run speedtest1 --vfs kvfs --verify --testset $options --size $size $options.db | grep Hash)
        same "$want" "$got" "hash of testset $options"
    done
    only_in_volume 1.db 2.db 3.db 4.db 5.db cte.db orm.db
}

kvtest() { # what it reads and writes is what another program finds in the exported file
    local count=500 options
    [ -z "$long" ] || count=5000
    export UPSTREAM_DEFAULT=1
    kvfs_run kvtest init kv.db --count $count --size 12000 --variance 8000 --pagesize 1024 >/dev/null
    only_in_volume kv.db
    : >kv.db # it looks for one where it runs
    for options in "--random" "--blob-api --desc" "--update" "--update --blob-api --random --multitrans" \
        "--update --asc --jmode truncate --nosync" "--cache-size 10 --update --random"; do
        # shellcheck disable=SC2086
        kvfs_run kvtest run kv.db --count $count $options --integrity-check >"$tmp/log" ||
            fail "kvtest run $options: $(cat "$tmp/log")"
        grep -q "integrity-check: ok" "$tmp/log" || fail "kvtest run $options: $(cat "$tmp/log")"
    done
    kvfs_run kvtest stat kv.db --vacuum >/dev/null
    kvfs_run kvtest export kv.db "$tmp/a" >/dev/null
    kvfs export "$KVFS_VOLUME" kv.db "$tmp/kv.db"
    "$built/kvtest" export "$tmp/kv.db" "$tmp/b" >/dev/null
    diff -r "$tmp/a" "$tmp/b" || fail "what it reads differs"
    same $count "$(find "$tmp/a" -type f | wc -l)" "blobs"
    [ ! -s kv.db ] || fail "it wrote beside the volume"
}

threadtest3() { # without those that want to see a WAL file (walthread2, 5, checkpoint_starvation_1)
    local t tests=(cgt_pager_1 dynamic_triggers create_drop_index_1 vacuum1 stress1) program=threadtest3
    export UPSTREAM_DEFAULT=1
    if [ -n "$long" ]; then
        tests+=(walthread1 walthread3 walthread4 checkpoint_starvation_2 lookaside1 stress2 shared1)
        program=threadtest3_long
    fi
    for t in "${tests[@]}"; do # it removes its database where there is none
        export KVFS_VOLUME=$tmp/$t
        kvfs format "$KVFS_VOLUME" >/dev/null
        kvfs_run $program "$t" >"$tmp/log" 2>&1 || fail "$t: $(cat "$tmp/log")"
        grep -q "^0 errors out of 1 tests" "$tmp/log" || fail "$t: $(cat "$tmp/log")"
        only_in_volume test.db
        kvfs export "$KVFS_VOLUME" test.db "$tmp/out.db"
        same ok "$(sqlite3 "$tmp/out.db" 'PRAGMA integrity_check')" "$t"
    done
}

mptest() { # several processes; config01 is for the VFS unix only
    local script scripts=(crash01 multiwrite01) repeat=1
    if [ -n "$long" ]; then
        scripts+=(config02)
        repeat=4
    fi
    for script in "${scripts[@]}"; do
        [ "$script" != config02 ] || repeat=1 # makes a table that it does not remove
        kvfs_run mptest "$script.db" "$built/scripts/$script.test" --vfs kvfs --quiet --repeat $repeat \
            >"$tmp/log" 2>&1 || fail "$script: $(tail -20 "$tmp/log")"
        grep -Eq "^Summary: 0 errors out of [0-9]{2,} tests" "$tmp/log" || fail "$script: $(tail -20 "$tmp/log")"
    done
    for script in "${scripts[@]}"; do
        kvfs export "$KVFS_VOLUME" "$script.db" "$tmp/out.db"
        same ok "$(sqlite3 "$tmp/out.db" 'PRAGMA integrity_check')" "$script"
        kvfs rm "$KVFS_VOLUME" "$script.db"
    done
    only_in_volume
}

if [ "$what" != build ]; then
    needs sqlite3
    [ -x "$built/threadtest3_long" ] || {
        echo "skipped: SQLite's programs were not built (vfs/upstream)"
        exit 77
    }
    mkdir "$tmp/here"
    cd "$tmp/here"
    export KVFS_VOLUME=$tmp/vol
    kvfs format "$KVFS_VOLUME" >/dev/null
fi
"$what"
