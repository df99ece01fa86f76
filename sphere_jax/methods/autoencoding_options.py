"""Options of methods that train an autoencoder or its decoder, and which of them fit each other
(docs/systems/hae.md#autoencoder-training)."""

import dataclasses
from typing import Literal

from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, StageOptions
from sphere_jax.methods.decoder_training import check_losses

ON_DINO = ("dino", "dino_released")
WITH_GROUPS = ("dino_released", "patch_batch_norm")


@dataclasses.dataclass(frozen=True)
class AutoencodingOptions(StageOptions):
    """What these methods share; docs/systems/hae.md#autoencoder-training."""

    l1_weight: float = option(1.0, 0.0, help="of the absolute error of pixels")
    lpips: str = option("", file=True, help="LPIPS-VGG weights; '' leaves the term out")
    lpips_weight: float = option(1.0, 0.0, help="of LPIPS, where weights are given")
    latent_noise: float = option(
        0.0, 0.0, help="tau: noise sigma n on latents, sigma uniform in [0, tau]; 0 is off"
    )
    latent_noise_end: float = option(0.0, 0.0, help="tau at the end of its ramp; 0: no ramp")
    latent_noise_ramp: int = option(0, 0, help="steps of the ramp, linear, from the first")
    noise_per: Literal["sample", "batch"] = option("sample", help="what a sigma is drawn for")
    adversarial_weight: float = option(0.0, 0.0, help="0: no discriminator")
    discriminator: Literal["dino_released", "dino", "patch_batch_norm", "patch"] = option(
        "dino_released", help="released, or without state and batch statistics"
    )
    dino: str = option("", file=True, help="weights of DINO ViT-S/8, for the two on it")
    norm_group: int = option(
        1, 1, help="samples that share statistics in dino_released and patch_batch_norm"
    )
    discriminator_width: int = option(64, 4, help="of the first maps of the two patch ones")
    augment: bool = option(True, help="DiffAug before the discriminator: shifts and colours")
    adaptive: bool = option(
        True, help="balance both terms by their gradients in the decoder's last layer"
    )
    discriminator_rate: float = option(1.0, 0.0, help="its learning rate over the decoder's")
    discriminator_from: int = option(0, 0, help="step from which it learns")
    adversarial_from: int = option(0, 0, help="step from which it is in the decoder's loss")
    measured: int = option(
        0, 0, moves="nothing", help="held-out images, evenly spaced, measured at the end; 0: all"
    )

    @property
    def micro_multiple(self) -> int:
        return self.norm_group if self.adversarial_weight else 1


def check_options(config: Config, name: str) -> None:
    """Raises UserError for options of stage `name` that do not fit."""
    stage: AutoencodingOptions = config.stage(name)
    free, where = AutoencodingOptions(), f"config.{name}"
    adversarial = stage.adversarial_weight > 0
    names = ("dino", "discriminator_from", "adversarial_from", "discriminator_rate")
    unused = [n for n in names if vars(stage)[n] != vars(free)[n]]
    check(
        adversarial or not unused,
        f"{where}.adversarial_weight=0 has no discriminator: set it, or leave "
        f"{', '.join(unused)} out.",
    )
    check(
        not adversarial or stage.discriminator_from <= stage.adversarial_from < stage.steps,
        f"{where}: discriminator_from={stage.discriminator_from} and adversarial_from="
        f"{stage.adversarial_from} must rise and lie within its {stage.steps} steps.",
    )
    check(
        stage.dino == "" or stage.discriminator in ON_DINO,
        f"{where}.dino is for {where}.discriminator='dino_released' or 'dino'.",
    )
    check(
        stage.norm_group == 1 or stage.discriminator in WITH_GROUPS,
        f"{where}.norm_group is for {where}.discriminator='dino_released' or 'patch_batch_norm'.",
    )
    check(
        stage.norm_group > 1 or stage.discriminator != "patch_batch_norm" or not adversarial,
        f"{where}.discriminator='patch_batch_norm' needs the statistics of several samples: "
        f"set {where}.norm_group to 2 or more (that of the original: the whole batch).",
    )
    check(
        stage.discriminator_width == free.discriminator_width or stage.discriminator not in ON_DINO,
        f"{where}.discriminator_width is for {where}.discriminator='patch' or 'patch_batch_norm'.",
    )
    micro = stage.batch_size // stage.accumulate
    check(
        micro % stage.micro_multiple == 0,
        f"{where}: batch_size / accumulate = {micro} must be a multiple of norm_group="
        f"{stage.norm_group}, so that groups do not depend on micro-batches.",
    )
    ramp = (stage.latent_noise_end > 0) == (stage.latent_noise_ramp > 0)
    check(
        ramp and (stage.latent_noise > 0 or stage.latent_noise_end == 0),
        f"{where}: latent_noise_end and latent_noise_ramp go together, with latent_noise.",
    )
    check(
        stage.l1_weight > 0 or stage.lpips != "",
        f"{where} has no reconstruction loss: l1_weight or lpips must be on.",
    )
    check_losses(config, name, stage.adaptive)
