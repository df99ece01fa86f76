"""Ranges, shapes and refusals of the tiny autoencoders as tokenizers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models import tiny_vae as models
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network
from sphere_jax.nn.pixels import to_float
from sphere_jax.tokenizers.tiny_vae import TinyVAE
from sphere_jax.weights.layouts.tiny_vae import layouts
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.tensors import convert

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


def shapes_of(tokenizer):
    key = jax.random.key(0)
    return {part: jax.eval_shape(getattr(tokenizer, part).init, key) for part in tokenizer.parts}


@pytest.mark.parametrize(("kind", "channels"), [("taesd", 4), ("taef1", 16), ("taef2", 32)])
def test_sizes(kind, channels):
    tokenizer = TinyVAE.of_kind(72, kind)
    assert tokenizer.latent_shape == (9, 9, channels) and tokenizer.image_shape == (72, 72, 3)


def test_shapes_and_parameters_are_those_of_the_network():
    tokenizer = TinyVAE.of_kind(64, "taef2", dtype=jnp.bfloat16)
    params = shapes_of(tokenizer)
    whole = Network(lambda rngs: models.TinyVAE(*models.KINDS["taef2"], rngs=rngs))
    assert params == jax.eval_shape(whole.init, jax.random.key(0))
    latents = jax.eval_shape(tokenizer.encode, params, jnp.zeros((2, *tokenizer.image_shape)))
    assert latents.shape == (2, *tokenizer.latent_shape) and latents.dtype == jnp.float32
    images = jax.eval_shape(tokenizer.decode, {"decoder": params["decoder"]}, latents)
    assert images.shape == (2, *tokenizer.image_shape) and images.dtype == jnp.float32


@pytest.mark.parametrize("size", [0, 4, 60, -8])
def test_sizes_that_are_no_multiple_of_8_are_refused(size):
    with pytest.raises(ValueError, match=f"multiple of 8 pixels, not {size}"):
        TinyVAE.of_kind(size, "taesd")


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="taesd, taef1, taef2, not 'taesdxl'"):
        TinyVAE.of_kind(64, "taesdxl")


def test_images_are_in_minus_one_to_one_on_both_sides():
    """The networks inside take and give 0..1."""
    tokenizer = TinyVAE.of_kind(16, "taesd")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(np.float32), shapes_of(tokenizer)
    )
    images = rng.uniform(0, 1, (1, 16, 16, 3)).astype(np.float32)

    @quick
    def both(params, images):
        z = tokenizer.encode(params, 2 * images - 1)
        expected = tokenizer.encoder.apply(params["encoder"], images)
        return (
            z,
            expected,
            tokenizer.decode(params, z),
            tokenizer.decoder.apply(params["decoder"], z),
        )

    z, expected, decoded, network = both(params, images)
    np.testing.assert_allclose(z, expected, atol=1e-6)
    np.testing.assert_allclose(decoded, 2 * network - 1, atol=1e-6)


def test_real_weights_give_the_stored_latents_and_images():
    """From uint8 pixels, unclipped; max relative error 1e-4. All kinds: tests/models."""
    kind = "taef2"
    files = [WEIGHTS / f"{kind}_{part}.safetensors" for part in ("encoder", "decoder")]
    reference = WEIGHTS / f"{kind}_reference.npz"
    if not all(file.is_file() for file in (*files, reference)):
        pytest.skip(f"needs the files {kind}_* in ../shared/data/weights")
    tokenizer = TinyVAE.of_kind(64, kind)
    whole = Network(lambda rngs: models.TinyVAE(*models.KINDS[kind], rngs=rngs))
    params = convert(open_tensors(*files), layouts(whole), whole)
    with np.load(reference) as stored:
        pixels, latents, decoded = (
            stored[name] for name in ("images", "latents_nchw", "decoded_nchw")
        )

    @quick
    def both(params, pixels):
        z = tokenizer.encode(params, to_float(pixels))
        return z, tokenizer.decode(params, z)

    z, images = both(params, pixels)
    for found, expected in ((z, latents), (images, 2 * decoded - 1)):
        expected = np.moveaxis(expected, 1, -1)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
