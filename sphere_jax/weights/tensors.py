"""From a file of named tensors to a tree of parameters, and back.

A layout names, for every leaf of ours ("convs/0/kernel"), the published tensors that it is made of
and their axes. What does not fit is reported before anything is built from it.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.nn.functional import Network, Params

Tensors = Mapping[str, np.ndarray]
SHOWN = 3  # names listed of each kind of misfit
CONSTANT_TOLERANCE = 1e-4  # of a published buffer against what we compute in its place


class Turn(NamedTuple):
    """A change of axes and its inverse, None where no exporter needs it."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray] | None = None


as_is = Turn(lambda x: x, lambda x: x)
flat = Turn(lambda x: x.reshape(-1))  # a vector that was stored with axes of length one
conv_kernel = Turn(  # PyTorch's OIHW to HWIO; depthwise kernels too
    lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
linear_kernel = Turn(lambda x: x.T, lambda x: x.T)  # PyTorch's (out, in) to (in, out)
pointwise_kernel = Turn(  # a 1x1 convolution as a matrix product
    lambda x: _squeeze(x, 2).T, lambda x: x.T.reshape(*x.T.shape, 1, 1)
)


def patch_kernel(patch: int) -> Turn:
    """A convolution (out, C, p, p) of stride p as a product with patches: (p p C, out)."""

    def to_theirs(x):
        rows = x.reshape(patch, patch, -1, x.shape[-1])
        return rows.transpose(3, 2, 0, 1)

    return Turn(lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]), to_theirs)


class Source(NamedTuple):
    """The published tensors of a leaf and their way to our axes.

    One name; a tuple of names, whose tensors stand side by side on our last axis (q, k, v as qkv);
    or a list of either, one a layer, stacked on a new first axis.
    """

    names: str | tuple[str, ...] | list
    turn: Turn = as_is


class Layout(NamedTuple):
    """One way in which a network is published.

    name: whose names they are.
    leaves: every leaf of ours by its path.
    constants: published buffers that our network computes: checked on the way in, written out.
    needed: those of them without which the weights are of another network.
    ignored: regular expression of names that the network does not use.
    """

    name: str
    leaves: Mapping[str, Source]
    constants: Mapping[str, np.ndarray] = {}
    needed: tuple[str, ...] = ()
    ignored: str = ""


def convert(
    tensors: Tensors, layouts: list[Layout], network: Network, dtype: np.dtype | None = np.float32
) -> Params:
    """The parameters of `network`, numpy arrays, from tensors in the layout that fits them best.

    Every leaf of the network is filled and every tensor is used. `dtype` None keeps that of the
    tensors. Tensors are read one leaf after the other.

    Raises:
      ValueError: tensors are missing, unexpected or of another shape, or a buffer holds other
        values than our network computes; the message has how many and which. A tensor is
        quantised, or holds NaN or infinity.
    """
    leaves = fit(tensors, layouts, network).leaves
    expected = network.shapes
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _fill(tensors, leaves[path_name(path)], dtype), expected
    )


def fit(tensors: Tensors, layouts: list[Layout], network: Network) -> Layout:
    """The layout that these tensors have. Raises ValueError as `convert` does; reads no weights."""
    layout = max(layouts, key=lambda layout: len(_names(layout) & set(tensors)))
    expected = network.shapes
    shapes = {name: leaf.shape for name, leaf in named_leaves(expected).items()}
    without = shapes.keys() - layout.leaves.keys()
    assert not without, f"layout {layout.name} lacks {sorted(without)}"
    _check(tensors, layout, shapes)
    return layout


def export(params: Params, layout: Layout) -> dict[str, np.ndarray]:
    """The inverse of `convert`: the published tensors of `params`, contiguous, in their dtype.

    Tensors that stand side by side in a leaf of ours are assumed to be of equal width.
    """
    found = {}
    for path, leaf in named_leaves(params).items():
        source, leaf = layout.leaves[path], np.asarray(leaf)
        stacked = isinstance(source.names, list)
        for names, tensor in zip(
            source.names if stacked else [source.names], leaf if stacked else [leaf], strict=True
        ):
            parts = names if isinstance(names, tuple) else (names,)
            for name, part in zip(parts, np.split(tensor, len(parts), axis=-1), strict=True):
                found[name] = np.require(source.turn.to_theirs(part), requirements="C")
    return found | {name: np.asarray(value) for name, value in layout.constants.items()}


def torch_layer(ours: str, theirs: str, kernel: Turn) -> dict[str, Source]:
    """A convolution or linear layer of PyTorch, `kernel` being that of its weight."""
    return {
        f"{ours}/kernel": Source(f"{theirs}.weight", kernel),
        f"{ours}/bias": Source(f"{theirs}.bias"),
    }


def torch_norm(ours: str, theirs: str) -> dict[str, Source]:
    """A layer norm or group norm of PyTorch."""
    return {f"{ours}/scale": Source(f"{theirs}.weight"), f"{ours}/bias": Source(f"{theirs}.bias")}


def stack(layers: list[dict[str, Source]]) -> dict[str, Source]:
    """The leaves of a stack of equal layers, from those of its layers in order."""
    return {
        name: Source([layer[name].names for layer in layers], source.turn)
        for name, source in layers[0].items()
    }


def named_leaves(tree) -> dict:
    """The leaves of a tree by their paths, "convs/0/kernel"."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(path) -> str:
    """A key path of JAX as "convs/0/kernel"."""
    return "/".join(str(part.key) for part in path)


def _names(layout: Layout) -> set[str]:
    return {name for source in layout.leaves.values() for name in _flatten(source.names)}


def _flatten(names) -> list[str]:
    return [names] if isinstance(names, str) else [n for part in names for n in _flatten(part)]


def _check(tensors: Tensors, layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in layout.needed if name not in tensors]
    misshapen, used = [], set()
    for path, shape in shapes.items():
        source = layout.leaves[path]
        stacked = isinstance(source.names, list)
        for names in source.names if stacked else [source.names]:
            parts = [names] if isinstance(names, str) else list(names)
            used |= set(parts)
            missing += [name for name in parts if name not in tensors]
            if all(name in tensors for name in parts) and not _fits(
                [shape_of(tensors, name) for name in parts],
                source.turn,
                shape[1:] if stacked else shape,
            ):
                misshapen += [f"{name} {shape_of(tensors, name)}" for name in parts]
    extra = set(tensors) - used - layout.constants.keys()
    extra = {n for n in extra if not (layout.ignored and re.fullmatch(layout.ignored, n))}
    other = [
        n for n, value in layout.constants.items() if n in tensors and _differs(tensors[n], value)
    ]
    misfits = [("missing", missing), ("unexpected", extra), ("misshapen", misshapen)]
    misfits += [("with other values than they are computed here", other)]
    if any(names for _, names in misfits):
        counts = "; ".join(_count(kind, sorted(names)) for kind, names in misfits if names)
        raise ValueError(f"{counts}, by the names of {layout.name}")


def shape_of(tensors: Tensors, name: str) -> tuple[int, ...]:
    """Its shape, without reading it where the mapping knows (`opening.StoredTensors`)."""
    shape = getattr(tensors, "shape_of", None)
    return tuple(shape(name)) if shape else tensors[name].shape


def _fits(shapes: list[tuple[int, ...]], turn: Turn, expected: tuple[int, ...]) -> bool:
    try:
        turned = [turn.to_ours(np.broadcast_to(np.int8(0), shape)).shape for shape in shapes]
    except ValueError:  # another number of axes
        return False
    if len({shape[:-1] for shape in turned}) > 1:
        return False
    joined = sum(shape[-1] for shape in turned) if expected and len(turned) > 1 else None
    return (turned[0] if joined is None else (*turned[0][:-1], joined)) == expected


def _fill(tensors: Tensors, source: Source, dtype) -> np.ndarray:
    def read(names):
        if isinstance(names, tuple):
            parts = [source.turn.to_ours(_numbers(tensors, name)) for name in names]
            return np.concatenate(parts, axis=-1)
        return source.turn.to_ours(_numbers(tensors, names))

    if isinstance(source.names, list):
        found = np.stack([read(names) for names in source.names])
    else:
        found = read(source.names)
    return np.require(found, dtype or found.dtype, "C")


def _numbers(tensors: Tensors, name: str) -> np.ndarray:
    """A tensor of weights. Raises ValueError for one that is quantised or not finite."""
    found = tensors[name]
    if not jnp.issubdtype(found.dtype, jnp.floating) or found.dtype.itemsize < 2:
        raise ValueError(
            f"tensor '{name}' holds {found.dtype}, not floats of 16 bits or more; take the file in "
            "float32, bfloat16 or float16"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"tensor '{name}' holds NaN or infinity")
    return found


def _squeeze(x: np.ndarray, ndim: int) -> np.ndarray:
    """Drops trailing axes of length one. Raises ValueError for longer ones."""
    return x.reshape(x.shape[:ndim]) if x.ndim >= ndim else x


def _differs(found: np.ndarray, ours: np.ndarray) -> bool:
    if found.size != ours.size:
        return True
    distance = np.abs(np.float32(found).ravel() - np.float32(ours).ravel())
    return bool(distance.max(initial=0) > CONSTANT_TOLERANCE)


def _count(kind: str, names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"
