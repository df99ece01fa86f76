"""EfficientNet-Lite0, an ImageNet classifier that is quick on CPU."""

import jax.numpy as jnp
import numpy as np

from sphere_jax.evaluation.features.published import SIDE, Published
from sphere_jax.models.efficientnet_lite import efficientnet_input
from sphere_jax.nn.resize import bicubic


class Lite0(Published):
    """The 1280 pooled features before its classifier."""

    def prepare(self, images):
        """Resized bicubically with antialiasing."""
        images = bicubic(images.astype(jnp.float32) / 127.5 - 1, SIDE, SIDE, antialias=True)
        return efficientnet_input(images)

    def read(self, module, x):
        return module.features(x)["pooled"]

    def classes(self, params, features):
        head = params["classifier"]
        return np.argmax(features @ np.asarray(head["kernel"]) + np.asarray(head["bias"]), axis=-1)


FEATURES = Lite0("efficientnet_lite0")
