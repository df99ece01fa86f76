"""What a comparison concludes: steps to a target, and paired differences with their intervals.

Pure functions of numbers; None stands for a missing number.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from sphere_jax.evaluation.score_tables import describe

CONFIDENCE = 0.95


def badness(metric: str, value: float) -> float | None:
    """`value` on a scale where less is better, by `score_tables.describe`; None for a metric
    without a direction."""
    better = describe(metric)[1]
    if better.startswith("near "):
        return abs(value - float(better.removeprefix("near ")))
    return {"lower": value, "higher": -value}.get(better)


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half the width of its 95 % t-interval: None of one value."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, None
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)
    return mean, float(quantile * np.std(values, ddof=1) / math.sqrt(count))


@dataclasses.dataclass(frozen=True)
class Difference:
    """An arm minus the baseline in one metric, over the seeds that both have."""

    mean: float
    half_width: float | None  # of the 95 % t-interval of the paired difference
    verdict: str  # "better", "worse", "not decided", or "one seed"
    seeds: int


def paired_difference(
    metric: str, arm: Sequence[float], baseline: Sequence[float]
) -> Difference | None:
    """Of values of the same seeds in the same order; None without any.

    The verdict is that of the interval of differences in `badness`, which for a metric that should
    be near a number is the distance from it: decided if it leaves out 0.
    """
    if not arm or not all(map(math.isfinite, (*arm, *baseline))):
        return None
    pairs = list(zip(arm, baseline, strict=True))
    mean, half = mean_interval([a - b for a, b in pairs])
    if half is None:
        return Difference(mean, None, "one seed", 1)
    bad = [(badness(metric, a), badness(metric, b)) for a, b in pairs]
    verdict = "not decided"
    if all(a is not None for a, _ in bad):
        centre, width = mean_interval([a - b for a, b in bad])
        if abs(centre) > width:
            verdict = "worse" if centre > 0 else "better"
    return Difference(mean, half, verdict, len(pairs))


def first_reached(
    along: Sequence[float], values: Sequence[float], metric: str, target: float
) -> float | None:
    """Where on the axis `along` (steps, seconds) a curve first is as good as the target.

    Linear between two points; None if it never is. The first point is not interpolated:
    nothing before it was scored.
    """
    bad = [badness(metric, value) for value in values]
    limit = badness(metric, target)
    if limit is None:
        return None
    for i, (x, b) in enumerate(zip(along, bad, strict=True)):
        if b > limit:
            continue
        if i == 0 or bad[i - 1] == b:
            return float(x)
        part = (bad[i - 1] - limit) / (bad[i - 1] - b)
        return float(along[i - 1] + part * (x - along[i - 1]))
    return None


def speed_up(arm: Sequence[float | None], baseline: Sequence[float | None]):
    """How many times fewer steps than the baseline: the geometric mean over seeds, and the 95 %
    interval `(low, high)`, None of one seed. None if a seed of either never reached it.
    """
    if not arm or None in (*arm, *baseline) or min(*arm, *baseline) <= 0:
        return None
    ratios = [math.log(b / a) for a, b in zip(arm, baseline, strict=True)]
    mean, half = mean_interval(ratios)
    interval = None if half is None else (math.exp(mean - half), math.exp(mean + half))
    return math.exp(mean), interval


def mean_and_deviation(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
