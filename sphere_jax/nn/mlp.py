"""The two feed-forward layers of a transformer block: (..., width) -> (..., width)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from sphere_jax.common.shapes import Hidden
from sphere_jax.nn.linear import Linear


def quick_gelu(x: Hidden) -> Hidden:
    """`x sigmoid(1.702 x)`, which OpenAI's CLIP was trained with in place of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


class MLP(nnx.Module):
    """`W2 gelu(W1 x)` with biases; GELU is the tanh approximation unless `exact`. Another
    `activation` takes its place."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        rngs: nnx.Rngs,
        exact: bool = False,
        activation: Callable[[Hidden], Hidden] | None = None,
        dtype: DTypeLike = jnp.float32,
    ):
        self.exact, self.activation = exact, activation
        self.expand = Linear(width, hidden, rngs=rngs, dtype=dtype, split="output")
        self.contract = Linear(hidden, width, rngs=rngs, dtype=dtype, split="input")

    def __call__(self, x: Hidden) -> Hidden:
        h = self.expand(x)
        if self.activation is not None:
            return self.contract(self.activation(h))
        return self.contract(jax.nn.gelu(h, approximate=not self.exact))


class SwiGLU(nnx.Module):
    """`W3 (silu(W1 x) * W2 x)`; W1 | W2 are the columns of one kernel, with biases if `gate_bias`.

    The usual hidden size is `swiglu_hidden(width)`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        rngs: nnx.Rngs,
        gate_bias: bool = True,
        dtype: DTypeLike = jnp.float32,
    ):
        self.expand = Linear(width, 2 * hidden, rngs=rngs, bias=gate_bias, dtype=dtype)
        self.contract = Linear(hidden, width, rngs=rngs, dtype=dtype, split="input")

    def __call__(self, x: Hidden) -> Hidden:
        gate, value = self.expand.halves(x)
        return self.contract(jax.nn.silu(gate) * value)


def swiglu_hidden(width: int, mlp_ratio: float = 4) -> int:
    """Hidden size with as many weights as a two-layer MLP of this ratio: floor(2/3 ratio width)."""
    return int(2 * mlp_ratio * width / 3)
