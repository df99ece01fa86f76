"""Counted FLOPs against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from sphere_jax.training.flops import matmul_flops

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
        (jax.jit(lambda x, w: x @ w), PRODUCT),
        (jax.checkpoint(lambda x, w: x @ w), PRODUCT),
        (lambda x, w: jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0], 5 * PRODUCT),
        (
            lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w),
            2 * PRODUCT,
        ),
        (lambda x, w: jax.vmap(lambda row: row @ w)(x), PRODUCT),
    ],
    ids=["dot", "around", "batched", "none", "jit", "remat", "scan", "cond", "vmap"],
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
