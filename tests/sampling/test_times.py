"""Grids and densities of time against their closed forms
(docs/systems/shared.md#time-densities-and-shift, docs/systems/hae.md#flow)."""

import math

import jax
import numpy as np
import pytest

from sphere_jax.sampling import dimension_shift, sample_times, shift, time_grid

N = 20000
KEYS = jax.random.split(jax.random.key(0), N)


def logit_normal_cdf(t, mean=0.0, std=1.0):
    t = np.clip(t, 1e-12, 1 - 1e-12)
    z = (np.log(t / (1 - t)) - mean) / std
    return 0.5 * np.vectorize(math.erfc)(-z / math.sqrt(2))


def kolmogorov(sample, cdf):
    """Largest distance between the sample's distribution function and `cdf`."""
    x = np.sort(np.asarray(sample, np.float64))
    steps = np.arange(len(x) + 1) / len(x)
    return max(np.max(cdf(x) - steps[:-1]), np.max(steps[1:] - cdf(x)))


CHANCE = 1.95 / math.sqrt(N)  # exceeded once in a thousand seeds


def test_the_shift_moves_mass_toward_noise_and_inverts():
    t = np.linspace(0, 1, 11)
    assert shift(0.0, 8.0) == 0.0 and shift(1.0, 8.0) == 1.0
    np.testing.assert_allclose(shift(t, 1.0), t)
    # docs/systems/hae.md#flow: 14% in one step
    np.testing.assert_allclose(shift(0.02, 8.0), 0.1403508, rtol=1e-6)
    np.testing.assert_allclose(shift(shift(t, 8.0), 1 / 8.0), t, atol=1e-12)


@pytest.mark.parametrize(
    "latent_shape, a",
    [((16, 16, 1024), 8.0), ((16, 16, 768), math.sqrt(48)), ((32, 32, 4), 1.0)],
    ids=["HAE", "RJF", "SD"],
)
def test_the_shift_of_a_dimension(latent_shape, a):
    """docs/systems/hae.md#flow and #rjf: 8 for HAE, 6.928 for RJF."""
    assert dimension_shift(latent_shape) == pytest.approx(a)


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("a, t_end", [(1.0, 0.0), (8.0, 0.0), (6.928, 0.001)])
def test_a_grid_of_n_steps_has_n_plus_one_times(steps, a, t_end):
    times = time_grid(steps, a, t_end)
    assert times.shape == (steps + 1,) and times.dtype == np.float32
    assert times[0] == 1.0 and times[-1] == np.float32(shift(t_end, a))
    assert np.all(np.diff(times) < 0)
    base = shift(times.astype(np.float64), 1 / a)
    np.testing.assert_allclose(np.diff(base), np.diff(base)[0], rtol=2e-4)


def test_the_grid_of_rjf_ends_before_the_data():
    """docs/systems/hae.md#rjf: 50 times from 1 to 0.001, then shifted, which are 49 steps."""
    times = time_grid(49, math.sqrt(48), 0.001)
    expected = shift(np.linspace(1.0, 0.001, 50), math.sqrt(48))
    np.testing.assert_allclose(times, expected, rtol=1e-6)
    assert times[-1] == pytest.approx(0.0068875, rel=1e-4)


@pytest.mark.parametrize("bad", [(0,), (5, 0.0), (5, -1.0), (5, 1.0, 1.0), (5, 1.0, -0.1)])
def test_a_grid_refuses(bad):
    with pytest.raises(ValueError):
        time_grid(*bad)


def test_uniform_times():
    t = sample_times(KEYS, low=0.2, high=0.7)
    assert t.shape == (N,) and t.dtype == np.float32
    assert kolmogorov(t, lambda x: np.clip((x - 0.2) / 0.5, 0, 1)) < CHANCE
    assert np.min(t) >= 0.2 and np.max(t) <= 0.7


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (-0.4, 1.2)])
def test_logit_normal_times(mean, std):
    t = sample_times(KEYS, "logit_normal", mean, std)
    assert kolmogorov(t, lambda x: logit_normal_cdf(x, mean, std)) < CHANCE


def test_the_quantiles_of_system_d():
    t = sample_times(KEYS, "logit_normal", shift=8.0)
    quantiles = np.quantile(np.asarray(t), [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(quantiles, [0.61, 0.80, 0.89, 0.94, 0.98], atol=0.01)


@pytest.mark.parametrize("low, high", [(0.0, 0.999), (0.1, 0.6), (0.0, 1.0)])
def test_truncated_logit_normal_times(low, high):
    t = np.asarray(sample_times(KEYS, "truncated_logit_normal", low=low, high=high))
    a, b = logit_normal_cdf(np.array([low, high]))
    assert kolmogorov(t, lambda x: (logit_normal_cdf(x) - a) / (b - a)) < CHANCE
    assert np.all(t >= np.float32(low)) and np.all(t <= np.float32(high))


def test_a_time_is_a_function_of_its_key():
    few = sample_times(KEYS[5:8], "logit_normal")
    np.testing.assert_array_equal(few, sample_times(KEYS[:16], "logit_normal")[5:8])


def test_densities_refuse_what_they_would_not_read():
    with pytest.raises(ValueError, match="density"):
        sample_times(KEYS[:2], "cosine")
    with pytest.raises(ValueError, match="truncated"):
        sample_times(KEYS[:2], "logit_normal", high=0.9)
    with pytest.raises(ValueError, match="low"):
        sample_times(KEYS[:2], low=0.5, high=0.5)
