"""Norms over the last axis. Statistics are float32; the output has the dtype of the input."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, Hidden


def per_channel(vector: Float[AnyArray, " features"], ndim: int) -> Hidden:
    """(C,) -> (1, ..., 1, C), to broadcast over an array of `ndim` axes."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class LayerNorm(nnx.Module):
    """`(x - mean) / sqrt(var + eps)`, then scale and shift if `affine`: (..., C) -> (..., C)."""

    def __init__(self, features: int, *, affine: bool = True, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32)) if affine else None
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32)) if affine else None
        self.eps = eps

    def __call__(self, x: Hidden) -> Hidden:
        centred = x.astype(jnp.float32)
        centred = centred - centred.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        if self.scale is not None:
            y = y * per_channel(self.scale[...], y.ndim) + per_channel(self.bias[...], y.ndim)
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    """`x / sqrt(mean(x^2) + eps) * scale`: (..., C) -> (..., C). docs/systems/shared.md#blocks."""

    def __init__(self, features: int, *, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Hidden) -> Hidden:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        return (y * per_channel(self.scale[...], y.ndim)).astype(x.dtype)
