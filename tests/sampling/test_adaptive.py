"""dopri5 by diffrax: errors on Gaussian data, evaluations, guidance, what it refuses."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.geometry import Euclidean, TokenSphere
from sphere_jax.sampling import Guidance, Sampler, sample

SHAPE, MEAN, STD = (2, 2, 3), 0.7, 0.4
LABELS = jnp.array([1, 4, 0, 7, 3], jnp.int32)
NOISE = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)


def network(z, t, labels):
    """The velocity of Gaussian data N(MEAN, STD^2), which moves noise n to MEAN + STD n."""
    t = t.reshape(-1, 1, 1, 1)
    variance = ((1 - t) * STD) ** 2 + t**2
    return (t - (1 - t) * STD**2) * (z - (1 - t) * MEAN) / variance - MEAN


def labelled(z, t, labels):
    return network(z, t, labels) + 0.3 * jnp.sin(labels + 3.0 * t).reshape(-1, 1, 1, 1) * z


def run(settings, network=network, rows=slice(None), scale=None):
    pytest.importorskip("diffrax")
    call = jax.jit(
        lambda n, y, w: sample(network, Euclidean(), n, y, 9, settings, w, trajectory=True)
    )
    return call(NOISE[rows], LABELS[rows], scale)


@pytest.mark.parity
def test_the_error_on_gaussian_data_falls_with_the_tolerance():
    errors, made = [], []
    for rtol in (1e-3, 1e-5):
        z, along = run(Sampler("dopri5", rtol=rtol, atol=1e-6))
        errors.append(np.max(np.abs(z - (MEAN + STD * NOISE))))
        made.append(float(along["evaluations"].mean()))
    assert errors[0] < 5e-3 and errors[1] < 5e-5
    assert 20 < made[0] < made[1] < 200


@pytest.mark.parity
def test_evaluations_are_those_really_made():
    for settings, each in (
        (Sampler("dopri5"), {1}),
        (Sampler("dopri5", guidance=Guidance(2.0, 0.3, 0.8)), {1, 2}),
    ):
        rows = []

        def counted(z, t, labels, rows=rows):
            jax.debug.callback(lambda t: rows.append(len(t)), t)
            return labelled(z, t, labels)

        _, along = run(settings, counted, slice(1))
        jax.effects_barrier()
        assert sum(rows) == float(along["evaluations"][0]) and set(rows) == each
        assert settings.evaluations is None


@pytest.mark.parity
def test_it_agrees_with_small_fixed_steps_under_guidance():
    """Also along the way, and in the interval's ends, where the velocity jumps."""
    guidance = Guidance(2.5, 0.3, 0.8)
    # A fixed step is guided if it starts in the interval: the one from 0.3 would be.
    fine, path = run(Sampler("midpoint", 400, guidance=Guidance(2.5, 0.301, 0.8)), labelled)
    settings = Sampler("dopri5", 8, guidance=guidance, rtol=1e-5)
    z, along = run(settings, labelled)
    np.testing.assert_allclose(z, fine, atol=2e-4)
    assert along["radius"].shape == (9,)
    np.testing.assert_allclose(along["radius"], path["radius"][::50], atol=1e-3)
    np.testing.assert_allclose(run(settings, labelled, slice(2, 4), 2.5)[0], z[2:4], atol=2e-6)
    ended, _ = run(Sampler("dopri5", 8, t_end=0.5, rtol=1e-5), labelled)
    half, _ = run(Sampler("midpoint", 200, t_end=0.5), labelled)
    np.testing.assert_allclose(ended, half, atol=2e-4)


@pytest.mark.parity
def test_a_sample_that_cannot_be_finished_is_marked():
    def wrong(z, t, labels):
        return network(z, t, labels) * jnp.where(labels == 4, jnp.nan, 1.0).reshape(-1, 1, 1, 1)

    _, along = run(Sampler("dopri5"), wrong)
    assert np.isnan(along["evaluations"]).tolist() == [False, True, False, False, False]


def test_what_dopri5_needs(monkeypatch):
    with pytest.raises(ValueError, match="linear paths from Gaussian noise alone"):
        sample(network, TokenSphere(2.0), NOISE, LABELS, 9, Sampler("dopri5"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = refusal_of(sample, network, Euclidean(), NOISE, LABELS, 9, Sampler("dopri5"))
    assert "needs the package diffrax: pip install 'sphere_jax[adaptive]'" in words


@pytest.mark.parity
def test_the_states_on_the_way_have_the_radius_of_the_path():
    """Over three intervals, one of them without a recorded time."""
    settings, space = Sampler("dopri5", 4, guidance=Guidance(2.5, 0.3, 0.45)), Euclidean()
    z, along = run(settings, labelled)
    end, passed = sample(labelled, space, NOISE, LABELS, 9, settings, states=True)
    states = passed["states"]
    assert states.shape == (5, *NOISE.shape) and np.array_equal(states[-1], end)
    np.testing.assert_allclose(states[0], NOISE, atol=1e-6)
    np.testing.assert_allclose(end, z, atol=1e-5)
    radii = [jnp.mean(space.relative_radius(state)) for state in states]
    np.testing.assert_allclose(radii, along["radius"], rtol=1e-4)
