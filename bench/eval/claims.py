"""The study's claims, each judged from cells, and where it is one of structure from a source line.

A claim with an absolute figure is judged by ratio; the figure itself is "not measurable here".
A claim of structure needs both a line of the source and a cell.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import judge, results, sources, stats
from .results import Json

CONFIRMED, REFUTED, UNKNOWN = "confirmed", "refuted", "not measurable here"

WRITE64, READ64 = "contract.write.random.4k.t64.f64", "contract.read.random.4k.t64"
READ1, READ4 = "contract.read.random.4k.t1", "contract.read.random.4k.t4"
RECOVER, PROMISE, ZIPF = "recovery.total.nvme", "promise.violations", "kvfs.ycsb-b.zipfian.4k.t4.f64"
INTERFACE, SPACE = "interface.commit", "resources.small"
WARM_READ = "kvfs.read.random.4k.t4"


def row(claim: str, verdict: str, why: str, cells: Sequence[str],
        cites: Sequence[str] = ()) -> Json:
    """One line of the table."""
    return {"claim": claim, "verdict": verdict, "why": why, "cells": list(cells),
            "sources": sources.cited(list(cites))}


def shown(ratio: Json) -> str:
    """A ratio with its interval."""
    return (f"{ratio['engine']} / {ratio['beside']} = {ratio['ratio']:.2f} "
            f"[{ratio['low']:.2f}, {ratio['high']:.2f}] in {ratio['cell']}")


def at_least(ratio: Optional[Json], limit: float, cell: str) -> Tuple[str, str]:
    """Is the ratio at least `limit`?  The interval decides."""
    if ratio is None:
        return UNKNOWN, f"{cell} was not measured for both"
    if ratio["rounds"] < stats.ROUNDS_MIN:
        return UNKNOWN, f"{shown(ratio)}: too few rounds"
    if ratio["high"] < limit:
        return REFUTED, shown(ratio)
    if ratio["low"] >= limit or (ratio["low"] > 1 and ratio["ratio"] >= limit):
        return CONFIRMED, shown(ratio)
    return UNKNOWN, f"{shown(ratio)}: the interval is too wide to tell"


def inverse(ratio: Optional[Json]) -> Optional[Json]:
    """The other way round, for values where less is better."""
    if ratio is None:
        return None
    return {**ratio, "engine": ratio["beside"], "beside": ratio["engine"],
            "ratio": 1 / ratio["ratio"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}


def concurrent_writes(data: Json) -> List[Json]:
    """JammDB beside Sled at 64 threads."""
    found = judge.ratio_of(data, WRITE64, "jammdb", "sled")
    verdict, why = at_least(found, 1.35, WRITE64)
    if verdict == CONFIRMED and found and found["low"] > 1.38:
        why += "; more than the 38 % of the claim"
    rate = results.find(data, WRITE64, "jammdb")
    text = f"here {rate['median']:.0f} ops/s; another machine, another medium" \
        if rate and rate["median"] else "an absolute figure of another machine"
    return [row("JammDB is 35 to 38 % faster than Sled in concurrent writes at 64 threads", verdict,
                why, [WRITE64]),
            row("JammDB reaches 12K ops/s there", UNKNOWN, text, [WRITE64])]


def scaling(data: Json, engine: str) -> Optional[Json]:
    """Reads at 64 threads beside reads at 1, by rounds."""
    many, one = results.find(data, READ64, engine), results.find(data, READ1, engine)
    if not many or not one:
        return None
    found = stats.compare(results.by_round(many), results.by_round(one))
    return {**found, "engine": f"{engine} at 64 threads", "beside": "1 thread",
            "cell": READ64} if found else None


def lock_free(data: Json) -> List[Json]:
    """JammDB's readers."""
    found = scaling(data, "jammdb")
    cites = ["jammdb-read-locks", "jammdb-open-readers"]
    claim = "JammDB's reads scale because it is lock-free"
    if found is None:
        return [row(claim, UNKNOWN, "reads at 1 and 64 threads were not both measured; the source "
                    "takes locks in each read transaction", [READ1, READ64], cites)]
    cpus = data["machine"].get("cpus", 1)
    why = f"{shown(found)} on {cpus} CPUs; it is not lock-free: each read transaction takes mutexes"
    return [row(claim, REFUTED, why, [READ1, READ64], cites)]


def recovery(data: Json) -> List[Json]:
    """Sled beside JammDB after a cut."""
    found = inverse(judge.ratio_of(data, RECOVER, "sled", "jammdb"))
    verdict, why = at_least(found, 2.0, RECOVER)
    if found:
        why = f"time of {why}"
    return [row("Sled recovers twice as fast thanks to its CRC", verdict, why, [RECOVER],
                ["sled-crc", "jammdb-meta-hash"]),
            best("Sled for recovery", data, RECOVER, "sled")]


def best(claim: str, data: Json, cell: str, engine: str) -> Json:
    """Is one engine at least as good as every other?"""
    mine = results.find(data, cell, engine)
    others = [e for e in judge.rows_of(data).get(cell, []) if e["engine"] != engine
              and ":" not in e["engine"] and e["layer"] != "raw"]
    if not mine or not mine["values"] or not others:
        return row(claim, UNKNOWN, f"{cell} was not measured for {engine} and others", [cell])
    found = [r for r in (judge.ratio(mine, other) for other in others) if r]
    worse = [r for r in found if r["verdict"] == stats.SLOWER]
    if worse:
        return row(claim, REFUTED, "; ".join(shown(r) for r in worse), [cell])
    if found and all(r["verdict"] == stats.FASTER for r in found):
        return row(claim, CONFIRMED, "; ".join(shown(r) for r in found), [cell])
    return row(claim, UNKNOWN, "no difference shown to " + ", ".join(
        r["beside"] for r in found if r["verdict"] != stats.FASTER), [cell])


def cache(data: Json) -> List[Json]:
    """Sled's cache, by its source; the cell shows that cache at work."""
    cell = next((c for c in (ZIPF, WARM_READ, READ4) if (e := results.find(data, c, "sled"))
                 and e["values"]), None)
    claim = "Sled's cache is ARC"
    if cell is None:
        return [row(claim, UNKNOWN, "no cell of sled's reads; the source says LRU", [WARM_READ],
                    ["sled-lru"])]
    entry = results.find(data, cell, "sled")
    assert entry
    return [row(claim, REFUTED, f"it is an LRU in shards; with it {entry['median']:.0f} "
                f"{entry['unit']} in {cell}", [cell], ["sled-lru"])]


def layer_cost(data: Json) -> List[Json]:
    """What libkvfs and the VFS add to the engine's own commit, in percent."""
    rows = []
    entry = results.find(data, INTERFACE, "log:lmdb") or results.find(data, INTERFACE, "lmdb")
    for limit in (10, 12, 15):
        claim = f"the SQLite layer costs under {limit} %"
        if not entry or len(entry["values"]) < stats.ROUNDS_MIN:
            rows.append(row(claim, UNKNOWN, f"{INTERFACE} was not measured", [INTERFACE]))
            continue
        costs = [100 * (v["vfs"] / v["engine_us"] - 1) for v in entry["visits"]
                 if not v["rejected"] and v["value"] is not None]
        low, high = stats.interval(costs)
        verdict = CONFIRMED if high < limit else REFUTED if low >= limit else UNKNOWN
        rows.append(row(claim, verdict, f"a commit through the VFS takes {stats.median(costs):.1f} % "
                        f"[{low:.1f}, {high:.1f}] more than the engine alone ({entry['engine']})",
                        [INTERFACE]))
    return rows


def compaction(data: Json) -> List[Json]:
    """Does a copy-on-write tree grow without end?"""
    claim = "an immutable B+tree needs compaction"
    cites = ["jammdb-pages-reused"]
    entry = results.find(data, SPACE, "jammdb")
    kept = [v for v in (entry["visits"] if entry else [])
            if not v["rejected"] and v.get("space_overwrite") and v.get("space_fill")]
    if not kept:
        return [row(claim, UNKNOWN, f"{SPACE} was not measured for jammdb; the source reuses pages",
                    [SPACE], cites)]
    growth = stats.median([v["space_overwrite"] / v["space_fill"] for v in kept]) or 0
    why = f"after each block was overwritten its store takes {growth:.2f} times what it took when full"
    if growth < 1.5:
        return [row(claim, REFUTED, why + "; it reuses pages", [SPACE], cites)]
    return [row(claim, UNKNOWN, why + "; one overwrite does not tell where it ends", [SPACE], cites)]


def keeps(data: Json) -> List[Json]:
    """Is what was acknowledged there after a cut?"""
    rows = []
    for engine, cites in (("jammdb", ["jammdb-one-sync"]), ("sled", ["sled-sync-file-range"])):
        entry = results.find(data, PROMISE, engine)
        name = {"jammdb": "JammDB", "sled": "Sled"}[engine]
        claim = f"{name} keeps what it acknowledged"
        if not entry or entry["median"] is None:
            rows.append(row(claim, UNKNOWN, f"{PROMISE} was not measured", [PROMISE], cites))
            continue
        states = sum(v.get("states", 0) for v in entry["visits"])
        if entry["median"] > 0:
            rows.append(row(claim, REFUTED, f"{entry['median']:.0f} violations in {states} crash "
                            "states", [PROMISE], cites))
        else:
            rows.append(row(claim, UNKNOWN, f"no violation in {states} crash states, which is no "
                            "proof; it does not promise to: see the source", [PROMISE], cites))
    return rows


JUDGES: Tuple[Callable[[Json], List[Json]], ...] = (
    concurrent_writes, lock_free, recovery, cache, layer_cost, compaction,
    lambda data: [best("JammDB for many readers", data, READ64, "jammdb")], keeps)


def judge_all(data: Json) -> List[Json]:
    """The table."""
    return [line for judged in JUDGES for line in judged(data)]


USES: Tuple[Tuple[str, str, str], ...] = (
    ("a disk or database with frequent flushes", "kvfs.write.random.4k.t4.f64", "durable"),
    ("every write flushed", "kvfs.write.random.4k.t4.f1", "durable"),
    ("many threads that write", "kvfs.write.random.4k.t64.f64", "durable"),
    ("reads, warm", "kvfs.read.random.4k.t4", ""),
    ("many readers", "kvfs.read.random.4k.t64", ""),
    ("reads, cold", "kvfs.read.random.4k.t4.cold", ""),
    ("read and update mixed (YCSB A)", "kvfs.ycsb-a.zipfian.4k.t4.f64", "durable"),
    ("short waits under load (p99 at 70 %)", "open-loop.write.random.4k.t4.f64", "durable"),
    ("back soon after a power cut", "recovery.total.nvme", "durable"),
    ("SQLite, commits", "sqlite.commit", "durable"),
    ("a disk over NBD", "nbd.write.random.4k.q1.f64", "durable"),
    ("little written to the medium (SD card)", "resources.small", "durable"),
    ("an SD card (modelled)", "preset-sd.write.random.4k.t4.f64", "durable"),
)


def is_engine(entry: Json) -> bool:
    """One of ours, not a file or another server."""
    name = entry["engine"].replace("vfs:", "")
    return "@" not in name and "(again)" not in name and \
        not name.startswith(("raw", "stock", "nbdkit", "qcow2", "ext4"))


def decide(use: str, cell: str, needs: str, entries: List[Json]) -> Json:
    """The best engine for a use, and those from which it cannot be told apart."""
    found = [e for e in entries if is_engine(e) and e["median"] is not None
             and not (needs and e["durability"]["weaker"])]
    weaker = [e["engine"] for e in entries if is_engine(e) and needs and e["durability"]["weaker"]]
    if not found:
        return {"use": use, "engine": None, "equal": [], "cell": cell, "excluded": weaker,
                "why": "not measured"}
    higher = found[0]["better"] == "higher"
    first = sorted(found, key=lambda e: e["median"], reverse=higher)[0]
    equal, behind = [], []
    for entry in found:
        ratio = judge.ratio(first, entry) if entry is not first else None
        if ratio:
            (behind if ratio["verdict"] == stats.FASTER else equal).append(ratio)
    few = any(r["verdict"] == stats.UNKNOWN for r in equal)
    why = "; ".join(f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}] x {r['beside']}"
                    for r in sorted(behind, key=lambda r: r["ratio"], reverse=not higher)[:3])
    return {"use": use, "engine": first["engine"], "equal": [r["beside"] for r in equal],
            "cell": cell, "excluded": weaker, "value": first["median"], "unit": first["unit"],
            "why": why or (stats.UNKNOWN if few else stats.SAME)}


def decide_all(data: Json) -> List[Json]:
    """The decision table."""
    rows = judge.rows_of(data)
    return [decide(use, cell, needs, rows.get(cell, [])) for use, cell, needs in USES]


TABLES: Dict[str, Callable[[Json], Any]] = {"claims": judge_all, "decisions": decide_all}
