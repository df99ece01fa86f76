"""TAESD, TAEF1 and TAEF2 weights, both halves together: "encoder...." and "decoder....".

The author counts the layers of each half in sequence, those without parameters too. diffusers
(AutoencoderTiny) has no group norm, and its decoder squashes the latents outside of the sequence.
"""

from collections.abc import Callable

from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    conv_kernel,
    pointwise_kernel,
    stack,
    torch_layer,
    torch_norm,
)

# Number of each stage's convolution and of its blocks, and of the head, as diffusers counts them.
ENCODER = ((0, (1,)), (2, (3, 4, 5)), (6, (7, 8, 9)), (10, (11, 12, 13))), 14
DECODER = ((0, (2, 3, 4)), (6, (7, 8, 9)), (11, (12, 13, 14)), (16, (17,))), 18


def layouts(network: Network) -> list[Layout]:
    """All published layouts of the module `TinyVAE`: its author's and, for kinds without group
    norm, diffusers'."""
    group_norm = network.module.group_norm

    def leaves(encoder: Callable[[int], str], decoder: Callable[[int], str]) -> dict[str, Source]:
        return {
            **_half("encoder", *ENCODER, encoder, 3 if group_norm else None),
            **_half("decoder", *DECODER, decoder, 0 if group_norm else None),
        }

    author = Layout("its author", leaves(lambda n: f"encoder.{n}", lambda n: f"decoder.{n + 1}"))
    if group_norm:
        return [author]
    names = lambda n: f"encoder.layers.{n}", lambda n: f"decoder.layers.{n}"
    return [author, Layout("diffusers", leaves(*names))]


def _half(ours: str, stages, head: int, name: Callable[[int], str], normed: int | None):
    """Leaves of the encoder or decoder; stage `normed` has the group norms."""
    leaves = torch_layer(f"{ours}/head", name(head), conv_kernel)
    leaves |= torch_layer(f"{ours}/convs/0", name(0), conv_kernel)
    for k, (conv, blocks) in enumerate(stages):
        if k:  # no bias
            leaves[f"{ours}/convs/{k}/kernel"] = Source(f"{name(conv)}.weight", conv_kernel)
        ours_k = f"{ours}/stages/{k}/layers"
        leaves |= stack([_block(ours_k, name(block), k == normed) for block in blocks])
    return leaves


def _block(ours: str, theirs: str, group_norm: bool) -> dict[str, Source]:
    leaves = {}
    for i in range(3):
        leaves |= torch_layer(f"{ours}/convs/{i}", f"{theirs}.conv.{2 * i}", conv_kernel)
    if group_norm:
        leaves[f"{ours}/expand/kernel"] = Source(f"{theirs}.pool.0.weight", pointwise_kernel)
        leaves |= torch_norm(f"{ours}/norm", f"{theirs}.pool.1")
        leaves[f"{ours}/contract/kernel"] = Source(f"{theirs}.pool.3.weight", pointwise_kernel)
    return leaves
