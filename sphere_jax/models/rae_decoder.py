"""Decoder of the representation autoencoder (RAE, 2510.11690): a ViT from features to pixels.

docs/systems/sphere_latent.md#frozen-tokenizer-rae. Built like the decoder of a masked autoencoder,
without masks.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.attention import Attention
from sphere_jax.nn.embeddings import sincos_positions, unpatchify
from sphere_jax.nn.linear import Linear, small_normal
from sphere_jax.nn.mlp import MLP
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.resize import bilinear
from sphere_jax.nn.transformer_layers import Block, Stack

# Blocks, width, heads and hidden units of the feed-forward. Published weights are "xlarge".
SIZES = {
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
    "xlarge": (28, 1152, 16, 4096),
}
PATCH = 16  # pixels a token, each way
EPS = 1e-12  # of the layer norms


class RAEDecoder(nnx.Module):
    """Features (B, h, w, channels) to images (B, 16 h, 16 w, 3), normalised as ImageNet's.

    A linear embedding of every token, a trained CLS token in front, fixed sin-cos positions (zero
    at the CLS token), pre-norm blocks, a layer norm, a linear layer to the pixels of each patch.
    `grid` (h, w) is that of the tokens; features on another grid are resized to it bilinearly once
    they are embedded. `dtype` is that of the products; parameters and tokens between blocks are
    float32 (docs/bf16.md).

    Raises:
      ValueError: 4 does not divide the width, or `heads`.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        channels: int,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        sincos_positions(grid, width)  # raises here, not at the first call
        self.grid, self.depth, self.width = grid, depth, width

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                norm=lambda: LayerNorm(width, eps=EPS),
                attention=lambda r: Attention(width, heads, rngs=r, dtype=dtype),
                mlp=lambda r: MLP(width, hidden, exact=True, rngs=r, dtype=dtype),
                conditional=False,
                rngs=rngs,
            )

        self.embed = Linear(channels, width, rngs=rngs, dtype=dtype)
        # Not zero as in the original: with so small an EPS its first gradient would be 1e6 times
        # that of the other tokens.
        self.cls = nnx.Param(small_normal(rngs.params(), (width,), jnp.float32))
        self.blocks = Stack(block, depth, unroll=unroll, remat=remat, rngs=rngs)
        self.norm = LayerNorm(width, eps=EPS)
        self.output = Linear(width, PATCH * PATCH * 3, rngs=rngs, dtype=dtype)

    def __call__(self, z: jax.Array) -> jax.Array:
        """z (B, h, w, channels) -> images (B, 16 h, 16 w, 3), float32."""
        return self.pixels(self.norm(self.blocks(self.tokens(z), None)))

    def features(self, z: jax.Array) -> dict[str, jax.Array]:
        """z (B, h, w, channels) -> "embed", "block_0", "block_1", ..., "norm".

        Each (B, 1 + h w, width) float32, the CLS token first: the tokens with their positions,
        after every block, and after the norm.
        """
        x = self.tokens(z)
        states = self.blocks.states(x, None)
        blocks = {f"block_{n}": states[n] for n in range(self.depth)}
        return {"embed": x, **blocks, "norm": self.norm(states[-1])}

    def tokens(self, z: jax.Array) -> jax.Array:
        """z (B, h, w, channels) -> CLS and positioned tokens, (B, 1 + h w, width), float32."""
        x = self.embed(z).astype(jnp.float32)
        if x.shape[1:3] != self.grid:
            x = bilinear(x, *self.grid)
        positions = jnp.asarray(sincos_positions(self.grid, self.width))[None]
        x = x.reshape(len(z), -1, self.width) + positions
        cls = jnp.broadcast_to(self.cls[...], (len(z), 1, self.width))
        return jnp.concatenate([cls, x], axis=1)

    def pixels(self, x: jax.Array) -> jax.Array:
        """CLS and tokens (B, 1 + h w, width) after the norm -> images, float32."""
        return unpatchify(self.output(x[:, 1:]), PATCH, self.grid).astype(jnp.float32)
