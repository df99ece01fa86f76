"""Batch norm with fixed statistics, for pretrained networks."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.common.shapes import Hidden
from sphere_jax.nn.norms import per_channel


class BatchNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + eps) * scale + bias`, (..., C) -> (..., C) in the dtype of x.

    The statistics are those of the original training. They are stored as parameters, and nothing
    updates them. The norm is one multiplication and one addition for each channel, which XLA fuses
    with the operations after a convolution; folding them into kernels would cost a pass over all
    parameters at every call.
    """

    def __init__(self, features: int, *, eps: float = 1e-3):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.variance = nnx.Param(jnp.ones((features,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Hidden) -> Hidden:
        multiplier = self.scale[...] * jax.lax.rsqrt(self.variance[...] + self.eps)
        offset = self.bias[...] - self.mean[...] * multiplier
        y = x * per_channel(multiplier, x.ndim) + per_channel(offset, x.ndim)
        return y.astype(x.dtype)
