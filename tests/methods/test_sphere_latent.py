"""Sphere Latent Encoder by hand: objective, noise maps, stopped gradients
(docs/systems/sphere_latent.md)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.data.source import Source, Split
from sphere_jax.geometry import sphere
from sphere_jax.geometry.spaces import GlobalSphere
from sphere_jax.methods.base import Tools
from sphere_jax.methods.sphere_latent import SphereLatent, SphereLatentOptions
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import FewSteps
from sphere_jax.tokenizers.precomputed import Precomputed

SHAPE, CLASSES = (2, 3, 8), 4
LENGTH = math.prod(SHAPE)


class Denoiser(Network):
    """`tanh(v) * a + table[label]`, and a record of its inputs."""

    def __init__(self):
        self.calls = []

    def init(self, key):
        return {"a": jnp.float32(0.8), "table": 0.2 * jax.random.normal(key, (CLASSES + 1, 8))}

    def apply(self, params, v, labels):
        self.calls.append((v, labels))
        return params["a"] * jnp.tanh(v) + params["table"][labels][:, None, None]


def method(**settings):
    return SphereLatent(
        Precomputed(SHAPE), GlobalSphere(), Denoiser(), CLASSES, SphereLatentOptions(**settings),
        FewSteps(3, 1.5, "decreasing"),
    )  # fmt: skip


def batch_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "latents": (1.5 * rng.normal(size=(count, *SHAPE))).astype(np.float32),
        "labels": rng.integers(0, CLASSES, count).astype(np.int32),
    }


PARAMS = {"network": Denoiser().init(jax.random.key(0))}


def difference(a, b, distance, cosine):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norm = np.abs(a - b).mean() if distance == "l1" else ((a - b) ** 2).mean()
    axes = (1, 2, 3) if cosine == "latent" else 3
    product = (a * b).sum(axes) / np.sqrt((a * a).sum(axes) * (b * b).sum(axes))
    return norm, np.mean(1 - product)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("cosine", ["latent", "token"])
@pytest.mark.parametrize("target", ["projected", "latent"])
@pytest.mark.parametrize("inputs", ["low", "clean_and_low"])
def test_the_loss_by_hand(distance, cosine, target, inputs):
    m = method(
        distance=distance, cosine=cosine, target=target, inputs=inputs, distance_weight=0.5,
        cosine_weight=2.0, reconstruction_weight=1.5, consistency_weight=0.75,
    )  # fmt: skip
    batch = batch_of(12)
    loss, parts = m.loss(PARAMS, {}, batch, m.keys(jax.random.key(1), 12))
    (low, labels), (high, _), *clean = m.network.calls
    out = {
        name: np.asarray(m.network.apply(PARAMS["network"], v, labels))
        for name, v in [("low", low), ("high", high), *(("clean", v) for v, _ in clean)]
    }
    expected = batch["latents"]
    if target == "projected":
        expected = expected / np.sqrt(np.mean(expected**2, axis=(1, 2, 3), keepdims=True))

    def both(a, b):
        norm, angle = difference(a, b, distance, cosine)
        return 0.5 * norm + 2.0 * angle

    reconstruction = both(out["low"], expected)
    assert len(clean) == (inputs == "clean_and_low")
    if clean:
        reconstruction = 0.5 * (reconstruction + both(out["clean"], expected))
    consistency = both(out["high"], out["low"])
    np.testing.assert_allclose(parts["reconstruction"], reconstruction, rtol=1e-4)
    np.testing.assert_allclose(parts["consistency"], consistency, rtol=1e-4)
    np.testing.assert_allclose(loss, 1.5 * reconstruction + 0.75 * consistency, rtol=1e-4)


def test_the_consistency_target_is_stopped():
    """By gradient: with the lower prediction as a constant, the gradient is the same."""
    m, batch = method(reconstruction_weight=0.0, label_dropout=0.0), batch_of(12)
    keys = m.keys(jax.random.key(1), 12)
    m.loss(PARAMS, {}, batch, keys)
    (low, labels), (high, _) = m.network.calls[:2]

    def consistency(p, target_params):
        a = m.network.apply(p["network"], high, labels)
        b = m.network.apply(target_params["network"], low, labels)
        cosine = jnp.sum(a * b, (1, 2, 3)) / jnp.sqrt(
            jnp.sum(a * a, (1, 2, 3)) * jnp.sum(b * b, (1, 2, 3))
        )
        return jnp.mean(jnp.abs(a - b)) + jnp.mean(1 - cosine)

    found = jax.grad(lambda p: m.loss(p, {}, batch, keys)[0])(PARAMS)["network"]
    stopped = jax.grad(lambda p: consistency(p, PARAMS))(PARAMS)["network"]
    free = jax.grad(lambda p: consistency(p, p))(PARAMS)["network"]
    np.testing.assert_allclose(found["a"], stopped["a"], rtol=1e-4)
    np.testing.assert_allclose(found["table"], stopped["table"], rtol=1e-3, atol=1e-6)
    assert not np.allclose(found["table"], free["table"], rtol=1e-2, atol=1e-5)


@pytest.fixture(scope="module")
def many():
    """Levels of 2,000 samples by name of the noise map: `(angles low, angles high)`."""
    found = {}
    for name in ("tangent", "interpolation"):
        m = method(noise_map=name, max_angle=45.0, level_mean=0.3, level_std=0.8)
        batch = batch_of(2000)
        m.loss(PARAMS, {}, batch, m.keys(jax.random.key(2), 2000))
        v = m.space.project(batch["latents"])
        flat = lambda z: sphere.normalize(z.reshape(2000, -1))  # noqa: E731
        found[name] = [np.asarray(sphere.angle(flat(v), flat(z))) for z, _ in m.network.calls[:2]]
    return found


@pytest.mark.parametrize("name", ["tangent", "interpolation"])
def test_two_levels_are_ordered_logit_normal_draws(name, many):
    low, high = many[name]
    assert (low <= high + 0.05).all()
    # Levels from angles: both together are two independent logit-normal samples.
    tangents = np.tan(np.clip(np.concatenate([low, high]), 0, 1.5))
    r = tangents if name == "tangent" else tangents / (1 + tangents)
    assert abs(np.median(r) - 1 / (1 + math.exp(-0.3))) < 0.04


def test_noise_at_the_given_angle():
    """`tan(angle)` is `r tan(max_angle)` or `r / (1 - r)`, within 3 / sqrt(dim)."""
    v = sphere.spherify(jax.random.normal(jax.random.key(0), (400, *SHAPE)))
    e = jax.random.normal(jax.random.key(1), v.shape)
    for name, tangent in (("tangent", 0.5 * math.tan(math.radians(60.0))), ("interpolation", 1.0)):
        m = method(noise_map=name, max_angle=60.0)
        noised = m.renoise(v, e, 0.5)
        flat = lambda z: sphere.normalize(z.reshape(400, -1))  # noqa: E731
        angles = np.asarray(sphere.angle(flat(v), flat(noised)))
        assert abs(angles.mean() - math.atan(tangent)) < 3 / math.sqrt(LENGTH) / 10
        assert np.abs(angles - math.atan(tangent)).max() < 3 / math.sqrt(LENGTH)
    pure = method(noise_map="interpolation").renoise(v, e, 1.0)
    np.testing.assert_allclose(pure, sphere.spherify(e), atol=1e-5)


def test_both_noises_are_one():
    m, batch = method(), batch_of(6)
    m.loss(PARAMS, {}, batch, m.keys(jax.random.key(1), 6))
    (low, _), (high, _) = m.network.calls[:2]
    for rows in zip(batch["latents"], np.asarray(low), np.asarray(high), strict=True):
        plane = np.stack([row.ravel().astype(np.float64) for row in rows])
        singular = np.linalg.svd(plane, compute_uv=False)
        assert singular[2] < 1e-4 * singular[0]  # clean, low and high lie in one plane


def test_samples_stay_where_the_network_put_them():
    """The last prediction is raw (docs/systems/sphere_latent.md#sampling); generation is
    deterministic in its keys."""
    m = method()
    keys = jax.random.split(jax.random.key(0), 5)
    labels = jnp.array([0, 1, 2, 3, CLASSES])
    z, trace = m.generate(PARAMS, keys, labels, 1.5, m.sampler)
    again, _ = m.generate(PARAMS, keys, labels, 1.5, m.sampler)
    np.testing.assert_array_equal(z, again)
    assert trace == {} and z.shape == (5, *SHAPE)
    assert np.abs(np.mean(np.asarray(z) ** 2, axis=(1, 2, 3)) - 1).max() > 0.01


def test_measure_reports_the_coverage_of_the_sphere():
    def map_over(function, params, *arrays):
        return np.asarray(jax.jit(function)(params, *arrays))

    source = Source(batch_of(50))
    found = method().measure(PARAMS, {}, Split(source, source), Tools(map_over)).metrics
    # Gaussian latents, projected, cover the sphere as uniform points do.
    assert found["sliced_wasserstein"] < 1.5 * found["sliced_wasserstein_uniform"]
    assert abs(found["cosine_across_mean"]) < 3 * found["cosine_uniform_std"]
