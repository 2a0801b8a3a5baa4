#!/usr/bin/env bash
# A database seen by those who know nothing of SQLite: the plugin exports it read-only, one snapshot a
# connection, and `kvfs export` copies it, while a program commits; what import made is opened here.
set -euo pipefail
# shellcheck source=tests/cli/lib.sh
. "$KVFS_SOURCE_DIR/tests/cli/lib.sh"
needs nbdkit nbdcopy sqlite3 /usr/bin/python3
[ -n "${KVFS_PLUGIN:-}" ] || {
    echo "skipped: no plugin"
    exit 77
}
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
kvfs format "$tmp/vol" >/dev/null

# A writer whose every commit keeps both tables alike, and adds pages now and then.
cat >"$tmp/writer.py" <<'PY'
import os, sqlite3, sys
extension, volume, folder = sys.argv[1:]
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension(extension)
db = sqlite3.connect(f"file:app.db?vfs=kvfs&volume={volume}", uri=True, isolation_level=None)
db.execute("CREATE TABLE t(x, y)")
db.execute("CREATE TABLE u(x, y)")
for i in range(100):
    for t in "tu":
        db.execute(f"INSERT INTO {t} VALUES(0, randomblob(2000))")
n = 0
while not os.path.exists(folder + "/stop"):
    n += 1
    db.execute("BEGIN")
    for t in "tu":
        db.execute(f"UPDATE {t} SET x = {n}")
        if n < 200:
            db.execute(f"INSERT INTO {t} VALUES({n}, randomblob(3000))")
    db.execute("COMMIT")
    if n == 20:
        open(folder + "/ready", "w").close()
PY
LD_PRELOAD=${KVFS_PRELOAD:-} /usr/bin/python3 "$tmp/writer.py" "$KVFS_SQLITE" "$tmp/vol" "$tmp" &
pids+=($!)
await test -e "$tmp/ready"

judge() { # FILE: one instant of the writer's
    local got
    got=$(sqlite3 "$1" "PRAGMA integrity_check; SELECT (SELECT count(DISTINCT x) FROM t),
        (SELECT min(x) FROM t) = (SELECT max(x) FROM u), (SELECT count(*) FROM t) = (SELECT count(*) FROM u)")
    same $'ok\n1|1|1' "$got" "${1##*/}"
}
LD_PRELOAD=${KVFS_PRELOAD:-} nbdkit -r -U "$tmp/sock" -P "$tmp/pid" "$KVFS_PLUGIN" volume="$tmp/vol" file=app.db
pids+=("$(cat "$tmp/pid")")
uri="nbd+unix:///?socket=$tmp/sock"
for i in 1 2 3; do
    nbdcopy "$uri" "$tmp/nbd$i.db"
    judge "$tmp/nbd$i.db"
    kvfs export "$tmp/vol" app.db "$tmp/export$i.db"
    judge "$tmp/export$i.db"
done
! cmp -s "$tmp/nbd1.db" "$tmp/nbd3.db" || fail "the writer has not written"

# A connection keeps its instant while the writer goes on.
if /usr/bin/python3 -c 'import nbd' 2>/dev/null; then
    /usr/bin/python3 - "$uri" "$tmp/slow.db" <<'PY'
import sys, time, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
assert h.is_read_only()
size = h.get_size()
first = h.pread(4096, 0)
end = time.monotonic() + 60
while True:  # until somebody who connects now sees another change counter
    other = nbd.NBD()
    other.connect_uri(sys.argv[1])
    if other.pread(4096, 0)[24:28] != first[24:28]:
        break
    assert time.monotonic() < end
data = b"".join(h.pread(min(65536, size - at), at) for at in range(0, size, 65536))
assert data[:4096] == first
open(sys.argv[2], "wb").write(data)
PY
    judge "$tmp/slow.db"
fi
touch "$tmp/stop"
wait "${pids[0]}" || fail "the writer"

# An ordinary database in WAL mode comes in, goes on here, and leaves as an ordinary one.
sqlite3 "$tmp/wal.db" "PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES(1)" >/dev/null
kvfs import --quiet "$tmp/vol" wal.db "$tmp/wal.db"
LD_PRELOAD=${KVFS_PRELOAD:-} sqlite3 <<SQL
.load ${KVFS_SQLITE%.so}
.open "file:wal.db?vfs=kvfs&volume=$tmp/vol"
INSERT INTO t VALUES(2);
SQL
kvfs export "$tmp/vol" wal.db "$tmp/out.db"
same $'delete\n3' "$(sqlite3 "$tmp/out.db" 'PRAGMA journal_mode; SELECT sum(x) FROM t')" "there and back"
# Taken as it is, it says WAL and works here all the same.
kvfs import --as-is "$tmp/vol" asis.db "$tmp/wal.db"
LD_PRELOAD=${KVFS_PRELOAD:-} sqlite3 <<SQL
.load ${KVFS_SQLITE%.so}
.open "file:asis.db?vfs=kvfs&volume=$tmp/vol"
INSERT INTO t VALUES(2);
SQL
kvfs export "$tmp/vol" asis.db "$tmp/out2.db"
same $'delete\n3' "$(sqlite3 "$tmp/out2.db" 'PRAGMA journal_mode; SELECT sum(x) FROM t')" "as it is"
