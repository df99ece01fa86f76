"""Pixel differences of float images in [-1, 1]."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from sphere_jax.common.shapes import AnyArray

Images = Float[AnyArray, "*shape"]


def pixel_loss(images: Images, target: Images, l1: float, l2: float) -> Float32[Array, ""]:
    """`l1 mean|x - y| + l2 mean (x - y)^2` of images of any shape, a float32 scalar."""
    error = images.astype(jnp.float32) - target
    return l1 * jnp.mean(jnp.abs(error)) + l2 * jnp.mean(error**2)


def smooth_l1(images: Images, target: Images) -> Float32[Array, ""]:
    """Huber loss: the mean of `e^2 / 2` where |e| < 1, else `|e| - 1/2`, a float32 scalar.

    Images of any shape.
    """
    error = jnp.abs(images.astype(jnp.float32) - target)
    return jnp.mean(jnp.where(error < 1.0, 0.5 * error**2, error - 0.5))
