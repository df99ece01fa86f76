"""The tiny autoencoders TAESD, TAEF1 and TAEF2 as frozen tokenizers.

Their latents are scaled as a diffusion model sees them (scale factor 1). They are normalised per
channel where statistics of a data set are given.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sphere_jax.models.tiny_vae import FACTOR, KINDS, Decoder, Encoder
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.norms import per_channel


@dataclasses.dataclass(frozen=True)
class TinyVAE:
    """Pure functions; their parameters are `{"encoder", "decoder"}`, those of `models.TinyVAE`, and
    with `whiten` "statistics", {"mean", "std"} of (d,).
    """

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int]  # (h, w, d)
    image_shape: tuple[int, int, int]  # (H, W, 3)
    whiten: bool = False
    last_layer: ClassVar = "head"

    @classmethod
    def build(
        cls, image_size: int, kind: str, dtype: jnp.dtype = jnp.float32, whiten: bool = False
    ) -> "TinyVAE":
        """`kind` is one of `KINDS`, `dtype` that of the convolutions.

        Raises:
          ValueError: another kind, or a size that is not a positive multiple of 8.
        """
        if kind not in KINDS:
            raise ValueError(f"A tiny VAE is one of {', '.join(KINDS)}, not '{kind}'.")
        if image_size < FACTOR or image_size % FACTOR:
            raise ValueError(f"A tiny VAE needs a multiple of {FACTOR} pixels, not {image_size}.")
        channels, group_norm = KINDS[kind]
        grid = image_size // FACTOR
        return cls(
            encoder=Network(lambda rngs: Encoder(channels, group_norm, rngs=rngs, dtype=dtype)),
            decoder=Network(lambda rngs: Decoder(channels, group_norm, rngs=rngs, dtype=dtype)),
            latent_shape=(grid, grid, channels),
            image_shape=(image_size, image_size, 3),
            whiten=whiten,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        return ("encoder", "decoder", "statistics") if self.whiten else ("encoder", "decoder")

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Float images in [-1, 1] to latents (B, h, w, d) float32."""
        z = self.encoder.apply(params["encoder"], (images + 1) / 2)
        if not self.whiten:
            return z
        mean, std = _statistics(params)
        return (z - mean) / std

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents to float images about [-1, 1], unclipped: (B, H, W, 3) float32."""
        if self.whiten:
            mean, std = _statistics(params)
            latents = latents * std + mean
        return 2 * self.decoder.apply(params["decoder"], latents) - 1


def _statistics(params: Params) -> tuple[jax.Array, jax.Array]:
    return tuple(per_channel(params["statistics"][name], 4) for name in ("mean", "std"))
