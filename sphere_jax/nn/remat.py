"""What the backward pass computes again instead of storing it."""

from collections.abc import Callable
from typing import get_args

import jax

from sphere_jax.config.options import Remat


def recomputed(layer: Callable, remat: Remat) -> Callable:
    """`layer` with the activations of its backward pass recomputed as `remat` says.

    "products" stores the results of linear layers, which are most of the work and a part of the
    memory; attention weights, norms and modulations are computed again.

    Raises:
        ValueError: if `remat` is none of these.
    """
    if remat == "none":
        return layer
    if remat == "products":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        return jax.checkpoint(layer, policy=policy)
    if remat == "blocks":
        return jax.checkpoint(layer)
    raise ValueError(f"remat={remat!r} is none of {', '.join(get_args(Remat))}")
