"""Weights of ConvNeXt and ConvNeXt V2."""

from collections.abc import Callable
from typing import NamedTuple

from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    conv_kernel,
    flat,
    linear_kernel,
    stack,
    torch_layer,
    torch_norm,
)


class Names(NamedTuple):
    """What a published layout calls the layers of stage k and of its block n."""

    conv: Callable[[int], str]  # the stem at k = 0, then the strided convolutions
    norm: Callable[[int], str]  # behind the stem, before the others
    block: Callable[[int, int], str]
    depthwise: str
    block_norm: str
    expand: str
    contract: str
    scale: str
    grn: tuple[str, str]  # scale and bias
    last_norm: str
    head: str


TORCHVISION = Names(
    conv=lambda k: f"features.{2 * k}.{1 if k else 0}",
    norm=lambda k: f"features.{2 * k}.{0 if k else 1}",
    block=lambda k, n: f"features.{2 * k + 1}.{n}",
    depthwise="block.0",
    block_norm="block.2",
    expand="block.3",
    contract="block.5",
    scale="layer_scale",
    grn=("", ""),  # torchvision has no V2
    last_norm="classifier.0",
    head="classifier.2",
)
TIMM = Names(
    conv=lambda k: f"stages.{k}.downsample.1" if k else "stem.0",
    norm=lambda k: f"stages.{k}.downsample.0" if k else "stem.1",
    block=lambda k, n: f"stages.{k}.blocks.{n}",
    depthwise="conv_dw",
    block_norm="norm",
    expand="mlp.fc1",
    contract="mlp.fc2",
    scale="gamma",
    grn=("mlp.grn.weight", "mlp.grn.bias"),
    last_norm="head.norm",
    head="head.fc",
)
ORIGINAL = Names(
    conv=lambda k: f"downsample_layers.{k}.{1 if k else 0}",
    norm=lambda k: f"downsample_layers.{k}.{0 if k else 1}",
    block=lambda k, n: f"stages.{k}.{n}",
    depthwise="dwconv",
    block_norm="norm",
    expand="pwconv1",
    contract="pwconv2",
    scale="gamma",
    grn=("grn.gamma", "grn.beta"),
    last_norm="norm",
    head="head",
)


def layouts(network: Network) -> list[Layout]:
    """torchvision's, timm's and the authors' names; `network` is of the module `ConvNeXt`.

    The V2 is not in torchvision.
    """
    return [
        Layout(whose, _leaves(names, network))
        for whose, names in (
            ("torchvision", TORCHVISION),
            ("timm", TIMM),
            ("the authors", ORIGINAL),
        )
        if names is not TORCHVISION or not network.module.grn
    ]


def _leaves(names: Names, network: Network) -> dict[str, Source]:
    leaves = torch_norm("norm", names.last_norm)
    leaves |= torch_layer("head", names.head, linear_kernel)
    for k, depth in enumerate(network.module.depths):
        leaves |= torch_layer(f"convs/{k}", names.conv(k), conv_kernel)
        leaves |= torch_norm(f"norms/{k}", names.norm(k))
        ours = f"stages/{k}/layers"
        grn = network.module.grn
        leaves |= stack([_block(ours, names.block(k, n), names, grn) for n in range(depth)])
    return leaves


def _block(ours: str, theirs: str, names: Names, grn: bool) -> dict[str, Source]:
    leaves = {
        **torch_layer(f"{ours}/depthwise", f"{theirs}.{names.depthwise}", conv_kernel),
        **torch_norm(f"{ours}/norm", f"{theirs}.{names.block_norm}"),
        **torch_layer(f"{ours}/expand", f"{theirs}.{names.expand}", linear_kernel),
        **torch_layer(f"{ours}/contract", f"{theirs}.{names.contract}", linear_kernel),
    }
    if not grn:
        return leaves | {f"{ours}/scale": Source(f"{theirs}.{names.scale}", flat)}
    for leaf, name in zip(("scale", "bias"), names.grn, strict=True):
        leaves[f"{ours}/grn/{leaf}"] = Source(f"{theirs}.{name}", flat)
    return leaves
