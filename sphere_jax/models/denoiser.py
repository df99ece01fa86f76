"""LightningDiT without a time input and with QK-norm: the network of B (arXiv 2605.15592, section
4.1; docs/systems/sphere_latent.md#denoiser)."""

import dataclasses
from functools import partial
from typing import Literal

from sphere_jax.config.option import option
from sphere_jax.config.options import NetworkOptions
from sphere_jax.models.latent_network import LatentNetwork, transformer
from sphere_jax.models.lightning_dit import SIZES, LightningDiT
from sphere_jax.nn.functional import Network


@dataclasses.dataclass(frozen=True)
class DenoiserOptions(NetworkOptions):
    """arXiv 2605.15592, section 4.1; docs/systems/sphere_latent.md#denoiser."""

    name: str = "denoiser"
    size: Literal["", "B", "L", "XL"] = option(
        "", help="a published size, or '' for width, depth and heads"
    )


def build(
    options: DenoiserOptions, latent_shape: tuple[int, int, int], num_classes: int
) -> Network:
    """As `LatentNetwork.build`."""
    module = partial(LightningDiT, time_embedding=None, qk_norm=True, gate_bias=False)
    return transformer(module, SIZES, options, latent_shape, num_classes)


NETWORK = LatentNetwork(DenoiserOptions, build, takes_time=False)
