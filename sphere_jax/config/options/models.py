"""The space of latents, and the network on them."""

import dataclasses
from typing import Literal

from sphere_jax.config.options.option import option

RAW_PATHS = ("linear", "polar")  # on latents as they are, whatever the sphere


@dataclasses.dataclass(frozen=True)
class Space:
    path: Literal["linear", "polar", "data_projected", "shell_linear", "nlerp", "slerp"] = "slerp"
    sphere: Literal["token", "global"] = "token"
    radius: float = option(0.0, 0.0)  # 0 means sqrt(d) on the token sphere
    retraction: Literal["exp", "renormalize"] = "exp"


@dataclasses.dataclass(frozen=True)
class Transformer:
    """What every network on latents has."""

    width: int = option(192, 8)
    depth: int = option(6, 1)
    heads: int = option(6, 1)
    patch: int = option(1, 1)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False  # recompute blocks in the backward pass
    # One program per layer (quick on CPU) or one scanned layer (quick to compile).
    unroll: bool = True


# What a network is trained to say: a velocity on our clock, or as published.
Clock = Literal["noise_at_one", "data_at_one", "noise_prediction", "unit_sphere"]


@dataclasses.dataclass(frozen=True)
class SiTModel(Transformer):
    """SiT and DiT (methods.md A.6)."""

    name: Literal["sit"] = "sit"
    size: Literal["", "S", "B", "L", "XL"] = ""  # a published size, or "" for width, depth, heads
    learn_sigma: bool = False  # a head of twice the channels, half unused: as published
    clock: Clock = "noise_at_one"


@dataclasses.dataclass(frozen=True)
class LightningDiTModel(Transformer):
    """methods.md D.6."""

    name: Literal["lightning_dit"] = "lightning_dit"
    size: Literal["", "S", "B", "L", "XL", "1p0B", "1p6B"] = ""
    qk_norm: bool = False
    time_embedding: Literal["sinusoid", "fourier"] = "sinusoid"
    clock: Clock = "noise_at_one"


@dataclasses.dataclass(frozen=True)
class LightningDDTModel(Transformer):
    """The DiT-DH of RAE: a LightningDiT and a shallow wide head (methods.md D.8)."""

    name: Literal["lightning_ddt"] = "lightning_ddt"
    size: Literal["", "S", "B", "L", "XL"] = ""
    head_width: int = option(2048, 8)
    head_depth: int = option(2, 1)
    head_heads: int = option(16, 1)
    qk_norm: bool = False


@dataclasses.dataclass(frozen=True)
class DenoiserModel(Transformer):
    """LightningDiT without a time input and with QK-norm: the network of B (methods.md B.4)."""

    name: Literal["denoiser"] = "denoiser"
    size: Literal["", "B", "L", "XL"] = ""


Model = SiTModel | LightningDiTModel | LightningDDTModel | DenoiserModel
