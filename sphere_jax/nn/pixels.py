"""uint8 at the edges, float32 in [-1, 1] inside."""

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """uint8 (..., H, W, C) to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """float32 in [-1, 1] to uint8, clipped and rounded to nearest."""
    return jnp.round(jnp.clip(images * 127.5 + 127.5, 0.0, 255.0)).astype(jnp.uint8)
