"""Shared by methods that train an autoencoder on the global sphere and decode any point of it."""

from collections.abc import Callable
from typing import ClassVar

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Images, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.options import Config
from sphere_jax.data.source import Split
from sphere_jax.methods.base import Drawn, Generator, MapOver, Params, Pictures
from sphere_jax.nn.pixels import Rounding, to_uint8
from sphere_jax.tokenizers.spherical import Spherical


class SphericalAutoencoder(Generator):
    """A generator of images whose networks take classes if its tokenizer's do. A subclass is a
    dataclass with a `tokenizer`, and options with `label_dropout` and the weights of `loss_parts`.
    system: its name in words."""

    system: ClassVar[str]

    tokenizer: Spherical

    @classmethod
    def title(cls, config: Config) -> str:
        return cls.system

    @classmethod
    def check_sampler(cls, config: Config) -> None:
        check(
            config.tokenizer.conditional or config.sampler.guidance == 1.0,
            "config.sampler.guidance needs classes, and config.tokenizer.conditional is False.",
        )

    @classmethod
    def has_null_label(cls, config: Config, name: str) -> bool:
        return config.stage(name).label_dropout > 0.0

    @property
    def conditional(self) -> bool:
        return self.tokenizer.num_classes > 0

    def training_data(self, split: Split, frozen: Params, map_over: MapOver) -> Split:
        if len(split.heldout) < 3:  # noise of Sphere Encoder is stratified over as many
            raise UserError(
                f"{len(split.heldout)} held-out images are too few to measure {self.system} on; "
                "hold out 3 or more."
            )
        return split

    def loss_parts(
        self,
        images: Images,
        low: Images,
        high: Images,
        latent: Scalar,
        pixels: Callable[[Images, Images], Scalar],
        perceptual: Callable[[Images, Images], Scalar] | None,
    ) -> dict[str, Scalar]:
        """The weighted terms of images, all (B, H, W, C), and of latents.

        Args:
          low, high: decoded from the latents of `images` under little noise and under much; `low`
            is compared with the images, `high` with `low` as a constant.
          latent: the distance of latents.
          pixels, perceptual: distances of images; None leaves the terms out.
        """
        s, target = self.options, jax.lax.stop_gradient(low)
        parts = {
            "reconstruction": s.reconstruction_weight * pixels(low, images),
            "consistency": s.consistency_weight * pixels(high, target),
            "latent": s.latent_weight * latent,
        }
        if perceptual is not None:
            parts |= {
                "reconstruction_perceptual": s.reconstruction_perceptual * perceptual(low, images),
                "consistency_perceptual": s.consistency_perceptual * perceptual(high, target),
            }
        return parts

    def images(
        self,
        params: Params,
        samples: Drawn,
        radius: Scalar = 0.0,
        rounding: Rounding = "nearest",
    ) -> Pictures:
        return to_uint8(samples, rounding)
