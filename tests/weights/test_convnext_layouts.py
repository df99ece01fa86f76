"""ConvNeXt weights under the names of torchvision, timm and the authors."""

import functools
import re

import jax
import numpy as np
import pytest

from sphere_jax.models.convnext import ConvNeXt
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.convnext import layouts
from sphere_jax.weights.tensors import convert, fit

DEPTHS, WIDTHS, CLASSES = (1, 2, 3, 1), (4, 5, 6, 7), 9

# torchvision's names and their counterparts, stage by stage and for every block.
TIMM = [
    (r"features\.0\.(\d)", r"stem.\1"),
    (r"features\.2\.(\d)", r"stages.1.downsample.\1"),
    (r"features\.4\.(\d)", r"stages.2.downsample.\1"),
    (r"features\.6\.(\d)", r"stages.3.downsample.\1"),
    (r"features\.1\.(\d+)", r"stages.0.blocks.\1"),
    (r"features\.3\.(\d+)", r"stages.1.blocks.\1"),
    (r"features\.5\.(\d+)", r"stages.2.blocks.\1"),
    (r"features\.7\.(\d+)", r"stages.3.blocks.\1"),
    (r"block\.0\.", "conv_dw."),
    (r"block\.2\.", "norm."),
    (r"block\.3\.", "mlp.fc1."),
    (r"block\.5\.", "mlp.fc2."),
    (r"layer_scale", "gamma"),
    (r"classifier\.0", "head.norm"),
    (r"classifier\.2", "head.fc"),
]
ORIGINAL = [
    (r"features\.0\.(\d)", r"downsample_layers.0.\1"),
    (r"features\.2\.(\d)", r"downsample_layers.1.\1"),
    (r"features\.4\.(\d)", r"downsample_layers.2.\1"),
    (r"features\.6\.(\d)", r"downsample_layers.3.\1"),
    (r"features\.1\.(\d+)", r"stages.0.\1"),
    (r"features\.3\.(\d+)", r"stages.1.\1"),
    (r"features\.5\.(\d+)", r"stages.2.\1"),
    (r"features\.7\.(\d+)", r"stages.3.\1"),
    (r"block\.0\.", "dwconv."),
    (r"block\.2\.", "norm."),
    (r"block\.3\.", "pwconv1."),
    (r"block\.5\.", "pwconv2."),
    (r"layer_scale", "gamma"),
    (r"classifier\.0", "norm"),
    (r"classifier\.2", "head"),
]


@functools.cache
def network(depths=DEPTHS):
    return Network(lambda rngs: ConvNeXt(depths, WIDTHS, CLASSES, rngs=rngs))


def published(tensors, network):
    return convert(tensors, layouts(network), network)


@pytest.fixture
def torchvision():
    shapes = {}
    for k, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        before, conv, norm = (WIDTHS[k - 1], 1, 0) if k else (3, 0, 1)
        factor = 2 if k else 4
        shapes[f"features.{2 * k}.{conv}.weight"] = (width, before, factor, factor)
        shapes[f"features.{2 * k}.{conv}.bias"] = (width,)
        for part in ("weight", "bias"):
            shapes[f"features.{2 * k}.{norm}.{part}"] = (before if k else width,)
        for n in range(depth):
            block = f"features.{2 * k + 1}.{n}"
            shapes[f"{block}.layer_scale"] = (width, 1, 1)
            shapes[f"{block}.block.0.weight"] = (width, 1, 7, 7)
            shapes[f"{block}.block.3.weight"] = (4 * width, width)
            shapes[f"{block}.block.3.bias"] = (4 * width,)
            shapes[f"{block}.block.5.weight"] = (width, 4 * width)
            for name in ("block.0.bias", "block.2.weight", "block.2.bias", "block.5.bias"):
                shapes[f"{block}.{name}"] = (width,)
    shapes["classifier.0.weight"] = shapes["classifier.0.bias"] = (WIDTHS[-1],)
    shapes["classifier.2.weight"] = (CLASSES, WIDTHS[-1])
    shapes["classifier.2.bias"] = (CLASSES,)
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def renamed(tensors, rules):
    for old, new in rules:
        tensors = {re.sub(f"(?:^|(?<=\\.)){old}", new, name): t for name, t in tensors.items()}
    return {n: t.reshape(-1) if n.endswith("gamma") else t for n, t in tensors.items()}


def test_torchvision(torchvision):
    params = published(torchvision, network())
    layers = params["stages"][2]["layers"]
    for n in range(3):
        block = f"features.5.{n}"
        kernel = np.einsum("oihw->hwio", torchvision[f"{block}.block.0.weight"])
        np.testing.assert_array_equal(layers["depthwise"]["kernel"][n], kernel)
        expand = torchvision[f"{block}.block.3.weight"].T
        np.testing.assert_array_equal(layers["expand"]["kernel"][n], expand)
        scale = torchvision[f"{block}.layer_scale"].ravel()
        np.testing.assert_array_equal(layers["scale"][n], scale)
    np.testing.assert_array_equal(params["norms"][0]["scale"], torchvision["features.0.1.weight"])
    np.testing.assert_array_equal(params["norms"][1]["scale"], torchvision["features.2.0.weight"])
    np.testing.assert_array_equal(params["head"]["kernel"], torchvision["classifier.2.weight"].T)


@pytest.mark.parametrize(
    ("rules", "whose", "samples"),
    [
        (TIMM, "timm", ("stages.2.blocks.1.mlp.fc1.weight", "stages.3.downsample.0.bias")),
        (ORIGINAL, "the authors", ("stages.2.1.pwconv1.weight", "downsample_layers.3.0.bias")),
    ],
    ids=["timm", "original"],
)
def test_other_names_give_the_same_parameters(torchvision, rules, whose, samples):
    tensors = renamed(torchvision, rules)
    assert len(tensors) == len(torchvision) and set(samples) < set(tensors)
    assert fit(tensors, layouts(network()), network()).name == whose
    expected = published(torchvision, network())
    jax.tree.map(np.testing.assert_array_equal, published(tensors, network()), expected)


def test_weights_of_another_network_are_refused(torchvision):
    with pytest.raises(ValueError, match=r"^9 missing \(features.1.1.block.0.bias"):
        published(torchvision, network((2, 2, 3, 1)))
    with pytest.raises(ValueError, match=r"^9 unexpected \(features.5.2.block.0.bias"):
        published(torchvision, network((1, 2, 2, 1)))
    with pytest.raises(ValueError, match=r"missing .*; 1 unexpected \(conv.weight\)"):
        published({"conv.weight": np.zeros(3)}, network())
