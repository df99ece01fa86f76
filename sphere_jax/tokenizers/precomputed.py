"""Latents that another program encoded and will decode."""

import dataclasses
from typing import ClassVar

from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.tokenizers.base import Tokenizer, TokenizerOptions


@dataclasses.dataclass(frozen=True)
class PrecomputedOptions(TokenizerOptions):
    name: str = "precomputed"
    latent_shape: tuple[int, ...] = option((), help="(h, w, d) of the stored latents")


@dataclasses.dataclass(frozen=True)
class Precomputed(Tokenizer):
    """Neither images nor weights. Samples are latents, written as `.npz`."""

    latent_shape: tuple[int, int, int]

    Options = PrecomputedOptions
    decodes = False
    image_shape: ClassVar = None

    @classmethod
    def check(cls, config: Config) -> None:
        shape = config.tokenizer.latent_shape
        check(
            len(shape) == 3 and min(shape) > 0,
            "config.tokenizer.latent_shape must be (h, w, d) for precomputed latents.",
        )

    @classmethod
    def build(cls, data: DataOptions, options: PrecomputedOptions) -> "Precomputed":
        return cls(tuple(options.latent_shape))


TOKENIZER = Precomputed
