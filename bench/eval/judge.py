"""Ratios of the peers of each cell, group means, and how two evaluations agree."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from . import results, stats
from .results import Json

BASELINES = ("lmdb", "lmdb@kvfs", "stock:wal-full", "same")


def rows_of(data: Json) -> Dict[str, List[Json]]:
    """Entries with values by the name of their cell."""
    rows: Dict[str, List[Json]] = {}
    for entry in data["cells"]:
        if entry["values"]:
            rows.setdefault(entry["name"], []).append(entry)
    return rows


def baseline(entries: List[Json]) -> Json:
    """The peer beside which the others stand."""
    for name in BASELINES:
        for entry in entries:
            if entry["engine"] == name:
                return entry
    return entries[0]


def comparable(first: Json, second: Json) -> bool:
    """A library call and a call of the kernel are different layers: no ratio between them."""
    return first["workload"] != "directories" or first["layer"] == second["layer"]


def ratio(first: Json, second: Json) -> Optional[Json]:
    """first / second by rounds, with verdict; None where there is none."""
    if not comparable(first, second):
        return None
    found = stats.compare(results.by_round(first), results.by_round(second),
                          first["better"] == "higher")
    if found is None:
        return None
    return {"cell": first["name"], "group": first["group"], "engine": first["engine"],
            "beside": second["engine"], **found,
            "weaker": first["durability"]["weaker"] != second["durability"]["weaker"]}


def ratio_of(data: Json, cell: str, first: str, second: str) -> Optional[Json]:
    """The same by names."""
    one, other = results.find(data, cell, first), results.find(data, cell, second)
    return ratio(one, other) if one and other else None


def ratios(data: Json) -> List[Json]:
    """All peers beside the baseline of their cell."""
    found = []
    for entries in rows_of(data).values():
        base = baseline(entries)
        for entry in entries:
            if entry is not base:
                row = ratio(entry, base)
                if row:
                    found.append(row)
    return found


def group_means(data: Json) -> Dict[str, float]:
    """Geometric mean of the ratios of each group."""
    groups: Dict[str, List[float]] = {}
    for row in data["ratios"]:
        groups.setdefault(row["group"], []).append(row["ratio"])
    return {name: mean for name, values in groups.items()
            if (mean := stats.geometric_mean(values)) is not None}


def agreement(first: Json, second: Json) -> Json:
    """How two evaluations agree: intervals that overlap, and the means of groups."""
    def keyed(data: Json) -> Dict[Tuple[str, str, str], Json]:
        return {(r["cell"], r["engine"], r["beside"]): r for r in data["ratios"]}
    one, other = keyed(first), keyed(second)
    both = sorted(set(one) & set(other))
    apart = [key for key in both if not stats.overlap(
        (one[key]["low"], one[key]["high"]), (other[key]["low"], other[key]["high"]))]
    means_one, means_other = group_means(first), group_means(second)
    means = {name: means_other[name] / means_one[name]
             for name in means_one if name in means_other}
    share = 1 - len(apart) / len(both) if both else 0.0
    return {"ratios": len(both), "overlapping": share, "apart": [" ".join(key) for key in apart],
            "group_means": means, "only_in_one": len(set(one) ^ set(other)),
            "agree": bool(both) and share >= 0.9 and all(1 / 1.15 <= m <= 1.15 for m in means.values())}


def finish(data: Json, judges: Any) -> None:
    """Everything that is derived from cells."""
    data["ratios"] = ratios(data)
    for name, judge in judges.items():
        data[name] = judge(data)
