"""The linear layer, and the only place where a matmul over tokens is laid out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

zeros = nnx.initializers.zeros_init()
small_normal = nnx.initializers.normal(0.02)
xavier_uniform = nnx.initializers.xavier_uniform()

Initializer = Callable[..., jax.Array]


class Linear(nnx.Module):
    """`x @ kernel + bias` over the last axis: (..., features_in) -> (..., features_out).

    Parameters are float32; the product is taken in `dtype` and returned in it. The bias is added in
    float32, in which its gradient, a sum over all rows, is then taken. A fused layer (qkv, adaLN,
    the two halves of SwiGLU) is one kernel and is initialised as one, so its fan-out is the fused
    width, as in the PyTorch originals.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        init: Initializer = xavier_uniform,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.kernel = nnx.Param(init(rngs.params(), (features_in, features_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features_out,), jnp.float32)) if bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        # One axis of rows: the weight gradient then contracts a single axis, which XLA on CPU turns
        # into one matmul instead of copies and transposes. Neutral on TPU (docs/performance.md).
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = rows @ kernel
        if self.bias is not None:
            y = (y.astype(jnp.float32) + self.bias[...][None]).astype(self.dtype)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])
