"""Layers against closed forms and against loops over plain NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphere_jax.models import vit
from sphere_jax.models.flow_sphere_layers import RopeAttention
from sphere_jax.nn import linear, rope
from sphere_jax.nn.attention import Attention, attend, attend_by_splash, fits_cudnn, fits_splash
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.embeddings import (
    TimeEmbedding,
    patchify,
    sincos_positions,
    time_sinusoids,
    unpatchify,
)
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.mlp import MLP, SwiGLU, swiglu_hidden
from sphere_jax.nn.norms import LayerNorm, RMSNorm
from sphere_jax.nn.remat import recomputed
from sphere_jax.nn.rope import axial_angles, rotate
from sphere_jax.nn.transformer_layers import Block, Stack


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_patches_are_raster_ordered_with_channels_last(rng):
    z = rng.standard_normal((2, 4, 6, 3)).astype(np.float32)
    tokens = np.asarray(patchify(jnp.asarray(z), 2))
    assert tokens.shape == (2, 6, 12)
    np.testing.assert_array_equal(tokens[1, 4], z[1, 2:4, 2:4].ravel())  # row 1, column 1
    np.testing.assert_array_equal(unpatchify(jnp.asarray(tokens), 2, (2, 3)), z)


def test_positions_put_the_column_first():
    table = sincos_positions((2, 3), 8)
    assert table.shape == (6, 8) and table.dtype == np.float32
    # Token 5 is row 1, column 2; frequencies 1 and 1/100.
    column, row = np.array([2.0, 0.02]), np.array([1.0, 0.01])
    expected = np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)])
    np.testing.assert_allclose(table[5], expected, atol=1e-7)


def test_time_sinusoids_are_cos_then_sin_of_unscaled_time():
    t = np.array([0.0, 0.3, 1.0])
    angles = np.outer(t, 10000.0 ** (-np.arange(128) / 128))
    expected = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    np.testing.assert_allclose(time_sinusoids(jnp.asarray(t)), expected, atol=1e-6)


def test_fourier_frequencies_are_parameters_without_gradient():
    network = Network(lambda rngs: TimeEmbedding(8, kind="fourier", rngs=rngs))
    params = network.init(jax.random.key(0))
    assert params["frequencies"].shape == (256,)
    gradient = jax.grad(lambda p: network.apply(p, jnp.array([0.2, 0.7])).sum())(params)
    assert not gradient["frequencies"].any()
    assert gradient["hidden"]["kernel"].any()
    with pytest.raises(ValueError, match="time embedding"):
        TimeEmbedding(8, kind="table", rngs=nnx.Rngs(0))


def test_norms(rng):
    x = rng.standard_normal((3, 5, 16)) * 4 + 1
    centred = x - x.mean(-1, keepdims=True)
    layer = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    rms = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    value = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(LayerNorm(16, affine=False)(value), layer, atol=2e-6)
    norm = RMSNorm(16)
    norm.scale[...] = jnp.arange(16.0)
    np.testing.assert_allclose(norm(value), rms * np.arange(16), atol=2e-5)
    half = LayerNorm(16)(value.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), layer, atol=0.03)


def test_layer_norm_of_large_offset_keeps_its_digits(rng):
    x = rng.standard_normal((4, 64)) + 300.0
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    result = LayerNorm(64, affine=False)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(result, expected, atol=2e-4)


def test_rotation_is_complex_multiplication(rng):
    angles = axial_angles((2, 3), 8)
    assert angles.shape == (6, 4)
    np.testing.assert_allclose(angles[5], [1, 0.01, 2, 0.02])  # row 1, column 2
    x = rng.standard_normal((2, 6, 3, 8))
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[None, :, None]
    expected = np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)
    np.testing.assert_allclose(rotate(jnp.asarray(x, jnp.float32), angles), expected, atol=1e-5)
    with pytest.raises(ValueError, match="divisible by 4"):
        axial_angles((2, 2), 6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotation_is_the_same_to_the_bit_in_the_form_for_a_tpu(rng, monkeypatch, dtype):
    angles = axial_angles((2, 3), 8)
    x = jnp.asarray(rng.standard_normal((2, 6, 3, 8)), dtype)
    expected = rotate(x, angles)
    monkeypatch.setattr(rope, "platform", lambda: "tpu")
    with jax.default_matmul_precision("default"):
        found = rotate(x, angles)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_rotated_products_depend_on_offsets_alone(rng):
    angles = axial_angles((4, 4), 16)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 1, 16)), jnp.float32) for _ in range(2))
    q, k = (rotate(jnp.tile(x, (1, 16, 1, 1)), angles)[0, :, 0] for x in (q, k))
    product = np.asarray(q @ k.T).reshape(4, 4, 4, 4)
    np.testing.assert_allclose(product[0, 1, 1, 3], product[2, 0, 3, 2], atol=1e-5)
    assert abs(product[0, 1, 1, 3] - product[0, 1, 3, 3]) > 1e-3


@pytest.mark.parametrize(("tokens", "dtype"), [(4, "float32"), (100, "float32"), (16, "bfloat16")])
def test_attention_and_its_gradient_are_those_of_jax(rng, tokens, dtype):
    draw = lambda: jnp.asarray(rng.standard_normal((2, tokens, 3, 8)), dtype)  # noqa: E731
    q, k, v, weight = draw(), draw(), draw(), draw()
    ours = jax.value_and_grad(lambda *x: (attend(*x) * weight).astype(jnp.float32).sum(), (0, 1, 2))
    reference = jax.value_and_grad(
        lambda *x: (jax.nn.dot_product_attention(*x) * weight).astype(jnp.float32).sum(), (0, 1, 2)
    )
    tolerance = 2e-5 if dtype == "float32" else 0.1
    for a, b in zip(
        jax.tree.leaves(ours(q, k, v)), jax.tree.leaves(reference(q, k, v)), strict=True
    ):
        assert a.dtype == b.dtype
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize(
    ("dtype", "width", "fits"),
    [
        ("bfloat16", 72, True),
        ("float16", 128, True),
        ("float32", 64, False),
        ("bfloat16", 12, False),
        ("bfloat16", 256, False),
    ],
)
def test_operands_that_cudnn_takes(dtype, width, fits):
    assert fits_cudnn(jnp.zeros((2, 4, 2, width), dtype)) == fits


@pytest.mark.parametrize(
    ("shape", "dtype", "fits"),
    [
        ((1024, 72), "bfloat16", True),
        ((1152, 64), "bfloat16", True),
        ((1024, 64), "float32", False),
        ((1025, 64), "bfloat16", False),
        ((256, 64), "bfloat16", False),
        ((1024, 512), "bfloat16", False),
    ],
)
def test_operands_that_splash_takes(shape, dtype, fits):
    q = jnp.zeros((2, shape[0], 2, shape[1]), dtype)
    assert fits_splash(q, q) == fits
    assert not fits_splash(q, q[:, :200])


def test_splash_attention_becomes_kernels_of_a_tpu():
    """Both passes, also where products of float32 are to be more precise, as in every command."""
    q = jax.ShapeDtypeStruct((2, 1024, 2, 72), jnp.bfloat16)
    loss = lambda q, k, v: attend_by_splash(q, k, v).astype(jnp.float32).sum()  # noqa: E731
    with jax.default_matmul_precision("high"):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, q, q)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 2


@pytest.mark.parametrize("head_dim", [64, 72])
def test_splash_attention_and_its_gradient_are_those_of_jax(rng, head_dim):
    """Against float32, with at most twice the error of plain attention in bfloat16."""
    draw = lambda: jnp.asarray(rng.standard_normal((1, 1024, 1, head_dim)), "bfloat16")  # noqa: E731
    operands, weight = (draw(), draw(), draw()), draw().astype(jnp.float32)

    def with_gradient(attend, dtype):
        loss = lambda q, k, v: (attend(q, k, v).astype(jnp.float32) * weight).sum()  # noqa: E731
        operand = [x.astype(dtype) for x in operands]
        _, found = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*operand)
        output = jax.jit(attend)(*operand)
        assert output.dtype == dtype
        return [np.asarray(x, np.float32) for x in (output, *found)]

    ours = with_gradient(partial(attend_by_splash, interpret=True), jnp.bfloat16)
    plain = with_gradient(jax.nn.dot_product_attention, jnp.bfloat16)
    exact = with_gradient(jax.nn.dot_product_attention, jnp.float32)
    for a, b, expected in zip(ours, plain, exact, strict=True):
        size = np.abs(expected).max()
        assert np.abs(a - expected).max() < 2 * np.abs(b - expected).max() + 1e-3 * size
        assert np.abs(a - expected).max() < 0.02 * size


def test_attention_layer_against_numpy(rng):
    layer = Attention(12, 3, rngs=nnx.Rngs(0))
    layer.qkv.bias[...] = jnp.asarray(rng.standard_normal(36), jnp.float32)
    x = rng.standard_normal((2, 5, 12))
    qkv = x @ np.asarray(layer.qkv.kernel[...], np.float64) + np.asarray(layer.qkv.bias[...])
    heads = []
    for head in range(3):
        q, k, v = (qkv[..., 12 * i + 4 * head : 12 * i + 4 * head + 4] for i in range(3))
        scores = np.exp(q @ k.swapaxes(1, 2) / 2)
        heads.append(scores / scores.sum(-1, keepdims=True) @ v)
    expected = np.concatenate(heads, -1) @ np.asarray(layer.projection.kernel[...], np.float64)
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)
    with pytest.raises(ValueError, match="not divisible by heads"):
        Attention(12, 5, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_the_same_function_in_the_layout_for_a_tpu(rng, monkeypatch, bias):
    layer = Linear(12, 3 * 12, bias=bias, rngs=nnx.Rngs(0))
    out = Linear(12, 5, bias=bias, rngs=nnx.Rngs(1))
    for each in (layer, out) if bias else ():
        each.bias[...] = jnp.asarray(rng.standard_normal(each.bias.shape), jnp.float32)
    x = jnp.asarray(rng.standard_normal((2, 4, 12)), jnp.float32)

    def found():
        q, k, v = layer.by_heads(x, 3, 3)
        return *(q, k, v), out.of_heads(v), layer(x)

    expected = found()
    assert [part.shape for part in expected] == [(2, 4, 3, 4)] * 3 + [(2, 4, 5), (2, 4, 36)]
    monkeypatch.setattr(linear, "platform", lambda: "tpu")
    products = [e.outvars[0].aval.shape for e in jax.make_jaxpr(found)().eqns
                if e.primitive.name == "dot_general"]  # fmt: skip
    assert products == [(2, 4, 3, 4)] * 3 + [(2, 4, 5), (2, 4, 36)]
    for a, b in zip(found(), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda rngs: vit.Attention(12, 3, rngs=rngs, key_bias=False, dtype=jnp.float32),
        lambda rngs: vit.Attention(12, 3, rngs=rngs, key_bias=True, dtype=jnp.float32),
        lambda rngs: RopeAttention(12, 3, 4, ("2d", (2, 3), 1), rngs=rngs),
        lambda rngs: Attention(12, 3, rngs=rngs, qk_norm=True, rope_grid=(2, 3)),
    ],
    ids=["q and v biases", "ViT", "flow-sphere", "with RoPE"],
)
def test_attention_layers_are_the_same_functions_in_the_form_for_a_tpu(rng, monkeypatch, build):
    layer = build(nnx.Rngs(0))
    for parameter in jax.tree.leaves(nnx.state(layer), is_leaf=lambda p: isinstance(p, nnx.Param)):
        parameter[...] += 0.3 * jnp.asarray(rng.standard_normal(parameter.shape), jnp.float32)
    x = jnp.asarray(rng.standard_normal((2, 6, 12)), jnp.float32)
    arguments = (x, None) if isinstance(layer, vit.Attention) else (x,)
    expected = layer(*arguments)
    monkeypatch.setattr(linear, "platform", lambda: "tpu")
    monkeypatch.setattr(rope, "platform", lambda: "tpu")
    np.testing.assert_allclose(layer(*arguments), expected, atol=2e-6)


def test_feed_forward_layers_against_numpy(rng):
    x = rng.standard_normal((2, 3, 6))
    w = lambda layer: np.asarray(layer.kernel[...], np.float64)  # noqa: E731
    mlp = MLP(6, 10, rngs=nnx.Rngs(0))
    h = x @ w(mlp.expand)
    gelu = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    np.testing.assert_allclose(mlp(jnp.asarray(x, jnp.float32)), gelu @ w(mlp.contract), atol=1e-5)
    swiglu = SwiGLU(6, 10, rngs=nnx.Rngs(0))
    gate, value = np.split(x @ w(swiglu.expand), 2, -1)
    expected = gate / (1 + np.exp(-gate)) * value @ w(swiglu.contract)
    np.testing.assert_allclose(swiglu(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)
    assert [swiglu_hidden(width) for width in (768, 1024, 1152)] == [2048, 2730, 3072]


def test_linear_is_xavier_uniform_over_the_fused_kernel():
    kernel = np.asarray(Linear(64, 192, rngs=nnx.Rngs(0)).kernel[...])
    bound = np.sqrt(6 / (64 + 192))
    assert np.abs(kernel).max() <= bound and np.abs(kernel).max() > 0.99 * bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)


def block(rngs, conditional=True):
    return Block(
        8,
        norm=lambda: LayerNorm(8, affine=False),
        attention=lambda rngs: Attention(8, 2, rngs=rngs),
        mlp=lambda rngs: MLP(8, 16, rngs=rngs),
        conditional=conditional,
        rngs=rngs,
    )


def test_fresh_conditional_block_is_the_identity(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 8)), jnp.float32)
    c = jnp.ones((2, 8))
    np.testing.assert_array_equal(block(nnx.Rngs(0))(x, c), x)
    assert np.abs(np.asarray(block(nnx.Rngs(0), conditional=False)(x, None) - x)).max() > 0.1


def test_stack_is_its_layers_in_order(rng):
    networks = [
        Network(lambda rngs, o=options: Stack(block, 3, rngs=rngs, **o))
        for options in (
            {},
            {"unroll": True},
            {"unroll": 2, "remat": "blocks"},
            {"remat": "products"},
        )
    ]
    params = jax.jit(networks[0].init)(jax.random.key(0))
    kernel = params["layers"]["mlp"]["expand"]["kernel"]
    assert kernel.shape == (3, 8, 16) and not np.allclose(kernel[0], kernel[1])
    params = jax.tree.map(lambda p: p + 0.1, params)  # open the gates
    one = Network(block)
    x = jnp.asarray(rng.standard_normal((2, 4, 8)), jnp.float32)
    c = jnp.asarray(rng.standard_normal((2, 8)), jnp.float32)

    def in_order(params):
        y = x
        for i in range(3):
            y = one.apply(jax.tree.map(lambda p, i=i: p[i], params["layers"]), y, c)
        return jnp.sum(y**2)

    expected = jax.jit(jax.value_and_grad(in_order))(params)
    for network in networks:
        loss = lambda p, n=network: jnp.sum(n.apply(p, x, c) ** 2)  # noqa: E731
        result = jax.jit(jax.value_and_grad(loss))(params)
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_what_is_stored_for_the_backward_pass_of_products():
    """The result of each linear layer, biases added, once; else the input alone."""
    x, c = jnp.zeros((2, 4, 8), jnp.bfloat16), jnp.zeros((2, 8), jnp.bfloat16)
    layer = recomputed(lambda module, *args: module(*args), "products")
    half = lambda **options: Block(  # noqa: E731
        8,
        norm=lambda: LayerNorm(8, affine=False),
        attention=lambda rngs: Attention(8, 2, rngs=rngs, dtype=jnp.bfloat16),
        mlp=lambda rngs: MLP(8, 16, rngs=rngs, dtype=jnp.bfloat16),
        dtype=jnp.bfloat16,
        **options,
    )
    graphdef, state = nnx.split(half(rngs=nnx.Rngs(0)))
    _, backward = jax.vjp(lambda state, x, c: layer(nnx.merge(graphdef, state), x, c), state, x, c)
    given = {id(leaf) for leaf in [x, c, *jax.tree.leaves(state)]}
    stored = [leaf.shape for leaf in jax.tree.leaves(backward) if id(leaf) not in given]
    # qkv, projection, the two of the MLP, on 2 x 4 rows; modulation.
    assert sorted(stored) == [(2, 48), (8, 8), (8, 8), (8, 16), (8, 24)]


def test_network_is_pure_and_counts():
    network = Network(lambda rngs: MLP(4, 6, rngs=rngs))
    params = network.init(jax.random.key(1))
    assert num_parameters(params) == 4 * 6 + 6 + 6 * 4 + 4
    assert type(params["expand"]) is dict and isinstance(params["expand"]["bias"], jax.Array)
    again = network.init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    other = network.init(jax.random.key(2))
    assert not np.allclose(params["expand"]["kernel"], other["expand"]["kernel"])
    zero = jax.tree.map(jnp.zeros_like, params)
    x = jnp.ones((2, 4))
    assert not network.apply(zero, x).any() and network.apply(params, x).any()


def test_compiler_options_compile_and_change_no_product(rng):
    x, y = (jnp.asarray(rng.standard_normal((64, 64)), jnp.float32) for _ in range(2))
    product = jax.jit(jnp.matmul, compiler_options=quick_products())(x, y)
    np.testing.assert_allclose(product, np.asarray(x) @ np.asarray(y), atol=1e-4)
