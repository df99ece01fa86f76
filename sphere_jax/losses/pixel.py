"""Pixel differences of float images in [-1, 1]."""

import jax
import jax.numpy as jnp


def pixel_loss(images: jax.Array, target: jax.Array, l1: float, l2: float) -> jax.Array:
    """`l1 mean|x - y| + l2 mean (x - y)^2`, a float32 scalar."""
    error = images.astype(jnp.float32) - target
    return l1 * jnp.mean(jnp.abs(error)) + l2 * jnp.mean(error**2)


def smooth_l1(images: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of `e^2 / 2` where |e| < 1, else `|e| - 1/2`: Huber's loss, a float32 scalar."""
    error = jnp.abs(images.astype(jnp.float32) - target)
    return jnp.mean(jnp.where(error < 1.0, 0.5 * error**2, error - 0.5))
