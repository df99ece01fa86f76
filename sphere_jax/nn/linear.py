"""The linear layer, and the only place that decides the layout of a matmul over tokens."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sphere_jax.common.shapes import AnyArray, Hidden

zeros = nnx.initializers.zeros_init()
small_normal = nnx.initializers.normal(0.02)
xavier_uniform = nnx.initializers.xavier_uniform()

Initializer = Callable[..., Array]


class Linear(nnx.Module):
    """`x @ kernel + bias` over the last axis: (..., features_in) -> (..., features_out).

    Parameters are float32; the product is computed and returned in `dtype`. The bias is added in
    float32, so that its gradient, a sum over all rows, is float32 too. A fused layer (qkv, adaLN,
    the two halves of SwiGLU) is one kernel and is initialised as one, so its fan-out is the fused
    width, as in the original PyTorch code.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        init: Initializer = xavier_uniform,
        dtype: DTypeLike = jnp.float32,
    ):
        self.kernel = nnx.Param(init(rngs.params(), (features_in, features_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features_out,), jnp.float32)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Hidden) -> Float[AnyArray, "*batch features_out"]:
        kernel = self.kernel[...].astype(self.dtype)
        # One axis of rows: the weight gradient then contracts a single axis, which XLA on CPU turns
        # into one matmul without copies or transposes. Neutral on TPU (docs/performance.md).
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = rows @ kernel
        if self.bias is not None:
            y = (y.astype(jnp.float32) + self.bias[...][None]).astype(self.dtype)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])
