"""Discriminators: shapes and counts, logits of one image alone, spectral norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models import discriminator as module
from sphere_jax.models.dino import DINO
from sphere_jax.models.discriminator import (
    Discriminator,
    Heads,
    SpectralConv,
    dino_discriminator,
    patch_discriminator,
    spectral_norm,
)
from sphere_jax.nn.functional import Network, num_parameters


def shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))


def test_patch_discriminator_at_its_published_size():
    discriminator = patch_discriminator(3)
    params = shapes(discriminator.network)
    # Published, with BatchNorm and no biases in front of it: 2,765,633. Here those have 896 more.
    assert num_parameters(params) == 2_765_633 + 128 + 256 + 512
    logits = jax.eval_shape(discriminator.logits, params, None, jnp.zeros((2, 256, 256, 3)))
    assert logits.shape == (2, 30, 30) and logits.dtype == jnp.float32
    smallest = jax.eval_shape(discriminator.logits, params, None, jnp.zeros((2, 32, 32, 3)))
    assert smallest.shape == (2, 2, 2)


def test_a_patch_logit_depends_on_its_own_image():
    discriminator = patch_discriminator(1, width=4)
    params = discriminator.network.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (3, 96, 96, 1))
    logits = jax.jit(discriminator.logits)
    whole = logits(params, None, images)
    np.testing.assert_allclose(logits(params, None, images[1:2])[0], whole[1], rtol=1e-4, atol=1e-6)
    assert np.std(whole) > 0


@pytest.fixture
def on_dino(monkeypatch):
    """Heads on a DINO of width 16, at 32 pixels."""
    monkeypatch.setattr(module, "DINO_SIDE", 32)
    dino = Network(lambda rngs: DINO(16, 12, 2, patch=8, grid=4, layer_scale=False, rngs=rngs))
    return Discriminator(Network(lambda rngs: Heads(16, 5, rngs=rngs)), dino)


@pytest.mark.slow
def test_dino_discriminator(on_dino):
    params = on_dino.network.init(jax.random.key(0))
    frozen = on_dino.backbone.init(jax.random.key(1))
    images = jax.random.normal(jax.random.key(2), (2, 48, 48, 1))
    logits = jax.jit(on_dino.logits)
    whole = logits(params, frozen, images)
    assert whole.shape == (2, 5, 16) and np.std(whole) > 0
    np.testing.assert_allclose(logits(params, frozen, images[1:])[0], whole[1], atol=1e-5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(on_dino.logits(params, frozen, x))))(images)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_dino_discriminator_at_its_published_size():
    discriminator = dino_discriminator()
    params, frozen = shapes(discriminator.network), shapes(discriminator.backbone)
    assert num_parameters(frozen) == 21_670_272
    logits = jax.eval_shape(discriminator.logits, params, frozen, jnp.zeros((2, 128, 128, 3)))
    assert logits.shape == (2, 5, 28 * 28)


def test_spectral_norm():
    matrix = jax.random.normal(jax.random.key(3), (24, 7))
    exact = np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(spectral_norm(matrix), exact, rtol=0.02)
    np.testing.assert_allclose(spectral_norm(10 * matrix), 10 * spectral_norm(matrix), rtol=1e-5)
    square = jax.random.normal(jax.random.key(4), (384, 384))  # singular values lie close
    np.testing.assert_allclose(spectral_norm(square), np.linalg.norm(square, 2), rtol=0.08)
    conv = Network(lambda rngs: SpectralConv((1, 5, 4), rngs=rngs))
    params, x = conv.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 6, 5))
    larger = params | {"kernel": 3 * params["kernel"]}
    np.testing.assert_allclose(conv.apply(larger, x), conv.apply(params, x), rtol=1e-4)


def test_the_convolution_is_circular():
    conv = Network(lambda rngs: SpectralConv((9, 3, 2), rngs=rngs))
    params, x = conv.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (1, 12, 3))
    turned = conv.apply(params, jnp.roll(x, 5, axis=1))
    np.testing.assert_allclose(turned, jnp.roll(conv.apply(params, x), 5, axis=1), atol=1e-5)
