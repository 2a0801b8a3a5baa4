"""The evaluation judges itself, with values whose truth is known.

Two equal engines must show no difference, a planted slowdown of 20 % must be found, known timings
must come out of the statistics as known results.
"""

from __future__ import annotations

import os
import tempfile
from typing import Callable, List, Sequence, Tuple

from . import judge, modes, results, stats
from .drivers import Bench, synthetic
from .plan import Plan
from .run import Progress, Runner, prepare

COMMON = {"seed": 1, "git_commit": "none", "compiler_flags": "none"}


class Wrong(Exception):
    """A check failed."""


def must(condition: bool, text: str) -> None:
    """A check."""
    if not condition:
        raise Wrong(text)


class Quiet:
    """No steal."""

    def mark(self) -> None:
        """Nothing to note."""

    def share(self) -> float:
        """None of it."""
        return 0.0


def synthetic_run(seed: int, cells: int = 8, rounds: int = 6) -> results.Json:
    """A run of the synthetic driver through all of the machinery."""
    mode = modes.mode_of("tiny", rounds)
    plan = Plan(mode, [synthetic.group(mode, cells)], [])
    data = results.empty({}, {"mode": "tiny"}, plan.as_json(), [])
    prepare(plan, data, {**COMMON, "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        Runner(plan, Bench(folder, folder, mode, seed, {}), data, os.path.join(folder, "results.json"),
               Progress(lambda text: None, False), Quiet()).run()  # type: ignore[arg-type]
    judge.finish(data, {})
    must(not results.problems(data), f"results have a problem: {results.problems(data)[:1]}")
    return data


def verdicts(data: results.Json, engine: str) -> List[str]:
    """Of one peer in all cells."""
    return [row["verdict"] for row in data["ratios"] if row["engine"] == engine]


def check_equal() -> str:
    """Two equal engines."""
    found = [v for seed in range(1, 11) for v in verdicts(synthetic_run(seed), "same2")]
    wrong = sum(v != stats.SAME for v in found)
    must(wrong <= 0.1 * len(found), f"{wrong} of {len(found)} cells say that equal engines differ")
    means = judge.group_means(synthetic_run(1))
    must(0.9 < means["synthetic"] < 1.1, f"geometric mean {means}")
    return f"equal engines: no difference in {len(found) - wrong} of {len(found)} cells"


def check_slow() -> str:
    """A planted slowdown of 20 %."""
    data = synthetic_run(1)
    found = verdicts(data, "slow")
    must(found == [stats.SLOWER] * len(found) and len(found) > 0, f"a planted slowdown: {found}")
    ratios = [row["ratio"] for row in data["ratios"] if row["engine"] == "slow"]
    must(all(0.78 < ratio < 0.89 for ratio in ratios), f"1 / 1.2 was planted, found {ratios}")
    return f"a planted 20 % slowdown: found in {len(found)} of {len(found)} cells"


def check_known() -> str:
    """Known timings."""
    first, second = {n: 2.0 * n for n in range(1, 8)}, {n: 1.0 * n for n in range(1, 8)}
    found = stats.compare(first, second)
    must(found is not None and found["ratio"] == 2 and found["low"] == 2 and found["high"] == 2
         and found["verdict"] == stats.FASTER, f"2 : 1 in each round gives {found}")
    must(stats.compare({1: 1.0}, {1: 1.0})["verdict"] == stats.UNKNOWN, "one round tells nothing")  # type: ignore[index]
    must(stats.order_interval([1, 2, 3, 4, 5]) == (1, 5), "5 rounds: the whole range")
    must(stats.order_interval(list(range(1, 10))) == (2, 8), "9 rounds: the 2nd and the 8th")
    uniform = [[1000.0 * (i + 1), 1.0] for i in range(1000)]
    must(stats.histogram_percentile(uniform, 0.5) == 500e3, "p50 of 1..1000")
    must(stats.histogram_percentile(uniform, 0.99) == 990e3, "p99 of 1..1000")
    must(abs((stats.geometric_mean([1, 4]) or 0) - 2) < 1e-12, "geometric mean of 1 and 4")
    must(stats.verdict(0.7, 0.9, False, 5) == stats.FASTER, "less is better")
    return "known timings: known results"


def check_agreement() -> str:
    """Two runs of the same agree; one against a slower one does not."""
    first, second = synthetic_run(1), synthetic_run(2)
    must(judge.agreement(first, second)["agree"], "two runs of the same do not agree")
    for row in second["ratios"]:
        for key in ("ratio", "low", "high"):
            row[key] *= 1.5
    must(not judge.agreement(first, second)["agree"], "runs that differ by a half agree")
    return "agreement: two runs agree, different ones do not"


CHECKS: Tuple[Callable[[], str], ...] = (check_known, check_equal, check_slow, check_agreement)


def command(_arguments: Sequence[str] = ()) -> int:
    """Run all checks."""
    status = 0
    for check in CHECKS:
        try:
            print(f"ok     {check()}")
        except Wrong as error:
            print(f"WRONG  {error}")
            status = 1
    return status
