"""SiT: the transformer of DiT, as used by A (spherical flow matching). arXiv 2605.15193;
docs/systems/spherical_flow.md#network, docs/systems/shared.md#blocks.

DiT has the same modules and names: it is the same network, fed with other times and trained to
predict the noise (`models/parameterization.py`). Published weights of both have `learn_sigma`.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from sphere_jax.config.option import option
from sphere_jax.config.options import NetworkOptions
from sphere_jax.models.latent_network import LatentNetwork, transformer
from sphere_jax.models.parameterization import Parameterization, parameterization_option
from sphere_jax.models.transformer import DiffusionTransformer
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.functional import Network
from sphere_jax.nn.mlp import MLP
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.remat import Remat

SIZES = {  # depth, width, heads
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


@dataclasses.dataclass(frozen=True)
class SiTOptions(NetworkOptions):
    """SiT and DiT (arXiv 2605.15193; docs/systems/spherical_flow.md#network)."""

    name: str = "sit"
    size: Literal["", "S", "B", "L", "XL"] = option(
        "", help="a published size, or '' for width, depth and heads"
    )
    learn_sigma: bool = option(
        False, help="twice the output channels, half of them unused, as published"
    )
    parameterization: Parameterization = parameterization_option()


class SiT(DiffusionTransformer):
    """LayerNorm without affine, GELU feed-forward, adaLN-Zero from sinusoidal time and label.

    Called with z (B, h, w, d), t (B,) and labels (B,), it returns a float32 field (B, h, w, d);
    with `learn_sigma` the first half of the 2 d channels of its head.

    Raises:
        ValueError: if `patch` does not divide h and w, `heads` does not divide `width`, or `width`
            is not divisible by 4.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        mlp_ratio: float = 4,
        learn_sigma: bool = False,
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        hidden = int(mlp_ratio * width)
        super().__init__(
            latent_shape,
            patch,
            width,
            depth,
            num_classes,
            norm=partial(LayerNorm, width, affine=False),
            attention=lambda rngs: Attention(width, heads, dtype=compute_dtype, rngs=rngs),
            mlp=lambda rngs: MLP(width, hidden, dtype=compute_dtype, rngs=rngs),
            time_embedding="sinusoid",
            learn_sigma=learn_sigma,
            compute_dtype=compute_dtype,
            unroll=unroll,
            remat=remat,
            rngs=rngs,
        )


def build(options: SiTOptions, latent_shape: tuple[int, int, int], num_classes: int) -> Network:
    """As `LatentNetwork.build`."""
    module = partial(SiT, learn_sigma=options.learn_sigma)
    return transformer(module, SIZES, options, latent_shape, num_classes)


NETWORK = LatentNetwork(SiTOptions, build)
