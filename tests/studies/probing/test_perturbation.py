"""Sizes of the perturbations: equal displacements, unchanged norms, the angle of noise."""

import math

import jax
import numpy as np
import pytest

from sphere_jax.studies.probing import perturbation


@pytest.fixture(scope="module")
def latents():
    """(6, 4, 4, 16) and noise of that shape."""
    return jax.random.normal(jax.random.key(0), (2, 6, 4, 4, 16))


def norms(z):
    return np.linalg.norm(np.asarray(z, np.float64), axis=-1)


@pytest.mark.parametrize("eta", perturbation.ETAS)
def test_both_jitters_move_a_token_equally_far(latents, eta):
    z, noise = latents
    radial = perturbation.radial_jitter(z, noise, eta)
    angular = perturbation.angular_jitter(z, noise, eta)
    for moved in (radial, angular):
        np.testing.assert_allclose(norms(moved - z), eta * norms(z), rtol=1e-4)
    np.testing.assert_allclose(norms(angular), norms(z), rtol=1e-5)
    longer = norms(radial) > norms(z)
    assert 0.3 < longer.mean() < 0.7  # by lot
    factor = norms(radial) / norms(z)
    np.testing.assert_allclose(factor, np.where(longer, 1 + eta, 1 - eta), rtol=1e-4)


def test_fixed_norms(latents):
    z = latents[0]
    fixed = perturbation.fixed_norm(z, 3.0)
    np.testing.assert_allclose(norms(fixed), 3.0, rtol=1e-5)
    assert np.asarray(perturbation.mean_angle(z, fixed)).max() < 1e-3


def test_noise_on_directions_turns_as_published():
    """0.1 a channel of 1024 is 72.6 degrees, and the equal noise of 16 channels nearly that."""
    for d, within in ((1024, 0.3), (16, 3.0)):
        z, noise = jax.random.normal(jax.random.key(1), (2, 2, 8, 8, d))
        turned = perturbation.direction_noise(z, noise, perturbation.equal_turn(d))
        np.testing.assert_allclose(norms(turned), norms(z), rtol=1e-5)
        assert np.asarray(perturbation.mean_angle(z, turned)) == pytest.approx(72.6, abs=within)
    assert perturbation.equal_turn(1024) == pytest.approx(0.1)
    tangent = math.tan(math.radians(72.6))
    assert perturbation.equal_turn(4) * math.sqrt(3) == pytest.approx(tangent, rel=5e-3)
