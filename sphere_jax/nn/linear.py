"""The linear layer, and the only place that decides the layout of a matmul over tokens."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sphere_jax.common.shapes import AnyArray, Heads, Hidden, Tokens
from sphere_jax.distribution.placement import (
    are_layers_split,
    gathered_layer,
    platform,
    product_of_few,
    split_by_features,
)
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

    split: the axis of the kernel that a mesh's `tensor` axis splits in a stack of layers, "input"
      or "output"; neither is split without it. A layer that splits its output comes before one that
      splits its input, whose output is a sum over devices.
    few: its rows may be one an image, (B, 1, features_in), and not one a token. In a stack of
      layers on a mesh, devices then exchange such rows, and not the kernel (`product_of_few`).
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
        split: Literal["", "input", "output"] = "",
        few: bool = False,
    ):
        kernel = init(rngs.params(), (features_in, features_out), jnp.float32)
        axis = ("input", "output").index(split) if split else None
        self.kernel = nnx.Param(kernel, split=axis, few=few)
        self.bias = nnx.Param(jnp.zeros((features_out,), jnp.float32)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Hidden) -> Float[AnyArray, "*batch features_out"]:
        kernel = self.kernel[...].astype(self.dtype)
        rows = x.astype(self.dtype)
        if stack := self.kernel.get_metadata().get("stack"):
            if x.shape[1] == 1:
                rows = rows.reshape(-1, x.shape[-1])
                y = product_of_few(rows, kernel, stack, self.kernel.split)
                return self._finished(y, self.bias).reshape(*x.shape[:-1], -1)
            kernel = gathered_layer(kernel, stack, self.kernel.split)
        if platform() != "tpu" or x.ndim > 3:
            # One axis of rows: the weight gradient then contracts a single axis, which XLA on CPU
            # turns into one matmul without copies or transposes. On a TPU it takes from the
            # compiler the choice of a layout for batch and tokens, which gains with tokens and
            # costs memory with images (docs/performance.md).
            rows = rows.reshape(-1, x.shape[-1])
        y = self._finished(rows @ kernel, self.bias)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])

    def by_heads(self, x: Tokens, parts: int, heads: int) -> tuple[Heads, ...]:
        """The output of x (B, N, features_in) cut into `parts`, each as (B, N, heads, head_dim).

        On a TPU each is a product of its own with the heads as an axis: cut afterwards, each would
        be copied to another layout, forward and backward (docs/performance.md). So it is where
        layers are split: a device computes some heads of each.
        """
        if platform() != "tpu" and not are_layers_split():
            cut = jnp.split(self(x), parts, axis=-1)
            return tuple(part.reshape(*x.shape[:2], heads, -1) for part in cut)
        return self._apart(x, parts, heads)

    def halves(self, x: Hidden) -> tuple[AnyArray, ...]:
        """The two halves of the output, (..., features_out / 2) each. Where layers are split, x is
        (B, N, features_in), and a device computes a part of both."""
        return self._apart(x, 2) if are_layers_split() else tuple(jnp.split(self(x), 2, axis=-1))

    def _apart(self, x: Tokens, parts: int, *heads: int) -> tuple[AnyArray, ...]:
        kernel = self.kernel[...].astype(self.dtype).reshape(x.shape[-1], parts, *heads, -1)
        biases = [None] * parts if self.bias is None else self.bias[...].reshape(parts, *heads, -1)
        x = x.astype(self.dtype)
        cut = (jnp.einsum("bnc,c...->bn...", x, kernel[:, i]) for i in range(parts))
        return tuple(
            self._finished(split_by_features(part), bias)
            for part, bias in zip(cut, biases, strict=True)
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
