"""The representation autoencoder (RAE, 2510.11690): features of DINOv2 as latents, and a ViT back.

arXiv 2602.10099; docs/systems/sphere_latent.md#frozen-tokenizer-rae and docs/systems/hae.md#rjf.
Sphere Latent Encoder and RJF generate its latents. The encoder is never trained.
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from jax.typing import DTypeLike

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray, Images, Latents
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, DataOptions, remat_option
from sphere_jax.models.dino import DINO
from sphere_jax.models.dino import KINDS as ENCODERS
from sphere_jax.models.imagenet import denormalize, normalize
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.models.rae_decoder import PATCH, SIZES, RAEDecoder
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.resize import bicubic
from sphere_jax.tokenizers.base import TokenizerOptions
from sphere_jax.tokenizers.from_files import FromFiles, given, statistics_file
from sphere_jax.weights.layouts import rae as layouts
from sphere_jax.weights.stored import WeightsFile

ENCODER = ENCODERS["dinov2_vitb14_reg"]
WHITENING_EPS = 1e-5  # added to the variance


@dataclasses.dataclass(frozen=True)
class RAEOptions(TokenizerOptions):
    """DINOv2-B tokens and a ViT decoder, frozen (arXiv 2510.11690;
    docs/systems/sphere_latent.md#frozen-tokenizer-rae)."""

    name: str = "rae"
    decoder: Literal["base", "large", "xlarge"] = option("xlarge", help="its size")
    whiten: bool = option(False, help="normalise by statistics of a data set")
    train_decoder: bool = option(False, help="a stage trains it: no file")
    pretrained_encoder: str = option("", file=True, help="weights, from sphere_jax.convert")
    pretrained_decoder: str = option(
        "", file=True, help="weights, from sphere_jax.convert; none with train_decoder"
    )
    pretrained_statistics: str = option("", file=True, help="of latents, from sphere_jax.convert")
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of products")
    remat: Remat = remat_option("of the decoder ")


@dataclasses.dataclass(frozen=True)
class RAE(FromFiles):
    """Its parameters are {"encoder", "decoder"}, and "statistics" if `whiten`.

    Without whitening every token has norm sqrt(d) up to rounding. With it, each number is
    normalised by its mean and variance over a data set, {"mean", "var"} of (h, w, d): the
    generators of the RAE paper see those latents, RJF those without.
    """

    encoder: Network
    decoder: Network
    encoder_size: int  # side of the images that the encoder sees
    whiten: bool
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    train_decoder: bool = False

    Options = RAEOptions
    last_layer: ClassVar = "output"
    whitens_positions: ClassVar = True
    not_of_latents: ClassVar = (
        *("compute_dtype", "remat", "decoder", "pretrained_decoder", "train_decoder"),
    )

    @classmethod
    def without_statistics(cls, options: RAEOptions) -> RAEOptions:
        check(
            options.pretrained_statistics == "",
            "config.tokenizer.pretrained_statistics must be empty to measure them.",
        )
        return dataclasses.replace(options, whiten=False, train_decoder=True)  # no decoder is read

    @classmethod
    def statistics_source(cls, data: DataOptions, options: RAEOptions) -> tuple[str, str]:
        return f"rae_statistics_{data.image_size}", options.pretrained_encoder

    @classmethod
    def trained_by_run(cls, options: RAEOptions) -> bool:
        return options.train_decoder

    @classmethod
    def check(cls, config: Config) -> None:
        options: RAEOptions = config.tokenizer
        check(
            options.pretrained_statistics == "" or options.whiten,
            "config.tokenizer.pretrained_statistics needs config.tokenizer.whiten=True, which "
            "normalises by them.",
        )
        check(
            not (options.train_decoder and options.pretrained_decoder),
            "config.tokenizer.train_decoder=True takes no pretrained_decoder: leave one out.",
        )
        super().check(config)

    @classmethod
    def build(cls, data: DataOptions, options: RAEOptions) -> "RAE":
        dtype = jnp.dtype(options.compute_dtype)
        try:
            return cls.of_size(
                data.image_size, options.decoder, options.whiten, dtype, options.train_decoder,
                options.remat,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"config.data.image_size: {error}.") from error

    @classmethod
    def of_size(
        cls,
        image_size: int = 256,
        decoder: str = "xlarge",
        whiten: bool = False,
        dtype: DTypeLike = jnp.float32,
        train_decoder: bool = False,
        remat: Remat = "none",
    ) -> "RAE":
        """DINOv2-B with registers and a decoder of `SIZES`; `dtype` is that of the products.

        With `train_decoder` no file gives the decoder. Published are decoders "xlarge" for 256 and
        for 512 pixels.

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
            decoder=Network(lambda rngs: RAEDecoder(*sizes, rngs=rngs, dtype=dtype, remat=remat)),
            encoder_size=side * ENCODER["patch"],
            whiten=whiten,
            train_decoder=train_decoder,
            latent_shape=(side, side, channels),
            image_shape=(image_size, image_size, 3),
        )

    @property
    def parts(self) -> tuple[str, ...]:
        return ("encoder", "decoder", "statistics") if self.whiten else ("encoder", "decoder")

    @property
    def statistics(self) -> Network | None:
        if not self.whiten:
            return None
        return Network(lambda rngs: LatentStatistics(self.latent_shape, "var", rngs=rngs))

    def shapes(self) -> Params:
        found = super().shapes()
        return {k: v for k, v in found.items() if k != "decoder" or not self.train_decoder}

    def files(self, options: RAEOptions) -> dict[str, WeightsFile]:
        side = self.image_shape[0]
        path, name = options.pretrained_encoder, "rae_encoder"
        encoder = WeightsFile(path, name, self.encoder, layouts.encoder_layouts, part="encoder")
        path, name = options.pretrained_decoder, f"rae_decoder_{options.decoder}_{side}"
        decoder = WeightsFile(path, name, self.decoder, layouts.layouts, part="decoder")
        found = {"encoder": given("pretrained_encoder", encoder)}
        if not self.train_decoder:
            found["decoder"] = given("pretrained_decoder", decoder)
        if self.statistics is not None:
            name, path = f"rae_statistics_{side}", options.pretrained_statistics
            found["statistics"] = statistics_file(path, name, self.statistics)
        return found

    def encode(self, params: Params, images: Images) -> Latents:
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

    def decode(self, params: Params, latents: Latents) -> Images:
        """Latents to float images about [-1, 1], not clipped: (B, H, W, 3) float32."""
        z = latents
        if self.whiten:
            mean, std = _statistics(params)
            z = z * std + mean
        x = self.decoder.apply(params["decoder"], z)
        return 2 * denormalize(x) - 1


def _statistics(params: Params) -> tuple[AnyArray, AnyArray]:
    """Mean and standard deviation of every number of a latent, (1, h, w, d) each."""
    mean, var = (params["statistics"][name][None] for name in ("mean", "var"))
    return mean, jnp.sqrt(var + WHITENING_EPS)


TOKENIZER = RAE
