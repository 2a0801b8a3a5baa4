#!/usr/bin/env python3
"""Numbers of bench/nbd.sh: medians, ratios, the table and the JSON.

    report.py fio FILE iops|bytes     the rate in fio's JSON output
    report.py used BYTES              `kvfs df --json` on stdin: used bytes as a ratio of BYTES
    report.py report VALUES [...]     the table, and JSON with --out=FILE
    report.py check FILE              that JSON is complete: every peer has every cell
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

PEERS = ("memory", "file", "qcow2", "lmdb", "kvfs")

MEMORY = 32 << 20  # bytes beyond the cache

# What the project wants of itself: cell, beside which peer (None: the value itself), limit.
TARGETS = (
    ("random read, qd1", "randread_qd1", "memory", ">=", 0.8),
    ("random read, qd32", "randread_qd32", "memory", ">=", 0.8),
    ("random read, 4 connections", "randread_4conn", "memory", ">=", 0.8),
    ("random write absorbed, bursts", "burst_acked", "memory", ">=", 0.8),
    ("random write absorbed, hot blocks", "hot_flushed", "memory", ">=", 0.8),
    ("random write sustained", "sustained_flushed", "memory", ">=", 0.6),
    ("each write flushed (FUA), qd1", "randwrite_qd1_fua", "file", ">=", 0.8),
    ("flush every 64, qd1", "randwrite_qd1_flush64", "file", ">=", 1.5),
    ("flush every 64, qd32", "randwrite_qd32_flush64", "file", ">=", 1.5),
    ("flush every 64, qd32", "randwrite_qd32_flush64", "qcow2", ">=", 2),
    ("flush every 64, 4 connections", "randwrite_4conn_flush64", "file", ">=", 1.5),
    ("flush every 64, qd32, for long", "randwrite_long_flush64", "file", ">=", 1.5),
    ("random write, no flush, qd32", "randwrite_qd32_noflush", "lmdb", ">=", 1),
    ("random read, qd32", "randread_qd32", "lmdb", ">=", 1),
    ("sequential write, one flush", "sequential_write", "file", ">=", 0.7),
    ("sequential read", "sequential_read", "file", ">=", 0.8),
    ("space after a random fill", "space_after_fill", None, "<=", 1.05),
    ("space after a random overwrite", "space_after_overwrite", None, "<=", 1.15),
    ("own memory, random writes", "memory_own_max", None, "<=", MEMORY),
    ("own memory, sequential writes", "memory_sequential_own_max", None, "<=", MEMORY),
)

NOT_OF_EVERY_PEER = {"space_used_after_fill": ("lmdb", "kvfs"),
                     "space_used_after_overwrite": ("lmdb", "kvfs")}
NOT_OF_MEMORY = ("space_after_fill", "space_after_overwrite")


def fio_rate(path, unit):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    # Notes of fio may stand before the JSON.
    jobs = json.loads(text[text.index("{"):])["jobs"]
    key = "iops" if unit == "iops" else "bw_bytes"
    if any(job["error"] for job in jobs):
        sys.exit("report.py: fio reports an error")
    return sum(job["read"][key] + job["write"][key] for job in jobs)


def used_ratio(text, total):
    """Used bytes, wherever `kvfs df --json` keeps them."""

    def find(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("used_bytes", "used") and isinstance(value, (int, float)):
                    return value
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                found = find(item)
                if found is not None:
                    return found
        return None

    used = find(json.loads(text))
    if used is None:
        sys.exit("report.py: kvfs df --json tells no used bytes")
    return used / total


def read_values(path):
    """{cell: {unit, peers: {peer: {values, median}}}} in the order of the file."""
    cells = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            _, peer, name, unit, value = line.rstrip("\n").split("\t")
            cell = cells.setdefault(name, {"unit": unit, "peers": {}})
            cell["peers"].setdefault(peer, {"values": []})["values"].append(float(value))
    for cell in cells.values():
        for peer in cell["peers"].values():
            peer["median"] = statistics.median(peer["values"])
        if "kvfs" in cell["peers"] and not cell["unit"] == "ratio":
            mine = cell["peers"]["kvfs"]["median"]
            cell["ratios"] = {
                name: mine / peer["median"]
                for name, peer in cell["peers"].items()
                if name != "kvfs" and peer["median"] > 0
            }
    return cells


def judge(cells, cache):
    results = []
    for name, cell, peer, relation, limit in TARGETS:
        data = cells.get(cell, {"peers": {}})["peers"]
        if "kvfs" not in data or (peer and peer not in data):
            continue
        value = data["kvfs"]["median"]
        if peer:
            value = value / data[peer]["median"]
        elif limit == MEMORY:
            limit += cache
        met = value >= limit if relation == ">=" else value <= limit
        results.append({"name": name, "cell": cell, "peer": peer, "value": value,
                        "relation": relation, "limit": limit, "met": met})
    return results


def shown(value, unit):
    if unit == "ratio":
        return f"{value:.3f}"
    if unit == "bytes":
        return f"{value / (1 << 20):,.1f} Mi"
    return f"{value:,.0f}"


def table(cells):
    print(f"{'':28}" + "".join(f"{peer:>14}" for peer in PEERS) +
          "".join(f"{'/' + peer:>9}" for peer in PEERS[:-1]))
    for name, cell in cells.items():
        row = f"{name:28}"
        for peer in PEERS:
            data = cell["peers"].get(peer)
            row += f"{shown(data['median'], cell['unit']) if data else '-':>14}"
        for peer in PEERS[:-1]:
            ratio = cell.get("ratios", {}).get(peer)
            row += f"{ratio:9.2f}" if ratio is not None else f"{'-':>9}"
        print(row)


def table_targets(targets):
    print("\nto reach")
    for t in targets:
        beside = f"x {t['peer']}" if t["peer"] else ""
        if t["cell"].startswith("memory"):
            value, limit = (shown(t[key], "bytes") for key in ("value", "limit"))
        else:
            value, limit = f"{t['value']:.2f}", f"{t['limit']:g}"
        print(f"  {'ok    ' if t['met'] else 'MISSED'} {t['name']:36} {value:>9} "
              f"{t['relation']} {limit} {beside}")


def version(*command):
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return run.stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def host():
    model = None
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                model = line.split(":", 1)[1].strip()
                break
    return {"machine": platform.machine(), "kernel": platform.release(), "cpu": model,
            "cpus": os.cpu_count(), "nbdkit": version("nbdkit", "--version"),
            "fio": version("fio", "--version"), "qemu": version("qemu-nbd", "--version")}


def report(options):
    cells = read_values(options.values)
    result = {
        "schema": "kvfs-bench-nbd/1",
        "host": host(),
        "settings": dict(setting.split("=", 1) for setting in options.setting),
        "cells": cells,
        "targets": judge(cells, options.cache),
    }
    table(cells)
    table_targets(result["targets"])
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


def check(path):
    """All cells of a whole run are there, with as many values as rounds."""
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    rounds = int(result["settings"]["rounds"])
    wrong = []
    for name in {target[1] for target in TARGETS} - set(result["cells"]):
        wrong.append(f"{name}: missing")
    if len(result["targets"]) != len(TARGETS):
        wrong.append("not every target is judged")
    for name, cell in result["cells"].items():
        peers = NOT_OF_EVERY_PEER.get(name, PEERS[1:] if name in NOT_OF_MEMORY else PEERS)
        for peer in peers:
            values = cell["peers"].get(peer, {}).get("values", [])
            # Only the pages of a file may be none at all.
            if len(values) != rounds or any(value <= 0 for value in values):
                wrong.append(f"{name}, {peer}: {values}")
    if wrong:
        sys.exit("report.py: " + "; ".join(wrong))
    print(f"{len(result['cells'])} cells are complete")


def main():
    parser = argparse.ArgumentParser(description="Numbers of bench/nbd.sh.")
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("fio")
    sub.add_argument("file")
    sub.add_argument("unit", choices=("iops", "bytes"))
    sub = commands.add_parser("used")
    sub.add_argument("bytes", type=int)
    sub = commands.add_parser("check")
    sub.add_argument("file")
    sub = commands.add_parser("report")
    sub.add_argument("values")
    sub.add_argument("--out")
    sub.add_argument("--cache", type=int, required=True)
    sub.add_argument("--setting", action="append", default=[])
    options = parser.parse_args()
    if options.command == "fio":
        print(f"{fio_rate(options.file, options.unit):.1f}")
    elif options.command == "used":
        print(f"{used_ratio(sys.stdin.read(), options.bytes):.4f}")
    elif options.command == "check":
        check(options.file)
    else:
        report(options)


if __name__ == "__main__":
    main()
