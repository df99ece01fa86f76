"""Weights of the representation autoencoder: decoder and encoder. arXiv 2510.11690;
docs/systems/sphere_latent.md#frozen-tokenizer-rae.

The authors publish the decoder and statistics of latents (`latent_statistics.py`); the encoder is
Meta's DINOv2. diffusers has all three in one file.
"""

import re

import numpy as np

from sphere_jax.nn.embeddings import sincos_positions
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts import dino
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    Turn,
    linear_kernel,
    stack,
    torch_layer,
    torch_norm,
)

# What the authors, and diffusers, call query, key, value and projection of a block.
AUTHORS = (
    *("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attention.output.dense",
)
DIFFUSERS = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
# What else is in the file of a whole autoencoder.
CONSTANTS = r"encoder_mean|encoder_std|_latents_mean|_latents_std"

cls_token = Turn(lambda x: x.reshape(x.shape[-1]), lambda x: x.reshape(1, 1, -1))


def layouts(network: Network) -> list[Layout]:
    """Of a `RAEDecoder`: the authors' file of the decoder, their whole autoencoder, diffusers' one.

    The authors' names are "decoder_embed.weight", "decoder_layers.0.layernorm_before.weight" ...,
    prefixed by "decoder." in the whole autoencoder.
    """
    return [
        _layout("RAE", network, "", AUTHORS),
        _layout("RAE (whole autoencoder)", network, "decoder.", AUTHORS),
        _layout("diffusers", network, "decoder.", DIFFUSERS),
    ]


def encoder_layouts(network: Network) -> list[Layout]:
    """Of the `DINO` that encodes: those of `conversion.dino`, or prefixed by "encoder."."""
    found = dino.layouts(network)
    return found + [_within(layout, "encoder.", rf"decoder\..*|{CONSTANTS}") for layout in found]


def _layout(name: str, network: Network, prefix: str, attention: tuple[str, ...]) -> Layout:
    module = network.module
    leaves = torch_layer("embed", f"{prefix}decoder_embed", linear_kernel)
    leaves["cls"] = Source(f"{prefix}trainable_cls_token", cls_token)
    leaves |= stack([_block(f"{prefix}decoder_layers.{n}", attention) for n in range(module.depth)])
    leaves |= torch_norm("norm", f"{prefix}decoder_norm")
    leaves |= torch_layer("output", f"{prefix}decoder_pred", linear_kernel)
    table = np.pad(sincos_positions(module.grid, module.width), ((1, 0), (0, 0)))
    others = rf"encoder\..*|{CONSTANTS}" if prefix else ""
    return Layout(name, leaves, {f"{prefix}decoder_pos_embed": table[None]}, ignored=others)


def _within(layout: Layout, prefix: str, others: str) -> Layout:
    """The layout with a prefix before every name, in a file that has `others` too."""

    def longer(names):
        if isinstance(names, str):
            return prefix + names
        return type(names)(longer(name) for name in names)

    return Layout(
        f"{layout.name}, within RAE",
        {ours: Source(longer(s.names), s.turn) for ours, s in layout.leaves.items()},
        {prefix + name: value for name, value in layout.constants.items()},
        ignored=rf"{re.escape(prefix)}({layout.ignored})|{others}",
    )


def _block(theirs: str, attention: tuple[str, ...]) -> dict[str, Source]:
    *qkv, projection = (f"{theirs}.{name}" for name in attention)
    ours = "blocks/layers"
    return {
        **torch_norm(f"{ours}/norm1", f"{theirs}.layernorm_before"),
        **torch_norm(f"{ours}/norm2", f"{theirs}.layernorm_after"),
        f"{ours}/attention/qkv/kernel": Source(tuple(f"{n}.weight" for n in qkv), linear_kernel),
        f"{ours}/attention/qkv/bias": Source(tuple(f"{n}.bias" for n in qkv)),
        **torch_layer(f"{ours}/attention/projection", projection, linear_kernel),
        **torch_layer(f"{ours}/mlp/expand", f"{theirs}.intermediate.dense", linear_kernel),
        **torch_layer(f"{ours}/mlp/contract", f"{theirs}.output.dense", linear_kernel),
    }
