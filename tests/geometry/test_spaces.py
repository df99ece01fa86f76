"""The methods of every space: what holds in all of them, and how they differ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry import (
    Euclidean,
    GlobalSphere,
    Polar,
    ProjectedData,
    ProjectedEuclidean,
    TokenSphere,
    make_space,
)

SHAPE = (4, 3, 8)
SPHERES = [
    TokenSphere(1e-3),
    TokenSphere(1e4, path="nlerp", retraction="renormalize"),
    GlobalSphere(),
    GlobalSphere(path="nlerp", retraction="renormalize"),
]
FLAT = [
    Euclidean(),
    Polar(),
    Polar(whole=True),
    ProjectedData(3.0),
    ProjectedEuclidean(3.0),
    ProjectedEuclidean(None),
]
SPACES = SPHERES + FLAT


@functools.cache
def _jitted(space, method):
    return jax.jit(getattr(space, method))


class Jitted:
    """A space whose methods are compiled once."""

    def __init__(self, space):
        self.space = space

    def __getattr__(self, method):
        found = getattr(self.space, method)
        return _jitted(self.space, method) if callable(found) else found


def draw(space):
    """Data, noise and a velocity of the space's own scale, each `(5, *SHAPE)`."""
    z0, z1, v = np.random.default_rng(0).normal(size=(3, 5, *SHAPE)).astype(np.float32)
    z0, z1 = Jitted(space).project(0.3 + z0), Jitted(space).prior(z1)
    return z0, z1, v * np.linalg.norm(z1, axis=-1, keepdims=True) / np.sqrt(SHAPE[-1])


def scale(z):
    return float(np.max(np.abs(z)))


def each(spaces):
    return pytest.mark.parametrize("space", spaces, ids=str)


@each(SPACES)
def test_projection_is_idempotent_and_the_prior_lies_in_the_space(space):
    z0, z1, _ = draw(space)
    space = Jitted(space)
    np.testing.assert_allclose(space.project(z0), z0, rtol=2e-6)
    if not isinstance(space.space, ProjectedData):  # whose noise is raw
        np.testing.assert_allclose(space.project(z1), z1, rtol=2e-6)
    assert z0.dtype == z1.dtype == jnp.float32
    assert space.norm_error(z1) < 1e-5


@each(SPACES)
def test_paths_join_data_to_noise_and_u_t_is_their_derivative(space):
    z0, z1, _ = draw(space)
    space = Jitted(space)
    t = jnp.array([0.0, 1.0, 0.2, 0.5, 0.9])
    z_t, u_t = space.interpolate(z0, z1, t)
    _, derivative = jax.jvp(lambda t: space.interpolate(z0, z1, t)[0], (t,), (jnp.ones(5),))
    np.testing.assert_allclose(z_t[0], z0[0], atol=2e-6 * scale(z0))
    np.testing.assert_allclose(z_t[1], z1[1], atol=2e-6 * scale(z1))
    np.testing.assert_allclose(u_t, derivative, atol=5e-6 * scale(u_t))
    if space.spherical:
        assert space.norm_error(z_t) < 1e-6
        assert scale(space.split(z_t, u_t)[1]) < 5e-6 * scale(u_t)


@each([TokenSphere(1e-3), Euclidean()])
def test_one_time_for_all_or_one_for_each_sample(space):
    z0, z1, v = draw(space)
    space = Jitted(space)
    for one, many in zip(
        space.interpolate(z0, z1, 0.3), space.interpolate(z0, z1, jnp.full(5, 0.3)), strict=True
    ):
        np.testing.assert_allclose(one, many, rtol=1e-6, atol=1e-6 * scale(one))
    step = space.step(z0, v, jnp.full(5, -0.1))
    np.testing.assert_allclose(space.step(z0, v, -0.1), step, atol=1e-6 * scale(z0))


@each(SPACES)
def test_split_gives_orthogonal_parts_of_the_velocity(space):
    z, _, v = draw(space)
    space = Jitted(space)
    tangent, radial = space.split(z, v)
    np.testing.assert_allclose(tangent + radial, v, atol=2e-6 * scale(v))
    np.testing.assert_array_equal(tangent, space.tangent(z, v))
    inner = np.sum(z * tangent, axis=(1, 2, 3))
    if space.spherical:
        assert scale(inner) < 1e-4 * scale(z) * scale(v)
        np.testing.assert_allclose(space.split(z, z)[1], z, rtol=1e-5, atol=1e-6 * scale(z))
    else:
        assert not np.any(radial)


@each(SPACES)
def test_steps(space):
    z, _, v = draw(space)
    space = Jitted(space)
    np.testing.assert_allclose(space.step(z, v, 0.0), z, atol=1e-6 * scale(z))
    h = 1e-3  # a short step moves along the tangent part of v
    moved = (space.step(z, v, h) - z) / h
    np.testing.assert_allclose(moved, space.tangent(z, v), atol=2e-2 * scale(v))
    if space.spherical:
        assert space.norm_error(space.step(z, v, 0.7)) < 1e-6


@each([space for space in SPHERES if space.path == "slerp" and space.retraction == "exp"])
def test_one_exponential_step_along_the_true_velocity_arrives(space):
    z0, z1, _ = draw(space)
    space = Jitted(space)
    for t in (0.0, 0.4, 1.0):
        z_t, u_t = space.interpolate(z0, z1, t)
        np.testing.assert_allclose(space.step(z_t, u_t, -t), z0, atol=3e-6 * scale(z0))
        np.testing.assert_allclose(space.step(z_t, u_t, 1 - t), z1, atol=3e-6 * scale(z1))


@each(SPACES)
def test_transport_keeps_lengths_and_tangency(space):
    a, b, v = draw(space)
    space = Jitted(space)
    carried = space.transport(a, b, v)
    lengths = [np.linalg.norm(np.asarray(x)) for x in (carried, space.tangent(a, v))]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    np.testing.assert_allclose(space.tangent(b, carried), carried, atol=1e-5 * scale(v))
    np.testing.assert_allclose(space.transport(a, a, v), space.tangent(a, v), atol=2e-6 * scale(v))


@each(SPACES)
def test_distance_is_a_distance_with_a_finite_gradient(space):
    a, b, _ = draw(space)
    space = Jitted(space)
    assert np.all(np.asarray(space.distance(a, a)) < 1e-6 * scale(a))
    np.testing.assert_allclose(space.distance(a, b), space.distance(b, a), rtol=1e-6)
    assert space.distance(a, b).shape == (5,)
    for other in (a, b, -a):
        gradient = jax.grad(lambda x, y=other: jnp.sum(space.distance(x, y)))(a)
        assert np.all(np.isfinite(gradient))
    if space.spherical:
        radius = getattr(space, "radius", np.prod(SHAPE) ** 0.5)
        np.testing.assert_allclose(space.distance(a, -a), np.pi * radius, rtol=1e-5)


@each([TokenSphere(1e-3)])
def test_methods_agree_under_jit(space):
    z0, z1, v = draw(space)
    t = jnp.linspace(0, 1, 5)
    for method, args in [
        (space.project, (v,)),
        (space.interpolate, (z0, z1, t)),
        (space.split, (z0, v)),
        (space.step, (z0, v, t)),
        (space.transport, (z0, z1, v)),
        (space.distance, (z0, z1)),
    ]:
        for eager, jitted in zip(
            jax.tree.leaves(method(*args)), jax.tree.leaves(jax.jit(method)(*args)), strict=True
        ):
            np.testing.assert_allclose(eager, jitted, atol=5e-6 * (scale(eager) + 1e-30))


@each(SPHERES)
def test_a_thousand_random_steps_keep_the_radius(space):
    z, _, v = draw(space)
    space = Jitted(space)
    turn = jax.jit(lambda z, v: space.step(z, jnp.roll(v, 1, axis=-1) + 0.1 * z, 0.03))

    def body(z, i):
        z = turn(z, jnp.roll(v, i, axis=-1))
        return z, space.norm_error(z)

    _, errors = jax.lax.scan(body, z, jnp.arange(1000))
    assert np.max(errors) < 1e-5


@each([TokenSphere(1.0), GlobalSphere(), Euclidean()])
def test_bfloat16_latents_are_lifted_before_any_arithmetic(space):
    z0, z1, _ = (x.astype(jnp.bfloat16) for x in draw(space))
    space = Jitted(space)
    z_t, u_t = space.interpolate(z0, z1, jnp.full(5, 0.3))
    assert z_t.dtype == u_t.dtype == space.step(z0, z1, 0.1).dtype == jnp.float32
    assert space.norm_error(z_t) < 1e-6  # although bfloat16 ends are 1e-3 off


def test_the_linear_path_leaves_the_sphere_and_its_target_is_half_radial():
    """docs/systems/spherical_flow.md#probes: rho = 0.50, 0.39, 0.20, 0 at t = 0, 0.1, 0.25, 0.5;
    the middle at 0.7071."""
    z0, z1 = np.zeros((2, 1, 1, 1, 4), np.float32)
    z0[..., 0] = z1[..., 1] = 2.0
    space = ProjectedEuclidean(2.0)
    for t, share in [(0.0, 0.5), (0.1, 0.39), (0.25, 0.2), (0.5, 0.0), (0.75, 0.2), (1.0, 0.5)]:
        z_t, u_t = space.interpolate(z0, z1, t)
        radial = TokenSphere(2.0).split(z_t, u_t)[1]
        np.testing.assert_allclose(np.sum(radial**2) / np.sum(u_t**2), share, atol=5e-3)
    middle, _ = space.interpolate(z0, z1, 0.5)
    np.testing.assert_allclose(space.relative_radius(middle), np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_polar_interpolates_norms_and_directions_apart(whole):
    z0, z1, _ = draw(Euclidean())
    space, t = Polar(whole=whole), 0.3
    rows = (5, 1, -1) if whole else (5, 12, 8)
    a, b, z_t = (np.float64(z).reshape(rows) for z in (z0, z1, space.interpolate(z0, z1, t)[0]))
    r0, r1 = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(z_t, axis=-1), 0.7 * r0 + 0.3 * r1, rtol=1e-5)
    turned = np.arccos((a * z_t).sum(-1) / r0 / np.linalg.norm(z_t, axis=-1))
    np.testing.assert_allclose(turned, t * np.arccos((a * b).sum(-1) / r0 / r1), rtol=1e-4)


def test_projected_data_keeps_the_noise_raw():
    z0, z1, _ = draw(Euclidean())
    space = ProjectedData(3.0)
    np.testing.assert_array_equal(space.prior(z1), z1)
    np.testing.assert_allclose(np.linalg.norm(space.project(z0), axis=-1), 3.0, rtol=1e-5)


def test_the_global_sphere_keeps_the_whole_and_not_the_tokens():
    z0, z1, _ = draw(GlobalSphere())
    z_t, _ = GlobalSphere().interpolate(z0, z1, 0.5)
    np.testing.assert_allclose(np.mean(np.asarray(z_t) ** 2, axis=(1, 2, 3)), 1.0, rtol=1e-5)
    tokens = np.linalg.norm(z_t, axis=-1) / np.sqrt(SHAPE[-1])
    assert np.std(tokens) > 0.05


def test_norm_error_shows_a_zero_token():
    z, _, _ = draw(TokenSphere(3.0))
    z = TokenSphere(3.0).project(z.at[0, 0, 0].set(0.0))
    assert TokenSphere(3.0).norm_error(z) > 0.99


def test_make_space():
    assert make_space("linear", "token", 0.0, SHAPE) == Euclidean()
    assert make_space("slerp", "token", 0.0, (16, 16, 1024)) == TokenSphere(32.0)
    assert make_space("shell_linear", "token", 2.0, SHAPE) == ProjectedEuclidean(2.0)
    assert make_space("data_projected", "token", 2.0, SHAPE) == ProjectedData(2.0)
    assert make_space("polar", "token", 0.0, SHAPE) == Polar()
    assert make_space("polar", "global", 0.0, SHAPE) == Polar(whole=True)
    assert make_space("shell_linear", "global", 0.0, SHAPE) == ProjectedEuclidean(None)
    assert make_space("nlerp", "global", 0.0, SHAPE, "renormalize") == GlobalSphere(
        path="nlerp", retraction="renormalize"
    )
    assert hash(TokenSphere(2.0)) == hash(make_space("slerp", "token", 2.0, SHAPE))


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("curved", "token", 0.0, SHAPE), "path"),
        (("slerp", "both", 0.0, SHAPE), "sphere"),
        (("slerp", "token", -1.0, SHAPE), "radius"),
        (("slerp", "token", float("nan"), SHAPE), "radius"),
        (("slerp", "global", 2.0, SHAPE), "RMS 1"),
        (("slerp", "token", 0.0, (4, 4, 1)), "channels"),
        (("slerp", "token", 0.0, SHAPE, "jump"), "retraction"),
    ],
)
def test_make_space_refuses(arguments, named):
    with pytest.raises(ValueError, match=named):
        make_space(*arguments)
