"""The tiny autoencoders TAESD, TAEF1 and TAEF2 as frozen tokenizers.

Their latents are scaled as a diffusion model sees them (scale factor 1), so nothing is normalised.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sphere_jax.models.tiny_vae import FACTOR, KINDS, Decoder, Encoder
from sphere_jax.nn.functional import Network, Params


@dataclasses.dataclass(frozen=True)
class TinyVAE:
    """Pure functions; their parameters are `{"encoder", "decoder"}`, those of `models.TinyVAE`."""

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int]  # (h, w, d)
    image_shape: tuple[int, int, int]  # (H, W, 3)
    parts: ClassVar = ("encoder", "decoder")

    @classmethod
    def build(cls, image_size: int, kind: str, dtype: jnp.dtype = jnp.float32) -> "TinyVAE":
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
        )

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Float images in [-1, 1] to latents (B, h, w, d) float32."""
        return self.encoder.apply(params["encoder"], (images + 1) / 2)

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents to float images about [-1, 1], unclipped: (B, H, W, 3) float32."""
        return 2 * self.decoder.apply(params["decoder"], latents) - 1
