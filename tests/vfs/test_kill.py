# SPDX-License-Identifier: BSD-3-Clause
"""Processes that are killed while they move money between two attached databases.

The sum over both never changes, for nobody and at no time; both are whole after each kill.
"""
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import threading

import vfs_world

ACCOUNTS = 20
TOTAL = 2 * ACCOUNTS * 100


def connect(vol):
    db = vfs_world.connect(vol, "a.db", timeout=60, check_same_thread=False)
    db.execute(f"ATTACH '{vol}/b.db' AS b")
    return db


def total(db):
    return db.execute("SELECT (SELECT sum(x) FROM main.acc) + (SELECT sum(x) FROM b.acc)").fetchone()[0]


def transfer(db, rng):
    amount = rng.randrange(1, 10)
    one, other = rng.sample(["main", "b"], 2)
    try:
        # In one order, so that no two wait for each other.
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"UPDATE {one}.acc SET x = x - ? WHERE id = ?", (amount, rng.randrange(ACCOUNTS)))
        db.execute(f"UPDATE {other}.acc SET x = x + ? WHERE id = ?", (amount, rng.randrange(ACCOUNTS)))
        if rng.randrange(5) == 0:
            db.execute("INSERT INTO main.log SELECT zeroblob(20000)")
        db.execute("ROLLBACK" if rng.randrange(8) == 0 else "COMMIT")
    except sqlite3.OperationalError as e:
        if "locked" not in str(e):
            raise
        if db.in_transaction:
            db.execute("ROLLBACK")


def worker(vol, seed, reports):
    vfs_world.load()

    def loop(number):
        rng = random.Random(seed * 10 + number)
        db = connect(vol)
        done = 0
        while True:
            transfer(db, rng)
            if rng.randrange(4) == 0 and (seen := total(db)) != TOTAL:
                reports.put(f"a reader saw {seen}")
                os._exit(1)
            done += 1
            if done % 10 == 0:
                reports.put(None)

    for number in range(2):
        threading.Thread(target=loop, args=(number,), daemon=True).start()
    threading.Event().wait()


def check(vol):
    db = connect(vol)
    for schema in ("main", "b"):
        if (answer := db.execute(f"PRAGMA {schema}.integrity_check").fetchone()[0]) != "ok":
            sys.exit(f"{schema}: {answer}")
    if (seen := total(db)) != TOTAL:
        sys.exit(f"the sum is {seen}, not {TOTAL}")
    db.close()


def main():
    vfs_world.load()
    rng = random.Random(vfs_world.seed())
    vol = vfs_world.volume(engine=os.environ.get("KVFS_TEST_ENGINE") or "log:lmdb")
    db = connect(vol)
    for schema in ("main", "b"):
        db.execute(f"CREATE TABLE {schema}.acc(id INTEGER PRIMARY KEY, x)")
        db.executemany(f"INSERT INTO {schema}.acc VALUES(?, 100)", [(i,) for i in range(ACCOUNTS)])
    db.execute("CREATE TABLE log(x)")
    db.close()
    context = multiprocessing.get_context("spawn")
    reports = None
    workers = []
    for _ in range(8 * vfs_world.SCALE):
        # A queue of its own for each round: a killed process may hold the lock of an old one.
        reports = context.SimpleQueue()
        while len(workers) < 3:
            p = context.Process(target=worker, args=(vol, rng.randrange(1 << 30), reports), daemon=True)
            p.start()
            workers.append(p)
        for _ in range(rng.randrange(2, 6)):  # some progress, then the kill
            if (said := reports.get()) is not None:
                sys.exit(said)
        for p in workers:
            os.kill(p.pid, signal.SIGKILL)
        for p in workers:
            p.join()
            if p.exitcode != -signal.SIGKILL:
                sys.exit(f"a worker ended with {p.exitcode}")
        workers = []
        check(vol)
    print("the sum was right throughout")


if __name__ == "__main__":
    main()
