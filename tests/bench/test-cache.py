#!/usr/bin/env python3
"""The parameter cache-bytes of the engines that have a cache: it bounds what they keep in memory."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

BIN = os.environ["KVFS_BINARY_DIR"]
MIB = 1 << 20
BYTES = 64 * MIB
SMALL, LARGE = 2 * MIB, 32 * MIB
folder = tempfile.mkdtemp(prefix="kvfs-cache-", dir=os.environ.get("TMPDIR", "/tmp"))
built = {e["name"] for e in json.loads(subprocess.run([BIN + "/cli/kvfs", "engines", "--json"], check=True,
                                                      capture_output=True).stdout)}


def kvload(engine, *lines):
    shutil.rmtree(folder)
    os.mkdir(folder)
    return subprocess.run([BIN + "/bench/kvload", "--layer=contract", f"--engine={engine}", f"--dir={folder}",
                           f"--bytes={BYTES}"], input="\n".join(lines) + "\n", capture_output=True, text=True,
                          check=False)


def own_bytes(engine, cache, read):
    """Anonymous memory at most, of a fill and of what reads all after it, by 8 threads."""
    ran = kvload(f"{engine},cache-bytes={cache}", "fill order=sequential flush=64 drain=0",
                 *(f"load op=read pattern={pattern} threads=8 seconds=0.7 warmup=0"
                   for pattern in ("sequential", "random") if read))
    if ran.returncode != 0:
        sys.exit(f"{engine}: {ran.stderr}")
    return max(json.loads(line).get("own_bytes_max") or 0 for line in ran.stdout.splitlines())


def must(true, *what):
    if not true:
        sys.exit(" ".join(map(str, what)))


def bad(engine):
    for params in ("cache-bytes=", "cache-bytes=5", "cache-bytes=8388608x", "cache-bytes=-1", "cache=1",
                   "cache-bytes=99999999999999999999", "cache-bytes"):
        ran = kvload(f"{engine},{params}")
        must(ran.returncode != 0 and f"'{params}'" in ran.stderr and "cache-bytes=1048576...1099511627776" in ran.stderr,
             engine, params, ran.returncode, ran.stderr)
    ran = kvload(f"{engine},cache-bytes=8388608,nosuch=1")
    must("'nosuch=1'" in ran.stderr, engine, ran.stderr)


def through_the_vfs():
    """The URI of a database passes parameters on."""
    name = f"file:one.db?vfs=kvfs&volume={folder}/v&engine=sqlite&create=1&engine_params=cache-bytes="
    for number, status in ((5, 1), (8388608, 0)):
        ran = subprocess.run([BIN + "/bench/sqlload", "--rows=200", "fill", name + str(number)], capture_output=True,
                             text=True, check=False)
        must(ran.returncode == status and ("'cache-bytes=5'" in ran.stderr) == (status == 1), number, ran.stderr)


def main():
    if os.path.exists(BIN + "/bench/sqlload") and "sqlite" in built:
        through_the_vfs()
    # sled counts its own way and takes much more: only a large difference shows, and while it writes.
    for engine, read, large in (("sqlite", True, LARGE), ("rocksdb", True, LARGE), ("sled", False, 8 * LARGE)):
        if engine not in built:
            continue
        bad(engine)
        small = own_bytes(engine, SMALL, read)
        big = own_bytes(engine, large, read)
        print(f"{engine}: {small / MIB:.1f} MiB with a cache of {SMALL / MIB:.0f}, {big / MIB:.1f} with {large / MIB:.0f}")
        if engine == "sled":
            must(big > small + 10 * MIB, engine, "does not take cache-bytes", small, big)
        else:
            must(big > small + (large - SMALL) // 3, engine, "does not take cache-bytes", small, big)
            must(big < small + 2 * large, engine, "takes more than cache-bytes for all threads", small, big)


try:
    main()
finally:
    shutil.rmtree(folder, ignore_errors=True)
