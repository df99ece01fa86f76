"""RAE's decoder, trained on a frozen DINOv2 with registers (arXiv 2510.11690;
docs/systems/sphere_latent.md#decoder-training)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config
from sphere_jax.methods.autoencoding import Autoencoding
from sphere_jax.methods.autoencoding_options import AutoencodingOptions
from sphere_jax.tokenizers.rae import RAE


@dataclasses.dataclass(frozen=True)
class RAEDecoderOptions(AutoencodingOptions):
    """Defaults are published: `z + s n`, s = 0.8 U(0, 1) a sample, and 0.75 of an adaptive GAN."""

    method: str = "rae_decoder"
    latent_noise: float = option(0.8, 0.0, help="tau: noise sigma n, sigma uniform in [0, tau]")
    adversarial_weight: float = option(0.75, 0.0, help="0: no discriminator")


@dataclasses.dataclass(frozen=True)
class RAEDecoderTraining(Autoencoding):
    """Reconstruction of images from their noised features, the encoder frozen."""

    Options = RAEDecoderOptions
    trains_tokenizer = RAE.Options.name

    @classmethod
    def changes_latents(cls, options: Mapping[str, Any]) -> bool:
        return False

    @classmethod
    def title(cls, config: Config) -> str:
        return "RAE decoder"

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        super().check(config, name)
        check(
            config.tokenizer.train_decoder,
            f"config.{name} trains RAE's decoder: set config.tokenizer.train_decoder=True.",
        )


METHOD = RAEDecoderTraining
