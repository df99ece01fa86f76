"""What transformers and ConvNeXt V2 share as feature networks: how images become their input.

Two ways are published: Pillow's resizing of 8-bit images, as the networks were trained and as
dgm-eval has it; and FDr^6's (2604.28190), in floats that are neither rounded nor clipped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from sphere_jax.evaluation.features.published import Published
from sphere_jax.models.imagenet import normalize
from sphere_jax.nn.resize import bicubic, pillow_bicubic


class ImageTower(Published):
    """A network on square images of `side` pixels; `normalized` takes RGB in [0, 1].

    whole: images are resized as Pillow resizes them, to whole numbers; else in floats.
    patch: the normalised image gets zeros at its right and bottom, up to a multiple of it.
    """

    side: int = 224
    whole: bool = False
    patch: int = 1
    normalized: Callable[[jax.Array], jax.Array] = staticmethod(normalize)

    def prepare(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b y x 3"]:
        if self.whole:
            x = pillow_bicubic(images, self.side, self.side) / 255
        else:
            x = bicubic(images.astype(jnp.float32) / 255, self.side, self.side, antialias=True)
        missing = -self.side % self.patch
        return jnp.pad(self.normalized(x), ((0, 0), (0, missing), (0, missing), (0, 0)))

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        """The class token after the last norm."""
        return {"features": module(x).cls}
