"""flow-sphere's spherical autoencoder as a tokenizer: latents on the global sphere, and images.

docs/systems/flow_sphere.md. Its decoder also returns the tokens that the refiner reads.
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Images, Labels, Latents, Tokens
from sphere_jax.config.option import option
from sphere_jax.config.options import DataOptions, remat_option
from sphere_jax.models.flow_sphere import Decoder, Encoder
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.remat import Remat
from sphere_jax.tokenizers.spherical import Spherical
from sphere_jax.tokenizers.trained import TrainedOptions


@dataclasses.dataclass(frozen=True)
class FlowSphereTokenizerOptions(TrainedOptions):
    """Trained by a 'flow_sphere' stage (docs/systems/flow_sphere.md#networks)."""

    name: str = "flow_sphere"
    width: int = option(128, 8, help="of tokens")
    depth: int = option(4, 1, help="layers of the encoder, and of the decoder")
    heads: int = option(4, 1, help="of attention")
    head_dim: int = option(32, 2, help="channels of a head; heads x head_dim may differ from width")
    hidden: int = option(256, 1, help="width of the feed-forward layers")
    patch: int = option(4, 1, help="pixels a token, along each side")
    latent_channels: int = option(8, 1, help="of a token")
    normalize: bool = option(True, help="batch norm of the latent, before it is put on the sphere")
    rope: Literal["1d", "2d"] = option(
        "2d", help="rotary positions, of the refiner too: along the raster, or by row and column"
    )
    conditional: bool = option(False, help="encoder and decoder take the class; the original's not")
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of products")
    remat: Remat = remat_option()
    unroll: bool = option(
        True, help="one program a layer (quick on CPU), or one scanned layer (quick to compile)"
    )


@dataclasses.dataclass(frozen=True)
class FlowSphere(Spherical):
    """Its parameters are {"encoder", "decoder", "statistics"}: the last are those of the batch norm
    over the training images, measured when the stage ends.

    Labels are (B,) int32 in [0, num_classes] or mixtures (B, num_classes + 1), None for the null
    label; `num_classes` is 0 where the networks take none.
    """

    encoder: Network
    decoder: Network
    options: FlowSphereTokenizerOptions
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    num_classes: int

    Options = FlowSphereTokenizerOptions
    parts: ClassVar = ("encoder", "decoder", "statistics")
    last_layer: ClassVar = "pixels"

    @classmethod
    def build(cls, data: DataOptions, options: FlowSphereTokenizerOptions) -> "FlowSphere":
        o, image_shape = options, (data.image_size, data.image_size, data.channels)
        classes = data.num_classes if o.conditional else 0
        sizes = (o.latent_channels, o.patch, o.width, o.depth, o.heads, o.head_dim, o.hidden)
        common = dict(
            rope=o.rope, compute_dtype=jnp.dtype(o.compute_dtype), unroll=o.unroll, remat=o.remat
        )
        norm = dict(normalize=o.normalize)
        grid = data.image_size // o.patch
        try:
            return cls(
                encoder=Network(
                    lambda rngs: Encoder(image_shape, *sizes, classes, rngs=rngs, **common, **norm)
                ),
                decoder=Network(
                    lambda rngs: Decoder(image_shape, *sizes, classes, rngs=rngs, **common)
                ),
                options=options,
                latent_shape=(grid, grid, o.latent_channels),
                image_shape=image_shape,
                num_classes=classes,
            )
        except ValueError as error:
            raise UserError(f"config.tokenizer: {error}.") from error

    @property
    def given(self) -> bool:
        return self.options.pretrained != ""

    @property
    def networks(self) -> dict[str, Network]:
        shape = self.latent_shape
        statistics = Network(lambda rngs: LatentStatistics(shape, "variance", rngs=rngs))
        return {"encoder": self.encoder, "decoder": self.decoder, "statistics": statistics}

    def raw(self, params: Params, images: Images, labels: Labels | None = None) -> Latents:
        """Float images to latents (B, h, w, d) before they are put on the sphere: normalised with
        `params["statistics"]`, or without it with the statistics of the batch, as in training."""
        labels = self._labels(images, labels)
        statistics = params.get("statistics")
        return self.encoder.apply(params["encoder"], images, labels, statistics)

    def before_norm(self, params: Params, images: Images) -> Latents:
        """Float images with the null label to latents before their batch norm: (B, h, w, d)."""
        encoder = self.encoder.bind(params["encoder"])
        return encoder.before_norm(images, self._labels(images, None))

    def decode(self, params: Params, latents: Latents, labels: Labels | None = None) -> Images:
        """Points of the sphere to float images (B, H, W, C), not clipped."""
        return self.decode_with_tokens(params, latents, labels)[0]

    def decode_with_tokens(
        self, params: Params, latents: Latents, labels: Labels | None = None
    ) -> tuple[Images, Tokens]:
        """Images, and the decoder's tokens (B, N, width) that they are made of."""
        return self.decoder.apply(params["decoder"], latents, self._labels(latents, labels))


TOKENIZER = FlowSphere
