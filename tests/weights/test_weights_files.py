"""Files of weights of every kind, and those that `write_weights` makes."""

import argparse
import pickle

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import temporary_beside
from sphere_jax.distribution.mesh import make_mesh, put_global, tree_shardings
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.stored import (
    fingerprint_of,
    load_weights,
    write_safetensors,
    write_weights,
)
from sphere_jax.weights.tensors import Layout, linear_kernel, torch_layer


class Two(nnx.Module):
    def __init__(self, *, rngs, width=5):
        self.first = Linear(3, width, rngs=rngs)
        self.second = Linear(width, 2, rngs=rngs)
        self.gain = nnx.Param(jax.numpy.float32(2.0))


TWO = Network(lambda rngs: Two(rngs=rngs))


def layouts(network):
    leaves = torch_layer("first", "a", linear_kernel) | torch_layer("second", "b", linear_kernel)
    return [Layout("the authors", leaves)]


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (5, 3), "a.bias": (5,), "b.weight": (2, 5), "b.bias": (2,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found.shape_of(name) == tensor.shape


# --- published files -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_safetensors(tmp_path, tensors, dtype):
    stored = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    save_file(stored, tmp_path / "x.safetensors")
    found = open_tensors(tmp_path / "x.safetensors")
    same(found, stored)
    assert found["a.bias"].dtype == dtype
    with pytest.raises(KeyError):
        found["none"]


def test_pickles_of_numpy_arrays(tmp_path, tensors):
    tree = {"A": {"weight": tensors["a.weight"], "bias": tensors["a.bias"]}}
    for protocol in (3, 4):
        (tmp_path / "x.ckpt").write_bytes(pickle.dumps(tree, protocol))
        same(open_tensors(tmp_path / "x.ckpt"), {f"A/{k}": v for k, v in tree["A"].items()})


def test_wrappers_are_removed(tmp_path, tensors):
    save_file({f"module.model.{n}": t for n, t in tensors.items()}, tmp_path / "x.safetensors")
    same(open_tensors(tmp_path / "x.safetensors"), tensors)
    save_file({"model.a": np.zeros(1), "b": np.zeros(1)}, tmp_path / "y.safetensors")
    assert set(open_tensors(tmp_path / "y.safetensors")) == {"model.a", "b"}


def test_files_of_two_halves_and_folders(tmp_path):
    one, two = {"0.weight": np.float32([1])}, {"0.weight": np.float32([2])}
    save_file(one, tmp_path / "tiny_encoder.safetensors")
    save_file(two, tmp_path / "tiny_decoder.safetensors")
    expected = {"encoder.0.weight": one["0.weight"], "decoder.0.weight": two["0.weight"]}
    same(open_tensors(tmp_path), expected)
    names = ("tiny_encoder.safetensors", "tiny_decoder.safetensors")
    same(open_tensors(*[tmp_path / name for name in names]), expected)
    same(open_tensors(tmp_path / names[0]), one)  # alone it stays as it is
    save_file({"decoder.0.weight": np.zeros(1)}, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="both have a tensor 'decoder.0.weight'"):
        open_tensors(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no weights file"):
        open_tensors(tmp_path / "empty")


def test_bad_files_are_named(tmp_path, tensors):
    whole = tmp_path / "whole.safetensors"
    save_file(tensors, whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-10])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("cut.safetensors", "empty.safetensors"):
        with pytest.raises(ValueError, match=f"{name} is not a whole .safetensors file"):
            open_tensors(tmp_path / name)
    with pytest.raises(ValueError, match="none.safetensors is not there"):
        open_tensors(tmp_path / "none.safetensors")
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x.h5 has no suffix that is read here \(.safetensors"):
        open_tensors(tmp_path / "x.h5")


def trap(path):
    class Trap:
        def __reduce__(self):
            return (open, (str(path), "w"))

    return Trap()


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x.pth", "x.bin"])
def test_nothing_in_a_file_is_executed(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"a": trap(tmp_path / "sprung")}))
    with pytest.raises(ValueError, match=name):
        open_tensors(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parity
def test_files_of_pytorch(tmp_path, tensors):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    halves = {name: tensor.bfloat16() for name, tensor in state.items()}
    torch.save({"state_dict": halves, "epoch": 3}, tmp_path / "half.ckpt")
    flags = argparse.Namespace(lr=1e-4)
    other = {name: 0 * tensor for name, tensor in state.items()}
    torch.save({"model": other, "ema": state, "args": flags}, tmp_path / "training.pt")
    for name in ("new.pth", "old.pt", "training.pt"):
        same(open_tensors(tmp_path / name), tensors)
    expected = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    same(open_tensors(tmp_path / "half.ckpt"), expected)

    (tmp_path / "cut.pth").write_bytes((tmp_path / "new.pth").read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut.pth is not a whole PyTorch file"):
        open_tensors(tmp_path / "cut.pth")
    torch.save({"a": trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="trap.pth is damaged or holds more than tensors"):
        open_tensors(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth holds no tensors by name"):
        open_tensors(tmp_path / "list.pth")


# --- converted files -----------------------------------------------------------------------------


def network_params(seed=0):
    return jax.tree.map(np.asarray, TWO.init(jax.random.key(seed)))


def test_a_converted_file_comes_back_block_by_block_onto_the_mesh(tmp_path):
    params, file = network_params(), tmp_path / "two.safetensors"
    found = write_weights(file, params, "two", "somewhere")
    assert fingerprint_of(file) == found
    leaves = load_weights(file, "two", TWO, layouts)
    jax.tree.map(np.testing.assert_array_equal, leaves, params)
    np.testing.assert_array_equal(
        leaves["first"]["kernel"][1:2, :3], params["first"]["kernel"][1:2, :3]
    )
    mesh = make_mesh()
    placed = put_global(mesh, leaves, tree_shardings(mesh, leaves))
    jax.tree.map(np.testing.assert_array_equal, placed, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(placed)} == {np.dtype(np.float32)}


def test_the_fingerprint_is_of_the_content(tmp_path):
    names = [tmp_path / f"{n}.safetensors" for n in "abc"]
    write_weights(names[0], network_params(), "two", "somewhere")
    write_weights(names[1], network_params(), "two", "elsewhere")
    write_weights(names[2], network_params(1), "two", "somewhere")
    one, two, three = map(fingerprint_of, names)
    assert one == two != three and len(one) == 16
    save_file({"a": np.zeros(1)}, tmp_path / "published.safetensors")
    assert len(fingerprint_of(tmp_path / "published.safetensors")) == 16
    with pytest.raises(UserError, match="none.safetensors is not there"):
        fingerprint_of(tmp_path / "none.safetensors")


def test_files_of_other_networks_are_refused(tmp_path, tensors):
    file = tmp_path / "two.safetensors"
    write_weights(file, network_params(), "two", "somewhere")

    def refusal(name="two", network=TWO, path=file):
        with pytest.raises(UserError) as error:
            load_weights(path, name, network, layouts)
        text = str(error.value)
        assert path.name in text and "\n" not in text and text.endswith(".")
        return text

    assert "'three': it holds 'two'" in refusal(name="three")
    wide = Network(lambda rngs: Two(rngs=rngs, width=7))
    assert "3 misshapen (first/bias (5,)" in refusal(network=wide)
    assert "is not there" in refusal(path=tmp_path / "none.safetensors")
    stored = load_file(file)
    stored["first/bias"] += 1
    metadata = {"format": "sphere_jax weights 1", "network": "two", "fingerprint": "0" * 16}
    write_safetensors(file, stored, metadata)
    assert "not have the fingerprint in its header" in refusal()
    file.write_bytes(file.read_bytes()[:-4])
    assert "not a whole .safetensors file" in refusal()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    file = tmp_path / "two.safetensors"
    temporary_beside(file).mkdir()
    with pytest.raises(UserError, match="Cannot write .*two.safetensors"):
        write_weights(file, network_params(), "two", "somewhere")
    assert not file.exists()
