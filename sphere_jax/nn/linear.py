"""The linear layer, and the only place that decides the layout of a matmul over tokens."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sphere_jax.common.shapes import AnyArray, Heads, Hidden, Tokens
from sphere_jax.distribution.placement import platform
from sphere_jax.nn.remat import product

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
        rows = x.astype(self.dtype)
        if platform() != "tpu":
            # One axis of rows: the weight gradient then contracts a single axis, which XLA on CPU
            # turns into one matmul without copies or transposes. On a TPU it takes from the
            # compiler the choice of a layout for batch and tokens (docs/performance.md).
            rows = rows.reshape(-1, x.shape[-1])
        y = self._finished(rows @ kernel, self.bias)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])

    def by_heads(self, x: Tokens, parts: int, heads: int) -> tuple[Heads, ...]:
        """The output of x (B, N, features_in) cut into `parts`, each as (B, N, heads, head_dim).

        On a TPU each is a product of its own with the heads as an axis: cut afterwards, each would
        be copied to another layout, forward and backward (docs/performance.md).
        """
        if platform() != "tpu":
            cut = jnp.split(self(x), parts, axis=-1)
            return tuple(part.reshape(*x.shape[:2], heads, -1) for part in cut)
        kernel = self.kernel[...].astype(self.dtype).reshape(x.shape[-1], parts, heads, -1)
        biases = [None] * parts if self.bias is None else self.bias[...].reshape(parts, heads, -1)
        x = x.astype(self.dtype)
        return tuple(
            self._finished(jnp.einsum("bnc,chd->bnhd", x, kernel[:, i]), biases[i])
            for i in range(parts)
        )

    def of_heads(self, x: Heads) -> Tokens:
        """The layer on x (B, N, heads, head_dim) with its last two axes as one, in the layout of
        `by_heads`."""
        if platform() != "tpu":
            return self(x.reshape(*x.shape[:2], -1))
        kernel = self.kernel[...].astype(self.dtype).reshape(*x.shape[2:], -1)
        return self._finished(jnp.einsum("bnhd,hdc->bnc", x.astype(self.dtype), kernel), self.bias)

    def _finished(self, y: Hidden, bias: AnyArray | nnx.Param | None) -> Hidden:
        if bias is not None:
            bias = bias[...]
            bias = bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
            y = (y.astype(jnp.float32) + bias).astype(self.dtype)
        return product(y)
