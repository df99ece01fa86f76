"""Shared by methods that train an autoencoder on the global sphere and decode any point of it."""

from typing import ClassVar

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.options import Config
from sphere_jax.data.source import Split
from sphere_jax.methods.base import Drawn, Generator, MapOver, Params, Pictures
from sphere_jax.nn.pixels import Rounding, to_uint8
from sphere_jax.tokenizers.spherical import Spherical


class SphericalAutoencoder(Generator):
    """A generator of images whose networks take classes if its tokenizer's do. A subclass is a
    dataclass with a `tokenizer`, and options with `label_dropout`. system: its name in words."""

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

    def images(
        self,
        params: Params,
        samples: Drawn,
        radius: Scalar = 0.0,
        rounding: Rounding = "nearest",
    ) -> Pictures:
        return to_uint8(samples, rounding)
