"""Every operation of docs/systems/shared.md#geometry against float64 closed forms, from 1e-7 rad to
the antipode."""

import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphere_jax.geometry import sphere as eager

# The functions under test, each compiled whole (eager calls compile every operation).
sphere = SimpleNamespace(
    **{
        name: jax.jit(function)
        for name, function in inspect.getmembers(eager, inspect.isfunction)
        if not name.startswith("_") and name not in ("in_float32", "uniform")
    }
)
ANGLES = [1e-7, 1e-5, 1e-3, 1e-2, 0.1, 0.7, np.pi / 2, 2.5, 3.1, np.pi - 1e-2]
NEARLY = [*ANGLES, np.pi - 3e-3]
ANTIPODES = [*(np.pi - np.geomspace(1.3e-3, 1e-9, 10)), np.pi]  # as many: one compilation
each_dimension = pytest.mark.parametrize("d", [2, 33])  # a circle; a sphere no field can comb


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pairs(thetas, d, n=8, seed=0):
    """Float32 unit vectors `(T, n, d)`, thetas apart, and the same vectors in float64."""
    theta = np.reshape(thetas, (-1, 1, 1))
    u, q = np.random.default_rng(seed).normal(size=(2, n, d))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    q -= np.sum(u * q, -1, keepdims=True) * u
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    w = np.cos(theta) * u + np.sin(theta) * q
    u, w = np.broadcast_to(u, w.shape).astype(np.float32), w.astype(np.float32)
    exact = [x.astype(np.float64) for x in (u, w)]
    return (u, w), [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in exact]


def norm64(x):
    return np.linalg.norm(np.asarray(x, np.float64), axis=-1)


def angle64(u, w):
    return 2 * np.arctan2(norm64(u - w), norm64(u + w))


def slerp64(u, w, t):
    theta = angle64(u, w)[..., None]
    return (np.sin((1 - t) * theta) * u + np.sin(t * theta) * w) / np.sin(theta)


def velocity64(u, w, t):
    theta = angle64(u, w)[..., None]
    return theta * (np.cos(t * theta) * w - np.cos((1 - t) * theta) * u) / np.sin(theta)


def nlerp64(u, w, t):
    c = (1 - t) * u + t * w
    return c / np.linalg.norm(c, axis=-1, keepdims=True)


def close(actual, expected, thetas, times=1.0):
    """Equal to `times` the error that float32 ends allow at each of the angles on the first axis.

    Ends near the antipode hardly name a great circle, so the bound grows as 1 / (pi - theta).
    """
    error = np.abs(np.asarray(actual, np.float64) - expected)
    worst = np.max(error.reshape(len(thetas), -1), axis=1)
    bound = times * (5e-7 + 5e-7 / np.maximum(np.pi - np.asarray(thetas), 1e-3))
    assert np.all(worst <= bound), dict(zip(thetas, zip(worst, bound, strict=True), strict=True))


# --- norms, angles, sinc -----------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 33, 1024])
def test_angle(d):
    (u, w), exact = pairs(NEARLY + ANTIPODES, d)
    np.testing.assert_allclose(sphere.angle(u, w), angle64(*exact), atol=2e-7, rtol=2e-7)
    np.testing.assert_allclose(
        sphere.distance(u, w, 32.0), 32.0 * angle64(*exact), atol=1e-5, rtol=2e-7
    )
    assert np.all(sphere.angle(u, u) < 1e-14)


def test_sinc_and_its_derivative():
    x = np.concatenate([[0.0], np.logspace(-8, 0.5, 200), [0.2499999, 0.25, 0.2500001]])
    x = np.concatenate([-x, x]).astype(np.float32)
    y = np.where(x == 0, 1.0, x.astype(np.float64))
    value = np.where(x == 0, 1.0, np.sin(y) / y)
    series = -y / 3 + y**3 / 30 - y**5 / 840
    quotient = (y * np.cos(y) - np.sin(y)) / y**2
    slope = np.where(x == 0, 0.0, np.where(np.abs(y) < 1e-2, series, quotient))
    np.testing.assert_allclose(sphere.sinc(x), value, rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(jax.vmap(jax.grad(sphere.sinc))(x), slope, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 32.0, 1e4])
def test_normalize_is_a_projection(radius):
    z = 7.0 * gaussian(64, 32)
    once = sphere.normalize(z, radius)
    np.testing.assert_allclose(norm64(once), radius, rtol=1e-6)
    np.testing.assert_allclose(sphere.normalize(once, radius), once, rtol=1e-6)
    assert not np.any(sphere.normalize(jnp.zeros((2, 3)), radius))


def test_spherify_gives_rms_one_over_all_but_the_batch():
    z = 3.0 + gaussian(4, 32, 32, 64)
    rms = np.sqrt(np.mean(np.asarray(sphere.spherify(z), np.float64) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(rms, 1.0, rtol=1e-6)
    assert not np.any(sphere.spherify(jnp.zeros((2, 3, 3, 4))))


def test_uniform_has_the_moments_of_the_sphere():
    z = np.asarray(eager.uniform(jax.random.key(0), (40000, 4), 2.0), np.float64)
    np.testing.assert_allclose(norm64(z), 2.0, rtol=1e-6)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=0.03)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(4), atol=0.03)


def test_everything_is_float32_inside():
    (u, w), _ = pairs(NEARLY, 33)
    u, w = jnp.asarray(u, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
    lifted = sphere.slerp(u.astype(jnp.float32), w.astype(jnp.float32), 0.3)
    np.testing.assert_allclose(sphere.slerp(u, w, 0.3), lifted, atol=2e-7)  # a bf16 bit: 4e-3
    for result in (sphere.angle(u, w), sphere.normalize(u, 3.0), sphere.log(u, w), lifted):
        assert result.dtype == jnp.float32


# --- tangent space -----------------------------------------------------------------------------


def test_tangent_and_radial_are_orthogonal_parts():
    (u, _), _ = pairs([0.7] * 11, 33)
    v = gaussian(*u.shape, seed=1)
    v += 1e4 * u  # a radial part that hides the tangent one from a single pass
    tangent = np.asarray(sphere.tangent(u, v), np.float64)
    assert np.max(np.abs(np.sum(u * tangent, -1))) < 1e-6 * np.max(norm64(tangent))
    np.testing.assert_allclose(tangent + sphere.radial(u, v), v, atol=1e-2)  # 1e-6 of |v|


@each_dimension
def test_exp_and_log_are_inverse(d):
    (u, w), (u64, w64) = pairs(NEARLY, d)
    v = sphere.log(u, w)
    close(norm64(v), angle64(u64, w64), NEARLY, 2)
    close(np.sum(u64 * v, -1), 0.0, NEARLY, 2)
    close(sphere.exp(u, v), w64, NEARLY)
    close(sphere.log(u, sphere.exp(u, v)), v, NEARLY, 10)


def test_exp_turns_by_its_argument_and_retract_by_its_arctangent():
    (u, w), _ = pairs([1.0] * 11, 33)
    direction = sphere.normalize(sphere.log(u, w))
    for h in (0.03, 0.1, 0.3, 1.57):
        turned, short = (
            sphere.angle(u, move(u, h * direction)) for move in (sphere.exp, sphere.retract)
        )
        np.testing.assert_allclose(turned, h, rtol=3e-6)
        np.testing.assert_allclose(short, np.arctan(h), rtol=3e-6)
    np.testing.assert_allclose(sphere.exp(u, 2 * np.pi * direction), u, atol=1e-6)
    np.testing.assert_allclose(sphere.exp(u, jnp.zeros_like(u)), u, atol=1e-7)


@each_dimension
def test_transport_is_an_isometry_along_the_geodesic(d):
    (u, w), (u64, w64) = pairs(NEARLY, d)
    a, b = gaussian(2, *u.shape, seed=1)
    a, b = (sphere.normalize(sphere.tangent(u, x)) for x in (a, b))
    a_w, b_w = sphere.transport(u, w, a), sphere.transport(u, w, b)
    np.testing.assert_allclose(norm64(a_w), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.sum(a_w * b_w, -1), np.sum(a * b, -1), atol=2e-6)
    close(np.sum(w64 * a_w, -1), 0.0, NEARLY)
    close(sphere.transport(u, w, sphere.log(u, w)), -sphere.log(w, u), NEARLY, 10)
    a64, dot = np.asarray(a, np.float64), np.sum(u64 * w64, -1, keepdims=True)
    closed = a64 - np.sum(w64 * a64, -1, keepdims=True) / (1 + dot) * (u64 + w64)
    close(a_w, closed, NEARLY, 3)


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9, 1.0])
@each_dimension
def test_slerp_and_its_velocity(d, t):
    (u, w), (u64, w64) = pairs(NEARLY, d)
    z, v = sphere.slerp(u, w, t), sphere.slerp_velocity(u, w, t)
    close(z, slerp64(u64, w64, t), NEARLY)
    close(v, velocity64(u64, w64, t), NEARLY, 5)
    np.testing.assert_allclose(norm64(z), 1.0, atol=1e-6)
    close(np.sum(np.asarray(z, np.float64) * v, -1), 0.0, NEARLY, 5)
    close(sphere.exp(z, (1 - t) * v), w64, NEARLY, 5)  # one step along the velocity arrives
    if t in (0.0, 1.0):
        close(z, (u64, w64)[int(t)], NEARLY)


@pytest.mark.parametrize("kind", ["slerp", "nlerp"])
def test_the_velocity_is_the_derivative_of_the_path(kind):
    thetas, h = [*ANGLES[:8], 0.3, 1.0, 2.0], 1e-5
    (u, w), exact = pairs(thetas, 33)
    path, velocity = getattr(sphere, kind), getattr(sphere, kind + "_velocity")
    path64 = {"slerp": slerp64, "nlerp": nlerp64}[kind]
    derive = jax.jit(lambda t: jax.jvp(lambda t: path(u, w, t), (t,), (1.0,))[1])
    for t in (0.0, 0.3, 0.5, 1.0):
        np.testing.assert_allclose(velocity(u, w, t), derive(t), atol=3e-6)
        difference = (path64(*exact, t + h) - path64(*exact, t - h)) / (2 * h)
        np.testing.assert_allclose(velocity(u, w, t), difference, atol=3e-6)


def test_nlerp_runs_along_slerp_at_another_speed():
    (u, w), _ = pairs([2.0] * 11, 33)
    for t in (0.1, 0.4):
        z = sphere.nlerp(u, w, t)
        turned = sphere.angle(u, z)
        np.testing.assert_allclose(turned + sphere.angle(z, w), sphere.angle(u, w), atol=2e-6)
        assert np.all(turned < t * sphere.angle(u, w))  # slow at the ends, fast in the middle
    np.testing.assert_allclose(sphere.nlerp(u, w, 0.5), sphere.slerp(u, w, 0.5), atol=1e-6)


def test_times_may_differ_along_the_leading_axes():
    u, w = (x[0] for x in pairs([1.0], 8)[0])
    t = np.linspace(0, 1, len(u)).astype(np.float32)
    alone = jax.vmap(sphere.slerp)(u, w, t)
    np.testing.assert_allclose(sphere.slerp(u, w, t), alone, atol=2e-7)


# --- antipodes and gradients -------------------------------------------------------------------


@each_dimension
def test_between_antipodes_the_fixed_great_circle_is_used(d):
    (u, w), _ = pairs(ANTIPODES, d)
    q = np.asarray(sphere.fixed_tangent(u))
    np.testing.assert_allclose(np.sum(u * q, -1), 0.0, atol=1e-6)
    np.testing.assert_allclose(norm64(q), 1.0, atol=1e-6)
    for t in (0.0, 0.3, 0.5, 1.0):
        circle = np.cos(np.pi * t) * u + np.sin(np.pi * t) * q
        onward = np.pi * (np.cos(np.pi * t) * q - np.sin(np.pi * t) * u)
        for path in (sphere.slerp, sphere.nlerp):
            np.testing.assert_allclose(path(u, w, t), circle, atol=1e-6)
        for velocity in (sphere.slerp_velocity, sphere.nlerp_velocity):
            np.testing.assert_allclose(velocity(u, w, t), onward, atol=5e-6)
    np.testing.assert_allclose(sphere.log(u, w), np.pi * q, atol=1e-6)
    np.testing.assert_allclose(sphere.transport(u, w, q), -q, atol=1e-6)
    np.testing.assert_allclose(sphere.slerp(u, w, 1.0), w, atol=eager.ANTIPODAL)


def test_just_before_the_antipode_paths_still_end_where_they_should():
    (u, w), _ = pairs([np.pi - 2 * eager.ANTIPODAL] * 11, 33)
    np.testing.assert_allclose(sphere.slerp(u, w, 1.0), w, atol=1e-4)
    np.testing.assert_allclose(sphere.nlerp(u, w, 1.0), w, atol=1e-6)


OPERATIONS = {
    "angle": sphere.angle,
    "log": sphere.log,
    "slerp": lambda u, w: sphere.slerp(u, w, 0.3),
    "slerp_velocity": lambda u, w: sphere.slerp_velocity(u, w, 0.3),
    "nlerp": lambda u, w: sphere.nlerp(u, w, 0.5),
    "nlerp_velocity": lambda u, w: sphere.nlerp_velocity(u, w, 0.5),
    "exp": lambda u, w: sphere.exp(u, sphere.tangent(u, w)),
    "exp of zero": lambda u, w: sphere.exp(u, 0.0 * w),
    "retract": lambda u, w: sphere.retract(u, sphere.tangent(u, w)),
    "transport": lambda u, w: sphere.transport(u, w, sphere.tangent(u, jnp.ones_like(u))),
    "rotate_away": lambda u, w: sphere.rotate_away(u, w, 0.1),
    "angular_noise": lambda u, w: sphere.angular_noise(u, w, 1.4),
    "rotation_noise": lambda u, w: sphere.rotation_noise(u, w, 1.4),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_gradients_are_finite_everywhere(name):
    """At coincident points, antipodes, zero vectors, coordinate axes, and next to all of them."""
    near = pairs(NEARLY + ANTIPODES, 8, n=4)[0]
    u = near[0][0]
    cases = [[x.reshape(-1, 8) for x in near]]
    axes = np.eye(8, dtype=np.float32)[:4]
    cases += [(u, u), (u, -u), (0 * u, u), (u, 0 * u), (0 * u, 0 * u), (axes, axes), (axes, -axes)]
    u, w = (np.concatenate(side) for side in zip(*cases, strict=True))

    def total(u, w):
        return jnp.sum(OPERATIONS[name](u, w) * jnp.cos(jnp.arange(8.0) if name != "angle" else 0))

    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(total, (0, 1))))(u, w)
    assert np.all(np.isfinite(value))
    assert all(np.all(np.isfinite(g)) for g in gradient)


# --- noise at an angle -------------------------------------------------------------------------


@pytest.mark.parametrize("d", [64, 1024, 65536])
@pytest.mark.parametrize("degrees", [0.0, 10.0, 45.0, 85.0, 89.0])
def test_angular_noise_turns_by_the_angle(degrees, d):
    v, e = gaussian(2, 32, d)
    v = sphere.normalize(v, np.sqrt(d))
    z = sphere.angular_noise(v, e, np.deg2rad(degrees))
    np.testing.assert_allclose(sphere.safe_norm(z), np.sqrt(d), rtol=2e-6)
    turned = sphere.angle(sphere.normalize(v), sphere.normalize(z))
    atol = 1e-6 if degrees == 0 else 4 / np.sqrt(d)
    np.testing.assert_allclose(turned, np.deg2rad(degrees), atol=atol)
    assert abs(np.mean(turned) - np.deg2rad(degrees)) < 3 / np.sqrt(d)


def test_exact_angle_noise_is_exact():
    (u, w), _ = pairs([1.0] * 11, 33)
    q = sphere.normalize(sphere.tangent(u, w))
    a = np.linspace(0, np.pi, 88).astype(np.float32).reshape(11, 8)
    np.testing.assert_allclose(sphere.angle(u, sphere.exact_angle_noise(u, q, a)), a, atol=5e-7)


def test_rotation_noise_ends_at_its_two_vectors():
    v, e = gaussian(2, 256, 1024)
    v, f = sphere.normalize(v, 32.0), sphere.normalize(e, 32.0)
    np.testing.assert_array_equal(sphere.rotation_noise(v, e, 0.0), v)
    np.testing.assert_allclose(sphere.rotation_noise(v, e, np.pi / 2), f, atol=1e-5)
    a = np.deg2rad(60)
    squared = np.asarray(sphere.safe_norm(sphere.rotation_noise(v, e, a))) ** 2 / 1024
    cosine = np.sum(np.asarray(v) * np.asarray(f), -1) / 1024
    np.testing.assert_allclose(squared - 1, np.sin(2 * a) * cosine, atol=2e-6)


def test_rotate_away_adds_to_the_angle_and_keeps_the_radius():
    (u, z), _ = pairs([1.0] * 11, 33)
    away = sphere.rotate_away(4.0 * z, 4.0 * u, 0.2)
    np.testing.assert_allclose(sphere.safe_norm(away), 4.0, rtol=1e-6)
    np.testing.assert_allclose(sphere.angle(away / 4.0, u), 1.2, atol=1e-6)
    np.testing.assert_array_equal(sphere.rotate_away(u, u, 0.2), u)


# --- properties --------------------------------------------------------------------------------

properties = settings(max_examples=25, deadline=None)
dims, seeds = st.sampled_from([2, 33]), st.integers(0, 2**31 - 1)
times, thetas = st.floats(0.0, 1.0), st.floats(1e-7, 3.1)


@properties
@given(dims, seeds, thetas, times)
def test_slerp_is_symmetric_and_additive(d, seed, theta, t):
    (u, w), _ = pairs([theta] * 11, d, seed=seed)
    z = sphere.slerp(u, w, t)
    close(z, sphere.slerp(w, u, 1 - t), [theta])
    whole = sphere.angle(u, z) + sphere.angle(z, w)
    close(whole, sphere.angle(u, w), [theta], 2)


@properties
@given(dims, seeds)
def test_the_angle_is_a_distance(d, seed):
    a, b, c = gaussian(3, 11, 8, d, seed=seed)
    a, b, c = sphere.normalize(a), sphere.normalize(b), sphere.normalize(c)
    np.testing.assert_array_equal(sphere.angle(a, b), sphere.angle(b, a))
    assert np.all(sphere.angle(a, c) <= sphere.angle(a, b) + sphere.angle(b, c) + 1e-6)


@properties
@given(dims, seeds, thetas)
def test_transport_there_and_back_changes_nothing(d, seed, theta):
    (u, w), _ = pairs([theta] * 11, d, seed=seed)
    v = gaussian(*u.shape, seed=seed)
    v = sphere.tangent(u, v)
    back = sphere.transport(w, u, sphere.transport(u, w, v))
    np.testing.assert_allclose(back, v, atol=1e-5)
