"""What the DINO networks share: the class token of an image at 224 pixels."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from sphere_jax.evaluation.features.published import SIDE, Published
from sphere_jax.models.imagenet import normalize
from sphere_jax.nn.resize import bicubic


class ClassToken(Published):
    """The class token after the last norm."""

    def prepare(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b 224 224 3"]:
        """Resized bicubically with antialiasing, ImageNet-normalised."""
        images = bicubic(images.astype(jnp.float32), SIDE, SIDE, antialias=True)
        return normalize(jnp.clip(images / 255, 0, 1))

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        return {"features": module(x).cls}
