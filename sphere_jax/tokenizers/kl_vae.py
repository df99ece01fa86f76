"""The published VAEs of latent diffusion as tokenizers, normalised as their first users do.

arXiv 2605.15193; docs/systems/spherical_flow.md#tensors. FLUX.2 packs each 2x2 of latents into one
position of 4 d channels, of which its batch norm keeps mean and variance; the others shift and
scale all channels alike.
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Float

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray, Images, Latents
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.models.kl_vae import KINDS, AutoencoderKL, Decoder, Encoder
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.norms import per_channel
from sphere_jax.tokenizers.base import PosteriorOptions
from sphere_jax.tokenizers.from_files import PublishedVAE
from sphere_jax.weights.layouts import kl_vae as layouts
from sphere_jax.weights.stored import WeightsFile

# Latents are (mean - shift) * scale. REPA-E publishes its FLUX.1 VAE as a replacement of FLUX.1's;
# that it is normalised like it is inferred. What that leaves is normalised channel by channel where
# statistics are given (`whiten`), as VA-VAE's authors publish beside it.
SCALE_AND_SHIFT = {
    "sd": (0.18215, 0.0),
    "flux1": (0.3611, 0.1159),
    "repae_flux1": (0.3611, 0.1159),
    "vavae": (1.0, 0.0),
}
BATCH_NORM_EPS = 1e-4  # of FLUX.2, added to the variance
Packed = Float[AnyArray, "batch rows columns channels"]  # latents, packed or not


@dataclasses.dataclass(frozen=True)
class KLVAEOptions(PosteriorOptions):
    """A published VAE of latent diffusion, frozen (arXiv 2605.15193;
    docs/systems/spherical_flow.md#tensors)."""

    name: str = "kl_vae"
    kind: Literal["sd", "flux1", "repae_flux1", "flux2", "vavae"] = option(
        "sd", help="Stable Diffusion 1/2, FLUX.1, REPA-E's FLUX.1, FLUX.2, VA-VAE"
    )
    packed: bool = option(False, help="each 2x2 of latents is one position")
    pretrained: str = option("", file=True, help="weights, from sphere_jax.convert")
    pretrained_statistics: str = option(
        "", file=True, help="of latents: VA-VAE's, or from sphere_jax.prepare statistics"
    )
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of products")


def pack(z: Latents) -> Float[AnyArray, "batch h//2 w//2 4*d"]:
    """(B, 2 h, 2 w, d) -> (B, h, w, 4 d), ordered channel, row, column, as FLUX packs."""
    return rearrange(z, "b (h p) (w q) d -> b h w (d p q)", p=2, q=2)


def unpack(z: Latents) -> Float[AnyArray, "batch 2*h 2*w d//4"]:
    """Inverse of `pack`."""
    return rearrange(z, "b h w (d p q) -> b (h p) (w q) d", p=2, q=2)


@dataclasses.dataclass(frozen=True)
class KLVAE(PublishedVAE):
    """Its parameters are those of `AutoencoderKL`: {"encoder", "decoder"}, and "statistics" for
    FLUX.2, {"mean", "var"} of (4 d,), or with `whiten`, {"mean", "std"} of (d,).

    Image sides are multiples of `multiple`; they need not be those of `image_shape`.
    """

    encoder: Network
    decoder: Network
    kind: str
    packed: bool  # latents in the form of `pack`
    whiten: bool
    multiple: int
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    samples: bool = False

    Options = KLVAEOptions
    last_layer: ClassVar = "head"

    @classmethod
    def check(cls, config: Config) -> None:
        options: KLVAEOptions = config.tokenizer
        check(
            options.pretrained_statistics == "" or not _brings_statistics(options.kind),
            f"config.tokenizer.pretrained_statistics: kind='{options.kind}' has published ones.",
        )
        super().check(config)

    @classmethod
    def build(cls, data: DataOptions, options: KLVAEOptions) -> "KLVAE":
        dtype, whiten = jnp.dtype(options.compute_dtype), bool(options.pretrained_statistics)
        try:
            found = cls.of_kind(data.image_size, options.kind, options.packed, dtype, whiten)
        except ValueError as error:
            raise UserError(f"config.data.image_size: {error}.") from error
        return dataclasses.replace(found, samples=options.samples)

    @classmethod
    def of_kind(
        cls,
        image_size: int | tuple[int, int],
        kind: str,
        packed: bool = False,
        dtype: DTypeLike = jnp.float32,
        whiten: bool = False,
    ) -> "KLVAE":
        """`image_size` is a side or (height, width), `kind` a key of `KINDS`.

        `dtype` is that of the networks' products and activations.

        Raises:
          ValueError: there is no such kind, or the sides are not multiples of 8, of 16 for VA-VAE
            and FLUX.2, or of twice these with `packed`.
        """
        if kind not in KINDS:
            raise ValueError(f"kind of VAE must be one of {', '.join(KINDS)}, not {kind!r}")
        sizes = {name: size for name, size in KINDS[kind].items() if name != "statistics"}
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        factor = 2 ** (len(sizes["widths"]) - 1)
        multiple = 2 * factor if packed or _brings_statistics(kind) else factor
        _check_sides(kind, multiple, height, width)
        grid, d = (height // factor, width // factor), sizes["latent_channels"]
        return cls(
            encoder=Network(lambda rngs: Encoder(**sizes, rngs=rngs, dtype=dtype)),
            decoder=Network(lambda rngs: Decoder(**sizes, rngs=rngs, dtype=dtype)),
            kind=kind,
            packed=packed,
            whiten=whiten,
            multiple=multiple,
            latent_shape=(grid[0] // 2, grid[1] // 2, 4 * d) if packed else (*grid, d),
            image_shape=(height, width, 3),
        )

    @property
    def parts(self) -> tuple[str, ...]:
        normalised = self.whiten or _brings_statistics(self.kind)
        return ("encoder", "decoder", *(("statistics",) if normalised else ()))

    @property
    def statistics(self) -> Network | None:
        if _brings_statistics(self.kind):
            packed = (4 * self.channels(self.kind),)
            return Network(lambda rngs: LatentStatistics(packed, "var", rngs=rngs))
        return super().statistics

    @classmethod
    def channels(cls, kind: str) -> int:
        return KINDS[kind]["latent_channels"]

    @classmethod
    def packing(cls, options: KLVAEOptions) -> int:
        return 4 if options.packed else 1

    def autoencoder(self, path: str) -> WeightsFile:
        name = self.kind if self.kind == "vavae" else f"{self.kind}_vae"
        network = Network(lambda rngs: AutoencoderKL(**KINDS[self.kind], rngs=rngs))
        return WeightsFile(path, name, network, layouts.layouts)

    @classmethod
    def without_statistics(cls, options: KLVAEOptions) -> KLVAEOptions:
        check(
            not _brings_statistics(options.kind),
            f"config.tokenizer.kind='{options.kind}' has published statistics: no others can be "
            "measured for it.",
        )
        return dataclasses.replace(super().without_statistics(options), packed=False)

    def notes(self) -> list[str]:
        # LightningDiT normalises its channels (docs/systems/spherical_flow.md#tensors)
        if self.kind != "vavae" or self.whiten:
            return []
        return [
            "Latents are not normalised by channel, as VA-VAE's are published: "
            "config.tokenizer.pretrained_statistics is empty."
        ]

    def posterior(self, params: Params, images: Images) -> tuple[Latents, Latents]:
        """Mean and log variance, each (B, H / 8, W / 8, d) float32, neither normalised nor packed.

        Of float images (B, H, W, 3) in [-1, 1]; H / 16, W / 16 for VA-VAE. The log variance is
        clipped to [-30, 20].

        Raises:
          ValueError: the sides of the images are not multiples of `multiple`.
        """
        _check_sides(self.kind, self.multiple, *images.shape[1:3])
        moments = self.encoder.apply(params["encoder"], images)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def encode(self, params: Params, images: Images) -> Latents:
        """Float images in [-1, 1] to the normalised posterior mean, (B, *latent_shape) float32."""
        return self.normalize(params, self.posterior(params, images)[0])

    def moments(self, params: Params, images: Images) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the normalised posterior, (B, *latent_shape) each."""
        mean, log_variance = self.posterior(params, images)
        std = self._spread(params, jnp.exp(0.5 * log_variance))
        return self.normalize(params, mean), std

    def _spread(self, params: Params, std: Latents) -> Packed:
        """Deviations of the encoder's latents to those of normalised ones."""
        if self.kind in SCALE_AND_SHIFT:
            scale, _ = self._scale_and_shift(params)
            return pack(std * scale) if self.packed else std * scale
        std = pack(std) / _batch_norm(params)[1]
        return std if self.packed else unpack(std)

    def decode(self, params: Params, latents: Latents) -> Images:
        """Normalised latents to float images, not clipped: (B, H, W, 3) float32."""
        return self.decoder.apply(params["decoder"], self.denormalize(params, latents))

    def normalize(self, params: Params, z: Latents) -> Packed:
        """Latents of the encoder to those of other networks, packed if `packed`."""
        if self.kind in SCALE_AND_SHIFT:
            scale, shift = self._scale_and_shift(params)
            z = (z - shift) * scale
            return pack(z) if self.packed else z
        mean, std = _batch_norm(params)
        z = (pack(z) - mean) / std
        return z if self.packed else unpack(z)

    def denormalize(self, params: Params, z: Packed) -> Latents:
        """Inverse of `normalize`, up to rounding."""
        if self.kind in SCALE_AND_SHIFT:
            scale, shift = self._scale_and_shift(params)
            return (unpack(z) if self.packed else z) / scale + shift
        mean, std = _batch_norm(params)
        return unpack((z if self.packed else pack(z)) * std + mean)

    def _scale_and_shift(self, params: Params):
        scale, shift = SCALE_AND_SHIFT[self.kind]
        if not self.whiten:
            return scale, shift
        mean, std = (per_channel(params["statistics"][name], 4) for name in ("mean", "std"))
        return scale / std, shift + mean / scale


def _brings_statistics(kind: str) -> bool:
    """Whether statistics of latents are among the published weights."""
    return KINDS[kind].get("statistics", False)


def _check_sides(kind: str, multiple: int, height: int, width: int) -> None:
    if height % multiple or width % multiple:
        raise ValueError(
            f"the {kind} VAE needs image sides divisible by {multiple}, not {height}x{width}"
        )


def _batch_norm(params: Params) -> tuple[AnyArray, AnyArray]:
    """Mean and standard deviation of the packed channels, (1, 1, 1, 4 d) each."""
    mean, var = (params["statistics"][name].reshape((1, 1, 1, -1)) for name in ("mean", "var"))
    return mean, jnp.sqrt(var + BATCH_NORM_EPS)


TOKENIZER = KLVAE
