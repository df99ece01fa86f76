"""The small convolutional VAE as a tokenizer.

Latents are normalised per channel with statistics of the training set *before* any projection on a
sphere, and `decode` maps back through the inverse affine (arXiv 2605.15193;
docs/systems/spherical_flow.md#pitfalls).
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from sphere_jax.common.shapes import AnyArray, Images, Latents
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.models.conv_vae import Decoder, Encoder
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.nn.functional import Network, Params
from sphere_jax.tokenizers.base import PosteriorOptions
from sphere_jax.tokenizers.trained import Trained, TrainedOptions


@dataclasses.dataclass(frozen=True)
class ConvVAEOptions(TrainedOptions, PosteriorOptions):
    """Trained by a 'vae' stage."""

    compute_dtype: ClassVar[str] = "float32"  # no option here

    name: str = "conv_vae"
    patch: int = option(2, 1, help="pixels folded into channels before the first level")
    widths: tuple[int, ...] = option(
        (32, 64, 128), help="one level each; the grid is halved between levels"
    )
    blocks: int = option(1, 1, help="residual blocks a level")
    latent_channels: int = option(16, 2, help="of a latent position")

    @property
    def downsampling(self) -> int:
        """Pixels a latent position, along each side."""
        return self.patch * 2 ** (len(self.widths) - 1)


@dataclasses.dataclass(frozen=True)
class ConvVAE(Trained):
    """Its parameters are {"encoder", "decoder", "statistics"}."""

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    samples: bool = False
    given: bool = False

    Options = ConvVAEOptions
    parts: ClassVar = ("encoder", "decoder", "statistics")
    last_layer: ClassVar = "head"

    @classmethod
    def check(cls, config: Config) -> None:
        options: ConvVAEOptions = config.tokenizer
        check(
            len(options.widths) > 0 and min(options.widths) > 0,
            f"config.tokenizer.widths={options.widths} must hold positive widths.",
        )
        check(
            config.data.image_size % options.downsampling == 0,
            f"config.data.image_size={config.data.image_size} must be a multiple of "
            f"{options.downsampling}, the tokenizer's downsampling.",
        )

    @classmethod
    def build(cls, data: DataOptions, options: ConvVAEOptions) -> "ConvVAE":
        sizes = dict(patch=options.patch, widths=options.widths, blocks=options.blocks)
        channels, d = data.channels, options.latent_channels
        grid = data.image_size // options.downsampling
        return cls(
            encoder=Network(lambda rngs: Encoder(channels, d, **sizes, rngs=rngs)),
            decoder=Network(lambda rngs: Decoder(channels, d, **sizes, rngs=rngs)),
            latent_shape=(grid, grid, d),
            image_shape=(data.image_size, data.image_size, channels),
            samples=options.samples,
            given=options.pretrained != "",
        )

    @property
    def networks(self) -> dict[str, Network]:
        channels = self.latent_shape[-1:]
        statistics = Network(lambda rngs: LatentStatistics(channels, "std", rngs=rngs))
        return {"encoder": self.encoder, "decoder": self.decoder, "statistics": statistics}

    def posterior(self, encoder: Params, images: Images) -> tuple[Latents, Latents]:
        """Mean and log variance, each (B, h, w, d), of float images in [-1, 1]."""
        moments = self.encoder.apply(encoder, images).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def encode(self, params: Params, images: Images) -> Latents:
        """Float images to the posterior mean, normalised per channel: (B, h, w, d) float32."""
        mean, _ = self.posterior(params["encoder"], images)
        return (mean - _channels(params, "mean")) / _channels(params, "std")

    def moments(self, params: Params, images: Images) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the normalised posterior, (B, h, w, d) float32 each."""
        mean, log_variance = self.posterior(params["encoder"], images)
        std = _channels(params, "std")
        return (mean - _channels(params, "mean")) / std, jnp.exp(0.5 * log_variance) / std

    def decode(self, params: Params, latents: Latents) -> Images:
        """Normalised latents to float images, not clipped: (B, H, W, C) float32."""
        z = latents * _channels(params, "std") + _channels(params, "mean")
        return self.decoder.apply(params["decoder"], z).astype(jnp.float32)


def _channels(params: Params, name: str) -> AnyArray:
    return params["statistics"][name].reshape((1, 1, 1, -1))


TOKENIZER = ConvVAE
