#!/usr/bin/env python3
"""The intent log beside the least that a durable write can cost, and beside the plain engine.

    bench/log.py [--engine=lmdb] [--rounds=3] [--writes=40000] [--out=FILE]

Every cell is a fresh store or file (bench/log/logload.c says what it does).  The limit is pwrite()
of 4 KiB and fdatasync() on a preallocated file, in the same round.  For p99.9 it is the same while
another process writes what the folds wrote, in pieces of their size.  Printed are medians of the
rounds; ratios are taken within a round.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

PIECE = 128 << 10  # of a fold


def arguments():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0], allow_abbrev=False)
    parser.add_argument("--build", default=os.path.join(here, "..", "build", "release"),
                        help="a release build (default build/release)")
    parser.add_argument("--dir", default="/var/tmp", help="where stores are made (/var/tmp)")
    parser.add_argument("--engine", default="lmdb")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writes", type=int, default=40000, help="of 4 KiB, in each cell (40000)")
    parser.add_argument("--out", help="write every value as JSON")
    return parser.parse_args()


def load(args, **options):
    folder = tempfile.mkdtemp(prefix="kvfs-log-", dir=args.dir)
    command = [os.path.join(args.build, "bench", "logload"), f"--dir={folder}"]
    command += [f"--{name}={value}" for name, value in options.items()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"log.py: {command[0]}: not there; "
                 "cmake --preset release && cmake --build --preset release")
    finally:
        shutil.rmtree(folder)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    return {name: float(value)
            for name, value in (word.split("=", 1) for word in done.stdout.split())}


def one_round(args):
    log, plain, writes = f"log:{args.engine}", args.engine, args.writes
    cells = {"limit": load(args, store="file", writes=writes),
             "log": load(args, engine=log, writes=writes),
             "plain": load(args, engine=plain, writes=writes // 4),
             "log 64": load(args, engine=log, threads=64, writes=4 * writes),
             "plain 64": load(args, engine=plain, threads=64, writes=writes // 4),
             "log hot": load(args, engine=log, blocks=256, writes=writes),
             "log hot 64": load(args, engine=log, blocks=256, threads=64, writes=4 * writes),
             "plain hot": load(args, engine=plain, blocks=256, writes=writes // 4)}
    one = cells["log"]
    folded = max(one["written"] - 8192 * one["writes"], PIECE) / one["seconds"]
    cells["limit beside"] = load(args, store="file", writes=writes, beside=int(folded),
                                 piece=PIECE)
    return cells


def figures(cells):
    def per_byte(cell):
        return cells[cell]["written"] / cells[cell]["writes"] / 4096

    return {
        "one thread, of the limit": cells["log"]["rate"] / cells["limit"]["rate"],
        "one thread, of the plain engine": cells["log"]["rate"] / cells["plain"]["rate"],
        "64 threads, of one": cells["log 64"]["rate"] / cells["log"]["rate"],
        "64 threads, of one, hot blocks": cells["log hot 64"]["rate"] / cells["log hot"]["rate"],
        "64 threads, of the plain engine": cells["log 64"]["rate"] / cells["plain 64"]["rate"],
        "p99.9, of the limit beside such writes":
            cells["log"]["p999_us"] / cells["limit beside"]["p999_us"],
        "bytes written a byte, log": per_byte("log"),
        "bytes written a byte, plain": per_byte("plain"),
        "bytes written a byte, limit": per_byte("limit"),
        "bytes written a byte, hot blocks, log": per_byte("log hot"),
        "bytes written a byte, hot blocks, plain": per_byte("plain hot"),
        "own MiB over plain, 64 threads":
            (cells["log 64"]["own"] - cells["plain 64"]["own"]) / 1048576,
    }


def main():
    args = arguments()
    rounds = []
    for number in range(args.rounds):
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {args.rounds} ", end="", file=sys.stderr, flush=True)
        rounds.append(one_round(args))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"log:{args.engine}, {args.writes} durable writes of 4 KiB, {args.rounds} rounds\n")
    print("| | rate | p50 us | p99 us | p99.9 us | longest us |\n|---|---|---|---|---|---|")
    for cell in rounds[0]:
        row = [statistics.median(r[cell][name] for r in rounds)
               for name in ("rate", "p50_us", "p99_us", "p999_us", "max_us")]
        print(f"| {cell} | " + " | ".join(f"{value:.0f}" for value in row) + " |")
    print("\n| figure | |\n|---|---|")
    taken = [figures(r) for r in rounds]
    for name in taken[0]:
        print(f"| {name} | {statistics.median(t[name] for t in taken):.2f} |")
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"engine": args.engine, "writes": args.writes, "rounds": rounds,
                       "figures": taken}, file, indent=1)


if __name__ == "__main__":
    main()
