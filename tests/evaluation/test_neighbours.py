import numpy as np
import pytest

from sphere_jax.evaluation.neighbours import precision_recall


def clusters(*centres, each=30):
    rng = np.random.default_rng(5)
    return np.concatenate([c + 0.1 * rng.normal(size=(each, 2)) for c in centres])


def test_generating_one_of_two_modes_is_precise_but_recalls_half():
    real = clusters([0, 0], [10, 10])
    found = precision_recall(real, real[:30], k=3)
    assert found == {"precision": 1.0, "recall": 0.5}


def test_generating_a_mode_that_does_not_exist_recalls_all_but_is_half_precise():
    real = clusters([0, 0])
    generated = np.concatenate([real, real + 10])
    assert precision_recall(real, generated, k=3) == {"precision": 0.5, "recall": 1.0}


def test_far_sets_share_nothing_and_equal_sets_everything():
    real = clusters([0, 0])
    assert precision_recall(real, real + 100) == {"precision": 0.0, "recall": 0.0}
    assert precision_recall(real, real) == {"precision": 1.0, "recall": 1.0}


def test_balls_reach_to_the_kth_neighbour_not_counting_the_point():
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # radii for k=2: 3, 2, 3, 6
    generated = np.array([[-2.9], [-3.1], [12.9], [13.1], [5.9]])
    assert precision_recall(real, generated, k=2)["precision"] == pytest.approx(3 / 5)


def test_the_result_does_not_depend_on_the_chunks(monkeypatch):
    rng = np.random.default_rng(6)
    real, generated = rng.normal(size=(70, 4)), rng.normal(size=(50, 4)) + 0.5
    whole = precision_recall(real, generated)
    monkeypatch.setattr("sphere_jax.evaluation.tiles.TILE", 16)
    assert precision_recall(real, generated) == whole
    assert 0 < whole["precision"] < 1 and 0 < whole["recall"] < 1


def test_precision_recall_refuses_too_few_and_nan():
    points = np.zeros((10, 2))
    with pytest.raises(ValueError, match="generated features must hold at least 4 rows, not 3"):
        precision_recall(points, points[:3])
    with pytest.raises(ValueError, match="real features hold NaN"):
        precision_recall(points * np.nan, points)
    with pytest.raises(ValueError, match="k must be at least 1"):
        precision_recall(points, points, k=0)
    with pytest.raises(ValueError, match="lengths 2 and 3"):
        precision_recall(points, np.zeros((10, 3)))
