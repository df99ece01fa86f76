"""The VAE's loss terms and statistics by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.data.source import Source, Split
from sphere_jax.losses.pixel import pixel_loss
from sphere_jax.methods.base import Tools
from sphere_jax.methods.vae import VAEOptions, VAETraining, shell_metrics
from sphere_jax.nn.functional import Network
from sphere_jax.tokenizers.conv_vae import ConvVAE

D = 4


class Mix(Network):
    """A linear map over the channels."""

    def __init__(self, inputs, outputs):
        self.shape = (inputs, outputs)

    def init(self, key):
        return {"kernel": 0.5 * jax.random.normal(key, self.shape)}

    def apply(self, params, x):
        return x @ params["kernel"]


TOKENIZER = ConvVAE(Mix(3, 2 * D), Mix(D, 3), latent_shape=(2, 2, D), image_shape=(2, 2, 3))
VAE = VAETraining(TOKENIZER, VAEOptions(kl_weight=0.3, l1_weight=0.6, l2_weight=1.7))
KEYS = jax.random.split(jax.random.key(1), 6)


def map_over(function, params, *arrays):
    return np.asarray(jax.jit(function)(params, *arrays))


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)


@pytest.fixture
def params():
    return VAE.init(jax.random.key(0), {})


def test_the_loss_by_hand(params):
    loss, metrics = VAE.loss(params, {}, {"images": images(6)}, KEYS)
    x = images(6) / 127.5 - 1.0
    moments = x @ np.asarray(params["encoder"]["kernel"], np.float64)
    mean, log_variance = moments[..., :D], moments[..., D:]
    noise = np.stack([jax.random.normal(key, (2, 2, D)) for key in KEYS])
    decoded = (mean + np.exp(log_variance / 2) * noise) @ np.asarray(params["decoder"]["kernel"])
    pixels = 0.6 * np.abs(decoded - x).mean() + 1.7 * ((decoded - x) ** 2).mean()
    kl = np.mean((mean**2 + np.exp(log_variance) - 1 - log_variance) / 2)
    np.testing.assert_allclose(metrics["pixel"], pixels, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(loss, pixels + 0.3 * kl, rtol=1e-5)


def test_keys_do_not_depend_on_how_a_batch_is_split(params):
    whole, _ = VAE.loss(params, {}, {"images": images(6)}, KEYS)
    parts = [
        VAE.loss(params, {}, {"images": images(6)[rows]}, KEYS[rows])[0]
        for rows in (np.array([4, 0, 2]), np.array([1, 5, 3]))
    ]
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-6)


def test_an_extreme_variance_stays_finite(params):
    params["encoder"]["kernel"] *= 1e4
    loss, _ = VAE.loss(params, {}, {"images": images(6)}, KEYS)
    assert np.isfinite(loss)


def finished(params):
    split = Split(Source({"images": images(200)}), Source({"images": images(20, seed=1)}))
    outcome = VAE.measure(params, {}, split, Tools(map_over))
    return split, outcome, params | outcome.artifacts


def test_normalised_training_latents_have_mean_0_and_deviation_1(params):
    split, outcome, whole = finished(params)
    float_images = split.train.arrays["images"].astype(np.float32) / 127.5 - 1.0
    latents = np.asarray(TOKENIZER.encode(whole, float_images), np.float64)
    np.testing.assert_allclose(latents.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(latents.std((0, 1, 2)), 1, rtol=1e-4)
    radii = np.linalg.norm(latents, axis=-1) / np.sqrt(D)
    np.testing.assert_allclose(outcome.metrics["shell_radius"], radii.mean(), rtol=1e-5)
    np.testing.assert_allclose(outcome.metrics["shell_cv"], radii.std() / radii.mean(), rtol=1e-4)
    assert outcome.arrays["radii"].shape == (800,)


def test_statistics_are_of_samples_where_generators_train_on_them(params):
    tokenizer = dataclasses.replace(TOKENIZER, samples=True)
    vae = dataclasses.replace(VAE, tokenizer=tokenizer)
    split = Split(Source({"images": images(2000)}), Source({"images": images(20, seed=1)}))
    outcome = vae.measure(params, {}, split, Tools(map_over))
    x = split.train.arrays["images"].astype(np.float32) / 127.5 - 1.0
    whole = params | outcome.artifacts
    mean, std = (np.asarray(m, np.float64) for m in tokenizer.moments(whole, x))
    np.testing.assert_array_equal(np.float32(mean), tokenizer.encode(whole, x))
    np.testing.assert_allclose(mean.mean((0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(mean.var((0, 1, 2)) + (std**2).mean((0, 1, 2)), 1, rtol=0.05)
    assert np.all(mean.std((0, 1, 2)) < 0.95)


def test_decoding_undoes_the_normalisation(params):
    _, _, whole = finished(params)
    x = jnp.asarray(images(6) / 127.5 - 1.0, jnp.float32)
    mean, _ = TOKENIZER.posterior(whole["encoder"], x)
    plain = TOKENIZER.decoder.apply(whole["decoder"], mean)
    there_and_back = TOKENIZER.decode(whole, TOKENIZER.encode(whole, x))
    np.testing.assert_allclose(there_and_back, plain, rtol=1e-4, atol=1e-5)


def test_a_dead_channel_is_not_blown_up(params):
    params["encoder"]["kernel"] = params["encoder"]["kernel"].at[:, 0].set(0.0)
    _, outcome, whole = finished(params)
    assert outcome.artifacts["statistics"]["std"][0] == np.float32(1e-6)
    latents = TOKENIZER.encode(whole, jnp.ones((1, 2, 2, 3)))
    np.testing.assert_array_equal(latents[..., 0], 0.0)


def test_shell_metrics_by_hand():
    got = shell_metrics(np.array([1.0, 3.0]), 4)
    assert got == {"shell_radius": 1.0, "shell_cv": 0.5}


def test_pixel_losses_by_hand():
    a, b = jnp.array([0.0, 1.0]), jnp.array([1.0, 3.0])
    assert pixel_loss(a, b, 1.0, 0.0) == 1.5
    assert pixel_loss(a, b, 0.0, 1.0) == 2.5


def test_previews_pair_originals_with_reconstructions(params):
    shown = np.asarray(VAE.preview(params, {}, {"images": images(6)}, KEYS[0]))
    assert shown.shape == (12, 2, 2, 3) and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[:6], images(6))


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        VAE.options.kl_weight = 1.0
