"""The representation autoencoder (RAE, 2510.11690): features of DINOv2 as latents, and a ViT back.

methods.md B.3 and D.10. Sphere Latent Encoder and RJF generate its latents. The encoder is never
trained.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sphere_jax.models.dino import DINO
from sphere_jax.models.dino import KINDS as ENCODERS
from sphere_jax.models.imagenet import denormalize, normalize
from sphere_jax.models.rae_decoder import PATCH, SIZES, RAEDecoder
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.resize import bicubic

ENCODER = ENCODERS["dinov2_vitb14_reg"]
WHITENING_EPS = 1e-5  # added to the variance


@dataclasses.dataclass(frozen=True)
class RAE:
    """Pure functions; their parameters are `{"encoder", "decoder"}`, and "statistics" if `whiten`.

    Without whitening every token has norm sqrt(d) up to rounding. With it, each number is
    normalised by its own mean and variance over a data set, {"mean", "var"} of (h, w, d): the
    generators of the RAE paper see those latents, RJF those without.
    """

    encoder: Network
    decoder: Network
    encoder_size: int  # side of the images that the encoder sees
    whiten: bool
    latent_shape: tuple[int, int, int]  # (h, w, d)
    image_shape: tuple[int, int, int]  # (H, W, 3)
    last_layer: ClassVar = "output"

    @classmethod
    def build(
        cls,
        image_size: int = 256,
        decoder: str = "xlarge",
        whiten: bool = False,
        dtype: jnp.dtype = jnp.float32,
    ) -> "RAE":
        """DINOv2-B with registers and a decoder of `SIZES`; `dtype` is that of the products.

        Published are decoders "xlarge" for 256 and for 512 pixels.

        Raises:
          ValueError: another decoder, or a size that is not a positive multiple of 16.
        """
        if decoder not in SIZES:
            raise ValueError(f"a decoder of RAE is one of {', '.join(SIZES)}, not {decoder!r}")
        if image_size < PATCH or image_size % PATCH:
            raise ValueError(f"RAE needs a multiple of {PATCH} pixels, not {image_size}")
        side, channels = image_size // PATCH, ENCODER["width"]
        sizes = ((side, side), channels, *SIZES[decoder])
        return cls(
            encoder=Network(
                lambda rngs: DINO(**ENCODER, final_affine=False, rngs=rngs, dtype=dtype)
            ),
            decoder=Network(lambda rngs: RAEDecoder(*sizes, rngs=rngs, dtype=dtype)),
            encoder_size=side * ENCODER["patch"],
            whiten=whiten,
            latent_shape=(side, side, channels),
            image_shape=(image_size, image_size, 3),
        )

    @property
    def parts(self) -> tuple[str, ...]:
        return ("encoder", "decoder", "statistics") if self.whiten else ("encoder", "decoder")

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Float images (B, H, W, 3) in [-1, 1] to latents (B, h, w, d) float32.

        Images of any size are resized, without antialiasing, to what the encoder sees: 224 pixels
        where the decoder makes 256.
        """
        x = bicubic((images + 1) / 2, self.encoder_size, self.encoder_size)
        x = normalize(x)
        z = self.encoder.apply(params["encoder"], x).patches
        z = z.reshape(len(images), *self.latent_shape)
        if self.whiten:
            mean, std = _statistics(params)
            z = (z - mean) / std
        return z

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents to float images about [-1, 1], unclipped: (B, H, W, 3) float32."""
        z = latents
        if self.whiten:
            mean, std = _statistics(params)
            z = z * std + mean
        x = self.decoder.apply(params["decoder"], z)
        return 2 * denormalize(x) - 1


def _statistics(params: Params) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of every number of a latent, (1, h, w, d) each."""
    mean, var = (params["statistics"][name][None] for name in ("mean", "var"))
    return mean, jnp.sqrt(var + WHITENING_EPS)
