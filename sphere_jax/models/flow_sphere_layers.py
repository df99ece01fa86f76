"""Layers of flow-sphere's networks: rotary attention without biases, mixers, the layer to pixels.

docs/systems/flow_sphere.md#networks. Tokens are raster-ordered patches.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float64

from sphere_jax.common.shapes import Images, Labels, Latents, Tokens
from sphere_jax.nn.attention import attend
from sphere_jax.nn.embeddings import LabelEmbedding, unpatchify
from sphere_jax.nn.linear import Linear, zeros
from sphere_jax.nn.norms import LayerNorm, RMSNorm
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.rope import axial_angles, rotate
from sphere_jax.nn.transformer_layers import Stack

MIXER_DEPTH = 4
ROPES = ("1d", "2d")

EPS = 1e-5  # of the layer norms with an affine map
fan_in = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's for a linear

Rope = tuple[str, tuple[int, int], int]  # kind, grid, streams


@lru_cache(maxsize=32)
def rope_angles(rope: Rope, head_dim: int) -> Float64[np.ndarray, "tokens {head_dim}//2"]:
    """Rotation angles (streams h w, head_dim / 2) of the tokens of several streams, one after the
    other.

    "1d": the position is the index in the whole sequence, so that one patch has unrelated positions
    in two streams. "2d": row and column, each moved by `s / streams` of a patch in stream s, so
    that the tokens of one patch are the closest ones.

    Raises:
        ValueError: for another kind, or an odd `head_dim` (2d: one that 4 does not divide).
    """
    kind, grid, streams = rope
    if kind not in ROPES:
        raise ValueError(f'rope must be "1d" or "2d", got {kind!r}')
    if kind == "2d":
        pairs = head_dim // 4
        frequencies = 10000.0 ** (-2 * np.arange(pairs) / (head_dim // 2))
        step = np.tile(frequencies, 2)[None] / streams
        return np.concatenate([axial_angles(grid, head_dim) + s * step for s in range(streams)])
    if head_dim % 2:
        raise ValueError(f"1-D RoPE needs an even head dimension, got {head_dim}")
    frequencies = 10000.0 ** (-2 * np.arange(head_dim // 2) / head_dim)
    return np.outer(np.arange(streams * grid[0] * grid[1]), frequencies)


@lru_cache(maxsize=32)
def raster_positions(tokens: int, width: int) -> np.ndarray:
    """Fixed 1-D position table (tokens, width) float32: sin | cos of `n 10000^(-2k / width)`.

    Raises:
        ValueError: if `width` is odd.
    """
    if width % 2:
        raise ValueError(f"sin-cos positions need an even width, got {width}")
    angles = np.outer(np.arange(tokens), 10000.0 ** (-2 * np.arange(width // 2) / width))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class RopeAttention(nnx.Module):
    """Attention without biases, with RMS-normalised and rotated q and k: (B, N, width), the same.

    `zero_output` makes a new layer 0.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        rope: Rope,
        *,
        rngs: nnx.Rngs,
        zero_output: bool = False,
        dtype: DTypeLike = jnp.float32,
    ):
        rope_angles(rope, head_dim)  # raises here, not at the first call
        inner, options = heads * head_dim, dict(bias=False, rngs=rngs, dtype=dtype)
        self.query = Linear(width, inner, init=fan_in, **options)
        self.key = Linear(width, inner, init=fan_in, **options)
        self.value = Linear(width, inner, init=fan_in, **options)
        self.output = Linear(
            inner, width, init=zeros if zero_output else fan_in, split="input", **options
        )
        self.q_norm, self.k_norm = RMSNorm(head_dim), RMSNorm(head_dim)
        self.heads, self.rope = heads, rope

    def __call__(self, x: Tokens) -> Tokens:
        layers = (self.query, self.key, self.value)
        q, k, v = (layer.by_heads(x, 1, self.heads)[0] for layer in layers)
        angles = rope_angles(self.rope, q.shape[-1])
        q, k = rotate(self.q_norm(q), angles), rotate(self.k_norm(k), angles)
        return self.output.of_heads(attend(q, k, v))


class FeedForward(nnx.Module):
    """`W2 f(W1 x)` with biases: (..., width) -> (..., width)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Callable[[jax.Array], jax.Array],
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ):
        options = dict(init=fan_in, rngs=rngs, dtype=dtype)
        self.expand = Linear(width, hidden, split="output", **options)
        self.contract = Linear(hidden, width, split="input", **options)
        self.activation = activation

    def __call__(self, x: Tokens) -> Tokens:
        return self.contract(self.activation(self.expand(x)))


class Layer(nnx.Module):
    """Pre-norm layer of the autoencoder: `x += attention(LN x)`, `x += mlp(RMS x)`."""

    def __init__(self, width, heads, head_dim, hidden, rope: Rope, *, rngs: nnx.Rngs, dtype):
        self.attention_norm = LayerNorm(width, eps=EPS)
        self.attention = RopeAttention(
            width, heads, head_dim, rope, zero_output=True, rngs=rngs, dtype=dtype
        )
        self.mlp_norm = RMSNorm(width)
        self.mlp = FeedForward(width, hidden, jax.nn.silu, rngs=rngs, dtype=dtype)

    def __call__(self, x: Tokens) -> Tokens:
        x = x + self.attention(self.attention_norm(x)).astype(x.dtype)
        return x + self.mlp(self.mlp_norm(x)).astype(x.dtype)


class MixerLayer(nnx.Module):
    """`x += Tokens(LN x)`, `x += Channels(LN x)`, both of 4x hidden width, with GELU."""

    def __init__(self, tokens: int, width: int, *, rngs: nnx.Rngs, dtype):
        gelu = partial(jax.nn.gelu, approximate=False)
        self.token_norm, self.channel_norm = LayerNorm(width, eps=EPS), LayerNorm(width, eps=EPS)
        self.tokens = FeedForward(tokens, 4 * tokens, gelu, rngs=rngs, dtype=dtype)
        self.channels = FeedForward(width, 4 * width, gelu, rngs=rngs, dtype=dtype)

    def __call__(self, x: Tokens) -> Tokens:
        along = self.tokens(self.token_norm(x).swapaxes(1, 2)).swapaxes(1, 2)
        x = x + along.astype(x.dtype)
        return x + self.channels(self.channel_norm(x)).astype(x.dtype)


# As large as what it is added to, tokens or features of the time; PyTorch's embeddings start so.
ClassEmbedding = partial(LabelEmbedding, init=nnx.initializers.normal(1.0))


class Layers(nnx.Module):
    """What encoder and decoder share: transformer layers, a mixer, and a label added to tokens."""

    def __init__(
        self,
        grid: tuple[int, int],
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        hidden: int,
        rope: str,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        compute_dtype: DTypeLike,
        unroll: int | bool,
        remat: Remat,
    ):
        tokens = grid[0] * grid[1]

        def layer(rngs: nnx.Rngs) -> Layer:
            where = (rope, grid, 1)
            return Layer(width, heads, head_dim, hidden, where, rngs=rngs, dtype=compute_dtype)

        def mixer(rngs: nnx.Rngs) -> MixerLayer:
            return MixerLayer(tokens, width, rngs=rngs, dtype=compute_dtype)

        options = dict(unroll=unroll, remat=remat, rngs=rngs)
        self.label = ClassEmbedding(num_classes, width, rngs=rngs) if num_classes else None
        self.blocks = Stack(layer, depth, **options)
        self.mixers = Stack(mixer, MIXER_DEPTH, **options)
        self.mixer_norm = RMSNorm(width)

    def mix(self, x: Tokens) -> Tokens:
        return self.mixer_norm(self.mixers(x))

    def with_label(self, x: Tokens, labels: Labels | None) -> Tokens:
        return x if self.label is None else x + self.label(labels)[:, None]


class LatentNorm(nnx.Module):
    """Batch norm of every number of a latent, affine, float32: (B, h, w, d), the same."""

    def __init__(self, shape: tuple[int, int, int]):
        self.scale = nnx.Param(jnp.ones(shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape, jnp.float32))

    def __call__(self, z: Latents, statistics: dict[str, jax.Array] | None) -> Latents:
        if statistics is None:
            mean, variance = z.mean(0), z.var(0)
        else:
            mean, variance = statistics["mean"], statistics["variance"]
        scale = self.scale[...] * jax.lax.rsqrt(variance + EPS)
        return (z - mean[None]) * scale[None] + self.bias[...][None]


class Pixels(nnx.Module):
    """Tokens (B, N, width) to images (B, H, W, C) float32, not clipped: LayerNorm, linear to the
    pixels of a patch, and a 3x3 convolution over the seams."""

    def __init__(self, grid, patch: int, width: int, channels: int, *, rngs: nnx.Rngs, dtype):
        self.norm = LayerNorm(width, eps=EPS)
        self.linear = Linear(
            width, patch * patch * channels, bias=False, init=fan_in, rngs=rngs, dtype=dtype
        )
        self.smooth = nnx.Conv(
            channels, channels, (3, 3), padding=1, kernel_init=fan_in, dtype=dtype, rngs=rngs
        )
        self.grid, self.patch = grid, patch

    def __call__(self, tokens: Tokens) -> Images:
        patches = self.linear(self.norm(tokens))
        return self.smooth(unpatchify(patches, self.patch, self.grid)).astype(jnp.float32)
