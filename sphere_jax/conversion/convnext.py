"""ConvNeXt weights."""

from collections.abc import Callable
from typing import NamedTuple

from sphere_jax.conversion.tensors import (
    Source,
    Tensors,
    conv_kernel,
    convert,
    flat,
    linear_kernel,
    stack,
    torch_layer,
    torch_norm,
)
from sphere_jax.nn.functional import Network, Params


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
    last_norm="norm",
    head="head",
)


def from_torchvision(tensors: Tensors, network: Network) -> Params:
    """torchvision's layout: "features.0.0.weight" ... "classifier.2.weight".

    `network` is of the module `ConvNeXt`. Raises ValueError as `convert` does.
    """
    return convert(tensors, _layout(TORCHVISION, network), network)


def from_timm(tensors: Tensors, network: Network) -> Params:
    """timm's layout: "stem.0.weight", "stages.0.blocks.0.conv_dw.weight" ... "head.fc.weight".

    `network` is of the module `ConvNeXt`. Raises ValueError as `convert` does.
    """
    return convert(tensors, _layout(TIMM, network), network)


def from_original(tensors: Tensors, network: Network) -> Params:
    """The authors' layout: "downsample_layers.0.0.weight", "stages.0.0.dwconv.weight" ...

    `network` is of the module `ConvNeXt`. Raises ValueError as `convert` does.
    """
    return convert(tensors, _layout(ORIGINAL, network), network)


def from_published(tensors: Tensors, network: Network) -> Params:
    """Any of the three layouts, told by its names. Raises ValueError if they are of none."""
    for sign, layout in (
        ("features.0.0.weight", from_torchvision),
        ("stem.0.weight", from_timm),
        ("downsample_layers.0.0.weight", from_original),
    ):
        if sign in tensors:
            return layout(tensors, network)
    raise ValueError("no ConvNeXt tensors by the names of torchvision, timm or the authors")


def _layout(names: Names, network: Network) -> dict[str, Source]:
    layout = torch_norm("norm", names.last_norm)
    layout |= torch_layer("head", names.head, linear_kernel)
    for k, depth in enumerate(network.module.depths):
        layout |= torch_layer(f"convs/{k}", names.conv(k), conv_kernel)
        layout |= torch_norm(f"norms/{k}", names.norm(k))
        ours = f"stages/{k}/layers"
        layout |= stack([_block(ours, names.block(k, n), names) for n in range(depth)])
    return layout


def _block(ours: str, theirs: str, names: Names) -> dict[str, Source]:
    return {
        **torch_layer(f"{ours}/depthwise", f"{theirs}.{names.depthwise}", conv_kernel),
        **torch_norm(f"{ours}/norm", f"{theirs}.{names.block_norm}"),
        **torch_layer(f"{ours}/expand", f"{theirs}.{names.expand}", linear_kernel),
        **torch_layer(f"{ours}/contract", f"{theirs}.{names.contract}", linear_kernel),
        f"{ours}/scale": Source(f"{theirs}.{names.scale}", flat),
    }
