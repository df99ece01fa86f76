"""Sphere Encoder as a tokenizer: latents on the global sphere, images back from them.

methods.md E. Its encoder and decoder are conditioned on classes, with the null label by default.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Data, SphereEncoderTokenizer
from sphere_jax.geometry import sphere
from sphere_jax.models.sphere_encoder import SIZES, Decoder, Encoder
from sphere_jax.nn.functional import Network, Params


@dataclasses.dataclass(frozen=True)
class SphereEncoder:
    """Pure functions; their parameters are `{"encoder", "decoder"}`.

    Labels are (B,) int32 in [0, num_classes] or mixtures (B, num_classes + 1), None for the null
    label; `num_classes` is 0 where the networks take none.
    """

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int]  # (h, w, d)
    image_shape: tuple[int, int, int]  # (H, W, C)
    num_classes: int
    parts: ClassVar = ("encoder", "decoder")
    last_layer: ClassVar = "pixels"

    @classmethod
    def build(cls, data: Data, settings: SphereEncoderTokenizer) -> "SphereEncoder":
        """Raises UserError for sizes that do not fit each other."""
        image_shape = (data.image_size, data.image_size, data.channels)
        sizes = (settings.depth, settings.width, settings.heads)
        depth, width, heads = SIZES[settings.size] if settings.size else sizes
        classes = data.num_classes if settings.conditional else 0
        shared = (image_shape, settings.latent_channels, settings.patch, width, depth, heads)
        options = dict(
            mixer_depth=settings.mixer_depth,
            compute_dtype=jnp.dtype(settings.compute_dtype),
            unroll=settings.unroll,
            remat=settings.remat,
        )
        head = dict(pixel_head=settings.pixel_head)
        grid = data.image_size // settings.patch
        try:
            return cls(
                encoder=Network(lambda rngs: Encoder(*shared, classes, rngs=rngs, **options)),
                decoder=Network(
                    lambda rngs: Decoder(*shared, classes, rngs=rngs, **options, **head)
                ),
                latent_shape=(grid, grid, settings.latent_channels),
                image_shape=image_shape,
                num_classes=classes,
            )
        except ValueError as error:
            raise UserError(f"config.tokenizer: {error}.") from error

    def raw(self, params: Params, images: jax.Array, labels=None) -> jax.Array:
        """Float images to latents (B, h, w, d) before they are put on the sphere."""
        return self.encoder.apply(params["encoder"], images, self._labels(images, labels))

    def encode(self, params: Params, images: jax.Array, labels=None) -> jax.Array:
        """Float images to points of the global sphere (B, h, w, d), RMS 1."""
        return sphere.spherify(self.raw(params, images, labels))

    def decode(self, params: Params, latents: jax.Array, labels=None) -> jax.Array:
        """Points of the sphere to float images (B, H, W, C) in (-1, 1)."""
        return self.decoder.apply(params["decoder"], latents, self._labels(latents, labels))

    def _labels(self, like: jax.Array, labels) -> jax.Array | None:
        if self.num_classes == 0:
            return None
        return jnp.full(len(like), self.num_classes, jnp.int32) if labels is None else labels
