# SPDX-License-Identifier: BSD-3-Clause
"""The same random SQL on the VFS and on the stock one: results, errors and the final dump agree.
A second connection of the VFS sees, whenever nothing is open, what the first has committed.

KVFS_SEED repeats a run; KVFS_ROUND a single round of it, by the seed that a failure names."""
import os
import random
import sqlite3
import sys

import vfs_world

TABLES = ["main.t0", "main.t1", "aux.t0", "aux.t2"]
EXTRA = "/extra/"  # stands for the path of the third database, which comes and goes


class Script:
    """Random statements; no one depends on the file or the time."""

    def __init__(self, rng):
        self.rng = rng
        self.points = []

    def value(self):
        r = self.rng
        kind = r.randrange(8)
        if kind < 3:
            return str(r.randrange(1000))
        if kind < 6:
            return f"printf('%0{r.randrange(1, 400)}d', {r.randrange(10000)})"
        if kind == 6:
            return "NULL"
        return f"zeroblob({r.choice([10, 5000, 70000, 200000])})"

    def schema(self, t, schema, name):
        r = self.rng
        return r.choice([
            f"CREATE TRIGGER IF NOT EXISTS {schema}.tr_{name} AFTER DELETE ON {name} BEGIN "
            f"INSERT INTO {name}(a, b) SELECT old.a + 1000, 'again' WHERE old.a < 1000; END",
            f"DROP TRIGGER IF EXISTS {schema}.tr_{name}",
            f"CREATE VIEW IF NOT EXISTS {schema}.v_{name} AS SELECT count(*) AS n FROM {name}",
            f"SELECT n FROM {schema}.v_{name}",
            f"ALTER TABLE {t} RENAME TO r_{name}",
            f"ALTER TABLE {schema}.r_{name} RENAME TO {name}",
            f"ALTER TABLE {t} DROP COLUMN c{r.randrange(3)}",
            f"CREATE TABLE IF NOT EXISTS {schema}.w_{name}(k PRIMARY KEY, v) WITHOUT ROWID",
            f"INSERT OR REPLACE INTO {schema}.w_{name} SELECT a, b FROM {t} WHERE a IS NOT NULL",
            f"DROP INDEX IF EXISTS {schema}.i_{name}",
            f"REINDEX {t}",
            f"ANALYZE {schema}",
            f"CREATE TEMP TABLE IF NOT EXISTS tmp AS SELECT * FROM {t}",
            "DROP TABLE IF EXISTS temp.tmp",
            f"ATTACH '{EXTRA}' AS extra",
            f"CREATE TABLE IF NOT EXISTS extra.e AS SELECT * FROM {t}",
            "INSERT INTO extra.e SELECT * FROM extra.e LIMIT 500",
            "SELECT count(*) FROM extra.e",
            "DETACH extra",
            f"PRAGMA {schema}.locking_mode = {r.choice(['normal', 'exclusive'])}",
            f"PRAGMA {schema}.journal_size_limit = {r.choice([0, 5000, -1])}",
            f"PRAGMA {schema}.user_version = {r.randrange(100)}",
            f"PRAGMA {schema}.secure_delete = {r.randrange(2)}",
            f"UPDATE {t} SET a = a + 1, b = zeroblob(1 + abs(a) % 30000) WHERE rowid % 3 = 0",
            f"UPDATE OR ROLLBACK {t} SET a = 5",
            f"INSERT OR FAIL INTO {t}(a, b) SELECT a, b FROM {t} LIMIT 100",
        ])

    def statement(self):
        r = self.rng
        t = r.choice(TABLES)
        schema, name = t.split(".")
        pick = r.randrange(100)
        if pick < 30:
            rows = ",".join(f"({self.value()}, {self.value()})" for _ in range(r.randrange(1, 8)))
            return f"INSERT OR {r.choice(['ABORT', 'IGNORE', 'REPLACE'])} INTO {t}(a, b) VALUES {rows}"
        if pick < 40:
            n = r.randrange(1, 300)
            return (f"INSERT INTO {t}(a, b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
                    f"FROM n WHERE i < {n}) SELECT i*{r.randrange(1, 99)}, printf('%0200d', i) FROM n")
        if pick < 50:
            return f"UPDATE {t} SET b = {self.value()} WHERE a % {r.randrange(2, 9)} = 0"
        if pick < 56:
            return f"DELETE FROM {t} WHERE a % {r.randrange(1, 9)} = {r.randrange(3)}"
        if pick < 66:
            return f"SELECT count(*), sum(a), sum(length(b)), max(b) FROM {t}"
        if pick < 70:
            return "BEGIN " + r.choice(["", "IMMEDIATE", "EXCLUSIVE"])
        if pick < 76:
            return r.choice(["COMMIT", "COMMIT", "ROLLBACK"])
        if pick < 80:
            self.points.append(f"s{len(self.points)}")
            return f"SAVEPOINT {self.points[-1]}"
        if pick < 84 and self.points:
            return r.choice(["RELEASE ", "ROLLBACK TO "]) + r.choice(self.points)
        if pick < 86:
            return self.schema(t, schema, name)
        if pick < 87:
            return f"CREATE TABLE IF NOT EXISTS {t}(a {r.choice(['', 'UNIQUE'])}, b)"
        if pick < 88:
            return f"DROP TABLE IF EXISTS {t}"
        if pick < 90:
            return f"CREATE INDEX IF NOT EXISTS {schema}.i_{name} ON {name}(b)"
        if pick < 91:
            return f"ALTER TABLE {t} ADD COLUMN c{r.randrange(3)} DEFAULT 7"
        if pick < 93:
            return f"PRAGMA {schema}.cache_size = {r.choice([10, 10, 100])}"
        if pick < 94:
            mode = r.choice(["delete", "truncate", "persist", "memory"])
            return f"PRAGMA {schema}.journal_mode = {mode}"
        if pick < 95:
            return f"PRAGMA {schema}.auto_vacuum = {r.randrange(3)}"
        if pick < 96:
            return f"PRAGMA {schema}.incremental_vacuum({r.randrange(20)})"
        if pick < 97:
            return f"PRAGMA {schema}.page_size = {r.choice([512, 1024, 4096, 8192, 65536])}"
        if pick < 98:
            return f"PRAGMA {schema}.synchronous = {r.randrange(4)}"
        if pick < 99:
            return f"VACUUM {schema}"
        return f"PRAGMA {schema}.integrity_check"


def run(db, sql, extra=""):
    try:
        return db.execute(sql.replace(EXTRA, extra)).fetchall()
    except sqlite3.Error as e:
        return f"{type(e).__name__}: {e}"


def open_pair(path, vol):
    a = sqlite3.connect(path + ".db", isolation_level=None)
    a.execute(f"ATTACH '{path}-aux.db' AS aux")
    b = vfs_world.connect(vol, os.path.basename(path) + ".db")
    b.execute(f"ATTACH '{vol}/{os.path.basename(path)}-aux.db' AS aux")
    return a, b


def dump(db):
    out = []
    for schema in ("main", "aux"):
        rows = db.execute(f"SELECT name, sql FROM {schema}.sqlite_schema ORDER BY name").fetchall()
        out.append(rows)
        for name, sql in rows:
            if sql and sql.startswith("CREATE TABLE"):
                row = "k" if "WITHOUT ROWID" in sql else "rowid"
                out.append(db.execute(f"SELECT {row}, * FROM {schema}.{name} ORDER BY {row}").fetchall())
        out.append(db.execute(f"PRAGMA {schema}.integrity_check").fetchall())
        out.append(db.execute(f"PRAGMA {schema}.page_size").fetchall())
        out.append(db.execute(f"PRAGMA {schema}.page_count").fetchall())
    return out


def summary(db):
    """What there is, in a few lines."""
    out = []
    names = db.execute("SELECT name FROM main.sqlite_schema WHERE type='table' ORDER BY name").fetchall()
    for (name,) in names:
        out.append((name, run(db, f"SELECT count(*), sum(rowid), total(length(b)) FROM main.{name}")))
    return out


def one(round_seed, vol, steps):
    script = Script(random.Random(round_seed))
    path = os.path.join(vfs_world.folder, f"d{round_seed}")
    a, b = open_pair(path, vol)
    reader = vfs_world.connect(vol, f"d{round_seed}.db", more="&mode=ro")
    log = []
    for t in TABLES:
        for db in (a, b):
            db.execute(f"CREATE TABLE {t}(a, b)")
    for step in range(steps):
        sql = script.statement()
        log.append(sql)
        ra = run(a, sql, path + "-extra.db")
        rb = run(b, sql, f"{vol}/d{round_seed}-extra.db")
        if ra != rb:
            print("\n".join(log[-40:]))
            sys.exit(f"seed {round_seed}, step {step}: {sql}\nstock {str(ra)[:300]}\nkvfs  {str(rb)[:300]}")
        if step % 7 == 0 and not b.in_transaction and summary(b) != summary(reader):
            print("\n".join(log[-40:]))
            sys.exit(f"seed {round_seed}, step {step}: a reader sees {summary(reader)}\nnot {summary(b)}")
        if step % 97 == 96:  # what is on the disk, not in a cache
            for db in (a, b):
                run(db, "ROLLBACK")
                db.close()
            script.points = []
            a, b = open_pair(os.path.join(vfs_world.folder, f"d{round_seed}"), vol)
    reader.close()
    for db in (a, b):
        run(db, "ROLLBACK")
        db.close()
    a, b = open_pair(os.path.join(vfs_world.folder, f"d{round_seed}"), vol)
    if dump(a) != dump(b):
        sys.exit(f"seed {round_seed}: the dumps differ")
    a.close()
    b.close()


def main():
    vfs_world.load()
    rng = random.Random(vfs_world.seed())
    vol = vfs_world.volume()
    if "KVFS_ROUND" in os.environ:
        one(int(os.environ["KVFS_ROUND"]), vol, 200)
        return
    for _ in range(3 * vfs_world.SCALE):
        one(rng.randrange(1 << 30), vol, 200)


if __name__ == "__main__":
    main()
