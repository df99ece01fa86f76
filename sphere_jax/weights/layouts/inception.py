"""Inception-v3 weights of FID."""

from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    conv_kernel,
    linear_kernel,
    named_leaves,
    torch_layer,
)

NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def layouts(network: Network) -> list[Layout]:
    """pytorch-fid's: "Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.bn.running_mean" ...

    torch-fidelity has the same names. `network` is of the module `Inception`.
    """
    leaves = torch_layer("fc", "fc", linear_kernel)
    params = network.shapes
    for ours in named_leaves(params):
        layer, _, leaf = ours.rpartition("/")
        if leaf == "kernel" and layer != "fc":
            theirs = layer[0].upper() + layer[1:].replace("/", ".")
            leaves[ours] = Source(f"{theirs}.conv.weight", conv_kernel)
            leaves |= batch_norm(f"{layer}/norm", f"{theirs}.bn")
    return [Layout("pytorch-fid", leaves, ignored=r".*\.num_batches_tracked|AuxLogits\..*")]


def batch_norm(ours: str, theirs: str) -> dict[str, Source]:
    """A batch norm of PyTorch with its statistics."""
    return {f"{ours}/{leaf}": Source(f"{theirs}.{name}") for leaf, name in NORM.items()}
