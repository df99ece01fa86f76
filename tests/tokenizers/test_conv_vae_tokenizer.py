"""The small VAE with levels between which the grid is halved. Runs of other tests have one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.config.options import DataOptions
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.tokenizers.conv_vae import ConvVAE, ConvVAEOptions


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


@pytest.fixture(scope="module")
def made():
    options = ConvVAEOptions(patch=4, widths=(8, 16), latent_channels=4)
    tokenizer = ConvVAE.build(DataOptions(image_size=16, channels=3), options)
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "encoder": quick(tokenizer.encoder.init)(keys[0]),
        "decoder": quick(tokenizer.decoder.init)(keys[1]),
        "statistics": {"mean": jnp.arange(4.0), "std": jnp.arange(1.0, 5.0)},
    }
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    return tokenizer, params, images


def test_each_level_but_the_first_halves_the_grid(made):
    tokenizer, params, images = made
    latents = quick(tokenizer.encode)(params, images)
    assert latents.shape[1:] == tokenizer.latent_shape == (2, 2, 4)
    assert quick(tokenizer.decode)(params, latents).shape == images.shape


def test_all_levels_learn(made):
    tokenizer, params, images = made

    def loss(params):
        return (tokenizer.decode(params, tokenizer.encode(params, images)) ** 2).sum()

    grads = quick(jax.grad(loss))(params)
    for part in ("encoder", "decoder"):
        kernels = [leaf for leaf in jax.tree.leaves(grads[part]) if leaf.ndim > 1]
        assert min(float(jnp.abs(kernel).max()) for kernel in kernels) > 0


def test_latents_are_normalised_and_decode_undoes_it(made):
    tokenizer, params, images = made
    mean, _ = quick(tokenizer.posterior)(params["encoder"], images)
    latents = quick(tokenizer.encode)(params, images)
    expected = (np.asarray(mean) - np.arange(4)) / np.arange(1, 5)
    np.testing.assert_allclose(latents, expected, rtol=1e-5, atol=1e-6)
    plain = params | {"statistics": {"mean": jnp.zeros(4), "std": jnp.ones(4)}}
    decoded = quick(tokenizer.decode)
    np.testing.assert_allclose(decoded(params, latents), decoded(plain, mean), atol=1e-5)
