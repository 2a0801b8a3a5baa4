#!/usr/bin/env python3
"""The engines beside one another, and each beside its own library driven directly.

    bench/engines.py [--engines=lmdb,sqlite] [--rounds=3] [--out=FILE]
    bench/engines.py --quick          one short round: a look, not a measurement

Every cell is a fresh store: `kvload` (see its top) fills it at random with durable batches
of 64 blocks of 4 KiB, overwrites it, and reads it, at 1, 8 and 64 threads.  In each round every
cell has its turn before the next round begins, so a machine that gets slower does so for all.
Printed are medians.  `adapter` is the rate of durable batches through the engine contract beside
that of a minimal program with the same records, batches and options (bench/direct): above 0.9 is
the aim.  Both write each block once in random order, one after the other in each round.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

BLOCK = 4096
PHASES = ("fill", "overwrite", "read")


def arguments():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0], allow_abbrev=False)
    parser.add_argument("--build", default=os.path.join(here, "..", "build", "release"),
                        help="a release build (default build/release)")
    parser.add_argument("--dir", default="/var/tmp", help="where stores are made (/var/tmp)")
    parser.add_argument("--engines", help="names with commas between (default: all that persist)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=65536, help="of 4 KiB (65536)")
    parser.add_argument("--batch", type=int, default=64, help="blocks of a durable batch (64)")
    parser.add_argument("--threads", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=0.5, help="of reads (0.5)")
    parser.add_argument("--quick", action="store_true", help="one round of 4096 blocks")
    parser.add_argument("--out", help="write every value as JSON")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.blocks, args.seconds = 1, 4096, 0.1
    args.threads = [int(t) for t in args.threads.split(",")]
    return args


def engines_there(args):
    kvfs = os.path.join(args.build, "cli", "kvfs")
    try:
        told = json.loads(subprocess.run([kvfs, "engines", "--json"], check=True,
                                         capture_output=True, text=True).stdout)
    except FileNotFoundError:
        sys.exit(f"engines.py: {kvfs}: not there; "
                 "cmake --preset release && cmake --build --preset release")
    have = {e["name"]: e for e in told}
    names = args.engines.split(",") if args.engines else [
        n for n, e in have.items() if "persistent" in e["caps"]]
    return names, have


def device(folder):
    """The block device below the folder as an option, or none where it has no name."""
    st = os.stat(folder).st_dev
    link = f"/sys/dev/block/{os.major(st)}:{os.minor(st)}"
    return [f"--device=/dev/{os.path.basename(os.path.realpath(link))}"] \
        if os.path.exists(link) else []


def run(command, words=""):
    done = subprocess.run(command, input=words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.splitlines()
    if "not built in" in done.stderr and "--layer=direct" in command:
        return None
    sys.exit(done.stderr.strip())


def measure_rust(args, store, threads, folder):
    program = os.path.join(args.build, "bench", "direct-rust")
    if not os.path.exists(program):
        return None
    lines = run([program, f"--store={store}", f"--blocks={args.blocks}", f"--batch={args.batch}",
                 f"--threads={threads}", f"--dir={folder}"])
    told = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    return {words["phase"]: {"rate": float(words["rate"])} for words in told}


def measure(args, store, engine, threads):
    """One cell: {phase: {name: value}}."""
    folder = tempfile.mkdtemp(prefix="kvfs-engines-", dir=args.dir)
    fill = f"fill flush={args.batch} threads={threads}\n"
    words = f"{fill}{fill}load op=read threads={threads} seconds={args.seconds}\nreopen\nspace\n"
    if store != "contract":
        words = f"{fill}{fill}"
    try:
        if store in ("direct:jammdb", "direct:sled"):
            return measure_rust(args, store, threads, folder)
        lines = run([os.path.join(args.build, "bench", "kvload"), f"--engine={engine}",
                     f"--layer={store.split(':')[0]}", f"--dir={folder}",
                     f"--bytes={args.blocks * BLOCK}", *device(folder)], words)
    finally:
        shutil.rmtree(folder)
    if lines is None:
        return None
    told = [json.loads(line) for line in lines[1:]]
    for phase in told:
        phase.pop("latency_ns", None)
    return dict(zip((*PHASES, "reopen", "space"), told)) if store == "contract" \
        else dict(zip(PHASES, told))


def median(values):
    return statistics.median(values) if values else None


def results(args, cells):
    """Rows of the table: one a (engine, threads), with medians over the rounds."""
    payload = args.blocks * BLOCK
    rows = []
    for (store, engine, threads), rounds in cells.items():
        if store != "contract":
            continue
        row = {"engine": engine, "threads": threads}
        for phase in PHASES:
            row[phase] = median([r[phase]["rate"] for r in rounds])
        row["write_amplification"] = {
            phase: median([(r[phase]["device"] or {"written": 0})["written"] / payload for r in rounds])
            for phase in ("fill", "overwrite")}
        row["space"] = median([r["space"]["allocated_bytes"] / payload for r in rounds])
        row["own_bytes"] = median([max(r[p]["own_bytes_max"] for p in PHASES) for r in rounds])
        direct = cells.get((f"direct:{engine}", engine, threads))
        row["adapter"] = {
            phase: median([c[phase]["rate"] / d[phase]["rate"] for c, d in zip(rounds, direct)])
            for phase in ("fill", "overwrite")} if direct else None
        rows.append(row)
    return rows


def table(rows):
    print("| engine | threads | fill | overwrite | read | write ampl. fill / overwrite "
          "| space | own MiB | adapter fill / overwrite |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        adapter = row["adapter"]
        beside = f"{adapter['fill']:.2f} / {adapter['overwrite']:.2f}" if adapter else "-"
        amplification = row["write_amplification"]
        print(f"| {row['engine']} | {row['threads']} | {row['fill']:.0f} | {row['overwrite']:.0f} "
              f"| {row['read']:.0f} | {amplification['fill']:.2f} / "
              f"{amplification['overwrite']:.2f} | {row['space']:.3f} "
              f"| {row['own_bytes'] / 1048576:.0f} | {beside} |")


def main():
    args = arguments()
    names, have = engines_there(args)
    plan = [(store, engine, threads) for engine in names for threads in args.threads
            for store in ("contract", f"direct:{engine}")]
    cells = {cell: [] for cell in plan}
    for number in range(args.rounds):
        for i, cell in enumerate(plan):
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {args.rounds}, cell {i + 1} of {len(plan)} ",
                      end="", file=sys.stderr, flush=True)
            found = measure(args, *cell)
            if found is None:
                cells.pop(cell, None)
            else:
                cells[cell].append(found)
        plan = [cell for cell in plan if cell in cells]
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rows = results(args, cells)
    print(f"{args.blocks} blocks of 4 KiB, durable batches of {args.batch}, {args.rounds} rounds; "
          "rates are blocks a second\n")
    table(rows)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"machine": {"cpus": os.cpu_count(), "kernel": platform.release(),
                                   "arch": platform.machine()},
                       "blocks": args.blocks, "batch": args.batch, "rounds": args.rounds,
                       "versions": {n: have[n].get("version") for n in names if n in have},
                       "rows": rows,
                       "cells": [{"store": s, "engine": e, "threads": t, "rounds": r}
                                 for (s, e, t), r in cells.items()]}, file, indent=1)


if __name__ == "__main__":
    main()
