"""LightningDDT: published counts, what reaches its head and how, features, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.lightning_ddt import SIZES, LightningDDT
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters

TINY = dict(latent_shape=(2, 4, 3), patch=1, width=16, depth=2, heads=2, num_classes=5)
HEAD = dict(head_width=24, head_depth=2, head_heads=2)


@functools.cache
def network(**options):
    return Network(lambda rngs: LightningDDT(**(TINY | HEAD | options), rngs=rngs))


@functools.cache
def random_params():
    """On every leaf: a fresh head is zero."""
    rng = np.random.default_rng(0)

    def leaf(path, like):
        name = path[-1].key
        spread = like.shape[-2] ** -0.5 if name == "kernel" else 0.4
        values = rng.normal(float(name == "scale"), spread, like.shape)
        return values.astype(np.float32)

    shapes = jax.eval_shape(network().init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


@pytest.fixture(scope="module")
def inputs():
    z = np.random.default_rng(1).standard_normal((2, 2, 4, 3)).astype(np.float32)
    return z, np.float32([0.1, 0.8]), np.int32([0, 5])


@pytest.fixture(scope="module")
def apply():
    return jax.jit(network().apply, compiler_options=run_once_options())


@pytest.fixture(scope="module")
def features(inputs):
    run = jax.jit(lambda p, *x: network().bind(p).features(*x), compiler_options=run_once_options())
    return run(random_params(), *inputs)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("size", "count"),
    [("S", 196_455_764), ("B", 294_295_892), ("L", 621_744_436), ("XL", 838_675_796)],
)
def test_parameter_counts(size, count):
    """Of the PyTorch original on DINOv2-B latents, position table and frequencies included.

    RAE states 839M for XL; the 879M in docs/systems/hae.md#published-results is what HAE printed.
    """
    depth, width, heads = SIZES[size]
    ddt = Network(lambda rngs: LightningDDT((16, 16, 768), 1, width, depth, heads, 1000, rngs=rngs))
    params = jax.eval_shape(ddt.init, jax.random.key(0))
    assert num_parameters(params) + ddt.module.fixed_table_size == count


def test_fresh_network_returns_zero(inputs):
    params = jax.jit(network().init, compiler_options=run_once_options())(jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    for stack in ("blocks", "head_blocks"):
        assert not np.any(params[stack]["layers"]["modulation"]["kernel"])
    assert not np.any(params["head"]["output"]["kernel"])


def test_features(apply, features, inputs):
    blocks = {f"{part}block_{n}" for part in ("", "head_") for n in range(2)}
    others = {"embed", "condition", "tokens", "head_embed", "head_condition", "head"}
    assert set(features) == blocks | others
    for name, value in features.items():
        width = HEAD["head_width"] if name.startswith("head_") else TINY["width"]
        shape = {"condition": (2, 16), "head": (2, 2, 4, 3)}.get(name, (2, 8, width))
        assert value.shape == shape, name
    assert relative_error(features["head"], apply(random_params(), *inputs)) < 1e-5


def test_head_by_hand(features, inputs):
    """docs/systems/shared.md#blocks on the encoder's tokens: silu, projection, silu, modulation of
    each token."""
    z, t, labels = inputs
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), random_params())
    found = {name: np.asarray(value, np.float64) for name, value in features.items()}
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    linear = lambda p, x: x @ p["kernel"] + p["bias"]  # noqa: E731
    rms = lambda p, x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]  # noqa: E731

    angles = 2 * np.pi * np.outer(t, params["time"]["frequencies"])
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    time = linear(params["time"]["output"], silu(linear(params["time"]["hidden"], waves)))
    condition = silu(silu(time + params["label"]["table"][labels]))
    assert relative_error(found["condition"], condition) < 1e-4

    tokens = silu(time[:, None] + found["block_1"])
    assert relative_error(found["tokens"], tokens) < 1e-4
    c = silu(linear(params["projector"], tokens))
    assert relative_error(found["head_condition"], c) < 1e-4
    embed = linear(params["head_patches"], z.reshape(2, 8, 3))  # no position table
    assert relative_error(found["head_embed"], embed) < 1e-4
    shift, scale = np.split(linear(params["head"]["modulation"], c), 2, -1)
    x = rms(params["head"]["norm"], found["head_block_1"]) * (1 + scale) + shift
    field = linear(params["head"]["output"], x).reshape(2, 2, 4, 3)
    assert relative_error(found["head"], field) < 1e-4


def test_labels_reach_the_head_through_the_tokens_only(apply, inputs):
    z, t, labels = inputs
    other = np.int32([1, 2])
    params = random_params()
    assert relative_error(apply(params, z, t, other), apply(params, z, t, labels)) > 1e-3
    cut = params | {"projector": jax.tree.map(np.zeros_like, params["projector"])}
    np.testing.assert_array_equal(apply(cut, z, t, other), apply(cut, z, t, labels))


def test_images_do_not_mix(apply, inputs):
    z, t, labels = inputs
    base = np.asarray(apply(random_params(), z, t, labels))
    moved = np.asarray(apply(random_params(), np.stack([z[0], z[1] + 1]), t, labels))
    np.testing.assert_allclose(moved[0], base[0], rtol=1e-5, atol=1e-5)
    assert np.abs(moved[1] - base[1]).max() > 1e-2


def test_bfloat16_products_give_float32_near_the_float32_field(apply, inputs):
    expected = np.asarray(apply(random_params(), *inputs))
    half = jax.jit(network(compute_dtype=jnp.bfloat16).apply, compiler_options=run_once_options())(
        random_params(), *inputs
    )
    assert half.dtype == jnp.float32
    assert 1e-5 < relative_error(half, expected) < 0.05


def test_patches_and_equal_widths():
    """`patch` goes through both embeddings and the head; equal widths need no projector."""
    net = network(patch=2, head_width=16)
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert "projector" not in params
    assert params["patches"]["kernel"].shape == params["head_patches"]["kernel"].shape == (12, 16)
    z, t = jnp.zeros((2, 2, 4, 3)), jnp.zeros(2)
    assert jax.eval_shape(net.apply, params, z, t, jnp.zeros(2, int)).shape == z.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 3}, "patch 3 does not divide"),
        ({"head_heads": 5}, "width 24 is not divisible by heads 5"),
        ({"head_width": 20, "head_heads": 2}, "head dimension divisible by 4"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)
