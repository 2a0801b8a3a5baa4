"""The entries of results.json for a plan: one a cell and peer, and how visits get into them."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence

from . import stats
from .cells import RECOVERY, Cell, Group, engine_base, peer_engine, peer_layer
from .drivers import Measured
from .results import Json
from .tuning import params_of

BUCKETS_A_DECADE = 20   # of the histograms that are kept: 12 %
# What peers that are no engine of ours promise for an acknowledged write with its flush.
DECLARED = {"raw": "ordered,durable", "nbdkit-memory": "", "nbdkit-file": "ordered,durable",
            "qcow2": "ordered,durable", "ext4": "ordered,durable", "ext4-on-kvfs": "ordered,durable",
            "same": "durable", "same2": "durable", "slow": "durable", "broken": "durable",
            "stock:delete-full": "ordered,durable", "stock:wal-full": "ordered,durable",
            "stock:delete-normal": "ordered", "stock:wal-normal": "ordered"}


def declared_of(peer: str, engines: Sequence[Json]) -> str:
    """Caps of a peer as words with commas."""
    name = peer_engine(peer)
    if name in DECLARED:
        return DECLARED[name]
    for engine in engines:
        if engine["name"] in (name, engine_base(name)):
            return ",".join(c for c in engine["caps"] if c in ("ordered", "durable"))
    return ""


def durability(cell: Cell, declared: str) -> Json:
    """What the label says, what the store says, and whether that is less."""
    words = declared.split(",")
    weaker = cell.promised in ("durable", "ordered") and cell.promised not in words
    return {"promised": cell.promised, "declared": declared or "nothing", "weaker": weaker}


def engine_params(group: Group, peer: str, common: Json) -> str:
    """What the peer's engine is opened with; the crash simulator opens it as built."""
    return "" if group.workload == RECOVERY else params_of(common.get("tuning", {}), peer_engine(peer))


def new_entry(group: Group, cell: Cell, peer: str, common: Json, engines: Sequence[Json]) -> Json:
    """An entry without visits."""
    version = next((e["version"] for e in engines if e["name"] == peer_engine(peer)), None)
    return {"name": cell.name, "group": group.name, "workload": group.workload,
            "layer": peer_layer(peer, group.layer), "engine": peer,
            "params": {**group.params, **cell.params, "engine_params": engine_params(group, peer, common)}, "unit": cell.unit, "better": cell.better,
            "values": [], "median": None,
            "durability": durability(cell, declared_of(peer, engines)), "cache": cell.cache,
            "dataset_bytes": int(group.params.get("data_bytes", group.dataset_bytes)),
            "seed": common["seed"], "git_commit": common["git_commit"],
            "compiler_flags": common["compiler_flags"],
            "versions": {peer_engine(peer): version} if version else {},
            "status": "not run", "reason": "not reached", "noisy_rounds": 0,
            "latency_histogram": [], "visits": []}


def visit_of(number: int, order: int, start: float, seconds: float, steal: float,
             found: Optional[Measured], error: str = "") -> Json:
    """The record of a visit; one that failed has no value."""
    visit: Dict[str, Any] = {"round": number, "order": order, "start": round(start, 3),
                             "seconds": round(seconds, 4), "steal": round(steal, 4),
                             "value": found.value if found else None, "rejected": False}
    if found:
        visit.update({key: value for key, value in found.extra.items() if key not in visit})
    if error:
        visit["error"] = error
    return visit


def coarse(histogram: List[List[float]]) -> List[List[float]]:
    """Fewer buckets, so that the file stays small."""
    def upper(bound: float) -> float:
        if bound <= 0:
            return 0.0
        return round(10 ** (math.ceil(BUCKETS_A_DECADE * math.log10(bound) - 1e-9) / BUCKETS_A_DECADE))
    return stats.histogram_merge([[upper(bound), count]] for bound, count in histogram)


def accept(entry: Json, visit: Json, found: Optional[Measured], cell: Cell) -> None:
    """Put a visit into its entry."""
    entry["visits"].append(visit)
    if found:
        latency = coarse(found.latency)
        if visit.get("noisy"):
            visit["latency_histogram"] = latency  # it may have to go again
        entry["latency_histogram"] = stats.histogram_merge([entry["latency_histogram"], latency])
        if found.declared is not None:
            entry["durability"] = durability(cell, found.declared)
        if found.version:
            entry["versions"] = {peer_engine(entry["engine"]): found.version}
        if found.cache:
            entry["cache"] = found.cache
        if found.note:
            entry["note"] = found.note
    refresh(entry)


def reject(entry: Json, visit: Json) -> None:
    """Take a noisy visit back: it is kept as a record, and counts nowhere."""
    visit["rejected"] = True
    entry["noisy_rounds"] -= 1
    entry["latency_histogram"] = stats.histogram_without(
        entry["latency_histogram"], visit.pop("latency_histogram", []))
    refresh(entry)


def refresh(entry: Json) -> None:
    """What is derived from visits."""
    kept = [v for v in entry["visits"] if not v["rejected"]]
    entry["values"] = [v["value"] for v in kept if v["value"] is not None]
    entry["median"] = stats.median(entry["values"])
    failures = [v.get("error", "no value") for v in kept if v["value"] is None]
    entry["failures"] = len(failures)
    if failures:
        entry["reason"] = failures[-1]
        entry["status"] = "partial" if entry["values"] else "failed"
    elif kept:
        entry["status"], entry["reason"] = "partial", "interrupted"


def close(entry: Json, rounds: int) -> None:
    """After the last round: is it all there?"""
    if entry["status"] == "partial" and len(entry["values"]) >= rounds:
        entry["status"], entry["reason"] = "measured", ""


def has_round(entry: Json, number: int) -> bool:
    """Whether a kept visit of the round is there, also a failed one."""
    return any(v["round"] == number and not v["rejected"] for v in entry["visits"])
