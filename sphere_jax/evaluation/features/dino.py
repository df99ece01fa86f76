"""What the DINO networks share: the class token of an image at 224 pixels."""

import jax.numpy as jnp

from sphere_jax.evaluation.features.published import SIDE, Published
from sphere_jax.models.imagenet import normalize
from sphere_jax.nn.resize import bicubic


class ClassToken(Published):
    """The class token after the last norm."""

    def prepare(self, images):
        """Resized bicubically with antialiasing, ImageNet-normalised."""
        images = bicubic(images.astype(jnp.float32), SIDE, SIDE, antialias=True)
        return normalize(jnp.clip(images / 255, 0, 1))

    def read(self, module, x):
        return module(x).cls
