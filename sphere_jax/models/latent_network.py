"""What a network on latents is: found by its name, `config.model.name="sit"` is `NETWORK` of
`models/sit.py`; a name with a dot is a module of another package.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import NetworkOptions, SpaceOptions
from sphere_jax.models.parameterization import as_our_velocity, unfit_space
from sphere_jax.nn.functional import Network


@dataclasses.dataclass(frozen=True)
class LatentNetwork:
    """A kind of network.

    Options: a subclass of `NetworkOptions` whose `name` is its name.
    build: `(options, latent_shape (h, w, d), num_classes) -> Network` with
      `apply(params, z (B,h,w,d), t (B,), labels (B,)) -> (B,h,w,d)`; the field is a velocity in our
      parameterization. Without time (`takes_time`) there is no t. Raises UserError for sizes that
      do not fit each other.
    unfit_space: why options do not fit a space, as the end of a sentence that begins
      "config.model."; "" if they do.
    """

    Options: type[NetworkOptions]
    build: Callable[[Any, tuple[int, int, int], int], Network]
    takes_time: bool = True
    unfit_space: Callable[[Any, SpaceOptions], str] = unfit_space


def transformer(
    module: Callable[..., nnx.Module],
    sizes: Mapping[str, tuple[int, int, int]],
    options: Any,
    latent_shape: tuple[int, int, int],
    num_classes: int,
) -> Network:
    """The network of a transformer on latents, with the `apply` of `LatentNetwork.build`.

    `sizes` are (depth, width, heads) of the published ones that `options.size` names.

    Raises:
      UserError: the patch does not divide the latent grid, or the heads the width.
    """
    free = (options.depth, options.width, options.heads)
    depth, width, heads = sizes[options.size] if options.size else free
    build = partial(
        module,
        latent_shape,
        options.patch,
        width,
        depth,
        heads,
        num_classes,
        compute_dtype=jnp.dtype(options.compute_dtype),
        unroll=options.unroll,
        remat=options.remat,
    )
    try:
        return as_our_velocity(options.parameterization, lambda rngs: build(rngs=rngs))
    except ValueError as error:
        raise UserError(f"config.model: {error}.") from error
