#!/usr/bin/env bash
# The stock sqlite3 shell with the extension: a database in a volume, seen from both sides.
set -euo pipefail
# shellcheck source=tests/cli/lib.sh
. "$KVFS_SOURCE_DIR/tests/cli/lib.sh"
needs sqlite3 strace
ext=${KVFS_SQLITE%.so} # .load needs no suffix
export LD_PRELOAD=${KVFS_PRELOAD:-} ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0

sql() { # FILE [URI PARAMETERS]: statements on stdin
    { printf '.bail on\n.load %s\n.open "file:%s?vfs=kvfs&volume=%s%s"\n' "$ext" "$1" "$tmp/vol" "${2:-}"
        cat; } | sqlite3 2>"$tmp/stderr"
}

kvfs format "$tmp/vol" >/dev/null
out=$(sql app.db <<<"CREATE TABLE t(x); INSERT INTO t VALUES(1),(2); SELECT sum(x) FROM t;")
[ "$out" = 3 ] || fail "sum: $out"

# A file of the volume like any other; exported it is an ordinary database.
kvfs ls "$tmp/vol" | grep -qx app.db || fail "ls does not show it"
kvfs export "$tmp/vol" app.db "$tmp/app.db" >/dev/null
[ "$(sqlite3 "$tmp/app.db" 'SELECT sum(x) FROM t; PRAGMA integrity_check')" = $'3\nok' ] || fail "export"
kvfs import "$tmp/vol" copy.db "$tmp/app.db" >/dev/null
[ "$(sql copy.db <<<'SELECT sum(x) FROM t;')" = 3 ] || fail "import"

# Commands of the shell.
sql app.db <<<".backup $tmp/b.db" || fail ".backup"
[ "$(sqlite3 "$tmp/b.db" 'SELECT sum(x) FROM t')" = 3 ] || fail ".backup lost something"
sql new.db <<<".restore $tmp/b.db" || fail ".restore"
[ "$(sql new.db <<<'SELECT sum(x) FROM t;')" = 3 ] || fail ".restore lost something"
sql app.db <<<".clone $tmp/vol/clone.db" >/dev/null || fail ".clone"
[ "$(sqlite3 "$tmp/vol/clone.db" 'SELECT sum(x) FROM t')" = 3 ] || fail ".clone lost something"
rm "$tmp/vol/clone.db" # it opens with the default VFS
{ printf "SELECT load_extension('%s', 'kvfs_default');\n.open %s/vol/app.db\n.clone %s/vol/clone.db\n" \
    "$ext" "$tmp" "$tmp"
    printf '.open clone.db\nSELECT sum(x) FROM t;\n.open "file:%s/b.db?vfs=unix"\nSELECT sum(x) FROM t;\n' "$tmp"; } |
    KVFS_VOLUME=$tmp/vol sqlite3 >"$tmp/out" 2>"$tmp/stderr" || fail "the default VFS"
[ "$(grep -x 3 "$tmp/out")" = $'3\n3' ] || fail "the default VFS: $(cat "$tmp/out")"
kvfs ls "$tmp/vol" | grep -qx clone.db || fail ".clone to a plain path"
[ ! -e "$tmp/vol/clone.db" ] || fail ".clone went beside the volume"
sql app.db <<<"VACUUM INTO '$tmp/vol/vac.db';" || fail "VACUUM INTO"
[ "$(sql vac.db <<<'SELECT sum(x) FROM t;')" = 3 ] || fail "VACUUM INTO lost something"
sql app.db <<<".dump" | grep -q "INSERT INTO t VALUES(2)" || fail ".dump"
# Debian's shell has no sqlite_dbdata, so that .recover gives little: the same little.
cmp <(sql app.db <<<".recover") <(sqlite3 "$tmp/app.db" .recover 2>/dev/null) || fail ".recover"
[ "$(sql app.db <<<$'.mode list\nPRAGMA journal_mode=wal;')" = delete ] || fail "journal_mode=wal"

# No journal on any file system.
{ printf '.load %s\n.open "file:app.db?vfs=kvfs&volume=%s"\n' "$ext" "$tmp/vol"
    echo "BEGIN; INSERT INTO t VALUES(3); UPDATE t SET x=x+1; COMMIT; DELETE FROM t WHERE x=2;"; } |
    strace -f -e trace=openat,open,creat,unlink,unlinkat -o "$tmp/trace" sqlite3
! grep -E -- '-(journal|wal|mj)' "$tmp/trace" || fail "a journal was made"

# Loaded once more, and as the default, while a statement runs: as the manual has it.
[ "$(sql app.db <<<"SELECT load_extension('$ext'); SELECT load_extension('$ext', 'kvfs_default');
                    SELECT count(*) FROM t;")" = $'\n\n2' ] || fail "loaded twice: $(cat "$tmp/stderr")"

# What cannot be opened says why.
out=$({ printf '.load %s\n.log stdout\n' "$ext"
    printf '.open "file:x.db?vfs=kvfs&volume=%s/none"\nSELECT 1 FROM sqlite_schema;\n' "$tmp"; } |
    sqlite3 2>&1 || true)
grep -q "there is no volume" <<<"$out" || fail "no reason: $out"
