"""Shared by trained tokenizers with latents on the global sphere, perhaps given classes."""

import jax.numpy as jnp

from sphere_jax.common.shapes import Images, Labels, Latents
from sphere_jax.config.checks import check
from sphere_jax.config.options import Config
from sphere_jax.geometry import sphere
from sphere_jax.nn.functional import Params
from sphere_jax.tokenizers.trained import Trained


class Spherical(Trained):
    """Labels are (B,) int32 in [0, num_classes] or mixtures (B, num_classes + 1), None for the null
    label; `num_classes` is 0 where the networks take none. Its options have a `patch`."""

    num_classes: int

    @classmethod
    def check(cls, config: Config) -> None:
        size, patch = config.data.image_size, config.tokenizer.patch
        check(
            size % patch == 0,
            f"config.data.image_size={size} must be a multiple of config.tokenizer.patch={patch}.",
        )

    def raw(self, params: Params, images: Images, labels: Labels | None = None) -> Latents:
        """Float images to latents (B, h, w, d) before they are put on the sphere."""
        raise NotImplementedError

    def encode(self, params: Params, images: Images, labels: Labels | None = None) -> Latents:
        """Float images to points of the global sphere (B, h, w, d), RMS 1."""
        return sphere.spherify(self.raw(params, images, labels))

    def _labels(self, like: Images | Latents, labels: Labels | None) -> Labels | None:
        if self.num_classes == 0:
            return None
        return jnp.full(len(like), self.num_classes, jnp.int32) if labels is None else labels
