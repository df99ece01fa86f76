"""What SiT, LightningDiT and LightningDDT have in common: patches, positions, conditioning, blocks.

Published networks of this family differ in their time and in what they predict; the modules are
the same, and `models/parameterization.py` translates.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphere_jax.nn.embeddings import (
    LabelEmbedding,
    TimeEmbedding,
    patchify,
    sincos_positions,
    unpatchify,
)
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.transformer_layers import Block, Head, Stack


class Trunk(nnx.Module):
    """All but the head: latents to tokens, times and labels to a vector, blocks.

    `compute_dtype` is that of the products; tokens between blocks and the vector are float32.
    `norm()`, `attention(rngs)` and `mlp(rngs)` make the layers of a block. The conditioning vector
    is SiLU of the sum of the time and the label embedding; `time_embedding=None` leaves out time
    and `num_classes=0` leaves out labels; without either the blocks are not modulated.

    Raises:
        ValueError: if `patch` does not divide the latent grid, or 4 the width.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        num_classes: int,
        *,
        norm: Callable[[], nnx.Module],
        attention: Callable[[nnx.Rngs], nnx.Module],
        mlp: Callable[[nnx.Rngs], nnx.Module],
        time_embedding: str | None,
        rngs: nnx.Rngs,
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        self.grid = token_grid(latent_shape, patch)
        sincos_positions(self.grid, width)  # raises here, not at the first call
        self.channels = latent_shape[-1]
        self.patch = patch
        self.width = width
        self.depth = depth
        self.conditional = time_embedding is not None or num_classes > 0

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                norm=norm,
                attention=attention,
                mlp=mlp,
                conditional=self.conditional,
                dtype=compute_dtype,
                rngs=rngs,
            )

        self.patches = Linear(patch * patch * self.channels, width, rngs=rngs, dtype=compute_dtype)
        self.time = TimeEmbedding(width, kind=time_embedding, rngs=rngs) if time_embedding else None
        self.label = LabelEmbedding(num_classes, width, rngs=rngs) if num_classes else None
        self.blocks = Stack(block, depth, unroll=unroll, remat=remat, rngs=rngs)

    @property
    def fixed_table_size(self) -> int:
        """Scalars in the fixed position table: a constant here, a stored buffer in the originals.

        Parameters plus this are the published counts (docs/systems/shared.md#parameter-counts).
        """
        return self.grid[0] * self.grid[1] * self.width

    def embed(self, z: jax.Array) -> jax.Array:
        """z (B, h, w, d) -> tokens with their positions (B, N, width), float32."""
        positions = jnp.asarray(sincos_positions(self.grid, self.width))[None]
        return self.patches(patchify(z, self.patch)).astype(jnp.float32) + positions

    def condition(self, t: jax.Array | None, labels: jax.Array | None) -> jax.Array | None:
        """SiLU(time + label), (B, width), float32; None if there is neither."""
        parts = [] if self.time is None else [self.time(t)]
        parts += [] if self.label is None else [self.label(labels)]
        return jax.nn.silu(sum(parts)) if parts else None


class DiffusionTransformer(Trunk):
    """Latents, times and labels -> a field of the shape of the latents.

    As `Trunk`, and a head with the same `norm`. With `learn_sigma` the head has 2 d channels, of
    which the call returns the first d: the others are the variances of DiT, untrained in SiT.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        num_classes: int,
        *,
        norm: Callable[[], nnx.Module],
        rngs: nnx.Rngs,
        learn_sigma: bool = False,
        compute_dtype: jnp.dtype = jnp.float32,
        **trunk,
    ):
        super().__init__(
            latent_shape,
            patch,
            width,
            depth,
            num_classes,
            norm=norm,
            compute_dtype=compute_dtype,
            rngs=rngs,
            **trunk,
        )
        token = patch * patch * self.channels
        self.head = Head(
            width,
            2 * token if learn_sigma else token,
            norm=norm,
            conditional=self.conditional,
            dtype=compute_dtype,
            rngs=rngs,
        )

    def __call__(
        self, z: jax.Array, t: jax.Array | None = None, labels: jax.Array | None = None
    ) -> jax.Array:
        """z (B, h, w, d), t (B,) in [0, 1], labels (B,) int32 in [0, num_classes] -> (B, h, w, d).

        The output is float32 whatever the compute dtype. `t` or `labels` may be None where the
        network does not read them.
        """
        c = self.condition(t, labels)
        return self._field(self.blocks(self.embed(z), c), c)[..., : self.channels]

    def features(
        self, z: jax.Array, t: jax.Array | None = None, labels: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """What the network computes on the way, for the arguments of a call.

        "embed" (B, N, width), the tokens before the first block; "condition" (B, width), if there
        is any; "block_0" ... (B, N, width), what each block returns; "head" (B, h, w, d), or 2 d
        channels with `learn_sigma`, float32.
        """
        x, c = self.embed(z), self.condition(t, labels)
        states = self.blocks.states(x, c)
        found = {"embed": x} | ({} if c is None else {"condition": c})
        found |= {f"block_{k}": states[k] for k in range(self.depth)}
        return found | {"head": self._field(states[-1], c)}

    def _field(self, x: jax.Array, c: jax.Array | None) -> jax.Array:
        return unpatchify(self.head(x, c), self.patch, self.grid).astype(jnp.float32)


def token_grid(latent_shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of tokens."""
    if np.any(np.array(latent_shape[:2]) % patch):
        raise ValueError(f"patch {patch} does not divide the latent grid {latent_shape[:2]}")
    return latent_shape[0] // patch, latent_shape[1] // patch
