"""Solvers on fields with known flows: their orders, and what each of them follows exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry import Euclidean, GlobalSphere, TokenSphere, sphere
from sphere_jax.sampling import SOLVERS, Sampler, sample, time_grid

D, BATCH = 8, 4
RNG = np.random.default_rng(0)
SPIN = RNG.normal(size=(D, D)) / 2
SPIN -= SPIN.T
PULL = RNG.normal(size=D) / 2
START = RNG.normal(size=(BATCH, 1, 1, D))
START /= np.linalg.norm(START, axis=-1, keepdims=True)


def field(z, t, spherical, xp):
    """A spin whose speed changes in time, and a pull toward a point; tangent on the sphere."""
    v = xp.matmul(z, xp.asarray(SPIN, z.dtype)) * (1.0 + xp.sin(3.0 * t))
    pull = xp.broadcast_to(xp.asarray(PULL, z.dtype), z.shape)
    if spherical:
        pull = pull - xp.sum(pull * z, axis=-1, keepdims=True) * z
    return v + pull


@functools.cache
def reference(spherical, fine=400):
    """The flow from t = 1 to 0 by classical Runge-Kutta in float64."""
    z, h = START.copy(), -1.0 / fine
    f = functools.partial(field, spherical=spherical, xp=np)
    for i in range(fine):
        t = 1.0 + i * h
        a = f(z, t)
        b = f(z + h / 2 * a, t + h / 2)
        c = f(z + h / 2 * b, t + h / 2)
        z = z + h / 6 * (a + 2 * b + 2 * c + f(z + h * c, t + h))
    return z


def solver(rule, space, velocity, longest=64):
    """`(start, steps) -> end`, compiled once for all numbers of steps."""

    @jax.jit
    def run(z, times, steps):
        def step(i, z):
            return rule(velocity, space, z, times[i], times[i + 1])

        return jax.lax.fori_loop(0, steps, step, z)

    def solve(start, steps):
        times = np.zeros(longest + 1, np.float32)
        times[: steps + 1] = time_grid(steps)
        return np.asarray(run(jnp.asarray(start, jnp.float32), times, steps), np.float64)

    return solve


def test_the_reference_is_converged():
    np.testing.assert_allclose(reference(True), reference(True, 800), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(reference(True), axis=-1), 1.0, atol=1e-9)


@pytest.mark.parametrize("name, order", [("euler", 1), ("heun", 2), ("midpoint", 2)])
@pytest.mark.parametrize(
    "space",
    [TokenSphere(1.0), TokenSphere(1.0, retraction="renormalize"), Euclidean()],
    ids=["exp", "renormalize", "euclidean"],
)
def test_order(name, order, space):
    velocity = functools.partial(field, spherical=space.spherical, xp=jnp)
    solve, exact = solver(SOLVERS[name], space, velocity), reference(space.spherical)
    steps = np.array([16, 32, 64])
    errors = [np.sqrt(np.mean((solve(START, n) - exact) ** 2)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.2, (slope, errors)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_attribute_evaluations_counts_the_velocities_of_a_step(name):
    calls = []

    def velocity(z, t):
        calls.append(t)
        return -z

    SOLVERS[name](velocity, Euclidean(), jnp.ones((1, 1, 1, 2)), 1.0, 0.5)
    assert len(calls) == SOLVERS[name].evaluations


def geodesic(space, z0):
    """The velocity that leads every point along its geodesic to `z0` at t = 0."""
    rows = (len(z0), -1, z0.shape[-1]) if isinstance(space, TokenSphere) else (len(z0), 1, -1)
    target = sphere.normalize(z0.reshape(rows))

    def velocity(z, t):
        unit = z.reshape(target.shape)
        radius = sphere.safe_norm(unit)[..., None]
        return (-radius * sphere.log(unit / radius, target) / t).reshape(z.shape)

    return velocity


def ends(space):
    z0, noise = np.random.default_rng(1).normal(size=(2, 3, 2, 2, 16)).astype(np.float32)
    return space.project(z0), noise


@pytest.mark.parametrize("space", [TokenSphere(4.0), GlobalSphere()], ids=["token", "global"])
@pytest.mark.parametrize("settings", [Sampler(steps=1), Sampler(steps=7, shift=8.0)])
def test_exponential_euler_reaches_the_end_of_a_geodesic_in_any_number_of_steps(space, settings):
    z0, noise = ends(space)
    velocity = geodesic(space, z0)
    labels = jnp.zeros(3, jnp.int32)
    z = sample(lambda z, t, y: velocity(z, t[0]), space, noise, labels, 0, settings)
    np.testing.assert_allclose(z, z0, atol=2e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_follows_a_great_circle_at_constant_speed_exactly(name):
    space, (z0, noise) = TokenSphere(4.0), ends(TokenSphere(4.0))
    u, w = sphere.normalize(z0), sphere.normalize(noise)
    q = sphere.normalize(sphere.tangent(u, w))  # the circle's plane is spanned by u and q

    def velocity(z, t):
        return sphere.angle(u, w)[..., None] * (sphere.dot(u, z) * q - sphere.dot(q, z) * u)

    end = solver(SOLVERS[name], space, velocity)(space.prior(noise), 2)
    np.testing.assert_allclose(end, z0, atol=1e-5)


@pytest.mark.parametrize("steps, covered", [(1, 0.64), (4, 0.953), (10, 0.992)])
def test_adding_and_renormalising_falls_short_on_a_quarter_circle(steps, covered):
    """methods.md G: each step turns by atan(h), not h."""
    u, w = np.zeros((2, 1, 1, 1, 2), np.float32)
    u[..., 0] = w[..., 1] = 1.0

    def velocity(z, t):
        return np.pi / 2 * (sphere.dot(u, z) * w - sphere.dot(w, z) * u)

    space = TokenSphere(1.0, retraction="renormalize")
    end = solver(SOLVERS["euler"], space, velocity)(w, steps)
    np.testing.assert_allclose(sphere.angle(w, end) / (np.pi / 2), covered, atol=1e-3)
