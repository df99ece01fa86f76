"""Patches, positions, times and labels as vectors."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Float32

from sphere_jax.common.shapes import Labels, Latents, PerSample, Tokens
from sphere_jax.nn.linear import Initializer, Linear, small_normal
from sphere_jax.nn.precision import exact_products

TIME_FEATURES = 256  # sinusoids, or Fourier frequencies
MAX_PERIOD = 10000.0


def patchify(z: Latents, patch: int) -> Tokens:
    """(B, h p, w p, d) -> (B, h w, p p d): tokens in raster order, channels last in each."""
    return rearrange(z, "b (h p) (w q) d -> b (h w) (p q d)", p=patch, q=patch)


def unpatchify(tokens: Tokens, patch: int, grid: tuple[int, int]) -> Latents:
    """(B, h w, p p d) -> (B, h p, w p, d): the inverse of `patchify`; `grid` is (h, w)."""
    return rearrange(
        tokens, "b (h w) (p q d) -> b (h p) (w q) d", h=grid[0], w=grid[1], p=patch, q=patch
    )


@lru_cache(maxsize=32)
def sincos_positions(
    grid: tuple[int, int], width: int
) -> Float32[np.ndarray, "{grid[0]}*{grid[1]} {width}"]:
    """Fixed 2-D position table (h * w, width) float32, as in DiT and SiT.

    The first half of the channels encodes the column and the second half the row, each as
    sin | cos at `10000^(-k / (width / 4))` radians per step.

    Raises:
        ValueError: if `width` is not divisible by 4.
    """
    if width % 4:
        raise ValueError(f"2-D sin-cos positions need a width divisible by 4, got {width}")
    frequencies = MAX_PERIOD ** (-np.arange(width // 4) / (width // 4))
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    column, row = np.outer(columns.ravel(), frequencies), np.outer(rows.ravel(), frequencies)
    table = [np.sin(column), np.cos(column), np.sin(row), np.cos(row)]
    return np.concatenate(table, axis=1).astype(np.float32)


def time_sinusoids(
    t: PerSample, features: int = TIME_FEATURES
) -> Float32[Array, "batch {features}"]:
    """(B,) -> (B, features): cos | sin of `t 10000^(-k / (features / 2))`; t is not scaled."""
    half = features // 2
    frequencies = MAX_PERIOD ** (-np.arange(half) / half)
    angles = t.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Times (B,) in [0, 1] -> (B, width): features, linear, SiLU, linear, all in float32, even
    where products of float32 arrays are rounded by default (TPU: to bfloat16; docs/bf16.md).

    kind "sinusoid": 256 fixed sinusoids (SiT, the original LightningDiT). kind "fourier": sin | cos
    of `2 pi t f` at 256 frequencies f ~ N(0, 1), sampled at initialisation and never trained, but
    stored with the parameters, which depend on them (RAE, RJF, HAE; docs/systems/hae.md#network).

    Raises:
        ValueError: for any other kind.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs, kind: str = "sinusoid"):
        if kind not in ("sinusoid", "fourier"):
            raise ValueError(f'time embedding must be "sinusoid" or "fourier", got {kind!r}')
        fourier = kind == "fourier"
        self.frequencies = (
            nnx.Param(jax.random.normal(rngs.params(), (TIME_FEATURES,))) if fourier else None
        )
        features = 2 * TIME_FEATURES if fourier else TIME_FEATURES
        self.hidden = Linear(features, width, rngs=rngs, init=small_normal)
        self.output = Linear(width, width, rngs=rngs, init=small_normal)

    def __call__(self, t: PerSample) -> Float[Array, "batch width"]:
        if self.frequencies is None:
            features = time_sinusoids(t)
        else:
            frequencies = jax.lax.stop_gradient(self.frequencies[...])
            angles = 2 * np.pi * t.astype(jnp.float32)[:, None] * frequencies[None]
            features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        with exact_products():
            return self.output(jax.nn.silu(self.hidden(features)))


class LabelEmbedding(nnx.Module):
    """Labels (B,) int32 -> (B, width); row `num_classes` is the null label of guidance.

    Labels may also be mixtures, float weights (B, num_classes + 1): the result is the same mixture
    of embeddings, for example half of one class and half of another. `init` draws the table.
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        init: Initializer = small_normal,
    ):
        self.table = nnx.Param(init(rngs.params(), (num_classes + 1, width), jnp.float32))

    def __call__(self, labels: Labels) -> Float[Array, "batch width"]:
        if labels.ndim == 2:
            return jnp.matmul(labels, self.table[...], precision="highest")
        return self.table[...][labels]
