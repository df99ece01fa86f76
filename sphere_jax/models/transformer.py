"""What SiT and LightningDiT have in common: patches, positions, conditioning, blocks, head."""

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
from sphere_jax.nn.transformer import Block, Head, Stack


class DiffusionTransformer(nnx.Module):
    """Latents, times and labels -> a field of the shape of the latents.

    `norm()`, `attention(rngs)` and `mlp(rngs)` make the layers of a block (`norm` also that of the
    head). The conditioning vector is SiLU of the sum of the time and the label embedding;
    `time_embedding=None` leaves out time and `num_classes=0` leaves out labels; without either the
    blocks are not modulated.

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
        remat: bool = False,
    ):
        self.grid = token_grid(latent_shape, patch)
        sincos_positions(self.grid, width)  # raises here, not at the first call
        self.patch = patch
        self.width = width
        self.dtype = compute_dtype
        token = patch * patch * latent_shape[-1]
        conditional = time_embedding is not None or num_classes > 0

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                norm=norm,
                attention=attention,
                mlp=mlp,
                conditional=conditional,
                dtype=compute_dtype,
                rngs=rngs,
            )

        self.patches = Linear(token, width, rngs=rngs, dtype=compute_dtype)
        self.time = TimeEmbedding(width, kind=time_embedding, rngs=rngs) if time_embedding else None
        self.label = LabelEmbedding(num_classes, width, rngs=rngs) if num_classes else None
        self.blocks = Stack(block, depth, unroll=unroll, remat=remat, rngs=rngs)
        self.head = Head(
            width, token, norm=norm, conditional=conditional, dtype=compute_dtype, rngs=rngs
        )

    @property
    def fixed_table_size(self) -> int:
        """Scalars in the fixed position table: a constant here, a stored buffer in the originals.

        Parameters plus this are the counts of methods.md J.
        """
        return self.grid[0] * self.grid[1] * self.width

    def __call__(
        self, z: jax.Array, t: jax.Array | None = None, labels: jax.Array | None = None
    ) -> jax.Array:
        """z (B, h, w, d), t (B,) in [0, 1], labels (B,) int32 in [0, num_classes] -> (B, h, w, d).

        The output is float32 whatever the compute dtype. `t` or `labels` may be None where the
        network does not read them.
        """
        positions = jnp.asarray(sincos_positions(self.grid, self.width), self.dtype)[None]
        x = self.patches(patchify(z, self.patch)) + positions
        c = self.condition(t, labels)
        x = self.head(self.blocks(x, c), c)
        return unpatchify(x, self.patch, self.grid).astype(jnp.float32)

    def condition(self, t: jax.Array | None, labels: jax.Array | None) -> jax.Array | None:
        """SiLU(time + label), (B, width), in the compute dtype; None if there is neither."""
        parts = [] if self.time is None else [self.time(t)]
        parts += [] if self.label is None else [self.label(labels)]
        return jax.nn.silu(sum(parts)).astype(self.dtype) if parts else None


def token_grid(latent_shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of tokens."""
    if np.any(np.array(latent_shape[:2]) % patch):
        raise ValueError(f"patch {patch} does not divide the latent grid {latent_shape[:2]}")
    return latent_shape[0] // patch, latent_shape[1] // patch
