"""Depthwise convolutions: every form against sums place by place, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.nn.depthwise import depthwise, grouped_convolution, shifted_products


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_position_by_position(size, stride):
    """Odd and even sides: padding starts with the smaller half."""
    x, kernel = normal(2, 7, 10, 4), normal(size, size, 1, 4, seed=1)
    outputs = [-(-n // stride) for n in x.shape[1:3]]
    extra = [(n - 1) * stride + size - m for n, m in zip(outputs, x.shape[1:3], strict=True)]
    padded = np.pad(x, ((0, 0), *((e // 2, e - e // 2) for e in extra), (0, 0)))
    expected = np.empty((2, *outputs, 4))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            rows, columns = (slice(n * stride, n * stride + size) for n in (i, j))
            expected[:, i, j] = np.einsum("bijc,ijc->bc", padded[:, rows, columns], kernel[:, :, 0])
    for form in (shifted_products, grouped_convolution, depthwise):
        assert relative_error(form(jnp.asarray(x), kernel, stride), expected) < 1e-5


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients(size, stride):
    x, kernel = normal(2, 9, 6, 4), normal(size, size, 1, 4, seed=1)

    def gradients(form):
        weight = normal(2, -(-9 // stride), -(-6 // stride), 4, seed=2)
        total = jax.grad(lambda x, k: jnp.sum(form(x, k, stride) * weight), argnums=(0, 1))
        return jax.jit(total)(x, kernel)

    expected = gradients(grouped_convolution)
    for result, other in zip(gradients(depthwise), expected, strict=True):
        assert relative_error(result, np.asarray(other)) < 1e-5


def test_bfloat16_stays_and_is_summed_in_float32():
    x, kernel = jnp.asarray(normal(1, 8, 8, 4), jnp.bfloat16), normal(7, 7, 1, 4, seed=1)
    result = depthwise(x, kernel)
    assert result.dtype == jnp.bfloat16
    expected = shifted_products(x.astype(jnp.float32), kernel)
    assert relative_error(result.astype(jnp.float32), np.asarray(expected)) < 2**-8
