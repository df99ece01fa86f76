"""Pixel differences of float images in [-1, 1]."""

import jax
import jax.numpy as jnp
import numpy as np


def pixel_loss(images: jax.Array, target: jax.Array, l1: float, l2: float) -> jax.Array:
    """`l1 mean|x - y| + l2 mean (x - y)^2`, a float32 scalar."""
    error = images.astype(jnp.float32) - target
    return l1 * jnp.mean(jnp.abs(error)) + l2 * jnp.mean(error**2)


def psnr(images: np.ndarray, target: np.ndarray) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB of uint8 images (N, H, W, C)."""
    error = images.astype(np.float64) - target.astype(np.float64)
    mean_square = np.maximum((error**2).mean(axis=(1, 2, 3)), 1e-10)
    return float(np.mean(10 * np.log10(255.0**2 / mean_square)))
