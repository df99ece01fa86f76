"""The tiny autoencoders TAESD, TAEF1 and TAEF2 as frozen tokenizers.

Their latents are scaled as a diffusion model sees them (scale factor 1). They are normalised per
channel where statistics of a data set are given.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jax.typing import DTypeLike

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray, Images, Latents
from sphere_jax.config.option import option
from sphere_jax.config.options import DataOptions
from sphere_jax.models import tiny_vae as models
from sphere_jax.models.tiny_vae import FACTOR, KINDS, Decoder, Encoder
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.norms import per_channel
from sphere_jax.tokenizers.base import TokenizerOptions
from sphere_jax.tokenizers.from_files import PublishedVAE
from sphere_jax.weights.layouts import tiny_vae as layouts
from sphere_jax.weights.stored import WeightsFile


@dataclasses.dataclass(frozen=True)
class TinyVAEOptions(TokenizerOptions):
    """A tiny autoencoder for the latents of a large one, frozen."""

    name: str = "tiny_vae"
    kind: Literal["taesd", "taef1", "taef2"] = option(
        "taef2", help="for latents of Stable Diffusion, FLUX.1 or FLUX.2"
    )
    pretrained: str = option("", file=True, help="weights, from sphere_jax.convert")
    pretrained_statistics: str = option(
        "", file=True, help="of latents, from sphere_jax.prepare statistics; '': not normalised"
    )
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of convolutions")


@dataclasses.dataclass(frozen=True)
class TinyVAE(PublishedVAE):
    """Its parameters are {"encoder", "decoder"}, those of `models.TinyVAE`, and with `whiten`
    "statistics", {"mean", "std"} of (d,).
    """

    encoder: Network
    decoder: Network
    kind: str
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    whiten: bool = False

    Options = TinyVAEOptions
    last_layer: ClassVar = "head"

    @classmethod
    def build(cls, data: DataOptions, options: TinyVAEOptions) -> "TinyVAE":
        dtype, whiten = jnp.dtype(options.compute_dtype), bool(options.pretrained_statistics)
        try:
            return cls.of_kind(data.image_size, options.kind, dtype, whiten)
        except ValueError as error:
            raise UserError(f"config.data.image_size: {error}.") from error

    @classmethod
    def of_kind(
        cls, image_size: int, kind: str, dtype: DTypeLike = jnp.float32, whiten: bool = False
    ) -> "TinyVAE":
        """`kind` is one of `KINDS`, `dtype` that of the convolutions.

        Raises:
          ValueError: another kind, or a size that is not a positive multiple of 8.
        """
        if kind not in KINDS:
            raise ValueError(f"a tiny VAE is one of {', '.join(KINDS)}, not '{kind}'")
        if image_size < FACTOR or image_size % FACTOR:
            raise ValueError(f"a tiny VAE needs a multiple of {FACTOR} pixels, not {image_size}")
        channels, group_norm = KINDS[kind]
        grid = image_size // FACTOR
        return cls(
            encoder=Network(lambda rngs: Encoder(channels, group_norm, rngs=rngs, dtype=dtype)),
            decoder=Network(lambda rngs: Decoder(channels, group_norm, rngs=rngs, dtype=dtype)),
            kind=kind,
            latent_shape=(grid, grid, channels),
            image_shape=(image_size, image_size, 3),
            whiten=whiten,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        return ("encoder", "decoder", "statistics") if self.whiten else ("encoder", "decoder")

    @classmethod
    def channels(cls, kind: str) -> int:
        return KINDS[kind].latent_channels

    def autoencoder(self, path: str) -> WeightsFile:
        network = Network(lambda rngs: models.TinyVAE(*KINDS[self.kind], rngs=rngs))
        return WeightsFile(path, self.kind, network, layouts.layouts)

    @classmethod
    def latents_made_with(cls, data: DataOptions, options: TinyVAEOptions) -> dict[str, Any]:
        found, key = super().latents_made_with(data, options), "pretrained_statistics"
        if not options.pretrained_statistics:  # caches from before this option do not name it
            del found[f"config.tokenizer.{key} fingerprint"]
        return found

    def encode(self, params: Params, images: Images) -> Latents:
        """Float images in [-1, 1] to latents (B, h, w, d) float32."""
        z = self.encoder.apply(params["encoder"], (images + 1) / 2)
        if not self.whiten:
            return z
        mean, std = _statistics(params)
        return (z - mean) / std

    def decode(self, params: Params, latents: Latents) -> Images:
        """Latents to float images about [-1, 1], not clipped: (B, H, W, 3) float32."""
        if self.whiten:
            mean, std = _statistics(params)
            latents = latents * std + mean
        return 2 * self.decoder.apply(params["decoder"], latents) - 1


def _statistics(params: Params) -> tuple[AnyArray, ...]:
    return tuple(per_channel(params["statistics"][name], 4) for name in ("mean", "std"))


TOKENIZER = TinyVAE
