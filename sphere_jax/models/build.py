"""The network that a config names."""

from functools import partial

import jax.numpy as jnp

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import (
    DenoiserModel,
    LightningDDTModel,
    LightningDiTModel,
    Model,
    SiTModel,
)
from sphere_jax.models import lightning_ddt, lightning_dit, sit
from sphere_jax.models import parameterization as clock
from sphere_jax.models.lightning_ddt import LightningDDT
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.sit import SiT
from sphere_jax.nn.functional import Network, Params

SIZES = {
    SiTModel: sit.SIZES,
    LightningDiTModel: lightning_dit.SIZES,
    LightningDDTModel: lightning_ddt.SIZES,
    DenoiserModel: lightning_dit.SIZES,
}
ADAPTERS = {
    "data_at_one": clock.from_data_at_one,
    "noise_prediction": clock.from_noise_prediction,
    "unit_sphere": clock.from_unit_sphere,
}


def latent_network(model: Model, latent_shape: tuple[int, int, int], num_classes: int) -> Network:
    """`apply(params, z (B,h,w,d), t (B,), labels (B,)) -> (B,h,w,d)`; a denoiser takes no t.

    The field is a velocity on our clock whatever clock the network was published on.

    Raises:
      UserError: the patch does not divide the latent grid, or the heads the width.
    """
    own = (model.depth, model.width, model.heads)
    depth, width, heads = SIZES[type(model)][model.size] if model.size else own
    build = partial(
        _module(model),
        latent_shape,
        model.patch,
        width,
        depth,
        heads,
        num_classes,
        compute_dtype=jnp.dtype(model.compute_dtype),
        unroll=model.unroll,
        remat=model.remat,
    )
    try:
        network = Network(lambda rngs: build(rngs=rngs))
    except ValueError as error:
        raise UserError(f"config.model: {error}.") from error
    adapter = ADAPTERS.get(getattr(model, "clock", ""))
    return network if adapter is None else OnOurClock(lambda rngs: build(rngs=rngs), adapter)


def _module(model: Model):
    if isinstance(model, DenoiserModel):
        return partial(LightningDiT, time_embedding=None, qk_norm=True, gate_bias=False)
    if isinstance(model, LightningDiTModel):
        return partial(LightningDiT, time_embedding=model.time_embedding, qk_norm=model.qk_norm)
    if isinstance(model, LightningDDTModel):
        return partial(
            LightningDDT,
            head_width=model.head_width,
            head_depth=model.head_depth,
            head_heads=model.head_heads,
            qk_norm=model.qk_norm,
        )
    return partial(SiT, learn_sigma=model.learn_sigma)


class OnOurClock(Network):
    """A network whose field is translated by one of `models.clock`."""

    def __init__(self, build, adapter):
        super().__init__(build)
        self._adapter = adapter

    def apply(self, params: Params, z, t, labels):
        return self._adapter(partial(super().apply, params))(z, t, labels)
