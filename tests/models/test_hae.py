"""HAE's autoencoder: stems, gradients through the frozen ViT, its file, parity with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphere_jax.models.dc_ae import DECODERS, Decoder
from sphere_jax.models.dinov3 import KINDS, DINOv3
from sphere_jax.models.hae import HAE, ConvStem, PatchStem, vit_input
from sphere_jax.nn.dc_ae_blocks import relu_linear_attention
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts import hae as hae_layouts
from sphere_jax.weights.tensors import convert, export

SIZES = dict(width=64, depth=2, heads=2, patch=8, registers=4)
DECODER = DECODERS["hae_released"] | dict(
    latent_channels=64,
    widths=(16, 32, 64, 64),
    depths=(1, 1, 1, 1),
    blocks=("res", "res", "evit", "evit"),
    norms=("sample_rms", "sample_rms", "none", "none"),
    activations=("silu",) * 4,
)


def whole(rngs, embeds=False):
    return HAE(
        ConvStem(widths=(8, 16, 64), norm="sample_rms", rngs=rngs),
        DINOv3(**SIZES, embeds=embeds, rope_dtype=jnp.bfloat16, rngs=rngs),
        Decoder(**DECODER, rngs=rngs),
    )


@pytest.fixture(scope="module")
def small():
    network = Network(whole)
    return network, jax.jit(network.init)(jax.random.key(0))


def test_counts():
    """Stem and decoder as published; of the ViT all but its patch embedding is in the file."""

    def build(rngs):
        vit = DINOv3(**KINDS["dinov3_vitl16"], embeds=False, rngs=rngs)
        return HAE(
            ConvStem(norm="sample_rms", rngs=rngs),
            vit,
            Decoder(**DECODERS["hae_released"], rngs=rngs),
        )

    network = Network(build)
    counts = {name: num_parameters(tree) for name, tree in network.shapes.items()}
    assert counts == {"stem": 2_737_792, "vit": 303_128_576 - 787_456, "decoder": 172_004_099}
    images = jax.eval_shape(network.apply, network.shapes, np.zeros((1, 256, 256, 3), np.float32))
    assert images.shape == (1, 256, 256, 3)


def test_the_gradient_passes_the_frozen_vit(small):
    network, params = small
    images = jax.random.uniform(jax.random.key(1), (2, 32, 24, 3), minval=-1)

    def loss(stem):
        return jnp.sum(network.bind(params | {"stem": stem}).encode(images)[:, 1:] ** 3)

    latents = jax.jit(lambda p: network.bind(p).encode(images))(params)
    assert latents.shape == (2, 4, 3, 64) and latents.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(latents, axis=-1), 8, rtol=0.1)
    slopes = jax.jit(jax.grad(loss))(params["stem"])
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))
    first = slopes["convs"][0]["kernel"]
    assert np.isfinite(first).all() and first.dtype == jnp.float32


def test_a_patch_stem_with_the_weights_of_the_vit_is_its_patch_embedding():
    vit = Network(lambda rngs: DINOv3(**SIZES, rngs=rngs))
    stem = Network(lambda rngs: PatchStem(64, 8, rngs=rngs))
    params = vit.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 24, 3), minval=-1)
    own = {"patch_embedding": params["patch_embedding"]}
    np.testing.assert_array_equal(
        stem.apply(own, vit_input(images)), vit.bind(params).embed(vit_input(images))
    )


def test_a_stem_of_too_many_convolutions_is_refused():
    with pytest.raises(ValueError, match="1 to 4 convolutions, not 5"):
        ConvStem(widths=(8,) * 5, norm="trms2d", rngs=nnx.Rngs(0))


def test_its_file_there_and_back(small):
    network, params = small
    (layout,) = hae_layouts.layouts(network)
    tensors = export(params, layout)
    assert {name.split(".")[0] for name in tensors} == {"dino_model", "decoder"}
    assert "dino_model.blocks.1.attn.qkv.weight" in tensors
    assert not any("patch_embed.proj" in name for name in tensors)
    jax.tree.map(np.testing.assert_array_equal, convert(tensors, [layout], network), params)
    extra = {"dino_model.mask_token": np.zeros((1, 64), np.float32)}
    convert(tensors | extra, [layout], network)
    with pytest.raises(ValueError, match="1 unexpected"):
        convert(tensors | {"dino_model.norms": np.zeros(3, np.float32)}, [layout], network)


def test_gradients_of_linear_attention_are_float32():
    """With inputs in bfloat16: those of the same numbers in float32, rounded once."""
    q, k, v, c = (jax.random.normal(jax.random.key(n), (2, 40, 2, 8)) for n in range(4))
    q, k, v, c = (x.astype(jnp.bfloat16) for x in (q, k, v, c))

    def loss(q, k, v):
        return jnp.sum(relu_linear_attention(q, k, v) * c.astype(jnp.float32))

    found = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    exact = jax.grad(loss, (0, 1, 2))(*(x.astype(jnp.float32) for x in (q, k, v)))
    for ours, true in zip(found, exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype("f4"), true.astype(jnp.bfloat16).astype("f4"),
                                   rtol=2**-7, atol=1e-6)  # fmt: skip
    inside = str(jax.make_jaxpr(jax.grad(loss))(q, k, v))
    products = [line for line in inside.splitlines() if "dot_general" in line]
    assert products and not any("bf16" in line.split("=")[0] for line in products)


@pytest.mark.parity
def test_parity_of_the_autoencoder_with_pytorch():
    """Latents and images from one file of random weights. Measured: 2e-6."""
    torch = pytest.importorskip("torch")
    from originals_dc_ae import TorchHAE
    from originals_dino import TorchDINOv3, randomise

    torch.manual_seed(0)
    sizes = dict(SIZES, patch=16, width=1024, heads=16)
    vit = randomise(TorchDINOv3(1024, 2, 16, 16))
    rest = TorchHAE((1024, 1024, 512, 512, 256), (1,) * 5)
    tensors = {f"dino_model.{n}": t.numpy() for n, t in vit.state_dict().items()}
    tensors |= {n: t.numpy() for n, t in rest.state_dict().items()}

    def build(rngs):
        shallow = DECODERS["hae_released"] | dict(depths=(1,) * 5)
        vit = DINOv3(**sizes, embeds=False, rope_dtype=jnp.bfloat16, rngs=rngs)
        stem = ConvStem(norm="sample_rms", rngs=rngs)
        return HAE(stem, vit, Decoder(**shallow, rngs=rngs))

    network = Network(build)
    params = convert(tensors, hae_layouts.layouts(network), network)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 48, 3)).astype(np.float32)
    del vit.patch_embed
    vit.patch_embed = lambda x: rest.stem(x)["tokens"]
    with torch.no_grad():
        x = torch.from_numpy(np.asarray(vit_input(images))).movedim(-1, 1)
        z = vit(x)[:, 5:].mT.unflatten(2, (4, 3))
        expected = rest.decode(z)["images"]

    for found, true in (
        (network.bind(params).encode(images), z),
        (network.apply(params, images), expected),
    ):
        true = true.movedim(1, -1).numpy()
        assert np.abs(found - true).max() / np.abs(true).max() < 1e-4
