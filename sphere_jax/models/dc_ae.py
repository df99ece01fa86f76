"""Encoder and decoder of the deep compression autoencoder (DC-AE, 2410.10733). arXiv 2601.22904,
Table 8; docs/systems/hae.md#decoder.

`widths`, `depths`, `blocks`, `norms` and `activations` have one entry a level, the finest first, as
published. A level is blocks of one kind on one grid, half that of the level before; a finest level
of depth 0 leaves out its blocks and resamples in the first (encoder) or last (decoder) convolution.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.dc_ae_blocks import (
    NORMS,
    Downsample,
    EViTBlock,
    ResBlock,
    Upsample,
    average,
    conv,
    duplicate,
)
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.transformer_layers import Stack

RES, EVIT, EVIT5 = "res", "evit", "evit5"  # the last with a second scale of 5x5


def _levels(count: int, deep: str, norm: str = "trms2d", activation: str = "silu") -> dict:
    """Three levels of ResBlocks with this norm and activation, then EViT-GLU with TRMS2d."""
    return dict(
        blocks=(RES,) * 3 + (deep,) * (count - 3),
        norms=(norm,) * 3 + ("trms2d",) * (count - 3),
        activations=(activation,) * 3 + ("silu",) * (count - 3),
    )


def _hae(norm: str, deep_norm: str) -> dict:
    return dict(
        latent_channels=1024,
        widths=(256, 512, 512, 1024, 1024),
        depths=(5, 5, 3, 3, 3),
        blocks=(RES,) * 3 + (EVIT,) * 2,
        norms=(norm,) * 3 + (deep_norm,) * 2,
        activations=("silu",) * 5,
        resample="interpolate",
        out_norm=norm,
    )


_WIDTHS = (128, 256, 512, 512, 1024, 1024, 2048, 2048)  # of f128; f64 and f32 end earlier

# `Encoder(**ENCODERS[kind], rngs=rngs)`: those of DC-AE's weights (-in- and -mix-) and of Sana's.
ENCODERS = {
    f"f{2 ** (n - 1)}c{channels}": dict(
        latent_channels=channels,
        widths=_WIDTHS[:n],
        depths=(0, 4, 8) + (2,) * (n - 3),
        resample="pixel_unshuffle",
        **_levels(n, EVIT),
    )
    for n, channels in ((6, 32), (7, 128), (8, 512))
} | {
    "f32c32_sana": dict(
        latent_channels=32,
        widths=_WIDTHS[:6],
        depths=(2, 2, 2, 3, 3, 3),
        resample="conv",
        **_levels(6, EVIT5),
    )
}

# `Decoder(**DECODERS[kind], rngs=rngs)`: their decoders, and HAE's. "hae_released" is what its code
# builds, one RMS a sample and no norm at all in EViT-GLU. "hae_normed" has that norm there, too,
# and "hae_trms2d" has DC-AE's everywhere, which the paper names.
DECODERS = {
    f"f{2 ** (n - 1)}c{channels}": dict(
        latent_channels=channels,
        widths=_WIDTHS[:n],
        depths=(0, 5, 10) + (2,) * (n - 3),
        resample="pixel_shuffle",
        **_levels(n, EVIT, "batch", "relu"),
    )
    for n, channels in ((6, 32), (7, 128), (8, 512))
} | {
    "f32c32_sana": dict(
        latent_channels=32,
        widths=_WIDTHS[:6],
        depths=(3,) * 6,
        resample="interpolate",
        **_levels(6, EVIT5),
    ),
    "hae_released": _hae("sample_rms", "none"),
    "hae_normed": _hae("sample_rms", "sample_rms"),
    "hae_trms2d": _hae("trms2d", "trms2d"),
}


class Level(nnx.Module):
    """Equal blocks, (B, h, w, width) to the same, with a resampling before or behind them."""

    def __init__(
        self,
        width: int,
        depth: int,
        block: str,
        norm: str,
        activation: str,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
        unroll: int | bool,
        remat: Remat,
        upsample: Upsample | None = None,
        downsample: Downsample | None = None,
    ):
        def make(rngs: nnx.Rngs) -> nnx.Module:
            if block == RES:
                return ResBlock(width, norm=norm, activation=activation, rngs=rngs, dtype=dtype)
            scales = {EVIT: (), EVIT5: (5,)}[block]
            return EViTBlock(width, scales=scales, norm=norm, rngs=rngs, dtype=dtype)

        self.upsample, self.downsample = upsample, downsample
        self.blocks = Stack(make, depth, rngs=rngs, unroll=unroll, remat=remat)
        self.depth = depth

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.upsample is None else self.upsample(x)
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class Encoder(nnx.Module):
    """Images (B, H, W, 3) in [-1, 1] to latents (B, H / f, W / f, latent_channels) float32.

    `f = 2^(levels - 1)` divides H and W. `resample` is a kind of `Downsample`. `dtype` is that of
    products and of the residual stream; `unroll` and `remat` as in `nn.transformer.Stack`.
    """

    def __init__(
        self,
        *,
        latent_channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        blocks: tuple[str, ...],
        norms: tuple[str, ...],
        activations: tuple[str, ...],
        resample: str,
        out_shortcut: bool = True,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        self.latent_channels, self.out_shortcut = latent_channels, out_shortcut
        self.finest = _finest(depths)
        options = dict(rngs=rngs, dtype=dtype)
        width, resampling = widths[self.finest], dict(kind=resample, **options)
        if self.finest:
            self.project_in = Downsample(3, width, shortcut=False, **resampling)
        else:
            self.project_in = conv(3, width, **options)
        levels = []
        for n in range(self.finest, len(widths)):
            last = n == len(widths) - 1
            below = None if last else Downsample(widths[n], widths[n + 1], **resampling)
            parts = widths[n], depths[n], blocks[n], norms[n], activations[n]
            levels.append(Level(*parts, downsample=below, unroll=unroll, remat=remat, **options))
        self.levels = nnx.List(levels)
        self.project_out = conv(widths[-1], latent_channels, **options)

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Maps "project_in", "stage_1" ... from fine to coarse, downsampled, and "latents"."""
        x = self.project_in(images)
        maps = {"project_in": x}
        for n, level in enumerate(self.levels, 1):
            maps[f"stage_{n}"] = x = level(x)
        z = self.project_out(x)
        if self.out_shortcut:
            z = z + average(x, self.latent_channels)
        return maps | {"latents": z.astype(jnp.float32)}

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.features(images)["latents"]


class Decoder(nnx.Module):
    """Latents (B, h, w, latent_channels) to images (B, f h, f w, 3) float32, in no fixed range.

    `f = 2^(levels - 1)`, 16 for HAE. `resample` is a kind of `Upsample`, `out_norm` is a key of
    `NORMS`. `dtype`, `unroll` and `remat` as in `Encoder`.
    """

    def __init__(
        self,
        *,
        latent_channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        blocks: tuple[str, ...],
        norms: tuple[str, ...],
        activations: tuple[str, ...],
        resample: str,
        in_shortcut: bool = True,
        out_norm: str = "trms2d",
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        self.in_shortcut = in_shortcut
        self.finest = _finest(depths)
        options = dict(rngs=rngs, dtype=dtype)
        width, resampling = widths[self.finest], dict(kind=resample, **options)
        self.project_in = conv(latent_channels, widths[-1], **options)
        levels = []
        for n in reversed(range(self.finest, len(widths))):
            last = n == len(widths) - 1
            above = None if last else Upsample(widths[n + 1], widths[n], **resampling)
            parts = widths[n], depths[n], blocks[n], norms[n], activations[n]
            levels.append(Level(*parts, upsample=above, unroll=unroll, remat=remat, **options))
        self.levels = nnx.List(levels)
        self.out_norm = NORMS[out_norm](width)
        if self.finest:
            self.project_out = Upsample(width, 3, shortcut=False, **resampling)
        else:
            self.project_out = conv(width, 3, **options)

    def features(self, latents: jax.Array) -> dict[str, jax.Array]:
        """Maps "project_in", "stage_1" ... from coarse to fine, and "images"."""
        x = self.project_in(latents)
        if self.in_shortcut:
            x = x + duplicate(latents.astype(x.dtype), x.shape[-1])
        maps = {"project_in": x}
        for n, level in enumerate(self.levels, 1):
            maps[f"stage_{n}"] = x = level(x)
        images = self.project_out(jax.nn.relu(self.out_norm(x)))
        return maps | {"images": images.astype(jnp.float32)}

    def __call__(self, latents: jax.Array) -> jax.Array:
        return self.features(latents)["images"]


class AutoencoderDC(nnx.Module):
    """Encoder and decoder of a published `kind`, a key of `ENCODERS`; options go to both."""

    def __init__(self, kind: str, **options):
        self.encoder = Encoder(**ENCODERS[kind], **options)
        self.decoder = Decoder(**DECODERS[kind], **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images (B, H, W, 3) to their reconstructions."""
        return self.decoder(self.encoder(images))


def _finest(depths: tuple[int, ...]) -> int:
    """Index of the finest level with blocks. Raises ValueError if a later one has none."""
    finest = 0 if depths[0] else 1
    if not all(depths[finest:]):
        raise ValueError(f"only the finest level can be of depth 0, not {depths}")
    return finest
