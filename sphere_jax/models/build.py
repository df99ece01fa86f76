"""The network that a config names."""

from functools import partial

import jax.numpy as jnp

from sphere_jax.errors import UserError
from sphere_jax.models.lightning_dit import SIZES as LIGHTNING_DIT_SIZES
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.sit import SIZES as SIT_SIZES
from sphere_jax.models.sit import SiT
from sphere_jax.nn.functional import Network
from sphere_jax.options import DenoiserModel, LightningDiTModel, Model


def latent_network(model: Model, latent_shape: tuple[int, int, int], num_classes: int) -> Network:
    """`apply(params, z (B,h,w,d), t (B,), labels (B,)) -> (B,h,w,d)`; a denoiser takes no t.

    Raises:
      UserError: the patch does not divide the latent grid, or the heads the width.
    """
    sizes = SIT_SIZES if model.name == "sit" else LIGHTNING_DIT_SIZES
    own = (model.depth, model.width, model.heads)
    depth, width, heads = sizes[model.size] if model.size else own
    if isinstance(model, DenoiserModel):
        build = partial(LightningDiT, time_embedding=None, qk_norm=True, gate_bias=False)
    elif isinstance(model, LightningDiTModel):
        build = partial(LightningDiT, time_embedding=model.time_embedding, qk_norm=model.qk_norm)
    else:
        build = SiT
    build = partial(
        build,
        compute_dtype=jnp.dtype(model.compute_dtype),
        unroll=model.unroll,
        remat=model.remat,
    )
    try:
        return Network(
            lambda rngs: build(
                latent_shape, model.patch, width, depth, heads, num_classes, rngs=rngs
            )
        )
    except ValueError as error:
        raise UserError(f"config.model: {error}.") from error
