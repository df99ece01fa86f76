"""RAE as a tokenizer: sizes, whitening, parity with diffusers and transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.dino import DINO
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.models.rae_decoder import RAEDecoder
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network
from sphere_jax.tokenizers.rae import ENCODER, RAE
from sphere_jax.weights.layouts import latent_statistics
from sphere_jax.weights.layouts import rae as conversion
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.tensors import convert


def small(width, encoder_depth, whiten, grid, side, decoder):
    """RAE with other networks inside; `grid` is that of the encoder's table of positions."""
    sizes = ENCODER | dict(width=width, depth=encoder_depth, heads=width // 64, grid=grid)
    return RAE(
        encoder=Network(lambda rngs: DINO(**sizes, final_affine=False, rngs=rngs)),
        decoder=Network(lambda rngs: RAEDecoder((side, side), width, *decoder, rngs=rngs)),
        encoder_size=14 * side,
        whiten=whiten,
        latent_shape=(side, side, width),
        image_shape=(16 * side, 16 * side, 3),
    )


def quick(function):
    return jax.jit(function, compiler_options=run_once_options())


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def tokenizer():
    return small(64, 1, whiten=True, grid=5, side=3, decoder=(1, 32, 4, 48))


@pytest.fixture(scope="module")
def params(tokenizer):
    """Random on every leaf."""
    rng = np.random.default_rng(0)
    networks = {"encoder": tokenizer.encoder, "decoder": tokenizer.decoder}
    shapes = {k: jax.eval_shape(n.init, jax.random.key(0)) for k, n in networks.items()}
    params = jax.tree.map(lambda s: rng.normal(0.1, 0.2, s.shape).astype(np.float32), shapes)
    mean, var = rng.normal(0, 0.5, (3, 3, 64)), rng.uniform(0.5, 2, (3, 3, 64))
    return params | {"statistics": {"mean": np.float32(mean), "var": np.float32(var)}}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 48, 48, 3)).astype(np.float32)


@pytest.mark.parametrize(("image_size", "side"), [(256, 16), (512, 32)])
def test_shapes_of_the_published_autoencoders(image_size, side):
    rae = RAE.of_size(image_size, whiten=True)
    assert rae.latent_shape == (side, side, 768) and rae.parts[-1] == "statistics"
    assert rae.encoder_size == 14 * side
    params = {
        "encoder": jax.eval_shape(rae.encoder.init, jax.random.key(0)),
        "decoder": jax.eval_shape(rae.decoder.init, jax.random.key(0)),
        "statistics": {name: jnp.zeros(rae.latent_shape) for name in ("mean", "var")},
    }
    images = jax.ShapeDtypeStruct((2, *rae.image_shape), jnp.float32)
    latents = jax.eval_shape(rae.encode, params, images)
    assert latents.shape == (2, *rae.latent_shape) and latents.dtype == jnp.float32
    decoded = jax.eval_shape(rae.decode, params, latents)
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32


def test_invalid_sizes_are_refused():
    with pytest.raises(ValueError, match="one of base, large, xlarge, not 'huge'"):
        RAE.of_size(256, "huge")
    with pytest.raises(ValueError, match="multiple of 16 pixels, not 250"):
        RAE.of_size(250)
    assert RAE.of_size(64, "base").parts == ("encoder", "decoder")


def test_tokens_lie_on_a_sphere_until_they_are_whitened(tokenizer, params, images):
    plain = dataclasses.replace(tokenizer, whiten=False)
    z = np.asarray(quick(plain.encode)(params, images))
    assert z.shape == (2, 3, 3, 64)
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 8.0, rtol=1e-4)
    mean, var = params["statistics"]["mean"], params["statistics"]["var"]
    whitened = quick(tokenizer.encode)(params, images)
    np.testing.assert_allclose(whitened, (z - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(
        quick(tokenizer.decode)(params, whitened), quick(plain.decode)(params, z), atol=1e-4
    )


def test_images_of_any_size_are_resized_to_the_encoder(tokenizer, params, images):
    """Flat images do not change when resized."""
    flat = np.broadcast_to(images[:, :1, :1], images.shape)
    z = quick(tokenizer.encode)(params, flat)
    np.testing.assert_allclose(quick(tokenizer.encode)(params, flat[:, :30, :20]), z, atol=1e-3)
    assert np.abs(z[0] - z[1]).max() > 0.1


def test_zero_at_the_decoders_output_is_the_mean_colour_of_imagenet(tokenizer, params):
    silent = params | {"decoder": jax.tree.map(np.zeros_like, params["decoder"])}
    decoded = quick(tokenizer.decode)(silent, np.zeros((1, 3, 3, 64), np.float32))
    expected = np.broadcast_to(2 * np.float32([0.485, 0.456, 0.406]) - 1, (1, 48, 48, 3))
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("prefix", ["", "encoder."], ids=["apart", "one_file"])
def test_parity_with_diffusers(prefix, tmp_path):
    """Its `AutoencoderRAE` around transformers' `Dinov2WithRegistersModel`, depth 2, real widths.

    Measured: latents 2e-5, since diffusers adds 1e-5 twice when it whitens; images 4e-6.
    """
    torch = pytest.importorskip("torch")
    import torch_originals as originals
    import torchvision_shim

    diffusers = torchvision_shim.importorskip("diffusers.models.autoencoders.autoencoder_rae")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    mean, std = torch.randn(768, 16, 16), torch.rand(768, 16, 16) + 0.5
    model = diffusers.AutoencoderRAE(
        encoder_num_hidden_layers=2,
        decoder_hidden_size=1152,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=16,
        decoder_intermediate_size=4096,
        latents_mean=mean,
        latents_std=std,
    ).eval()
    for name, parameter in model.named_parameters():
        if "layer_scale" in name or "norm" in name or name.endswith("bias") or "token" in name:
            torch.nn.init.uniform_(parameter, 0.2, 1.0)
    model.encoder.save_pretrained(tmp_path)  # under the names of published files
    encoder = {prefix + name: tensor for name, tensor in open_tensors(tmp_path).items()}
    others = {
        name: tensor
        for name, tensor in originals.published(model).items()
        if not name.startswith("encoder.")
    }
    if prefix:
        encoder |= others
        others = encoder

    rae = small(768, 2, whiten=True, grid=37, side=16, decoder=(2, 1152, 16, 4096))
    statistics = Network(lambda rngs: LatentStatistics((16, 16, 768), "var", rngs=rngs))
    params = {
        "encoder": convert(encoder, conversion.encoder_layouts(rae.encoder), rae.encoder),
        "decoder": convert(others, conversion.layouts(rae.decoder), rae.decoder),
        "statistics": convert(others, latent_statistics.layouts(statistics), statistics),
    }
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model.encode((originals.nchw(images) + 1) / 2).latent
        latents = jax.jit(rae.encode)(params, images)
        encode_error = relative_error(latents, originals.nhwc(expected))
        expected = 2 * model.decode(expected).sample - 1
    decoded = jax.jit(rae.decode)(params, latents)
    decode_error = relative_error(decoded, originals.nhwc(expected))
    assert max(encode_error, decode_error) <= 1e-4
