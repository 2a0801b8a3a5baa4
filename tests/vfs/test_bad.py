# SPDX-License-Identifier: BSD-3-Clause
"""What is no volume, no database, damaged, read-only or gone: each call says so, and no wrong row
is ever seen.
"""
import os
import shutil
import sqlite3
import subprocess
import sys

import vfs_world

KVFS = os.environ["KVFS_BIN"]
MANGLE = os.path.join(os.environ["KVFS_BINARY_DIR"], "tests", "cli", "kvfs_mangle")
ROWS = [(i, "row %06d " % i + "x" * (i % 300)) for i in range(400)]


def refused(what, code, call):
    """CALL fails with an error whose name begins with CODE."""
    try:
        call()
    except sqlite3.Error as e:
        if not any(word in str(e) for word in code):
            sys.exit(f"{what}: {e!r}, not {code}")
        return
    sys.exit(f"{what}: was let through")


def names():
    empty = os.path.join(vfs_world.folder, "empty")
    os.mkdir(empty)
    refused("no volume", ["unable to open"], lambda: vfs_world.connect(empty).execute("SELECT 1"))
    refused("nothing", ["unable to open"],
            lambda: vfs_world.connect(os.path.join(vfs_world.folder, "none")).execute("SELECT 1"))
    if os.listdir(empty):
        sys.exit("something was made in a folder that is no volume")


def parameters(vol):
    for more in ("&block_size=64k", "&block_size=100", "&busy=soon", "&busy=-1", "&durability=x"):
        refused(more, ["unable to open"], lambda: vfs_world.connect(vol, "p.db", more))
    fresh = os.path.join(vfs_world.folder, "fresh")
    for more in ("&create=1&mode=ro", "&create=1&mode=rw", "&create=1&block_size=x"):
        refused(more, ["unable to open"], lambda: vfs_world.connect(fresh, more=more))
        if os.path.exists(fresh):
            sys.exit(f"{more}: made a volume")
    db = vfs_world.connect(vol, "p.db", timeout=0.7)
    db.execute(f"ATTACH 'file:q.db?vfs=kvfs&volume={vol}&busy=5' AS q")
    if db.execute("PRAGMA busy_timeout").fetchone() != (700,):
        sys.exit("an attached database set the timeout")
    db.close()


def not_databases(vol):
    noise = os.path.join(vfs_world.folder, "noise")
    with open(noise, "wb") as f:
        f.write(os.urandom(200000))
    subprocess.run([KVFS, "import", vol, "noise.img", noise], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([KVFS, "create", "--size=1M", vol, "disk.img"], check=True, stdout=subprocess.DEVNULL)
    for name in ("noise.img", "disk.img"):
        db = vfs_world.connect(vol, name)
        refused(name, ["not a database"], lambda: db.execute("SELECT * FROM sqlite_master").fetchall())
        refused(name, ["not a database"], lambda: db.execute("CREATE TABLE t(x)"))
        db.close()


def damaged():
    vol = vfs_world.volume("damaged", "lmdb")
    db = vfs_world.connect(vol)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    db.executemany("INSERT INTO t VALUES(?, ?)", ROWS)
    db.close()
    listing = subprocess.run([MANGLE, vol, "list"], check=True, capture_output=True, text=True).stdout
    blocks = sum(line.startswith("DATA") for line in listing.splitlines())
    errors = 0
    for block in range(blocks):
        for bit in ("12345", "99"):
            subprocess.run([MANGLE, vol, "flip", "DATA", str(block), bit], check=True)
            db = None
            try:
                db = vfs_world.connect(vol)
                seen = db.execute("SELECT id, x FROM t").fetchall()
                if seen != ROWS:
                    sys.exit(f"block {block}: wrong rows")
            except sqlite3.Error as e:
                if not any(w in str(e) for w in ("I/O", "malformed", "not a database")):
                    sys.exit(f"block {block}: {e!r}")
                errors += 1
            if db is not None:
                db.close()
            subprocess.run([MANGLE, vol, "flip", "DATA", str(block), bit], check=True)  # undo
    if errors < blocks:
        sys.exit(f"{errors} errors for {blocks} blocks")
    db = vfs_world.connect(vol)
    if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
        sys.exit("not whole after the damage was undone")
    db.close()


def vanished():
    """The volume's folder goes while it is open: an answer for each call, nothing hangs."""
    vol = vfs_world.volume("vanishing")
    db = vfs_world.connect(vol)
    db.execute("CREATE TABLE t(x)")
    shutil.rmtree(vol)
    for _ in range(3):
        for sql in ("SELECT count(*) FROM t", "INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE", "ROLLBACK"):
            try:
                db.execute(sql).fetchall()
            except sqlite3.Error as e:
                print(f"vanished: {sql}: {e}")
    refused("a volume that is gone", ["unable to open"],
            lambda: vfs_world.connect(vol, "b.db").execute("CREATE TABLE t(x)") and sys.exit("made"))
    try:
        db.close()
    except sqlite3.Error as e:
        print(f"vanished: close: {e}")


def read_only(engine):
    """A medium that cannot be written, as an SD card whose switch is set: rows are read, also those
    that lie in an intent log, and a write is refused."""
    vol = vfs_world.volume("medium-" + engine.replace(":", "-"), engine)
    place = vol + ".ro"
    os.mkdir(place)
    subprocess.run([sys.executable, "-c",  # a process that dies: what it logged is not folded
                    "import os, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); import vfs_world\n"
                    "vfs_world.load(); db = vfs_world.connect(sys.argv[2])\n"
                    "db.execute('CREATE TABLE t(x)'); db.execute('INSERT INTO t VALUES(7)')\n"
                    "vfs_world._owner = 0; os._exit(0)", os.path.abspath(__file__), vol], check=True)
    subprocess.run(["mount", "--bind", vol, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        for more in ("", "&mode=ro", "&immutable=1"):
            db = vfs_world.connect(place, more=more)
            if db.execute("SELECT x FROM t").fetchall() != [(7,)]:
                sys.exit(f"{engine}{more}: another row")
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                sys.exit(f"{engine}{more}: not sound")
            refused("a read-only medium", ["readonly"], lambda: db.execute("INSERT INTO t VALUES(8)"))
            if db.execute("SELECT count(*) FROM t").fetchone() != (1,):
                sys.exit(f"{engine}{more}: a refused row")
            db.close()
        refused("a new database on it", ["unable to open", "readonly"],
                lambda: vfs_world.connect(place, "new.db").execute("CREATE TABLE t(x)"))
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    db = vfs_world.connect(vol)
    db.execute("INSERT INTO t VALUES(8)")
    db.close()


def main():
    vfs_world.load()
    names()
    vol = vfs_world.volume()
    parameters(vol)
    not_databases(vol)
    if os.path.exists(MANGLE):
        damaged()
    vanished()
    if os.getuid() == 0:
        for engine in ("lmdb", "log:lmdb", "sqlite"):
            read_only(engine)
    print("everything bad was told")


if __name__ == "__main__":
    main()
