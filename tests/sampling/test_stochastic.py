"""SiT's SDE on Gaussian data, whose velocity and score are known, and by SiT's own formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry import Euclidean, TokenSphere
from sphere_jax.sampling import (
    Guidance,
    Sampler,
    euler_maruyama,
    nfe,
    noise_of,
    sample,
    sample_keys,
    sde_time_grid,
)

SHAPE, MEAN, STD = (2, 2, 3), 0.7, 0.4
LABELS = jnp.zeros(5, jnp.int32)


def moments(t):
    """Mean and variance of z_t for data N(MEAN, STD^2)."""
    return (1 - t) * MEAN, ((1 - t) * STD) ** 2 + t**2


def velocity(z, t):
    """`E[noise - data | z_t]`."""
    mean, variance = moments(t)
    return (t - (1 - t) * STD**2) * (z - mean) / variance - MEAN


def network(z, t, labels):
    return velocity(z, t.reshape(-1, 1, 1, 1))


def draw(count, settings, labels=None, network=network):
    keys = sample_keys(jax.random.key(3), np.arange(count))
    labels = jnp.zeros(count, jnp.int32) if labels is None else labels
    return jax.jit(lambda n, k: sample(network, Euclidean(), n, labels, 9, settings, keys=k))(
        noise_of(keys, SHAPE), keys
    )


def test_the_grid_is_that_of_sit():
    """250 evaluations: 249 steps from 1 to 0.04 and the mean."""
    times = sde_time_grid(250)
    assert len(times) == 251 and times[0] == 1.0 and times[-1] == 0.0
    np.testing.assert_allclose(-np.diff(times)[:-1], 0.96 / 249, rtol=1e-4)
    np.testing.assert_allclose(times[-2], 0.04, rtol=1e-6)
    assert sde_time_grid(1).tolist() == [1.0, 0.0]
    shifted = sde_time_grid(5, 3.0)
    np.testing.assert_allclose(shifted, 3 * sde_time_grid(5) / (1 + 2 * sde_time_grid(5)), 1e-6)
    assert nfe(Sampler("euler_maruyama", 250)) == 250
    assert nfe(Sampler("euler_maruyama", 250, guidance=Guidance(1.5))) == 500


def test_drift_and_diffusion_are_those_of_the_score():
    """`D s - v` with D = t, s of the Gaussian; and sqrt(2 t h) times fresh noise."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, *SHAPE)).astype(np.float32)
    keys = sample_keys(jax.random.key(0), np.arange(4000))
    for t, h in ((1.0, 0.1), (0.6, 0.05), (0.04, 0.01)):
        mean, variance = moments(t)
        drift = -t * (z.astype(np.float64) - mean) / variance - velocity(z.astype(np.float64), t)
        after, (_, number) = euler_maruyama(
            velocity, Euclidean(), z, jnp.float32(t), jnp.float32(t - h), (keys, jnp.int32(7))
        )
        added = (np.asarray(after, np.float64) - (z + h * drift)) / np.sqrt(2 * t * h)
        assert number == 8
        assert abs(added.mean()) < 0.02 and abs(added.std() - 1) < 0.02
        last, _ = euler_maruyama(
            velocity, Euclidean(), z, jnp.float32(t), jnp.float32(0.0), (keys, jnp.int32(7))
        )
        np.testing.assert_allclose(last, z + t * drift, atol=2e-5)


def exact_moments(settings):
    """Mean and standard deviation of the samples that these steps make, in float64: each step is
    an affine map of a Gaussian."""
    mean, variance = 0.0, 1.0
    times = settings.times().astype(np.float64)
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        h = t - t_next

        def after(z, t=t, h=h):
            of_t, variance = moments(t)
            return z + h * (-t * (z - of_t) / variance - velocity(z, t))

        slope = after(1.0) - after(0.0)
        mean, variance = after(mean), slope**2 * variance + (2 * t * h if t_next > 0 else 0.0)
    return mean, np.sqrt(variance)


@pytest.mark.parametrize(("steps", "error"), [(250, 0.01), (50, 0.03)])
def test_samples_of_a_gaussian(steps, error):
    settings = Sampler("euler_maruyama", steps)
    mean, std = exact_moments(settings)
    # The last step is a mean, which is too narrow: by less than this.
    np.testing.assert_allclose([mean, std], [MEAN, STD], atol=error)
    found = np.asarray(draw(4000, settings), np.float64)
    np.testing.assert_allclose(found.mean(), mean, atol=4 * std / np.sqrt(found.size))
    np.testing.assert_allclose(found.std(), std, atol=4 * std / np.sqrt(2 * found.size))


def test_the_same_path_by_the_formulas_of_sit():
    """In SiT's time (1 is data), with its velocity: score `(t v - x) / (1 - t)`, diffusion `1 - t`,
    the last step without noise. The noise of the steps is ours."""
    settings = Sampler("euler_maruyama", 6)
    keys = sample_keys(jax.random.key(3), np.arange(5))
    x = np.asarray(noise_of(keys, SHAPE), np.float64)
    edges = np.linspace(0.0, 0.96, 6)
    for number, t in enumerate(edges):
        step = edges[1] if number < 5 else 0.04
        v = -velocity(x, 1 - t)
        drift = v + (1 - t) * (t * v - x) / (1 - t)
        x = x + step * drift
        if number < 5:
            folded = jax.vmap(lambda k, i=number: jax.random.fold_in(k, i + 1))(keys)
            x = x + np.sqrt(2 * (1 - t) * step) * np.asarray(noise_of(folded, SHAPE), np.float64)
    np.testing.assert_allclose(draw(5, settings), x, atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch():
    def two(z, t, labels):
        return network(z, t, labels) * (1.0 + 0.1 * labels.reshape(-1, 1, 1, 1))

    settings = Sampler("euler_maruyama", 5, guidance=Guidance(2.0, 0.3, 0.8))
    labels = jnp.array([1, 4, 0, 7, 3], jnp.int32)
    together = draw(5, settings, labels, two)
    np.testing.assert_allclose(draw(2, settings, labels[:2], two), together[:2], atol=2e-6)
    # Guidance that begins or ends does not restart the noise.
    always = draw(5, Sampler("euler_maruyama", 5), labels, network)
    inside = draw(5, Sampler("euler_maruyama", 5, guidance=Guidance(2.0, 0.3, 0.8)), labels)
    np.testing.assert_allclose(inside, always, atol=1e-5)  # this network reads no labels


def test_what_the_sde_needs():
    noise = np.zeros((5, *SHAPE), np.float32)
    keys = sample_keys(jax.random.key(0), np.arange(5))
    settings = Sampler("euler_maruyama", 3)
    with pytest.raises(ValueError, match="needs keys"):
        sample(network, Euclidean(), noise, LABELS, 9, settings)
    with pytest.raises(ValueError, match="linear paths from Gaussian noise alone"):
        sample(network, TokenSphere(2.0), noise, LABELS, 9, settings, keys=keys)
    with pytest.raises(ValueError, match="ends at t = 0"):
        Sampler("euler_maruyama", 3, t_end=0.1)
    with pytest.raises(ValueError, match="last_step"):
        Sampler("euler_maruyama", 3, last_step=0.0)
