#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# kvfs import of an ordinary SQLite database: whatever lies beside it, the copy is whole, plain
# and alone, and the source is as it was.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
/usr/bin/python3 -c 'import sqlite3' 2>/dev/null || {
    echo "skipped: no sqlite3 for Python"
    exit 77
}
export TMPDIR=$tmp/copies
mkdir "$TMPDIR" "$tmp/src"
kvfs format "$tmp/vol"

# A program with a database: app MODE DONE [GO]; it makes DONE when it got where MODE says and then
# waits for GO, or dies where it stands.
app() {
    /usr/bin/python3 - "$@" <<'PY'
import os, signal, sqlite3, sys, time
mode, path, done = sys.argv[1:4]
db = sqlite3.connect(path, isolation_level=None)
def table(n):
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES(?)", [(b"x" * 1000,)] * n)
    db.execute("COMMIT")
def die():
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "wal-closed":
    db.execute("PRAGMA journal_mode=wal")
    table(10)
    db.close()
elif mode.startswith("wal"):
    db.execute("PRAGMA journal_mode=wal")
    db.execute("PRAGMA wal_autocheckpoint=0")
    table(10)
    if mode == "wal-writes":
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES('not yet')")
elif mode == "hot":
    table(100)
    db.execute("PRAGMA cache_size=5")
    db.execute("BEGIN")
    db.execute("UPDATE t SET x = randomblob(1000)")
    db.execute("DELETE FROM t WHERE rowid > 50")
elif mode == "hot-first":
    db.execute("PRAGMA cache_size=5")
    db.execute("BEGIN")
    db.execute("CREATE TABLE t(x)")
    db.executemany("INSERT INTO t VALUES(?)", [(b"x" * 1000,)] * 100)
elif mode == "reserved":
    table(10)
    db.execute("BEGIN")
    db.execute("DELETE FROM t")
elif mode == "exclusive":
    table(10)
    db.execute("BEGIN EXCLUSIVE")
    db.execute("DELETE FROM t WHERE rowid > 3")
elif mode == "persist":
    db.execute("PRAGMA journal_mode=persist")
    table(10)
open(done, "w").close()
if len(sys.argv) == 4 and not mode.endswith("closed"):
    die()
while len(sys.argv) > 4 and not os.path.exists(sys.argv[4]):
    time.sleep(0.02)
if db.in_transaction if not mode.endswith("closed") else False:
    db.execute("COMMIT")
PY
}
rows() { # FILE: what a stock SQLite finds in it, alone
    /usr/bin/python3 -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
ok = db.execute("PRAGMA integrity_check").fetchone()[0]
n = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
print(ok, n and db.execute("SELECT count(*) FROM t").fetchone()[0], open(sys.argv[1], "rb").read(20)[18:].hex())' "$1"
}
import_is() { # NAME WANT [ABOUT]: import it; what comes out is WANT, what is said matches ABOUT
    (cd "$tmp/src" && md5sum "$1"* && stat -c '%n %s %y' "$1"*) >"$tmp/before"
    "$KVFS_BIN" import --force "$tmp/vol" "$1" "$tmp/src/$1" 2>"$tmp/stderr" || fail "import of $1"
    (cd "$tmp/src" && md5sum "$1"* && stat -c '%n %s %y' "$1"*) | diff "$tmp/before" - || fail "$1 was changed"
    if [ -n "${3:-}" ]; then
        same 1 "$(wc -l <"$tmp/stderr")" "lines about $1"
        grep -Eq "^kvfs: import: .*$1: .*$3" "$tmp/stderr" || fail "$1: nothing is said of '$3'"
    elif [ -s "$tmp/stderr" ]; then
        fail "$1: something is said"
    fi
    mkdir "$tmp/out"
    kvfs export "$tmp/vol" "$1" "$tmp/out/db"
    same "$2" "$(rows "$tmp/out/db")" "$1"
    rm -r "$tmp/out"
    same "" "$(ls "$TMPDIR")" "left behind below TMPDIR"
}

# Nothing to do.
app persist "$tmp/src/plain" "$tmp/done" || true
[ -s "$tmp/src/plain-journal" ] || fail "no journal persists"
import_is plain "ok 10 0101"

# WAL mode: only in the header; with a WAL whose program lives, or was killed.
app wal-closed "$tmp/src/closed" "$tmp/done"
[ ! -e "$tmp/src/closed-wal" ] || fail "the WAL stays"
import_is closed "ok 10 0101" "WAL mode: the copy is a plain one"
kvfs import --as-is "$tmp/vol" exact "$tmp/src/closed"
kvfs export "$tmp/vol" exact - | cmp - "$tmp/src/closed" || fail "--as-is changed something"
kvfs import --force "$tmp/vol" exact <"$tmp/src/closed"
kvfs export "$tmp/vol" exact - | cmp - "$tmp/src/closed" || fail "standard input is not taken as it is"
kvfs import --force --quiet "$tmp/vol" exact "$tmp/src/closed" 2>"$tmp/stderr"
[ ! -s "$tmp/stderr" ] || fail "--quiet talks"

app wal "$tmp/src/killed" "$tmp/done" || true
[ -s "$tmp/src/killed-wal" ] || fail "no WAL is left"
if ! ldd "$KVFS_BIN" | grep -q libsqlite3; then
    refuses "without SQLite" import "$tmp/vol" x "$tmp/src/killed"
    exit 0
fi
import_is killed "ok 10 0101" "journal is in the copy"
rm "$tmp/src/killed-shm" # as on another machine
import_is killed "ok 10 0101" "journal is in the copy"
ln -s killed "$tmp/src/link"
kvfs import --quiet "$tmp/vol" link "$tmp/src/link"
kvfs export "$tmp/vol" link "$tmp/link"
same "ok 10 0101" "$(rows "$tmp/link")" "through a link"

rm -f "$tmp/done"
app wal "$tmp/src/alive" "$tmp/done" "$tmp/go" &
pids+=($!)
await test -e "$tmp/done"
import_is alive "ok 10 0101" "journal is in the copy"
touch "$tmp/go"
wait "${pids[-1]}"

# A hot journal.
app hot "$tmp/src/hot" "$tmp/done" || true
[ -s "$tmp/src/hot-journal" ] || fail "no journal is left"
import_is hot "ok 100 0101" "journal is in the copy"
app hot-first "$tmp/src/first" "$tmp/done" || true
[ -s "$tmp/src/first-journal" ] || fail "no journal is left"
kvfs import --quiet "$tmp/vol" first "$tmp/src/first"
kvfs export "$tmp/vol" first "$tmp/first"
[ ! -s "$tmp/first" ] || fail "a first transaction that never was came along"

# A writer at work: before it writes into the file its journal is not hot; then import waits.
rm -f "$tmp/done" "$tmp/go"
app reserved "$tmp/src/reserved" "$tmp/done" "$tmp/go" &
pids+=($!)
await test -e "$tmp/done"
import_is reserved "ok 10 0101"
touch "$tmp/go"
wait "${pids[-1]}"
for mode in exclusive wal-writes; do
    rm -f "$tmp/done" "$tmp/go"
    app $mode "$tmp/src/$mode" "$tmp/done" "$tmp/go" &
    pids+=($!)
    await test -e "$tmp/done"
    kvfs import "$tmp/vol" $mode "$tmp/src/$mode" 2>"$tmp/stderr" &
    pids+=($!)
    await grep -q "waiting for" "$tmp/stderr"
    touch "$tmp/go"
    wait "${pids[-1]}" || fail "import of $mode"
    wait "${pids[-2]}" || fail "$mode"
    kvfs export "$tmp/vol" $mode "$tmp/$mode"
done
same "ok 3 0101" "$(rows "$tmp/exclusive")" "after the writer"
same "ok 11 0101" "$(rows "$tmp/wal-writes")" "after the writer"

# Beyond recovery.
cp "$tmp/src/killed" "$tmp/src/bad"
cp "$tmp/src/killed-wal" "$tmp/src/bad-wal"
printf '\003\003' | dd of="$tmp/src/bad" bs=1 seek=16 conv=notrunc status=none
head -c 40 "$tmp/src/bad" >"$tmp/x" && cat "$tmp/x" >"$tmp/src/bad" # and cut short
echo noise >"$tmp/src/bad-wal"
refuses "SQLite cannot recover it: .*--as-is" import "$tmp/vol" bad "$tmp/src/bad"
same "" "$(ls "$TMPDIR")" "left behind below TMPDIR"
kvfs import --as-is "$tmp/vol" bad "$tmp/src/bad"

# Out again, onto a database that was killed in WAL mode: its log is not passed over.
cp "$tmp/src/killed" "$tmp/out.db"
cp "$tmp/src/killed-wal" "$tmp/out.db-wal"
before=$(sha256sum "$tmp/out.db")
refuses "out.db-wal is there, .*remove it first" export "$tmp/vol" hot "$tmp/out.db"
same "$before" "$(sha256sum "$tmp/out.db")" "a target that was refused"
rm "$tmp/out.db-wal"
printf '\331\325\005\371' >"$tmp/out.db-journal"
refuses "out.db-journal is there, .*remove it first" export "$tmp/vol" hot "$tmp/out.db"
head -c 100 /dev/zero >"$tmp/out.db-journal" # of journal_mode=persist, finished
kvfs export --quiet "$tmp/vol" hot "$tmp/out.db"
same "ok 100 0101" "$(rows "$tmp/out.db")" "exported over another"
