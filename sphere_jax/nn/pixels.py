"""Images are uint8 in files and float32 in [-1, 1] in programs."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt8

from sphere_jax.common.shapes import AnyArray

Rounding = Literal["nearest", "truncated", "floor"]


def to_float(images: UInt8[AnyArray, "*shape"]) -> Float32[AnyArray, "*shape"]:
    """uint8 (..., H, W, C) to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(
    images: Float[AnyArray, "*shape"], rounding: Rounding = "nearest"
) -> UInt8[Array, "*shape"]:
    """Floats (..., H, W, C) in [-1, 1] to uint8, clipped and rounded.

    "nearest" is round(127.5 x + 127.5), "truncated" int(127.5 x + 128), "floor" int(127.5 x +
    127.5): published samplers differ in it, and their FIDs with them.
    """
    if rounding == "nearest":
        return jnp.round(jnp.clip(images * 127.5 + 127.5, 0.0, 255.0)).astype(jnp.uint8)
    shift = 128.0 if rounding == "truncated" else 127.5
    return jnp.floor(jnp.clip(images * 127.5 + shift, 0.0, 255.0)).astype(jnp.uint8)
