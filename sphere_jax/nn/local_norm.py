"""Batch norm whose statistics are those of a few samples, without running averages."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray
from sphere_jax.nn.norms import per_channel

Maps = Float[AnyArray, "batch *places channels"]


class LocalBatchNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + eps)`, scale and bias: (B, ..., C) -> (B, ..., C), float32.

    Statistics are over all places of `group` samples; a batch of fewer is one group. With one
    sample a group (RAE's discriminator) no sample depends on another. Groups are strided: sample i
    is in group `i mod (B / group)`, as micro-batches are, so that a gradient that is accumulated
    over micro-batches of a multiple of `group` samples is that of the whole batch.

    Raises:
      ValueError: a batch that `group` does not divide, when called.
    """

    def __init__(self, features: int, *, group: int = 1, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.group, self.eps = group, eps

    def __call__(self, x: Maps) -> Maps:
        batch, channels = x.shape[0], x.shape[-1]
        group = min(self.group, batch)
        if batch % group:
            raise ValueError(f"a batch of {batch} has no groups of {group} samples")
        y = x.astype(jnp.float32).reshape(group, batch // group, -1, channels)
        y = y - y.mean((0, 2), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean((0, 2), keepdims=True) + self.eps)
        scale, bias = per_channel(self.scale[...], 4), per_channel(self.bias[...], 4)
        return (y * scale + bias).reshape(x.shape)
