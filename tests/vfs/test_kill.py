# SPDX-License-Identifier: BSD-3-Clause
"""Processes that are killed while they move money between two attached databases.

The sum over both never changes, for nobody and at no time: not for who writes, not for readers
that hold an old snapshot while others write; both are whole after each kill.  Engines that one
process only may open have that one, which is killed, with as many threads.
"""
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import sqlite3
import sys
import threading
import time

import vfs_world

ACCOUNTS = 20
SEVERAL = ("lmdb", "sqlite", "log:lmdb")
ENGINE = os.environ.get("KVFS_TEST_ENGINE") or "lmdb"
PROCESSES, THREADS = (4, 4) if ENGINE in SEVERAL else (1, 8)
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


def hold(vol, seconds, stop, reports):
    """A reader that stays in its snapshot, of both databases, for a while; and again."""
    query = "SELECT (SELECT group_concat(x) FROM main.acc) || (SELECT group_concat(x) FROM b.acc)"
    db = connect(vol)
    while not stop.is_set():
        db.execute("BEGIN")
        first = db.execute("SELECT group_concat(x) FROM main.acc").fetchone()[0]
        seen = db.execute(query).fetchone()[0]
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop.is_set():
            if db.execute(query).fetchone()[0] != seen or total(db) != TOTAL or not seen.startswith(first):
                reports.put("a snapshot moved under its reader")
                return
        db.execute("COMMIT")
    db.close()


def worker(vol, seed, seconds, reports):
    vfs_world.load()

    def loop(number):
        rng = random.Random(seed * 10 + number)
        db = connect(vol)
        done = 0
        while True:
            transfer(db, rng)
            if rng.randrange(4) == 0 and (seen := total(db)) != TOTAL:
                reports.put(f"the sum is {seen}, not {TOTAL}")
            done += 1
            if done % 4 == 0:
                reports.put(None)

    for number in range(THREADS):
        threading.Thread(target=loop, args=(number,), daemon=True).start()
    hold(vol, seconds, threading.Event(), reports)


def check(vol):
    db = connect(vol)
    for schema in ("main", "b"):
        if (answer := db.execute(f"PRAGMA {schema}.integrity_check").fetchone()[0]) != "ok":
            sys.exit(f"{schema}: {answer}")
    if (seen := total(db)) != TOTAL:
        sys.exit(f"the sum is {seen}, not {TOTAL}")
    db.close()


def listen(workers, seconds):
    """Hear what the workers say, for so long."""
    queues = {reports._reader: reports for _, reports in workers}
    until = time.monotonic() + seconds
    while (ready := multiprocessing.connection.wait(queues, max(0, until - time.monotonic()))):
        for reader in ready:
            if (said := queues[reader].get()) is not None:
                sys.exit(said)
        if time.monotonic() > until:
            break


def main():
    vfs_world.load()
    rng = random.Random(vfs_world.seed())
    vol = vfs_world.volume(engine=ENGINE)
    db = connect(vol)
    for schema in ("main", "b"):
        db.execute(f"CREATE TABLE {schema}.acc(id INTEGER PRIMARY KEY, x)")
        db.executemany(f"INSERT INTO {schema}.acc VALUES(?, 100)", [(i,) for i in range(ACCOUNTS)])
    db.execute("CREATE TABLE log(x)")
    db.close()
    context = multiprocessing.get_context("spawn")
    seconds = 0.5 if vfs_world.SCALE == 1 else 60  # that a snapshot is held
    workers = []
    for kill in range(6 * vfs_world.SCALE):
        while len(workers) < PROCESSES:
            # A queue for each: a killed process may hold the lock of its own.
            reports = context.SimpleQueue()
            p = context.Process(target=worker, args=(vol, rng.randrange(1 << 30), seconds, reports), daemon=True)
            p.start()
            workers.append((p, reports))
        for p, reports in workers:  # each has done something
            if (said := reports.get()) is not None:
                sys.exit(said)
        p, _ = workers.pop(rng.randrange(len(workers)))  # the others go on
        os.kill(p.pid, signal.SIGKILL)
        p.join()
        if p.exitcode != -signal.SIGKILL:
            sys.exit(f"a worker ended with {p.exitcode}")
        check(vol)
        listen(workers, 0)
    if seconds > 1:  # old snapshots, held while the others write
        listen(workers, seconds + 5)
    for p, _ in workers:
        os.kill(p.pid, signal.SIGKILL)
        p.join()
    check(vol)
    print(f"{ENGINE}: the sum was right throughout")


if __name__ == "__main__":
    main()
