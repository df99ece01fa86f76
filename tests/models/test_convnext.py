"""ConvNeXt: published sizes, shapes, bfloat16, parity with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.convnext import SIZES, ConvNeXt
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.convnext import layouts
from sphere_jax.weights.tensors import convert

NARROW = ((2, 1, 3, 1), (8, 12, 16, 24))
SHORT = ((1, 2), (8, 12))  # quick to compile


def network(depths, widths, **options):
    return Network(lambda rngs: ConvNeXt(depths, widths, rngs=rngs, **options))


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((2, 64, 48, 3)).astype(np.float32)


def random_params(convnext):
    """Random on every leaf: fresh blocks are almost the identity."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(convnext.init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.normal(0.1, 0.3, s.shape).astype(np.float32), shapes)


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


@pytest.mark.parametrize(
    ("size", "count"), [("tiny", 28_589_128), ("small", 50_223_688), ("base", 88_591_464)]
)
def test_parameter_counts(size, count):
    """As torchvision states them."""
    params = jax.eval_shape(network(*SIZES[size]).init, jax.random.key(0))
    assert num_parameters(params) == count


def test_shapes(images):
    convnext = network(*NARROW)
    params = jax.eval_shape(convnext.init, jax.random.key(0))
    maps = jax.eval_shape(lambda p, x: convnext.bind(p).features(x), params, images)
    assert [m.shape for m in maps] == [(2, 16, 12, 8), (2, 8, 6, 12), (2, 4, 3, 16), (2, 2, 1, 24)]
    logits = jax.eval_shape(convnext.apply, params, images)
    assert logits.shape == (2, 1000) and logits.dtype == jnp.float32
    with pytest.raises(ValueError, match="at least 32 pixels, not 64x31"):
        jax.eval_shape(convnext.apply, params, images[:, :, :31])


def test_images_do_not_mix_and_every_pixel_counts(images):
    convnext = network(*SHORT)
    params = random_params(convnext)
    loss = quick(jax.value_and_grad(lambda p, x: jnp.sum(convnext.apply(p, x)[0] ** 2), argnums=1))
    value, gradient = loss(params, images)
    assert np.all(np.abs(gradient[0]).max(axis=-1) > 0) and not np.any(gradient[1])
    np.testing.assert_allclose(
        loss(params, np.stack([images[0], 2 * images[1]]))[0], value, rtol=1e-5
    )


def test_bfloat16_products_give_float32_near_the_float32_logits(images):
    plain, bfloat16 = network((1,), (8,)), network((1,), (8,), dtype=jnp.bfloat16)
    params = random_params(plain)
    expected = np.asarray(quick(plain.apply)(params, images))
    result = quick(bfloat16.apply)(params, images)
    assert result.dtype == jnp.float32
    assert 1e-5 < relative_error(result, expected) < 0.05
    last = jax.eval_shape(lambda p, x: bfloat16.bind(p).features(x)[-1], params, images)
    assert last.dtype == jnp.bfloat16


@pytest.mark.parity
@pytest.mark.parametrize("sizes", [NARROW, SIZES["small"]], ids=["narrow", "small"])
def test_parity_with_pytorch(sizes, images):
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    torch.manual_seed(0)
    model, convnext = originals.TorchConvNeXt(*sizes), network(*sizes)
    params = convert(originals.published(model), layouts(convnext), convnext)

    def loss(params, x):
        logits = convnext.apply(params, x)
        return jnp.sum(logits**2), (convnext.bind(params).features(x), logits)

    slope = jax.jit(jax.grad(loss, argnums=1, has_aux=True))  # one program: compiling takes long
    gradient, (maps, result) = slope(params, images)
    for k, (found, expected) in enumerate(
        zip(maps, model.stages(originals.nchw(images)), strict=True)
    ):
        assert relative_error(found, originals.nhwc(expected)) <= 1e-4, f"stage {k}"

    x = originals.nchw(images).requires_grad_()
    logits = model(x)
    assert relative_error(result, logits.detach().numpy()) <= 1e-4
    logits.square().sum().backward()
    assert relative_error(gradient, originals.nhwc(x.grad)) <= 1e-4
