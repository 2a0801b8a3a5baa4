"""The crash simulator: time of the way back after a cut, and what a cut may break."""

from __future__ import annotations

import json
import os
import shutil

from ..cells import Cell, Group
from .base import Bench, Driver, Measured, Session
from .process import run

SPANS = ("attach", "mount", "engine", "kvfs", "read", "write")


class RecoverySession(Session):
    """Nothing is kept between visits: each makes a volume, cuts the power and comes back."""

    def __init__(self, bench: Bench, group: Group, peer: str):
        self.bench, self.group, self.peer = bench, group, peer

    def visit(self, cell: Cell, number: int) -> Measured:
        out = run([self.bench.program("crashsim/crashsim"), "recovery", f"--engines={self.peer}",
                   f"--sizes={self.group.dataset_bytes}", f"--cuts={cell.params['cuts']}",
                   f"--unflushed={min(4 << 20, self.group.dataset_bytes // 4)}",
                   f"--latency={cell.params['latency']}", f"--seed={self.bench.seed + number}",
                   "--json", "--quiet"], 1800)
        found = json.loads(out)["cells"][0]
        crash, clean = found["crash"], found["clean"]
        extra = {f"span_{name}": crash[name]["median_ms"] for name in SPANS if name in crash}
        extra.update(verify=crash["verify"]["median_ms"], cuts=found["cuts"],
                     after_clean_end=clean["total"]["median_ms"])
        return Measured(crash["total"]["median_ms"], extra, note="modelled medium")

    def close(self) -> None:
        """Nothing is open."""


class RecoveryDriver(Driver):
    """crashsim recovery."""

    def open(self, group: Group, peer: str, number: int) -> Session:
        return RecoverySession(self.bench, group, peer)


class PromiseSession(Session):
    """crashsim run: every engine judged as if it promised durability."""

    def __init__(self, bench: Bench, folder: str, peer: str):
        self.bench, self.folder, self.peer = bench, folder, peer

    def visit(self, cell: Cell, number: int) -> Measured:
        out = run([self.bench.program("crashsim/crashsim"), "run", "kvfs", f"--engine={self.peer}",
                   f"--states={cell.params['states']}", "--promise=durable", "--jobs=2",
                   f"--seed={self.bench.seed + number}", "--json", "--quiet",
                   f"--findings={os.path.join(self.folder, 'findings')}"], 1800, statuses=(0, 1))
        found = json.loads(out)[0]
        extra = {key: found[key] for key in ("states", "distinct", "acknowledged", "cuts", "not_judged")
                 if key in found}
        return Measured(found["violations"], extra)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class PromiseDriver(Driver):
    """See PromiseSession."""

    def open(self, group: Group, peer: str, number: int) -> Session:
        return PromiseSession(self.bench, self.folder(group, peer, number), peer)
