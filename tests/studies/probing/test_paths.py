"""Norms and radial shares against their closed forms (docs/systems/spherical_flow.md#probes)."""

import math

import jax
import numpy as np
import pytest

from sphere_jax.geometry import sphere
from sphere_jax.studies.probing import paths

D = 32


@pytest.fixture(scope="module")
def ends():
    """Orthogonal ends of one norm, sqrt(d): (8, 4, 4, d) each."""
    a, b = jax.random.normal(jax.random.key(0), (2, 8, 4, 4, D))
    u = sphere.normalize(a)
    return u * math.sqrt(D), sphere.normalize(sphere.tangent(u, b), math.sqrt(D))


def along(kind, ends, data=None, noise=None):
    R = math.sqrt(D)
    at = paths.ends(kind, data or paths.Shell(R, 1.0), noise or paths.Shell(R, 0.5), D)
    found = paths.along(paths.spaces(D)[kind], *ends, at)
    return {name: np.asarray(x) for name, x in found.items()}


@pytest.mark.parametrize("kind", [paths.RAW, paths.SHELL])
def test_the_straight_path_between_orthogonal_ends(kind, ends):
    found = along(kind, ends)
    assert found["share"].shape == (8, len(paths.TIMES))
    share = found["share"].mean(0)
    for time, published in ((0.0, 0.5), (0.1, 0.39), (0.25, 0.2), (0.5, 0.0)):
        i = int(np.argmin(abs(paths.TIMES - time)))
        np.testing.assert_allclose(share[i], published, atol=5e-3)
        np.testing.assert_allclose(share[-1 - i], published, atol=5e-3)
    middle = len(paths.TIMES) // 2
    np.testing.assert_allclose(found["norm"][:, middle], math.sqrt(D / 2), rtol=1e-5)
    gap = (1 - math.sqrt(0.5)) * math.sqrt(D)  # over the wider shell's sigma, which is 1
    np.testing.assert_allclose(found["delta"][:, middle], gap, rtol=1e-4)


def test_slerp_stays_on_its_shell_and_has_no_radial_part(ends):
    found = along(paths.SLERP, ends)
    np.testing.assert_allclose(found["norm"], math.sqrt(D), rtol=1e-6)
    assert found["delta"].max() < 1e-4 and found["share"].max() < 1e-9


def test_ends_of_unequal_norm(ends):
    """At the noise end `1 / (1 + 0.35^2)`, as published for REPA-E FLUX.1."""
    z0, z1 = ends
    found = along(paths.RAW, (0.35 * z0, z1))
    np.testing.assert_allclose(found["share"][:, -1], 1 / (1 + 0.35**2), rtol=1e-4)
    np.testing.assert_allclose(found["share"][:, 0], 0.35**2 / (1 + 0.35**2), rtol=1e-4)


def test_shells():
    z = np.random.default_rng(0).standard_normal((50, 8, 8, D))
    shell = paths.shell(z)
    assert shell.radius == pytest.approx(math.sqrt(D - 0.5), rel=0.01)
    assert shell.variation == pytest.approx(1 / math.sqrt(2 * D), rel=0.05)
    assert shell.at(2.0).variation == pytest.approx(shell.variation)
    raw = paths.ends(paths.RAW, shell, shell, D)
    assert raw == (shell, shell)
    assert paths.ends(paths.SLERP, shell, shell, D)[0] == shell.at(math.sqrt(D))


def test_the_nearest_shell_counts_in_its_own_sigma():
    shells = paths.Shell(1.0, 0.1), paths.Shell(2.0, 1.0)
    np.testing.assert_allclose(paths.to_nearest(np.array([1.0, 1.1, 1.5]), shells), [0, 0.9, 0.5])
    assert np.isfinite(paths.to_nearest(np.array([1.0, 3.0]), (paths.Shell(1.0, 0.0),) * 2)).all()
