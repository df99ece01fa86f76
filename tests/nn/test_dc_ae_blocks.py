"""DC-AE's blocks: closed forms, resampling, bfloat16, parity with diffusers."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.nn.dc_ae_blocks import (
    NORMS,
    Downsample,
    EViTBlock,
    LiteMLA,
    ResBlock,
    Upsample,
    average,
    duplicate,
    relu_linear_attention,
    shuffle,
    unshuffle,
)
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.dc_ae import DIFFUSERS, _evit, _res
from sphere_jax.weights.tensors import Layout, convert, export


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def random_params(network):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.normal(0.1, 0.2, s.shape).astype(np.float32), shapes)


def zero_params(network):
    return jax.tree.map(np.zeros_like, random_params(network))


def evit(dtype=jnp.float32, width=64, scales=(5,), norm="trms2d"):
    return Network(lambda r: EViTBlock(width, scales=scales, norm=norm, rngs=r, dtype=dtype))


def resblock(dtype=jnp.float32, width=16, norm="trms2d", activation="silu"):
    options = dict(norm=norm, activation=activation, dtype=dtype)
    return Network(lambda r: ResBlock(width, rngs=r, **options))


@pytest.mark.parametrize(("height", "width"), [(4, 5), (9, 4)], ids=["fewer than d", "more"])
def test_linear_attention_is_attention_with_weights_k_q(height, width):
    q, k, v = (normal(2, height * width, 3, 32, seed=s) for s in range(3))
    weights = np.einsum("bnhd,bmhd->bhnm", np.maximum(q, 0), np.maximum(k, 0))
    expected = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)
    assert relative_error(jax.jit(relu_linear_attention)(q, k, v), expected) < 1e-5


def test_linear_attention_without_any_weight_is_zero_and_so_is_its_gradient():
    def total(q, k, v):
        return relu_linear_attention(q, k, v).sum()

    q, v = -np.ones((1, 4, 1, 8), np.float32), normal(1, 4, 1, 8)
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, -q, v)
    assert not value and not any(map(np.any, gradients))


def test_channels_and_pixels():
    x = normal(2, 4, 6, 3)
    same = jax.jit(lambda x: (shuffle(unshuffle(x)), average(duplicate(x, 12), 3)))
    for result in same(x):
        np.testing.assert_array_equal(result, x)
    nearest = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(jax.jit(lambda x: shuffle(duplicate(x, 12)))(x), nearest)
    with pytest.raises(ValueError, match="3 channels cannot be repeated to 10"):
        duplicate(x, 10)
    with pytest.raises(ValueError, match="3 channels cannot be averaged to 2"):
        average(x, 2)
    with pytest.raises(ValueError, match="width 48 is not divisible by the head dimension 32"):
        Network(lambda r: LiteMLA(48, norm="none", rngs=r, dtype=jnp.float32))


@pytest.mark.parametrize("kind", ["interpolate", "pixel_shuffle"])
def test_upsampling_by_zero_kernels_is_its_shortcut(kind):
    up = Network(lambda r: Upsample(8, 4, kind=kind, rngs=r, dtype=jnp.float32))
    params = zero_params(up)
    x = normal(1, 2, 3, 8)
    # channel c of the output: inputs 2c in the upper two pixels and 2c + 1 in the lower two
    upper, lower = x[..., ::2].repeat(2, axis=2), x[..., 1::2].repeat(2, axis=2)
    result = jax.jit(up.apply)(params, x)
    np.testing.assert_array_equal(result[:, ::2], upper)
    np.testing.assert_array_equal(result[:, 1::2], lower)


@pytest.mark.parametrize("kind", ["conv", "pixel_unshuffle"])
def test_downsampling_by_zero_kernels_is_its_shortcut(kind):
    down = Network(lambda r: Downsample(4, 8, kind=kind, rngs=r, dtype=jnp.float32))
    params = zero_params(down)
    x = normal(1, 4, 6, 4)
    result = jax.jit(down.apply)(params, x)
    rows = (x[:, :, ::2] + x[:, :, 1::2]) / 2  # upper rows to even channels, lower ones to odd
    np.testing.assert_allclose(result[..., ::2], rows[:, ::2], rtol=1e-6)
    np.testing.assert_allclose(result[..., 1::2], rows[:, 1::2], rtol=1e-6)


def test_norms():
    x = 3 * normal(2, 4, 5, 8)
    norm = jax.jit(lambda x: {kind: NORMS[kind](8)(x) for kind in NORMS})(x)
    norm = {kind: np.asarray(y) for kind, y in norm.items()}
    np.testing.assert_allclose(np.square(norm["trms2d"]).mean(-1), 1, rtol=1e-4)
    np.testing.assert_allclose(np.square(norm["sample_rms"]).mean((1, 2, 3)), 1, rtol=1e-4)
    assert np.square(norm["sample_rms"]).mean(-1).std() > 0.1
    np.testing.assert_allclose(norm["batch"], x, rtol=1e-4)
    np.testing.assert_array_equal(norm["none"], x)


@pytest.mark.parametrize("network", [evit, resblock])
def test_bfloat16_is_near_float32(network):
    plain, bfloat16 = network(), network(jnp.bfloat16)
    params, x = random_params(plain), normal(1, 6, 7, 64 if network is evit else 16)
    expected = np.asarray(jax.jit(plain.apply)(params, x))
    result = jax.jit(bfloat16.apply)(params, x.astype(jnp.bfloat16))
    assert result.dtype == jnp.bfloat16
    assert relative_error(result.astype(jnp.float32), expected) < 0.03


def diffusers_original(name):
    pytest.importorskip("torch")
    from torchvision_shim import import_torchvision

    with contextlib.suppress(ImportError):  # diffusers does without
        import_torchvision()
    pytest.importorskip("diffusers")
    from diffusers.models.autoencoders import autoencoder_dc

    return getattr(autoencoder_dc, name)


def parity(original, network, leaves, x):
    """Largest relative errors of the output and of the gradient of the input."""
    import torch

    for name, tensor in original.state_dict().items():
        if tensor.ndim == 1 and "num_batches" not in name:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    original.eval()
    tensors = {f"x.{n}": t.numpy() for n, t in original.state_dict().items()}
    layout = Layout("diffusers", leaves(network.module, "", "x", DIFFUSERS), ignored=".*tracked")
    layout = layout._replace(leaves={n.lstrip("/"): s for n, s in layout.leaves.items()})
    params = convert(tensors, [layout], network)
    for name, tensor in export(params, layout).items():
        np.testing.assert_array_equal(tensor, tensors[name])
    weight = normal(*x.shape, seed=5)
    theirs = torch.from_numpy(x).movedim(-1, 1).requires_grad_()
    output = original(theirs).movedim(1, -1)
    (output * torch.from_numpy(weight)).sum().backward()
    ours = jax.jit(jax.value_and_grad(_weighted, has_aux=True), static_argnums=3)
    (_, result), gradient = ours(x, params, weight, network)
    errors = relative_error(result, output.detach().numpy())
    return errors, relative_error(gradient, theirs.grad.movedim(1, -1).numpy())


def _weighted(x, params, weight, network):
    y = network.apply(params, x)
    return jnp.sum(y * weight), y


@pytest.mark.parity
@pytest.mark.parametrize("grid", [(6, 7), (4, 5), (1, 1)], ids=["linear", "quadratic", "one"])
def test_parity_of_evit_with_diffusers(grid):
    """Width 512, scale 5, either order of its attention. Measured: output 6e-7, gradient 8e-7."""
    original = diffusers_original("EfficientViTBlock")
    original = original(512, attention_head_dim=32, norm_type="rms_norm", qkv_multiscales=(5,))
    errors = parity(original, evit(width=512), _evit, normal(2, *grid, 512))
    assert max(errors) < 1e-4


@pytest.mark.parity
@pytest.mark.parametrize(("norm", "activation"), [("trms2d", "silu"), ("batch", "relu")])
def test_parity_of_resblock_with_diffusers(norm, activation):
    """Width 512. Measured: output 2e-6, gradient 2e-6."""
    theirs = {"trms2d": "rms_norm", "batch": "batch_norm"}[norm]
    original = diffusers_original("ResBlock")(512, 512, theirs, activation)
    network = resblock(width=512, norm=norm, activation=activation)
    errors = parity(original, network, _res, normal(2, 7, 5, 512))
    assert max(errors) < 1e-4
