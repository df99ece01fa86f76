"""Inception-v3 of FID: sizes, input, its weights' names, parity with pytorch-fid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.evaluation.features import inception_clean, inception_tensorflow
from sphere_jax.evaluation.features.published import PublishedFeatures
from sphere_jax.models.inception import RESIZES, ConvNorm, Inception, bilinear_tf1, inception_input
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.inception import layouts
from sphere_jax.weights.tensors import convert, export


@functools.cache
def network(**options):
    return Network(lambda rngs: Inception(rngs=rngs, **options))


@functools.cache
def shapes(net):
    return jax.eval_shape(net.init, jax.random.key(0))


def relative_error(result, expected):
    return np.abs(np.asarray(result, np.float32) - expected).max() / np.abs(expected).max()


def random_params(net):
    """Random on every leaf: fresh norms are the identity."""
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        if path[-1].key == "kernel":
            scale = np.float32(np.sqrt(2 / np.prod(shape.shape[:-1])))
            return scale * rng.standard_normal(shape.shape, np.float32)
        return rng.uniform(0.5, 1.5, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes(net))


def test_sizes():
    """As many numbers as pytorch-fid's state has, and the maps it taps."""
    net = network()
    params = shapes(net)
    assert num_parameters(params) == 23_850_960 + 34_432  # trained, and statistics of norms

    def features(side):
        x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        return jax.eval_shape(lambda p, x: net.bind(p).features(x), params, x)

    assert {name: leaf.shape for name, leaf in features(299).items()} == {
        "64": (2, 73, 73, 64),
        "192": (2, 35, 35, 192),
        "spatial": (2, 17, 17, 7),
        "768": (2, 17, 17, 768),
        "2048": (2, 2048),
        "logits_unbiased": (2, 1008),
        "logits": (2, 1008),
    }
    assert features(75)["768"].shape == (2, 3, 3, 768)
    with pytest.raises(ValueError, match="sides of 75 pixels, not 74x74"):
        features(74)


def test_average_without_padding_before_the_convolution():
    """The product comes first in the code; here the average does, place by place."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    conv = Network(lambda rngs: ConvNorm(3, 6, rngs=rngs))
    params = random_params(conv)
    average = np.empty_like(x)
    for i in range(4):
        for j in range(5):
            near = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            average[:, i, j] = near.mean(axis=(1, 2))
    norm = params["norm"]
    y = average @ params["kernel"][0, 0]
    y = (y - norm["mean"]) / np.sqrt(norm["variance"] + 1e-3) * norm["scale"] + norm["bias"]
    result = conv.bind(params).of_average(jnp.asarray(x))
    assert relative_error(result, np.maximum(y, 0)) < 1e-5


def test_bfloat16():
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 8)).astype(np.float32)
    plain, low = (
        Network(lambda rngs, t=dtype: ConvNorm(8, 6, (3, 3), stride=2, rngs=rngs, dtype=t))
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    params = random_params(plain)
    result = low.apply(params, x)
    assert result.dtype == jnp.bfloat16
    assert 1e-5 < relative_error(result, np.asarray(plain.apply(params, x))) < 0.05

    whole = network(dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)
    features = jax.eval_shape(whole.apply, shapes(whole), images)
    assert features.shape == (2, 2048) and features.dtype == jnp.float32


def test_weights_have_the_names_of_pytorch_fid():
    net = network()
    (layout,) = layouts(net)
    leaves, treedef = jax.tree.flatten(shapes(net))
    params = treedef.unflatten(
        np.broadcast_to(np.float32(k), leaf.shape) for k, leaf in enumerate(leaves)
    )
    kernel = np.random.default_rng(0).standard_normal((1, 7, 160, 160)).astype(np.float32)
    params["mixed_6c"]["branch7x7dbl_3"]["kernel"] = kernel
    tensors = export(params, layout)
    assert len(tensors) == 94 * 5 + 2
    theirs = tensors["Mixed_6c.branch7x7dbl_3.conv.weight"]
    np.testing.assert_array_equal(theirs, np.einsum("hwio->oihw", kernel))
    np.testing.assert_array_equal(
        tensors["Conv2d_1a_3x3.bn.running_var"], params["conv2d_1a_3x3"]["norm"]["variance"]
    )
    tensors["Conv2d_1a_3x3.bn.num_batches_tracked"] = np.int64(7)
    tensors["AuxLogits.fc.weight"] = np.zeros((1008, 768), np.float32)
    jax.tree.map(np.testing.assert_array_equal, convert(tensors, layouts(net), net), params)


def test_input():
    images = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), dtype=np.uint8)
    images[0, 0, 0] = 0, 128, 255
    result = inception_input(images)
    np.testing.assert_allclose(result, images / 127.5 - 1, atol=1e-6)
    tensorflow = inception_input(images, "tensorflow")
    np.testing.assert_array_equal(tensorflow, (np.float32(images) - 128) / 128)
    small = images[:, :40, :30]
    for resize in RESIZES:
        result = inception_input(small, resize)
        assert result.shape == (2, 299, 299, 3) and result.dtype == jnp.float32
        as_float = inception_input(jnp.asarray(small / 127.5 - 1, jnp.float32), resize)
        np.testing.assert_allclose(as_float, result, atol=1e-5)
    assert np.abs(inception_input(small) - inception_input(small, "tensorflow")).max() > 0.1
    with pytest.raises(ValueError, match="not 'bicubic'"):
        inception_input(images, "bicubic")


@pytest.mark.parametrize("size", [(7, 4), (12, 9), (5, 3)])
def test_bilinear_of_tensorflow_1(size):
    """Output i reads at i * H / height: every second pixel of twice the size is a copy."""
    images = np.random.default_rng(0).integers(0, 256, (1, 5, 3, 2), dtype=np.uint8)
    expected = np.empty((1, *size, 2))
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = i * 5 / size[0], j * 3 / size[1]
            top, left = int(y), int(x)
            low, right = min(top + 1, 4), min(left + 1, 2)
            above = images[0, top, left] * (1 - (x - left)) + images[0, top, right] * (x - left)
            below = images[0, low, left] * (1 - (x - left)) + images[0, low, right] * (x - left)
            expected[0, i, j] = above * (1 - (y - top)) + below * (y - top)
    np.testing.assert_allclose(bilinear_tf1(images, *size), expected, atol=1e-3)


def random_original(monkeypatch):
    """pytorch-fid's network with random weights instead of its download."""
    from torchvision_shim import import_torchvision, importorskip

    fid = importorskip("pytorch_fid.inception")
    import torch

    with monkeypatch.context() as patch:
        patch.setattr(fid, "load_state_dict_from_url", lambda *args, **kwargs: None)
        inception3 = import_torchvision().models.Inception3
        patch.setattr(inception3, "load_state_dict", lambda self, state: None)
        model = fid.fid_inception_v3()
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                torch.nn.init.uniform_(tensor, -0.3, 0.3)
    monkeypatch.setattr(fid, "fid_inception_v3", lambda: model)
    return model.eval(), fid.InceptionV3((0, 1, 2, 3)).eval()


@pytest.mark.parity
def test_parity_with_pytorch_fid(monkeypatch):
    """uint8 to every feature, resized to 299 pixels. Largest relative error seen: 4e-6."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    inception, taps = random_original(monkeypatch)
    spatial = []
    inception.Mixed_6d.branch1x1.register_forward_hook(lambda *args: spatial.append(args[-1]))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    with torch.no_grad():
        maps = taps(originals.nchw(images).float() / 255)
        logits = inception.fc(maps[3][..., 0, 0])
    expected = dict(zip(("64", "192", "768", "2048"), map(originals.nhwc, maps), strict=True))
    expected["2048"] = expected["2048"][:, 0, 0]
    expected["spatial"] = originals.nhwc(spatial[0])[..., :7]
    expected["logits"] = logits.numpy()
    expected["logits_unbiased"] = (logits - inception.fc.bias).detach().numpy()

    net = network()
    params = convert(originals.published(inception), layouts(net), net)
    found = jax.jit(lambda p, x: net.bind(p).features(inception_input(x)))(params, images)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-4, name


FORMS = {"tensorflow": inception_tensorflow.FEATURES, "clean": inception_clean.FEATURES}


@pytest.mark.parity
@pytest.mark.parametrize("resize", FORMS)
def test_parity_with_torch_fidelity_and_clean_fid(resize, monkeypatch, tmp_path):
    """uint8 to the outputs of the feature networks; both have torch-fidelity's network, and
    clean-fid resizes each image with Pillow before it. Largest relative error seen: 4e-6."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals
    from torchvision_shim import importorskip

    theirs = importorskip("torch_fidelity.feature_extractor_inceptionv3")
    state = random_original(monkeypatch)[0].state_dict()
    torch.save({name: x for name, x in state.items() if "Aux" not in name}, tmp_path / "w.pth")
    names = ["2048", "logits_unbiased"]
    original = theirs.FeatureExtractorInceptionV3("", names, str(tmp_path / "w.pth"))
    spatial = []
    original.Mixed_6d.branch1x1.register_forward_hook(lambda *args: spatial.append(args[-1]))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    if resize == "clean":
        resizer = importorskip("cleanfid.resize").build_resizer("clean")
        resized = np.stack([resizer(image) for image in images])
        # torch-fidelity takes uint8 alone and leaves images of its own size as they are.
        interpolate = "interpolate_bilinear_2d_like_tensorflow1x"
        monkeypatch.setattr(theirs, interpolate, lambda *a, **k: originals.nchw(resized))
    with torch.no_grad():
        features, logits = original(originals.nchw(images))
    net = network()
    params = convert(originals.published(original), layouts(net), net)
    kind = FORMS[resize]
    found = PublishedFeatures(kind, "", None, net, params).batch(images, kind.outputs)
    assert found["spatial"].shape == (2, 2023)
    for name, value in (
        ("features", features.numpy()),
        ("logits", logits.numpy()),
        ("spatial", originals.nhwc(spatial[0])[..., :7].reshape(2, -1)),
    ):
        assert relative_error(found[name], value) <= 1e-4, name
