"""flow-sphere's networks: a spherical autoencoder, and a refiner that reads what it made.

docs/systems/flow_sphere.md#networks. The encoder's output is raw: putting it on the sphere is the
caller's, in float32.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from sphere_jax.common.shapes import Images, Labels, Latents, PerSample, Tokens
from sphere_jax.models.flow_sphere_layers import (
    ClassEmbedding,
    FeedForward,
    LatentNorm,
    Layers,
    Pixels,
    RopeAttention,
    fan_in,
    raster_positions,
)
from sphere_jax.models.transformer import token_grid
from sphere_jax.nn.embeddings import patchify, time_sinusoids
from sphere_jax.nn.linear import Linear, zeros
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.transformer_layers import Block, Stack, modulate

BOTTLENECK = 128  # channels between the pixels of a patch and its token
TIME_ROWS = 100  # of the time table
TIMES = ("table", "continuous")


class Encoder(nnx.Module):
    """Images (B, H, W, C) in [-1, 1] -> raw latents (B, h, w, d) float32.

    `normalize` puts a batch norm over each of the h w d numbers at the end: with the statistics
    `{"mean", "variance"}` (h, w, d) given, or those of the batch. `num_classes=0` leaves labels
    out; else they are (B,) int32 in [0, num_classes] or mixtures (B, num_classes + 1).

    Raises:
        ValueError: if `patch` does not divide the image, the width is odd, or RoPE does not fit
            `head_dim`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        hidden: int,
        num_classes: int = 0,
        *,
        rngs: nnx.Rngs,
        normalize: bool = True,
        rope: str = "2d",
        compute_dtype: DTypeLike = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        grid = token_grid(image_shape, patch)
        raster_positions(grid[0] * grid[1], width)  # raises here, not at the first call
        options = dict(bias=False, init=fan_in, rngs=rngs, dtype=compute_dtype)
        self.pixels = Linear(patch * patch * image_shape[-1], BOTTLENECK, **options)
        self.tokens = Linear(BOTTLENECK, width, **options)
        self.body = Layers(
            grid, width, depth, heads, head_dim, hidden, rope, num_classes,
            compute_dtype=compute_dtype, unroll=unroll, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.bottleneck = Linear(width, latent_channels, **options)
        self.norm = LatentNorm((*grid, latent_channels)) if normalize else None
        self.grid, self.patch = grid, patch

    def __call__(
        self,
        images: Images,
        labels: Labels | None = None,
        statistics: dict[str, jax.Array] | None = None,
    ) -> Latents:
        z = self.before_norm(images, labels)
        return z if self.norm is None else self.norm(z, statistics)

    def before_norm(self, images: Images, labels: Labels | None = None) -> Latents:
        """Latents before the batch norm, whose statistics are theirs."""
        x = self.tokens(self.pixels(patchify(images, self.patch))).astype(jnp.float32)
        # The original adds its table twice: with the patches, and before the first layer.
        x = x + 2.0 * jnp.asarray(raster_positions(*x.shape[1:]))[None]
        z = self.bottleneck(self.body.mix(self.body.blocks(self.body.with_label(x, labels))))
        return z.astype(jnp.float32).reshape(-1, *self.grid, z.shape[-1])


class Decoder(nnx.Module):
    """Latents (B, h, w, d) on the sphere -> images (B, H, W, C) float32 and the tokens (B, N,
    width) they are made of. Arguments and errors as for `Encoder`."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        hidden: int,
        num_classes: int = 0,
        *,
        rngs: nnx.Rngs,
        rope: str = "2d",
        compute_dtype: DTypeLike = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        grid, channels = token_grid(image_shape, patch), image_shape[-1]
        self.input = Linear(
            latent_channels, width, bias=False, init=fan_in, rngs=rngs, dtype=compute_dtype
        )
        self.body = Layers(
            grid, width, depth, heads, head_dim, hidden, rope, num_classes,
            compute_dtype=compute_dtype, unroll=unroll, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.pixels = Pixels(grid, patch, width, channels, rngs=rngs, dtype=compute_dtype)

    def __call__(self, latents: Latents, labels: Labels | None = None) -> tuple[Images, Tokens]:
        x = self.input(latents.reshape(latents.shape[0], -1, latents.shape[-1]))
        x = self.body.mix(self.body.with_label(x.astype(jnp.float32), labels))
        tokens = self.body.blocks(x)
        return self.pixels(tokens), tokens


def time_rows(t: jax.Array) -> jax.Array:
    """Rows floor(100 t) of the time table (B,), int32, of times (B,) in [0, 1]. The original leaves
    its table at t = 1. A time like 1 - 0.8, which is 0.19999999 in float32, is meant as 0.2."""
    rows = jnp.floor(TIME_ROWS * t + 1e-4)
    return jnp.clip(rows, 0, TIME_ROWS - 1).astype(jnp.int32)


class Refiner(nnx.Module):
    """Noisy images (B, H, W, C) to clean ones, from their tokens beside latents and decoder tokens.

    `context=(d, width)` are the channels of both; None leaves these two streams out. Times (B,) run
    from 0 (start) to 1 (image): rows of a table of 100 ("table", as published), or sinusoids of
    1000 t ("continuous"), of an even width. Raises ValueError as `Encoder` does.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context: tuple[int, int] | None,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        hidden: int,
        num_classes: int = 0,
        *,
        rngs: nnx.Rngs,
        rope: str = "2d",
        time: str = "continuous",
        compute_dtype: DTypeLike = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        if time not in TIMES:
            raise ValueError(f'time must be "table" or "continuous", got {time!r}')
        if time == "continuous" and width % 2:
            raise ValueError(f"width {width} is odd: half of the features are sines, half cosines")
        grid, channels = token_grid(image_shape, patch), image_shape[-1]
        tokens = grid[0] * grid[1]
        where = (rope, grid, 3 if context else 1)
        options: dict[str, Any] = dict(init=fan_in, rngs=rngs, dtype=compute_dtype)

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                norm=partial(LayerNorm, width, affine=False),
                attention=lambda rngs: RopeAttention(
                    width, heads, head_dim, where, rngs=rngs, dtype=compute_dtype
                ),
                mlp=lambda rngs: FeedForward(
                    width, hidden, jax.nn.silu, rngs=rngs, dtype=compute_dtype
                ),
                dtype=compute_dtype,
                rngs=rngs,
            )

        self.tokens = Linear(patch * patch * channels, width, bias=False, **options)
        scale = (2 / (tokens * width + width)) ** 0.5  # xavier of (1, tokens, width)
        self.positions = nnx.Param(scale * jax.random.normal(rngs.params(), (tokens, width)))
        self.latents = Linear(context[0], width, **options) if context else None
        self.context = Linear(context[1], width, **options) if context else None
        self.time_table = (
            nnx.Param(jax.random.normal(rngs.params(), (TIME_ROWS, width)))
            if time == "table"
            else None
        )
        self.time_mlp = FeedForward(width, 4 * width, jax.nn.silu, rngs=rngs)  # float32
        self.label = ClassEmbedding(num_classes, width, rngs=rngs) if num_classes else None
        self.blocks = Stack(block, depth, unroll=unroll, remat=remat, rngs=rngs)
        self.head_norm = LayerNorm(width, affine=False)
        self.head_modulation = Linear(width, 2 * width, **{**options, "init": zeros})
        self.pixels = Pixels(grid, patch, width, channels, rngs=rngs, dtype=compute_dtype)
        self.grid, self.patch, self.width = grid, patch, width

    def __call__(
        self,
        images: Images,
        t: PerSample,
        latents: Latents | None = None,
        tokens: Tokens | None = None,
        labels: Labels | None = None,
    ) -> Images:
        c = self._condition(t, labels)
        x = self.tokens(patchify(images, self.patch)).astype(jnp.float32)
        x = x + self.positions[...][None]
        count = x.shape[1]
        if self.latents is not None:
            z = self.latents(latents.reshape(latents.shape[0], -1, latents.shape[-1]))
            given = (z, self.context(tokens), x)
            x = jnp.concatenate([stream.astype(jnp.float32) for stream in given], axis=1)
        x = self.blocks(x, c)[:, -count:]
        shift, scale = jnp.split(self.head_modulation(c)[:, None], 2, axis=-1)
        return self.pixels(modulate(self.head_norm(x), shift, scale))

    def _condition(self, t, labels):
        with jax.default_matmul_precision("highest"):
            if self.time_table is None:
                features = time_sinusoids(1000.0 * t, self.width)
            else:
                features = self.time_table[...][time_rows(t)]
            c = self.time_mlp(features)
        return jax.nn.silu(c if self.label is None else c + self.label(labels))
