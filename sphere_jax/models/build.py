"""The network that a config names."""

import jax.numpy as jnp

from sphere_jax.config import Model
from sphere_jax.errors import UserError
from sphere_jax.models import lightning_dit, sit
from sphere_jax.nn.functional import Network


def velocity_network(model: Model, latent_shape: tuple[int, int, int], num_classes: int) -> Network:
    """`apply(params, z (B,h,w,d), t (B,), labels (B,)) -> v (B,h,w,d)`.

    Raises:
      UserError: the patch does not divide the latent grid, or the heads the width.
    """
    module = {"sit": sit, "lightning_dit": lightning_dit}[model.name]
    sizes = (model.depth, model.width, model.heads)
    if model.size and model.size not in module.SIZES:
        raise UserError(
            f"config.model.size='{model.size}' is not published for {model.name}; it has "
            f"{', '.join(module.SIZES)}."
        )
    depth, width, heads = module.SIZES[model.size] if model.size else sizes
    options = dict(
        compute_dtype=jnp.dtype(model.compute_dtype),
        unroll=model.unroll,
        remat=model.remat,
    )
    if model.name == "lightning_dit":
        options |= dict(qk_norm=model.qk_norm, time_embedding=model.time_embedding)
        build = lightning_dit.LightningDiT
    else:
        build = sit.SiT
    try:
        return Network(
            lambda rngs: build(
                latent_shape, model.patch, width, depth, heads, num_classes, rngs=rngs, **options
            )
        )
    except ValueError as error:
        raise UserError(f"config.model: {error}.") from error
