"""Solvers on fields with known flows: their orders, and what each of them follows exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry import Euclidean, GlobalSphere, TokenSphere, sphere
from sphere_jax.sampling import (
    SOLVERS,
    Guidance,
    Sampler,
    advance,
    initial_state,
    sample,
    time_grid,
)

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


def solver(rule, space, velocity, longest=64, shift=1.0):
    """`(start, steps) -> end`, compiled once for all numbers of steps."""

    @jax.jit
    def run(z, times, steps):
        def step(i, state):
            return advance(rule, velocity, space, state, times[i], times[i + 1])

        return jax.lax.fori_loop(0, steps, step, initial_state(rule, z))[0]

    def solve(start, steps):
        times = np.zeros(longest + 1, np.float32)
        times[: steps + 1] = time_grid(steps, shift)
        return np.asarray(run(jnp.asarray(start, jnp.float32), times, steps), np.float64)

    return solve


def test_the_reference_is_converged():
    np.testing.assert_allclose(reference(True), reference(True, 800), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(reference(True), axis=-1), 1.0, atol=1e-9)


@pytest.mark.parametrize(
    "name, order, shift",
    [
        ("euler", 1, 1.0),
        ("heun", 2, 1.0),
        ("midpoint", 2, 1.0),
        ("multistep", 2, 1.0),
        ("multistep", 2, 2.0),  # steps of all lengths
    ],
)
@pytest.mark.parametrize(
    "space",
    [TokenSphere(1.0), TokenSphere(1.0, retraction="renormalize"), Euclidean()],
    ids=["exp", "renormalize", "euclidean"],
)
def test_order(name, order, shift, space):
    velocity = functools.partial(field, spherical=space.spherical, xp=jnp)
    solve = solver(SOLVERS[name], space, velocity, shift=shift)
    exact = reference(space.spherical)
    steps = np.array([16, 32, 64])
    errors = [np.sqrt(np.mean((solve(START, int(n)) - exact) ** 2)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.2, (slope, errors)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_attribute_evaluations_counts_the_velocities_of_a_step(name):
    calls = []

    def velocity(z, t):
        calls.append(t)
        return -z

    start = initial_state(SOLVERS[name], jnp.ones((1, 1, 1, 2)))
    advance(SOLVERS[name], velocity, Euclidean(), start, 1.0, 0.5)
    assert len(calls) == SOLVERS[name].evaluations


def test_multistep_by_hand():
    """Adams-Bashforth with steps of 1/2, 1/8 and 3/8 in float64, Euler's first."""
    times, z, before = [1.0, 0.5, 0.375, 0.0], 2.0, None
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        h, v = t_next - t, 3.0 * t - z
        slope = 0.0 if before is None else (v - before[0]) / before[1]
        z, before = z + h * (v + h / 2 * slope), (v, h)
    rule = SOLVERS["multistep"]
    state = initial_state(rule, jnp.full((1, 1, 1, 1), 2.0))
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        state = advance(rule, lambda z, t: 3.0 * t - z, Euclidean(), state, t, t_next)
    np.testing.assert_allclose(state[0].item(), z, rtol=1e-6)


def test_multistep_is_exact_for_velocities_linear_in_time():
    """But for its first step, which is Euler's."""
    rule, times = SOLVERS["multistep"], [1.0, 0.9, 0.5, 0.4, 0.0]
    state = initial_state(rule, jnp.zeros((1, 1, 1, 1)))
    ends = []
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        state = advance(rule, lambda z, t: jnp.full_like(z, 2 * t), Euclidean(), state, t, t_next)
        ends.append(state[0].item())
    exact = [t**2 - 1 for t in times[1:]]
    np.testing.assert_allclose(np.subtract(ends, exact), ends[0] - exact[0], atol=1e-6)
    np.testing.assert_allclose(ends[0], -0.2, rtol=1e-6)


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
@pytest.mark.parametrize(
    "settings", [Sampler(steps=1), Sampler(steps=7, shift=8.0), Sampler("heun", 3, 8.0, 0.01)]
)
def test_exponential_euler_reaches_the_end_of_a_geodesic_in_any_number_of_steps(space, settings):
    z0, noise = ends(space)
    velocity = geodesic(space, z0)
    labels = jnp.zeros(3, jnp.int32)
    z = sample(lambda z, t, y: velocity(z, t[0]), space, noise, labels, 0, settings)
    end = settings.times()[-1]  # 0 but for the last, which stops short of the data
    expected, _ = space.interpolate(z0, space.prior(noise), jnp.full(3, end))
    np.testing.assert_allclose(z, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["euler", "heun", "midpoint", "multistep"])
def test_every_solver_ends_where_its_grid_does(name):
    """With t_end > 0: a straight line at constant speed, cut off at the shifted time."""
    settings = Sampler(name, 4, shift=2.0, t_end=0.1)
    z0, noise = ends(Euclidean())
    z = sample(lambda z, t, y: noise - z0, Euclidean(), noise, jnp.zeros(3, int), 0, settings)
    end = 0.2 / 1.1
    np.testing.assert_allclose(z, (1 - end) * z0 + end * noise, atol=1e-5)


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
    """docs/systems/shared.md#geometry: each step turns by atan(h), not h."""
    u, w = np.zeros((2, 1, 1, 1, 2), np.float32)
    u[..., 0] = w[..., 1] = 1.0

    def velocity(z, t):
        return np.pi / 2 * (sphere.dot(u, z) * w - sphere.dot(w, z) * u)

    space = TokenSphere(1.0, retraction="renormalize")
    end = solver(SOLVERS["euler"], space, velocity)(w, steps)
    np.testing.assert_allclose(sphere.angle(w, end) / (np.pi / 2), covered, atol=1e-3)


@pytest.mark.parametrize("space", [TokenSphere(1.0), Euclidean()], ids=["sphere", "euclidean"])
def test_multistep_keeps_its_order_where_guidance_starts_and_stops(space):
    """Its velocity jumps there, and the last change does not predict the next."""
    flow = functools.partial(field, spherical=space.spherical, xp=jnp)

    def network(z, t, labels):
        return flow(z, t[0]) * jnp.where(labels == 0, 1.0, 0.3).reshape((-1, 1, 1, 1))

    @functools.partial(jax.jit, static_argnums=0)
    def run(settings):
        labels = jnp.zeros(BATCH, jnp.int32)
        return sample(network, space, jnp.asarray(START, jnp.float32), labels, 1, settings)

    guidance = Guidance(3.0, 0.3, 0.8)  # guided from t = 3/4 to 1/4 on all grids below
    exact = run(Sampler("midpoint", 256, guidance=guidance))
    steps = np.array([16, 32, 64])
    errors = [
        np.sqrt(np.mean((run(Sampler("multistep", int(n), guidance=guidance)) - exact) ** 2))
        for n in steps
    ]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope > 1.75, (slope, errors)
