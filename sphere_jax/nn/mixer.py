"""MLP-Mixer layers over tokens and channels, initially the identity. arXiv 2602.15030;
docs/systems/sphere_encoder.md#architecture."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from sphere_jax.common.shapes import Tokens
from sphere_jax.nn.linear import Initializer, Linear, xavier_uniform
from sphere_jax.nn.norms import RMSNorm
from sphere_jax.nn.transformer_layers import Stack, gated


class MixerLayer(nnx.Module):
    """`x += a1 Tokens(norm(x))`, `x += a2 Channels(norm(x))`: (B, N, C) -> (B, N, C).

    Tokens is linear N -> N, SiLU, linear N -> N along the tokens; Channels is linear C -> 2C, SiLU,
    linear 2C -> C. The scalars a1 and a2 are parameters, initially 0.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        init: Initializer = xavier_uniform,
        dtype: DTypeLike = jnp.float32,
    ):
        options = dict(rngs=rngs, init=init, dtype=dtype)
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.tokens_in = Linear(tokens, tokens, **options)
        self.tokens_out = Linear(tokens, tokens, **options)
        self.channels_in = Linear(width, 2 * width, **options)
        self.channels_out = Linear(2 * width, width, **options)
        self.token_gate = nnx.Param(jnp.zeros((), jnp.float32))
        self.channel_gate = nnx.Param(jnp.zeros((), jnp.float32))

    def __call__(self, x: Tokens) -> Tokens:
        along = self.norm1(x).swapaxes(1, 2)
        along = self.tokens_out(jax.nn.silu(self.tokens_in(along))).swapaxes(1, 2)
        x = gated(x, self.token_gate[...], along)
        across = self.channels_out(jax.nn.silu(self.channels_in(self.norm2(x))))
        return gated(x, self.channel_gate[...], across)


class Mixer(nnx.Module):
    """`depth` mixer layers and an affine RMSNorm: (B, N, C) -> (B, N, C)."""

    def __init__(
        self,
        tokens: int,
        width: int,
        depth: int,
        *,
        rngs: nnx.Rngs,
        init: Initializer = xavier_uniform,
        dtype: DTypeLike = jnp.float32,
        unroll: int | bool = 1,
    ):
        def layer(rngs: nnx.Rngs) -> MixerLayer:
            return MixerLayer(tokens, width, init=init, dtype=dtype, rngs=rngs)

        self.layers = Stack(layer, depth, unroll=unroll, rngs=rngs) if depth else None
        self.norm = RMSNorm(width)

    def __call__(self, x: Tokens) -> Tokens:
        return self.norm(x if self.layers is None else self.layers(x))
