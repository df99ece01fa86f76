"""What the backward pass computes again instead of storing it."""

from collections.abc import Callable
from typing import Literal

import jax

Remat = Literal[False, True, "products"]  # nothing, whole layers, all but linear layers


def recomputed(layer: Callable, remat: Remat) -> Callable:
    """`layer` with the activations of its backward pass recomputed as `remat` says.

    "products" stores the results of linear layers, which are most of the work and a part of the
    memory; attention weights, norms and modulations are computed again.
    """
    if not remat:
        return layer
    if remat == "products":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        return jax.checkpoint(layer, policy=policy)
    return jax.checkpoint(layer)
