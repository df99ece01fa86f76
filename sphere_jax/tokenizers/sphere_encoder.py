"""Sphere Encoder as a tokenizer: latents on the global sphere, images back from them.

arXiv 2602.15030; docs/systems/sphere_encoder.md. Its encoder and decoder are conditioned on
classes, with the null label by default.
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Images, Labels, Latents
from sphere_jax.config.option import option
from sphere_jax.config.options import DataOptions, remat_option
from sphere_jax.models.sphere_encoder import SIZES, Decoder, Encoder
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.remat import Remat
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.tokenizers.spherical import Spherical
from sphere_jax.tokenizers.trained import TrainedOptions


@dataclasses.dataclass(frozen=True)
class SphereEncoderTokenizerOptions(TrainedOptions):
    """Trained by a 'sphere_encoder' stage (arXiv 2602.15030;
    docs/systems/sphere_encoder.md#architecture)."""

    name: str = "sphere_encoder"
    size: Literal["", "small", "base", "large", "xlarge", "huge", "giant"] = option(
        "", help="a published size, or '' for width, depth and heads"
    )
    width: int = option(192, 8, help="channels of a token")
    depth: int = option(6, 1, help="blocks")
    heads: int = option(6, 1, help="of attention")
    patch: int = option(4, 1, help="pixels a token, along each side")
    latent_channels: int = option(8, 1, help="of a latent position")
    mixer_depth: int = option(4, 0, help="token and channel mixing layers next to the sphere")
    pixel_head: Literal["linear", "conv"] = option("linear", help="last layer of the decoder")
    conditional: bool = option(True, help="classes modulate encoder and decoder")
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of products")
    remat: Remat = remat_option()
    unroll: bool = option(
        True, help="one program a layer (quick on CPU), or one scanned layer (quick to compile)"
    )


@dataclasses.dataclass(frozen=True)
class SphereEncoder(Spherical):
    """Its parameters are {"encoder", "decoder"}.

    Labels are (B,) int32 in [0, num_classes] or mixtures (B, num_classes + 1), None for the null
    label; `num_classes` is 0 where the networks take none.
    """

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    num_classes: int
    given: bool = False

    Options = SphereEncoderTokenizerOptions
    parts: ClassVar = ("encoder", "decoder")
    not_of_latents: ClassVar = (*Tokenizer.not_of_latents, "pixel_head")
    last_layer: ClassVar = "pixels"

    @classmethod
    def build(cls, data: DataOptions, options: SphereEncoderTokenizerOptions) -> "SphereEncoder":
        image_shape = (data.image_size, data.image_size, data.channels)
        free = (options.depth, options.width, options.heads)
        depth, width, heads = SIZES[options.size] if options.size else free
        classes = data.num_classes if options.conditional else 0
        shared = (image_shape, options.latent_channels, options.patch, width, depth, heads)
        common = dict(
            mixer_depth=options.mixer_depth,
            compute_dtype=jnp.dtype(options.compute_dtype),
            unroll=options.unroll,
            remat=options.remat,
        )
        head = dict(pixel_head=options.pixel_head)
        grid = data.image_size // options.patch
        try:
            return cls(
                encoder=Network(lambda rngs: Encoder(*shared, classes, rngs=rngs, **common)),
                decoder=Network(
                    lambda rngs: Decoder(*shared, classes, rngs=rngs, **common, **head)
                ),
                latent_shape=(grid, grid, options.latent_channels),
                image_shape=image_shape,
                num_classes=classes,
                given=options.pretrained != "",
            )
        except ValueError as error:
            raise UserError(f"config.tokenizer: {error}.") from error

    @property
    def networks(self) -> dict[str, Network]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    def raw(self, params: Params, images: Images, labels: Labels | None = None) -> Latents:
        """Float images to latents (B, h, w, d) before they are put on the sphere."""
        return self.encoder.apply(params["encoder"], images, self._labels(images, labels))

    def decode(self, params: Params, latents: Latents, labels: Labels | None = None) -> Images:
        """Points of the sphere to float images (B, H, W, C) in (-1, 1)."""
        return self.decoder.apply(params["decoder"], latents, self._labels(latents, labels))


TOKENIZER = SphereEncoder
