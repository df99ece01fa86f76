import numpy as np
import pytest
import scipy.linalg

from sphere_jax.evaluation import frechet
from sphere_jax.evaluation.frechet import frechet_distance


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


@pytest.mark.parametrize("decades", [1, 4, 10])
@pytest.mark.parametrize("rows", [30, 64, 70, 400])
def test_the_quick_way_is_the_exact_one_or_is_not_taken(decades, rows):
    """Spectra of many decades and ranks, near and far."""
    scale = 10.0 ** -np.linspace(0, decades, 64)
    for seed, factor in ((0, 1.0), (1, 1.001), (2, 3.0)):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(rows, 64)) * scale
        y = factor * (x if seed == 1 else rng.normal(size=(rows, 64)) * scale)
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        found = frechet.frechet_distance(np.zeros(64), a, np.zeros(64), b)
        exact = np.trace(a + b) - 2 * frechet._overlap(a, b)
        assert found == pytest.approx(exact, rel=2e-7, abs=1e-14)


def test_two_sets_of_enough_images_take_the_quick_way(monkeypatch):
    def refused(*args):
        raise AssertionError("the slow way")

    rng = np.random.default_rng(0)
    a, b = (np.cov(rng.normal(size=(400, 64)), rowvar=False) for _ in range(2))
    monkeypatch.setattr(frechet, "_overlap", refused)
    assert frechet.frechet_distance(np.zeros(64), a, np.zeros(64), b) > 1
    with pytest.raises(AssertionError, match="slow way"):
        frechet.frechet_distance(np.zeros(64), a, np.zeros(64), a)
