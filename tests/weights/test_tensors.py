"""Named tensors to parameters and back, and the report of what does not fit."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.transformer_layers import Stack
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    as_is,
    convert,
    export,
    fit,
    linear_kernel,
    patch_kernel,
    pointwise_kernel,
    stack,
    torch_layer,
    torch_norm,
)


class Toy(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = LayerNorm(3)
        self.layers = Stack(lambda r: Linear(3, 3, rngs=r), 2, rngs=rngs)
        self.head = Linear(3, 5, rngs=rngs)


TOY = Network(lambda rngs: Toy(rngs=rngs))
LAYOUT = Layout(
    "toy",
    {
        **torch_norm("norm", "ln"),
        **stack([torch_layer("layers/layers", f"blocks.{n}", linear_kernel) for n in range(2)]),
        **torch_layer("head", "fc", linear_kernel),
    },
)


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


def test_every_tensor_arrives_where_the_layout_puts_it(published):
    params = convert(published, [LAYOUT], TOY)
    shapes = jax.eval_shape(TOY.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
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
        convert(published, [LAYOUT], TOY)
    assert str(error.value) == (
        "2 missing (blocks.1.weight, fc.bias); "
        "5 unexpected (extra.0, extra.1, extra.2, ...); "
        "2 misshapen (fc.weight (3, 5, 1), ln.bias (4,)), by the names of toy"
    )


def test_a_layout_with_an_extra_layer_is_refused(published):
    """A tensor counts as used only if a leaf of the network takes it."""
    published["mask"] = np.zeros(1)
    layout = LAYOUT._replace(leaves={**LAYOUT.leaves, "mask": Source("mask")})
    with pytest.raises(ValueError, match=r"^1 unexpected \(mask\)"):
        convert(published, [layout], TOY)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_float_type_becomes_float32_or_stays(published, dtype):
    stored = {name: tensor.astype(dtype) for name, tensor in published.items()}
    params = convert(stored, [LAYOUT], TOY)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    expected = stored["fc.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(params["head"]["kernel"], expected)
    unchanged = convert(stored, [LAYOUT], TOY, dtype=None)
    assert {leaf.dtype for leaf in jax.tree.leaves(unchanged)} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.astype(np.int8), "'blocks.1.weight' holds int8, not floats of 16 bits"),
        (lambda x: x.astype(ml_dtypes.float8_e4m3fn), "'blocks.1.weight' holds float8_e4m3fn"),
        (lambda x: np.where(x > 0, np.nan, x), "'blocks.1.weight' holds NaN or infinity"),
        (lambda x: x.astype(ml_dtypes.bfloat16) * np.inf, "'blocks.1.weight' holds NaN or infin"),
    ],
    ids=["integers", "float8", "nan", "infinity"],
)
def test_weights_that_are_no_weights_are_refused(published, change, words):
    published["blocks.1.weight"] = change(published["blocks.1.weight"])
    with pytest.raises(ValueError, match=words):
        convert(published, [LAYOUT], TOY)


def test_of_several_layouts_the_one_whose_names_fit(published):
    other = LAYOUT._replace(
        name="another",
        leaves={n: Source(f"x.{s.names}", s.turn) for n, s in LAYOUT.leaves.items()},
    )
    assert fit(published, [other, LAYOUT], TOY).name == "toy"


def test_buffers_that_we_compute_are_checked_and_others_may_be_ignored(published):
    table = np.arange(3.0)
    layout = LAYOUT._replace(constants={"table": table}, ignored=r".*num_batches|mask")
    convert(published, [layout], TOY)  # they may be absent
    published |= {"table": table[None], "mask": np.zeros(1), "bn.num_batches": np.zeros(1)}
    convert(published, [layout], TOY)
    published["table"] = table[None] + 1
    with pytest.raises(
        ValueError, match=r"^1 with other values .* \(table\), by the names of toy$"
    ):
        convert(published, [layout], TOY)
    del published["table"]
    published["masks"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"^1 unexpected \(masks\)"):
        convert(published, [layout], TOY)


class Joined(nnx.Module):
    def __init__(self, *, rngs):
        self.qkv = Stack(lambda r: Linear(4, 6, rngs=r), 2, rngs=rngs)
        self.patches = Linear(2 * 2 * 3, 4, rngs=rngs)
        self.mix = Linear(4, 4, rngs=rngs)


def joined_layout(patch=2):
    parts = [[f"{n}.{p}" for p in "qkv"] for n in range(2)]
    return Layout(
        "joined",
        {
            **{
                f"qkv/layers/{ours}": Source(
                    [tuple(f"{p}.{theirs}" for p in layer) for layer in parts], turn
                )
                for ours, theirs, turn in (
                    ("kernel", "weight", linear_kernel),
                    ("bias", "bias", as_is),
                )
            },
            **torch_layer("patches", "conv", patch_kernel(patch)),
            **torch_layer("mix", "one", pointwise_kernel),
        },
        constants={"table": np.ones(2, np.float32)},
    )


def test_side_by_side_stacked_patches_and_back():
    rng = np.random.default_rng(0)
    network = Network(lambda rngs: Joined(rngs=rngs))
    shapes = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,)}
    shapes |= {"one.weight": (4, 4, 1, 1), "one.bias": (4,)}
    for n in range(2):
        for p in "qkv":
            shapes |= {f"{n}.{p}.weight": (2, 4), f"{n}.{p}.bias": (2,)}
    published = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    params = convert(published, [joined_layout()], network)
    np.testing.assert_array_equal(
        params["qkv"]["layers"]["kernel"][1][:, 2:4], published["1.k.weight"].T
    )
    image = rng.standard_normal((3, 2, 2)).astype(np.float32)  # one patch, channels first
    expected = np.einsum("ocij,cij->o", published["conv.weight"], image)
    rows = image.transpose(1, 2, 0).reshape(-1)  # row, column, channel
    np.testing.assert_allclose(rows @ params["patches"]["kernel"], expected, rtol=1e-5)
    back = export(params, joined_layout())
    assert back.keys() == published.keys() | {"table"}
    for name, tensor in published.items():
        np.testing.assert_array_equal(back[name], tensor)
        assert back[name].flags.c_contiguous


def test_sizes_side_by_side_must_match():
    network = Network(lambda rngs: Joined(rngs=rngs))
    published = export(jax.tree.map(np.asarray, network.init(jax.random.key(0))), joined_layout())
    published["0.q.weight"] = np.zeros((3, 4), np.float32)
    published["one.weight"] = np.zeros((4, 4, 3, 3), np.float32)
    with pytest.raises(
        ValueError, match=r"^4 misshapen \(0.k.weight \(2, 4\), 0.q.weight \(3, 4\)"
    ):
        convert(published, [joined_layout()], network)
