"""Augmentation of what a discriminator sees, differentiable in the images (DiffAug, 2006.10738;
docs/systems/hae.md#dino-disc)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float32

from sphere_jax.common.shapes import AnyArray, Images, Keys

SHIFT = 1 / 8  # the largest, of a side
DRAWS = 5


def augment(images: Images, keys: Keys) -> Images:
    """Images (B, H, W, C) in [-1, 1], each moved and recoloured at random by its key."""
    draws = jax.vmap(lambda key: jax.random.uniform(key, (DRAWS,)))(keys)
    return augmented(images, draws)


def augmented(images: Images, draws: Float32[AnyArray, "batch 5"]) -> Images:
    """Moved by up to 1/8 of a side each way, with zeros outside, then brightness +-0.5, saturation
    0 to 2 and contrast 0.5 to 1.5, as StyleGAN-T's code does with these draws of U(0, 1)."""
    height, width = images.shape[1:3]
    moved = jax.vmap(_moved, (0, 0, None))(
        images.astype(jnp.float32), draws[:, :2], (round(SHIFT * height), round(SHIFT * width))
    )
    bright, saturation, contrast = draws[:, 2:].T.reshape(3, -1, 1, 1, 1)
    x = moved + (bright - 0.5)
    grey = x.mean(-1, keepdims=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (contrast + 0.5) + mean


def _moved(image, draws, most):
    """One image (H, W, C), its content moved against the shift."""
    padded = jnp.pad(image, [(most[0], most[0]), (most[1], most[1]), (0, 0)])
    start = [jnp.floor(draws[k] * (2 * most[k] + 1)).astype(jnp.int32) for k in range(2)]
    return jax.lax.dynamic_slice(padded, (*start, 0), image.shape)
