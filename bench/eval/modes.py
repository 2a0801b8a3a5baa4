"""How large an evaluation is: quick, full, long, and tiny for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1 << 20
GIB = 1 << 30


FEW, MOST, ALL = 0, 1, 2   # log: before lmdb only; before every engine, but for lesser axes; before all


@dataclass(frozen=True)
class Mode:
    """The numbers in which modes differ."""
    name: str
    budget_seconds: float   # planned cells must fit; what was not planned is dropped by name
    rounds: int
    seconds: float          # the clock of one visit
    warmup: float
    dataset_bytes: int      # of throughput and latency
    resource_bytes: int
    files: int              # of directories
    recovery_bytes: int
    cuts: int               # of one visit of recovery
    states: int             # of the crash simulator, for each engine
    rows: int               # of SQLite
    width: int              # peers: FEW, MOST or ALL
    long: bool = False


QUICK = Mode("quick", 540, 5, 0.12, 0.03, 16 * MIB, 16 * MIB, 500, 32 * MIB, 1, 40, 10000, FEW)
FULL = Mode("full", 6900, 6, 0.8, 0.2, 128 * MIB, 64 * MIB, 10000, 64 * MIB, 3, 300, 50000, MOST)
LONG = Mode("long", 7 * 86400, 7, 2, 0.5, GIB, GIB, 10000, 256 * MIB, 5, 1000, 100000, ALL, True)
TINY = Mode("tiny", 60, 2, 0.02, 0, 2 * MIB, 2 * MIB, 50, 8 * MIB, 1, 4, 500, FEW)

MODES = {mode.name: mode for mode in (QUICK, FULL, LONG, TINY)}


def mode_of(name: str, rounds: int = 0, budget: float = 0) -> Mode:
    """A mode, with other rounds or another budget where they are given."""
    mode = MODES[name]
    if rounds:
        mode = replace(mode, rounds=rounds)
    if budget:
        mode = replace(mode, budget_seconds=budget)
    return mode
