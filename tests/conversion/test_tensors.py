"""Reading .safetensors files, and the report of what does not fit."""

import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from sphere_jax.conversion.tensors import (
    Source,
    convert,
    linear_kernel,
    read_tensors,
    stack,
    torch_layer,
    torch_norm,
)
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.transformer import Stack


class Toy(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = LayerNorm(3)
        self.layers = Stack(lambda r: Linear(3, 3, rngs=r), 2, rngs=rngs)
        self.head = Linear(3, 5, rngs=rngs)


TOY = Network(lambda rngs: Toy(rngs=rngs))
LAYOUT = {
    **torch_norm("norm", "ln"),
    **stack([torch_layer("layers/layers", f"blocks.{n}", linear_kernel) for n in range(2)]),
    **torch_layer("head", "fc", linear_kernel),
}


@pytest.fixture
def published():
    rng = np.random.default_rng(0)
    shapes = {
        "ln.weight": (3,),
        "ln.bias": (3,),
        "blocks.0.weight": (3, 3),
        "blocks.0.bias": (3,),
        "blocks.1.weight": (3, 3),
        "blocks.1.bias": (3,),
        "fc.weight": (5, 3),
        "fc.bias": (5,),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_every_tensor_arrives_where_the_layout_says(published):
    params = convert(published, LAYOUT, TOY)
    wanted = jax.eval_shape(TOY.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, wanted)
    np.testing.assert_array_equal(params["norm"]["scale"], published["ln.weight"])
    np.testing.assert_array_equal(params["head"]["kernel"], published["fc.weight"].T)
    np.testing.assert_array_equal(params["layers"]["layers"]["bias"][1], published["blocks.1.bias"])
    for n in range(2):
        kernel = params["layers"]["layers"]["kernel"][n]
        np.testing.assert_array_equal(kernel, published[f"blocks.{n}.weight"].T)


def test_misfits_are_counted_and_named(published):
    for n in range(5):
        published[f"extra.{n}"] = np.zeros(1)
    del published["blocks.1.weight"], published["fc.bias"]
    published["ln.bias"] = np.zeros(4)
    published["fc.weight"] = np.zeros((3, 5, 1))  # other number of axes
    with pytest.raises(ValueError) as error:
        convert(published, LAYOUT, TOY)
    assert str(error.value) == (
        "2 missing (blocks.1.weight, fc.bias); "
        "5 unexpected (extra.0, extra.1, extra.2, ...); "
        "2 misshapen (fc.weight (3, 5, 1), ln.bias (4,))"
    )


def test_a_layer_too_many_in_a_layout_is_no_excuse(published):
    """A tensor counts as used only if a leaf of the network takes it."""
    published["mask"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"^1 unexpected \(mask\)$"):
        convert(published, LAYOUT | {"mask": Source("mask")}, TOY)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_float_type_is_read_and_becomes_float32(tmp_path, published, dtype):
    stored = {name: tensor.astype(dtype) for name, tensor in published.items()}
    save_file(stored, tmp_path / "toy.safetensors")
    tensors = read_tensors(tmp_path / "toy.safetensors")
    assert tensors["ln.bias"].dtype == dtype
    params = convert(tensors, LAYOUT, TOY)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    expected = stored["fc.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(params["head"]["kernel"], expected)


def test_bad_files_are_named(tmp_path, published):
    whole = tmp_path / "whole.safetensors"
    save_file(published, whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-10])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(published))
    for name in ("cut.safetensors", "empty.safetensors", "weights.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a whole .safetensors file"):
            read_tensors(tmp_path / name)
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name} is not there"):
            read_tensors(path)


def test_nothing_in_a_file_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "trap.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="trap.safetensors"):
        read_tensors(tmp_path / "trap.safetensors")
    assert not (tmp_path / "sprung").exists()
