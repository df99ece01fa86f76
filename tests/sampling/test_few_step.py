"""The few-step loops against plain Python, their cost, and where they agree with each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.geometry import sphere
from sphere_jax.sampling import FewSteps, decode_rounds, denoise_rounds, first_noise, sample_keys
from sphere_jax.sampling.few_step import PLACES

SHAPE, IMAGE, NULL = (2, 2, 3), (4, 4, 1), 4
KEYS = sample_keys(jax.random.key(0), jnp.arange(5))
LABELS = jnp.array([0, 1, 2, 3, 0])
SIGMA = 3.0
RNG = np.random.default_rng(0)
ENCODE, DECODE = (RNG.normal(size=s).astype(np.float32) for s in ((16, 12), (12, 16)))
TABLE = RNG.normal(size=NULL + 1).astype(np.float32)


def encode(x, y):
    shift = jnp.asarray(TABLE)[y].reshape(-1, 1)
    return (x.reshape(len(x), -1) @ ENCODE + shift).reshape(-1, *SHAPE)


def decode(v, y):
    shift = jnp.asarray(TABLE)[y].reshape(-1, 1)
    return jnp.tanh(0.3 * v.reshape(len(v), -1) @ DECODE + shift).reshape(-1, *IMAGE)


def renoise(v, e, r):
    return sphere.spherify(v + r * SIGMA * e)


def generate(settings, scale=None, **start):
    return decode_rounds(
        settings, encode, decode, sphere.spherify, renoise, KEYS, SHAPE, LABELS, NULL,
        settings.scale if scale is None else scale, **start,
    )  # fmt: skip


def guide(function, x, scale):
    null = jnp.full_like(LABELS, NULL)
    return function(x, null) + scale * (function(x, LABELS) - function(x, null))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("schedule", ["fixed", "decreasing"])
@pytest.mark.parametrize("share", [True, False])
def test_rounds_by_hand(place, schedule, share):
    settings = FewSteps(4, 2.0, schedule, 0.8, share, place)
    at_encoder = {"encoder": 2.0, "combo": np.sqrt(2.0)}.get(place, 1.0)
    at_decoder = {"decoder": 2.0, "combo": np.sqrt(2.0)}.get(place, 1.0)

    def to_images(v):
        x = guide(decode, v, at_decoder)
        return x if place == "encoder" else jnp.clip(x, -1.0, 1.0)

    def noise(t):
        fold = jax.vmap(jax.random.fold_in, (0, None))(KEYS, 1 if share else t)
        return jax.vmap(lambda key: jax.random.normal(key, SHAPE))(fold)

    x = to_images(sphere.spherify(first_noise(KEYS, SHAPE)))
    for t in (1, 2, 3):
        r = 0.8 * (1 - t / 4) if schedule == "decreasing" else 0.8
        v = renoise(sphere.spherify(guide(encode, x, at_encoder)), noise(t), r)
        x = to_images(v)
    np.testing.assert_allclose(generate(settings), x, atol=2e-5)


def test_one_step_is_one_decode():
    expected = decode(sphere.spherify(first_noise(KEYS, SHAPE)), LABELS)
    np.testing.assert_allclose(generate(FewSteps(1, guidance_at="combo")), expected, rtol=1e-6)


@pytest.mark.parametrize("place", PLACES)
def test_scale_one_is_no_guidance(place):
    """Also by the guided program, which is given the scale while it runs."""
    plain = generate(FewSteps(3, 1.0, guidance_at=place))
    guided = generate(FewSteps(3, 1.5, guidance_at=place), scale=jnp.float32(1.0))
    np.testing.assert_allclose(guided, plain, atol=2e-5)


def test_the_first_noise_is_not_the_shared_one():
    captured = []

    def spy(v, e, r):
        captured.append(e)
        return renoise(v, e, r)

    settings = FewSteps(2, guidance_at="combo")
    with jax.disable_jit():
        decode_rounds(
            settings, encode, decode, sphere.spherify, spy, KEYS, SHAPE, LABELS, NULL, 1.0
        )
    cosine = jnp.mean(captured[0] * first_noise(KEYS, SHAPE))
    assert abs(cosine) < 0.5 and not np.allclose(captured[0], first_noise(KEYS, SHAPE))


def test_an_image_adds_a_round_and_needs_no_first_decode():
    images = jax.random.uniform(jax.random.key(9), (5, *IMAGE), minval=-1.0)
    settings = FewSteps(1, strength=0.0, guidance_at="combo")
    again = decode(sphere.spherify(encode(images, LABELS)), LABELS)
    np.testing.assert_allclose(generate(settings, images=images), again, atol=1e-5)
    latents = sphere.spherify(encode(images, LABELS))
    np.testing.assert_allclose(generate(settings, latents=latents), again, atol=1e-5)


def test_a_direction_replaces_the_noise():
    images = jax.random.uniform(jax.random.key(9), (5, *IMAGE), minval=-1.0)
    direction = jnp.ones((5, *SHAPE))
    found = generate(FewSteps(1, guidance_at="combo"), images=images, noise=direction)
    v = renoise(sphere.spherify(encode(images, LABELS)), direction, 1.0)
    np.testing.assert_allclose(found, decode(v, LABELS), atol=1e-5)


class Counter:
    """Counts rows that a function is given when it runs."""

    def __init__(self, function):
        self.function, self.rows = function, 0

    def __call__(self, x, y):
        self.rows += len(x)
        return self.function(x, y)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_evaluations_are_those_made(steps, scale, place):
    settings = FewSteps(steps, scale, guidance_at=place)
    networks = Counter(encode), Counter(decode)
    with jax.disable_jit():
        decode_rounds(
            settings, *networks, sphere.spherify, renoise, KEYS, SHAPE, LABELS, NULL, scale
        )
    assert sum(network.rows for network in networks) == 5 * settings.evaluations
    images = jnp.zeros((5, *IMAGE))
    for network in networks:
        network.rows = 0
    with jax.disable_jit():
        decode_rounds(
            settings, *networks, sphere.spherify, renoise, KEYS, SHAPE, LABELS, NULL, scale, images
        )
    made = sum(network.rows for network in networks)
    assert made == 5 * settings.evaluations_from_image()


def test_published_costs():
    """docs/systems/sphere_encoder.md#sampling: 2 a round, 4 with combo guidance; the first step is
    a decode alone."""
    assert FewSteps(4, guidance_at="combo").evaluations == 7
    assert FewSteps(4, 1.4, guidance_at="combo").evaluations == 14
    # docs/systems/sphere_latent.md#sampling: 2 T
    assert FewSteps(4, 1.5).evaluations == 8 and FewSteps(6, 1.5).evaluations == 12


def denoise(v, y):
    shift = jnp.asarray(TABLE)[y].reshape(-1, 1, 1, 1)
    return jnp.tanh(v[..., ::-1]) + 0.1 * shift


def latents(settings, scale=None):
    return denoise_rounds(
        settings, denoise, sphere.spherify, renoise, KEYS, SHAPE, LABELS, NULL,
        settings.scale if scale is None else scale,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 1.6])
@pytest.mark.parametrize("share", [True, False])
def test_algorithm_1_by_hand(scale, share):
    settings = FewSteps(3, scale, "decreasing", share_noise=share)
    v = sphere.spherify(first_noise(KEYS, SHAPE))
    for i in (1, 2, 3):
        z = guide(denoise, v, scale)
        if i < 3:
            fold = jax.vmap(jax.random.fold_in, (0, None))(KEYS, 1 if share else i)
            e = jax.vmap(lambda key: jax.random.normal(key, SHAPE))(fold)
            v = renoise(sphere.spherify(z), e, 1 - i / 3)
    np.testing.assert_allclose(latents(settings), z, atol=2e-5)


def test_one_denoising_is_the_network_alone():
    expected = denoise(sphere.spherify(first_noise(KEYS, SHAPE)), LABELS)
    np.testing.assert_allclose(latents(FewSteps(1)), expected, rtol=1e-6)
    guided = latents(FewSteps(3, 1.5, "decreasing"), scale=jnp.float32(1.0))
    np.testing.assert_allclose(guided, latents(FewSteps(3, 1.0, "decreasing")), atol=2e-5)


def test_a_sample_depends_on_its_key_alone():
    settings = FewSteps(3, 1.3, share_noise=False, guidance_at="combo")
    whole = generate(settings)
    rows = np.array([3, 1])
    some = decode_rounds(
        settings, encode, decode, sphere.spherify, renoise, KEYS[rows], SHAPE, LABELS[rows], NULL,
        settings.scale,
    )  # fmt: skip
    np.testing.assert_allclose(some, whole[rows], atol=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "steps is 1 or more"),
        ({"schedule": "rising"}, "schedule is"),
        ({"guidance_at": "both"}, "guidance_at is one of"),
    ],
)
def test_wrong_settings(values, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(FewSteps(2), **values)
