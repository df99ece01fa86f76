"""Reading arrays that every process needs whole: each reads a part, and the devices exchange them.

Without this, every one of N processes would read a replicated checkpoint: N times its bytes.
"""

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

SMALLEST = 2**16  # elements; smaller arrays are read by all


def spread(abstract: PyTree) -> PyTree:
    """The same shapes, each large one that is replicated split over all devices instead, where
    several processes read."""
    if jax.process_count() == 1:
        return abstract
    return jax.tree.map(_spread, abstract)


def _spread(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding) or not sharding.is_fully_replicated:
        return leaf
    count = sharding.mesh.devices.size
    axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if count == 1 or not axes or np.prod(leaf.shape, dtype=np.int64) < SMALLEST:
        return leaf
    axis = max(axes, key=lambda axis: leaf.shape[axis])
    split = NamedSharding(sharding.mesh, P(*(None,) * axis, sharding.mesh.axis_names))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split)


def gather(arrays: PyTree, abstract: PyTree) -> PyTree:
    """Arrays that were read on `spread(abstract)`, on the shardings of `abstract`."""
    if jax.process_count() == 1:  # nothing was spread
        return arrays
    leaves, tree = jax.tree.flatten(arrays)
    targets = [leaf.sharding for leaf in jax.tree.leaves(abstract)]
    moved = [i for i, leaf in enumerate(leaves) if leaf.sharding != targets[i]]
    if moved:
        exchange = jax.jit(
            lambda found: found, out_shardings=[targets[i] for i in moved], donate_argnums=0
        )
        for i, leaf in zip(moved, exchange([leaves[i] for i in moved]), strict=True):
            leaves[i] = leaf
    return jax.tree.unflatten(tree, leaves)
