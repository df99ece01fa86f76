"""Sphere Encoder's objective by hand: noise, pairing, stopped gradients, weights
(docs/systems/sphere_encoder.md)."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.config.reading import read_config
from sphere_jax.geometry import sphere
from sphere_jax.losses.perceptual import Perceptual, perceptual_loss
from sphere_jax.methods.base import Tools
from sphere_jax.methods.sphere_encoder import SphereEncoderOptions, SphereEncoderTraining
from sphere_jax.nn.functional import Network
from sphere_jax.runs.system import System
from sphere_jax.sampling import FewSteps
from sphere_jax.tokenizers.sphere_encoder import SphereEncoder

IMAGE, LATENT, CLASSES = (4, 4, 1), (2, 2, 64), 3
LENGTH = math.prod(LATENT)


class Linear(Network):
    """`x @ kernel + table[label]`, and a record of its inputs."""

    def __init__(self, shape_in, shape_out, squash):
        self.sizes, self.shape_out = (math.prod(shape_in), math.prod(shape_out)), shape_out
        self.squash, self.calls = squash, []

    def init(self, key):
        kernel, table = jax.random.split(key)
        return {
            "kernel": 0.3 * jax.random.normal(kernel, self.sizes),
            "table": 0.3 * jax.random.normal(table, (CLASSES + 1, self.sizes[1])),
        }

    def apply(self, params, x, labels):
        self.calls.append((x, labels))
        y = x.reshape(len(x), -1) @ params["kernel"] + params["table"][labels]
        y = jnp.tanh(y) if self.squash else y
        return y.reshape(-1, *self.shape_out)


def method(**settings):
    tokenizer = SphereEncoder(
        Linear(IMAGE, LATENT, False), Linear(LATENT, IMAGE, True), LATENT, IMAGE, CLASSES
    )
    settings = SphereEncoderOptions(**{"strata": 8, "max_angle": 80.0} | settings)
    sampler = FewSteps(2, guidance_at="combo")
    return SphereEncoderTraining(tokenizer, CLASSES, settings, sampler, Perceptual(None, None))


def batch_of(count=16, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (count, *IMAGE), dtype=np.uint8),
        "labels": rng.integers(0, CLASSES, count).astype(np.int32),
    }


@pytest.fixture(scope="module")
def params():
    return method().init(jax.random.key(0), {})


def inputs_of(m, params, count=16):
    """What the networks are given in one loss: encoder images, decoder latents, second encoding."""
    keys = m.keys(jax.random.key(3), count)
    m.loss(params, {}, batch_of(count), keys)
    (images, y_encoder), (again, y_again) = m.tokenizer.encoder.calls
    (low, y_low), (high, y_high) = m.tokenizer.decoder.calls
    return keys, images, again, low, high, (y_encoder, y_again, y_low, y_high)


def test_the_loss_by_hand(params):
    m = method(
        reconstruction_weight=2.0, consistency_weight=0.7, latent_weight=0.3, label_dropout=0.5
    )
    keys = m.keys(jax.random.key(3), 16)
    loss, parts = m.loss(params, {}, batch_of(), keys)
    (x, y), (_, y_again) = m.tokenizer.encoder.calls
    (v_low, y_low), (v_high, y_high) = m.tokenizer.decoder.calls
    encode, decode = (
        lambda a, y, p=params[name], n=network: np.asarray(n.apply(p, a, y), np.float64)
        for name, network in (("encoder", m.tokenizer.encoder), ("decoder", m.tokenizer.decoder))
    )
    x_low, x_high = decode(v_low, y_low), decode(v_high, y_high)

    def smooth(a, b):  # on [0, 1], where it is half the mean square
        return 0.5 * np.mean(((a - b) / 2) ** 2)

    a = encode(x_high.astype(np.float32), y_again).reshape(16, -1)
    b = encode(x, y).reshape(16, -1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(parts["reconstruction"], 2.0 * smooth(x_low, x), rtol=1e-4)
    np.testing.assert_allclose(parts["consistency"], 0.7 * smooth(x_high, x_low), rtol=1e-4)
    np.testing.assert_allclose(parts["latent"], 0.3 * np.mean(1 - cosine), rtol=1e-4)
    np.testing.assert_allclose(loss, sum(parts.values()), rtol=1e-6)


class Distance(Network):
    """In place of LPIPS: the mean absolute difference, times a weight."""

    def __init__(self):
        pass

    def apply(self, params, a, b):
        return params * jnp.mean(jnp.abs(a - b), axis=(1, 2, 3))


def test_the_perceptual_terms(params):
    plain = method(reconstruction_perceptual=0.5, consistency_perceptual=0.25)
    m = dataclasses.replace(plain, perceptual=Perceptual(Distance(), None))
    keys, frozen = m.keys(jax.random.key(3), 16), {"perceptual": {"lpips": jnp.float32(3.0)}}
    loss, parts = m.loss(params, frozen, batch_of(), keys)
    (x, _), _ = m.tokenizer.encoder.calls
    x_low, x_high = (m.tokenizer.decode(params, *call) for call in m.tokenizer.decoder.calls[:2])
    np.testing.assert_allclose(
        parts["reconstruction_perceptual"], 0.5 * 3 * jnp.mean(jnp.abs(x_low - x)), rtol=1e-5
    )
    np.testing.assert_allclose(
        parts["consistency_perceptual"], 0.25 * 3 * jnp.mean(jnp.abs(x_high - x_low)), rtol=1e-5
    )
    without, _ = plain.loss(params, {}, batch_of(), keys)
    added = parts["reconstruction_perceptual"] + parts["consistency_perceptual"]
    np.testing.assert_allclose(loss - without, added, rtol=1e-4)


def test_absent_weights_are_reported_and_missing_files_refused():
    (sentence,) = method().notes()
    assert "LPIPS-VGG" in sentence and "ConvNeXt" in sentence and "'lpips'" in sentence
    m = dataclasses.replace(
        method(lpips="nowhere.safetensors"), perceptual=perceptual_loss(True, False)
    )
    assert "LPIPS-VGG on" in m.notes()[0]
    with pytest.raises(UserError, match="nowhere.safetensors"):
        m.files()["perceptual"]["lpips"].load()


def test_both_noises_are_one(params):
    """`v_low - v` and `v_high - v` point the same way before f: e is shared."""
    m = method(hard_fraction=0.0)
    keys, images, _, low, high, _ = inputs_of(m, params)
    v = np.asarray(m.tokenizer.encode(params, images, m.tokenizer.encoder.calls[0][1]))
    flat = lambda z: np.asarray(z, np.float64).reshape(16, -1)  # noqa: E731
    for i in range(16):
        if keys["r"][i] == 0 or keys["r_low"][i] == 0:
            continue
        # All of f(v + s e) lie in the plane of v and e.
        plane = np.stack([flat(v)[i], flat(low)[i], flat(high)[i]])
        singular = np.linalg.svd(plane, compute_uv=False)
        assert singular[2] < 1e-4 * singular[0]


def test_the_clean_sample_stays_and_the_low_is_nearer(params):
    m = method(hard_fraction=0.0)
    keys, images, _, low, high, _ = inputs_of(m, params)
    v = m.tokenizer.encode(params, images, m.tokenizer.encoder.calls[0][1])
    clean = np.flatnonzero(np.asarray(keys["r"]) == 0)
    assert len(clean) == 2  # one for each 8 samples
    np.testing.assert_array_equal(np.asarray(high)[clean], np.asarray(v)[clean])
    flat = lambda z: z.reshape(16, -1)  # noqa: E731
    near, far = (sphere.angle(*map(sphere.normalize, (flat(v), flat(z)))) for z in (low, high))
    assert (near <= far + 1e-3).all()


@pytest.mark.parametrize("degrees", [10.0, 45.0, 80.0, 85.0])
def test_noised_latents_lie_at_the_given_angle(degrees):
    m = method()
    v = sphere.spherify(jax.random.normal(jax.random.key(0), (64, *LATENT)))
    e = jax.random.normal(jax.random.key(1), v.shape)
    noised = m.noised(v, e, jnp.full(64, math.tan(math.radians(degrees))))
    angles = sphere.angle(*(sphere.normalize(z.reshape(64, -1)) for z in (v, noised)))
    assert np.abs(np.asarray(angles) - math.radians(degrees)).max() < 3 / math.sqrt(LENGTH)
    assert abs(np.degrees(angles).mean() - degrees) < 1.0
    np.testing.assert_allclose(jnp.mean(noised**2, axis=(1, 2, 3)), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("angle", "mix", "furthest"),
    [(85.0, "released", 86.43), (80.0, "released", 80.91), (85.0, "independent", 89.0)],
)
def test_hard_mix(angle, mix, furthest):
    """The angles of docs/systems/sphere_encoder.md#noise: the released code's boost reuses its
    draw."""
    m = method(max_angle=angle, hard_mix=mix)
    keys = jax.random.split(jax.random.key(0), 20_000)
    r = np.asarray(jax.jit(m._hard)(keys, jnp.full(20_000, 0.5)))
    hard = r >= 1.0
    assert abs(hard.mean() - 0.1) < 0.01 and (r[~hard] == 0.5).all()
    reached = math.degrees(math.atan(r.max() * m.sigma_max))
    assert furthest - 0.15 < reached <= furthest + 0.01


def gradients(m, params, part):
    keys = m.keys(jax.random.key(3), 16)
    return jax.grad(lambda p: m.loss(p, {}, batch_of(), keys)[1][part])(params)


def test_stopped_gradients(params):
    """By gradient: each consistency target, replaced by a constant, leaves the gradient alone."""
    m = method()
    keys = m.keys(jax.random.key(3), 16)
    batch = batch_of()

    def terms(p, target_params):
        """The two consistency terms, targets computed from weights of their own."""
        m.tokenizer.encoder.calls.clear()
        m.tokenizer.decoder.calls.clear()
        m.loss(p, {}, batch, keys)
        (x, y), (_, y_again) = m.tokenizer.encoder.calls
        (v_low, y_low), (v_high, y_high) = m.tokenizer.decoder.calls
        x_high = m.tokenizer.decode(p, v_high, y_high)
        x_low = m.tokenizer.decode(target_params, jax.lax.stop_gradient(v_low), y_low)
        pixels = 0.5 * 0.5 * jnp.mean(((x_high - x_low) / 2) ** 2)
        a = m.tokenizer.raw(p, x_high, y_again).reshape(16, -1)
        b = m.tokenizer.raw(target_params, x, y).reshape(16, -1)
        norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
        return pixels, 0.1 * jnp.mean(1 - (a * b).sum(1) / norms)

    for index, part in enumerate(("consistency", "latent")):
        expected = jax.grad(lambda p, i=index: terms(p, params)[i])(params)
        free = jax.grad(lambda p, i=index: terms(p, p)[i])(params)
        found = gradients(m, params, part)
        close = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-3, atol=1e-7), found, expected)
        assert all(jax.tree.leaves(close)), (part, close)
        same = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-3, atol=1e-7), found, free)
        assert not all(jax.tree.leaves(same)), part


def test_the_latent_loss_reaches_the_decoder(params):
    found = gradients(method(), params, "latent")
    assert np.abs(found["decoder"]["kernel"]).max() > 0


def test_every_network_call_drops_labels_of_its_own(params):
    """As released (docs/systems/sphere_encoder.md#architecture): two calls on one sample are given
    different labels with probability 2 p (1 - p), 0.18 at the published p = 0.1."""
    m, count = method(label_dropout=0.1), 4096
    *_, calls = inputs_of(m, params, count)
    labels = batch_of(count)["labels"]
    dropped = [np.asarray(y) == CLASSES for y in calls]
    assert len(calls) == 4
    for drop, y in zip(dropped, calls, strict=True):
        assert abs(drop.mean() - 0.1) < 0.02
        np.testing.assert_array_equal(np.asarray(y)[~drop], labels[~drop])
    for one, other in itertools.combinations(calls, 2):
        assert abs(np.mean(one != other) - 0.18) < 0.025


def test_dropped_labels_belong_to_samples(params):
    """Micro-batches, and so a resumed run, drop the labels that the whole batch drops."""
    m, batch = method(label_dropout=0.5), batch_of()
    keys = m.keys(jax.random.key(3), 16)

    def calls_of(rows):
        m.tokenizer.encoder.calls.clear(), m.tokenizer.decoder.calls.clear()
        m.loss(params, {}, *jax.tree.map(lambda x: x[rows], (batch, keys)))
        return np.array([y for _, y in m.tokenizer.encoder.calls + m.tokenizer.decoder.calls])

    order = np.random.default_rng(0).permutation(16)
    parts = np.concatenate([calls_of(rows) for rows in order.reshape(4, 4)], axis=1)
    np.testing.assert_array_equal(parts, calls_of(order))
    assert len({tuple(row) for row in parts}) == 4


def test_keys_do_not_depend_on_how_a_batch_is_split(params):
    m, batch = method(label_dropout=0.5), batch_of()
    keys = m.keys(jax.random.key(3), 16)

    def loss(rows):
        some = jax.tree.map(lambda x: x[rows], (batch, keys))
        return m.loss(params, {}, *some)[0]

    order = np.random.default_rng(0).permutation(16).reshape(4, 4)
    parts = [float(loss(rows)) for rows in order]
    np.testing.assert_allclose(np.mean(parts), loss(np.arange(16)), rtol=1e-5)
    assert np.ptp(parts) > 1e-4


@pytest.mark.slow
def test_spherify_is_float32_under_bfloat16_networks():
    config = {
        "stages": ("sphere_encoder",),
        "data": {"source": "digits", "image_size": 8},
        "tokenizer": {
            "name": "sphere_encoder", "width": 16, "depth": 1, "heads": 2, "patch": 2,
            "latent_channels": 64, "compute_dtype": "bfloat16",
        },
        "sphere_encoder": {"batch_size": 16},
    }  # fmt: skip
    built = System(read_config(config)).methods["sphere_encoder"]
    params = jax.jit(lambda key: built.init(key, {}))(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)
    images = jnp.asarray(rng.uniform(-1, 1, (2, 8, 8, 1)), jnp.float32)
    v = jax.jit(built.tokenizer.encode)(params, images, jnp.array([0, 1]))
    assert v.dtype == jnp.float32
    radius = np.sqrt(np.mean(np.asarray(v, np.float64) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(radius, 1.0, atol=2e-6)  # bfloat16 resolves 4e-3
    batch = {"images": np.zeros((16, 8, 8, 1), np.uint8), "labels": np.zeros(16, np.int32)}
    loss, _ = jax.jit(built.loss)(params, {}, batch, built.keys(jax.random.key(0), 16))
    assert loss.dtype == jnp.float32 and np.isfinite(loss)


def test_a_fresh_network_has_finite_gradients():
    """The latent starts at 0 (docs/systems/sphere_encoder.md#pitfalls), where f and the cosine need
    their eps."""
    m = method()
    params = jax.tree.map(jnp.zeros_like, m.init(jax.random.key(0), {}))
    keys = m.keys(jax.random.key(3), 16)
    found = jax.grad(lambda p: m.loss(p, {}, batch_of(), keys)[0])(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(found))


def test_the_encoder_learns_at_its_own_rate():
    assert method(encoder_rate=0.1).rates == {"encoder": 0.1}


def test_generation_is_the_loop_of_sampling(params):
    m = method()
    keys = jax.random.split(jax.random.key(0), 6)
    labels = jnp.array([0, 1, 2, 0, 1, CLASSES])
    images, _ = m.generate(params, keys, labels, 1.0, dataclasses.replace(m.sampler, steps=1))
    from sphere_jax.sampling import first_noise

    v = sphere.spherify(first_noise(keys, LATENT))
    np.testing.assert_allclose(images, m.tokenizer.decode(params, v, labels), rtol=1e-5)
    assert m.images(params, images).dtype == jnp.uint8


def test_measure_reports_the_coverage_of_the_sphere(params):
    from sphere_jax.data.source import Source, Split

    def map_over(function, params, *arrays):
        return np.asarray(jax.jit(function)(params, *arrays))

    heldout = Source(batch_of(40))
    found = method().measure(params, {}, Split(heldout, heldout), Tools(map_over))
    assert found.metrics.keys() >= {
        "reconstruction_psnr", "sliced_wasserstein", "sliced_wasserstein_uniform",
        "cosine_within_mean", "cosine_across_mean",
    }  # fmt: skip
    assert found.arrays["original"].shape == found.arrays["reconstruction"].shape
    assert len(found.arrays["noise_angle"]) == len(found.arrays["noise_psnr"])
