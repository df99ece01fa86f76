"""Counted FLOPs against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.distribution import placement
from sphere_jax.nn import attention, depthwise, rope
from sphere_jax.training.flops import matmul_flops, training_flops

X = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
W = jax.ShapeDtypeStruct((4, 4), jnp.float32)
PRODUCT = 2 * (2 * 3) * 4 * 4


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, w: x @ w, PRODUCT),
        (lambda x, w: jax.nn.relu(x @ w + 1.0).sum(), PRODUCT),
        (lambda x, w: jnp.einsum("bik,bjk->bij", x, x), 2 * 2 * 3 * 3 * 4),
        (lambda x, w: x * 2, 0),
        (lambda x, w: (x @ w @ w, x @ w)[1], PRODUCT),
        (jax.jit(lambda x, w: x @ w), PRODUCT),
        (jax.checkpoint(lambda x, w: x @ w), PRODUCT),
        (lambda x, w: jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0], 5 * PRODUCT),
        (
            lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w),
            2 * PRODUCT,
        ),
        (lambda x, w: jax.vmap(lambda row: row @ w)(x), PRODUCT),
    ],
    ids=["dot", "around", "batched", "none", "unused", "jit", "remat", "scan", "cond", "vmap"],
)
def test_matrix_products(function, expected):
    assert matmul_flops(function, X, W) == expected


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_convolutions(stride, groups):
    images = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4 // groups, 6), jnp.float32)

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x,
            k,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    outputs = 2 * (8 // stride) ** 2 * 6
    assert matmul_flops(convolve, images, kernel) == 2 * outputs * 9 * 4 / groups


def frozen_then_trained(w, x, e):
    """A product with a frozen matrix, then two trained ones."""
    return ((x @ e) @ w @ w).sum()


def scanned(w, x, e):
    """Five layers; what is carried is reached by the parameters only after the first."""
    return jax.lax.scan(lambda x, _: (x @ w, None), x @ e, length=5)[0].sum()


def stacked(w, x, e):
    """Scanned over the parameters of three layers, computed again in the backward pass."""

    def layer(x, w):
        return jax.nn.gelu(x @ w), None

    return jax.lax.scan(jax.checkpoint(layer), x @ e, jnp.stack([w, w, w]))[0].sum()


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda w, x, e: (x @ e).sum(), 1),  # nothing is trained
        (lambda w, x, e: (x @ w).sum(), 2),  # the inputs need no gradient
        (lambda w, x, e: (x @ w @ e).sum(), 2 + 2),  # the gradient goes through a frozen decoder
        (frozen_then_trained, 1 + 2 + 3),
        (lambda w, x, e: (jax.lax.stop_gradient(x @ w) @ w).sum(), 2 + 2),
        (scanned, 1 + 5 * 3),
        (stacked, 1 + 3 * 3),
        (jax.jit(lambda w, x, e: jax.nn.relu(jax.nn.relu(x @ w) @ w).sum()), 2 + 3),
        (lambda w, x, e: jax.nn.one_hot((x @ w).argmax(-1), 4) @ e, 2 + 1),
    ],
    ids=["frozen", "first", "through", "both", "stop", "scan", "remat", "jit", "integers"],
)
def test_training_counts_a_product_once_and_once_a_factor_that_learns(function, products):
    assert training_flops(function, W, X, W) == products * PRODUCT


def test_training_flops_are_those_of_the_gradient_without_remat():
    """JAX's own backward pass as the oracle, where nothing is computed twice."""

    def loss(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.mean((jnp.einsum("bik,bjk->bij", x, x) - 1.0) ** 2)

    gradient = jax.value_and_grad(loss)
    assert training_flops(loss, [W, W, W], X) == matmul_flops(gradient, [W, W, W], X)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_flops_do_not_depend_on_the_form_that_a_platform_takes(monkeypatch, platform):
    """Splash attention of 2 products, RoPE of none, a depthwise convolution of 9 taps."""
    monkeypatch.setattr(placement, "platform_of", lambda mesh: platform)
    monkeypatch.setattr(placement.jax, "default_backend", lambda: platform)
    q = jnp.zeros((2, 1024, 3, 64), jnp.bfloat16)
    assert matmul_flops(lambda q: attention.attend(q, q, q), q) == 2 * 2 * 2 * 3 * 1024**2 * 64
    assert matmul_flops(lambda q: rope.rotate(q, np.zeros((1024, 32))), q) == 0
    x, kernel = jnp.zeros((2, 8, 8, 16)), jnp.zeros((3, 3, 1, 16))
    assert matmul_flops(lambda x: depthwise.depthwise(x, kernel), x) == 2 * 2 * 8 * 8 * 16 * 9
    assert placement.platform() == platform
