"""The vision transformer of DINO, MAE, CLIP and SigLIP, used as a frozen feature network.

Tokens are class, registers, patches in raster order. Positions come from a subclass: a learned
table that is added (`models/dino.py`) or rotations in the attention (`models/dinov3.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphere_jax.distribution.placement import split_by_batch
from sphere_jax.nn.attention import attend
from sphere_jax.nn.embeddings import patchify
from sphere_jax.nn.linear import Linear, small_normal
from sphere_jax.nn.mlp import MLP, SwiGLU
from sphere_jax.nn.norms import LayerNorm, per_channel
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.transformer_layers import Stack

SIZES = {  # width, depth, heads
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
}

Rotation = tuple[np.ndarray, np.ndarray]  # cos and sin, (tokens, head_dim) each


class Tokens(NamedTuple):
    """Behind the final norm, float32."""

    cls: jax.Array  # (B, width); (B, 0, width) where there is no class token
    registers: jax.Array  # (B, registers, width)
    patches: jax.Array  # (B, h * w, width), raster order


class Attention(nnx.Module):
    """Self-attention, (B, N, width) -> (B, N, width), with an optional rotation of q and k.

    The columns of the qkv kernel are q | k | v. A bias of k cannot change the softmax: with
    `key_bias=False` there is none, and those of q | v are one vector.

    Raises:
        ValueError: if `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs, key_bias: bool, dtype: jnp.dtype):
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.qkv = Linear(width, 3 * width, bias=key_bias, rngs=rngs, dtype=dtype)
        self.qv_bias = None if key_bias else nnx.Param(jnp.zeros((2 * width,), jnp.float32))
        self.projection = Linear(width, width, rngs=rngs, dtype=dtype, split="input")
        self.heads = heads

    def __call__(self, x: jax.Array, rotation: Rotation | None) -> jax.Array:
        q, k, v = self.qkv.by_heads(x, 3, self.heads)
        if self.qv_bias is not None:
            biases = self.qv_bias[...].astype(q.dtype).reshape(2, 1, 1, *q.shape[2:])
            q, v = q + biases[0], v + biases[1]
        if rotation is not None:
            q, k = rotate_halves(q, rotation), rotate_halves(k, rotation)
        return self.projection.of_heads(attend(q, k, v))


def rotate_halves(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns channel pairs (k, k + head_dim / 2) of x (B, N, heads, head_dim), in float32.

    `(x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin)`, returned in the dtype of `x`.
    """
    half = x.shape[-1] // 2
    cos, sin = rotation
    signed = np.concatenate([-sin[:, :half], sin[:, half:]], axis=1)
    table = lambda values: jnp.asarray(values, jnp.float32)[None, :, None, :]  # noqa: E731
    y = x.astype(jnp.float32)
    return (y * table(cos) + jnp.roll(y, half, axis=-1) * table(signed)).astype(x.dtype)


class Block(nnx.Module):
    """`x += s1 attention(norm(x))`, `x += s2 mlp(norm(x))`, (B, N, width) float32.

    The LayerScale vectors s1, s2 are left out with `layer_scale=False`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        rngs: nnx.Rngs,
        key_bias: bool,
        layer_scale: bool,
        swiglu: bool,
        exact_gelu: bool,
        activation: Callable[[jax.Array], jax.Array] | None,
        eps: float,
        dtype: jnp.dtype,
    ):
        mlp = SwiGLU if swiglu else partial(MLP, exact=exact_gelu, activation=activation)
        self.norm1, self.norm2 = LayerNorm(width, eps=eps), LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads, key_bias=key_bias, rngs=rngs, dtype=dtype)
        self.mlp = mlp(width, hidden, rngs=rngs, dtype=dtype)
        self.scale1 = nnx.Param(jnp.ones((width,), jnp.float32)) if layer_scale else None
        self.scale2 = nnx.Param(jnp.ones((width,), jnp.float32)) if layer_scale else None

    def __call__(self, x: jax.Array, rotation: Rotation | None) -> jax.Array:
        x = x + _scaled(self.attention(self.norm1(x), rotation), self.scale1)
        return x + _scaled(self.mlp(self.norm2(x)), self.scale2)


def _scaled(x, scale):
    x = x.astype(jnp.float32)
    return x if scale is None else x * per_channel(scale[...], x.ndim)


class VisionTransformer(nnx.Module):
    """Patch embedding, class and register tokens, blocks, final LayerNorm.

    `dtype` is that of the products; parameters, the residual stream and the output are float32.
    With `final_affine=False` the final norm has neither scale nor bias, so that every token has
    norm sqrt(width) (arXiv 2510.11690; docs/systems/sphere_latent.md#frozen-tokenizer-rae). With
    `embeds=False` there is no patch embedding: another stem takes its place. With `pre_norm` a norm
    stands before the blocks, and the patch embedding has no bias, as in CLIP. `class_token=False`
    leaves that token out, as SigLIP does. `activation` takes the place of GELU. `unroll` and
    `remat` are those of `nn.transformer.Stack`.

    Raises:
        ValueError: if `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        *,
        rngs: nnx.Rngs,
        registers: int,
        mlp_ratio: float,
        key_bias: bool,
        layer_scale: bool,
        swiglu: bool,
        eps: float,
        final_affine: bool,
        dtype: jnp.dtype,
        unroll: int | bool,
        remat: Remat,
        embeds: bool = True,
        exact_gelu: bool = True,
        activation: Callable[[jax.Array], jax.Array] | None = None,
        pre_norm: bool = False,
        class_token: bool = True,
    ):
        self.width, self.depth, self.heads, self.patch = width, depth, heads, patch
        self.registers, self.swiglu = registers, swiglu
        self.layer_scale, self.final_affine = layer_scale, final_affine

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                heads,
                int(mlp_ratio * width),
                key_bias=key_bias,
                layer_scale=layer_scale,
                swiglu=swiglu,
                exact_gelu=exact_gelu,
                activation=activation,
                eps=eps,
                dtype=dtype,
                rngs=rngs,
            )

        self.patch_embedding = (
            Linear(patch * patch * 3, width, bias=not pre_norm, rngs=rngs, dtype=dtype)
            if embeds
            else None
        )
        self.cls_token = (
            nnx.Param(small_normal(rngs.params(), (1, width), jnp.float32)) if class_token else None
        )
        self.register_tokens = (
            nnx.Param(small_normal(rngs.params(), (registers, width), jnp.float32))
            if registers
            else None
        )
        self.pre_norm = LayerNorm(width, eps=eps) if pre_norm else None
        self.blocks = Stack(block, depth, unroll=unroll, remat=remat, rngs=rngs)
        self.norm = LayerNorm(width, affine=final_affine, eps=eps)

    def __call__(self, x: jax.Array) -> Tokens:
        """ImageNet-normalised images (B, H, W, 3) to tokens; sides of any multiple of the patch.

        Raises:
            ValueError: a side is no multiple of the patch.
        """
        return self.encode(self.embed(x))

    def embed(self, x: jax.Array) -> jax.Array:
        """ImageNet-normalised images (B, H, W, 3) to embedded patches (B, h, w, width)."""
        (batch, height, width), patch = x.shape[:3], self.patch
        if height % patch or width % patch:
            raise ValueError(
                f"the image needs sides that are multiples of {patch} pixels, not {height}x{width}."
            )
        patches = self.patch_embedding(patchify(x, patch))
        return patches.reshape(batch, height // patch, width // patch, -1)

    def encode(self, patches: jax.Array) -> Tokens:
        """Embedded patches (B, h, w, width), of `embed` or of another stem, to tokens."""
        x, rotation = self._tokens(patches)
        x = self.norm(self.blocks(x, rotation))
        if self.cls_token is None:
            return Tokens(x[:, :0], x[:, : self.registers], x[:, self.registers :])
        first = 1 + self.registers
        return Tokens(x[:, 0], x[:, 1:first], x[:, first:])

    def features(self, x: jax.Array, blocks: Sequence[int] | None = None) -> dict[str, jax.Array]:
        """All tokens behind the chosen blocks (counted from 0, in rising order; None: all).

        ImageNet-normalised images (B, H, W, 3) to "block_k": (B, 1 + registers + h w, width),
        float32, before any final norm. No other states are stored, and no block behind the last of
        them is run.

        Raises:
            ValueError: a side is no multiple of the patch, or `blocks` are not such numbers.
        """
        blocks = list(range(self.depth) if blocks is None else blocks)
        if not blocks or blocks != sorted(set(blocks) & set(range(self.depth))):
            raise ValueError(f"blocks must rise within 0 ... {self.depth - 1}, not {blocks}")
        x, rotation = self._tokens(self.embed(x))
        taps = run_tapped(self.blocks, x, blocks, rotation)
        return {f"block_{k}": tap for k, tap in zip(blocks, taps, strict=True)}

    def _tokens(self, patches: jax.Array) -> tuple[jax.Array, Rotation | None]:
        """Class, registers and patches (B, N, width) float32, and the rotation of the attention."""
        batch, height, width, _ = patches.shape
        patches = patches.reshape(batch, height * width, -1).astype(jnp.float32)
        cls = None if self.cls_token is None else self.cls_token[...]
        cls, patches = self._place(cls, patches, (height, width))
        registers = None if self.register_tokens is None else self.register_tokens[...]
        first = [token for token in (cls, registers) if token is not None]
        if first:
            first = jnp.concatenate(first)[None]
            first = jnp.broadcast_to(first, (batch, *first.shape[1:]))
            patches = jnp.concatenate([first, patches], axis=1)
        x = patches if self.pre_norm is None else self.pre_norm(patches)
        return x, self._rotation((height, width))

    def _place(self, cls, patches, grid):
        """With positions added: cls (1, width) or None, patches (B, h w, width)."""
        return cls, patches

    def _rotation(self, grid) -> Rotation | None:
        return None


def run_tapped(stack: Stack, x: jax.Array, layers: list[int], *args) -> list[jax.Array]:
    """What stands behind the given layers (rising) of a stack, as arrays of the shape of `x`.

    Every layer writes into the slot of the next tap, so that the tapped layer writes last: the scan
    holds one array a tap, not one a layer.
    """
    last = layers[-1] + 1
    state, layer = stack.scanned(*args)
    state = jax.tree.map(lambda leaf: leaf[:last], state)
    slots = jnp.asarray(np.searchsorted(layers, np.arange(last)))

    def step(carry, inputs):
        (x, taps), (state, slot) = carry, inputs
        x = layer(x, state)
        return (x, jax.lax.dynamic_update_index_in_dim(taps, x, slot, 0)), None

    taps = jnp.zeros((len(layers), *x.shape), x.dtype)
    with stack.splitting():
        x = split_by_batch(x)
    (_, taps), _ = jax.lax.scan(step, (x, taps), (state, slots), unroll=stack.unroll)
    return [split_by_batch(tap) for tap in taps]
