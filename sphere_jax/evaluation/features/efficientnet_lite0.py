"""EfficientNet-Lite0, an ImageNet classifier that is quick on CPU."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from sphere_jax.evaluation.features.published import SIDE, Published
from sphere_jax.models.efficientnet_lite import efficientnet_input
from sphere_jax.nn.functional import Params
from sphere_jax.nn.resize import bicubic


class Lite0(Published):
    """The 1280 pooled features before its classifier."""

    def prepare(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b 224 224 3"]:
        """Resized bicubically with antialiasing."""
        images = bicubic(images.astype(jnp.float32) / 127.5 - 1, SIDE, SIDE, antialias=True)
        return efficientnet_input(images)

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b 1280"]]:
        return {"features": module.features(x)["pooled"]}

    def classes(
        self, params: Params, features: Float32[np.ndarray, "n 1280"]
    ) -> Int[np.ndarray, " n"]:
        head = params["classifier"]
        return np.argmax(features @ np.asarray(head["kernel"]) + np.asarray(head["bias"]), axis=-1)


FEATURES = Lite0("efficientnet_lite0")
