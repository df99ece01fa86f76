import numpy as np
import pytest
import scipy.linalg

from sphere_jax.evaluation.metrics import frechet_distance, precision_recall


def covariance(size, rank, seed):
    root = np.random.default_rng(seed).normal(size=(size, rank))
    return root @ root.T


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    sigma, mu = covariance(6, 6, 0), np.arange(6.0)
    shift = np.array([3.0, 4, 0, 0, 0, 0])
    assert frechet_distance(mu, sigma, mu + shift, sigma) == pytest.approx(25, abs=1e-9)


def test_diagonal_covariances_compare_standard_deviations():
    a, b = np.array([1.0, 4, 9, 0]), np.array([4.0, 4, 1, 25])
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    found = frechet_distance(np.zeros(4), np.diag(a), np.zeros(4), np.diag(b))
    assert found == pytest.approx(expected, abs=1e-12)


def test_covariances_that_do_not_commute_agree_with_the_matrix_square_root():
    a, b = covariance(5, 5, 1), covariance(5, 5, 2)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = np.trace(a + b - 2 * root)
    found = frechet_distance(np.zeros(5), a, np.zeros(5), b)
    assert found == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(np.zeros(5), b, np.zeros(5), a) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 64])
def test_identical_gaussians_are_at_distance_zero(rank):
    mu, sigma = np.ones(64), 100 * covariance(64, rank, 3)
    assert 0 <= frechet_distance(mu, sigma, mu, sigma) < 1e-6


def test_covariances_of_low_rank_on_orthogonal_spaces_have_no_overlap():
    basis = np.linalg.qr(np.random.default_rng(4).normal(size=(64, 64)))[0]
    a = 7 * basis[:, :3] @ basis[:, :3].T
    b = 5 * basis[:, 3:5] @ basis[:, 3:5].T
    found = frechet_distance(np.zeros(64), a, np.zeros(64), b)
    assert found == pytest.approx(3 * 7 + 2 * 5, abs=1e-9)


def test_frechet_refuses_what_is_no_gaussian():
    mu, sigma = np.zeros(2), np.eye(2)
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(mu, sigma, np.array([0.0, np.nan]), sigma)
    with pytest.raises(ValueError, match=r"shape \(F,\)"):
        frechet_distance(mu, sigma, np.zeros(3), sigma)
    with pytest.raises(ValueError, match="covariance has shape"):
        frechet_distance(mu, sigma, mu, np.eye(3))
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance(mu, sigma, mu, np.array([[1.0, 0.5], [0, 1]]))


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
    monkeypatch.setattr("sphere_jax.evaluation.metrics.CHUNK", 16)
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
