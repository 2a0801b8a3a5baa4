# SPDX-License-Identifier: BSD-3-Clause
"""A volume in a temporary folder, and short ways to a database in it."""
import atexit
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile

EXTENSION = os.environ["KVFS_SQLITE"]
ENGINE = os.environ.get("KVFS_TEST_ENGINE", "lmdb")
_parts = ENGINE.replace("+", ":").split(":")
SHARED = _parts[-1] in ("lmdb", "sqlite")  # several processes at once
FORKS = not {"rocksdb", "sled"} & set(_parts)  # their threads do not come along with fork()
SCALE = int(os.environ.get("KVFS_SCALE", "1"))

_owner = os.getpid()
# A process that was spawned works in its parent's.
_main = multiprocessing.current_process().name == "MainProcess"
folder = tempfile.mkdtemp(prefix="kvfs-vfs-") if _main else None


def _clean():
    if folder and os.getpid() == _owner:
        shutil.rmtree(folder, ignore_errors=True)


atexit.register(_clean)


def seed():
    """The seed of a random test, printed and taken from KVFS_SEED."""
    value = int(os.environ.get("KVFS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"KVFS_SEED={value}", flush=True)
    return value


def load():
    """Register the VFS in this process."""
    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)
    db.close()


def volume(name="vol", engine=None):
    path = os.path.join(folder, name)
    subprocess.run([os.environ["KVFS_BIN"], "format", "--engine=" + (engine or ENGINE), path],
                   check=True, stdout=subprocess.DEVNULL)
    return path


def connect(vol, name="app.db", more="", **kw):
    kw.setdefault("isolation_level", None)
    return sqlite3.connect(f"file:{name}?vfs=kvfs&volume={vol}{more}", uri=True, **kw)
