"""Published parameterizations, on Gaussian data, where the best field of every kind is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry.spaces import TokenSphere
from sphere_jax.models.parameterization import (
    LINEAR_BETAS,
    from_data_at_one,
    from_noise_prediction,
    from_unit_sphere,
)

MEAN, STD = 0.7, 0.4  # of the data, in every dimension
SHAPE = (5, 2, 2, 3)


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(0).standard_normal(SHAPE)


def expected_parts(z, of_data, of_noise):
    """E[data | z] and E[noise | z] at z = of_data * data + of_noise * noise."""
    a, s = (np.reshape(x, (-1, 1, 1, 1)) for x in (of_data, of_noise))
    residual = (z - a * MEAN) / (a**2 * STD**2 + s**2)
    return MEAN + a * STD**2 * residual, s * residual


def our_velocity(z, t):
    data, noise = expected_parts(z, 1 - t, t)
    return noise - data


def test_data_at_one(z):
    def theirs(z, t, labels):
        data, noise = expected_parts(z, t, 1 - t)
        return data - noise + labels.reshape(-1, 1, 1, 1)

    t, labels = np.array([0, 0.2, 0.5, 0.9, 1]), np.arange(5)
    ours = from_data_at_one(theirs)(z, t, labels)
    np.testing.assert_allclose(ours, our_velocity(z, t) - labels.reshape(-1, 1, 1, 1), atol=1e-12)


def test_a_velocity_of_unit_spheres():
    """RJF (docs/systems/hae.md#rjf): unit tokens, shown to the network as sqrt(d) x, move by its
    word."""
    rng = np.random.default_rng(1)
    x, u = rng.standard_normal((2, 3, 2, 2, 48))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    u -= (u * x).sum(-1, keepdims=True) * x
    seen = []

    def theirs(z, t, labels):
        seen.append(z)
        return jnp.asarray(u)

    z, t, dt = math.sqrt(48) * x, jnp.full(3, 0.5), jnp.full(3, -0.1)
    v = from_unit_sphere(theirs)(jnp.asarray(z), t, None)
    np.testing.assert_allclose(seen[0], math.sqrt(48) * x)
    ours = TokenSphere(radius=math.sqrt(48)).step(jnp.asarray(z), v, dt)
    angle = 0.1 * np.linalg.norm(u, axis=-1, keepdims=True)
    moved = np.cos(angle) * x - np.sin(angle) * u / np.linalg.norm(u, axis=-1, keepdims=True)
    np.testing.assert_allclose(ours / math.sqrt(48), moved, atol=1e-5)


def ddpm(step):
    """Signal and noise at a step, between steps as a straight line in log(noise / signal)."""
    signal = np.cumprod(1 - LINEAR_BETAS)
    ratio = np.exp(np.interp(step, np.arange(1000), 0.5 * np.log((1 - signal) / signal)))
    return 1 / np.sqrt(1 + ratio**2), ratio / np.sqrt(1 + ratio**2)


def best_noise(x, step, labels):
    """In JAX, as a network would be; signal and noise of its steps in float64 tables."""
    steps = np.linspace(0, 999, 9_991)
    of_data, of_noise = (jnp.interp(step, steps, part) for part in ddpm(steps))
    a, s = (part.reshape(-1, 1, 1, 1) for part in (of_data, of_noise))
    return s * (x - a * MEAN) / (a**2 * STD**2 + s**2)


@pytest.mark.parametrize("steps", [[0, 1, 250, 700, 950], [0.5, 17.3, 333.4, 600.8, 900.2]])
def test_noise_prediction(z, steps):
    """At the steps of DDPM and between them, what is best for it becomes what is best for us."""
    of_data, of_noise = ddpm(np.array(steps))
    t = of_noise / (of_data + of_noise)
    velocity = jax.jit(from_noise_prediction(best_noise))
    found = velocity(np.float32(z), np.float32(t), np.zeros(5, np.int32))
    expected = our_velocity(z, t)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_steps_and_scale_that_the_network_sees(z):
    signal = np.cumprod(1 - LINEAR_BETAS)
    n = np.array([0, 10, 500, 998, 999])
    of_data, of_noise = np.sqrt(signal[n]), np.sqrt(1 - signal[n])
    t = of_noise / (of_data + of_noise)
    seen = {}

    def network(x, step, labels):
        seen.update(x=x, step=step, labels=labels)
        return jnp.zeros_like(x)

    data, noise = np.random.default_rng(1).standard_normal((2, *SHAPE))
    shape = (-1, 1, 1, 1)
    ours = (1 - t).reshape(shape) * data + t.reshape(shape) * noise
    theirs = of_data.reshape(shape) * data + of_noise.reshape(shape) * noise
    from_noise_prediction(network)(np.float32(ours), np.float32(t), np.arange(5))
    np.testing.assert_allclose(seen["step"], n, atol=0.05)
    np.testing.assert_allclose(seen["x"], theirs, atol=1e-4)
    np.testing.assert_array_equal(seen["labels"], np.arange(5))


def test_outside_of_the_schedule_the_nearest_step_counts(z):
    of_data, of_noise = ddpm(np.array([0, 999]))
    t = of_noise / (of_data + of_noise)  # 0.00990 and 0.99369
    assert 0.0098 < t[0] < 0.01 < 0.993 < t[1] < 0.994
    x = np.float32(z[:1].repeat(4, 0))
    velocity = jax.jit(from_noise_prediction(best_noise))
    found = velocity(x, np.float32([0, t[0], t[1], 1]), np.zeros(4, np.int32))
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    np.testing.assert_allclose(found[3], found[2], atol=1e-4)
