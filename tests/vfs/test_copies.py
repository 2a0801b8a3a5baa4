# SPDX-License-Identifier: BSD-3-Clause
"""What else a process does beside its databases: it reads and closes the files of the volume, and
it loads the library twice.  No commit that was acknowledged is lost.
"""
import os
import shutil
import sqlite3
import subprocess
import sys

import vfs_world

ROWS = 20
THEIRS = ("lock.mdb", "store.sqlite")  # with locks of the engine's library, not ours


def insert(db, who):
    for _ in range(ROWS):
        db.execute("INSERT INTO t VALUES(?)", (who,))


def counted(vol):
    db = vfs_world.connect(vol)
    rows = dict(db.execute("SELECT x, count(*) FROM t GROUP BY x").fetchall())
    db.close()
    return rows


def child(vol):
    vfs_world.load()
    try:
        db = vfs_world.connect(vol, timeout=30)
        insert(db, "child")
        db.close()
    except sqlite3.OperationalError as e:
        if vfs_world.SHARED:
            raise
        print("refused:", e)
        sys.exit(3)


def files_closed():
    vol = vfs_world.volume("closed")
    db = vfs_world.connect(vol, timeout=30)
    db.execute("CREATE TABLE t(x)")
    for folder, _, names in os.walk(vol):
        for name in names:
            if not name.startswith(THEIRS):
                with open(os.path.join(folder, name), "rb") as f:
                    f.read(1)
    rc = subprocess.run([sys.executable, __file__, vol], stdout=subprocess.DEVNULL).returncode
    if rc != (0 if vfs_world.SHARED else 3):
        sys.exit(f"the other process: {rc}")
    insert(db, "parent")
    db.close()
    expected = {"parent": ROWS, **({"child": ROWS} if vfs_world.SHARED else {})}
    if counted(vol) != expected:
        sys.exit(f"files read and closed: {counted(vol)}, not {expected}")


def second_copy():
    vol = vfs_world.volume("copies")
    copy = os.path.join(vfs_world.folder, os.path.basename(vfs_world.EXTENSION))
    if not copy.endswith(".so"):
        copy += ".so"
    shutil.copy(vfs_world.EXTENSION if os.path.exists(vfs_world.EXTENSION)
                else vfs_world.EXTENSION + ".so", copy)
    db = vfs_world.connect(vol)
    db.execute("CREATE TABLE t(x)")
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(copy)
    for more in ("", "&mode=ro"):
        try:
            vfs_world.connect(vol, more=more).execute("SELECT * FROM t").fetchall()
        except sqlite3.OperationalError:
            why = loader.execute("SELECT kvfs_error()").fetchone()[0]
            if "already open in this process, through another copy" not in why:
                sys.exit(f"a second copy{more}: {why!r}")
        else:
            sys.exit(f"a second copy{more} of the library opened the volume")
    insert(db, "first")
    db.close()
    again = vfs_world.connect(vol)  # nobody else has it any more
    insert(again, "second")
    again.close()
    if counted(vol) != {"first": ROWS, "second": ROWS}:
        sys.exit(f"two copies: {counted(vol)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1])
    else:
        vfs_world.load()
        files_closed()
        second_copy()
