"""Batch norm of a network that is used as it was trained."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.norms import per_channel


class BatchNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + eps) * scale + bias`, (..., C) -> (..., C) in the dtype of x.

    The statistics are those of its training and are parameters like the others; nothing updates
    them. It is one multiplication and one addition a channel, which join the operations after a
    convolution; folded into kernels they would cost a pass over all parameters at every call.
    """

    def __init__(self, features: int, *, eps: float = 1e-3):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.variance = nnx.Param(jnp.ones((features,), jnp.float32))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        multiplier = self.scale[...] * jax.lax.rsqrt(self.variance[...] + self.eps)
        offset = self.bias[...] - self.mean[...] * multiplier
        y = x * per_channel(multiplier, x.ndim) + per_channel(offset, x.ndim)
        return y.astype(x.dtype)
