"""How long cells and stores took beside what the plan estimated: what cells.py is corrected by."""

from __future__ import annotations

from statistics import fmean
from typing import Any, Dict, Iterator, List, Tuple


Row = Tuple[str, float, float, int]   # what, planned seconds of one, measured (mean), how many


def rows(data: Dict[str, Any]) -> Iterator[Row]:
    """Of each group the making of a store, and of each cell a visit, with the worst estimates first."""
    found: List[Row] = []
    for group, planned in data["plan"].get("setup_seconds", {}).items():
        took = data.get("setup_seconds", {}).get(group, [])
        if took:
            found.append((f"making a store: {group}", planned, fmean(took), len(took)))
    for cell in data["plan"]["cells"]:
        took = [visit["seconds"] for entry in data["cells"] if entry["name"] == cell["name"]
                for visit in entry["visits"] if visit["value"] is not None]
        if took and "seconds" in cell:
            found.append((cell["name"], cell["seconds"], fmean(took), len(took)))
    yield from sorted(found, key=lambda row: -abs(row[2] - row[1]) * row[3])


def text(data: Dict[str, Any]) -> str:
    """A table for people."""
    lines = [f"{data['elapsed_seconds']:.0f} s, {data['plan']['seconds']} s were planned",
             f"{'':50} {'planned':>9} {'took':>9} {'times':>6} {'more':>9}"]
    for what, planned, took, count in rows(data):
        lines.append(f"{what:50} {planned:9.3f} {took:9.3f} {count:6} {(took - planned) * count:+9.1f}")
    return "\n".join(lines)
