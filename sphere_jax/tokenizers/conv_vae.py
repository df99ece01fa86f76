"""The small convolutional VAE as a tokenizer.

Latents are normalised per channel with statistics of the training set *before* any projection on a
sphere, and `decode` maps back through the inverse affine (methods.md A.10).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sphere_jax.config.options import ConvVAETokenizer, Data
from sphere_jax.models.conv_vae import Decoder, Encoder
from sphere_jax.nn.functional import Network, Params


@dataclasses.dataclass(frozen=True)
class ConvVAE:
    """Pure functions; their parameters are `{"encoder", "decoder", "statistics"}`."""

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int]  # (h, w, d)
    image_shape: tuple[int, int, int]  # (H, W, C)
    parts: ClassVar = ("encoder", "decoder", "statistics")
    last_layer: ClassVar = "head"

    @classmethod
    def build(cls, data: Data, settings: ConvVAETokenizer) -> "ConvVAE":
        sizes = dict(patch=settings.patch, widths=settings.widths, blocks=settings.blocks)
        channels, d = data.channels, settings.latent_channels
        grid = data.image_size // (settings.patch * 2 ** (len(settings.widths) - 1))
        return cls(
            encoder=Network(lambda rngs: Encoder(channels, d, **sizes, rngs=rngs)),
            decoder=Network(lambda rngs: Decoder(channels, d, **sizes, rngs=rngs)),
            latent_shape=(grid, grid, d),
            image_shape=(data.image_size, data.image_size, channels),
        )

    def posterior(self, encoder: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance, each (B, h, w, d), of float images in [-1, 1]."""
        moments = self.encoder.apply(encoder, images).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Float images to the posterior mean, normalised per channel: (B, h, w, d) float32."""
        mean, _ = self.posterior(params["encoder"], images)
        return (mean - _channels(params, "mean")) / _channels(params, "std")

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Normalised latents to float images, unclipped: (B, H, W, C) float32."""
        z = latents * _channels(params, "std") + _channels(params, "mean")
        return self.decoder.apply(params["decoder"], z).astype(jnp.float32)


def _channels(params: Params, name: str) -> jax.Array:
    return params["statistics"][name].reshape((1, 1, 1, -1))
