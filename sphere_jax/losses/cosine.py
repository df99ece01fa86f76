"""Differences of direction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from sphere_jax.common.shapes import AnyArray

Samples = Float[AnyArray, "batch *rest"]


def cosine_distance(
    a: Samples, b: Samples, axes: tuple[int, ...] | None = None
) -> Float32[Array, ""]:
    """Mean of `1 - cos(a, b)` for arrays (B, ...) of one shape, a float32 scalar.

    The cosine is that of vectors along `axes`, by default all axes but the first. At zero vectors
    the distance is 1, with finite gradients.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    axes = tuple(range(1, a.ndim)) if axes is None else axes
    product = jnp.sum(a * b, axes)
    squares = jnp.sum(a * a, axes) * jnp.sum(b * b, axes)
    return jnp.mean(1.0 - product * jax.lax.rsqrt(squares + 1e-16))
