"""LightningDiT, as used by HAE, RJF and RAE. arXiv 2601.22904; docs/systems/hae.md#network,
docs/systems/shared.md#blocks.

Without time it is also the network of B (models/denoiser.py).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from sphere_jax.config.option import option
from sphere_jax.config.options import NetworkOptions
from sphere_jax.models.latent_network import LatentNetwork, transformer
from sphere_jax.models.parameterization import Parameterization, parameterization_option
from sphere_jax.models.transformer import DiffusionTransformer, token_grid
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.functional import Network
from sphere_jax.nn.mlp import SwiGLU, swiglu_hidden
from sphere_jax.nn.norms import RMSNorm
from sphere_jax.nn.remat import Remat

SIZES = {  # depth, width, heads
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
    "1p0B": (24, 1536, 24),
    "1p6B": (28, 1792, 28),
}


@dataclasses.dataclass(frozen=True)
class LightningDiTOptions(NetworkOptions):
    """arXiv 2601.22904; docs/systems/hae.md#network."""

    name: str = "lightning_dit"
    size: Literal["", "S", "B", "L", "XL", "1p0B", "1p6B"] = option(
        "", help="a published size, or '' for width, depth and heads"
    )
    qk_norm: bool = option(False, help="RMSNorm of queries and keys")
    time_embedding: Literal["sinusoid", "fourier"] = option(
        "sinusoid", help="of the original, or of RAE, RJF and HAE"
    )
    parameterization: Parameterization = parameterization_option()


class LightningDiT(DiffusionTransformer):
    """Affine RMSNorm, 2-D RoPE, SwiGLU and optional QK-norm in place of SiT's choices.

    Called with z (B, h, w, d), t (B,) and labels (B,), it returns a float32 field (B, h, w, d).
    `time_embedding` is "sinusoid" (the original), "fourier" (RAE, RJF, HAE) or None (no time
    input). `gate_bias` puts biases on the first linear of SwiGLU. With `learn_sigma` the call
    returns the first half of the 2 d channels of the head.

    Raises:
        ValueError: if `patch` does not divide h and w, `heads` does not divide `width`, the head
            dimension is not divisible by 4 with `rope`, or `time_embedding` is unknown.
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
        qk_norm: bool = False,
        rope: bool = True,
        gate_bias: bool = True,
        time_embedding: str | None = "sinusoid",
        learn_sigma: bool = False,
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        super().__init__(
            latent_shape,
            patch,
            width,
            depth,
            num_classes,
            **lightning_layers(
                width,
                heads,
                token_grid(latent_shape, patch) if rope else None,
                mlp_ratio=mlp_ratio,
                qk_norm=qk_norm,
                gate_bias=gate_bias,
                dtype=compute_dtype,
            ),
            time_embedding=time_embedding,
            learn_sigma=learn_sigma,
            compute_dtype=compute_dtype,
            unroll=unroll,
            remat=remat,
            rngs=rngs,
        )


def lightning_layers(
    width: int,
    heads: int,
    rope_grid: tuple[int, int] | None,
    *,
    mlp_ratio: float,
    qk_norm: bool,
    gate_bias: bool,
    dtype: jnp.dtype,
) -> dict[str, Callable]:
    """The `norm`, `attention` and `mlp` of a `nn.transformer.Block` of LightningDiT."""
    hidden = swiglu_hidden(width, mlp_ratio)
    return dict(
        norm=partial(RMSNorm, width),
        attention=lambda rngs: Attention(
            width, heads, qk_norm=qk_norm, rope_grid=rope_grid, dtype=dtype, rngs=rngs
        ),
        mlp=lambda rngs: SwiGLU(width, hidden, gate_bias=gate_bias, dtype=dtype, rngs=rngs),
    )


def build(
    options: LightningDiTOptions, latent_shape: tuple[int, int, int], num_classes: int
) -> Network:
    """As `LatentNetwork.build`."""
    module = partial(LightningDiT, time_embedding=options.time_embedding, qk_norm=options.qk_norm)
    return transformer(module, SIZES, options, latent_shape, num_classes)


NETWORK = LatentNetwork(LightningDiTOptions, build)
