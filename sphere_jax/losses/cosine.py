"""Differences of direction."""

import jax
import jax.numpy as jnp


def cosine_distance(a: jax.Array, b: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """Mean of `1 - cos(a, b)`, a float32 scalar; the cosine is taken over `axes`, by default over
    all but the first. At zero vectors the distance is 1, with finite gradients.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    axes = tuple(range(1, a.ndim)) if axes is None else axes
    product = jnp.sum(a * b, axes)
    squares = jnp.sum(a * a, axes) * jnp.sum(b * b, axes)
    return jnp.mean(1.0 - product * jax.lax.rsqrt(squares + 1e-16))
