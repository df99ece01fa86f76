"""Power-function averages against their closed forms, and one profile made of others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.training.ema_profiles import combination, gamma_of, inner_product, update_profile


def profile(x, t, gamma):
    return np.where(x <= t, (gamma + 1) * x**gamma / t ** (gamma + 1), 0.0)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_a_width_is_the_standard_deviation_of_its_profile(sigma_rel):
    x = (np.arange(200_000) + 0.5) / 200_000
    p = profile(x, 1.0, gamma_of(sigma_rel)) / len(x)
    mean = p @ x
    assert p.sum() == pytest.approx(1.0, rel=1e-4)
    assert np.sqrt(p @ (x - mean) ** 2) == pytest.approx(sigma_rel, rel=1e-4)


def test_the_exponents_of_the_paper():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.29, float("nan")])
def test_widths_that_no_profile_has(sigma_rel):
    with pytest.raises(ValueError, match="a relative width lies between 0 and 0.2887"):
        gamma_of(sigma_rel)


@pytest.mark.parametrize("a", [(10.0, 6.94), (7.0, 0.5)])
@pytest.mark.parametrize("b", [(10.0, 6.94), (4.0, 16.97), (9.5, 0.0)])
def test_inner_products_by_quadrature(a, b):
    x = (np.arange(400_000) + 0.5) * (10 / 400_000)
    expected = np.sum(profile(x, *a) * profile(x, *b)) * (10 / 400_000)
    assert inner_product(*a, *b) == pytest.approx(expected, rel=1e-4)
    assert inner_product(*a, *b) == pytest.approx(inner_product(*b, *a), rel=1e-12)


def weights_by_hand(t, sigma_rel):
    """Of updates 1..t: the integral of the profile over the step that ends with each."""
    ends = (np.arange(t + 1) / t) ** (gamma_of(sigma_rel) + 1)
    return np.diff(ends)


STEPS, EVERY = 3000, 100
WIDTHS = (0.05, 0.1)


@pytest.fixture(scope="module")
def walk():
    """Parameters that drift and jitter about a mean far from zero, (STEPS, 50) float32."""
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(size=(STEPS, 50)), 0) / np.sqrt(STEPS)
    return (5.0 + drift + 0.3 * rng.normal(size=(STEPS, 50))).astype(np.float32)


@pytest.fixture(scope="module")
def tracked(walk):
    """(t, sigma_rel, average) of every snapshot, as training saves them."""

    def one(averages, xs):
        t, theta = xs
        averages = {w: update_profile(m, theta, w, t) for w, m in averages.items()}
        return averages, averages

    start = {width: jnp.full((50,), 99.0) for width in WIDTHS}  # which counts for nothing
    _, all_of_them = jax.jit(lambda s, xs: jax.lax.scan(one, s, xs))(
        start, (jnp.arange(STEPS), walk)
    )
    return [
        (t, width, np.asarray(all_of_them[width][t - 1]))
        for t in range(EVERY, STEPS + 1, EVERY)
        for width in WIDTHS
    ]


def test_the_recursion_is_the_profile(walk, tracked):
    for t, width, average in tracked:
        expected = weights_by_hand(t, width) @ walk[:t].astype(np.float64)
        np.testing.assert_allclose(average, expected, rtol=3e-6)


def combined(tracked, target_t, sigma_rel):
    used = [snapshot for snapshot in tracked if snapshot[0] <= target_t]
    t = np.array([t for t, _, _ in used], float)
    gamma = np.array([gamma_of(width) for _, width, _ in used])
    weights, error = combination(t, gamma, target_t, gamma_of(sigma_rel))
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    return weights, error, weights @ np.stack([average for *_, average in used]).astype(np.float64)


@pytest.mark.parametrize("target_t", [STEPS, 1500])
@pytest.mark.parametrize(
    ("sigma_rel", "limit"),  # the widest reach back to where snapshots are few
    [(0.04, 0.015), (0.07, 0.006), (0.15, 0.012), (0.2, 0.03), (0.25, 0.1)],
)
def test_a_profile_that_was_not_tracked(walk, tracked, target_t, sigma_rel, limit):
    weights, error, found = combined(tracked, target_t, sigma_rel)
    assert error < limit and np.abs(weights).sum() < 5  # rounding of snapshots stays small
    expected = weights_by_hand(target_t, sigma_rel) @ walk[:target_t].astype(np.float64)
    scatter = walk[:target_t].std()
    assert np.abs(found - expected).max() < limit * scatter
    # No tracked average is the one expected.
    last = [average for t, _, average in tracked if t == target_t]
    assert all(np.abs(average - expected).max() > 2 * limit * scatter for average in last)


def test_a_tracked_profile_is_its_own_snapshot(tracked):
    weights, error, found = combined(tracked, 2000, 0.1)
    assert error < 1e-5
    [snapshot] = [m for t, width, m in tracked if (t, width) == (2000, 0.1)]
    np.testing.assert_allclose(found, snapshot, rtol=1e-5)


def test_the_error_of_a_profile_out_of_reach(tracked):
    """One much narrower than any that was tracked is reported as such."""
    assert combined(tracked, STEPS, 0.005)[1] > 0.2
