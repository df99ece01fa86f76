"""What the backward pass computes again instead of storing it."""

from collections.abc import Callable
from typing import get_args

import jax
from jax.ad_checkpoint import checkpoint_name

from sphere_jax.common.shapes import Hidden
from sphere_jax.config.options import Remat

_PRODUCT = "product"


def product(y: Hidden) -> Hidden:
    """Marks the result of a linear layer as what "products" stores: with its bias and in the dtype
    in which the next layer reads it, so that no second array is written or read for it."""
    return checkpoint_name(y, _PRODUCT)


def recomputed(layer: Callable, remat: Remat) -> Callable:
    """`layer` with the activations of its backward pass recomputed as `remat` says.

    "products" stores the results of `Linear` layers, which are most of the work and a part of the
    memory; all else is computed again: attention, norms and modulations, and convolutions.

    Raises:
        ValueError: if `remat` is none of these.
    """
    if remat == "none":
        return layer
    if remat == "products":
        policy = jax.checkpoint_policies.save_only_these_names(_PRODUCT)
        return jax.checkpoint(layer, policy=policy)
    if remat == "blocks":
        return jax.checkpoint(layer)
    raise ValueError(f"remat={remat!r} is none of {', '.join(get_args(Remat))}")
