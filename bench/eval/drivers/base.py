"""What every driver is: it opens a store of a peer, visits cells, and closes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from ..cells import Cell, Group
from ..modes import Mode


class Failed(Exception):
    """A visit, or opening a store, did not work; the text says what."""


@dataclass
class Measured:
    """What one visit tells."""
    value: Optional[float]
    extra: Dict[str, Any] = field(default_factory=dict)   # further numbers of the visit
    latency: List[List[float]] = field(default_factory=list)
    declared: Optional[str] = None                        # caps, as the store says
    version: Optional[str] = None
    note: str = ""
    cache: Optional[str] = None                           # if otherwise than the cell says


@dataclass
class Bench:
    """What drivers need to know of the run."""
    build: str
    work: str                 # a folder on the medium that is measured; removed at the end
    mode: Mode
    seed: int
    tuning: Dict[str, Any]

    def program(self, name: str) -> str:
        """Path of a program of the build."""
        return os.path.join(self.build, name)

    def missing(self, group: Group) -> Optional[str]:
        """What a group needs and is not here."""
        for need in group.needs:
            if need == "root":
                if os.geteuid() != 0:
                    return "needs root"
            elif "/" in need:
                if not os.path.exists(self.program(need)):
                    return f"{need} is not built"
            elif not shutil.which(need):
                return f"{need} is not installed"
        return None


class Session:
    """The open store of one peer."""

    def visit(self, cell: Cell, number: int) -> Measured:
        """Measure one cell in round `number`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of all; must not raise."""


class Driver:
    """One way of measuring; an object serves a whole run."""

    def __init__(self, bench: Bench):
        self.bench = bench

    def impossible(self, group: Group) -> Optional[str]:
        """Why nothing of the group can be measured here."""
        return self.bench.missing(group)

    def cell_impossible(self, group: Group, cell: Cell, peer: str) -> Optional[str]:
        """Why this peer cannot run the cell here."""
        del group, cell, peer
        return None

    def open(self, group: Group, peer: str, number: int) -> Session:
        """The store of a peer for round `number`; Failed if that does not work."""
        raise NotImplementedError

    def folder(self, group: Group, peer: str, number: int) -> str:
        """An empty folder for a store, with a path short enough for a socket."""
        name = "".join(c if c.isalnum() else "-" for c in f"{group.name}-{peer}")
        path = os.path.join(self.bench.work, f"{name[:32]}-{number}")
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        return path
