"""Published VAEs as tokenizers: shapes, constants, packing, parity with FLUX.2's pipeline."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphere_jax.config.options import Config, DataOptions
from sphere_jax.data.moments import moments_of, statistics_of
from sphere_jax.models.kl_vae import KINDS, AutoencoderKL
from sphere_jax.nn.functional import Network
from sphere_jax.runs.latent_statistics import _cached
from sphere_jax.tokenizers.kl_vae import KLVAE, KLVAEOptions, pack, unpack
from sphere_jax.weights.stored import write_weights


@pytest.fixture(scope="module")
def latents():
    return np.random.default_rng(0).standard_normal((2, 4, 6, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    mean, var = rng.standard_normal(128), rng.uniform(0.5, 2.0, 128)
    return {"statistics": {"mean": np.float32(mean), "var": np.float32(var)}}


@pytest.fixture(scope="module")
def tokenizers():
    """Of every kind, unpacked, for 64x96 images."""
    found = {kind: KLVAE.of_kind((64, 96), kind) for kind in ("sd", "flux1", "flux2", "vavae")}
    assert KINDS["repae_flux1"] == KINDS["flux1"]
    return found | {"repae_flux1": dataclasses.replace(found["flux1"], kind="repae_flux1")}


class Function(Network):
    """`function(params, x)` in place of a network."""

    def __init__(self, function):
        self.apply = function


def shapes(network):
    """Of its parameters."""
    return nnx.to_pure_dict(nnx.state(network.module))


def packed(tokenizer):
    return dataclasses.replace(tokenizer, packed=True)


@pytest.mark.parametrize(
    ("kind", "is_packed", "shape"),
    [
        ("sd", False, (8, 12, 4)),
        ("flux1", False, (8, 12, 16)),
        ("flux2", False, (8, 12, 32)),
        ("flux2", True, (4, 6, 128)),
        ("vavae", False, (4, 6, 32)),
    ],
)
def test_shapes(kind, is_packed, shape, tokenizers):
    tokenizer = KLVAE.of_kind((64, 96), kind, packed=True) if is_packed else tokenizers[kind]
    assert tokenizer.latent_shape == shape and tokenizer.image_shape == (64, 96, 3)
    assert ("statistics" in tokenizer.parts) == (kind == "flux2")
    params = {part: shapes(getattr(tokenizer, part)) for part in ("encoder", "decoder")}
    vector = jax.ShapeDtypeStruct((128,), jnp.float32)
    params["statistics"] = {"mean": vector, "var": vector}
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    latents = jax.eval_shape(tokenizer.encode, params, images)
    assert latents.shape == (2, *shape) and latents.dtype == jnp.float32
    decoded = jax.eval_shape(tokenizer.decode, params, latents)
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32


def test_sizes():
    """One side makes a square; any kind packs."""
    tokenizer = KLVAE.of_kind(32, "flux1", packed=True)
    assert tokenizer.image_shape == (32, 32, 3) and tokenizer.latent_shape == (2, 2, 64)


def test_parameters_are_those_of_the_autoencoder(tokenizers):
    """Which published weights are converted to."""
    tokenizer = tokenizers["flux2"]
    params = shapes(Network(lambda rngs: AutoencoderKL(**KINDS["flux2"], rngs=rngs)))
    assert set(params) == set(tokenizer.parts)
    for part in ("encoder", "decoder"):
        found = jax.tree.map(lambda leaf: leaf.shape, shapes(getattr(tokenizer, part)))
        assert found == jax.tree.map(lambda leaf: leaf.shape, params[part])


@pytest.mark.parametrize(
    ("size", "kind", "is_packed", "message"),
    [
        (32, "sdxl", False, "must be one of sd, flux1, repae_flux1, flux2, vavae, not 'sdxl'"),
        ((32, 36), "sd", False, "sd VAE needs image sides divisible by 8, not 32x36"),
        (40, "flux2", False, "flux2 VAE needs image sides divisible by 16, not 40x40"),
        (40, "flux1", True, "flux1 VAE needs image sides divisible by 16, not 40x40"),
        (40, "vavae", False, "vavae VAE needs image sides divisible by 16, not 40x40"),
    ],
)
def test_invalid_settings_are_refused(size, kind, is_packed, message):
    with pytest.raises(ValueError, match=message):
        KLVAE.of_kind(size, kind, packed=is_packed)


def test_images_that_do_not_fit(tokenizers):
    with pytest.raises(ValueError, match="divisible by 16, not 64x72"):
        tokenizers["flux2"].encode({}, np.zeros((1, 64, 72, 3), np.float32))


def test_packing_is_that_of_flux(latents):
    """Channel c, row p and column q of a 2x2 go to channel 4 c + 2 p + q."""
    result = np.asarray(pack(latents))
    assert result.shape == (2, 2, 3, 128)
    for c, p, q in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (5, 1, 1), (31, 0, 1)):
        np.testing.assert_array_equal(result[..., 4 * c + 2 * p + q], latents[:, p::2, q::2, c])
    np.testing.assert_array_equal(unpack(result), latents)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sd", lambda z: z * 0.18215),
        ("flux1", lambda z: (z - 0.1159) * 0.3611),
        ("repae_flux1", lambda z: (z - 0.1159) * 0.3611),
        ("vavae", lambda z: z),
    ],
)
def test_scale_and_shift(kind, expected, tokenizers, latents):
    tokenizer = tokenizers[kind]
    result = tokenizer.normalize({}, latents)
    np.testing.assert_allclose(result, expected(latents), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(tokenizer.denormalize({}, result), latents, rtol=1e-6, atol=1e-6)
    small = packed(tokenizer).normalize({}, latents)
    np.testing.assert_array_equal(small, pack(result))
    np.testing.assert_allclose(packed(tokenizer).denormalize({}, small), latents, 1e-6, 1e-6)


def test_statistics_of_vavae(tokenizers, latents):
    tokenizer = dataclasses.replace(tokenizers["vavae"], whiten=True)
    mean, std = np.linspace(-1, 1, 32, dtype="f4"), np.linspace(1, 3, 32, dtype="f4")
    params = {"statistics": {"mean": mean, "std": std}}
    result = tokenizer.normalize(params, latents)
    np.testing.assert_allclose(result, (latents - mean) / std, rtol=1e-5, atol=1e-6)
    back = tokenizer.denormalize(params, result)
    np.testing.assert_allclose(back, latents, rtol=1e-5, atol=1e-5)


def test_batch_norm_of_flux2(tokenizers, params, latents):
    tokenizer = tokenizers["flux2"]
    result = packed(tokenizer).normalize(params, latents)
    mean, var = (np.float64(params["statistics"][name]) for name in ("mean", "var"))
    expected = (np.float64(pack(latents)) - mean) / np.sqrt(var + 1e-4)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tokenizer.normalize(params, latents), unpack(result))
    for way in (tokenizer, packed(tokenizer)):
        back = way.denormalize(params, way.normalize(params, latents))
        np.testing.assert_allclose(back, latents, rtol=1e-5, atol=1e-6)


def test_encode_and_decode_pass_through_the_normalisation(tokenizers, params, latents):
    """With networks that give their parameters for moments, and latents for images."""
    tokenizer = dataclasses.replace(
        tokenizers["flux2"],
        encoder=Function(lambda moments, images: moments),
        decoder=Function(lambda offset, z: z + offset),
    )
    log_variance = np.full_like(latents, -40.0)
    log_variance[0] = 30.0
    params = params | {"encoder": np.concatenate([latents, log_variance], -1), "decoder": 1.0}
    images = np.zeros((2, 32, 48, 3), np.float32)
    mean, clipped = tokenizer.posterior(params, images)
    np.testing.assert_array_equal(mean, latents)
    assert np.all(clipped[0] == 20.0) and np.all(clipped[1] == -30.0)
    encoded = tokenizer.encode(params, images)
    np.testing.assert_array_equal(encoded, tokenizer.normalize(params, latents))
    np.testing.assert_allclose(tokenizer.decode(params, encoded), latents + 1.0, 1e-5, 1e-5)


@pytest.mark.parametrize("form", ["plain", "packed", "whitened"])
@pytest.mark.parametrize("kind", ["sd", "flux1", "flux2"])
def test_moments_are_those_of_normalised_samples(kind, form, tokenizers, params, latents):
    """A sample of the encoder's Gaussian, normalised, is the mean plus so many deviations."""
    d = KINDS[kind]["latent_channels"]
    if kind != "flux2":
        statistics = {"mean": np.linspace(-1, 1, d), "std": np.linspace(0.5, 2, d)}
        params = {"statistics": jax.tree.map(np.float32, statistics)}
    tokenizer = dataclasses.replace(
        tokenizers[kind],
        encoder=Function(lambda moments, images: moments),
        packed=form == "packed",
        whiten=form == "whitened" and kind != "flux2",
    )
    mean, log_variance = latents[..., :d], np.roll(latents, 1, 1)[..., :d]
    params = params | {"encoder": np.concatenate([mean, log_variance], -1)}
    found, std = tokenizer.moments(params, np.zeros((2, 64, 96, 3), np.float32))
    np.testing.assert_array_equal(found, tokenizer.encode(params, np.zeros((2, 64, 96, 3), "f4")))
    noise = np.random.default_rng(3).standard_normal(mean.shape).astype(np.float32)
    expected = tokenizer.normalize(params, mean + np.exp(0.5 * log_variance) * noise)
    noise = pack(noise) if tokenizer.packed else noise
    np.testing.assert_allclose(found + std * noise, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_parity_with_the_pipeline_of_flux2(tokenizers, params, latents):
    """Packing of diffusers' pipeline and PyTorch's batch norm; bit for bit but for the last."""
    torch = pytest.importorskip("torch")
    from torchvision_shim import import_torchvision

    with contextlib.suppress(ImportError):  # diffusers does without it, but not with half of it
        import_torchvision()
    diffusers = pytest.importorskip("diffusers")
    from torch_originals import nchw, nhwc

    pipeline = diffusers.Flux2Pipeline
    theirs = pipeline._patchify_latents(nchw(latents))
    np.testing.assert_array_equal(pack(latents), nhwc(theirs))
    np.testing.assert_array_equal(nhwc(pipeline._unpatchify_latents(theirs)), latents)

    norm = torch.nn.BatchNorm2d(128, eps=1e-4, affine=False).eval()
    norm.running_mean.copy_(torch.from_numpy(params["statistics"]["mean"]))
    norm.running_var.copy_(torch.from_numpy(params["statistics"]["var"]))
    result = packed(tokenizers["flux2"]).normalize(params, latents)
    np.testing.assert_allclose(result, nhwc(norm(theirs)), rtol=1e-5, atol=1e-6)


def test_statistics_of_packed_latents(tmp_path):
    """Of a cache that was packed: read, they are what the tokenizer gives by them; measured, they
    are those of the channels before packing."""
    rng = np.random.default_rng(3)
    z = np.float32(rng.standard_normal((2, 8, 12, 16)) * rng.uniform(0.5, 2, 16) + 1)
    given = {"mean": rng.standard_normal(16), "std": rng.uniform(0.5, 2.0, 16)}
    given = {name: np.float32(value) for name, value in given.items()}
    file = tmp_path / "statistics.safetensors"
    write_weights(file, given, "flux1_statistics", "a test")
    data = DataOptions(source="cache", path=str(tmp_path), image_size=64, channels=3)
    bare = KLVAEOptions(kind="flux1", packed=True)
    options = dataclasses.replace(bare, pretrained_statistics=str(file))
    made_with = KLVAE.latents_made_with(data, bare)
    stored = KLVAE.build(data, bare).normalize({}, z)
    mean, std = KLVAE.statistics_to_apply(data, options, made_with)
    expected = KLVAE.build(data, options).normalize({"statistics": given}, z)
    np.testing.assert_allclose((stored - mean) / std, expected, rtol=1e-4, atol=1e-5)

    found = statistics_of(moments_of(np.asarray(stored)))
    index = {
        "made_with": made_with, "statistics": found, "latent_shape": (4, 6, 64),
        "dtype": "float32",
        "shards": {"train": [{"images": 2, "name": "a", "bytes": 1, "crc32": 1}], "heldout": []},
    }  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert not KLVAE.without_statistics(bare).packed
    config = Config(("flow",), data=data, tokenizer=bare)
    cached, count = _cached(config, packed=True)
    whole = statistics_of(moments_of(np.asarray(unpack(stored))))
    assert count == 2
    for name in ("channel_mean", "channel_std"):
        np.testing.assert_allclose(cached[name], whole[name], rtol=1e-5)
