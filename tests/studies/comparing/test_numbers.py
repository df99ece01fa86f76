"""Steps to a target, differences and intervals, by closed form."""

import math

import numpy as np
import pytest
from scipy import stats

from sphere_jax.studies.comparing.numbers import (
    badness,
    first_reached,
    mean_interval,
    paired_difference,
    speed_up,
)

DISTANCE, AGREEMENT = "frechet_distance_small_classifier", "class_agreement"
RATIO = "nearest_train_distance_ratio"  # near 1


def test_direction_of_each_metric():
    assert badness(DISTANCE, 3.0) == 3.0 and badness(AGREEMENT, 0.9) == -0.9
    assert badness(RATIO, 0.75) == badness(RATIO, 1.25) == 0.25
    assert badness("unheard_of", 1.0) is None


@pytest.mark.parametrize(
    ("values", "target", "metric", "where"),
    [
        ([40.0, 20.0, 10.0], 15.0, DISTANCE, 250.0),
        ([40.0, 20.0, 10.0], 20.0, DISTANCE, 200.0),
        ([40.0, 20.0, 10.0], 50.0, DISTANCE, 100.0),  # from the first point on
        ([40.0, 20.0, 10.0], 5.0, DISTANCE, None),
        ([40.0, 10.0, 30.0], 25.0, DISTANCE, 150.0),  # the first time
        ([0.2, 0.6, 0.7], 0.5, AGREEMENT, 175.0),
        ([0.5, 0.8, 1.3], 0.9, RATIO, None),  # 0.2 above 0.1, then 0.3: no point is near enough
        ([0.5, 0.9, 1.3], 0.75, RATIO, 162.5),  # from 0.5 away to 0.1 away, 0.25 at 5/8
        ([1.0, 2.0, 3.0], 2.0, "unheard_of", None),
    ],
)
def test_where_a_curve_reaches_a_target(values, target, metric, where):
    assert first_reached([100, 200, 300], values, metric, target) == pytest.approx(where)


def test_a_curve_without_points_reaches_nothing():
    assert first_reached([], [], DISTANCE, 1.0) is None


def test_an_interval_is_that_of_student():
    values = [1.0, 2.0, 4.0, 5.0]
    mean, half = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert mean_interval([3.0]) == (3.0, None)
    _, two = mean_interval([0.0, 2.0])  # t(1 degree) = tan(0.475 pi), s / sqrt(2) = 1
    assert two == pytest.approx(math.tan(0.475 * math.pi))


def test_verdicts_come_from_paired_intervals():
    baseline = [10.0, 20.0, 30.0]  # seeds differ far more than arms
    better = paired_difference(DISTANCE, [9.0, 18.9, 29.1], baseline)
    assert better.verdict == "better" and better.mean == pytest.approx(-1.0)
    assert better.half_width == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3))
    assert better.seeds == 3
    assert paired_difference(DISTANCE, [11.0, 21.1, 30.9], baseline).verdict == "worse"
    assert paired_difference(DISTANCE, [9.0, 21.0, 30.0], baseline).verdict == "not decided"
    assert paired_difference(AGREEMENT, [0.9, 0.91], [0.8, 0.81]).verdict == "better"
    nearer = paired_difference(RATIO, [1.1, 0.9], [1.3, 0.7])  # by distance from 1, not by value
    assert nearer.mean == pytest.approx(0.0) and nearer.verdict == "better"
    assert paired_difference("unheard_of", [1.0, 1.0], [2.0, 2.0]).verdict == "not decided"


def test_one_seed_decides_nothing():
    one = paired_difference(DISTANCE, [1.0], [5.0])
    assert (one.mean, one.half_width, one.verdict) == (-4.0, None, "one seed")
    assert paired_difference(DISTANCE, [], []) is None
    assert paired_difference(DISTANCE, [math.nan, 1.0], [1.0, 1.0]) is None


def test_speed_up_is_a_geometric_mean():
    factor, (low, high) = speed_up([50.0, 25.0], [100.0, 200.0])
    assert factor == pytest.approx(4.0)
    spread = math.tan(0.475 * math.pi) * math.log(8 / 2) / 2
    assert (low, high) == pytest.approx((4 / math.exp(spread), 4 * math.exp(spread)))
    assert speed_up([50.0], [100.0]) == (pytest.approx(2.0), None)
    assert speed_up([50.0, None], [100.0, 100.0]) is None
    assert speed_up([], []) is None
