"""Statistics of the evaluation: per-round ratios, their intervals, verdicts, merged latencies.

A ratio is the median of the ratios of each round.  Its interval is the 95 % percentile bootstrap
of that median.  With few rounds that interval is too narrow (87 % with 7 rounds), so it is widened
to the order statistics that hold the true median with 95 %, and to the whole range where there
are none (5 rounds: 93.75 %).
"""

from __future__ import annotations

import math
import random
import statistics
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

LEVEL = 0.95
RESAMPLES = 2000
FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "no difference shown", "too few rounds"
ROUNDS_MIN = 5

Interval = Tuple[float, float]


def median(values: Sequence[float]) -> Optional[float]:
    """The median, None of nothing."""
    return statistics.median(values) if values else None


def geometric_mean(values: Sequence[float]) -> Optional[float]:
    """Of positive values; None of nothing."""
    if not values:
        return None
    return math.exp(sum(math.log(value) for value in values) / len(values))


def order_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The narrowest symmetric pair of order statistics that holds the median with `level`."""
    ordered = sorted(values)
    count = len(ordered)
    outside = 0.0
    best = 0
    for rank in range(count // 2):
        outside += 2 * math.comb(count, rank) / 2 ** count
        if 1 - outside < level:
            break
        best = rank
    return ordered[best], ordered[count - 1 - best]


def bootstrap_interval(values: Sequence[float], seed: int, level: float = LEVEL,
                       resamples: int = RESAMPLES) -> Interval:
    """Percentile bootstrap of the median."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(values, k=len(values)))
                     for _ in range(resamples))
    tail = (1 - level) / 2
    return medians[int(tail * resamples)], medians[min(resamples - 1, int((1 - tail) * resamples))]


def interval(values: Sequence[float], seed: int = 1) -> Interval:
    """The interval of the median that the evaluation uses: see the top of this file."""
    low, high = bootstrap_interval(values, seed)
    order_low, order_high = order_interval(values)
    return min(low, order_low), max(high, order_high)


def verdict(low: float, high: float, higher_is_better: bool, rounds: int) -> str:
    """Of the first beside the second, from the interval of first / second."""
    if rounds < ROUNDS_MIN:
        return UNKNOWN
    if low <= 1 <= high:
        return SAME
    return FASTER if (low > 1) == higher_is_better else SLOWER


def compare(first: Mapping[int, float], second: Mapping[int, float], higher_is_better: bool = True,
            seed: int = 1) -> Optional[Dict[str, object]]:
    """Values of rounds beside one another: the ratio first / second, or None without a round."""
    rounds = sorted(number for number in first if number in second and second[number] > 0
                    and first[number] > 0)
    ratios = [first[number] / second[number] for number in rounds]
    if not ratios:
        return None
    low, high = interval(ratios, seed)
    return {"ratio": statistics.median(ratios), "low": low, "high": high, "rounds": len(ratios),
            "verdict": verdict(low, high, higher_is_better, len(ratios))}


def overlap(first: Interval, second: Interval) -> bool:
    """Whether two intervals have a point in common."""
    return first[0] <= second[1] and second[0] <= first[1]


Histogram = List[List[float]]  # [upper bound in ns, count], ascending


def histogram_merge(histograms: Iterable[Histogram]) -> Histogram:
    """One of many with the same scale."""
    counts: Dict[float, float] = {}
    for histogram in histograms:
        for upper, count in histogram:
            counts[upper] = counts.get(upper, 0) + count
    return [[upper, counts[upper]] for upper in sorted(counts)]


def histogram_without(histogram: Histogram, part: Histogram) -> Histogram:
    """What is left when a part that was merged into it goes."""
    counts = dict((upper, count) for upper, count in histogram)
    for upper, count in part:
        counts[upper] -= count
    return [[upper, counts[upper]] for upper in sorted(counts) if counts[upper] > 0]


def histogram_percentile(histogram: Histogram, fraction: float) -> Optional[float]:
    """The upper bound of the bucket in which `fraction` of the counts is reached."""
    total = sum(count for _, count in histogram)
    if total <= 0:
        return None
    reached = 0.0
    for upper, count in histogram:
        reached += count
        if reached >= fraction * total:
            return upper
    return histogram[-1][0]
