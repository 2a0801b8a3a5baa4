"""A driver that measures nothing: values with noise, for the self-test and tests.

Peers are `same`, `same2` (equal), `slow` (20 % slower), `broken` (always fails).  Latencies of
`same` are 1..1000 us evenly, so their percentiles are known.
"""

from __future__ import annotations

import random
import time

from ..cells import Cell, Group
from ..modes import Mode
from .base import Driver, Failed, Measured, Session

FACTOR = {"same": 1.0, "same2": 1.0, "slow": 1 / 1.2}


class SyntheticSession(Session):
    """Draws values: noise of 3 % of the visit over drift of 20 % of the round."""

    def __init__(self, group: Group, peer: str, seed: int):
        self.group, self.peer, self.seed = group, peer, seed

    def visit(self, cell: Cell, number: int) -> Measured:
        time.sleep(float(cell.params.get("sleep", 0)))
        if self.peer == "broken":
            raise Failed("synthetic: planted failure")
        drift = random.Random(f"{self.seed} {cell.name} {number}").uniform(0.8, 1.2)
        noise = random.Random(f"{self.seed} {cell.name} {number} {self.peer}").gauss(1, 0.03)
        value = 10000 * drift * noise * FACTOR[self.peer]
        return Measured(value, {"p50": 500e3, "p99": 990e3},
                        [[1000.0 * (i + 1), 1] for i in range(1000)], "durable", "1")


class SyntheticDriver(Driver):
    """See the top of the file."""

    def open(self, group: Group, peer: str, number: int) -> Session:
        return SyntheticSession(group, peer, self.bench.seed)


def group(mode: Mode, cells: int = 8, sleep: float = 0, peers: tuple = ("same", "same2", "slow")) -> Group:
    """Cells of this driver."""
    return Group("synthetic", "synthetic", "throughput", "none", 0, peers, 0.0, tuple(
        Cell(f"synthetic.{n}", {"sleep": sleep}, n, sleep, promised="durable")
        for n in range(cells)), rounds=mode.rounds)
