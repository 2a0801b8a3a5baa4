#!/usr/bin/env python3
"""SQLite on the VFS `kvfs` beside the stock VFS on the same disk.

Every peer has its databases in a folder of its own.  In each round every cell goes round the
peers before the next one begins, and who is first changes; printed are medians over the rounds
and ratios of the medians.  `sqlload` (see its top) makes each cell.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

# Peer: its PRAGMAs; `engine` and `durability` of a volume.
STOCK = {
    "wal_full": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
    "wal_normal": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    "delete_full": "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL",
}
# Cell: load, further options, databases.
CELLS = {
    "commit": ("commit", [], 1),
    "batch_100": ("batch", [], 1),
    "bulk": ("bulk", [], 1),
    "point": ("point", [], 1),
    "range": ("range", [], 1),
    "writers_1db": ("writers", ["--threads=8", "--dbs=1"], 1),
    "writers_8db": ("writers", ["--threads=8", "--dbs=8"], 8),
    "mixed": ("mixed", ["--threads=4", "--dbs=1"], 1),
    "speedtest1": ("speedtest1", [], 0),  # SQLite's own program
}
# What is to be reached with log:lmdb: cell, peer, beside which, at least.
TARGETS = [
    ("commit", "kvfs", "wal_full", 1.0),
    ("commit", "kvfs", "delete_full", 4.0),
    ("writers_1db", "kvfs", "wal_full", 1.5),
    ("writers_8db", "kvfs", "wal_full", 1.0),
    ("point", "kvfs", "wal_full", 0.9),
    ("range", "kvfs", "wal_full", 0.9),
    ("batch_100", "kvfs", "wal_full", 0.8),
    ("bulk", "kvfs", "wal_full", 0.8),
    ("commit", "kvfs_ordered", "wal_normal", 0.4),
]
WAYS = ("engine", "kvfs", "vfs", "sqlite")  # of pagecost
ALL_PEERS = ["wal_full", "wal_normal", "delete_full", "kvfs", "kvfs_ordered"]


def arguments():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(prog="bench/sqlite.sh", allow_abbrev=False,
                                     description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=os.path.join(here, "..", "..", "build", "release"),
                        help="a release build (build/release)")
    parser.add_argument("--dir", default="/var/tmp", help="where databases and volumes lie")
    parser.add_argument("--engine", default="log:lmdb", help="of the volume (log:lmdb)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of one cell (3)")
    parser.add_argument("--rows", type=int, default=100000, help="of 100 bytes (100000)")
    parser.add_argument("--cells", help="names with commas between (%s)" % ",".join(CELLS))
    parser.add_argument("--peers", help="of " + ",".join(ALL_PEERS))
    parser.add_argument("--quick", action="store_true", help="one round of short cells")
    parser.add_argument("--speedtest1", metavar="PROGRAM",
                        help="where it is; `ctest --preset dev -R '^vfs/upstream$'` builds it in "
                             "build/dev/sqlite-programs")
    parser.add_argument("--interface", action="store_true",
                        help="only the cost of the interfaces (pagecost)")
    parser.add_argument("--out", "--json", help="write every value as JSON")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.rows = 1, min(args.seconds, 0.3), min(args.rows, 10000)
    args.cells = args.cells.split(",") if args.cells else list(CELLS)
    args.peers = args.peers.split(",") if args.peers else ALL_PEERS
    if args.speedtest1 is None:
        args.speedtest1 = os.path.join(here, "..", "..", "build", "dev", "sqlite-programs",
                                       "speedtest1")
    if "speedtest1" in args.cells and not os.access(args.speedtest1, os.X_OK):
        print("speedtest1 is left out: it is not built (--help)", file=sys.stderr)
        args.cells.remove("speedtest1")
    for name in args.cells + args.peers:
        if name not in CELLS and name not in ALL_PEERS:
            parser.error(f"{name}: no such cell or peer")
    return args


def uri(args, folder, peer, dbs):
    """The name of a peer's databases: of one, or of many, which are others."""
    name = "many%d.db" if dbs > 1 else "one.db"
    if peer in STOCK:
        return f"file:{folder}/{peer}/{name}"
    durability = "ordered" if peer == "kvfs_ordered" else "durable"
    return (f"file:{name}?vfs=kvfs&volume={folder}/{peer}&engine={args.engine}&create=1"
            f"&durability={durability}")


def load(args, folder, peer, cell, dbs, options):
    setup = STOCK.get(peer, "")
    command = [os.path.join(args.build, "bench", "sqlload"), f"--setup={setup}",
               f"--rows={args.rows}", f"--seconds={args.seconds}", *options, cell,
               uri(args, folder, peer, dbs)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    os.sync()
    return json.loads(out) if out else None


def speedtest1(args, folder, peer, number):
    """The whole of it once; one operation.  It has no option for synchronous=NORMAL."""
    size = "2" if args.quick else "25"
    env = dict(os.environ)
    name = f"speed{number}.db"
    command = [args.speedtest1, "--size", size]
    if peer in STOCK:
        name = os.path.join(folder, peer, name)
        command += ["--journal", "wal" if peer == "wal_full" else "delete"]
    else:
        env.update(UPSTREAM_EXTENSION=os.path.join(args.build, "vfs", "kvfs_sqlite.so"),
                   KVFS_VOLUME=os.path.join(folder, peer))
        command += ["--vfs", "kvfs"]
    out = subprocess.run([*command, name], check=True, stdout=subprocess.PIPE, text=True,
                         env=env).stdout
    seconds = float(re.search(r"TOTAL\.+ +([0-9.]+)s", out).group(1))
    os.sync()
    return {"rate": 1 / seconds, "p50_us": seconds * 1e6, "p99_us": seconds * 1e6,
            "max_us": seconds * 1e6, "least_percent": 100}


def peers_of(args, cell):
    """`ordered` is to be measured where it means something."""
    if cell == "speedtest1":
        return [p for p in args.peers if p not in ("kvfs_ordered", "wal_normal")]
    return [p for p in args.peers if p != "kvfs_ordered" or cell in ("commit", "batch_100",
                                                                     "writers_1db")]


def one_round(args, folder, number, cells):
    for peer in args.peers:
        if peer in STOCK:
            os.makedirs(os.path.join(folder, peer))
        for dbs in {CELLS[c][2] or 1 for c in args.cells}:
            load(args, folder, peer, "fill", dbs, [f"--dbs={dbs}"])
    raw = subprocess.run([os.path.join(args.build, "bench", "sqlload"),
                          f"--seconds={args.seconds}", f"--file={folder}/raw", "raw", "-"],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    cells.setdefault("raw", {}).setdefault("fdatasync", []).append(json.loads(raw))
    for turn, cell in enumerate(args.cells):
        peers = peers_of(args, cell)
        for i in range(len(peers)):
            peer = peers[(i + turn + number) % len(peers)]
            name, options, dbs = CELLS[cell]
            got = speedtest1(args, folder, peer, number) if name == "speedtest1" else load(
                args, folder, peer, name, dbs, options)
            cells.setdefault(cell, {}).setdefault(peer, []).append(got)


def median(values, what):
    return statistics.median(v[what] for v in values)


def rate(values):
    number = median(values, "rate")
    return f"{number:.1f}" if number >= 10 else f"{number:.3f}"


def show(cells, engine):
    print(f"{'cell':12} {'peer':13} {'ops/s':>10} {'p50 us':>10} {'p99 us':>10} {'least %':>8}"
          f"  kvfs ({engine}) / peer")
    for cell, peers in cells.items():
        for peer, values in peers.items():
            ratio = ""
            if "kvfs" in peers and peer != "kvfs":
                ratio = f"{median(peers['kvfs'], 'rate') / median(values, 'rate'):.2f}"
            print(f"{cell:12} {peer:13} {rate(values):>10}"
                  f" {median(values, 'p50_us'):10.0f} {median(values, 'p99_us'):10.0f}"
                  f" {median(values, 'least_percent'):8.0f}  {ratio}")


def targets(cells):
    out = []
    for cell, peer, other, limit in TARGETS:
        values = cells.get(cell, {})
        if peer in values and other in values:
            ratio = median(values[peer], "rate") / median(values[other], "rate")
            out.append({"cell": cell, "peer": peer, "beside": other, "ratio": round(ratio, 3),
                        "limit": limit, "met": ratio >= limit})
    raw = cells.get("raw", {}).get("fdatasync")
    for peer, values in cells.get("commit", {}).items():
        if raw:
            ratio = median(values, "rate") / median(raw, "rate")
            print(f"commit: {peer} / pwrite + fdatasync of 4 KiB: {ratio:.2f}")
    for t in out:
        print(f"{'met   ' if t['met'] else 'MISSED'} {t['cell']}: {t['peer']} / {t['beside']} = "
              f"{t['ratio']:.2f}, to reach {t['limit']:.1f}")
    return out


def interface(args, folder):
    """Medians of the page trace's three ways, and what each adds to the engine's own."""
    rows = {}
    for _ in range(args.rounds):
        command = [os.path.join(args.build, "bench", "pagecost"), f"--engine={args.engine}",
                   f"--seconds={args.seconds}", tempfile.mkdtemp(dir=folder)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for row in map(json.loads, out.splitlines()):
            rows.setdefault(row["cell"], {}).setdefault(row["way"], []).append(row["us"])
    result = {}
    print(f"{'interface cost':16} {'engine':>10} {'libkvfs':>10} {'VFS':>10} {'SQLite':>10}   "
          "microseconds an operation, and each beside the engine")
    for cell, ways in rows.items():
        us = {way: statistics.median(values) for way, values in ways.items()}
        result[cell] = us
        print(f"{cell:16}" + "".join(f" {us[way]:10.2f}" if way in us else f"{'-':>11}" for way in WAYS) + "  "
              + "".join(f"  {100 * (us[way] / us['engine'] - 1):+.1f} %" for way in WAYS[1:] if way in us))
    return result


def main():
    args = arguments()
    cells = {}
    for number in range(0 if args.interface else args.rounds):
        folder = tempfile.mkdtemp(prefix="kvfs-sqlite-", dir=args.dir)
        try:
            one_round(args, folder, number, cells)
        finally:
            shutil.rmtree(folder)
    if cells:
        show(cells, args.engine)
    met = targets(cells)
    folder = tempfile.mkdtemp(prefix="kvfs-sqlite-", dir=args.dir)
    try:
        cost = interface(args, folder)
    finally:
        shutil.rmtree(folder)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump({"schema": "kvfs-bench-sqlite/1",
                       "host": {"machine": platform.machine(), "kernel": platform.release(),
                                "cpus": os.cpu_count()},
                       "settings": {"engine": args.engine, "rounds": args.rounds,
                                    "seconds": args.seconds, "rows": args.rows},
                       "cells": cells, "targets": met, "interface_us": cost}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
