"""What fits: cells, their seconds and the disk they need; what is dropped, by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Sequence, Set, Tuple

from .cells import LOG_BYTES, Cell, Group, space_factor
from .modes import GIB, MIB, Mode

REPORT_SECONDS = 10.0   # figures and report
OVERHEAD = 1.1          # repeated rounds, writing results


@dataclass
class Plan:
    """Groups with the cells that stay, and why the others do not."""
    mode: Mode
    groups: List[Group]
    dropped: List[Dict[str, str]]
    narrowed: List[Dict[str, Any]] = field(default_factory=list)  # cells that not all peers run

    def seconds(self) -> float:
        """Estimated time of all of it."""
        return REPORT_SECONDS + sum(group_seconds(group, self.mode) for group in self.groups)

    def disk_bytes(self) -> int:
        """What has to be free: of the group that needs most."""
        return max([group_bytes(group) for group in self.groups], default=0) + 64 * MIB

    def cells(self) -> List[Tuple[Group, Cell]]:
        """All cells in the order of the run."""
        return [(group, cell) for group in self.groups for cell in group.cells]

    def as_json(self) -> Dict[str, Any]:
        """For results.json."""
        return {"mode": self.mode.name, "seconds": round(self.seconds()),
                "budget_seconds": self.mode.budget_seconds, "disk_bytes": self.disk_bytes(),
                "cells": [{"name": cell.name, "group": group.name, "peers": group.peers_of(cell),
                           "rounds": group.rounds or self.mode.rounds, "seconds": cell.seconds}
                          for group, cell in self.cells()],
                "setup_seconds": {group.name: group.setup_seconds for group in self.groups},
                "dropped": self.dropped, "narrowed": self.narrowed}


def cell_seconds(group: Group, cell: Cell, mode: Mode) -> float:
    """Of all rounds and peers."""
    return OVERHEAD * cell.seconds * len(group.peers_of(cell)) * (group.rounds or mode.rounds)


def group_seconds(group: Group, mode: Mode, setup: bool = True) -> float:
    """With making the stores."""
    if not group.cells:
        return 0.0
    times = 0 if not setup else 1 if group.keep_stores else group.rounds or mode.rounds
    return OVERHEAD * group.setup_seconds * len(group.peers) * times + \
        sum(cell_seconds(group, cell, mode) for cell in group.cells)


def group_bytes(group: Group) -> int:
    """Bytes on the medium at once."""
    if group.driver in ("recovery", "promise", "synthetic"):
        return 0  # in memory
    size = min(int(group.params.get("data_bytes", group.dataset_bytes)), 64 * GIB)
    each = [int(size * space_factor(peer)) + (LOG_BYTES if "log:" in peer else 0)
            for peer in group.peers]
    return sum(each) if group.side_by_side else max(each, default=0)


def narrow(plan: Plan, lacking: Sequence[Tuple[str, List[str]]]) -> None:
    """Note the peers that cells of the plan lack."""
    names = {cell.name for _, cell in plan.cells()}
    plan.narrowed = [{"name": name, "peers": peers, "reason": f"not in the {plan.mode.name} evaluation"}
                     for name, peers in lacking if name in names]


def _only(groups: Sequence[Group], names: Set[str]) -> List[Group]:
    return [replace(group, cells=tuple(c for c in group.cells if c.name in names))
            for group in groups]


def fit(mode: Mode, groups: Sequence[Group], dropped: Sequence[Dict[str, str]] = ()) -> Plan:
    """Take cells in the order of their priority numbers, as far as they fit the budget; a large one
    that does not fit leaves room for those behind it.  Priority 0 always stays."""
    plan = Plan(mode, list(groups), list(dropped))
    if plan.seconds() <= mode.budget_seconds:
        return plan
    order = sorted((cell.priority, place, cell.name)
                   for place, (_, cell) in enumerate(plan.cells()))
    names: Set[str] = set()
    for priority, _, name in order:
        plan.groups = _only(groups, names | {name})
        if priority == 0 or plan.seconds() <= mode.budget_seconds:
            names.add(name)
        else:
            plan.dropped.append({"name": name,
                                 "reason": f"beyond the budget of {mode.budget_seconds:.0f} s"})
    plan.groups = [group for group in _only(groups, names) if group.cells]
    return plan


def duration(seconds: float) -> str:
    """As 1:23:45 or 2:03."""
    whole = max(0, int(seconds + 0.5))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def text(plan: Plan, impossible: Sequence[Dict[str, str]] = ()) -> str:
    """What is printed before anything is measured."""
    lines = [f"{len(plan.cells())} cells, about {duration(plan.seconds())} "
             f"(budget {duration(plan.mode.budget_seconds)}), "
             f"{size(plan.disk_bytes())} of disk", ""]
    for group in plan.groups:
        lines.append(f"  {group.name:20} {duration(group_seconds(group, plan.mode)):>7}  "
                     f"{size(group_bytes(group)):>10}  {group.rounds or plan.mode.rounds} rounds, "
                     f"{len(group.peers)} peers: {', '.join(group.peers)}")
        for cell in group.cells:
            lines.append(f"    {cell.name:48} {cell_seconds(group, cell, plan.mode):6.1f} s")
    lacking: Dict[str, List[str]] = {}
    for row in plan.narrowed:
        lacking.setdefault(", ".join(row["peers"]), []).append(row["name"])
    for peers, names in lacking.items():
        lines.append(f"  without {peers}:")
        lines += [f"    {name}" for name in names]
    for title, rows in (("dropped", plan.dropped), ("not possible here", impossible)):
        reasons: Dict[str, List[str]] = {}
        for row in rows:
            reasons.setdefault(row["reason"], []).append(row["name"])
        for reason, names in reasons.items():
            lines.append(f"  {title}, {reason}:")
            lines += [f"    {name}" for name in names]
    return "\n".join(lines)
