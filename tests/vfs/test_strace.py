# SPDX-License-Identifier: BSD-3-Clause
"""A commit seen from outside: one write of the log, one flush, no journal on any file system.

strace runs this file again with the argument `child`; what it does between two marks, calls of
access(2), is looked at.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

MARK = "/kvfs-strace-mark"
FLUSHES = r"\b(fsync|fdatasync|sync_file_range|msync|sync|syncfs)\("
WRITES = r"\b(write|pwrite64|writev|pwritev|pwritev2|sendto|io_submit|io_uring_enter)\("


def child(folder):
    import vfs_world as w  # takes its environment from the parent

    w.load()
    db = w.connect(os.path.join(folder, "vol"))
    db.execute("INSERT INTO t VALUES(1, randomblob(100))")  # what is only done once is done
    os.access(MARK, os.F_OK)
    db.execute("INSERT INTO t VALUES(2, randomblob(100))")
    os.access(MARK, os.F_OK)
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES(3, randomblob(100))")
    db.execute("COMMIT")
    os.access(MARK, os.F_OK)
    db.execute("SELECT count(*) FROM t").fetchone()
    os.access(MARK, os.F_OK)
    db.close()


def calls(trace):
    """The system calls between the marks, a list for each space between two."""
    parts = [[]]
    for line in trace:
        if MARK in line:
            parts.append([])
        elif "resumed>" not in line:
            parts[-1].append(line)
    assert len(parts) == 5, f"{len(parts)} parts"
    return parts[1:4]


def flushes(part):
    return [x for x in part if re.search(FLUSHES, x) or "RWF_DSYNC" in x or "RWF_SYNC" in x]


def parent():
    import vfs_world as w

    vol = w.volume(engine="log:lmdb")
    w.load()
    db = w.connect(vol)
    db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)")
    db.close()  # only a process that is alone logs
    out = os.path.join(w.folder, "trace")
    subprocess.run(["strace", "-f", "-y", "-o", out, sys.executable, __file__, "child", w.folder],
                   check=True)
    with open(out, encoding="utf-8", errors="replace") as f:
        trace = f.readlines()
    commit, immediate, read = calls(trace)
    for part in (commit, immediate):
        text = "".join(part)
        assert len(flushes(part)) == 1, text
        # On a machine that stands still for a second our name may be left in `lock`.
        log = [x for x in part if re.search(WRITES, x) and "/vol/" in x and "/vol/lock>" not in x]
        assert len(log) == 1 and "/vol/log>" in log[0], text
    assert not flushes(read) and not [x for x in read if re.search(WRITES, x)], "".join(read)
    # Not a single name of a journal was even asked for.
    assert not [x for x in trace if re.search(r'(-journal|-wal|-shm|-mj\w+)"', x)]


def main():
    if len(sys.argv) > 1:
        child(sys.argv[2])
        return 0
    if shutil.which("strace") is None:
        print("skipped: strace is missing")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        probe = subprocess.run(["strace", "-o", os.path.join(folder, "probe"), "true"], check=False,
                               stderr=subprocess.PIPE)
    if probe.returncode != 0:
        print("skipped: strace may not trace here")
        return 77
    parent()
    return 0


if __name__ == "__main__":
    sys.exit(main())
