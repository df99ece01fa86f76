"""Tokenizers: images to latents and back."""

import dataclasses
from typing import Literal

from sphere_jax.config.options.option import option


@dataclasses.dataclass(frozen=True)
class ConvVAETokenizer:
    name: Literal["conv_vae"] = "conv_vae"
    patch: int = option(2, 1)  # pixels folded into channels before the first level
    widths: tuple[int, ...] = (32, 64, 128)  # one level each, halving the grid between levels
    blocks: int = option(1, 1)  # residual blocks per level
    latent_channels: int = option(16, 2)


@dataclasses.dataclass(frozen=True)
class PrecomputedTokenizer:
    name: Literal["precomputed"] = "precomputed"
    latent_shape: tuple[int, ...] = ()  # (h, w, d) of the stored latents


@dataclasses.dataclass(frozen=True)
class SphereEncoderTokenizer:
    """methods.md E.3; `size` names a published one, or "" for width, depth and heads."""

    name: Literal["sphere_encoder"] = "sphere_encoder"
    size: Literal["", "small", "base", "large", "xlarge", "huge", "giant"] = ""
    width: int = option(192, 8)
    depth: int = option(6, 1)
    heads: int = option(6, 1)
    patch: int = option(4, 1)
    latent_channels: int = option(8, 1)
    mixer_depth: int = option(4, 0)  # token and channel mixing layers beside the sphere
    pixel_head: Literal["linear", "conv"] = "linear"
    conditional: bool = True  # classes modulate encoder and decoder
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    unroll: bool = True


@dataclasses.dataclass(frozen=True)
class KLVAETokenizer:
    """A published VAE of latent diffusion, frozen (methods.md A.2)."""

    name: Literal["kl_vae"] = "kl_vae"
    kind: Literal["sd", "flux1", "repae_flux1", "flux2", "vavae"] = "sd"
    packed: bool = False  # each 2x2 of latents as one position
    pretrained: str = ""  # weights: what sphere_jax.convert wrote
    pretrained_statistics: str = ""  # of latents: VA-VAE's, or sphere_jax.prepare statistics
    compute_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class TinyVAETokenizer:
    """A tiny autoencoder for the latents of a large one, frozen."""

    name: Literal["tiny_vae"] = "tiny_vae"
    kind: Literal["taesd", "taef1", "taef2"] = "taef2"
    pretrained: str = ""
    pretrained_statistics: str = ""  # of latents: what sphere_jax.prepare statistics wrote
    compute_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class RAETokenizer:
    """DINOv2-B tokens and a ViT decoder, frozen (methods.md B.3)."""

    name: Literal["rae"] = "rae"
    decoder: Literal["base", "large", "xlarge"] = "xlarge"
    whiten: bool = False  # by statistics of a data set
    pretrained_encoder: str = ""
    pretrained_decoder: str = ""
    pretrained_statistics: str = ""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"


Tokenizer = (
    ConvVAETokenizer
    | PrecomputedTokenizer
    | SphereEncoderTokenizer
    | KLVAETokenizer
    | TinyVAETokenizer
    | RAETokenizer
)
