# SPDX-License-Identifier: BSD-3-Clause
"""Python's sqlite3 over the VFS: threads, processes, backups, transactions of both kinds."""
import multiprocessing
import os
import sqlite3
import sys
import threading
import unittest

import vfs_world

vfs_world.load()
SHARED = vfs_world.SHARED
count = 0


def fresh():
    global count
    count += 1
    return vfs_world.volume(f"vol{count}")


def add_rows(vol, n):
    db = vfs_world.connect(vol, timeout=60)
    for _ in range(n):
        db.execute("UPDATE t SET x = x + 1")
    db.close()


class Python(unittest.TestCase):
    def test_default_isolation_level(self):
        vol = fresh()
        db = vfs_world.connect(vol, isolation_level="")
        db.execute("CREATE TABLE t(x)")
        with db:
            db.executemany("INSERT INTO t VALUES(?)", [(i,) for i in range(100)])
        try:
            with db:
                db.execute("DELETE FROM t")
                raise RuntimeError
        except RuntimeError:
            pass
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone()[0], 100)
        db.close()

    def test_plain_path_with_environment(self):
        vol = fresh()
        os.environ["KVFS_VOLUME"] = vol
        try:
            db = sqlite3.connect("file:app.db?vfs=kvfs", uri=True)
            db.execute("CREATE TABLE t(x)")
            db.close()
        finally:
            del os.environ["KVFS_VOLUME"]
        db = vfs_world.connect(vol)
        self.assertEqual(db.execute("SELECT name FROM sqlite_schema").fetchall(), [("t",)])
        db.close()

    def test_backup_and_iterdump(self):
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(x)")
        db.executemany("INSERT INTO t VALUES(?)", [(os.urandom(500),) for _ in range(1000)])
        other = vfs_world.connect(vol, "copy.db")
        writer = vfs_world.connect(vol)

        def step(*_):  # a writer commits between the steps
            writer.execute("INSERT INTO t VALUES(1)")

        steps = 0

        def few(*args):
            nonlocal steps
            steps += 1
            if steps < 4:
                step(*args)

        db.backup(other, pages=20, progress=few)
        self.assertEqual(other.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        self.assertGreaterEqual(other.execute("SELECT count(*) FROM t").fetchone()[0], 1000)
        self.assertEqual("\n".join(other.iterdump()).count("INSERT"),
                         other.execute("SELECT count(*) FROM t").fetchone()[0])
        for d in (db, other, writer):
            d.close()

    def test_serialize(self):
        if not hasattr(sqlite3.Connection, "serialize"):
            self.skipTest("Python 3.11 has it")
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(x)")
        db.execute("INSERT INTO t VALUES(5)")
        memory = sqlite3.connect(":memory:")
        memory.deserialize(db.serialize())
        self.assertEqual(memory.execute("SELECT x FROM t").fetchone()[0], 5)
        db.close()

    def test_blob(self):
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(x)")
        db.execute("INSERT INTO t VALUES(zeroblob(300000))")
        with db.blobopen("t", "x", 1) as blob:
            blob.seek(200000)
            blob.write(b"hello")
        self.assertEqual(db.execute("SELECT substr(x, 200001, 5) FROM t").fetchone()[0], b"hello")
        db.close()

    def test_threads(self):
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(x)")
        db.execute("INSERT INTO t VALUES(0)")
        threads = [threading.Thread(target=add_rows, args=(vol, 20)) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(db.execute("SELECT x FROM t").fetchone()[0], 80)
        db.close()

    def processes(self, method):
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(x)")
        db.execute("INSERT INTO t VALUES(0)")
        if not SHARED:
            db.close()
        context = multiprocessing.get_context(method)
        workers = [context.Process(target=worker, args=(vol, 10)) for _ in range(3 if SHARED else 1)]
        for p in workers:
            p.start()
        for p in workers:
            p.join()
            self.assertEqual(p.exitcode, 0)
        if not SHARED:
            db = vfs_world.connect(vol)
        self.assertEqual(db.execute("SELECT x FROM t").fetchone()[0], 10 * len(workers))
        db.execute("UPDATE t SET x = 0")
        db.close()

    def test_fork(self):
        if vfs_world.FORKS:
            self.processes("fork")
            return
        # The library's threads are not in the child: it is told so, and the parent goes on.
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(x)")
        db.close()
        child = multiprocessing.get_context("fork").Process(target=refused, args=(vol,))
        child.start()
        child.join()
        self.assertEqual(child.exitcode, 0)
        db = vfs_world.connect(vol)
        db.execute("INSERT INTO t VALUES(1)")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone()[0], 1)
        db.close()

    @unittest.skipUnless(SHARED, "one process at a time")
    def test_waits_for_another_process(self):
        # SQLite counts the calls of its busy handler, not the time: each must last.
        vol = fresh()
        db = vfs_world.connect(vol, isolation_level=None)
        db.execute("CREATE TABLE t(x)")
        db.execute("INSERT INTO t VALUES(0)")
        context = multiprocessing.get_context("spawn")
        db.execute("BEGIN IMMEDIATE")
        child = context.Process(target=worker, args=(vol, 1))
        child.start()
        child.join(2.5)  # it tries meanwhile; a handler that ran out has ended it
        self.assertTrue(child.is_alive())
        db.execute("COMMIT")
        child.join()
        self.assertEqual(child.exitcode, 0)
        self.assertEqual(db.execute("SELECT x FROM t").fetchone()[0], 1)
        db.close()

    def test_spawn(self):
        self.processes("spawn")

    def pool(self, method):
        if method == "fork" and not vfs_world.FORKS:
            self.skipTest("told by test_fork")
        vol = fresh()
        db = vfs_world.connect(vol)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, worker, x)")
        if not SHARED:
            db.close()
        context = multiprocessing.get_context(method)
        with context.Pool(3 if SHARED else 1) as workers:
            got = workers.starmap(pooled, [(vol, i) for i in range(30)], chunksize=2)
            workers.close()
            workers.join()
        if not SHARED:
            db = vfs_world.connect(vol)
        self.assertEqual(sorted(got), list(range(30)))
        self.assertEqual(db.execute("SELECT count(*), sum(x) FROM t").fetchone(), (30, 435))
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        db.close()

    def test_fork_pool(self):
        self.pool("fork")

    def test_spawn_pool(self):
        self.pool("spawn")

    def test_shared_cache(self):
        vol = fresh()
        a = vfs_world.connect(vol, more="&cache=shared")
        b = vfs_world.connect(vol, more="&cache=shared")
        a.execute("CREATE TABLE t(x)")
        b.execute("PRAGMA read_uncommitted=1")
        a.execute("BEGIN")
        a.execute("INSERT INTO t VALUES(1)")
        self.assertEqual(b.execute("SELECT count(*) FROM t").fetchone()[0], 1)
        a.execute("ROLLBACK")
        self.assertEqual(b.execute("SELECT count(*) FROM t").fetchone()[0], 0)
        a.close()
        b.close()

    def test_journal_modes(self):
        vol = fresh()
        n = 0
        for locking in ("normal", "exclusive"):
            for mode in ("delete", "truncate", "persist", "memory", "wal"):
                for sync in ("off", "normal", "full", "extra"):
                    db = vfs_world.connect(vol)
                    db.execute(f"PRAGMA locking_mode={locking}")
                    db.execute(f"PRAGMA journal_mode={mode}")
                    db.execute(f"PRAGMA synchronous={sync}")
                    db.execute("PRAGMA journal_size_limit=1000")
                    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
                    db.execute("INSERT INTO t VALUES(1)")
                    db.execute("BEGIN")
                    db.execute("INSERT INTO t SELECT x FROM t")
                    db.execute("ROLLBACK")
                    db.execute("INSERT INTO t VALUES(1)")
                    n += 2
                    db.close()
                    db = vfs_world.connect(vol)
                    self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone()[0], n,
                                     (locking, mode, sync))
                    db.close()

    def test_not_a_database(self):
        vol = fresh()
        db = vfs_world.connect(vol)
        db.close()
        path = os.path.join(vfs_world.folder, "noise")
        with open(path, "wb") as f:
            f.write(os.urandom(100000))
        import subprocess
        subprocess.run([os.environ["KVFS_BIN"], "import", vol, "noise.db", path], check=True,
                       stdout=subprocess.DEVNULL)
        db = vfs_world.connect(vol, "noise.db")
        with self.assertRaisesRegex(sqlite3.DatabaseError, "not a database"):
            db.execute("SELECT * FROM sqlite_schema").fetchall()
        db.close()


connection = None  # of a worker of a pool: for all its tasks, as applications have it


def pooled(vol, i):
    global connection
    if connection is None:
        vfs_world.load()
        connection = vfs_world.connect(vol, timeout=60, isolation_level="IMMEDIATE")
    with connection:
        connection.execute("INSERT INTO t VALUES(?, ?, ?)", (i, os.getpid(), i))
        return connection.execute("SELECT x FROM t WHERE id = ?", (i,)).fetchone()[0]


def worker(vol, n):
    vfs_world.load()
    add_rows(vol, n)


def refused(vol):
    try:
        vfs_world.connect(vol)
    except sqlite3.OperationalError:
        why = sqlite3.connect(":memory:").execute("SELECT kvfs_error()").fetchone()[0]
        sys.exit(0 if "fork()" in why else why)
    sys.exit("the child of a process with threads opened the volume")


if __name__ == "__main__":
    unittest.main()
