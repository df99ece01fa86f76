"""LightningDDT: LightningDiT with a shallow wide head, the DiT-DH of RAE (2510.11690).

A decoupled diffusion transformer: an encoder of the usual width turns noisy latents into tokens; a
head of few blocks, wider than the number of latent channels, also takes the noisy latents, each of
its positions modulated by the token there. docs/systems/hae.md#rae-flow,
docs/systems/shared.md#blocks.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.config.option import option
from sphere_jax.config.options import NetworkOptions
from sphere_jax.models.latent_network import LatentNetwork, transformer
from sphere_jax.models.lightning_dit import lightning_layers
from sphere_jax.models.transformer import Trunk, token_grid
from sphere_jax.nn.embeddings import patchify, unpatchify
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.transformer_layers import Block, Head, Stack

SIZES = {  # depth, width and heads of the encoder; the head is the same in all
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


@dataclasses.dataclass(frozen=True)
class LightningDDTOptions(NetworkOptions):
    """The DiT-DH of RAE: a LightningDiT and a shallow wide head (arXiv 2510.11690;
    docs/systems/hae.md#rae-flow)."""

    name: str = "lightning_ddt"
    size: Literal["", "S", "B", "L", "XL"] = option(
        "", help="a published size, or '' for width, depth and heads"
    )
    head_width: int = option(2048, 8, help="channels of a token in the head")
    head_depth: int = option(2, 1, help="blocks of the head")
    head_heads: int = option(16, 1, help="of attention in the head")
    qk_norm: bool = option(False, help="RMSNorm of queries and keys")


class LightningDDT(Trunk):
    """Latents, times and labels -> a field of the shape of the latents.

    The encoder is a LightningDiT with Fourier time features, whose vector passes SiLU twice, as in
    the original. SiLU(time + its last block), linearly brought to `head_width`, modulates the head:
    blocks of the same kind without a position table, RMSNorm and a linear. The original starts its
    linears from PyTorch's default; here they start as those of LightningDiT do.

    Called with z (B, h, w, d), t (B,) and labels (B,), it returns a float32 field (B, h, w, d).

    Raises:
        ValueError: if `patch` does not divide h and w, or a number of heads does not divide its
            width or leaves a head dimension not divisible by 4.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        head_width: int = 2048,
        head_depth: int = 2,
        head_heads: int = 16,
        mlp_ratio: float = 4,
        qk_norm: bool = False,
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        grid = token_grid(latent_shape, patch)

        def layers(width, heads):
            return lightning_layers(
                width,
                heads,
                grid,
                mlp_ratio=mlp_ratio,
                qk_norm=qk_norm,
                gate_bias=True,
                dtype=compute_dtype,
            )

        super().__init__(
            latent_shape,
            patch,
            width,
            depth,
            num_classes,
            **layers(width, heads),
            time_embedding="fourier",
            compute_dtype=compute_dtype,
            unroll=unroll,
            remat=remat,
            rngs=rngs,
        )
        token, options = patch * patch * self.channels, dict(dtype=compute_dtype, rngs=rngs)
        of_head = layers(head_width, head_heads)

        def block(rngs: nnx.Rngs) -> Block:
            return Block(head_width, **of_head, dtype=compute_dtype, rngs=rngs)

        self.head_depth = head_depth
        self.projector = Linear(width, head_width, **options) if width != head_width else None
        self.head_patches = Linear(token, head_width, **options)
        self.head_blocks = Stack(block, head_depth, unroll=unroll, remat=remat, rngs=rngs)
        self.head = Head(head_width, token, norm=of_head["norm"], **options)

    def __call__(self, z: jax.Array, t: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """z (B, h, w, d), t (B,) in [0, 1], labels (B,) int32 in [0, num_classes] -> (B, h, w, d).

        The output is float32 whatever the compute dtype. Labels are not read if there are none.
        """
        tokens = self._tokens(self.blocks(self.embed(z), self.condition(t, labels)), t)
        c = self._head_condition(tokens)
        return self._field(self.head_blocks(self._head_embed(z), c), c)

    def features(
        self, z: jax.Array, t: jax.Array, labels: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """What the network computes on the way, for the arguments of a call.

        Of the encoder "embed", "block_0" ... (B, N, width), its "condition" (B, width), and
        "tokens" (B, N, width), all that the head gets of it; of the head "head_embed",
        "head_condition", "head_block_0" ... (B, N, head_width); "head" (B, h, w, d), float32.
        """
        x, c = self.embed(z), self.condition(t, labels)
        states = self.blocks.states(x, c)
        tokens = self._tokens(states[-1], t)
        y, s = self._head_embed(z), self._head_condition(tokens)
        head_states = self.head_blocks.states(y, s)
        return {
            "embed": x,
            "condition": c,
            **{f"block_{k}": states[k] for k in range(self.depth)},
            "tokens": tokens,
            "head_embed": y,
            "head_condition": s,
            **{f"head_block_{k}": head_states[k] for k in range(self.head_depth)},
            "head": self._field(head_states[-1], s),
        }

    def condition(self, t: jax.Array, labels: jax.Array | None) -> jax.Array:
        """SiLU(SiLU(time + label)), (B, width), float32."""
        return jax.nn.silu(super().condition(t, labels))

    def _tokens(self, x: jax.Array, t: jax.Array) -> jax.Array:
        return jax.nn.silu(self.time(t)[:, None] + x)

    def _head_condition(self, tokens: jax.Array) -> jax.Array:
        c = tokens if self.projector is None else self.projector(tokens)
        return jax.nn.silu(c.astype(jnp.float32))

    def _head_embed(self, z: jax.Array) -> jax.Array:
        return self.head_patches(patchify(z, self.patch)).astype(jnp.float32)

    def _field(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return unpatchify(self.head(x, c), self.patch, self.grid).astype(jnp.float32)


def build(
    options: LightningDDTOptions, latent_shape: tuple[int, int, int], num_classes: int
) -> Network:
    """As `LatentNetwork.build`."""
    module = partial(
        LightningDDT,
        head_width=options.head_width,
        head_depth=options.head_depth,
        head_heads=options.head_heads,
        qk_norm=options.qk_norm,
    )
    return transformer(module, SIZES, options, latent_shape, num_classes)


NETWORK = LatentNetwork(LightningDDTOptions, build)
