"""From a file of named tensors to a tree of parameters.

A layout says for every leaf of ours ("convs/0/kernel") which published tensor it is and how that
one lies in memory. What does not fit is reported before anything is built from it.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes  # noqa: F401  (makes bfloat16 a type of numpy, which safetensors asks for)
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sphere_jax.nn.functional import Network, Params

Tensors = Mapping[str, np.ndarray]
SHOWN = 3  # names listed of each kind of misfit


def as_is(tensor: np.ndarray) -> np.ndarray:
    return tensor


def flat(tensor: np.ndarray) -> np.ndarray:
    """A vector that was stored with axes of length one."""
    return tensor.reshape(-1)


def conv_kernel(tensor: np.ndarray) -> np.ndarray:
    """PyTorch's OIHW to HWIO; depthwise kernels too."""
    return tensor.transpose(2, 3, 1, 0)


def linear_kernel(tensor: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in) to (in, out)."""
    return tensor.T


class Source(NamedTuple):
    """The published tensor of a leaf, or one a layer of a stack, and its way to our axes."""

    names: str | list[str]
    turn: Callable[[np.ndarray], np.ndarray] = as_is


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All tensors of a .safetensors file. Nothing in the file is executed.

    Raises:
      ValueError: there is no such file, or it is not a whole .safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not there")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a whole .safetensors file ({error})") from error


def convert(tensors: Tensors, layout: Mapping[str, Source], network: Network) -> Params:
    """The parameters of `network`, float32 numpy arrays, from tensors of that layout.

    Every leaf of the network is filled and every tensor is used.

    Raises:
      ValueError: tensors are missing, unexpected or of another shape; says how many and which.
    """
    wanted = jax.eval_shape(network.init, jax.random.key(0))
    paths, treedef = jax.tree_util.tree_flatten_with_path(wanted)
    leaves = {"/".join(str(part.key) for part in path): leaf.shape for path, leaf in paths}
    missing, misshapen, used = [], [], set()
    for name, shape in leaves.items():
        source = layout[name]
        stacked = not isinstance(source.names, str)
        for tensor in source.names if stacked else [source.names]:
            used.add(tensor)
            if tensor not in tensors:
                missing.append(tensor)
            elif not _fits(tensors[tensor], source.turn, shape[1:] if stacked else shape):
                misshapen.append(f"{tensor} {tensors[tensor].shape}")
    misfits = [("missing", missing), ("unexpected", set(tensors) - used), ("misshapen", misshapen)]
    if any(names for _, names in misfits):
        raise ValueError("; ".join(_count(kind, sorted(names)) for kind, names in misfits if names))
    return jax.tree.unflatten(treedef, [_fill(tensors, layout[name]) for name in leaves])


def torch_layer(ours: str, theirs: str, kernel: Callable) -> dict[str, Source]:
    """A convolution or linear layer of PyTorch, `kernel` being its `conv_` or `linear_kernel`."""
    return {
        f"{ours}/kernel": Source(f"{theirs}.weight", kernel),
        f"{ours}/bias": Source(f"{theirs}.bias"),
    }


def torch_norm(ours: str, theirs: str) -> dict[str, Source]:
    """A layer norm of PyTorch."""
    return {f"{ours}/scale": Source(f"{theirs}.weight"), f"{ours}/bias": Source(f"{theirs}.bias")}


def stack(layers: list[dict[str, Source]]) -> dict[str, Source]:
    """One layout of a stack of equal layers, from the layouts of its layers in order."""
    return {
        name: Source([layer[name].names for layer in layers], source.turn)
        for name, source in layers[0].items()
    }


def _fits(tensor: np.ndarray, turn: Callable, shape: tuple[int, ...]) -> bool:
    try:
        return turn(tensor).shape == shape
    except ValueError:  # another number of axes
        return False


def _fill(tensors: Tensors, source: Source) -> np.ndarray:
    if isinstance(source.names, str):
        return np.ascontiguousarray(source.turn(tensors[source.names]), np.float32)
    return np.stack([source.turn(tensors[name]) for name in source.names]).astype(np.float32)


def _count(kind: str, names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"
