"""The sampler: what it costs, what guidance changes and saves, what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry import Euclidean, GlobalSphere, ProjectedEuclidean, TokenSphere
from sphere_jax.sampling import (
    Guidance,
    Sampler,
    auto_guided_velocity,
    guided_velocity,
    nfe,
    sample,
    sample_keys,
    segments,
    time_grid,
)

NULL, SHAPE = 10, (2, 2, 8)
SPACES = [Euclidean(), ProjectedEuclidean(3.0), TokenSphere(3.0), GlobalSphere()]
LABELS = jnp.array([1, 4, 0, 7, 3], jnp.int32)
NOISE = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)


def each(values, name):
    return pytest.mark.parametrize(name, values, ids=str)


def network(z, t, labels):
    """Some smooth velocity that reads all of its inputs."""
    push = jnp.sin(labels.astype(jnp.float32) + 2.0 * t).reshape((-1, 1, 1, 1))
    return jnp.roll(z, 1, axis=-1) * push + jnp.cos(z) * t.reshape((-1, 1, 1, 1))


def run(space, settings, noise=NOISE, labels=LABELS, network=network, scale=None):
    call = jax.jit(lambda n, y, w: sample(network, space, n, y, NULL, settings, w))
    return np.asarray(call(noise, labels, scale))


# --- guidance ----------------------------------------------------------------------------------


def test_segments_follow_the_interval():
    times = time_grid(10)
    assert segments(times, Guidance()) == [(0, 10, False)]
    assert segments(times, Guidance(2.0)) == [(0, 10, True)]
    assert segments(times, Guidance(2.0, 0.25, 0.65)) == [
        (0, 4, False),
        (4, 8, True),
        (8, 10, False),
    ]
    assert segments(times, Guidance(2.0, 0.01, 0.02)) == [(0, 10, False)]


@each(range(11), "tenths")
def test_a_step_that_starts_at_an_end_of_the_interval_is_in_it(tenths):
    """Times are float32: 0.8 of the grid is above 0.8, 0.7 is below."""
    end, start = tenths / 10, 10 - tenths  # the step that starts at `end`
    above = segments(time_grid(10), Guidance(2.0, end, 1.0))
    assert sum(b - a for a, b, on in above if on) == min(start + 1, 10)
    below = segments(time_grid(10), Guidance(2.0, 0.0, end))
    assert sum(b - a for a, b, on in below if on) == 10 - start


def test_an_interval_has_its_ends_in_order():
    with pytest.raises(ValueError, match="low"):
        Guidance(2.0, 0.7, 0.3)


@each([0.0, 1.0, 2.5], "scale")
def test_guided_velocity_is_one_batched_call(scale):
    shapes = []

    def counted(z, t, labels):
        shapes.append((z.shape, t.shape, labels.shape))
        return network(z, t, labels).astype(jnp.bfloat16)

    t = jnp.linspace(0.1, 0.9, 5)
    v = guided_velocity(counted, NOISE, t, LABELS, NULL, scale)
    assert shapes == [((10, *SHAPE), (10,), (10,))]
    v_c, v_u = (
        network(NOISE, t, y).astype(jnp.bfloat16).astype(jnp.float32)
        for y in (LABELS, jnp.full_like(LABELS, NULL))
    )
    assert v.dtype == jnp.float32
    np.testing.assert_allclose(v, v_u + scale * (v_c - v_u), atol=1e-6)


@each([0, 1, 3, 8], "channels")
def test_the_first_channels_are_guided_and_the_others_keep_their_label(channels):
    t, scale = jnp.linspace(0.1, 0.9, 5), 4.0
    v, v_null, v_weak = (
        np.asarray(f(NOISE, t, y), np.float64)
        for f, y in ((network, LABELS), (network, jnp.full_like(LABELS, NULL)), (weak, LABELS))
    )
    first = slice(None, channels or None)
    for away, found in (
        (v_null, guided_velocity(network, NOISE, t, LABELS, NULL, scale, channels)),
        (v_weak, auto_guided_velocity(network, weak, NOISE, t, LABELS, scale, channels)),
    ):
        expected = v.copy()
        expected[..., first] += (scale - 1) * (v - away)[..., first]
        np.testing.assert_allclose(found, expected, atol=3e-6)


def test_guided_channels_reach_the_samples():
    """Of 8 channels, which the network mixes: 8 is all of them, and so is 0."""
    found = {n: run(TokenSphere(3.0), Sampler(steps=3, guidance=Guidance(4.0, channels=n)))
             for n in (0, 3, 8)}  # fmt: skip
    np.testing.assert_array_equal(found[0], found[8])
    assert np.max(np.abs(found[3] - found[0])) > 0.1
    assert str(Sampler(guidance=Guidance(4.0, channels=3))).endswith("guidance 4 of 3 channels")
    with pytest.raises(ValueError, match="channels"):
        Guidance(2.0, channels=-1)


# --- costs -------------------------------------------------------------------------------------

COSTS = [
    (Sampler("euler", 8), 8),
    (Sampler("heun", 8), 16),
    (Sampler("midpoint", 4, guidance=Guidance(3.0)), 16),
    (Sampler("multistep", 8), 8),
    (Sampler("multistep", 8, guidance=Guidance(3.0, 0.5, 0.9)), 8 + 4),
    (Sampler("euler", 8, guidance=Guidance(1.0)), 8),
    (Sampler("euler", 8, guidance=Guidance(3.0)), 16),
    (Sampler("euler", 8, guidance=Guidance(3.0, 0.5, 0.9)), 8 + 4),
    (Sampler("heun", 8, shift=3.0, guidance=Guidance(3.0, 0.0, 0.5)), 16 + 4),
]


@each(COSTS, "case")
def test_nfe_is_what_the_network_really_runs(case):
    settings, expected = case
    rows = []

    def counted(z, t, labels):
        jax.debug.callback(lambda t: rows.append(len(t)), t)
        return network(z, t, labels)

    run(TokenSphere(3.0), settings, network=counted)
    jax.effects_barrier()
    assert sum(rows) / len(LABELS) == expected == nfe(settings)


def test_a_traced_scale_does_not_recompile():
    traces = []

    def counted(z, t, labels):
        traces.append(None)
        return network(z, t, labels)

    settings = Sampler("heun", 4, guidance=Guidance(2.0, 0.3, 0.8))
    space = TokenSphere(3.0)
    call = jax.jit(lambda w: sample(counted, space, NOISE, LABELS, NULL, settings, w))
    first, seen = call(1.5), len(traces)
    second = call(4.0)
    assert len(traces) == seen and call._cache_size() == 1
    assert np.max(np.abs(first - second)) > 1e-2
    np.testing.assert_allclose(call(2.0), run(space, settings), atol=1e-5)


AUTO = Guidance(2.0, 0.3, 0.8, auto="a weaker run")


def weak(z, t, labels):
    return 0.5 * network(z, 0.9 * t, labels)


def test_auto_guidance_guides_away_from_the_weaker_network():
    """Unguided, guided and again unguided Euler steps by hand; both networks get the labels."""
    settings, z = Sampler(steps=6, guidance=AUTO), NOISE
    times = settings.times()
    for i, t in enumerate(times[:-1]):
        v, v_weak = (f(z, jnp.full(5, t), LABELS) for f in (network, weak))
        guided = 0.3 <= t <= 0.8
        z = z + (times[i + 1] - t) * (v_weak + 2.0 * (v - v_weak) if guided else v)
    call = jax.jit(
        lambda w: sample(network, Euclidean(), NOISE, LABELS, NULL, settings, w, weaker=weak)
    )
    np.testing.assert_allclose(call(2.0), z, atol=1e-5)
    assert np.max(np.abs(call(3.0) - call(2.0))) > 1e-2 and call._cache_size() == 1


def test_auto_guidance_counts_both_networks():
    rows = {network: 0, weak: 0}

    def counted(function):
        def call(z, t, labels):
            rows[function] += len(z)
            return function(z, t, labels)

        return call

    settings = Sampler("heun", 3, guidance=AUTO)
    with jax.disable_jit():
        sample(counted(network), Euclidean(), NOISE, LABELS, NULL, settings, weaker=counted(weak))
    assert sum(rows.values()) == 5 * nfe(settings) and rows[weak] == 5 * 2 * 2  # two guided steps


def test_a_weaker_network_needs_its_settings():
    for settings, given in ((Sampler(steps=2, guidance=AUTO), None), (Sampler(steps=2), weak)):
        with pytest.raises(ValueError, match="go together"):
            sample(network, Euclidean(), NOISE, LABELS, NULL, settings, weaker=given)


def test_a_scale_needs_guidance_in_the_settings():
    with pytest.raises(ValueError, match="guidance"):
        sample(network, Euclidean(), NOISE, LABELS, NULL, Sampler(steps=2), 2.0)


# --- values ------------------------------------------------------------------------------------


@each([Euclidean(), TokenSphere(3.0)], "space")
def test_guidance_of_one_or_outside_its_interval_changes_nothing(space):
    plain = run(space, Sampler(steps=6))
    np.testing.assert_array_equal(run(space, Sampler(steps=6, guidance=Guidance(1.0))), plain)
    never = Sampler(steps=6, guidance=Guidance(5.0, 0.01, 0.02))
    np.testing.assert_array_equal(run(space, never), plain)
    one = Sampler(steps=6, guidance=Guidance(5.0))
    np.testing.assert_allclose(run(space, one, scale=1.0), plain, atol=1e-5)
    assert np.max(np.abs(run(space, one) - plain)) > 1e-2


def test_a_guidance_interval_acts_inside_itself_only():
    """Three unguided, two guided and one unguided Euler step, by hand."""
    settings = Sampler(steps=6, guidance=Guidance(3.0, 0.3, 0.55))
    times = settings.times()
    z, no_label = NOISE, jnp.full_like(LABELS, NULL)
    for i, t in enumerate(times[:-1]):
        now = jnp.full(5, t)
        v = network(z, now, LABELS)
        if i in (3, 4):
            v_u = network(z, now, no_label)
            v = v_u + 3.0 * (v - v_u)
        z = z + (times[i + 1] - t) * v
    np.testing.assert_allclose(run(Euclidean(), settings), z, atol=1e-5)


@pytest.mark.parametrize(
    "space, solver",
    [
        (TokenSphere(3.0), "euler"),
        (GlobalSphere(), "heun"),
        (Euclidean(), "midpoint"),
        (GlobalSphere(), "multistep"),
    ],
)
def test_a_sample_does_not_depend_on_its_batch(space, solver):
    settings = Sampler(solver, 4, guidance=Guidance(2.0, 0.2, 0.9))
    together = run(space, settings)
    apart = run(space, settings, NOISE[2:4], LABELS[2:4])
    np.testing.assert_allclose(apart, together[2:4], atol=2e-6)
    assert together.dtype == np.float32 and np.all(np.isfinite(together))


@pytest.mark.parametrize(
    "space, solver",
    [
        (TokenSphere(32.0), "euler"),
        (TokenSphere(1.0), "heun"),
        (TokenSphere(4.0, retraction="renormalize"), "midpoint"),
        (TokenSphere(4.0), "multistep"),
        (GlobalSphere(), "midpoint"),
    ],
)
def test_the_radius_holds_along_the_whole_trajectory(space, solver):
    """Relative error at most 1e-5, for a wild bfloat16 network with a large radial part."""

    def wild(z, t, labels):
        return (5.0 * jnp.sin(7.0 * z) + 20.0 * z + network(z, t, labels)).astype(jnp.bfloat16)

    errors = []

    class Watched(type(space)):
        def step(self, z, v, dt):
            z = super().step(z, v, dt)
            jax.debug.callback(lambda e: errors.append(float(e)), self.norm_error(z))
            return z

    z = run(Watched(**vars(space)), Sampler(solver, 100, shift=8.0), network=wild)
    jax.effects_barrier()
    assert len(errors) >= 100 and max(errors) < 1e-5
    assert space.norm_error(z) < 1e-5


def test_the_trajectory_returns_the_radius():
    settings = Sampler(steps=6)
    for space in SPACES:
        call = jax.jit(
            lambda n, s=space: sample(network, s, n, LABELS, NULL, settings, trajectory=True)
        )
        z, along = call(NOISE)
        radius = along["radius"]
        assert radius.shape == (7,)
        np.testing.assert_allclose(radius[-1], jnp.mean(space.relative_radius(z)), rtol=1e-6)
        if space.spherical:
            np.testing.assert_allclose(radius, 1.0, atol=1e-6)


@each(("euler", "multistep", "euler_maruyama"), "solver")
def test_the_states_are_those_of_the_trajectory(solver):
    settings, space = Sampler(solver, steps=4), Euclidean()
    keys = sample_keys(jax.random.key(0), np.arange(3))
    given = (network, space, NOISE[:3], LABELS[:3], NULL, settings)
    z, along = sample(*given, keys=keys, states=True)
    states = along["states"]
    assert states.shape == (5, *z.shape) and np.array_equal(states[-1], z)
    np.testing.assert_array_equal(states[0], NOISE[:3])
    radius = sample(*given, keys=keys, trajectory=True)[1]["radius"]
    found = [jnp.mean(space.relative_radius(state)) for state in states]
    np.testing.assert_allclose(found, radius, rtol=1e-5)


def test_a_chord_ends_off_the_sphere_until_projected():
    space = ProjectedEuclidean(3.0)
    z = run(space, Sampler(steps=4))
    assert np.max(np.abs(space.relative_radius(z) - 1)) > 0.05
    np.testing.assert_allclose(space.relative_radius(space.project(z)), 1.0, atol=1e-6)


@each([Euclidean(), TokenSphere(3.0)], "space")
def test_the_gradient_with_respect_to_the_noise_is_finite(space):
    settings = Sampler("heun", 2, guidance=Guidance(2.0))

    def total(noise):
        return jnp.sum(sample(network, space, noise, LABELS, NULL, settings) ** 3)

    gradient = jax.jit(jax.grad(total))(NOISE)
    assert np.all(np.isfinite(gradient)) and np.any(gradient)


def test_the_sampler_refuses():
    with pytest.raises(ValueError, match="solver"):
        Sampler("rk4")
    with pytest.raises(ValueError, match="steps"):
        Sampler(steps=0)
    assert hash(Sampler(steps=3)) == hash(Sampler(steps=3))
