"""What a network on latents is: found by its name, `config.model.name="sit"` is `NETWORK` of
`models/sit.py`; a name with a dot is a module of another package.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from sphere_jax.config.options import NetworkOptions, SpaceOptions
from sphere_jax.nn.functional import Network


def fits_any_space(options: NetworkOptions, space: SpaceOptions) -> str:
    """No reason against any space."""
    return ""


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
    unfit_space: Callable[[Any, SpaceOptions], str] = fits_any_space
